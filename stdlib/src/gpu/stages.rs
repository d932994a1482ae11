//! How far a GPU node is, from the objects alone: the first rung that does not hold is the answer. No I/O.
use serde_json::Value;

use super::inventory::{RESOURCE, has_device, read_node};
use crate::kubernetes::pod_trouble;

/// A rung that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// 1 … 10, as in the guide.
    pub rung: u8,
    /// Node.
    pub node: String,
    /// What is wrong.
    pub cause: String,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub fix: String,
    /// Whether a restart of K3s on the node is the fix.
    pub restart: bool,
}

/// Log patterns of driver and toolkit pods: `(part, cause, fix)`.
const PATTERNS: &[(&str, &str, &str)] = &[
    ("driver is currently in use", "pods or services hold the old driver", "drain the node, or reboot its VM"),
    (
        "Could not resolve Linux kernel version",
        "no headers for the running kernel",
        "install the headers of the running kernel, or reboot into a kernel that has them; pin it",
    ),
    ("Required key not available", "Secure Boot refuses the module", "make the EFI disk with pre-enrolled-keys=0"),
    ("module verification failed", "Secure Boot refuses the module", "make the EFI disk with pre-enrolled-keys=0"),
    ("nouveau", "nouveau holds the card", "blacklist nouveau in the guest and reboot it"),
    (
        "RmInitAdapter failed",
        "the card does not initialise in the guest",
        "stop and start the VM (not reboot); check MMIO size and ROM",
    ),
    (
        "no such file or directory: /run/containerd",
        "the toolkit looks for another containerd socket",
        "set CONTAINERD_SOCKET to /run/k3s/containerd/containerd.sock",
    ),
    (
        "containerd.sock",
        "the toolkit cannot reach containerd",
        "set CONTAINERD_SOCKET to /run/k3s/containerd/containerd.sock",
    ),
    ("unsupported config version: 3", "the toolkit is too old for containerd 2", "use a newer operator"),
    ("higher than root", "drop-in and main config versions differ", "set RUNTIME_CONFIG_SOURCE=file"),
    ("Driver/library version mismatch", "kernel module and libraries differ", "reboot the node"),
    (
        "No devices found",
        "the runtime class did not give the device to the plugin",
        "check the runtime class, or MIG strategy against mode",
    ),
];

/// What a log line of an operand means: `(cause, fix)`.
#[must_use]
pub fn explain_log(log: &str) -> Option<(String, &'static str, &'static str)> {
    log.lines().rev().find_map(|line| {
        PATTERNS.iter().find(|(p, ..)| line.contains(p)).map(|(_, cause, fix)| (line.trim().to_owned(), *cause, *fix))
    })
}

fn pod_of<'a>(pods: &'a [Value], node: &str, app: &str) -> Option<&'a Value> {
    pods.iter().find(|p| p["spec"]["nodeName"] == node && p["metadata"]["labels"]["app"] == app)
}

/// The first rung that does not hold for a node that should have `want` GPUs; `pods` are those of the operator.
#[must_use]
pub fn first_broken(node: &Value, pods: &[Value], want: i64, driver_container: bool) -> Option<Broken> {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let broken = |rung: u8, cause: &str, evidence: String, fix: &str| {
        Some(Broken {
            rung,
            node: name.to_owned(),
            cause: cause.to_owned(),
            evidence,
            fix: fix.to_owned(),
            restart: false,
        })
    };
    let gpus = read_node(node);
    if gpus.allocatable >= want && want > 0 && gpus.allocatable == gpus.capacity {
        return None;
    }
    if !has_device(node) {
        let worker = pods.iter().find(|p| {
            p["spec"]["nodeName"] == name
                && p["metadata"]["name"].as_str().is_some_and(|n| n.contains("node-feature-discovery-worker"))
        });
        return match worker.map(|w| (w, pod_trouble(w))) {
            None => broken(
                2,
                "feature discovery does not run on the node",
                taints(node),
                "add the taint to node-feature-discovery.worker.tolerations and daemonsets.tolerations",
            ),
            Some((_, Some(t))) => broken(2, "feature discovery is not ready", t, "look at its pod"),
            Some((_, None)) => broken(
                1,
                "no NVIDIA device in the guest",
                "label pci-10de.present is absent".into(),
                "passthrough does not work: `gpu::passthrough_report(pve, site().gpu)`",
            ),
        };
    }
    let mut stages = vec![
        (4, "nvidia-container-toolkit-daemonset", "container toolkit"),
        (6, "nvidia-device-plugin-daemonset", "device plugin"),
    ];
    if driver_container {
        stages.insert(0, (3, "nvidia-driver-daemonset", "driver"));
    }
    for (rung, app, what) in stages {
        let Some(pod) = pod_of(pods, name, app) else {
            return broken(
                2,
                &format!("the {what} has no pod on the node"),
                taints(node),
                "the daemon set does not tolerate the node's taint, or its label is missing",
            );
        };
        if let Some(trouble) = pod_trouble(pod) {
            // a pod without its runtime: K3s looks for runtimes only when it starts
            if rung == 6 && lacks_runtime(&gpus.runtimes) {
                let mut b = broken(
                    5,
                    "K3s has not detected the nvidia runtime",
                    trouble,
                    "restart k3s-agent on the node once",
                )?;
                b.restart = true;
                return Some(b);
            }
            return broken(rung, &format!("the {what} is not ready"), trouble, "look at its log");
        }
    }
    if gpus.allocatable < gpus.capacity {
        return broken(
            7,
            "a GPU is unhealthy",
            format!("{} of {} allocatable", gpus.allocatable, gpus.capacity),
            "on the node: `dmesg | grep Xid`",
        );
    }
    if gpus.mig == "failed" {
        return broken(
            9,
            "MIG configuration failed",
            "mig.config.state=failed".into(),
            "mig-manager log; a mode change needs VM stop and start",
        );
    }
    if gpus.capacity == 0 {
        return broken(
            6,
            "the device plugin offers no GPU yet",
            format!("capacity {RESOURCE} is 0"),
            "look at the device plugin's log",
        );
    }
    broken(
        8,
        "the node offers fewer GPUs than declared",
        format!("{} of {want}", gpus.capacity),
        "compare the VM's hostpci entries with the site file, then the plugin's log",
    )
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
        assert_eq!(first_broken(&node, &[], 2, true).unwrap().rung, 2);
        let nfd = json!({"metadata":{"name":"gpu-operator-node-feature-discovery-worker-x"},"spec":{"nodeName":"g"},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}});
        assert_eq!(first_broken(&node, &[nfd], 2, true).unwrap().rung, 1);
        node["metadata"]["labels"]["feature.node.kubernetes.io/pci-10de.present"] = "true".into();
        let mut pods = vec![ready("nvidia-driver-daemonset"), ready("nvidia-container-toolkit-daemonset")];
        let mut plugin = ready("nvidia-device-plugin-daemonset");
        plugin["status"] = json!({"phase":"Pending"});
        pods.push(plugin);
        node["status"]["runtimeHandlers"] = json!([{"name":"runc"}]);
        let b = first_broken(&node, &pods, 2, true).unwrap();
        assert!(b.rung == 5 && b.restart);
        node["status"]["runtimeHandlers"] = json!([{"name":"nvidia"}]);
        assert_eq!(first_broken(&node, &pods, 2, true).unwrap().rung, 6);
        node["status"]["capacity"] = json!({"nvidia.com/gpu":"2"});
        node["status"]["allocatable"] = json!({"nvidia.com/gpu":"2"});
        assert_eq!(first_broken(&node, &pods, 2, true), None);
    }

    #[test]
    fn logs_are_explained() {
        let (line, cause, _) = explain_log("a\nmodprobe: Required key not available\n").unwrap();
        assert!(line.contains("modprobe") && cause.contains("Secure Boot"));
    }
}
