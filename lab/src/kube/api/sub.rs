//! Subresources: status, scale, log, eviction, binding, token.
use http::Response;
use serde_json::{Value, json};

use super::read::{self, namespace};
use super::route::Target;
use super::{Answer, Body, Call, auth, decode, text, write};
use crate::kube::hooks;
use crate::kube::schema::Kind;
use crate::kube::store::delete::DeleteOptions;
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
        ("status", "PATCH") => write::patch_sub(call, kind, t, "status"),
        ("finalize", "PUT") if kind.plural == "namespaces" => write::replace_sub(call, kind, t, "finalize"),
        ("scale", _) if kind.scale => scale(call, kind, t),
        ("eviction", "POST") if kind.plural == "pods" => evict(call, kind, t),
        ("binding", "POST") if kind.plural == "pods" => bind(call, kind, t),
        ("token", "POST") if kind.plural == "serviceaccounts" => token(call, kind, t),
        ("exec" | "attach" | "portforward" | "ephemeralcontainers" | "resize", _) => {
            let why = format!("{}/{sub} is not simulated: add it to lab/src/kube/api/sub.rs", kind.plural);
            Err(Failure::new(501, "NotImplemented", why))
        }
        _ => Err(Failure::no_resource()),
    }
}

fn target(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Value, Failure> {
    let name = t.name.as_deref().unwrap_or_default();
    read::store(call, &kind.resource(), |s| {
        s.get(&kind.resource(), namespace(kind, t), name).cloned().ok_or_else(|| Failure::not_found(kind, name))
    })
}

fn scale_of(o: &Value) -> Value {
    let m = &o["metadata"];
    let selector = o["spec"]["selector"]["matchLabels"].as_object().map(|l| {
        l.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect::<Vec<_>>().join(",")
    });
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": m["name"], "namespace": m["namespace"], "uid": m["uid"],
            "resourceVersion": m["resourceVersion"], "creationTimestamp": m["creationTimestamp"]},
        "spec": {"replicas": o["spec"]["replicas"].as_u64().unwrap_or(1)},
        "status": {"replicas": o["status"]["replicas"].as_u64().unwrap_or(0), "selector": selector},
    })
}

fn scale(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let old = target(call, kind, t)?;
    if call.req.method == "GET" {
        return Ok(Answer::ok(scale_of(&old)));
    }
    let body = decode::body(call.req)?;
    let Some(n) = body["spec"]["replicas"].as_u64() else {
        return Err(Failure::bad_request("spec.replicas: Required value"));
    };
    let name = t.name.as_deref().unwrap_or_default();
    let new = read::store(call, &kind.resource(), |s| {
        s.patch_with(&kind.resource(), &t.namespace, name, |o| o["spec"]["replicas"] = json!(n))?;
        s.get(&kind.resource(), &t.namespace, name).cloned().ok_or_else(|| Failure::not_found(kind, name))
    })?;
    write::ring(call);
    Ok(Answer::ok(scale_of(&new)))
}

fn evict(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let pod = target(call, kind, t)?;
    let blocked = read::store(call, "poddisruptionbudgets.policy", |s| {
        let budgets = s.list("poddisruptionbudgets.policy", &t.namespace, "");
        let pods = |b: &Value| {
            s.select("pods", &t.namespace, &b["spec"]["selector"]).iter().any(|p| meta::uid(p) == meta::uid(&pod))
        };
        Ok(budgets.iter().any(|b| b["status"]["disruptionsAllowed"].as_i64() == Some(0) && pods(b)))
    })?;
    if blocked {
        let why = "Cannot evict pod as it would violate the pod's disruption budget.";
        return Err(Failure::new(429, "TooManyRequests", why));
    }
    let name = t.name.as_deref().unwrap_or_default();
    read::store(call, "pods", |s| s.delete_as(kind, &t.namespace, name, &DeleteOptions::default()))?;
    write::ring(call);
    Ok(Answer { code: 201, body: success(), warnings: Vec::new() })
}

fn success() -> Value {
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

/// `pods/log`.
///
/// # Errors
/// 404 for a missing pod, 400 with the kubelet's text.
pub fn log(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Response<Body>, Failure> {
    if kind.plural != "pods" {
        return Err(Failure::no_resource());
    }
    target(call, kind, t)?;
    let q = &call.req.query;
    let name = t.name.as_deref().unwrap_or_default();
    let container = q.text("container").unwrap_or_default();
    let full = call
        .lab
        .with(|w| hooks::pod_log(w, call.cluster, &t.namespace, name, container))
        .map_err(Failure::bad_request)?;
    let tail = q.text("tailLines").and_then(|n| n.parse::<usize>().ok());
    let shown = match tail {
        Some(n) => {
            let lines: Vec<&str> = full.lines().collect();
            lines[lines.len().saturating_sub(n)..].iter().map(|l| format!("{l}\n")).collect()
        }
        None => full,
    };
    Ok(text(200, "text/plain", shown))
}
