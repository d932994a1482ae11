//! A node whose disk is full: condition, taint, evicted pods, and how it recovers. Grade: docs (node-pressure eviction;
//! texts of pkg/kubelet: eviction, images, nodestatus; K3s starts its kubelets with
//! `eviction-hard=imagefs.available<5%,nodefs.available<5%`, which leaves no threshold for memory). Pods of DaemonSets stay:
//! which pods are ranked first by what they use is an estimate.
use serde_json::Value;

use super::super::cx::{Cx, is_true, set_condition};
use super::super::text::{arr, s};
use super::{containers, pods, taints};

/// How often the kubelet looks at its thresholds.
const EVERY_MS: u64 = 10_000;
/// How long the condition stays after the pressure is over (`evictionPressureTransitionPeriod`).
const TRANSITION_MS: u64 = 300_000;
/// Pods of this priority and above are critical: they are not evicted.
const CRITICAL: i64 = 2_000_000_000;

/// Size of a node's system disk and what is free of it.
fn disk(cx: &Cx, node: &str) -> Option<(u64, u64)> {
    let vmid = cx.c.nodes.get(node)?.vmid;
    let g = cx.w.guests.get(&vmid)?;
    let size = g.spec.disks.first()?.size;
    let used = crate::guest::SYSTEM_BYTES + g.facts.large.values().sum::<u64>();
    Some((size, size.saturating_sub(used)))
}

/// The kubelet looks at its disk, and again while something is wrong with it.
pub fn look(cx: &mut Cx, name: &str) {
    let Some(rt) = cx.c.nodes.get(name).filter(|n| n.posting) else { return };
    let seen_ms = rt.pressed_ms;
    let (Some((size, free)), Some(node)) = (disk(cx, name), cx.get("nodes", "", name).cloned()) else { return };
    let (is_short, now) = (free < size / 20, cx.now());
    if is_short {
        cx.node_rt(name).pressed_ms = now;
        if !is_true(&node, "DiskPressure") {
            begin(cx, name, &node, size, free);
        }
        evict(cx, name, size, free);
    } else if !is_true(&node, "DiskPressure") {
        return;
    } else if now >= seen_ms + TRANSITION_MS {
        return say(cx, name, &node, false);
    }
    cx.look_within(EVERY_MS, ("nodes", "", name));
}

/// Sets the condition, with its event and its taint.
fn say(cx: &mut Cx, name: &str, node: &Value, on: bool) {
    let stamp = cx.stamp();
    let (status, reason, text, event) = match on {
        true => ("True", "KubeletHasDiskPressure", "kubelet has disk pressure", "NodeHasDiskPressure"),
        false => ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure", "NodeHasNoDiskPressure"),
    };
    cx.update("nodes", "", name, |n| set_condition(n, &stamp, "DiskPressure", status, reason, text));
    cx.event(node, true, event, &format!("Node {name} status is now: {event}"), "kubelet");
    taints::node(cx, name);
}

/// Images are collected first, which does not help when something else fills the disk.
fn begin(cx: &mut Cx, name: &str, node: &Value, size: u64, free: u64) {
    say(cx, name, node, true);
    cx.event(node, false, "EvictionThresholdMet", "Attempting to reclaim ephemeral-storage", "kubelet");
    let percent = 100 - free * 100 / size.max(1);
    let gib = size as f64 / f64::from(1 << 30);
    let text = format!(
        "Insufficient free disk space on the node's image filesystem ({percent}% of {gib:.1} GiB used). Failed to free \
         sufficient space by deleting unused images (freed 0 bytes). Investigate disk usage, as it could be used by active \
         images, logs, volumes, or other data."
    );
    cx.event(node, false, "FreeDiskSpaceFailed", &text, "kubelet");
}

/// One pod goes at each look.
fn evict(cx: &mut Cx, name: &str, size: u64, free: u64) {
    let goes = |p: &&Value| {
        s(p, "/spec/nodeName") == name
            && pods::is_active(p)
            && p["spec"]["priority"].as_i64().unwrap_or_default() < CRITICAL
            && !arr(p, "/metadata/ownerReferences").iter().any(|o| s(o, "/kind") == "DaemonSet")
    };
    let rank = |p: &&Value| p["spec"]["priority"].as_i64().unwrap_or_default();
    let Some(pod) = cx.list("pods").into_iter().filter(goes).min_by_key(rank).cloned() else { return };
    let text = format!(
        "The node was low on resource: ephemeral-storage. Threshold quantity: {}, available: {}Ki. ",
        size / 20,
        free >> 10
    );
    containers::end_pod(cx, &pod, false, "Evicted", &text);
    let stamp = cx.stamp();
    cx.update("pods", s(&pod, "/metadata/namespace"), s(&pod, "/metadata/name"), |p| {
        pods::disrupted(p, &stamp, "TerminationByKubelet", &text);
    });
}
