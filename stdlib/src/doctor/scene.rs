//! What the doctor has at hand: the site, its hypervisor, its cluster, and what it has found so far.
use std::collections::BTreeSet;
use std::sync::Arc;

use super::finding::Finding;
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::kubernetes::Cluster;
use crate::proxmox::Proxmox;
use crate::site::{Node, RoleKind, Site};
use crate::ssh::Host;

/// What the doctor has at hand.
pub struct Scene {
    /// The run.
    pub ctx: Ctx,
    /// The site.
    pub site: Arc<Site>,
    /// The hypervisor, when it answers.
    pub pve: Option<Proxmox>,
    /// The cluster, when a server answers.
    pub cluster: Option<Cluster>,
    /// Machines that are explained already: what depends on them is no finding of its own.
    pub down: BTreeSet<String>,
    /// Those of them that run and refuse the site's SSH key: nothing is known of what is in them.
    pub refused: BTreeSet<String>,
    /// What was found.
    pub found: Vec<Finding>,
}

impl Scene {
    /// A scene over the loaded site.
    ///
    /// # Errors
    /// `invalid` without a site file.
    pub fn new(ctx: &Ctx) -> OpResult<Self> {
        let site = ctx.site()?;
        Ok(Scene {
            ctx: ctx.clone(),
            site,
            pve: None,
            cluster: None,
            down: BTreeSet::new(),
            refused: BTreeSet::new(),
            found: Vec::new(),
        })
    }

    /// Notes a finding.
    pub fn add(&mut self, f: Finding) {
        if !self.found.iter().any(|o| o.id == f.id && o.target == f.target) {
            self.found.push(f);
        }
    }

    /// Notes a finding that explains why a machine is of no use.
    pub fn lost(&mut self, node: &str, f: Finding) {
        self.down.insert(node.to_owned());
        self.add(f);
    }

    /// How to log in to a node.
    #[must_use]
    pub fn host(&self, node: &Node) -> Host {
        Host::for_node(&self.site, node)
    }

    /// Nodes that are not explained yet.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        self.site.nodes.iter().filter(|n| !self.down.contains(&n.name)).cloned().collect()
    }

    /// The NFS server of the site, when it is one of its machines.
    #[must_use]
    pub fn storage_node(&self) -> Option<Node> {
        self.site.nodes_of(RoleKind::Storage).next().cloned()
    }

    /// A text of a section of the site file.
    #[must_use]
    pub fn text(section: &toml::Table, key: &str) -> Option<String> {
        section.get(key)?.as_str().map(str::to_owned)
    }

    /// Output of a read-only program on a machine, as root; empty when it cannot be asked.
    pub async fn ask(&self, node: &Node, script: &str) -> String {
        match self.host(node).exec_raw(&self.ctx, script, b"").await {
            Ok(out) => out.stdout,
            Err(e) => {
                tracing::debug!("{}: {e}", node.name);
                String::new()
            }
        }
    }
}
