//! Users, tokens, roles, ACLs, tickets: `/access…`.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::acl::Who;
use super::auth;
use super::params::{b, config_id, n, req, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::state::{Acl, Token, User};
use crate::world::World;

/// Handles `/access…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    match (method, path) {
        ("POST", ["ticket"]) => login(w, c),
        ("GET", ["ticket"]) => null(),
        ("GET", []) => {
            data(subdirs("subdir", &["users", "groups", "roles", "acl", "domains", "ticket", "permissions"]))
        }
        ("GET", ["permissions"]) => permissions(w, c),
        ("GET", ["domains"]) => data(json!([
            { "realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication" },
            { "realm": "pve", "type": "pve", "comment": "Proxmox VE authentication server" },
        ])),
        ("GET", ["groups"]) => {
            let row = |(g, m): (&String, &BTreeSet<String>)| json!({ "groupid": g, "users": m.iter().cloned().collect::<Vec<_>>().join(",") });
            data(w.pve.access.groups.iter().map(row).collect::<Vec<Value>>())
        }
        (_, ["users", rest @ ..]) => users(w, c, method, rest),
        (_, ["roles", rest @ ..]) => roles(w, c, method, rest),
        ("GET", ["acl"]) => acl_list(w, c),
        ("PUT", ["acl"]) => acl_put(w, c),
        _ => Err(c.unknown()),
    }
}

fn login(w: &mut World, c: &Call) -> Reply {
    let p = &c.params;
    p.check(&[
        req(t("username")),
        req(t("password")),
        t("realm"),
        t("otp"),
        t("path"),
        t("privs"),
        b("new-format"),
        t("tfa-challenge"),
    ])?;
    let mut user = p.text("username");
    if let Some(r) = p.get("realm").filter(|_| !user.contains('@')) {
        user = format!("{user}@{r}");
    }
    let now_s = w.now_ms / 1000;
    let password = p.text("password");
    let known = w.pve.access.users.get(&user).is_some_and(|u| u.enable && u.password == password);
    let renewed = auth::read_ticket(&w.pve, &password, now_s).is_some_and(|u| u == user);
    if !known && !renewed {
        return Err(ApiError::status(401, "authentication failure"));
    }
    let (ticket, csrf) = auth::ticket(&w.pve, &user, now_s);
    let who = Who { user: user.clone(), token: None };
    let mut cap = Map::new();
    let places = [
        ("vms", "/vms", "VM."),
        ("storage", "/storage", "Datastore."),
        ("nodes", "/nodes", "Sys."),
        ("dc", "/", "Sys."),
        ("access", "/access", "User."),
        ("sdn", "/sdn", "SDN."),
        ("mapping", "/mapping", "Mapping."),
    ];
    for (name, path, prefix) in places {
        let have = w.pve.permissions(&who, path).into_keys().filter(|p| p.starts_with(prefix));
        cap.insert(name.into(), Value::Object(have.map(|p| (p, json!(1))).collect()));
    }
    data(
        json!({ "ticket": ticket, "CSRFPreventionToken": csrf, "username": user, "cap": cap, "clustername": w.pve.name }),
    )
}

fn permissions(w: &World, c: &Call) -> Reply {
    c.params.check(&[t("userid"), t("path")])?;
    let who = c.who()?;
    let asked = match c.params.get("userid") {
        None => who.clone(),
        Some(id) => {
            if id != who.user && id != who.id() {
                w.pve.need(who, "/access", "Sys.Audit")?;
            }
            match id.split_once('!') {
                Some((u, t)) => Who { user: u.into(), token: Some(t.into()) },
                None => Who { user: id, token: None },
            }
        }
    };
    let paths: BTreeSet<String> = match c.params.get("path") {
        Some(p) => BTreeSet::from([p]),
        None => {
            let fixed = [
                "/",
                "/access",
                "/access/groups",
                "/access/realm",
                "/mapping",
                "/nodes",
                "/pool",
                "/sdn",
                "/storage",
                "/vms",
            ];
            let acl = w.pve.access.acl.iter().map(|a| a.path.clone());
            fixed.iter().map(|s| (*s).to_owned()).chain(acl).collect()
        }
    };
    let mut out = Map::new();
    for path in paths {
        let have = w.pve.permissions(&asked, &path);
        if !have.is_empty() {
            let privs = have.into_iter().map(|(p, prop)| (p, json!(i32::from(prop)))).collect();
            out.insert(path, Value::Object(privs));
        }
    }
    data(Value::Object(out))
}

fn users(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let who = c.who()?.clone();
    let own = path.first().is_some_and(|u| *u == who.user);
    let groups = "/access/groups";
    match (method, path) {
        ("GET", []) => {
            let all = w.pve.has(&who, groups, "User.Modify") || w.pve.has(&who, groups, "Sys.Audit");
            let rows = w.pve.access.users.iter().filter(|(id, _)| all || **id == who.user);
            data(rows.map(|(id, u)| user_view(id, u)).collect::<Vec<Value>>())
        }
        ("POST", []) => {
            w.pve.need(&who, groups, "User.Modify")?;
            c.params.check(&user_fields(true))?;
            let id = c.params.text("userid");
            if w.pve.access.users.contains_key(&id) {
                return Err(ApiError::fail(format!("create user failed: user '{id}' already exists")));
            }
            let mut u = User { enable: true, ..User::default() };
            fill_user(&mut u, c);
            w.pve.access.users.insert(id, u);
            null()
        }
        (_, [id, "token", rest @ ..]) => {
            if !own {
                w.pve.need(&who, groups, "User.Modify")?;
            }
            tokens(w, c, method, id, rest)
        }
        (_, [id]) => {
            if !(own && method == "GET") {
                w.pve.need(&who, groups, "User.Modify")?;
            }
            let missing = || ApiError::fail(format!("no such user ('{id}')"));
            let u = w.pve.access.users.get_mut(*id).ok_or_else(missing)?;
            match method {
                "GET" => data(user_view(id, u)),
                "PUT" => {
                    c.params.check(&user_fields(false))?;
                    fill_user(u, c);
                    null()
                }
                "DELETE" => {
                    w.pve.access.users.remove(*id);
                    w.pve.access.acl.retain(|a| a.who != *id && !a.who.starts_with(&format!("{id}!")));
                    null()
                }
                _ => Err(c.unknown()),
            }
        }
        _ => Err(c.unknown()),
    }
}

fn user_fields(new: bool) -> Vec<gpuhost_stdlib::wire::pve::props::Prop> {
    let mut all = vec![
        t("password"),
        t("comment"),
        t("email"),
        t("firstname"),
        t("lastname"),
        t("groups"),
        t("keys"),
        n("expire"),
        b("enable"),
        b("append"),
    ];
    if new {
        all.push(req(t("userid")));
    }
    all
}

fn fill_user(u: &mut User, c: &Call) {
    if let Some(p) = c.params.get("password") {
        u.password = p;
    }
    if c.params.get("enable").is_some() {
        u.enable = c.params.flag("enable");
    }
    for k in ["comment", "email", "firstname", "lastname", "expire"] {
        if let Some(v) = c.params.get(k) {
            u.extra.insert(k.into(), v);
        }
    }
}

fn user_view(id: &str, u: &User) -> Value {
    let mut v = json!({ "userid": id, "enable": i32::from(u.enable), "expire": 0 });
    v["realm-type"] = json!(id.rsplit('@').next().unwrap_or("pve"));
    for (k, x) in &u.extra {
        v[k] = x.parse::<i64>().map_or_else(|_| json!(x), |n| json!(n));
    }
    v
}

fn token_view(t: &Token) -> Value {
    let mut v = json!({ "expire": t.expire, "privsep": i32::from(t.privsep) });
    if let Some(c) = &t.comment {
        v["comment"] = json!(c);
    }
    v
}

fn tokens(w: &mut World, c: &Call, method: &str, user: &str, path: &[&str]) -> Reply {
    let secret = w.uuid();
    let missing = || ApiError::fail(format!("no such user ('{user}')"));
    let u = w.pve.access.users.get_mut(user).ok_or_else(missing)?;
    let fields = [b("privsep"), n("expire"), t("comment"), b("regenerate"), t("delete")];
    match (method, path) {
        ("GET", []) => {
            let row = |(id, t): (&String, &Token)| {
                let mut v = token_view(t);
                v["tokenid"] = json!(id);
                v
            };
            data(u.tokens.iter().map(row).collect::<Vec<Value>>())
        }
        ("POST", [id]) => {
            c.params.check(&fields)?;
            config_id(id).map_err(|_| ApiError::param("tokenid", "value does not match the regex pattern"))?;
            if u.tokens.contains_key(*id) {
                return Err(ApiError::param("tokenid", "Token already exists."));
            }
            let p = &c.params;
            let token = Token {
                secret: secret.clone(),
                privsep: p.get("privsep").is_none_or(|v| v == "1"),
                expire: p.int("expire").map_or(0, i64::unsigned_abs),
                comment: p.get("comment"),
            };
            let mut info = json!({ "privsep": if token.privsep { "1" } else { "0" } });
            if let Some(cm) = &token.comment {
                info["comment"] = json!(cm);
            }
            u.tokens.insert((*id).to_owned(), token);
            data(json!({ "full-tokenid": format!("{user}!{id}"), "value": secret, "info": info }))
        }
        (_, [id]) => {
            let gone = || ApiError::fail(format!("no such token '{id}' for user '{user}'"));
            let tok = u.tokens.get_mut(*id).ok_or_else(gone)?;
            match method {
                "GET" => data(token_view(tok)),
                "PUT" => {
                    c.params.check(&fields)?;
                    if c.params.get("privsep").is_some() {
                        tok.privsep = c.params.flag("privsep");
                    }
                    if let Some(cm) = c.params.get("comment") {
                        tok.comment = Some(cm);
                    }
                    data(token_view(tok))
                }
                "DELETE" => {
                    u.tokens.remove(*id);
                    let full = format!("{user}!{id}");
                    w.pve.access.acl.retain(|a| a.who != full);
                    null()
                }
                _ => Err(c.unknown()),
            }
        }
        _ => Err(c.unknown()),
    }
}

fn roles(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
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
            c.params.check(&[t("roleid"), t("privs"), b("append")])?;
            w.pve.need(c.who()?, "/access", "Sys.Modify")?;
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
            if w.pve.access.roles.remove(*id).is_none() {
                return Err(ApiError::fail(format!("delete role failed: role '{id}' does not exist")));
            }
            w.pve.access.acl.retain(|a| a.role != *id);
            null()
        }
        _ => Err(c.unknown()),
    }
}

fn acl_list(w: &World, c: &Call) -> Reply {
    let who = c.who()?;
    let all = w.pve.has(who, "/access", "Sys.Audit") || w.pve.has(who, "/access", "Permissions.Modify");
    let rows = w.pve.access.acl.iter().filter(|a| all || w.pve.has(who, &a.path, "Permissions.Modify"));
    let row = |a: &Acl| json!({ "path": a.path, "type": a.kind, "ugid": a.who, "roleid": a.role, "propagate": i32::from(a.propagate) });
    data(rows.map(row).collect::<Vec<Value>>())
}

fn acl_put(w: &mut World, c: &Call) -> Reply {
    let p = &c.params;
    p.check(&[req(t("path")), req(t("roles")), t("users"), t("groups"), t("tokens"), b("propagate"), b("delete")])?;
    let path = p.text("path");
    w.pve.need(c.who()?, &path, "Permissions.Modify")?;
    let list = |k: &str| -> Vec<String> {
        p.text(k).split([',', ';', ' ']).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    };
    let mut whos: BTreeMap<String, &str> = BTreeMap::new();
    for (key, kind) in [("users", "user"), ("groups", "group"), ("tokens", "token")] {
        whos.extend(list(key).into_iter().map(|x| (x, kind)));
    }
    if whos.is_empty() {
        return Err(ApiError::param("users", "property is missing and it is not optional"));
    }
    for role in list("roles") {
        if w.pve.role(&role).is_none() {
            return Err(ApiError::fail(format!("ACL update failed: role '{role}' does not exist")));
        }
        for (id, kind) in &whos {
            let user = id.split('!').next().unwrap_or_default();
            if *kind != "group" && !w.pve.access.users.contains_key(user) {
                return Err(ApiError::fail(format!("ACL update failed: user '{user}' does not exist")));
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
