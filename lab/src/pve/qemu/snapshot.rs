//! Snapshots without memory.
use serde_json::{Value, json};

use super::{conf, power, spawn, task_vm, unlocked};
use crate::pve::acl::Who;
use crate::pve::params::{b, config_id, f, req, t};
use crate::pve::reply::{ApiError, Reply, data, null};
use crate::pve::router::{Call, subdirs};
use crate::pve::state::{Snapshot, Vm};
use crate::pve::task::{self, Job, Step};
use crate::world::World;
use crate::{Lab, guest};

/// Handles `/nodes/{node}/qemu/{vmid}/snapshot…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, node: &str, vmid: u32, path: &[&str]) -> Reply {
    let who = c.who()?;
    let need = |w: &World, p: &str| w.pve.need(who, &format!("/vms/{vmid}"), p);
    match (method, path) {
        ("GET", []) => {
            need(w, "VM.Audit")?;
            list(super::vm(w, node, vmid)?)
        }
        ("POST", []) => {
            c.params.check(&[req(f("snapname", config_id)), b("vmstate"), t("description")])?;
            need(w, "VM.Snapshot")?;
            super::vm(w, node, vmid)?;
            let name = c.params.text("snapname");
            if name == "current" || name == "pending" {
                return Err(ApiError::param(
                    "snapname",
                    format!("unable to use snapshot name '{name}' (reserved name)"),
                ));
            }
            let job = Job::Snapshot { vmid, name, description: c.params.text("description") };
            spawn(w, c, node, "qmsnapshot", vmid, job)
        }
        ("GET", [_]) => data(subdirs("cmd", &["config", "rollback"])),
        ("DELETE", [name]) => {
            c.params.check(&[b("force")])?;
            need(w, "VM.Snapshot")?;
            spawn(w, c, node, "qmdelsnapshot", vmid, Job::DelSnapshot { vmid, name: (*name).to_owned() })
        }
        ("POST", [name, "rollback"]) => {
            c.params.check(&[b("start")])?;
            need(w, "VM.Snapshot|VM.Snapshot.Rollback")?;
            let job = Job::Rollback { vmid, name: (*name).to_owned(), start: c.params.flag("start") };
            spawn(w, c, node, "qmrollback", vmid, job)
        }
        ("GET" | "PUT", [name, "config"]) => {
            need(w, if method == "GET" { "VM.Snapshot|VM.Snapshot.Rollback|VM.Audit" } else { "VM.Snapshot" })?;
            super::vm(w, node, vmid)?;
            let missing = || ApiError::fail(format!("snapshot '{name}' does not exist"));
            let s = w.pve.vms.get_mut(&vmid).and_then(|v| v.snapshots.get_mut(*name)).ok_or_else(missing)?;
            if method == "PUT" {
                s.description = c.params.text("description");
                return null();
            }
            let map = s.conf.iter().map(|(k, v)| (k.clone(), conf::typed(k, v))).collect();
            data(Value::Object(map))
        }
        _ => Err(c.unknown()),
    }
}

fn list(vm: &Vm) -> Reply {
    let mut all: Vec<(&String, &Snapshot)> = vm.snapshots.iter().collect();
    all.sort_by_key(|(_, s)| s.time);
    let mut rows: Vec<Value> = Vec::new();
    let mut parent: Option<&String> = None;
    for (name, s) in all {
        let mut v = json!({ "name": name, "snaptime": s.time, "description": s.description, "vmstate": 0 });
        if let Some(p) = parent {
            v["parent"] = json!(p);
        }
        parent = Some(name);
        rows.push(v);
    }
    let mut now = json!({
        "name": "current",
        "description": "You are here!",
        "digest": conf::digest(vm),
        "running": i32::from(vm.run.is_some()),
    });
    if let Some(p) = parent {
        now["parent"] = json!(p);
    }
    rows.push(now);
    data(Value::Array(rows))
}

/// Runs `qmsnapshot`.
///
/// # Errors
/// The message the task ends with.
pub fn take(w: &mut World, upid: &str, vmid: u32, name: &str, text: &str, step: u32) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    let vm = task_vm(w, upid, vmid)?.clone();
    if step == 0 {
        unlocked(&vm)?;
        if vm.snapshots.contains_key(name) {
            return Err(format!("snapshot name '{name}' already used"));
        }
        if vm.conf.get("template").is_some_and(|t| t == "1") {
            return Err("snapshot feature is not available".into());
        }
        return Ok(Step::Next(1500));
    }
    let ids = conf::drives(&vm.conf).into_iter().filter_map(|(_, p)| conf::volume(&p).map(str::to_owned));
    let volumes = ids.filter_map(|id| w.volumes.get(&id).map(|v| (id.clone(), v.clone()))).collect();
    let mut conf = vm.conf.clone();
    conf.remove("lock");
    let snap = Snapshot { conf, volumes, time: w.now_ms / 1000, description: text.to_owned() };
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.snapshots.insert(name.to_owned(), snap);
    }
    Ok(Step::Done)
}

/// Runs `qmrollback`.
///
/// # Errors
/// The message the task ends with.
pub fn rollback(
    lab: &Lab,
    w: &mut World,
    upid: &str,
    vmid: u32,
    name: &str,
    start: bool,
    step: u32,
) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    let vm = task_vm(w, upid, vmid)?.clone();
    let snap = vm.snapshots.get(name).cloned().ok_or_else(|| format!("snapshot '{name}' does not exist"))?;
    if step == 0 {
        unlocked(&vm)?;
        if vm.run.is_some() {
            guest::power_off(lab, w, vmid);
            power::guest_halted(lab, w, vmid);
        }
        return Ok(Step::Next(2000));
    }
    for (id, v) in snap.volumes {
        w.volumes.insert(id, v);
    }
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.conf = snap.conf;
        vm.pending.clear();
        vm.pending_delete.clear();
    }
    if start && let Some(t) = w.pve.tasks.get(upid).cloned() {
        task::unlock(w, upid);
        let who = Who { user: t.user, token: t.token };
        task::start(w, &t.node, "qmstart", &vmid.to_string(), &who, Job::Start { vmid });
    }
    Ok(Step::Done)
}

/// Runs `qmdelsnapshot`.
///
/// # Errors
/// The message the task ends with.
pub fn remove(w: &mut World, upid: &str, vmid: u32, name: &str, step: u32) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    let vm = task_vm(w, upid, vmid)?;
    unlocked(vm)?;
    if !vm.snapshots.contains_key(name) {
        return Err(format!("snapshot '{name}' does not exist"));
    }
    if step == 0 {
        return Ok(Step::Next(1000));
    }
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.snapshots.remove(name);
    }
    Ok(Step::Done)
}
