//! Which GPUs the cluster has, offers and uses.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::kubernetes::{Cluster, quantity};

/// The resource of whole GPUs, and of instances under the MIG strategy `single`.
pub const RESOURCE: &str = "nvidia.com/gpu";
/// What the resources of instances begin with under the strategy `mixed`.
const INSTANCE: &str = "nvidia.com/mig-";

/// Whether a resource is a GPU or an instance of one.
#[must_use]
pub fn is_gpu(resource: &str) -> bool {
    resource == RESOURCE || resource.starts_with(INSTANCE)
}

/// One resource of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// What the device plugin registered.
    pub capacity: i64,
    /// What pods may use.
    pub allocatable: i64,
    /// What running pods asked for.
    pub requested: i64,
}

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
    /// Whole cards behind what pods may use.
    pub cards: i64,
    /// Devices that one card gives: instances, times the pods that share one.
    pub per_card: i64,
    /// Instances that the labels of the strategy `mixed` count.
    pub instances: i64,
    /// The same amounts by resource; those that offer nothing are left out.
    pub resources: BTreeMap<String, Amounts>,
    /// MIG strategy, when there is one.
    pub strategy: String,
    /// MIG configuration that the node's label asks for.
    pub mig_config: String,
    /// MIG state, when there is one.
    pub mig: String,
    /// Container runtimes of the node; `None` when it does not report them.
    pub runtimes: Option<Vec<String>>,
}

impl NodeGpus {
    /// Devices that so many cards give, as the node's cards are cut and shared now.
    #[must_use]
    pub fn devices_of(&self, cards: i64) -> i64 {
        if self.instances > 0 { self.instances * cards / self.count.max(1) } else { cards * self.per_card }
    }

    /// Whether the labels speak of instances.
    #[must_use]
    pub fn cut(&self) -> bool {
        self.instances > 0 || self.product.contains(MIG)
    }
}

/// Stands between product and profile where every card is cut alike.
const MIG: &str = "-MIG-";

/// Memory of a card in GB, as its product's name says it.
fn memory_gb(product: &str) -> Option<f64> {
    product.split(['-', ' ']).find_map(|w| w.strip_suffix("GB")?.parse().ok())
}

/// Slices of compute and of memory that a profile (`1g.5gb`) takes of a card; of memory `None` where the card's is not
/// known. A card has seven slices of compute and eight of memory.
fn slices(product: &str, profile: &str) -> Option<(i64, Option<f64>)> {
    let (compute, rest) = profile.split_once("g.")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let memory: f64 = digits.parse().ok()?;
    Some((compute.parse().ok()?, memory_gb(product).map(|all| memory * 8.0 / all)))
}

/// Instances of a profile that fill a card.
fn instances_per_card(product: &str, profile: &str) -> i64 {
    let Some((compute, memory)) = slices(product, profile) else { return 1 };
    let by_compute = 7 / compute.max(1);
    let by_memory = memory.map_or(7, |m| (8.0 / m.round().max(1.0)) as i64);
    // one engine of media belongs to one instance
    let most = if profile.contains("me") { 1 } else { 7 };
    by_compute.min(by_memory).clamp(1, most)
}

/// Whether a card can have instances of a profile at all; true where its memory is not known.
#[must_use]
pub(super) fn fits(product: &str, profile: &str) -> bool {
    match slices(product, profile) {
        Some((1..=7, Some(m))) => (m - m.round()).abs() < 0.12 && [1.0, 2.0, 4.0, 8.0].contains(&m.round()),
        Some((compute, None)) => (1..=7).contains(&compute),
        _ => false,
    }
}

/// Cards and devices per card, from the labels.
fn cards_of(labels: &Value, product: &str, labelled: i64, replicas: i64) -> (i64, i64, i64) {
    let counts = labels.as_object().into_iter().flatten();
    let instances: i64 =
        counts.filter(|(k, _)| k.starts_with(INSTANCE) && k.ends_with(".count")).map(|(_, v)| quantity(v)).sum();
    let Some((card, rest)) = product.split_once(MIG) else { return (labelled, replicas, instances) };
    let n = instances_per_card(card, rest.trim_end_matches("-SHARED"));
    (labelled / n, n * replicas, instances)
}

/// What a node offers, by resource.
fn amounts(status: &Value) -> BTreeMap<String, Amounts> {
    let names = status["capacity"].as_object().into_iter().flatten().map(|(k, _)| k).filter(|k| is_gpu(k));
    let read = names.map(|k| {
        let of = |part: &str| quantity(&status[part][k]);
        (k.clone(), Amounts { capacity: of("capacity"), allocatable: of("allocatable"), requested: 0 })
    });
    read.filter(|(_, a)| a.capacity > 0).collect()
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
    let (product, replicas) = (text("gpu.product"), number("gpu.replicas").max(1));
    let (count, per_card, instances) = cards_of(labels, &product, number("gpu.count"), replicas);
    let resources = amounts(&node["status"]);
    let sum = |f: fn(&Amounts) -> i64| resources.values().map(f).sum::<i64>();
    let (capacity, allocatable) = (sum(|a| a.capacity), sum(|a| a.allocatable));
    let cards = if instances > 0 { allocatable * count / capacity.max(1) } else { allocatable / per_card };
    NodeGpus {
        node: node["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        present: has_device(node),
        count,
        product,
        memory_mib: number("gpu.memory"),
        driver,
        capacity,
        allocatable,
        requested: 0,
        replicas,
        cards,
        per_card,
        instances,
        resources,
        strategy: text("mig.strategy"),
        mig_config: text("mig.config"),
        mig: text("mig.config.state"),
        runtimes,
    }
}

/// GPUs and instances that a pod asks for while it holds them, by resource.
#[must_use]
pub fn requests(pod: &Value) -> BTreeMap<String, i64> {
    let mut out: BTreeMap<String, i64> = BTreeMap::new();
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return out;
    }
    for c in pod["spec"]["containers"].as_array().into_iter().flatten() {
        asked(c).for_each(|(r, n)| *out.entry(r).or_default() += n);
    }
    for c in pod["spec"]["initContainers"].as_array().into_iter().flatten() {
        asked(c).for_each(|(r, n)| {
            let most = out.entry(r).or_default();
            *most = n.max(*most);
        });
    }
    out
}

/// What one container asks for.
fn asked(c: &Value) -> impl Iterator<Item = (String, i64)> {
    let mut out: BTreeMap<String, i64> = BTreeMap::new();
    for part in ["requests", "limits"] {
        for (r, n) in c["resources"][part].as_object().into_iter().flatten().filter(|(r, _)| is_gpu(r)) {
            let most = out.entry(r.clone()).or_default();
            *most = quantity(n).max(*most);
        }
    }
    out.into_iter().filter(|(_, n)| *n > 0)
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
                    "replicas": n.replicas, "cards": n.cards, "mig": n.mig, "mig_config": n.mig_config,
                    "strategy": n.strategy, "resources": resources(n),
                })
            })
            .collect();
        let holders: Vec<_> =
            self.holders.iter().map(|(node, pod, n)| json!({"node": node, "pod": pod, "gpus": n})).collect();
        json!({
            "nodes": nodes, "holders": holders, "count": sum(|n| n.count), "capacity": sum(|n| n.capacity),
            "allocatable": sum(|n| n.allocatable), "requested": sum(|n| n.requested), "cards": sum(|n| n.cards),
        })
    }
}

fn resources(n: &NodeGpus) -> Value {
    let one = |(r, a): (&String, &Amounts)| {
        (r.clone(), json!({"capacity": a.capacity, "allocatable": a.allocatable, "requested": a.requested}))
    };
    Value::Object(n.resources.iter().map(one).collect())
}

/// Reads the inventory.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn inventory(ctx: &Ctx, cluster: &Cluster) -> OpResult<Inventory> {
    let nodes = cluster.list_in(ctx, "node", "").await?;
    let mut all: Vec<_> = nodes.iter().map(read_node).filter(|n| n.present || n.count > 0 || n.capacity > 0).collect();
    let mut holders = Vec::new();
    for pod in cluster.list_in(ctx, "pod", "").await? {
        let (Some(node), held) = (pod["spec"]["nodeName"].as_str(), requests(&pod)) else { continue };
        if held.is_empty() {
            continue;
        }
        let text = |k: &str| pod["metadata"][k].as_str().unwrap_or_default().to_owned();
        let total: i64 = held.values().sum();
        holders.push((node.to_owned(), format!("{}/{}", text("namespace"), text("name")), total));
        if let Some(n) = all.iter_mut().find(|n| n.node == node) {
            n.requested += total;
            for (r, count) in held {
                n.resources.entry(r).or_default().requested += count;
            }
        }
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
        assert_eq!(requests(&p)[RESOURCE], 2);
        let p = json!({"spec":{"containers":[{"resources":{"limits":{"nvidia.com/mig-1g.5gb":"2","cpu":"1"}}}]}});
        assert_eq!(requests(&p), BTreeMap::from([("nvidia.com/mig-1g.5gb".to_owned(), 2)]));
    }

    fn node(labels: Value, amounts: Value) -> NodeGpus {
        read_node(
            &json!({"metadata": {"name": "g", "labels": labels}, "status": {"capacity": amounts, "allocatable": amounts}}),
        )
    }

    #[test]
    fn shares_and_instances_are_counted_as_cards() {
        let shared = json!({"nvidia.com/gpu.count":"2","nvidia.com/gpu.replicas":"4","nvidia.com/gpu.product":"NVIDIA-A100-PCIE-40GB-SHARED"});
        let g = node(shared, json!({"nvidia.com/gpu":"8"}));
        assert_eq!((g.count, g.cards, g.allocatable, g.devices_of(2), g.cut()), (2, 2, 8, 8, false));
        let single = json!({"nvidia.com/gpu.count":"14","nvidia.com/gpu.replicas":"1","nvidia.com/gpu.product":"NVIDIA-A100-PCIE-40GB-MIG-1g.5gb"});
        let g = node(single, json!({"nvidia.com/gpu":"14"}));
        assert_eq!((g.count, g.cards, g.devices_of(2), g.cut()), (2, 2, 14, true));
        let mixed = json!({"nvidia.com/gpu.count":"2","nvidia.com/gpu.product":"NVIDIA-A100-PCIE-40GB",
            "nvidia.com/mig-1g.5gb.count":"4","nvidia.com/mig-2g.10gb.count":"2","nvidia.com/mig-3g.20gb.count":"2"});
        let g = node(
            mixed,
            json!({"nvidia.com/gpu":"0","nvidia.com/mig-1g.5gb":"4","nvidia.com/mig-2g.10gb":"2","nvidia.com/mig-3g.20gb":"2"}),
        );
        assert_eq!((g.count, g.cards, g.allocatable, g.devices_of(2), g.resources.len()), (2, 2, 8, 8, 3));
    }

    #[test]
    fn profiles_fill_cards_as_nvidia_lists_them() {
        for (product, profile, n) in [
            ("NVIDIA-A100-PCIE-40GB", "1g.5gb", 7),
            ("NVIDIA-A100-PCIE-40GB", "1g.10gb", 4),
            ("NVIDIA-A100-PCIE-40GB", "2g.10gb", 3),
            ("NVIDIA-A100-80GB-PCIe", "3g.40gb", 2),
            ("NVIDIA-A100-80GB-PCIe", "1g.10gb.me", 1),
            ("NVIDIA-A30-24GB", "2g.12gb", 2),
            ("NVIDIA-H100-NVL", "2g.24gb", 3),
        ] {
            assert_eq!(instances_per_card(product, profile), n, "{product} {profile}");
            assert!(fits(product, profile), "{product} {profile}");
        }
        assert!(!fits("NVIDIA-A100-PCIE-40GB", "1g.12gb") && !fits("NVIDIA-A100-PCIE-40GB", "9g.5gb"));
    }
}
