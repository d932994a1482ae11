//! Namespaces, definitions, nodes and the applications that only report a condition.
use std::collections::BTreeMap;

use serde_json::json;

use super::super::cx::{Cx, is_true, set_condition};
use super::super::schema::definition;
use super::super::store::meta;
use super::super::text::{arr, s};
use super::kubelet::Touched;

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
        return finished(cx, name);
    }
    let left = cx.c.store.remains(name);
    for (resource, object) in left {
        if cx.get(&resource, name, &object).is_some_and(|o| o["metadata"]["deletionTimestamp"].is_null()) {
            cx.delete(&resource, name, &object);
        }
    }
    if cx.c.store.is_bare(name) {
        return finished(cx, name);
    }
    remaining(cx, name);
}

/// Nothing is left in the namespace: it goes, unless a finalizer of its own holds it.
fn finished(cx: &mut Cx, name: &str) {
    if arr(ns_of(cx, name), "/metadata/finalizers").is_empty() {
        cx.remove("namespaces", "", name);
    } else {
        remaining(cx, name);
        cx.update("namespaces", "", name, |o| o["spec"]["finalizers"] = json!([]));
    }
}

/// `2 a, 1 b` in the words of the conditions.
fn counted(of: &BTreeMap<String, usize>, join: &str) -> String {
    let list: Vec<String> = of.iter().map(|(what, n)| format!("{what} {join} {n} resource instances")).collect();
    list.join(", ")
}

/// What keeps a namespace that is being deleted, as its conditions. Grade: source (the namespace controller).
fn remaining(cx: &mut Cx, name: &str) {
    let (mut content, mut holders) = (BTreeMap::new(), BTreeMap::new());
    for (resource, object) in cx.c.store.remains(name) {
        let shown = if resource.contains('.') { resource.clone() } else { format!("{resource}.") };
        *content.entry(shown).or_insert(0) += 1;
        for f in cx.get(&resource, name, &object).map(meta::finalizers).unwrap_or_default() {
            *holders.entry(f.to_owned()).or_insert(0) += 1;
        }
    }
    let stamp = cx.stamp();
    let some = |of: &BTreeMap<String, usize>, join: &str, what: &str, yes: &str, no: (&str, &str)| match of.is_empty() {
        true => ("False", no.0.to_owned(), no.1.to_owned()),
        false => ("True", yes.to_owned(), format!("{what}: {}", counted(of, join))),
    };
    let rest = some(
        &content,
        "has",
        "Some resources are remaining",
        "SomeResourcesRemain",
        ("ContentRemoved", "All content successfully removed"),
    );
    let held = some(
        &holders,
        "in",
        "Some content in the namespace has finalizers remaining",
        "SomeFinalizersRemain",
        ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    );
    cx.update("namespaces", "", name, |o| {
        for (kind, reason, text) in [
            ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            (
                "NamespaceDeletionContentFailure",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ] {
            set_condition(o, &stamp, kind, "False", reason, text);
        }
        for (kind, (value, reason, text)) in
            [("NamespaceContentRemaining", &rest), ("NamespaceFinalizersRemaining", &held)]
        {
            set_condition(o, &stamp, kind, value, reason, text);
        }
    });
}

fn ns_of<'a>(cx: &'a Cx, name: &str) -> &'a serde_json::Value {
    cx.get("namespaces", "", name).unwrap_or(&serde_json::Value::Null)
}

/// The namespaces that wait to be empty look again, as far as something came or went in them.
pub fn ending_namespaces(cx: &mut Cx, touched: &Touched) {
    let ending: Vec<String> = cx.c.store.index().ending().filter(|n| touched.spaces.contains(*n)).cloned().collect();
    for name in ending {
        namespace(cx, &name);
    }
}

/// A CustomResourceDefinition is served.
pub fn definition(cx: &mut Cx) {
    const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";
    crate::kube::k3s::apiservices::follow(cx);
    // names that another definition had may be free now
    let waiting: Vec<String> = cx
        .list(CRDS)
        .into_iter()
        .filter(|crd| !is_true(crd, "Established"))
        .map(|crd| s(crd, "/metadata/name").to_owned())
        .collect();
    for name in waiting {
        let Some(mut crd) = cx.get(CRDS, "", &name).cloned() else { continue };
        definition::settle(&cx.c.store, &mut crd);
        let status = crd["status"].take();
        cx.c.store.patch_with(CRDS, "", &name, |o| o["status"] = status).ok();
    }
}

/// A node changed: what depends on its devices looks again.
pub fn node(cx: &mut Cx, name: &str) {
    super::gpu::node(cx, name);
    super::taints::node(cx, name);
    super::lost::tainted(cx, name);
}

/// Applications whose objects only report that they are fine.
pub fn apps(cx: &mut Cx) {
    super::certificates::reconcile(cx);
    for (resource, kind) in [
        ("apiservices.apiregistration.k8s.io", "Available"),
        ("prometheuses.monitoring.coreos.com", "Available"),
        ("alertmanagers.monitoring.coreos.com", "Available"),
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
