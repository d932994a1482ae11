//! Drives: making, importing, attaching and detaching volumes.
use std::sync::LazyLock;

use gpuhost_stdlib::wire::pve::props::{self, Props};

use super::conf;
use crate::pve::{content, space, task, text};
use crate::volume::{Content, Volume};
use crate::world::World;

/// Bytes per millisecond of an image copy.
const COPY_RATE: u64 = 50 << 10;
/// The lab's cloud images have this virtual size.
const CLOUD_IMAGE_SIZE: u64 = 3 << 30;

/// The names that disks may have, in the server's order; with or without `unused0`…`unused255`.
#[must_use]
pub fn names(unused: bool) -> &'static [&'static str] {
    static ALL: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        let kinds =
            [("ide", 4), ("scsi", 31), ("virtio", 16), ("sata", 6), ("efidisk", 1), ("tpmstate", 1), ("unused", 256)];
        let names = kinds.iter().flat_map(|(kind, n)| (0..*n).map(move |i| format!("{kind}{i}")));
        names.map(|n| &*Box::leak(n.into_boxed_str())).collect()
    });
    let end = if unused { ALL.len() } else { ALL.len() - 256 };
    &ALL[..end]
}

/// Name and format of the cloud-init drive of a VM.
#[must_use]
pub fn cloudinit_name(vmid: u32, dir: bool) -> (String, &'static str) {
    if dir { (format!("{vmid}/vm-{vmid}-cloudinit.qcow2"), "qcow2") } else { (format!("vm-{vmid}-cloudinit"), "raw") }
}

/// Keeps a volume that no drive of the VM refers to any more as `unusedN`.
pub fn keep_unused(w: &mut World, vmid: u32, volid: &str) -> Option<String> {
    let vm = w.pve.vms.get_mut(&vmid)?;
    let key = (0..256).map(|n| format!("unused{n}")).find(|k| !vm.conf.contains_key(k))?;
    vm.conf.insert(key.clone(), volid.to_owned());
    Some(key)
}

/// Takes a drive out of a config and its boot order; the volume stays.
pub fn forget(w: &mut World, vmid: u32, key: &str) -> Option<String> {
    let vm = w.pve.vms.get_mut(&vmid)?;
    let value = vm.conf.remove(key)?;
    if let Some(boot) = vm.conf.get("boot") {
        let mut b = props::read("boot", boot);
        if let Some(order) = b.get("order") {
            let text = order.split(';').filter(|d| *d != key).collect::<Vec<_>>().join(";");
            let boot = if text.is_empty() {
                " ".to_owned()
            } else {
                b.insert("order".into(), text);
                props::print("boot", &b)
            };
            vm.conf.insert("boot".into(), boot);
        }
    }
    Some(value)
}

/// Milliseconds that copying a volume takes.
#[must_use]
pub fn copy_ms(v: &Volume) -> u64 {
    500 + space::real_bytes(v) / COPY_RATE + v.size / (4 << 20)
}

/// Checks in the request what a drive refers to.
///
/// # Errors
/// The server's message.
pub fn check(w: &World, key: &str, value: &str) -> Result<(), String> {
    let p = props::read(key, value);
    let file = p.get("file").map(String::as_str).unwrap_or_default();
    let Some((storage, name)) = props::volume_id(file) else { return Ok(()) };
    if props::new_disk(file).is_some() || name == "cloudinit" {
        space::usable(w, storage, "images")?;
    } else if !w.pve.storages.contains_key(storage) {
        return Err(format!("storage '{storage}' does not exist"));
    }
    let Some(from) = p.get("import-from").filter(|f| !f.starts_with('/')) else { return Ok(()) };
    let store = from.split(':').next().unwrap_or_default();
    if !w.pve.storages.contains_key(store) {
        return Err(format!("storage '{store}' does not exist"));
    }
    let kind = w.pve.files.get(from).map(|f| f.content.clone());
    let kind = kind.or_else(|| from.contains(":iso/").then(|| "iso".to_owned()));
    match kind.as_deref() {
        Some("images" | "import") => Ok(()),
        Some(k) => {
            Err(format!("cannot import from '{from}' - {from} has wrong type '{k}' - needs to be 'images' or 'import'"))
        }
        None => Err(format!("cannot import from '{from}' - volume '{from}' does not exist")),
    }
}

/// Makes or attaches what a drive asks for. Answers the config value, the milliseconds it takes and the
/// volume that was made.
///
/// # Errors
/// The message the task ends with.
pub fn realize(
    w: &mut World,
    upid: Option<&str>,
    node: &str,
    vmid: u32,
    key: &str,
    value: &str,
) -> Result<(String, u64, Option<String>), String> {
    let mut p = props::read(key, value);
    let file = p.get("file").cloned().unwrap_or_default();
    if file == "none" || file == "cdrom" || file.starts_with('/') {
        return Ok((value.to_owned(), 0, None));
    }
    let log = |w: &mut World, line: String| {
        if let Some(u) = upid {
            task::log(w, u, line);
        }
    };
    let (storage, name) = props::volume_id(&file).ok_or_else(|| format!("unable to parse volume ID '{file}'"))?;
    let new = props::new_disk(&file).map(|(_, gib)| gib);
    if new.is_none() && name != "cloudinit" {
        let size = attached_size(w, key, &file, &p)?;
        if let Some(s) = size {
            p.insert("size".into(), props::print_disk_size(s));
        }
        return Ok((props::print(key, &p), 0, None));
    }
    let wait = space::storage_lock(w, storage).inspect_err(|_| {
        if let Some(u) = upid {
            task::log(w, u, "trying to acquire lock...");
        }
    })?;
    let dir = w.pve.storages.get(storage).is_some_and(crate::pve::state::Storage::is_dir);
    let (made, ms) = if name == "cloudinit" {
        let made = cloudinit(w, node, storage, vmid, dir)?;
        if dir {
            let path = content::path_of(w, &made);
            log(w, text::formatting(&path, "qcow2", 4 << 20, None));
        }
        (made, 300)
    } else {
        let (volume, ms) = content_of(w, key, &p, new.unwrap_or(0.0))?;
        let format = match p.remove("format") {
            Some(f) if dir => f,
            _ if dir && !key.starts_with("efi") && p.contains_key("import-from") => "qcow2".into(),
            _ => "raw".into(),
        };
        let import = p.remove("import-from");
        if let Some(from) = &import {
            log(w, format!("create full clone of drive ({from})"));
        }
        let name = space::next_name(w, storage, vmid, &format, "vm");
        let size = volume.size;
        p.insert("size".into(), props::print_disk_size(size));
        if dir {
            let path = content::path_of(w, &format!("{storage}:{name}"));
            log(w, text::formatting(&path, &format, size, None));
        }
        let new = space::New { node, storage, vmid, name, format: &format, kind: "images", base: None, volume };
        let made = space::create(w, new)?;
        if import.is_some() {
            log(w, format!("allocated target volume '{made}'"));
        }
        if import.is_some() || key == "efidisk0" {
            let all = space::pretty(size);
            log(w, format!("transferred 0.0 B of {all} (0.00%)"));
            log(w, format!("transferred {all} of {all} (100.00%)"));
        }
        (made, ms)
    };
    p.insert("file".into(), made.clone());
    if name == "cloudinit" {
        p.insert("media".into(), "cdrom".into());
    }
    let printed = props::print(key, &p);
    log(w, format!("{key}: successfully created disk '{printed}'"));
    Ok((printed, wait + ms, Some(made)))
}

/// Size to show for a volume that is attached as it is.
fn attached_size(w: &World, key: &str, file: &str, p: &Props) -> Result<Option<u64>, String> {
    let Some(v) = w.volumes.get(file) else {
        // Shared or foreign content that the lab does not know of.
        return Err(format!("volume '{file}' does not exist"));
    };
    let kind = w.pve.files.get(file).map(|f| f.content.as_str()).unwrap_or_default();
    if kind == "iso" && !conf::is_cdrom(p) {
        return Err(format!("cannot use '{file}' for '{key}': not a disk image"));
    }
    Ok(match kind {
        _ if conf::is_cloudinit(p) => None,
        "iso" => Some(v.size.div_ceil(512) * 512),
        _ => Some(v.size),
    })
}

/// Makes the cloud-init drive of a VM.
///
/// # Errors
/// Out of space.
pub fn cloudinit(w: &mut World, node: &str, storage: &str, vmid: u32, dir: bool) -> Result<String, String> {
    let (name, format) = cloudinit_name(vmid, dir);
    let volume = Volume::new(4 << 20, Content::CloudInit);
    if w.pve.files.contains_key(&format!("{storage}:{name}")) {
        return Err(format!("disk image '{storage}:{name}' already exists"));
    }
    space::create(w, space::New { node, storage, vmid, name, format, kind: "images", base: None, volume })
}

/// Contents of a new disk and the milliseconds it takes to write them.
fn content_of(w: &World, key: &str, p: &Props, gib: f64) -> Result<(Volume, u64), String> {
    let storage = p.get("file").and_then(|f| f.split(':').next()).unwrap_or_default();
    let dir = w.pve.storages.get(storage).is_some_and(crate::pve::state::Storage::is_dir);
    if key == "efidisk0" {
        let size = if dir { 528 << 10 } else { 1 << 20 };
        return Ok((Volume::new(size, Content::Firmware), 400));
    }
    if key == "tpmstate0" {
        return Ok((Volume::new(4 << 20, Content::Firmware), 200));
    }
    if let Some(from) = p.get("import-from") {
        let source = w.volumes.get(from).ok_or_else(|| format!("volume '{from}' does not exist"))?;
        let size = virtual_size(source).max((gib * (1u64 << 30) as f64) as u64);
        let volume = Volume { size, ..source.clone() };
        let ms = copy_ms(&volume);
        return Ok((volume, ms));
    }
    let size = (gib * (1u64 << 30) as f64) as u64;
    // The server allocates in KiB.
    Ok((Volume::blank(size.div_ceil(1024) * 1024), 300))
}

/// Virtual size of an image: from its qcow2 header, or its length.
#[must_use]
pub fn virtual_size(v: &Volume) -> u64 {
    use base64::Engine;
    match &v.content {
        Content::CloudImage { .. } => CLOUD_IMAGE_SIZE.max(v.size),
        Content::Bytes(text) => {
            // 44 characters of base64 are the first 33 bytes.
            let head = text.get(..44).and_then(|t| base64::engine::general_purpose::STANDARD.decode(t).ok());
            match head {
                Some(h) if h.starts_with(b"QFI\xfb") => {
                    h.get(24..32).and_then(|b| b.try_into().ok()).map_or(v.size, u64::from_be_bytes)
                }
                _ => v.size,
            }
        }
        _ => v.size,
    }
}

/// Takes a drive out of a config: disks of the VM become `unusedN`, the cloud-init drive is removed.
pub fn detach(w: &mut World, vmid: u32, key: &str) {
    let Some(value) = forget(w, vmid, key) else { return };
    let p = props::read(key, &value);
    let Some(volid) = conf::volume(&p).map(str::to_owned) else { return };
    if conf::is_cloudinit(&p) {
        space::free(w, &volid);
        return;
    }
    let owned = w.pve.files.get(&volid).is_some_and(|f| f.vmid == vmid && f.content == "images");
    if !owned || conf::is_cdrom(&p) {
        return;
    }
    keep_unused(w, vmid, &volid);
}
