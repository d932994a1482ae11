//! Machines of the hypervisor, as they were read.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props;

use super::SeenVm;
use crate::Lab;
use crate::guest;
use crate::kube;
use crate::pve::qemu::{boot, cloudinit, conf};
use crate::pve::space;
use crate::pve::state::{File, Running, Vm};
use crate::spec::PciSpec;
use crate::volume::{Content, Volume};
use crate::world::World;

/// Makes the VM of this id be as it was read. One that the world does not know comes with blank disks and without
/// an inside.
pub fn machine(lab: &Lab, w: &mut World, seen: &SeenVm) {
    let known = w.pve.vms.contains_key(&seen.vmid);
    let mine = w.pve.vms.get(&seen.vmid).map(|v| v.conf.clone()).unwrap_or_default();
    let mut conf: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in &seen.conf {
        let value = if props::is_drive(key) { drive(w, seen, key, value, mine.get(key)) } else { value.clone() };
        conf.insert(key.clone(), value);
    }
    for (key, value) in mine.iter().filter(|(k, _)| props::is_drive(k) && !seen.conf.contains_key(*k)) {
        if let Some(volid) = conf::volume(&props::read(key, value)) {
            space::free(w, volid);
        }
    }
    let now = w.now_ms;
    let vm = w.pve.vms.entry(seen.vmid).or_insert_with(|| Vm { born_ms: now, ..Vm::default() });
    vm.node.clone_from(&seen.node);
    vm.conf = conf;
    vm.pending.clone_from(&seen.pending);
    vm.pending_delete.clone_from(&seen.pending_delete);
    for (name, pool) in &mut w.pve.pools {
        if seen.pool.as_ref() == Some(name) {
            pool.vms.insert(seen.vmid);
        } else {
            pool.vms.remove(&seen.vmid);
        }
    }
    cloudinit::generate(w, seen.vmid);
    cloudinit::carry(w, seen.vmid, &seen.drive);
    match (known && w.guests.contains_key(&seen.vmid), seen.running) {
        (true, true) => refit(w, seen.vmid),
        (true, false) => {
            guest::power_off(lab, w, seen.vmid);
            crate::pve::guest_halted(lab, w, seen.vmid);
        }
        (false, running) => outside_only(w, seen.vmid, running),
    }
    settle_identity(w, seen.vmid);
}

/// The drive's options are those that were read; what is on it stays the world's.
fn drive(w: &mut World, seen: &SeenVm, key: &str, read: &str, mine: Option<&String>) -> String {
    let theirs = props::read(key, read);
    let Some(size) = theirs.get("size").and_then(|s| bytes(s)) else {
        return mine.filter(|_| !conf::is_cdrom(&theirs)).cloned().unwrap_or_else(|| read.to_owned());
    };
    let own = mine.map(|m| props::read(key, m)).and_then(|p| conf::volume(&p).map(str::to_owned));
    if let Some(volid) = own {
        if let Some(v) = w.volumes.get_mut(&volid) {
            v.size = size;
        }
        let rest = read.split_once(',').map_or("", |(_, r)| r);
        return format!("{volid},{rest}");
    }
    if let Some(volid) = conf::volume(&theirs) {
        let dir = w.pve.storages.get(volid.split(':').next().unwrap_or_default()).is_some_and(|s| s.is_dir());
        let content = if conf::is_cloudinit(&theirs) { Content::CloudInit } else { Content::Blank };
        let file = File {
            node: seen.node.clone(),
            vmid: seen.vmid,
            format: if dir { "qcow2" } else { "raw" }.to_owned(),
            content: "images".to_owned(),
            used: if dir { size / 4 } else { size },
            ctime: w.now_ms / 1000,
            base: None,
            notes: None,
            protected: false,
        };
        w.pve.files.entry(volid.to_owned()).or_insert(file);
        w.volumes.entry(volid.to_owned()).or_insert(Volume::new(size, content));
    }
    read.to_owned()
}

/// `40G`, `4M`, `528K` or bytes.
fn bytes(text: &str) -> Option<u64> {
    let (number, shift) = match text.chars().last()? {
        'K' => (&text[..text.len() - 1], 10),
        'M' => (&text[..text.len() - 1], 20),
        'G' => (&text[..text.len() - 1], 30),
        'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    number.parse::<u64>().ok().map(|n| n << shift)
}

/// A running guest has the hardware of its config.
fn refit(w: &mut World, vmid: u32) {
    let cards: Vec<PciSpec> = w.guests.get(&vmid).map(|g| g.spec.pci.clone()).unwrap_or_default();
    if let Ok(spec) = boot::spec(w, vmid, &cards)
        && let Some(g) = w.guests.get_mut(&vmid)
    {
        g.spec = spec;
    }
}

/// Nobody may look inside: it runs without a guest.
fn outside_only(w: &mut World, vmid: u32, running: bool) {
    w.pve.last_pid += 7;
    let run = Running { since_ms: w.now_ms, pid: w.pve.last_pid, paused: false, cards: Vec::new() };
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.run = running.then_some(run);
    }
}

/// cloud-init has seen the data that the VM has now: the next boot is no first one.
fn settle_identity(w: &mut World, vmid: u32) {
    let Some(vm) = w.pve.vms.get(&vmid) else { return };
    let id = cloudinit::instance_id(&vm.ci_drive);
    let drives = conf::drives(&vm.conf);
    if let Some(g) = w.guests.get_mut(&vmid) {
        g.instance_id.clone_from(&id);
    }
    for (_, p) in drives {
        let Some(volid) = conf::volume(&p) else { continue };
        if let Some(Volume { content: Content::System { instance_id, .. }, .. }) = w.volumes.get_mut(volid) {
            instance_id.clone_from(&id);
        }
    }
}

/// Takes a VM out of the world with its disks.
pub fn remove_machine(lab: &Lab, w: &mut World, vmid: u32) {
    kube::k3s_uninstalled(lab, w, vmid);
    guest::power_off(lab, w, vmid);
    let Some(vm) = w.pve.vms.remove(&vmid) else { return };
    for (_, p) in conf::drives(&vm.conf) {
        if let Some(volid) = conf::volume(&p) {
            space::free(w, volid);
        }
    }
    kube::k3s::membership::machine_gone(w, vmid);
    for p in w.pve.pools.values_mut() {
        p.vms.remove(&vmid);
    }
}

/// The system disk is again as `template`'s, and the machine boots for the first time.
///
/// # Errors
/// When template or machine is not there.
pub fn fresh(lab: &Lab, w: &mut World, vmid: u32, template: u32) -> Result<(), String> {
    let system_of =
        |w: &World, vmid: u32| boot::spec(w, vmid, &[]).ok().and_then(|s| s.disks.first().map(|d| d.volid.clone()));
    let image = system_of(w, template).and_then(|v| w.volumes.get(&v)).map(|v| v.content.clone());
    let image = image.ok_or_else(|| format!("VM {template} has no system disk"))?;
    let cards: Vec<PciSpec> = w.guests.get(&vmid).map(|g| g.spec.pci.clone()).unwrap_or_default();
    kube::k3s_uninstalled(lab, w, vmid);
    guest::power_off(lab, w, vmid);
    let disk = system_of(w, vmid).ok_or_else(|| format!("VM {vmid} has no system disk"))?;
    if let Some(v) = w.volumes.get_mut(&disk) {
        v.content = image;
    }
    cloudinit::generate(w, vmid);
    let spec = boot::spec(w, vmid, &cards)?;
    guest::power_on(lab, w, spec);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_of_drives() {
        assert_eq!(bytes("40G"), Some(40 << 30));
        assert_eq!(bytes("528K"), Some(528 << 10));
        assert_eq!(bytes("4194304"), Some(4_194_304));
        assert_eq!(bytes("none"), None);
    }
}
