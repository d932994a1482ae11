//! Destroying a VM, and making a template of one.
use super::{conf, spawn, task_vm, unlocked};
use crate::pve::params::{b, t};
use crate::pve::reply::{ApiError, Reply};
use crate::pve::router::Call;
use crate::pve::space;
use crate::pve::task::{self, Job, Step};
use crate::world::World;
use gpuhost_stdlib::wire::pve::props;

/// `DELETE /nodes/{node}/qemu/{vmid}`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, vmid: u32) -> Reply {
    let p = &c.params;
    p.check(&[b("skiplock"), b("purge"), b("destroy-unreferenced-disks")])?;
    w.pve.need(c.who()?, &format!("/vms/{vmid}"), "VM.Allocate")?;
    let vm = super::vm(w, node, vmid)?;
    if vm.conf.get("protection").is_some_and(|v| v == "1") {
        return Err(ApiError::fail(format!("can't remove VM {vmid} - protection mode enabled")));
    }
    if vm.run.is_some() {
        return Err(ApiError::fail(format!("VM {vmid} is running - destroy failed")));
    }
    let job = Job::Destroy { vmid, purge: p.flag("purge"), unreferenced: p.flag("destroy-unreferenced-disks") };
    spawn(w, c, node, "qmdestroy", vmid, job)
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
        unlocked(&vm)?;
        if vm.run.is_some() {
            return Err(format!("VM {vmid} is running - destroy failed"));
        }
        for (_, p) in conf::drives(&vm.conf) {
            if let Some(v) = conf::volume(&p).filter(|v| space::users_of_base(w, v)) {
                return Err(format!("base volume '{v}' is still in use by linked cloned"));
            }
        }
        if unref {
            task::log(w, upid, "destroying volumes that nothing refers to");
        }
        if purge {
            task::log(w, upid, format!("purging VM {vmid} from related configurations.."));
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
        gone.extend(w.pve.files.iter().filter(|(_, f)| f.vmid == vmid).map(|(id, _)| id.clone()));
    }
    for id in gone {
        if w.pve.files.get(&id).is_some_and(|f| f.vmid == vmid) {
            space::free(w, &id);
        }
    }
    w.pve.vms.remove(&vmid);
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
    c.params.check(&[t("disk")])?;
    w.pve.need(c.who()?, &format!("/vms/{vmid}"), "VM.Allocate")?;
    let vm = super::vm(w, node, vmid)?;
    unlocked(vm).map_err(ApiError::fail)?;
    if !vm.snapshots.is_empty() {
        return Err(ApiError::fail("unable to create template, because VM contains snapshots"));
    }
    if vm.conf.get("template").is_some_and(|v| v == "1") {
        return Err(ApiError::fail("you can't convert a template to a template"));
    }
    if vm.run.is_some() {
        return Err(ApiError::fail("you can't convert a VM to template if VM is running"));
    }
    spawn(w, c, node, "qmtemplate", vmid, Job::Template { vmid })
}

/// Runs `qmtemplate`: volumes are renamed to `base-…`.
///
/// # Errors
/// The message the task ends with.
pub fn template(w: &mut World, upid: &str, vmid: u32, step: u32) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    let vm = task_vm(w, upid, vmid)?.clone();
    if step == 0 {
        unlocked(&vm)?;
        return Ok(Step::Next(1000));
    }
    for (key, mut p) in conf::drives(&vm.conf) {
        let Some(old) = conf::volume(&p).map(str::to_owned) else { continue };
        let owned = w.pve.files.get(&old).is_some_and(|f| f.vmid == vmid && f.content == "images");
        if !owned || conf::is_cdrom(&p) || conf::is_cloudinit(&p) {
            continue;
        }
        let new = old.replacen(&format!("vm-{vmid}-"), &format!("base-{vmid}-"), 1);
        if let Some(f) = w.pve.files.remove(&old) {
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
    Ok(Step::Done)
}
