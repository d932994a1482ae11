//! What every cluster has from birth, and the components that K3s packages.
use serde_json::{Value, json};

use super::super::cx::{Cx, resource_of};
use super::super::text::{s, sha256};
use super::super::{objects, objectset};
use super::{config, manifests};
use crate::guest;

const ADDONS: &str = "addons.k3s.cattle.io";
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
    let node = cx.w.k3s.get(&vmid).map(|p| p.node.clone()).unwrap_or_default();
    let manifests = manifests::all(cx, config);
    for m in &manifests {
        let path = format!("{MANIFESTS}/{}", m.file);
        if m.is_off(&disabled) {
            remove(cx, m);
            guest::remove_file(cx.lab, vmid, &path);
            continue;
        }
        let text = m.objects.iter().map(yaml).collect::<Vec<_>>().join("---\n");
        guest::put_file(cx.lab, cx.w, vmid, &path, &text, 0o600);
        super::log(cx.w, vmid, "info", &format!("Writing manifest: {path}"));
        apply(cx, &node, m.name(), &path, &text, m.objects.clone());
    }
    user_manifests(cx, vmid, &node, &manifests);
    super::hosts::look(cx);
}

fn yaml(o: &Value) -> String {
    serde_saphyr::to_string(o).unwrap_or_default()
}

/// A manifest that is switched off: its objects and its addon go.
fn remove(cx: &mut Cx, m: &manifests::Manifest) {
    let Some(addon) = cx.get(ADDONS, "kube-system", m.name()).cloned() else { return };
    let path = s(&addon, "/spec/source").to_owned();
    cx.event(&addon, true, "DeletingManifest", &format!("Deleting manifest at {path:?}"), "deploy");
    for obj in &m.objects {
        let (ns, n) = super::super::cx::key(obj);
        cx.delete(&resource_of(obj), &ns, &n);
    }
    cx.delete(ADDONS, "kube-system", m.name());
}

/// Applies the objects of a manifest as the deploy controller of a server, and keeps its addon.
fn apply(cx: &mut Cx, node: &str, name: &str, path: &str, text: &str, objects: Vec<Value>) {
    let mut gvks: Vec<String> = objects.iter().map(objectset::gvk).collect();
    gvks.sort();
    gvks.dedup();
    cx.writing(&format!("deploy@{node}"), |cx| {
        cx.create(json!({"apiVersion": "k3s.cattle.io/v1", "kind": "Addon",
            "metadata": {"name": name, "namespace": "kube-system"}, "spec": {"source": path, "checksum": ""}}));
        let Some(addon) = cx.get(ADDONS, "kube-system", name).cloned() else { return };
        cx.event(&addon, true, "ApplyingManifest", &format!("Applying manifest at {path:?}"), "deploy");
        let set = objectset::Set::of("", &addon);
        for mut obj in objects {
            set.mark(&mut obj);
            super::hosts::keep(cx, &mut obj);
            cx.ensure(obj);
        }
        cx.event(&addon, true, "AppliedManifest", &format!("Applied manifest at {path:?}"), "deploy");
        cx.ensure(json!({"apiVersion": "k3s.cattle.io/v1", "kind": "Addon",
            "metadata": {"name": name, "namespace": "kube-system",
                "annotations": {"addon.k3s.cattle.io/gvks": gvks.join(";")}},
            "spec": {"source": path, "checksum": sha256(text)}}));
    });
}

/// Applies the files an operator put into the manifests directory of this server.
fn user_manifests(cx: &mut Cx, vmid: u32, node: &str, own: &[manifests::Manifest]) {
    for file in guest::file_names(cx.lab, vmid, MANIFESTS) {
        let Some(name) = file.strip_suffix(".yaml").or_else(|| file.strip_suffix(".yml")) else { continue };
        if own.iter().any(|m| m.file == file) {
            continue;
        }
        let path = format!("{MANIFESTS}/{file}");
        let Some(text) = guest::file_text(cx.lab, vmid, &path) else { continue };
        let mut objects = objects::from_yaml(&text);
        for obj in objects.iter_mut().filter(|o| o["metadata"]["namespace"].is_null()) {
            if cx.namespaced(obj) {
                obj["metadata"]["namespace"] = json!("default");
            }
        }
        apply(cx, node, name.split('.').next().unwrap_or_default(), &path, &text, objects);
    }
}
