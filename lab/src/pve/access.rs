//! Users, tokens, roles, ACLs, tickets: `/access…`.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::acl::Who;
use super::params::{b, req, short, t, with};
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::{auth, groups, roles, users};
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
        ("PUT", ["password"]) => password(w, c),
        (_, ["domains", rest @ ..]) => groups::domains(w, c, method, rest),
        (_, ["groups", rest @ ..]) => groups::route(w, c, method, rest),
        (_, ["users", rest @ ..]) => users::route(w, c, method, rest),
        (_, ["roles", rest @ ..]) => roles::route(w, c, method, rest),
        ("GET", ["acl"]) => roles::acl_list(w, c),
        ("PUT", ["acl"]) => roles::acl_put(w, c),
        ("GET", ["tfa" | "openid"]) => data(json!([])),
        _ => Err(c.unknown()),
    }
}

fn login(w: &mut World, c: &Call) -> Reply {
    let p = &c.params;
    p.check(&[
        req(short("username", 64)),
        req(t("password")),
        short("realm", 32),
        t("otp"),
        with(short("path", 64), "privs"),
        with(short("privs", 64), "path"),
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
    let cap = capabilities(w, &who);
    let mut v = json!({ "ticket": ticket, "CSRFPreventionToken": csrf, "username": user, "cap": cap });
    if w.pve.nodes.len() > 1 {
        v["clustername"] = json!(w.pve.name);
    }
    data(v)
}

/// What the web interface may show: privileges by area.
fn capabilities(w: &World, who: &Who) -> Map<String, Value> {
    let areas: [(&str, &[&str]); 7] = [
        ("vms", &["VM.", "Permissions.Modify"]),
        ("storage", &["Datastore.", "Permissions.Modify"]),
        ("nodes", &["Sys.", "Permissions.Modify"]),
        ("access", &["User.", "Group.", "Permissions.Modify"]),
        ("sdn", &["SDN.", "Permissions.Modify"]),
        ("mapping", &["Mapping.", "Permissions.Modify"]),
        ("dc", &["Sys.Audit", "Sys.Modify", "SDN."]),
    ];
    let mut cap: BTreeMap<&str, Map<String, Value>> = areas.iter().map(|(a, _)| (*a, Map::new())).collect();
    let top = ["/", "/nodes", "/access/groups", "/vms", "/storage", "/sdn", "/mapping"];
    let acl = w.pve.access.acl.iter().map(|a| a.path.as_str());
    let paths: BTreeSet<&str> = top.into_iter().chain(acl).collect();
    for path in paths {
        let first = path.split('/').nth(1).filter(|p| !p.is_empty()).unwrap_or("dc");
        for p in w.pve.permissions(who, path).into_keys() {
            let targets: Vec<&str> = match first {
                "pool" if p.starts_with("VM.") => vec!["vms"],
                "pool" if p.starts_with("Datastore.") => vec!["storage"],
                "pool" => continue,
                area => areas
                    .iter()
                    .filter(|(a, w)| *a == area && w.iter().any(|x| p.starts_with(x)))
                    .map(|(a, _)| *a)
                    .collect(),
            };
            for t in targets {
                cap.entry(t).or_default().insert(p.clone(), json!(1));
            }
        }
    }
    cap.into_iter().map(|(k, v)| (k.to_owned(), Value::Object(v))).collect()
}

/// `PUT password`.
fn password(w: &mut World, c: &Call) -> Reply {
    c.params.check(&[req(short("userid", 64)), req(short("password", 64)), t("confirmation-password")])?;
    let who = c.who()?.clone();
    let id = c.params.text("userid");
    if who.token.is_some() {
        return Err(ApiError::status(403, "Permission check failed (API tokens cannot change passwords)"));
    }
    if who.user != id {
        w.pve.need(&who, "/access/groups", "User.Modify")?;
    }
    users::password_rule(&c.params)?;
    let u = w.pve.access.users.get_mut(&id).ok_or_else(|| ApiError::fail(format!("no such user ('{id}')")))?;
    u.password = c.params.text("password");
    null()
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
            let mut all: BTreeSet<String> =
                ["/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"]
                    .map(str::to_owned)
                    .into();
            for a in &w.pve.access.acl {
                all.extend(super::acl::levels(&a.path));
            }
            all
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
