//! Snapshots of machines of our own.
use std::time::Duration;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::Op;
use crate::options;
use crate::site::RoleKind;

use super::request;
use super::types::Vm;

options! {
    /// What a snapshot holds.
    pub struct SnapshotOptions {
        /// Text that Proxmox shows with it.
        description: String = String::new(),
        /// Also the memory of a running machine; not possible with passed-through devices.
        memory: bool = false,
    }
}

const LIMIT: Duration = Duration::from_secs(3600);

impl Vm {
    /// The snapshots, oldest first, without the present state.
    ///
    /// # Errors
    /// What the request met.
    pub async fn snapshots(&self, ctx: &Ctx) -> OpResult<Vec<Value>> {
        let mut all = self.pve.send_list(ctx, &request::list_snapshots(&self.at)).await?;
        all.retain(|s| s["name"] != "current");
        all.sort_by_key(|s| s["snaptime"].as_i64().unwrap_or_default());
        Ok(all)
    }

    async fn has_snapshot(&self, ctx: &Ctx, name: &str) -> OpResult<bool> {
        Ok(self.snapshots(ctx).await?.iter().any(|s| s["name"] == name))
    }

    /// Makes a snapshot exist.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `failed` when the storage cannot make one.
    pub async fn ensure_snapshot(&self, ctx: &Ctx, name: &str, o: &SnapshotOptions) -> OpResult<()> {
        let op = Op::write("proxmox", "ensure_snapshot", self.name()).class(Class::Adoptable).args(&name);
        ctx.run_op(op, |s| async move {
            let m = self.own(ctx, "snapshot it").await?;
            if self.has_snapshot(ctx, name).await? {
                return Ok(());
            }
            if o.memory && m.config.keys().any(|k| k.starts_with("hostpci")) {
                return Err(OpError::invalid("the memory of a machine with passed-through devices cannot be saved")
                    .hint("leave `memory: true` out"));
            }
            let change = Change::new(self.name(), "snapshot", None, Some(name.into()));
            s.act(format!("snapshot {name}"), vec![change], async {
                let r = request::create_snapshot(&self.at, name, &o.description, o.memory);
                let done = self.pve.change(&s, "the snapshot", &r, LIMIT).await;
                match done {
                    // Another run, or a task that we lost sight of, made it.
                    Err(_) if self.has_snapshot(ctx, name).await.unwrap_or(false) => Ok(()),
                    Err(e) if e.causes.iter().any(|c| c.contains("snapshot feature is not available")) => Err(e.hint(
                        "this storage has no snapshots for the disk's format: use ZFS, LVM-thin or qcow2 files, or a backup",
                    )),
                    other => other,
                }
            })
            .await
        })
        .await
    }

    /// Takes the machine back to a snapshot: what came after is lost.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours, a server of the cluster, or when the user declines.
    pub async fn rollback(&self, ctx: &Ctx, name: &str) -> OpResult<()> {
        ctx.run_op(Op::destroy("proxmox", "rollback", self.name()).args(&name), |s| async move {
            self.own(ctx, "roll it back").await?;
            self.not_a_server("roll back")?;
            if !self.has_snapshot(ctx, name).await? {
                return Err(self.no_snapshot(ctx, name).await);
            }
            let change = Change::new(
                self.name(),
                "disks",
                Some("present state".into()),
                Some(format!("snapshot {name}").into()),
            );
            s.act(format!("snapshot {name}"), vec![change], async {
                self.pve.change_once(&s, "the rollback", &request::rollback(&self.at, name), LIMIT).await
            })
            .await
        })
        .await
    }

    /// Removes a snapshot; says whether it was there.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours, or when the user declines.
    pub async fn remove_snapshot(&self, ctx: &Ctx, name: &str) -> OpResult<bool> {
        ctx.run_op(Op::destroy("proxmox", "remove_snapshot", self.name()).args(&name), |s| async move {
            self.own(ctx, "remove a snapshot of it").await?;
            if !self.has_snapshot(ctx, name).await? {
                return Ok(false);
            }
            let change = Change::new(self.name(), "snapshot", Some(name.into()), None);
            s.act(format!("snapshot {name}"), vec![change], async {
                let r = request::remove_snapshot(&self.at, name);
                let done = self.pve.change(&s, "removing the snapshot", &r, LIMIT).await;
                if done.is_err() && !self.has_snapshot(ctx, name).await.unwrap_or(true) { Ok(()) } else { done }
            })
            .await?;
            Ok(true)
        })
        .await
    }

    /// The disks of an etcd member must not go back in time: the other members have moved on.
    pub(super) fn not_a_server(&self, verb: &str) -> OpResult<()> {
        match self.node() {
            Some(n) if n.kind == RoleKind::Server => Err(OpError::refused(format!(
                "refused to {verb} {}: it is a member of the cluster's etcd, which must not go back in time",
                n.name
            ))
            .hint("replace the member instead: remove the node from the cluster and the machine, then deploy again")),
            _ => Ok(()),
        }
    }

    async fn no_snapshot(&self, ctx: &Ctx, name: &str) -> OpError {
        let all = match self.snapshots(ctx).await {
            Ok(all) => all,
            Err(e) => return OpError::not_found(format!("there is no snapshot `{name}`")).because(e.message),
        };
        let names: Vec<&str> = all.iter().filter_map(|s| s["name"].as_str()).collect();
        let hint = if names.is_empty() { "it has none".to_owned() } else { format!("it has: {}", names.join(", ")) };
        OpError::not_found(format!("there is no snapshot `{name}`")).hint(hint)
    }
}
