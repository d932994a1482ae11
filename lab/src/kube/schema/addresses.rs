//! Addresses of services: the range that the API server's own service is in, and what of it is given out.
use serde_json::Value;

use super::super::store::{Cause, Store};
use super::super::text::s;

/// The first two numbers of the range, as the `kubernetes` service has them.
fn range(store: &Store) -> String {
    let own = store.get("services", "default", "kubernetes").map(|o| s(o, "/spec/clusterIP")).unwrap_or_default();
    let start: Vec<&str> = own.split('.').take(2).collect();
    if start.len() == 2 { start.join(".") } else { "10.43".to_owned() }
}

fn is_taken(store: &Store, ip: &str, but: Option<&Value>) -> bool {
    let same =
        |o: &Value| but.is_some_and(|b| ["/metadata/namespace", "/metadata/name"].iter().all(|p| s(o, p) == s(b, p)));
    store.all("services", "").any(|o| s(o, "/spec/clusterIP") == ip && !same(o))
}

/// A free address; `seed` says where to begin.
#[must_use]
pub fn free(store: &Store, seed: u64) -> String {
    let base = range(store);
    let at = |n: u64| format!("{base}.{}.{}", n / 250 % 250, n % 250 + 2);
    (seed..seed + 250).map(at).find(|ip| !is_taken(store, ip, None)).unwrap_or_else(|| at(seed))
}

/// What keeps a new service from the address that it asks for.
#[must_use]
pub fn trouble(store: &Store, obj: &Value) -> Option<Cause> {
    let ip = s(obj, "/spec/clusterIP");
    if ip.is_empty() || ip == "None" || store.get("services", "default", "kubernetes").is_none() {
        return None;
    }
    let range = range(store);
    let why = if !ip.starts_with(&format!("{range}.")) {
        format!("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}.0.0/16")
    } else if is_taken(store, ip, Some(obj)) {
        "provided IP is already allocated".to_owned()
    } else {
        return None;
    };
    Some(Cause::invalid("spec.clusterIPs", &serde_json::json!([ip]), &format!("failed to allocate IP {ip}: {why}")))
}
