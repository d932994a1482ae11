//! The scheduler: which node a pod fits on, and the words it has when none does.
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::cx::{Cx, key, set_condition};
pub use super::super::store::index::requests;
use super::super::text::{arr, expression, s};
use super::rooms::Hall;
use super::{claims, pods};

const UNLIKE: &str = "node(s) didn't match Pod's node affinity/selector";

/// Places every pod that waits for a node.
pub fn schedule(cx: &mut Cx) {
    let waiting: Vec<Value> = cx.c.store.unplaced().cloned().collect();
    if waiting.is_empty() {
        return;
    }
    let nodes: Vec<Arc<Value>> = cx.c.store.all("nodes", "").cloned().collect();
    let mut hall = Hall::new(&nodes);
    for (i, pod) in waiting.iter().enumerate() {
        place(cx, pod, &mut hall, i);
    }
}

/// Number of a resource that a pod requests.
#[must_use]
pub fn requested(pod: &Value, resource: &str) -> i64 {
    requests(pod).get(resource).copied().unwrap_or(0) / 1000
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

/// Why a pod of this spec can never run on the node as it is; `None` when it may.
#[must_use]
pub fn fits_node(spec: &Value, node: &Value) -> Option<String> {
    let name = s(node, "/metadata/name");
    let labels = &node["metadata"]["labels"];
    let selected = spec["nodeSelector"].as_object().is_none_or(|m| m.iter().all(|(k, v)| labels.get(k) == Some(v)));
    let terms = arr(spec, "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
    let affine = terms.is_empty()
        || terms.iter().any(|t| {
            arr(t, "/matchExpressions").iter().all(|e| expression(e, |k| labels.get(k).and_then(Value::as_str)))
                && arr(t, "/matchFields").iter().all(|e| expression(e, |_| Some(name)))
        });
    if !selected || !affine {
        return Some(UNLIKE.to_owned());
    }
    for taint in arr(node, "/spec/taints") {
        if matches!(s(taint, "/effect"), "NoSchedule" | "NoExecute") && !tolerates(spec, taint) {
            if s(taint, "/key") == "node.kubernetes.io/unschedulable" {
                return Some("node(s) were unschedulable".to_owned());
            }
            return Some(format!("node(s) had untolerated taint {{{}: {}}}", s(taint, "/key"), s(taint, "/value")));
        }
    }
    if node["spec"]["unschedulable"] == true
        && !tolerates(spec, &json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}))
    {
        return Some("node(s) were unschedulable".to_owned());
    }
    None
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
        Err(text) => return unschedulable(cx, pod, &format!("0/{total} nodes are available: {text}.")),
    };
    let wants = requests(pod);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(i64, usize)> = None;
    let mut fitting = 0;
    let only = meant_for(pod);
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
        let why = if only.is_some() { fits_node(&pod["spec"], node) } else { hall.verdict(&pod["spec"], i) };
        let why = why
            .or_else(|| repelled(cx, pod, node))
            .or_else(|| claims::keeps_away(cx, &volumes, node))
            .or_else(|| hall.room(cx, i).lacks(&wants));
        if let Some(text) = why {
            *reasons.entry(text).or_default() += 1;
            continue;
        }
        let score = preference(pod, node) - hall.room(cx, i).load();
        // Of equals the last one.
        if best.is_none_or(|b| score >= b.0) {
            best = Some((score, i));
        }
        fitting += 1;
        if fitting >= ENOUGH {
            break;
        }
    }
    let Some((_, chosen)) = best else {
        return unschedulable(cx, pod, &no_node(total, &reasons));
    };
    let node = s(&hall.nodes[chosen], "/metadata/name").to_owned();
    if claims::await_binding(cx, &volumes, &node) {
        return;
    }
    hall.room(cx, chosen).take(&wants);
    bind(cx, pod, &node);
}

/// Required anti-affinity by host.
fn repelled(cx: &Cx, pod: &Value, node: &Value) -> Option<String> {
    let name = s(node, "/metadata/name");
    for term in arr(pod, "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution") {
        if s(term, "/topologyKey") != "kubernetes.io/hostname" {
            continue;
        }
        let ns = s(pod, "/metadata/namespace");
        let taken = cx.list_in("pods", ns).into_iter().any(|p| {
            s(p, "/spec/nodeName") == name
                && pods::is_active(p)
                && super::super::text::selects(&term["labelSelector"], &p["metadata"]["labels"])
        });
        if taken {
            return Some("node(s) didn't match pod anti-affinity rules".to_owned());
        }
    }
    None
}

/// How much a pod prefers a node.
fn preference(pod: &Value, node: &Value) -> i64 {
    arr(pod, "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution")
        .iter()
        .filter(|t| {
            arr(t, "/preference/matchExpressions")
                .iter()
                .all(|e| expression(e, |k| node["metadata"]["labels"].get(k).and_then(Value::as_str)))
        })
        .map(|t| t["weight"].as_i64().unwrap_or(1) * 10)
        .sum()
}

fn no_node(total: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut list: Vec<String> = reasons.iter().map(|(text, n)| format!("{n} {text}")).collect();
    list.sort();
    if total == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let helpless: usize = reasons.iter().filter(|(t, _)| !t.starts_with("Insufficient")).map(|(_, n)| n).sum();
    let mut tail = Vec::new();
    if total > helpless {
        tail.push(format!("{} No preemption victims found for incoming pod", total - helpless));
    }
    if helpless > 0 {
        tail.push(format!("{helpless} Preemption is not helpful for scheduling"));
    }
    format!(
        "0/{total} nodes are available: {}. preemption: 0/{total} nodes are available: {}.",
        list.join(", "),
        tail.join(", ")
    )
}

fn unschedulable(cx: &mut Cx, pod: &Value, text: &str) {
    let (ns, name) = key(pod);
    let stamp = cx.stamp();
    let known = arr(pod, "/status/conditions").iter().any(|c| c["type"] == "PodScheduled" && c["message"] == text);
    if known {
        return;
    }
    cx.update("pods", &ns, &name, |p| set_condition(p, &stamp, "PodScheduled", "False", "Unschedulable", text));
    cx.event(pod, false, "FailedScheduling", text, "default-scheduler");
}

fn bind(cx: &mut Cx, pod: &Value, node: &str) {
    let (ns, name) = key(pod);
    let stamp = cx.stamp();
    cx.update("pods", &ns, &name, |p| {
        p["spec"]["nodeName"] = json!(node);
        set_condition(p, &stamp, "PodScheduled", "True", "", "");
    });
    cx.event(pod, true, "Scheduled", &format!("Successfully assigned {ns}/{name} to {node}"), "default-scheduler");
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
            fits_node(&equal, &node).unwrap(),
            "node(s) had untolerated taint {node-role.kubernetes.io/control-plane: true}"
        );
        assert_eq!(fits_node(&exists, &node), None);
    }
}
