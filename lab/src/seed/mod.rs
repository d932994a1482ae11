//! A world is made to look like a site that somebody has read: machines, disks, what runs, objects of its cluster.
//! Whatever is not known of a thing stays as the world has it.
mod machine;
mod objects;

use std::collections::{BTreeMap, BTreeSet};

pub use machine::{fresh, machine, remove_machine};
pub use objects::{put_object, remove_object};

/// A VM as its config and status tell.
#[derive(Debug, Clone, Default)]
pub struct SeenVm {
    /// Id.
    pub vmid: u32,
    /// Hypervisor node.
    pub node: String,
    /// Config as it is now.
    pub conf: BTreeMap<String, String>,
    /// Changes that wait for the next start.
    pub pending: BTreeMap<String, String>,
    /// Keys that go at the next start.
    pub pending_delete: BTreeSet<String>,
    /// What its cloud-init drive carries where that is not what the config says; `None` is nothing.
    pub drive: BTreeMap<String, Option<String>>,
    /// Whether it runs.
    pub running: bool,
    /// Its pool.
    pub pool: Option<String>,
}
