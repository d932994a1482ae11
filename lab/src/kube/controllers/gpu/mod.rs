//! The GPU chain: feature discovery, driver, toolkit, device plugin, and the operator that ties them together.
mod given;
mod mig;
mod operands;
mod plugin;
mod policy;
mod upgrades;
mod validator;

use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::state::PodRt;
use super::super::text::s;
use crate::Lab;
use crate::guest;
use crate::world::World;

pub use given::{Given, given, is_gpu};
pub(crate) use mig::HOLDER;
pub use operands::run_of;
pub use plugin::{refresh, withdraw};
pub use policy::{node, reconcile};

pub(super) const NS: &str = "gpu-operator";
const POLICY: &str = "clusterpolicies.nvidia.com";
const GPU: &str = "nvidia.com/gpu";
const DRIVER: &str = "nvidia.com/gpu.deploy.driver";
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
            mig::apply(cx, node);
        }
        "nvidia-device-plugin-daemonset" => {
            cx.node_rt(node).plugin = true;
            plugin::offer(cx, node, vmid);
        }
        "gpu-feature-discovery" => plugin::discover(cx, node, vmid),
        "nvidia-mig-manager" => mig::apply(cx, node),
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
    let Some(id) = crate::kube::k3s::membership::of_machine(w, vmid) else { return };
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

const FEATURE: &str = "feature.node.kubernetes.io/";

/// What node feature discovery finds on every machine of the lab, with the operator's configuration of it.
const FEATURES: &[(&str, &str)] = &[
    ("cpu-cpuid.ADX", "true"),
    ("cpu-cpuid.AESNI", "true"),
    ("cpu-cpuid.AVX", "true"),
    ("cpu-cpuid.AVX2", "true"),
    ("cpu-cpuid.FMA3", "true"),
    ("cpu-cpuid.FXSR", "true"),
    ("cpu-cpuid.FXSROPT", "true"),
    ("cpu-cpuid.HYPERVISOR", "true"),
    ("cpu-cpuid.MOVBE", "true"),
    ("cpu-cpuid.OSXSAVE", "true"),
    ("cpu-cpuid.SHA", "true"),
    ("cpu-cpuid.SSE4A", "true"),
    ("cpu-cpuid.VAES", "true"),
    ("cpu-cpuid.VPCLMULQDQ", "true"),
    ("cpu-cpuid.XSAVE", "true"),
    ("cpu-hardware_multithreading", "false"),
    ("cpu-model.family", "25"),
    ("cpu-model.id", "1"),
    ("cpu-model.vendor_id", "AMD"),
    ("pci-1234.present", "true"),
    ("pci-1af4.present", "true"),
    ("storage-nonrotationaldisk", "true"),
    ("system-os_release.ID", "debian"),
    ("system-os_release.VERSION_ID", "12"),
    ("system-os_release.VERSION_ID.major", "12"),
];

/// The features of a machine, by the ends of their labels.
fn found(cx: &Cx, vmid: u32) -> Vec<(String, String)> {
    let kernel = cx.w.guests.get(&vmid).map_or(guest::hw::KERNEL, guest::hw::running_kernel).to_owned();
    let mut out: Vec<(String, String)> = FEATURES.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let numbers = kernel.split(['.', '-']).map(str::to_owned);
    out.extend(["major", "minor", "revision"].iter().zip(numbers).map(|(k, n)| (format!("kernel-version.{k}"), n)));
    out.push(("kernel-version.full".to_owned(), kernel));
    if !guest::gpus(cx.w, vmid).is_empty() {
        out.push(("pci-10de.present".to_owned(), "true".to_owned()));
    }
    out.sort();
    out
}

/// Node feature discovery says what the guest has, whether that is an NVIDIA device, and takes the label back when it
/// has none.
fn features(cx: &mut Cx, node: &str, vmid: u32) {
    let found = found(cx, vmid);
    let labels: Vec<(String, &str)> = found.iter().map(|(k, v)| (format!("{FEATURE}{k}"), v.as_str())).collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    label(cx, node, &labels);
    let names: Vec<&str> = found.iter().map(|(k, _)| k.as_str()).collect();
    let (note, names) = ("nfd.node.kubernetes.io/feature-labels", names.join(","));
    if cx.get("nodes", "", node).is_some_and(|n| n["metadata"]["annotations"][note] != names.as_str()) {
        cx.update("nodes", "", node, |o| o["metadata"]["annotations"][note] = json!(names));
    }
    if !guest::gpus(cx.w, vmid).is_empty() {
        return;
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
