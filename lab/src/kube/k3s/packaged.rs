//! What every cluster has from birth, and the components that K3s packages.
use serde_json::{Value, json};

use super::super::cx::{Cx, resource_of};
use super::super::objects::{self, Container, Workload};
use super::super::text::{s, sha256};
use super::config;
use crate::guest;

const MANIFESTS: &str = "/var/lib/rancher/k3s/server/manifests";

/// Makes the objects that exist as soon as the API server answers for the first time.
pub fn birth(cx: &mut Cx) {
    for ns in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        cx.create(json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": ns, "labels": {"kubernetes.io/metadata.name": ns}}, "spec": {"finalizers": ["kubernetes"]}}));
    }
    for crd in [
        "addons.k3s.cattle.io",
        "etcdsnapshotfiles.k3s.cattle.io",
        "helmcharts.helm.cattle.io",
        "helmchartconfigs.helm.cattle.io",
    ] {
        let now = cx.now();
        cx.c.store.install_crd(now, crd);
    }
    super::roles::birth(cx);
    super::flow::birth(cx);
    super::apiservices::look(cx);
    for (name, value, what) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "must run in the cluster, but can be moved to another node if necessary.",
        ),
        ("system-node-critical", 2_000_001_000, "must not be moved from their current node."),
    ] {
        cx.create(json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "preemptionPolicy": "PreemptLowerPriority",
            "description": format!("Used for system critical pods that {what}")}));
    }
    for handler in [
        "nvidia",
        "nvidia-cdi",
        "nvidia-experimental",
        "crun",
        "lunatic",
        "slight",
        "spin",
        "wws",
        "wasmedge",
        "wasmer",
        "wasmtime",
    ] {
        cx.create(json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": handler, "metadata": {
            "name": handler, "labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": {
            "meta.helm.sh/release-name": "k3s-runtimes", "meta.helm.sh/release-namespace": "kube-system"}}}));
    }
    service_range(cx);
    let first = service_address(cx, 1);
    cx.create(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": first, "clusterIPs": [first], "type": "ClusterIP", "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]}}));
    cx.c.addresses = 20;
}

/// The service network as an object, in the minors that have such.
fn service_range(cx: &mut Cx) {
    if super::node::minor(&cx.c.version) < 33 {
        return;
    }
    let told = s(&cx.c.config, "/service-cidr");
    let cidrs: Vec<&str> = if told.is_empty() { vec!["10.43.0.0/16"] } else { told.split(',').collect() };
    let stamp = cx.stamp();
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "spec": {"cidrs": cidrs},
        "metadata": {"name": "kubernetes", "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": stamp, "reason": "",
            "message": "Kubernetes default Service CIDR is ready"}]}});
    cx.create(range);
}

/// The n-th address of the service network.
#[must_use]
pub fn service_address(cx: &Cx, n: u32) -> String {
    let net = match s(&cx.c.config, "/service-cidr").split([',', '/']).next() {
        Some(t) if !t.is_empty() => t.to_owned(),
        _ => "10.43.0.0".to_owned(),
    };
    let mut parts: Vec<u32> = net.split('.').filter_map(|p| p.parse().ok()).collect();
    parts.resize(4, 0);
    let n = parts[2] * 256 + parts[3] + n;
    format!("{}.{}.{}.{}", parts[0], parts[1], n / 256 % 256, n % 256)
}

/// A server has started: packaged components and manifest files are applied.
pub fn server_started(cx: &mut Cx, vmid: u32, config: &Value) {
    let disabled = config::list(config, "disable");
    let off = |name: &str| disabled.iter().any(|d| d == name);
    for (name, component) in components(cx) {
        if off(name) {
            for obj in component {
                let (ns, n) = super::super::cx::key(&obj);
                cx.delete(&resource_of(&obj), &ns, &n);
            }
            cx.delete("addons.k3s.cattle.io", "kube-system", name);
            continue;
        }
        let text = component.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n");
        guest::put_file(cx.lab, cx.w, vmid, &format!("{MANIFESTS}/{name}.yaml"), &text, 0o600);
        addon(cx, name, &format!("{MANIFESTS}/{name}.yaml"), &text);
        for obj in component {
            deploy(cx, vmid, obj);
        }
    }
    user_manifests(cx, vmid);
}

/// Applies an object as the deploy controller of a server.
fn deploy(cx: &mut Cx, vmid: u32, obj: Value) {
    let node = cx.w.k3s.get(&vmid).map(|p| p.node.clone()).unwrap_or_default();
    cx.writing(&format!("deploy@{node}"), |cx| cx.ensure(obj));
}

fn addon(cx: &mut Cx, name: &str, source: &str, text: &str) {
    cx.ensure(json!({"apiVersion": "k3s.cattle.io/v1", "kind": "Addon",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"source": source, "checksum": sha256(text)}}));
}

/// Applies the files an operator put into the manifests directory of this server.
fn user_manifests(cx: &mut Cx, vmid: u32) {
    let own = ["coredns", "local-storage", "metrics-server", "traefik", "runtimes", "rolebindings", "ccm", "servicelb"];
    for file in guest::file_names(cx.lab, vmid, MANIFESTS) {
        let Some(name) = file.strip_suffix(".yaml").or_else(|| file.strip_suffix(".yml")) else { continue };
        if own.contains(&name) {
            continue;
        }
        let path = format!("{MANIFESTS}/{file}");
        let Some(text) = guest::file_text(cx.lab, vmid, &path) else { continue };
        addon(cx, name, &path, &text);
        for mut obj in objects::from_yaml(&text) {
            if obj["metadata"]["namespace"].is_null() && cx.namespaced(&obj) {
                obj["metadata"]["namespace"] = json!("default");
            }
            deploy(cx, vmid, obj);
        }
    }
}

type Component = (&'static str, Vec<Value>);

/// The packaged components with their objects.
fn components(cx: &Cx) -> Vec<Component> {
    vec![
        ("coredns", coredns(cx)),
        ("local-storage", local_storage()),
        ("metrics-server", metrics_server()),
        ("traefik", traefik()),
    ]
}

fn system(name: &str, image: &str, app: (&str, &str)) -> Workload {
    let tolerations = json!([
        {"key": "CriticalAddonsOnly", "operator": "Exists"},
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "node-role.kubernetes.io/master", "operator": "Exists", "effect": "NoSchedule"},
    ]);
    Workload::deployment("kube-system", name)
        .label(app.0, app.1)
        .container(Container::new(name, image))
        .spec("tolerations", tolerations)
        .spec("priorityClassName", json!("system-cluster-critical"))
        .spec("nodeSelector", json!({"kubernetes.io/os": "linux"}))
}

fn coredns(cx: &Cx) -> Vec<Value> {
    let mut out = system("coredns", "rancher/mirrored-coredns-coredns:1.13.1", ("k8s-app", "kube-dns")).objects();
    out.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"},
        "data": {"Corefile": ".:53 {\n    errors\n    health\n    ready\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n      pods insecure\n      fallthrough in-addr.arpa ip6.arpa\n    }\n    hosts /etc/coredns/NodeHosts {\n      ttl 60\n      reload 15s\n      fallthrough\n    }\n    prometheus :9153\n    forward . /etc/resolv.conf\n    cache 30\n    loop\n    reload\n    loadbalance\n}\n"}}));
    let dns = match config::list(&cx.c.config, "cluster-dns").first() {
        Some(a) => a.clone(),
        None => service_address(cx, 10),
    };
    out.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"}},
        "spec": {"selector": {"k8s-app": "kube-dns"}, "clusterIP": dns, "clusterIPs": [dns], "type": "ClusterIP", "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            {"name": "metrics", "port": 9153, "protocol": "TCP"}]}}));
    out
}

fn local_storage() -> Vec<Value> {
    let config = json!({"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": ["/var/lib/rancher/k3s/storage"]}]});
    let mut out = vec![json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "local-path-config", "namespace": "kube-system"},
        "data": {"config.json": config.to_string(), "setup": "#!/bin/sh\nset -eu\nmkdir -m 0777 -p \"${VOL_DIR}\"\n",
            "teardown": "#!/bin/sh\nset -eu\nrm -rf \"${VOL_DIR}\"\n"}})];
    out.extend(
        Workload::deployment("kube-system", "local-path-provisioner")
            .label("app", "local-path-provisioner")
            .container(Container::new("local-path-provisioner", "rancher/local-path-provisioner:v0.0.32").command(&[
                "local-path-provisioner",
                "start",
                "--config",
                "/etc/config/config.json",
            ]))
            .spec(
                "tolerations",
                json!([{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}]),
            )
            .spec("volumes", json!([{"name": "config-volume", "configMap": {"name": "local-path-config"}}]))
            .objects(),
    );
    out.push(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true",
            "defaultVolumeType": "local"}},
        "provisioner": "rancher.io/local-path", "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer"}));
    out
}

fn metrics_server() -> Vec<Value> {
    let mut out =
        system("metrics-server", "rancher/mirrored-metrics-server:v0.8.0", ("k8s-app", "metrics-server")).objects();
    out.push(objects::service(
        "kube-system",
        "metrics-server",
        &json!({"k8s-app": "metrics-server"}),
        &[("https", 443)],
    ));
    out.push(json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"name": "metrics-server", "namespace": "kube-system"}}}));
    out
}

fn traefik() -> Vec<Value> {
    let chart = |name: &str| {
        json!({"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", "metadata": {"name": name, "namespace": "kube-system"},
            "spec": {"chart": format!("https://%{{KUBERNETES_API}}%/static/charts/{name}-37.1.1+up37.1.0.tgz")}})
    };
    vec![chart("traefik-crd"), chart("traefik")]
}
