//! Task endpoints: status, log, list, abort.
use gpuhost_stdlib::wire::pve::upid::Upid;
use serde_json::{Map, Value, json};

use super::acl::Who;
use super::params::{b, e, n, opt, t};
use super::reply::{ApiError, Out, Reply, data, null};
use super::router::{Call, subdirs};
use super::state::Task;
use super::task;
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::Ty;

/// Handles `/nodes/{node}/tasks…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, node: &str, path: &[&str]) -> Reply {
    match (method, path) {
        ("GET", []) => list(w, c, node),
        ("GET", [upid]) => {
            find(w, c.who()?, upid)?;
            data(subdirs("name", &["log", "status"]))
        }
        ("GET", [upid, "status"]) => {
            let t = find(w, c.who()?, upid)?;
            let mut v = common(upid, t);
            v.insert("status".into(), json!(if t.running() { "running" } else { "stopped" }));
            if let Some(x) = &t.exit {
                v.insert("exitstatus".into(), json!(x));
            }
            data(Value::Object(v))
        }
        ("GET", [upid, "log"]) => log(w, c, upid),
        ("DELETE", [upid]) => {
            c.params.check(&[])?;
            let who = c.who()?;
            let t = find(w, who, upid)?;
            if t.user != who.user {
                w.pve.need(who, &format!("/nodes/{node}"), "Sys.Modify")?;
            }
            task::abort(w, upid);
            null()
        }
        _ => Err(c.unknown()),
    }
}

fn find<'a>(w: &'a World, who: &Who, upid: &str) -> Result<&'a Task, ApiError> {
    let parsed = Upid::parse(upid).ok_or_else(|| ApiError::param("upid", "unable to parse worker upid"))?;
    let t = w.pve.tasks.get(upid).ok_or_else(|| ApiError::param("upid", "no such task"))?;
    if t.user != who.user {
        w.pve.need(who, &format!("/nodes/{}", parsed.node), "Sys.Audit")?;
    }
    Ok(t)
}

fn common(upid: &str, t: &Task) -> Map<String, Value> {
    let mut v = Map::new();
    v.insert("upid".into(), json!(upid));
    if let Some(u) = Upid::parse(upid) {
        v.insert("pid".into(), json!(u.pid));
        v.insert("pstart".into(), json!(u.pstart));
    }
    v.insert("node".into(), json!(t.node));
    v.insert("starttime".into(), json!(t.start));
    v.insert("type".into(), json!(t.kind));
    v.insert("id".into(), json!(t.id));
    v.insert("user".into(), json!(t.user));
    if let Some(token) = &t.token {
        v.insert("tokenid".into(), json!(token));
    }
    v
}

/// A task as the lists show it.
#[must_use]
pub fn summary(upid: &str, t: &Task) -> Value {
    let mut v = common(upid, t);
    if let (Some(x), Some(end)) = (&t.exit, t.end) {
        v.insert("status".into(), json!(x));
        v.insert("endtime".into(), json!(end));
    }
    Value::Object(v)
}

fn log(w: &World, c: &Call, upid: &str) -> Reply {
    c.params.check(&[n("start"), n("limit"), b("download")])?;
    let t = find(w, c.who()?, upid)?;
    let start = usize::try_from(c.params.int("start").unwrap_or(0)).unwrap_or(0);
    let limit = match usize::try_from(c.params.int("limit").unwrap_or(50)).unwrap_or(50) {
        0 => usize::MAX,
        n => n,
    };
    if t.log.is_empty() {
        return Ok(Out { total: Some(1), ..json!([{ "n": 1, "t": "no content" }]).into() });
    }
    let lines = t.log.iter().enumerate().skip(start).take(limit);
    let rows: Vec<Value> = lines.map(|(i, l)| json!({ "n": i + 1, "t": l })).collect();
    Ok(Out { total: Some(t.log.len()), ..json!(rows).into() })
}

fn list(w: &World, c: &Call, node: &str) -> Reply {
    let p = &c.params;
    p.check(&[
        n("start"),
        n("limit"),
        t("userfilter"),
        t("typefilter"),
        opt("vmid", Ty::Int),
        b("errors"),
        e("source", &["archive", "active", "all"]),
        n("since"),
        n("until"),
        t("statusfilter"),
    ])?;
    let who = c.who()?;
    let all = w.pve.has(who, &format!("/nodes/{node}"), "Sys.Audit");
    let source = p.get("source").unwrap_or_else(|| "archive".into());
    let wanted = |t: &Task| {
        let visible = all || t.user == who.user;
        let fits = match source.as_str() {
            "active" => t.running(),
            "archive" => !t.running(),
            _ => true,
        };
        visible
            && fits
            && t.node == node
            && p.get("vmid").is_none_or(|v| t.id == v)
            && p.get("typefilter").is_none_or(|v| t.kind == v)
            && p.get("userfilter").is_none_or(|v| t.user.contains(&v))
            && (!p.flag("errors") || t.exit.as_deref().is_some_and(|x| x != "OK"))
            && p.int("since").is_none_or(|s| t.start >= s.unsigned_abs())
            && p.int("until").is_none_or(|s| t.start <= s.unsigned_abs())
            && p.get("statusfilter").is_none_or(|s| status_fits(t, &s))
    };
    let found: Vec<Value> = w
        .pve
        .task_order
        .iter()
        .rev()
        .filter_map(|u| w.pve.tasks.get(u).map(|t| (u, t)))
        .filter(|(_, t)| wanted(t))
        .map(|(u, t)| summary(u, t))
        .collect();
    let total = found.len();
    let start = usize::try_from(p.int("start").unwrap_or(0)).unwrap_or(0);
    let limit = usize::try_from(p.int("limit").unwrap_or(50)).unwrap_or(50);
    let rows: Vec<Value> = found.into_iter().skip(start).take(limit).collect();
    let total = (source != "active").then_some(total);
    Ok(Out { total, ..json!(rows).into() })
}

fn status_fits(t: &Task, wanted: &str) -> bool {
    let kind = match t.exit.as_deref() {
        Some("OK") => "ok",
        Some(x) if x.starts_with("WARNINGS") => "warning",
        Some(_) => "error",
        None => "unknown",
    };
    wanted.split([',', ';', ' ']).any(|s| s == kind)
}
