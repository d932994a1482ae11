//! Roles and ACLs: `/access/roles…`, `/access/acl`.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::acl::Who;
use super::params::{b, f, req, t, with};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use super::state::Acl;
use crate::world::World;

fn role_format(v: &str) -> Result<(), String> {
    let ok = !v.is_empty() && v.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
    if ok { Ok(()) } else { Err(format!("role name '{v}' contains invalid characters\n")) }
}

/// Whether `who` may hand out rights on a path: in general, or on VMs, storages and pools of their own.
fn may_modify(w: &World, who: &Who, path: &str) -> Result<(), ApiError> {
    let special = match path.split('/').nth(1) {
        Some("storage") => "|Datastore.Allocate",
        Some("vms") => "|VM.Allocate",
        Some("pool") => "|Pool.Allocate",
        _ => "",
    };
    w.pve.need(who, path, &format!("Permissions.Modify{special}"))
}

/// Whether rights can be given on a path.
fn is_path(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts[..] {
        [""] | ["access" | "nodes" | "pool" | "sdn" | "storage" | "vms" | "mapping"] => true,
        ["access", "groups" | "realm"] | ["access", "groups" | "realm", _] | ["nodes" | "storage", _] => true,
        ["vms", id] => id.parse::<u32>().is_ok_and(|n| n >= 100),
        ["pool", ..] => parts.len() <= 4,
        ["sdn", "zones" | "vnets" | "controllers" | "dns" | "ipams" | "fabrics", ..] => parts.len() <= 5,
        ["sdn", ..] => false,
        ["mapping", "pci" | "usb" | "dir", ..] => parts.len() <= 3,
        ["mapping", "notifications", ..] => parts.len() <= 3,
        _ => false,
    }
}

/// Handles `/access/roles…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let builtin = w.pve.builtin_roles();
    let join = |s: &BTreeSet<String>| s.iter().cloned().collect::<Vec<_>>().join(",");
    match (method, path) {
        ("GET", []) => {
            let mut rows: Vec<Value> =
                builtin.iter().map(|(r, p)| json!({ "roleid": r, "privs": join(p), "special": 1 })).collect();
            rows.extend(w.pve.access.roles.iter().map(|(r, p)| json!({ "roleid": r, "privs": join(p), "special": 0 })));
            data(rows)
        }
        ("GET", [id]) => {
            let missing = || ApiError::fail(format!("role '{id}' does not exist"));
            let privs = w.pve.role(id).ok_or_else(missing)?;
            data(Value::Object(privs.into_iter().map(|p| (p, json!(1))).collect()))
        }
        ("POST" | "PUT", _) => {
            w.pve.need(c.who()?, "/access", "Sys.Modify")?;
            if path.is_empty() {
                c.params.check(&[req(f("roleid", role_format)), f("privs", |_| Ok(()))])?;
            } else {
                c.params.check(&[t("privs"), with(b("append"), "privs")])?;
            }
            let id = path.first().map_or_else(|| c.params.text("roleid"), |p| (*p).to_owned());
            let known = w.pve.privileges();
            let asked = c.params.text("privs");
            let mut privs = BTreeSet::new();
            for p in asked.split([',', ';', ' ']).filter(|p| !p.is_empty()) {
                if !known.contains(p) {
                    return Err(ApiError::param("privs", format!("invalid format - invalid privilege '{p}'\n")));
                }
                privs.insert(p.to_owned());
            }
            let exists = w.pve.role(&id).is_some();
            if method == "POST" && id.starts_with("PVE") && !exists {
                let text = "cannot use role ID starting with the (case-insensitive) 'PVE' namespace";
                return Err(ApiError::param("roleid", text));
            }
            if method == "POST" && exists {
                return Err(ApiError::fail(format!("create role failed: role '{id}' already exists")));
            }
            if method == "PUT" && !exists {
                return Err(ApiError::fail(format!("role '{id}' does not exist")));
            }
            if builtin.contains_key(id.as_str()) {
                return Err(ApiError::fail(format!("auto-generated role '{id}' cannot be modified")));
            }
            if c.params.flag("append") {
                privs.extend(w.pve.access.roles.get(&id).cloned().unwrap_or_default());
            }
            w.pve.access.roles.insert(id, privs);
            null()
        }
        ("DELETE", [id]) => {
            w.pve.need(c.who()?, "/access", "Sys.Modify")?;
            c.params.check(&[])?;
            if builtin.contains_key(*id) {
                return Err(ApiError::fail(format!("auto-generated role '{id}' cannot be deleted")));
            }
            if w.pve.access.roles.remove(*id).is_none() {
                return Err(ApiError::fail(format!("delete role failed: role '{id}' does not exist")));
            }
            w.pve.access.acl.retain(|a| a.role != *id);
            null()
        }
        _ => Err(c.unknown()),
    }
}

/// `GET /access/acl`.
///
/// # Errors
/// The server's refusal.
pub fn acl_list(w: &World, c: &Call) -> Reply {
    let who = c.who()?;
    let all = w.pve.has(who, "/access", "Sys.Audit");
    let rows = w.pve.access.acl.iter().filter(|a| all || may_modify(w, who, &a.path).is_ok());
    let row = |a: &Acl| json!({ "path": a.path, "type": a.kind, "ugid": a.who, "roleid": a.role, "propagate": i32::from(a.propagate) });
    data(rows.map(row).collect::<Vec<Value>>())
}

/// `PUT /access/acl`.
///
/// # Errors
/// The server's refusal.
pub fn acl_put(w: &mut World, c: &Call) -> Reply {
    let p = &c.params;
    let who = c.who()?.clone();
    let path = format!("/{}", p.text("path").split('/').filter(|x| !x.is_empty()).collect::<Vec<_>>().join("/"));
    may_modify(w, &who, &path)?;
    p.check(&[req(t("path")), req(t("roles")), t("users"), t("groups"), t("tokens"), b("propagate"), b("delete")])?;
    if !p.flag("delete") && !is_path(&path) {
        return Err(ApiError::param("path", format!("invalid ACL path '{}'", p.text("path"))));
    }
    let list = |k: &str| -> Vec<String> {
        p.text(k).split([',', ';', ' ']).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    };
    let mut whos: BTreeMap<String, &str> = BTreeMap::new();
    for (key, kind) in [("users", "user"), ("groups", "group"), ("tokens", "token")] {
        whos.extend(list(key).into_iter().map(|x| (x, kind)));
    }
    if whos.is_empty() {
        let why = "either 'users', 'groups' or 'tokens' is required.";
        return Err(ApiError::params(["users", "groups", "tokens"].map(|k| (k.to_owned(), why.to_owned())).into()));
    }
    let own = w.pve.permissions(&who, &path);
    let nobody = super::state::User::default();
    for role in list("roles") {
        let Some(privs) = w.pve.role(&role) else {
            return Err(ApiError::fail(format!("ACL update failed: role '{role}' does not exist")));
        };
        if !own.contains_key("Permissions.Modify") && (role == "NoAccess" || privs.iter().any(|p| !own.contains_key(p)))
        {
            let verb = if p.flag("delete") { "remove" } else { "add" };
            let why = format!("Cannot {verb} role '{role}' - requires 'Permissions.Modify' or superset of privileges.");
            return Err(ApiError::param("role", why));
        }
        for (id, kind) in &whos {
            let user = id.split('!').next().unwrap_or_default();
            if *kind == "group" && !w.pve.access.groups.contains_key(id) {
                return Err(ApiError::fail(format!("ACL update failed: group '{id}' does not exist")));
            }
            let Some(u) = w.pve.access.users.get(user).or_else(|| (*kind == "group").then_some(&nobody)) else {
                return Err(ApiError::fail(format!("ACL update failed: user '{user}' does not exist")));
            };
            if let Some((_, token)) = id.split_once('!').filter(|(_, t)| !u.tokens.contains_key(*t)) {
                let text = format!("ACL update failed: no such token '{token}' for user '{user}'");
                return Err(ApiError::fail(text));
            }
            let same = |a: &Acl| a.path == path && &a.who == id && a.role == role;
            w.pve.access.acl.retain(|a| !same(a));
            if !p.flag("delete") {
                w.pve.access.acl.push(Acl {
                    path: path.clone(),
                    kind: (*kind).to_owned(),
                    who: id.clone(),
                    role: role.clone(),
                    propagate: p.get("propagate").is_none_or(|v| v == "1"),
                });
            }
        }
    }
    null()
}
