//! Rancher: what it installs once it runs, and what it answers.
use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::hooks::{ServiceAnswer, ServiceRequest};
use super::super::objects::{Container, Workload, service};
use super::super::text::b64;

/// A Rancher pod is ready: it brings its webhook and Fleet.
pub fn started(cx: &mut Cx) {
    for ns in [
        "cattle-fleet-system",
        "cattle-fleet-local-system",
        "cattle-fleet-clusters-system",
        "fleet-local",
        "fleet-default",
        "cattle-global-data",
        super::fleet::HOME,
    ] {
        cx.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}}));
    }
    for crd in [
        "gitrepos.fleet.cattle.io",
        "bundles.fleet.cattle.io",
        "bundledeployments.fleet.cattle.io",
        "clusters.fleet.cattle.io",
        "clustergroups.fleet.cattle.io",
    ] {
        let now = cx.now();
        cx.c.store.install_crd(now, crd);
        super::misc::definition(cx);
    }
    // the CA that signs its certificate; made again when somebody has deleted it
    if cx.get("secrets", "cattle-system", "tls-rancher").is_none()
        && let Ok(ca) = crate::tls::make_ca("dynamiclistener-ca")
    {
        cx.create(json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "tls-rancher", "namespace": "cattle-system"},
            "data": {"tls.crt": b64(ca.cert.as_bytes()), "tls.key": b64(ca.key.as_bytes())}}));
    }
    let stamp = cx.stamp();
    cx.create(json!({"apiVersion": "fleet.cattle.io/v1alpha1", "kind": "Cluster",
        "metadata": {"name": "local", "namespace": "fleet-local", "labels": {"management.cattle.io/cluster-display-name": "local",
            "management.cattle.io/cluster-name": "local", "name": "local", "provider.cattle.io": "k3s"}},
        "spec": {"agentNamespace": "cattle-fleet-local-system", "kubeConfigSecret": "local-kubeconfig"},
        "status": {"namespace": super::fleet::HOME, "agent": {"lastSeen": stamp, "namespace": "cattle-fleet-local-system"}}}));
    // Rancher's and Fleet's charts tolerate this taint of mixed clusters and no other.
    let linux = json!([{"key": "cattle.io/os", "operator": "Equal", "value": "linux", "effect": "NoSchedule"}]);
    for (ns, name, image) in [
        ("cattle-fleet-system", "fleet-controller", "rancher/fleet:v0.14.1"),
        ("cattle-fleet-system", "gitjob", "rancher/fleet:v0.14.1"),
        ("cattle-fleet-local-system", "fleet-agent", "rancher/fleet-agent:v0.14.1"),
        ("cattle-system", "rancher-webhook", "rancher/rancher-webhook:v0.9.1"),
    ] {
        let w = Workload::deployment(ns, name)
            .label("app", name)
            .container(Container::new(name, image))
            .spec("tolerations", linux.clone());
        for o in w.objects() {
            let resource = super::super::cx::resource_of(&o);
            if cx.get(&resource, ns, name).is_none() {
                cx.create(o);
            }
        }
    }
    if cx.get("services", "cattle-system", "rancher-webhook").is_none() {
        cx.create(service("cattle-system", "rancher-webhook", &json!({"app": "rancher-webhook"}), &[("https", 443)]));
    }
}

/// Answers a request to Rancher's service.
#[must_use]
pub fn serve(req: &ServiceRequest) -> ServiceAnswer {
    let text = |status, body: &str| ServiceAnswer {
        status,
        content_type: "text/plain".into(),
        body: body.as_bytes().to_vec(),
    };
    match req.path.split('?').next().unwrap_or_default() {
        "/ping" => text(200, "pong"),
        "/healthz" => text(200, "ok"),
        other => {
            let body: Value =
                json!({"message": format!("{other} is not simulated: add it to lab/src/kube/controllers/rancher.rs")});
            ServiceAnswer { status: 501, content_type: "application/json".into(), body: body.to_string().into_bytes() }
        }
    }
}
