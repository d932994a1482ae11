//! Machines of the lab: they boot with their cloud-init data, run sshd and a shell, and answer the QEMU agent.
pub mod accounts;
pub mod agent;
pub mod apt;
pub mod boot;
pub mod cloudinit;
pub mod firewall;
pub mod fs;
pub mod hostkeys;
pub mod hw;
pub mod iso;
pub mod journal;
pub mod k3s;
pub mod live;
pub mod logins;
pub mod mounts;
pub mod nfs;
pub mod programs;
pub mod query;
pub mod shell;
pub mod ssh;
pub mod state;
pub mod units;

use serde::{Deserialize, Serialize};

use crate::Lab;
use crate::world::World;

pub use agent::{AgentResult, agent_exec, agent_file_read, agent_file_write, agent_interfaces, agent_ready};
pub use boot::{power_off, power_on, request_shutdown, sync_disks};
pub use live::Live;
pub(crate) use programs::SYSTEM_BYTES;
pub use query::{
    by_ip, file_names, file_text, gpus, has_file, has_package, hostname, ip, is_nvidia, is_up, mountpoint, move_file,
    nfs_allows, own_driver, put_dir, put_file, remove_file, set_nvidia_driver, texts_below,
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
pub async fn resume(lab: &Lab) -> std::io::Result<()> {
    lab.with(|w| {
        let all: Vec<u32> = w.guests.keys().copied().collect();
        for vmid in &all {
            boot::resume(lab, w, *vmid);
        }
        for vmid in all {
            boot::resume_services(lab, w, vmid);
        }
    });
    // Machines hold the lab: they go when it stops, so that it can be dropped.
    let (stop, weak) = (lab.stop_token(), lab.clone());
    lab.rt().spawn(async move {
        stop.cancelled().await;
        weak.guests().clear();
    });
    Ok(())
}

/// Writes the file systems of running guests into the world, for a snapshot.
pub fn park_files(lab: &Lab, w: &mut World) {
    for m in lab.guests().all() {
        live::store(w, &m);
    }
}
