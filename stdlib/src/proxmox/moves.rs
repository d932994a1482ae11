//! Machines and disks that change their place; machines that become templates.
use std::time::Duration;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::Op;
use crate::options;
use crate::wire::pve::marker::{Ownership, Verdict};
use crate::wire::pve::props;

use super::inventory::not_ours;
use super::request::{self, At};
use super::types::Vm;

options! {
    /// How a machine moves to another hypervisor node.
    pub struct MigrateOptions {
        /// Also its local disks.
        with_disks: bool = false,
    }
}

options! {
    /// What becomes of the old volume of a moved disk.
    pub struct MoveDiskOptions {
        /// Keep the old volume as `unusedN`.
        keep_source: bool = false,
    }
}

const LIMIT: Duration = Duration::from_secs(12 * 3600);

/// What keeps a machine from moving, in words.
fn obstacles(check: &Value, target: &str) -> Vec<String> {
    let list = |k: &str| check[k].as_array().cloned().unwrap_or_default();
    let mut out = Vec::new();
    for r in list("local_resources").iter().chain(&list("mapped-resources")) {
        out.push(format!("it holds {} of its node", r.as_str().unwrap_or("a device")));
    }
    if let Some(why) = check["not_allowed_nodes"].get(target) {
        out.push(format!("{target}: {why}"));
    }
    out
}

impl Vm {
    /// Moves the machine to another hypervisor node, while it runs if it runs. Gives the handle there.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `conflict` when a device or a local disk holds it.
    pub async fn migrate(&self, ctx: &Ctx, target: &str, o: &MigrateOptions) -> OpResult<Vm> {
        let op = Op::write("proxmox", "migrate", self.name()).class(Class::Adoptable).args(&(target, o.with_disks));
        ctx.run_op(op, |s| async move {
            let site = ctx.site()?;
            let mut m = self.read(ctx).await?;
            if m.lock().as_deref() == Some("migrate") {
                // An earlier run has begun to move it: that ends first, wherever it leads.
                self.pve.wait_unlocked(&s, "the migration under way", &m.at).await?;
                m = self.pve.machine(ctx, m.at.vmid, target).await?;
            }
            // Where it is does not matter here: that is what changes.
            let v: Verdict = m.judge(&site, self.node().map(|n| n.name.as_str()), None);
            if v.ownership != Ownership::Own {
                return Err(not_ours(&v, "migrate it"));
            }
            let mut moved = self.clone();
            moved.at = At::new(target, m.at.vmid);
            if m.at.node == target {
                return Ok(moved);
            }
            let check = self.pve.send(ctx, &request::migrate_check(&m.at, target)).await?;
            let held = obstacles(&check, target);
            if !held.is_empty() {
                return Err(OpError::conflict(format!("{} cannot move to {target}", self.name()))
                    .because(held.join("; "))
                    .hint("machines with passed-through devices stay: shut it down, change `pve_node` in the site file, make it anew"));
            }
            let local = check["local_disks"].as_array().is_some_and(|d| !d.is_empty());
            if local && !o.with_disks {
                return Err(OpError::conflict(format!("{} has disks on local storage", self.name()))
                    .hint(format!("move them too: `vm.migrate(\"{target}\", #{{ with_disks: true }})`")));
            }
            let running = self.is_running(ctx).await?;
            let change = Change::new(self.name(), "hypervisor node", Some(m.at.node.clone().into()), Some(target.into()));
            s.act(format!("vm {}", m.at.vmid), vec![change], async {
                let r = request::migrate(&m.at, target, running, local);
                let done = self.pve.change(&s, "the migration", &r, LIMIT).await;
                match self.pve.machine(ctx, m.at.vmid, target).await {
                    Ok(now) if now.at.node == target => Ok(()),
                    _ => done,
                }
            })
            .await?;
            if self.node().is_some_and(|n| n.pve_node != target) {
                let text = format!("{}: set `pve_node = \"{target}\"` for it in the site file, or it counts as moved", self.name());
                ctx.message("warn", text);
            }
            Ok(moved)
        })
        .await
    }

    /// Moves a disk to another storage.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `not_found` without such a disk.
    pub async fn move_disk(&self, ctx: &Ctx, disk: &str, storage: &str, o: &MoveDiskOptions) -> OpResult<()> {
        let op = Op::write("proxmox", "move_disk", self.name()).class(Class::Adoptable).args(&(disk, storage));
        ctx.run_op(op, |s| async move {
            let m = self.own(ctx, "move its disk").await?;
            let have = m.get(disk).filter(|_| props::is_drive(disk)).ok_or_else(|| {
                let all: Vec<&str> = m.config.keys().map(String::as_str).filter(|k| props::is_drive(k)).collect();
                OpError::not_found(format!("{} has no disk `{disk}`", self.name()))
                    .hint(format!("it has: {}", all.join(", ")))
            })?;
            let volume = props::read(disk, &have).get("file").cloned().unwrap_or_default();
            if volume.split(':').next() == Some(storage) {
                return Ok(());
            }
            let change = Change::new(self.name(), disk, Some(volume.into()), Some(storage.into()));
            s.act(format!("vm {} {disk}", m.at.vmid), vec![change], async {
                let r = request::move_disk(&m.at, disk, storage, !o.keep_source).set("digest", m.digest());
                let done = self.pve.change_once(&s, "moving the disk", &r, LIMIT).await;
                let now = self.read(ctx).await?.get(disk).unwrap_or_default();
                if now.starts_with(&format!("{storage}:")) { Ok(()) } else { done }
            })
            .await
        })
        .await
    }

    /// Turns the machine into a template: it never runs again. Nothing when it is one.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `conflict` while it runs.
    pub async fn convert_to_template(&self, ctx: &Ctx) -> OpResult<()> {
        let op = Op::write("proxmox", "convert_to_template", self.name()).class(Class::Adoptable);
        ctx.run_op(op, |s| async move {
            let m = self.own(ctx, "convert it").await?;
            if m.is_template() {
                return Ok(());
            }
            if self.node().is_some() {
                return Err(OpError::refused(format!(
                    "{} is a node of the site: as a template it could never run again",
                    self.name()
                ))
                .hint("make a template with `pve.ensure_template(site().template)`"));
            }
            if self.is_running(ctx).await? {
                return Err(OpError::conflict(format!("{} runs", self.name())).hint("stop it first: `vm.shutdown()`"));
            }
            let change = Change::new(self.name(), "template", Some(false.into()), Some(true.into()));
            s.act(format!("vm {}", m.at.vmid), vec![change], async {
                self.pve.change(&s, "the conversion", &request::to_template(&m.at), LIMIT).await
            })
            .await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_keeps_a_machine_is_said() {
        let free = json!({"running": 0, "local_disks": [], "local_resources": []});
        assert!(obstacles(&free, "pve2").is_empty());
        let held =
            json!({"local_resources": ["hostpci0"], "not_allowed_nodes": {"pve2": {"unavailable_storages": ["zfs"]}}});
        let said = obstacles(&held, "pve2").join("; ");
        assert!(said.contains("hostpci0") && said.contains("unavailable_storages"), "{said}");
    }
}
