//! Rules of ingresses and network policies. Grade: source (the validation packages of kube-apiserver).
use std::net::IpAddr;

use serde_json::{Value, json};

use super::rules::{domain_path, forbidden, immutable, one_of, port, too_long};
use super::validate::{judged, selector};
use super::{ips, names};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

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
        (true, false) => reference(&b["resource"], &format!("{at}.resource"), out),
        (false, false) => out.push(Cause::invalid(at, &none, "resource or service backend is required")),
        (false, true) => {
            match s(b, "/service/name") {
                "" => out.push(Cause::required(format!("{at}.service.name"), "")),
                name => judged(format!("{at}.service.name"), name, names::label, out),
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

/// A reference to an object by group, kind and name.
fn reference(r: &Value, at: &str, out: &mut Vec<Cause>) {
    if let Some(group) = r["apiGroup"].as_str().filter(|g| !g.is_empty()) {
        judged(format!("{at}.apiGroup"), group, names::subdomain, out);
    }
    for f in ["kind", "name"] {
        match s(r, &format!("/{f}")) {
            "" => out.push(Cause::required(format!("{at}.{f}"), "")),
            text => judged(format!("{at}.{f}"), text, names::segment, out),
        }
    }
}

/// Checks an IngressClass.
pub(super) fn class(spec: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    if let Some(old) = old {
        immutable("spec.controller", &spec["controller"], Some(&old["spec"]["controller"]), out);
    } else {
        let text = s(spec, "/controller");
        if text.len() > 250 {
            out.push(too_long("spec.controller", 250));
        }
        domain_path("spec.controller", text, out);
    }
    let (p, at) = (&spec["parameters"], "spec.parameters");
    if !p.is_object() {
        return;
    }
    reference(p, at, out);
    let namespace = s(p, "/namespace");
    match s(p, "/scope") {
        "" => out.push(Cause::required(format!("{at}.scope"), "")),
        "Namespace" if namespace.is_empty() => {
            let why = "`parameters.scope` is set to 'Namespace'";
            out.push(Cause::required(format!("{at}.namespace"), why));
        }
        "Namespace" => judged(format!("{at}.namespace"), namespace, names::label, out),
        "Cluster" if !p["namespace"].is_null() => {
            out.push(forbidden(&format!("{at}.namespace"), "`parameters.scope` is set to 'Cluster'"));
        }
        _ => one_of(format!("{at}.scope"), &p["scope"], &["Cluster", "Namespace"], out),
    }
}

/// Checks where a load balancer has put something.
pub(super) fn balanced(of: &Value, at: &str, out: &mut Vec<Cause>) {
    for (i, x) in arr(of, "/ingress").iter().enumerate() {
        let at = format!("{at}.ingress[{i}]");
        let (ip, host) = (s(x, "/ip"), s(x, "/hostname"));
        if !ip.is_empty() {
            let wrong = ips::address(ip, false);
            out.extend(wrong.iter().map(|why| Cause::invalid(format!("{at}.ip"), &ip.into(), why)));
        }
        if !host.is_empty() {
            judged(format!("{at}.hostname"), host, names::subdomain, out);
            if host.parse::<IpAddr>().is_ok() {
                let why = "must be a DNS name, not an IP address";
                out.push(Cause::invalid(format!("{at}.hostname"), &host.into(), why));
            }
        }
    }
}

/// Checks an IPAddress.
pub(super) fn address(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let (parent, at) = (&obj["spec"]["parentRef"], "spec.parentRef");
    if let Some(old) = old {
        if old["spec"]["parentRef"] != *parent {
            let shown = json!({"Group": s(parent, "/group"), "Resource": parent["resource"],
                "Namespace": s(parent, "/namespace"), "Name": parent["name"]});
            out.push(Cause::invalid(at, &shown, "field is immutable"));
        }
        return;
    }
    if !parent.is_object() {
        out.push(Cause::required(at, ""));
        return;
    }
    match s(parent, "/group") {
        "" => {}
        group => judged(format!("{at}.group"), group, names::subdomain, out),
    }
    for f in ["resource", "name"] {
        match s(parent, &format!("/{f}")) {
            "" => out.push(Cause::required(format!("{at}.{f}"), "")),
            text => judged(format!("{at}.{f}"), text, names::segment, out),
        }
    }
    match s(parent, "/namespace") {
        "" => {}
        space => judged(format!("{at}.namespace"), space, names::segment, out),
    }
}

/// Checks a ServiceCIDR; `old` is its spec as it was.
pub(super) fn ranges(spec: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let (list, at) = (arr(spec, "/cidrs"), "spec.cidrs");
    let had = old.map(|o| arr(o, "/cidrs"));
    let changed = had.is_some_and(|h| h.len() != list.len());
    for (i, c) in list.iter().enumerate().filter(|(i, c)| had.is_some_and(|h| h.get(*i).is_some_and(|o| o != *c))) {
        out.push(Cause::invalid(format!("{at}[{i}]"), c, "field is immutable"));
    }
    match had.map(<[Value]>::len) {
        Some(1) if list.len() == 2 => {}
        Some(_) if changed => out.push(Cause::invalid(at, &spec["cidrs"], "field is immutable")),
        Some(_) => return,
        None => {}
    }
    if list.is_empty() {
        out.push(Cause::required(at, "at least one CIDR required"));
    } else if list.len() > 2 {
        out.push(Cause::invalid(at, &json!({"CIDRs": list}), "may only hold up to 2 values"));
    } else {
        for (i, c) in list.iter().enumerate() {
            let wrong = ips::range(c.as_str().unwrap_or_default(), true);
            out.extend(wrong.iter().map(|why| Cause::invalid(format!("{at}[{i}]"), c, why)));
        }
        let family = |c: &Value| range(c.as_str().unwrap_or_default()).map(|(ip, _)| ip.is_ipv4());
        if list.len() == 2 && family(&list[0]).is_some() && family(&list[0]) == family(&list[1]) {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            out.push(Cause::invalid(at, &spec["cidrs"], why));
        }
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
    let mut say = |v: &Value, why: &str| out.push(Cause::invalid(format!("{at}.endPort"), v, why));
    match (number.as_i64(), number.as_str(), end.as_i64()) {
        // the text shows the port
        (Some(n), _, Some(e)) if e < n => say(number, "must be greater than or equal to `port`"),
        (None, Some(_), Some(_)) => say(end, "may not be specified when `port` is non-numeric"),
        (None, None, Some(_)) => say(end, "may not be specified when `port` is not specified"),
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
    let text = s(block, "/cidr");
    if text.is_empty() {
        out.push(Cause::required(format!("{at}.cidr"), ""));
        return;
    }
    let wrong = ips::range(text, false);
    out.extend(wrong.iter().map(|why| Cause::invalid(format!("{at}.cidr"), &text.into(), why)));
    let Some(whole) = range(text) else { return };
    for (i, e) in arr(block, "/except").iter().enumerate() {
        let (part, at) = (e.as_str().unwrap_or_default(), format!("{at}.except[{i}]"));
        let wrong = ips::range(part, false);
        out.extend(wrong.iter().map(|why| Cause::invalid(at.as_str(), e, why)));
        if wrong.is_empty() && range(part).is_some_and(|p| !within(p, whole)) {
            out.push(Cause::invalid(at, e, "must be a strict subset of `cidr`"));
        }
    }
}
