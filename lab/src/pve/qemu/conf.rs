//! The config of a VM as the API shows it: types, digest, pending changes.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props::{self, Ty};
use serde_json::{Map, Value, json};
use sha1::{Digest, Sha1};

use crate::pve::reply::{Reply, data};
use crate::pve::state::Vm;

/// The JSON value of an option: whole numbers and booleans are numbers, everything else is text.
#[must_use]
pub fn typed(key: &str, value: &str) -> Value {
    match (key, props::scalar_of(key).map(|s| s.ty)) {
        ("cipassword", _) => json!("**********"),
        (_, Some(Ty::Bool | Ty::Int)) => value.parse::<i64>().map_or_else(|_| json!(value), |n| json!(n)),
        (_, Some(Ty::Num)) => match (value.parse::<i64>(), value.parse::<f64>()) {
            (Ok(n), _) => json!(n),
            (_, Ok(x)) => json!(x),
            _ => json!(value),
        },
        _ => json!(value),
    }
}

/// SHA-1 of the config file.
#[must_use]
pub fn digest(vm: &Vm) -> String {
    let mut text = String::new();
    let mut put = |conf: &BTreeMap<String, String>| {
        for (k, v) in conf {
            text.push_str(&format!("{k}: {v}\n"));
        }
    };
    put(&vm.conf);
    if !vm.pending.is_empty() || !vm.pending_delete.is_empty() {
        let mut p = vm.pending.clone();
        p.insert("delete".into(), vm.pending_delete.iter().cloned().collect::<Vec<_>>().join(","));
        put(&p);
    }
    for (name, s) in &vm.snapshots {
        put(&BTreeMap::from([(name.clone(), s.time.to_string())]));
    }
    Sha1::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

/// The config with pending changes applied.
#[must_use]
pub fn wanted(vm: &Vm) -> BTreeMap<String, String> {
    let mut out = vm.conf.clone();
    for k in &vm.pending_delete {
        out.remove(k);
    }
    out.extend(vm.pending.clone());
    out
}

/// `GET config`.
///
/// # Errors
/// Never.
pub fn view(vm: &Vm, current: bool) -> Reply {
    let conf = if current { vm.conf.clone() } else { wanted(vm) };
    let mut out: Map<String, Value> = conf.iter().map(|(k, v)| (k.clone(), typed(k, v))).collect();
    out.insert("digest".into(), json!(digest(vm)));
    data(Value::Object(out))
}

/// `GET pending`.
///
/// # Errors
/// Never.
pub fn pending_view(vm: &Vm) -> Reply {
    let mut rows = Vec::new();
    for (k, v) in &vm.conf {
        let mut row = json!({ "key": k, "value": typed(k, v) });
        if let Some(p) = vm.pending.get(k) {
            row["pending"] = typed(k, p);
        } else if vm.pending_delete.contains(k) {
            row["delete"] = json!(1);
        }
        rows.push(row);
    }
    for (k, v) in vm.pending.iter().filter(|(k, _)| !vm.conf.contains_key(*k)) {
        rows.push(json!({ "key": k, "pending": typed(k, v) }));
    }
    rows.push(json!({ "key": "digest", "value": digest(vm) }));
    data(Value::Array(rows))
}

/// Applies what waits for a restart.
pub fn apply_pending(vm: &mut Vm) {
    vm.conf = wanted(vm);
    vm.pending.clear();
    vm.pending_delete.clear();
}

/// Memory in MiB.
#[must_use]
pub fn memory_mib(conf: &BTreeMap<String, String>) -> u64 {
    conf.get("memory")
        .and_then(|m| props::read("memory", m).get("current").cloned())
        .and_then(|m| m.parse().ok())
        .unwrap_or(512)
}

/// Number of virtual CPUs.
#[must_use]
pub fn cpus(conf: &BTreeMap<String, String>) -> u32 {
    let n = |k: &str| conf.get(k).and_then(|v| v.parse::<u32>().ok()).unwrap_or(1);
    n("cores") * n("sockets")
}

/// Drives with their parsed properties, sorted by key.
#[must_use]
pub fn drives(conf: &BTreeMap<String, String>) -> Vec<(String, props::Props)> {
    conf.iter().filter(|(k, _)| props::is_drive(k)).map(|(k, v)| (k.clone(), props::read(k, v))).collect()
}

/// The volume of a drive, if it has one.
#[must_use]
pub fn volume(p: &props::Props) -> Option<&str> {
    p.get("file").map(String::as_str).filter(|f| *f != "none" && *f != "cdrom" && !f.starts_with('/'))
}

/// Whether a drive is a CD-ROM (also the cloud-init drive).
#[must_use]
pub fn is_cdrom(p: &props::Props) -> bool {
    p.get("media").is_some_and(|m| m == "cdrom") || p.get("file").is_some_and(|f| f == "cdrom" || f == "none")
}

/// Whether a drive is the cloud-init drive.
#[must_use]
pub fn is_cloudinit(p: &props::Props) -> bool {
    volume(p).is_some_and(|f| f.contains("-cloudinit") || f.ends_with(":cloudinit"))
}

/// Size of the boot disk in bytes, for the status pages.
#[must_use]
pub fn boot_disk_size(conf: &BTreeMap<String, String>) -> u64 {
    // Lists of a thousand machines ask for this: the values are looked at, not parsed.
    let size = |v: &str| {
        let cdrom = v.contains("media=cdrom") || v.starts_with("none") || v.starts_with("cdrom");
        let part = v.split(',').find_map(|p| p.strip_prefix("size="));
        (!cdrom).then(|| part.and_then(props::disk_size).unwrap_or(0))
    };
    let order = conf.get("boot").and_then(|b| b.strip_prefix("order=")).unwrap_or_default();
    let first = order.split(';').filter(|d| props::is_drive(d)).find_map(|d| size(conf.get(d)?));
    let any = || {
        let disks = conf.iter().filter(|(k, _)| props::is_drive(k) && *k != "efidisk0" && *k != "tpmstate0");
        disks.filter_map(|(_, v)| size(v)).next()
    };
    first.or_else(any).unwrap_or(0)
}
