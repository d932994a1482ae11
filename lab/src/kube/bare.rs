//! A control plane with no machine under it: the API and the controllers alone, for tests and measurements.
use serde_json::json;

use super::cx::with_cluster;
use super::state::{Cluster, NodeRt};
use super::store::Store;
use crate::Lab;

/// Adds a cluster without servers to the world; its id.
pub fn cluster(lab: &Lab) -> String {
    let id = "bare".to_owned();
    lab.with(|w| {
        let mut c = Cluster { id: id.clone(), version: "v1.34.9+k3s1".into(), ..Cluster::default() };
        c.ca = w.pve.ca.clone();
        c.client_ca = w.pve.ca.clone();
        c.store = Store::new(w.seed, w.now_ms);
        w.clusters.insert(id.clone(), c);
        with_cluster(lab, w, &id, |cx| {
            for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
                cx.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
            }
        });
    });
    id
}

/// Adds a node that is Ready and runs what it is given.
pub fn node(lab: &Lab, cluster: &str, name: &str) {
    lab.with(|w| {
        with_cluster(lab, w, cluster, |cx| {
            let size = json!({"cpu": "64", "memory": "256Gi", "pods": "250", "ephemeral-storage": "400Gi"});
            let n = cx.c.nodes.len();
            let range = format!("10.{}.{}.0/24", 42 + n / 256, n % 256);
            cx.create(json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
                "spec": {"podCIDR": range}}));
            cx.update("nodes", "", name, |o| {
                o["status"]["capacity"] = size.clone();
                o["status"]["allocatable"] = size;
            });
            cx.condition(("nodes", "", name), "Ready", "True", "KubeletReady", "kubelet is posting ready status");
            cx.c.nodes.insert(name.to_owned(), NodeRt { posting: true, ..NodeRt::default() });
        });
    });
}
