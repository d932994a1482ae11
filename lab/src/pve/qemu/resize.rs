//! Growing disks.
use gpuhost_stdlib::wire::pve::props;

use super::{conf, drive, spawn, task_vm, unlocked};
use crate::pve::params::{b, e, opt, req, short};
use crate::pve::reply::Reply;
use crate::pve::router::Call;
use crate::pve::space;
use crate::pve::task::{self, Job, Step};
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::{Prop, Rule, Ty};

fn size_pattern(v: &str) -> bool {
    props::disk_size(v.strip_prefix('+').unwrap_or(v)).is_some()
}

/// `PUT /nodes/{node}/qemu/{vmid}/resize`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, vmid: u32) -> Reply {
    let size = Prop { rule: Rule::Pattern(size_pattern), ..opt("size", Ty::Str) };
    w.pve.need(c.who()?, &format!("/vms/{vmid}"), "VM.Config.Disk")?;
    c.params.check(&[req(e("disk", drive::names(false))), req(size), short("digest", 40), b("skiplock")])?;
    let job = Job::Resize { vmid, disk: c.params.text("disk"), size: c.params.text("size") };
    spawn(w, c, node, "resize", vmid, job)
}

/// Runs `resize`.
///
/// # Errors
/// The message the task ends with.
pub fn run(w: &mut World, upid: &str, vmid: u32, disk: &str, size: &str, step: u32) -> Result<Step, String> {
    if step > 0 {
        return Ok(Step::Done);
    }
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    let vm = task_vm(w, upid, vmid)?;
    unlocked(vm)?;
    let value = vm.conf.get(disk).ok_or_else(|| format!("disk '{disk}' does not exist"))?;
    let mut p = props::read(disk, value);
    if conf::is_cdrom(&p) {
        return Err("can't resize a cdrom".into());
    }
    let volid = conf::volume(&p).ok_or_else(|| format!("disk '{disk}' has no associated volume"))?.to_owned();
    let now = w.volumes.get(&volid).map(|v| v.size).ok_or_else(|| format!("volume '{volid}' does not exist"))?;
    let wanted = match size.strip_prefix('+') {
        Some(more) => now + props::disk_size(more).unwrap_or(0),
        None => props::disk_size(size).unwrap_or(0),
    };
    let wanted = wanted.div_ceil(1024) * 1024;
    if wanted < now {
        return Err("shrinking disks is not supported".into());
    }
    if wanted > now {
        space::grow(w, &volid, wanted)?;
        p.insert("size".into(), props::print_disk_size(wanted));
        if let Some(vm) = w.pve.vms.get_mut(&vmid) {
            vm.conf.insert(disk.to_owned(), props::print(disk, &p));
        }
        if let Some(d) = w.guests.get_mut(&vmid).and_then(|g| g.spec.disks.iter_mut().find(|d| d.volid == volid)) {
            d.size = wanted;
        }
        task::log(w, upid, "Image resized.");
    }
    Ok(Step::Next(600))
}
