//! Removing machines: only our own, only the volumes in their own config, data kept unless it is named.
use std::time::Duration;

use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpResult};
use crate::core::event::Change;
use crate::core::op::{Look, Op, OpScope};
use crate::options;
use crate::site::RoleKind;
use crate::wire::pve::marker::{self, Marker, Ownership};
use crate::wire::pve::props;

use super::inventory::{Machine, Place, not_ours};
use super::keeper;
use super::request;
use super::types::Vm;

options! {
    /// What goes with a removed machine.
    pub struct RemoveVm {
        /// Also delete its data disk; otherwise it is kept.
        delete_data: bool = false,
    }
}

const DESTROY: Duration = Duration::from_secs(1800);

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Whether a VM was removed.
    pub removed: bool,
    /// Volumes that were kept.
    pub kept: Vec<String>,
}

/// Volumes in a config that go with the VM: slot and volume.
#[must_use]
pub fn volumes(m: &Machine) -> Vec<(String, String)> {
    let drive = |k: &str| props::is_drive(k) || k.starts_with("unused");
    let mut out: Vec<(String, String)> = m
        .config
        .iter()
        .filter(|(k, _)| drive(k))
        .filter_map(|(k, v)| {
            let text = v.as_str()?;
            let volume = text.split(',').next()?.trim_start_matches("file=");
            let media = text.contains("media=cdrom") && !volume.contains("cloudinit");
            (volume.contains(':') && !media).then(|| (k.clone(), volume.to_owned()))
        })
        .collect();
    out.sort();
    out
}

fn changes(m: &Machine, kept: &[String]) -> Vec<Change> {
    let name = m.name();
    let mut out = vec![Change::new(&name, "machine", Some(format!("VM {}", m.at.vmid).into()), None)];
    for (slot, volume) in volumes(m).into_iter().filter(|(s, _)| !kept.contains(s)) {
        out.push(Change::new(&name, format!("volume {slot}"), Some(volume.into()), None));
    }
    out
}

impl Vm {
    /// Removes the machine if it is ours. Data disks are kept unless `delete_data`.
    ///
    /// # Errors
    /// `denied` (exit 4) for a machine that is not ours, or when the user declines.
    pub async fn remove(&self, ctx: &Ctx, o: &RemoveVm) -> OpResult<Removed> {
        let op = Op::destroy("proxmox", "remove_vm", self.name()).args(&o.delete_data);
        ctx.run_op(op, |s| async move {
            let site = ctx.site()?;
            let m = match self.pve.settled_place(&s, self.vmid(), self.pve_node()).await? {
                Place::Free => return Ok(Removed::default()),
                Place::Hidden => return Err(not_ours(&marker::hidden(self.vmid()), "remove it")),
                Place::Taken(m) => *m,
            };
            let v = m.judge(&site, None, None);
            let marker = match (v.ownership, v.marker.clone()) {
                (Ownership::Own, Some(k)) if k.node == self.name() => k,
                _ => return Err(not_ours(&v, "remove it")),
            };
            let data = keeper::data_disks(&m);
            if marker.kind.as_deref() == Some(keeper::KIND) && !o.delete_data && !data.is_empty() {
                return Ok(Removed { removed: false, kept: self.pve.kept_by(&m) });
            }
            let slots: Vec<String> =
                if o.delete_data { Vec::new() } else { data.iter().map(|d| d.0.clone()).collect() };
            let kept = s.act(marker.line(), changes(&m, &slots), self.take_down(&s, &site, &marker, o)).await?;
            for k in &kept {
                ctx.message("info", format!("kept {k}"));
            }
            Ok(Removed { removed: true, kept })
        })
        .await
    }

    async fn take_down(
        &self,
        s: &OpScope,
        site: &crate::site::Site,
        marker: &Marker,
        o: &RemoveVm,
    ) -> OpResult<Vec<String>> {
        let keep = !o.delete_data && marker.kind.is_none();
        let kept = match self.put_away(s, site, keep).await {
            // Gone is gone: a removal that a killed run had begun came first.
            Err(_) if self.pve.is_free(s.ctx(), self.vmid()).await.is_ok_and(|free| free) => Vec::new(),
            outcome => outcome?,
        };
        let server = site.nodes_of(RoleKind::Server).any(|n| n.vmid == self.vmid());
        if server && self.pve.is_birth_over(s.ctx(), site).await? {
            self.pve.note_birth(s, site, None).await?;
        }
        Ok(kept)
    }

    /// Shuts it down and destroys it; what is kept of it.
    async fn put_away(&self, s: &OpScope, site: &crate::site::Site, keep: bool) -> OpResult<Vec<String>> {
        self.bring_down(s).await?;
        let m = self.read(s.ctx()).await?;
        let kept = if keep { self.pve.keep_data(s, site, &m).await? } else { Vec::new() };
        self.destroy(s).await?;
        Ok(kept)
    }

    /// Destroys the stopped VM with the volumes that its config lists, and checks that it is gone.
    pub(super) async fn destroy(&self, s: &OpScope) -> OpResult<()> {
        self.protect(s, false).await?;
        if !self.read(s.ctx()).await?.is_template() {
            let gone = self.pve.change(s, "the removal", &request::destroy(&self.at), DESTROY).await;
            let Err(e) = &gone else { return gone };
            if !e.causes.iter().any(|c| c.contains("is running - destroy failed")) {
                return gone;
            }
            // A start that a killed run had begun came first.
            self.bring_down(s).await?;
            return self.pve.change(s, "the removal", &request::destroy(&self.at), DESTROY).await;
        }
        // Linked clones of ours may be on their way out at the same time; those of others make Proxmox refuse,
        // before it has removed anything.
        let limit = Duration::from_secs(180);
        s.wait_for("the removal of the template", Duration::from_secs(5), limit, || async {
            match self.pve.change(s, "the removal", &request::destroy(&self.at), DESTROY).await {
                Ok(()) => Ok(Look::Ready(())),
                Err(e) if e.causes.iter().any(|c| c.contains("still in use by linked")) => {
                    Ok(Look::Pending("linked clones still use it".to_owned()))
                }
                Err(e) => Err(e),
            }
        })
        .await
        .map_err(|e| {
            if e.is(Kind::Timeout) { e.hint("remove the linked clones first, or keep the template") } else { e }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::request::At;
    use serde_json::{Value, json};

    #[test]
    fn only_volumes_of_the_config_are_listed_and_data_is_told_apart() {
        let Value::Object(config) = json!({
            "name": "nfs1", "scsi0": "zfs:vm-221-disk-1,size=100G", "scsi2": "zfs:vm-221-disk-3,serial=gh-data-221,size=2T",
            "ide2": "zfs:vm-221-cloudinit,media=cdrom", "ide3": "local:iso/other.iso,media=cdrom",
            "efidisk0": "zfs:vm-221-disk-0,efitype=4m", "unused0": "zfs:vm-221-disk-9", "net0": "virtio=A,bridge=b"
        }) else {
            panic!()
        };
        let m = Machine { at: At::new("pve1", 221), pool: None, config };
        let slots: Vec<String> = volumes(&m).into_iter().map(|v| v.0).collect();
        assert_eq!(slots, ["efidisk0", "ide2", "scsi0", "scsi2", "unused0"]);
        let kept = changes(&m, &["scsi2".to_owned()]);
        assert!(!kept.iter().any(|c| c.what.contains("scsi2")));
        assert_eq!(
            keeper::data_disks(&m),
            [("scsi2".to_owned(), "gh-data-221".to_owned(), "zfs:vm-221-disk-3".to_owned())]
        );
    }
}
