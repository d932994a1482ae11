//! The job of helm-controller for one HelmChart, with what it mounts and runs as. Grade: source (helm-controller 0.16
//! and 0.17).
use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::k3s::{manifests, release};
use super::super::text::{arr, b64, s, sha256};

/// Says on the pods of a job what they were made from.
pub const HASH: &str = "helmcharts.helm.cattle.io/configHash";
/// Names the chart on jobs and their pods.
pub const CHART: &str = "helmcharts.helm.cattle.io/chart";
const MODE: u32 = 0o644;

/// Name of the job that does what the chart needs now.
#[must_use]
pub fn name(chart: &Value) -> String {
    let action = if chart["metadata"]["deletionTimestamp"].is_null() { "install" } else { "delete" };
    format!("helm-{action}-{}", s(chart, "/metadata/name"))
}

/// Namespace a chart is installed into.
#[must_use]
pub fn target(chart: &Value) -> String {
    match s(chart, "/spec/targetNamespace") {
        "" => s(chart, "/metadata/namespace").to_owned(),
        ns => ns.to_owned(),
    }
}

/// Where a chart comes from, in the words of the controller's event.
#[must_use]
pub fn source(chart: &Value) -> String {
    let (name, version, repo) = (s(chart, "/spec/chart"), s(chart, "/spec/version"), s(chart, "/spec/repo"));
    if !s(chart, "/spec/chartContent").is_empty() {
        return match s(chart, "/metadata/annotations/helm.cattle.io~1chart-url") {
            "" => "inline spec.chartContent".to_owned(),
            url => format!("inline spec.chartContent from {url}"),
        };
    }
    match (name.starts_with("oci://"), version) {
        (true, "") => format!("latest stable version from OCI registry {name}"),
        (true, v) => format!("version {v} from OCI registry {name}"),
        _ if name.contains("://") => name.to_owned(),
        (_, "") => format!("latest stable version of {name} from chart repository {repo}"),
        (_, v) => format!("{name} version {v} from chart repository {repo}"),
    }
}

/// Arguments of the job's container.
fn args(chart: &Value) -> Vec<String> {
    if !chart["metadata"]["deletionTimestamp"].is_null() {
        return vec!["delete".to_owned()];
    }
    let mut out = vec!["install".to_owned()];
    let mut more = |words: &[&str]| out.extend(words.iter().map(|w| (*w).to_owned()));
    if !s(chart, "/spec/targetNamespace").is_empty() {
        more(&["--namespace", s(chart, "/spec/targetNamespace")]);
    }
    if chart["spec"]["createNamespace"] == true {
        more(&["--create-namespace"]);
    }
    if chart["spec"]["takeOwnership"] == true {
        more(&["--take-ownership"]);
    }
    if !s(chart, "/spec/version").is_empty() {
        more(&["--version", s(chart, "/spec/version")]);
    }
    let mut set: Vec<(&String, &Value)> = chart["spec"]["set"].as_object().into_iter().flatten().collect();
    set.sort_by_key(|(k, _)| *k);
    for (k, v) in set {
        let text = super::super::text::shown(v);
        let typed = v.is_number() || matches!(text.to_lowercase().as_str(), "true" | "false" | "null");
        match typed {
            true => more(&["--set", &format!("{k}={text}")]),
            false => more(&["--set-string", &format!("{k}={}", escaped(&text))]),
        }
    }
    out
}

/// Commas that are not escaped yet are.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    let mut slashes = 0;
    for c in text.chars() {
        if c == ',' && slashes % 2 == 0 {
            out.push('\\');
        }
        slashes = if c == '\\' { slashes + 1 } else { 0 };
        out.push(c);
    }
    out
}

fn full(v: &Value) -> bool {
    !v.is_null() && v.as_object().is_none_or(|m| !m.is_empty())
}

/// The Secret with a chart's own values, and the items of it that are mounted.
fn values(chart: &Value, config: Option<&Value>) -> (Value, Vec<Value>) {
    let (ns, name) = key(chart);
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "helmcharts.helm.cattle.io/values",
        "metadata": {"name": format!("chart-values-{name}"), "namespace": ns}, "data": {}});
    let mut items = Vec::new();
    let mut put = |key: &str, path: &str, text: String| {
        secret["data"][key] = b64(text.as_bytes()).into();
        items.push(json!({"key": key, "path": path}));
    };
    for (of, kind, n) in [(Some(chart), "HelmChart", 0), (config, "HelmChartConfig", 1)] {
        let Some(of) = of else { continue };
        let spec = &of["spec"];
        if let Some(text) = spec["valuesContent"].as_str().filter(|t| !t.is_empty()) {
            let path = format!("values-{n}-000-{kind}-ValuesContent.yaml");
            put(&format!("{kind}ValuesContent"), &path, text.to_owned());
        }
        if full(&spec["values"]) {
            let path = format!("values-{n}-001-{kind}-Values.yaml");
            put(&format!("{kind}Values"), &path, serde_saphyr::to_string(&spec["values"]).unwrap_or_default());
        }
        if let Some(ca) = spec["repoCA"].as_str().filter(|t| !t.is_empty()) {
            put("RepoCA", "ca-file.pem", ca.to_owned());
        }
    }
    (secret, items)
}

/// The other Secrets that values come from, as they are mounted.
fn other_values(of: &Value, kind: &str, n: u32) -> Vec<Value> {
    let own = format!("chart-values-{}", s(of, "/metadata/name"));
    let mut count = 1;
    arr(of, "/spec/valuesSecrets")
        .iter()
        .filter(|v| !arr(v, "/keys").is_empty() && s(v, "/name") != own)
        .map(|v| {
            let items: Vec<Value> = arr(v, "/keys")
                .iter()
                .map(|k| {
                    count += 1;
                    json!({"key": k, "path": format!("values-{n}-{count:03}-{kind}-ValuesSecret.yaml")})
                })
                .collect();
            json!({"secret": {"name": v["name"], "items": items, "optional": v["ignoreUpdates"] == true}})
        })
        .collect()
}

fn env(chart: &Value) -> Vec<Value> {
    let spec = &chart["spec"];
    let (ns, name) = key(chart);
    let is = |field: &str| (spec[field] == true).to_string();
    let of = match s(chart, "/spec/repo") {
        "" => s(chart, "/spec/chart").to_owned(),
        _ => format!("{name}/{}", s(chart, "/spec/chart")),
    };
    let driver = if s(chart, "/spec/driver").is_empty() { "secret" } else { s(chart, "/spec/driver") };
    let mut out = vec![
        ("NAME", name.clone()),
        ("VERSION", s(chart, "/spec/version").to_owned()),
        ("REPO", s(chart, "/spec/repo").to_owned()),
        ("HELM_DRIVER", driver.to_owned()),
        ("CHART_NAMESPACE", ns),
        ("CHART", of),
        ("HELM_VERSION", s(chart, "/spec/helmVersion").to_owned()),
        ("TARGET_NAMESPACE", target(chart)),
        ("AUTH_PASS_CREDENTIALS", is("authPassCredentials")),
        ("INSECURE_SKIP_TLS_VERIFY", is("insecureSkipTLSVerify")),
        ("PLAIN_HTTP", is("plainHTTP")),
    ];
    if !s(chart, "/spec/timeout").is_empty() {
        out.push(("TIMEOUT", s(chart, "/spec/timeout").to_owned()));
    }
    if spec["bootstrap"] == true {
        let here =
            [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "6443"), ("BOOTSTRAP", "true")];
        out.extend(here.map(|(k, v)| (k, v.to_owned())));
    }
    out.into_iter().map(|(k, v)| variable(k, &v)).collect()
}

/// A variable; one without a value is kept as a name alone.
fn variable(name: &str, value: &str) -> Value {
    if value.is_empty() { json!({"name": name}) } else { json!({"name": name, "value": value}) }
}

/// What a job of a chart that the cluster needs to come up runs despite of.
fn bootstrap_tolerations() -> Value {
    json!([
        {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"},
        {"key": "node.cloudprovider.kubernetes.io/uninitialized", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
        {"key": "CriticalAddonsOnly", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/etcd", "operator": "Exists", "effect": "NoExecute"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
    ])
}

fn pod(cx: &Cx, chart: &Value) -> Value {
    let parts = release::parts_of(&cx.c.version);
    let image = match s(chart, "/spec/jobImage").trim() {
        "" => manifests::image(cx, "klipper-helm", parts.klipper_helm),
        own => own.to_owned(),
    };
    let given =
        |field: &str, usual: Value| if chart["spec"][field].is_null() { usual } else { chart["spec"][field].clone() };
    let folders = [("klipper-helm", ".helm"), ("klipper-cache", ".cache"), ("klipper-config", ".config")];
    let mut volumes: Vec<Value> =
        folders.iter().map(|(n, _)| json!({"name": n, "emptyDir": {"medium": "Memory"}})).collect();
    let mut mounts: Vec<Value> =
        folders.iter().map(|(n, d)| json!({"name": n, "mountPath": format!("/home/klipper-helm/{d}")})).collect();
    volumes.push(json!({"name": "tmp", "emptyDir": {"medium": "Memory"}}));
    mounts.push(json!({"name": "tmp", "mountPath": "/tmp"}));
    let mut mount = |name: &str, path: &str, volume: Value| {
        let mut v = json!({"name": name});
        for (k, x) in volume.as_object().into_iter().flatten() {
            v[k] = x.clone();
        }
        volumes.push(v);
        mounts.push(json!({"name": name, "mountPath": path}));
    };
    if let Some(auth) = chart["spec"]["authSecret"]["name"].as_str() {
        mount("auth", "/auth", json!({"secret": {"secretName": auth, "defaultMode": MODE}}));
    }
    if let Some(docker) = chart["spec"]["dockerRegistrySecret"]["name"].as_str() {
        let items = json!([{"key": ".dockerconfigjson", "path": "config.json"}]);
        let secret = json!({"secret": {"secretName": docker, "defaultMode": MODE, "items": items}});
        mount("dockerconfig", "/home/klipper-helm/.docker", secret);
    }
    if let Some(ca) = chart["spec"]["repoCAConfigMap"]["name"].as_str() {
        mount("ca-files", "/ca-files", json!({"configMap": {"name": ca, "defaultMode": MODE}}));
    }
    let mut out = json!({
        "restartPolicy": "OnFailure", "serviceAccountName": format!("helm-{}", s(chart, "/metadata/name")),
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": given("podSecurityContext", json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})),
        "containers": [{"name": "helm", "image": image, "imagePullPolicy": "IfNotPresent", "args": args(chart), "env": env(chart),
            "securityContext": given("securityContext", json!({"allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true}))}],
    });
    if parts.helm_controller >= (17, 0) {
        out["priorityClassName"] = json!("system-cluster-critical");
    }
    if chart["spec"]["bootstrap"] == true {
        out["nodeSelector"]["node-role.kubernetes.io/control-plane"] = json!("true");
        out["hostNetwork"] = json!(true);
        out["tolerations"] = bootstrap_tolerations();
    }
    out["volumes"] = Value::Array(volumes);
    out["containers"][0]["volumeMounts"] = Value::Array(mounts);
    out
}

/// All that a chart needs: its job last.
#[must_use]
pub fn objects(cx: &Cx, chart: &Value, config: Option<&Value>, revision: u64) -> Vec<Value> {
    let (ns, name) = key(chart);
    let deletes = !chart["metadata"]["deletionTimestamp"].is_null();
    let parts = release::parts_of(&cx.c.version);
    let mut pod = pod(cx, chart);
    let mut out = Vec::new();
    let mut from = String::new();
    if !deletes {
        let (secret, items) = values(chart, config);
        let mut sources = vec![json!({"secret": {"name": secret["metadata"]["name"], "items": items}})];
        sources.extend(other_values(chart, "HelmChart", 0));
        sources.extend(config.map(|c| other_values(c, "HelmChartConfig", 1)).unwrap_or_default());
        let mut content = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("chart-content-{name}"), "namespace": ns}});
        if let Some(text) = chart["spec"]["chartContent"].as_str().filter(|t| !t.is_empty()) {
            content["data"][format!("{name}.tgz.base64")] = text.into();
        }
        for (list, more) in [
            ("/volumes", json!({"name": "values", "projected": {"defaultMode": MODE, "sources": sources}})),
            (
                "/volumes",
                json!({"name": "content", "configMap": {"name": content["metadata"]["name"], "defaultMode": MODE}}),
            ),
            ("/containers/0/volumeMounts", json!({"name": "values", "mountPath": "/config"})),
            ("/containers/0/volumeMounts", json!({"name": "content", "mountPath": "/chart"})),
        ] {
            pod.pointer_mut(list).and_then(Value::as_array_mut).into_iter().for_each(|l| l.push(more.clone()));
        }
        from = format!("{}{}{}", secret["data"], content["data"], told(cx, chart, config));
        out.extend([secret, content]);
    }
    let say = |field: &str, usual: &str| {
        let of = config.filter(|c| !c["spec"][field].is_null()).unwrap_or(chart);
        of["spec"].get(field).filter(|v| !v.is_null()).map_or_else(|| usual.to_owned(), super::super::text::shown)
    };
    let mut late = vec![("FAILURE_POLICY", say("failurePolicy", "reinstall"))];
    if parts.helm_controller >= (17, 6) {
        late.extend([("SERVER_SIDE", say("serverSide", "auto")), ("FORCE_CONFLICTS", say("forceConflicts", "false"))]);
    }
    push_env(&mut pod, late);
    let limit = chart["spec"]["backOffLimit"].as_i64().unwrap_or(1000);
    let hash = sha256(&format!("{limit}{pod}{from}")).to_uppercase();
    if parts.helm_controller >= (17, 6) {
        let known = vec![("EXPECTED_RELEASE_REVISION", revision.to_string()), ("CONFIG_HASH", hash[..63].to_owned())];
        push_env(&mut pod, known);
    } else if parts.helm_controller >= (17, 0) && revision > 0 {
        push_env(&mut pod, vec![("EXPECTED_RELEASE_REVISION", revision.to_string())]);
    }
    out.extend(account(&ns, &name));
    let labels = json!({CHART: name});
    out.push(json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": self::name(chart), "namespace": ns, "labels": labels},
        "spec": {"backoffLimit": limit, "suspend": false, "template": {
            "metadata": {"annotations": {HASH: format!("SHA256={hash}")}, "labels": labels}, "spec": pod}}}));
    out
}

fn push_env(pod: &mut Value, more: Vec<(&str, String)>) {
    if let Some(env) = pod["containers"][0]["env"].as_array_mut() {
        env.extend(more.into_iter().map(|(k, v)| variable(k, &v)));
    }
}

/// What the Secrets say that values come from, unless their changes are to be ignored.
fn told(cx: &Cx, chart: &Value, config: Option<&Value>) -> String {
    let ns = s(chart, "/metadata/namespace");
    let sources = [Some(chart), config].into_iter().flatten().flat_map(|o| arr(o, "/spec/valuesSecrets"));
    sources
        .filter(|v| v["ignoreUpdates"] != true)
        .filter_map(|v| cx.get("secrets", ns, s(v, "/name")))
        .map(|secret| secret["data"].to_string())
        .collect()
}

/// The account that helm jobs run as.
fn account(ns: &str, name: &str) -> [Value; 2] {
    let account = format!("helm-{name}");
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": ns},
            "automountServiceAccountToken": true}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("helm-{ns}-{name}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": ns}]}),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_sources() {
        let chart = json!({"spec": {"chart": "nginx", "repo": "https://r", "version": "1", "targetNamespace": "web",
            "createNamespace": true, "set": {"b": 2, "a": "x,y", "c": "true"}}});
        let wanted =
            "install --namespace web --create-namespace --version 1 --set-string a=x\\,y --set b=2 --set c=true";
        assert_eq!(args(&chart).join(" "), wanted);
        assert_eq!(source(&chart), "nginx version 1 from chart repository https://r");
        assert_eq!(
            source(&json!({"spec": {"chart": "oci://r/c"}})),
            "latest stable version from OCI registry oci://r/c"
        );
        assert_eq!(escaped("a\\,b,c"), "a\\,b\\,c");
    }
}
