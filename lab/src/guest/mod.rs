//! Machines of the lab: they boot with their cloud-init data, run sshd and a shell, and answer the QEMU agent.
pub mod agent;
pub mod boot;
pub mod query;
pub mod state;

use serde::{Deserialize, Serialize};

use crate::Lab;
use crate::world::World;

pub use agent::{AgentResult, agent_exec, agent_file_read, agent_file_write, agent_interfaces, agent_ready};
pub use boot::{power_off, power_on, request_shutdown};
pub use query::{
    by_ip, gpus, has_file, has_package, hostname, ip, is_up, mountpoint, nfs_allows, put_file, set_nvidia_driver,
};

/// Things that happen later in a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum GuestEvent {
    /// The next boot stage is reached.
    Boot {
        /// Guest.
        vmid: u32,
        /// Boot it belongs to.
        boot: u64,
        /// Stage that is reached.
        stage: boot::BootStage,
    },
}

/// What lives only while the lab runs (sockets, tasks); never saved.
#[derive(Default)]
pub struct Live {}

/// Handles an event that is due.
pub fn handle(lab: &Lab, w: &mut World, e: GuestEvent) {
    match e {
        GuestEvent::Boot { vmid, boot, stage } => boot::reached(lab, w, vmid, boot, stage),
    }
}

/// Lets the guests of a loaded world listen again.
///
/// # Errors
/// When a port cannot be bound.
pub async fn resume(_lab: &Lab) -> std::io::Result<()> {
    Ok(())
}

/// Writes the file systems of running guests into the world, for a snapshot.
pub async fn park_files(_lab: &Lab) {}
