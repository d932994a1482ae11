//! K3s processes of guests: start, join, stop, and what systemd and the journal say of them.
use serde::{Deserialize, Serialize};

use super::KubeEvent;
use super::state::{K3sProcess, Process, UnitState};
use crate::Lab;
use crate::world::{Event, World};

/// Stages of a start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// The binary has unpacked itself and looks for its datastore or server.
    Boot,
}

/// A guest's init system started K3s.
///
/// # Errors
/// When the configuration is refused before anything runs; the text is K3s' own.
pub fn k3s_start(_lab: &Lab, w: &mut World, vmid: u32, start: K3sProcess) -> Result<(), String> {
    let generation = w.k3s.get(&vmid).map_or(0, |p| p.generation) + 1;
    let journal = w.k3s.remove(&vmid).map(|p| p.journal).unwrap_or_default();
    let process = Process {
        start,
        unit: Some(UnitState::Activating),
        journal,
        cluster: None,
        node: String::new(),
        generation,
        runtimes: Vec::new(),
    };
    w.k3s.insert(vmid, process);
    w.schedule(5000, Event::Kube(KubeEvent::Start { vmid, generation, stage: Stage::Boot }));
    Ok(())
}

/// The state of the guest's K3s unit; `Failed("")` when it never ran or was stopped.
#[must_use]
pub fn k3s_unit(w: &World, vmid: u32) -> UnitState {
    w.k3s.get(&vmid).and_then(|p| p.unit.clone()).unwrap_or(UnitState::Failed(String::new()))
}

/// The journal of the guest's K3s unit.
#[must_use]
pub fn k3s_journal(w: &World, vmid: u32) -> Vec<String> {
    w.k3s.get(&vmid).map(|p| p.journal.clone()).unwrap_or_default()
}

/// The unit was stopped. Pods go on running.
pub fn k3s_stop(_lab: &Lab, w: &mut World, vmid: u32) {
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.unit = None;
        p.generation += 1;
    }
}

/// K3s was uninstalled: its data on the guest is gone.
pub fn k3s_uninstalled(lab: &Lab, w: &mut World, vmid: u32) {
    k3s_stop(lab, w, vmid);
    w.k3s.remove(&vmid);
}

/// The guest lost power or reboots.
pub fn guest_down(lab: &Lab, w: &mut World, vmid: u32) {
    k3s_stop(lab, w, vmid);
}

/// A start reaches its next stage.
pub fn stage(_lab: &Lab, w: &mut World, vmid: u32, generation: u64, stage: Stage) {
    let Some(p) = w.k3s.get_mut(&vmid).filter(|p| p.generation == generation) else { return };
    match stage {
        Stage::Boot => p.unit = Some(UnitState::Active),
    }
}
