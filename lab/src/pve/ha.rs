//! High availability: resources, groups (8.x), rules (9.x), and the manager that follows them.
use serde_json::{Value, json};

use super::acl::Who;
use super::params::{b, cid, e, f, n, node, req, short, t};
use super::reply::{ApiError, Reply, data};
use super::router::{Call, subdirs};
use super::sections::Section;
use super::state::{Row, Vm};
use super::task::{self, Job};
use super::{PveEvent, qemu};
use crate::world::{Event, World};

/// How long the manager takes to act on a change.
const ROUND_MS: u64 = 10_000;
const STATES: &[&str] = &["started", "stopped", "enabled", "disabled", "ignored"];
const SYS: (&str, &str) = ("/", "Sys.Audit");
const CONSOLE: (&str, &str) = ("/", "Sys.Console");

const RESOURCES: Section = Section {
    table: "ha/resources",
    key: f("sid", sid_format),
    fields: &[
        short("comment", 4096),
        b("failback"),
        cid("group"),
        n("max_relocate"),
        n("max_restart"),
        e("state", STATES),
        e("type", &["ct", "vm"]),
    ],
    read: SYS,
    write: CONSOLE,
    exists: "create resource failed: resource ID '{}' already defined",
    missing: "no such resource '{}'",
    gone: "cannot delete service '{}', not HA managed!",
    fixed: &[],
};

const GROUPS: Section = Section {
    table: "ha/groups",
    key: cid("group"),
    fields: &[short("comment", 4096), req(t("nodes")), b("nofailback"), b("restricted"), e("type", &["group"])],
    read: SYS,
    write: CONSOLE,
    exists: "create ha group failed: ha group ID '{}' already defined",
    missing: "no such ha group '{}'",
    gone: "delete ha group failed: no such ha group '{}'",
    fixed: &[("type", "group")],
};

const RULES: Section = Section {
    table: "ha/rules",
    key: cid("rule"),
    fields: &[
        e("affinity", &["positive", "negative"]),
        short("comment", 4096),
        b("disable"),
        t("nodes"),
        req(t("resources")),
        b("strict"),
        req(e("type", &["node-affinity", "resource-affinity"])),
    ],
    read: SYS,
    write: CONSOLE,
    exists: "create ha rule failed: HA rule '{}' already defined",
    missing: "no such ha rule '{}'",
    gone: "",
    fixed: &[],
};

fn sid_format(v: &str) -> Result<(), String> {
    let (kind, id) = v.split_once(':').unwrap_or(("vm", v));
    let ok = matches!(kind, "vm" | "ct") && id.parse::<u32>().is_ok_and(|n| n >= 100);
    if ok { Ok(()) } else { Err(format!("invalid HA resource ID '{v}'\n")) }
}

/// `110` means `vm:110`.
fn full(sid: &str) -> String {
    if sid.contains(':') { sid.to_owned() } else { format!("vm:{sid}") }
}

fn vmid_of(sid: &str) -> Option<u32> {
    sid.strip_prefix("vm:")?.parse().ok()
}

/// Handles `/cluster/ha…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let old = w.pve.is_8();
    match (method, path) {
        ("GET", []) => data(subdirs("id", &["status", "resources", if old { "groups" } else { "rules" }])),
        ("GET", ["status"]) => data(subdirs("name", &["current", "manager_status"])),
        ("GET", ["status", "current"]) => {
            w.pve.need(c.who()?, SYS.0, SYS.1)?;
            data(status(w))
        }
        ("GET", ["status", "manager_status"]) => {
            w.pve.need(c.who()?, SYS.0, SYS.1)?;
            let master = w.pve.nodes.keys().next().cloned().unwrap_or_default();
            data(json!({
                "manager_status": { "master_node": master, "timestamp": w.now_ms / 1000, "node_status": {},
                    "service_status": {} },
                "quorum": { "node": master, "quorate": "1" },
                "lrm_status": {},
            }))
        }
        (_, ["resources", rest @ ..]) => resources(w, c, method, rest),
        (_, ["groups", rest @ ..]) => groups(w, c, method, rest),
        (_, ["rules", rest @ ..]) if !old => rules(w, c, method, rest),
        _ => Err(c.unknown()),
    }
}

fn known(w: &World, sid: &str) -> Result<(), ApiError> {
    let there = vmid_of(sid).is_some_and(|v| w.pve.vms.contains_key(&v));
    let id = sid.rsplit(':').next().unwrap_or_default();
    if there {
        Ok(())
    } else {
        Err(ApiError::fail(format!("unable to find service '{sid}' on cluster: no such VM {id}")))
    }
}

fn kinds(row: &mut Row, sid: &str) {
    row.insert("type".into(), json!(sid.split(':').next().unwrap_or("vm")));
    row.entry("state".into()).or_insert_with(|| json!("started"));
}

fn resources(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let wake = |w: &mut World| {
        w.unschedule(|e| matches!(e, Event::Pve(PveEvent::Ha)));
        w.schedule(ROUND_MS, Event::Pve(PveEvent::Ha));
    };
    match (method, path) {
        ("GET", []) => {
            w.pve.need(c.who()?, SYS.0, SYS.1)?;
            c.params.check(&[e("type", &["ct", "vm"])])?;
            let mut all = RESOURCES.list(w, c)?;
            let kind = c.params.get("type");
            if let Some(rows) = all.data.as_array_mut() {
                rows.retain(|r| kind.as_ref().is_none_or(|k| r["type"] == *k));
            }
            Ok(all)
        }
        ("POST", []) => {
            let mut call = c.clone();
            if let Some(s) = c.params.get("sid") {
                call.params.0.insert("sid".into(), json!(full(&s)));
            }
            let old = w.pve.is_8();
            let out = RESOURCES.create(w, &call, |w, sid, row| {
                known(w, sid)?;
                match row.get("group") {
                    Some(_) if !old => {
                        Err(ApiError::fail("invalid parameter 'group': ha groups have been migrated to rules"))
                    }
                    Some(g) if !w.pve.table(GROUPS.table).contains_key(g.as_str().unwrap_or_default()) => {
                        Err(ApiError::fail(format!("HA group '{}' does not exist", g.as_str().unwrap_or_default())))
                    }
                    _ => {
                        kinds(row, sid);
                        Ok(())
                    }
                }
            })?;
            wake(w);
            Ok(out)
        }
        ("GET", [sid]) => RESOURCES.get(w, c, &full(sid)),
        ("PUT", [sid]) => {
            let out = RESOURCES.update(w, c, &full(sid), |_, sid, row| {
                kinds(row, sid);
                Ok(())
            })?;
            wake(w);
            Ok(out)
        }
        ("DELETE", [sid]) => {
            w.pve.need(c.who()?, CONSOLE.0, CONSOLE.1)?;
            c.params.check(&[b("purge")])?;
            RESOURCES.remove(w, c, &full(sid))
        }
        ("POST", [sid, "migrate" | "relocate"]) => {
            w.pve.need(c.who()?, CONSOLE.0, CONSOLE.1)?;
            c.params.check(&[req(node("node"))])?;
            let sid = full(sid);
            let to = c.params.text("node");
            let vmid = vmid_of(&sid).filter(|_| w.pve.table(RESOURCES.table).contains_key(&sid));
            let vmid = vmid.ok_or_else(|| ApiError::fail(format!("resource '{sid}' is not managed by HA")))?;
            if !w.pve.nodes.contains_key(&to) {
                return Err(ApiError::fail(format!("cluster node '{to}' does not exist")));
            }
            let from = w.pve.vms.get(&vmid).map(|v| v.node.clone()).unwrap_or_default();
            if from != to {
                qemu::migrate::by_manager(w, vmid, &from, &to);
            }
            data(json!({ "sid": sid, "requested-node": to }))
        }
        _ => Err(c.unknown()),
    }
}

fn groups(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    if !w.pve.is_8() {
        let verb = match (method, path) {
            ("GET", []) => "index groups",
            ("GET", [_]) => "read group",
            ("POST", []) => "create group",
            ("PUT", [_]) => "update group",
            ("DELETE", [_]) => "delete group",
            _ => return Err(c.unknown()),
        };
        w.pve.need(c.who()?, "/", if method == "GET" { SYS.1 } else { CONSOLE.1 })?;
        let mut spec = if method == "POST" || method == "PUT" { GROUPS.fields.to_vec() } else { Vec::new() };
        if method == "POST" {
            spec.push(req(GROUPS.key));
        } else if method == "PUT" {
            spec.iter_mut().for_each(|f| f.required = false);
            spec.retain(|f| f.name != "type");
            spec.extend([super::params::digest(), super::params::delete()]);
        }
        c.params.check(&spec)?;
        return Err(ApiError::fail(format!("cannot {verb}: ha groups have been migrated to rules")));
    }
    match (method, path) {
        ("GET", []) => GROUPS.list(w, c),
        ("POST", []) => GROUPS.create(w, c, |w, _, row| members(w, row)),
        ("GET", [id]) => GROUPS.get(w, c, id),
        ("PUT", [id]) => GROUPS.update(w, c, id, |w, _, row| members(w, row)),
        ("DELETE", [id]) => {
            let mut users =
                w.pve.table(RESOURCES.table).iter().filter(|(_, r)| r.get("group").is_some_and(|g| g == id));
            if let Some((sid, _)) = users.next() {
                let text = format!("delete ha group failed: ha group is used by service '{sid}'");
                return Err(ApiError::fail(text));
            }
            GROUPS.remove(w, c, id)
        }
        _ => Err(c.unknown()),
    }
}

/// Every named node is one of the cluster's.
fn members(w: &World, row: &mut Row) -> Result<(), ApiError> {
    let list = row.get("nodes").and_then(Value::as_str).unwrap_or_default();
    let names = list.split([',', ' ']).filter(|p| !p.is_empty()).map(|p| p.split(':').next().unwrap_or_default());
    for name in names {
        if !w.pve.nodes.contains_key(name) {
            return Err(ApiError::fail(format!("cluster node '{name}' does not exist")));
        }
    }
    Ok(())
}

fn rules(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let check = |w: &World, _: &str, row: &mut Row| {
        members(w, row)?;
        let list = row.get("resources").and_then(Value::as_str).unwrap_or_default().to_owned();
        for sid in list.split([',', ' ']).filter(|s| !s.is_empty()) {
            if !w.pve.table(RESOURCES.table).contains_key(sid) {
                return Err(ApiError::param("resources", format!("cannot use unmanaged resource(s) {sid}.")));
            }
        }
        if row.get("disable").is_some_and(|d| d == 0) {
            row.remove("disable");
        }
        Ok(())
    };
    match (method, path) {
        ("GET", []) => {
            w.pve.need(c.who()?, SYS.0, SYS.1)?;
            c.params.check(&[t("resource"), e("type", &["node-affinity", "resource-affinity"])])?;
            let (kind, sid) = (c.params.get("type"), c.params.get("resource"));
            let mut all = RULES.list(w, c)?;
            if let Some(rows) = all.data.as_array_mut() {
                rows.retain(|r| {
                    let mut members = r["resources"].as_str().unwrap_or_default().split(',');
                    kind.as_ref().is_none_or(|k| r["type"] == *k)
                        && sid.as_ref().is_none_or(|s| members.any(|m| m == s))
                });
            }
            Ok(all)
        }
        ("POST", []) => RULES.create(w, c, check),
        ("GET", [id]) => RULES.get(w, c, id),
        ("PUT", [id]) => {
            w.pve.need(c.who()?, CONSOLE.0, CONSOLE.1)?;
            let mut spec = RULES.fields.to_vec();
            spec.iter_mut().for_each(|f| f.required = f.name == "type");
            spec.extend([super::params::digest(), super::params::delete()]);
            c.params.check(&spec)?;
            RULES.update(w, c, id, check)
        }
        ("DELETE", [id]) => RULES.remove(w, c, id),
        _ => Err(c.unknown()),
    }
}

fn status(w: &World) -> Value {
    let now = w.now_ms / 1000;
    let master = w.pve.nodes.keys().find(|n| !w.pve.offline.contains(*n)).cloned().unwrap_or_default();
    let mut rows = vec![json!({ "id": "quorum", "type": "quorum", "node": master, "status": "OK", "quorate": 1 })];
    let managed = w.pve.table(RESOURCES.table);
    if !managed.is_empty() {
        let text = format!("{master} (active)");
        rows.push(json!({ "id": "master", "type": "master", "node": master, "status": text, "timestamp": now }));
        for n in w.pve.nodes.keys().filter(|n| !w.pve.offline.contains(*n)) {
            let mine =
                managed.keys().filter_map(|s| vmid_of(s)).any(|v| w.pve.vms.get(&v).is_some_and(|v| v.node == *n));
            let text = format!("{n} ({})", if mine { "active" } else { "idle" });
            rows.push(json!({ "id": format!("lrm:{n}"), "type": "lrm", "node": n, "status": text, "timestamp": now }));
        }
    }
    for (sid, row) in managed {
        let vm = vmid_of(sid).and_then(|v| w.pve.vms.get(&v));
        let wanted = row.get("state").and_then(Value::as_str).unwrap_or("started");
        let state = if vm.is_some_and(|v| v.run.is_some()) { "started" } else { "stopped" };
        let node = vm.map(|v| v.node.clone()).unwrap_or_default();
        rows.push(json!({
            "id": format!("service:{sid}"), "type": "service", "sid": sid, "node": node, "state": state,
            "crm_state": state, "request_state": wanted, "status": format!("{sid} ({node}, {state})"),
            "max_restart": row.get("max_restart").cloned().unwrap_or(json!(1)),
            "max_relocate": row.get("max_relocate").cloned().unwrap_or(json!(1)),
        }));
    }
    Value::Array(rows)
}

/// Whether a VM is a resource of the manager.
#[must_use]
pub fn manages(w: &World, vmid: u32) -> bool {
    w.pve.table(RESOURCES.table).contains_key(&format!("vm:{vmid}"))
}

/// The requested state of a VM, if it is a resource.
#[must_use]
pub fn wanted(w: &World, vmid: u32) -> Option<String> {
    let row = w.pve.table(RESOURCES.table).get(&format!("vm:{vmid}"))?;
    row.get("state").and_then(Value::as_str).map(str::to_owned)
}

/// Makes a VM a resource, or changes the state asked for.
pub fn request(w: &mut World, vmid: u32, state: &str) {
    let sid = format!("vm:{vmid}");
    let mut row = w.pve.table(RESOURCES.table).get(&sid).cloned().unwrap_or_default();
    row.insert("state".into(), json!(state));
    kinds(&mut row, &sid);
    w.pve.put_row(RESOURCES.table, &sid, row);
    w.unschedule(|e| matches!(e, Event::Pve(PveEvent::Ha)));
    w.schedule(ROUND_MS / 2, Event::Pve(PveEvent::Ha));
}

/// A VM has gone: so has its resource, and it out of the rules.
pub fn forget(w: &mut World, vmid: u32) -> bool {
    let sid = format!("vm:{vmid}");
    let was = w.pve.drop_row(RESOURCES.table, &sid).is_some();
    let rules: Vec<(String, Row)> = w.pve.table(RULES.table).iter().map(|(k, r)| (k.clone(), r.clone())).collect();
    for (id, mut row) in rules {
        let list = row.get("resources").and_then(Value::as_str).unwrap_or_default().to_owned();
        let left: Vec<&str> = list.split(',').filter(|s| *s != sid).collect();
        if left.is_empty() {
            w.pve.drop_row(RULES.table, &id);
        } else if left.len() < list.split(',').count() {
            row.insert("resources".into(), json!(left.join(",")));
            w.pve.put_row(RULES.table, &id, row);
        }
    }
    was
}

/// A guest has halted: the manager will look.
pub fn halted(w: &mut World, vmid: u32) {
    if wanted(w, vmid).is_some_and(|s| s == "started" || s == "enabled") {
        w.schedule(ROUND_MS, Event::Pve(PveEvent::Ha));
    }
}

/// The manager's round: resources are started, stopped, and taken from nodes that are gone.
pub fn round(w: &mut World) {
    let who = Who { user: "root@pam".into(), token: None };
    let ids: Vec<u32> = w.pve.table(RESOURCES.table).keys().filter_map(|s| vmid_of(s)).collect();
    for vmid in ids {
        let Some(vm) = w.pve.vms.get(&vmid).cloned() else { continue };
        let busy = w.pve.active.iter().filter_map(|u| w.pve.tasks.get(u)).any(|t| t.id == vmid.to_string());
        if busy || vm.conf.contains_key("lock") {
            continue;
        }
        if w.pve.offline.contains(&vm.node) {
            recover(w, vmid, &vm);
            continue;
        }
        let id = vmid.to_string();
        match (wanted(w, vmid).as_deref(), vm.run.is_some()) {
            (Some("started" | "enabled"), false) => {
                task::start(w, &vm.node, "qmstart", &id, &who, Job::Start { vmid });
            }
            (Some("stopped" | "disabled"), true) => {
                let job = Job::Shutdown { vmid, timeout: 180, force: true };
                task::start(w, &vm.node, "qmshutdown", &id, &who, job);
            }
            _ => {}
        }
    }
}

/// A VM of a dead node starts elsewhere if all of its volumes are there too.
fn recover(w: &mut World, vmid: u32, vm: &Vm) {
    let alive = w.pve.nodes.keys().find(|n| !w.pve.offline.contains(*n)).cloned();
    if let Some(node) = alive.filter(|_| qemu::migrate::local_volumes(w, vm).is_empty()) {
        if let Some(v) = w.pve.vms.get_mut(&vmid) {
            v.node = node;
            v.run = None;
        }
        w.schedule(1000, Event::Pve(PveEvent::Ha));
    }
}
