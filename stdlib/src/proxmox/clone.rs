//! Cloning: a queue per storage, retries only after a look, the marker from the first instant.
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Look;
use crate::wire::pve::marker::{self, Marker};

use super::ensure_vm::Job;
use super::error::Fault;
use super::inventory::{Machine, Place, not_ours};
use super::request;
use super::types::{Inner, Template};

/// Clones at once per storage: more of them run into Proxmox's lock timeouts of 1 and 10 seconds.
const AT_ONCE: usize = 2;
const QUEUE: Duration = Duration::from_secs(4 * 3600);
const CLONE: Duration = Duration::from_secs(2 * 3600);
const TRIES: u64 = 6;

/// A place in the clone queue of a storage.
struct Turn {
    inner: Arc<Inner>,
    storage: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.inner.clones.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = all.get_mut(&self.storage) {
            *n = n.saturating_sub(1);
        }
    }
}

/// How one attempt to clone ended.
enum Attempt {
    Done,
    /// Nothing was made; try again.
    Again(Box<OpError>),
}

impl Job<'_> {
    fn storage(&self) -> String {
        self.node.shape.disk_storage.clone().unwrap_or_else(|| self.site.proxmox.storage.clone())
    }

    async fn turn(&self) -> OpResult<Turn> {
        let storage = self.storage();
        self.s
            .wait_for("a place in the clone queue", Duration::from_secs(1), QUEUE, || async {
                let mut all = self.pve.inner.clones.lock().unwrap_or_else(PoisonError::into_inner);
                let running = all.entry(storage.clone()).or_default();
                if *running < AT_ONCE {
                    *running += 1;
                    return Ok(Look::Ready(Turn { inner: self.pve.inner.clone(), storage: storage.clone() }));
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
        let node = self.node;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let marker = Marker::new(&self.site.uuid, &node.name, node.vmid, &id[..12]);
        let line = marker.line();
        let what = format!("VM {} on {}, cloned from {}", node.vmid, node.pve_node, template.name);
        let change = Change::new(&node.name, "machine", None, Some(what.into()));
        self.s
            .act(line.clone(), vec![change], async {
                self.clone_from(template, &line).await?;
                let m = self.unlocked(self.read().await?).await?;
                let d = self.diff(&m)?;
                self.apply(&m, &d).await?;
                self.read().await
            })
            .await
    }

    async fn clone_from(&self, template: &Template, line: &str) -> OpResult<()> {
        let _turn = self.turn().await?;
        let mut tries = 0;
        loop {
            let e = match self.attempt(template, line).await? {
                Attempt::Done => return Ok(()),
                Attempt::Again(e) => *e,
            };
            tries += 1;
            if tries >= TRIES {
                return Err(e);
            }
            self.s.waiting(format!("clone: {}", e.causes.first().unwrap_or(&e.message)));
            self.s.sleep(Duration::from_secs(4 * tries)).await?;
            // Never repeat blindly: the machine may be there by now.
            match self.pve.place(self.ctx(), self.node.vmid, &self.node.pve_node).await? {
                Place::Free => {}
                Place::Hidden => return Err(not_ours(&marker::hidden(self.node.vmid), "take its id")),
                Place::Taken(_) => {
                    self.read().await?;
                    return Ok(());
                }
            }
        }
    }

    async fn attempt(&self, template: &Template, line: &str) -> OpResult<Attempt> {
        let node = self.node;
        let full = node.shape.full_clone.unwrap_or(true);
        let elsewhere = node.pve_node != template.at.node;
        let r = request::clone(&template.at, node.vmid, &node.name, &self.site.pool(), line, full)
            .set("storage", full.then(|| self.storage()))
            .set("target", elsewhere.then(|| node.pve_node.clone()));
        let upid = match self.pve.send(self.ctx(), &r).await {
            Ok(v) => v.as_str().unwrap_or_default().to_owned(),
            Err(e) => {
                let again =
                    matches!(e.fault, Fault::LockTimeout | Fault::Exists | Fault::Unreachable | Fault::Locked(_));
                return if again {
                    Ok(Attempt::Again(Box::new(e.into())))
                } else {
                    Err(self.explain(e.into(), template))
                };
            }
        };
        self.s.accepted(&upid)?;
        match self.pve.try_task(self.s, "the clone", &upid, CLONE).await? {
            Ok(()) => Ok(Attempt::Done),
            Err(t) if matches!(t.fault, Fault::LockTimeout | Fault::Exists) => Ok(Attempt::Again(Box::new(t.error))),
            Err(t) => Err(self.explain(t.error, template)),
        }
    }

    fn explain(&self, e: OpError, template: &Template) -> OpError {
        let says = |what: &str| e.causes.iter().any(|c| c.contains(what));
        if says("non-shared storage") || says("uses local storage") {
            return e.hint(format!(
                "the template is on {} with local storage: give {} a template of its own, or put both on shared storage",
                template.at.node, self.node.pve_node
            ));
        }
        if e.is(crate::core::error::Kind::NotFound) && says(&format!("{}", template.at.vmid)) {
            return e.hint("make the template first: `pve.ensure_template(site().template)`");
        }
        e
    }
}
