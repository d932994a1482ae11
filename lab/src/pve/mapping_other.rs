//! Mappings of USB devices and directories: `/cluster/mapping/usb…`, `/cluster/mapping/dir…`.
use serde_json::{Value, json};

use super::params::{Params, config_id, delete, digest as digest_param, f, req, short, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use super::sections::{digest, fill, unchanged};
use super::state::Row;
use crate::world::World;

/// What an entry of a kind must have.
fn needed(kind: &str) -> [&'static str; 2] {
    if kind == "usb" { ["id", "node"] } else { ["node", "path"] }
}

/// The entries, each with what it must have.
fn entries(p: &Params, kind: &str) -> Result<Vec<String>, ApiError> {
    let list = p.list("map");
    let mut bad = std::collections::BTreeMap::new();
    for (i, text) in list.iter().enumerate() {
        let has =
            |k: &str| text.split(',').any(|part| part.split_once('=').is_some_and(|(n, v)| n == k && !v.is_empty()));
        let missing: String = needed(kind)
            .iter()
            .filter(|k| !has(k))
            .map(|k| format!("map[{i}].{k}: property is missing and it is not optional\n"))
            .collect();
        if !missing.is_empty() {
            bad.insert(format!("map[{i}]"), format!("invalid format - format error\n{missing}"));
        }
    }
    if bad.is_empty() { Ok(list) } else { Err(ApiError::params(bad)) }
}

fn view(kind: &str, row: &Row, digest: &str) -> Value {
    let mut v = json!({ "type": kind, "digest": digest });
    for (k, x) in row {
        v[k] = x.clone();
    }
    v
}

/// Handles the mappings of one kind, `usb` or `dir`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, kind: &str, path: &[&str]) -> Reply {
    let who = c.who()?.clone();
    let p = &c.params;
    let table = format!("mapping/{kind}");
    let all = format!("/mapping/{kind}");
    let now = digest(w.pve.table(&table));
    let label = if kind == "usb" { "USB" } else { "directory" };
    let may = |w: &World, id: &str| {
        ["Mapping.Use", "Mapping.Modify", "Mapping.Audit"].iter().any(|p| w.pve.has(&who, &format!("{all}/{id}"), p))
    };
    match (method, path) {
        ("GET", []) => {
            p.check(&[t("check-node")])?;
            let rows = w.pve.table(&table).iter().filter(|(id, _)| may(w, id)).map(|(id, row)| {
                let mut v = view(kind, row, &now);
                v["id"] = json!(id);
                if kind == "usb" {
                    v["error"] = json!([]);
                } else if p.get("check-node").is_some() {
                    v["checks"] = json!([]);
                }
                v
            });
            data(rows.collect::<Vec<Value>>())
        }
        ("POST", []) => {
            w.pve.need(&who, &all, "Mapping.Modify")?;
            p.check(&[req(f("id", config_id)), req(t("map")), short("description", 4096)])?;
            let (id, map) = (p.text("id"), entries(p, kind)?);
            if w.pve.table(&table).contains_key(&id) {
                return Err(ApiError::fail(format!(
                    "create hardware mapping failed: {label} ID '{id}' already defined"
                )));
            }
            let mut row = Row::from([("map".to_owned(), json!(map))]);
            fill(&mut row, p, &[t("description")])?;
            w.pve.put_row(&table, &id, row);
            null()
        }
        ("GET", [id]) => {
            w.pve.need(&who, &format!("{all}/{id}"), "Mapping.Use|Mapping.Modify|Mapping.Audit")?;
            p.check(&[])?;
            let row =
                w.pve.table(&table).get(*id).ok_or_else(|| ApiError::fail(format!("mapping '{id}' not found")))?;
            data(view(kind, row, &now))
        }
        ("PUT", [id]) => {
            w.pve.need(&who, &format!("{all}/{id}"), "Mapping.Modify")?;
            p.check(&[t("map"), short("description", 4096), digest_param(), delete()])?;
            unchanged(p, &now)?;
            let missing =
                || ApiError::fail(format!("update hardware mapping failed: {label} ID '{id}' does not exist"));
            let mut row = w.pve.table(&table).get(*id).cloned().ok_or_else(missing)?;
            fill(&mut row, p, &[t("description")])?;
            if p.0.contains_key("map") {
                row.insert("map".to_owned(), json!(entries(p, kind)?));
            }
            w.pve.put_row(&table, id, row);
            null()
        }
        ("DELETE", [id]) => {
            w.pve.need(&who, &all, "Mapping.Modify")?;
            p.check(&[])?;
            w.pve.drop_row(&table, id);
            null()
        }
        _ => Err(c.unknown()),
    }
}
