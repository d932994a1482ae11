//! What the world keeps about this part.
use serde::{Deserialize, Serialize};

/// Saved state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Cluster {}
