//! Subresources: status, scale, log, eviction, binding, token.
use serde_json::{Value, json};

use super::read::{self, namespace};
use super::route::Target;
use super::{Answer, Call, auth, csr, decode, evict, patch, resize, scale, write};
use crate::kube::schema::Kind;
use crate::kube::store::{Cause, Failure, meta};

/// Serves a subresource.
///
/// # Errors
/// 404 for one that the kind does not have.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let sub = t.sub.as_deref().unwrap_or_default();
    let method = call.req.method.as_str();
    match (sub, method) {
        ("status", _) if !kind.status => Err(Failure::no_resource()),
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
        ("approval", _) if csr::is(kind) => csr::approval(call, kind, t),
        ("resize", _) if kind.plural == "pods" => resize::serve(call, kind, t),
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

/// The pod that a token is to end with, as name and uid.
fn bound_to(call: &Call<'_>, t: &Target, sa: &Value, spec: &Value) -> Result<Option<(String, String)>, Failure> {
    let bound = &spec["boundObjectRef"];
    let Some(name) = bound["name"].as_str().filter(|_| bound["kind"] == "Pod") else { return Ok(None) };
    let pods = read::store(call, "pods", |s| Ok(s.kind_for("pods")))?.unwrap_or_default();
    let pod = target(call, &pods, &Target { name: Some(name.to_owned()), ..t.clone() })?;
    let account = pod["spec"]["serviceAccountName"].as_str().filter(|n| !n.is_empty()).unwrap_or("default");
    if account != meta::name(sa) {
        let why = format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            meta::name(sa)
        );
        return Err(Failure::bad_request(why));
    }
    if bound["uid"].as_str().is_some_and(|uid| !uid.is_empty() && uid != meta::uid(&pod)) {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            bound["uid"].as_str().unwrap_or_default()
        );
        return Err(Failure::conflict(&pods, name, &why));
    }
    Ok(Some((name.to_owned(), meta::uid(&pod).to_owned())))
}

fn token(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let sa = target(call, kind, t)?;
    let body = if call.req.body.is_empty() { json!({}) } else { decode::body(call.req)? };
    let seconds = body["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    let at = "spec.expirationSeconds";
    let wrong = match seconds {
        ..600 => Some("may not specify a duration less than 10 minutes"),
        600..=4_294_967_296 => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    };
    if let Some(why) = wrong {
        let request = Kind { group: "authentication.k8s.io".into(), kind: "TokenRequest".into(), ..Kind::default() };
        return Err(Failure::invalid(&request, meta::name(&sa), &[Cause::invalid(at, &seconds.into(), why)]));
    }
    let seconds = u64::try_from(seconds).unwrap_or(3600);
    let asked: Vec<&str> =
        body["spec"]["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let audiences = if asked.is_empty() { auth::AUDIENCES } else { &asked };
    let pod = bound_to(call, t, &sa, &body["spec"])?;
    let (key, now) = call.lab.with(|w| {
        let key = w.clusters.get(call.cluster).map(|c| c.token_key().to_owned());
        (key.unwrap_or_default(), w.now_ms)
    });
    let pod = pod.as_ref().map(|(name, uid)| (name.as_str(), uid.as_str()));
    let token = auth::make_token(&key, &sa, now, seconds, audiences, pod);
    let mut out = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": body["spec"],
        "metadata": {"name": meta::name(&sa), "namespace": t.namespace, "creationTimestamp": meta::time(now)}});
    out["spec"]["audiences"] = json!(audiences);
    out["spec"]["expirationSeconds"] = json!(seconds);
    if out["spec"].get("boundObjectRef").is_none() {
        out["spec"]["boundObjectRef"] = Value::Null;
    }
    out["status"] = json!({"token": token, "expirationTimestamp": meta::time(now + seconds * 1000)});
    Ok(Answer { code: 201, body: out, warnings: Vec::new() })
}
