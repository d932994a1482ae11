//! The script functions of `k3s`.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Map};

use super::options::{AgentOptions, RemoveOptions, ServerOptions};
use crate::core::ctx::{RhaiResultOf, call};
use crate::core::error::{OpError, OpResult};
use crate::core::units::Secret;
use crate::kubernetes::Cluster;
use crate::ssh::Host;

/// The module.
pub(super) fn module() -> rhai::Module {
    rhai::exported_module!(api)
}

/// Hosts out of a script list.
pub(crate) fn hosts_of(list: &Array) -> OpResult<Vec<Host>> {
    list.iter()
        .map(|d| {
            d.clone().try_cast::<Host>().ok_or_else(|| {
                OpError::invalid(format!("expected a list of hosts, found a {}", d.type_name()))
                    .hint("`site().hosts(\"server\")` gives one")
            })
        })
        .collect()
}

#[export_module]
mod api {
    use super::*;

    /// Forms a K3s cluster of these servers, one at a time, and returns it.
    ///
    /// # Example
    /// ```rhai
    /// let cluster = k3s::ensure_servers(site().hosts("server"), site().k3s);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ensure_servers(ncc: NativeCallContext, hosts: Array, options: Map) -> RhaiResultOf<Cluster> {
        call(&ncc, |ctx| async move {
            let o = ServerOptions::read(&options)?;
            super::super::servers::ensure_servers(&ctx, &hosts_of(&hosts)?, &o).await
        })
    }

    /// Connects to the cluster of a server.
    ///
    /// # Example
    /// ```rhai
    /// let cluster = k3s::connect(site().hosts("server")[0]);
    /// ```
    #[rhai_fn(name = "connect", return_raw)]
    pub fn connect_host(ncc: NativeCallContext, host: Host) -> RhaiResultOf<Cluster> {
        call(&ncc, |ctx| async move { super::super::connect::connect(&ctx, &[host]).await })
    }

    /// Connects to the cluster of the first of these servers that answers.
    ///
    /// # Example
    /// ```rhai
    /// let cluster = k3s::connect(site().hosts("server"));
    /// ```
    #[rhai_fn(name = "connect", return_raw)]
    pub fn connect_hosts(ncc: NativeCallContext, hosts: Array) -> RhaiResultOf<Cluster> {
        call(&ncc, |ctx| async move { super::super::connect::connect(&ctx, &hosts_of(&hosts)?).await })
    }

    /// Connects to the cluster of a kubeconfig's current context.
    ///
    /// For clusters whose servers are not reached by SSH: what needs a server as a machine (joining, upgrades, snapshots)
    /// takes `k3s::connect`.
    ///
    /// # Example
    /// ```rhai
    /// let same = k3s::connect_kubeconfig(cluster.kubeconfig);
    /// require(same.list_nodes().len() > 0, "it answers");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn connect_kubeconfig(ncc: NativeCallContext, kubeconfig: Secret) -> RhaiResultOf<Cluster> {
        call(&ncc, |ctx| async move { super::super::connect::connect_kubeconfig(&ctx, kubeconfig).await })
    }

    /// Makes a host an agent of the cluster: joined, Ready, labelled as its role says.
    ///
    /// # Example
    /// ```rhai
    /// parallel(site().hosts("agent"), |host| cluster.ensure_agent(host));
    /// ```
    #[rhai_fn(global, name = "ensure_agent", return_raw, pure)]
    pub fn ensure_agent(ncc: NativeCallContext, cluster: &mut Cluster, host: Host) -> RhaiResultOf<()> {
        ensure_agent_with(ncc, cluster, host, Map::new())
    }

    /// Makes a host an agent of the cluster, with more labels, taints or configuration.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_agent(host, #{ labels: #{ pool: "gpu" } });
    /// ```
    #[rhai_fn(global, name = "ensure_agent", return_raw, pure)]
    pub fn ensure_agent_with(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        host: Host,
        options: Map,
    ) -> RhaiResultOf<()> {
        let cluster = cluster.clone();
        call(&ncc, |ctx| async move { cluster.ensure_agent(&ctx, &host, &AgentOptions::read(&options)?).await })
    }

    /// Refuses (`denied`) to take a server out of service while the quorum hangs on it.
    ///
    /// That is so when the others that vote are too few without it. Nothing happens for other nodes, and for a server
    /// that is down already.
    ///
    /// # Example
    /// ```rhai
    /// cluster.check_quorum("k3s-cp2");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_quorum(ncc: NativeCallContext, cluster: &mut Cluster, node: &str) -> RhaiResultOf<()> {
        let (cluster, node) = (cluster.clone(), node.to_owned());
        call(&ncc, |ctx| async move { cluster.keep_quorum(&ctx, &node).await })
    }

    /// Drains a node, deletes it from the cluster and removes K3s from its machine. Asks first.
    ///
    /// # Example
    /// ```rhai
    /// cluster.remove_node(site().hosts("agent")[0]);
    /// ```
    #[rhai_fn(global, name = "remove_node", return_raw, pure)]
    pub fn remove_node(ncc: NativeCallContext, cluster: &mut Cluster, host: Host) -> RhaiResultOf<()> {
        remove_node_with(ncc, cluster, host, Map::new())
    }

    /// Drains a node, deletes it from the cluster and removes K3s from its machine. Asks first.
    ///
    /// # Example
    /// ```rhai
    /// cluster.remove_node(site().hosts("agent")[0], #{ timeout: 20.minutes });
    /// ```
    #[rhai_fn(global, name = "remove_node", return_raw, pure)]
    pub fn remove_node_with(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        host: Host,
        options: Map,
    ) -> RhaiResultOf<()> {
        let cluster = cluster.clone();
        call(&ncc, |ctx| async move { cluster.remove_node(&ctx, &host, &RemoveOptions::read(&options)?).await })
    }

    /// Removes K3s with its data from a machine; `false` when there was none. Asks first.
    ///
    /// # Example
    /// ```rhai
    /// k3s::uninstall(site().hosts("agent")[0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn uninstall(ncc: NativeCallContext, host: Host) -> RhaiResultOf<bool> {
        call(&ncc, |ctx| async move { super::super::remove::uninstall(&ctx, &host).await })
    }
}
