//! Data disks outlive their machine.
//!
//! Proxmox deletes every volume in a VM's config with the VM, and knows no volume without a VM. So a
//! disk to keep is handed (`move_disk` with `target-vmid`, a rename on the storage: no byte is copied)
//! to a small stopped VM of ours, the keeper: `<node>-data`, in the site's pool, protected, with our
//! marker of kind `data`. `ensure_vm` hands the disk back and removes the empty keeper.
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::op::OpScope;
use crate::site::Site;
use crate::wire::pve::marker::Marker;

use super::diff::slot_of;
use super::ensure_vm::{CONFIG, Job};
use super::inventory::Machine;
use super::request::{self, At};
use super::types::Proxmox;
use super::wanted::WantedDisk;

/// Marker kind of keepers.
pub(super) const KIND: &str = "data";
/// Keepers have ids far from the nodes'.
const ABOVE: u32 = 10_000;
const MOVE: Duration = Duration::from_secs(1800);

/// Name of the keeper of a node's data.
fn name_of(node: &str) -> String {
    format!("{node}-data")
}

/// The node whose data a keeper keeps.
pub(super) fn node_of(marker: &Marker) -> &str {
    marker.node.strip_suffix("-data").unwrap_or(&marker.node)
}

/// Data disks in a config: slot, serial, volume.
#[must_use]
pub fn data_disks(m: &Machine) -> Vec<(String, String, String)> {
    let mut out: Vec<_> = m
        .config
        .iter()
        .filter_map(|(k, v)| {
            let props = crate::wire::pve::props::read(k, v.as_str()?);
            let serial = props.get("serial").filter(|s| s.starts_with("gh-data-"))?;
            Some((k.clone(), serial.clone(), props.get("file")?.clone()))
        })
        .collect();
    out.sort();
    out
}

impl Proxmox {
    async fn keeper(&self, ctx: &Ctx, node: &str) -> OpResult<Option<Machine>> {
        let name = name_of(node);
        let all = self.owned(ctx).await?;
        Ok(all.into_iter().find(|(_, k)| k.kind.as_deref() == Some(KIND) && k.node == name).map(|(m, _)| m))
    }

    /// The keeper of `node`'s data; made when there is none.
    async fn ensure_keeper(&self, s: &OpScope, site: &Site, node: &str, near: &At) -> OpResult<Machine> {
        let ctx = s.ctx();
        if let Some(m) = self.keeper(ctx, node).await? {
            return Ok(m);
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut marker = Marker::new(&site.uuid, &name_of(node), near.vmid, &id[..12]);
        marker.kind = Some(KIND.to_owned());
        let notes = format!("Keeps the data disk of {node} while that machine does not exist.");
        let mut from = near.vmid + ABOVE;
        let vmid = loop {
            marker.vmid = self.reserve_id(ctx, from).await?;
            let Value::Object(config) = json!({
                "vmid": marker.vmid, "name": name_of(node), "pool": site.pool(), "description": marker.put_into(&notes),
                "memory": 16, "cores": 1, "scsihw": "virtio-scsi-single", "ostype": "l26", "tags": "gpuhost;data",
            }) else {
                return Err(OpError::failed("the keeper's config is no object"));
            };
            match self.change(s, "the data keeper", &request::create(&near.node, config), CONFIG).await {
                Ok(()) => break marker.vmid,
                // Another client was faster: the next id.
                Err(e) if e.is(Kind::Conflict) && !self.is_free(ctx, marker.vmid).await? => from = marker.vmid + 1,
                Err(e) => return Err(e),
            }
        };
        let m = self.machine(ctx, vmid, &near.node).await?;
        let marker = Marker { smbios: m.smbios(), ..marker };
        let mut set = Map::new();
        set.insert("description".to_owned(), marker.put_into(&notes).into());
        set.insert("protection".to_owned(), 1.into());
        self.change(s, "the data keeper", &request::put_config(&m.at, set, &[], m.digest().as_deref()), CONFIG).await?;
        Ok(m)
    }

    /// Hands the data disks of a stopped machine to its keeper; returns where they are now.
    pub(super) async fn keep_data(&self, s: &OpScope, site: &Site, m: &Machine) -> OpResult<Vec<String>> {
        let mut kept = Vec::new();
        for (slot, serial, volume) in data_disks(m) {
            let keeper = self.ensure_keeper(s, site, &m.name(), &m.at).await?;
            let used = |i: u32| keeper.config.contains_key(&format!("scsi{i}"));
            let free = (0..30).find(|i| !used(*i)).map(|i| format!("scsi{i}"));
            let to = free.ok_or_else(|| OpError::conflict(format!("VM {} has no free slot", keeper.at.vmid)))?;
            let r = request::reassign(&m.at, &slot, keeper.at.vmid, &to);
            self.change(s, &format!("keeping {volume}"), &r, MOVE).await?;
            let now = self.machine(s.ctx(), keeper.at.vmid, &keeper.at.node).await?;
            let Some(held) = data_disks(&now).into_iter().find(|d| d.1 == serial) else {
                return Err(OpError::failed(format!("{volume} did not arrive at VM {}", keeper.at.vmid))
                    .hint("look at both VMs in Proxmox before anything else: nothing was deleted"));
            };
            kept.push(describe(&now, &held));
        }
        Ok(kept)
    }

    /// Data disks that are kept for machines which do not exist.
    ///
    /// # Errors
    /// What the requests met.
    pub async fn kept(&self, ctx: &Ctx) -> OpResult<Vec<String>> {
        let owned = self.owned(ctx).await?;
        let keepers = owned.iter().filter(|(_, k)| k.kind.as_deref() == Some(KIND));
        Ok(keepers.flat_map(|(m, _)| data_disks(m).iter().map(|d| describe(m, d)).collect::<Vec<_>>()).collect())
    }
}

/// `local-zfs:vm-10221-disk-0 (2T, data of nfs1, held by VM 10221)`.
fn describe(keeper: &Machine, disk: &(String, String, String)) -> String {
    let props = crate::wire::pve::props::read(&disk.0, &keeper.get(&disk.0).unwrap_or_default());
    let size = props.get("size").map(|s| format!("{s}, ")).unwrap_or_default();
    let node = keeper.marker().map(|k| node_of(&k).to_owned()).unwrap_or_default();
    format!("{} ({size}data of {node}, held by VM {})", disk.2, keeper.at.vmid)
}

impl Job<'_> {
    /// Splits missing disks into those that a keeper holds and those to make.
    pub(super) async fn split_kept<'d>(
        &self,
        disks: &'d [WantedDisk],
    ) -> OpResult<(Vec<&'d WantedDisk>, Vec<&'d WantedDisk>)> {
        if !disks.iter().any(|d| d.data) {
            return Ok((Vec::new(), disks.iter().collect()));
        }
        let keeper = self.pve.keeper(self.ctx(), &self.node.name).await?;
        let held = |d: &&WantedDisk| d.data && keeper.as_ref().is_some_and(|k| slot_of(k, &d.serial).is_some());
        Ok(disks.iter().partition(held))
    }

    /// Hands a kept disk back to its machine and removes the keeper when it is empty.
    pub(super) async fn adopt_data(&self, at: &At, disk: &WantedDisk) -> OpResult<()> {
        let Some(keeper) = self.pve.keeper(self.ctx(), &self.node.name).await? else { return Ok(()) };
        let Some(slot) = slot_of(&keeper, &disk.serial) else { return Ok(()) };
        if self.is_running(at).await? {
            return Err(OpError::conflict(format!(
                "the data disk of {} is kept by VM {}",
                self.node.name, keeper.at.vmid
            ))
            .hint("stop the machine and run this again: a disk changes hands only while both are stopped"));
        }
        let r = request::reassign(&keeper.at, &slot, at.vmid, &disk.slot);
        self.pve.change(self.s, "taking the kept data disk", &r, MOVE).await?;
        let text = format!("{}: took over the data disk kept by VM {}", self.node.name, keeper.at.vmid);
        self.ctx().message("info", text);
        let m = self.read().await?;
        let grow = self.diff(&m)?.grow.into_iter().filter(|(s, _)| *s == disk.slot);
        for (slot, mib) in grow {
            self.pve.change(self.s, "growing a disk", &request::resize(at, &slot, mib), CONFIG).await?;
        }
        let keeper = self.pve.machine(self.ctx(), keeper.at.vmid, &keeper.at.node).await?;
        if data_disks(&keeper).is_empty() {
            let mut off = Map::new();
            off.insert("protection".to_owned(), 0.into());
            let r = request::put_config(&keeper.at, off, &[], keeper.digest().as_deref());
            self.pve.change(self.s, "the empty keeper", &r, CONFIG).await?;
            self.pve.change(self.s, "removing the empty keeper", &request::destroy(&keeper.at), CONFIG).await?;
        }
        Ok(())
    }
}

impl Proxmox {
    /// The data disks that this keeper holds, in words.
    pub(super) fn kept_by(&self, keeper: &Machine) -> Vec<String> {
        data_disks(keeper).iter().map(|d| describe(keeper, d)).collect()
    }
}
