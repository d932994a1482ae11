//! ReplicaSets and ReplicationControllers: as many pods as are wanted. Grade: source (pkg/controller/replicaset and
//! pkg/controller/replication of kubernetes).
use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::store::meta::parse_time;
use super::super::text::{arr, s, selects};
use super::{adopt, pods, status};
use crate::kube::k3s::node::minor;

/// ReplicaSets.
pub const SETS: &str = "replicasets.apps";
/// ReplicationControllers.
pub const CONTROLLERS: &str = "replicationcontrollers";

/// What is said of a set whose pods are refused.
pub(super) const FAILURE: &str = "ReplicaFailure";

/// Whether sets of this cluster count the pods that are on their way out.
pub(super) fn counts_leaving(cx: &Cx) -> bool {
    minor(&cx.c.version) >= 35
}

/// Brings the pods and the status of a set up to date.
pub fn reconcile(cx: &mut Cx, resource: &str, ns: &str, name: &str) {
    let Some(set) = cx.get(resource, ns, name).cloned() else { return };
    if set["status"]["observedGeneration"].is_null() {
        adopt::orphans(cx, &set, "pods");
    }
    let refused = if set["metadata"]["deletionTimestamp"].is_null() { manage(cx, resource, &set) } else { Ok(()) };
    write(cx, resource, &set, refused);
}

/// Sets of a namespace whose pods were refused try again.
pub fn refused(cx: &mut Cx, ns: &str) {
    for resource in [SETS, CONTROLLERS] {
        let failing = |r: &&Value| arr(r, "/status/conditions").iter().any(|c| c["type"] == FAILURE);
        let sets = cx.list_in(resource, ns).into_iter().filter(failing);
        let names: Vec<String> = sets.map(|r| s(r, "/metadata/name").to_owned()).collect();
        names.iter().for_each(|name| reconcile(cx, resource, ns, name));
    }
}

/// Makes the pods that are missing, or takes those away that are too many.
fn manage(cx: &mut Cx, resource: &str, set: &Value) -> Result<(), String> {
    let controller = if resource == SETS { "replicaset-controller" } else { "replication-controller" };
    let (ns, uid) = (s(set, "/metadata/namespace"), s(set, "/metadata/uid"));
    let want = usize::try_from(set["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or(0);
    let active: Vec<&Value> = pods::owned(cx, ns, uid).into_iter().filter(|p| pods::is_active(p)).collect();
    let have = active.len();
    let surplus = if have > want { dispensable(cx, set, active, have - want) } else { Vec::new() };
    for pod in surplus {
        cx.delete_pod(set, &pod, controller);
    }
    let prefix = format!("{}-", s(set, "/metadata/name"));
    for _ in have..want {
        let pod = pods::of_template(set, &set["spec"]["template"], "", &prefix, &[]);
        cx.create_pod(set, pod, controller)?;
    }
    Ok(())
}

/// The pods that are missed least.
fn dispensable(cx: &Cx, set: &Value, mut active: Vec<&Value>, surplus: usize) -> Vec<String> {
    let mut company: BTreeMap<&str, usize> = BTreeMap::new();
    for p in related(cx, set).into_iter().filter(|p| pods::is_active(p)) {
        *company.entry(s(p, "/spec/nodeName")).or_default() += 1;
    }
    let now = cx.now();
    active.sort_by(|a, b| before(a, b, &company, now));
    active.iter().take(surplus).map(|p| s(p, "/metadata/name").to_owned()).collect()
}

/// Pods of all sets of the same owner.
fn related<'a>(cx: &'a Cx, set: &Value) -> Vec<&'a Value> {
    let ns = s(set, "/metadata/namespace");
    let owner = arr(set, "/metadata/ownerReferences").iter().find(|o| o["controller"] == true);
    let uids: Vec<&str> = match owner {
        Some(o) => cx.c.store.owned(SETS, ns, s(o, "/uid")).into_iter().map(|r| s(r, "/metadata/uid")).collect(),
        None => Vec::new(),
    };
    match uids.is_empty() {
        true => pods::owned(cx, ns, s(set, "/metadata/uid")),
        false => uids.into_iter().flat_map(|uid| pods::owned(cx, ns, uid)).collect(),
    }
}

/// Which of two pods goes first: one without a node, pending, not ready, of less cost, on a node with more of its
/// kind, ready for a shorter time, restarted more often, younger.
fn before(a: &Value, b: &Value, company: &BTreeMap<&str, usize>, now: u64) -> Ordering {
    let placed = |p: &Value| !s(p, "/spec/nodeName").is_empty();
    let phase = |p: &Value| match s(p, "/status/phase") {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = |p: &Value| -> i64 {
        s(p, "/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost").parse().unwrap_or(0)
    };
    let crowd = |p: &Value| company.get(s(p, "/spec/nodeName")).copied().unwrap_or(0);
    let restarts = |p: &Value| status::statuses(p).filter_map(|c| c["restartCount"].as_i64()).max().unwrap_or(0);
    let born = |p: &Value| parse_time(s(p, "/metadata/creationTimestamp")).unwrap_or(0);
    let uid = |a: &Value, b: &Value| s(a, "/metadata/uid").cmp(s(b, "/metadata/uid"));
    let since = |a: u64, b: u64, x: &Value, y: &Value| match a == b {
        true => Ordering::Equal,
        false => magnitude(now, a).cmp(&magnitude(now, b)).then_with(|| uid(x, y)),
    };
    placed(a)
        .cmp(&placed(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| crowd(b).cmp(&crowd(a)))
        .then_with(|| match (ready_since(a), ready_since(b)) {
            (Some(x), Some(y)) => since(x, y, a, b),
            _ => Ordering::Equal,
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| since(born(a), born(b), a, b))
        .then_with(|| uid(a, b))
}

fn ready_since(p: &Value) -> Option<u64> {
    let c = arr(p, "/status/conditions").iter().find(|c| c["type"] == "Ready" && c["status"] == "True")?;
    parse_time(s(c, "/lastTransitionTime"))
}

/// Ages count alike within a power of two, in nanoseconds.
fn magnitude(now: u64, then: u64) -> u32 {
    let age = u128::from(now.saturating_sub(then)) * 1_000_000;
    if age == 0 { 0 } else { age.ilog2() + 1 }
}

fn write(cx: &mut Cx, resource: &str, set: &Value, refused: Result<(), String>) {
    let (ns, name, uid) = (s(set, "/metadata/namespace"), s(set, "/metadata/name"), s(set, "/metadata/uid"));
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    let (mut total, mut labelled, mut leaving) = (0, 0, 0);
    for p in pods::owned(cx, ns, uid) {
        if pods::is_active(p) {
            total += 1;
            labelled += i64::from(selects(labels, &p["metadata"]["labels"]));
        } else if !p["metadata"]["deletionTimestamp"].is_null() && !pods::has_ended(p) {
            leaving += 1;
        }
    }
    let min = set["spec"]["minReadySeconds"].as_u64().unwrap_or(0);
    let (ready, available) = pods::counted(cx, resource, (ns, name), uid, min);
    let leaving = (resource == SETS && counts_leaving(cx)).then_some(leaving);
    let want = set["spec"]["replicas"].as_i64().unwrap_or(1);
    let stamp = cx.stamp();
    cx.update(resource, ns, name, |r| {
        let status = &mut r["status"];
        let failing = arr(status, "/conditions").iter().any(|c| c["type"] == FAILURE);
        match refused {
            // The names of refused pods differ: what was said first stays.
            Err(why) if !failing => {
                let reason = if total < want { "FailedCreate" } else { "FailedDelete" };
                let mut list = arr(status, "/conditions").to_vec();
                list.push(json!({"type": FAILURE, "status": "True", "lastTransitionTime": stamp, "reason": reason,
                    "message": why}));
                status["conditions"] = Value::Array(list);
            }
            Ok(()) if failing => drop(status.as_object_mut().and_then(|m| m.shift_remove("conditions"))),
            _ => {}
        }
        status["replicas"] = json!(total);
        for (k, v) in [("fullyLabeledReplicas", labelled), ("readyReplicas", ready), ("availableReplicas", available)] {
            if v > 0 {
                status[k] = json!(v);
            } else if let Some(m) = status.as_object_mut() {
                m.shift_remove(k);
            }
        }
        if let Some(n) = leaving {
            status["terminatingReplicas"] = json!(n);
        }
        r["status"]["observedGeneration"] = r["metadata"]["generation"].clone();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_least_goes_first() {
        let pod = |name: &str, node: &str, since: &str, cost: &str| {
            json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
                    "annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}},
                "spec": {"nodeName": node},
                "status": {"phase": "Running", "conditions": [
                    {"type": "Ready", "status": if since.is_empty() { "False" } else { "True" }, "lastTransitionTime": since}]}})
        };
        let all = [
            pod("old", "a", "2026-01-01T00:00:10Z", ""),
            pod("crowded", "b", "2026-01-01T00:00:10Z", ""),
            pod("cheap", "a", "2026-01-01T00:00:10Z", "-5"),
            pod("unready", "a", "", ""),
            pod("nowhere", "", "", ""),
            pod("young", "a", "2026-01-01T01:00:00Z", ""),
        ];
        let company = BTreeMap::from([("a", 1), ("b", 2)]);
        let now = parse_time("2026-01-01T01:00:10Z").unwrap();
        let mut order: Vec<&Value> = all.iter().collect();
        order.sort_by(|a, b| before(a, b, &company, now));
        let names: Vec<&str> = order.iter().map(|p| s(p, "/metadata/name")).collect();
        assert_eq!(names, ["nowhere", "unready", "cheap", "crowded", "young", "old"]);
    }
}
