//! Endpoints that somebody writes by hand for a Service without a selector, as EndpointSlices. Grade: source
//! (pkg/controller/endpointslicemirroring of kubernetes).
use serde_json::{Value, json};

use super::super::cx::{Cx, owner_ref};
use super::super::text::{arr, hash_name, s};
use super::endpoints::{SLICES, sliced};

const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// What is not copied to slices.
const OWN: &[&str] =
    &["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];

/// Brings the slices of the Endpoints of a Service up to date.
pub(super) fn reconcile(cx: &mut Cx, svc: &Value, ns: &str, name: &str) {
    let all = cx.get("endpoints", ns, name).cloned().unwrap_or_default();
    let mirrored = all.is_object()
        && all["metadata"]["labels"][SKIP] != "true"
        && all["metadata"]["annotations"][LEADER].is_null()
        && !svc["spec"]["selector"].is_object();
    let subsets = if mirrored { arr(&all, "/subsets") } else { &[] };
    let mut wanted = Vec::new();
    for (i, subset) in subsets.iter().enumerate() {
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            let ends = ends(subset, v6);
            if !ends.is_empty() {
                let hash = hash_name(&format!("{}{i}{family}", s(&all, "/metadata/uid")), 5);
                let slice = format!("{name}-{hash}");
                write(cx, &all, (ns, name, &slice), subset, (family, &ends));
                wanted.push(slice);
            }
        }
    }
    let mine = |o: &&Value| {
        o["metadata"]["labels"]["kubernetes.io/service-name"] == name
            && o["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == MANAGER
    };
    let have: Vec<String> =
        cx.list_in(SLICES, ns).into_iter().filter(mine).map(|o| s(o, "/metadata/name").to_owned()).collect();
    have.iter().filter(|n| !wanted.contains(n)).for_each(|n| cx.delete(SLICES, ns, n));
}

/// The addresses of a subset, of one family.
fn ends(subset: &Value, v6: bool) -> Vec<Value> {
    let mut out = Vec::new();
    for (list, ready) in [("addresses", true), ("notReadyAddresses", false)] {
        for a in arr(subset, &format!("/{list}")).iter().filter(|a| s(a, "/ip").contains(':') == v6) {
            let mut end = json!({"addresses": [a["ip"]], "conditions": {"ready": ready}});
            for f in ["hostname", "nodeName", "targetRef"] {
                if !a[f].is_null() {
                    end[f] = a[f].clone();
                }
            }
            out.push(end);
        }
    }
    out
}

fn write(
    cx: &mut Cx,
    all: &Value,
    (ns, name, slice): (&str, &str, &str),
    subset: &Value,
    (family, ends): (&str, &[Value]),
) {
    let ports: Value = match arr(subset, "/ports") {
        [] => Value::Null,
        some => some.iter().cloned().map(sliced).collect(),
    };
    let copied = |field: &str| {
        let all = all["metadata"][field].as_object().cloned().unwrap_or_default();
        all.into_iter().filter(|(k, _)| !OWN.contains(&k.as_str())).collect::<serde_json::Map<_, _>>()
    };
    let (mut labels, notes) = (copied("labels"), copied("annotations"));
    labels.insert("kubernetes.io/service-name".to_owned(), name.into());
    labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), MANAGER.into());
    let have = cx.get(SLICES, ns, slice);
    if have.is_some_and(|o| {
        o["endpoints"] == json!(ends) && o["ports"] == ports && o["metadata"]["labels"] == json!(labels)
    }) {
        return;
    }
    let mut out = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {"name": slice, "generateName": format!("{name}-"), "namespace": ns, "labels": labels,
            "ownerReferences": owner_ref(all)},
        "endpoints": ends, "ports": ports});
    if !notes.is_empty() {
        out["metadata"]["annotations"] = json!(notes);
    }
    cx.ensure(out);
}
