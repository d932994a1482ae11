//! Interfaces of nodes: `/nodes/{node}/network…`. Changes wait until they are applied.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::params::{b, e, f, range, req, short, t, with};
use super::reply::{ApiError, Out, Reply, data, null};
use super::router::Call;
use super::sections::fill;
use super::state::Row;
use super::task::{self, Job};
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::Prop;

/// The kinds of interfaces: a list for each release and question, in the server's order.
macro_rules! kinds {
    ($($new:literal)?; $($last:literal),+) => {
        &[
            "bridge", "bond", "eth", "alias", "vlan", $($new,)? "OVSBridge", "OVSBond", "OVSPort", "OVSIntPort",
            "vnet", $($last),+
        ]
    };
}
const TYPES: &[&str] = kinds!("fabric"; "unknown");
const TYPES_8: &[&str] = kinds!(; "unknown");
const ASKED: &[&str] = kinds!("fabric"; "any_bridge", "any_local_bridge", "include_sdn");
const ASKED_8: &[&str] = kinds!(; "any_bridge", "any_local_bridge");
const BONDS: &[&str] = &[
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
    "balance-slb",
    "lacp-balance-slb",
    "lacp-balance-tcp",
];

const FIELDS: &[Prop] = &[
    with(f("address", ipv4), "netmask"),
    with(f("address6", ipv6), "netmask6"),
    b("autostart"),
    t("bond-primary"),
    e("bond_mode", BONDS),
    e("bond_xmit_hash_policy", &["layer2", "layer2+3", "layer3+4"]),
    t("bridge_ports"),
    t("bridge_vids"),
    b("bridge_vlan_aware"),
    f("cidr", cidr),
    t("cidr6"),
    t("comments"),
    t("comments6"),
    f("gateway", ipv4),
    f("gateway6", ipv6),
    range("mtu", 1280, 65_520),
    with(t("netmask"), "address"),
    with(range("netmask6", 0, 128), "address6"),
    t("ovs_bonds"),
    t("ovs_bridge"),
    short("ovs_options", 1024),
    t("ovs_ports"),
    range("ovs_tag", 1, 4094),
    t("slaves"),
    req(e("type", TYPES)),
    range("vlan-id", 1, 4094),
    t("vlan-raw-device"),
];

fn fields(old: bool) -> Vec<Prop> {
    let kind = |f: &Prop| if old && f.name == "type" { req(e("type", TYPES_8)) } else { *f };
    FIELDS.iter().map(kind).collect()
}

fn ipv4(v: &str) -> Result<(), String> {
    let ok = v.parse::<std::net::Ipv4Addr>().is_ok();
    if ok { Ok(()) } else { Err("value does not look like a valid ipv4 address\n".into()) }
}

fn ipv6(v: &str) -> Result<(), String> {
    let ok = v.parse::<std::net::Ipv6Addr>().is_ok();
    if ok { Ok(()) } else { Err("value does not look like a valid ipv6 address\n".into()) }
}

fn cidr(v: &str) -> Result<(), String> {
    let ok = v.split_once('/').is_some_and(|(a, l)| ipv4(a).is_ok() && l.parse::<u8>().is_ok_and(|n| n <= 32));
    if ok { Ok(()) } else { Err("value does not look like a valid IPv4 CIDR network\n".into()) }
}

/// The interfaces that a node starts with: its bridges, each on a port of its own.
fn first(w: &World, node: &str) -> BTreeMap<String, Row> {
    let host = w.pve.address(node);
    let bridges = w.pve.nodes.get(node).map(|n| n.bridges.clone()).unwrap_or_default();
    let mut out = BTreeMap::new();
    let row = |v: Value| {
        v.as_object().map(|o| o.iter().map(|(k, x)| (k.clone(), x.clone())).collect::<Row>()).unwrap_or_default()
    };
    for (i, bridge) in bridges.iter().enumerate() {
        let port = format!("eno{}", i + 1);
        let mut v = json!({
            "type": "bridge", "active": 1, "autostart": 1, "bridge_ports": port, "bridge_stp": "off", "bridge_fd": "0",
            "bridge_vlan_aware": 1, "method": "manual", "method6": "manual", "families": ["inet"], "priority": 3 + i,
        });
        if i == 0 {
            v["method"] = json!("static");
            v["address"] = json!(host);
            v["netmask"] = json!("24");
            v["cidr"] = json!(format!("{host}/24"));
        }
        out.insert(bridge.clone(), row(v));
        out.insert(
            port,
            row(json!({ "type": "eth", "active": 1, "exists": 1, "method": "manual", "method6": "manual",
            "families": ["inet"], "priority": 10 + i })),
        );
    }
    out
}

fn applied(w: &World, node: &str) -> BTreeMap<String, Row> {
    w.pve.interfaces.get(node).cloned().unwrap_or_else(|| first(w, node))
}

/// Handles `/nodes/{node}/network…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    let place = format!("/nodes/{node}");
    let who = c.who()?.clone();
    if !(method == "GET" && path.is_empty()) {
        w.pve.need(&who, &place, if method == "GET" { "Sys.Audit" } else { "Sys.Modify" })?;
    }
    let mut now = w.pve.interfaces_new.get(node).cloned().unwrap_or_else(|| applied(w, node));
    match (method, path) {
        ("GET", []) => list(w, c, node, &now),
        ("POST", []) => {
            let mut spec = fields(w.pve.is_8());
            spec.push(req(Prop { max_len: Some(20), ..f("iface", iface) }));
            c.params.check(&spec)?;
            let name = c.params.text("iface");
            if now.contains_key(&name) {
                return Err(ApiError::param("iface", "interface already exists"));
            }
            let mut row = Row::new();
            change(&mut row, c)?;
            row.insert("priority".into(), json!(now.len() + 3));
            now.insert(name, row);
            w.pve.interfaces_new.insert(node.to_owned(), now);
            null()
        }
        ("PUT", []) => {
            c.params.check(&[b("regenerate-frr"), b("skip_frr")])?;
            apply(w, node);
            data(task::start(w, node, "srvreload", "networking", &who, Job::Over))
        }
        ("DELETE", []) => {
            c.params.check(&[])?;
            w.pve.interfaces_new.remove(node);
            null()
        }
        ("GET", [name]) => {
            let row = now.get(*name).ok_or_else(|| ApiError::param("iface", "interface does not exist"))?;
            let row = row.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            data(Value::Object(row))
        }
        ("PUT", [name]) => {
            let mut spec = fields(w.pve.is_8());
            spec.push(super::params::delete());
            c.params.check(&spec)?;
            let row = now.get_mut(*name).ok_or_else(|| ApiError::param("iface", "interface does not exist"))?;
            change(row, c)?;
            w.pve.interfaces_new.insert(node.to_owned(), now);
            null()
        }
        ("DELETE", [name]) => {
            now.remove(*name).ok_or_else(|| ApiError::param("iface", "interface does not exist"))?;
            w.pve.interfaces_new.insert(node.to_owned(), now);
            null()
        }
        _ => Err(c.unknown()),
    }
}

fn iface(v: &str) -> Result<(), String> {
    let c = v.as_bytes();
    let ok = c.len() > 1
        && (c[0].is_ascii_alphabetic() || c[0] == b'_')
        && c.iter().all(|c| c.is_ascii_alphanumeric() || b"_.:".contains(c));
    if ok { Ok(()) } else { Err(format!("invalid network interface name '{v}'\n")) }
}

fn change(row: &mut Row, c: &Call) -> Result<(), ApiError> {
    fill(row, &c.params, FIELDS)?;
    if let Some((a, l)) = c.params.get("cidr").as_deref().and_then(|v| v.split_once('/')) {
        row.insert("address".into(), json!(a));
        row.insert("netmask".into(), json!(l));
    } else if let (Some(a), Some(m)) = (c.params.get("address"), c.params.get("netmask")) {
        row.insert("cidr".into(), json!(format!("{a}/{m}")));
    }
    let fixed = row.contains_key("address");
    row.insert("method".into(), json!(if fixed { "static" } else { "manual" }));
    row.insert("method6".into(), json!(if row.contains_key("address6") { "static" } else { "manual" }));
    row.insert("families".into(), json!(["inet"]));
    if row.get("type").is_some_and(|t| t == "bridge") {
        row.entry("bridge_ports".into()).or_insert_with(|| json!(""));
        row.entry("bridge_stp".into()).or_insert_with(|| json!("off"));
        row.entry("bridge_fd".into()).or_insert_with(|| json!("0"));
    }
    Ok(())
}

fn is_bridge(row: &Row) -> bool {
    row.get("type").is_some_and(|t| t == "bridge" || t == "OVSBridge")
}

fn apply(w: &mut World, node: &str) {
    let Some(mut new) = w.pve.interfaces_new.remove(node) else { return };
    for row in new.values_mut() {
        row.insert("active".into(), json!(1));
    }
    let bridges: Vec<String> = new.iter().filter(|(_, r)| is_bridge(r)).map(|(k, _)| k.clone()).collect();
    let vnets: Vec<String> = w.pve.table("sdn/running/vnets").keys().cloned().collect();
    if let Some(n) = w.pve.nodes.get_mut(node) {
        n.bridges = bridges.into_iter().chain(vnets).collect();
    }
    w.pve.interfaces.insert(node.to_owned(), new);
}

fn list(w: &World, c: &Call, node: &str, now: &BTreeMap<String, Row>) -> Reply {
    c.params.check(&[e("type", if w.pve.is_8() { ASKED_8 } else { ASKED })])?;
    let kind = c.params.get("type");
    let who = c.who()?;
    let audit = w.pve.has(who, &format!("/nodes/{node}"), "Sys.Audit");
    let usable = |name: &str| {
        let path = format!("/sdn/zones/localnetwork/{name}");
        w.pve.has(who, &path, "SDN.Use") || w.pve.has(who, &path, "SDN.Audit")
    };
    // Without Sys.Audit only the bridges that may be used are seen.
    let seen = now.iter().filter(|(name, row)| audit || (is_bridge(row) && usable(name)));
    let wanted = |row: &Row| match kind.as_deref() {
        None => true,
        Some("any_bridge" | "any_local_bridge" | "include_sdn") => is_bridge(row),
        Some(k) => row.get("type").is_some_and(|t| t == k),
    };
    let rows: Vec<Value> = seen
        .filter(|(_, row)| wanted(row))
        .map(|(name, row)| {
            let mut v = json!({ "iface": name });
            for (k, x) in row {
                v[k] = x.clone();
            }
            v
        })
        .collect();
    let changes = w
        .pve
        .interfaces_new
        .get(node)
        .map(|_| format!("--- /etc/network/interfaces\t{node}\n+++ /etc/network/interfaces.new\n"));
    Ok(Out { changes, ..Out::from(Value::Array(rows)) })
}
