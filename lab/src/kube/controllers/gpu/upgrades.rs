//! The operator's upgrade of its driver, one node after another: cordon, end of the pods that hold cards, the new driver's
//! pod, validation, uncordon. How far a node is, is a label of it. Grade: source (upgrade package of k8s-operator-libs).
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::deployments::share;
use super::super::{pods, revisions};
use super::{NS, given};
use crate::kube::cx::{Cx, is_true, key};
use crate::kube::text::{arr, s};

const DRIVER_SET: &str = "nvidia-driver-daemonset";
const STATE: &str = "nvidia.com/gpu-driver-upgrade-state";
const SKIP: &str = "nvidia.com/gpu-driver-upgrade.skip";
/// Set on a node that was cordoned before its upgrade: it stays so.
const WAS_CORDONED: &str = "nvidia.com/gpu-driver-upgrade.node-initial-state.unschedulable";
const VALIDATED_SINCE: &str = "nvidia.com/gpu-driver-upgrade-validation-start-time";
/// Seconds that the validator has for its proof.
const VALIDATION: u64 = 600;
/// Restarts after which the new driver's pod counts as failed.
const RESTARTS: i64 = 10;

const REQUIRED: &str = "upgrade-required";
const DONE: &str = "upgrade-done";
const FAILED: &str = "upgrade-failed";
const JOBS: &str = "wait-for-jobs-required";
const PODS: &str = "pod-deletion-required";
const DRAIN: &str = "drain-required";

/// A node with a pod of the driver.
struct Managed {
    node: String,
    /// Name of the pod.
    pod: String,
    /// The pod is of the set's newest revision.
    synced: bool,
    leaves: bool,
}

fn state_of(cx: &Cx, node: &str) -> String {
    cx.get("nodes", "", node).map(|n| s(&n["metadata"]["labels"], &pointer(STATE)).to_owned()).unwrap_or_default()
}

fn pointer(name: &str) -> String {
    format!("/{}", name.replace('/', "~1"))
}

/// Nodes with the driver's pods; of two pods that which stays.
fn managed(cx: &Cx, set: &Value) -> Vec<Managed> {
    let hash = revisions::hash(cx, set);
    let mut by_node: BTreeMap<&str, Managed> = BTreeMap::new();
    for p in pods::owned(cx, NS, s(set, "/metadata/uid")) {
        let node = s(p, "/spec/nodeName");
        let leaves = !p["metadata"]["deletionTimestamp"].is_null();
        if cx.get("nodes", "", node).is_none() || leaves && by_node.contains_key(node) {
            continue;
        }
        let synced = s(p, "/metadata/labels/controller-revision-hash") == hash;
        let (node, pod) = (s(p, "/spec/nodeName"), s(p, "/metadata/name").to_owned());
        by_node.insert(node, Managed { node: node.to_owned(), pod, synced, leaves });
    }
    by_node.into_values().collect()
}

/// Whether a pod of the driver is still of an older revision.
pub(super) fn is_behind(cx: &Cx) -> bool {
    let Some(set) = cx.get("daemonsets.apps", NS, DRIVER_SET).cloned() else { return false };
    managed(cx, &set).iter().any(|m| !m.synced)
}

/// Takes every node as far as it comes.
pub(super) fn step(cx: &mut Cx, policy: &Value) {
    let rules = &policy["spec"]["driver"]["upgradePolicy"];
    let set = cx.get("daemonsets.apps", NS, DRIVER_SET).cloned();
    let Some(set) = set.filter(|_| rules["autoUpgrade"] == true) else { return forget(cx) };
    let all = managed(cx, &set);
    let mut free = free(cx, rules, &all);
    for m in &all {
        for _ in 0..10 {
            let state = state_of(cx, &m.node);
            if state == DONE && m.synced {
                break;
            }
            let Some(next) = next(cx, m, &state, rules, &mut free) else {
                // pods that it waits for tell nobody of their end
                if matches!(state.as_str(), JOBS | PODS | DRAIN) {
                    cx.look_within(5000, (super::POLICY, "", ""));
                }
                break;
            };
            enter(cx, &m.node, next);
        }
    }
}

/// Without automatic upgrades no node has a state.
fn forget(cx: &mut Cx) {
    let has = |n: &&Value| !n["metadata"]["labels"][STATE].is_null();
    let all: Vec<String> = cx.list("nodes").into_iter().filter(has).map(|n| key(n).1).collect();
    for node in all {
        change(cx, &node, |n| {
            n["metadata"]["labels"].as_object_mut().map(|l| l.shift_remove(STATE));
        });
    }
}

/// How many nodes may begin now.
fn free(cx: &Cx, rules: &Value, all: &[Managed]) -> i64 {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let busy = all.iter().filter(|m| !matches!(state_of(cx, &m.node).as_str(), "" | DONE | REQUIRED)).count();
    let away = |m: &&Managed| {
        cx.get("nodes", "", &m.node).is_none_or(|n| n["spec"]["unschedulable"] == true || !is_true(n, "Ready"))
    };
    let most = match rules["maxParallelUpgrades"].as_i64().unwrap_or(1) {
        0 => count(all.len()),
        n => n,
    };
    let quarter = json!("25%");
    let bound = if rules["maxUnavailable"].is_null() { &quarter } else { &rules["maxUnavailable"] };
    let spare = share(bound, count(all.len()), true) - count(all.iter().filter(away).count());
    (most - count(busy)).min(spare)
}

/// The state that follows on `state`; `None` while something is waited for.
fn next(cx: &mut Cx, m: &Managed, state: &str, rules: &Value, free: &mut i64) -> Option<&'static str> {
    let node = cx.get("nodes", "", &m.node)?.clone();
    let cordoned = node["spec"]["unschedulable"] == true;
    match state {
        "" | DONE if !m.synced => {
            if cordoned {
                change(cx, &m.node, |n| n["metadata"]["annotations"][WAS_CORDONED] = json!("true"));
            }
            Some(REQUIRED)
        }
        "" => Some(DONE),
        REQUIRED if node["metadata"]["labels"][SKIP] == "true" => None,
        // a node that somebody has cordoned costs nobody anything
        REQUIRED if *free <= 0 && !cordoned => None,
        REQUIRED => {
            *free -= 1;
            Some("cordon-required")
        }
        "cordon-required" => {
            change(cx, &m.node, |n| n["spec"]["unschedulable"] = json!(true));
            Some(JOBS)
        }
        JOBS => {
            let selector = s(rules, "/waitForCompletion/podSelector");
            let jobs = cx.c.store.list("pods", "", selector).into_iter();
            let mut here = jobs.filter(|p| s(p, "/spec/nodeName") == m.node && s(p, "/status/phase") == "Running");
            (selector.is_empty() || here.next().is_none()).then_some(PODS)
        }
        PODS => {
            let drains = rules["drain"]["enable"] == true;
            match clear(cx, &m.node, &rules["podDeletion"], asks) {
                Cleared::Yes => Some("pod-restart-required"),
                Cleared::Waits => None,
                Cleared::Never => Some(if drains { DRAIN } else { FAILED }),
            }
        }
        DRAIN if rules["drain"]["enable"] != true => Some("pod-restart-required"),
        DRAIN => match clear(cx, &m.node, &rules["drain"], |_| true) {
            Cleared::Yes => Some("pod-restart-required"),
            Cleared::Waits => None,
            Cleared::Never => Some(FAILED),
        },
        "pod-restart-required" => restarted(cx, m),
        "validation-required" => validated(cx, m, &node),
        "uncordon-required" => {
            change(cx, &m.node, |n| {
                let kept = n["metadata"]["annotations"].as_object_mut().and_then(|a| a.shift_remove(WAS_CORDONED));
                if kept.is_none()
                    && let Some(spec) = n["spec"].as_object_mut()
                {
                    spec.shift_remove("unschedulable");
                }
            });
            Some(DONE)
        }
        FAILED if m.synced && cx.get("pods", NS, &m.pod).is_some_and(is_whole) => Some("uncordon-required"),
        _ => None,
    }
}

/// The driver's old pod goes; the new one is waited for.
fn restarted(cx: &mut Cx, m: &Managed) -> Option<&'static str> {
    if m.leaves {
        return None;
    }
    if !m.synced {
        cx.delete("pods", NS, &m.pod);
        return None;
    }
    let pod = cx.get("pods", NS, &m.pod)?;
    if pods::is_ready(pod) {
        return Some("validation-required");
    }
    let all = ["/status/initContainerStatuses", "/status/containerStatuses"].into_iter().flat_map(|p| arr(pod, p));
    let mut failing = all.filter(|c| c["ready"] != true && c["restartCount"].as_i64().unwrap_or(0) > RESTARTS);
    failing.next().map(|_| FAILED)
}

/// The validator's pod on the node proves the new driver, for ten minutes at most.
fn validated(cx: &mut Cx, m: &Managed, node: &Value) -> Option<&'static str> {
    let here = |p: &&Value| {
        s(p, "/metadata/labels/app") == "nvidia-operator-validator" && s(p, "/spec/nodeName") == m.node && is_whole(p)
    };
    let since = s(&node["metadata"]["annotations"], &pointer(VALIDATED_SINCE)).parse::<u64>().ok();
    let now = cx.now() / 1000;
    let late = since.is_some_and(|t| now.saturating_sub(t) > VALIDATION);
    let proven = cx.list_in("pods", NS).iter().any(here);
    if proven || late {
        change(cx, &m.node, |n| {
            n["metadata"]["annotations"].as_object_mut().map(|a| a.shift_remove(VALIDATED_SINCE));
        });
        return Some(if proven { "uncordon-required" } else { FAILED });
    }
    if since.is_none() {
        change(cx, &m.node, |n| n["metadata"]["annotations"][VALIDATED_SINCE] = json!(now.to_string()));
        cx.look_within((VALIDATION + 1) * 1000, (super::POLICY, "", ""));
    }
    None
}

/// Ready, and not about to go.
fn is_whole(pod: &Value) -> bool {
    pods::is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null()
}

/// How far a node is rid of pods.
enum Cleared {
    Yes,
    Waits,
    /// Pods are there that may not be ended.
    Never,
}

/// Whether a pod asks for a GPU.
fn asks(pod: &Value) -> bool {
    arr(pod, "/spec/containers").iter().any(|c| given::asked(c) > 0)
}

/// Ends the pods on a node that `which` names, by the rules of `kubectl drain`: daemons stay; one without a controller asks
/// for `force`, one with an emptyDir for `deleteEmptyDir`.
fn clear(cx: &mut Cx, node: &str, rules: &Value, which: impl Fn(&Value) -> bool) -> Cleared {
    let controller = |p: &Value| arr(p, "/metadata/ownerReferences").iter().find(|o| o["controller"] == true).cloned();
    let daemon = |p: &Value| controller(p).is_some_and(|o| s(&o, "/kind") == "DaemonSet");
    let here: Vec<Value> = cx
        .list("pods")
        .into_iter()
        .filter(|p| s(p, "/spec/nodeName") == node && which(p) && !pods::has_ended(p) && !daemon(p))
        .filter(|p| p["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null())
        .cloned()
        .collect();
    let kept = |p: &Value| {
        let empty = arr(p, "/spec/volumes").iter().any(|v| v["emptyDir"].is_object());
        controller(p).is_none() && rules["force"] != true || empty && rules["deleteEmptyDir"] != true
    };
    let (leaving, staying): (Vec<_>, Vec<_>) =
        here.into_iter().partition(|p| !p["metadata"]["deletionTimestamp"].is_null());
    if staying.iter().any(kept) {
        return Cleared::Never;
    }
    let mut waits = !leaving.is_empty();
    for p in staying {
        waits = true;
        // a later look may find that its budget allows it
        if budgeted(cx, &p) {
            continue;
        }
        let (ns, name) = key(&p);
        cx.delete("pods", &ns, &name);
    }
    if waits { Cleared::Waits } else { Cleared::Yes }
}

/// Whether a disruption budget keeps a pod.
fn budgeted(cx: &Cx, pod: &Value) -> bool {
    let ns = s(pod, "/metadata/namespace");
    let covers = |b: &&Value| {
        let all = cx.c.store.select("pods", ns, &b["spec"]["selector"]);
        all.iter().any(|p| p["metadata"]["uid"] == pod["metadata"]["uid"])
    };
    let spent = |b: &Value| b["status"]["disruptionsAllowed"].as_i64().unwrap_or(0) <= 0;
    pods::is_ready(pod) && cx.list_in("poddisruptionbudgets.policy", ns).iter().filter(|b| covers(b)).any(|b| spent(b))
}

fn change(cx: &mut Cx, node: &str, f: impl FnOnce(&mut Value)) {
    cx.writing("gpu-operator", |cx| cx.update("nodes", "", node, f));
}

fn enter(cx: &mut Cx, node: &str, state: &str) {
    change(cx, node, |n| n["metadata"]["labels"][STATE] = json!(state));
    if let Some(n) = cx.get("nodes", "", node).cloned() {
        let text = format!("Successfully updated node state label to {state}");
        cx.event(&n, true, "GPUDriverUpgrade", &text, "nvidia-gpu-operator");
    }
}
