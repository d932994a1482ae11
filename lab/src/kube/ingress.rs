//! Host names of a cluster as clients outside of it see them: the load balancer of K3s on every node, Traefik behind it.
//! What Traefik and ServiceLB do follows their documentation.
use serde_json::Value;

use super::controllers::pods;
use super::hooks::{ServiceAnswer, ServiceRequest, service_http};
use super::k3s::{config, membership};
use super::state::Cluster;
use super::store::meta::parse_time;
use super::text::{arr, s};
use crate::Lab;
use crate::world::World;

/// How long cert-manager's certificates are valid, and when it makes them anew: its defaults.
const VALID_MS: u64 = 90 * DAY_MS;
const RENEWED_MS: u64 = 60 * DAY_MS;
const DAY_MS: u64 = 86_400_000;

/// A certificate as a client sees it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its subject.
    pub subject: String,
    /// When it was made, and when it ends.
    pub valid: (u64, u64),
}

/// What is behind ports 80 and 443 of a node.
pub enum Entry {
    /// Traefik answers; for TLS, the certificate that it shows.
    Answer(ServiceAnswer, Shown),
    /// Nothing listens, or a Service without endpoints rejects it.
    Refused,
}

/// A request for `host` to port 80 or 443 of the machine `vmid`.
pub fn request(lab: &Lab, w: &mut World, vmid: u32, host: &str, mut req: ServiceRequest) -> Entry {
    let Some(id) = membership::of_machine(w, vmid) else { return Entry::Refused };
    let Some(c) = w.clusters.get(&id) else { return Entry::Refused };
    if config::list(&c.config, "disable").iter().any(|d| d == "servicelb" || d == "traefik") {
        return Entry::Refused;
    }
    let traefik = serde_json::json!({"matchLabels": {"app.kubernetes.io/name": "traefik"}});
    if !c.store.select("pods", "kube-system", &traefik).into_iter().any(pods::is_ready) {
        return Entry::Refused;
    }
    let plain = |status, body: &str| ServiceAnswer { status, content_type: "text/plain".into(), body: body.into() };
    let rule = c.store.all("ingresses.networking.k8s.io", "").find_map(|i| {
        let rule = arr(i, "/spec/rules").iter().find(|r| r["host"] == host)?;
        Some((i.clone(), rule.clone()))
    });
    let Some((ingress, rule)) = rule else {
        return Entry::Answer(plain(404, "404 page not found\n"), own(w.now_ms));
    };
    let shown = certificate(c, &ingress, host, w.now_ms);
    let backend = backend(&rule);
    req.namespace = s(&ingress, "/metadata/namespace").to_owned();
    req.service = s(&backend, "/service/name").to_owned();
    req.port = backend["service"]["port"]["number"].as_u64().map_or_else(String::new, |n| n.to_string());
    let answer = service_http(lab, w, &id, &req);
    let answer = if answer.status == 503 { plain(503, "no available server\n") } else { answer };
    Entry::Answer(answer, shown)
}

/// What Traefik shows when it has nothing better: a certificate of its own. The lab notes no start of it: it looks as if
/// it were made just now.
fn own(now: u64) -> Shown {
    Shown { subject: "CN=TRAEFIK DEFAULT CERT".to_owned(), valid: (now, now + 365 * DAY_MS) }
}

/// The certificate of a host: that of the Ingress's Secret; cert-manager makes it anew in time.
fn certificate(c: &Cluster, ingress: &Value, host: &str, now: u64) -> Shown {
    let ns = s(ingress, "/metadata/namespace");
    let of = arr(ingress, "/spec/tls").iter().find(|t| arr(t, "/hosts").iter().any(|h| h == host));
    let name = of.map(|t| s(t, "/secretName")).unwrap_or_default();
    let Some(secret) = c.store.get("secrets", ns, name) else { return own(now) };
    let made = parse_time(s(secret, "/metadata/creationTimestamp")).unwrap_or(now);
    let made = made + now.saturating_sub(made) / RENEWED_MS * RENEWED_MS;
    Shown { subject: format!("CN={host}"), valid: (made, made + VALID_MS) }
}

fn backend(rule: &Value) -> Value {
    arr(rule, "/http/paths").first().map(|p| p["backend"].clone()).unwrap_or_default()
}
