//! Pools: `/pools…`, with the id in the path (older) or as a parameter.
use serde_json::{Value, json};

use super::params::{b, e, f, poolid, req, t};
use super::qemu::status;
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use super::state::Pool;
use crate::world::World;

/// Handles `/pools…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let in_path = path.first().map(|p| (*p).to_owned());
    if path.len() > 1 {
        return Err(c.unknown());
    }
    let p = &c.params;
    let id_param = if in_path.is_some() || method == "GET" { f("poolid", poolid) } else { req(f("poolid", poolid)) };
    let id = in_path.clone().or_else(|| p.get("poolid"));
    match method {
        "GET" => {
            if let Some(id) = &in_path {
                w.pve.need(c.who()?, &format!("/pool/{id}"), "Pool.Audit")?;
            }
            p.check(&[id_param, e("type", &["qemu", "lxc", "storage"])])?;
            match (&in_path, id) {
                (Some(id), _) => data(detail(w, c, id)?),
                (None, Some(id)) => data(vec![detail(w, c, &id)?]),
                (None, None) => list(w, c),
            }
        }
        "POST" if in_path.is_none() => {
            let id = id.unwrap_or_default();
            w.pve.need(c.who()?, &format!("/pool/{id}"), "Pool.Allocate")?;
            p.check(&[id_param, t("comment")])?;
            if w.pve.pools.contains_key(&id) {
                return Err(ApiError::fail(format!("create pool failed: pool '{id}' already exists")));
            }
            let missing = id.rsplit_once('/').map(|(up, _)| up).filter(|up| !w.pve.pools.contains_key(*up));
            if let Some(up) = missing {
                let text = format!("create pool failed: parent '{up}' of pool '{id}' does not exist");
                return Err(ApiError::fail(text));
            }
            w.pve.pools.insert(id, Pool { comment: p.text("comment"), ..Pool::default() });
            null()
        }
        "PUT" => {
            let id = id.unwrap_or_default();
            w.pve.need(c.who()?, &format!("/pool/{id}"), "Pool.Allocate")?;
            p.check(&[id_param, t("comment"), t("vms"), t("storage"), b("delete"), b("allow-move")])?;
            update(w, c, &id)
        }
        "DELETE" => {
            let id = id.unwrap_or_default();
            w.pve.need(c.who()?, &format!("/pool/{id}"), "Pool.Allocate")?;
            p.check(&[id_param])?;
            let pool = w.pve.pools.get(&id);
            let pool = pool.ok_or_else(|| ApiError::fail(format!("delete pool failed: pool '{id}' does not exist")))?;
            // What a pool names and nobody has any more does not hold it.
            let below = format!("{id}/");
            let held = match (w.pve.pools.keys().find(|o| o.starts_with(&below)), pool.storages.first()) {
                (Some(pool), _) => Some(format!("pool '{pool}'")),
                (None, storage) => {
                    let vm = pool.vms.iter().find(|v| w.pve.vms.contains_key(v)).map(|v| format!("VM {v}"));
                    vm.or_else(|| storage.map(|s| format!("storage '{s}'")))
                }
            };
            if let Some(held) = held {
                let text = format!("delete pool failed: pool '{id}' is not empty (contains {held})");
                return Err(ApiError::fail(text));
            }
            w.pve.pools.remove(&id);
            w.pve.access.acl.retain(|a| a.path != format!("/pool/{id}"));
            null()
        }
        _ => Err(c.unknown()),
    }
}

fn list(w: &World, c: &Call) -> Reply {
    let who = c.who()?;
    let seen = w.pve.pools.iter().filter(|(id, _)| {
        let path = format!("/pool/{id}");
        w.pve.has(who, &path, "Pool.Audit") || w.pve.has(who, &path, "Pool.Allocate")
    });
    let row = |(id, p): (&String, &Pool)| {
        let mut v = json!({ "poolid": id });
        if !p.comment.is_empty() {
            v["comment"] = json!(p.comment);
        }
        v
    };
    data(seen.map(row).collect::<Vec<Value>>())
}

fn detail(w: &World, c: &Call, id: &str) -> Result<Value, ApiError> {
    w.pve.need(c.who()?, &format!("/pool/{id}"), "Pool.Audit")?;
    let p = w.pve.pools.get(id).ok_or_else(|| ApiError::fail(format!("pool '{id}' does not exist")))?;
    let mut members: Vec<Value> = Vec::new();
    for v in &p.vms {
        if let Some(vm) = w.pve.vms.get(v) {
            members.push(status::member(w, *v, vm));
        }
    }
    for s in &p.storages {
        for n in w.pve.nodes.keys() {
            members.push(json!({ "id": format!("storage/{n}/{s}"), "type": "storage", "storage": s, "node": n }));
        }
    }
    let mut v = json!({ "poolid": id, "members": members });
    if !p.comment.is_empty() {
        v["comment"] = json!(p.comment);
    }
    Ok(v)
}

fn update(w: &mut World, c: &Call, id: &str) -> Reply {
    let p = &c.params;
    let who = c.who()?;
    let fail = |t: String| ApiError::fail(format!("update pools failed: {t}"));
    let mut pool = w.pve.pools.get(id).cloned().ok_or_else(|| fail(format!("pool '{id}' does not exist")))?;
    if let Some(text) = p.get("comment") {
        pool.comment = text;
    }
    let list = |k: &str| -> Vec<String> {
        p.text(k).split([',', ';', ' ']).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    };
    let mut moved = Vec::new();
    for v in list("vms") {
        let vmid: u32 = v.parse().map_err(|_| {
            ApiError::param("vms", format!("invalid format - value '{v}' does not look like a valid VM ID\n"))
        })?;
        w.pve.need(who, &format!("/vms/{vmid}"), "VM.Allocate")?;
        if p.flag("delete") {
            if !pool.vms.remove(&vmid) {
                return Err(fail(format!("VM {vmid} is not a pool member")));
            }
            continue;
        }
        let owner = w.pve.pools.iter().find(|(_, p)| p.vms.contains(&vmid)).map(|(o, _)| o.clone());
        match owner {
            Some(o) if o == id => return Err(fail(format!("VM {vmid} is already a pool member"))),
            Some(o) if !p.flag("allow-move") => {
                return Err(fail(format!("VM {vmid} belongs already to pool '{o}' and 'allow-move' is not set")));
            }
            Some(o) => moved.push((o, vmid)),
            None => {}
        }
        pool.vms.insert(vmid);
    }
    for s in list("storage") {
        w.pve.need(who, &format!("/storage/{s}"), "Datastore.Allocate")?;
        if p.flag("delete") {
            pool.storages.remove(&s);
        } else {
            pool.storages.insert(s);
        }
    }
    for (o, v) in moved {
        if let Some(p) = w.pve.pools.get_mut(&o) {
            p.vms.remove(&v);
        }
    }
    w.pve.pools.insert(id.to_owned(), pool);
    null()
}
