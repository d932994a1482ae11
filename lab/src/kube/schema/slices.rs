//! Rules of endpoints and their slices. Grade: source (pkg/apis/discovery/validation, pkg/apis/core/validation).
use std::net::IpAddr;

use serde_json::Value;

use super::rules::{duplicate, immutable, one_of, port};
use super::validate::judged;
use super::{ips, names};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Checks an EndpointSlice.
pub(super) fn slice(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let sort = s(obj, "/addressType");
    if let Some(old) = old.filter(|o| o["addressType"] != obj["addressType"]) {
        immutable("addressType", &obj["addressType"], Some(&old["addressType"]), out);
        return;
    }
    match sort {
        "" => out.push(Cause::required("addressType", "")),
        _ => one_of("addressType".into(), &obj["addressType"], &["FQDN", "IPv4", "IPv6"], out),
    }
    for (i, e) in arr(obj, "/endpoints").iter().enumerate() {
        endpoint(e, sort, &format!("endpoints[{i}]"), out);
    }
    let ports = arr(obj, "/ports");
    for (i, p) in ports.iter().enumerate() {
        let at = format!("ports[{i}]");
        match s(p, "/name") {
            "" => {}
            name => judged(format!("{at}.name"), name, names::label, out),
        }
        if ports[..i].iter().any(|o| s(o, "/name") == s(p, "/name")) {
            out.push(duplicate(format!("{at}.name"), &s(p, "/name").into()));
        }
        one_of(format!("{at}.protocol"), &p["protocol"], PROTOCOLS, out);
        if let Some(protocol) = p["appProtocol"].as_str() {
            judged(format!("{at}.appProtocol"), protocol, names::key, out);
        }
    }
}

fn endpoint(e: &Value, sort: &str, at: &str, out: &mut Vec<Cause>) {
    let list = arr(e, "/addresses");
    if list.is_empty() {
        out.push(Cause::required(format!("{at}.addresses"), "must contain at least 1 address"));
    }
    for (j, a) in list.iter().enumerate() {
        let (place, text) = (format!("{at}.addresses[{j}]"), a.as_str().unwrap_or_default());
        if sort == "FQDN" {
            judged(place, text, names::subdomain, out);
            continue;
        }
        if !matches!(sort, "IPv4" | "IPv6") {
            continue;
        }
        let wrong = ips::address(text, true);
        out.extend(wrong.iter().map(|why| Cause::invalid(place.as_str(), a, why)));
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.is_ipv4() != (sort == "IPv4") => {
                let why = format!("must be an {sort} address");
                out.push(Cause::invalid(format!("{at}.addresses"), a, &why));
            }
            Ok(ip) => ips::reachable(&place, text, ip, out),
            Err(_) => {}
        }
    }
    for (f, judge) in [("nodeName", names::subdomain as names::Judge), ("hostname", names::label)] {
        match s(e, &format!("/{f}")) {
            "" => {}
            name => judged(format!("{at}.{f}"), name, judge, out),
        }
    }
    for (list, most) in [("forZones", 8), ("forNodes", 8)] {
        let (hints, at) = (arr(e, &format!("/hints/{list}")), format!("{at}.hints.{list}"));
        super::rules::too_many(&at, hints.len(), most, out);
        for (j, h) in hints.iter().enumerate().filter(|(j, h)| hints[..*j].iter().any(|o| o["name"] == h["name"])) {
            out.push(duplicate(format!("{at}[{j}].name"), &h["name"]));
        }
    }
}

/// Checks Endpoints.
pub(super) fn endpoints(obj: &Value, out: &mut Vec<Cause>) {
    for (i, subset) in arr(obj, "/subsets").iter().enumerate() {
        let at = format!("subsets[{i}]");
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|l| arr(subset, &format!("/{l}")).is_empty()) {
            out.push(Cause::required(at.as_str(), "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in lists {
            for (j, a) in arr(subset, &format!("/{list}")).iter().enumerate() {
                address(a, &format!("{at}.{list}[{j}]"), out);
            }
        }
        let ports = arr(subset, "/ports");
        for (j, p) in ports.iter().enumerate() {
            let at = format!("{at}.ports[{j}]");
            match s(p, "/name") {
                "" if ports.len() > 1 => out.push(Cause::required(format!("{at}.name"), "")),
                "" => {}
                name => judged(format!("{at}.name"), name, names::label, out),
            }
            port(format!("{at}.port"), &p["port"], out);
            one_of(format!("{at}.protocol"), &p["protocol"], PROTOCOLS, out);
        }
    }
}

fn address(a: &Value, at: &str, out: &mut Vec<Cause>) {
    let (place, text) = (format!("{at}.ip"), s(a, "/ip"));
    ips::sound(&place, text, out);
    for (f, judge) in [("hostname", names::label as names::Judge), ("nodeName", names::subdomain)] {
        match s(a, &format!("/{f}")) {
            "" => {}
            name => judged(format!("{at}.{f}"), name, judge, out),
        }
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => ips::reachable(&place, text, ip, out),
        Err(_) => out.push(Cause::invalid(place, &text.into(), "must be a valid IP address")),
    }
}
