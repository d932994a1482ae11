//! Rules of services. Grade: source (pkg/apis/core/validation).
use serde_json::{Value, json};

use super::rules::{duplicate, forbidden, one_of, port};
use super::validate::{judged, labels};
use super::{ips, names};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

const OUTSIDE: &str = "may only be used when `type` is 'LoadBalancer'";
const ONCE: &str = "may not change once set";

/// Whether a service has no address of its own.
pub(super) fn headless(spec: &Value) -> bool {
    arr(spec, "/clusterIPs") == [json!("None")] || spec["clusterIP"] == "None"
}

/// Whether a service is reached from outside the cluster.
pub(super) fn is_outside(spec: &Value) -> bool {
    match s(spec, "/type") {
        "NodePort" | "LoadBalancer" => true,
        kind => kind == "ClusterIP" && !arr(spec, "/externalIPs").is_empty(),
    }
}

/// Whether nodes answer for the health of a service.
pub(super) fn is_probed(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// Checks a service, new or changed.
pub(super) fn check(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    if let Some(old) = old {
        changed(&old["spec"], spec, out);
    }
    let kind = s(spec, "/type");
    if arr(spec, "/ports").is_empty() && !headless(spec) && kind != "ExternalName" {
        out.push(Cause::required("spec.ports", ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless(spec) => {
            let why = format!("may not be set to 'None' for {kind} services");
            out.push(Cause::invalid("spec.clusterIPs[0]", &"None".into(), &why));
        }
        "ExternalName" => elsewhere(spec, out),
        _ => {}
    }
    ports(spec, out);
    labels(&spec["selector"], "spec.selector", out);
    affinity(spec, out);
    out.extend(families(spec, old.map(|o| &o["spec"])));
    let had = old.map_or(&[][..], |o| arr(o, "/spec/externalIPs"));
    for (i, ip) in arr(spec, "/externalIPs").iter().enumerate() {
        let (at, before) = (format!("spec.externalIPs[{i}]"), out.len());
        if !had.contains(ip) {
            ips::sound(&at, ip.as_str().unwrap_or_default(), out);
        }
        let text = ip.as_str().unwrap_or_default();
        if let (true, Ok(ip)) = (before == out.len(), text.parse()) {
            ips::reachable(&at, text, ip, out);
        }
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of("spec.type".into(), &spec["type"], &kinds, out);
    numbers(spec, out);
    balancer(obj, old, out);
    traffic(spec, out);
}

fn elsewhere(spec: &Value, out: &mut Vec<Cause>) {
    for f in ["clusterIPs", "ipFamilies"].into_iter().filter(|f| !arr(spec, &format!("/{f}")).is_empty()) {
        out.push(forbidden(&format!("spec.{f}"), "may not be set for ExternalName services"));
    }
    if !spec["ipFamilyPolicy"].is_null() {
        out.push(forbidden("spec.ipFamilyPolicy", "may not be set for ExternalName services"));
    }
    match s(spec, "/externalName") {
        "" | "." => out.push(Cause::required("spec.externalName", "")),
        name => judged("spec.externalName", name.strip_suffix('.').unwrap_or(name), names::subdomain, out),
    }
}

fn ports(spec: &Value, out: &mut Vec<Cause>) {
    let list = arr(spec, "/ports");
    let mut named: Vec<&Value> = Vec::new();
    for (i, p) in list.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        match s(p, "/name") {
            "" if list.len() > 1 => out.push(Cause::required(format!("{at}.name"), "")),
            "" => {}
            name => {
                judged(format!("{at}.name"), name, names::label, out);
                if named.contains(&&p["name"]) {
                    out.push(duplicate(format!("{at}.name"), &p["name"]));
                }
                named.push(&p["name"]);
            }
        }
        let number = json!(p["port"].as_i64().unwrap_or(0));
        port(format!("{at}.port"), &number, out);
        one_of(format!("{at}.protocol"), &p["protocol"], &["SCTP", "TCP", "UDP"], out);
        match p["targetPort"].as_str() {
            Some(name) => judged(format!("{at}.targetPort"), name, names::port, out),
            None => port(
                format!("{at}.targetPort"),
                if p["targetPort"].is_null() { &number } else { &p["targetPort"] },
                out,
            ),
        }
        if let Some(protocol) = p["appProtocol"].as_str() {
            judged(format!("{at}.appProtocol"), protocol, names::key, out);
        }
    }
}

fn affinity(spec: &Value, out: &mut Vec<Cause>) {
    one_of("spec.sessionAffinity".into(), &spec["sessionAffinity"], &["ClientIP", "None"], out);
    let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if spec["sessionAffinity"] == "ClientIP" && timeout.as_i64().is_some_and(|n| !(1..=86_400).contains(&n)) {
        let at = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        out.push(Cause::invalid(at, timeout, "must be greater than 0 and less than 86400"));
    }
    if spec["sessionAffinity"] == "None" && !spec["sessionAffinityConfig"].is_null() {
        out.push(forbidden("spec.sessionAffinityConfig", "must not be set when session affinity is None"));
    }
}

/// What is wrong with the addresses of a service and their families.
pub(super) fn families(spec: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut out = Vec::new();
    if spec["type"] == "ExternalName" {
        return out;
    }
    let (one, all) = (s(spec, "/clusterIP"), arr(spec, "/clusterIPs"));
    let mut say = |at: &str, why: &str| out.push(Cause::invalid(at, &spec["clusterIPs"], why));
    match (one, all) {
        ("", []) => {}
        ("", _) => say("spec.clusterIPs", "must be empty when `clusterIP` is not specified"),
        (_, []) => out.push(Cause::required("spec.clusterIPs", "")),
        (one, [first, ..]) if first != one => say("spec.clusterIPs", "first value must match `clusterIP`"),
        _ => {}
    }
    let wanted = arr(spec, "/ipFamilies");
    for (i, f) in wanted.iter().enumerate() {
        let at = format!("spec.ipFamilies[{i}]");
        one_of(at.clone(), f, &["IPv4", "IPv6"], &mut out);
        if wanted[..i].contains(f) {
            out.push(duplicate(at, f));
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    one_of("spec.ipFamilyPolicy".into(), &spec["ipFamilyPolicy"], &policies, &mut out);
    let before = out.len();
    let had = old.map_or(&[][..], |o| arr(o, "/clusterIPs"));
    for (i, ip) in all.iter().enumerate() {
        let text = ip.as_str().unwrap_or_default();
        if i == 0 && text == "None" {
            if all.len() > 1 {
                out.push(Cause::invalid(
                    "spec.clusterIPs",
                    &spec["clusterIPs"],
                    "'None' must be the first and only value",
                ));
            }
        } else if !had.contains(ip) {
            ips::sound(&format!("spec.clusterIPs[{i}]"), text, &mut out);
        }
    }
    let wrong = out.len() > before;
    if all.len() > 2 {
        out.push(Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], "may only hold up to 2 values"));
    }
    if wrong {
        return out;
    }
    let six = |v: &Value| ips::is_six(v.as_str().unwrap_or_default());
    if let [a, b] = all
        && six(a) == six(b)
    {
        let why = "may specify no more than one IP for each IP family";
        out.push(Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], why));
    }
    for (i, (ip, f)) in all.iter().zip(wanted).enumerate().filter(|_| !headless(spec)) {
        let is = if six(ip) { "IPv6" } else { "IPv4" };
        if matches!(f.as_str(), Some("IPv4" | "IPv6")) && f != is {
            let why = format!("expected an {} value as indicated by `ipFamilies[{i}]`", s(f, ""));
            out.push(Cause::invalid(format!("spec.clusterIPs[{i}]"), ip, &why));
        }
    }
    out
}

/// Ports of nodes, and ports that are there twice.
fn numbers(spec: &Value, out: &mut Vec<Cause>) {
    let list = arr(spec, "/ports");
    let own = |p: &Value| p["nodePort"].as_i64().unwrap_or(0) != 0;
    if spec["type"] == "ClusterIP" {
        for (i, _) in list.iter().enumerate().filter(|(_, p)| own(p)) {
            let why = "may not be used when `type` is 'ClusterIP'";
            out.push(forbidden(&format!("spec.ports[{i}].nodePort"), why));
        }
    }
    for (i, p) in list.iter().enumerate().filter(|(_, p)| own(p)) {
        let same = |q: &Value| q["nodePort"] == p["nodePort"] && q["protocol"] == p["protocol"];
        if list[..i].iter().any(same) {
            out.push(duplicate(format!("spec.ports[{i}].nodePort"), &p["nodePort"]));
        }
    }
    for (i, p) in list.iter().enumerate() {
        if list[..i].iter().any(|q| q["port"] == p["port"] && q["protocol"] == p["protocol"]) {
            let shown = json!({"Name": "", "Protocol": p["protocol"], "AppProtocol": null, "Port": p["port"],
                "TargetPort": 0, "NodePort": 0});
            out.push(duplicate(format!("spec.ports[{i}]"), &shown));
        }
    }
}

/// What only a service with a load balancer has.
fn balancer(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    let is = spec["type"] == "LoadBalancer";
    let at = "spec.LoadBalancerSourceRanges";
    let ranges = arr(spec, "/loadBalancerSourceRanges");
    if !ranges.is_empty() && !is {
        out.push(forbidden(at, OUTSIDE));
    }
    let had = old.map_or(&[][..], |o| arr(o, "/spec/loadBalancerSourceRanges"));
    for (i, r) in ranges.iter().enumerate().filter(|(_, r)| !had.contains(r)) {
        ips::sound_range(&format!("{at}[{i}]"), r.as_str().unwrap_or_default().trim(), out);
    }
    if !spec["allocateLoadBalancerNodePorts"].is_null() && !is {
        out.push(forbidden("spec.allocateLoadBalancerNodePorts", OUTSIDE));
    }
    match spec["loadBalancerClass"].as_str() {
        Some(class) if is => judged("spec.loadBalancerClass", class, names::key, out),
        Some(_) => out.push(forbidden("spec.loadBalancerClass", OUTSIDE)),
        None => {}
    }
}

fn traffic(spec: &Value, out: &mut Vec<Cause>) {
    let (at, policy) = ("spec.externalTrafficPolicy", &spec["externalTrafficPolicy"]);
    if is_outside(spec) {
        one_of(at.into(), policy, &["Cluster", "Local"], out);
    } else if policy.as_str().is_some_and(|t| !t.is_empty()) {
        out.push(Cause::invalid(at, policy, "may only be set for externally-accessible services"));
    }
    let (at, number) = ("spec.healthCheckNodePort", &spec["healthCheckNodePort"]);
    if number.as_i64().unwrap_or(0) != 0 {
        if is_probed(spec) {
            port(at.into(), number, out);
        } else {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            out.push(Cause::invalid(at, number, why));
        }
    }
    one_of("spec.internalTrafficPolicy".into(), &spec["internalTrafficPolicy"], &["Cluster", "Local"], out);
    let ways = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    one_of("spec.trafficDistribution".into(), &spec["trafficDistribution"], &ways, out);
}

/// What of a service never changes.
fn changed(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let leaves = old["type"] == "ExternalName" || new["type"] == "ExternalName";
    if !(leaves || headless(old) && headless(new)) {
        addresses_changed(old, new, out);
    }
    if !leaves && !headless(old) && !headless(new) {
        let (a, b) = (arr(old, "/ipFamilies"), arr(new, "/ipFamilies"));
        let differing = if a.len() == b.len() { a.iter().zip(b).filter(|(x, y)| x != y).count() } else { 0 };
        for _ in 0..differing {
            out.push(Cause::invalid("spec.ipFamilies[0]", &new["ipFamilies"], ONCE));
        }
    }
    let both = old["type"] == "LoadBalancer" && new["type"] == "LoadBalancer";
    if both && old["loadBalancerClass"] != new["loadBalancerClass"] {
        out.push(Cause::invalid("spec.loadBalancerClass", &new["loadBalancerClass"], ONCE));
    }
    if both && new["loadBalancerClass"].is_string() {
        judged("spec.loadBalancerClass", s(new, "/loadBalancerClass"), names::key, out);
    }
    if is_probed(old) && is_probed(new) && old["healthCheckNodePort"] != new["healthCheckNodePort"] {
        out.push(forbidden("spec.healthCheckNodePort", "field is immutable"));
    }
}

fn addresses_changed(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let (a, b) = (arr(old, "/clusterIPs"), arr(new, "/clusterIPs"));
    let mut say = |i: usize, why: &str| {
        out.push(Cause::invalid(format!("spec.clusterIPs[{i}]"), &new["clusterIPs"], why));
    };
    if a.len() == b.len() {
        for (i, _) in a.iter().zip(b).enumerate().filter(|(_, (x, y))| x != y) {
            say(i, ONCE);
        }
    } else if b.is_empty() {
        say(0, "primary clusterIP can not be unset");
    } else if a.first().is_some_and(|f| *f != b[0]) {
        say(0, ONCE);
    }
}

/// Checks the status of a service: who stands before it.
pub(super) fn status(obj: &Value, old: &Value, out: &mut Vec<Cause>) {
    let at = "status.loadBalancer.ingress";
    let list = arr(obj, "/status/loadBalancer/ingress");
    if obj["spec"]["type"] != "LoadBalancer" {
        if !list.is_empty() {
            out.push(forbidden(at, "may only be used when `spec.type` is 'LoadBalancer'"));
        }
        return;
    }
    let had: Vec<&str> = arr(old, "/status/loadBalancer/ingress").iter().map(|i| s(i, "/ip")).collect();
    for (i, one) in list.iter().enumerate() {
        let (at, ip, host) = (format!("{at}[{i}]"), s(one, "/ip"), s(one, "/hostname"));
        if !ip.is_empty() && !had.contains(&ip) {
            ips::sound(&format!("{at}.ip"), ip, out);
        }
        if ip.is_empty() && !one["ipMode"].is_null() {
            out.push(forbidden(&format!("{at}.ipMode"), "may not be specified when `ip` is not set"));
        } else {
            one_of(format!("{at}.ipMode"), &one["ipMode"], &["Proxy", "VIP"], out);
        }
        if !host.is_empty() {
            judged(format!("{at}.hostname"), host, names::subdomain, out);
            if host.parse::<std::net::IpAddr>().is_ok() {
                let why = "must be a DNS name, not an IP address";
                out.push(Cause::invalid(format!("{at}.hostname"), &host.into(), why));
            }
        }
    }
}
