//! The agent's side of Fleet: a bundle's objects as a Helm release of the bundle's name, drift, and what is wrong with it.
use gpuhost_stdlib::wire::blind;
use serde_json::{Value, json};

use super::bundle::Bundle;
use crate::kube::charts;
use crate::kube::cx::{Cx, key, resource_of};
use crate::kube::text::{s, shown};

/// Mark of Fleet's objects.
pub const SET: &str = "objectset.rio.cattle.io/id";

/// How a bundle is on the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// `Ready`, `NotReady`, `Modified`, `ErrApplied`, `WaitApplied`.
    pub word: &'static str,
    /// What Fleet shows.
    pub message: String,
}

fn state(word: &'static str, message: impl Into<String>) -> State {
    State { word, message: message.into() }
}

fn set_id(bundle: &str) -> String {
    format!("default-{bundle}")
}

/// Objects that the bundle wants, dressed as Helm and Fleet dress them.
fn wanted(cx: &mut Cx, b: &Bundle) -> Result<(Vec<&'static str>, Vec<Value>), String> {
    if let Some(e) = &b.error {
        return Err(e.clone());
    }
    let helm = &b.fleet["helm"];
    let ns = [&b.fleet["namespace"], &b.fleet["defaultNamespace"]].into_iter().find_map(Value::as_str);
    let ns = ns.unwrap_or("default").to_owned();
    let release = helm["releaseName"].as_str().unwrap_or(&b.name).to_owned();
    let mut crds = Vec::new();
    let mut all = b.objects.clone();
    if let Some(chart) = helm["chart"].as_str() {
        let w = charts::Wanted {
            release: release.clone(),
            namespace: ns.clone(),
            chart: chart.to_owned(),
            repo: s(helm, "/repo").to_owned(),
            version: s(helm, "/version").to_owned(),
            kubernetes: cx.c.version.clone(),
            values: helm["values"].clone(),
        };
        let c = charts::render(&w)?;
        cx.w.meets("kube/charts");
        if !c.notes.is_empty() {
            cx.w.not_rehearsed.insert(blind::chart(&c.name));
        }
        crds = c.crds;
        all.extend(c.objects);
    }
    for o in &mut all {
        if cx.c.store.kind_of(s(o, "/apiVersion"), s(o, "/kind")).is_none()
            && !crds.iter().any(|c| c.starts_with(&resource_of(o)))
        {
            return Err(format!(
                "unable to build kubernetes objects from release manifest: resource mapping not found for name: \"{}\" namespace: \"{ns}\" from \"\": no matches for kind \"{}\" in version \"{}\"\nensure CRDs are installed first",
                s(o, "/metadata/name"),
                s(o, "/kind"),
                s(o, "/apiVersion")
            ));
        }
        if o["metadata"]["namespace"].is_null() && cx.namespaced(o) {
            o["metadata"]["namespace"] = json!(ns);
        }
        o["metadata"]["annotations"]["meta.helm.sh/release-name"] = json!(release);
        o["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = json!(ns);
        o["metadata"]["annotations"][SET] = json!(set_id(&b.name));
        o["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
        o["metadata"]["labels"]["objectset.rio.cattle.io/hash"] =
            json!(crate::kube::text::sha256(&set_id(&b.name))[..40]);
    }
    Ok((crds, all))
}

/// Somebody else's release of that name holds an object.
fn foreign(cx: &Cx, o: &Value) -> Option<String> {
    let live = cx.get(&resource_of(o), s(o, "/metadata/namespace"), s(o, "/metadata/name"))?;
    let theirs = &live["metadata"]["annotations"]["meta.helm.sh/release-name"];
    let ours = &o["metadata"]["annotations"]["meta.helm.sh/release-name"];
    if live["metadata"]["annotations"][SET] == o["metadata"]["annotations"][SET] {
        return None;
    }
    Some(format!(
        "unable to continue with install: {} \"{}\" in namespace \"{}\" exists and cannot be imported into the current release: invalid ownership metadata; annotation validation error: key \"meta.helm.sh/release-name\" must equal {ours}: current value is {theirs}",
        s(o, "/kind"),
        s(o, "/metadata/name"),
        s(o, "/metadata/namespace")
    ))
}

/// Brings a bundle's objects to the cluster, when `apply`; says how it is.
pub fn run(cx: &mut Cx, b: &Bundle, apply: bool, correct: bool) -> State {
    let (crds, all) = match wanted(cx, b) {
        Ok(w) => w,
        Err(e) => return state("ErrApplied", e),
    };
    if apply {
        for crd in crds {
            let now = cx.now();
            cx.c.store.install_crd(now, crd);
            crate::kube::controllers::misc::definition(cx);
        }
        let mut namespaces: Vec<String> = all.iter().map(|o| s(o, "/metadata/namespace").to_owned()).collect();
        namespaces.sort();
        namespaces.dedup();
        let made = |n: &str| all.iter().any(|o| s(o, "/kind") == "Namespace" && s(o, "/metadata/name") == n);
        for ns in namespaces.into_iter().filter(|n| !n.is_empty() && !made(n)) {
            cx.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}}));
        }
        if let Some(text) = all.iter().find_map(|o| foreign(cx, o)) {
            return state("ErrApplied", text);
        }
        let mut sorted = all.clone();
        sorted.sort_by_key(|o| u8::from(s(o, "/kind") != "Namespace"));
        for o in sorted {
            cx.writing("fleetagent", |cx| cx.ensure(o));
        }
        prune(cx, b, &all);
    }
    drift(cx, &all, correct)
}

/// Objects of the bundle that its folder no longer has.
fn prune(cx: &mut Cx, b: &Bundle, wanted: &[Value]) {
    if b.fleet["keepResources"] == true {
        return;
    }
    let keep: Vec<(String, (String, String))> = wanted.iter().map(|o| (resource_of(o), key(o))).collect();
    for (resource, (ns, name)) in owned(cx, &b.name) {
        if !keep.iter().any(|(r, k)| *r == resource && *k == (ns.clone(), name.clone())) {
            cx.delete(&resource, &ns, &name);
        }
    }
}

/// Objects that carry the bundle's mark.
fn owned(cx: &Cx, bundle: &str) -> Vec<(String, (String, String))> {
    let id = set_id(bundle);
    let resources: Vec<String> = cx.c.store.resources().map(str::to_owned).collect();
    let mut out = Vec::new();
    for r in resources {
        for o in cx.list(&r) {
            if o["metadata"]["annotations"][SET] == id.as_str() && s(o, "/kind") != "PersistentVolumeClaim" {
                out.push((r.clone(), key(o)));
            }
        }
    }
    out
}

/// A bundle is gone: so are its objects, unless it keeps them.
pub fn remove(cx: &mut Cx, bundle: &Value) {
    if bundle["spec"]["keepResources"] == true {
        return;
    }
    for (resource, (ns, name)) in owned(cx, s(bundle, "/metadata/name")) {
        cx.delete(&resource, &ns, &name);
    }
}

/// Whether `live` still has everything that `wanted` says.
fn differs(wanted: &Value, live: &Value, path: &str) -> Option<String> {
    match (wanted, live) {
        (Value::Object(w), Value::Object(_)) => {
            w.iter().find_map(|(k, v)| differs(v, &live[k], &format!("{path}.{k}")))
        }
        (Value::Array(w), Value::Array(l)) if w.len() == l.len() => {
            w.iter().zip(l).enumerate().find_map(|(i, (a, b))| differs(a, b, &format!("{path}[{i}]")))
        }
        (w, l) => (w != l && !same_quantity(w, l)).then(|| format!("{path}: {l} instead of {w}")),
    }
}

fn same_quantity(a: &Value, b: &Value) -> bool {
    shown(a) == shown(b)
}

fn drift(cx: &mut Cx, all: &[Value], correct: bool) -> State {
    let mut bad = Vec::new();
    for o in all {
        let (ns, name) = key(o);
        let resource = resource_of(o);
        let what = format!("{} {name}", resource);
        match cx.get(&resource, &ns, &name).cloned() {
            None => bad.push((state("Modified", format!("{what} missing")), o.clone())),
            Some(live) => {
                let fields = ["spec", "data", "rules"];
                let found =
                    fields.iter().find_map(|f| if o[*f].is_null() { None } else { differs(&o[*f], &live[*f], f) });
                if let Some(d) = found {
                    bad.push((state("Modified", format!("{what} modified {{{d}}}")), o.clone()));
                }
            }
        }
    }
    if correct {
        for (_, o) in std::mem::take(&mut bad) {
            cx.writing("fleetagent", |cx| cx.ensure(o));
        }
    }
    if let Some((st, _)) = bad.into_iter().next() {
        return st;
    }
    for o in all.iter().filter(|o| matches!(s(o, "/kind"), "Deployment" | "DaemonSet" | "StatefulSet")) {
        let (ns, name) = key(o);
        let Some(live) = cx.get(&resource_of(o), &ns, &name) else { continue };
        let n = |f: &str| live["status"][f].as_i64().unwrap_or(0);
        let (want, have) = match s(o, "/kind") {
            "DaemonSet" => (n("desiredNumberScheduled"), n("numberReady")),
            _ => (live["spec"]["replicas"].as_i64().unwrap_or(1), n("readyReplicas")),
        };
        if have < want {
            return state(
                "NotReady",
                format!("{}.apps {ns}/{name} [progressing] Available: {have}/{want}", s(o, "/kind").to_lowercase()),
            );
        }
    }
    state("Ready", "")
}
