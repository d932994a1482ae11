//! The service proxy: `/api/v1/namespaces/NS/services/[SCHEME:]NAME[:PORT]/proxy/PATH`.
use http::Response;

use super::route::Target;
use super::{Body, Call, failed, text};
use crate::kube::hooks::{self, ServiceRequest};
use crate::kube::schema::Kind;
use crate::kube::store::Failure;

/// Splits `https:hub:443`.
fn parts(name: &str) -> (&str, &str, &str) {
    match name.split(':').collect::<Vec<_>>()[..] {
        [scheme, name, port] => (scheme, name, port),
        [name, port] => ("http", name, port),
        _ => ("http", name, ""),
    }
}

/// Serves a proxied request.
pub async fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Response<Body> {
    if kind.plural != "services" {
        let why = format!("proxying to {} is not simulated: add it to lab/src/kube/api/proxy.rs", kind.plural);
        return failed(&Failure::new(501, "NotImplemented", why));
    }
    let (scheme, service, port) = parts(t.name.as_deref().unwrap_or_default());
    let query = call.req.headers.iter().find(|(k, _)| k == ":query").map(|(_, v)| format!("?{v}")).unwrap_or_default();
    let path = if t.rest.is_empty() { "/".to_owned() } else { t.rest.clone() };
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
