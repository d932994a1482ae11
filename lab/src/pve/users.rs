//! Users and their API tokens: `/access/users…`.
use gpuhost_stdlib::wire::pve::props::Prop;
use serde_json::{Value, json};

use super::acl::Who;
use super::params::{Params, b, f, n, pat, req, short, t, with};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use super::state::{Token, User};
use crate::world::World;

const GROUPS: &str = "/access/groups";

fn user_format(v: &str) -> Result<(), String> {
    let ok = v.rsplit_once('@').is_some_and(|(u, r)| {
        !u.is_empty()
            && !u.contains([' ', ':', '/', '!'])
            && r.starts_with(|c: char| c.is_ascii_alphabetic())
            && r.len() > 1
    });
    if ok { Ok(()) } else { Err(format!("value '{v}' does not look like a valid user name\n")) }
}

fn otp_keys(v: &str) -> bool {
    v.bytes().all(|c| c.is_ascii_alphanumeric() || b"!=".contains(&c))
}

/// A password has at least eight characters.
///
/// # Errors
/// `400`.
pub fn password_rule(p: &Params) -> Result<(), ApiError> {
    match p.get("password") {
        Some(pw) if pw.chars().count() < 8 => {
            Err(ApiError::param("password", "value must be at least 8 characters long"))
        }
        _ => Ok(()),
    }
}

fn missing(id: &str) -> ApiError {
    ApiError::fail(format!("no such user ('{id}')"))
}

/// Handles `/access/users…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let who = c.who()?.clone();
    let own = path.first().is_some_and(|u| *u == who.user);
    let modify = |w: &World| w.pve.need(&who, GROUPS, "User.Modify");
    match (method, path) {
        ("GET", []) => list(w, c, &who),
        ("POST", []) => {
            modify(w)?;
            let mut spec = fields();
            spec.extend([req(Prop { max_len: Some(64), ..f("userid", user_format) }), short("password", 64)]);
            c.params.check(&spec)?;
            password_rule(&c.params)?;
            let id = c.params.text("userid");
            if w.pve.access.users.contains_key(&id) {
                return Err(ApiError::fail(format!("create user failed: user '{id}' already exists")));
            }
            let mut u = User { enable: true, ..User::default() };
            fill(w, &id, &mut u, c, "create user failed: ")?;
            w.pve.access.users.insert(id, u);
            null()
        }
        (_, [id, "token", rest @ ..]) => {
            if !own {
                modify(w)?;
            }
            tokens(w, c, method, id, rest)
        }
        ("GET", [id, "tfa"]) => {
            c.params.check(&[b("multiple")])?;
            if !own {
                w.pve.need(&who, GROUPS, "User.Modify|Sys.Audit")?;
            }
            w.pve.access.users.get(*id).ok_or_else(|| missing(id))?;
            data(json!({}))
        }
        ("PUT", [id, "unlock-tfa"]) => {
            modify(w)?;
            c.params.check(&[])?;
            w.pve.access.users.get(*id).ok_or_else(|| missing(id))?;
            // Nobody is ever locked out here.
            data(json!(0))
        }
        ("GET", [id]) => {
            if !own {
                w.pve.need(&who, GROUPS, "User.Modify|Sys.Audit")?;
            }
            let u = w.pve.access.users.get(*id).ok_or_else(|| missing(id))?;
            let mut v = view(id, u);
            if let Some(o) = v.as_object_mut() {
                o.shift_remove("userid");
                o.shift_remove("realm-type");
            }
            v["groups"] = json!(w.pve.access.groups_of(id));
            v["tokens"] =
                u.tokens.iter().map(|(k, t)| (k.clone(), token_view(t))).collect::<serde_json::Map<_, _>>().into();
            data(v)
        }
        ("PUT", [id]) => {
            modify(w)?;
            let mut spec = fields();
            spec.push(with(b("append"), "groups"));
            c.params.check(&spec)?;
            let mut u = w.pve.access.users.get(*id).cloned();
            let u = u.as_mut().ok_or_else(|| missing(id))?;
            fill(w, id, u, c, "update user failed: ")?;
            w.pve.access.users.insert((*id).to_owned(), u.clone());
            null()
        }
        ("DELETE", [id]) => {
            modify(w)?;
            c.params.check(&[])?;
            if *id == "root@pam" {
                return Err(ApiError::fail("delete user failed: user 'root@pam' is required"));
            }
            w.pve.access.users.remove(*id).ok_or_else(|| missing(id))?;
            for members in w.pve.access.groups.values_mut() {
                members.remove(*id);
            }
            w.pve.access.acl.retain(|a| a.who != *id && !a.who.starts_with(&format!("{id}!")));
            null()
        }
        _ => Err(c.unknown()),
    }
}

fn list(w: &World, c: &Call, who: &Who) -> Reply {
    c.params.check(&[b("enabled"), b("full")])?;
    let all = w.pve.has(who, GROUPS, "User.Modify") || w.pve.has(who, GROUPS, "Sys.Audit");
    let enabled = c.params.get("enabled").map(|v| v == "1");
    let users = w.pve.access.users.iter().filter(|(id, _)| all || **id == who.user);
    let rows = users.filter(|(_, u)| enabled.is_none_or(|e| e == u.enable)).map(|(id, u)| {
        let mut v = view(id, u);
        if c.params.flag("full") {
            v["groups"] = json!(w.pve.access.groups_of(id).join(","));
            let row = |(k, t): (&String, &Token)| {
                let mut v = token_view(t);
                v["tokenid"] = json!(k);
                v
            };
            v["tokens"] = u.tokens.iter().map(row).collect::<Vec<Value>>().into();
        }
        v
    });
    data(rows.collect::<Vec<Value>>())
}

fn fields() -> Vec<Prop> {
    vec![
        short("comment", 2048),
        short("email", 254),
        short("firstname", 1024),
        short("lastname", 1024),
        t("groups"),
        pat("keys", otp_keys),
        n("expire"),
        b("enable"),
    ]
}

fn fill(w: &mut World, id: &str, u: &mut User, c: &Call, verb: &str) -> Result<(), ApiError> {
    let groups = c.params.split("groups");
    if let Some(g) = groups.iter().find(|g| !w.pve.access.groups.contains_key(*g)) {
        return Err(ApiError::fail(format!("{verb}no such group '{g}'")));
    }
    if c.params.get("groups").is_some() {
        for (g, members) in &mut w.pve.access.groups {
            if groups.contains(g) {
                members.insert(id.to_owned());
            } else if !c.params.flag("append") {
                members.remove(id);
            }
        }
    }
    if let Some(p) = c.params.get("password") {
        u.password = p;
    }
    if c.params.get("enable").is_some() {
        u.enable = c.params.flag("enable");
    }
    for k in ["comment", "email", "firstname", "lastname", "expire", "keys"] {
        if let Some(v) = c.params.get(k) {
            u.extra.insert(k.into(), v);
        }
    }
    u.extra.retain(|_, v| !v.is_empty());
    Ok(())
}

fn view(id: &str, u: &User) -> Value {
    let mut v = json!({ "userid": id, "enable": i32::from(u.enable), "expire": 0 });
    v["realm-type"] = json!(id.rsplit('@').next().unwrap_or("pve"));
    for (k, x) in &u.extra {
        v[k] = match x.parse::<i64>() {
            Ok(n) if k == "expire" => json!(n),
            _ => json!(x),
        };
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

fn token_id(v: &str) -> bool {
    let c = v.as_bytes();
    c.len() > 1 && c[0].is_ascii_alphabetic() && c.iter().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(c))
}

fn tokens(w: &mut World, c: &Call, method: &str, user: &str, path: &[&str]) -> Reply {
    let secret = w.uuid();
    let old = w.pve.is_8();
    let p = &c.params;
    let mut spec = Vec::new();
    if matches!((method, path), ("POST" | "PUT", [_])) {
        spec.extend([b("privsep"), n("expire"), t("comment")]);
        if method == "PUT" && !old {
            spec.extend([t("delete"), b("regenerate")]);
        }
    }
    p.check(&spec)?;
    let u = w.pve.access.users.get_mut(user).ok_or_else(|| missing(user))?;
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
            if !token_id(id) {
                return Err(ApiError::param("tokenid", "value does not match the regex pattern"));
            }
            if u.tokens.contains_key(*id) {
                return Err(ApiError::param("tokenid", "Token already exists."));
            }
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
            if let Some(x) = p.get("expire") {
                info["expire"] = json!(x);
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
                    if p.get("privsep").is_some() {
                        tok.privsep = p.flag("privsep");
                    }
                    if let Some(x) = p.int("expire") {
                        tok.expire = x.unsigned_abs();
                    }
                    if let Some(cm) = p.get("comment") {
                        tok.comment = Some(cm);
                    }
                    for k in p.split("delete") {
                        match k.as_str() {
                            "comment" => tok.comment = None,
                            "expire" => tok.expire = 0,
                            k => return Err(ApiError::param("delete", format!("unknown option '{k}'"))),
                        }
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
