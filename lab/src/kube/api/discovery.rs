//! Discovery: groups, versions, resources; classic and aggregated.
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use http::Response;
use serde_json::{Value, json};
use sha2::Digest;

use super::finish::document;
use super::{Body, Call, Request, read, spoken, text, unserved};
use crate::guest;
use crate::kube::schema::kinds::PRIORITIES;
use crate::kube::schema::{Kind, definition};

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const ONE_BY_ONE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CUSTOM: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

fn verbs(k: &Kind) -> &'static [&'static str] {
    match (k.create_only, k.custom) {
        _ if k.read_only => &["get", "list"],
        (true, _) => &["create"],
        (false, true) => CUSTOM,
        _ if k.goes_alone() => ONE_BY_ONE,
        _ => VERBS,
    }
}

/// The hash that tells clients when a kind is stored in another version.
fn storage_hash(k: &Kind) -> String {
    let version = if k.stored.is_empty() { &k.version } else { &k.stored };
    // what is kept in another version or group than the one that is shown
    let (group, version) = match (k.group.as_str(), k.kind.as_str()) {
        ("autoscaling", "HorizontalPodAutoscaler") => ("autoscaling", "v2"),
        ("events.k8s.io", "Event") => ("", "v1"),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => ("apiextensions.k8s.io", "v1beta1"),
        (group, kind) if kind.starts_with("MutatingAdmissionPolicy") => (group, "v1beta1"),
        (group, _) => (group, version.as_str()),
    };
    let sum = sha2::Sha256::digest(format!("{group}/{version}/{}", k.kind).as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&sum[..8])
}

fn kinds(call: &Call<'_>) -> Vec<Arc<Kind>> {
    call.lab.with(|w| {
        let Some(c) = w.clusters.get(call.cluster) else { return Vec::new() };
        let mut all: Vec<Arc<Kind>> = c.store.kinds().filter(|k| c.serves(k)).cloned().collect();
        if super::metrics::up(c) {
            all.extend(super::metrics::kinds());
        }
        // the server's own routes are made in order of their paths
        all.sort_by(|a, b| if a.custom || b.custom { a.custom.cmp(&b.custom) } else { a.plural.cmp(&b.plural) });
        all
    })
}

/// Versions of every group but the core one, in order of appearance.
fn groups(kinds: &[Arc<Kind>]) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for k in kinds.iter().filter(|k| !k.group.is_empty()) {
        let v = out.entry(k.group.clone()).or_default();
        if !v.contains(&k.version) {
            v.push(k.version.clone());
        }
    }
    for v in out.values_mut() {
        v.sort_by_key(|v| newest(v));
    }
    out
}

/// Stable versions come first, and of those the newest: `v2`, `v1`, `v1beta1`.
fn newest(version: &str) -> std::cmp::Reverse<(u8, u64, u64)> {
    std::cmp::Reverse(definition::age(version))
}

/// The place of a group among the others: by its priority; equal ones, as those of custom kinds, go by name.
fn rank(group: &str) -> std::cmp::Reverse<u64> {
    std::cmp::Reverse(PRIORITIES.iter().find(|p| p.0 == group).map_or(0, |p| p.1))
}

fn group(name: &str, versions: &[String]) -> Value {
    let list: Vec<Value> =
        versions.iter().map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v})).collect();
    json!({"name": name, "versions": list, "preferredVersion": list.first()})
}

fn resource(k: &Kind) -> Vec<Value> {
    let mut main = json!({"name": k.plural, "singularName": k.singular, "namespaced": k.namespaced, "kind": k.kind, "verbs": verbs(k)});
    if !k.create_only && !k.read_only {
        main["storageVersionHash"] = json!(storage_hash(k));
    }
    if !k.short.is_empty() {
        main["shortNames"] = json!(k.short);
    }
    if !k.categories.is_empty() {
        main["categories"] = json!(k.categories);
    }
    let mut out = vec![main];
    for sub in subs(k) {
        let name = format!("{}/{}", k.plural, sub.name);
        let mut r =
            json!({"name": name, "singularName": "", "namespaced": k.namespaced, "kind": sub.kind, "verbs": sub.verbs});
        if let Some((group, version)) = sub.group {
            r["group"] = json!(group);
            r["version"] = json!(version);
        }
        out.push(r);
    }
    out
}

/// Whether a kind has a subresource.
pub(super) fn has_sub(k: &Kind, name: &str) -> bool {
    subs(k).iter().any(|s| s.name == name)
}

/// Whether a path of discovery is answered whatever the method: the lists of groups are no routes.
pub(super) fn answers_all(path: &str) -> bool {
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    match parts.next() {
        None => true,
        Some("apis") => parts.count() < 2,
        Some(_) => false,
    }
}

/// A subresource: name, group and version of its kind (none: those of the resource), kind, verbs.
struct Sub {
    name: &'static str,
    group: Option<(&'static str, &'static str)>,
    kind: String,
    verbs: &'static [&'static str],
}

fn subs(k: &Kind) -> Vec<Sub> {
    const CHANGE: &[&str] = &["get", "patch", "update"];
    const OPEN: &[&str] = &["create", "get"];
    const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
    let sub = |name, kind: &str, verbs| Sub { name, group: None, kind: kind.to_owned(), verbs };
    let mut out = Vec::new();
    if k.status {
        out.push(sub("status", &k.kind, CHANGE));
    }
    if k.scale {
        out.push(Sub { group: Some(("autoscaling", "v1")), ..sub("scale", "Scale", CHANGE) });
    }
    match (k.group.as_str(), k.plural.as_str()) {
        ("", "pods") => {
            out.push(sub("log", "Pod", &["get"]));
            out.push(sub("ephemeralcontainers", "Pod", CHANGE));
            out.push(sub("resize", "Pod", CHANGE));
            out.push(Sub { group: Some(("policy", "v1")), ..sub("eviction", "Eviction", &["create"]) });
            out.push(sub("binding", "Binding", &["create"]));
            out.push(sub("exec", "PodExecOptions", OPEN));
            out.push(sub("attach", "PodAttachOptions", OPEN));
            out.push(sub("portforward", "PodPortForwardOptions", OPEN));
            out.push(sub("proxy", "PodProxyOptions", PROXY));
        }
        ("", "nodes") => out.push(sub("proxy", "NodeProxyOptions", PROXY)),
        ("", "services") => out.push(sub("proxy", "ServiceProxyOptions", PROXY)),
        ("", "serviceaccounts") => {
            out.push(Sub { group: Some(("authentication.k8s.io", "v1")), ..sub("token", "TokenRequest", &["create"]) });
        }
        ("certificates.k8s.io", "certificatesigningrequests") => out.push(sub("approval", &k.kind, CHANGE)),
        ("", "namespaces") => out.push(sub("finalize", "Namespace", &["update"])),
        _ => {}
    }
    if !k.custom {
        out.sort_by_key(|s| s.name);
    }
    out
}

fn aggregated(kinds: &[Arc<Kind>], core: bool, version: &str) -> Value {
    let mut by: BTreeMap<String, BTreeMap<String, Vec<Value>>> = BTreeMap::new();
    for k in kinds.iter().filter(|k| k.group.is_empty() == core) {
        let gvk = |kind: &str, of: Option<(&str, &str)>| {
            // those of the resource itself are left out
            let (group, version) = of.unwrap_or(("", ""));
            json!({"group": group, "version": version, "kind": kind})
        };
        let sub: Vec<Value> = subs(k)
            .iter()
            .map(|s| json!({"subresource": s.name, "responseKind": gvk(&s.kind, s.group), "verbs": s.verbs}))
            .collect();
        let scope = if k.namespaced { "Namespaced" } else { "Cluster" };
        let mut r = json!({"resource": k.plural, "responseKind": gvk(&k.kind, None), "scope": scope, "singularResource": k.singular, "verbs": verbs(k)});
        for (key, v) in
            [("shortNames", json!(k.short)), ("categories", json!(k.categories)), ("subresources", json!(sub))]
        {
            if v.as_array().is_some_and(|a| !a.is_empty()) {
                r[key] = v;
            }
        }
        by.entry(k.group.clone()).or_default().entry(k.version.clone()).or_default().push(r);
    }
    let mut by: Vec<(String, BTreeMap<String, Vec<Value>>)> = by.into_iter().collect();
    by.sort_by_key(|(g, _)| rank(g));
    let items: Vec<Value> = by
        .into_iter()
        .map(|(group, versions)| {
            let mut versions: Vec<(String, Vec<Value>)> = versions.into_iter().collect();
            versions.sort_by_key(|(v, _)| newest(v));
            let list: Vec<Value> = versions
                .into_iter()
                .map(|(v, r)| json!({"version": v, "resources": r, "freshness": "Current"}))
                .collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": list})
        })
        .collect();
    let version = format!("apidiscovery.k8s.io/{version}");
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": version, "metadata": {}, "items": items})
}

/// Whether a client takes anything that these pages are written in.
#[must_use]
pub fn speaks(req: &Request) -> bool {
    req.accept.contains("as=APIGroupDiscoveryList") || read::form(req).is_ok()
}

/// Serves a discovery path.
pub fn serve(call: &Call<'_>, path: &str) -> Response<Body> {
    let reply = |code, body: &Value| spoken(code, body, read::yaml(&call.req.accept));
    let kinds = kinds(call);
    let parts: Vec<&str> = path.trim_matches('/').split('/').filter(|p| !p.is_empty()).collect();
    let both = call.req.accept.contains("as=APIGroupDiscoveryList").then(|| {
        // clients of old ask for what the list was called before it was stable
        if call.req.accept.contains("v=v2;") || !call.req.accept.contains("v=v2beta1") { "v2" } else { "v2beta1" }
    });
    match parts[..] {
        [] => {
            let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
            for (g, versions) in groups(&kinds) {
                paths.push(format!("/apis/{g}"));
                paths.extend(versions.iter().map(|v| format!("/apis/{g}/{v}")));
            }
            paths
                .extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
            reply(200, &json!({"paths": paths}))
        }
        ["api" | "apis"] if both.is_some() => {
            let version = both.unwrap_or_default();
            let body = aggregated(&kinds, parts[0] == "api", version).to_string();
            let form = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
            let mut r = document(call.req, &form, body);
            r.headers_mut().insert(http::header::VARY, http::HeaderValue::from_static("Accept"));
            r
        }
        ["api"] => {
            let address = call.lab.with(|w| guest::ip(w, call.vmid)).unwrap_or_else(|| "127.0.0.1".to_owned());
            let by = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": format!("{address}:6443")}]);
            reply(200, &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": by}))
        }
        ["apis"] => {
            let mut known: Vec<(String, Vec<String>)> = groups(&kinds).into_iter().collect();
            known.sort_by_key(|(g, _)| rank(g));
            let list: Vec<Value> = known.iter().map(|(g, v)| group(g, v)).collect();
            reply(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}))
        }
        ["apis", g] => match groups(&kinds).get(g) {
            Some(v) => {
                let mut body = group(g, v);
                body["kind"] = json!("APIGroup");
                body["apiVersion"] = json!("v1");
                reply(200, &body)
            }
            None => unserved(g),
        },
        ["api", v] => resources(&kinds, "", v).map_or_else(|| unserved(""), |body| reply(200, &body)),
        ["apis", g, v] => resources(&kinds, g, v).map_or_else(|| unserved(g), |body| reply(200, &body)),
        _ => text(404, "text/plain; charset=utf-8", "404 page not found\n"),
    }
}

fn resources(kinds: &[Arc<Kind>], group: &str, version: &str) -> Option<Value> {
    let list: Vec<Value> =
        kinds.iter().filter(|k| k.group == group && k.version == version).flat_map(|k| resource(k)).collect();
    if list.is_empty() {
        return None;
    }
    // the oldest group says no version of its own
    Some(if group.is_empty() {
        json!({"kind": "APIResourceList", "groupVersion": version, "resources": list})
    } else {
        let gv = format!("{group}/{version}");
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": list})
    })
}
