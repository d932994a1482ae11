//! What the HTTPS side of the API server asks of the cluster behind it.
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
pub fn service_http(_lab: &Lab, _w: &mut World, _cluster: &str, req: &ServiceRequest) -> ServiceAnswer {
    unavailable(&format!("no endpoints available for service \"{}\"", req.service))
}

/// Whether the API of `cluster` answers on the server in guest `vmid`: it runs and etcd has a quorum.
#[must_use]
pub fn api_up(w: &World, _cluster: &str, vmid: u32) -> bool {
    matches!(super::k3s_unit(w, vmid), super::UnitState::Active)
}

/// Objects of `cluster` were written by a client: the controllers will look at them.
pub fn changed(_lab: &Lab, w: &mut World, cluster: &str) {
    let event = crate::world::Event::Kube(super::KubeEvent::Reconcile { cluster: cluster.to_owned() });
    if !w.queue.iter().any(|(_, _, e)| *e == event) {
        w.schedule(100, event);
    }
}

/// Brings what is computed lazily (node leases) up to date before a read of `resource`.
pub fn before_read(_lab: &Lab, _w: &mut World, _cluster: &str, _resource: &str) {}

/// Log of a container (the only or first one when `container` is empty).
///
/// # Errors
/// The kubelet's text when there is no log to show.
pub fn pod_log(_w: &World, _cluster: &str, namespace: &str, pod: &str, _container: &str) -> Result<String, String> {
    Err(format!("pods \"{pod}\" not found in \"{namespace}\""))
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
