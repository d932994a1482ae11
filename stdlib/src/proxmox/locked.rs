//! Locks in VM configs: who holds one, and locks that nobody will ever take away.
//!
//! A worker writes its lock (`clone`, `backup` …) into the config and takes it out when it ends. One that was killed
//! leaves it behind, and no later task touches the VM: waiting would never end. So a lock is waited for only while a
//! task runs that may hold it.
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::{Look, OpScope};

use super::request::{self, At};
use super::types::Proxmox;

/// Between two looks at a lock.
const EVERY: Duration = Duration::from_secs(3);
/// A lock such as `backup` is held for as long as its task runs.
const LONGEST: Duration = Duration::from_secs(3600);
/// Looks in a row that must find no task: a lock is there a moment before its task, and until after its end.
const SURE: u32 = 3;
/// Ended tasks that are looked through for the one that died.
const RECENT: usize = 50;
/// How a task ends whose worker was killed.
const KILLED: &str = "unexpected status";
/// Lines of a clone's log that may name the new VM.
const FIRST_LINES: u64 = 5;

/// Types of the tasks that hold a lock; `None` for one that is not known.
fn holders(lock: &str) -> Option<&'static [&'static str]> {
    Some(match lock {
        "clone" => &["qmclone"],
        "create" => &["qmcreate", "qmrestore"],
        "backup" => &["vzdump"],
        "migrate" => &["qmigrate"],
        "snapshot" => &["qmsnapshot"],
        "snapshot-delete" => &["qmdelsnapshot"],
        "rollback" => &["qmrollback"],
        "suspending" => &["qmsuspend", "qmpause"],
        "suspended" => &[],
        _ => return None,
    })
}

fn rows(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

/// Whether a text speaks of a VM id, and not of a longer number.
fn names(line: &str, vmid: u32) -> bool {
    line.split(|c: char| !c.is_ascii_digit()).any(|n| n.parse() == Ok(vmid))
}

/// How long one and the same lock has been without a task.
#[derive(Default)]
pub(super) struct Orphaned(AtomicU32);

impl Proxmox {
    /// What a locked config is waiting for; an error when nothing will ever take the lock away.
    ///
    /// # Errors
    /// `conflict` naming the task that died and how to take the lock away.
    pub(super) async fn lock_state(&self, ctx: &Ctx, at: &At, lock: &str, seen: &Orphaned) -> OpResult<String> {
        let pending = format!("locked ({lock})");
        let Some(kinds) = holders(lock) else { return Ok(pending) };
        if lock == "suspended" {
            return Err(OpError::conflict(format!("VM {} is suspended to disk", at.vmid))
                .hint("start it, which brings its memory back: `vm.start()`; then run this again"));
        }
        match self.holder_runs(ctx, at, kinds).await? {
            Some(false) => {}
            // It runs, or this token may not see the tasks of others.
            _ => {
                seen.0.store(0, Ordering::Relaxed);
                return Ok(pending);
            }
        }
        if seen.0.fetch_add(1, Ordering::Relaxed) + 1 < SURE {
            return Ok(format!("{pending}, and no task runs that holds it"));
        }
        Err(self.orphan(ctx, at, lock, kinds).await)
    }

    /// Whether a task runs on the VM's node that may hold its lock; `None` when that cannot be seen.
    async fn holder_runs(&self, ctx: &Ctx, at: &At, kinds: &[&str]) -> OpResult<Option<bool>> {
        let list = request::get(format!("/nodes/{}/tasks", at.node)).query("source", "active");
        let active = self.send(ctx, &list).await?;
        // The list of active tasks keeps those that ended a moment ago.
        let runs = rows(&active).filter(|t| t["endtime"].is_null()).any(|t| kinds.contains(&text(t, "type")));
        if runs {
            return Ok(Some(true));
        }
        let path = format!("/nodes/{}", at.node);
        let rights = self.send(ctx, &request::get("/access/permissions").query("path", &path)).await;
        Ok(rights.is_ok_and(|r| r[&path].get("Sys.Audit").is_some()).then_some(false))
    }

    /// The newest task that may have left the lock behind, as a cause.
    async fn dead_task(&self, ctx: &Ctx, at: &At, kinds: &[&str]) -> OpResult<Option<(String, bool)>> {
        let all = request::get(format!("/nodes/{}/tasks", at.node)).query("source", "all").query("limit", 500);
        let all = self.send(ctx, &all).await?;
        let ended = |t: &&Value| kinds.contains(&text(t, "type")) && text(t, "status") != "OK";
        for t in rows(&all).filter(ended).take(RECENT) {
            let upid = text(t, "upid");
            let id: Option<u32> = text(t, "id").parse().ok();
            // A clone's id is its source's, a backup of several VMs has none: their logs say whom they worked on.
            let mine = match text(t, "type") {
                "qmclone" | "vzdump" if id != Some(at.vmid) => {
                    let log = self.send(ctx, &request::task_log(&at.node, upid, 0, FIRST_LINES)).await?;
                    rows(&log).any(|l| names(text(l, "t"), at.vmid))
                }
                "qmclone" => false,
                _ => id == Some(at.vmid),
            };
            if mine {
                let status = text(t, "status");
                return Ok(Some((format!("its task {upid} is over: {status}"), status == KILLED)));
            }
        }
        Ok(None)
    }

    /// A VM that this token does not see may be what a worker left that was killed while it made one.
    ///
    /// # Errors
    /// `conflict` naming that task.
    pub(super) async fn not_half_made(&self, ctx: &Ctx, at: &At) -> OpResult<()> {
        let kinds = ["qmclone", "qmcreate"];
        match self.dead_task(ctx, at, &kinds).await? {
            Some((_, true)) => Err(self.orphan(ctx, at, "clone", &kinds).await),
            _ => Ok(()),
        }
    }

    async fn orphan(&self, ctx: &Ctx, at: &At, lock: &str, kinds: &[&str]) -> OpError {
        let (vmid, node) = (at.vmid, &at.node);
        let mut e = OpError::conflict(format!("VM {vmid} is locked ({lock}), and no task runs that holds the lock"));
        match self.dead_task(ctx, at, kinds).await {
            Ok(Some((task, _))) => e.causes.push(task),
            Ok(None) => {}
            Err(other) => e.causes.push(format!("the task list could not be read: {}", other.message)),
        }
        let then = match lock {
            "clone" | "create" => {
                format!("look at what is there, `qm destroy {vmid}` when it is only half a machine, and run this again")
            }
            _ => "and run this again".to_owned(),
        };
        e.hint(format!("as root on {node}: `qm unlock {vmid}`, {then}"))
    }

    /// Waits until no task holds the lock of the VM at `at`; `None` when there is no VM.
    ///
    /// # Errors
    /// As [`Proxmox::lock_state`]; `timeout` when a task holds it for too long.
    pub(super) async fn wait_unlocked(&self, s: &OpScope, what: &str, at: &At) -> OpResult<Option<()>> {
        let seen = Orphaned::default();
        s.wait_for(what, EVERY, LONGEST, || async {
            let Some(config) = self.config(s.ctx(), at).await? else { return Ok(Look::Ready(None)) };
            match config.get("lock").and_then(Value::as_str) {
                Some(l) => Ok(Look::Pending(self.lock_state(s.ctx(), at, l, &seen).await?)),
                None => Ok(Look::Ready(Some(()))),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_name_whole_ids() {
        assert!(names("creating a clone of VM 9000 with ID 120", 120));
        assert!(names("allocated target volume 'local-zfs:vm-120-disk-0'", 120));
        assert!(!names("creating a clone of VM 9000 with ID 1201", 120));
    }

    #[test]
    fn every_lock_of_proxmox_has_its_tasks() {
        for lock in ["backup", "clone", "create", "migrate", "rollback", "snapshot", "snapshot-delete", "suspending"] {
            assert!(holders(lock).is_some_and(|k| !k.is_empty()), "{lock}");
        }
        assert_eq!(holders("something new"), None);
    }
}
