//! Changes whose outcome may be unknown, and locks that are busy: look first, then repeat.
//!
//! Proxmox gives up on its own locks after seconds (nothing was done then), and its proxy gives up on an
//! answer after 30 (the work goes on). So a change is repeated only after a look at its task and at what
//! it was to change.
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::OpScope;
use crate::wire::pve::props;

use super::cloudinit::late;
use super::diff::same;
use super::error::Fault;
use super::inventory::is_on;
use super::request::{self, At, Request};
use super::task::TaskFailure;
use super::types::Proxmox;

const TRIES: u32 = 6;
const FIRST_WAIT: u64 = 3;
/// Clocks of hypervisor and operator may differ by this much when a lost task is looked for.
const SKEW_S: u64 = 120;

/// Type of the task that a request starts.
fn task_kind(r: &Request) -> Option<&'static str> {
    Some(match (r.method.as_str(), r.verb()) {
        ("DELETE", "") => "qmdestroy",
        ("POST", "") if r.path.ends_with("/qemu") => {
            let restores = r.body.as_ref().is_some_and(|b| b.contains_key("archive"));
            if restores { "qmrestore" } else { "qmcreate" }
        }
        ("POST", "config") => "qmconfig",
        ("POST", "clone") => "qmclone",
        ("POST", "template") => "qmtemplate",
        ("POST", "move_disk") => "qmmove",
        ("POST", "migrate") => "qmigrate",
        ("POST", "snapshot") => "qmsnapshot",
        ("PUT", "resize") => "resize",
        ("POST", "status/start") => "qmstart",
        ("POST", "status/stop") => "qmstop",
        ("POST", "status/shutdown") => "qmshutdown",
        ("POST", "status/reboot") => "qmreboot",
        ("POST", "status/reset") => "qmreset",
        ("POST", "status/suspend") => "qmpause",
        ("POST", "status/resume") => "qmresume",
        ("POST", v) if v.starts_with("snapshot/") && v.ends_with("/rollback") => "qmrollback",
        ("DELETE", v) if v.starts_with("snapshot/") => "qmdelsnapshot",
        _ if r.path.ends_with("/vzdump") => "vzdump",
        _ if r.path.ends_with("/download-url") => "download",
        ("DELETE", _) if r.path.contains("/content/") => "imgdel",
        _ => return None,
    })
}

/// What the task of a request works on, as task lists show it.
fn task_id(r: &Request) -> Option<String> {
    if let Some(at) = r.vm() {
        return Some(at.vmid.to_string());
    }
    let body = r.body.as_ref();
    let text = |k: &str| body.and_then(|b| b.get(k)).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    if r.path.contains("/content/") {
        return r.path.split('/').nth(4).map(str::to_owned);
    }
    text("vmid").or_else(|| text("filename"))
}

/// Whether a config (with pending changes applied) says what a config change asked for.
fn config_holds(config: &Map<String, Value>, body: &Map<String, Value>) -> bool {
    let text = |v: &Value| match v {
        Value::String(s) => s.clone(),
        Value::Bool(b) => i32::from(*b).to_string(),
        other => other.to_string(),
    };
    let gone = body.get("delete").and_then(Value::as_str).unwrap_or_default();
    let set = body.iter().filter(|(k, _)| !matches!(k.as_str(), "delete" | "digest" | "revert" | "background_delay"));
    let holds = |k: &str, want: &Value| {
        let Some(have) = config.get(k).map(&text) else { return false };
        let want = text(want);
        if !props::is_drive(k) {
            return k == "cipassword" || same(k, &want, &have);
        }
        // `store:32,…` asks for a new volume: it is there when everything else fits.
        let (want, have) = (props::read(k, &want), props::read(k, &have));
        want.iter()
            .filter(|(p, _)| !matches!(p.as_str(), "file" | "import-from" | "size"))
            .all(|(p, v)| have.get(p) == Some(v))
    };
    set.into_iter().all(|(k, v)| holds(k, v)) && gone.split(',').all(|k| !config.contains_key(k))
}

/// How one attempt ended when it did not succeed.
pub(super) struct Miss {
    pub fault: Fault,
    pub error: OpError,
}

impl Miss {
    /// What Proxmox said, for the line that shows why something waits.
    pub(super) fn why(&self) -> &str {
        self.error.causes.first().unwrap_or(&self.error.message)
    }
}

impl From<TaskFailure> for Miss {
    fn from(t: TaskFailure) -> Self {
        Miss { fault: t.fault, error: t.error }
    }
}

impl Proxmox {
    /// Sends a change and waits for its task, if it is one. What an earlier run began and still runs is waited for, not
    /// begun beside it; so is a lock that is busy; after an unknown outcome the state is read before anything is repeated.
    ///
    /// # Errors
    /// What Proxmox refused; what the task met, with its last words.
    pub(super) async fn change(&self, s: &OpScope, what: &str, r: &Request, limit: Duration) -> OpResult<()> {
        if self.still_under_way(s, what, r, limit).await? {
            return Ok(());
        }
        let mut wait = FIRST_WAIT;
        for left in (0..TRIES).rev() {
            let began = s.ctx().clock.last_ms();
            let Err(miss) = self.attempt(s, what, r, limit).await? else { return Ok(()) };
            match &miss.fault {
                Fault::LockTimeout | Fault::Locked(_) | Fault::Unreachable if left > 0 => {}
                // What is gone is gone: the removal of a run that was killed, of which no journal is left, came first.
                _ if r.method == "DELETE" && self.is_done(s.ctx(), r).await.is_ok_and(|d| d == Some(true)) => {
                    return Ok(());
                }
                _ => return Err(miss.error),
            }
            s.waiting(format!("{what}: {}", miss.why()));
            s.sleep(Duration::from_secs(wait)).await?;
            wait *= 2;
            match miss.fault {
                Fault::Locked(_) => {
                    if let Some(at) = r.vm() {
                        self.wait_unlocked(s, "the VM's lock", &at).await?;
                    }
                }
                Fault::Unreachable => match self.look_for(s, what, r, began, limit).await? {
                    Some(outcome) => return outcome.map_err(|m| m.error),
                    None if self.is_done(s.ctx(), r).await?.is_none() => return Err(unknown(what, miss.error)),
                    None => {}
                },
                _ => {}
            }
            if self.is_done(s.ctx(), r).await? == Some(true) {
                return Ok(());
            }
        }
        Err(OpError::failed(format!("{what} was tried {TRIES} times")))
    }

    /// Like [`Proxmox::change`], for what cannot be read off the machine afterwards: the task that an earlier run began and
    /// did not see the end of is this one.
    ///
    /// # Errors
    /// As [`Proxmox::change`].
    pub(super) async fn change_once(&self, s: &OpScope, what: &str, r: &Request, limit: Duration) -> OpResult<()> {
        if let Some(left) = s.left_open() {
            // Not one from before it was about to begin.
            let began = left.since_ms + SKEW_S * 1000;
            let outcome = match &left.accepted {
                // One that Proxmox has forgotten says nothing.
                Some(upid) => self.try_task(s, what, upid, limit).await.ok().map(|done| done.map_err(Miss::from)),
                None => self.look_for(s, what, r, began, limit).await?,
            };
            if let Some(Ok(())) = outcome {
                s.continues(&left, what);
                return Ok(());
            }
        }
        self.change(s, what, r, limit).await
    }

    /// One attempt: the request, then its task.
    pub(super) async fn attempt(
        &self,
        s: &OpScope,
        what: &str,
        r: &Request,
        limit: Duration,
    ) -> OpResult<Result<(), Miss>> {
        let answer = match self.send(s.ctx(), r).await {
            Ok(v) => v,
            Err(e) => return Ok(Err(Miss { fault: e.fault.clone(), error: e.into() })),
        };
        let Some(upid) = answer.as_str() else { return Ok(Ok(())) };
        self.claim(upid);
        s.accepted(upid)?;
        Ok(self.try_task(s, what, upid, limit).await?.map_err(Miss::from))
    }

    /// Notes that this run was told of a task.
    pub(super) fn claim(&self, upid: &str) {
        self.inner.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(upid.to_owned());
    }

    /// The task of a request that got no answer, once it has ended; `None` when there is none.
    pub(super) async fn look_for(
        &self,
        s: &OpScope,
        what: &str,
        r: &Request,
        began_ms: u64,
        limit: Duration,
    ) -> OpResult<Option<Result<(), Miss>>> {
        let Some(upid) = self.lost_task(s.ctx(), r, began_ms).await? else { return Ok(None) };
        s.waiting(format!("{what}: no answer came, but the task runs"));
        self.claim(&upid);
        s.accepted(&upid)?;
        Ok(Some(self.try_task(s, what, &upid, limit).await?.map_err(Miss::from)))
    }

    /// Tasks that fit the request and began no earlier than that, newest first.
    async fn fitting(&self, ctx: &Ctx, r: &Request, began_ms: u64) -> OpResult<Vec<Value>> {
        let (Some(kind), Some(node)) = (task_kind(r), r.path.split('/').nth(2)) else { return Ok(Vec::new()) };
        let id = task_id(r);
        let list = request::list_tasks(node, None).query("typefilter", kind);
        let mut rows = self.send_list(ctx, &list).await?;
        let since = (began_ms / 1000).saturating_sub(SKEW_S);
        rows.retain(|t| {
            t["starttime"].as_u64().is_some_and(|n| n >= since)
                && t["type"] == kind
                && id.as_deref().is_none_or(|i| t["id"] == i)
        });
        Ok(rows)
    }

    /// The newest task that fits the request and that this run was not told of.
    async fn lost_task(&self, ctx: &Ctx, r: &Request, began_ms: u64) -> OpResult<Option<String>> {
        let rows = self.fitting(ctx, r, began_ms).await?;
        let claimed = self.inner.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        let upids = rows.iter().filter_map(|t| t["upid"].as_str());
        Ok(upids.map(str::to_owned).find(|u| !claimed.contains(u)))
    }

    /// Waits for the task of the same request that an earlier run began and that still runs; whether that was the change.
    async fn still_under_way(&self, s: &OpScope, what: &str, r: &Request, limit: Duration) -> OpResult<bool> {
        let Some(left) = s.left_open() else { return Ok(false) };
        let rows = self.fitting(s.ctx(), r, left.since_ms).await?;
        // Whatever there is by now is not what this run is going to begin, should an answer get lost.
        rows.iter().filter_map(|t| t["upid"].as_str()).for_each(|u| self.claim(u));
        let Some(upid) = rows.iter().find(|t| !t["endtime"].is_number()).and_then(|t| t["upid"].as_str()) else {
            return Ok(false);
        };
        s.waiting(format!("{what}: the task of run {} still runs", left.run));
        s.accepted(upid)?;
        let ended = self.try_task(s, what, upid, limit).await?;
        let done = ended.is_ok() && self.is_done(s.ctx(), r).await? != Some(false);
        if done {
            s.continues(&left, what);
        }
        Ok(done)
    }

    /// Whether what the request asks for is the case; `None` when that cannot be seen.
    async fn is_done(&self, ctx: &Ctx, r: &Request) -> OpResult<Option<bool>> {
        let Some(at) = r.vm() else { return self.is_stored(ctx, r).await };
        let config =
            async |at: &At| -> OpResult<Map<String, Value>> { Ok(self.config(ctx, at).await?.unwrap_or_default()) };
        let running =
            async || -> OpResult<bool> { Ok(self.send(ctx, &request::status(&at)).await?["status"] == "running") };
        let none = Map::new();
        let body = r.body.as_ref().unwrap_or(&none);
        Ok(match (r.method.as_str(), r.verb()) {
            ("DELETE", "") => Some(self.is_free(ctx, at.vmid).await?),
            (_, "config") => Some(config_holds(&config(&at).await?, body)),
            ("PUT", "cloudinit") => Some(late(&self.send(ctx, &request::cloud_init(&at)).await?).is_empty()),
            ("POST", "template") => Some(config(&at).await?.get("template").is_some_and(is_on)),
            ("POST", "status/start") => Some(running().await?),
            ("POST", "status/stop" | "status/shutdown") => Some(!running().await?),
            ("POST", "move_disk") => {
                let slot = body.get("disk").and_then(Value::as_str).unwrap_or_default();
                let now = config(&at).await?;
                let volume = now.get(slot).and_then(Value::as_str);
                match body.get("storage").and_then(Value::as_str) {
                    Some(to) => Some(volume.is_some_and(|v| v.starts_with(&format!("{to}:")))),
                    // Given to another VM.
                    None => Some(volume.is_none()),
                }
            }
            ("PUT", "resize") => {
                let size = |t: &str| props::disk_size(t.trim_start_matches('+'));
                let slot = body.get("disk").and_then(Value::as_str).unwrap_or_default();
                let have = config(&at).await?.get(slot).and_then(Value::as_str).map(|t| props::read(slot, t));
                let have = have.and_then(|p| size(p.get("size")?));
                // A relative size says nothing about the outcome.
                match body.get("size").and_then(Value::as_str) {
                    Some(t) if !t.starts_with('+') => Some(have >= size(t)),
                    _ => None,
                }
            }
            _ => None,
        })
    }

    /// Like [`Proxmox::is_done`], for what makes a VM or concerns a volume.
    async fn is_stored(&self, ctx: &Ctx, r: &Request) -> OpResult<Option<bool>> {
        let none = Map::new();
        let body = r.body.as_ref().unwrap_or(&none);
        let text = |k: &str| body.get(k).and_then(Value::as_str).unwrap_or_default();
        let parts: Vec<&str> = r.path.split('/').collect();
        Ok(match (r.method.as_str(), &parts[..]) {
            ("POST", ["", "nodes", node, "qemu"]) if !body.contains_key("archive") => {
                let vmid = body.get("vmid").and_then(Value::as_u64).and_then(|v| u32::try_from(v).ok());
                let Some(vmid) = vmid else { return Ok(None) };
                let config = self.config(ctx, &At::new(*node, vmid)).await?;
                Some(config.is_some_and(|c| {
                    let notes = c.get("description").and_then(Value::as_str).unwrap_or_default();
                    !c.contains_key("lock") && notes.trim_end() == text("description").trim_end()
                }))
            }
            ("DELETE", ["", "nodes", node, "storage", storage, "content", volume]) => {
                let list = request::get(format!("/nodes/{node}/storage/{storage}/content"));
                let list = self.send_list(ctx, &list).await?;
                let there = |v: &Value| v["volid"].as_str().is_some_and(|id| request::percent(id) == *volume);
                Some(!list.iter().any(there))
            }
            ("POST", ["", "nodes", node, "storage", storage, "download-url"]) => {
                let content = text("content");
                let list = self.send_list(ctx, &request::storage_content(node, storage, content)).await?;
                let volid = format!("{storage}:{content}/{}", text("filename"));
                Some(list.iter().any(|v| v["volid"] == volid.as_str()))
            }
            _ => None,
        })
    }

    /// Sends a change that has no task; after an unknown outcome `done` says whether it has happened.
    ///
    /// # Errors
    /// What Proxmox refused.
    pub(super) async fn put_through(
        &self,
        s: &OpScope,
        what: &str,
        r: &Request,
        done: impl AsyncFn() -> OpResult<bool>,
    ) -> OpResult<()> {
        let mut wait = FIRST_WAIT;
        for left in (0..TRIES).rev() {
            let Err(e) = self.send(s.ctx(), r).await else { return Ok(()) };
            let again = matches!(e.fault, Fault::Unreachable | Fault::LockTimeout);
            // A lost first attempt makes the second one fail because it is there, or gone, already.
            let there = matches!(e.fault, Fault::Exists | Fault::NotFound);
            if (again || there) && done().await.unwrap_or(false) {
                return Ok(());
            }
            if left == 0 || !again {
                return Err(e.into());
            }
            s.waiting(format!("{what}: {}", e.text));
            s.sleep(Duration::from_secs(wait)).await?;
            wait *= 2;
        }
        Err(OpError::failed(format!("{what} was tried {TRIES} times")))
    }
}

fn unknown(what: &str, e: OpError) -> OpError {
    let why = std::iter::once(e.message.clone()).chain(e.causes.clone());
    let mut out = OpError::unreachable(format!("the outcome of {what} is unknown"))
        .hint("look at the VM's task list in Proxmox, then run this again: it compares first");
    out.causes.extend(why);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(v: Value) -> Map<String, Value> {
        v.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_config_change_is_recognised_in_what_the_server_stores() {
        let stored =
            map(json!({"cores": 4, "memory": "8192", "tags": "a;b", "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0",
            "scsi1": "zfs:vm-201-disk-2,discard=on,serial=gh-scratch-201,size=100G"}));
        let holds = |v| config_holds(&stored, &map(v));
        assert!(holds(json!({"cores": 4, "memory": "8192", "tags": "b", "digest": "x", "delete": "hostpci1"})));
        assert!(holds(json!({"scsi1": "zfs:100,discard=on,serial=gh-scratch-201"})));
        assert!(!holds(json!({"scsi1": "zfs:100,serial=gh-scratch-999"})));
        assert!(!holds(json!({"cores": 8})) && !holds(json!({"delete": "tags"})) && !holds(json!({"balloon": 0})));
    }

    #[test]
    fn requests_are_told_from_each_other_by_their_tasks() {
        let at = At::new("pve1", 201);
        assert_eq!(task_kind(&request::start(&at, None)), Some("qmstart"));
        assert_eq!(task_kind(&request::destroy(&at)), Some("qmdestroy"));
        assert_eq!(task_kind(&request::create("pve1", Map::new())), Some("qmcreate"));
        assert_eq!(task_kind(&request::put_config(&at, Map::new(), &[], None)), None);
    }
}
