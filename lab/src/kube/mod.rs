//! Kubernetes of the lab: K3s processes in guests, the clusters they form, their controllers and charts.
pub mod hooks;
pub mod k3s;
pub mod schema;
pub mod state;
pub mod store;

use serde::{Deserialize, Serialize};

use crate::Lab;
use crate::world::World;

pub use k3s::{guest_down, k3s_journal, k3s_start, k3s_stop, k3s_uninstalled, k3s_unit};
pub use state::{K3sProcess, Role, UnitState};

/// Things that happen later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum KubeEvent {
    /// A K3s process reaches the next stage of its start.
    Start {
        /// Guest.
        vmid: u32,
        /// Start it belongs to.
        generation: u64,
        /// What comes next.
        stage: k3s::Stage,
    },
    /// Objects changed: the controllers look at them.
    Reconcile {
        /// Cluster id.
        cluster: String,
    },
}

/// What lives only while the lab runs (sockets, tasks); never saved.
#[derive(Default)]
pub struct Live {}

/// Handles an event that is due.
pub fn handle(lab: &Lab, w: &mut World, e: KubeEvent) {
    match e {
        KubeEvent::Start { vmid, generation, stage } => k3s::stage(lab, w, vmid, generation, stage),
        KubeEvent::Reconcile { .. } => {}
    }
}

/// Lets the API servers of a loaded world listen again.
///
/// # Errors
/// When a port cannot be bound.
pub async fn resume(_lab: &Lab) -> std::io::Result<()> {
    Ok(())
}
