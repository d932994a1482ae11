//! Lists and states of VMs.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props;
use serde_json::{Value, json};

use super::conf;
use crate::pve::params::b;
use crate::pve::reply::{ApiError, Reply, data};
use crate::pve::router::Call;
use crate::pve::state::{Heard, Vm};
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

/// The figures that every list shows. As on the server a VM has no more processors than its node.
fn base(w: &World, vmid: u32, vm: &Vm) -> Value {
    let seconds = uptime(w, vm);
    let most = w.pve.nodes.get(&vm.node).map_or(u32::MAX, |n| n.cpus);
    let mem = used_memory(&vm.conf, seconds);
    let name = vm.conf.get("name").cloned().unwrap_or_else(|| format!("VM {vmid}"));
    let mut v = json!({
        "vmid": vmid,
        "name": name,
        "status": if vm.run.is_some() { "running" } else { "stopped" },
        "cpus": conf::cpus(&vm.conf).min(most),
        "cpu": 0,
        "maxmem": conf::memory_mib(&vm.conf) << 20,
        "mem": mem,
        "maxdisk": conf::boot_disk_size(&vm.conf),
        "disk": 0,
        "uptime": seconds,
        "netin": seconds * 220,
        "netout": seconds * 150,
    });
    if !w.pve.is_8() {
        v["memhost"] = json!(mem);
    }
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
        if !w.pve.is_8() {
            for k in ["cpu", "io", "memory"] {
                v[format!("pressure{k}some")] = json!(0);
                v[format!("pressure{k}full")] = json!(0);
            }
        }
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
    let mut v = full(w, vmid, vm);
    let managed = crate::pve::ha::wanted(w, vmid);
    v["ha"] = json!({ "managed": i32::from(managed.is_some()) });
    if let Some(state) = managed {
        v["ha"]["state"] = json!(state);
    }
    if agent_enabled(&vm.conf) == Some(true) {
        v["agent"] = json!(1);
    }
    if let Some(vga) = vm.conf.get("vga") {
        let p = props::read("vga", vga);
        let kind = p.get("type").map(String::as_str).unwrap_or_default();
        if kind.starts_with("qxl") || kind.starts_with("virtio") {
            v["spice"] = json!(1);
        }
        v["clipboard"] = json!(p.get("clipboard"));
    }
    Ok(v)
}

/// What the list shows with `full`.
fn full(w: &World, vmid: u32, vm: &Vm) -> Value {
    let mut v = base(w, vmid, vm);
    v["qmpstatus"] = json!(match &vm.run {
        Some(r) if r.paused => "paused",
        Some(_) => "running",
        None => "stopped",
    });
    if vm.run.is_some() {
        let seconds = uptime(w, vm);
        let nets = vm.conf.keys().filter_map(|k| match props::numbered(k) {
            ("net", Some(n)) => {
                Some((format!("tap{vmid}i{n}"), json!({ "netin": seconds * 220, "netout": seconds * 150 })))
            }
            _ => None,
        });
        v["nics"] = Value::Object(nets.collect());
    }
    v
}

/// `GET /nodes/{node}/qemu`.
///
/// # Errors
/// The server's refusal.
pub fn list(w: &World, c: &Call, node: &str) -> Reply {
    c.params.check(&[b("full")])?;
    let who = c.who()?;
    let may = w.pve.on_vms(who, "VM.Audit");
    let all = c.params.flag("full");
    let mine = w.pve.vms.iter().filter(|(id, v)| v.node == node && may.on(**id));
    data(mine.map(|(id, vm)| if all { full(w, *id, vm) } else { base(w, *id, vm) }).collect::<Vec<Value>>())
}

/// The pool of each VM that is in one.
#[must_use]
pub fn pools_of(w: &World) -> BTreeMap<u32, &str> {
    w.pve.pools.iter().flat_map(|(id, p)| p.vms.iter().map(move |v| (*v, id.as_str()))).collect()
}

/// The last report before now.
fn report(w: &World) -> u64 {
    w.now_ms / REFRESH_MS * REFRESH_MS
}

/// Keeps what the cluster last heard of a VM, before it changes.
pub fn remember(w: &mut World, vmid: u32) {
    let at_ms = report(w);
    let Some(vm) = w.pve.vms.get(&vmid) else { return };
    if vm.heard.as_ref().is_some_and(|h| h.at_ms == at_ms) {
        return;
    }
    let row = (vm.born_ms <= at_ms).then(|| figures(w, vmid, vm));
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.heard = Some(Heard { at_ms, row });
    }
}

/// A VM as pools show it: its figures are those of the last report, made every ten seconds.
#[must_use]
pub fn member(w: &World, vmid: u32, vm: &Vm) -> Value {
    let mut v = json!({ "id": format!("qemu/{vmid}"), "type": "qemu", "vmid": vmid, "node": vm.node });
    let at_ms = report(w);
    let figures = match &vm.heard {
        Some(h) if h.at_ms == at_ms => h.row.clone(),
        _ if vm.born_ms > at_ms => None,
        _ => Some(figures(w, vmid, vm)),
    };
    match figures {
        Some(Value::Object(row)) if !w.pve.offline.contains(&vm.node) => {
            for (k, x) in row {
                v[k] = x;
            }
        }
        _ => v["status"] = json!("unknown"),
    }
    v
}

/// A VM as `cluster/resources` shows it: the report, and what is always of now: tags, lock, pool, HA.
#[must_use]
pub fn resource(w: &World, vmid: u32, vm: &Vm, pool: Option<&str>) -> Value {
    let mut v = member(w, vmid, vm);
    for key in ["tags", "lock"] {
        if let Some(x) = vm.conf.get(key) {
            v[key] = json!(x);
        }
    }
    if let Some(p) = pool {
        v["pool"] = json!(p);
    }
    if let Some(state) = crate::pve::ha::wanted(w, vmid) {
        v["hastate"] = json!(state);
    }
    v
}

fn figures(w: &World, vmid: u32, vm: &Vm) -> Value {
    let mut v = base(w, vmid, vm);
    if let Some(o) = v.as_object_mut() {
        o.retain(|k, _| {
            !matches!(k.as_str(), "vmid" | "tags" | "lock" | "serial" | "pid") && !k.starts_with("pressure")
        });
        if let Some(n) = o.shift_remove("cpus") {
            o.insert("maxcpu".into(), n);
        }
        for k in ["diskread", "diskwrite"] {
            o.insert(k.into(), json!(0));
        }
        o.entry("template").or_insert(json!(0));
    }
    v
}
