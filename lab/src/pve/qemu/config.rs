//! Reading and changing a VM's config.
#![allow(clippy::type_complexity)] // a function that returns a check
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use gpuhost_stdlib::wire::pve::live::{AT_ONCE, is_cloud_init};
use gpuhost_stdlib::wire::pve::props::{self, Prop};
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::{conf, create, drive, perms, spawn, unlocked};
use crate::pve::params::{b, cid, f, range, req, short, t};
use crate::pve::reply::{ApiError, Reply, null};
use crate::pve::router::Call;
use crate::pve::task::{self, Job, Step};
use crate::world::World;

/// A checked change of a config.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// VM.
    pub vmid: u32,
    /// Node.
    pub node: String,
    /// Options to set.
    pub set: BTreeMap<String, String>,
    /// Options to delete.
    pub delete: Vec<String>,
    /// Pending changes to drop.
    pub revert: Vec<String>,
}

/// Judges an option that is not a parameter of its own; `None` for unknown ones.
#[must_use]
pub fn option_check(key: &str) -> Option<fn(&str, &str) -> Result<(), String>> {
    let known = props::format_of(key).is_some() || props::scalar_of(key).is_some();
    (known && !matches!(key, "map" | "meta" | "parent" | "runningmachine")).then_some(check as _)
}

/// The longest `smbios1`; its length is looked at before its form.
const SMBIOS_MAX: usize = 512;

fn check(key: &str, value: &str) -> Result<(), String> {
    if key == "smbios1" && value.chars().count() > SMBIOS_MAX {
        return Err(format!("value may only be {SMBIOS_MAX} characters long"));
    }
    props::check(key, value)
}

/// The stored form of an option; `None` when an empty text means "not set".
pub fn normal(w: &mut World, key: &str, value: &str) -> Option<String> {
    match key {
        "description" => {
            let v = value.trim_end_matches('\n');
            (!v.is_empty()).then(|| v.to_owned())
        }
        "tags" => {
            let mut seen = BTreeSet::new();
            let mut tags: Vec<&str> = value.split([',', ';', ' ']).filter(|t| !t.is_empty()).collect();
            tags.retain(|t| seen.insert(t.to_ascii_lowercase()));
            tags.sort_by_key(|t| t.to_ascii_lowercase());
            (!tags.is_empty()).then(|| tags.join(";"))
        }
        "cipassword" if !value.starts_with("$5$") => {
            let salt: String = w.uuid().chars().take(8).collect();
            let sum = sha2::Sha256::digest(format!("{salt}{value}"));
            let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(sum).replace('+', ".");
            Some(format!("$5${salt}${text}"))
        }
        _ if matches!(props::numbered(key), ("net", Some(_))) => Some(create::fill_mac(w, value)),
        _ => Some(value.to_owned()),
    }
}

/// `GET config`.
///
/// # Errors
/// The server's refusal.
pub fn get(w: &World, c: &Call, node: &str, vmid: u32) -> Reply {
    c.params.check(&[b("current"), Prop { max_len: Some(40), ..cid("snapshot") }])?;
    let vm = super::vm(w, node, vmid)?;
    if let Some(name) = c.params.get("snapshot") {
        let s = vm.snapshots.get(&name).ok_or_else(|| ApiError::fail(format!("snapshot '{name}' does not exist")))?;
        return crate::pve::reply::data(super::snapshot::view(s));
    }
    conf::view(vm, c.params.flag("current"))
}

/// One of these opens the door; which of them each option takes is looked at afterwards.
const ANY: &str = "VM.Config.Disk|VM.Config.CDROM|VM.Config.CPU|VM.Config.Memory|VM.Config.Network|VM.Config.HWType|\
    VM.Config.Options|VM.Config.Cloudinit";

const OWN: [Prop; 5] = [short("digest", 40), t("delete"), t("revert"), b("skiplock"), b("force")];
/// What only `POST` takes.
const OWN_POST: [Prop; 2] =
    [range("background_delay", 1, 30), f("import-working-storage", crate::pve::storage::id_format)];

/// `PUT` and `POST config`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, vmid: u32) -> Reply {
    let p = &c.params;
    let own: Vec<Prop> = if c.method == "POST" { [&OWN[..], &OWN_POST[..]].concat() } else { OWN.to_vec() };
    let who = c.who()?;
    w.pve.need(who, &format!("/vms/{vmid}"), ANY)?;
    p.check_with(&own, option_check)?;
    if p.flag("skiplock") && !who.is_root() {
        return Err(ApiError::param("skiplock", "Only root may use this option."));
    }
    let set: BTreeMap<String, String> =
        p.0.keys().filter(|k| !own.iter().any(|o| o.name == k.as_str())).map(|k| (k.clone(), p.text(k))).collect();
    let list = |k: &str| -> Vec<String> {
        p.text(k).split([',', ';', ' ']).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    };
    let (delete, revert) = (list("delete"), list("revert"));
    if set.is_empty() && delete.is_empty() && revert.is_empty() {
        return Err(ApiError::fail("no options specified"));
    }
    for k in &delete {
        if option_check(k).is_none() && props::numbered(k).0 != "unused" {
            return Err(ApiError::param("delete", format!("unknown option '{k}'")));
        }
        if set.contains_key(k) {
            let why = format!("you can't use '-{k}' and -delete {k}' at the same time");
            return Err(ApiError::param("delete", why));
        }
    }
    for k in &revert {
        if option_check(k).is_none() {
            return Err(ApiError::param("revert", format!("unknown option '{k}'")));
        }
    }
    super::vm(w, node, vmid)?;
    for (k, v) in &set {
        perms::option(w, who, vmid, None, k, Some(v))?;
    }
    for k in delete.iter().chain(&revert) {
        perms::option(w, who, vmid, None, k, None)?;
    }
    for (k, v) in set.iter().filter(|(k, _)| props::is_drive(k)) {
        drive::check(w, k, v).map_err(ApiError::fail)?;
    }
    if task::held(w, "", vmid, false) {
        let text = format!("can't lock file '/var/lock/qemu-server/lock-{vmid}.conf' - got timeout");
        return Err(ApiError { flock: Some(vmid), ..ApiError::fail(text) });
    }
    let vm = super::vm(w, node, vmid)?;
    if p.get("digest").is_some_and(|d| d != conf::digest(vm)) {
        return Err(ApiError::fail("checksum mismatch (file change by other user?)"));
    }
    if !(p.flag("skiplock") && who.is_root()) {
        unlocked(vm).map_err(ApiError::fail)?;
    }
    let protected = vm.conf.get("protection").is_some_and(|v| v == "1");
    if protected && delete.iter().any(|k| props::is_drive(k) || props::numbered(k).0 == "unused") {
        let k = delete.iter().find(|k| props::is_drive(k)).cloned().unwrap_or_default();
        return Err(ApiError::fail(format!("can't remove unused disk '{k}' - protection mode enabled")));
    }
    let change = Change { vmid, node: node.to_owned(), set, delete, revert };
    if c.method == "POST" {
        return spawn(w, c, node, "qmconfig", vmid, Job::Config(change));
    }
    apply(w, None, &change).map_err(ApiError::fail)?;
    null()
}

/// `PUT unlink`: the older way to detach disks.
///
/// # Errors
/// The server's refusal.
pub fn unlink(w: &mut World, c: &Call, node: &str, vmid: u32) -> Reply {
    w.pve.need(c.who()?, &format!("/vms/{vmid}"), "VM.Config.Disk")?;
    c.params.check(&[req(t("idlist")), b("force")])?;
    let mut call = c.clone();
    call.method = "PUT".into();
    call.params.0 = BTreeMap::from([("delete".to_owned(), c.params.text("idlist").into())]);
    request(w, &call, node, vmid)
}

/// Runs a `qmconfig` task.
pub fn run(w: &mut World, upid: &str, j: &Change, n: u32) -> Step {
    if n > 0 {
        return Step::Done;
    }
    if let Some(wait) = task::lock(w, upid, j.vmid, false, 10_000) {
        return wait;
    }
    let mut line = format!("update VM {}:", j.vmid);
    for (k, v) in &j.set {
        let v = if k == "cipassword" { "<hidden>" } else { v };
        line.push_str(&format!(" -{k} {v}"));
    }
    if !j.delete.is_empty() {
        line.push_str(&format!(" -delete {}", j.delete.join(",")));
    }
    task::log(w, upid, line);
    match super::task_vm(w, upid, j.vmid).and_then(unlocked).and_then(|()| apply(w, Some(upid), j)) {
        Ok(ms) => Step::Next(ms),
        Err(e) => Step::Fail(e),
    }
}

/// More options that take effect at once on a running VM, none of which the client sets on one.
const ALSO_AT_ONCE: &[&str] = &["lock", "autostart", "boot", "hotplug"];

fn hotplugs(key: &str, running: bool) -> bool {
    let (base, n) = props::numbered(key);
    let hot = matches!((base, n), ("net" | "unused" | "scsi" | "virtio" | "usb", Some(_)));
    !running || AT_ONCE.contains(&key) || ALSO_AT_ONCE.contains(&key) || is_cloud_init(key) || hot
}

/// Applies a change: at once where it can be, else as pending. Answers the milliseconds it takes.
///
/// # Errors
/// The server's message.
pub fn apply(w: &mut World, upid: Option<&str>, j: &Change) -> Result<u64, String> {
    let mut ms = 0;
    let running = w.pve.vms.get(&j.vmid).is_some_and(|v| v.run.is_some());
    if let Some(vm) = w.pve.vms.get_mut(&j.vmid) {
        for k in &j.revert {
            vm.pending.remove(k);
            vm.pending_delete.remove(k);
        }
        if !running {
            conf::apply_pending(vm);
        }
    }
    for k in &j.delete {
        delete(w, j.vmid, k, running)?;
    }
    for (k, v) in &j.set {
        ms += set(w, upid, j, k, v, running)?;
    }
    if running {
        super::boot::refresh_disks(w, j.vmid);
    }
    Ok(ms)
}

fn delete(w: &mut World, vmid: u32, key: &str, running: bool) -> Result<(), String> {
    let Some(vm) = w.pve.vms.get_mut(&vmid) else { return Ok(()) };
    vm.pending.remove(key);
    let Some(value) = vm.conf.get(key).cloned() else { return Ok(()) };
    let cdrom = props::is_drive(key) && conf::is_cdrom(&props::read(key, &value));
    if props::numbered(key).0 == "unused" {
        vm.conf.remove(key);
        let volid = props::read(key, &value).get("file").cloned().unwrap_or_default();
        if crate::pve::space::users_of_base(w, &volid) {
            return Err(format!("base volume '{volid}' is still in use by linked cloned"));
        }
        crate::pve::space::free(w, &volid);
    } else if props::is_drive(key) && (!running || hotplugs(key, running)) && !(running && cdrom) {
        drive::detach(w, vmid, key);
    } else if hotplugs(key, running) {
        vm.conf.remove(key);
    } else {
        vm.pending_delete.insert(key.to_owned());
    }
    Ok(())
}

fn set(w: &mut World, upid: Option<&str>, j: &Change, key: &str, value: &str, running: bool) -> Result<u64, String> {
    if props::is_drive(key) {
        return set_drive(w, upid, j, key, value, running);
    }
    let value = if matches!(props::numbered(key), ("net", Some(_))) && !value.contains(':') {
        // A card without an address keeps the one it has.
        let old = w.pve.vms.get(&j.vmid).and_then(|v| v.conf.get(key)).cloned();
        keep_mac(value, old.as_deref())
    } else {
        value.to_owned()
    };
    let stored = normal(w, key, &value);
    let Some(vm) = w.pve.vms.get_mut(&j.vmid) else { return Err("config vanished".into()) };
    vm.pending_delete.remove(key);
    match stored {
        None => {
            vm.conf.remove(key);
            vm.pending.remove(key);
        }
        Some(v) if hotplugs(key, running) => {
            vm.pending.remove(key);
            vm.conf.insert(key.to_owned(), v);
        }
        Some(v) if vm.conf.get(key) == Some(&v) => {
            vm.pending.remove(key);
        }
        Some(v) => {
            vm.pending.insert(key.to_owned(), v);
        }
    }
    Ok(0)
}

fn keep_mac(value: &str, old: Option<&str>) -> String {
    let mut new = props::read("net0", value);
    let was = old.map(|o| props::read("net0", o)).unwrap_or_default();
    if new.get("model") == was.get("model")
        && let Some(mac) = was.get("macaddr")
    {
        new.insert("macaddr".into(), mac.clone());
    }
    props::print("net0", &new)
}

fn set_drive(
    w: &mut World,
    upid: Option<&str>,
    j: &Change,
    key: &str,
    value: &str,
    running: bool,
) -> Result<u64, String> {
    let old = w.pve.vms.get(&j.vmid).and_then(|v| v.conf.get(key)).map(|v| props::read(key, v));
    let new = props::read(key, value);
    let same = old.as_ref().is_some_and(|o| o.get("file").is_some() && o.get("file") == new.get("file"));
    if old.is_some() && !same {
        if running && old.as_ref().is_some_and(|o| !conf::is_cdrom(o)) && !hotplugs(key, true) {
            return Err(format!("skip hotplug of '{key}'"));
        }
        drive::detach(w, j.vmid, key);
    }
    let (printed, ms, _) = drive::realize(w, upid, &j.node, j.vmid, key, value)?;
    let adds_cdrom = old.is_none() && conf::is_cdrom(&props::read(key, &printed));
    let Some(vm) = w.pve.vms.get_mut(&j.vmid) else { return Err("config vanished".into()) };
    if let Some(file) = props::read(key, &printed).get("file") {
        vm.conf.retain(|k, v| props::numbered(k).0 != "unused" || v != file);
    }
    vm.conf.insert(key.to_owned(), printed);
    if adds_cdrom && !conf::is_cloudinit(&props::read(key, vm.conf.get(key).map_or("", String::as_str))) {
        add_to_boot_order(&mut vm.conf, key);
    }
    Ok(ms)
}

/// A new CD-ROM is appended to the boot order, as the server does.
fn add_to_boot_order(c: &mut BTreeMap<String, String>, key: &str) {
    let Some(boot) = c.get("boot") else { return };
    let mut b = props::read("boot", boot);
    let Some(order) = b.get_mut("order").filter(|o| !o.split(';').any(|d| d == key)) else { return };
    order.push_str(&format!(";{key}"));
    c.insert("boot".into(), props::print("boot", &b));
}
