//! What the API server gives a service: families, addresses, ports of the nodes. Grade: source
//! (pkg/registry/core/service).
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::store::{Cause, Store};
use super::super::text::{arr, s};
use super::services::{families, headless, is_outside, is_probed};
use super::{defaults, ips};

/// Ports that nodes open for services.
const PORTS: std::ops::RangeInclusive<u64> = 30_000..=32_767;

/// What is wrong with what a service asks for.
type Refused = Vec<Cause>;

/// The first two numbers of the range, as the `kubernetes` service has them.
fn range(store: &Store) -> String {
    let own = store.get("services", "default", "kubernetes").map(|o| s(o, "/spec/clusterIP")).unwrap_or_default();
    let start: Vec<&str> = own.split('.').take(2).collect();
    if start.len() == 2 { start.join(".") } else { "10.43".to_owned() }
}

fn is_taken(store: &Store, ip: &str) -> bool {
    store.all("services", "").any(|o| s(o, "/spec/clusterIP") == ip)
}

fn needs_address(spec: &Value) -> bool {
    spec["type"] != "ExternalName"
}

fn needs_ports(spec: &Value) -> bool {
    matches!(s(spec, "/type"), "NodePort" | "LoadBalancer")
}

/// Gives a new or changed service what it is to have, before it is checked.
///
/// # Errors
/// Why it cannot have what it asks for.
pub(super) fn give(store: &mut Store, obj: &mut Value, old: Option<&Value>) -> Result<(), Refused> {
    let had = old.map(|o| &o["spec"]);
    let spec = &mut obj["spec"];
    if let Some(had) = had {
        kept(spec, had);
    }
    normal(spec, had);
    let done = of_families(spec, had).and_then(|()| address(store, spec, had)).and_then(|()| ports(store, spec, had));
    defaults::tidy(spec);
    done
}

/// Takes over what was given out before and is not named again.
fn kept(spec: &mut Value, had: &Value) {
    if needs_address(spec) && needs_address(had) {
        if s(spec, "/clusterIP").is_empty() {
            spec["clusterIP"] = had["clusterIP"].clone();
        }
        if arr(spec, "/clusterIPs").is_empty() {
            spec["clusterIPs"] = had["clusterIPs"].clone();
        }
    }
    if needs_ports(spec) && needs_ports(had) {
        let now: Vec<Value> = arr(spec, "/ports").iter().map(|p| p["nodePort"].clone()).collect();
        let before = arr(had, "/ports");
        for p in spec["ports"].as_array_mut().into_iter().flatten().filter(|p| p["nodePort"].is_null()) {
            let same = before.iter().rev().find(|q| s(q, "/name") == s(p, "/name"));
            let number = same.map(|q| q["nodePort"].clone()).unwrap_or_default();
            if !number.is_null() && !now.contains(&number) {
                p["nodePort"] = number;
            }
        }
    }
    if is_probed(spec) && is_probed(had) {
        defaults::set(spec, "healthCheckNodePort", had["healthCheckNodePort"].clone());
    }
}

/// Makes one address and the list of them say the same where only one of them is told.
fn normal(spec: &mut Value, had: Option<&Value>) {
    let (one, all) = (s(spec, "/clusterIP").to_owned(), spec["clusterIPs"].clone());
    let none = arr(spec, "/clusterIPs").is_empty();
    let Some(had) = had else {
        if !one.is_empty() && none {
            spec["clusterIPs"] = json!([one]);
        }
        return;
    };
    if one != s(had, "/clusterIP") && all == had["clusterIPs"] {
        spec["clusterIPs"] = if one.is_empty() { Value::Null } else { json!([one]) };
    } else if one == s(had, "/clusterIP") && none {
        spec["clusterIPs"] = had["clusterIPs"].clone();
    }
}

/// Families of a service; a cluster of K3s has addresses of the fourth version only.
fn of_families(spec: &mut Value, had: Option<&Value>) -> Result<(), Refused> {
    if !needs_address(spec) {
        return Ok(());
    }
    let free = headless(spec) && spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    if spec["ipFamilyPolicy"].is_null() {
        let before = had.map(|h| h["ipFamilyPolicy"].clone()).unwrap_or_default();
        let plain = if free { "RequireDualStack" } else { "SingleStack" };
        spec["ipFamilyPolicy"] = if before.is_null() { plain.into() } else { before };
    }
    let wrong = families(spec, had);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let single = spec["ipFamilyPolicy"] == "SingleStack";
    let mut wrong = Vec::new();
    for (f, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if single && arr(spec, &format!("/{f}")).len() == 2 {
            let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            wrong.push(Cause::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], &why));
        }
    }
    let mut wanted = arr(spec, "/ipFamilies").to_vec();
    for (i, ip) in arr(spec, "/clusterIPs").iter().enumerate().filter(|(_, ip)| *ip != "None") {
        if i < wanted.len() {
            continue;
        }
        if ips::is_six(s(ip, "")) {
            let why = "IPv6 is not configured on this cluster";
            wrong.push(Cause::invalid(format!("spec.clusterIPs[{i}]"), &spec["clusterIPs"], why));
        } else {
            wanted.push("IPv4".into());
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    if free {
        if wanted.is_empty() {
            wanted.push("IPv4".into());
        }
        if wanted.len() < 2 && !single {
            wanted.push(if wanted[0] == "IPv4" { "IPv6" } else { "IPv4" }.into());
        }
        spec["ipFamilies"] = wanted.into();
        return Ok(());
    }
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        wrong.push(Cause::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], why));
    }
    for (i, f) in wanted.iter().enumerate().filter(|(_, f)| *f != "IPv4") {
        wrong.push(Cause::invalid(format!("spec.ipFamilies[{i}]"), f, "not configured on this cluster"));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    spec["ipFamilies"] = if wanted.is_empty() { json!(["IPv4"]) } else { wanted.into() };
    Ok(())
}

fn address(store: &mut Store, spec: &mut Value, had: Option<&Value>) -> Result<(), Refused> {
    // what has an address keeps it
    let settled = had.is_some_and(|h| needs_address(h) && !s(h, "/clusterIP").is_empty());
    if !needs_address(spec) || headless(spec) || settled {
        return Ok(());
    }
    let base = range(store);
    let asked = s(spec, "/clusterIP").to_owned();
    let why = if asked.is_empty() {
        let seed = store.draw_port();
        let at = |n: u64| format!("{base}.{}.{}", n / 250 % 250, n % 250 + 2);
        let ip = (seed..seed + 250).map(at).find(|ip| !is_taken(store, ip)).unwrap_or_else(|| at(seed));
        spec["clusterIP"] = ip.as_str().into();
        spec["clusterIPs"] = json!([ip]);
        return Ok(());
    } else if !asked.starts_with(&format!("{base}.")) {
        "the provided network does not match the current range"
    } else if is_taken(store, &asked) {
        "provided IP is already allocated"
    } else {
        return Ok(());
    };
    let why = format!("failed to allocate IP {asked}: {why}");
    Err(vec![Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], &why)])
}

/// Ports of nodes that services have.
struct Given<'a> {
    store: &'a mut Store,
    taken: BTreeSet<u64>,
}

impl Given<'_> {
    fn take(&mut self, at: String, number: u64) -> Result<(), Refused> {
        let why = if !PORTS.contains(&number) {
            "provided port is not in the valid range. The range of valid ports is 30000-32767"
        } else if !self.taken.insert(number) {
            "provided port is already allocated"
        } else {
            return Ok(());
        };
        Err(vec![Cause::invalid(at, &number.into(), why)])
    }

    fn any(&mut self) -> u64 {
        let all = PORTS.end() - PORTS.start() + 1;
        let seed = self.store.draw_port();
        let at = |n: u64| PORTS.start() + n % all;
        let free = (seed..seed + all).map(at).find(|n| !self.taken.contains(n)).unwrap_or_else(|| at(seed));
        self.taken.insert(free);
        free
    }
}

fn numbers(spec: &Value) -> impl Iterator<Item = u64> + '_ {
    arr(spec, "/ports").iter().filter_map(|p| p["nodePort"].as_u64())
}

fn ports(store: &mut Store, spec: &mut Value, had: Option<&Value>) -> Result<(), Refused> {
    let taken = store
        .all("services", "")
        .flat_map(|o| numbers(&o["spec"]).chain(o["spec"]["healthCheckNodePort"].as_u64()).collect::<Vec<_>>())
        .collect();
    let own: BTreeSet<u64> = had.into_iter().flat_map(numbers).collect();
    let mut given = Given { store, taken };
    if needs_ports(spec) {
        let all = spec["type"] == "NodePort" || spec["allocateLoadBalancerNodePorts"] != false;
        let list = arr(spec, "/ports").to_vec();
        let mut by_port: Vec<(Value, u64)> = Vec::new();
        for (i, p) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
            let at = || format!("spec.ports[{i}].nodePort");
            let shared = by_port.iter().find(|(port, _)| *port == p["port"]).map(|(_, n)| *n).filter(|_| had.is_none());
            let number = match (p["nodePort"].as_u64(), shared) {
                (None, _) if !all => continue,
                (Some(n), _) if own.contains(&n) || shared == Some(n) => n,
                (Some(n), _) => given.take(at(), n).map(|()| n)?,
                (None, Some(n)) => n,
                (None, None) => {
                    let same = |q: &&Value| had.is_none() && q["port"] == p["port"] && !q["nodePort"].is_null();
                    match list.iter().find(same).and_then(|q| q["nodePort"].as_u64()) {
                        Some(n) => given.take(at(), n).map(|()| n)?,
                        None => given.any(),
                    }
                }
            };
            p["nodePort"] = number.into();
            by_port.push((p["port"].clone(), number));
        }
    }
    if is_probed(spec) {
        let before = had.filter(|h| is_probed(h)).and_then(|h| h["healthCheckNodePort"].as_u64());
        match spec["healthCheckNodePort"].as_u64() {
            Some(n) if before == Some(n) => {}
            Some(n) => given.take("spec.healthCheckNodePort".into(), n)?,
            None => spec["healthCheckNodePort"] = given.any().into(),
        }
    }
    Ok(())
}

/// Takes away what belonged to the type that a service had.
pub(super) fn retyped(obj: &mut Value, old: &Value) {
    let had = &old["spec"];
    let was_outside = is_outside(had);
    let spec = &mut obj["spec"];
    let mut gone: Vec<&str> = Vec::new();
    let same = |spec: &Value, f: &str| spec[f] == had[f];
    if needs_address(had) && !needs_address(spec) {
        if same(spec, "clusterIP") && same(spec, "clusterIPs") {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        gone.extend(["ipFamilies", "ipFamilyPolicy"].into_iter().filter(|f| same(spec, f)));
    }
    let old_numbers: BTreeSet<u64> = numbers(had).collect();
    if needs_ports(had) && !needs_ports(spec) && numbers(spec).all(|n| old_numbers.contains(&n)) {
        for p in spec["ports"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            p.shift_remove("nodePort");
        }
    }
    if is_probed(had) && !is_probed(spec) && same(spec, "healthCheckNodePort") {
        gone.push("healthCheckNodePort");
    }
    if had["type"] == "LoadBalancer" && spec["type"] != "LoadBalancer" {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"].into_iter().filter(|f| same(spec, f)));
    }
    if was_outside && !is_outside(spec) && same(spec, "externalTrafficPolicy") {
        gone.push("externalTrafficPolicy");
    }
    if spec["type"] == "ExternalName" {
        gone.push("internalTrafficPolicy");
    }
    let balanced = spec["type"] == "LoadBalancer";
    if let Some(m) = spec.as_object_mut() {
        gone.iter().for_each(|f| drop(m.shift_remove(*f)));
    }
    if !balanced {
        obj["status"]["loadBalancer"] = json!({});
    }
    defaults::tidy(obj);
}
