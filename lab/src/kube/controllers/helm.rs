//! The helm-controller that K3s carries: HelmChart -> job -> release Secret and the chart's objects.
use gpuhost_stdlib::wire::blind;
use serde_json::{Value, json};

use super::super::charts::{self, Chart};
use super::super::cx::{Cx, is_true, key, owner_ref, resource_of};
use super::super::objects::parse_yaml;
use super::super::text::{arr, s, sha256, unb64};
use super::behaviour::Run;
use super::release;

const CHARTS: &str = "helmcharts.helm.cattle.io";
const HASH: &str = "helmcharts.helm.cattle.io/configHash";
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

/// Namespace a chart is installed into.
fn target(chart: &Value) -> String {
    match s(chart, "/spec/targetNamespace") {
        "" => s(chart, "/metadata/namespace").to_owned(),
        ns => ns.to_owned(),
    }
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
    if !chart["metadata"]["annotations"]["helmcharts.helm.cattle.io/unmanaged"].is_null() {
        return;
    }
    if !chart["metadata"]["deletionTimestamp"].is_null() {
        return removal(cx, &chart);
    }
    if !arr(&chart, "/metadata/finalizers").iter().any(|f| f == FINALIZER) {
        cx.update(CHARTS, ns, name, |o| {
            let mut list = o["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            list.push(json!(FINALIZER));
            o["metadata"]["finalizers"] = Value::Array(list);
        });
    }
    let values = values(cx, &chart);
    let hash = format!("SHA256={}", sha256(&format!("{}{values}", chart["spec"])).to_uppercase());
    let job = format!("helm-install-{name}");
    match cx.get("jobs.batch", ns, &job) {
        Some(j) if j["metadata"]["annotations"][HASH] == hash.as_str() => {
            let failed = is_true(j, "Failed");
            return verdict(cx, ns, name, failed);
        }
        Some(_) => cx.delete("jobs.batch", ns, &job),
        // A finished job may have been removed; the chart is only installed again when it changed.
        None if chart["metadata"]["annotations"][HASH] == hash.as_str()
            && release::current(cx, &target(&chart), name).is_some() =>
        {
            return;
        }
        None => {}
    }
    rights(cx, ns, name);
    let mut made = job_object(&chart, &job, "install");
    made["metadata"]["annotations"] = json!({HASH: hash});
    cx.create(made);
    cx.update(CHARTS, ns, name, |o| {
        o["metadata"]["annotations"][HASH] = json!(hash);
        o["status"]["jobName"] = json!(job);
    });
    cx.condition(
        (CHARTS, ns, name),
        "JobCreated",
        "True",
        "Job created",
        &format!("Applying HelmChart using Job {ns}/{job}"),
    );
}

/// The account that helm jobs run as.
fn rights(cx: &mut Cx, ns: &str, name: &str) {
    let sa = format!("helm-{name}");
    cx.ensure(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": sa, "namespace": ns}}));
    cx.create(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("helm-{ns}-{name}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": sa, "namespace": ns}]}));
}

fn job_object(chart: &Value, job: &str, command: &str) -> Value {
    let (ns, name) = key(chart);
    let labels = json!({"helmcharts.helm.cattle.io/chart": name});
    json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": job, "namespace": ns, "labels": labels, "ownerReferences": owner_ref(chart)},
        "spec": {"backoffLimit": chart["spec"]["backOffLimit"].as_i64().unwrap_or(1000), "completions": 1, "parallelism": 1,
            "template": {"metadata": {"labels": labels}, "spec": {"restartPolicy": "OnFailure",
                "serviceAccountName": format!("helm-{name}"),
                "tolerations": [{"operator": "Exists"}], "nodeSelector": {"kubernetes.io/os": "linux"},
                "containers": [{"name": "helm", "image": "rancher/klipper-helm:v0.9.10-build20251111", "args": [command],
                    "env": [{"name": "NAME", "value": name}, {"name": "VERSION", "value": s(chart, "/spec/version")},
                        {"name": "CHART", "value": s(chart, "/spec/chart")}, {"name": "REPO", "value": s(chart, "/spec/repo")}]}]}}}})
}

/// The controller says on the chart whether its job failed for good.
fn verdict(cx: &mut Cx, ns: &str, name: &str, failed: bool) {
    let now = cx.get(CHARTS, ns, name).is_some_and(|c| is_true(c, "Failed"));
    if failed && !now {
        let text = format!("Job {ns}/helm-install-{name} failed");
        cx.condition((CHARTS, ns, name), "Failed", "True", "Job failed", &text);
    } else if !failed && now {
        cx.condition((CHARTS, ns, name), "Failed", "False", "", "");
    }
}

/// A chart that is being deleted: a job uninstalls its release, then the chart goes.
fn removal(cx: &mut Cx, chart: &Value) {
    let (ns, name) = key(chart);
    if !arr(chart, "/metadata/finalizers").iter().any(|f| f == FINALIZER) {
        return;
    }
    let job = format!("helm-delete-{name}");
    if cx.get("jobs.batch", &ns, &job).is_none() {
        rights(cx, &ns, &name);
        cx.create(job_object(chart, &job, "delete"));
    }
}

/// The HelmChart that a job's pod works for.
fn chart_of(cx: &Cx, pod: &Value) -> Option<Value> {
    let name = s(pod, "/metadata/labels/helmcharts.helm.cattle.io~1chart");
    cx.get(CHARTS, s(pod, "/metadata/namespace"), name).cloned()
}

fn render(cx: &Cx, chart: &Value) -> Result<Chart, String> {
    let c = charts::Wanted {
        release: s(chart, "/metadata/name").to_owned(),
        namespace: target(chart),
        chart: s(chart, "/spec/chart").to_owned(),
        repo: s(chart, "/spec/repo").to_owned(),
        version: s(chart, "/spec/version").to_owned(),
        kubernetes: cx.c.version.clone(),
        values: values(cx, chart),
    };
    let made = charts::render(&c)?;
    match made.objects.iter().find(|o| !is_known(cx, &made, o)) {
        Some(o) => Err(format!(
            "Error: INSTALLATION FAILED: unable to build kubernetes objects from release manifest: resource mapping not found for name: \"{}\" namespace: \"{}\" from \"\": no matches for kind \"{}\" in version \"{}\"\nensure CRDs are installed first",
            s(o, "/metadata/name"),
            s(o, "/metadata/namespace"),
            s(o, "/kind"),
            s(o, "/apiVersion")
        )),
        None => Ok(made),
    }
}

/// Whether the API server knows an object's kind, or the chart brings its definition.
fn is_known(cx: &Cx, made: &Chart, o: &Value) -> bool {
    made.crds.contains(&resource_of(o).as_str()) || cx.c.store.kind_of(s(o, "/apiVersion"), s(o, "/kind")).is_some()
}

fn deletes(pod: &Value) -> bool {
    pod["spec"]["containers"][0]["args"][0] == "delete"
}

/// What the helm job's pod does.
pub fn run_of(cx: &mut Cx, pod: &Value) -> Run {
    let Some(chart) = chart_of(cx, pod) else { return Run::Exit { code: 0, after_ms: 1000, log: String::new() } };
    let name = s(&chart, "/metadata/name");
    if deletes(pod) {
        let log =
            format!("+ helm_v3 uninstall --namespace {} {name}\nrelease \"{name}\" uninstalled\n", target(&chart));
        return Run::Exit { code: 0, after_ms: 4000, log };
    }
    match render(cx, &chart) {
        Ok(c) => Run::Exit {
            code: 0,
            after_ms: 6000,
            log: format!(
                "+ helm_v3 install --namespace {} --version {} {name} {name}\nNAME: {name}\nSTATUS: deployed\n",
                target(&chart),
                c.version
            ),
        },
        Err(text) => Run::Exit { code: 1, after_ms: 3000, log: format!("+ helm_v3 install {name}\n{text}\n") },
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
    let before = release::objects(cx, &ns, &name);
    cx.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}}));
    for crd in &c.crds {
        let now = cx.now();
        if !cx.c.store.install_crd(now, crd) {
            continue;
        }
        super::misc::definition(cx);
    }
    for mut obj in c.objects.clone() {
        obj["metadata"]["annotations"]["meta.helm.sh/release-name"] = json!(name);
        obj["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = json!(ns);
        obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
        if obj["metadata"]["namespace"].is_null() && cx.namespaced(&obj) {
            obj["metadata"]["namespace"] = json!(ns);
        }
        cx.writing("helm", |cx| cx.ensure(obj));
    }
    // what the revision before had and this one has not is removed
    for old in before {
        let kept =
            c.objects.iter().any(|o| o["kind"] == old["kind"] && s(o, "/metadata/name") == s(&old, "/metadata/name"));
        if !kept {
            let (at, n) = key(&old);
            let at = if at.is_empty() { ns.clone() } else { at };
            cx.delete(&resource_of(&old), &at, &n);
        }
    }
    let values = values(cx, &chart);
    cx.c.apps.insert(format!("values/{name}"), values.clone());
    cx.writing("helm", |cx| release::record(cx, &ns, &name, &c, &values));
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
                    && s(o, "/kind") != "PersistentVolumeClaim"
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
    for job in [format!("helm-install-{name}"), format!("helm-delete-{name}")] {
        cx.delete("jobs.batch", &home, &job);
    }
    cx.delete("serviceaccounts", &home, &format!("helm-{name}"));
    cx.delete("clusterrolebindings.rbac.authorization.k8s.io", "", &format!("helm-{home}-{name}"));
}
