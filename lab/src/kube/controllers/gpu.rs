//! The GPU chain: feature discovery, driver, toolkit, device plugin, and the operator that ties them together.
use serde_json::{Value, json};

use super::super::cx::{Cx, key, set_condition};
use super::super::objects::{Container, Workload};
use super::super::text::{arr, s};
use super::behaviour::Run;
use super::claims::ready_pod;
use crate::guest;

const NS: &str = "gpu-operator";
const POLICY: &str = "clusterpolicies.nvidia.com";
const GPU: &str = "nvidia.com/gpu";
const SOCKET: &str = "/run/k3s/containerd/containerd.sock";

fn app(pod: &Value) -> &str {
    s(pod, "/metadata/labels/app")
}

/// What the operator's containers do; `None` for all others.
pub fn run_of(cx: &mut Cx, pod: &Value, c: &Value, node: &str) -> Option<Run> {
    let rt = cx.c.nodes.get(node).cloned().unwrap_or_default();
    let wait = |log: &str| Some(Run::Wait { log: log.to_owned() });
    let init = arr(pod, "/spec/initContainers").iter().any(|i| i["name"] == c["name"]);
    match (app(pod), init) {
        ("nvidia-driver-daemonset", _) => {
            if guest::gpus(cx.w, rt.vmid).is_empty() {
                return Some(Run::Crash { log: "NVRM: No NVIDIA GPU found.".to_owned() });
            }
            let log = "Resolving Linux kernel version...\nBuilding NVIDIA driver package\nLoading NVIDIA driver kernel modules...\nDone, now waiting for signal\n";
            Some(Run::Forever { ready_ms: 210_000, log: log.to_owned() })
        }
        ("nvidia-container-toolkit-daemonset", true) if rt.driver.is_none() => {
            wait("waiting for the driver to be ready ...")
        }
        ("nvidia-container-toolkit-daemonset", true) => {
            Some(Run::Exit { code: 0, after_ms: 1500, log: "running command: nvidia-smi".to_owned() })
        }
        ("nvidia-container-toolkit-daemonset", false) => {
            let socket =
                arr(c, "/env").iter().find(|e| e["name"] == "CONTAINERD_SOCKET").map(|e| s(e, "/value").to_owned());
            let socket = socket.unwrap_or_else(|| "/run/containerd/containerd.sock".to_owned());
            if socket == SOCKET {
                return Some(Run::forever(6000));
            }
            Some(Run::Crash {
                log: format!(
                    "level=error msg=\"error running nvidia-toolkit: unable to restart containerd: unable to dial: dial unix {socket}: connect: no such file or directory: {socket}\""
                ),
            })
        }
        (
            "nvidia-device-plugin-daemonset"
            | "gpu-feature-discovery"
            | "nvidia-dcgm-exporter"
            | "nvidia-operator-validator"
            | "nvidia-mig-manager",
            true,
        ) if !rt.toolkit => wait("waiting for nvidia container stack to be setup"),
        ("nvidia-operator-validator", false) if !rt.plugin => wait("waiting for GPU resources to be discovered"),
        ("nvidia-operator-validator", false) => {
            Some(Run::Forever { ready_ms: 8000, log: "all validations are successful".to_owned() })
        }
        (
            "nvidia-device-plugin-daemonset" | "gpu-feature-discovery" | "nvidia-dcgm-exporter" | "nvidia-mig-manager",
            false,
        ) => Some(Run::forever(3000)),
        (
            "nvidia-device-plugin-daemonset"
            | "gpu-feature-discovery"
            | "nvidia-dcgm-exporter"
            | "nvidia-operator-validator"
            | "nvidia-mig-manager",
            true,
        ) => Some(Run::Exit { code: 0, after_ms: 1000, log: String::new() }),
        _ => None,
    }
}

/// An operand is ready on its node.
pub fn ready(cx: &mut Cx, pod: &Value, node: &str) {
    let vmid = cx.c.nodes.get(node).map_or(0, |n| n.vmid);
    if s(pod, "/metadata/labels/app.kubernetes.io~1name") == "node-feature-discovery"
        && s(pod, "/metadata/labels/role") == "worker"
    {
        if !guest::gpus(cx.w, vmid).is_empty() {
            label(cx, node, &[("feature.node.kubernetes.io/pci-10de.present", "true")]);
        }
        return;
    }
    match app(pod) {
        "nvidia-driver-daemonset" => {
            let image = s(pod, "/spec/containers/0/image").to_owned();
            let version = image.rsplit(':').next().unwrap_or_default().split('-').next().unwrap_or_default().to_owned();
            cx.node_rt(node).driver = Some(version.clone());
            guest::set_nvidia_driver(cx.lab, cx.w, vmid, Some(version));
        }
        "nvidia-container-toolkit-daemonset" => {
            cx.node_rt(node).toolkit = true;
            for name in ["nvidia-container-runtime", "nvidia-container-runtime.cdi"] {
                guest::put_file(cx.lab, cx.w, vmid, &format!("/usr/local/nvidia/toolkit/{name}"), "#!/bin/sh\n", 0o755);
            }
        }
        "nvidia-device-plugin-daemonset" => {
            cx.node_rt(node).plugin = true;
            offer(cx, node, vmid);
        }
        "gpu-feature-discovery" => discover(cx, node, vmid),
        _ => {}
    }
}

/// The device plugin has registered: the node offers its GPUs.
fn offer(cx: &mut Cx, node: &str, vmid: u32) {
    let n = guest::gpus(cx.w, vmid).len().to_string();
    cx.update("nodes", "", node, |o| {
        o["status"]["capacity"][GPU] = json!(n);
        o["status"]["allocatable"][GPU] = json!(n);
    });
}

/// The node's devices are gone with its guest.
pub fn withdraw(cx: &mut Cx, node: &str) {
    cx.update("nodes", "", node, |o| {
        if !o["status"]["allocatable"][GPU].is_null() {
            o["status"]["allocatable"][GPU] = json!("0");
        }
    });
}

fn discover(cx: &mut Cx, node: &str, vmid: u32) {
    let gpus = guest::gpus(cx.w, vmid);
    let Some(first) = gpus.first() else { return };
    let (product, memory) = match first.device.trim_start_matches("0x") {
        "20f1" => ("NVIDIA-A100-PCIE-40GB", "40960"),
        "20b5" => ("NVIDIA-A100-80GB-PCIe", "81920"),
        _ => ("NVIDIA-GPU", "16384"),
    };
    let n = gpus.len().to_string();
    let driver = cx.c.nodes.get(node).and_then(|n| n.driver.clone()).unwrap_or_default();
    label(
        cx,
        node,
        &[
            ("nvidia.com/gpu.count", &n),
            ("nvidia.com/gpu.product", product),
            ("nvidia.com/gpu.memory", memory),
            ("nvidia.com/gpu.family", "ampere"),
            ("nvidia.com/gpu.replicas", "1"),
            ("nvidia.com/gpu.compute.major", "8"),
            ("nvidia.com/gpu.compute.minor", "0"),
            ("nvidia.com/cuda.driver-version.full", &driver),
            ("nvidia.com/mig.capable", "true"),
            ("nvidia.com/mig.strategy", "single"),
        ],
    );
}

fn label(cx: &mut Cx, node: &str, labels: &[(&str, &str)]) {
    let same = cx.get("nodes", "", node).is_some_and(|n| labels.iter().all(|(k, v)| n["metadata"]["labels"][*k] == *v));
    if same {
        return;
    }
    cx.update("nodes", "", node, |o| {
        for (k, v) in labels {
            o["metadata"]["labels"][*k] = json!(v);
        }
    });
}

/// A node changed: the operator labels those with a device.
pub fn node(cx: &mut Cx, name: &str) {
    if cx.c.store.kind_for(POLICY).is_none() || cx.list(POLICY).is_empty() {
        return;
    }
    let has = cx
        .get("nodes", "", name)
        .is_some_and(|n| n["metadata"]["labels"]["feature.node.kubernetes.io/pci-10de.present"] == "true");
    if !has {
        return;
    }
    label(
        cx,
        name,
        &[
            ("nvidia.com/gpu.present", "true"),
            ("nvidia.com/gpu.deploy.driver", "true"),
            ("nvidia.com/gpu.deploy.container-toolkit", "true"),
            ("nvidia.com/gpu.deploy.device-plugin", "true"),
            ("nvidia.com/gpu.deploy.gpu-feature-discovery", "true"),
            ("nvidia.com/gpu.deploy.dcgm-exporter", "true"),
            ("nvidia.com/gpu.deploy.operator-validator", "true"),
            ("nvidia.com/gpu.deploy.mig-manager", "true"),
        ],
    );
}

/// Operands: name, deploy label, image, whether they need the runtime class, whether they wait in an init container.
const OPERANDS: &[(&str, &str, &str, bool, bool)] = &[
    ("nvidia-driver-daemonset", "driver", "", false, false),
    (
        "nvidia-container-toolkit-daemonset",
        "container-toolkit",
        "nvcr.io/nvidia/k8s/container-toolkit:v1.18.1",
        false,
        true,
    ),
    ("nvidia-device-plugin-daemonset", "device-plugin", "nvcr.io/nvidia/k8s-device-plugin:v0.18.1", true, true),
    ("gpu-feature-discovery", "gpu-feature-discovery", "nvcr.io/nvidia/k8s-device-plugin:v0.18.1", true, true),
    ("nvidia-dcgm-exporter", "dcgm-exporter", "nvcr.io/nvidia/k8s/dcgm-exporter:4.4.2", true, true),
    ("nvidia-operator-validator", "operator-validator", "nvcr.io/nvidia/gpu-operator-validator:v26.3.3", true, true),
];

fn operand(policy: &Value, o: &(&str, &str, &str, bool, bool)) -> Option<Value> {
    let (name, deploy, image, runtime, waits) = *o;
    let spec = &policy["spec"];
    let mut image = image.to_owned();
    let mut main = Container::new(name, &image);
    match deploy {
        "driver" => {
            if spec["driver"]["enabled"] == false {
                return None;
            }
            let version = spec["driver"]["version"].as_str().unwrap_or("580.105.08");
            image = format!("nvcr.io/nvidia/driver:{version}-debian12");
            main = Container::new("nvidia-driver-ctr", &image);
        }
        "container-toolkit" => main = main.set("env", spec["toolkit"]["env"].clone()),
        _ => {}
    }
    let mut w = Workload::daemonset(NS, name)
        .label("app", name)
        .container(main)
        .spec("nodeSelector", json!({format!("nvidia.com/gpu.deploy.{deploy}"): "true"}))
        .spec("tolerations", spec["daemonsets"]["tolerations"].clone())
        .spec("priorityClassName", json!("system-node-critical"));
    if waits {
        w = w.init(Container::new(
            if deploy == "container-toolkit" { "driver-validation" } else { "toolkit-validation" },
            "nvcr.io/nvidia/gpu-operator-validator:v26.3.3",
        ));
    }
    if runtime {
        w = w.spec("runtimeClassName", json!("nvidia"));
    }
    Some(w.object())
}

/// The operator: operands for the ClusterPolicy, and its state.
pub fn reconcile(cx: &mut Cx) {
    if cx.c.store.kind_for(POLICY).is_none() {
        return;
    }
    let Some(policy) = cx.list(POLICY).first().map(|p| (*p).clone()) else { return };
    if ready_pod(cx, "app", "gpu-operator").is_none() {
        return;
    }
    let nodes: Vec<String> = cx.list("nodes").into_iter().map(|n| s(n, "/metadata/name").to_owned()).collect();
    for n in nodes {
        node(cx, &n);
    }
    let owner = super::super::cx::owner_ref(&policy);
    for o in OPERANDS {
        let Some(mut ds) = operand(&policy, o) else { continue };
        ds["metadata"]["ownerReferences"] = owner.clone();
        let (ns, name) = key(&ds);
        if cx.get("daemonsets.apps", &ns, &name).is_none_or(|old| {
            old["spec"]["template"]["spec"]["containers"][0]["image"]
                != ds["spec"]["template"]["spec"]["containers"][0]["image"]
        }) {
            cx.create(
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": ns}}),
            );
            cx.ensure(ds);
        }
    }
    state(cx, s(&policy, "/metadata/name"));
}

fn state(cx: &mut Cx, name: &str) {
    let mut waits = Vec::new();
    let mut any = false;
    for (operand, ..) in OPERANDS {
        let Some(ds) = cx.get("daemonsets.apps", NS, operand) else { continue };
        let n = |f: &str| ds["status"][f].as_i64().unwrap_or(0);
        any |= n("desiredNumberScheduled") > 0;
        if n("numberReady") < n("desiredNumberScheduled") {
            waits.push(*operand);
        }
    }
    let (state, reason, text) = match (any, waits.is_empty()) {
        (true, true) => (
            "ready",
            "Reconciled",
            "ClusterPolicy is ready as all resources have been successfully reconciled".to_owned(),
        ),
        (false, _) => {
            ("notReady", "NoGPUNodes", "No GPU node found, watching for new nodes to join the cluster.".to_owned())
        }
        (true, false) => (
            "notReady",
            "OperandNotReady",
            format!("ClusterPolicy is not ready, states not ready: [{}]", waits.join(" ")),
        ),
    };
    let old = cx.get(POLICY, "", name).cloned().unwrap_or_default();
    if s(&old, "/status/state") == state
        && arr(&old, "/status/conditions").iter().any(|c| c["message"] == text.as_str())
    {
        return;
    }
    let stamp = cx.stamp();
    let is = if state == "ready" { "True" } else { "False" };
    cx.update(POLICY, "", name, |o| {
        o["status"]["state"] = json!(state);
        o["status"]["namespace"] = json!(NS);
        set_condition(o, &stamp, "Ready", is, reason, &text);
        set_condition(o, &stamp, "Error", "False", "Ready", "");
    });
}
