//! Lists and states of VMs.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props;
use serde_json::{Value, json};

use super::conf;
use crate::pve::params::b;
use crate::pve::reply::{ApiError, Reply, data};
use crate::pve::router::Call;
use crate::pve::state::Vm;
use crate::world::World;

/// The cluster's view of VMs is refreshed this often.
const REFRESH_MS: u64 = 10_000;

fn uptime(w: &World, vm: &Vm) -> u64 {
    vm.run.as_ref().map_or(0, |r| (w.now_ms - r.since_ms.min(w.now_ms)) / 1000)
}

fn used_memory(conf: &BTreeMap<String, String>, seconds: u64) -> u64 {
    let max = conf::memory_mib(conf) << 20;
    if seconds == 0 { 0 } else { (max / 10 + (600 << 20)).min(max) }
}

fn base(w: &World, vmid: u32, vm: &Vm) -> Value {
    let seconds = uptime(w, vm);
    let name = vm.conf.get("name").cloned().unwrap_or_else(|| format!("VM {vmid}"));
    let mut v = json!({
        "vmid": vmid,
        "name": name,
        "status": if vm.run.is_some() { "running" } else { "stopped" },
        "cpus": conf::cpus(&vm.conf),
        "cpu": 0,
        "maxmem": conf::memory_mib(&vm.conf) << 20,
        "mem": used_memory(&vm.conf, seconds),
        "memhost": used_memory(&vm.conf, seconds),
        "maxdisk": conf::boot_disk_size(&vm.conf),
        "disk": 0,
        "uptime": seconds,
        "netin": seconds * 220,
        "netout": seconds * 150,
        "diskread": 0,
        "diskwrite": 0,
    });
    for key in ["tags", "lock"] {
        if let Some(x) = vm.conf.get(key) {
            v[key] = json!(x);
        }
    }
    if vm.conf.get("template").is_some_and(|t| t == "1") {
        v["template"] = json!(1);
    }
    if vm.conf.contains_key("serial0") {
        v["serial"] = json!(1);
    }
    if let Some(r) = &vm.run {
        v["pid"] = json!(r.pid);
    }
    v
}

/// Whether the agent is switched on in a config.
#[must_use]
pub fn agent_enabled(c: &BTreeMap<String, String>) -> Option<bool> {
    c.get("agent").map(|a| props::read("agent", a).get("enabled").is_some_and(|e| e == "1"))
}

/// `status/current`.
///
/// # Errors
/// `500` when there is no such VM.
pub fn current(w: &World, node: &str, vmid: u32) -> Result<Value, ApiError> {
    let vm = super::vm(w, node, vmid)?;
    let mut v = base(w, vmid, vm);
    v["qmpstatus"] = json!(match &vm.run {
        Some(r) if r.paused => "paused",
        Some(_) => "running",
        None => "stopped",
    });
    v["ha"] = json!({ "managed": 0 });
    if agent_enabled(&vm.conf) == Some(true) {
        v["agent"] = json!(1);
    }
    if vm.run.is_some() {
        let nets = vm.conf.keys().filter_map(|k| match props::numbered(k) {
            ("net", Some(n)) => Some((format!("tap{vmid}i{n}"), json!({ "netin": 220, "netout": 656 }))),
            _ => None,
        });
        v["nics"] = Value::Object(nets.collect());
        if let Some(m) = vm.conf.get("machine") {
            v["running-machine"] = json!(m);
        }
    }
    Ok(v)
}

/// `GET /nodes/{node}/qemu`.
///
/// # Errors
/// The server's refusal.
pub fn list(w: &World, c: &Call, node: &str) -> Reply {
    c.params.check(&[b("full")])?;
    let who = c.who()?;
    let mine = w.pve.vms.iter().filter(|(_, v)| v.node == node);
    let rows = mine.filter(|(id, _)| w.pve.has(who, &format!("/vms/{id}"), "VM.Audit")).map(|(id, vm)| {
        if c.params.flag("full") { current(w, node, *id).unwrap_or_default() } else { base(w, *id, vm) }
    });
    data(rows.collect::<Vec<Value>>())
}

/// A VM as `cluster/resources` and pools show it: refreshed only every ten seconds.
#[must_use]
pub fn resource(w: &World, vmid: u32, vm: &Vm) -> Value {
    let seen = w.now_ms / REFRESH_MS * REFRESH_MS;
    let mut v = json!({ "id": format!("qemu/{vmid}"), "type": "qemu", "vmid": vmid, "node": vm.node });
    let pool = w.pve.pools.iter().find(|(_, p)| p.vms.contains(&vmid)).map(|(id, _)| id);
    if let Some(p) = pool {
        v["pool"] = json!(p);
    }
    if vm.born_ms > seen {
        v["status"] = json!("unknown");
        for key in ["tags", "lock"] {
            if let Some(x) = vm.conf.get(key) {
                v[key] = json!(x);
            }
        }
        return v;
    }
    let full = base(w, vmid, vm);
    for key in [
        "name",
        "cpu",
        "maxmem",
        "mem",
        "memhost",
        "maxdisk",
        "disk",
        "uptime",
        "netin",
        "netout",
        "diskread",
        "diskwrite",
        "tags",
        "lock",
    ] {
        if let Some(x) = full.get(key) {
            v[key] = x.clone();
        }
    }
    v["maxcpu"] = json!(conf::cpus(&vm.conf));
    v["template"] = json!(i32::from(full.get("template").is_some()));
    let known = vm.run.as_ref().is_some_and(|r| r.since_ms <= seen);
    v["status"] = json!(if known { "running" } else { "stopped" });
    v
}
