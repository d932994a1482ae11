//! Storage definitions: `/storage…`.
use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use super::params::{b, n, req, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use super::space;
use super::state::Storage;
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::Prop;

const TYPES: &[&str] = &["dir", "nfs", "zfspool", "lvmthin", "lvm"];
const CONTENT: &[&str] = &["images", "rootdir", "vztmpl", "backup", "iso", "snippets", "import", "none"];

/// A storage id.
///
/// # Errors
/// The server's message.
pub fn id_format(v: &str) -> Result<(), String> {
    let c = v.as_bytes();
    let ok = c.len() > 1
        && c[0].is_ascii_alphabetic()
        && c[c.len() - 1].is_ascii_alphanumeric()
        && c.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c));
    if ok { Ok(()) } else { Err(format!("storage ID '{v}' contains illegal characters\n")) }
}

fn fields() -> Vec<Prop> {
    vec![
        t("content"),
        t("nodes"),
        b("shared"),
        b("disable"),
        t("path"),
        t("server"),
        t("export"),
        t("pool"),
        t("vgname"),
        t("thinpool"),
        b("sparse"),
        t("prune-backups"),
        t("options"),
        t("digest"),
        t("delete"),
        b("mkdir"),
        t("preallocation"),
        t("blocksize"),
        t("mountpoint"),
        n("max-protected-backups"),
        b("create-base-path"),
        b("create-subdirs"),
    ]
}

/// Handles `/storage…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let who = c.who()?;
    let p = &c.params;
    match (method, path) {
        ("GET", []) => {
            p.check(&[t("type")])?;
            let may = |id: &str| {
                let path = format!("/storage/{id}");
                ["Datastore.Allocate", "Datastore.Audit", "Datastore.AllocateSpace"]
                    .iter()
                    .any(|x| w.pve.has(who, &path, x))
            };
            let kind = p.get("type");
            let rows = w.pve.storages.iter().filter(|(id, s)| may(id) && kind.as_ref().is_none_or(|k| *k == s.kind));
            data(rows.map(|(id, s)| view(w, id, s)).collect::<Vec<Value>>())
        }
        ("GET", [id]) => {
            w.pve.need(who, &format!("/storage/{id}"), "Datastore.Allocate|Datastore.Audit")?;
            let s = w.pve.storages.get(*id).ok_or_else(|| missing(id))?;
            data(view(w, id, s))
        }
        ("POST", []) => {
            let mut all = fields();
            all.extend([req(t("storage")), req(super::params::e("type", TYPES))]);
            p.check(&all)?;
            w.pve.need(who, "/storage", "Datastore.Allocate")?;
            let id = p.text("storage");
            id_format(&id).map_err(|e| ApiError::param("storage", format!("invalid format - {e}")))?;
            if w.pve.storages.contains_key(&id) {
                return Err(ApiError::fail(format!("create storage failed: storage ID '{id}' already defined")));
            }
            let kind = p.text("type");
            let mut s = Storage {
                shared: kind == "nfs",
                kind: kind.clone(),
                content: "images,rootdir".into(),
                size: 1 << 40,
                disabled: false,
                extra: BTreeMap::new(),
            };
            fill(&mut s, c)?;
            w.pve.storages.insert(id.clone(), s);
            data(json!({ "storage": id, "type": kind }))
        }
        ("PUT", [id]) => {
            p.check(&fields())?;
            w.pve.need(who, "/storage", "Datastore.Allocate")?;
            let s = w.pve.storages.get_mut(*id).ok_or_else(|| missing(id))?;
            fill(s, c)?;
            data(json!({ "storage": id, "type": s.kind }))
        }
        ("DELETE", [id]) => {
            w.pve.need(who, "/storage", "Datastore.Allocate")?;
            w.pve
                .storages
                .remove(*id)
                .ok_or_else(|| ApiError::fail(format!("delete storage failed: storage '{id}' does not exist")))?;
            null()
        }
        _ => Err(c.unknown()),
    }
}

/// `storage 'x' does not exist`.
#[must_use]
pub fn missing(id: &str) -> ApiError {
    ApiError::fail(format!("storage '{id}' does not exist"))
}

fn fill(s: &mut Storage, c: &Call) -> Result<(), ApiError> {
    let p = &c.params;
    if let Some(content) = p.get("content") {
        for k in content.split(',') {
            if !CONTENT.contains(&k) {
                let why = format!("invalid format - invalid content type '{k}'\n");
                return Err(ApiError::param("content", why));
            }
        }
        s.content = content;
    }
    if p.get("shared").is_some() {
        s.shared = p.flag("shared");
    }
    if p.get("disable").is_some() {
        s.disabled = p.flag("disable");
    }
    for k in ["path", "server", "export", "pool", "vgname", "thinpool", "nodes", "prune-backups", "sparse"] {
        if let Some(v) = p.get(k) {
            s.extra.insert(k.into(), v);
        }
    }
    for k in p.text("delete").split(',') {
        s.extra.remove(k);
    }
    Ok(())
}

fn view(w: &World, id: &str, s: &Storage) -> Value {
    let text = serde_json::to_string(&w.pve.storages).unwrap_or_default();
    let digest: String = Sha1::digest(text).iter().map(|b| format!("{b:02x}")).collect();
    let mut v = json!({ "storage": id, "type": s.kind, "content": s.content, "digest": digest });
    match s.kind.as_str() {
        "zfspool" => {
            v["pool"] = json!("rpool/data");
            v["mountpoint"] = json!("/rpool/data");
        }
        "lvmthin" => {
            v["vgname"] = json!("pve");
            v["thinpool"] = json!("data");
        }
        _ => v["path"] = json!(space::path_of(w, id)),
    }
    if s.kind == "nfs" {
        v["server"] = json!("10.0.0.3");
        v["export"] = json!(format!("/export/{id}"));
    }
    if s.is_dir() {
        v["prune-backups"] = json!("keep-all=1");
    }
    if s.shared {
        v["shared"] = json!(1);
    }
    if s.disabled {
        v["disable"] = json!(1);
    }
    for (k, x) in &s.extra {
        v[k] = json!(x);
    }
    v
}
