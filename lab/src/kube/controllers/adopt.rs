//! Who owns what by its labels: a set lets go of pods that its selector no longer takes, and takes those that nobody
//! owns. Grade: source (the controller reference manager of kube-controller-manager).
use serde_json::{Value, json};

use super::super::cx::{Cx, key, owner_ref};
use super::super::store::Store;
use super::super::text::{arr, s, selects};

/// Kinds that own pods, with their resources, in the order in which they are asked.
const SETS: &[(&str, &str)] = &[
    ("ReplicaSet", "replicasets.apps"),
    ("ReplicationController", "replicationcontrollers"),
    ("StatefulSet", "statefulsets.apps"),
    ("DaemonSet", "daemonsets.apps"),
    ("Job", "jobs.batch"),
];

fn controller(o: &Value) -> Option<&Value> {
    arr(o, "/metadata/ownerReferences").iter().find(|r| r["controller"] == true)
}

fn takes(owner: &Value, o: &Value) -> bool {
    owner["metadata"]["deletionTimestamp"].is_null()
        && owner["spec"]["selector"].as_object().is_some_and(|m| !m.is_empty())
        && selects(&owner["spec"]["selector"], &o["metadata"]["labels"])
}

/// Whether a pod has no owner, or one that no longer takes it.
pub fn strays(store: &Store, pod: &Value) -> bool {
    let Some(reference) = controller(pod) else { return true };
    let Some((_, resource)) = SETS.iter().find(|(k, _)| reference["kind"] == *k) else { return false };
    let owner = store.get(resource, s(pod, "/metadata/namespace"), s(reference, "/name"));
    owner.is_some_and(|o| {
        o["spec"]["selector"].is_object() && !selects(&o["spec"]["selector"], &pod["metadata"]["labels"])
    })
}

/// The labels of a pod changed, or it came without an owner.
pub fn pod(cx: &mut Cx, ns: &str, name: &str) {
    let Some(pod) = cx.get("pods", ns, name).cloned() else { return };
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let Some(reference) = controller(&pod).cloned() else { return join(cx, ns, &pod) };
    let Some((_, resource)) = SETS.iter().find(|(k, _)| reference["kind"] == *k) else { return };
    let owner = cx.get(resource, ns, s(&reference, "/name"));
    let Some(owner) = owner.filter(|o| o["metadata"]["uid"] == reference["uid"]) else { return };
    let selector = &owner["spec"]["selector"];
    if selector.is_object() && !selects(selector, &pod["metadata"]["labels"]) {
        cx.update("pods", ns, name, |p| {
            if let Some(list) = p["metadata"]["ownerReferences"].as_array_mut() {
                list.retain(|r| r["uid"] != reference["uid"]);
                if list.is_empty()
                    && let Some(m) = p["metadata"].as_object_mut()
                {
                    m.shift_remove("ownerReferences");
                }
            }
        });
    }
}

fn join(cx: &mut Cx, ns: &str, pod: &Value) {
    if matches!(s(pod, "/status/phase"), "Succeeded" | "Failed") {
        return;
    }
    for (kind, resource) in SETS {
        // Pods of a StatefulSet are known by their names, too.
        let named = |o: &Value| {
            *kind != "StatefulSet" || s(pod, "/metadata/name").starts_with(&format!("{}-", s(o, "/metadata/name")))
        };
        let found = cx.list_in(resource, ns).into_iter().find(|o| takes(o, pod) && named(o)).cloned();
        if let Some(owner) = found {
            return own(cx, "pods", &owner, pod);
        }
    }
}

fn own(cx: &mut Cx, resource: &str, owner: &Value, o: &Value) {
    let (ns, name) = key(o);
    let fresh = owner_ref(owner)[0].clone();
    cx.update(resource, &ns, &name, |o| match o["metadata"]["ownerReferences"].as_array_mut() {
        Some(list) => list.push(fresh),
        None => o["metadata"]["ownerReferences"] = json!([fresh]),
    });
}

/// A new owner takes what its selector takes and nobody owns.
pub fn orphans(cx: &mut Cx, owner: &Value, resource: &str) {
    let (ns, _) = key(owner);
    let found: Vec<Value> = cx
        .list_in(resource, &ns)
        .into_iter()
        .filter(|o| controller(o).is_none() && o["metadata"]["deletionTimestamp"].is_null() && takes(owner, o))
        .filter(|o| !matches!(s(o, "/status/phase"), "Succeeded" | "Failed"))
        .cloned()
        .collect();
    for o in found {
        own(cx, resource, owner, &o);
    }
}
