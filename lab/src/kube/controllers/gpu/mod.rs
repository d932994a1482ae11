//! The GPU chain: feature discovery, driver, toolkit, device plugin, and the operator that ties them together.
mod given;
mod operands;
mod plugin;
mod policy;

use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::state::PodRt;
use super::super::text::s;
use crate::Lab;
use crate::guest;
use crate::world::World;

pub use given::{Given, given};
pub use operands::run_of;
pub use plugin::{refresh, withdraw};
pub use policy::{node, reconcile};

const NS: &str = "gpu-operator";
const POLICY: &str = "clusterpolicies.nvidia.com";
const GPU: &str = "nvidia.com/gpu";
const DEVICE: &str = "feature.node.kubernetes.io/pci-10de.present";

/// An operand is ready on its node.
pub fn ready(cx: &mut Cx, pod: &Value, node: &str) {
    let vmid = cx.c.nodes.get(node).map_or(0, |n| n.vmid);
    if s(pod, "/metadata/labels/app.kubernetes.io~1name") == "node-feature-discovery"
        && s(pod, "/metadata/labels/role") == "worker"
    {
        return features(cx, node, vmid);
    }
    match s(pod, "/metadata/labels/app") {
        "nvidia-driver-daemonset" => {
            let image = s(pod, "/spec/containers/0/image").to_owned();
            let version = image.rsplit(':').next().unwrap_or_default().split('-').next().unwrap_or_default().to_owned();
            cx.node_rt(node).driver = Some(version.clone());
            guest::set_nvidia_driver(cx.lab, cx.w, vmid, Some(version));
        }
        "nvidia-container-toolkit-daemonset" => {
            cx.node_rt(node).toolkit = true;
            install_runtimes(cx.lab, cx.w, vmid);
            plugin::mig(cx, node);
        }
        "nvidia-device-plugin-daemonset" => {
            cx.node_rt(node).plugin = true;
            plugin::offer(cx, node, vmid);
        }
        "gpu-feature-discovery" => plugin::discover(cx, node, vmid),
        "nvidia-mig-manager" => plugin::mig(cx, node),
        _ => {}
    }
}

/// The toolkit's runtimes on the disk of a node.
pub fn install_runtimes(lab: &Lab, w: &mut World, vmid: u32) {
    for name in ["nvidia-container-runtime", "nvidia-container-runtime.cdi"] {
        guest::put_file(lab, w, vmid, &format!("/usr/local/nvidia/toolkit/{name}"), "#!/bin/sh\n", 0o755);
    }
}

/// The toolkit is back on a node's disk; what runs through its runtime starts over.
pub fn toolkit_came(lab: &Lab, w: &mut World, vmid: u32) {
    install_runtimes(lab, w, vmid);
    let id = w.clusters.iter().find(|(_, c)| c.nodes.values().any(|n| n.vmid == vmid)).map(|(id, _)| id.clone());
    let Some(id) = id else { return };
    crate::kube::cx::with_cluster(lab, w, &id, |cx| {
        let node = cx.c.nodes.iter().find(|(_, n)| n.vmid == vmid).map(|(k, _)| k.clone()).unwrap_or_default();
        let all: Vec<(String, String)> = cx
            .list_in("pods", NS)
            .into_iter()
            .filter(|p| s(p, "/spec/nodeName") == node && s(p, "/spec/runtimeClassName") == "nvidia")
            .map(key)
            .collect();
        for (ns, name) in all {
            cx.delete("pods", &ns, &name);
        }
    });
}

/// Node feature discovery says whether the guest has an NVIDIA device, and takes the label back when it has none.
fn features(cx: &mut Cx, node: &str, vmid: u32) {
    if !guest::gpus(cx.w, vmid).is_empty() {
        return label(cx, node, &[(DEVICE, "true")]);
    }
    let labelled = cx.get("nodes", "", node).is_some_and(|n| !n["metadata"]["labels"][DEVICE].is_null());
    if labelled {
        cx.update("nodes", "", node, |o| {
            if let Some(l) = o["metadata"]["labels"].as_object_mut() {
                l.retain(|k, _| k != DEVICE && !k.starts_with("nvidia.com/"));
            }
        });
    }
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

/// Operands that the driver manager evicts while the driver restarts: they hold the old one.
const CLIENTS: &[&str] = &[
    "nvidia-container-toolkit-daemonset",
    "nvidia-device-plugin-daemonset",
    "gpu-feature-discovery",
    "nvidia-dcgm-exporter",
    "nvidia-mig-manager",
    "nvidia-operator-validator",
];

/// An operand's pod is gone from its node.
pub fn gone(cx: &mut Cx, rt: &PodRt) {
    if rt.ns != NS {
        return;
    }
    if rt.name.starts_with("nvidia-device-plugin-daemonset-") {
        cx.node_rt(&rt.node).plugin = false;
        withdraw(cx, &rt.node);
    }
    if !rt.name.starts_with("nvidia-driver-daemonset-") {
        return;
    }
    let vmid = cx.c.nodes.get(&rt.node).map_or(0, |n| n.vmid);
    let n = cx.node_rt(&rt.node);
    (n.driver, n.toolkit, n.plugin) = (None, false, false);
    withdraw(cx, &rt.node);
    let held = cx.w.guests.get(&vmid).and_then(|g| g.services.get("nvidia-persistenced.service").cloned());
    if held.is_none_or(|u| u.state != "active") {
        guest::set_nvidia_driver(cx.lab, cx.w, vmid, None);
    }
    let there: Vec<(String, String)> = cx
        .list_in("pods", NS)
        .into_iter()
        .filter(|p| s(p, "/spec/nodeName") == rt.node && CLIENTS.contains(&s(p, "/metadata/labels/app")))
        .map(key)
        .collect();
    for (ns, name) in there {
        cx.delete("pods", &ns, &name);
    }
}

/// The guest under a node is gone: driver and runtimes start from nothing when it is back.
pub fn node_down(cx: &mut Cx, node: &str) {
    cx.node_rt(node).toolkit = false;
    withdraw(cx, node);
}
