//! Handing a disk to another VM (`move_disk` with `target-vmid`): a rename, no copy.
use gpuhost_stdlib::wire::pve::props;

use super::{conf, spawn, unlocked};
use crate::pve::params::{b, n, req, t};
use crate::pve::reply::{ApiError, Reply};
use crate::pve::router::Call;
use crate::pve::space;
use crate::pve::state::Vm;
use crate::pve::task::{self, Job, Step};
use crate::world::World;

/// `POST /nodes/{node}/qemu/{vmid}/move_disk`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, vmid: u32) -> Reply {
    let p = &c.params;
    let spec = [
        req(t("disk")),
        n("target-vmid"),
        t("target-disk"),
        t("storage"),
        t("format"),
        t("digest"),
        t("target-digest"),
        b("delete"),
        n("bwlimit"),
    ];
    p.check(&spec)?;
    w.pve.need(c.who()?, &format!("/vms/{vmid}"), "VM.Config.Disk")?;
    let Some(target) = p.int("target-vmid").and_then(|n| u32::try_from(n).ok()) else {
        return Err(ApiError::not_simulated("POST", "/nodes/{node}/qemu/{vmid}/move_disk without target-vmid"));
    };
    w.pve.need(c.who()?, &format!("/vms/{target}"), "VM.Config.Disk")?;
    if target == vmid {
        return Err(ApiError::param("target-vmid", "must be different than source VMID to reassign disk"));
    }
    let disk = p.text("disk");
    let to = p.get("target-disk").unwrap_or_else(|| disk.clone());
    super::vm(w, node, vmid)?;
    let volume = check(w, vmid, &disk, target, &to).map_err(ApiError::fail)?;
    let store = volume.split(':').next().unwrap_or_default();
    w.pve.need(c.who()?, &format!("/storage/{store}"), "Datastore.AllocateSpace")?;
    let job = Job::MoveDisk { vmid, disk, target, to };
    spawn(w, c, node, "qmmove", vmid, job)
}

/// What the server checks before, and again in the task. Answers the volume.
fn check(w: &World, vmid: u32, disk: &str, target: u32, to: &str) -> Result<String, String> {
    let from = w.pve.vms.get(&vmid).ok_or_else(|| format!("could not find VM {vmid}"))?;
    let dest = w.pve.vms.get(&target).ok_or_else(|| format!("could not find target VM {target}"))?;
    if from.node != dest.node {
        let (a, b) = (&from.node, &dest.node);
        return Err(format!("Both VMs need to be on the same node ({a}) but target VM is on {b}."));
    }
    unlocked(from)?;
    unlocked(dest)?;
    let template = |vm: &Vm| vm.conf.get("template").is_some_and(|v| v == "1");
    if template(from) || template(dest) {
        return Err("Can't move disks from or to template VMs".into());
    }
    let value = from.conf.get(disk).ok_or_else(|| format!("Disk '{disk}' for VM '{vmid}' does not exist"))?;
    if dest.conf.contains_key(to) {
        return Err(format!("Target disk key '{to}' is already in use for VM '{target}'"));
    }
    let p = props::read(disk, value);
    if conf::is_cdrom(&p) || conf::is_cloudinit(&p) {
        return Err("CD drive contents can't be moved to another VM".into());
    }
    let volume = conf::volume(&p).ok_or_else(|| format!("disk '{disk}' has no associated volume"))?.to_owned();
    let used = from.snapshots.values().any(|s| s.conf.values().any(|v| v.starts_with(&volume)));
    if used {
        return Err("Can't move disk used by a snapshot to another VM".into());
    }
    if from.run.is_some() && !disk.starts_with("unused") {
        return Err("Cannot move disk to other VM while the source VM is running".into());
    }
    Ok(volume)
}

/// Runs `qmmove`.
///
/// # Errors
/// The message the task ends with.
pub fn run(w: &mut World, upid: &str, vmid: u32, disk: &str, target: u32, to: &str, n: u32) -> Result<Step, String> {
    if n > 0 {
        return Ok(Step::Done);
    }
    for id in [vmid, target] {
        if let Some(wait) = task::lock(w, upid, id, false, 10_000) {
            return Ok(wait);
        }
    }
    let old = check(w, vmid, disk, target, to)?;
    task::log(w, upid, format!("moving disk '{disk}' from VM '{vmid}' to '{target}'"));
    let store = old.split(':').next().unwrap_or_default().to_owned();
    let format = w.pve.files.get(&old).map_or_else(|| "raw".to_owned(), |f| f.format.clone());
    let new = format!("{store}:{}", space::next_name(w, &store, target, &format, "vm"));
    if let Some(mut f) = w.pve.files.remove(&old) {
        f.vmid = target;
        w.pve.files.insert(new.clone(), f);
    }
    if let Some(v) = w.volumes.remove(&old) {
        w.volumes.insert(new.clone(), v);
    }
    let value = w.pve.vms.get_mut(&vmid).and_then(|vm| vm.conf.remove(disk)).unwrap_or_default();
    task::log(w, upid, format!("removing disk '{disk}' from VM '{vmid}' config"));
    let mut p = props::read(disk, &value);
    p.insert("file".into(), new);
    if let Some(vm) = w.pve.vms.get_mut(&target) {
        vm.conf.insert(to.to_owned(), props::print(to, &p));
    }
    Ok(Step::Next(900))
}
