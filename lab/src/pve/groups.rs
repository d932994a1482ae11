//! Groups and realms: `/access/groups…`, `/access/domains…`.
use serde_json::{Value, json};

use super::params::{b, f, req, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use super::sections::Section;
use super::state::Row;
use crate::world::World;

fn group_format(v: &str) -> Result<(), String> {
    let ok = !v.is_empty() && v.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
    if ok { Ok(()) } else { Err(format!("group name '{v}' contains invalid characters\n")) }
}

/// Handles `/access/groups…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let who = c.who()?.clone();
    let allocate = |w: &World| w.pve.need(&who, "/access/groups", "Group.Allocate");
    let missing = |verb: &str, id: &str| ApiError::fail(format!("{verb}group '{id}' does not exist"));
    let row = |w: &World, id: &str| {
        let members: Vec<String> = w.pve.access.groups.get(id).into_iter().flatten().cloned().collect();
        let mut v = json!({ "groupid": id, "users": members.join(",") });
        if let Some(text) = w.pve.access.group_comments.get(id) {
            v["comment"] = json!(text);
        }
        v
    };
    match (method, path) {
        ("GET", []) => {
            let may = |g: &str| {
                let place = format!("/access/groups/{g}");
                ["User.Modify", "Sys.Audit", "Group.Allocate"].iter().any(|p| w.pve.has(&who, &place, p))
            };
            let seen = w.pve.access.groups.keys().filter(|g| may(g));
            data(seen.map(|g| row(w, g)).collect::<Vec<Value>>())
        }
        ("POST", []) => {
            allocate(w)?;
            c.params.check(&[req(f("groupid", group_format)), t("comment")])?;
            let id = c.params.text("groupid");
            if w.pve.access.groups.contains_key(&id) {
                return Err(ApiError::fail(format!("create group failed: group '{id}' already exists")));
            }
            comment(w, &id, c.params.get("comment"));
            w.pve.access.groups.insert(id, Default::default());
            null()
        }
        ("GET", [id]) => {
            w.pve.need(&who, "/access/groups", "Sys.Audit|Group.Allocate")?;
            let members = w.pve.access.groups.get(*id).ok_or_else(|| missing("", id))?;
            let mut v = json!({ "members": members });
            if let Some(text) = w.pve.access.group_comments.get(*id) {
                v["comment"] = json!(text);
            }
            data(v)
        }
        ("PUT", [id]) => {
            allocate(w)?;
            c.params.check(&[t("comment")])?;
            w.pve.access.groups.get(*id).ok_or_else(|| missing("update group failed: ", id))?;
            comment(w, id, c.params.get("comment"));
            null()
        }
        ("DELETE", [id]) => {
            allocate(w)?;
            w.pve.access.groups.remove(*id).ok_or_else(|| missing("delete group failed: ", id))?;
            w.pve.access.group_comments.remove(*id);
            w.pve.access.acl.retain(|a| a.kind != "group" || a.who != *id);
            null()
        }
        _ => Err(c.unknown()),
    }
}

fn comment(w: &mut World, id: &str, text: Option<String>) {
    match text {
        Some(t) if t.is_empty() => {
            w.pve.access.group_comments.remove(id);
        }
        Some(t) => {
            w.pve.access.group_comments.insert(id.to_owned(), t);
        }
        None => {}
    }
}

const REALMS: Section = Section {
    table: "realms",
    key: f("realm", super::params::config_id),
    fields: &[
        t("comment"),
        b("default"),
        req(super::params::e("type", &["ad", "ldap", "openid", "pam", "pve"])),
        t("base_dn"),
        t("user_attr"),
        t("server1"),
        t("server2"),
        t("domain"),
        t("issuer-url"),
        t("client-id"),
        t("username-claim"),
        b("autocreate"),
        t("bind_dn"),
        t("mode"),
        super::params::range("port", 1, 65_535),
    ],
    read: ("/access/realm", "Realm.Allocate|Sys.Audit"),
    write: ("/access/realm", "Realm.Allocate"),
    exists: "add auth server failed: domain '{}' already exists",
    missing: "domain '{}' does not exist",
    gone: "delete auth server failed: authentication domain '{}' does not exist",
    fixed: &[],
};

/// Handles `/access/domains…`.
///
/// # Errors
/// The server's refusal.
pub fn domains(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let builtin = [("pam", "Linux PAM standard authentication"), ("pve", "Proxmox VE authentication server")];
    match (method, path) {
        ("GET", []) => {
            let mut rows: Vec<Value> =
                builtin.iter().map(|(r, text)| json!({ "realm": r, "type": r, "comment": text })).collect();
            rows.extend(
                w.pve
                    .table(REALMS.table)
                    .iter()
                    .map(|(id, r)| json!({ "realm": id, "type": r.get("type"), "comment": r.get("comment") })),
            );
            data(rows)
        }
        ("GET", [id]) if builtin.iter().any(|(r, _)| r == id) => {
            let text = builtin.iter().find(|(r, _)| r == id).map(|b| b.1);
            data(json!({ "type": id, "comment": text, "digest": super::sections::digest(&Row::new()) }))
        }
        ("POST", []) => REALMS.create(w, c, |_, id, _| {
            let taken = builtin.iter().any(|(r, _)| *r == id);
            if taken {
                return Err(ApiError::fail(format!("add auth server failed: domain '{id}' already exists")));
            }
            Ok(())
        }),
        ("GET", [id]) => REALMS.get(w, c, id),
        ("PUT", [id]) => REALMS.update(w, c, id, |_, _, _| Ok(())),
        ("DELETE", [id]) => REALMS.remove(w, c, id),
        _ => Err(c.unknown()),
    }
}
