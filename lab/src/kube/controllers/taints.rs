//! Taints that follow from how a node is: cordoned, not ready, short of something. Grade: source (the controller of nodes'
//! lives).
use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::text::{arr, s};

/// Condition of a node, its status, the taint that stands for it.
const CONDITIONS: &[(&str, &str, &str)] = &[
    ("Ready", "False", "node.kubernetes.io/not-ready"),
    ("Ready", "Unknown", "node.kubernetes.io/unreachable"),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// Taint of a node that takes nothing new.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

fn is_ours(key: &str) -> bool {
    key == CORDONED || CONDITIONS.iter().any(|c| c.2 == key)
}

/// Keys of the taints that a node should have.
fn due(node: &Value) -> Vec<&'static str> {
    let conditions = arr(node, "/status/conditions").iter();
    let of = |c: &Value| CONDITIONS.iter().find(|r| c["type"] == r.0 && c["status"] == r.1).map(|r| r.2);
    let mut out: Vec<&str> = conditions.filter_map(of).collect();
    if node["spec"]["unschedulable"] == true {
        out.push(CORDONED);
    }
    out
}

/// Gives a node the taints that it should have, and takes away those that it should not.
pub fn node(cx: &mut Cx, name: &str) {
    let Some(n) = cx.get("nodes", "", name) else { return };
    let due = due(n);
    let held = |t: &Value| t["effect"] == "NoSchedule" && is_ours(s(t, "/key"));
    let had: Vec<&str> = arr(n, "/spec/taints").iter().filter(|t| held(t)).map(|t| s(t, "/key")).collect();
    let more: Vec<&str> = due.iter().copied().filter(|k| !had.contains(k)).collect();
    if more.is_empty() && had.iter().all(|k| due.contains(k)) {
        return;
    }
    let stamp = cx.stamp();
    cx.update("nodes", "", name, |n| {
        let mut all = arr(n, "/spec/taints").to_vec();
        all.extend(more.iter().map(|k| json!({"key": k, "effect": "NoSchedule", "timeAdded": stamp})));
        all.retain(|t| !held(t) || due.contains(&s(t, "/key")));
        match n["spec"].as_object_mut() {
            Some(spec) if all.is_empty() => drop(spec.shift_remove("taints")),
            Some(spec) => drop(spec.insert("taints".into(), all.into())),
            None => {}
        }
    });
}
