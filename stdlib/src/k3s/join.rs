//! What a node needs to join a cluster.
use std::fmt;

use crate::core::units::Secret;

/// What a node needs to join a cluster.
#[derive(Clone)]
pub struct Join {
    /// `v1.34.9+k3s1`.
    pub version: String,
    /// `https://address:6443`.
    pub url: String,
    /// The full token with the CA's hash.
    pub token: Secret,
    /// Mirrors for `registries.yaml`.
    pub registries: std::collections::BTreeMap<String, String>,
    /// CIS settings.
    pub cis: bool,
    /// Files that are brought instead of downloads.
    pub airgap: super::options::Airgap,
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "join {} {}", self.version, self.url)
    }
}
