//! What recipes see of the site file.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use std::sync::Arc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map, NativeCallContext};

use super::{Node, RoleKind, Site};
use crate::core::ctx::{Ctx, List, RhaiResultOf};
use crate::core::error::OpError;
use crate::core::module::ModuleDef;
use crate::ssh::Host;

/// The module.
#[must_use]
pub fn def() -> ModuleDef {
    ModuleDef {
        name: "",
        docs: "The loaded site file and its nodes.",
        module: exported_module!(api).into(),
        options: Vec::new(),
    }
}

/// A TOML value as a script value.
pub fn to_dynamic(v: &toml::Value) -> Dynamic {
    match v {
        toml::Value::String(s) => s.clone().into(),
        toml::Value::Integer(i) => (*i).into(),
        toml::Value::Float(f) => (*f).into(),
        toml::Value::Boolean(b) => (*b).into(),
        toml::Value::Datetime(d) => d.to_string().into(),
        toml::Value::Array(a) => a.iter().map(to_dynamic).collect::<Array>().into(),
        toml::Value::Table(t) => table(t).into(),
    }
}

/// A TOML table as a script map.
#[must_use]
pub fn table(t: &toml::Table) -> Map {
    t.iter().map(|(k, v)| (k.as_str().into(), to_dynamic(v))).collect()
}

fn section(v: &impl serde::Serialize) -> Map {
    match toml::Value::try_from(v) {
        Ok(toml::Value::Table(t)) => table(&t),
        _ => Map::new(),
    }
}

fn size(s: Option<crate::core::units::Size>) -> Dynamic {
    s.map_or(Dynamic::UNIT, Dynamic::from)
}

type SiteRef = Arc<Site>;

fn names<'a>(nodes: impl Iterator<Item = &'a Node>) -> Array {
    nodes.map(|n| n.name.clone().into()).collect()
}

fn kind_of(word: &str) -> Result<RoleKind, OpError> {
    match word {
        "server" => Ok(RoleKind::Server),
        "agent" => Ok(RoleKind::Agent),
        "storage" => Ok(RoleKind::Storage),
        other => Err(OpError::invalid(format!("unknown kind `{other}`")).hint("kinds: server, agent, storage")),
    }
}

#[export_module]
#[allow(missing_docs)]
mod api {
    /// The loaded and validated site file.
    ///
    /// # Example
    /// ```rhai
    /// print(site().name);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn site(ncc: NativeCallContext) -> RhaiResultOf<SiteRef> {
        Ctx::of(&ncc)?.site().map_err(|e| e.into_rhai(&ncc))
    }

    /// The site's name.
    #[rhai_fn(global, get = "name", pure)]
    pub fn site_name(site: &mut SiteRef) -> String {
        site.name.clone()
    }

    /// The site's identity.
    #[rhai_fn(global, get = "uuid", pure)]
    pub fn site_uuid(site: &mut SiteRef) -> String {
        site.uuid.clone()
    }

    /// Section `[proxmox]`.
    #[rhai_fn(global, get = "proxmox", pure)]
    pub fn site_proxmox(site: &mut SiteRef) -> Map {
        section(&site.proxmox)
    }

    /// Section `[network]`.
    #[rhai_fn(global, get = "network", pure)]
    pub fn site_network(site: &mut SiteRef) -> Map {
        section(&site.network)
    }

    /// Section `[template]`.
    #[rhai_fn(global, get = "template", pure)]
    pub fn site_template(site: &mut SiteRef) -> Map {
        section(&site.template)
    }

    /// Section `[k3s]`: the options of `k3s::ensure_servers`.
    #[rhai_fn(global, get = "k3s", pure)]
    pub fn site_k3s(site: &mut SiteRef) -> Map {
        table(&site.k3s)
    }

    /// Section `[storage]`.
    #[rhai_fn(global, get = "storage", pure)]
    pub fn site_storage(site: &mut SiteRef) -> Map {
        table(&site.storage)
    }

    /// Section `[gpu]`.
    #[rhai_fn(global, get = "gpu", pure)]
    pub fn site_gpu(site: &mut SiteRef) -> Map {
        table(&site.gpu)
    }

    /// Section `[platform]`.
    #[rhai_fn(global, get = "platform", pure)]
    pub fn site_platform(site: &mut SiteRef) -> Map {
        table(&site.platform)
    }

    /// All nodes, in file order.
    #[rhai_fn(global, get = "nodes", pure)]
    pub fn site_nodes(site: &mut SiteRef) -> List<Node> {
        site.nodes.iter().map(|n| Dynamic::from(n.clone())).collect()
    }

    /// Table `[connect]`: where connections really go.
    #[rhai_fn(global, get = "connect", pure)]
    pub fn site_connect(site: &mut SiteRef) -> Map {
        site.connect.iter().map(|(k, v)| (k.as_str().into(), v.clone().into())).collect()
    }

    /// The node of that name.
    ///
    /// # Example
    /// ```rhai
    /// let node = site().get_node(site().node_names()[0]);
    /// print(node.ip);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_node(ncc: NativeCallContext, site: &mut SiteRef, name: &str) -> RhaiResultOf<Node> {
        site.node(name).map(|n| (*n).clone()).map_err(|e| e.into_rhai(&ncc))
    }

    /// The hosts whose role is of this kind (`server`, `agent` or `storage`), ready for SSH.
    ///
    /// # Example
    /// ```rhai
    /// for host in site().hosts("server") { print(host.name); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn hosts(ncc: NativeCallContext, site: &mut SiteRef, kind: &str) -> RhaiResultOf<List<Host>> {
        let kind = kind_of(kind).map_err(|e| e.into_rhai(&ncc))?;
        Ok(site.nodes_of(kind).map(|n| Dynamic::from(Host::for_node(site, n))).collect())
    }

    /// Names of the Kubernetes nodes (servers and agents).
    ///
    /// # Example
    /// ```rhai
    /// print(site().node_names().len());
    /// ```
    #[rhai_fn(global, pure)]
    pub fn node_names(site: &mut SiteRef) -> List<String> {
        names(site.cluster_nodes())
    }

    /// Addresses of the Kubernetes nodes (servers and agents).
    ///
    /// # Example
    /// ```rhai
    /// print(site().node_ips());
    /// ```
    #[rhai_fn(global, pure)]
    pub fn node_ips(site: &mut SiteRef) -> List<String> {
        site.cluster_nodes().map(|n| n.ip.clone().into()).collect()
    }

    /// Names of the nodes that have GPUs.
    ///
    /// # Example
    /// ```rhai
    /// print(site().gpu_nodes());
    /// ```
    #[rhai_fn(global, pure)]
    pub fn gpu_nodes(site: &mut SiteRef) -> List<String> {
        names(site.nodes.iter().filter(|n| n.shape.gpu_count() > 0))
    }

    /// How many GPUs the site declares.
    ///
    /// # Example
    /// ```rhai
    /// print(site().gpu_count());
    /// ```
    #[rhai_fn(global, pure)]
    pub fn gpu_count(site: &mut SiteRef) -> i64 {
        i64::from(Site::gpu_count(site))
    }

    /// Names of the cluster's nodes that have a scratch disk.
    ///
    /// # Example
    /// ```rhai
    /// print(site().scratch_nodes());
    /// ```
    #[rhai_fn(global, pure)]
    pub fn scratch_nodes(site: &mut SiteRef) -> List<String> {
        names(site.cluster_nodes().filter(|n| n.shape.scratch.is_some()))
    }

    /// By-id path of a node's data disk.
    ///
    /// # Example
    /// ```rhai
    /// for host in site().hosts("storage") { print(site().data_device(host.name)); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn data_device(ncc: NativeCallContext, site: &mut SiteRef, name: &str) -> RhaiResultOf<String> {
        let node = site.node(name).map_err(|e| e.into_rhai(&ncc))?;
        node.data_device().ok_or_else(|| {
            OpError::invalid(format!("node `{name}` has no data disk"))
                .on(name)
                .hint("give its role `data = \"2 TiB\"` in the site file")
                .into_rhai(&ncc)
        })
    }

    /// Shown form.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn site_to_string(site: &mut SiteRef) -> String {
        format!("Site({} {} nodes)", site.name, site.nodes.len())
    }

    /// The node's name.
    #[rhai_fn(global, get = "name", pure)]
    pub fn node_name(node: &mut Node) -> String {
        node.name.clone()
    }
    /// The name of its role.
    #[rhai_fn(global, get = "role", pure)]
    pub fn node_role(node: &mut Node) -> String {
        node.role.clone()
    }
    /// The kind of its role: `server`, `agent` or `storage`.
    #[rhai_fn(global, get = "kind", pure)]
    pub fn node_kind(node: &mut Node) -> String {
        node.kind.as_str().to_owned()
    }
    /// Its IPv4 address.
    #[rhai_fn(global, get = "ip", pure)]
    pub fn node_ip(node: &mut Node) -> String {
        node.ip.clone()
    }
    /// Its VM id.
    #[rhai_fn(global, get = "vmid", pure)]
    pub fn node_vmid(node: &mut Node) -> i64 {
        i64::from(node.vmid)
    }
    /// Its hypervisor node.
    #[rhai_fn(global, get = "pve_node", pure)]
    pub fn node_pve_node(node: &mut Node) -> String {
        node.pve_node.clone()
    }
    /// Its shape as declared: role and overrides together.
    #[rhai_fn(global, get = "shape", pure)]
    pub fn node_shape(node: &mut Node) -> Map {
        section(&node.shape)
    }
    /// How many GPUs it has.
    #[rhai_fn(global, get = "gpus", pure)]
    pub fn node_gpus(node: &mut Node) -> i64 {
        i64::from(node.shape.gpu_count())
    }
    /// Size of its scratch disk, or `()`.
    #[rhai_fn(global, get = "scratch", pure)]
    pub fn node_scratch(node: &mut Node) -> Dynamic {
        size(node.shape.scratch)
    }
    /// By-id path of its scratch disk, or `()`.
    #[rhai_fn(global, get = "scratch_device", pure)]
    pub fn node_scratch_device(node: &mut Node) -> Dynamic {
        node.scratch_device().map_or(Dynamic::UNIT, Dynamic::from)
    }
    /// Extra packages of its role.
    #[rhai_fn(global, get = "packages", pure)]
    pub fn node_packages(node: &mut Node) -> List<String> {
        node.shape.packages.iter().flatten().map(|p| p.clone().into()).collect()
    }
    /// More of its wanted host state from the site file.
    #[rhai_fn(global, get = "system", pure)]
    pub fn node_system(node: &mut Node) -> Map {
        node.shape.system.as_ref().map(table).unwrap_or_default()
    }
    /// Shown form.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn node_to_string(node: &mut Node) -> String {
        format!("Node({} {} vmid={} ip={})", node.name, node.role, node.vmid, node.ip)
    }
}
