//! Which GPUs the cluster has, offers and uses.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::kubernetes::{Cluster, quantity};

/// The resource of whole GPUs.
pub const RESOURCE: &str = "nvidia.com/gpu";

/// GPUs of one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeGpus {
    /// Node.
    pub node: String,
    /// Whether an NVIDIA device was found in it.
    pub present: bool,
    /// Physical cards, by label.
    pub count: i64,
    /// Model.
    pub product: String,
    /// Memory of one card in MiB.
    pub memory_mib: i64,
    /// Driver version.
    pub driver: String,
    /// What the device plugin registered.
    pub capacity: i64,
    /// What pods may use.
    pub allocatable: i64,
    /// What running pods asked for.
    pub requested: i64,
    /// Pods that may share one card.
    pub replicas: i64,
    /// MIG state, when there is one.
    pub mig: String,
    /// Container runtimes of the node; `None` when it does not report them.
    pub runtimes: Option<Vec<String>>,
}

/// Whether NFD saw an NVIDIA device on a node.
#[must_use]
pub fn has_device(node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    ["pci-10de.present", "pci-0302_10de.present", "pci-0300_10de.present"]
        .iter()
        .any(|l| labels[format!("feature.node.kubernetes.io/{l}")] == "true")
}

/// GPUs of a node object.
#[must_use]
pub fn read_node(node: &Value) -> NodeGpus {
    let labels = &node["metadata"]["labels"];
    let text = |k: &str| labels[format!("nvidia.com/{k}")].as_str().unwrap_or_default().to_owned();
    let number = |k: &str| quantity(&labels[format!("nvidia.com/{k}")]);
    let full = text("cuda.driver-version.full");
    let parts = ["major", "minor", "revision"]
        .map(|p| text(&format!("cuda.driver.{}", if p == "revision" { "rev" } else { p })));
    let driver = if full.is_empty() {
        parts.iter().filter(|p| !p.is_empty()).cloned().collect::<Vec<_>>().join(".")
    } else {
        full
    };
    let runtimes = node["status"]["runtimeHandlers"]
        .as_array()
        .map(|l| l.iter().filter_map(|h| h["name"].as_str()).filter(|n| !n.is_empty()).map(str::to_owned).collect());
    NodeGpus {
        node: node["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        present: has_device(node),
        count: number("gpu.count"),
        product: text("gpu.product"),
        memory_mib: number("gpu.memory"),
        driver,
        capacity: quantity(&node["status"]["capacity"][RESOURCE]),
        allocatable: quantity(&node["status"]["allocatable"][RESOURCE]),
        requested: 0,
        replicas: number("gpu.replicas").max(1),
        mig: text("mig.config.state"),
        runtimes,
    }
}

/// GPUs that a pod asks for while it holds them.
#[must_use]
pub fn requested(pod: &Value) -> i64 {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return 0;
    }
    let sum = |list: &Value| -> Vec<i64> {
        let all = list.as_array().into_iter().flatten();
        all.map(|c| {
            let r = &c["resources"];
            quantity(&r["requests"][RESOURCE]).max(quantity(&r["limits"][RESOURCE]))
        })
        .collect()
    };
    let main: i64 = sum(&pod["spec"]["containers"]).iter().sum();
    main.max(sum(&pod["spec"]["initContainers"]).into_iter().max().unwrap_or(0))
}

/// The whole inventory.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Nodes with a device, a count or a resource.
    pub nodes: Vec<NodeGpus>,
    /// Who holds GPUs: `(node, namespace/pod, how many)`.
    pub holders: Vec<(String, String, i64)>,
}

impl Inventory {
    /// Who holds GPUs on the nodes that `here` means, as words: `research/train on k3s-gpu1 (2)`.
    #[must_use]
    pub fn held_on(&self, here: impl Fn(&str) -> bool) -> Vec<String> {
        let held = self.holders.iter().filter(|(node, ..)| here(node));
        held.map(|(node, pod, n)| format!("{pod} on {node} ({n})")).collect()
    }

    /// As JSON for scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        let sum = |f: fn(&NodeGpus) -> i64| self.nodes.iter().map(f).sum::<i64>();
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|n| {
                json!({
                    "node": n.node, "count": n.count, "product": n.product, "memory_mib": n.memory_mib,
                    "driver": n.driver, "capacity": n.capacity, "allocatable": n.allocatable,
                    "requested": n.requested, "free": (n.allocatable - n.requested).max(0),
                    "replicas": n.replicas, "mig": n.mig,
                })
            })
            .collect();
        let holders: Vec<_> =
            self.holders.iter().map(|(node, pod, n)| json!({"node": node, "pod": pod, "gpus": n})).collect();
        json!({
            "nodes": nodes, "holders": holders, "count": sum(|n| n.count), "capacity": sum(|n| n.capacity),
            "allocatable": sum(|n| n.allocatable), "requested": sum(|n| n.requested),
        })
    }
}

/// Reads the inventory.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn inventory(ctx: &Ctx, cluster: &Cluster) -> OpResult<Inventory> {
    let nodes = cluster.list_in(ctx, "node", "").await?;
    let mut by_node: BTreeMap<String, i64> = BTreeMap::new();
    let mut holders = Vec::new();
    for pod in cluster.list_in(ctx, "pod", "").await? {
        let n = requested(&pod);
        if let (Some(node), true) = (pod["spec"]["nodeName"].as_str(), n > 0) {
            *by_node.entry(node.to_owned()).or_default() += n;
            let text = |k: &str| pod["metadata"][k].as_str().unwrap_or_default().to_owned();
            holders.push((node.to_owned(), format!("{}/{}", text("namespace"), text("name")), n));
        }
    }
    let mut all: Vec<_> = nodes.iter().map(read_node).filter(|n| n.present || n.count > 0 || n.capacity > 0).collect();
    for n in &mut all {
        n.requested = by_node.get(&n.node).copied().unwrap_or(0);
    }
    all.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(Inventory { nodes: all, holders })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_pods_read() {
        let n = json!({"metadata":{"name":"g","labels":{"feature.node.kubernetes.io/pci-10de.present":"true","nvidia.com/gpu.count":"2","nvidia.com/gpu.product":"A"}},
            "status":{"capacity":{"nvidia.com/gpu":"2"},"allocatable":{"nvidia.com/gpu":"1"},"runtimeHandlers":[{"name":""},{"name":"nvidia"}]}});
        let g = read_node(&n);
        assert_eq!((g.count, g.capacity, g.allocatable, g.present), (2, 2, 1, true));
        assert_eq!(g.runtimes, Some(vec!["nvidia".to_owned()]));
        let p = json!({"spec":{"containers":[{"resources":{"limits":{"nvidia.com/gpu":"1"}}},{"resources":{"limits":{"nvidia.com/gpu":1}}}]}});
        assert_eq!(requested(&p), 2);
    }
}
