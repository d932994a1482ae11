//! What a node offers: whole cards, shared cards, MIG instances; and the labels that say so.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{GPU, NS, POLICY, label, mig};
use crate::card::Card;
use crate::kube::cx::Cx;
use crate::kube::objects::parse_yaml;
use crate::spec::PciSpec;

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

/// How instances are named: `single`, `mixed` or `none`.
pub(super) fn strategy(cx: &Cx) -> String {
    let policy = cx.list(POLICY).first().map(|p| (*p).clone()).unwrap_or_default();
    policy["spec"]["mig"]["strategy"].as_str().filter(|s| !s.is_empty()).unwrap_or("single").to_owned()
}

/// Devices of a node by resource: all of them, and those that are healthy.
fn devices(cx: &Cx, vmid: u32) -> BTreeMap<String, (usize, usize)> {
    let replicas = sharing(cx).map_or(1, |s| s.replicas);
    let strategy = strategy(cx);
    let mut out: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (p, card) in cx.w.cards_of(vmid) {
        for (resource, n) in mig::offers(&strategy, &p, &card) {
            let n = if resource == GPU { n * replicas } else { n };
            let (all, healthy) = out.entry(resource).or_default();
            *all += n;
            *healthy += if card.xid.is_some() { 0 } else { n };
        }
    }
    out
}

/// The device plugin has registered: the node offers its GPUs. What an earlier plugin offered stays with nothing left.
pub fn offer(cx: &mut Cx, node: &str, vmid: u32) {
    let Some(status) = cx.get("nodes", "", node).map(|n| n["status"].clone()) else { return };
    let mut want = devices(cx, vmid);
    for gone in resources(&status["capacity"]) {
        want.entry(gone).or_default();
    }
    let same = want.iter().all(|(r, (all, healthy))| {
        status["capacity"][r] == all.to_string().as_str() && status["allocatable"][r] == healthy.to_string().as_str()
    });
    if !same {
        cx.update("nodes", "", node, |o| {
            for (r, (all, healthy)) in &want {
                o["status"]["capacity"][r] = json!(all.to_string());
                o["status"]["allocatable"][r] = json!(healthy.to_string());
            }
        });
    }
}

/// NVIDIA's resources among these.
fn resources(amounts: &Value) -> Vec<String> {
    amounts.as_object().into_iter().flatten().map(|(k, _)| k.clone()).filter(|k| k.starts_with("nvidia.com/")).collect()
}

/// The node's devices are gone with its plugin or its guest.
pub fn withdraw(cx: &mut Cx, node: &str) {
    let Some(allocatable) = cx.get("nodes", "", node).map(|n| n["status"]["allocatable"].clone()) else { return };
    let offered: Vec<String> = resources(&allocatable).into_iter().filter(|r| allocatable[r] != "0").collect();
    if !offered.is_empty() {
        cx.update("nodes", "", node, |o| {
            for r in &offered {
                o["status"]["allocatable"][r] = json!("0");
            }
        });
    }
}

/// GPU feature discovery labels the node; labels of instances that are no more go.
pub fn discover(cx: &mut Cx, node: &str, vmid: u32) {
    let cards = cx.w.cards_of(vmid);
    let Some((first, _)) = cards.first() else { return };
    let (product, memory) = match first.device.trim_start_matches("0x") {
        "20f1" => ("NVIDIA-A100-PCIE-40GB", 40_960),
        "20b5" => ("NVIDIA-A100-80GB-PCIe", 81_920),
        _ => ("NVIDIA-GPU", 16_384),
    };
    let strategy = strategy(cx);
    let share = sharing(cx);
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |k: &str, v: &str| drop(labels.insert(format!("nvidia.com/{k}"), v.to_owned()));
    // cards that are cut are not shared as wholes
    let whole = strategy == "none" || cards.iter().any(|(_, c)| !c.mig);
    resource(&mut put, "gpu", product, cards.len(), memory, share.as_ref().filter(|_| whole));
    let cut = instances(&cards);
    match strategy.as_str() {
        "single" if mig::invalid(&strategy, &cards).is_some() => {
            let share = Sharing { mode: "", replicas: 0 };
            resource(&mut put, "gpu", &format!("{product}-MIG-INVALID"), 0, 0, Some(&share));
        }
        "single" => {
            for (profile, n) in &cut {
                let product = format!("{product}-MIG-{profile}");
                resource(&mut put, "gpu", &product, *n, mig::memory(profile), share.as_ref());
            }
        }
        "mixed" => {
            for (profile, n) in &cut {
                let product = format!("{product}-MIG-{profile}");
                resource(&mut put, &format!("mig-{profile}"), &product, *n, mig::memory(profile), None);
                let slices = profile.split('g').next().unwrap_or_default();
                put(&format!("mig-{profile}.slices.gi"), slices);
                put(&format!("mig-{profile}.slices.ci"), slices);
            }
        }
        _ => {}
    }
    if strategy != "none" {
        put("mig.strategy", &strategy);
    }
    let driver = cx.c.nodes.get(node).and_then(|n| n.driver.clone()).unwrap_or_default();
    let mut parts = driver.splitn(3, '.');
    let (major, minor, rev) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (cuda, cuda_minor) = crate::smi::CUDA.split_once('.').unwrap_or((crate::smi::CUDA, "0"));
    let mps = if share.as_ref().is_some_and(|s| s.mode == "mps") { "true" } else { "false" };
    for (k, v) in [
        ("cuda.driver.major", major),
        ("cuda.driver.minor", minor),
        ("cuda.driver.rev", rev),
        ("cuda.driver-version.major", major),
        ("cuda.driver-version.minor", minor),
        ("cuda.driver-version.revision", rev),
        ("cuda.driver-version.full", driver.as_str()),
        ("cuda.runtime.major", cuda),
        ("cuda.runtime.minor", cuda_minor),
        ("cuda.runtime-version.major", cuda),
        ("cuda.runtime-version.minor", cuda_minor),
        ("cuda.runtime-version.full", crate::smi::CUDA),
        ("gpu.machine", "Standard-PC-Q35-ICH9-2009"),
        ("gpu.mode", "compute"),
        ("gpu.family", "ampere"),
        ("gpu.compute.major", "8"),
        ("gpu.compute.minor", "0"),
        ("mps.capable", mps),
        ("mig.capable", "true"),
    ] {
        put(k, v);
    }
    let own = |k: &str| k.starts_with("nvidia.com/mig-") || k == "nvidia.com/mig.strategy";
    let stale = |k: &str| own(k) && !labels.contains_key(k);
    let old = cx.get("nodes", "", node).map(|n| n["metadata"]["labels"].clone()).unwrap_or_default();
    if old.as_object().into_iter().flatten().any(|(k, _)| stale(k)) {
        cx.update("nodes", "", node, |o| {
            if let Some(l) = o["metadata"]["labels"].as_object_mut() {
                l.retain(|k, _| !stale(k));
            }
        });
    }
    let pairs: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    stamped(cx, node, &pairs);
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

/// Instances of all cards by profile.
fn instances(cards: &[(PciSpec, Card)]) -> BTreeMap<&'static str, usize> {
    let mut out = BTreeMap::new();
    for (profile, n) in cards.iter().flat_map(|(p, c)| mig::instances(p, c)) {
        *out.entry(profile).or_default() += n;
    }
    out
}

/// The labels of one resource.
fn resource(
    put: &mut impl FnMut(&str, &str),
    name: &str,
    product: &str,
    count: usize,
    memory: u32,
    share: Option<&Sharing>,
) {
    let (suffix, how) = match share.map(|s| s.mode) {
        Some("timeSlicing") => ("-SHARED", "time-slicing"),
        Some("mps") => ("-SHARED", "mps"),
        _ => ("", "none"),
    };
    put(&format!("{name}.product"), &format!("{product}{suffix}"));
    put(&format!("{name}.count"), &count.to_string());
    put(&format!("{name}.memory"), &memory.to_string());
    put(&format!("{name}.replicas"), &share.map_or(1, |s| s.replicas).to_string());
    put(&format!("{name}.sharing-strategy"), how);
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
