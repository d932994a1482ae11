//! `kube` of the lab.
pub mod state;

use serde::{Deserialize, Serialize};

use crate::Lab;
use crate::world::World;

/// Things that happen later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum KubeEvent {}

/// What lives only while the lab runs (sockets, tasks); never saved.
#[derive(Default)]
pub struct Live {}

/// Handles an event that is due.
pub fn handle(_lab: &Lab, _w: &mut World, e: KubeEvent) {
    match e {}
}

/// Lets the API servers of a loaded world listen again.
///
/// # Errors
/// When a port cannot be bound.
pub async fn resume(_lab: &Lab) -> std::io::Result<()> {
    Ok(())
}
