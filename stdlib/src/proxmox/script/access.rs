//! Hypervisor nodes, roles, tokens and grants.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map, NativeCallContext};

use crate::core::ctx::{RhaiResultOf, call};
use crate::core::error::OpError;
use crate::core::options::OptionValue;
use crate::core::units::{Duration, Size};
use crate::proxmox::access::{GrantOptions, TokenOptions};
use crate::proxmox::node::PveNode;
use crate::proxmox::types::{Proxmox, Report};

#[export_module]
pub mod api {
    /// Gives a hypervisor node: processors, memory, uptime, kernel, IOMMU.
    ///
    /// # Example
    /// ```rhai
    /// let node = pve.get_node("pve1");
    /// print(`${node.cpus} processors, ${node.memory}, IOMMU on: ${node.iommu}`);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_node(ncc: NativeCallContext, pve: &mut Proxmox, name: &str) -> RhaiResultOf<PveNode> {
        let (pve, name) = (pve.clone(), name.to_owned());
        call(&ncc, |ctx| async move { pve.pve_node(&ctx, &name).await })
    }

    /// Reports whether the cards of a node can be passed through, and who holds them.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.iommu_report("pve1"));
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn iommu_report(ncc: NativeCallContext, pve: &mut Proxmox, pve_node: &str) -> RhaiResultOf<Report> {
        let (pve, node) = (pve.clone(), pve_node.to_owned());
        call(&ncc, |ctx| async move { pve.iommu_report(&ctx, &node).await })
    }

    /// Makes a role have at least these privileges; nothing is taken from it.
    ///
    /// Names that differ between Proxmox VE 8 and 9 are translated. For an administrator's connection.
    ///
    /// # Example
    /// ```rhai,check
    /// pve.ensure_role("GpuhostReader", ["VM.Audit", "Datastore.Audit"]);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_role(ncc: NativeCallContext, pve: &mut Proxmox, name: &str, privileges: Array) -> RhaiResultOf<()> {
        let list = Vec::<String>::read(&privileges.into())
            .map_err(|e| OpError::invalid(format!("privileges: {e}")).into_rhai(&ncc))?;
        let (pve, name) = (pve.clone(), name.to_owned());
        call(&ncc, |ctx| async move { pve.ensure_role(&ctx, &name, &list).await })
    }

    /// Makes an API token exist; gives the reference of its secret for the site file.
    ///
    /// # Example
    /// ```rhai,check
    /// let reference = pve.ensure_token("gpuhost@pve!deploy");
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "ensure_token")]
    pub fn ensure_token_default(ncc: NativeCallContext, pve: &mut Proxmox, token_id: &str) -> RhaiResultOf<String> {
        ensure_token(ncc, pve, token_id, Map::new())
    }

    /// Makes an API token exist; gives the reference of its secret for the site file.
    ///
    /// Proxmox shows the secret once: it goes into a file of the state directory that only its owner reads.
    ///
    /// # Example
    /// ```rhai,check
    /// let reference = pve.ensure_token("gpuhost@pve!deploy", #{ keep_as: "proxmox_token" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_token(
        ncc: NativeCallContext,
        pve: &mut Proxmox,
        token_id: &str,
        options: Map,
    ) -> RhaiResultOf<String> {
        let o = TokenOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let (pve, id) = (pve.clone(), token_id.to_owned());
        call(&ncc, |ctx| async move { pve.ensure_token(&ctx, &id, &o).await })
    }

    /// Removes an API token that this site made; says whether it was there.
    ///
    /// # Example
    /// ```rhai,check
    /// pve.remove_token("gpuhost@pve!deploy");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_token(ncc: NativeCallContext, pve: &mut Proxmox, token_id: &str) -> RhaiResultOf<bool> {
        let (pve, id) = (pve.clone(), token_id.to_owned());
        call(&ncc, |ctx| async move { pve.remove_token(&ctx, &id).await })
    }

    /// Makes a grant exist: a role on a path for a user or a token.
    ///
    /// # Example
    /// ```rhai,check
    /// pve.ensure_grant("/storage/local-zfs", #{ role: "GpuhostStorage", token: "gpuhost@pve!deploy" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_grant(ncc: NativeCallContext, pve: &mut Proxmox, path: &str, options: Map) -> RhaiResultOf<()> {
        let o = GrantOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let (pve, path) = (pve.clone(), path.to_owned());
        call(&ncc, |ctx| async move { pve.ensure_grant(&ctx, &path, &o).await })
    }

    /// Name of the hypervisor node.
    #[rhai_fn(global, get = "name", pure)]
    pub fn node_name(node: &mut PveNode) -> String {
        node.name.clone()
    }
    /// `online`, `offline` or `unknown`.
    #[rhai_fn(global, get = "status", pure)]
    pub fn node_status(node: &mut PveNode) -> String {
        node.status.clone()
    }
    /// Version of Proxmox VE on the node.
    #[rhai_fn(global, get = "version", pure)]
    pub fn node_version(node: &mut PveNode) -> String {
        node.version.clone()
    }
    /// Logical processors.
    #[rhai_fn(global, get = "cpus", pure)]
    pub fn node_cpus(node: &mut PveNode) -> i64 {
        node.cpus
    }
    /// Model of the processors.
    #[rhai_fn(global, get = "cpu_model", pure)]
    pub fn node_cpu_model(node: &mut PveNode) -> String {
        node.cpu_model.clone()
    }
    /// Memory of the node.
    #[rhai_fn(global, get = "memory", pure)]
    pub fn node_memory(node: &mut PveNode) -> Size {
        node.memory
    }
    /// Memory in use.
    #[rhai_fn(global, get = "memory_used", pure)]
    pub fn node_memory_used(node: &mut PveNode) -> Size {
        node.memory_used
    }
    /// Time since the node's boot.
    #[rhai_fn(global, get = "uptime", pure)]
    pub fn node_uptime(node: &mut PveNode) -> Duration {
        Duration::secs(node.uptime.unsigned_abs())
    }
    /// Kernel of the node.
    #[rhai_fn(global, get = "kernel", pure)]
    pub fn node_kernel(node: &mut PveNode) -> String {
        node.kernel.clone()
    }
    /// Whether the IOMMU is on; `()` when the token may not look.
    #[rhai_fn(global, get = "iommu", pure)]
    pub fn node_iommu(node: &mut PveNode) -> Dynamic {
        node.iommu.map_or(Dynamic::UNIT, Dynamic::from)
    }
    /// The node as text.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn node_text(node: &mut PveNode) -> String {
        format!("hypervisor node {} ({})", node.name, node.status)
    }
}
