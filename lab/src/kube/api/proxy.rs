//! The proxies: `/api/v1/namespaces/NS/services/[SCHEME:]NAME[:PORT]/proxy/PATH`, the same for `pods`, and
//! `/api/v1/nodes/NAME/proxy/PATH`.
use http::Response;

use super::route::Target;
use super::{Body, Call, failed, kubelet, text};
use crate::kube::hooks::{self, ServiceRequest};
use crate::kube::schema::Kind;
use crate::kube::store::Failure;
use crate::kube::text::{arr, s};

/// Splits `https:hub:443`.
fn parts(name: &str) -> (&str, &str, &str) {
    match name.split(':').collect::<Vec<_>>()[..] {
        [scheme, name, port] => (scheme, name, port),
        [name, port] => ("http", name, port),
        _ => ("http", name, ""),
    }
}

/// A node's kubelet.
fn node(call: &Call<'_>, kind: &Kind, t: &Target) -> Response<Body> {
    let name = t.name.as_deref().unwrap_or_default();
    let name = name.split_once(':').map_or(name, |(n, _)| n);
    let found = call.lab.with(|w| {
        let c = w.clusters.get(call.cluster)?;
        let node = c.store.get("nodes", "", name)?;
        let placed = node["status"]["addresses"].as_array().is_some_and(|a| !a.is_empty());
        let posting = c.nodes.get(name).is_some_and(|n| n.posting);
        Some((placed, posting, kubelet::told(c, node, w.now_ms)))
    });
    let Some((placed, posting, told)) = found else { return failed(&Failure::not_found(kind, name)) };
    if !placed && !posting {
        return failed(&Failure::unforeseen("no preferred addresses found; known addresses: []"));
    }
    if !posting {
        let why = format!("error trying to reach service: dial tcp {name}:10250: connect: connection refused");
        return failed(&Failure::new(503, "ServiceUnavailable", why));
    }
    kubelet::serve(&told, t.rest.trim_matches('/'))
}

/// A pod: what listens on its port, its first one when none is named.
fn pod(call: &Call<'_>, kind: &Kind, t: &Target, path: &str) -> Response<Body> {
    let (_, name, port) = parts(t.name.as_deref().unwrap_or_default());
    let found = call.lab.with(|w| {
        let pod = w.clusters.get(call.cluster)?.store.get("pods", &t.namespace, name)?.clone();
        let declared = || arr(&pod, "/spec/containers").iter().find_map(|c| c["ports"][0]["containerPort"].as_u64());
        let port = port.parse().ok().or_else(|| u16::try_from(declared()?).ok()).unwrap_or(80);
        let answer = hooks::pod_http(call.lab, w, call.cluster, &pod, port, path);
        Some(answer.unwrap_or_else(|| {
            let ip = s(&pod, "/status/podIP");
            hooks::unavailable(&format!(
                "error trying to reach service: dial tcp {ip}:{port}: connect: connection refused"
            ))
        }))
    });
    found.map_or_else(|| failed(&Failure::not_found(kind, name)), |a| text(a.status, &a.content_type, a.body))
}

/// Serves a proxied request.
pub async fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Response<Body> {
    if kind.plural == "nodes" {
        return node(call, kind, t);
    }
    let query = call.req.headers.iter().find(|(k, _)| k == ":query").map(|(_, v)| format!("?{v}")).unwrap_or_default();
    let path = if t.rest.is_empty() { "/".to_owned() } else { t.rest.clone() };
    match kind.plural.as_str() {
        "services" => {}
        "pods" => return pod(call, kind, t, &format!("{path}{query}")),
        _ => return failed(&Failure::no_resource()),
    }
    let (scheme, service, port) = parts(t.name.as_deref().unwrap_or_default());
    let req = ServiceRequest {
        namespace: t.namespace.clone(),
        service: service.to_owned(),
        port: port.to_owned(),
        scheme: if scheme.is_empty() { "http".into() } else { scheme.to_owned() },
        method: call.req.method.to_string(),
        path: format!("{path}{query}"),
        headers: call
            .req
            .headers
            .iter()
            .filter(|(k, _)| !k.starts_with(':') && k != "authorization")
            .cloned()
            .collect(),
        body: call.req.body.to_vec(),
    };
    let exists = call.lab.with(|w| {
        w.clusters.get(call.cluster).is_some_and(|c| c.store.get("services", &t.namespace, service).is_some())
    });
    if !exists {
        return failed(&Failure::not_found(kind, service));
    }
    let a = call.lab.with(|w| hooks::service_http(call.lab, w, call.cluster, &req));
    text(a.status, &a.content_type, a.body)
}
