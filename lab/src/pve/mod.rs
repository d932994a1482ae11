//! The Proxmox VE API of the lab: real HTTPS, the real server's messages, tasks on the lab's clock.
pub mod access;
pub mod acl;
pub mod agent;
pub mod apt;
pub mod auth;
pub mod backup;
pub mod birth;
pub mod capabilities;
pub mod cluster;
mod cluster_more;
pub mod content;
pub mod diff;
pub mod disks;
pub mod firewall;
mod firewall_sets;
pub mod groups;
pub mod ha;
pub mod jobs;
pub mod logs;
pub mod mapping;
mod mapping_other;
mod metrics;
pub mod network;
pub mod nodes;
pub mod params;
pub mod pools;
pub mod prune;
pub mod qemu;
pub mod record;
pub mod reply;
pub mod roles;
pub mod router;
pub mod sdn;
pub mod sections;
mod server;
pub mod space;
pub mod state;
pub mod storage;
pub mod task;
pub mod tasks;
pub mod text;
pub mod trouble;
pub mod upload;
pub mod users;

use serde::{Deserialize, Serialize};

use crate::Lab;
use crate::world::World;

pub use diff::world_diff_view;
pub use qemu::power::guest_halted;
pub use server::serve;

/// Things that happen later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PveEvent {
    /// A task takes its next step.
    Task {
        /// Which.
        upid: String,
    },
    /// The manager of high availability looks.
    Ha,
    /// A node is there again.
    NodeUp {
        /// Which.
        node: String,
    },
}

/// What lives only while the lab runs; never saved.
#[derive(Default)]
pub struct Live {
    /// Commands of `agent/exec`.
    execs: agent::Execs,
    /// The record of requests and answers.
    recorder: record::Recorder,
}

/// Handles an event that is due.
pub fn handle(lab: &Lab, w: &mut World, e: PveEvent) {
    match e {
        PveEvent::Task { upid } => task::step(lab, w, &upid),
        PveEvent::Ha => ha::round(w),
        PveEvent::NodeUp { node } => nodes::up(w, &node),
    }
}
