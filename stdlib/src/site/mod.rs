//! `site()`: the loaded, validated site file.
mod fits;
mod load;
mod marks;
mod sane;
pub mod schema;
mod script;
mod secrets;
mod sense;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod types;

use std::net::Ipv4Addr;
use std::sync::Arc;

pub(crate) use load::derived_mac;
pub use load::{load, load_with_warnings};
pub(crate) use marks::split_taint;
pub use script::{def, table as script_table};
pub use secrets::{read_private, write_private};
pub use source::Finding;
pub use types::{Network, Node, ProxmoxSection, Role, RoleKind, Shape, Site, SshSection, Template};

use crate::core::error::{OpError, OpResult};
use crate::core::options::closest;
use crate::core::units::Size;

/// `10.0.0.0/24` as address and prefix length.
#[must_use]
pub fn parse_cidr(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (a, l) = text.split_once('/')?;
    let len: u8 = l.parse().ok().filter(|l| *l <= 32)?;
    Some((a.parse().ok()?, len))
}

impl RoleKind {
    /// The word in the site file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RoleKind::Server => "server",
            RoleKind::Agent => "agent",
            RoleKind::Storage => "storage",
        }
    }
}

macro_rules! over {
    ($own:ident, $base:ident, $($f:ident),*) => { Shape { $( $f: $own.$f.clone().or_else(|| $base.$f.clone()) ),* } };
}

impl Shape {
    /// This shape with gaps filled from `base`.
    #[must_use]
    pub fn over(&self, base: &Shape) -> Shape {
        over!(
            self,
            base,
            cores,
            memory,
            disk,
            scratch,
            data,
            gpus,
            gpu_mapping,
            mig,
            disk_storage,
            scratch_storage,
            data_storage,
            cache,
            backup,
            cpu,
            full_clone,
            onboot,
            labels,
            taints,
            packages,
            system,
            config
        )
    }
    /// vCPUs.
    #[must_use]
    pub fn cores_or_default(&self) -> u32 {
        self.cores.unwrap_or(2)
    }
    /// Memory.
    #[must_use]
    pub fn memory_or_default(&self) -> Size {
        self.memory.unwrap_or(Size::gib(4))
    }
    /// System disk.
    #[must_use]
    pub fn disk_or_default(&self) -> Size {
        self.disk.unwrap_or(Size::gib(32))
    }
    /// GPUs.
    #[must_use]
    pub fn gpu_count(&self) -> u32 {
        self.gpus.unwrap_or(0)
    }
}

impl Node {
    /// Serial of the scratch disk.
    #[must_use]
    pub fn scratch_serial(&self) -> String {
        format!("gh-scratch-{}", self.vmid)
    }
    /// Serial of the data disk.
    #[must_use]
    pub fn data_serial(&self) -> String {
        format!("gh-data-{}", self.vmid)
    }
    /// By-id path of the scratch disk inside the guest.
    #[must_use]
    pub fn scratch_device(&self) -> Option<String> {
        self.shape.scratch.map(|_| by_id(&self.scratch_serial()))
    }
    /// By-id path of the data disk inside the guest.
    #[must_use]
    pub fn data_device(&self) -> Option<String> {
        self.shape.data.map(|_| by_id(&self.data_serial()))
    }
    /// Whether it is a Kubernetes node.
    #[must_use]
    pub fn in_cluster(&self) -> bool {
        self.kind != RoleKind::Storage
    }
}

fn by_id(serial: &str) -> String {
    format!("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{serial}")
}

impl Site {
    /// The node of that name.
    ///
    /// # Errors
    /// `not_found` with the closest name.
    pub fn node(&self, name: &str) -> OpResult<Arc<Node>> {
        if let Some(n) = self.nodes.iter().find(|n| n.name == name) {
            return Ok(Arc::new(n.clone()));
        }
        if name.is_empty() {
            let names: Vec<&str> = self.nodes.iter().map(|n| n.name.as_str()).collect();
            return Err(OpError::invalid("no node is named").hint(format!("name one of {}", names.join(", "))));
        }
        let e = OpError::not_found(format!("the site has no node `{name}`")).on(name);
        Err(match closest(name, self.nodes.iter().map(|n| n.name.as_str())) {
            Some(k) => e.hint(format!("did you mean `{k}`?")),
            None => e.hint(format!("nodes are declared in {}", self.path.display())),
        })
    }
    /// Nodes whose role has this kind.
    pub fn nodes_of(&self, kind: RoleKind) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |n| n.kind == kind)
    }
    /// Kubernetes nodes (servers and agents), in file order.
    pub fn cluster_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.in_cluster())
    }
    /// GPUs of all nodes.
    #[must_use]
    pub fn gpu_count(&self) -> u32 {
        self.nodes.iter().map(|n| n.shape.gpu_count()).sum()
    }
    /// Name of the pool that holds the site's VMs.
    #[must_use]
    pub fn pool(&self) -> String {
        format!("gpuhost-{}", self.name)
    }
    /// Prefix length of the node subnet.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        parse_cidr(&self.network.cidr).map_or(24, |c| c.1)
    }
}
