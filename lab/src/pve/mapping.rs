//! PCI resource mappings: `/cluster/mapping/pci…`.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props;
use serde_json::{Map, Value, json};
use sha1::{Digest, Sha1};

use super::params::{b, config_id, f, req, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::state::Mapping;
use crate::spec::PciSpec;
use crate::world::World;

/// Handles `/cluster/mapping…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let who = c.who()?;
    let p = &c.params;
    match (method, path) {
        ("GET", []) => data(subdirs("name", &["dir", "pci", "usb"])),
        (_, [kind @ ("usb" | "dir"), rest @ ..]) => super::mapping_other::route(w, c, method, kind, rest),
        ("GET", ["pci"]) => list(w, c),
        ("POST", ["pci"]) => {
            w.pve.need(who, "/mapping/pci", "Mapping.Modify")?;
            p.check(&[
                req(f("id", config_id)),
                req(t("map")),
                t("description"),
                b("mdev"),
                b("live-migration-capable"),
            ])?;
            let id = p.text("id");
            let map = entries(c)?;
            if w.pve.mappings.contains_key(&id) {
                return Err(ApiError::fail(format!("create hardware mapping failed: pci ID '{id}' already defined")));
            }
            let mut m = Mapping { description: p.get("description"), map, ..Mapping::default() };
            flags(&mut m, c);
            w.pve.mappings.insert(id, m);
            null()
        }
        (_, ["pci", id]) => one(w, c, method, id),
        _ => Err(c.unknown()),
    }
}

fn one(w: &mut World, c: &Call, method: &str, id: &str) -> Reply {
    let who = c.who()?;
    let p = &c.params;
    let path = format!("/mapping/pci/{id}");
    let missing = |verb: &str| ApiError::fail(format!("{verb}pci ID '{id}' does not exist"));
    match method {
        "GET" => {
            w.pve.need(who, &path, "Mapping.Use|Mapping.Modify|Mapping.Audit")?;
            let digest = digest(w);
            let m = w.pve.mappings.get(id).ok_or_else(|| ApiError::fail(format!("mapping '{id}' not found")))?;
            data(view(m, &digest))
        }
        "PUT" => {
            w.pve.need(who, &path, "Mapping.Modify")?;
            p.check(&[
                t("map"),
                t("description"),
                b("mdev"),
                b("live-migration-capable"),
                super::params::digest(),
                super::params::delete(),
            ])?;
            if p.get("digest").is_some_and(|d| d != digest(w)) {
                return Err(ApiError::fail(
                    "update hardware mapping failed: detected modified configuration - file changed by other user? Try again.",
                ));
            }
            let new = if p.0.contains_key("map") { Some(entries(c)?) } else { None };
            let m = w.pve.mappings.get_mut(id).ok_or_else(|| missing("update hardware mapping failed: "))?;
            if let Some(map) = new {
                m.map = map;
            }
            if let Some(d) = p.get("description") {
                m.description = Some(d);
            }
            for k in p.text("delete").split(',') {
                match k {
                    "description" => m.description = None,
                    k => {
                        m.extra.remove(k);
                    }
                }
            }
            flags(m, c);
            null()
        }
        "DELETE" => {
            w.pve.need(who, "/mapping/pci", "Mapping.Modify")?;
            p.check(&[])?;
            // As on the server: deleting one that is not there is fine.
            w.pve.mappings.remove(id);
            null()
        }
        _ => Err(c.unknown()),
    }
}

fn flags(m: &mut Mapping, c: &Call) {
    for k in ["mdev", "live-migration-capable"] {
        if c.params.get(k).is_some() {
            m.extra.insert(k.into(), i64::from(c.params.flag(k)));
        }
    }
}

/// The checked `map` entries.
fn entries(c: &Call) -> Result<Vec<String>, ApiError> {
    let Some(format) = props::format_of("map") else { return Ok(Vec::new()) };
    let list = c.params.list("map");
    let mut bad = BTreeMap::new();
    for (i, text) in list.iter().enumerate() {
        let key = format!("map[{i}]");
        if let Err(e) = format.parse(text, &key) {
            bad.insert(key, format!("invalid format - {e}"));
        }
    }
    if bad.is_empty() { Ok(list) } else { Err(ApiError::params(bad)) }
}

fn digest(w: &World) -> String {
    let text = serde_json::to_string(&w.pve.mappings).unwrap_or_default();
    Sha1::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

fn view(m: &Mapping, digest: &str) -> Value {
    let mut v = Map::new();
    v.insert("type".into(), json!("pci"));
    v.insert("map".into(), json!(m.map));
    if let Some(d) = &m.description {
        v.insert("description".into(), json!(d));
    }
    for (k, x) in &m.extra {
        v.insert(k.clone(), json!(x));
    }
    v.insert("digest".into(), json!(digest));
    Value::Object(v)
}

fn list(w: &World, c: &Call) -> Reply {
    c.params.check(&[t("check-node")])?;
    let who = c.who()?;
    let digest = digest(w);
    let node = c.params.get("check-node");
    let may = |id: &str| {
        let path = format!("/mapping/pci/{id}");
        ["Mapping.Use", "Mapping.Modify", "Mapping.Audit"].iter().any(|p| w.pve.has(who, &path, p))
    };
    let rows = w.pve.mappings.iter().filter(|(id, _)| may(id)).map(|(id, m)| {
        let mut v = view(m, &digest);
        v["id"] = json!(id);
        if let Some(n) = &node {
            v["checks"] = checks(w, m, n);
        }
        v
    });
    data(rows.collect::<Vec<Value>>())
}

fn checks(w: &World, m: &Mapping, node: &str) -> Value {
    let row = |severity: &str, text: String| json!({ "severity": severity, "message": text });
    let mine: Vec<props::Props> =
        m.map.iter().map(|e| props::read("map", e)).filter(|p| p.get("node").is_some_and(|n| n == node)).collect();
    let mut out = Vec::new();
    if mine.is_empty() {
        out.push(row("warning", format!("No mapping for node {node}.")));
    }
    for p in mine {
        if let Err(e) = verify(w, node, &p) {
            out.push(row("error", format!("Invalid configuration: {e}\n")));
        }
    }
    Value::Array(out)
}

/// `0x10de` and `0x20f1` as `10de:20f1`.
fn ids(a: &str, b: &str) -> String {
    format!("{}:{}", a.trim_start_matches("0x"), b.trim_start_matches("0x"))
}

/// Compares an entry with the hardware.
fn verify(w: &World, node: &str, p: &props::Props) -> Result<(), String> {
    let path = p.get("path").map(String::as_str).unwrap_or_default();
    let n = w.pve.nodes.get(node).ok_or_else(|| format!("no such node '{node}'"))?;
    let first = path.split(';').next().unwrap_or_default();
    let matches_path = |d: &&PciSpec| d.address == first || d.address.rsplit_once('.').is_some_and(|(a, _)| a == first);
    let device = n.pci.iter().find(matches_path).ok_or_else(|| format!("pci device '{first}' not found"))?;
    let have = ids(&device.vendor, &device.device);
    let group = if n.iommu { device.iommu_group } else { -1 };
    let differs =
        |what: &str, got: &str, want: &str| format!("'{what}' does not match for '{first}' ({got} != {want})");
    if let Some(id) = p.get("id").filter(|id| **id != have) {
        return Err(differs("id", &have, id));
    }
    if let Some(g) = p.get("iommugroup").filter(|g| **g != group.to_string()) {
        return Err(differs("iommugroup", &group.to_string(), g));
    }
    let sub = ids(&device.subsystem_vendor, &device.subsystem_device);
    if let Some(s) = p.get("subsystem-id").filter(|s| **s != sub) {
        return Err(differs("subsystem-id", &sub, s));
    }
    Ok(())
}

/// The addresses that a mapping offers on a node, checked as a start does.
///
/// # Errors
/// The message the start task ends with.
pub fn devices(w: &World, node: &str, id: &str) -> Result<Vec<String>, String> {
    let missing = || format!("PCI device mapping not found for '{id}'");
    let m = w.pve.mappings.get(id).ok_or_else(missing)?;
    let mine: Vec<props::Props> =
        m.map.iter().map(|e| props::read("map", e)).filter(|p| p.get("node").is_some_and(|n| n == node)).collect();
    if mine.is_empty() {
        return Err(missing());
    }
    let mut out = Vec::new();
    for p in mine {
        verify(w, node, &p).map_err(|e| format!("PCI device mapping invalid (hardware probably changed): {e}\n\n"))?;
        let path = p.get("path").cloned().unwrap_or_default();
        let first = path.split(';').next().unwrap_or_default();
        out.push(if first.contains('.') { first.to_owned() } else { format!("{first}.0") });
    }
    Ok(out)
}
