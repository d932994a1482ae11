//! What is on the site's network besides its machines: names that its DNS knows, and file servers of others.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The surroundings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lan {
    /// Names with their addresses.
    pub names: BTreeMap<String, Vec<String>>,
    /// NFS servers by address, with the directories that they export to everybody.
    pub shares: BTreeMap<String, Vec<String>>,
}

impl Lan {
    /// The addresses behind a name; the word itself when DNS does not know it.
    #[must_use]
    pub fn addresses(&self, host: &str) -> Vec<String> {
        self.names.get(host).cloned().unwrap_or_else(|| vec![host.to_owned()])
    }

    /// Whether the file server at `ip` exports `path`; `None` when there is no such server.
    #[must_use]
    pub fn exports(&self, ip: &str, path: &str) -> Option<bool> {
        let dirs = self.shares.get(ip)?;
        Some(dirs.iter().any(|d| path == d || path.starts_with(&format!("{}/", d.trim_end_matches('/')))))
    }
}
