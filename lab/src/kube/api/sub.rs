//! Subresources: status, scale, log, eviction, binding, token.
use serde_json::{Value, json};

use super::read::{self, namespace};
use super::route::Target;
use super::{Answer, Call, auth, decode, evict, patch, scale, write};
use crate::kube::schema::Kind;
use crate::kube::store::{Failure, meta};

/// Serves a subresource.
///
/// # Errors
/// 404 for one that the kind does not have, 501 for one that is not simulated.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let sub = t.sub.as_deref().unwrap_or_default();
    let method = call.req.method.as_str();
    match (sub, method) {
        ("status", "GET") => read::get(call, kind, t),
        ("status", "PUT") => write::replace_sub(call, kind, t, "status"),
        ("status", "PATCH") => patch::patch_sub(call, kind, t, "status"),
        ("finalize", "PUT") if kind.plural == "namespaces" => write::replace_sub(call, kind, t, "finalize"),
        ("scale", _) if kind.scale => scale::serve(call, kind, t),
        ("eviction", "POST") if kind.plural == "pods" => evict::serve(call, kind, t),
        ("binding", "POST") if kind.plural == "pods" => bind(call, kind, t),
        ("token", "POST") if kind.plural == "serviceaccounts" => token(call, kind, t),
        ("ephemeralcontainers", "GET") if kind.plural == "pods" => read::get(call, kind, t),
        ("ephemeralcontainers", "PUT") if kind.plural == "pods" => write::replace_sub(call, kind, t, sub),
        ("ephemeralcontainers", "PATCH") if kind.plural == "pods" => patch::patch_sub(call, kind, t, sub),
        ("resize", _) => {
            let why = format!("{}/{sub} is not simulated: add it to lab/src/kube/api/sub.rs", kind.plural);
            Err(Failure::new(501, "NotImplemented", why))
        }
        _ => Err(Failure::no_resource()),
    }
}

pub(super) fn target(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Value, Failure> {
    let name = t.name.as_deref().unwrap_or_default();
    read::store(call, &kind.resource(), |s| {
        s.get(&kind.resource(), namespace(kind, t), name).cloned().ok_or_else(|| Failure::not_found(kind, name))
    })
}

pub(super) fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
}

fn bind(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let body = decode::body(call.req)?;
    let node = body["target"]["name"].as_str().unwrap_or_default().to_owned();
    let pod = target(call, kind, t)?;
    if pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty()) {
        return Err(Failure::conflict(kind, meta::name(&pod), "pod is already assigned to a node"));
    }
    let name = t.name.as_deref().unwrap_or_default();
    read::store(call, "pods", |s| s.patch_with("pods", &t.namespace, name, |o| o["spec"]["nodeName"] = json!(node)))?;
    write::ring(call);
    Ok(Answer { code: 201, body: success(), warnings: Vec::new() })
}

fn token(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let sa = target(call, kind, t)?;
    let body = if call.req.body.is_empty() { json!({}) } else { decode::body(call.req)? };
    let seconds = body["spec"]["expirationSeconds"].as_u64().unwrap_or(3600);
    let (key, now) =
        call.lab.with(|w| (w.clusters.get(call.cluster).map(|c| c.token_key()).unwrap_or_default(), w.now_ms));
    let token = auth::make_token(&key, &sa, now, seconds);
    let mut out = body;
    out["kind"] = json!("TokenRequest");
    out["apiVersion"] = json!("authentication.k8s.io/v1");
    out["metadata"] = json!({"name": meta::name(&sa), "namespace": t.namespace});
    out["status"] = json!({"token": token, "expirationTimestamp": meta::time(now + seconds * 1000)});
    Ok(Answer { code: 201, body: out, warnings: Vec::new() })
}
