//! Power and boot: from firmware to sshd and cloud-init, as events on the lab's clock.
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::live::{Machine, attach, store};
use super::state::{BootSpec, CloudStatus, Facts, Guest, Stage};
use super::{GuestEvent, cloudinit, hw, journal, mounts, ssh, units};
use crate::volume::{Content, Reach};
use crate::world::{Event, World};
use crate::{Lab, fault};

/// Stages of a boot and of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootStage {
    /// The kernel has mounted the root file system.
    Kernel,
    /// Network, users and keys are there: sshd and services start.
    Up,
    /// Everything is stopped: power off.
    Halt,
    /// Everything is stopped: start again.
    Restart,
}

fn later(w: &mut World, delay: u64, vmid: u32, boot: u64, stage: BootStage) {
    w.schedule(delay, Event::Guest(GuestEvent::Boot { vmid, boot, stage }));
}

/// Starts a machine.
pub fn power_on(lab: &Lab, w: &mut World, spec: BootSpec) {
    let vmid = spec.vmid;
    w.meets("guest/boot");
    power_off(lab, w, vmid);
    let system = spec.disks.iter().find(|d| bootable(w, &d.volid)).map(|d| d.volid.clone()).unwrap_or_default();
    let mut guest = Guest {
        boot: w.random(),
        boot_id: w.uuid(),
        booted_ms: w.now_ms,
        stage: Stage::Firmware,
        system,
        os: String::new(),
        instance_id: String::new(),
        hostname: String::new(),
        net: None,
        facts: Facts::default(),
        cloud_init: CloudStatus::NotRun,
        mounts: Vec::new(),
        modules: Default::default(),
        sysctl: Default::default(),
        swaps: Vec::new(),
        nft: Default::default(),
        services: Default::default(),
        journal: Vec::new(),
        dpkg_lock: None,
        exports: Vec::new(),
        last_pid: 400,
        cmdline: String::new(),
        spec,
    };
    if let Some(v) = w.volumes.get_mut(&guest.system) {
        if let Content::CloudImage { os } = &v.content {
            v.content = Content::System {
                os: os.clone(),
                root: None,
                instance_id: String::new(),
                facts: serde_json::Value::Null,
            };
        }
        if let Content::System { os, instance_id, facts, .. } = &v.content {
            guest.os.clone_from(os);
            guest.instance_id.clone_from(instance_id);
            guest.facts = serde_json::from_value(facts.clone()).unwrap_or_default();
            // the boot loader takes the newest kernel that is installed
            guest.facts.kernel = None;
        }
    }
    let boot = guest.boot;
    w.guests.insert(vmid, guest);
    let delay = w.between(10_000, 14_000);
    later(w, delay, vmid, boot, BootStage::Kernel);
}

fn bootable(w: &World, volid: &str) -> bool {
    w.volumes.get(volid).is_some_and(|v| matches!(v.content, Content::CloudImage { .. } | Content::System { .. }))
}

/// Cuts the power.
pub fn power_off(lab: &Lab, w: &mut World, vmid: u32) {
    if let Some(m) = lab.guests().remove(vmid) {
        store(w, &m);
        take_routes(lab, w, vmid);
    }
    if w.guests.remove(&vmid).is_some() {
        w.unschedule(|e| matches!(e, Event::Guest(GuestEvent::Boot { vmid: v, .. }) if *v == vmid));
        crate::kube::guest_down(lab, w, vmid);
    }
}

fn take_routes(lab: &Lab, w: &World, vmid: u32) {
    if let Some(n) = w.guests.get(&vmid).and_then(|g| g.net.as_ref()) {
        lab.route_down(&format!("{}:22", n.ip));
    }
}

/// Presses the power button: the guest shuts down if it is up, otherwise nothing happens.
pub fn request_shutdown(lab: &Lab, w: &mut World, vmid: u32) {
    if w.guests.get(&vmid).is_some_and(|g| g.stage == Stage::Up) {
        go_down(lab, w, vmid, false);
    }
}

/// Shuts a running guest down, or lets it restart.
pub fn go_down(_lab: &Lab, w: &mut World, vmid: u32, restart: bool) {
    let delay = w.between(3000, 7000);
    let Some(g) = w.guests.get_mut(&vmid).filter(|g| g.stage == Stage::Up) else { return };
    g.stage = Stage::Stopping;
    let boot = g.boot;
    later(w, delay, vmid, boot, if restart { BootStage::Restart } else { BootStage::Halt });
}

/// Writes the disks of a running guest into their volumes, for a snapshot or a backup of it.
pub fn sync_disks(lab: &Lab, w: &mut World, vmid: u32) {
    if let Some(m) = lab.guests().get(vmid) {
        store(w, &m);
    }
}

/// A boot stage is reached.
pub(crate) fn reached(lab: &Lab, w: &mut World, vmid: u32, boot: u64, stage: BootStage) {
    let Some(g) = w.guests.get(&vmid).filter(|g| g.boot == boot).cloned() else { return };
    match stage {
        BootStage::Kernel => kernel(lab, w, &g),
        BootStage::Up => up(lab, w, vmid),
        BootStage::Halt => {
            power_off(lab, w, vmid);
            crate::pve::guest_halted(lab, w, vmid);
        }
        BootStage::Restart => {
            crate::card::restarted(w, &g.spec.pve_node, &g.spec.pci);
            power_on(lab, w, g.spec);
        }
    }
}

fn kernel(lab: &Lab, w: &mut World, g: &Guest) {
    let vmid = g.spec.vmid;
    let root = match w.volumes.get(&g.system).map(|v| &v.content) {
        Some(Content::System { root, .. }) => root.clone(),
        _ => None,
    };
    let name = w.pve.vms.get(&vmid).and_then(|v| v.conf.get("name").cloned()).unwrap_or_else(|| vmid.to_string());
    let hangs = lab.faults().strike(fault::BOOT, &name).is_some();
    let machine = if g.system.is_empty() || hangs { None } else { Machine::new(lab, g, root.as_ref()) };
    let Some(m) = machine else {
        if let Some(g) = w.guests.get_mut(&vmid) {
            g.stage = Stage::NoBoot;
        }
        return;
    };
    // /run is memory: nothing of an earlier boot is there.
    let by = super::fs::Who::root();
    for (name, _) in m.files.list(&by, "/run").unwrap_or_default() {
        let _ = m.files.remove(&by, &format!("/run/{name}"), true);
    }
    for (dir, mode) in [("/run/lock", 0o1777), ("/run/systemd/system", 0o755)] {
        m.files.root().mkdirs(dir, mode, 0);
    }
    if m.files.text("/etc/machine-id").trim().is_empty() {
        let id = w.uuid().replace('-', "");
        m.files.place_file("/etc/machine-id", format!("{id}\n").as_bytes(), 0o444);
    }
    if let Some(g) = w.guests.get_mut(&vmid) {
        g.stage = Stage::Init;
    }
    lab.guests().insert(m.clone());
    let new = cloudinit::init(lab, w, vmid, &m);
    // cloud-init's growpart and resizefs, at every boot.
    let system = w.guests.get(&vmid).map(|g| g.system.clone()).unwrap_or_default();
    if let Some(v) = w.volumes.get_mut(&system) {
        v.reach = Reach::default();
    }
    let name = m.files.text("/etc/hostname").trim().to_owned();
    let modules = wanted_modules(&m);
    if let Some(g) = w.guests.get_mut(&vmid) {
        g.hostname = name;
        g.cmdline = super::programs::boot_arguments(&m);
        for module in hw::AT_BOOT.iter().map(|s| (*s).to_owned()).chain(modules) {
            hw::load_module(g, &module);
        }
        super::programs::apply_sysctl_files(&m, g);
    }
    let delay = if new { w.between(3500, 6000) } else { w.between(1500, 2500) };
    later(w, delay, vmid, g.boot, BootStage::Up);
}

fn wanted_modules(m: &Machine) -> Vec<String> {
    let mut text = m.files.text("/etc/modules");
    for dir in ["/etc/modules-load.d", "/usr/lib/modules-load.d"] {
        for (name, _) in m.files.list(&super::fs::Who::root(), dir).unwrap_or_default() {
            text += &format!("\n{}", m.files.text(&format!("{dir}/{name}")));
        }
    }
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', ';'])).map(str::to_owned).collect()
}

fn up(lab: &Lab, w: &mut World, vmid: u32) {
    let Some(m) = lab.guests().get(vmid) else { return };
    let net = w.guests.get(&vmid).and_then(|g| g.facts.net.clone());
    let net = net.or_else(|| w.guests.get(&vmid).map(|g| cloudinit::dhcp(w, g)));
    let now = w.now_ms;
    let mut finish = None;
    if let Some(g) = w.guests.get_mut(&vmid) {
        g.net = net;
        g.stage = Stage::Up;
        journal::add(g, now, "init.scope", "Reached target multi-user.target - Multi-User System.");
        match g.cloud_init {
            CloudStatus::Running => finish = Some(g.boot),
            _ => g.cloud_init = g.facts.cloud_init.clone(),
        }
    }
    let errors = mounts::mount_all(lab, w, &m);
    for e in errors {
        units::log(w, vmid, "local-fs.target", &e);
    }
    swaps(w, &m);
    listen(lab, w, &m);
    units::boot(lab, w, &m);
    if let Some(boot) = finish {
        cloudinit::start_final(lab, vmid, boot);
    }
}

fn swaps(w: &mut World, m: &Machine) {
    for s in mounts::fstab(m)
        .into_iter()
        .filter(|s| s.fstype == "swap" && !s.source.starts_with("/dev/") && m.files.exists(&s.source))
    {
        if let Some(g) = w.guests.get_mut(&m.vmid) {
            let size = m.files.stat(&super::fs::Who::root(), &s.source, true).map_or(0, |n| n.size() / 1024);
            g.swaps.push((s.source, size.max(1_048_572)));
        }
    }
}

/// Lets sshd of a guest listen and announces it.
fn listen(lab: &Lab, w: &World, m: &Arc<Machine>) {
    let Some(ip) = super::query::address(w, m.vmid) else { return };
    if let Some(at) = ssh::serve(lab, m) {
        lab.route_up(&format!("{ip}:22"), at);
    }
}

/// Brings a guest of a loaded world back to where it was.
pub(crate) fn resume(lab: &Lab, w: &mut World, vmid: u32) {
    let Some(g) = w.guests.get(&vmid).cloned().filter(|g| g.stage >= Stage::Init) else { return };
    let root = match w.volumes.get(&g.system).map(|v| &v.content) {
        Some(Content::System { root, .. }) => root.clone(),
        _ => None,
    };
    let Some(m) = Machine::new(lab, &g, root.as_ref()) else { return };
    lab.guests().insert(m);
}

/// Second pass of [`resume`], once all machines are there: mounts, sshd, what was under way.
pub(crate) fn resume_services(lab: &Lab, w: &mut World, vmid: u32) {
    let (Some(g), Some(m)) = (w.guests.get(&vmid).cloned(), lab.guests().get(vmid)) else { return };
    for mount in &g.mounts {
        attach(lab, w, &m, mount);
    }
    if g.stage >= Stage::Up {
        listen(lab, w, &m);
        if g.cloud_init == CloudStatus::Running {
            if let Some(g) = w.guests.get_mut(&vmid) {
                g.dpkg_lock = None;
            }
            cloudinit::start_final(lab, vmid, g.boot);
        }
    }
}
