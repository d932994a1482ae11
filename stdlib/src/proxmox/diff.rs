//! Wanted against found: what to write, what that needs, and what would be a mistake. Pure.
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::wire::pve::live::{AT_ONCE, is_cloud_init};
use crate::wire::pve::props;

use super::inventory::Machine;
use super::wanted::{Wanted, WantedDisk};

fn base(key: &str) -> &str {
    props::numbered(key).0
}
/// Network cards and disks are plugged in while the machine runs.
fn waits_for_start(key: &str) -> bool {
    !AT_ONCE.contains(&key) && !is_cloud_init(key) && base(key) != "net" && !key.contains("disk")
}

/// What has to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Diff {
    /// Keys to set at once.
    pub set: Map<String, Value>,
    /// Keys to unset.
    pub delete: Vec<String>,
    /// Disks to make.
    pub disks: Vec<WantedDisk>,
    /// Other keys that allocate a volume.
    pub make: Map<String, Value>,
    /// Disks to grow, to MiB.
    pub grow: Vec<(String, u64)>,
    /// All of it, for people and journal.
    pub changes: Vec<Change>,
    /// Which of it needs a restart.
    pub restart: Vec<String>,
    /// Which of it cloud-init applies at the next boot.
    pub boot: Vec<String>,
}

impl Diff {
    /// Whether all is as wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

pub(super) fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = text.get(i + 1..i + 3).filter(|_| bytes[i] == b'%');
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(b) => {
                out.push(b);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn sorted<'a>(parts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all: Vec<String> = parts.map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect();
    all.sort();
    all
}

/// Whether two config values mean the same: Proxmox reorders, rewrites and re-cases what it stores.
#[must_use]
pub fn same(key: &str, want: &str, have: &str) -> bool {
    match base(key) {
        "tags" => {
            let split = |t: &str| sorted(t.to_ascii_lowercase().split([';', ',', ' ']));
            // Tags are decoration: the user's own stay.
            let have = split(have);
            split(want).iter().all(|t| have.contains(t))
        }
        "sshkeys" => sorted(decoded(want).lines()) == sorted(decoded(have).lines()),
        "nameserver" | "searchdomain" => sorted(want.split([' ', ',', ';'])) == sorted(have.split([' ', ',', ';'])),
        "machine" => want == have || (want == "q35" && have.starts_with("pc-q35")),
        "memory" => want == have.strip_prefix("current=").unwrap_or(have),
        "net" => {
            // The macs' case differs, and a firewall flag or queue count of the user's stays.
            let (want, have) = (props::read(key, want), props::read(key, have));
            let fits = |k: &String, v: &String| have.get(k).is_some_and(|h| h.eq_ignore_ascii_case(v));
            want.iter().all(|(k, v)| fits(k, v)) && have.contains_key("tag") == want.contains_key("tag")
        }
        "agent" | "cpu" | "ipconfig" | "boot" | "vga" | "smbios" | "rng" | "watchdog" => {
            props::read(key, want) == props::read(key, have)
        }
        _ => want == have,
    }
}

/// Our tags and those that the user has added.
fn all_tags(want: &str, have: &str) -> String {
    sorted(want.split(';').chain(have.split([';', ',', ' ']).filter(|t| !want.split(';').any(|w| w == *t)))).join(";")
}

fn absent_means(key: &str) -> Option<&'static str> {
    match key {
        "onboot" | "protection" | "numa" => Some("0"),
        "ciupgrade" => Some("1"),
        "cores" | "sockets" => Some("1"),
        "acpi" | "kvm" | "tablet" => Some("1"),
        _ => None,
    }
}

/// The slot of the disk with this serial.
#[must_use]
pub fn slot_of(m: &Machine, serial: &str) -> Option<String> {
    m.config.iter().find_map(|(k, v)| {
        let text = v.as_str()?;
        (props::is_drive(k) && props::read(k, text).get("serial").is_some_and(|s| s == serial)).then(|| k.clone())
    })
}

/// Size of a disk in MiB.
fn mib(m: &Machine, slot: &str) -> Option<u64> {
    Some(props::disk_size(props::read(slot, &m.get(slot)?).get("size")?)? >> 20)
}

struct Differ<'a> {
    node: &'a str,
    m: &'a Machine,
    d: Diff,
}

impl Differ<'_> {
    fn note(&mut self, what: &str, before: Option<String>, after: Option<String>) {
        let change = Change::new(self.node, what, before.map(Value::from), after.map(Value::from));
        self.d.changes.push(change);
        if waits_for_start(what) {
            self.d.restart.push(what.to_owned());
        }
        if is_cloud_init(what) {
            self.d.boot.push(what.to_owned());
        }
    }

    fn set(&mut self, key: &str, want: &str) {
        let have = self.m.get(key);
        let effective = have.clone().or_else(|| absent_means(key).map(str::to_owned));
        if effective.as_deref().is_some_and(|h| same(key, want, h)) {
            return;
        }
        // A clone that is just made carries its template's tags: they are nobody's.
        let grown = self.m.marker().is_some_and(|k| k.smbios.is_some());
        let merged = (key == "tags" && grown).then(|| all_tags(want, have.as_deref().unwrap_or_default()));
        let want = merged.as_deref().unwrap_or(want);
        self.d.set.insert(key.to_owned(), want.into());
        let (before, after) = match key {
            "sshkeys" => (have.map(|h| keys_shown(&h)), keys_shown(want)),
            "description" => (have.map(|_| "without it".to_owned()), "ownership marker".to_owned()),
            _ => (have, want.to_owned()),
        };
        self.note(key, before, Some(after));
    }

    fn system_disk(&mut self, want: &Wanted) -> OpResult<()> {
        let Some(text) = self.m.get("scsi0") else {
            return Err(OpError::failed(format!("VM {} has no system disk `scsi0`", self.m.at.vmid))
                .hint("attach its disk as scsi0 again, or remove the VM and run this again"));
        };
        let mut props = props::read("scsi0", &text);
        let before = props.clone();
        for (k, v) in &want.system_options {
            let default = if k == "backup" { "1" } else { "none" };
            if props.get(k).map_or(default, String::as_str) != v {
                props.insert(k.clone(), v.clone());
            }
        }
        if props != before {
            let after = props::print("scsi0", &props);
            self.d.set.insert("scsi0".to_owned(), after.clone().into());
            self.note("scsi0", Some(text), Some(after));
        }
        self.size("scsi0", "system disk", want.system_mib)
    }

    fn size(&mut self, slot: &str, what: &str, want: u64) -> OpResult<()> {
        let Some(have) = mib(self.m, slot) else { return Ok(()) };
        if want < have {
            return Err(OpError::invalid(format!(
                "the {what} ({slot}) has {} and cannot shrink to {}",
                crate::core::units::Size::mib(have),
                crate::core::units::Size::mib(want)
            ))
            .hint("give it at least its present size in the site file"));
        }
        if want > have {
            self.d.grow.push((slot.to_owned(), want));
            let show = |n| crate::core::units::Size::mib(n).to_string();
            self.note(what, Some(show(have)), Some(show(want)));
        }
        Ok(())
    }

    fn disk(&mut self, want: &WantedDisk) -> OpResult<()> {
        let what = want.what.as_str();
        if let Some(slot) = slot_of(self.m, &want.serial) {
            return self.size(&slot, what, want.gib * 1024);
        }
        if let Some(there) = self.m.get(&want.slot) {
            return Err(OpError::conflict(format!(
                "slot {} of VM {} holds `{there}`, which is not the {what}",
                want.slot, self.m.at.vmid
            ))
            .hint(format!("detach it, or give it `serial={}` if it is the {what}", want.serial)));
        }
        self.note(what, None, Some(format!("{} GiB on {}", want.gib, want.storage)));
        self.d.disks.push(want.clone());
        Ok(())
    }

    fn pci(&mut self, want: &Wanted) -> OpResult<()> {
        if want.gpus > 0 && want.mapping.is_none() {
            return Err(OpError::invalid("the node wants GPUs, but no PCI mapping is named")
                .hint("set `mapping` under [gpu] in the site file"));
        }
        for i in 0..16 {
            let key = format!("hostpci{i}");
            let have = self.m.get(&key);
            let held = have.as_deref().map(|h| props::read(&key, h)).unwrap_or_default();
            match want.pci.get(i) {
                Some(value) => {
                    let fits = props::read(&key, value).iter().all(|(k, v)| held.get(k) == Some(v));
                    if !fits {
                        self.d.set.insert(key.clone(), value.clone().into());
                        self.note(&key, have, Some(value.clone()));
                    }
                }
                // Other devices that the user passed through stay.
                None if want.mapping.is_some() && held.get("mapping") == want.mapping.as_ref() => {
                    self.d.delete.push(key.clone());
                    self.note(&key, have, None);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Without a cloud-init drive the guest gets neither address nor keys.
    fn cloudinit(&mut self, want: &Wanted) -> OpResult<()> {
        if self.m.has_cloud_init() {
            return Ok(());
        }
        let vmid = self.m.at.vmid;
        if let Some(there) = self.m.get("ide2") {
            return Err(OpError::conflict(format!(
                "VM {vmid} has no cloud-init drive, and its slot ide2 holds `{there}`"
            ))
            .hint(format!("free the slot: `qm set {vmid} --delete ide2`")));
        }
        let storage = want.storage.clone();
        self.note("cloud-init disk", None, Some(format!("on {storage}")));
        self.d.make.insert("ide2".to_owned(), format!("{storage}:cloudinit").into());
        Ok(())
    }

    fn tpm(&mut self, want: &Wanted) {
        let Some(storage) = &want.tpm else { return };
        if self.m.get("tpmstate0").is_none() {
            self.note("tpmstate0", None, Some(format!("TPM 2.0 on {storage}")));
            self.d.make.insert("tpmstate0".to_owned(), format!("{storage}:1,version=v2.0").into());
        }
    }
}

/// Keys as people tell them apart: the fingerprint of each, and whose it is.
pub(super) fn keys_shown(text: &str) -> String {
    let text = decoded(text);
    let shown = sorted(text.lines()).into_iter().map(|k| {
        let comment = k.split(' ').skip(2).collect::<Vec<_>>().join(" ");
        let print = crate::ssh::keys::fingerprint(&k);
        if comment.is_empty() { print } else { format!("{print} ({comment})") }
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// What makes `m` the wanted machine. `description` carries the marker.
///
/// # Errors
/// `invalid` or `conflict` for what cannot be done in place.
pub fn diff(node: &str, want: &Wanted, description: &str, m: &Machine) -> OpResult<Diff> {
    let mut differ = Differ { node, m, d: Diff::default() };
    let keys: &BTreeMap<String, String> = &want.keys;
    for (key, value) in keys {
        differ.set(key, value);
    }
    differ.set("description", description);
    differ.pci(want)?;
    differ.tpm(want);
    differ.cloudinit(want)?;
    differ.system_disk(want)?;
    for disk in &want.disks {
        differ.disk(disk)?;
    }
    Ok(differ.d)
}

/// Changes that wait for the next start, from `/pending`.
#[must_use]
pub fn waiting_changes(pending: &Value) -> Vec<String> {
    let all = pending.as_array().map(Vec::as_slice).unwrap_or_default();
    let waits = |p: &&Value| p.get("pending").is_some() || p["delete"].as_i64().is_some_and(|d| d > 0);
    // Cloud-init data is written into its drive at each start anyway.
    let text = all.iter().filter(waits).filter_map(|p| p["key"].as_str()).filter(|k| !is_cloud_init(k));
    text.map(str::to_owned).collect()
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
