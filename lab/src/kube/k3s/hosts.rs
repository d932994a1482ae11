//! The names of nodes in CoreDNS: K3s keeps the line of each node in the ConfigMap that CoreDNS reads. Grade: source (K3s).
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::text::{arr, s};

/// Applying CoreDNS' manifest again leaves the lines as they are.
pub fn keep(cx: &Cx, obj: &mut Value) {
    if obj["kind"] == "ConfigMap"
        && obj["metadata"]["name"] == "coredns"
        && obj["metadata"]["namespace"] == "kube-system"
        && let Some(lines) = cx
            .get("configmaps", "kube-system", "coredns")
            .map(|m| m["data"]["NodeHosts"].clone())
            .filter(Value::is_string)
    {
        obj["data"]["NodeHosts"] = lines;
    }
}

/// Brings the lines of all nodes up to date; lines that are not a node's stay.
pub fn look(cx: &mut Cx) {
    let Some(map) = cx.get("configmaps", "kube-system", "coredns") else { return };
    let was = s(map, "/data/NodeHosts").to_owned();
    let mut lines: BTreeMap<IpAddr, String> = BTreeMap::new();
    for line in was.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        if let Some(ip) = words.next().and_then(|ip| ip.parse().ok()) {
            lines.insert(ip, words.collect::<Vec<_>>().join(" "));
        }
    }
    for n in cx.list("nodes") {
        let name = s(n, "/metadata/name");
        let address =
            |kind: &str| arr(n, "/status/addresses").iter().find(|a| a["type"] == kind).map(|a| s(a, "/address"));
        let Some(ip) = address("InternalIP").and_then(|ip| ip.parse().ok()) else { continue };
        lines.retain(|_, names| names.split(' ').next() != Some(name));
        let host = address("Hostname").filter(|h| *h != name).map(|h| format!(" {h}")).unwrap_or_default();
        lines.insert(ip, format!("{name}{host}"));
    }
    let now: String = lines.iter().map(|(ip, names)| format!("{ip} {names}\n")).collect();
    if now != was {
        cx.update("configmaps", "kube-system", "coredns", |o| o["data"]["NodeHosts"] = json!(now));
    }
}
