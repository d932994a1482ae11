//! Cluster-wide lists and options: `/cluster…`.
use serde_json::{Value, json};

use super::params::{e, opt, vmid};
use super::qemu::status;
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::space;
use crate::world::World;

/// Handles `/cluster…` except mappings.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let who = c.who()?;
    match (method, path) {
        ("GET", []) => data(subdirs("name", &["resources", "status", "nextid", "tasks", "options", "mapping"])),
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
            data(seen.map(|(u, t)| super::tasks::summary(u, t)).collect::<Vec<Value>>())
        }
        ("GET", ["options"]) => {
            let own = w.pve.options.iter().map(|(k, v)| (k.clone(), v.clone()));
            let mut v = Value::Object(own.collect());
            v["mac_prefix"] = json!("BC:24:11");
            data(v)
        }
        ("PUT", ["options"]) => {
            w.pve.need(who, "/", "Sys.Modify")?;
            for (k, v) in &c.params.0 {
                w.pve.options.insert(k.clone(), v.clone());
            }
            null()
        }
        ("GET", ["ha", "resources" | "groups" | "rules"]) | ("GET", ["backup" | "replication"]) => data(json!([])),
        ("GET", ["ha", "status", "current"]) => {
            let node = w.pve.nodes.keys().next().cloned().unwrap_or_default();
            data(json!([{ "id": "quorum", "type": "quorum", "node": node, "status": "OK", "quorate": 1 }]))
        }
        ("GET", ["firewall", "options"]) => data(json!({ "digest": "da39a3ee5e6b4b0d3255bfef95601890afd80709" })),
        ("GET", ["sdn", "zones" | "vnets"]) => data(json!([])),
        _ => Err(c.unknown()),
    }
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
    let free = (100..1_000_000u32).find(|n| !w.pve.vms.contains_key(n));
    let free = free.ok_or_else(|| ApiError::fail("unable to get any free VMID in range [100, 1000000]"))?;
    data(free.to_string())
}

fn cluster_status(w: &World) -> Value {
    let mut rows = Vec::new();
    if w.pve.nodes.len() > 1 {
        rows.push(json!({
            "type": "cluster", "id": "cluster", "name": w.pve.name, "nodes": w.pve.nodes.len(), "quorate": 1,
            "version": w.pve.nodes.len(),
        }));
    }
    let host = w.pve.api_addr.split(':').next().unwrap_or_default();
    for (i, n) in w.pve.nodes.keys().enumerate() {
        rows.push(json!({
            "type": "node", "id": format!("node/{n}"), "name": n, "nodeid": i + 1, "online": 1, "level": "",
            "local": i32::from(i == 0), "ip": host,
        }));
    }
    Value::Array(rows)
}

const KINDS: &[&str] = &["vm", "storage", "node", "sdn"];

fn resources(w: &World, c: &Call) -> Reply {
    use gpuhost_stdlib::wire::pve::props::Ty;
    c.params.check(&[e("type", KINDS), opt("verbose", Ty::Bool)])?;
    let who = c.who()?;
    let wanted = c.params.get("type");
    let want = |k: &str| wanted.as_deref().is_none_or(|t| t == k);
    let mut rows = Vec::new();
    if want("vm") {
        let seen = w.pve.vms.iter().filter(|(id, _)| w.pve.has(who, &format!("/vms/{id}"), "VM.Audit"));
        rows.extend(seen.map(|(id, vm)| status::resource(w, *id, vm)));
    }
    if want("node") {
        for n in w.pve.nodes.keys() {
            let mut v = json!({ "id": format!("node/{n}"), "type": "node", "node": n, "status": "online" });
            if w.pve.has(who, &format!("/nodes/{n}"), "Sys.Audit") {
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
                if !w.pve.has(who, &format!("/storage/{id}"), "Datastore.Audit") {
                    continue;
                }
                let (total, used) = space::usage(w, id, n);
                rows.push(json!({
                    "id": format!("storage/{n}/{id}"), "type": "storage", "storage": id, "node": n,
                    "plugintype": s.kind, "content": s.content, "shared": i32::from(s.shared),
                    "status": "available", "maxdisk": total, "disk": used,
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
