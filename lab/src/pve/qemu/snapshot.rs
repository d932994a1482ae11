//! Snapshots: taken, shown, rolled back, removed.
use gpuhost_stdlib::wire::pve::props::Prop;
use serde_json::{Value, json};

use super::{conf, power, spawn, task_vm, unlocked};
use crate::pve::acl::Who;
use crate::pve::params::{b, cid, req, t};
use crate::pve::reply::{ApiError, Reply, data, null};
use crate::pve::router::{Call, subdirs};
use crate::pve::space;
use crate::pve::state::{Snapshot, Vm};
use crate::pve::task::{self, Job, Step};
use crate::volume::{Content, Volume};
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
            let name = Prop { max_len: Some(40), ..cid("snapname") };
            need(w, "VM.Snapshot")?;
            c.params.check(&[req(name), b("vmstate"), t("description")])?;
            let vm = super::vm(w, node, vmid)?;
            let name = c.params.text("snapname");
            if name == "current" || name == "pending" {
                return Err(ApiError::fail(format!("unable to use snapshot name '{name}' (reserved name)")));
            }
            let memory = c.params.flag("vmstate") && vm.run.is_some();
            let job = Job::Snapshot { vmid, name, description: c.params.text("description"), memory };
            spawn(w, c, node, "qmsnapshot", vmid, job)
        }
        ("GET", [_]) => data(subdirs("cmd", &["config", "rollback"])),
        ("DELETE", [name]) => {
            need(w, "VM.Snapshot")?;
            c.params.check(&[b("force")])?;
            spawn(w, c, node, "qmdelsnapshot", vmid, Job::DelSnapshot { vmid, name: (*name).to_owned() })
        }
        ("POST", [name, "rollback"]) => {
            need(w, "VM.Snapshot|VM.Snapshot.Rollback")?;
            c.params.check(&[b("start")])?;
            let job = Job::Rollback { vmid, name: (*name).to_owned(), start: c.params.flag("start") };
            spawn(w, c, node, "qmrollback", vmid, job)
        }
        ("GET" | "PUT", [name, "config"]) => {
            let text = [t("description")];
            need(w, if method == "GET" { "VM.Snapshot|VM.Snapshot.Rollback|VM.Audit" } else { "VM.Snapshot" })?;
            c.params.check(if method == "PUT" { &text[..] } else { &[] })?;
            super::vm(w, node, vmid)?;
            let missing = || ApiError::fail(format!("snapshot '{name}' does not exist"));
            let s = w.pve.vms.get_mut(&vmid).and_then(|v| v.snapshots.get_mut(*name)).ok_or_else(missing)?;
            if method == "PUT" {
                if let Some(d) = c.params.get("description") {
                    s.description = d;
                }
                return null();
            }
            data(view(s))
        }
        _ => Err(c.unknown()),
    }
}

/// The config that a snapshot keeps, with its own marks.
#[must_use]
pub fn view(s: &Snapshot) -> Value {
    let mut map: serde_json::Map<String, Value> = s.conf.iter().map(|(k, v)| (k.clone(), conf::typed(k, v))).collect();
    map.insert("snaptime".into(), json!(s.time));
    for (k, v) in [("parent", &s.parent), ("vmstate", &s.vmstate), ("snapstate", &s.state)] {
        if let Some(v) = v {
            map.insert(k.into(), json!(v));
        }
    }
    if s.description.is_empty() {
        map.shift_remove("description");
    } else {
        map.insert("description".into(), json!(s.description));
    }
    Value::Object(map)
}

fn list(vm: &Vm) -> Reply {
    let mut all: Vec<(&String, &Snapshot)> = vm.snapshots.iter().collect();
    all.sort_by_key(|(_, s)| s.time);
    let mut rows: Vec<Value> = Vec::new();
    for (name, s) in all {
        let memory = i32::from(s.vmstate.is_some());
        let mut v = json!({ "name": name, "snaptime": s.time, "description": s.description, "vmstate": memory });
        for (k, x) in [("parent", &s.parent), ("snapstate", &s.state)] {
            if let Some(x) = x {
                v[k] = json!(x);
            }
        }
        rows.push(v);
    }
    let mut now = json!({
        "name": "current",
        "description": "You are here!",
        "digest": conf::digest(vm),
        "running": i32::from(vm.run.is_some()),
    });
    if let Some(p) = vm.conf.get("parent") {
        now["parent"] = json!(p);
    }
    rows.push(now);
    data(Value::Array(rows))
}

/// The volumes that a snapshot freezes.
///
/// # Errors
/// When one of them cannot have snapshots.
pub fn freezable(w: &World, vm: &Vm) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    for (_, p) in conf::drives(&vm.conf) {
        let Some(id) = conf::volume(&p).map(str::to_owned) else { continue };
        if conf::is_cdrom(&p) && !conf::is_cloudinit(&p) {
            continue;
        }
        let store = w.pve.storages.get(id.split(':').next().unwrap_or_default());
        let raw = w.pve.files.get(&id).is_some_and(|f| f.format == "raw");
        if store.is_none_or(|s| s.kind == "lvm" || (s.is_dir() && raw)) {
            return Err("snapshot feature is not available".into());
        }
        ids.push(id);
    }
    Ok(ids)
}

/// Runs `qmsnapshot`.
///
/// # Errors
/// The message the task ends with.
pub fn take(
    w: &mut World,
    upid: &str,
    vmid: u32,
    (name, text): (&str, &str),
    memory: bool,
    step: u32,
) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    let vm = task_vm(w, upid, vmid)?.clone();
    if step == 0 {
        unlocked(&vm)?;
        if vm.conf.get("template").is_some_and(|t| t == "1") {
            return Err("you can't take a snapshot if it's a template".into());
        }
        if vm.snapshots.contains_key(name) {
            return Err(format!("snapshot name '{name}' already used"));
        }
        let ids = freezable(w, &vm)?;
        if memory {
            task::log(w, upid, "saving VM state and RAM using storage");
        }
        for id in ids {
            let drive = conf::drives(&vm.conf).into_iter().find(|(_, p)| conf::volume(p) == Some(id.as_str()));
            task::log(
                w,
                upid,
                format!("snapshotting '{}' ({id})", drive.map(|d| format!("drive-{}", d.0)).unwrap_or_default()),
            );
        }
        let ram = if memory { conf::memory_mib(&vm.conf) * 4 } else { 0 };
        if let Some(vm) = w.pve.vms.get_mut(&vmid) {
            vm.conf.insert("lock".into(), "snapshot".into());
        }
        return Ok(Step::Next(1500 + ram));
    }
    let kept = if memory { Some(memory_volume(w, vmid, &vm, &format!("state-{name}"), None)) } else { None };
    super::unlock_config(w, vmid, "snapshot");
    let vmstate = kept.transpose()?;
    let volumes =
        freezable(w, &vm)?.into_iter().filter_map(|id| w.volumes.get(&id).map(|v| (id.clone(), v.clone()))).collect();
    let mut conf = vm.conf.clone();
    let parent = conf.remove("parent");
    conf.remove("lock");
    let description = text.trim_end_matches('\n').to_owned();
    let snap = Snapshot { conf, volumes, time: w.now_ms / 1000, description, parent, state: None, vmstate };
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.snapshots.insert(name.to_owned(), snap);
        vm.conf.insert("parent".into(), name.to_owned());
    }
    Ok(Step::Done)
}

/// Makes the volume that holds the memory of a VM.
///
/// # Errors
/// Out of space.
pub fn memory_volume(w: &mut World, vmid: u32, vm: &Vm, what: &str, storage: Option<&str>) -> Result<String, String> {
    let first =
        conf::drives(&vm.conf).into_iter().find_map(|(_, p)| Some(conf::volume(&p)?.split(':').next()?.to_owned()));
    let own = vm.conf.get("vmstatestorage").cloned();
    let id = storage.map(str::to_owned).or(own).or(first).unwrap_or_else(|| "local".into());
    space::usable(w, &id, "images")?;
    let dir = w.pve.storages.get(&id).is_some_and(crate::pve::state::Storage::is_dir);
    let stem = format!("vm-{vmid}-{what}");
    let name = if dir { format!("{vmid}/{stem}.raw") } else { stem };
    // Twice the memory and half a gibibyte, as the server reserves.
    let size = (conf::memory_mib(&vm.conf) * 2 + 512) << 20;
    let volume = Volume::new(size, Content::Memory);
    let new =
        space::New { node: &vm.node, storage: &id, vmid, name, format: "raw", kind: "images", base: None, volume };
    space::create(w, new)
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
    if vm.conf.get("template").is_some_and(|t| t == "1") {
        return Err("you can't rollback if vm is a template".into());
    }
    let snap = vm.snapshots.get(name).cloned().ok_or_else(|| format!("snapshot '{name}' does not exist"))?;
    if let Some(state) = &snap.state {
        return Err(format!("unable to rollback to incomplete snapshot (snapstate = {state})"));
    }
    if step == 0 {
        unlocked(&vm)?;
        let zfs = |id: &&String| {
            w.pve.storages.get(id.split(':').next().unwrap_or_default()).is_some_and(|s| s.kind == "zfspool")
        };
        let newer = vm.snapshots.values().any(|s| s.time > snap.time);
        if let Some(id) = snap.volumes.keys().find(zfs).filter(|_| newer) {
            return Err(format!("can't rollback, '{name}' is not most recent snapshot on '{id}'"));
        }
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
        vm.conf.insert("parent".into(), name.to_owned());
        vm.pending.clear();
        vm.pending_delete.clear();
    }
    if (start || snap.vmstate.is_some())
        && let Some(t) = w.pve.tasks.get(upid).cloned()
    {
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
    let Some(snap) = vm.snapshots.get(name).cloned() else {
        return Err(format!("snapshot '{name}' does not exist"));
    };
    if step == 0 {
        return Ok(Step::Next(1000));
    }
    if let Some(id) = &snap.vmstate {
        space::free(w, id);
    }
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.snapshots.remove(name);
        for s in vm.snapshots.values_mut().filter(|s| s.parent.as_deref() == Some(name)) {
            s.parent.clone_from(&snap.parent);
        }
        if vm.conf.get("parent").is_some_and(|p| p == name) {
            match snap.parent {
                Some(p) => vm.conf.insert("parent".into(), p),
                None => vm.conf.remove("parent"),
            };
        }
    }
    Ok(Step::Done)
}
