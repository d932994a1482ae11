//! How far a GPU node is, from the objects alone: the first rung that does not hold is the answer. No I/O.
use serde_json::Value;

use super::inventory::{RESOURCE, has_device, read_node};
use super::patterns::Mend;
use crate::kubernetes::pod_trouble;

/// A rung that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// 1 … 10, as in the guide.
    pub rung: u8,
    /// Word for the cause.
    pub id: &'static str,
    /// Node.
    pub node: String,
    /// What is wrong.
    pub cause: String,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub fix: String,
    /// The kind of command that does it.
    pub mend: Mend,
    /// Whether a restart of K3s on the node is the fix.
    pub restart: bool,
}

/// The cause of cards that are not in the mode that the node's label asks for.
pub(super) const MIG_WAITS: &str = "mig-waits";

/// The pod of an operand on a node.
pub(super) fn pod_of<'a>(pods: &'a [Value], node: &str, app: &str) -> Option<&'a Value> {
    pods.iter().find(|p| p["spec"]["nodeName"] == node && p["metadata"]["labels"]["app"] == app)
}

/// The operand of a rung, as its pods are labelled.
pub(super) fn operand_of(rung: u8) -> Option<&'static str> {
    match rung {
        3 => Some("nvidia-driver-daemonset"),
        4 => Some("nvidia-container-toolkit-daemonset"),
        6 | 7 => Some("nvidia-device-plugin-daemonset"),
        9 => Some("nvidia-mig-manager"),
        _ => None,
    }
}

struct Node<'a> {
    name: &'a str,
    object: &'a Value,
}

impl Node<'_> {
    fn broken(
        &self,
        rung: u8,
        id: &'static str,
        cause: &str,
        evidence: String,
        fix: &str,
        mend: Mend,
    ) -> Option<Broken> {
        Some(Broken {
            rung,
            id,
            node: self.name.to_owned(),
            cause: cause.to_owned(),
            evidence,
            fix: fix.to_owned(),
            mend,
            restart: false,
        })
    }

    /// Feature discovery's worker is not here: nobody can say whether the node has a card.
    fn no_worker(&self) -> Option<Broken> {
        let tainted = self.object["spec"]["taints"].as_array().is_some_and(|t| !t.is_empty());
        let (cause, fix) = if tainted {
            (
                "feature discovery has no worker on the node, which a taint may keep away: nothing says that there are cards",
                "deploy has it tolerate every taint; its tolerations (node-feature-discovery.worker.tolerations) are not those of the daemon sets",
            )
        } else {
            (
                "feature discovery has no worker on the node, and no taint keeps it away: nothing says that there are cards",
                "its daemon set is gone, or selects other labels: look at `kubectl -n gpu-operator get daemonset`",
            )
        };
        self.broken(
            2,
            "nfd-worker-gone",
            cause,
            format!("label pci-10de.present is absent; {}", taints(self.object)),
            fix,
            Mend::Deploy,
        )
    }

    /// A daemon set without a pod here: its tolerations, its selector, or the whole set.
    fn no_pod(&self, what: &str) -> Option<Broken> {
        let labels = &self.object["metadata"]["labels"];
        if what == "driver" && labels["nvidia.com/gpu.deploy.driver"] == "pre-installed" {
            return self.broken(
                3,
                "driver-in-guest",
                "the guest has a driver of its own: the operator's keeps away from the node",
                "label nvidia.com/gpu.deploy.driver=pre-installed".to_owned(),
                "purge the guest's driver and let the operator bring its own; or write `preinstalled` for the driver's version in the site file",
                Mend::OwnDriver,
            );
        }
        if self.object["spec"]["taints"].as_array().is_none_or(Vec::is_empty) {
            return self.broken(
                2,
                "operand-missing",
                &format!("the {what} has no pod on the node, and no taint keeps it away"),
                taints(self.object),
                "its daemon set is gone, or selects other labels: look at `kubectl -n gpu-operator get daemonset`",
                Mend::Deploy,
            );
        }
        let seen = taints(self.object);
        self.broken(
            2,
            "gpu-taint",
            &format!("the {what} has no pod on the node: a taint keeps it away"),
            seen,
            "deploy sets tolerations for every taint; or add the taint to daemonsets.tolerations and node-feature-discovery.worker.tolerations",
            Mend::Deploy,
        )
    }
}

/// The first rung that does not hold for a node that should have `want` GPUs; `pods` are those of the operator.
#[must_use]
pub fn first_broken(node: &Value, pods: &[Value], want: i64, driver_container: bool) -> Option<Broken> {
    let n = Node { name: node["metadata"]["name"].as_str().unwrap_or_default(), object: node };
    let gpus = read_node(node);
    let offered = gpus.allocatable >= want && want > 0 && gpus.allocatable == gpus.capacity;
    if !offered && !has_device(node) {
        return no_device(&n, pods);
    }
    if let Some(b) = operands(&n, pods, &gpus.runtimes, driver_container) {
        return Some(b);
    }
    if gpus.mig == "failed" || gpus.mig == "pending" {
        return n.broken(
            9,
            MIG_WAITS,
            "the cards have not taken their MIG mode over",
            format!("mig.config={}, mig.config.state={}", gpus.mig_config, gpus.mig),
            "a mode change of a passed-through card needs the VM stopped and started",
            Mend::RestartVm,
        );
    }
    if offered {
        return None;
    }
    if gpus.allocatable < gpus.capacity {
        let seen = format!("{} of {} allocatable", gpus.allocatable, gpus.capacity);
        return n.broken(
            7,
            "card-unhealthy",
            "a GPU is unhealthy",
            seen,
            "on the node: `dmesg | grep Xid`",
            Mend::RestartVm,
        );
    }
    if gpus.capacity == 0 {
        return n.broken(
            6,
            "plugin-not-registered",
            "the device plugin runs, but the kubelet does not know it",
            format!("capacity {RESOURCE} is 0"),
            "restart the device plugin's pod",
            Mend::Operand("nvidia-device-plugin-daemonset"),
        );
    }
    n.broken(
        8,
        "card-missing",
        "the node offers fewer GPUs than declared",
        format!("{} of {want}", gpus.capacity),
        "compare the VM's hostpci entries with the site file, then the plugin's log",
        Mend::Deploy,
    )
}

fn no_device(n: &Node, pods: &[Value]) -> Option<Broken> {
    let worker = pods.iter().find(|p| {
        p["spec"]["nodeName"] == n.name
            && p["metadata"]["name"].as_str().is_some_and(|x| x.contains("node-feature-discovery-worker"))
    });
    match worker.map(|w| (w, pod_trouble(w))) {
        None => n.no_worker(),
        Some((_, Some(t))) => {
            n.broken(2, "discovery-not-ready", "feature discovery is not ready", t, "look at its pod", Mend::Deploy)
        }
        Some((_, None)) => n.broken(
            1,
            "card-not-in-guest",
            "no NVIDIA device in the guest",
            "label pci-10de.present is absent".into(),
            "passthrough does not work: `gpu::passthrough_report(pve, site().gpu)`",
            Mend::Deploy,
        ),
    }
}

/// Driver, toolkit and device plugin, in their order.
fn operands(n: &Node, pods: &[Value], runtimes: &Option<Vec<String>>, driver_container: bool) -> Option<Broken> {
    let mut stages = vec![
        (4, "toolkit-not-ready", "nvidia-container-toolkit-daemonset", "container toolkit"),
        (6, "plugin-not-ready", "nvidia-device-plugin-daemonset", "device plugin"),
    ];
    if driver_container {
        stages.insert(0, (3, "driver-not-ready", "nvidia-driver-daemonset", "driver"));
    }
    for (rung, id, app, what) in stages {
        let Some(pod) = pod_of(pods, n.name, app) else {
            if rung == 4 && has_own_toolkit(pods, runtimes) {
                continue;
            }
            return n.no_pod(what);
        };
        let trouble = pod_trouble(pod);
        // K3s looks for runtimes only when it starts: until then no new pod gets one
        if rung == 6 && lacks_runtime(runtimes) {
            let seen = trouble.unwrap_or_else(|| "the node reports no runtime handler `nvidia`".to_owned());
            let mut b = n.broken(
                5,
                "runtime-undetected",
                "K3s has not detected the nvidia runtime",
                seen,
                "restart K3s on the node once: it looks for runtimes only when it starts",
                Mend::RestartAgent,
            )?;
            b.restart = true;
            return Some(b);
        }
        let Some(trouble) = trouble else { continue };
        return n.broken(rung, id, &format!("the {what} is not ready"), trouble, "look at its log", Mend::Deploy);
    }
    None
}

/// The machines bring the toolkit: the operator has no pod of it anywhere, and the node knows the runtime.
fn has_own_toolkit(pods: &[Value], runtimes: &Option<Vec<String>>) -> bool {
    let ours = |p: &Value| p["metadata"]["labels"]["app"] == "nvidia-container-toolkit-daemonset";
    runtimes.as_ref().is_some_and(|r| r.iter().any(|n| n == "nvidia")) && !pods.iter().any(ours)
}

/// Whether the node reports its runtimes and nvidia is not among them.
#[must_use]
pub fn lacks_runtime(runtimes: &Option<Vec<String>>) -> bool {
    runtimes.as_ref().is_some_and(|r| !r.iter().any(|n| n == "nvidia"))
}

fn taints(node: &Value) -> String {
    let list = node["spec"]["taints"].as_array().into_iter().flatten();
    let shown: Vec<_> = list
        .map(|t| {
            format!(
                "{}={}:{}",
                t["key"].as_str().unwrap_or("?"),
                t["value"].as_str().unwrap_or(""),
                t["effect"].as_str().unwrap_or("?")
            )
        })
        .collect();
    if shown.is_empty() { "the node has no taints".to_owned() } else { format!("taints: {}", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ready(app: &str) -> Value {
        json!({"metadata":{"name":app,"labels":{"app":app}},"spec":{"nodeName":"g"},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}})
    }

    #[test]
    fn rungs_in_order() {
        let mut node = json!({"metadata":{"name":"g","labels":{}},"spec":{},"status":{}});
        let b = first_broken(&node, &[], 2, true).unwrap();
        assert!(b.id == "nfd-worker-gone" && b.cause.contains("no taint keeps it away"));
        node["spec"]["taints"] = json!([{"key": "gpu-pool", "value": "a100", "effect": "NoSchedule"}]);
        let b = first_broken(&node, &[], 2, true).unwrap();
        assert!(b.id == "nfd-worker-gone" && b.evidence.contains("gpu-pool=a100:NoSchedule"));
        node["metadata"]["labels"]["feature.node.kubernetes.io/pci-10de.present"] = "true".into();
        assert_eq!(first_broken(&node, &[], 2, true).unwrap().id, "gpu-taint");
        node["spec"]["taints"] = json!([]);
        assert_eq!(first_broken(&node, &[], 2, true).unwrap().id, "operand-missing");
        node["metadata"]["labels"] = json!({});
        let nfd = json!({"metadata":{"name":"gpu-operator-node-feature-discovery-worker-x"},"spec":{"nodeName":"g"},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}});
        assert_eq!(first_broken(&node, &[nfd], 2, true).unwrap().rung, 1);
        node["metadata"]["labels"]["feature.node.kubernetes.io/pci-10de.present"] = "true".into();
        node["metadata"]["labels"]["nvidia.com/gpu.deploy.driver"] = "pre-installed".into();
        assert_eq!(first_broken(&node, &[], 2, true).unwrap().id, "driver-in-guest");
        let mut pods = vec![ready("nvidia-driver-daemonset"), ready("nvidia-container-toolkit-daemonset")];
        let mut plugin = ready("nvidia-device-plugin-daemonset");
        plugin["status"] = json!({"phase":"Pending"});
        pods.push(plugin);
        node["status"]["runtimeHandlers"] = json!([{"name":"runc"}]);
        let b = first_broken(&node, &pods, 2, true).unwrap();
        assert!(b.rung == 5 && b.restart && b.id == "runtime-undetected");
        node["status"]["runtimeHandlers"] = json!([{"name":"nvidia"}]);
        assert_eq!(first_broken(&node, &pods, 2, true).unwrap().id, "plugin-not-ready");
        pods[2] = ready("nvidia-device-plugin-daemonset");
        assert_eq!(first_broken(&node, &pods, 2, true).unwrap().id, "plugin-not-registered");
        node["status"]["capacity"] = json!({"nvidia.com/gpu":"2"});
        node["status"]["allocatable"] = json!({"nvidia.com/gpu":"1"});
        assert_eq!(first_broken(&node, &pods, 2, true).unwrap().id, "card-unhealthy");
        node["status"]["allocatable"] = json!({"nvidia.com/gpu":"2"});
        assert_eq!(first_broken(&node, &pods, 2, true), None);
        assert_eq!(first_broken(&node, &pods, 4, true).unwrap().id, "card-missing");
    }
}
