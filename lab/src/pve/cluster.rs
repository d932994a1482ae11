//! Cluster-wide lists and options: `/cluster…`.
use serde_json::{Value, json};

use super::params::{b, e, opt, pat, short, t, vmid};
use super::qemu::status;
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::space;
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::{Prop, Ty};

/// Handles `/cluster…` except mappings.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let who = c.who()?;
    match (method, path) {
        ("GET", []) => data(subdirs("name", INDEX)),
        ("GET", ["resources"]) => resources(w, c),
        ("GET", ["status"]) => {
            w.pve.need(who, "/", "Sys.Audit")?;
            data(cluster_status(w))
        }
        ("GET", ["nextid"]) => nextid(w, c),
        ("GET", ["tasks"]) => {
            let all = w.pve.has(who, "/", "Sys.Audit");
            let mine = w.pve.task_order.iter().rev().filter_map(|u| w.pve.tasks.get(u).map(|t| (u, t)));
            let seen = mine.filter(|(_, t)| all || t.user == who.user).take(25);
            data(seen.map(|(u, t)| recent(u, t)).collect::<Vec<Value>>())
        }
        ("GET", ["options"]) => {
            let own = w.pve.options.iter().map(|(k, v)| (k.clone(), v.clone()));
            let mut v = json!({ "mac_prefix": "BC:24:11" });
            for (k, x) in own {
                v[k] = x;
            }
            data(v)
        }
        ("PUT", ["options"]) => {
            w.pve.need(who, "/", "Sys.Modify")?;
            c.params.check(&[OPTIONS, &[t("delete")]].concat())?;
            let mut row: super::state::Row = w.pve.options.clone();
            super::sections::fill(&mut row, &c.params, OPTIONS)?;
            w.pve.options = row;
            null()
        }
        (_, ["ha", rest @ ..]) => super::ha::route(w, c, method, rest),
        (_, ["backup", rest @ ..]) => super::jobs::route(w, c, method, rest),
        (_, ["firewall", rest @ ..]) => super::firewall::cluster(w, c, method, rest),
        (_, ["sdn", rest @ ..]) => super::sdn::route(w, c, method, rest),
        ("GET", ["replication"]) => data(json!([])),
        ("GET", ["backup-info", "not-backed-up"]) => {
            w.pve.need(who, "/", "Sys.Audit")?;
            data(json!([]))
        }
        ("GET", ["log"]) => data(json!([])),
        (_, ["metrics", rest @ ..]) => super::metrics::route(w, c, method, rest),
        (_, ["notifications", rest @ ..]) => super::cluster_more::notifications(w, c, method, rest),
        (_, ["jobs", rest @ ..]) => super::cluster_more::jobs(w, c, method, rest),
        (_, ["bulk-action", rest @ ..]) if !w.pve.is_8() => super::cluster_more::bulk(w, c, method, rest),
        ("GET", ["backup-info"]) => data(subdirs("subdir", &["not-backed-up"])),
        ("GET", ["config"]) => data(subdirs("name", &["apiversion", "join", "nodes", "qdevice", "totem"])),
        ("GET", ["config", "apiversion"]) => {
            w.pve.need(who, "/", "Sys.Audit")?;
            data(1)
        }
        ("GET", ["config", "qdevice"]) => {
            w.pve.need(who, "/", "Sys.Audit")?;
            data(json!({}))
        }
        (_, ["ceph", ..]) => {
            w.pve.need(who, "/", "Sys.Audit|Datastore.Audit")?;
            Err(ApiError::fail("binary not installed: /usr/bin/ceph-mon"))
        }
        ("GET", ["acme", "account" | "plugins"]) => data(json!([])),
        ("GET", ["config", "nodes"]) => {
            w.pve.need(who, "/", "Sys.Audit")?;
            data(members(w))
        }
        ("GET", ["config", "totem"]) => {
            w.pve.need(who, "/", "Sys.Audit")?;
            data(if w.pve.nodes.len() > 1 {
                json!({ "cluster_name": w.pve.name, "version": "2", "secauth": "on" })
            } else {
                json!({})
            })
        }
        ("GET", ["config", "join"]) => {
            w.pve.need(who, "/", "Sys.Audit")?;
            if w.pve.nodes.len() < 2 {
                return Err(ApiError::fail("node is not in a cluster, no join info available!"));
            }
            let first = w.pve.nodes.keys().next().cloned().unwrap_or_default();
            data(
                json!({ "config_digest": super::sections::digest(&w.pve.name), "preferred_node": first, "nodelist": members(w),
                "totem": { "cluster_name": w.pve.name, "version": "2", "secauth": "on" } }),
            )
        }
        _ => Err(c.unknown()),
    }
}

const INDEX: &[&str] = &[
    "acme",
    "backup",
    "backup-info",
    "bulk-action",
    "config",
    "firewall",
    "ha",
    "jobs",
    "log",
    "mapping",
    "metrics",
    "nextid",
    "notifications",
    "options",
    "replication",
    "resources",
    "sdn",
    "status",
    "tasks",
];
const KEYBOARDS: &[&str] = &[
    "de", "de-ch", "da", "en-gb", "en-us", "es", "fi", "fr", "fr-be", "fr-ca", "fr-ch", "hu", "is", "it", "ja", "lt",
    "mk", "nl", "no", "pl", "pt", "pt-br", "sv", "sl", "tr",
];
const LANGUAGES: &[&str] = &[
    "ar", "ca", "da", "de", "en", "es", "eu", "fa", "fr", "hr", "he", "it", "ja", "ka", "kr", "nb", "nl", "nn", "pl",
    "pt_BR", "ru", "sl", "sv", "tr", "ukr", "zh_CN", "zh_TW",
];
/// Datacenter options.
const OPTIONS: &[Prop] = &[
    t("bwlimit"),
    short("consent-text", 65_536),
    e("console", &["applet", "vv", "html5", "xtermjs"]),
    t("crs"),
    short("description", 65_536),
    t("email_from"),
    e("fencing", &["watchdog", "hardware", "both"]),
    t("ha"),
    pat("http_proxy", |v| v.starts_with("http://") || v.starts_with("https://")),
    e("keyboard", KEYBOARDS),
    e("language", LANGUAGES),
    t("mac_prefix"),
    Prop { min: Some(1.0), ..opt("max_workers", Ty::Int) },
    t("migration"),
    b("migration_unsecure"),
    t("next-id"),
    t("notify"),
    t("registered-tags"),
    t("replication"),
    t("tag-style"),
    t("u2f"),
    t("user-tag-access"),
    t("webauthn"),
];

/// A task as the cluster's list shows it.
fn recent(upid: &str, t: &super::state::Task) -> Value {
    let mut v = super::tasks::summary(upid, t);
    if let Some(o) = v.as_object_mut() {
        o.shift_remove("pid");
        o.shift_remove("pstart");
        if !t.running() {
            o.insert("saved".into(), json!("1"));
        }
    }
    v
}

fn members(w: &World) -> Vec<Value> {
    let print = crate::tls::fingerprint(&w.pve.leaf.cert).unwrap_or_default();
    let row = |(i, n): (usize, &String)| {
        json!({ "node": n, "name": n, "nodeid": (i + 1).to_string(), "ring0_addr": w.pve.address(n), "pve_addr": w.pve.address(n),
            "quorum_votes": "1", "pve_fp": print })
    };
    w.pve.nodes.keys().enumerate().map(row).collect()
}

fn nextid(w: &World, c: &Call) -> Reply {
    c.params.check(&[vmid("vmid")])?;
    if let Some(id) = c.params.int("vmid") {
        let taken = u32::try_from(id).is_ok_and(|n| w.pve.vms.contains_key(&n));
        return if taken {
            Err(ApiError::param("vmid", format!("VM {id} already exists")))
        } else {
            data(id.to_string())
        };
    }
    let (lower, upper) = id_range(w);
    let free = (lower..upper).find(|n| !w.pve.vms.contains_key(n));
    let text = || format!("unable to get any free VMID in range [{lower}, {upper}]");
    data(free.ok_or_else(|| ApiError::fail(text()))?.to_string())
}

/// The datacenter's range of free ids, `next-id: lower=…,upper=…`.
fn id_range(w: &World) -> (u32, u32) {
    let text = w.pve.options.get("next-id").and_then(Value::as_str).unwrap_or_default();
    let part = |k: &str| text.split(',').find_map(|p| p.strip_prefix(k)?.parse::<u32>().ok());
    (part("lower=").unwrap_or(100).max(100), part("upper=").unwrap_or(1_000_000))
}

fn cluster_status(w: &World) -> Value {
    let mut rows = Vec::new();
    if w.pve.nodes.len() > 1 {
        rows.push(json!({
            "type": "cluster", "id": "cluster", "name": w.pve.name, "nodes": w.pve.nodes.len(), "quorate": 1,
            "version": w.pve.nodes.len(),
        }));
    }
    for (i, n) in w.pve.nodes.keys().enumerate() {
        rows.push(json!({
            "type": "node", "id": format!("node/{n}"), "name": n, "nodeid": i + 1, "online": i32::from(!w.pve.offline.contains(n)),
            "level": "", "local": i32::from(i == 0), "ip": w.pve.address(n),
        }));
    }
    Value::Array(rows)
}

const KINDS: &[&str] = &["vm", "storage", "node", "sdn"];

fn resources(w: &World, c: &Call) -> Reply {
    c.params.check(&[e("type", KINDS), opt("verbose", Ty::Bool)])?;
    let who = c.who()?;
    let wanted = c.params.get("type");
    let want = |k: &str| wanted.as_deref().is_none_or(|t| t == k);
    let mut rows = Vec::new();
    if want("vm") {
        let may = w.pve.on_vms(who, "VM.Audit");
        let pools = status::pools_of(w);
        let seen = w.pve.vms.iter().filter(|(id, _)| may.on(**id));
        rows.extend(seen.map(|(id, vm)| status::resource(w, *id, vm, pools.get(id).copied())));
    }
    if want("node") {
        for n in w.pve.nodes.keys() {
            let off = w.pve.offline.contains(n);
            let status = if off { "offline" } else { "online" };
            let mut v = json!({ "id": format!("node/{n}"), "type": "node", "node": n, "status": status });
            if !off && w.pve.has(who, &format!("/nodes/{n}"), "Sys.Audit") {
                for (k, x) in super::nodes::figures(w, n) {
                    v[k] = x;
                }
            }
            rows.push(v);
        }
    }
    if want("storage") {
        for n in w.pve.nodes.keys() {
            for (id, s) in &w.pve.storages {
                if !w.pve.has(who, &format!("/storage/{id}"), "Datastore.Audit") || !super::storage::on_node(w, id, n) {
                    continue;
                }
                let status = if w.pve.offline.contains(n) || s.disabled { "unknown" } else { "available" };
                let (total, used) = space::usage(w, id, n);
                rows.push(json!({
                    "id": format!("storage/{n}/{id}"), "type": "storage", "storage": id, "node": n,
                    "plugintype": s.kind, "content": s.content, "shared": i32::from(s.shared),
                    "status": status, "maxdisk": total, "disk": used,
                }));
            }
        }
    }
    if want("sdn") {
        for n in w.pve.nodes.keys() {
            rows.push(json!({
                "id": format!("sdn/{n}/localnetwork"), "type": "sdn", "sdn": "localnetwork", "node": n, "status": "ok",
            }));
        }
    }
    data(rows)
}
