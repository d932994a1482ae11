//! `move_disk`: a disk goes to another storage (a copy), or to another VM (a rename).
use gpuhost_stdlib::wire::pve::props;
use serde::{Deserialize, Serialize};

use super::{conf, drive, spawn, unlocked};
use crate::pve::params::{b, e, f, n, req, short, vmid as vmid_param};
use crate::pve::reply::{ApiError, Reply, data};
use crate::pve::router::Call;
use crate::pve::state::Vm;
use crate::pve::task::{self, Job, Step};
use crate::pve::{space, storage};
use crate::world::World;

/// A disk to move.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Move {
    /// VM.
    pub vmid: u32,
    /// Its key of the disk.
    pub disk: String,
    /// Where to.
    pub to: To,
}

/// Where a disk goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum To {
    /// Another storage or format of the same VM.
    Storage {
        /// Storage.
        id: String,
        /// Format, if it was given.
        format: Option<String>,
        /// Whether the source is removed instead of kept as `unusedN`.
        delete: bool,
    },
    /// Another VM.
    Vm {
        /// VM.
        vmid: u32,
        /// Key there.
        key: String,
    },
}

/// `POST /nodes/{node}/qemu/{vmid}/move_disk`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, vmid: u32) -> Reply {
    let p = &c.params;
    let names = drive::names(true);
    let who = c.who()?;
    w.pve.need(who, &format!("/vms/{vmid}"), "VM.Config.Disk")?;
    p.check(&[
        req(e("disk", names)),
        vmid_param("target-vmid"),
        e("target-disk", names),
        f("storage", storage::id_format),
        e("format", &["raw", "qcow2", "vmdk"]),
        short("digest", 40),
        short("target-digest", 40),
        b("delete"),
        n("bwlimit"),
    ])?;
    let disk = p.text("disk");
    let both = |text: &str| {
        let row = |k: &str| (k.to_owned(), text.to_owned());
        Err(ApiError::params([row("target-vmid"), row("storage")].into()))
    };
    match (p.int("target-vmid").and_then(|n| u32::try_from(n).ok()), p.get("storage")) {
        (Some(_), Some(_)) => both("either set 'storage' or 'target-vmid', but not both"),
        (None, None) => both("both 'storage' and 'target-vmid' missing, either needs to be set"),
        (Some(target), None) => {
            w.pve.need(who, &format!("/vms/{target}"), "VM.Config.Disk")?;
            if target == vmid {
                return Err(ApiError::param("target-vmid", "must be different than source VMID to reassign disk"));
            }
            let key = p.get("target-disk").unwrap_or_else(|| disk.clone());
            super::vm(w, node, vmid)?;
            for (id, k) in [(vmid, "digest"), (target, "target-digest")] {
                let now = w.pve.vms.get(&id).map(conf::digest);
                if p.get(k).is_some_and(|d| Some(d) != now) {
                    return Err(ApiError::fail(format!("VM {id}: checksum mismatch (file change by other user?)")));
                }
            }
            let volume = reassign_check(w, vmid, &disk, target, &key).map_err(ApiError::fail)?;
            let store = volume.split(':').next().unwrap_or_default();
            w.pve.need(who, &format!("/storage/{store}"), "Datastore.AllocateSpace")?;
            let job = Move { vmid, disk: disk.clone(), to: To::Vm { vmid: target, key: key.clone() } };
            let who = who.clone();
            let id = format!("{vmid}-{disk}>{target}-{key}");
            data(task::start(w, node, "qmmove", &id, &who, Job::MoveDisk(job)))
        }
        (None, Some(id)) => {
            w.pve.need(who, &format!("/storage/{id}"), "Datastore.AllocateSpace")?;
            let vm = super::vm(w, node, vmid)?;
            if p.get("digest").is_some_and(|d| d != conf::digest(vm)) {
                return Err(ApiError::fail("checksum mismatch (file change by other user?)"));
            }
            let to = To::Storage { id: id.clone(), format: p.get("format"), delete: p.flag("delete") };
            copy_check(w, vmid, &disk, &to)?;
            if let Err(e) = space::usable(w, &id, "images") {
                let known = w.pve.storages.contains_key(&id);
                let text = format!("storage '{id}' does not support vm images");
                return Err(if known { ApiError::param("storage", text) } else { ApiError::fail(e) });
            }
            spawn(w, c, node, "qmmove", vmid, Job::MoveDisk(Move { vmid, disk, to }))
        }
    }
}

/// What the server checks before a copy, and again in its task. Answers the source.
fn copy_check(w: &World, vmid: u32, disk: &str, to: &To) -> Result<String, ApiError> {
    let fail = |t: String| Err(ApiError::fail(t));
    let To::Storage { id, format, delete } = to else { return fail("no storage".into()) };
    let Some(vm) = w.pve.vms.get(&vmid) else { return fail("config vanished".into()) };
    unlocked(vm).map_err(ApiError::fail)?;
    let Some(value) = vm.conf.get(disk) else { return fail(format!("disk '{disk}' does not exist")) };
    let p = props::read(disk, value);
    if conf::is_cdrom(&p) && !conf::is_cloudinit(&p) {
        return fail("you can't move a cdrom".into());
    }
    let Some(old) = conf::volume(&p).map(str::to_owned) else {
        return fail(format!("disk '{disk}' has no associated volume"));
    };
    let was = w.pve.files.get(&old).map(|f| f.format.clone()).unwrap_or_default();
    if old.split(':').next() == Some(id.as_str()) && format.as_ref().is_none_or(|f| *f == was) {
        return fail("you can't move to the same storage with same format".into());
    }
    let snapshotted = vm.snapshots.values().any(|s| s.conf.values().any(|v| v.starts_with(&old)));
    if snapshotted && *delete {
        return fail("you can't move a disk with snapshots and delete the source".into());
    }
    Ok(old)
}

/// What the server checks before it hands a disk over, and again in the task. Answers the volume.
fn reassign_check(w: &World, vmid: u32, disk: &str, target: u32, to: &str) -> Result<String, String> {
    let from = w.pve.vms.get(&vmid).ok_or_else(|| format!("could not find VM {vmid}"))?;
    let dest = w.pve.vms.get(&target).ok_or_else(|| format!("could not find target VM {target}"))?;
    if from.node != dest.node {
        return Err(format!("Both VMs need to be on the same node ({} != {})", from.node, dest.node));
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
    if from.snapshots.values().any(|s| s.conf.values().any(|v| v.starts_with(&volume))) {
        return Err("Can't move disk used by a snapshot to another VM".into());
    }
    if from.run.is_some() && !disk.starts_with("unused") {
        return Err("Cannot move disk to another VM while the source VM is running - detach first".into());
    }
    Ok(volume)
}

/// Runs `qmmove`.
///
/// # Errors
/// The message the task ends with.
pub fn run(w: &mut World, upid: &str, j: &Move, n: u32) -> Result<Step, String> {
    match &j.to {
        To::Vm { vmid, key } => reassign(w, upid, j, *vmid, key, n),
        To::Storage { id, format, delete } => copy(w, upid, j, id, format.as_deref(), *delete, n),
    }
}

fn copy(
    w: &mut World,
    upid: &str,
    j: &Move,
    id: &str,
    format: Option<&str>,
    delete: bool,
    n: u32,
) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, j.vmid, false, 10_000) {
        return Ok(wait);
    }
    let failed = |e: String| format!("storage migration failed: {e}");
    let old = copy_check(w, j.vmid, &j.disk, &j.to).map_err(|e| e.message)?;
    let here = old.split(':').next().unwrap_or_default().to_owned();
    let volume = w.volumes.get(&old).cloned().ok_or_else(|| failed(format!("volume '{old}' does not exist")))?;
    if n == 0 {
        task::log(w, upid, format!("copying volume '{old}' from current storage '{here}' to target storage '{id}'"));
        let wait = space::storage_lock(w, id).map_err(failed)?;
        return Ok(Step::Next(wait + drive::copy_ms(&volume)));
    }
    let dir = w.pve.storages.get(id).is_some_and(crate::pve::state::Storage::is_dir);
    let was = w.pve.files.get(&old).map_or_else(|| "raw".to_owned(), |f| f.format.clone());
    let format = if dir { format.map_or(was, str::to_owned) } else { "raw".into() };
    let Some(vm) = w.pve.vms.get(&j.vmid).cloned() else { return Err("config vanished".into()) };
    let mut p = vm.conf.get(&j.disk).map(|v| props::read(&j.disk, v)).unwrap_or_default();
    let template = vm.conf.get("template").is_some_and(|t| t == "1");
    let name = if conf::is_cloudinit(&p) {
        drive::cloudinit_name(j.vmid, dir).0
    } else {
        space::next_name(w, id, j.vmid, &format, if template { "base" } else { "vm" })
    };
    let size = volume.size;
    if dir {
        let path = crate::pve::content::path_of(w, &format!("{id}:{name}"));
        task::log(w, upid, crate::pve::text::formatting(&path, &format, size, None));
    }
    let new = space::New {
        node: &vm.node,
        storage: id,
        vmid: j.vmid,
        name,
        format: &format,
        kind: "images",
        base: None,
        volume,
    };
    let made = space::create(w, new).map_err(failed)?;
    for (done, percent) in [(0, "0.00"), (size, "100.00")] {
        let text = format!("transferred {} of {} ({percent}%)", space::pretty(done), space::pretty(size));
        task::log(w, upid, text);
    }
    p.insert("file".into(), made);
    p.insert("size".into(), props::print_disk_size(size));
    p.remove("format");
    if let Some(vm) = w.pve.vms.get_mut(&j.vmid) {
        vm.conf.insert(j.disk.clone(), props::print(&j.disk, &p));
    }
    if delete {
        task::log(w, upid, format!("removing source volume '{old}' after successful copy"));
        space::free(w, &old);
    } else if let Some(key) = drive::keep_unused(w, j.vmid, &old) {
        task::log(w, upid, format!("adding source volume '{old}' as '{key}' to config"));
    }
    super::boot::refresh_disks(w, j.vmid);
    if let Some(g) = w.guests.get_mut(&j.vmid).filter(|g| g.system == old) {
        g.system = p.get("file").cloned().unwrap_or_default();
    }
    Ok(Step::Done)
}

fn reassign(w: &mut World, upid: &str, j: &Move, target: u32, to: &str, n: u32) -> Result<Step, String> {
    if n > 0 {
        return Ok(Step::Done);
    }
    let (vmid, disk) = (j.vmid, j.disk.as_str());
    for id in [vmid, target] {
        if let Some(wait) = task::lock(w, upid, id, false, 10_000) {
            return Ok(wait);
        }
    }
    let old = reassign_check(w, vmid, disk, target, to)?;
    task::log(w, upid, format!("reassign disk '{disk}' from VM '{vmid}' as '{to}' to VM '{target}'"));
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
    let value = w.pve.vms.get(&vmid).and_then(|vm| vm.conf.get(disk)).cloned().unwrap_or_default();
    let boots = w.pve.vms.get(&vmid).and_then(|vm| vm.conf.get("boot")).cloned().unwrap_or_default();
    if boots.split(['=', ';']).any(|d| d == disk) {
        task::log(w, upid, format!("removing disk '{disk}' from boot order config"));
    }
    drive::forget(w, vmid, disk);
    task::log(w, upid, format!("removing disk '{disk}' from VM '{vmid}' config"));
    let mut p = props::read(disk, &value);
    p.insert("file".into(), new.clone());
    let printed = if props::numbered(to).0 == "unused" { new } else { fitting(to, &p) };
    if let Some(vm) = w.pve.vms.get_mut(&target) {
        vm.conf.insert(to.to_owned(), printed);
    }
    super::boot::refresh_disks(w, target);
    Ok(Step::Next(900))
}

/// The settings of a drive that the other slot knows too.
fn fitting(key: &str, p: &props::Props) -> String {
    let Some(format) = props::format_of(key) else { return String::new() };
    let keep = |name: &String| format.props.iter().any(|x| x.name == name.as_str());
    let p: props::Props = p.iter().filter(|(k, _)| keep(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
    props::print(key, &p)
}
