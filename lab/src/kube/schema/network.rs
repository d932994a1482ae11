//! Rules of services, ingresses and network policies. Grade: source (the validation packages of kube-apiserver).
use std::net::IpAddr;

use serde_json::{Value, json};

use super::names;
use super::rules::{duplicate, forbidden, immutable, one_of, port};
use super::validate::{judged, selector};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

/// Checks a Service.
pub(super) fn service(obj: &Value, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    one_of("spec.type".into(), &spec["type"], &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], out);
    one_of("spec.sessionAffinity".into(), &spec["sessionAffinity"], &["ClientIP", "None"], out);
    one_of("spec.internalTrafficPolicy".into(), &spec["internalTrafficPolicy"], &["Cluster", "Local"], out);
    let kind = s(spec, "/type");
    let outside = matches!(kind, "NodePort" | "LoadBalancer");
    if outside || kind == "ClusterIP" && !arr(spec, "/externalIPs").is_empty() {
        one_of("spec.externalTrafficPolicy".into(), &spec["externalTrafficPolicy"], &["Cluster", "Local"], out);
        if outside && spec["clusterIP"] == "None" {
            let why = format!("may not be set to 'None' for {kind} services");
            out.push(Cause::invalid("spec.clusterIPs[0]", &"None".into(), &why));
        }
    } else if spec["externalTrafficPolicy"].as_str().is_some_and(|t| !t.is_empty()) {
        let why = "may only be set for externally-accessible services";
        out.push(Cause::invalid("spec.externalTrafficPolicy", &spec["externalTrafficPolicy"], why));
    }
    if kind == "ExternalName" {
        match s(spec, "/externalName") {
            "" => out.push(Cause::required("spec.externalName", "")),
            name => judged("spec.externalName", name.strip_suffix('.').unwrap_or(name), names::subdomain, out),
        }
    }
    for (k, v) in spec["selector"].as_object().into_iter().flatten() {
        judged("spec.selector", k, names::key, out);
        judged("spec.selector", v.as_str().unwrap_or_default(), names::value, out);
    }
    let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if timeout.as_i64().is_some_and(|n| !(1..=86_400).contains(&n)) {
        let at = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        out.push(Cause::invalid(at, timeout, "must be greater than 0 and less than 86400"));
    }
    if spec["sessionAffinity"] == "None" && !spec["sessionAffinityConfig"].is_null() {
        out.push(forbidden("spec.sessionAffinityConfig", "must not be set when session affinity is None"));
    }
    service_ports(spec, kind, out);
}

fn service_ports(spec: &Value, kind: &str, out: &mut Vec<Cause>) {
    let ports = arr(spec, "/ports");
    let mut named: Vec<&Value> = Vec::new();
    let mut seen: Vec<(&Value, &Value)> = Vec::new();
    for (i, p) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        match s(p, "/name") {
            "" if ports.len() > 1 => out.push(Cause::required(format!("{at}.name"), "")),
            "" => {}
            name => {
                judged(format!("{at}.name"), name, names::label, out);
                if named.contains(&&p["name"]) {
                    out.push(duplicate(format!("{at}.name"), &p["name"]));
                }
                named.push(&p["name"]);
            }
        }
        port(format!("{at}.port"), &p["port"], out);
        one_of(format!("{at}.protocol"), &p["protocol"], &["SCTP", "TCP", "UDP"], out);
        match p["targetPort"].as_str() {
            Some(name) => judged(format!("{at}.targetPort"), name, names::port, out),
            None if p["targetPort"] != p["port"] => port(format!("{at}.targetPort"), &p["targetPort"], out),
            None => {}
        }
        if let Some(protocol) = p["appProtocol"].as_str() {
            judged(format!("{at}.appProtocol"), protocol, names::key, out);
        }
        let node = p["nodePort"].as_i64().unwrap_or(0);
        if node != 0 && kind == "ClusterIP" {
            out.push(forbidden(&format!("{at}.nodePort"), "may not be used when `type` is 'ClusterIP'"));
        } else if node != 0 && !(30_000..=32_767).contains(&node) {
            let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
            out.push(Cause::invalid(format!("{at}.nodePort"), &p["nodePort"], why));
        }
        if seen.contains(&(&p["port"], &p["protocol"])) {
            let shown = json!({"Name": "", "Protocol": p["protocol"], "AppProtocol": null, "Port": p["port"],
                "TargetPort": 0, "NodePort": 0});
            out.push(duplicate(at, &shown));
        }
        seen.push((&p["port"], &p["protocol"]));
    }
}

/// Checks an Ingress; a new one has one class, whichever way it is named.
pub(super) fn ingress(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    ingress_spec(&obj["spec"], out);
    let (note, class) =
        (s(obj, "/metadata/annotations/kubernetes.io~1ingress.class"), s(obj, "/spec/ingressClassName"));
    if old.is_none() && !note.is_empty() && !class.is_empty() && note != class {
        let why = "must match `ingressClassName` when both are specified";
        out.push(Cause::invalid("annotations.kubernetes.io/ingress.class", &note.into(), why));
    }
}

fn ingress_spec(spec: &Value, out: &mut Vec<Cause>) {
    let (rules, backend) = (arr(spec, "/rules"), &spec["defaultBackend"]);
    if rules.is_empty() && backend.is_null() {
        let why = "either `defaultBackend` or `rules` must be specified";
        out.push(Cause::invalid("spec", &spec["rules"], why));
    }
    if !backend.is_null() {
        target(backend, "spec.defaultBackend", out);
    }
    for (i, rule) in rules.iter().enumerate() {
        let host = s(rule, "/host");
        if !host.is_empty() {
            let at = format!("spec.rules[{i}].host");
            if host.parse::<IpAddr>().is_ok() {
                out.push(Cause::invalid(at.as_str(), &host.into(), "must be a DNS name, not an IP address"));
            }
            judged(at, host, names::host, out);
        }
        if rule["http"].is_object() && arr(rule, "/http/paths").is_empty() {
            out.push(Cause::required(format!("spec.rules[{i}].http.paths"), ""));
        }
        for (j, p) in arr(rule, "/http/paths").iter().enumerate() {
            path(p, &format!("spec.rules[{i}].http.paths[{j}]"), out);
        }
    }
    for (i, tls) in arr(spec, "/tls").iter().enumerate() {
        for (j, host) in arr(tls, "/hosts").iter().enumerate() {
            judged(format!("spec.tls[{i}].hosts[{j}]"), host.as_str().unwrap_or_default(), names::host, out);
        }
        if let Some(name) = tls["secretName"].as_str().filter(|n| !n.is_empty()) {
            judged(format!("spec.tls[{i}].secretName"), name, names::subdomain, out);
        }
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        judged("spec.ingressClassName", class, names::subdomain, out);
    }
}

fn path(p: &Value, at: &str, out: &mut Vec<Cause>) {
    if p["pathType"].is_null() {
        out.push(Cause::required(format!("{at}.pathType"), "pathType must be specified"));
        return;
    }
    one_of(format!("{at}.pathType"), &p["pathType"], &["Exact", "ImplementationSpecific", "Prefix"], out);
    let (text, kind) = (s(p, "/path"), s(p, "/pathType"));
    let mut say = |why: String| out.push(Cause::invalid(format!("{at}.path"), &text.into(), &why));
    let strict = matches!(kind, "Exact" | "Prefix");
    if !text.starts_with('/') && (strict || kind == "ImplementationSpecific" && !text.is_empty()) {
        say("must be an absolute path".into());
    }
    if strict {
        for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|b| text.contains(b)) {
            say(format!("must not contain '{bad}'"));
        }
        for bad in ["/..", "/."].into_iter().filter(|b| text.ends_with(b)) {
            say(format!("cannot end with '{bad}'"));
        }
    }
    target(&p["backend"], &format!("{at}.backend"), out);
}

fn target(b: &Value, at: &str, out: &mut Vec<Cause>) {
    let none = Value::from("");
    match (b["resource"].is_object(), b["service"].is_object()) {
        (true, true) => out.push(Cause::invalid(at, &none, "cannot set both resource and service backends")),
        (true, false) => {}
        (false, false) => out.push(Cause::invalid(at, &none, "resource or service backend is required")),
        (false, true) => {
            match s(b, "/service/name") {
                "" => out.push(Cause::required(format!("{at}.service.name"), "")),
                name => judged(format!("{at}.service.name"), name, names::label_1035, out),
            }
            let (name, number) = (s(b, "/service/port/name"), &b["service"]["port"]["number"]);
            match (name, number.as_i64().unwrap_or(0)) {
                ("", 0) => out.push(Cause::required(at, "port name or number is required")),
                ("", _) => port(format!("{at}.service.port.number"), number, out),
                (name, 0) => judged(format!("{at}.service.port.name"), name, names::port, out),
                _ => out.push(Cause::invalid(at, &none, "cannot set both port name & port number")),
            }
        }
    }
}

/// Checks an IngressClass.
pub(super) fn class(spec: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    immutable("spec.controller", &spec["controller"], old.map(|o| &o["spec"]["controller"]), out);
    let (at, text) = ("spec.controller", s(spec, "/controller"));
    match text.split_once('/') {
        _ if text.is_empty() => out.push(Cause::required(at, "")),
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => judged(at, host, names::subdomain, out),
        _ => out.push(Cause::invalid(at, &text.into(), "must be a domain-prefixed path (such as \"acme.io/foo\")")),
    }
}

/// Checks a NetworkPolicy.
pub(super) fn policy(spec: &Value, out: &mut Vec<Cause>) {
    selector(&spec["podSelector"], "spec.podSelector", out);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in arr(spec, &format!("/{list}")).iter().enumerate() {
            for (j, p) in arr(rule, "/ports").iter().enumerate() {
                policy_port(p, &format!("spec.{list}[{i}].ports[{j}]"), out);
            }
            for (j, p) in arr(rule, &format!("/{peers}")).iter().enumerate() {
                peer(p, &format!("spec.{list}[{i}].{peers}[{j}]"), out);
            }
        }
    }
    let types = arr(spec, "/policyTypes");
    if types.len() > 2 {
        let why = "may not specify more than two policyTypes";
        out.push(Cause::invalid("spec.policyTypes", &spec["policyTypes"], why));
        return;
    }
    for (i, t) in types.iter().enumerate() {
        one_of(format!("spec.policyTypes[{i}]"), t, &["Ingress", "Egress"], out);
    }
}

fn policy_port(p: &Value, at: &str, out: &mut Vec<Cause>) {
    one_of(format!("{at}.protocol"), &p["protocol"], &["TCP", "UDP", "SCTP"], out);
    let (number, end) = (&p["port"], &p["endPort"]);
    port(format!("{at}.port"), number, out);
    if let Some(name) = number.as_str() {
        judged(format!("{at}.port"), name, names::port, out);
    }
    let mut say = |why: &str| out.push(Cause::invalid(format!("{at}.endPort"), end, why));
    match (number.as_i64(), number.as_str(), end.as_i64()) {
        (Some(n), _, Some(e)) if e < n => say("must be greater than or equal to `port`"),
        (None, Some(_), Some(_)) => say("may not be specified when `port` is non-numeric"),
        (None, None, Some(_)) => say("may not be specified when `port` is not specified"),
        _ => {}
    }
    if number.is_i64() {
        port(format!("{at}.endPort"), end, out);
    }
}

fn peer(p: &Value, at: &str, out: &mut Vec<Cause>) {
    let block = &p["ipBlock"];
    let mut count = 0;
    for part in ["podSelector", "namespaceSelector"].into_iter().filter(|f| p[*f].is_object()) {
        count += 1;
        selector(&p[part], &format!("{at}.{part}"), out);
    }
    if block.is_object() {
        addresses(block, &format!("{at}.ipBlock"), out);
    }
    if count == 0 && !block.is_object() {
        out.push(Cause::required(at, "must specify a peer"));
    } else if count > 0 && block.is_object() {
        out.push(forbidden(at, "may not specify both ipBlock and another peer"));
    }
}

/// A range of addresses: its first bits, as many as the number after `/` says.
fn range(text: &str) -> Option<(IpAddr, u32)> {
    let (ip, n) = text.split_once('/')?;
    let (ip, n) = (ip.parse::<IpAddr>().ok()?, n.parse::<u32>().ok()?);
    (n <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, n))
}

/// Whether the range `inner` is a part of `outer`, and not all of it.
fn within(inner: (IpAddr, u32), outer: (IpAddr, u32)) -> bool {
    let bits = |ip: IpAddr, n: u32| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits().checked_shr(32 - n).unwrap_or(0)),
        IpAddr::V6(ip) => ip.to_bits().checked_shr(128 - n).unwrap_or(0),
    };
    inner.0.is_ipv4() == outer.0.is_ipv4() && inner.1 > outer.1 && bits(inner.0, outer.1) == bits(outer.0, outer.1)
}

fn addresses(block: &Value, at: &str, out: &mut Vec<Cause>) {
    let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let text = s(block, "/cidr");
    if text.is_empty() {
        out.push(Cause::required(format!("{at}.cidr"), ""));
        return;
    }
    let Some(whole) = range(text) else {
        out.push(Cause::invalid(format!("{at}.cidr"), &text.into(), why));
        return;
    };
    for (i, e) in arr(block, "/except").iter().enumerate() {
        let why = match range(e.as_str().unwrap_or_default()) {
            None => why,
            Some(part) if !within(part, whole) => "must be a strict subset of `cidr`",
            Some(_) => continue,
        };
        out.push(Cause::invalid(format!("{at}.except[{i}]"), e, why));
    }
}
