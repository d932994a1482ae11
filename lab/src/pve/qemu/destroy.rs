//! Destroying a VM, and making a template of one.
use super::{conf, drive, spawn, task_vm, unlocked};
use crate::kube::k3s::membership;
use crate::pve::params::{b, e};
use crate::pve::reply::{ApiError, Reply};
use crate::pve::router::Call;
use crate::pve::state::Vm;
use crate::pve::task::{self, Job, Step};
use crate::pve::{firewall, ha, jobs, space};
use crate::world::World;
use gpuhost_stdlib::wire::pve::props;

/// `DELETE /nodes/{node}/qemu/{vmid}`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, vmid: u32) -> Reply {
    let p = &c.params;
    let who = c.who()?;
    w.pve.need(who, &format!("/vms/{vmid}"), "VM.Allocate")?;
    p.check(&[b("skiplock"), b("purge"), b("destroy-unreferenced-disks")])?;
    if p.flag("skiplock") && !who.is_root() {
        return Err(ApiError::param("skiplock", "Only root may use this option."));
    }
    let vm = super::vm(w, node, vmid)?;
    let purge = p.flag("purge");
    may_go(w, vmid, vm, purge).map_err(ApiError::fail)?;
    let job = Job::Destroy { vmid, purge, unreferenced: p.flag("destroy-unreferenced-disks") };
    spawn(w, c, node, "qmdestroy", vmid, job)
}

/// What stands against destroying a VM, asked in the request and again in its task.
fn may_go(w: &World, vmid: u32, vm: &Vm, purge: bool) -> Result<(), String> {
    if vm.conf.get("protection").is_some_and(|v| v == "1") {
        return Err(format!("can't remove VM {vmid} - protection mode enabled"));
    }
    if !purge && ha::manages(w, vmid) {
        return Err(format!("unable to remove VM {vmid} - used in HA resources and purge parameter not set."));
    }
    if vm.run.is_some() {
        return Err(format!("VM {vmid} is running - destroy failed"));
    }
    Ok(())
}

/// Runs `qmdestroy`.
///
/// # Errors
/// The message the task ends with.
pub fn run(w: &mut World, upid: &str, vmid: u32, purge: bool, unref: bool, step: u32) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    let vm = task_vm(w, upid, vmid)?.clone();
    if step == 0 {
        may_go(w, vmid, &vm, purge)?;
        unlocked(&vm)?;
        let mut drives = conf::drives(&vm.conf);
        drives.sort_by_key(|(k, _)| k.starts_with("efi") || k.starts_with("tpm"));
        for (_, p) in drives {
            if let Some(v) = conf::volume(&p).filter(|v| space::users_of_base(w, v)) {
                return Err(format!("base volume '{v}' is still in use by linked cloned"));
            }
        }
        return Ok(Step::Next(1200));
    }
    let mut gone: Vec<String> = Vec::new();
    for (_, p) in conf::drives(&vm.conf) {
        gone.extend(conf::volume(&p).map(str::to_owned));
    }
    for (k, v) in vm.conf.iter().filter(|(k, _)| props::numbered(k).0 == "unused") {
        gone.extend(props::read(k, v).get("file").cloned());
    }
    if unref {
        let mine = w.pve.files.iter().filter(|(_, f)| f.vmid == vmid && f.content == "images");
        gone.extend(mine.map(|(id, _)| id.clone()));
    }
    gone.extend(vm.snapshots.values().filter_map(|s| s.vmstate.clone()));
    for id in gone {
        if w.pve.files.get(&id).is_some_and(|f| f.vmid == vmid) {
            space::free(w, &id);
        }
    }
    if purge {
        task::log(w, upid, format!("purging VM {vmid} from related configurations.."));
        jobs::forget(w, vmid);
        if ha::forget(w, vmid) {
            task::log(w, upid, format!("NOTE: removed VM {vmid} from HA resource configuration."));
        }
    }
    firewall::forget(w, vmid);
    w.pve.vms.remove(&vmid);
    membership::machine_gone(w, vmid);
    for p in w.pve.pools.values_mut() {
        p.vms.remove(&vmid);
    }
    w.pve.access.acl.retain(|a| a.path != format!("/vms/{vmid}"));
    Ok(Step::Done)
}

/// `POST /nodes/{node}/qemu/{vmid}/template`.
///
/// # Errors
/// The server's refusal.
pub fn template_request(w: &mut World, c: &Call, node: &str, vmid: u32) -> Reply {
    w.pve.need(c.who()?, &format!("/vms/{vmid}"), "VM.Allocate")?;
    c.params.check(&[e("disk", drive::names(false))])?;
    let disk = c.params.get("disk");
    let vm = super::vm(w, node, vmid)?;
    unlocked(vm).map_err(ApiError::fail)?;
    if !vm.snapshots.is_empty() {
        return Err(ApiError::fail("unable to create template, because VM contains snapshots"));
    }
    if disk.is_none() && vm.conf.get("template").is_some_and(|v| v == "1") {
        return Err(ApiError::fail("you can't convert a template to a template"));
    }
    if vm.run.is_some() {
        return Err(ApiError::fail("you can't convert a VM to template if VM is running"));
    }
    spawn(w, c, node, "qmtemplate", vmid, Job::Template { vmid, disk })
}

/// Runs `qmtemplate`: volumes are renamed to `base-…`.
///
/// # Errors
/// The message the task ends with.
pub fn template(w: &mut World, upid: &str, vmid: u32, disk: Option<&str>, step: u32) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    let vm = task_vm(w, upid, vmid)?.clone();
    if step == 0 {
        unlocked(&vm)?;
        return Ok(Step::Next(1000));
    }
    to_base(w, vmid, disk);
    Ok(Step::Done)
}

/// Makes a template of a VM: its volumes, or the one of `disk`, become base volumes.
pub fn to_base(w: &mut World, vmid: u32, disk: Option<&str>) {
    let Some(vm) = w.pve.vms.get(&vmid).cloned() else { return };
    for (key, mut p) in conf::drives(&vm.conf).into_iter().filter(|(k, _)| disk.is_none_or(|d| d == k)) {
        let Some(old) = conf::volume(&p).map(str::to_owned) else { continue };
        let owned = w.pve.files.get(&old).is_some_and(|f| f.vmid == vmid && f.content == "images");
        if !owned || conf::is_cdrom(&p) || conf::is_cloudinit(&p) {
            continue;
        }
        // A linked clone that becomes a template stands on its own.
        let own = match (old.split_once(':'), old.rsplit_once('/')) {
            (Some((store, _)), Some((_, last))) if old.contains("/base-") || old.contains(":base-") => {
                let dir = w.pve.storages.get(store).is_some_and(crate::pve::state::Storage::is_dir);
                if dir { format!("{store}:{vmid}/{last}") } else { format!("{store}:{last}") }
            }
            _ => old.clone(),
        };
        let new = own.replacen(&format!("vm-{vmid}-"), &format!("base-{vmid}-"), 1);
        if let Some(mut f) = w.pve.files.remove(&old) {
            f.base = None;
            w.pve.files.insert(new.clone(), f);
        }
        if let Some(v) = w.volumes.remove(&old) {
            w.volumes.insert(new.clone(), v);
        }
        p.insert("file".into(), new);
        if let Some(vm) = w.pve.vms.get_mut(&vmid) {
            vm.conf.insert(key.clone(), props::print(&key, &p));
        }
    }
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.conf.insert("template".into(), "1".into());
    }
}
