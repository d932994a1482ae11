//! Virtual machines: `/nodes/{node}/qemu…`.
pub mod boot;
pub mod clone;
pub mod cloudinit;
pub mod conf;
pub mod config;
pub mod create;
pub mod destroy;
pub mod drive;
pub mod migrate;
pub mod move_disk;
pub mod pci;
pub mod perms;
pub mod power;
pub mod resize;
pub mod snapshot;
pub mod status;

use serde_json::json;

use super::params::{b, cid, e, req, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::state::Vm;
use super::task::{self, Job};
use crate::world::World;

/// A new MAC address with the prefix the server uses.
pub fn new_mac(w: &mut World) -> String {
    let r = w.random().to_be_bytes();
    format!("BC:24:11:{:02X}:{:02X}:{:02X}", r[0], r[1], r[2])
}

/// A VM that must be on this node.
///
/// # Errors
/// `500 Configuration file … does not exist`.
pub fn vm<'a>(w: &'a World, node: &str, vmid: u32) -> Result<&'a Vm, ApiError> {
    w.pve.vms.get(&vmid).filter(|v| v.node == node).ok_or_else(|| ApiError::no_config(node, vmid))
}

/// The VM of a task, which may be gone by now.
///
/// # Errors
/// The message the task ends with.
pub fn task_vm<'a>(w: &'a World, upid: &str, vmid: u32) -> Result<&'a Vm, String> {
    let node = w.pve.tasks.get(upid).map(|t| t.node.clone()).unwrap_or_default();
    w.pve.vms.get(&vmid).ok_or_else(|| super::reply::no_config(&node, vmid))
}

/// Takes a lock that a task has put into a config out of it.
pub fn unlock_config(w: &mut World, vmid: u32, lock: &str) {
    if let Some(vm) = w.pve.vms.get_mut(&vmid).filter(|v| v.conf.get("lock").is_some_and(|l| l == lock)) {
        vm.conf.remove("lock");
    }
}

/// `VM is locked (clone)`.
///
/// # Errors
/// When the config carries a lock.
pub fn unlocked(vm: &Vm) -> Result<(), String> {
    vm.conf.get("lock").map_or(Ok(()), |l| Err(format!("VM is locked ({l})")))
}

fn id_of(text: &str) -> Result<u32, ApiError> {
    if text.parse::<i64>().is_err() {
        return Err(ApiError::param("vmid", format!("type check ('integer') failed - got '{text}'")));
    }
    let good = text.parse::<u32>().ok().filter(|n| *n >= 100);
    good.ok_or_else(|| ApiError::param("vmid", "invalid format - value does not look like a valid VM ID\n"))
}

/// Handles `/nodes/{node}/qemu…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    let who = c.who()?;
    let [id, rest @ ..] = path else {
        return match method {
            "GET" => status::list(w, c, node),
            "POST" => create::request(w, c, node),
            _ => Err(c.unknown()),
        };
    };
    let vmid = id_of(id)?;
    let need = |w: &World, privs: &str| w.pve.need(who, &format!("/vms/{vmid}"), privs);
    if method != "GET" {
        status::remember(w, vmid);
    }
    match (method, rest) {
        ("GET", []) => data(subdirs(
            "subdir",
            &["config", "pending", "cloudinit", "status", "agent", "snapshot", "clone", "resize", "template"],
        )),
        ("DELETE", []) => destroy::request(w, c, node, vmid),
        ("GET", ["config"]) => {
            need(w, "VM.Audit")?;
            config::get(w, c, node, vmid)
        }
        ("PUT" | "POST", ["config"]) => config::request(w, c, node, vmid),
        ("GET", ["pending"]) => {
            need(w, "VM.Audit")?;
            c.params.check(&[])?;
            conf::pending_view(vm(w, node, vmid)?)
        }
        ("POST", ["clone"]) => clone::request(w, c, node, vmid),
        ("POST", ["move_disk"]) => move_disk::request(w, c, node, vmid),
        ("PUT", ["resize"]) => resize::request(w, c, node, vmid),
        ("PUT", ["unlink"]) => config::unlink(w, c, node, vmid),
        ("POST", ["template"]) => destroy::template_request(w, c, node, vmid),
        ("GET", ["status"]) => data(subdirs("subdir", &["current", "start", "stop", "reset", "shutdown", "reboot"])),
        ("GET", ["status", "current"]) => {
            need(w, "VM.Audit")?;
            c.params.check(&[])?;
            data(status::current(w, node, vmid)?)
        }
        ("POST", ["status", verb]) => power::request(w, c, node, vmid, verb),
        ("GET" | "PUT", ["cloudinit"]) | ("GET", ["cloudinit", "dump"]) => {
            cloudinit::route(w, c, method, node, vmid, rest.len() == 2)
        }
        (_, ["snapshot", more @ ..]) => snapshot::route(w, c, method, node, vmid, more),
        (_, ["firewall", more @ ..]) => super::firewall::vm(w, c, method, vmid, more),
        ("GET", ["feature"]) => feature(w, c, node, vmid),
        ("GET", ["rrddata"]) => {
            need(w, "VM.Audit")?;
            c.params.check(crate::pve::nodes::HISTORY)?;
            let now = status::current(w, node, vmid)?;
            let keys = ["cpu", "maxmem", "mem", "maxdisk", "disk", "netin", "netout"];
            data(super::nodes::history(w, &keys.map(|k| (k, now[k].clone()))))
        }
        ("POST", ["vncproxy" | "termproxy" | "spiceproxy"]) => {
            need(w, "VM.Console")?;
            vm(w, node, vmid)?;
            Err(ApiError::fail("the lab has no consoles (reach the guest by SSH or its agent)"))
        }
        ("GET", ["agent"]) => data(subdirs("name", &["ping", "exec", "exec-status", "network-get-interfaces"])),
        ("GET", ["migrate"]) => migrate::precondition(w, c, node, vmid),
        ("POST", ["migrate"]) => migrate::request(w, c, node, vmid),
        ("PUT", ["sendkey"]) => {
            need(w, "VM.Console")?;
            c.params.check(&[req(t("key")), b("skiplock")])?;
            if vm(w, node, vmid)?.run.is_none() {
                return Err(ApiError::fail(format!("VM {vmid} not running")));
            }
            null()
        }
        _ => Err(c.unknown()),
    }
}

/// `GET feature`: whether a VM can be cloned, copied or snapshotted as it is.
fn feature(w: &World, c: &Call, node: &str, vmid: u32) -> Reply {
    w.pve.need(c.who()?, &format!("/vms/{vmid}"), "VM.Audit")?;
    c.params.check(&[req(e("feature", &["snapshot", "clone", "copy"])), cid("snapname")])?;
    let vm = vm(w, node, vmid)?;
    let snapshots = snapshot::freezable(w, vm).is_ok();
    let volumes = conf::drives(&vm.conf).into_iter().filter(|(_, p)| !conf::is_cdrom(p));
    let bases = volumes.filter_map(|(_, p)| conf::volume(&p).map(|v| v.contains("base-"))).all(|b| b);
    let has = match c.params.text("feature").as_str() {
        "snapshot" => snapshots,
        "clone" => bases,
        _ => true,
    };
    let nodes: Vec<&String> =
        if migrate::local_volumes(w, vm).is_empty() { w.pve.nodes.keys().collect() } else { vec![&vm.node] };
    data(json!({ "hasFeature": i32::from(has), "nodes": nodes }))
}

/// Starts a task of the sender and answers with its UPID.
///
/// # Errors
/// When nobody is logged in.
pub fn spawn(w: &mut World, c: &Call, node: &str, kind: &str, vmid: u32, job: Job) -> Reply {
    let who = c.who()?.clone();
    data(task::start(w, node, kind, &vmid.to_string(), &who, job))
}
