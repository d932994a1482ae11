//! Cloning: a queue per storage, retries only after a look, the marker in the clone request itself.
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Look, QUEUED};
use crate::wire::pve::marker::{self, Marker};

use super::change::Miss;
use super::ensure_vm::Job;
use super::error::Fault;
use super::inventory::{Machine, Place, not_ours};
use super::request::{self, Request};
use super::types::{Queue, Template};

/// Clones at once per storage: more of them run into Proxmox's lock timeouts of 1 and 10 seconds.
const AT_ONCE: usize = 2;
const QUEUE: Duration = Duration::from_secs(4 * 3600);
const CLONE: Duration = Duration::from_secs(2 * 3600);
const TRIES: u32 = 8;
const LONGEST_WAIT: u64 = 60;

/// A place in the clone queue of a storage.
struct Turn {
    queue: Arc<Queue>,
    storage: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = all.get_mut(&self.storage) {
            *n = n.saturating_sub(1);
        }
    }
}

impl Miss {
    /// Whether a clone that ended so may be tried again after a look.
    fn clone_again(&self) -> bool {
        matches!(self.fault, Fault::LockTimeout | Fault::Exists | Fault::Unreachable | Fault::Locked(_))
    }
}

impl Job<'_> {
    fn storage(&self) -> String {
        self.node.shape.disk_storage.clone().unwrap_or_else(|| self.site.proxmox.storage.clone())
    }

    async fn turn(&self) -> OpResult<Turn> {
        let (queue, storage) = (&self.pve.inner.clones, self.storage());
        self.s
            .wait_for(&format!("{QUEUED}the clone queue"), Duration::from_secs(1), QUEUE, || async {
                let mut all = queue.0.lock().unwrap_or_else(PoisonError::into_inner);
                let running = all.entry(storage.clone()).or_default();
                if *running < AT_ONCE {
                    *running += 1;
                    return Ok(Look::Ready(Turn { queue: queue.clone(), storage: storage.clone() }));
                }
                Ok(Look::Pending(format!("{running} clones write to {storage}")))
            })
            .await
    }

    /// Lookup goes by identity too: a machine of this name in our pool under another id is a disagreement.
    async fn no_namesake(&self) -> OpResult<()> {
        let pool = self.site.pool();
        let rows = self.pve.rows(self.ctx()).await?;
        let other = rows.iter().find(|r| {
            r.name == self.node.name && r.at.vmid != self.node.vmid && r.pool.as_deref() == Some(pool.as_str())
        });
        match other {
            None => Ok(()),
            Some(r) => Err(OpError::refused(format!(
                "pool `{pool}` already holds a VM `{}` with id {}, the site file says {}",
                r.name, r.at.vmid, self.node.vmid
            ))
            .hint(
                "names and vmids of existing nodes do not change: restore the vmid in the site file, or remove that VM",
            )),
        }
    }

    /// Makes the machine: clone, configure, add disks. Everything is in one journalled effect, which a
    /// later run adopts by its marker.
    pub(super) async fn create(&self, template: &Template) -> OpResult<Machine> {
        self.no_namesake().await?;
        self.pve.nobody_in_doubt(self.ctx(), self.node.vmid).await?;
        let node = self.node;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let marker = Marker::new(&self.site.uuid, &node.name, node.vmid, &id[..12]);
        let line = marker.put_into(self.want.notes.as_deref().unwrap_or_default());
        let what = format!("VM {} on {}, cloned from {}", node.vmid, node.pve_node, template.name);
        let change = Change::new(&node.name, "machine", None, Some(what.into()));
        // What waits in the queue has not begun: an interruption ends it there.
        let turn = self.turn().await?;
        self.s
            .act(marker.line(), vec![change], async {
                self.clone_from(turn, template, &line).await?;
                Job { making: true, ..*self }.settle().await
            })
            .await
    }

    fn clone_request(&self, template: &Template, line: &str) -> Request {
        let node = self.node;
        let from = template.on(&node.pve_node);
        let full = node.shape.full_clone.unwrap_or(true);
        let elsewhere = node.pve_node != from.node;
        request::clone(from, node.vmid, &node.name, &self.site.pool(), line, full)
            .set("storage", full.then(|| self.storage()))
            .set("target", elsewhere.then(|| node.pve_node.clone()))
    }

    async fn clone_from(&self, _turn: Turn, template: &Template, line: &str) -> OpResult<()> {
        let r = self.clone_request(template, line);
        let mut wait = 4;
        for left in (0..TRIES).rev() {
            let began = self.ctx().clock.last_ms();
            let miss = match self.pve.attempt(self.s, "the clone", &r, CLONE).await? {
                Ok(()) => return Ok(()),
                Err(miss) => miss,
            };
            if left > 0 && miss.clone_again() {
                self.s.waiting(format!("clone: {}", miss.why()));
                self.s.sleep(Duration::from_secs(wait)).await?;
                wait = LONGEST_WAIT.min(wait * 2);
            }
            if miss.fault == Fault::Unreachable {
                // The task that is found may be another thread's clone of this template: what stands at our
                // id decides, not how that task ended.
                let _ = self.pve.look_for(self.s, "the clone", &r, began, CLONE).await?;
            }
            if left == 0 || !miss.clone_again() {
                return Err(self.explain(miss.error, template));
            }
            if self.arrived().await? {
                return Ok(());
            }
        }
        Err(OpError::failed(format!("the clone was tried {TRIES} times")))
    }

    /// Whether the machine is there after all: never repeat blindly. A broken clone takes itself away.
    async fn arrived(&self) -> OpResult<bool> {
        match self.pve.settled_place(self.s, self.node.vmid, &self.node.pve_node).await? {
            Place::Free => Ok(false),
            Place::Hidden => Err(not_ours(&marker::hidden(self.node.vmid), "take its id")),
            Place::Taken(m) => {
                let m = self.own(*m)?;
                self.unlocked(m).await.map(|_| true)
            }
        }
    }

    fn explain(&self, e: OpError, template: &Template) -> OpError {
        let says = |what: &str| e.causes.iter().any(|c| c.contains(what));
        if says("non-shared storage") || says("uses local storage") {
            return e.hint(format!(
                "the template is on {} with local storage: give {} a template of its own (`template.vmids` in the site file), or put both on shared storage",
                template.at.node, self.node.pve_node
            ));
        }
        if e.is(crate::core::error::Kind::NotFound) && says(&format!("{}", template.at.vmid)) {
            return e.hint("make the template first: `pve.ensure_template(site().template)`");
        }
        e
    }
}
