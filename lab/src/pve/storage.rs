//! Storage definitions: `/storage…`.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::params::{b, cid, delete, digest as digest_param, e, f, opt, range, req, short, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use super::sections::{self, unchanged};
use super::space;
use super::state::Storage;
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::{Prop, Ty};

/// The kinds of storages, in the server's order.
macro_rules! kinds {
    ($($old:literal)?) => {
        &[
            "btrfs", "cephfs", "cifs", "dir", "esxi", $($old,)? "iscsi", "iscsidirect", "lvm", "lvmthin", "nfs", "pbs",
            "rbd", "zfs", "zfspool",
        ]
    };
}
const TYPES: &[&str] = kinds!();
const TYPES_8: &[&str] = kinds!("glusterfs");
/// Kinds whose volumes the lab can make.
const SERVED: &[&str] = &["btrfs", "cephfs", "cifs", "dir", "iscsi", "lvm", "lvmthin", "nfs", "pbs", "rbd", "zfspool"];
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

/// Whether a storage is there for a node.
#[must_use]
pub fn on_node(w: &World, id: &str, node: &str) -> bool {
    let list = w.pve.storages.get(id).map(|s| s.extra.get("nodes").cloned().unwrap_or_default());
    list.is_some_and(|l| l.is_empty() || l.split([',', ';', ' ']).any(|n| n == node))
}

/// Settings that can be changed.
const FIELDS: &[Prop] = &[
    t("blocksize"),
    t("bwlimit"),
    t("comstar_hg"),
    t("comstar_tg"),
    t("content"),
    t("content-dirs"),
    b("create-base-path"),
    b("create-subdirs"),
    t("data-pool"),
    b("disable"),
    short("domain", 256),
    t("encryption-key"),
    t("fingerprint"),
    e("format", &["raw", "qcow2", "subvol", "vmdk"]),
    cid("fs-name"),
    b("fuse"),
    t("is_mountpoint"),
    t("keyring"),
    b("krbd"),
    t("lio_tpg"),
    t("master-pubkey"),
    Prop { min: Some(-1.0), ..opt("max-protected-backups", Ty::Int) },
    b("mkdir"),
    t("monhost"),
    t("mountpoint"),
    t("namespace"),
    b("nocow"),
    t("nodes"),
    b("nowritecache"),
    t("options"),
    short("password", 256),
    t("pool"),
    range("port", 1, 65_535),
    e("preallocation", &["off", "metadata", "falloc", "full"]),
    f("prune-backups", super::prune::keep_format),
    b("saferemove"),
    t("saferemove_throughput"),
    t("server"),
    b("shared"),
    b("skip-cert-verification"),
    e("smbversion", &["default", "2.0", "2.1", "3", "3.0", "3.11"]),
    b("sparse"),
    t("subdir"),
    b("tagged_only"),
    t("username"),
    t("zfs-base-path"),
];
/// Settings that are fixed at birth.
const BIRTH: &[Prop] = &[
    t("authsupported"),
    t("base"),
    t("datastore"),
    t("export"),
    t("iscsiprovider"),
    t("path"),
    t("portal"),
    t("share"),
    t("target"),
    t("thinpool"),
    t("vgname"),
];
const ONLY_9: &[Prop] = &[e("saferemove-stepsize", &["1", "2", "4", "8", "16", "32"]), b("snapshot-as-volume-chain")];
const ONLY_8: &[Prop] =
    &[Prop { min: Some(0.0), ..opt("maxfiles", Ty::Int) }, t("server2"), e("transport", &["tcp", "rdma", "unix"])];

fn fields(old: bool, new: bool) -> Vec<Prop> {
    let mut all = FIELDS.to_vec();
    all.extend_from_slice(if old { ONLY_8 } else { ONLY_9 });
    if new {
        all.extend_from_slice(BIRTH);
        if old {
            all.push(t("volume"));
        }
        all.extend([req(f("storage", id_format)), req(e("type", if old { TYPES_8 } else { TYPES }))]);
    } else {
        all.extend([delete(), digest_param()]);
    }
    all
}

/// What each kind cannot be without.
fn required(kind: &str) -> &'static [&'static str] {
    match kind {
        "dir" | "btrfs" => &["path"],
        "nfs" => &["server", "export"],
        "cifs" => &["server", "share"],
        "zfspool" | "rbd" => &["pool"],
        "lvm" => &["vgname"],
        "lvmthin" => &["vgname", "thinpool"],
        _ => &[],
    }
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
            p.check(&[e("type", if w.pve.is_8() { TYPES_8 } else { TYPES })])?;
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
            w.pve.need(who, "/storage", "Datastore.Allocate")?;
            p.check(&fields(w.pve.is_8(), true))?;
            let (id, kind) = (p.text("storage"), p.text("type"));
            if w.pve.storages.contains_key(&id) {
                return Err(ApiError::fail(format!("create storage failed: storage ID '{id}' already defined")));
            }
            let missing: BTreeMap<String, String> = required(&kind)
                .iter()
                .filter(|k| p.get(k).is_none())
                .map(|k| ((*k).to_owned(), "property is missing and it is not optional".to_owned()))
                .collect();
            if !missing.is_empty() {
                return Err(ApiError::params(missing));
            }
            if !SERVED.contains(&kind.as_str()) {
                return Err(ApiError::fail(format!("create storage failed: the lab has no storage of type '{kind}'")));
            }
            let mut s = Storage {
                shared: matches!(kind.as_str(), "nfs" | "cifs" | "cephfs" | "rbd"),
                kind: kind.clone(),
                content: if matches!(kind.as_str(), "nfs" | "cifs") { "images" } else { "images,rootdir" }.into(),
                size: 1 << 40,
                disabled: false,
                extra: BTreeMap::new(),
            };
            fill(&mut s, c)?;
            w.pve.storages.insert(id.clone(), s);
            data(json!({ "storage": id, "type": kind }))
        }
        ("PUT", [id]) => {
            w.pve.need(who, "/storage", "Datastore.Allocate")?;
            p.check(&fields(w.pve.is_8(), false))?;
            unchanged(p, &sections::digest(&w.pve.storages))?;
            let s = w
                .pve
                .storages
                .get_mut(*id)
                .ok_or_else(|| ApiError::fail(format!("update storage failed: storage '{id}' does not exist")))?;
            fill(s, c)?;
            data(json!({ "storage": id, "type": s.kind }))
        }
        ("DELETE", [id]) => {
            w.pve.need(who, "/storage", "Datastore.Allocate")?;
            p.check(&[])?;
            w.pve
                .storages
                .remove(*id)
                .ok_or_else(|| ApiError::fail(format!("delete storage failed: storage '{id}' does not exist")))?;
            // The volumes stay where they are; nobody sees them any more.
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
    let own = ["content", "shared", "disable", "storage", "type", "delete", "digest", "password", "mkdir"];
    for k in p.0.keys().filter(|k| !own.contains(&k.as_str())) {
        s.extra.insert(k.clone(), p.text(k));
    }
    for k in p.split("delete") {
        match k.as_str() {
            "shared" => s.shared = false,
            "disable" => s.disabled = false,
            "content" => s.content = "images,rootdir".into(),
            k => {
                s.extra.remove(k);
            }
        }
    }
    Ok(())
}

fn view(w: &World, id: &str, s: &Storage) -> Value {
    let digest = sections::digest(&w.pve.storages);
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
        let known = FIELDS.iter().chain(BIRTH).chain(ONLY_9).chain(ONLY_8).find(|f| f.name == k.as_str());
        v[k] = sections::typed(known.map_or(Ty::Str, |f| f.ty), x);
    }
    v
}
