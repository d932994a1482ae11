//! What the HTTPS side of the API server asks of the cluster behind it.
use std::sync::Arc;

use bashkit::FileSystem;
use futures::FutureExt;
use serde_json::{Value, json};

use super::controllers::{hub, images, pods, rancher};
use super::cx::with_cluster;
use super::state::Cluster;
use super::text::{arr, s, selects};
use crate::Lab;
use crate::guest::programs::show_date;
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

impl ServiceAnswer {
    /// The words beside its status.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        http::StatusCode::from_u16(self.status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default()
    }
}

/// Whether a Service is one of an application that the lab plays.
fn played(service: &str) -> bool {
    matches!(service, "hub" | "proxy-public" | "rancher")
}

/// Answers a request through the service proxy.
pub fn service_http(lab: &Lab, w: &mut World, cluster: &str, req: &ServiceRequest) -> ServiceAnswer {
    if !played(&req.service)
        && let Some(service) =
            w.clusters.get(cluster).and_then(|c| c.store.get("services", &req.namespace, &req.service))
    {
        let service = service.clone();
        return behind(lab, w, req, cluster, &service);
    }
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
            "hub" | "proxy-public" => hub::serve(cx, req),
            "rancher" => rancher::serve(req),
            _ => unavailable("no such application"),
        }
    });
    answer.unwrap_or_else(|| unavailable("apiserver not ready"))
}

/// A request from the guest `vmid` to an address or a port of the cluster; `None` when it is not on a node or nothing has
/// that address.
pub fn from_node(lab: &Lab, w: &mut World, vmid: u32, ip: &str, req: ServiceRequest) -> Option<ServiceAnswer> {
    let id = super::k3s::membership::of_machine(w, vmid)?;
    let refused = || unavailable("connection refused");
    at_address(lab, w, &id, ip, req).map(|a| a.unwrap_or_else(refused))
}

/// Whether a node has this address.
fn has_node(c: &Cluster, ip: &str) -> bool {
    c.store.all("nodes", "").any(|n| arr(n, "/status/addresses").iter().any(|a| a["address"] == ip))
}

/// The Service that a node's port leads to, at an address of a node.
fn by_node_port(c: &Cluster, ip: &str, port: &str) -> Option<(Arc<Value>, String)> {
    has_node(c, ip).then_some(())?;
    let number: u64 = port.parse().ok()?;
    let found =
        |o: &Value| arr(o, "/spec/ports").iter().find(|p| p["nodePort"] == number).map(|p| p["port"].to_string());
    c.store.all("services", "").find_map(|o| Some((o.clone(), found(o)?)))
}

/// A request within the cluster to the address of a Service, a node or a pod: the outer value is missing when nothing has
/// the address, the inner one when nobody listens there.
pub fn at_address(
    lab: &Lab,
    w: &mut World,
    cluster: &str,
    ip: &str,
    mut req: ServiceRequest,
) -> Option<Option<ServiceAnswer>> {
    let c = w.clusters.get(cluster)?;
    let own = c.store.all("services", "").find(|o| o["spec"]["clusterIP"] == ip).cloned();
    let service = own.map(|o| (o, req.port.clone())).or_else(|| by_node_port(c, ip, &req.port));
    if let Some((service, port)) = service {
        s(&service, "/metadata/namespace").clone_into(&mut req.namespace);
        s(&service, "/metadata/name").clone_into(&mut req.service);
        req.port = port;
        return Some(Some(service_http(lab, w, cluster, &req)));
    }
    let pod =
        c.store.all("pods", "").find(|p| s(p, "/status/podIP") == ip && p["spec"]["hostNetwork"] != true).cloned();
    match pod {
        Some(pod) => Some(pod_http(lab, w, cluster, &pod, req.port.parse().unwrap_or(80), &req.path)),
        None => has_node(c, ip).then_some(None),
    }
}

/// Whether the API of `cluster` answers on the server in guest `vmid`: it runs and etcd has a quorum.
#[must_use]
pub fn api_up(w: &World, cluster: &str, vmid: u32) -> bool {
    let bare = w.clusters.get(cluster).is_some_and(|c| c.members.is_empty());
    bare || matches!(super::k3s_unit(w, vmid), super::UnitState::Active) && super::k3s::join::has_quorum(w, cluster)
}

/// A guest on whose server the API of `cluster` answers.
#[must_use]
pub fn server(w: &World, cluster: &str) -> Option<u32> {
    let c = w.clusters.get(cluster)?;
    let all = if c.members.is_empty() { vec![1] } else { c.members.keys().copied().collect() };
    all.into_iter().find(|vmid| api_up(w, cluster, *vmid))
}

/// Objects of `cluster` were written by a client: the controllers will look at them.
pub fn changed(_lab: &Lab, w: &mut World, cluster: &str) {
    let event = crate::world::Event::Kube(super::KubeEvent::Reconcile { cluster: cluster.to_owned() });
    if !w.is_pending_within(100, &event) {
        w.schedule(100, event);
    }
}

/// Brings what is computed lazily (node leases) up to date before a read of `resource`.
pub fn before_read(lab: &Lab, w: &mut World, cluster: &str, resource: &str) {
    if resource.starts_with("leases") {
        super::k3s::node::heartbeats(w, cluster);
    }
    if resource.starts_with("nodes") {
        super::k3s::node::look_at_networks(lab, w, cluster);
    }
    if resource.starts_with("gitrepos") {
        with_cluster(lab, w, cluster, super::controllers::fleet::heartbeat);
    }
}

/// The Services of a pod that lead to its port.
fn services_at<'a>(c: &'a Cluster, pod: &'a Value, port: u16) -> impl Iterator<Item = &'a Value> {
    let leads = move |o: &&Value| {
        // one without a selector has endpoints of its own
        o["spec"]["selector"].as_object().is_some_and(|m| !m.is_empty())
            && arr(o, "/spec/ports").iter().any(|p| target(pod, p) == u64::from(port))
            && selects(&o["spec"]["selector"], &pod["metadata"]["labels"])
    };
    c.store.list("services", s(pod, "/metadata/namespace"), "").into_iter().filter(leads)
}

/// The port of a pod that a Service's port leads to.
fn target(pod: &Value, port: &Value) -> u64 {
    let to = &port["targetPort"];
    let named = |name: &str| {
        let all = arr(pod, "/spec/containers").iter().flat_map(|c| arr(c, "/ports"));
        all.clone().find(|p| p["name"] == name).and_then(|p| p["containerPort"].as_u64())
    };
    to.as_u64().or_else(|| named(to.as_str()?)).or(port["port"].as_u64()).unwrap_or(0)
}

/// The container of a pod that listens on a port: one that declares it, a web server, or, in a pod that declares none, the
/// first when a Service leads there.
fn serving<'a>(c: &Cluster, pod: &'a Value, port: u16) -> Option<&'a Value> {
    let all = arr(pod, "/spec/containers");
    let own = all.iter().find(|c| {
        let declared = arr(c, "/ports").iter().any(|p| p["containerPort"].as_u64() == Some(u64::from(port)));
        declared || port == 80 && ["nginx", "httpd"].iter().any(|i| s(c, "/image").contains(i))
    });
    let silent = all.iter().all(|c| arr(c, "/ports").is_empty());
    own.or_else(|| services_at(c, pod, port).next().filter(|_| silent).and(all.first()))
}

/// Whether something in a pod listens on a port.
#[must_use]
pub fn listens(w: &World, cluster: &str, pod: &Value, port: u16) -> bool {
    w.clusters.get(cluster).is_some_and(|c| serving(c, pod, port).is_some())
}

/// What a request to a port of a pod gets, as a forwarded connection makes it: an application that the lab plays answers
/// as through its Service. `req` names the pod's namespace.
pub fn forwarded(lab: &Lab, w: &mut World, at: (&str, &Value, u16), req: ServiceRequest) -> Option<ServiceAnswer> {
    let (cluster, pod, port) = at;
    let app = services_at(w.clusters.get(cluster)?, pod, port).map(|o| s(o, "/metadata/name")).find(|n| played(n));
    match app.map(str::to_owned) {
        Some(service) => Some(service_http(lab, w, cluster, &ServiceRequest { service, ..req })),
        None => pod_http(lab, w, cluster, pod, port, &req.path),
    }
}

/// What a container of a pod answers to a GET on one of its ports; `None` when nothing listens there.
pub fn pod_http(lab: &Lab, w: &mut World, cluster: &str, pod: &Value, port: u16, path: &str) -> Option<ServiceAnswer> {
    let serving = serving(w.clusters.get(cluster)?, pod, port);
    let (name, image) = serving.map(|c| (s(c, "/name").to_owned(), s(c, "/image").to_owned()))?;
    if !pods::is_ready(pod) {
        return None;
    }
    let plain =
        |status, text: String| ServiceAnswer { status, content_type: "text/plain".into(), body: text.into_bytes() };
    let inside = with_cluster(lab, w, cluster, |cx| super::container::enter(cx, pod, &name)).flatten()?;
    if let Some(known) = super::answers::of(&image, path) {
        return Some(known);
    }
    if !image.contains("nginx") {
        return Some(plain(200, format!("{}\n", s(pod, "/metadata/name"))));
    }
    let file = match path.split('?').next().unwrap_or("/") {
        "/" => "/index.html",
        p => p,
    };
    let full = format!("/usr/share/nginx/html{file}");
    // Files of a container are in memory: reading them never waits.
    let read = inside.fs.read_file(std::path::Path::new(&full)).now_or_never().and_then(Result::ok);
    let answer = match read {
        Some(body) => ServiceAnswer { status: 200, content_type: "text/html".into(), body },
        None => ServiceAnswer { content_type: "text/html".into(), ..plain(404, images::not_found(&image)) },
    };
    let at = show_date("%d/%b/%Y:%H:%M:%S +0000", w.now_ms / 1000, 0);
    let line = format!(
        "10.42.0.1 - - [{at}] \"GET {path} HTTP/1.1\" {} {} \"-\" \"-\" \"-\"\n",
        answer.status,
        answer.body.len()
    );
    with_cluster(lab, w, cluster, |cx| super::controllers::logs::write(cx, s(pod, "/metadata/uid"), &name, &line));
    Some(answer)
}

/// A request to a Service that is no application of its own: one of its pods answers.
fn behind(lab: &Lab, w: &mut World, req: &ServiceRequest, cluster: &str, service: &Value) -> ServiceAnswer {
    let ports = arr(service, "/spec/ports");
    let port = ports
        .iter()
        .find(|p| {
            req.port.is_empty() || p["name"] == req.port.as_str() || req.port.parse().is_ok_and(|n: u64| p["port"] == n)
        })
        .cloned()
        .unwrap_or_default();
    let pod = w.clusters.get(cluster).and_then(|c| {
        let selector = json!({"matchLabels": service["spec"]["selector"]});
        c.store.select("pods", &req.namespace, &selector).into_iter().find(|p| pods::is_ready(p)).cloned()
    });
    let Some(pod) = pod else { return unavailable(&format!("no endpoints available for service \"{}\"", req.service)) };
    let number = u16::try_from(target(&pod, &port)).unwrap_or(0);
    pod_http(lab, w, cluster, &pod, number, &req.path).unwrap_or_else(|| {
        unavailable(&format!(
            "error trying to reach service: dial tcp {}:{number}: connect: connection refused",
            s(&pod, "/status/podIP")
        ))
    })
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
