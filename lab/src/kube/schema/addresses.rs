//! Addresses of services: the range that the API server's own service is in, and what of it is given out.
use serde_json::Value;

use super::super::store::{Cause, Store};
use super::super::text::{arr, s};

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

/// What keeps a new service from the address and the node ports that it asks for.
#[must_use]
pub fn trouble(store: &Store, obj: &Value) -> Option<Cause> {
    // before the API server's own service there is nobody to give out anything
    store.get("services", "default", "kubernetes")?;
    address(store, obj).or_else(|| node_port(store, obj))
}

fn address(store: &Store, obj: &Value) -> Option<Cause> {
    let ip = s(obj, "/spec/clusterIP");
    if ip.is_empty() || ip == "None" {
        return None;
    }
    let why = if !ip.starts_with(&format!("{}.", range(store))) {
        "the provided network does not match the current range"
    } else if is_taken(store, ip, Some(obj)) {
        "provided IP is already allocated"
    } else {
        return None;
    };
    Some(Cause::invalid("spec.clusterIPs", &serde_json::json!([ip]), &format!("failed to allocate IP {ip}: {why}")))
}

fn node_port(store: &Store, obj: &Value) -> Option<Cause> {
    let same = |o: &Value| ["/metadata/namespace", "/metadata/name"].iter().all(|p| s(o, p) == s(obj, p));
    let taken = |p: &Value| {
        let has = |o: &Value| {
            arr(o, "/spec/ports").iter().any(|q| q["nodePort"] == p["nodePort"] && q["protocol"] == p["protocol"])
        };
        store.all("services", "").any(|o| !same(o) && has(o))
    };
    let (i, p) = arr(obj, "/spec/ports")
        .iter()
        .enumerate()
        .find(|(_, p)| p["nodePort"].as_i64().unwrap_or(0) != 0 && taken(p))?;
    Some(Cause::invalid(format!("spec.ports[{i}].nodePort"), &p["nodePort"], "provided port is already allocated"))
}
