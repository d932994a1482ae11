//! Aliases and address sets of the cluster's firewall and of machines'.
use serde_json::{Value, json};

use super::firewall::Scope;
use super::params::{Params, b, digest as digest_param, req, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use super::sections::{self, fill, unchanged};
use super::state::Row;
use crate::world::World;

/// The table of one kind (`aliases`, `ipset`) of a firewall.
fn table(scope: &str, kind: &str) -> String {
    if scope == "cluster" { format!("firewall/{kind}") } else { format!("firewall/{scope}/{kind}") }
}

fn named(key: &str, id: &str, row: &Row, digest: &str) -> Value {
    let mut v = json!({ key: id, "digest": digest });
    for (k, x) in row {
        v[k] = x.clone();
    }
    v
}

/// Every row of a table by its name.
fn listed(w: &World, table: &str, digest: &str) -> Vec<Value> {
    w.pve.table(table).iter().map(|(id, row)| named("name", id, row, digest)).collect()
}

/// Gives a row another name.
fn rename(w: &mut World, table: &str, from: &str, to: &str, taken: String) -> Result<(), ApiError> {
    if from != to && w.pve.table(table).contains_key(to) {
        return Err(ApiError::param("name", taken));
    }
    if let Some(row) = w.pve.drop_row(table, from) {
        w.pve.put_row(table, to, row);
    }
    Ok(())
}

/// Handles `…/firewall/aliases…`.
///
/// # Errors
/// The server's refusal.
pub(super) fn aliases(w: &mut World, c: &Call, method: &str, s: &Scope, path: &[&str]) -> Reply {
    let table = table(&s.name, "aliases");
    let digest = sections::digest(w.pve.table(&table));
    let missing = || ApiError::param("name", "no such alias");
    let fields = [t("comment"), t("cidr")];
    s.need(w, c, method)?;
    match (method, path) {
        ("GET", []) => data(listed(w, &table, &digest)),
        ("POST", []) => {
            c.params.check(&[req(t("name")), req(t("cidr")), t("comment")])?;
            let name = c.params.text("name").to_lowercase();
            if w.pve.table(&table).contains_key(&name) {
                return Err(ApiError::param("name", format!("alias '{name}' already exists")));
            }
            let mut row = Row::new();
            fill(&mut row, &c.params, &fields)?;
            w.pve.put_row(&table, &name, row);
            null()
        }
        ("GET", [name]) => {
            let name = name.to_lowercase();
            data(named("name", &name, w.pve.table(&table).get(&name).ok_or_else(missing)?, &digest))
        }
        ("PUT", [name]) => {
            c.params.check(&[req(t("cidr")), t("comment"), t("rename"), digest_param()])?;
            unchanged(&c.params, &digest)?;
            let name = name.to_lowercase();
            let mut row = w.pve.table(&table).get(&name).cloned().ok_or_else(missing)?;
            fill(&mut row, &c.params, &fields)?;
            w.pve.put_row(&table, &name, row);
            let to = c.params.get("rename").unwrap_or_else(|| name.clone()).to_lowercase();
            rename(w, &table, &name, &to, format!("alias '{to}' already exists"))?;
            null()
        }
        ("DELETE", [name]) => {
            c.params.check(&[digest_param()])?;
            unchanged(&c.params, &digest)?;
            w.pve.drop_row(&table, &name.to_lowercase());
            null()
        }
        _ => Err(c.unknown()),
    }
}

/// Handles `…/firewall/ipset…`.
///
/// # Errors
/// The server's refusal.
pub(super) fn ipsets(w: &mut World, c: &Call, method: &str, s: &Scope, path: &[&str]) -> Reply {
    let table = table(&s.name, "ipset");
    let digest = sections::digest(w.pve.table(&table));
    s.need(w, c, method)?;
    match (method, path) {
        ("GET", []) => data(listed(w, &table, &digest)),
        ("POST", []) => {
            c.params.check(&[req(t("name")), t("comment"), t("rename"), digest_param()])?;
            unchanged(&c.params, &digest)?;
            let (name, from) = (c.params.text("name"), c.params.get("rename"));
            let taken = format!("IPSet '{name}' already exists");
            if let Some(from) = &from {
                if !w.pve.table(&table).contains_key(from) {
                    return Err(ApiError::param("name", format!("IPSet '{from}' does not exist")));
                }
                rename(w, &table, from, &name, taken)?;
                let members = w.pve.tables.remove(&format!("{table}/{from}"));
                w.pve.tables.extend(members.map(|m| (format!("{table}/{name}"), m)));
            } else if w.pve.table(&table).contains_key(&name) {
                return Err(ApiError::param("name", taken));
            }
            let mut row = w.pve.table(&table).get(&name).cloned().unwrap_or_default();
            fill(&mut row, &c.params, &[t("comment")])?;
            w.pve.put_row(&table, &name, row);
            null()
        }
        ("DELETE", [name]) => {
            c.params.check(&[b("force")])?;
            let members = format!("{table}/{name}");
            if !w.pve.table(&members).is_empty() && !c.params.flag("force") {
                return Err(ApiError::fail(format!("IPSet '{name}' is not empty")));
            }
            w.pve.tables.remove(&members);
            w.pve.drop_row(&table, name);
            null()
        }
        (_, [name, rest @ ..]) => {
            if !w.pve.table(&table).contains_key(*name) {
                return Err(ApiError::fail(format!("no such IPSet '{name}'")));
            }
            members(w, &c.params, method, &format!("{table}/{name}"), &rest.join("/"))
                .unwrap_or_else(|| Err(c.unknown()))
        }
        _ => Err(c.unknown()),
    }
}

/// The members of an address set are rows of their own; an address may hold a slash.
fn members(w: &mut World, p: &Params, method: &str, table: &str, cidr: &str) -> Option<Reply> {
    let digest = sections::digest(w.pve.table(table));
    let fields = [t("comment"), b("nomatch")];
    let missing = || ApiError::param("cidr", "no such address");
    let work = |w: &mut World| match (method, cidr) {
        ("GET", "") => {
            let rows = w.pve.table(table).iter();
            data(rows.map(|(id, r)| named("cidr", id, r, &digest)).collect::<Vec<Value>>())
        }
        ("POST", _) => {
            p.check(&[req(t("cidr")), fields[0], fields[1]])?;
            let id = p.text("cidr");
            if w.pve.table(table).contains_key(&id) {
                return Err(ApiError::param("cidr", format!("address '{id}' already exists")));
            }
            let mut row = Row::new();
            fill(&mut row, p, &fields)?;
            w.pve.put_row(table, &id, row);
            null()
        }
        ("GET", _) => data(named("cidr", cidr, w.pve.table(table).get(cidr).ok_or_else(missing)?, &digest)),
        ("PUT", _) => {
            p.check(&[fields[0], fields[1], digest_param()])?;
            unchanged(p, &digest)?;
            let mut row = w.pve.table(table).get(cidr).cloned().ok_or_else(missing)?;
            fill(&mut row, p, &fields)?;
            w.pve.put_row(table, cidr, row);
            null()
        }
        _ => {
            p.check(&[digest_param()])?;
            unchanged(p, &digest)?;
            w.pve.drop_row(table, cidr);
            null()
        }
    };
    let fits = match method {
        "GET" => true,
        "POST" => cidr.is_empty(),
        "PUT" | "DELETE" => !cidr.is_empty(),
        _ => false,
    };
    fits.then(|| work(w))
}

/// What rules of a firewall may name: its own and the cluster's aliases and sets.
pub(super) fn refs(w: &World, scope: &str, kind: Option<&str>) -> Vec<Value> {
    let mut out = Vec::new();
    let scopes = if scope == "cluster" { vec![("cluster", "dc")] } else { vec![("cluster", "dc"), (scope, "guest")] };
    for (of, short) in scopes {
        for (what, kind_of) in [("aliases", "alias"), ("ipset", "ipset")] {
            if kind.is_some_and(|k| k != kind_of) {
                continue;
            }
            for (name, r) in w.pve.table(&table(of, what)) {
                let plus = if kind_of == "ipset" { "+" } else { "" };
                let mut v =
                    json!({ "type": kind_of, "name": name, "ref": format!("{plus}{short}/{name}"), "scope": short });
                if let Some(text) = r.get("comment") {
                    v["comment"] = text.clone();
                }
                out.push(v);
            }
        }
    }
    out
}

/// Takes the aliases and sets of a firewall away.
pub(super) fn forget(w: &mut World, scope: &str) {
    let below = format!("firewall/{scope}/");
    w.pve.tables.retain(|k, _| !k.starts_with(&below));
}
