//! Software-defined networks: zones, vnets, subnets, and applying them.
use serde_json::{Value, json};

use super::params::{Params, b, cid, e, opt, pat, range, req, short, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::sections::{Section, fill};
use super::state::Row;
use super::task::{self, Job};
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::{Prop, Ty};

const KINDS: &[&str] = &["evpn", "faucet", "qinq", "simple", "vlan", "vxlan"];

const ZONES: Section = Section {
    table: "sdn/zones",
    key: super::params::f("zone", zone_format),
    fields: &[
        b("advertise-subnets"),
        t("bridge"),
        b("bridge-disable-mac-learning"),
        t("controller"),
        e("dhcp", &["dnsmasq"]),
        b("disable-arp-nd-suppression"),
        t("dns"),
        t("dnszone"),
        opt("dp-id", Ty::Int),
        t("exitnodes"),
        b("exitnodes-local-routing"),
        t("exitnodes-primary"),
        t("fabric"),
        t("ipam"),
        t("mac"),
        opt("mtu", Ty::Int),
        t("nodes"),
        t("peers"),
        t("reversedns"),
        t("rt-import"),
        super::params::n("tag"),
        req(e("type", KINDS)),
        e("vlan-protocol", &["802.1q", "802.1ad"]),
        range("vrf-vxlan", 1, 16_777_215),
        range("vxlan-port", 1, 65_536),
    ],
    read: ("/sdn/zones", "SDN.Audit"),
    write: ("/sdn/zones", "SDN.Allocate"),
    exists: "create sdn zone object failed: sdn zone object ID '{}' already defined",
    missing: "sdn '{}' does not exist",
    gone: "sdn '{}' does not exist",
    fixed: &[],
};

const VNETS: Section = Section {
    table: "sdn/vnets",
    key: super::params::f("vnet", zone_format),
    fields: &[
        Prop { max_len: Some(256), ..pat("alias", alias) },
        b("isolate-ports"),
        range("tag", 1, 16_777_215),
        e("type", &["vnet"]),
        b("vlanaware"),
        req(t("zone")),
    ],
    read: ("/sdn/zones", "SDN.Audit"),
    write: ("/sdn/zones", "SDN.Allocate"),
    exists: "create sdn vnet object failed: sdn vnet object ID '{}' already defined",
    missing: "sdn '{}' does not exist",
    gone: "sdn '{}' does not exist",
    fixed: &[("type", "vnet")],
};

const SUBNET: &[Prop] =
    &[t("dhcp-dns-server"), t("dhcp-range"), t("dnszoneprefix"), t("gateway"), b("snat"), e("type", &["subnet"])];

fn zone_format(v: &str) -> Result<(), String> {
    let c = v.as_bytes();
    let ok = (2..=8).contains(&c.len()) && c[0].is_ascii_alphabetic() && c.iter().all(u8::is_ascii_alphanumeric);
    if ok { Ok(()) } else { Err(format!("ID '{v}' contains illegal characters\n")) }
}

fn alias(v: &str) -> bool {
    v.chars().all(|c| c.is_alphanumeric() || "()-_. ".contains(c))
}

/// Handles `/cluster/sdn…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let who = c.who()?.clone();
    match (method, path) {
        ("GET", []) => {
            w.pve.need(&who, "/sdn", "SDN.Audit")?;
            data(subdirs("id", &["vnets", "zones", "controllers", "ipams", "dns"]))
        }
        ("PUT", []) => {
            w.pve.need(&who, "/sdn", "SDN.Allocate")?;
            c.params.check(&[t("lock-token"), b("release-lock")])?;
            for kind in ["zones", "vnets"] {
                let now = w.pve.table(&format!("sdn/{kind}")).clone();
                let running = format!("sdn/running/{kind}");
                if now.is_empty() {
                    w.pve.tables.remove(&running);
                } else {
                    w.pve.tables.insert(running, now);
                }
            }
            bridges(w);
            let node = w.pve.nodes.keys().next().cloned().unwrap_or_default();
            let upid = task::start(w, &node, "reloadnetworkall", "", &who, Job::Over);
            for n in w.pve.nodes.keys().cloned().collect::<Vec<_>>() {
                task::log(w, &upid, format!("{n}: reloading network config"));
            }
            data(upid)
        }
        ("POST", ["lock"]) => {
            w.pve.need(&who, "/sdn", "SDN.Allocate")?;
            let token = w.uuid();
            w.pve.settings.insert("sdn/lock".into(), Row::from([("token".into(), json!(token))]));
            data(token)
        }
        ("DELETE", ["lock"]) | ("POST", ["rollback"]) => {
            w.pve.need(&who, "/sdn", "SDN.Allocate")?;
            if path == ["rollback"] {
                for kind in ["zones", "vnets"] {
                    let was = w.pve.table(&format!("sdn/running/{kind}")).clone();
                    w.pve.tables.insert(format!("sdn/{kind}"), was);
                }
                w.pve.tables.retain(|_, t| !t.is_empty());
            }
            w.pve.settings.remove("sdn/lock");
            null()
        }
        ("GET", ["controllers" | "dns" | "fabrics"]) => data(json!([])),
        ("GET", ["ipams"]) => data(json!([{ "ipam": "pve", "type": "pve" }])),
        ("GET", ["ipams", name]) => {
            w.pve.need(&who, &format!("/sdn/ipams/{name}"), "SDN.Allocate")?;
            c.params.check(&[])?;
            if *name != "pve" {
                return Err(ApiError::fail(format!("sdn '{name}' does not exist")));
            }
            data(json!({ "ipam": "pve", "type": "pve" }))
        }
        ("GET", ["ipams", _, "status"]) => data(json!([])),
        (_, ["zones", rest @ ..]) => crud(w, c, method, &ZONES, rest),
        (_, ["vnets", vnet, "subnets", rest @ ..]) => subnets(w, c, method, vnet, rest),
        ("GET", ["vnets", _, "firewall", "rules"]) => data(json!([])),
        (_, ["vnets", rest @ ..]) => crud(w, c, method, &VNETS, rest),
        _ => Err(c.unknown()),
    }
}

/// The same call without what only steers the request.
fn plain(c: &Call) -> Call {
    let mut call = c.clone();
    call.params.0.remove("lock-token");
    call
}

fn locked(w: &World, p: &Params) -> Result<(), ApiError> {
    let held = w.pve.settings.get("sdn/lock").and_then(|r| r.get("token")).and_then(Value::as_str);
    match held {
        Some(token) if p.get("lock-token").as_deref() != Some(token) => {
            Err(ApiError::fail("could not acquire lock, it is held by another token"))
        }
        _ => Ok(()),
    }
}

fn crud(w: &mut World, c: &Call, method: &str, s: &Section, path: &[&str]) -> Reply {
    if method != "GET" {
        locked(w, &c.params)?;
    }
    let zone = |w: &World, _: &str, row: &mut Row| {
        let zone = row.get("zone").and_then(Value::as_str).unwrap_or_default();
        if s.table == VNETS.table && !w.pve.table(ZONES.table).contains_key(zone) {
            return Err(ApiError::fail(format!("zone {zone} does not exist")));
        }
        if s.table == ZONES.table {
            let need = match row.get("type").and_then(Value::as_str) {
                Some("vlan") => "bridge",
                Some("qinq") => "tag",
                Some("vxlan") if !row.contains_key("fabric") => "peers",
                Some("evpn") => "controller",
                _ => return Ok(()),
            };
            if !row.contains_key(need) {
                return Err(ApiError::param(need, "property is missing and it is not optional"));
            }
        }
        Ok(())
    };
    match (method, path) {
        ("GET", []) => list(w, c, s),
        ("POST", []) => s.create(w, &plain(c), zone),
        ("GET", [id]) => {
            let mut call = c.clone();
            call.params.0.retain(|k, _| k != "pending" && k != "running");
            s.get(w, &call, id)
        }
        ("PUT", [id]) => s.update(w, &plain(c), id, zone),
        ("DELETE", [id]) => {
            let used = s.table == ZONES.table
                && w.pve.table(VNETS.table).values().any(|r| r.get("zone").is_some_and(|z| z == id));
            if used {
                return Err(ApiError::fail(format!("delete sdn zone object failed: zone {id} is used by vnet")));
            }
            if !w.pve.table(&format!("sdn/subnets/{id}")).is_empty() {
                return Err(ApiError::fail("delete sdn vnet object failed: Subnet is used"));
            }
            s.remove(w, &if w.pve.is_8() { c.clone() } else { plain(c) }, id)
        }
        _ => Err(c.unknown()),
    }
}

fn list(w: &World, c: &Call, s: &Section) -> Reply {
    let mut spec = vec![b("pending"), b("running")];
    if s.table == ZONES.table {
        spec.push(e("type", KINDS));
    }
    c.params.check(&spec)?;
    let who = c.who()?;
    let running = w.pve.table(&s.table.replace("sdn/", "sdn/running/"));
    let now = if c.params.flag("running") { running } else { w.pve.table(s.table) };
    let digest = super::sections::digest(now);
    let kind = c.params.get("type");
    let mut rows = Vec::new();
    for (id, row) in now.iter().filter(|(_, r)| kind.as_ref().is_none_or(|k| r.get("type").is_some_and(|t| t == k))) {
        let place = format!("/sdn/zones/{}", row.get("zone").and_then(Value::as_str).unwrap_or(id));
        if !["SDN.Audit", "SDN.Use", "SDN.Allocate"].iter().any(|p| w.pve.has(who, &place, p)) {
            continue;
        }
        let mut v = json!({ s.key.name: id, "digest": digest });
        for (k, x) in row {
            v[k] = x.clone();
        }
        if c.params.flag("pending") {
            match running.get(id) {
                None => v["state"] = json!("new"),
                Some(old) if old != row => v["state"] = json!("changed"),
                Some(_) => {}
            }
        }
        rows.push(v);
    }
    if c.params.flag("pending") {
        for (id, _) in running.iter().filter(|(id, _)| !now.contains_key(*id)) {
            rows.push(json!({ s.key.name: id, "state": "deleted" }));
        }
    }
    data(rows)
}

fn subnets(w: &mut World, c: &Call, method: &str, vnet: &str, path: &[&str]) -> Reply {
    let Some(net) = w.pve.table(VNETS.table).get(vnet).cloned() else {
        return Err(ApiError::fail(format!("vnet '{vnet}' does not exist")));
    };
    let zone = net.get("zone").and_then(Value::as_str).unwrap_or_default().to_owned();
    let place = format!("/sdn/zones/{zone}/{vnet}");
    w.pve.need(c.who()?, &place, if method == "GET" { "SDN.Audit|SDN.Allocate" } else { "SDN.Allocate" })?;
    let table = format!("sdn/subnets/{vnet}");
    let view = |id: &str, row: &Row| {
        let cidr = row.get("cidr").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (network, mask) = cidr.split_once('/').unwrap_or((&cidr, ""));
        let mut v = json!({ "subnet": id, "id": id, "type": "subnet", "vnet": vnet, "zone": zone, "network": network, "mask": mask });
        for (k, x) in row {
            v[k] = x.clone();
        }
        v
    };
    let missing = |id: &str| ApiError::fail(format!("sdn subnet '{id}' does not exist"));
    match (method, path) {
        ("GET", []) => {
            c.params.check(&[b("pending"), b("running")])?;
            data(w.pve.table(&table).iter().map(|(id, r)| view(id, r)).collect::<Vec<Value>>())
        }
        ("POST", []) => {
            let mut spec = SUBNET.to_vec();
            spec.extend([req(t("subnet")), req(e("type", &["subnet"])), short("lock-token", 64)]);
            c.params.check(&spec)?;
            locked(w, &c.params)?;
            let cidr = c.params.text("subnet");
            let id = format!("{zone}-{}", cidr.replace('/', "-"));
            if w.pve.table(&table).contains_key(&id) {
                return Err(ApiError::fail(format!(
                    "create sdn subnet object failed: sdn subnet object ID '{id}' already defined"
                )));
            }
            let mut row = Row::from([("cidr".into(), json!(cidr))]);
            fill(&mut row, &c.params, SUBNET)?;
            w.pve.put_row(&table, &id, row);
            null()
        }
        ("GET", [id]) => data(view(id, w.pve.table(&table).get(*id).ok_or_else(|| missing(id))?)),
        ("PUT", [id]) => {
            let mut spec = SUBNET.to_vec();
            spec.extend([super::params::delete(), super::params::digest(), cid("lock-token")]);
            c.params.check(&spec)?;
            let mut row = w.pve.table(&table).get(*id).cloned().ok_or_else(|| missing(id))?;
            fill(&mut row, &c.params, SUBNET)?;
            w.pve.put_row(&table, id, row);
            null()
        }
        ("DELETE", [id]) => {
            w.pve.drop_row(&table, id).ok_or_else(|| missing(id))?;
            null()
        }
        _ => Err(c.unknown()),
    }
}

/// `GET /nodes/{node}/sdn/zones/{zone}/content`: the networks of a zone on a node.
///
/// # Errors
/// The server's refusal.
pub fn on_node(w: &World, c: &Call, node: &str, zone: &str) -> Reply {
    let vnets = networks(w, c, node, zone)?.into_iter();
    data(vnets.map(|v| json!({ "vnet": v, "status": "available" })).collect::<Vec<Value>>())
}

/// `GET /nodes/{node}/sdn/zones/{zone}/bridges` of 9.x: the same as bridges, with the cards of machines on them.
///
/// # Errors
/// The server's refusal.
pub fn bridges_of(w: &World, c: &Call, node: &str, zone: &str) -> Reply {
    use gpuhost_stdlib::wire::pve::props;
    let bridges = networks(w, c, node, zone)?;
    let ports =
        |bridge: &str| {
            let running = w.pve.vms.iter().filter(|(_, v)| v.node == node && v.run.is_some());
            let mut out = Vec::new();
            for (vmid, vm) in running {
                let nets = vm.conf.iter().filter_map(|(k, v)| match props::numbered(k) {
                    ("net", Some(n)) => Some((n, props::read(k, v))),
                    _ => None,
                });
                let here = nets.filter(|(_, p)| p.get("bridge").is_some_and(|b| b == bridge));
                out.extend(here.map(
                    |(n, _)| json!({ "name": format!("tap{vmid}i{n}"), "vmid": vmid, "index": format!("net{n}") }),
                ));
            }
            out
        };
    let row = |b: &String| json!({ "name": b, "vlan_filtering": "0", "ports": ports(b) });
    data(bridges.iter().map(row).collect::<Vec<Value>>())
}

/// The networks of a zone on a node, for a sender who may see them.
fn networks(w: &World, c: &Call, node: &str, zone: &str) -> Result<Vec<String>, ApiError> {
    w.pve.need(c.who()?, &format!("/sdn/zones/{zone}"), "SDN.Audit")?;
    c.params.check(&[])?;
    if zone == "localnetwork" {
        return Ok(w.pve.nodes.get(node).map(|n| n.bridges.clone()).unwrap_or_default());
    }
    let of_zone = |r: &Row| r.get("zone").is_some_and(|z| z == zone);
    Ok(w.pve.table("sdn/running/vnets").iter().filter(|(_, r)| of_zone(r)).map(|(id, _)| id.clone()).collect())
}

/// Applied vnets are bridges that VMs may use.
fn bridges(w: &mut World) {
    let vnets: Vec<String> = w.pve.table("sdn/running/vnets").keys().cloned().collect();
    for n in w.pve.nodes.values_mut() {
        for v in &vnets {
            if !n.bridges.contains(v) {
                n.bridges.push(v.clone());
            }
        }
    }
}
