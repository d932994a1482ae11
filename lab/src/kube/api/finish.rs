//! What every answer has: the headers of the API server's filters, and indented JSON for people. Grade: source (the
//! filters of k8s.io/apiserver).
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde_json::Value;

use super::auth::User;
use super::{Body, Request, whole};
use crate::Lab;
use crate::kube::store::meta;
use crate::kube::text::sha256;

/// Most bytes of a body.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// Whether JSON is indented: on demand, or for programs that people read the answers of.
fn pretty(req: &Request) -> bool {
    match req.query.text("pretty") {
        Some(v) => matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| req.agent.starts_with(p)),
    }
}

/// The number of an audit event: the client's own, or a new one.
fn audit_id(req: &Request) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let given = req.headers.iter().find(|(k, v)| k == "audit-id" && !v.is_empty()).map(|(_, v)| v.clone());
    given.unwrap_or_else(|| {
        let hash = sha256(&format!("{}{}", req.path, COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut bytes = [0u8; 16];
        bytes.iter_mut().zip(hash.bytes()).for_each(|(b, h)| *b = h);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    })
}

/// The FlowSchema that a user's requests fall under.
fn flow_of(user: &User) -> &'static str {
    let is = |g: &str| user.groups.iter().any(|x| x == g);
    match user.name.as_str() {
        _ if is("system:masters") => "exempt",
        _ if is("system:nodes") => "system-nodes",
        "system:kube-controller-manager" => "kube-controller-manager",
        "system:kube-scheduler" => "kube-scheduler",
        _ if is("system:serviceaccounts:kube-system") => "kube-system-service-accounts",
        _ if is("system:serviceaccounts") => "service-accounts",
        _ => "global-default",
    }
}

/// Uids of the FlowSchema and of the priority level of a user's requests.
fn flow(lab: &Lab, cluster: &str, user: &User) -> Option<(String, String)> {
    lab.with(|w| {
        let store = &w.clusters.get(cluster)?.store;
        let schema = store.get("flowschemas.flowcontrol.apiserver.k8s.io", "", flow_of(user))?;
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str()?;
        let level = store.get("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", "", level)?;
        Some((meta::uid(schema).to_owned(), meta::uid(level).to_owned()))
    })
}

/// Completes an answer to `user`, if somebody was known.
pub async fn complete(
    lab: &Lab,
    cluster: &str,
    user: Option<&User>,
    req: &Request,
    mut r: Response<Body>,
) -> Response<Body> {
    if r.status() == StatusCode::SWITCHING_PROTOCOLS {
        return r;
    }
    let mut put = |name: &'static str, value: &str| {
        if let Ok(v) = HeaderValue::from_str(value) {
            r.headers_mut().insert(name, v);
        }
    };
    put("audit-id", &audit_id(req));
    put("cache-control", "no-cache, private");
    if let Some((schema, level)) = user.and_then(|u| flow(lab, cluster, u)) {
        put("x-kubernetes-pf-flowschema-uid", &schema);
        put("x-kubernetes-pf-prioritylevel-uid", &level);
    }
    let json = r.headers().get(http::header::CONTENT_TYPE).is_some_and(|t| t == "application/json");
    // a watch has no end to wait for
    if !json || !pretty(req) || r.body().size_hint().exact().is_none() {
        return r;
    }
    let (head, body) = r.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let shown = serde_json::from_slice::<Value>(&bytes).ok().and_then(|v| serde_json::to_vec_pretty(&v).ok());
    Response::from_parts(head, whole(shown.map_or(bytes, Into::into)))
}
