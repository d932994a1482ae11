//! Which of the nodes that would do is the best one for a pod. Grade: source (the scoring plugins of kube-scheduler and
//! their default weights).
use std::collections::BTreeMap;

use serde_json::Value;

use super::super::cx::Cx;
use super::super::store::index::Requests;
use super::super::store::meta;
use super::super::text::{arr, expression, s, selects};
use super::places::{domain, means};
use super::rooms::{Hall, Room};
use super::{pods, scheduler};

const PREFERRED: &str = "/preferredDuringSchedulingIgnoredDuringExecution";
const REQUIRED: &str = "/requiredDuringSchedulingIgnoredDuringExecution";
const HOST: &str = "kubernetes.io/hostname";
/// The best a node can get from one plugin.
const FULL: i64 = 100;
/// In clusters with more pods, what others would like is not asked.
const MANY: usize = 1000;

/// The best of the nodes `fit`; of equals the emptiest, then the last one.
pub(super) fn best(cx: &Cx, pod: &Value, wants: &Requests, hall: &mut Hall, fit: &[usize]) -> Option<usize> {
    if fit.len() < 2 {
        return fit.first().copied();
    }
    let all = hall.nodes;
    let nodes: Vec<&Value> = fit.iter().map(|i| &*all[*i]).collect();
    let parts = [
        (3, inverted(nodes.iter().map(|n| shunned(pod, n)).collect())),
        (2, scaled(nodes.iter().map(|n| liked(pod, n)).collect())),
        (2, spread(cx, pod, hall, &nodes)),
        (2, company(cx, pod, hall, &nodes)),
    ];
    let mut found: Option<((i64, i64), usize)> = None;
    for (k, i) in fit.iter().enumerate() {
        let room = hall.room(cx, *i);
        let score = parts.iter().map(|(weight, of)| weight * of.get(k).copied().unwrap_or(0)).sum::<i64>()
            + empty(room, wants)
            + balanced(room, wants);
        let rank = (score, -room.count());
        if found.is_none_or(|f| rank >= f.0) {
            found = Some((rank, *i));
        }
    }
    found.map(|f| f.1)
}

/// The largest gets all, the others their part of it.
fn scaled(raw: Vec<i64>) -> Vec<i64> {
    match raw.iter().copied().max().unwrap_or(0) {
        0 => raw,
        most => raw.into_iter().map(|v| FULL * v / most).collect(),
    }
}

/// None gets all, the largest nothing.
fn inverted(raw: Vec<i64>) -> Vec<i64> {
    scaled(raw).into_iter().map(|v| FULL - v).collect()
}

/// Taints that ask pods to stay away and that this one does not tolerate.
fn shunned(pod: &Value, node: &Value) -> i64 {
    let soft = |t: &&Value| s(t, "/effect") == "PreferNoSchedule" && !scheduler::tolerates(&pod["spec"], t);
    arr(node, "/spec/taints").iter().filter(soft).count() as i64
}

/// How much the pod would like the node by its labels.
fn liked(pod: &Value, node: &Value) -> i64 {
    let look = |k: &str| node["metadata"]["labels"][k].as_str();
    let name = s(node, "/metadata/name");
    arr(&pod["spec"]["affinity"]["nodeAffinity"], PREFERRED)
        .iter()
        .filter(|t| {
            arr(t, "/preference/matchExpressions").iter().all(|e| expression(e, look))
                && arr(t, "/preference/matchFields").iter().all(|e| expression(e, |_| Some(name)))
        })
        .map(|t| t["weight"].as_i64().unwrap_or(1))
        .sum()
}

/// What would be left of processor and memory. Every pod counts for a little, also one that requests nothing.
fn empty(room: &Room, wants: &Requests) -> i64 {
    let least = [("cpu", 100), ("memory", 200 * 1024 * 1024 * 1000)];
    let part = |(what, little): (&str, i64)| {
        let (taken, has) = room.share(what);
        let used = taken + wants.get(what).copied().unwrap_or(0) + (room.count() + 1) * little;
        if has == 0 || used > has { 0 } else { part_of(has - used, has) }
    };
    least.map(part).iter().sum::<i64>() / 2
}

fn part_of(a: i64, b: i64) -> i64 {
    i64::try_from(i128::from(a) * i128::from(FULL) / i128::from(b.max(1))).unwrap_or(0)
}

/// Whether processor and memory would be used alike more than now.
fn balanced(room: &Room, wants: &Requests) -> i64 {
    let fraction = |what: &str, more: i64| {
        let (taken, has) = room.share(what);
        if has == 0 { 0.0 } else { ((taken + more) as f64 / has as f64).min(1.0) }
    };
    let apart = |own: bool| {
        let of = |w: &str| fraction(w, if own { wants.get(w).copied().unwrap_or(0) } else { 0 });
        ((1.0 - (of("cpu") - of("memory")).abs() / 2.0) * FULL as f64) as i64
    };
    FULL / 2 + (FULL / 2 + apart(true) - apart(false)) / 2
}

/// How evenly the pod would be spread: by its own wishes, or among the nodes as one of a set.
fn spread(cx: &Cx, pod: &Value, hall: &mut Hall, nodes: &[&Value]) -> Vec<i64> {
    let ns = meta::namespace(pod);
    let own = arr(pod, "/spec/topologySpreadConstraints");
    if own.is_empty() {
        let Some(set) = arr(pod, "/metadata/ownerReferences").iter().find(|o| {
            o["controller"] == true && matches!(s(o, "/kind"), "ReplicaSet" | "ReplicationController" | "StatefulSet")
        }) else {
            return Vec::new();
        };
        let counts = hall.spread_of(cx, ns, s(set, "/uid"));
        let here = |n: &&Value| counts.get(meta::name(n)).copied().unwrap_or(0);
        return evened(nodes.iter().map(|n| Some(weighted(here(n), 3, nodes.len()))).collect());
    }
    let soft: Vec<&Value> = own.iter().filter(|c| s(c, "/whenUnsatisfiable") == "ScheduleAnyway").collect();
    if soft.is_empty() {
        return Vec::new();
    }
    let all: Vec<&Value> =
        cx.c.store
            .all("pods", ns)
            .map(|p| &**p)
            .filter(|p| pods::is_active(p) && !s(p, "/spec/nodeName").is_empty())
            .collect();
    let mut scores: Vec<Option<f64>> = vec![Some(0.0); nodes.len()];
    for c in soft {
        let key = s(c, "/topologyKey");
        let keys = arr(c, "/matchLabelKeys");
        let labels = &pod["metadata"]["labels"];
        let alike = |p: &Value| {
            c["labelSelector"].is_object()
                && selects(&c["labelSelector"], &p["metadata"]["labels"])
                && keys.iter().filter_map(Value::as_str).all(|k| p["metadata"]["labels"][k] == labels[k])
        };
        let mut counts: BTreeMap<&str, i64> = nodes.iter().filter_map(|n| Some((domain(n, key)?, 0))).collect();
        for p in all.iter().filter(|p| alike(p)) {
            let node = hall.named(s(p, "/spec/nodeName")).map(|i| &*hall.nodes[i]);
            if let Some(n) = node.and_then(|n| counts.get_mut(domain(n, key)?)) {
                *n += 1;
            }
        }
        let size = if key == HOST { nodes.len() } else { counts.len() };
        let skew = c["maxSkew"].as_i64().unwrap_or(1);
        for (score, n) in scores.iter_mut().zip(nodes) {
            // A node without the label is no place for it.
            *score = score.and_then(|v| Some(v + weighted(*counts.get(domain(n, key)?)?, skew, size)));
        }
    }
    evened(scores)
}

fn weighted(count: i64, skew: i64, size: usize) -> f64 {
    count as f64 * ((size + 2) as f64).ln() + (skew - 1) as f64
}

/// The fewer the better.
fn evened(scores: Vec<Option<f64>>) -> Vec<i64> {
    let whole: Vec<Option<i64>> = scores.into_iter().map(|v| v.map(|v| v.round() as i64)).collect();
    let most = whole.iter().flatten().copied().max().unwrap_or(0);
    let least = whole.iter().flatten().copied().min().unwrap_or(0);
    let one = |v: Option<i64>| match v {
        None => 0,
        Some(_) if most == 0 => FULL,
        Some(v) => FULL * (most + least - v) / most,
    };
    whole.into_iter().map(one).collect()
}

/// Whether the pod would be near to those it likes, and they to it.
fn company(cx: &Cx, pod: &Value, hall: &Hall, nodes: &[&Value]) -> Vec<i64> {
    let soft = |p: &Value, kind: &str| !arr(&p["spec"]["affinity"][kind], PREFERRED).is_empty();
    let own = soft(pod, "podAffinity") || soft(pod, "podAntiAffinity");
    if !own && cx.c.store.count("pods") > MANY {
        return Vec::new();
    }
    let mut sums: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut add = |node: &Value, term: &Value, weight: i64| {
        let key = s(term, "/topologyKey");
        if let Some(d) = domain(node, key) {
            *sums.entry((key.to_owned(), d.to_owned())).or_default() += weight;
        }
    };
    let ns = meta::namespace(pod);
    for p in cx.c.store.all("pods", "") {
        if !own && p["spec"]["affinity"].is_null() || pods::has_ended(p) {
            continue;
        }
        let Some(node) = hall.named(s(p, "/spec/nodeName")).map(|i| &*hall.nodes[i]) else { continue };
        let theirs = meta::namespace(p);
        for (kind, sign) in [("podAffinity", 1), ("podAntiAffinity", -1)] {
            for t in arr(&pod["spec"]["affinity"][kind], PREFERRED) {
                if means(cx, ns, &t["podAffinityTerm"], p) {
                    add(node, &t["podAffinityTerm"], sign * t["weight"].as_i64().unwrap_or(1));
                }
            }
            for t in arr(&p["spec"]["affinity"][kind], PREFERRED) {
                if means(cx, theirs, &t["podAffinityTerm"], pod) {
                    add(node, &t["podAffinityTerm"], sign * t["weight"].as_i64().unwrap_or(1));
                }
            }
        }
        for t in arr(&p["spec"]["affinity"]["podAffinity"], REQUIRED) {
            if means(cx, theirs, t, pod) {
                add(node, t, 1);
            }
        }
    }
    if sums.is_empty() {
        return Vec::new();
    }
    let of =
        |n: &&Value| -> i64 { sums.iter().filter(|((key, d), _)| domain(n, key) == Some(d)).map(|(_, v)| *v).sum() };
    let raw: Vec<i64> = nodes.iter().map(of).collect();
    let (most, least) = (raw.iter().copied().max().unwrap_or(0), raw.iter().copied().min().unwrap_or(0));
    raw.into_iter().map(|v| if most > least { FULL * (v - least) / (most - least) } else { 0 }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn few_is_better_and_a_node_without_the_label_gets_nothing() {
        assert_eq!(evened(vec![Some(0.0), Some(3.0), None]), [100, 0, 0]);
        assert_eq!(evened(vec![Some(0.0), Some(0.0)]), [100, 100]);
        assert_eq!(inverted(vec![0, 1, 2]), [100, 50, 0]);
        assert_eq!(scaled(vec![0, 0]), [0, 0]);
    }

    #[test]
    fn wishes_for_labels_and_soft_taints_count() {
        let node = json!({"metadata": {"name": "a", "labels": {"disk": "ssd"}},
            "spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
        let pod = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 7, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}},
            {"weight": 5, "preference": {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}}]}}}});
        assert_eq!((liked(&pod, &node), shunned(&pod, &node)), (7, 1));
    }
}
