//! A control plane with no machine under it: the API and the controllers alone, for tests and measurements.
use serde_json::json;

use super::api;
use super::controllers::registry::ANY;
use super::cx::with_cluster;
use super::k3s::files;
use super::state::{Cluster, NodeRt};
use super::store::Store;
use crate::{Lab, tls};

/// Its id.
pub const ID: &str = "bare";

/// Adds a cluster without servers to the world, and whatever image it asks for; its id.
pub fn cluster(lab: &Lab) -> String {
    let id = ID.to_owned();
    lab.with(|w| {
        let mut c = Cluster { id: id.clone(), version: "v1.34.9+k3s1".into(), ..Cluster::default() };
        c.ca = w.pve.ca.clone();
        c.client_ca = w.pve.ca.clone();
        c.store = Store::new(w.seed, w.now_ms);
        w.clusters.insert(id.clone(), c);
        w.pushed.insert(ANY.to_owned());
        with_cluster(lab, w, &id, |cx| {
            for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
                cx.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
            }
            super::k3s::roles::birth(cx);
            super::k3s::flow::birth(cx);
        });
    });
    id
}

/// Lets the API of the cluster listen under the address `addr` (`10.0.0.11:6443`); gives the administrator's kubeconfig.
///
/// # Errors
/// When no port can be bound or the CA cannot sign.
pub fn serve(lab: &Lab, cluster: &str, addr: &str) -> std::io::Result<String> {
    let c = lab.with(|w| w.clusters.get(cluster).cloned()).unwrap_or_default();
    let ip = addr.rsplit_once(':').map_or(addr, |(ip, _)| ip).to_owned();
    let leaf = tls::make_leaf(&c.ca, "kube-apiserver", None, &["127.0.0.1".to_owned(), ip])?;
    api::listen(lab, cluster, 1, &[addr.to_owned()], &leaf, &c.client_ca.cert)?;
    let admin = tls::make_leaf(&c.client_ca, "system:admin", Some("system:masters"), &[])?;
    Ok(files::kubeconfig(&c, &admin))
}

/// Adds a node that is Ready, has a GPU and runs what it is given.
pub fn node(lab: &Lab, cluster: &str, name: &str) {
    lab.with(|w| {
        with_cluster(lab, w, cluster, |cx| {
            let size = json!({"cpu": "64", "memory": "256Gi", "pods": "250", "ephemeral-storage": "400Gi", "nvidia.com/gpu": "1"});
            let n = cx.c.nodes.len();
            let range = format!("10.{}.{}.0/24", 42 + n / 256, n % 256);
            let version = cx.c.version.clone();
            let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "nvidia.com/gpu.count": "1"});
            cx.create(json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": labels}, "spec": {"podCIDR": range}}));
            cx.update("nodes", "", name, |o| {
                o["status"]["capacity"] = size.clone();
                o["status"]["allocatable"] = size;
                o["status"]["nodeInfo"]["kubeletVersion"] = json!(version);
            });
            cx.condition(("nodes", "", name), "Ready", "True", "KubeletReady", "kubelet is posting ready status");
            let renewed = super::text::stamp_micro(cx.now());
            cx.create(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": renewed}}));
            super::k3s::node::csi_node(cx, name);
            cx.c.nodes.insert(name.to_owned(), NodeRt { posting: true, ..NodeRt::default() });
        });
    });
}
