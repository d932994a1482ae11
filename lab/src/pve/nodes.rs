//! Hypervisor nodes: status, power, settings, PCI devices.
use gpuhost_stdlib::wire::pve::props::Prop;
use serde_json::{Value, json};

use super::params::{b, e, f, n, range, req, short, t, vmids};
use super::qemu::conf;
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::task::{self, Job};
use super::{PveEvent, space};
use crate::world::{Event, World};
use crate::{Lab, tls};

/// `GET /nodes`.
///
/// # Errors
/// Never.
pub fn list(w: &World, c: &Call) -> Reply {
    let print = tls::fingerprint(&w.pve.leaf.cert).unwrap_or_default();
    let who = c.who()?;
    let rows = w.pve.nodes.keys().map(|n| {
        let off = w.pve.offline.contains(n);
        let mut v = json!({
            "node": n, "id": format!("node/{n}"), "type": "node", "status": if off { "offline" } else { "online" },
            "ssl_fingerprint": print,
        });
        if off {
            return v;
        }
        v["level"] = json!("");
        if w.pve.has(who, &format!("/nodes/{n}"), "Sys.Audit") {
            for (k, x) in figures(w, n) {
                v[k] = x;
            }
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
pub fn route(lab: &Lab, w: &mut World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    let who = c.who()?;
    let place = format!("/nodes/{node}");
    let need = |p: &str| w.pve.need(who, &place, p);
    match (method, path) {
        ("GET", []) => data(subdirs("name", INDEX)),
        ("GET", ["status"]) => {
            need("Sys.Audit")?;
            data(status(w, node))
        }
        ("POST", ["status"]) => {
            need("Sys.PowerMgmt")?;
            c.params.check(&[req(e("command", &["reboot", "shutdown"]))])?;
            down(lab, w, node, c.params.text("command") == "reboot");
            null()
        }
        ("GET", ["version"]) => super::router::version(w),
        ("GET", ["time"]) => {
            need("Sys.Audit")?;
            let s = w.now_ms / 1000;
            let zone = setting(w, "time", node).get("timezone").cloned().unwrap_or(json!("UTC"));
            data(json!({ "time": s, "localtime": s, "timezone": zone }))
        }
        ("PUT", ["time"]) => {
            need("Sys.Modify")?;
            c.params.check(&[req(t("timezone"))])?;
            store(w, "time", node, c, &[t("timezone")])
        }
        ("GET", ["dns"]) => {
            need("Sys.Audit")?;
            let mut v = json!({ "search": "lab.example", "dns1": "10.0.0.1" });
            for (k, x) in setting(w, "dns", node) {
                v[k] = x;
            }
            data(v)
        }
        ("PUT", ["dns"]) => {
            need("Sys.Modify")?;
            c.params.check(&[req(t("search")), t("dns1"), t("dns2"), t("dns3")])?;
            store(w, "dns", node, c, &[t("search"), t("dns1"), t("dns2"), t("dns3")])
        }
        ("GET", ["config"]) => {
            need("Sys.Audit")?;
            let row = setting(w, "config", node);
            let mut v = json!({ "digest": super::sections::digest(&row) });
            for (k, x) in row {
                v[k] = x;
            }
            data(v)
        }
        ("PUT", ["config"]) => {
            let fields =
                [short("description", 65_536), range("startall-onboot-delay", 0, 300), t("wakeonlan"), t("acme")];
            need("Sys.Modify")?;
            c.params.check(&[&fields[..], &[super::params::delete(), super::params::digest()]].concat())?;
            store(w, "config", node, c, &fields)
        }
        ("GET", ["hosts"]) => {
            need("Sys.Audit")?;
            let text = hosts(w, node);
            data(json!({ "data": text, "digest": super::sections::digest(&text) }))
        }
        (_, ["network", rest @ ..]) => super::network::route(w, c, method, node, rest),
        (_, ["firewall", rest @ ..]) => super::firewall::node(w, c, method, node, rest),
        ("GET", ["hardware"]) => data(json!([{ "type": "pci" }, { "type": "usb" }])),
        ("GET", ["hardware", "usb"]) => {
            w.pve.need(who, "/", "Sys.Audit|Sys.Modify")?;
            data(json!([]))
        }
        ("GET", ["hardware", "pci"]) => {
            w.pve.need(who, "/", "Sys.Audit|Sys.Modify")?;
            c.params.check(&[t("pci-class-blacklist"), b("verbose")])?;
            data(pci(w, c, node))
        }
        ("GET", ["hardware", "pci", _]) => data(subdirs("method", &["mdev"])),
        ("GET", ["hardware", "pci", _, "mdev"]) => {
            w.pve.need(who, "/", "Sys.Audit|Sys.Modify")?;
            data(json!([]))
        }
        ("GET", ["lxc"]) => data(json!([])),
        ("GET", ["replication"]) => data(json!([])),
        ("GET", ["sdn", "zones"]) => data(json!([{ "zone": "localnetwork", "status": "available" }])),
        ("GET", ["subscription"]) => {
            data(json!({ "status": "notfound", "message": "There is no subscription key", "serverid": "0".repeat(32) }))
        }
        ("GET", ["services"]) => {
            need("Sys.Audit")?;
            let row = |s: &&str| json!({ "service": s, "name": s, "desc": s, "state": "running", "active-state": "active", "unit-state": "enabled" });
            data(SERVICES.iter().map(row).collect::<Vec<Value>>())
        }
        ("GET", ["services", name, "state"]) if SERVICES.contains(name) => {
            need("Sys.Audit")?;
            data(json!({ "service": name, "name": name, "desc": name, "state": "running", "active-state": "active",
                "unit-state": "enabled" }))
        }
        ("POST", ["services", name, verb @ ("start" | "stop" | "restart" | "reload")]) if SERVICES.contains(name) => {
            need("Sys.Modify")?;
            let kind = format!("srv{verb}");
            let who = who.clone();
            data(task::start(w, node, &kind, name, &who, Job::Over))
        }
        ("GET", ["certificates", "info"]) => {
            let print = tls::fingerprint(&w.pve.leaf.cert).unwrap_or_default();
            data(json!([{
                "filename": "pve-ssl.pem", "fingerprint": print, "pem": w.pve.leaf.cert,
                "issuer": "/CN=Proxmox Virtual Environment",
            }]))
        }
        ("GET", ["rrddata"]) => {
            need("Sys.Audit")?;
            c.params.check(HISTORY)?;
            data(history(w, &figures(w, node)))
        }
        ("GET", ["aplinfo"]) => data(json!([{
            "template": "debian-12-standard_12.12-1_amd64.tar.zst", "package": "debian-12-standard", "os": "debian-12",
            "version": "12.12-1", "section": "system", "architecture": "amd64", "type": "lxc", "source": "http://download.proxmox.com/images",
            "headline": "Debian 12 Bookworm (standard)", "description": "A small Debian Bookworm system.\n",
            "infopage": "https://www.debian.org", "location": "http://download.proxmox.com/images/system/debian-12-standard_12.12-1_amd64.tar.zst",
            "maintainer": "Proxmox Support Team <support@proxmox.com>", "manageurl": "", "sha512sum": "0".repeat(128),
        }])),
        ("GET", ["query-url-metadata"]) => super::content::url_metadata(w, c, node),
        ("POST", ["vzdump"]) => super::backup::request(w, c, node),
        ("GET", ["vzdump", "defaults"]) => {
            c.params.check(&[t("storage")])?;
            data(json!({ "storage": c.params.get("storage").unwrap_or_else(|| "local".into()), "mode": "snapshot" }))
        }
        ("GET", ["vzdump", "extractconfig"]) => super::backup::config_of(w, c, node),
        ("POST", [verb @ ("startall" | "stopall" | "suspendall")]) => all_vms(w, c, node, verb),
        _ => more(w, c, method, node, path),
    }
}

/// What a node tells and keeps besides.
fn more(w: &mut World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    let who = c.who()?.clone();
    let place = format!("/nodes/{node}");
    match (method, path) {
        (_, ["apt", rest @ ..]) => super::apt::route(w, c, method, node, rest),
        (_, ["capabilities", rest @ ..]) => super::capabilities::route(w, c, method, node, rest),
        (_, ["disks", rest @ ..]) => super::disks::route(w, c, method, node, rest),
        (_, ["scan", rest @ ..]) => super::disks::scan(w, c, method, node, rest),
        ("GET", ["journal"]) => super::logs::journal(w, c, node),
        ("GET", ["syslog"]) => super::logs::syslog(w, c, node),
        ("GET", ["netstat"]) => super::logs::netstat(w, c, node),
        ("GET", ["report"]) => super::logs::report(w, c, node),
        ("GET", ["certificates"]) => data(subdirs("name", &["acme", "custom", "info"])),
        ("GET", ["services", name]) if SERVICES.contains(name) => {
            w.pve.need(&who, &place, "Sys.Audit")?;
            data(subdirs("subdir", &["state", "start", "stop", "restart", "reload"]))
        }
        ("GET", ["sdn"]) => data(subdirs("name", &["zones"])),
        ("GET", ["sdn", "zones", zone]) => {
            w.pve.need(&who, &format!("/sdn/zones/{zone}"), "SDN.Audit")?;
            data(subdirs("subdir", &["bridges", "content"]))
        }
        ("GET", ["sdn", "zones", zone, "bridges"]) if !w.pve.is_8() => super::sdn::bridges_of(w, c, node, zone),
        ("GET", ["sdn", "zones", zone, "content"]) => super::sdn::on_node(w, c, node, zone),
        ("POST", ["hosts"]) => {
            w.pve.need(&who, &place, "Sys.Modify")?;
            c.params.check(&[req(t("data")), short("digest", 64)])?;
            super::sections::unchanged(&c.params, &super::sections::digest(&hosts(w, node)))?;
            let row = [("data".to_owned(), json!(c.params.text("data")))].into();
            w.pve.settings.insert(format!("hosts/{node}"), row);
            null()
        }
        ("POST", ["wakeonlan"]) => {
            w.pve.need(&who, &place, "Sys.PowerMgmt")?;
            let mac = setting(w, "config", node).get("wakeonlan").and_then(Value::as_str).map(str::to_owned);
            let none = || ApiError::fail(format!("No wake on LAN MAC address defined for '{node}'!"));
            data(mac.ok_or_else(none)?)
        }
        ("POST", ["migrateall"]) => move_all(w, c, node),
        (_, ["ceph", ..]) => {
            w.pve.need(&who, "/", "Sys.Audit|Datastore.Audit")?;
            Err(ApiError::fail("binary not installed: /usr/bin/ceph-mon"))
        }
        _ => Err(c.unknown()),
    }
}

fn hosts(w: &World, node: &str) -> String {
    let own = setting(w, "hosts", node).get("data").and_then(Value::as_str).map(str::to_owned);
    own.unwrap_or_else(|| {
        format!("127.0.0.1 localhost.localdomain localhost\n{} {node}.lab.example {node}\n", w.pve.address(node))
    })
}

/// `POST migrateall`: each machine is moved as by its own request.
fn move_all(w: &mut World, c: &Call, node: &str) -> Reply {
    let p = &c.params;
    p.check(&[
        req(super::params::node("target")),
        f("vms", vmids),
        range("maxworkers", 1, 64),
        range("max-workers", 1, 64),
        b("with-local-disks"),
    ])?;
    let who = c.who()?.clone();
    let listed = p.split("vms");
    let named = |id: &u32| listed.is_empty() || listed.contains(&id.to_string());
    let mine: Vec<(u32, bool)> =
        w.pve.vms.iter().filter(|(id, v)| v.node == node && named(id)).map(|(id, v)| (*id, v.run.is_some())).collect();
    for (id, _) in &mine {
        w.pve.need(&who, &format!("/vms/{id}"), "VM.Migrate")?;
    }
    let upid = task::start(w, node, "migrateall", "", &who, Job::Over);
    for (vmid, running) in mine {
        task::log(w, &upid, format!("Migrating VM {vmid}"));
        let mut one = Call { params: super::params::Params::default(), ..c.clone() };
        one.params.0.insert("target".into(), json!(p.text("target")));
        if running {
            one.params.0.insert("online".into(), json!(1));
        }
        if p.flag("with-local-disks") {
            one.params.0.insert("with-local-disks".into(), json!(1));
        }
        if let Err(e) = super::qemu::migrate::request(w, &one, node, vmid) {
            task::log(w, &upid, e.message);
        }
    }
    data(upid)
}

const INDEX: &[&str] = &[
    "aplinfo",
    "apt",
    "capabilities",
    "certificates",
    "config",
    "disks",
    "dns",
    "firewall",
    "hardware",
    "hosts",
    "journal",
    "lxc",
    "migrateall",
    "netstat",
    "network",
    "qemu",
    "query-url-metadata",
    "report",
    "rrddata",
    "scan",
    "sdn",
    "services",
    "startall",
    "status",
    "stopall",
    "storage",
    "subscription",
    "syslog",
    "tasks",
    "time",
    "version",
    "vzdump",
    "wakeonlan",
];
const SERVICES: &[&str] =
    &["chrony", "corosync", "cron", "pve-cluster", "pve-firewall", "pvedaemon", "pveproxy", "pvestatd", "sshd"];

fn setting(w: &World, what: &str, node: &str) -> super::state::Row {
    w.pve.settings.get(&format!("{what}/{node}")).cloned().unwrap_or_default()
}

fn store(w: &mut World, what: &str, node: &str, c: &Call, fields: &[Prop]) -> Reply {
    let mut row = setting(w, what, node);
    super::sections::unchanged(&c.params, &super::sections::digest(&row))?;
    super::sections::fill(&mut row, &c.params, fields)?;
    w.pve.settings.insert(format!("{what}/{node}"), row);
    null()
}

/// Parameters of figures over time.
pub const HISTORY: &[Prop] = &[
    Prop { required: true, ..e("timeframe", &["hour", "day", "week", "month", "year"]) },
    e("cf", &["AVERAGE", "MAX"]),
];

/// An hour of figures, one a minute, as they are now.
#[must_use]
pub fn history(w: &World, now: &[(&'static str, Value)]) -> Vec<Value> {
    let end = w.now_ms / 60_000 * 60;
    let row = |i: u64| {
        let mut v = json!({ "time": end - (69 - i) * 60 });
        for (k, x) in now.iter().filter(|(_, x)| x.is_number()) {
            v[*k] = x.clone();
        }
        v
    };
    (0..70).map(row).collect()
}

/// A node goes down, its VMs with it; after a reboot it comes back.
fn down(lab: &Lab, w: &mut World, node: &str, back: bool) {
    let running: Vec<u32> =
        w.pve.vms.iter().filter(|(_, v)| v.node == node && v.run.is_some()).map(|(id, _)| *id).collect();
    for vmid in running {
        crate::guest::power_off(lab, w, vmid);
        super::qemu::power::guest_halted(lab, w, vmid);
    }
    let tasks: Vec<String> =
        w.pve.active.iter().filter(|u| w.pve.tasks.get(*u).is_some_and(|t| t.node == node)).cloned().collect();
    for upid in tasks {
        task::finish(w, &upid, Some("unexpected status".into()));
    }
    // The last node stays: somebody has to answer.
    if w.pve.nodes.len() > w.pve.offline.len() + 1 {
        w.pve.offline.insert(node.to_owned());
        w.schedule(120_000, Event::Pve(PveEvent::Ha));
    }
    if back {
        w.schedule(90_000, Event::Pve(PveEvent::NodeUp { node: node.to_owned() }));
    }
}

/// A node is there again and starts what starts with it.
pub fn up(w: &mut World, node: &str) {
    w.pve.offline.remove(node);
    let who = super::acl::Who { user: "root@pam".into(), token: None };
    let mine = w.pve.vms.iter().filter(|(_, v)| v.node == node && v.run.is_none());
    let onboot: Vec<u32> =
        mine.filter(|(_, v)| v.conf.get("onboot").is_some_and(|o| o == "1")).map(|(id, _)| *id).collect();
    for vmid in onboot {
        task::start(w, node, "qmstart", &vmid.to_string(), &who, Job::Start { vmid });
    }
    w.schedule(10_000, Event::Pve(PveEvent::Ha));
}

/// `startall`, `stopall`, `suspendall`.
fn all_vms(w: &mut World, c: &Call, node: &str, verb: &str) -> Reply {
    c.params.check(&[f("vms", vmids), b("force"), b("force-stop"), n("timeout")])?;
    let who = c.who()?.clone();
    let listed = c.params.split("vms");
    let named = |id: &u32| listed.is_empty() || listed.contains(&id.to_string());
    let mine: Vec<(u32, bool, bool)> = w
        .pve
        .vms
        .iter()
        .filter(|(id, v)| v.node == node && named(id) && !v.conf.contains_key("template"))
        .map(|(id, v)| (*id, v.run.is_some(), v.conf.get("onboot").is_some_and(|o| o == "1")))
        .collect();
    for (id, ..) in &mine {
        w.pve.need(&who, &format!("/vms/{id}"), "VM.PowerMgmt")?;
    }
    let upid = task::start(w, node, verb, "", &who, Job::Over);
    for (vmid, running, onboot) in mine {
        let id = vmid.to_string();
        let job = match verb {
            "startall" if !running && (onboot || c.params.flag("force")) => ("qmstart", Job::Start { vmid }),
            "stopall" if running => ("qmshutdown", Job::Shutdown { vmid, timeout: 180, force: true }),
            "suspendall" if running => ("qmsuspend", Job::Hibernate { vmid, storage: None }),
            _ => continue,
        };
        task::log(w, &upid, format!("{} VM {vmid}", if verb == "startall" { "Starting" } else { "Stopping" }));
        task::start(w, node, job.0, &id, &who, job.1);
    }
    data(upid)
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
            for (k, x) in [("vendor_name", &d.vendor_name), ("device_name", &d.device_name)] {
                if !x.is_empty() {
                    v[k] = json!(x);
                }
            }
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
