//! `pve` of the lab.
pub mod state;

use serde::{Deserialize, Serialize};

use crate::Lab;
use crate::world::World;

/// Things that happen later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PveEvent {}

/// What lives only while the lab runs (sockets, tasks); never saved.
#[derive(Default)]
pub struct Live {}

/// Handles an event that is due.
pub fn handle(_lab: &Lab, _w: &mut World, e: PveEvent) {
    match e {}
}

/// Serves the API on a port of 127.0.0.1 and announces it.
///
/// # Errors
/// When the port cannot be bound.
pub async fn serve(_lab: &Lab) -> std::io::Result<()> {
    Ok(())
}
