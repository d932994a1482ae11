//! The scheduler: which node a pod fits on, and the words it has when none does.
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::cx::{Cx, key, set_condition};
pub use super::super::store::index::requests;
use super::super::text::{arr, expression, s};
use super::places::Places;
use super::rooms::Hall;
use super::{claims, preempt, scores};
use crate::kube::k3s::node::minor;

const UNLIKE: &str = "node(s) didn't match Pod's node affinity/selector";
const SCHEDULER: &str = "default-scheduler";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Why a pod cannot go to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// What is said of the node.
    pub texts: Vec<String>,
    /// Whether it would not help to take pods away there.
    pub never: bool,
}

impl Why {
    /// Something that no pod less would change.
    #[must_use]
    pub fn never(text: &str) -> Why {
        Why { texts: vec![text.to_owned()], never: true }
    }

    /// Something that may change when pods go.
    #[must_use]
    pub fn may(text: &str) -> Why {
        Why { texts: vec![text.to_owned()], never: false }
    }
}

/// Places every pod that waits for a node, the most important first.
pub fn schedule(cx: &mut Cx) {
    let mut waiting: Vec<Value> = cx.c.store.unplaced().cloned().collect();
    if waiting.is_empty() {
        return;
    }
    waiting.sort_by_key(|p| std::cmp::Reverse(priority(p)));
    let nodes: Vec<Arc<Value>> = cx.c.store.all("nodes", "").cloned().collect();
    let mut hall = Hall::new(&nodes, minor(&cx.c.version));
    for (i, pod) in waiting.iter().enumerate() {
        if !matches!(s(pod, "/spec/schedulerName"), "" | SCHEDULER) {
            continue;
        }
        if !arr(pod, "/spec/schedulingGates").is_empty() {
            gated(cx, pod);
            continue;
        }
        place(cx, pod, &mut hall, i);
    }
}

/// How important a pod is.
#[must_use]
pub fn priority(pod: &Value) -> i64 {
    pod["spec"]["priority"].as_i64().unwrap_or(0)
}

/// A pod whose gates are shut is not looked at.
fn gated(cx: &mut Cx, pod: &Value) {
    let (ns, name) = key(pod);
    let stamp = cx.stamp();
    let text = "Scheduling is blocked due to non-empty scheduling gates";
    cx.update_unnoted("pods", &ns, &name, |p| {
        set_condition(p, &stamp, "PodScheduled", "False", "SchedulingGated", text);
        probed(p, false);
    });
}

/// Conditions of pods say when they were probed, which is never, and those that the scheduler writes itself of which
/// generation they speak.
fn probed(p: &mut Value, own: bool) {
    let generation = p["metadata"]["generation"].clone();
    for c in p["status"]["conditions"].as_array_mut().into_iter().flatten() {
        c["lastProbeTime"] = Value::Null;
        if own && c["type"] == "PodScheduled" {
            c["observedGeneration"] = generation.clone();
        }
    }
}

/// Whether a toleration of `spec` tolerates `taint`.
#[must_use]
pub fn tolerates(spec: &Value, taint: &Value) -> bool {
    arr(spec, "/tolerations").iter().any(|t| {
        let key = s(t, "/key");
        let effect = s(t, "/effect");
        if !effect.is_empty() && effect != s(taint, "/effect") {
            return false;
        }
        if s(t, "/operator") == "Exists" {
            return key.is_empty() || key == s(taint, "/key");
        }
        key == s(taint, "/key") && s(t, "/value") == s(taint, "/value")
    })
}

/// Whether a pod of this spec wants a node of these labels and this name.
#[must_use]
pub fn likes(spec: &Value, node: &Value) -> bool {
    let name = s(node, "/metadata/name");
    let labels = &node["metadata"]["labels"];
    let selected = spec["nodeSelector"].as_object().is_none_or(|m| m.iter().all(|(k, v)| labels.get(k) == Some(v)));
    let terms = arr(spec, "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
    let affine = terms.is_empty()
        || terms.iter().any(|t| {
            let (labelled, fields) = (arr(t, "/matchExpressions"), arr(t, "/matchFields"));
            // a term without conditions takes nothing
            !(labelled.is_empty() && fields.is_empty())
                && labelled.iter().all(|e| expression(e, |k| labels.get(k).and_then(Value::as_str)))
                && fields.iter().all(|e| expression(e, |_| Some(name)))
        });
    selected && affine
}

/// Why a pod of this spec can never run on the node as it is, in the words of the minor version; `None` when it may.
#[must_use]
pub fn fits_node(spec: &Value, node: &Value, minor: u32) -> Option<Why> {
    let cordon = json!({"key": UNSCHEDULABLE, "effect": "NoSchedule"});
    if node["spec"]["unschedulable"] == true && !tolerates(spec, &cordon) {
        return Some(Why::never("node(s) were unschedulable"));
    }
    for taint in arr(node, "/spec/taints") {
        if matches!(s(taint, "/effect"), "NoSchedule" | "NoExecute") && !tolerates(spec, taint) {
            // 1.35 no longer names it
            return Some(Why::never(&match minor {
                35.. => "node(s) had untolerated taint(s)".to_owned(),
                _ => format!("node(s) had untolerated taint {{{}: {}}}", s(taint, "/key"), s(taint, "/value")),
            }));
        }
    }
    (!likes(spec, node)).then(|| Why::never(UNLIKE))
}

/// Feasible nodes that are enough to choose from, as the real scheduler stops looking in large clusters.
const ENOUGH: usize = 100;

/// The only node a daemon pod is meant for.
fn meant_for(pod: &Value) -> Option<&str> {
    let at = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    match arr(pod, at) {
        [term] => match arr(term, "/matchFields") {
            [f] if s(f, "/key") == "metadata.name" && s(f, "/operator") == "In" => match arr(f, "/values") {
                [one] => one.as_str(),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn place(cx: &mut Cx, pod: &Value, hall: &mut Hall, turn: usize) {
    let total = hall.nodes.len();
    let volumes = match claims::wanted_by(cx, pod) {
        Ok(v) => v,
        Err(text) => {
            let end = match minor(&cx.c.version) {
                // the plugin of resource claims has nothing to say, and says so
                34 | 35 => "not found".to_owned(),
                _ => format!(
                    "preemption: 0/{total} nodes are available: {total} Preemption is not helpful for scheduling."
                ),
            };
            return unschedulable(cx, pod, &format!("0/{total} nodes are available: {text}. {end}"));
        }
    };
    let wants = requests(pod);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut failed: Vec<(usize, Why)> = Vec::new();
    let mut fit: Vec<usize> = Vec::new();
    let only = meant_for(pod);
    let places = Places::of(cx, pod, hall.nodes, &|n: &str| hall.named(n));
    // Small clusters are looked at from their first node; in large ones every pod begins elsewhere.
    let (start, count) = match only {
        Some(name) => hall.named(name).map_or((0, 0), |i| (i, 1)),
        None => (if total > ENOUGH { turn * ENOUGH % total } else { 0 }, total),
    };
    if only.is_none() {
        hall.judge_for(pod);
    } else if total > count {
        reasons.insert(UNLIKE.to_owned(), total - count);
    }
    for i in (start..start + count).map(|i| i % total) {
        let node = &hall.nodes[i];
        let why = if only.is_some() {
            fits_node(&pod["spec"], node, minor(&cx.c.version))
        } else {
            hall.verdict(&pod["spec"], i)
        };
        let why = why
            .or_else(|| places.as_ref()?.port(node))
            .or_else(|| hall.room(cx, i).lacks(&wants))
            .or_else(|| claims::keeps_away(cx, &volumes, node).map(|text| Why::never(&text)))
            .or_else(|| places.as_ref()?.company(node));
        if let Some(why) = why {
            why.texts.iter().for_each(|t| *reasons.entry(t.clone()).or_default() += 1);
            failed.push((i, why));
            continue;
        }
        fit.push(i);
        if fit.len() >= ENOUGH {
            break;
        }
    }
    let Some(chosen) = scores::best(cx, pod, &wants, hall, &fit) else {
        if preempt::waits(cx, pod) {
            return;
        }
        let end = preempt::make_room(cx, pod, &wants, hall, &failed);
        let text = no_node(total, &reasons, &end);
        return unschedulable(cx, pod, &text);
    };
    let node = s(&hall.nodes[chosen], "/metadata/name").to_owned();
    if claims::await_binding(cx, &volumes, &node) {
        return;
    }
    hall.placed(cx, pod, chosen, &wants);
    bind(cx, pod, &node);
}

fn no_node(total: usize, reasons: &BTreeMap<String, usize>, end: &str) -> String {
    let mut list: Vec<String> = reasons.iter().map(|(text, n)| format!("{n} {text}")).collect();
    list.sort();
    if total == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    format!("0/{total} nodes are available: {}. {end}", list.join(", ")).trim_end().to_owned()
}

fn unschedulable(cx: &mut Cx, pod: &Value, text: &str) {
    let (ns, name) = key(pod);
    let stamp = cx.stamp();
    let known = arr(pod, "/status/conditions").iter().any(|c| c["type"] == "PodScheduled" && c["message"] == text);
    if known {
        return;
    }
    cx.update("pods", &ns, &name, |p| {
        set_condition(p, &stamp, "PodScheduled", "False", "Unschedulable", text);
        probed(p, true);
    });
    tell(cx, pod, None, ("Warning", "FailedScheduling", "Scheduling"), text);
}

fn bind(cx: &mut Cx, pod: &Value, node: &str) {
    let (ns, name) = key(pod);
    let stamp = cx.stamp();
    let clears = minor(&cx.c.version) >= 35;
    // The API server binds: nobody manages what it writes then.
    cx.update_unnoted("pods", &ns, &name, |p| {
        p["spec"]["nodeName"] = json!(node);
        set_condition(p, &stamp, "PodScheduled", "True", "", "");
        probed(p, false);
        if let Some(m) = p["status"].as_object_mut().filter(|_| clears) {
            m.shift_remove("nominatedNodeName");
        }
    });
    let text = format!("Successfully assigned {ns}/{name} to {node}");
    tell(cx, pod, None, ("Normal", "Scheduled", "Binding"), &text);
}

/// What the scheduler says of a pod; it runs beside the API server that leads.
pub(super) fn tell(cx: &mut Cx, pod: &Value, other: Option<&Value>, what: (&str, &str, &str), text: &str) {
    let host = cx.c.members.values().next().map(|m| m.node.clone()).unwrap_or_default();
    cx.c.store.event_of(pod, other, what, text, (SCHEDULER, &format!("{SCHEDULER}-{host}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_equal_toleration_does_not_tolerate_k3s_value() {
        let taint = json!({"key": "node-role.kubernetes.io/control-plane", "value": "true", "effect": "NoSchedule"});
        let equal = json!({"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Equal", "value": ""}]});
        let exists = json!({"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]});
        assert!(!tolerates(&equal, &taint));
        assert!(tolerates(&exists, &taint));
        let node = json!({"metadata": {"name": "a", "labels": {}}, "spec": {"taints": [taint]}});
        assert_eq!(
            fits_node(&equal, &node, 34).unwrap().texts,
            ["node(s) had untolerated taint {node-role.kubernetes.io/control-plane: true}"]
        );
        assert_eq!(fits_node(&equal, &node, 35).unwrap().texts, ["node(s) had untolerated taint(s)"]);
        assert_eq!(fits_node(&exists, &node, 34), None);
    }
}
