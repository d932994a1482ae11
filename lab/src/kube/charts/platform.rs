//! Charts of the platform: cert-manager, Rancher, JupyterHub.
use serde_json::{Value, json};

use super::Wanted;
use crate::kube::objects::{Container, Workload, service};

fn ingress(ns: &str, name: &str, host: &str, backend: &str, port: u16) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "namespace": ns},
        "spec": {"rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "ImplementationSpecific",
            "backend": {"service": {"name": backend, "port": {"number": port}}}}]}}]}})
}

/// A Deployment of one container.
pub(super) fn app(ns: &str, name: &str, image: &str) -> Workload {
    Workload::deployment(ns, name).label("app", name).container(Container::new(name, image))
}

/// The same with ports, by name.
pub(super) fn server(ns: &str, name: &str, image: &str, ports: &[(&str, u16)]) -> Workload {
    let ports: Vec<Value> = ports.iter().map(|(n, p)| json!({"name": n, "containerPort": p})).collect();
    let main = Container::new(name, image).set("ports", Value::Array(ports));
    Workload::deployment(ns, name).label("app", name).container(main)
}

/// A Service whose port leads to a named one of its pods.
pub(super) fn to_port(ns: &str, name: &str, selector: &Value, port: (&str, u16), target: &str) -> Value {
    let mut out = service(ns, name, selector, &[port]);
    out["spec"]["ports"][0]["targetPort"] = json!(target);
    out
}

/// cert-manager.
pub(super) fn cert_manager(w: &Wanted) -> (Vec<&'static str>, Vec<Value>) {
    let (ns, tag) = (&w.namespace, w.version.trim_start_matches('v'));
    let mut out = Vec::new();
    for (name, part) in
        [("cert-manager", "controller"), ("cert-manager-webhook", "webhook"), ("cert-manager-cainjector", "cainjector")]
    {
        let image = format!("quay.io/jetstack/cert-manager-{part}:v{tag}");
        let ports = [("http-metrics", 9402), ("https", 10250)];
        out.extend(server(ns, name, &image, &ports[..if part == "webhook" { 2 } else { 1 }]).objects());
        let metrics = if part == "controller" { "tcp-prometheus-servicemonitor" } else { "http-metrics" };
        let metrics = to_port(ns, name, &json!({"app": name}), (metrics, 9402), "http-metrics");
        if part != "webhook" {
            out.push(metrics);
            continue;
        }
        let mut both = to_port(ns, name, &json!({"app": name}), ("https", 443), "https");
        both["spec"]["ports"] = json!([both["spec"]["ports"][0], {"name": "metrics", "port": 9402, "protocol": "TCP", "targetPort": "http-metrics"}]);
        out.push(both);
    }
    let crds = match w.values["crds"]["enabled"].as_bool() {
        Some(true) => vec![
            "certificates.cert-manager.io",
            "certificaterequests.cert-manager.io",
            "issuers.cert-manager.io",
            "clusterissuers.cert-manager.io",
        ],
        _ => Vec::new(),
    };
    (crds, out)
}

/// Rancher. Fleet comes when its first pod is ready.
pub(super) fn rancher(w: &Wanted) -> (Vec<&'static str>, Vec<Value>) {
    let ns = &w.namespace;
    let host = w.values["hostname"].as_str().unwrap_or_default();
    let mut out = server(ns, "rancher", &format!("rancher/rancher:v{}", w.version), &[("http", 80)])
        .replicas(w.values["replicas"].as_i64().unwrap_or(3))
        .spec(
            "tolerations",
            json!([{"key": "cattle.io/os", "operator": "Equal", "value": "linux", "effect": "NoSchedule"}]),
        )
        .objects();
    let mut own = service(ns, "rancher", &json!({"app": "rancher"}), &[("http", 80), ("https-internal", 443)]);
    own["spec"]["ports"][1]["targetPort"] = json!(444);
    out.push(own);
    if w.values["ingress"]["enabled"] != false && !host.is_empty() {
        let mut i = ingress(ns, "rancher", host, "rancher", 80);
        i["spec"]["tls"] = json!([{"hosts": [host], "secretName": "tls-rancher-ingress"}]);
        if w.values["ingress"]["tls"]["source"] != "secret" {
            i["metadata"]["annotations"] =
                json!({"cert-manager.io/issuer": "rancher", "cert-manager.io/issuer-kind": "Issuer"});
        }
        out.push(i);
    }
    if matches!(w.values["ingress"]["tls"]["source"].as_str(), None | Some("rancher")) {
        out.push(json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "rancher", "namespace": ns},
            "spec": {"ca": {"secretName": "tls-rancher"}}}));
    }
    (Vec::new(), out)
}

/// JupyterHub (Zero to JupyterHub).
pub(super) fn jupyterhub(w: &Wanted) -> (Vec<&'static str>, Vec<Value>) {
    let ns = &w.namespace;
    let tag = &w.version;
    let mut hub =
        server(ns, "hub", &format!("quay.io/jupyterhub/k8s-hub:{tag}"), &[("http", 8081)]).label("component", "hub");
    let mut out = Vec::new();
    if matches!(w.values["hub"]["db"]["type"].as_str(), None | Some("sqlite-pvc")) {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        if let Some(class) = w.values["hub"]["db"]["pvc"]["storageClassName"].as_str() {
            spec["storageClassName"] = json!(class);
        }
        out.push(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "hub-db-dir", "namespace": ns}, "spec": spec}));
        hub = hub.spec("volumes", json!([{"name": "pvc", "persistentVolumeClaim": {"claimName": "hub-db-dir"}}]));
    }
    out.extend(hub.objects());
    let proxy = "quay.io/jupyterhub/configurable-http-proxy:5.1.0";
    out.extend(server(ns, "proxy", proxy, &[("http", 8000), ("api", 8001)]).label("component", "proxy").objects());
    if w.values["scheduling"]["userScheduler"]["enabled"] != false {
        out.extend(app(ns, "user-scheduler", "registry.k8s.io/kube-scheduler:v1.33.5").replicas(2).objects());
    }
    out.push(to_port(ns, "hub", &json!({"app": "hub", "component": "hub"}), ("hub", 8081), "http"));
    let proxy = json!({"app": "proxy", "component": "proxy"});
    out.push(to_port(ns, "proxy-public", &proxy, ("http", 80), "http"));
    out.push(to_port(ns, "proxy-api", &proxy, ("api", 8001), "api"));
    if w.values["ingress"]["enabled"] == true {
        let host = w.values["ingress"]["hosts"][0].as_str().unwrap_or_default();
        out.push(ingress(ns, "jupyterhub", host, "proxy-public", 80));
    }
    (Vec::new(), out)
}
