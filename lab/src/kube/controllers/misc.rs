//! Namespaces, definitions, nodes and the applications that only report a condition.
use serde_json::json;

use super::super::cx::{Cx, is_true};
use super::super::text::s;

/// A namespace gets its defaults; one that is being deleted is emptied.
pub fn namespace(cx: &mut Cx, name: &str) {
    let Some(ns) = cx.get("namespaces", "", name) else { return };
    if ns["metadata"]["deletionTimestamp"].is_null() {
        if cx.get("serviceaccounts", name, "default").is_none() {
            cx.create(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}));
        }
        if !cx.c.members.is_empty() && cx.get("configmaps", name, "kube-root-ca.crt").is_none() {
            let ca = cx.c.ca.cert.clone();
            cx.create(json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "kube-root-ca.crt", "namespace": name}, "data": {"ca.crt": ca}}));
        }
        if s(ns_of(cx, name), "/status/phase").is_empty() {
            cx.update("namespaces", "", name, |o| o["status"] = json!({"phase": "Active"}));
        }
        return;
    }
    if cx.c.store.is_bare(name) {
        cx.remove("namespaces", "", name);
        return;
    }
    let left = cx.c.store.remains(name);
    for (resource, object) in left {
        if cx.get(&resource, name, &object).is_some_and(|o| o["metadata"]["deletionTimestamp"].is_null()) {
            cx.delete(&resource, name, &object);
        }
    }
    if cx.c.store.is_bare(name) {
        cx.remove("namespaces", "", name);
    }
}

fn ns_of<'a>(cx: &'a Cx, name: &str) -> &'a serde_json::Value {
    cx.get("namespaces", "", name).unwrap_or(&serde_json::Value::Null)
}

/// The namespaces that wait to be empty look again.
pub fn ending_namespaces(cx: &mut Cx) {
    let ending: Vec<String> = cx.c.store.index().ending().cloned().collect();
    for name in ending {
        namespace(cx, &name);
    }
}

/// A CustomResourceDefinition is served.
pub fn definition(cx: &mut Cx, name: &str) {
    const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
    let Some(crd) = cx.get(CRDS, "", name) else { return };
    if is_true(crd, "Established") {
        return;
    }
    cx.condition((CRDS, "", name), "NamesAccepted", "True", "NoConflicts", "no conflicts found");
    cx.condition(
        (CRDS, "", name),
        "Established",
        "True",
        "InitialNamesAccepted",
        "the initial names have been accepted",
    );
}

/// A node changed: what depends on its devices looks again.
pub fn node(cx: &mut Cx, name: &str) {
    super::gpu::node(cx, name);
}

/// Applications whose objects only report that they are fine.
pub fn apps(cx: &mut Cx) {
    for (resource, kind) in [
        ("apiservices.apiregistration.k8s.io", "Available"),
        ("prometheuses.monitoring.coreos.com", "Available"),
        ("alertmanagers.monitoring.coreos.com", "Available"),
        ("certificates.cert-manager.io", "Ready"),
        ("issuers.cert-manager.io", "Ready"),
        ("clusterissuers.cert-manager.io", "Ready"),
    ] {
        if cx.c.store.kind_for(resource).is_none() {
            continue;
        }
        let waiting: Vec<(String, String)> =
            cx.list(resource).into_iter().filter(|o| !is_true(o, kind)).map(super::super::cx::key).collect();
        for (ns, name) in waiting {
            cx.condition((resource, &ns, &name), kind, "True", kind, "");
        }
    }
}
