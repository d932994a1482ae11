//! Virtual machines: `/nodes/{node}/qemu…`.
pub mod boot;
pub mod clone;
pub mod cloudinit;
pub mod conf;
pub mod config;
pub mod create;
pub mod destroy;
pub mod drive;
pub mod move_disk;
pub mod pci;
pub mod perms;
pub mod power;
pub mod resize;
pub mod snapshot;
pub mod status;

use serde_json::json;

use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::state::Vm;
use super::task::{self, Job};
use crate::Lab;
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
pub fn route(lab: &Lab, w: &mut World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
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
            data(status::current(w, node, vmid)?)
        }
        ("POST", ["status", verb]) => power::request(w, c, node, vmid, verb),
        ("GET" | "PUT", ["cloudinit"]) | ("GET", ["cloudinit", "dump"]) => {
            cloudinit::route(w, c, method, node, vmid, rest.len() == 2)
        }
        (_, ["snapshot", more @ ..]) => snapshot::route(w, c, method, node, vmid, more),
        ("GET", ["firewall", "rules"]) => {
            need(w, "VM.Audit")?;
            data(json!([]))
        }
        ("GET", ["firewall", "options"]) => {
            need(w, "VM.Audit")?;
            data(json!({ "digest": "da39a3ee5e6b4b0d3255bfef95601890afd80709" }))
        }
        ("GET", ["agent"]) => data(subdirs("name", &["ping", "exec", "exec-status", "network-get-interfaces"])),
        ("GET" | "POST", ["agent", verb]) => super::agent::sync(lab, w, c, node, vmid, verb),
        ("GET", ["migrate"]) => {
            need(w, "VM.Migrate")?;
            let running = vm(w, node, vmid)?.run.is_some();
            data(json!({ "running": i32::from(running), "local_disks": [], "local_resources": [] }))
        }
        ("PUT", ["sendkey"]) => {
            need(w, "VM.Console")?;
            vm(w, node, vmid)?;
            null()
        }
        _ => Err(c.unknown()),
    }
}

/// Starts a task of the sender and answers with its UPID.
///
/// # Errors
/// When nobody is logged in.
pub fn spawn(w: &mut World, c: &Call, node: &str, kind: &str, vmid: u32, job: Job) -> Reply {
    let who = c.who()?.clone();
    data(task::start(w, node, kind, &vmid.to_string(), &who, job))
}
