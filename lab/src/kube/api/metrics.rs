//! `metrics.k8s.io`: what `kubectl top` shows, while a metrics-server runs. Grade: estimate (usage follows requests).
use std::sync::Arc;

use serde_json::{Value, json};

use super::read::selectors;
use super::route::Target;
use super::{Answer, Call, rbac};
use crate::kube::container::{self, memory};
use crate::kube::controllers::pods;
use crate::kube::schema::Kind;
use crate::kube::state::Cluster;
use crate::kube::store::{Failure, Store, meta};
use crate::kube::text::{arr, milli, s, sha256};

/// The group that metrics-server adds to the API.
pub const GROUP: &str = "metrics.k8s.io";
const SERVICE: &str = "apiservices.apiregistration.k8s.io";

/// Whether a metrics-server answers for the group.
#[must_use]
pub fn up(c: &Cluster) -> bool {
    c.store.get(SERVICE, "", "v1beta1.metrics.k8s.io").is_some()
        && c.store.list("pods", "kube-system", "k8s-app=metrics-server").into_iter().any(pods::is_ready)
}

/// The kinds of the group.
#[must_use]
pub fn kinds() -> Vec<Arc<Kind>> {
    [("NodeMetrics", "nodes", false), ("PodMetrics", "pods", true)]
        .into_iter()
        .map(|(kind, plural, namespaced)| {
            Arc::new(Kind {
                group: GROUP.into(),
                version: "v1beta1".into(),
                kind: kind.into(),
                plural: plural.into(),
                namespaced,
                read_only: true,
                ..Kind::default()
            })
        })
        .collect()
}

/// Serves a GET below `/apis/metrics.k8s.io/v1beta1`.
///
/// # Errors
/// 503 while no metrics-server runs, 404 for what it does not know, 405 for writes.
pub fn serve(call: &Call<'_>, t: &Target) -> Result<Answer, Failure> {
    let kind = kinds().into_iter().find(|k| k.plural == t.plural && t.sub.is_none() && t.version == k.version);
    let kind = kind.ok_or_else(Failure::no_resource)?;
    rbac::demand(call, &kind, t)?;
    if call.req.method != "GET" {
        return Err(Failure::not_allowed());
    }
    let (labels, _) = selectors(call, &kind)?;
    call.lab.with(|w| {
        let now = meta::time(w.now_ms);
        let c = w.clusters.get(call.cluster).filter(|c| up(c)).ok_or_else(|| {
            Failure::new(503, "ServiceUnavailable", "the server is currently unable to handle the request")
        })?;
        let ns = if kind.namespaced { t.namespace.as_str() } else { "" };
        let all = c.store.all(&kind.plural, ns).filter(|o| labels.matches(o));
        let named = all.filter(|o| t.name.as_deref().is_none_or(|n| meta::name(o) == n));
        let mut items: Vec<Value> = if kind.namespaced {
            named.filter(|p| pods::is_ready(p)).map(|p| of_pod(p, &now)).collect()
        } else {
            named.map(|n| of_node(&c.store, n, &now)).collect()
        };
        if let Some(name) = &t.name {
            let mut one = items.pop().ok_or_else(|| Failure::not_found(&kind, name))?;
            one["kind"] = json!(kind.kind);
            one["apiVersion"] = json!(kind.api_version());
            return Ok(Answer::ok(one));
        }
        let list = json!({"kind": kind.list_kind(), "apiVersion": kind.api_version(), "metadata": {}, "items": items});
        Ok(Answer::ok(list))
    })
}

/// Thousandths of a core and KiB that a container uses: part of what it requests, a little when it requests nothing.
#[must_use]
pub fn usage(pod: &Value, c: &Value) -> (i64, i64) {
    if let Some(load) = memory::load(&container::words(c)) {
        return memory::used(c, &load);
    }
    let seed = sha256(&format!("{}{}", meta::uid(pod), s(c, "/name")));
    let jitter = i64::from_str_radix(&seed[..2], 16).unwrap_or(0);
    let asked = |r: &str| milli(&c["resources"]["requests"][r]);
    let cpu = if asked("cpu") > 0 { asked("cpu") * (200 + jitter) / 1000 } else { 1 + jitter / 32 };
    let memory = asked("memory") / 1000 / 1024;
    let memory = if memory > 0 { memory * (400 + jitter) / 1000 } else { 18_000 + jitter * 100 };
    (cpu, memory)
}

fn amount((cpu, memory): (i64, i64)) -> Value {
    json!({"cpu": format!("{}n", cpu * 1_000_000), "memory": format!("{memory}Ki")})
}

fn of_pod(pod: &Value, now: &str) -> Value {
    let containers: Vec<Value> = arr(pod, "/spec/containers")
        .iter()
        .map(|c| json!({"name": c["name"], "usage": amount(usage(pod, c))}))
        .collect();
    json!({"metadata": {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"],
        "creationTimestamp": now, "labels": pod["metadata"]["labels"]},
        "timestamp": now, "window": "15.3s", "containers": containers})
}

fn of_node(store: &Store, node: &Value, now: &str) -> Value {
    json!({"metadata": {"name": meta::name(node), "creationTimestamp": now, "labels": node["metadata"]["labels"]},
        "timestamp": now, "window": "20.1s", "usage": amount(node_usage(store, node))})
}

/// As [`usage`], of a whole node.
#[must_use]
pub fn node_usage(store: &Store, node: &Value) -> (i64, i64) {
    let name = meta::name(node);
    // what the machine itself needs: a server has the control plane and etcd beside its kubelet
    let server = node["metadata"]["labels"].get("node-role.kubernetes.io/control-plane").is_some();
    let mut sum = if server { (180, 1_300_000) } else { (60, 450_000) };
    for pod in store.all("pods", "").filter(|p| s(p, "/spec/nodeName") == name && pods::is_ready(p)) {
        for c in arr(pod, "/spec/containers") {
            let (cpu, memory) = usage(pod, c);
            sum = (sum.0 + cpu, sum.1 + memory);
        }
    }
    sum
}
