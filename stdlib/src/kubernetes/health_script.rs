//! The script functions for the health of nodes: checks, requests to services, cordon and drain.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde_json::json;

use super::script::to_script;
use super::{Cluster, ServiceRequestOptions};
use crate::core::ctx::{RhaiResultOf, call};
use crate::core::units::Duration;
use crate::ssh::Host;

/// The functions.
pub(super) fn module() -> rhai::Module {
    rhai::exported_module!(api)
}

fn names_of(list: &Array) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn lines(list: Vec<String>) -> Array {
    list.into_iter().map(Dynamic::from).collect()
}

#[export_module]
mod api {
    use super::*;

    /// What is wrong with the named nodes; an empty list when all is well.
    ///
    /// # Example
    /// ```rhai
    /// for line in cluster.check_nodes(site().node_names(), site().k3s.version) { warn(line); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_nodes(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        names: Array,
        version: &str,
    ) -> RhaiResultOf<Array> {
        let (cluster, names, version) = (cluster.clone(), names_of(&names), version.to_owned());
        call(&ncc, |ctx| async move { Ok(lines(cluster.check_nodes(&ctx, &names, &version).await?)) })
    }

    /// Says what is wrong with workloads that still run; an empty list when all is well.
    ///
    /// Disruption budgets that no drain gets past, and variables that a container declares twice.
    ///
    /// # Example
    /// ```rhai
    /// for line in cluster.check_workloads() { warn(line); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_workloads(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Array> {
        let cluster = cluster.clone();
        call(&ncc, |ctx| async move { Ok(lines(cluster.check_workloads(&ctx).await?)) })
    }

    /// Says what is wrong with the bundles below a folder before they are pushed.
    ///
    /// Keys of `fleet.yaml` that Fleet would drop without a word (such as `patches`), fields that no built-in kind has,
    /// entries that appear twice. An empty list when all is well.
    ///
    /// # Example
    /// ```rhai,check
    /// for line in kubernetes::check_bundles("recipes/gitops") { warn(line); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn check_bundles(ncc: NativeCallContext, folder: &str) -> RhaiResultOf<Array> {
        let folder = folder.to_owned();
        call(&ncc, |ctx| async move { Ok(lines(super::super::bundles::check_bundles(&ctx, &folder).await?)) })
    }

    /// Says what is wrong with the named servers; an empty list when all is well.
    ///
    /// # Example
    /// ```rhai
    /// for line in cluster.check_servers(["k3s-cp1"]) { warn(line); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_servers(ncc: NativeCallContext, cluster: &mut Cluster, names: Array) -> RhaiResultOf<Array> {
        let (cluster, names) = (cluster.clone(), names_of(&names));
        call(&ncc, |ctx| async move { Ok(lines(cluster.check_servers(&ctx, &names).await?)) })
    }

    /// Names of the nodes that vote in etcd, as the cluster has them.
    ///
    /// # Example
    /// ```rhai
    /// print(`${cluster.list_voters().len()} servers vote`);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_voters(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Array> {
        let cluster = cluster.clone();
        call(&ncc, |ctx| async move { Ok(lines(cluster.etcd_voters(&ctx).await?)) })
    }

    /// Which workloads of releases and of K3s lack replicas that they want.
    ///
    /// An empty list when all have them.
    ///
    /// # Example
    /// ```rhai
    /// for line in cluster.check_replicas() { warn(line); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_replicas(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Array> {
        let cluster = cluster.clone();
        call(&ncc, |ctx| async move {
            Ok(lines(cluster.short_workloads(&ctx).await?.iter().map(ToString::to_string).collect()))
        })
    }

    /// A request to a URL through the ingress at `address`, sent by a machine of the site.
    ///
    /// The URL is `https://NAME/PATH`. Gives `#{ status, body, subject, days }`: whom the certificate that was shown names, and how long it is still valid. The certificate's issuer
    /// is not judged: it may be the cluster's own.
    ///
    /// # Example
    /// ```rhai
    /// let host = site().hosts("server")[0];
    /// print(kubernetes::request_ingress(host, host.address, "https://rancher.lab.example/ping").body);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn request_ingress(ncc: NativeCallContext, host: Host, address: &str, url: &str) -> RhaiResultOf<Dynamic> {
        let (address, url) = (address.to_owned(), url.to_owned());
        call(&ncc, |ctx| async move {
            let a = super::super::ingress::request(&ctx, &host, &address, &url).await?;
            to_script(&json!({"status": a.status, "body": a.body, "subject": a.subject, "days": a.days}))
        })
    }

    /// A request from a node to a Service (`namespace/name:port`): `#{ status, body }`.
    ///
    /// # Example
    /// ```rhai
    /// let host = site().hosts("server")[0];
    /// print(cluster.request_service(host, "jupyterhub/hub:8081", #{ path: "/hub/api/" }).body);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn request_service(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        host: Host,
        service: &str,
        options: Map,
    ) -> RhaiResultOf<Dynamic> {
        let (cluster, service) = (cluster.clone(), service.to_owned());
        call(&ncc, |ctx| async move {
            let o = ServiceRequestOptions::read(&options)?;
            let (status, body) = cluster.request_service(&ctx, &host, &service, &o).await?;
            let value = serde_json::from_str(&body).unwrap_or(serde_json::Value::Null);
            to_script(&json!({"status": status, "body": body, "json": value}))
        })
    }

    /// Keeps new pods off a node; `false` when it was so already.
    ///
    /// # Example
    /// ```rhai
    /// cluster.cordon("k3s-gpu1");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn cordon(ncc: NativeCallContext, cluster: &mut Cluster, node: &str) -> RhaiResultOf<bool> {
        let (cluster, node) = (cluster.clone(), node.to_owned());
        call(&ncc, |ctx| async move { cluster.set_cordon(&ctx, &node, true).await })
    }

    /// Lets new pods onto a node again.
    ///
    /// # Example
    /// ```rhai
    /// cluster.uncordon("k3s-gpu1");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn uncordon(ncc: NativeCallContext, cluster: &mut Cluster, node: &str) -> RhaiResultOf<bool> {
        let (cluster, node) = (cluster.clone(), node.to_owned());
        call(&ncc, |ctx| async move { cluster.set_cordon(&ctx, &node, false).await })
    }

    /// Cordons a node and evicts its pods. Asks first.
    ///
    /// # Example
    /// ```rhai
    /// cluster.drain("k3s-gpu1", 10.minutes);
    /// ```
    #[rhai_fn(global, name = "drain", return_raw, pure)]
    pub fn drain(ncc: NativeCallContext, cluster: &mut Cluster, node: &str, limit: Duration) -> RhaiResultOf<()> {
        drain_with(ncc, cluster, node, limit, Map::new())
    }

    /// Cordons a node and evicts its pods, or those that the options leave. Asks first.
    ///
    /// Pods of daemon sets stay. The question names who holds GPUs, whose emptyDir goes and what nothing makes anew;
    /// `delete_emptydir: false` and `lone_pods: false` refuse such a drain before anything happens.
    ///
    /// # Example
    /// ```rhai
    /// cluster.drain("k3s-gpu1", 10.minutes, #{ grace: 30.seconds, labels: #{ app: "web" } });
    /// ```
    #[rhai_fn(global, name = "drain", return_raw, pure)]
    pub fn drain_with(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        node: &str,
        limit: Duration,
        options: Map,
    ) -> RhaiResultOf<()> {
        let (cluster, node) = (cluster.clone(), node.to_owned());
        call(&ncc, |ctx| async move {
            cluster.drain_with(&ctx, &node, limit.0, &super::super::DrainOptions::read(&options)?).await
        })
    }
}
