//! Scheduled etcd snapshots: every server saves its own by the schedule in its configuration and keeps so many of
//! them. They are made up when time has passed their moment, before anything else happens then: what they hold is what
//! was there at their moment, and a lab that nobody looks at stays still. Grade: source (K3s' etcd package).
use gpuhost_stdlib::wire::cron;
use serde_json::Value;

use super::super::state::{Process, Role, UnitState};
use super::super::text::{s, sha256};
use super::{config, join, snapshot};
use crate::Lab;
use crate::world::World;

/// K3s' own schedule and how many it keeps.
const CRON: &str = "0 */12 * * *";
const KEEP: usize = 5;
/// How many of a server's snapshots are made up at most when a long time has passed, however many it keeps.
const MADE_UP: usize = 100;
/// Servers do not all save in the same moment.
const JITTER_MS: u64 = 5000;

fn cron_of(config: &Value) -> &str {
    match s(config, "/etcd-snapshot-schedule-cron") {
        "" => CRON,
        own => own,
    }
}

/// How many snapshots a server keeps: all of them with a retention below 1.
fn keep_of(config: &Value) -> usize {
    let given = &config["etcd-snapshot-retention"];
    let n: Option<i64> = given.as_i64().or_else(|| given.as_str()?.parse().ok());
    n.map_or(KEEP, |n| if n < 1 { usize::MAX } else { usize::try_from(n).unwrap_or(usize::MAX) })
}

/// When a server's next snapshot is due after `from_ms`: its minute, and the moment it lets pass.
fn next(p: &Process, from_ms: u64) -> u64 {
    let jitter = u64::from_str_radix(&sha256(&p.node)[..4], 16).unwrap_or(0) % JITTER_MS;
    let off = config::on(&p.start.config, "etcd-disable-snapshots");
    let minute = cron::next(cron_of(&p.start.config), from_ms).filter(|_| !off && p.start.role == Role::Server);
    minute.map_or(0, |m| m + jitter)
}

/// When a server saves next; 0 without etcd.
fn due(w: &World, p: &Process) -> u64 {
    let etcd = p.cluster.as_ref().and_then(|id| w.clusters.get(id)).is_some_and(|c| c.etcd);
    if etcd { next(p, w.now_ms) } else { 0 }
}

/// A server with etcd has come up: its schedule begins.
pub fn started(w: &mut World, vmid: u32) {
    let due = w.k3s.get(&vmid).map_or(0, |p| due(w, p));
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.snapshot_ms = due;
    }
    arm(w);
}

/// A saved world that knows no schedules: those of the servers that run begin now.
fn begin(w: &mut World) {
    let running = w.k3s.iter().filter(|(_, p)| p.unit == Some(UnitState::Active) && p.snapshot_ms == 0);
    let fresh: Vec<(u32, u64)> = running.map(|(vmid, p)| (*vmid, due(w, p))).collect();
    for (vmid, due) in fresh {
        if let Some(p) = w.k3s.get_mut(&vmid) {
            p.snapshot_ms = due;
        }
    }
}

/// Notes when the first of all schedules is due.
fn arm(w: &mut World) {
    w.snapshots_ms = w.k3s.values().map(|p| p.snapshot_ms).filter(|t| *t > 0).min().unwrap_or(u64::MAX);
}

/// Makes up what fell due since somebody last touched the world.
pub fn catch_up(lab: &Lab, w: &mut World) {
    if w.snapshots_ms == 0 {
        begin(w);
    }
    let now = w.now_ms;
    let mut due: Vec<(u64, u32)> = Vec::new();
    for (vmid, p) in &mut w.k3s {
        let mut times = Vec::new();
        while p.snapshot_ms > 0 && p.snapshot_ms <= now {
            times.push((p.snapshot_ms, *vmid));
            p.snapshot_ms = next(p, p.snapshot_ms);
        }
        // a stopped K3s saves nothing, and of a long time only the last ones would be left
        let last = times.len().saturating_sub(keep_of(&p.start.config).min(MADE_UP));
        due.extend(times.drain(last..).filter(|_| p.unit.is_some()));
    }
    due.sort_unstable();
    let mut held: Option<(String, Vec<u8>)> = None;
    for (at, vmid) in due {
        let Some(p) = w.k3s.get(&vmid).cloned() else { continue };
        let Some(id) = p.cluster.clone().filter(|id| join::has_quorum(w, id)) else { continue };
        // nothing but the snapshots themselves has changed since the first of them
        if held.as_ref().is_none_or(|(of, _)| *of != id) {
            held = w.clusters.get(&id).and_then(|c| snapshot::pack(c).ok()).map(|bytes| (id.clone(), bytes));
        }
        let Some((_, bytes)) = &held else { continue };
        w.now_ms = at;
        let base = match s(&p.start.config, "/etcd-snapshot-name") {
            "" => "etcd-snapshot",
            own => own,
        };
        let name = format!("{base}-{}-{}", p.node, at / 1000);
        snapshot::write(lab, w, vmid, &id, &name, bytes);
        snapshot::prune(lab, w, vmid, base, keep_of(&p.start.config));
    }
    w.now_ms = now;
    arm(w);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_retention_below_one_keeps_everything() {
        let keep = |given: Value| keep_of(&json!({"etcd-snapshot-retention": given}));
        assert_eq!((keep(Value::Null), keep(json!(3)), keep(json!("7"))), (KEEP, 3, 7));
        assert_eq!((keep(json!(0)), keep(json!("-1"))), (usize::MAX, usize::MAX));
    }
}
