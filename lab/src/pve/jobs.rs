//! Backup jobs: `/cluster/backup…`.
use serde_json::{Value, json};

use super::backup;
use super::params::{Params, b, cid, pat, short, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::Call;
use super::sections::{self, fill, unchanged};
use super::state::Row;
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::Prop;

const TABLE: &str = "backup";

fn fields(old: bool) -> Vec<Prop> {
    let mut all = backup::COMMON.to_vec();
    all.extend([
        short("comment", 512),
        t("dow"),
        b("enabled"),
        t("node"),
        b("repeat-missed"),
        short("schedule", 128),
        pat("starttime", clock),
    ]);
    if old {
        all.extend_from_slice(backup::ONLY_8);
    }
    all
}

fn clock(v: &str) -> bool {
    let digits = |t: &str| (1..=2).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    v.split_once(':').is_some_and(|(h, m)| digits(h) && digits(m))
}

/// Handles `/cluster/backup…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let who = c.who()?.clone();
    let fields = fields(w.pve.is_8());
    let none = |id: &str| ApiError::param("id", format!("No such job '{id}'"));
    let may = |w: &World, p: &str| w.pve.need(&who, "/", p);
    match (method, path) {
        ("GET", []) => {
            may(w, "Sys.Audit")?;
            data(w.pve.table(TABLE).iter().map(|(id, r)| view(w, id, r)).collect::<Vec<Value>>())
        }
        ("POST", []) => {
            let mut spec = fields.clone();
            spec.push(cid("id"));
            may(w, "Sys.Modify")?;
            c.params.check(&spec)?;
            let mut row = Row::from([("type".into(), json!("vzdump")), ("enabled".into(), json!(1))]);
            fill(&mut row, &c.params, &fields)?;
            schedule(&mut row, &c.params, true)?;
            whom(&row)?;
            let id = c.params.get("id").unwrap_or_else(|| format!("backup-{}", &w.uuid()[..13]));
            if w.pve.table(TABLE).contains_key(&id) {
                return Err(ApiError::fail(format!("Job '{id}' already exists")));
            }
            w.pve.put_row(TABLE, &id, row);
            null()
        }
        ("GET", [id]) => {
            may(w, "Sys.Audit")?;
            data(view(w, id, w.pve.table(TABLE).get(*id).ok_or_else(|| none(id))?))
        }
        ("GET", [id, "included_volumes"]) => {
            may(w, "Sys.Audit")?;
            let row = w.pve.table(TABLE).get(*id).ok_or_else(|| none(id))?;
            data(json!({ "children": included(w, row) }))
        }
        ("PUT", [id]) => {
            let mut spec = fields.clone();
            spec.extend([super::params::delete(), super::params::digest()]);
            may(w, "Sys.Modify")?;
            c.params.check(&spec)?;
            if c.params.0.is_empty() {
                return Err(ApiError::fail("no options specified"));
            }
            let rows = w.pve.table(TABLE);
            unchanged(&c.params, &sections::digest(rows))?;
            let mut row = rows.get(*id).cloned().ok_or_else(|| ApiError::fail("no such vzdump job"))?;
            fill(&mut row, &c.params, &fields)?;
            schedule(&mut row, &c.params, false)?;
            for (new, old) in [("all", ["vmid", "pool"]), ("vmid", ["all", "pool"]), ("pool", ["all", "vmid"])] {
                if c.params.get(new).is_some() {
                    row.retain(|k, _| !old.contains(&k.as_str()));
                }
            }
            w.pve.put_row(TABLE, id, row);
            null()
        }
        ("DELETE", [id]) => {
            may(w, "Sys.Modify")?;
            w.pve.drop_row(TABLE, id).ok_or_else(|| none(id))?;
            null()
        }
        _ => Err(c.unknown()),
    }
}

/// `starttime` and `dow` are the older form of `schedule`.
fn schedule(row: &mut Row, p: &Params, new: bool) -> Result<(), ApiError> {
    if let Some(time) = p.get("starttime") {
        if p.get("schedule").is_some() {
            return Err(ApiError::param("starttime", "'starttime' and 'schedule' cannot both be set"));
        }
        let days = p.get("dow").map(|d| format!("{d} ")).unwrap_or_default();
        row.insert("schedule".into(), json!(format!("{days}{time}")));
    } else if new && p.get("schedule").is_none() {
        return Err(ApiError::param("schedule", "neither 'starttime' nor 'schedule' were set"));
    }
    row.remove("starttime");
    row.remove("dow");
    Ok(())
}

/// A job names its VMs in one of three ways.
fn whom(row: &Row) -> Result<(), ApiError> {
    let given = ["vmid", "pool"].iter().any(|k| row.contains_key(*k)) || row.get("all").is_some_and(|a| a == 1);
    if given { Ok(()) } else { Err(ApiError::param("vmid", "property is missing and it is not optional")) }
}

fn view(w: &World, id: &str, row: &Row) -> Value {
    let mut v = json!({ "id": id });
    for (k, x) in row {
        v[k] = x.clone();
    }
    if row.get("enabled").is_some_and(|e| e == 1) {
        let day = 86_400;
        v["next-run"] = json!((w.now_ms / 1000 / day + 1) * day);
    }
    v
}

fn included(w: &World, row: &Row) -> Vec<Value> {
    let text = |k: &str| row.get(k).and_then(Value::as_str).unwrap_or_default();
    let listed: Vec<&str> = text("vmid").split([',', ' ']).collect();
    let pool = w.pve.pools.get(text("pool"));
    let chosen = w.pve.vms.iter().filter(|(id, _)| {
        row.get("all").is_some_and(|a| a == 1)
            || listed.contains(&id.to_string().as_str())
            || pool.is_some_and(|p| p.vms.contains(id))
    });
    let volumes = |vm: &super::state::Vm| {
        let rows =
            super::qemu::conf::drives(&vm.conf).into_iter().filter(|(_, p)| super::qemu::conf::volume(p).is_some());
        let row = |(k, p): (String, _)| {
            let cdrom = super::qemu::conf::is_cdrom(&p);
            let out = cdrom || p.get("backup").is_some_and(|b| b == "0");
            json!({ "id": k, "name": p.get("file"), "included": i32::from(!out),
                "reason": if cdrom { "CD-ROM" } else if out { "exclusion" } else { "enabled" } })
        };
        rows.map(row).collect::<Vec<_>>()
    };
    let row = |(id, vm): (&u32, &super::state::Vm)| json!({ "id": id, "name": vm.conf.get("name"), "type": "qemu", "children": volumes(vm) });
    chosen.map(row).collect()
}

/// A VM has gone: no job names it any more.
pub fn forget(w: &mut World, vmid: u32) {
    let id = vmid.to_string();
    let rows: Vec<(String, Row)> = w.pve.table(TABLE).iter().map(|(k, r)| (k.clone(), r.clone())).collect();
    for (job, mut row) in rows {
        let Some(list) = row.get("vmid").and_then(Value::as_str).map(str::to_owned) else { continue };
        let left: Vec<&str> = list.split(',').filter(|v| *v != id).collect();
        if left.is_empty() {
            w.pve.drop_row(TABLE, &job);
        } else {
            row.insert("vmid".into(), json!(left.join(",")));
            w.pve.put_row(TABLE, &job, row);
        }
    }
}
