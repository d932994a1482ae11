//! The agent's side of Fleet: a bundle's objects as a Helm release of the bundle's name, drift, and what is wrong with it.
use gpuhost_stdlib::wire::blind;
use serde_json::{Value, json};

use super::bundle::Bundle;
use super::deployment;
use crate::kube::charts::{self, Chart};
use crate::kube::controllers::{helmapply, release};
use crate::kube::cx::{Cx, key, resource_of};
use crate::kube::objectset::Set;
use crate::kube::text::{s, shown};

/// In the chart of a release of Fleet's: the bundle.
const BUNDLE_ID: &str = "fleet.cattle.io/bundle-id";
/// Mark of Fleet's objects.
pub const SET: &str = "objectset.rio.cattle.io/id";

/// How a bundle is on the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// `Ready`, `NotReady`, `Modified`, `ErrApplied`, `WaitApplied`.
    pub word: &'static str,
    /// What Fleet shows.
    pub message: String,
    /// `namespace/name:revision` of its release, when that was looked at.
    pub release: Option<String>,
    /// Its objects, as the deployment's status lists them.
    pub resources: Vec<Value>,
}

pub(super) fn state(word: &'static str, message: impl Into<String>) -> State {
    State { word, message: message.into(), ..State::default() }
}

fn set_id(bundle: &str) -> String {
    format!("default-{bundle}")
}

/// A bundle as a Helm release.
struct Release {
    namespace: String,
    name: String,
    crds: Vec<&'static str>,
    /// As the release keeps it, with the marks that Fleet puts on its objects.
    chart: Chart,
}

/// The release that a bundle is, as of a commit.
fn wanted(cx: &mut Cx, b: &Bundle, commit: &str) -> Result<Release, String> {
    if let Some(e) = &b.error {
        return Err(e.clone());
    }
    let helm = &b.fleet["helm"];
    let (ns, name) = deployment::release_of(&deployment::options(b), &b.name);
    let mut chart = Chart {
        name: b.name.clone(),
        version: format!("v0.0.0+git-{}", &commit[..commit.len().min(12)]),
        objects: b.objects.clone(),
        ..Chart::default()
    };
    if let Some(named) = helm["chart"].as_str() {
        let w = charts::Wanted {
            release: name.clone(),
            namespace: ns.clone(),
            chart: named.to_owned(),
            repo: s(helm, "/repo").to_owned(),
            version: s(helm, "/version").to_owned(),
            kubernetes: cx.c.version.clone(),
            values: helm["values"].clone(),
        };
        let mut c = charts::render(&w)?;
        cx.w.meets("kube/charts");
        if !c.notes.is_empty() {
            cx.w.not_rehearsed.insert(blind::chart(&c.name));
        }
        c.objects.extend(b.objects.clone());
        chart = c;
    }
    let crds = std::mem::take(&mut chart.crds);
    let id = set_id(&b.name);
    let hash = Set::named(&id).hash();
    for o in &mut chart.objects {
        let defined = crds.iter().any(|c| c.starts_with(&resource_of(o)));
        if o["metadata"]["namespace"].is_null() && cx.namespaced(o) {
            o["metadata"]["namespace"] = json!(ns);
        }
        if cx.c.store.kind_of(s(o, "/apiVersion"), s(o, "/kind")).is_none() && !defined {
            return Err(helmapply::unmapped(o));
        }
        o["metadata"]["annotations"][SET] = json!(id);
        o["metadata"]["labels"]["objectset.rio.cattle.io/hash"] = json!(hash);
    }
    chart.metadata = json!({"name": chart.name, "version": chart.version, "apiVersion": "v2", "annotations": {
        BUNDLE_ID: b.name, "fleet.cattle.io/agent-namespace": "cattle-fleet-local-system",
        "fleet.cattle.io/commit": commit, "fleet.cattle.io/keep-resources": (b.fleet["keepResources"] == true).to_string(),
        "fleet.cattle.io/service-account": ""}});
    chart.manifest = String::new();
    Ok(Release { namespace: ns, name, crds, chart })
}

/// Somebody else's release holds an object.
fn foreign(cx: &Cx, o: &Value) -> Option<String> {
    let live = cx.get(&resource_of(o), s(o, "/metadata/namespace"), s(o, "/metadata/name"))?;
    let theirs = &live["metadata"]["annotations"]["meta.helm.sh/release-name"];
    let ours = &o["metadata"]["annotations"]["meta.helm.sh/release-name"];
    if theirs == ours {
        return None;
    }
    Some(format!(
        "unable to continue with install: {} \"{}\" in namespace \"{}\" exists and cannot be imported into the current release: invalid ownership metadata; annotation validation error: key \"meta.helm.sh/release-name\" must equal {ours}: current value is {theirs}",
        s(o, "/kind"),
        s(o, "/metadata/name"),
        s(o, "/metadata/namespace")
    ))
}

/// Brings a bundle's release to the cluster, when `apply`; says how it is.
pub(super) fn run(cx: &mut Cx, b: &Bundle, commit: &str, apply: bool, correct: bool) -> State {
    let r = match wanted(cx, b, commit) {
        Ok(r) => r,
        Err(e) => return state("ErrApplied", e),
    };
    let objects: Vec<Value> =
        r.chart.objects.iter().map(|o| helmapply::dressed(cx, &r.namespace, &r.name, o)).collect();
    if apply && let Err(e) = install(cx, &r, &objects, b) {
        return state("ErrApplied", e);
    }
    let mut st = drift(cx, &objects, correct);
    let applied =
        cx.get(deployment::DEPLOYMENTS, deployment::HOME, &b.name).map(|d| s(d, "/status/release").to_owned());
    st.release = match (apply, applied) {
        // what was applied before is known by its revision: another one on top of it is somebody else's
        (false, Some(old)) if !old.is_empty() => Some(old),
        _ => Some(format!("{}/{}:{}", r.namespace, r.name, release::newest(cx, &r.namespace, &r.name))),
    };
    st.resources = objects
        .iter()
        .map(|o| {
            json!({"apiVersion": o["apiVersion"], "kind": o["kind"], "name": o["metadata"]["name"],
            "namespace": o["metadata"]["namespace"]})
        })
        .collect();
    st
}

/// Helm installs the release, or upgrades what is deployed under its name.
fn install(cx: &mut Cx, r: &Release, objects: &[Value], b: &Bundle) -> Result<(), String> {
    for crd in &r.crds {
        let now = cx.now();
        cx.c.store.install_crd(now, crd);
        crate::kube::controllers::misc::definition(cx);
    }
    cx.writing("fleetagent", |cx| {
        cx.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": r.namespace}}))
    });
    let deployed = release::current(cx, &r.namespace, &r.name).is_some();
    // an upgrade takes over what it finds
    let adopts = deployed || b.fleet["helm"]["takeOwnership"] == true;
    if let Some(text) = objects.iter().find_map(|o| foreign(cx, o)).filter(|_| !adopts) {
        return Err(text);
    }
    let before = helmapply::earlier(cx, &r.namespace, &r.name);
    let mut sorted: Vec<&Value> = objects.iter().collect();
    sorted.sort_by_key(|o| u8::from(s(o, "/kind") != "Namespace"));
    for o in sorted {
        helmapply::write(cx, "fleetagent", helmapply::was(&before, o), o)?;
    }
    helmapply::prune(cx, &before, objects);
    let values = b.fleet["helm"]["values"].clone();
    cx.writing("fleetagent", |cx| release::record(cx, &r.namespace, &r.name, &r.chart, &values));
    Ok(())
}

/// Somebody upgrades a release with helm to a chart of its own, which has the first of its objects and no other.
///
/// # Errors
/// When there is no such release.
pub fn upgrade_by_hand(cx: &mut Cx, ns: &str, name: &str) -> Result<(), String> {
    let mut objects = release::objects(cx, ns, name);
    if objects.len() < 2 {
        return Err(format!("release {ns}/{name} has no objects to lose"));
    }
    let gone = objects.split_off(1);
    for o in gone {
        let (at, n) = key(&o);
        cx.delete(&resource_of(&o), &at, &n);
    }
    let chart = Chart { name: "own".to_owned(), version: "0.1.0".to_owned(), objects, ..Chart::default() };
    cx.writing("helm", |cx| release::record(cx, ns, name, &chart, &Value::Null));
    Ok(())
}

/// A deployment goes: its release is uninstalled with all it holds, unless the bundle keeps its objects.
pub(super) fn remove(cx: &mut Cx, d: &Value) {
    let (ns, name) = deployment::release_of(&d["spec"]["options"], s(d, "/metadata/name"));
    if d["spec"]["options"]["keepResources"] != true {
        let held: Vec<Value> = release::objects(cx, &ns, &name).into_iter().rev().collect();
        helmapply::prune(cx, &held, &[]);
    }
    release::forget(cx, &ns, &name);
}

/// What `wanted` says and `live` has not: the first of it, in its place.
fn differs(wanted: &Value, live: &Value) -> Option<Value> {
    match (wanted, live) {
        (Value::Object(w), Value::Object(_)) => {
            w.iter().find_map(|(k, v)| differs(v, &live[k]).map(|d| json!({k.as_str(): d})))
        }
        (Value::Array(w), Value::Array(l)) if w.len() == l.len() => {
            w.iter().zip(l).any(|(a, b)| differs(a, b).is_some()).then(|| wanted.clone())
        }
        (w, l) => (w != l && !same_quantity(w, l)).then(|| w.clone()),
    }
}

/// `service.v1 shop/web`: an object as Fleet's messages name it.
fn shown_as(o: &Value) -> String {
    let (ns, name) = key(o);
    let group = s(o, "/apiVersion").split_once('/').map_or(s(o, "/apiVersion"), |(g, _)| g);
    let place = if ns.is_empty() { name } else { format!("{ns}/{name}") };
    format!("{}.{group} {place}", s(o, "/kind").to_lowercase())
}

fn same_quantity(a: &Value, b: &Value) -> bool {
    shown(a) == shown(b)
}

fn drift(cx: &mut Cx, all: &[Value], correct: bool) -> State {
    let mut bad = Vec::new();
    for o in all {
        let (ns, name) = key(o);
        let resource = resource_of(o);
        let what = shown_as(o);
        match cx.get(&resource, &ns, &name).cloned() {
            None => bad.push((state("Modified", format!("{what} missing")), o.clone())),
            Some(live) => {
                let fields = ["spec", "data", "rules"];
                let found = fields.iter().find_map(|f| {
                    if o[*f].is_null() { None } else { differs(&o[*f], &live[*f]).map(|d| json!({*f: d})) }
                });
                if let Some(d) = found {
                    bad.push((state("Modified", format!("{what} modified {d}")), o.clone()));
                }
            }
        }
    }
    if correct {
        for (_, o) in std::mem::take(&mut bad) {
            if let Err(e) = helmapply::write(cx, "fleetagent", None, &o) {
                return state("ErrApplied", e);
            }
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
