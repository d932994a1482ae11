//! Power and boot: from firmware to sshd, as events on the lab's clock.
use serde::{Deserialize, Serialize};

use super::GuestEvent;
use super::state::{BootSpec, CloudStatus, Facts, Guest, Stage};
use crate::Lab;
use crate::volume::Content;
use crate::world::{Event, World};

/// Stages of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootStage {
    /// The kernel has mounted the root file system.
    Kernel,
}

/// Starts a machine.
pub fn power_on(_lab: &Lab, w: &mut World, spec: BootSpec) {
    let vmid = spec.vmid;
    let boot = w.random();
    let system = spec.disks.iter().find(|d| bootable(w, &d.volid)).map(|d| d.volid.clone()).unwrap_or_default();
    let guest = Guest {
        boot,
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
        services: Default::default(),
        journal: Vec::new(),
        dpkg_lock: None,
        exports: Vec::new(),
        files: None,
        last_pid: 400,
        spec,
    };
    w.guests.insert(vmid, guest);
    let delay = w.between(10_000, 14_000);
    w.schedule(delay, Event::Guest(GuestEvent::Boot { vmid, boot, stage: BootStage::Kernel }));
}

fn bootable(w: &World, volid: &str) -> bool {
    w.volumes.get(volid).is_some_and(|v| matches!(v.content, Content::CloudImage { .. } | Content::System { .. }))
}

/// Cuts the power.
pub fn power_off(lab: &Lab, w: &mut World, vmid: u32) {
    if w.guests.remove(&vmid).is_some() {
        crate::kube::guest_down(lab, w, vmid);
    }
}

/// Presses the power button: the guest shuts down if it is up.
pub fn request_shutdown(_lab: &Lab, w: &mut World, vmid: u32) {
    if let Some(g) = w.guests.get_mut(&vmid)
        && g.stage == Stage::Up
    {
        g.stage = Stage::Stopping;
    }
}

/// A boot stage is reached.
pub(crate) fn reached(_lab: &Lab, w: &mut World, vmid: u32, boot: u64, stage: BootStage) {
    let Some(g) = w.guests.get_mut(&vmid).filter(|g| g.boot == boot) else { return };
    match stage {
        BootStage::Kernel => g.stage = if g.system.is_empty() { Stage::NoBoot } else { Stage::Init },
    }
}
