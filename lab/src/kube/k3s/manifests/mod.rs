//! The manifests that K3s brings along: for each file the objects in it. Grade: source (K3s 1.33 to 1.36).
mod dns;
mod metrics;
mod rights;
mod storage;

use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::text::s;
use super::config;
use super::release::{Parts, parts_of};

/// A file of the manifests directory.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its path below the directory.
    pub file: &'static str,
    /// What is in it.
    pub objects: Vec<Value>,
}

impl Manifest {
    /// The name of its addon.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let file = self.file.rsplit('/').next().unwrap_or_default();
        file.split('.').next().unwrap_or_default()
    }

    /// Whether an entry of `disable` is meant for it: its name, or that of its folder.
    #[must_use]
    pub fn is_off(&self, disabled: &[String]) -> bool {
        let folder = self.file.split_once('/').map(|(f, _)| f);
        disabled.iter().any(|d| d == self.name() || Some(d.as_str()) == folder)
    }
}

/// What the files of a server are filled in with.
struct Filled<'a> {
    parts: &'a Parts,
    /// `system-default-registry` with a slash behind it, or nothing.
    registry: String,
    domain: String,
    dns: Vec<String>,
    storage: String,
    config: &'a Value,
    minor: u32,
}

impl Filled<'_> {
    fn image(&self, name: &str, tag: &str) -> String {
        format!("{}rancher/{name}:{tag}", self.registry)
    }
}

/// An image of this release, from the registry that the cluster's servers are told to use.
#[must_use]
pub fn image(cx: &Cx, name: &str, tag: &str) -> String {
    format!("{}rancher/{name}:{tag}", registry(&cx.c.config))
}

fn registry(config: &Value) -> String {
    match s(config, "/system-default-registry") {
        "" => String::new(),
        r => format!("{r}/"),
    }
}

/// All files of a release, in the order in which they are applied.
#[must_use]
pub fn all(cx: &Cx, config: &Value) -> Vec<Manifest> {
    let or = |key: &str, usual: &str| match s(config, key) {
        "" => usual.to_owned(),
        v => v.to_owned(),
    };
    let told = config::list(config, "cluster-dns");
    let f = Filled {
        parts: parts_of(&cx.c.version),
        registry: registry(config),
        domain: or("/cluster-domain", "cluster.local"),
        dns: if told.is_empty() { vec![super::packaged::service_address(cx, 10)] } else { told },
        storage: or("/default-local-storage-path", "/var/lib/rancher/k3s/storage"),
        config,
        minor: super::node::minor(&cx.c.version),
    };
    let file = |file: &'static str, objects: Vec<Value>| Manifest { file, objects };
    let mut out = vec![
        file("ccm.yaml", rights::cloud_controller()),
        file("coredns.yaml", dns::coredns(&f)),
        file("local-storage.yaml", storage::local(&f)),
    ];
    out.extend(metrics::server(&f).into_iter().map(|(name, objects)| file(name, objects)));
    out.extend([
        file("rolebindings.yaml", rights::bindings()),
        file("runtimes.yaml", runtimes()),
        file("traefik.yaml", traefik(&f)),
    ]);
    out
}

fn role(name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

/// Binds a ClusterRole for the whole cluster.
fn binding(name: &str, role: &str, subject: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": [subject]})
}

/// Lets somebody read how requests of an extension server's front are known.
fn reader(name: &str, subject: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": "kube-system"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role",
            "name": "extension-apiserver-authentication-reader"}, "subjects": [subject]})
}

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "kube-system"}})
}

/// The account as somebody who is bound.
fn holder(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"})
}

/// What the pods of K3s' own parts tolerate; until 1.33 the control plane had two names.
fn tolerations(f: &Filled) -> Value {
    let taint = |role: &str| json!({"key": format!("node-role.kubernetes.io/{role}"), "operator": "Exists", "effect": "NoSchedule"});
    let mut out = vec![json!({"key": "CriticalAddonsOnly", "operator": "Exists"}), taint("control-plane")];
    if f.minor < 34 {
        out.push(taint("master"));
    }
    Value::Array(out)
}

/// A probe as the manifests write it: over HTTP, all its times told.
fn probe(path: &str, port: Value, scheme: &str, (delay, period): (u32, u32)) -> Value {
    json!({"httpGet": {"path": path, "port": port, "scheme": scheme}, "initialDelaySeconds": delay,
        "periodSeconds": period, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3})
}

/// A Deployment of one pod that is replaced at once.
fn deployment(name: &str, labels: Value, select: Value, pod: Value) -> Value {
    let mut out = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"revisionHistoryLimit": 0, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": select}, "template": {"metadata": {"labels": select}, "spec": pod}}});
    if !labels.is_null() {
        out["metadata"]["labels"] = labels;
    }
    out
}

/// Classes for every runtime that K3s looks for; whether a node has one is another matter.
fn runtimes() -> Vec<Value> {
    const HANDLERS: [&str; 10] =
        ["nvidia", "nvidia-experimental", "crun", "lunatic", "slight", "spin", "wws", "wasmedge", "wasmer", "wasmtime"];
    HANDLERS
        .iter()
        .map(|h| json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": h}, "handler": h}))
        .collect()
}

fn traefik(f: &Filled) -> Vec<Value> {
    let chart = |name: &str| {
        let mut out = json!({"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart",
            "metadata": {"name": name, "namespace": "kube-system"}, "spec": {}});
        if f.parts.helm_controller >= (17, 6) {
            out["spec"] = json!({"forceConflicts": true, "failurePolicy": "retry"});
        }
        out["spec"]["chart"] =
            format!("https://%{{KUBERNETES_API}}%/static/charts/{name}-{}.tgz", f.parts.traefik_chart).into();
        out
    };
    let mut main = chart("traefik");
    main["spec"]["set"] = json!({"global.systemDefaultRegistry": s(f.config, "/system-default-registry")});
    // from chart 40 on the fields of the Service lie below `spec`
    let service = match f.parts.traefik_chart.starts_with("40.") {
        true => "  spec:\n    ipFamilyPolicy: \"PreferDualStack\"",
        false => "  ipFamilyPolicy: \"PreferDualStack\"",
    };
    let old = match f.minor < 34 {
        true => "- key: \"node-role.kubernetes.io/master\"\n  operator: \"Exists\"\n  effect: \"NoSchedule\"\n",
        false => "",
    };
    main["spec"]["valuesContent"] = format!(
        "deployment:\n  podAnnotations:\n    prometheus.io/port: \"8082\"\n    prometheus.io/scrape: \"true\"\n\
         providers:\n  kubernetesIngress:\n    publishedService:\n      enabled: true\n\
         priorityClassName: \"system-cluster-critical\"\nimage:\n  repository: \"rancher/mirrored-library-traefik\"\n  \
         tag: \"{}\"\ntolerations:\n- key: \"CriticalAddonsOnly\"\n  operator: \"Exists\"\n\
         - key: \"node-role.kubernetes.io/control-plane\"\n  operator: \"Exists\"\n  effect: \"NoSchedule\"\n\
         {old}service:\n{service}",
        f.parts.traefik
    )
    .into();
    vec![chart("traefik-crd"), main]
}
