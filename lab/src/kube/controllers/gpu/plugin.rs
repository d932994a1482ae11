//! What a node offers: whole cards, shared cards, MIG instances; and the labels that say so.
use serde_json::{Value, json};

use super::{GPU, NS, POLICY, label};
use crate::guest;
use crate::kube::cx::Cx;
use crate::kube::objects::parse_yaml;
use crate::kube::text::s;

/// The sharing that the device plugin's configuration asks for: how, and how many per card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharing {
    /// `timeSlicing` or `mps`.
    pub mode: &'static str,
    /// Replicas of each card.
    pub replicas: usize,
}

fn config_text(cx: &Cx) -> Option<Result<String, String>> {
    let policy = cx.list(POLICY).first().map(|p| (*p).clone())?;
    let config = &policy["spec"]["devicePlugin"]["config"];
    let name = config["name"].as_str().filter(|n| !n.is_empty())?;
    let map = cx.get("configmaps", NS, name)?;
    let key = config["default"].as_str().unwrap_or("any");
    Some(match map["data"][key].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("error setting up configuration: config file for '{key}' not found in ConfigMap {name}")),
    })
}

/// Why the device plugin cannot read its configuration.
#[must_use]
pub fn config_error(cx: &Cx) -> Option<String> {
    match config_text(cx)? {
        Err(text) => Some(text),
        Ok(text) => {
            let v = parse_yaml(&text);
            (v["version"] != "v1").then(|| {
                "unable to load config: unable to finalize config: unable to parse config file: unknown version"
                    .to_owned()
            })
        }
    }
}

/// The configured sharing; `None` for whole cards.
#[must_use]
pub fn sharing(cx: &Cx) -> Option<Sharing> {
    let v = parse_yaml(&config_text(cx)?.ok()?);
    ["timeSlicing", "mps"].into_iter().find_map(|mode| {
        let n = v["sharing"][mode]["resources"][0]["replicas"].as_u64()?;
        (n > 1).then_some(Sharing { mode, replicas: usize::try_from(n).unwrap_or(1) })
    })
}

/// Instances of one A100 40GB by MIG profile.
#[must_use]
pub fn instances(profile: &str) -> Option<usize> {
    Some(match profile {
        "1g.5gb" | "1g.10gb" => 7,
        "2g.10gb" | "2g.20gb" => 3,
        "3g.20gb" | "3g.40gb" => 2,
        "4g.20gb" | "4g.40gb" | "7g.40gb" | "7g.80gb" => 1,
        _ => return None,
    })
}

/// Devices of a node: all of them, and those that are healthy.
fn devices(cx: &Cx, vmid: u32) -> (usize, usize) {
    let replicas = sharing(cx).map_or(1, |s| s.replicas);
    let (mut all, mut healthy) = (0, 0);
    for (_, card) in cx.w.cards_of(vmid) {
        let n = match (&card.profile, card.mig) {
            (Some(p), true) => instances(p).unwrap_or(0),
            (None, true) => 0,
            _ => 1,
        } * replicas;
        all += n;
        healthy += if card.xid.is_some() { 0 } else { n };
    }
    (all, healthy)
}

/// The device plugin has registered: the node offers its GPUs.
pub fn offer(cx: &mut Cx, node: &str, vmid: u32) {
    let (all, healthy) = devices(cx, vmid);
    let (all, healthy) = (json!(all.to_string()), json!(healthy.to_string()));
    let same = cx
        .get("nodes", "", node)
        .is_some_and(|n| n["status"]["capacity"][GPU] == all && n["status"]["allocatable"][GPU] == healthy);
    if !same {
        cx.update("nodes", "", node, |o| {
            o["status"]["capacity"][GPU] = all;
            o["status"]["allocatable"][GPU] = healthy;
        });
    }
}

/// The node's devices are gone with its plugin or its guest.
pub fn withdraw(cx: &mut Cx, node: &str) {
    let offers = cx.get("nodes", "", node).is_some_and(|n| {
        let a = &n["status"]["allocatable"][GPU];
        !a.is_null() && *a != "0"
    });
    if offers {
        cx.update("nodes", "", node, |o| o["status"]["allocatable"][GPU] = json!("0"));
    }
}

/// GPU feature discovery labels the node.
pub fn discover(cx: &mut Cx, node: &str, vmid: u32) {
    let gpus = guest::gpus(cx.w, vmid);
    let Some(first) = gpus.first() else { return };
    let (product, memory) = match first.device.trim_start_matches("0x") {
        "20f1" => ("NVIDIA-A100-PCIE-40GB", "40960"),
        "20b5" => ("NVIDIA-A100-80GB-PCIe", "81920"),
        _ => ("NVIDIA-GPU", "16384"),
    };
    let share = sharing(cx);
    let card = cx.w.cards_of(vmid).into_iter().map(|(_, c)| c).next().unwrap_or_default();
    let mut name = product.to_owned();
    let mut count = gpus.len();
    if let Some(profile) = card.profile.as_ref().filter(|_| card.mig) {
        name = format!("{product}-MIG-{profile}");
        count *= instances(profile).unwrap_or(1);
    }
    if share.is_some() {
        name.push_str("-SHARED");
    }
    let replicas = share.as_ref().map_or(1, |s| s.replicas).to_string();
    let strategy = match share.as_ref().map(|s| s.mode) {
        Some("timeSlicing") => "time-slicing",
        Some(_) => "mps",
        None => "none",
    };
    let driver = cx.c.nodes.get(node).and_then(|n| n.driver.clone()).unwrap_or_default();
    let count = count.to_string();
    let mut parts = driver.splitn(3, '.');
    let (major, minor, rev) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (cuda, cuda_minor) = crate::smi::CUDA.split_once('.').unwrap_or((crate::smi::CUDA, "0"));
    let mps = if strategy == "mps" { "true" } else { "false" };
    stamped(
        cx,
        node,
        &[
            ("nvidia.com/cuda.driver.major", major),
            ("nvidia.com/cuda.driver.minor", minor),
            ("nvidia.com/cuda.driver.rev", rev),
            ("nvidia.com/cuda.driver-version.major", major),
            ("nvidia.com/cuda.driver-version.minor", minor),
            ("nvidia.com/cuda.driver-version.revision", rev),
            ("nvidia.com/cuda.runtime.major", cuda),
            ("nvidia.com/cuda.runtime.minor", cuda_minor),
            ("nvidia.com/cuda.runtime-version.major", cuda),
            ("nvidia.com/cuda.runtime-version.minor", cuda_minor),
            ("nvidia.com/cuda.runtime-version.full", crate::smi::CUDA),
            ("nvidia.com/gpu.machine", "Standard-PC-Q35-ICH9-2009"),
            ("nvidia.com/gpu.mode", "compute"),
            ("nvidia.com/mps.capable", mps),
            ("nvidia.com/gpu.count", &count),
            ("nvidia.com/gpu.product", &name),
            ("nvidia.com/gpu.memory", memory),
            ("nvidia.com/gpu.family", "ampere"),
            ("nvidia.com/gpu.replicas", &replicas),
            ("nvidia.com/gpu.sharing-strategy", strategy),
            ("nvidia.com/gpu.compute.major", "8"),
            ("nvidia.com/gpu.compute.minor", "0"),
            ("nvidia.com/cuda.driver-version.full", &driver),
            ("nvidia.com/mig.capable", "true"),
            ("nvidia.com/mig.strategy", "single"),
        ],
    );
}

/// Labels of feature discovery, with the time when one of them changed last.
fn stamped(cx: &mut Cx, node: &str, labels: &[(&str, &str)]) {
    const AT: &str = "nvidia.com/gfd.timestamp";
    let known = cx.get("nodes", "", node).is_some_and(|n| {
        let l = &n["metadata"]["labels"];
        !l[AT].is_null() && labels.iter().all(|(k, v)| l[*k] == *v)
    });
    if !known {
        let now = (cx.now() / 1000).to_string();
        let mut all = labels.to_vec();
        all.push((AT, now.as_str()));
        label(cx, node, &all);
    }
}

/// The MIG manager follows the label `nvidia.com/mig.config` of its node.
pub fn mig(cx: &mut Cx, node: &str) {
    let Some(n) = cx.get("nodes", "", node).cloned() else { return };
    let labels = &n["metadata"]["labels"];
    let Some(wanted) = labels["nvidia.com/mig.config"].as_str().map(str::to_owned) else { return };
    let vmid = cx.c.nodes.get(node).map_or(0, |n| n.vmid);
    let ready = cx.c.nodes.get(node).is_some_and(|n| n.driver.is_some() && n.toolkit);
    if !ready || cx.w.cards_of(vmid).is_empty() {
        return;
    }
    let profile = wanted.strip_prefix("all-").filter(|p| instances(p).is_some()).map(str::to_owned);
    let on = match (wanted.as_str(), &profile) {
        ("all-disabled", _) => false,
        (_, Some(_)) => true,
        // a name that the manager's configuration does not have
        _ => return set_state(cx, node, s(&n, "/metadata/labels/nvidia.com~1mig.config.state"), "failed"),
    };
    cx.w.change_cards_of(vmid, |c| c.mig_next = on);
    let applied = cx.w.cards_of(vmid).iter().all(|(_, c)| c.mig == on);
    if applied {
        cx.w.change_cards_of(vmid, |c| c.profile = profile.clone());
    }
    let state = if applied { "success" } else { "failed" };
    set_state(cx, node, s(&n, "/metadata/labels/nvidia.com~1mig.config.state"), state);
    if cx.c.nodes.get(node).is_some_and(|n| n.plugin) {
        offer(cx, node, vmid);
        discover(cx, node, vmid);
    }
}

fn set_state(cx: &mut Cx, node: &str, was: &str, state: &str) {
    if was != state {
        label(cx, node, &[("nvidia.com/mig.config.state", state)]);
    }
}

/// Every node that offers GPUs looks again at what it has: the configuration or a card changed.
pub fn refresh(cx: &mut Cx) {
    let offering: Vec<(String, u32)> =
        cx.c.nodes.iter().filter(|(_, n)| n.plugin && n.posting).map(|(k, n)| (k.clone(), n.vmid)).collect();
    for (node, vmid) in offering {
        offer(cx, &node, vmid);
        discover(cx, &node, vmid);
    }
}

/// Whether the label of a node says that the manager should act.
#[must_use]
pub fn wants_mig(node: &Value) -> bool {
    node["metadata"]["labels"]["nvidia.com/mig.config"].is_string()
}
