//! Disks of hypervisor nodes, what lies on them, and what else a node could use as storage.
use serde_json::{Value, json};

use super::params::{b, e, pat, req, t};
use super::reply::{ApiError, Reply, data};
use super::router::{Call, subdirs};
use super::{space, storage};
use crate::world::World;

/// One disk of a node.
struct Disk {
    path: String,
    size: u64,
    used: &'static str,
    serial: String,
}

/// The boot disk, and one more for each local storage with devices of its own.
fn disks(w: &World, node: &str) -> Vec<Disk> {
    let number = w.pve.nodes.keys().position(|n| n == node).unwrap_or_default();
    let own = w.pve.storages.iter().filter(|(id, s)| !s.shared && storage::on_node(w, id, node));
    let with_devices = own.filter_map(|(_, s)| match s.kind.as_str() {
        "zfspool" => Some(("ZFS", s.size)),
        "lvm" | "lvmthin" => Some(("LVM", s.size)),
        _ => None,
    });
    let all = std::iter::once(("BIOS boot", 120u64 << 30)).chain(with_devices);
    all.enumerate()
        .map(|(i, (used, size))| Disk {
            path: format!("/dev/nvme{i}n1"),
            size,
            used,
            serial: format!("S6{number:02}NX0T{i:06}"),
        })
        .collect()
}

fn row(d: &Disk) -> Value {
    json!({
        "devpath": d.path, "size": d.size, "used": d.used, "gpt": 1, "mounted": 0, "type": "nvme", "rpm": 0,
        "model": "SAMSUNG MZQL21T9HCJR-00A07", "vendor": "unknown", "serial": d.serial, "wwn": "unknown",
        "health": "PASSED", "wearout": 99, "osdid": -1, "osdid-list": [],
        "by_id_link": format!("/dev/disk/by-id/nvme-SAMSUNG_MZQL21T9HCJR-00A07_{}", d.serial),
    })
}

/// Handles `/nodes/{node}/disks…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    let who = c.who()?;
    let audit = || w.pve.need(who, "/", "Sys.Audit");
    match (method, path) {
        ("GET", []) => data(subdirs("name", &["directory", "initgpt", "list", "lvm", "lvmthin", "smart", "zfs"])),
        ("GET", ["list"]) => {
            if !w.pve.has(who, "/", "Sys.Audit") {
                w.pve.need(who, &format!("/nodes/{node}"), "Sys.Audit")?;
            }
            c.params.check(&[b("include-partitions"), b("skipsmart"), e("type", &["unused", "journal_disks"])])?;
            // All of them are in use.
            let all = if c.params.text("type") == "unused" { Vec::new() } else { disks(w, node) };
            data(all.iter().map(row).collect::<Vec<Value>>())
        }
        ("GET", ["smart"]) => {
            audit()?;
            c.params.check(&[req(pat("disk", |v| v.starts_with("/dev/"))), b("healthonly")])?;
            let disk = c.params.text("disk");
            if !disks(w, node).iter().any(|d| d.path == disk) {
                return Err(ApiError::fail(format!("can't stat block device '{disk}'")));
            }
            let mut v = json!({ "health": "PASSED" });
            if !c.params.flag("healthonly") {
                v["type"] = json!("text");
                v["text"] = json!(
                    "\nSMART/Health Information (NVMe Log 0x02)\nCritical Warning:                   0x00\n\
                     Temperature:                        38 Celsius\nPercentage Used:                    1%\n"
                );
            }
            data(v)
        }
        ("GET", ["zfs"]) => {
            audit()?;
            let row = |p: (String, u64, u64)| {
                json!({
                    "name": p.0, "size": p.1, "alloc": p.2, "free": p.1 - p.2, "frag": 3, "dedup": 1, "health": "ONLINE",
                })
            };
            data(pools(w, node).into_iter().map(row).collect::<Vec<Value>>())
        }
        ("GET", ["zfs", name]) => {
            audit()?;
            if !pools(w, node).iter().any(|p| p.0 == *name) {
                return Err(ApiError::fail(format!("command 'zpool status -P {name}' failed: exit code 1")));
            }
            let leaf = disks(w, node).into_iter().find(|d| d.used == "ZFS").map(|d| d.path).unwrap_or_default();
            let part = |name: &str, leaf: u8, children: Vec<Value>| {
                let mut v = json!({ "name": name, "state": "ONLINE", "read": 0, "write": 0, "cksum": 0, "msg": "", "leaf": leaf });
                if !children.is_empty() {
                    v["children"] = json!(children);
                }
                v
            };
            let top = part(name, 0, vec![part(&format!("{leaf}-part1"), 1, Vec::new())]);
            data(json!({
                "name": name, "state": "ONLINE", "errors": "No known data errors", "leaf": 0, "children": [top],
            }))
        }
        ("GET", ["lvm"]) => {
            audit()?;
            let group = |(name, size, used): (String, u64, u64)| {
                json!({ "name": name, "size": size, "free": size - used, "leaf": 0, "lvcount": 1,
                "children": [{ "name": "/dev/nvme1n1p1", "size": size, "free": size - used, "leaf": 1 }] })
            };
            data(json!({ "leaf": 0, "children": groups(w, node).into_iter().map(group).collect::<Vec<_>>() }))
        }
        ("GET", ["lvmthin"]) => {
            audit()?;
            let pool = |(vg, size, used): (String, u64, u64)| {
                json!({ "vg": vg, "lv": "data", "lv_size": size, "used": used,
                "metadata_size": size / 1000, "metadata_used": used / 1000 })
            };
            data(groups(w, node).into_iter().map(pool).collect::<Vec<Value>>())
        }
        ("GET", ["directory"]) => {
            audit()?;
            data(json!([]))
        }
        _ => Err(c.unknown()),
    }
}

/// Name, size and used bytes of storages of a kind, as its programs show them.
fn found(w: &World, node: &str, kinds: &[&str], name: impl Fn(&str) -> String) -> Vec<(String, u64, u64)> {
    let own = w.pve.storages.iter().filter(|(id, s)| kinds.contains(&s.kind.as_str()) && storage::on_node(w, id, node));
    let mut all: Vec<(String, u64, u64)> = Vec::new();
    for (id, _) in own {
        let (size, used) = space::usage(w, id, node);
        if all.iter().all(|a| a.0 != name(id)) {
            all.push((name(id), size, used.min(size)));
        }
    }
    all
}

fn pools(w: &World, node: &str) -> Vec<(String, u64, u64)> {
    let name = |id: &str| {
        let set = w.pve.storages.get(id).and_then(|s| s.extra.get("pool").cloned());
        set.unwrap_or_else(|| "rpool/data".to_owned()).split('/').next().unwrap_or_default().to_owned()
    };
    found(w, node, &["zfspool"], name)
}

fn groups(w: &World, node: &str) -> Vec<(String, u64, u64)> {
    let name = |id: &str| {
        let set = w.pve.storages.get(id).and_then(|s| s.extra.get("vgname").cloned());
        set.unwrap_or_else(|| "pve".to_owned())
    };
    found(w, node, &["lvm", "lvmthin"], name)
}

/// Handles `/nodes/{node}/scan…`.
///
/// # Errors
/// The server's refusal.
pub fn scan(w: &World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    if path.is_empty() && method == "GET" {
        return data(subdirs("method", &["cifs", "iscsi", "lvm", "lvmthin", "nfs", "pbs", "zfs"]));
    }
    w.pve.need(c.who()?, "/storage", "Datastore.Allocate")?;
    match (method, path) {
        ("GET", ["zfs"]) => {
            let names = pools(w, node).into_iter().flat_map(|p| [p.0.clone(), format!("{}/data", p.0)]);
            data(names.map(|p| json!({ "pool": p })).collect::<Vec<Value>>())
        }
        ("GET", ["lvm"]) => data(groups(w, node).iter().map(|g| json!({ "vg": g.0 })).collect::<Vec<Value>>()),
        ("GET", ["lvmthin"]) => {
            c.params.check(&[req(t("vg"))])?;
            let vg = c.params.text("vg");
            let there = groups(w, node).iter().any(|g| g.0 == vg);
            data(if there { json!([{ "lv": "data" }]) } else { json!([]) })
        }
        _ => Err(c.unknown()),
    }
}
