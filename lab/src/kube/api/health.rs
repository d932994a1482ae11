//! `/version`, `/healthz`, `/livez`, `/readyz`, and the two pages that K3s shows to anybody.
use http::Response;
use serde_json::{Value, json};

use super::{Body, Call, Request, text};
use crate::Lab;

/// Checks in the order of the real server.
const CHECKS: &[&str] = &[
    "ping",
    "log",
    "loopback-serving-certificate",
    "etcd",
    "etcd-readiness",
    "informer-sync",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/peer-endpoint-reconciler-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    "poststarthook/storage-readiness",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
    "shutdown",
];

/// Checks of 1.36 and later.
const NEW: &[&str] = &["poststarthook/peer-endpoint-reconciler-controller", "poststarthook/storage-readiness"];

/// Pages without authentication: the CA (for joiners) and the supervisor's ping.
#[must_use]
pub fn anonymous(lab: &Lab, cluster: &str, req: &Request) -> Option<Response<Body>> {
    match req.path.as_str() {
        "/cacerts" => {
            let ca = lab.with(|w| w.clusters.get(cluster).map(|c| c.ca.cert.clone()))?;
            Some(text(200, "text/plain", ca))
        }
        "/ping" => Some(text(200, "text/plain", "pong")),
        _ => None,
    }
}

/// A health endpoint.
#[must_use]
pub fn probe(call: &Call<'_>, kind: &str, check: &str) -> Response<Body> {
    let up = call.lab.with(|w| crate::kube::hooks::api_up(w, call.cluster, call.vmid));
    let plain = "text/plain; charset=utf-8";
    let skip: Vec<&str> = call.req.query.all("exclude").collect();
    let minor = call.minor();
    let names: Vec<&str> = CHECKS
        .iter()
        .copied()
        .filter(|c| match *c {
            "shutdown" | "informer-sync" | "etcd-readiness" => kind == "readyz",
            "loopback-serving-certificate" => kind != "readyz" && minor >= 36,
            c => minor >= 36 || !NEW.contains(&c),
        })
        .collect();
    if !check.is_empty() {
        return match names.iter().find(|n| **n == check) {
            None => text(404, plain, "404 page not found\n"),
            Some(n) if n.starts_with("etcd") && !up => {
                text(500, plain, "internal server error: etcd failed: reason withheld\n")
            }
            Some(_) => text(200, plain, "ok"),
        };
    }
    let mut lines = String::new();
    let mut bad = false;
    for n in names {
        if skip.contains(&n) {
            lines += &format!("[+]{n} excluded: ok\n");
        } else if n.starts_with("etcd") && !up {
            bad = true;
            lines += &format!("[-]{n} failed: reason withheld\n");
        } else {
            lines += &format!("[+]{n} ok\n");
        }
    }
    if bad {
        return text(500, plain, format!("{lines}{kind} check failed\n"));
    }
    match call.req.query.get("verbose") {
        Some(_) => text(200, plain, format!("{lines}{kind} check passed\n")),
        None => text(200, plain, "ok"),
    }
}

/// `/version` of this server.
#[must_use]
pub fn version(call: &Call<'_>) -> Value {
    let v = call.lab.with(|w| {
        let own = w.k3s.get(&call.vmid).map(|p| p.start.version.clone());
        own.or_else(|| w.clusters.get(call.cluster).map(|c| c.version.clone())).unwrap_or_default()
    });
    let mut parts = v.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("34"));
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": minor.parse::<u32>().unwrap_or(1).saturating_sub(1).to_string(),
        "gitVersion": v, "gitCommit": "5b6d4c0b1e6e4c7b8f1f0c9f2a6a0d5e3c1b7a90", "gitTreeState": "clean",
        "buildDate": "2026-09-17T20:11:04Z", "goVersion": "go1.24.6", "compiler": "gc", "platform": "linux/amd64",
    })
}
