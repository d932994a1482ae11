//! What the HTTPS side of the API server asks of the cluster behind it.
use serde_json::json;

use super::controllers::{hub, pods, rancher};
use super::cx::with_cluster;
use crate::Lab;
use crate::world::World;

/// A request that reached a Service through the API server's proxy.
#[derive(Debug, Clone, Default)]
pub struct ServiceRequest {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Port name or number, may be empty.
    pub port: String,
    /// `http` or `https`.
    pub scheme: String,
    /// HTTP method.
    pub method: String,
    /// Path with its query, begins with `/`.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// What the Service answered.
#[derive(Debug, Clone)]
pub struct ServiceAnswer {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: String,
    /// Body.
    pub body: Vec<u8>,
}

/// Answers a request through the service proxy.
pub fn service_http(lab: &Lab, w: &mut World, cluster: &str, req: &ServiceRequest) -> ServiceAnswer {
    let answer = with_cluster(lab, w, cluster, |cx| {
        let service = cx.get("services", &req.namespace, &req.service).cloned().unwrap_or_default();
        let selector = &service["spec"]["selector"];
        let up =
            cx.c.store
                .select("pods", &req.namespace, &json!({"matchLabels": selector}))
                .into_iter()
                .any(pods::is_ready);
        if !up {
            return unavailable(&format!("no endpoints available for service \"{}\"", req.service));
        }
        match req.service.as_str() {
            "hub" => hub::serve(cx, req),
            "rancher" => rancher::serve(req),
            _ => ServiceAnswer { status: 200, content_type: "text/plain".into(), body: b"ok\n".to_vec() },
        }
    });
    answer.unwrap_or_else(|| unavailable("apiserver not ready"))
}

/// A request from the guest `vmid` to a cluster address; `None` when it is not on a node or nothing has the address.
pub fn from_node(lab: &Lab, w: &mut World, vmid: u32, ip: &str, mut req: ServiceRequest) -> Option<ServiceAnswer> {
    let (id, service) = w.clusters.iter().find_map(|(id, c)| {
        let on_node = c.nodes.values().any(|n| n.vmid == vmid);
        let svc = c.store.all("services", "").find(|o| o["spec"]["clusterIP"] == ip).filter(|_| on_node)?;
        Some((id.clone(), svc.clone()))
    })?;
    let name = |f: &str| service["metadata"][f].as_str().unwrap_or_default().to_owned();
    req.namespace = name("namespace");
    req.service = name("name");
    Some(service_http(lab, w, &id, &req))
}

/// Whether the API of `cluster` answers on the server in guest `vmid`: it runs and etcd has a quorum.
#[must_use]
pub fn api_up(w: &World, cluster: &str, vmid: u32) -> bool {
    matches!(super::k3s_unit(w, vmid), super::UnitState::Active) && super::k3s::join::has_quorum(w, cluster)
}

/// Objects of `cluster` were written by a client: the controllers will look at them.
pub fn changed(_lab: &Lab, w: &mut World, cluster: &str) {
    let event = crate::world::Event::Kube(super::KubeEvent::Reconcile { cluster: cluster.to_owned() });
    if !w.is_pending(&event) {
        w.schedule(100, event);
    }
}

/// Brings what is computed lazily (node leases) up to date before a read of `resource`.
pub fn before_read(_lab: &Lab, w: &mut World, cluster: &str, resource: &str) {
    if resource.starts_with("leases") {
        super::k3s::node::heartbeats(w, cluster);
    }
}

/// Log of a container (the only or first one when `container` is empty).
///
/// # Errors
/// The kubelet's text when there is no log to show.
pub fn pod_log(w: &World, cluster: &str, namespace: &str, pod: &str, container: &str) -> Result<String, String> {
    let Some(c) = w.clusters.get(cluster) else { return Err("apiserver not ready".to_owned()) };
    let Some(object) = c.store.get("pods", namespace, pod) else {
        return Err(format!("pods \"{pod}\" not found in \"{namespace}\""));
    };
    let first = object["spec"]["containers"][0]["name"].as_str().unwrap_or_default();
    let name = if container.is_empty() { first } else { container };
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    match c.pods.get(uid) {
        None => Err(format!("container \"{name}\" in pod \"{pod}\" is waiting to start: ContainerCreating")),
        Some(rt) => match rt.logs.get(name) {
            Some(text) => Ok(text.clone()),
            None if object["status"]["phase"] == "Pending" => {
                Err(format!("container \"{name}\" in pod \"{pod}\" is waiting to start: PodInitializing"))
            }
            None => Ok(String::new()),
        },
    }
}

/// An answer 503 in the form of a Kubernetes Status.
#[must_use]
pub fn unavailable(message: &str) -> ServiceAnswer {
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "ServiceUnavailable", "code": 503,
    });
    ServiceAnswer { status: 503, content_type: "application/json".into(), body: body.to_string().into_bytes() }
}
