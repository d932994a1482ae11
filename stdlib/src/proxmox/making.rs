//! VMs that a task is making: whose they are cannot be told before they are complete.
//!
//! Proxmox makes a VM as an almost empty config with a lock. A clone's name and description are written with its first
//! drive; the pool follows when everything is done and the lock is gone. Until then the marker is missing or stands in
//! no pool, and a token with rights on the pool alone does not even see the VM.
use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::op::{Look, OpScope};

use super::inventory::{Machine, Place};
use super::locked::Orphaned;
use super::request::{self, At};
use super::template::places;
use super::types::Proxmox;

/// The longest copy of a disk that is waited for.
const MAKING: Duration = Duration::from_secs(2 * 3600);
const EVERY: Duration = Duration::from_secs(3);
/// Looks that the last step, joining the pool, is given.
const PATIENCE: u32 = 3;
/// Tasks that make VMs.
const KINDS: [&str; 2] = ["qmclone", "qmcreate"];

impl Machine {
    /// Whether a task is making it.
    #[must_use]
    pub fn is_being_made(&self) -> bool {
        matches!(self.lock().as_deref(), Some("clone" | "create"))
    }
}

impl Proxmox {
    /// What stands at `vmid` once no task makes a VM there any more.
    ///
    /// # Errors
    /// `timeout` when its making does not end; what the requests met.
    pub(super) async fn settled_place(&self, s: &OpScope, vmid: u32, near: &str) -> OpResult<Place> {
        let made = std::sync::atomic::AtomicBool::new(false);
        let looks = std::sync::atomic::AtomicU32::new(0);
        let orphaned = Orphaned::default();
        let order = std::sync::atomic::Ordering::Relaxed;
        s.wait_for(&format!("the making of VM {vmid}"), EVERY, MAKING, || async {
            let mut place = self.place(s.ctx(), vmid, near).await?;
            if matches!(&place, Place::Taken(m) if m.pool.is_none() && !m.is_being_made()) {
                // Its last step may be to come: as long as a task makes VMs nothing can be said.
                if self.makes_one(s.ctx(), near).await? {
                    return Ok(Look::Pending("it is in no pool yet, and a task makes a VM".to_owned()));
                }
                place = self.place(s.ctx(), vmid, near).await?;
            }
            let pending = match &place {
                Place::Free => None,
                Place::Hidden if self.makes_one(s.ctx(), near).await? => Some("a task makes a VM".to_owned()),
                Place::Hidden => {
                    self.not_half_made(s.ctx(), &At::new(near, vmid)).await?;
                    None
                }
                Place::Taken(m) if m.is_being_made() => {
                    made.store(true, order);
                    let lock = m.lock().unwrap_or_default();
                    Some(self.lock_state(s.ctx(), &m.at, &lock, &orphaned).await?)
                }
                Place::Taken(m) => {
                    let late = made.load(order) && m.pool.is_none() && looks.fetch_add(1, order) < PATIENCE;
                    late.then(|| "it is in no pool yet".to_owned())
                }
            };
            Ok(pending.map_or(Look::Ready(place), Look::Pending))
        })
        .await
        .map_err(|e| {
            let hint = format!("if no task works on it any more: `qm unlock {vmid}`, look at it, `qm destroy {vmid}`");
            if e.is(crate::core::error::Kind::Timeout) { e.hint(hint) } else { e }
        })
    }

    /// Waits for VMs that an earlier run of this site is still making: until then no list shows them as its own.
    ///
    /// # Errors
    /// As [`Proxmox::settled_place`].
    pub(super) async fn settle_declared(&self, s: &OpScope) -> OpResult<()> {
        let site = s.ctx().site()?;
        let mut declared: Vec<(u32, String)> = site.nodes.iter().map(|n| (n.vmid, n.pve_node.clone())).collect();
        declared.extend(places(&site).into_iter().map(|(_, at)| (at.vmid, at.node)));
        let nodes: BTreeSet<&String> = declared.iter().map(|d| &d.1).collect();
        let mut busy = Vec::new();
        for node in nodes {
            if self.makes_one(s.ctx(), node).await? {
                busy.push(node.clone());
            }
        }
        for (vmid, node) in declared.iter().filter(|d| busy.contains(&d.1)) {
            self.settled_place(s, *vmid, node).await?;
        }
        Ok(())
    }

    /// Whether a task that makes VMs runs on a node, as far as this token sees: its own tasks.
    async fn makes_one(&self, ctx: &Ctx, node: &str) -> OpResult<bool> {
        let r = request::get(format!("/nodes/{node}/tasks")).query("source", "active");
        let tasks = self.send(ctx, &r).await?;
        // The list of active tasks keeps those that ended a moment ago.
        let runs = |t: &&serde_json::Value| t["endtime"].is_null();
        let makes = |t: &serde_json::Value| t["type"].as_str().is_some_and(|k| KINDS.contains(&k));
        Ok(tasks.as_array().into_iter().flatten().filter(runs).any(makes))
    }
}
