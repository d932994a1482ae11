//! The helm-controller that K3s carries: HelmChart -> job -> release Secret and the chart's objects.
use gpuhost_stdlib::wire::blind;
use serde_json::{Value, json};

use super::super::charts::{self, Chart};
use super::super::cx::{Cx, is_true, key, resource_of};
use super::super::k3s::release::parts_of;
use super::super::objects::parse_yaml;
use super::super::objectset::Set;
use super::super::text::{arr, s, unb64};
use super::behaviour::Run;
use super::helmhooks::{self, Step};
use super::helmjob::{self, target};
use super::helmpacked::Order;
use super::{helmapply, helmlog, release};

const CHARTS: &str = "helmcharts.helm.cattle.io";
const CONTROLLER: &str = "helm-controller";
const MANAGED: &str = "helmcharts.cattle.io/managed-by";
/// Keeps a HelmChart until its release is uninstalled.
const FINALIZER: &str = "wrangler.cattle.io/on-helm-chart-remove";

fn merge(a: &mut Value, b: &Value) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for (k, v) in y {
                merge(x.entry(k.clone()).or_insert(Value::Null), v);
            }
        }
        (a, b) if !b.is_null() => *a = b.clone(),
        _ => {}
    }
}

/// Values of a HelmChart: its text, its Secrets, its HelmChartConfig, its `set`, in their order.
fn values(cx: &Cx, chart: &Value) -> Value {
    let (ns, name) = key(chart);
    let mut out = json!({});
    merge(&mut out, &chart["spec"]["values"]);
    merge(&mut out, &parse_yaml(s(chart, "/spec/valuesContent")));
    for source in arr(chart, "/spec/valuesSecrets") {
        let Some(secret) = cx.get("secrets", &ns, s(source, "/name")) else { continue };
        for k in arr(source, "/keys").iter().filter_map(Value::as_str) {
            let text = secret["data"][k].as_str().and_then(unb64).unwrap_or_default();
            merge(&mut out, &parse_yaml(&String::from_utf8_lossy(&text)));
        }
    }
    if let Some(config) = cx.get("helmchartconfigs.helm.cattle.io", &ns, &name) {
        merge(&mut out, &config["spec"]["values"]);
        merge(&mut out, &parse_yaml(s(config, "/spec/valuesContent")));
    }
    for (k, v) in chart["spec"]["set"].as_object().into_iter().flatten() {
        out[k] = v.clone();
    }
    out
}

/// A Secret changed: charts that take values from it look again, unless they ignore updates.
pub fn secret_changed(cx: &mut Cx, ns: &str, name: &str) {
    let takes = |chart: &&Value| {
        s(chart, "/metadata/namespace") == ns
            && arr(chart, "/spec/valuesSecrets").iter().any(|v| v["name"] == name && v["ignoreUpdates"] != true)
    };
    let charts: Vec<(String, String)> = cx.list(CHARTS).into_iter().filter(takes).map(key).collect();
    for (ns, name) in charts {
        reconcile(cx, &ns, &name);
    }
}

/// A HelmChart, or the HelmChartConfig of that name, changed. Without a HelmChart there is nothing to do.
pub fn reconcile(cx: &mut Cx, ns: &str, name: &str) {
    let Some(chart) = cx.get(CHARTS, ns, name).cloned() else { return };
    let notes = &chart["metadata"]["annotations"];
    let empty = s(&chart, "/spec/chart").is_empty() && s(&chart, "/spec/chartContent").is_empty();
    if empty || !notes["helmcharts.helm.cattle.io/unmanaged"].is_null() {
        return;
    }
    if notes[MANAGED].as_str().is_some_and(|m| m != CONTROLLER) {
        return;
    }
    cx.writing(CONTROLLER, |cx| {
        if chart["metadata"]["deletionTimestamp"].is_null() {
            claim(cx, ns, name);
            install(cx, ns, name);
        } else {
            removal(cx, &chart);
        }
    });
}

/// The controller calls a chart its own and keeps it until its release is uninstalled.
fn claim(cx: &mut Cx, ns: &str, name: &str) {
    let Some(chart) = cx.get(CHARTS, ns, name) else { return };
    let held = arr(chart, "/metadata/finalizers").iter().any(|f| f == FINALIZER);
    if held && !chart["metadata"]["annotations"][MANAGED].is_null() {
        return;
    }
    cx.update(CHARTS, ns, name, |o| {
        o["metadata"]["annotations"][MANAGED] = json!(CONTROLLER);
        if !held {
            let mut list = o["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            list.push(json!(FINALIZER));
            o["metadata"]["finalizers"] = Value::Array(list);
        }
    });
}

/// Makes the job that installs or upgrades, unless it is there already and nothing has changed.
fn install(cx: &mut Cx, ns: &str, name: &str) {
    let Some(chart) = cx.get(CHARTS, ns, name).cloned() else { return };
    let version = s(&chart, "/spec/helmVersion").to_owned();
    if !matches!(version.as_str(), "" | "v3") {
        let text = format!("Unsupported Helm version {version}: only v3 charts are supported");
        cx.event(&chart, false, "UnsupportedVersion", &text, CONTROLLER);
        let why = ("Unsupported version", "Only Helm v3 charts are supported");
        return conditions(cx, &chart, None, Some(why));
    }
    let config = cx.get("helmchartconfigs.helm.cattle.io", ns, name).cloned();
    let revision = release::newest(cx, &target(&chart), name);
    let mut objects = helmjob::objects(cx, &chart, config.as_ref(), revision);
    let job = helmjob::name(&chart);
    let hash = |o: &Value| o["spec"]["template"]["metadata"]["annotations"][helmjob::HASH].clone();
    let wanted = objects.last().map(hash).unwrap_or_default();
    match cx.get("jobs.batch", ns, &job) {
        Some(j) if hash(j) == wanted => {
            let failed = is_true(j, "Failed");
            return verdict(cx, &chart, &job, failed);
        }
        Some(_) => cx.delete("jobs.batch", ns, &job),
        None => {}
    }
    conditions(cx, &chart, Some(&job), None);
    let text = format!("Applying HelmChart from {} using Job {ns}/{job} ", helmjob::source(&chart));
    cx.event(&chart, true, "ApplyJob", &text, CONTROLLER);
    apply(cx, &chart, "helm-controller-chart-registration", &mut objects);
}

/// Applies what a chart needs, as its own.
fn apply(cx: &mut Cx, chart: &Value, set: &str, objects: &mut [Value]) {
    let set = Set::of(set, chart);
    for o in objects {
        set.mark(o);
        if !o["metadata"]["namespace"].is_null() {
            o["metadata"]["ownerReferences"] = json!([{"apiVersion": chart["apiVersion"], "kind": chart["kind"],
                "name": chart["metadata"]["name"], "uid": chart["metadata"]["uid"],
                "controller": false, "blockOwnerDeletion": false}]);
        }
        match s(o, "/kind") {
            "Job" => drop(cx.create(o.clone())),
            _ => cx.ensure(o.clone()),
        }
    }
}

/// Says on the chart what has become of it.
fn conditions(cx: &mut Cx, chart: &Value, job: Option<&str>, failed: Option<(&str, &str)>) {
    let (ns, name) = key(chart);
    let mut created = json!({"type": "JobCreated", "status": "False"});
    if let Some(job) = job {
        created = json!({"type": "JobCreated", "status": "True", "reason": "Job created",
            "message": format!("Applying HelmChart using Job {ns}/{job}")});
    }
    let mut bad = json!({"type": "Failed", "status": "False"});
    if let Some((reason, message)) = failed {
        bad = json!({"type": "Failed", "status": "True", "reason": reason, "message": message});
    }
    let list = json!([created, bad]);
    cx.update(CHARTS, &ns, &name, |o| {
        if let Some(job) = job {
            o["status"]["jobName"] = json!(job);
        }
        if o["status"]["conditions"] != list {
            o["status"]["conditions"] = list;
        }
    });
}

/// Newer controllers say on the chart that its job failed for good.
fn verdict(cx: &mut Cx, chart: &Value, job: &str, failed: bool) {
    const GIVEN_UP: &str = "Job has reached configured number of retries without succeeding";
    if failed && !is_true(chart, "Failed") && parts_of(&cx.c.version).helm_controller >= (17, 6) {
        cx.event(chart, false, "JobFailed", GIVEN_UP, CONTROLLER);
        conditions(cx, chart, Some(job), Some(("Job failed", GIVEN_UP)));
    }
}

/// A chart that is being deleted: a job uninstalls its release, then the chart goes.
fn removal(cx: &mut Cx, chart: &Value) {
    let (ns, name) = key(chart);
    if !arr(chart, "/metadata/finalizers").iter().any(|f| f == FINALIZER) {
        return;
    }
    let job = helmjob::name(chart);
    if cx.get("jobs.batch", &ns, &job).is_none() {
        let revision = release::newest(cx, &target(chart), &name);
        let mut objects = helmjob::objects(cx, chart, None, revision);
        apply(cx, chart, "helm-chart-registration", &mut objects);
        cx.update(CHARTS, &ns, &name, |o| o["status"]["jobName"] = json!(job));
    }
}

/// The HelmChart that a job's pod works for.
fn chart_of(cx: &Cx, pod: &Value) -> Option<Value> {
    let name = pod["metadata"]["labels"][helmjob::CHART].as_str().unwrap_or_default();
    cx.get(CHARTS, s(pod, "/metadata/namespace"), name).cloned()
}

/// What is rendered when a chart comes as an archive.
fn packed(cx: &Cx, chart: &Value) -> Option<Order> {
    if s(chart, "/spec/chartContent").is_empty() {
        return None;
    }
    let ns = target(chart);
    let upgrade = release::current(cx, &ns, s(chart, "/metadata/name")).is_some();
    Some(Order::of(cx, chart, &ns, upgrade, values(cx, chart)))
}

fn render(cx: &Cx, chart: &Value) -> Result<Chart, String> {
    if let Some(order) = packed(cx, chart) {
        let made = order.made(cx)?;
        return known(cx, made);
    }
    let c = charts::Wanted {
        release: s(chart, "/metadata/name").to_owned(),
        namespace: target(chart),
        chart: s(chart, "/spec/chart").to_owned(),
        repo: s(chart, "/spec/repo").to_owned(),
        version: s(chart, "/spec/version").to_owned(),
        kubernetes: cx.c.version.clone(),
        values: values(cx, chart),
    };
    known(cx, charts::render(&c)?)
}

/// Refuses objects of kinds that nobody defines.
fn known(cx: &Cx, made: Chart) -> Result<Chart, String> {
    match made.objects.iter().find(|o| !is_known(cx, &made, o)) {
        Some(o) => Err(format!("Error: INSTALLATION FAILED: {}", helmapply::unmapped(o))),
        None => Ok(made),
    }
}

/// Whether the API server knows an object's kind, or the chart brings its definition.
fn is_known(cx: &Cx, made: &Chart, o: &Value) -> bool {
    let defined = |d: &Value| {
        let spec = &d["spec"];
        spec["names"]["kind"] == o["kind"]
            && arr(spec, "/versions")
                .iter()
                .any(|v| format!("{}/{}", s(spec, "/group"), s(v, "/name")) == s(o, "/apiVersion"))
    };
    let brings = made.definitions.iter().chain(&made.objects);
    brings.filter(|d| d["kind"] == "CustomResourceDefinition").any(defined)
        || made.crds.contains(&resource_of(o).as_str())
        || cx.c.store.kind_of(s(o, "/apiVersion"), s(o, "/kind")).is_some()
}

fn deletes(pod: &Value) -> bool {
    pod["spec"]["containers"][0]["args"][0] == "delete"
}

/// What the helm job's pod does.
pub fn run_of(cx: &mut Cx, pod: &Value) -> Run {
    let Some(chart) = chart_of(cx, pod) else { return Run::Exit { code: 0, after_ms: 1000, log: String::new() } };
    let now = helmlog::Now::of(cx, pod, &target(&chart), s(&chart, "/metadata/name"));
    if deletes(pod) {
        return Run::Exit { code: 0, after_ms: 4000, log: helmlog::log(&now, Ok(None)) };
    }
    if let Some(order) = packed(cx, &chart) {
        order.begin(cx);
    }
    match render(cx, &chart) {
        Ok(c) if !c.hooks.is_empty() => with_hooks(cx, pod, &chart, &c, &now),
        Ok(c) => match refused(cx, &target(&chart), s(&chart, "/metadata/name"), &c) {
            Ok(()) => Run::Exit { code: 0, after_ms: 6000, log: helmlog::log(&now, Ok(Some(&c))) },
            Err(text) => Run::Exit { code: 1, after_ms: 3000, log: helmlog::log(&now, Err(&text)) },
        },
        Err(text) => Run::Exit { code: 1, after_ms: 3000, log: helmlog::log(&now, Err(&text)) },
    }
}

/// Where a job's pod keeps how far it is with hooks.
fn place(pod: &Value) -> String {
    format!("helm-hooks/{}", s(pod, "/metadata/uid"))
}

/// A chart with hooks: those before, its objects, those after; the job runs until all of them have ended.
fn with_hooks(cx: &mut Cx, pod: &Value, chart: &Value, c: &Chart, now: &helmlog::Now) -> Run {
    let (name, ns, place) = (s(chart, "/metadata/name").to_owned(), target(chart), place(pod));
    let upgrade = release::current(cx, &ns, &name).is_some();
    let (before, after) = if upgrade { ("pre-upgrade", "post-upgrade") } else { ("pre-install", "post-install") };
    let put = format!("{place}/objects");
    prepare(cx, &ns, c);
    let mut step = helmhooks::step(cx, &ns, c, before, &place);
    if step == Step::Done {
        if !cx.c.apps.contains_key(&put) {
            if let Err(text) = objects(cx, &ns, &name, c) {
                helmhooks::forget(cx, &place);
                return Run::Exit { code: 1, after_ms: 1000, log: helmlog::log(now, Err(&text)) };
            }
            cx.c.apps.insert(put, json!(true));
        }
        step = helmhooks::step(cx, &ns, c, after, &place);
    }
    match step {
        Step::Done => Run::Exit { code: 0, after_ms: 1000, log: helmlog::log(now, Ok(Some(c))) },
        Step::Wait => Run::Wait { log: format!("waiting for the hooks of {name}") },
        Step::Failed(text) => {
            helmhooks::forget(cx, &place);
            Run::Exit { code: 1, after_ms: 1000, log: helmlog::log(now, Err(&text)) }
        }
    }
}

/// A pod has ended: if it was a helm job's and went well, the release is there.
pub fn pod_done(cx: &mut Cx, pod: &Value, code: i64) {
    if code != 0 || !s(pod, "/spec/containers/0/image").contains("klipper-helm") {
        return;
    }
    let Some(chart) = chart_of(cx, pod) else { return };
    let (name, ns) = (s(&chart, "/metadata/name").to_owned(), target(&chart));
    if deletes(pod) {
        return uninstall(cx, &chart);
    }
    let Ok(c) = render(cx, &chart) else { return };
    cx.w.meets("kube/charts");
    if !c.notes.is_empty() {
        cx.w.not_rehearsed.insert(blind::chart(&c.name));
    }
    if c.hooks.is_empty() {
        prepare(cx, &ns, &c);
        // what the API server refuses here was checked when the job ran
        let _ = objects(cx, &ns, &name, &c);
    }
    helmhooks::forget(cx, &place(pod));
    let values = values(cx, &chart);
    cx.c.apps.insert(format!("values/{name}"), values.clone());
    cx.writing("helm", |cx| release::record(cx, &ns, &name, &c, &values));
}

/// The namespace and the definitions of a chart, which come before everything else.
fn prepare(cx: &mut Cx, ns: &str, c: &Chart) {
    home(cx, ns);
    for crd in &c.crds {
        let now = cx.now();
        if !cx.c.store.install_crd(now, crd) {
            continue;
        }
        super::misc::definition(cx);
    }
    for definition in c.definitions.clone() {
        cx.writing("helm", |cx| cx.create(definition));
        super::misc::definition(cx);
    }
}

/// The namespace of a release.
fn home(cx: &mut Cx, ns: &str) {
    cx.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}}));
}

/// What Helm is at: a release that has no objects yet is installed.
fn verb(before: &[Value]) -> &'static str {
    if before.is_empty() { "INSTALLATION" } else { "UPGRADE" }
}

/// What the API server will not take of a release.
fn refused(cx: &mut Cx, ns: &str, name: &str, c: &Chart) -> Result<(), String> {
    let before = helmapply::earlier(cx, ns, name);
    let packed = !c.manifest.is_empty();
    if packed {
        home(cx, ns);
    }
    let all: Vec<Value> = c.objects.iter().map(|o| helmapply::dressed(cx, ns, name, o)).collect();
    for obj in &all {
        let (at, n) = key(obj);
        let brought = all.iter().any(|o| o["kind"] == "Namespace" && s(o, "/metadata/name") == at);
        let roomless = brought && cx.get("namespaces", "", &at).is_none();
        let there = cx.get(&resource_of(obj), &at, &n).is_some();
        // the catalogue's are valid
        if there || (packed && !roomless) {
            helmapply::fits(cx, helmapply::was(&before, obj), obj)
                .map_err(|e| format!("Error: {} FAILED: {e}", verb(&before)))?;
        }
    }
    Ok(())
}

/// Makes the objects of a release; what the revision before had and this one has not is removed.
///
/// # Errors
/// Helm's words.
fn objects(cx: &mut Cx, ns: &str, name: &str, c: &Chart) -> Result<(), String> {
    let before = helmapply::earlier(cx, ns, name);
    let packed = !c.manifest.is_empty();
    let all: Vec<Value> = c.objects.iter().map(|o| helmapply::dressed(cx, ns, name, o)).collect();
    for obj in &all {
        let (at, n) = key(obj);
        match packed || cx.get(&resource_of(obj), &at, &n).is_some() {
            true => helmapply::write(cx, "helm", helmapply::was(&before, obj), obj)
                .map_err(|e| format!("Error: {} FAILED: {e}", verb(&before)))?,
            // the catalogue's are valid
            false => drop(cx.writing("helm", |cx| cx.create(obj.clone()))),
        }
    }
    helmapply::prune(cx, &before, &all);
    Ok(())
}

/// Removes a release and lets its chart go. Claims that a StatefulSet made have no such annotation and stay.
fn uninstall(cx: &mut Cx, chart: &Value) {
    let (home, name) = key(chart);
    let ns = target(chart);
    let resources: Vec<String> = cx.c.store.resources().map(str::to_owned).collect();
    for r in resources {
        let mine: Vec<Value> = cx
            .list(&r)
            .into_iter()
            .filter(|o| {
                let note = |k: &str| o["metadata"]["annotations"][k].as_str();
                note("meta.helm.sh/release-name") == Some(&name)
                    && note("meta.helm.sh/release-namespace").is_none_or(|n| n == ns)
                    && note("helm.sh/resource-policy") != Some("keep")
            })
            .cloned()
            .collect();
        for o in mine {
            let (ns, n) = key(&o);
            cx.delete(&resource_of(&o), &ns, &n);
        }
    }
    release::forget(cx, &ns, &name);
    cx.update(CHARTS, &home, &name, |o| {
        if let Some(list) = o["metadata"]["finalizers"].as_array_mut() {
            list.retain(|f| f != FINALIZER);
        }
    });
    cx.remove(CHARTS, &home, &name);
    let text = format!("Uninstalled HelmChart using Job {home}/helm-delete-{name}, removing resources");
    cx.event(chart, true, "RemoveJob", &text, CONTROLLER);
    for (resource, owned) in [
        ("jobs.batch", format!("helm-install-{name}")),
        ("jobs.batch", format!("helm-delete-{name}")),
        ("secrets", format!("chart-values-{name}")),
        ("configmaps", format!("chart-content-{name}")),
    ] {
        cx.delete(resource, &home, &owned);
    }
    cx.delete("serviceaccounts", &home, &format!("helm-{name}"));
    cx.delete("clusterrolebindings.rbac.authorization.k8s.io", "", &format!("helm-{home}-{name}"));
}
