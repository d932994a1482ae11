//! Moving a VM to another node.
use gpuhost_stdlib::wire::pve::props;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{conf, spawn, task_vm, unlocked};
use crate::pve::acl::Who;
use crate::pve::params::{b, e, n, node as node_param, req, t};
use crate::pve::reply::{ApiError, Reply, data};
use crate::pve::router::Call;
use crate::pve::state::Vm;
use crate::pve::task::{self, Job, Step};
use crate::pve::{ha, mapping, space, storage};
use crate::world::World;

/// A move to another node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Migrate {
    /// VM.
    pub vmid: u32,
    /// Node it leaves.
    pub from: String,
    /// Node it goes to.
    pub to: String,
    /// Whether it runs on meanwhile.
    pub online: bool,
    /// Storages of local volumes on the other node: `(here, there)`; an empty `here` is every other one.
    pub storages: Vec<(String, String)>,
}

/// The volumes of a VM that only its own node can see, with their keys.
#[must_use]
pub fn local_volumes(w: &World, vm: &Vm) -> Vec<(String, String)> {
    let drives = conf::drives(&vm.conf).into_iter();
    let unused = vm.conf.iter().filter(|(k, _)| props::numbered(k).0 == "unused");
    let unused = unused.map(|(k, v)| (k.clone(), props::read(k, v)));
    let volumes = drives.chain(unused).filter_map(|(k, p)| Some((k, conf::volume(&p)?.to_owned())));
    let shared = |v: &str| w.pve.storages.get(v.split(':').next().unwrap_or_default()).is_some_and(|s| s.shared);
    volumes.filter(|(_, v)| !shared(v)).collect()
}

/// Passed-through hardware that cannot move.
fn local_resources(vm: &Vm) -> Vec<String> {
    let local = |k: &str, v: &str| match props::numbered(k) {
        ("hostpci", Some(_)) => props::read(k, v).contains_key("host"),
        ("usb", Some(_)) => !v.contains("spice") && !v.contains("mapping="),
        ("serial" | "parallel", Some(_)) => v != "socket",
        _ => false,
    };
    vm.conf.iter().filter(|(k, v)| local(k, v)).map(|(k, _)| k.clone()).collect()
}

fn mapped(vm: &Vm) -> Vec<(String, String)> {
    let pci = vm.conf.iter().filter(|(k, _)| matches!(props::numbered(k), ("hostpci" | "usb", Some(_))));
    pci.filter_map(|(k, v)| Some((k.clone(), props::read(k, v).get("mapping")?.clone()))).collect()
}

/// `GET migrate`: what stands in the way.
///
/// # Errors
/// The server's refusal.
pub fn precondition(w: &World, c: &Call, node: &str, vmid: u32) -> Reply {
    w.pve.need(c.who()?, &format!("/vms/{vmid}"), "VM.Migrate")?;
    c.params.check(&[node_param("target")])?;
    let vm = super::vm(w, node, vmid)?;
    unlocked(vm).map_err(ApiError::fail)?;
    let mapped = mapped(vm);
    let (mut allowed, mut refused) = (Vec::new(), json!({}));
    for n in w.pve.nodes.keys().filter(|n| *n != node) {
        let missing: Vec<String> = storages_of(vm).into_iter().filter(|s| !storage::on_node(w, s, n)).collect();
        let away: Vec<&String> =
            mapped.iter().filter(|(_, m)| mapping::devices(w, n, m).is_err()).map(|(k, _)| k).collect();
        if missing.is_empty() && away.is_empty() {
            allowed.push(n.clone());
            continue;
        }
        refused[n] = json!({});
        if !missing.is_empty() {
            refused[n]["unavailable_storages"] = json!(missing);
        }
        if !away.is_empty() {
            refused[n]["unavailable-resources"] = json!(away);
        }
    }
    let disks: Vec<Value> = local_volumes(w, vm)
        .into_iter()
        .map(|(k, v)| {
            let size = w.volumes.get(&v).map_or(0, |v| v.size);
            let p = vm.conf.get(&k).map(|t| props::read(&k, t)).unwrap_or_default();
            let unused = i32::from(props::numbered(&k).0 == "unused");
            json!({ "volid": v, "size": size, "cdrom": i32::from(conf::is_cdrom(&p)), "is_unused": unused, "drivename": k })
        })
        .collect();
    let names: Vec<&String> = mapped.iter().map(|(k, _)| k).collect();
    let mut v = json!({
        "running": i32::from(vm.run.is_some()), "local_disks": disks, "local_resources": local_resources(vm),
        "mapped-resources": names, "mapped-resource-info": {}, "allowed_nodes": allowed, "not_allowed_nodes": refused,
    });
    for (k, m) in &mapped {
        v["mapped-resource-info"][k] = json!({ "name": m });
    }
    if !w.pve.is_8() {
        v["has-dbus-vmstate"] = json!(1);
    }
    data(v)
}

fn storages_of(vm: &Vm) -> Vec<String> {
    let all = conf::drives(&vm.conf).into_iter();
    let mut names: Vec<String> =
        all.filter_map(|(_, p)| Some(conf::volume(&p)?.split(':').next()?.to_owned())).collect();
    names.sort();
    names.dedup();
    names
}

/// `local:ceph,data` → pairs; a lone name is the target of everything, `1` keeps the names.
fn pairs(text: &str) -> Vec<(String, String)> {
    let parts = text.split([',', ';', ' ']).filter(|p| !p.is_empty() && *p != "1");
    parts.map(|p| p.split_once(':').map_or((String::new(), p.to_owned()), |(a, b)| (a.into(), b.into()))).collect()
}

fn target_storage(pairs: &[(String, String)], here: &str) -> String {
    let own = pairs.iter().find(|(a, _)| a == here).or_else(|| pairs.iter().find(|(a, _)| a.is_empty()));
    own.map_or_else(|| here.to_owned(), |(_, b)| b.clone())
}

/// `POST migrate`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, vmid: u32) -> Reply {
    let p = &c.params;
    let who = c.who()?.clone();
    w.pve.need(&who, &format!("/vms/{vmid}"), "VM.Migrate")?;
    p.check(&[
        req(node_param("target")),
        b("online"),
        b("force"),
        e("migration_type", &["secure", "insecure"]),
        t("migration_network"),
        b("with-local-disks"),
        t("targetstorage"),
        n("bwlimit"),
        b("with-conntrack-state"),
    ])?;
    let to = p.text("target");
    if to == node {
        return Err(ApiError::param("target", "target is local node."));
    }
    if !w.pve.nodes.contains_key(&to) {
        return Err(ApiError::fail(format!("no such cluster node '{to}'")));
    }
    for k in ["force", "migration_type", "migration_network"] {
        if p.get(k).is_some_and(|v| v != "0") && !who.is_root() {
            return Err(ApiError::param(k, "Only root may use this option."));
        }
    }
    let vm = super::vm(w, node, vmid)?.clone();
    unlocked(&vm).map_err(ApiError::fail)?;
    let online = vm.run.is_some();
    if online && !p.flag("online") {
        return Err(ApiError::fail("can't migrate running VM without --online"));
    }
    let map = pairs(&p.text("targetstorage"));
    for s in map.iter().map(|(_, b)| b).chain(&storages_of(&vm)) {
        let s = if map.iter().any(|(_, b)| b == s) { s.clone() } else { target_storage(&map, s) };
        if !w.pve.storages.contains_key(&s) {
            return Err(ApiError::fail(format!("storage '{s}' does not exist")));
        }
        if !storage::on_node(w, &s, &to) {
            return Err(ApiError::fail(format!("storage '{s}' is not available on node '{to}'")));
        }
    }
    if ha::manages(w, vmid) {
        let upid = task::start(w, node, "hamigrate", &vmid.to_string(), &who, Job::Over);
        task::log(w, &upid, format!("Requesting HA migration for VM {vmid} to node {to}"));
        by_manager(w, vmid, node, &to);
        return data(upid);
    }
    let local = local_volumes(w, &vm);
    let disks = local.iter().any(|(k, _)| vm.conf.get(k).is_none_or(|v| !conf::is_cdrom(&props::read(k, v))));
    let job = Migrate { vmid, from: node.to_owned(), to, online, storages: map };
    if online && disks && !p.flag("with-local-disks") {
        // The task finds out, as on the server.
        let upid = task::start(
            w,
            node,
            "qmigrate",
            &vmid.to_string(),
            &who,
            Job::Refused {
                why: "migration aborted: can't live migrate attached local disks without with-local-disks option"
                    .into(),
            },
        );
        return data(upid);
    }
    spawn(w, c, node, "qmigrate", vmid, Job::Migrate(job))
}

/// The manager moves a resource.
pub fn by_manager(w: &mut World, vmid: u32, from: &str, to: &str) {
    let who = Who { user: "root@pam".into(), token: None };
    let online = w.pve.vms.get(&vmid).is_some_and(|v| v.run.is_some());
    let job = Migrate { vmid, from: from.into(), to: to.into(), online, storages: Vec::new() };
    task::start(w, from, "qmigrate", &vmid.to_string(), &who, Job::Migrate(job));
}

/// Runs `qmigrate`.
///
/// # Errors
/// The message the task ends with.
pub fn run(w: &mut World, upid: &str, j: &Migrate, step: u32) -> Result<Step, String> {
    let aborted = |e: String| format!("migration aborted: {e}");
    if step == 0 {
        if let Some(wait) = task::lock(w, upid, j.vmid, false, 10_000) {
            return Ok(wait);
        }
        let vm = task_vm(w, upid, j.vmid)?.clone();
        unlocked(&vm)?;
        let time = crate::pve::text::clock(w.now_ms);
        let how = if j.online { "online" } else { "" };
        task::log(w, upid, format!("{time} starting migration of VM {} to node '{}' ({how})", j.vmid, j.to));
        if w.pve.offline.contains(&j.to) {
            return Err(aborted(format!("Can't connect to destination address of node '{}'", j.to)));
        }
        if let Some(r) = local_resources(&vm).first() {
            return Err(aborted(format!("can't migrate VM which uses local devices: {r}")));
        }
        for (key, m) in mapped(&vm) {
            if j.online {
                return Err(aborted(format!("can't migrate running VM which uses following mapped devices: {key}")));
            }
            mapping::devices(w, &j.to, &m)
                .map_err(|_| aborted(format!("can't migrate to '{}': missing mapped devices {key}", j.to)))?;
        }
        if !vm.snapshots.is_empty() && j.online && !local_volumes(w, &vm).is_empty() {
            return Err(aborted("online storage migration not possible if snapshot exists".into()));
        }
        let bytes: u64 =
            local_volumes(w, &vm).iter().filter_map(|(_, v)| w.volumes.get(v)).map(space::real_bytes).sum();
        if let Some(vm) = w.pve.vms.get_mut(&j.vmid) {
            vm.conf.insert("lock".into(), "migrate".into());
        }
        let ram = if j.online { conf::memory_mib(&vm.conf) * 4 } else { 0 };
        return Ok(Step::Next(2000 + bytes / (100 << 10) + ram));
    }
    move_volumes(w, upid, j).map_err(|e| {
        if let Some(vm) = w.pve.vms.get_mut(&j.vmid) {
            vm.conf.remove("lock");
        }
        aborted(e)
    })?;
    if let Some(vm) = w.pve.vms.get_mut(&j.vmid) {
        vm.conf.remove("lock");
        vm.node.clone_from(&j.to);
    }
    if let Some(g) = w.guests.get_mut(&j.vmid) {
        g.spec.pve_node.clone_from(&j.to);
    }
    super::boot::refresh_disks(w, j.vmid);
    let time = crate::pve::text::clock(w.now_ms);
    task::log(w, upid, format!("{time} migration finished successfully"));
    Ok(Step::Done)
}

fn move_volumes(w: &mut World, upid: &str, j: &Migrate) -> Result<(), String> {
    let Some(vm) = w.pve.vms.get(&j.vmid).cloned() else { return Err("config vanished".into()) };
    for (key, old) in local_volumes(w, &vm) {
        let here = old.split(':').next().unwrap_or_default().to_owned();
        let (Some(file), Some(volume)) = (w.pve.files.get(&old).cloned(), w.volumes.get(&old).cloned()) else {
            return Err(format!("volume '{old}' does not exist"));
        };
        if file.content == "iso" {
            return Err(format!("can't migrate local cdrom '{old}'"));
        }
        if file.base.is_some() && target_storage(&j.storages, &here) != here {
            return Err(format!("can't migrate '{old}' as it's a clone of '{}'", file.base.unwrap_or_default()));
        }
        let there = target_storage(&j.storages, &here);
        space::usable(w, &there, "images")?;
        let time = crate::pve::text::clock(w.now_ms);
        task::log(w, upid, format!("{time} found local disk '{old}' (attached)"));
        space::free(w, &old);
        let dir = w.pve.storages.get(&there).is_some_and(crate::pve::state::Storage::is_dir);
        let format = if dir { file.format.clone() } else { "raw".into() };
        let name = if there == here {
            old.split_once(':').map(|(_, n)| n.to_owned()).unwrap_or_default()
        } else if conf::is_cloudinit(&vm.conf.get(&key).map(|v| props::read(&key, v)).unwrap_or_default()) {
            super::drive::cloudinit_name(j.vmid, dir).0
        } else {
            space::next_name(w, &there, j.vmid, &format, "vm")
        };
        let new = space::New {
            node: &j.to,
            storage: &there,
            vmid: j.vmid,
            name,
            format: &format,
            kind: "images",
            base: file.base,
            volume,
        };
        let made = space::create(w, new)?;
        if let Some(vm) = w.pve.vms.get_mut(&j.vmid)
            && let Some(value) = vm.conf.get(&key).cloned()
        {
            let mut p = props::read(&key, &value);
            p.insert("file".into(), made);
            vm.conf.insert(key.clone(), props::print(&key, &p));
        }
    }
    Ok(())
}
