//! Hypervisor nodes: status, networks, PCI devices.
use serde_json::{Value, json};

use super::params::{b, e, t};
use super::qemu::conf;
use super::reply::{Reply, data};
use super::router::{Call, subdirs};
use super::space;
use crate::tls;
use crate::world::World;

/// `GET /nodes`.
///
/// # Errors
/// Never.
pub fn list(w: &World) -> Reply {
    let print = tls::fingerprint(&w.pve.leaf.cert).unwrap_or_default();
    let rows = w.pve.nodes.keys().map(|n| {
        let mut v = json!({
            "node": n, "id": format!("node/{n}"), "type": "node", "status": "online", "level": "",
            "ssl_fingerprint": print,
        });
        for (k, x) in figures(w, n) {
            v[k] = x;
        }
        v
    });
    data(rows.collect::<Vec<Value>>())
}

/// Processors, memory and uptime of a node, as lists show them.
#[must_use]
pub fn figures(w: &World, node: &str) -> Vec<(&'static str, Value)> {
    let Some(n) = w.pve.nodes.get(node) else { return Vec::new() };
    let (root, root_used) = (96u64 << 30, 9u64 << 30);
    vec![
        ("maxcpu", json!(n.cpus)),
        ("cpu", json!(0.02)),
        ("maxmem", json!(n.memory_gib << 30)),
        ("mem", json!(used_memory(w, node))),
        ("maxdisk", json!(root)),
        ("disk", json!(root_used)),
        ("uptime", json!((w.now_ms - w.pve.booted_ms) / 1000)),
    ]
}

/// Running VMs with passed-through cards pin their memory; all running ones count in full.
fn used_memory(w: &World, node: &str) -> u64 {
    let running = w.pve.vms.values().filter(|v| v.node == node && v.run.is_some());
    (8u64 << 30) + running.map(|v| conf::memory_mib(&v.conf) << 20).sum::<u64>()
}

/// Handles `/nodes/{node}…` except VMs, storages and tasks.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    let who = c.who()?;
    let need = |p: &str| w.pve.need(who, &format!("/nodes/{node}"), p);
    match (method, path) {
        ("GET", []) => data(subdirs("name", &["qemu", "storage", "tasks", "status", "network", "hardware", "version"])),
        ("GET", ["status"]) => {
            need("Sys.Audit")?;
            data(status(w, node))
        }
        ("GET", ["version"]) => {
            data(json!({ "version": w.pve.version, "release": w.pve.version, "repoid": "9f3bdf24" }))
        }
        ("GET", ["time"]) => {
            need("Sys.Audit")?;
            let s = w.now_ms / 1000;
            data(json!({ "time": s, "localtime": s, "timezone": "UTC" }))
        }
        ("GET", ["dns"]) => {
            need("Sys.Audit")?;
            data(json!({ "search": "lab.example", "dns1": "10.0.0.1" }))
        }
        ("GET", ["network"]) => {
            c.params.check(&[e(
                "type",
                &["bridge", "bond", "eth", "alias", "vlan", "fabric", "any_bridge", "any_local_bridge", "include_sdn"],
            )])?;
            networks(w, c, node)
        }
        ("GET", ["network", iface]) => {
            need("Sys.Audit")?;
            let all = bridges(w, node);
            let found = all.into_iter().find(|b| b["iface"] == *iface);
            found.map_or_else(|| Err(super::reply::ApiError::fail("interface does not exist")), data)
        }
        ("GET", ["hardware"]) => data(json!([{ "type": "pci" }, { "type": "usb" }])),
        ("GET", ["hardware", "usb"]) => data(json!([])),
        ("GET", ["hardware", "pci"]) => {
            c.params.check(&[t("pci-class-blacklist"), b("verbose")])?;
            w.pve.need(who, "/", "Sys.Audit|Sys.Modify")?;
            data(pci(w, c, node))
        }
        ("GET", ["hardware", "pci", _]) => data(subdirs("method", &["mdev"])),
        ("GET", ["hardware", "pci", _, "mdev"]) | ("GET", ["lxc"]) | ("GET", ["replication"]) => data(json!([])),
        ("GET", ["subscription"]) => data(json!({ "status": "notfound", "message": "There is no subscription key" })),
        ("GET", ["certificates", "info"]) => {
            let print = tls::fingerprint(&w.pve.leaf.cert).unwrap_or_default();
            data(json!([{
                "filename": "pve-ssl.pem", "fingerprint": print, "pem": w.pve.leaf.cert,
                "issuer": "/CN=Proxmox Virtual Environment",
            }]))
        }
        ("GET", ["query-url-metadata"]) => super::content::url_metadata(w, c, node),
        ("POST", ["vzdump"]) => Err(c.unknown()),
        _ => Err(c.unknown()),
    }
}

fn status(w: &World, node: &str) -> Value {
    let Some(n) = w.pve.nodes.get(node) else { return Value::Null };
    let total = n.memory_gib << 30;
    let used = used_memory(w, node);
    let (root, root_used) = (96u64 << 30, 9u64 << 30);
    let cores = n.cpus.div_ceil(2);
    json!({
        "uptime": (w.now_ms - w.pve.booted_ms) / 1000,
        "loadavg": ["0.42", "0.51", "0.48"],
        "cpu": 0.02,
        "wait": 0,
        "idle": 0,
        "kversion": "Linux 6.17.2-1-pve #1 SMP PREEMPT_DYNAMIC",
        "pveversion": format!("pve-manager/{}.9/9f3bdf24ad0b6a8c", w.pve.version),
        "cpuinfo": {
            "cpus": n.cpus, "cores": cores, "sockets": 1, "model": "AMD EPYC 7763 64-Core Processor", "mhz": "2450.000",
            "hvm": "1", "user_hz": 100, "flags": "fpu vme svm aes avx2",
        },
        "memory": { "total": total, "used": used.min(total), "free": total.saturating_sub(used), "available": total.saturating_sub(used) },
        "swap": { "total": 0, "used": 0, "free": 0 },
        "rootfs": { "total": root, "used": root_used, "avail": root - root_used, "free": root - root_used },
        "ksm": { "shared": 0 },
        "boot-info": { "mode": "efi", "secureboot": 0 },
        "current-kernel": { "sysname": "Linux", "machine": "x86_64", "release": "6.17.2-1-pve", "version": "#1 SMP" },
    })
}

fn bridges(w: &World, node: &str) -> Vec<Value> {
    let host = w.pve.api_addr.split(':').next().unwrap_or_default();
    let all = w.pve.nodes.get(node).map(|n| n.bridges.clone()).unwrap_or_default();
    let row = |(i, b): (usize, &String)| {
        let mut v = json!({
            "iface": b, "type": "bridge", "active": 1, "autostart": 1, "bridge_ports": format!("eno{}", i + 1),
            "bridge_stp": "off", "bridge_fd": "0", "bridge_vlan_aware": 1, "method": "manual", "method6": "manual",
            "families": ["inet"], "priority": 3 + i,
        });
        if i == 0 {
            v["method"] = json!("static");
            v["address"] = json!(host);
            v["netmask"] = json!("24");
            v["cidr"] = json!(format!("{host}/24"));
        }
        v
    };
    all.iter().enumerate().map(row).collect()
}

fn networks(w: &World, c: &Call, node: &str) -> Reply {
    let kind = c.params.get("type");
    let who = c.who()?;
    let audit = w.pve.has(who, &format!("/nodes/{node}"), "Sys.Audit");
    let mut rows = bridges(w, node);
    // Without Sys.Audit only the bridges that may be used are seen.
    rows.retain(|b| {
        let path = format!("/sdn/zones/localnetwork/{}", b["iface"].as_str().unwrap_or_default());
        audit || w.pve.has(who, &path, "SDN.Use") || w.pve.has(who, &path, "SDN.Audit")
    });
    let bridges_only = matches!(kind.as_deref(), Some("bridge" | "any_bridge" | "any_local_bridge" | "include_sdn"));
    if !bridges_only && audit {
        let n = rows.len();
        rows.extend((1..=n).map(|i| {
            json!({ "iface": format!("eno{i}"), "type": "eth", "active": 1, "exists": 1, "method": "manual",
                "method6": "manual", "families": ["inet"], "priority": 10 + i })
        }));
    }
    match kind.as_deref() {
        Some("eth") => rows.retain(|r| r["type"] == "eth"),
        Some("bond" | "alias" | "vlan" | "fabric") => rows.clear(),
        _ => {}
    }
    data(rows)
}

/// Classes that the list hides unless asked: memory, bridges, processors.
const HIDDEN: &str = "05,06,0b";

fn pci(w: &World, c: &Call, node: &str) -> Value {
    let Some(n) = w.pve.nodes.get(node) else { return json!([]) };
    let hidden = c.params.get("pci-class-blacklist").unwrap_or_else(|| HIDDEN.to_owned());
    let hide = |class: &str| {
        let class = class.trim_start_matches("0x");
        hidden.split([',', ';', ' ']).any(|h| !h.is_empty() && class.starts_with(h.trim_start_matches("0x")))
    };
    let verbose = c.params.get("verbose").is_none_or(|v| v == "1");
    let row = |d: &crate::spec::PciSpec| {
        let mut v = json!({
            "id": d.address, "class": d.class, "vendor": d.vendor, "device": d.device,
            "iommugroup": if n.iommu { d.iommu_group } else { -1 },
        });
        if verbose {
            v["vendor_name"] = json!(d.vendor_name);
            v["device_name"] = json!(d.device_name);
            v["subsystem_vendor"] = json!(d.subsystem_vendor);
            v["subsystem_device"] = json!(d.subsystem_device);
        }
        v
    };
    Value::Array(n.pci.iter().filter(|d| !hide(&d.class)).map(row).collect())
}

/// Bytes free on a storage of a node.
#[must_use]
pub fn free_bytes(w: &World, storage: &str, node: &str) -> u64 {
    let (total, used) = space::usage(w, storage, node);
    total - used
}
