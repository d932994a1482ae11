//! Backups by vzdump and their return.
use std::time::Duration;

use serde_json::{Map, Value};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::{Op, OpScope};
use crate::options;

use super::ensure_vm::CONFIG;
use super::request;
use super::types::Vm;

options! {
    /// How to back a machine up.
    pub struct BackupOptions {
        /// `snapshot` (while it runs), `suspend` or `stop`.
        mode: String = "snapshot".to_owned(),
        /// Compression: `zstd`, `gzip`, `lzo` or `0`.
        compress: String = "zstd".to_owned(),
        /// Text that Proxmox shows with it.
        notes: Option<String> = None,
        /// Whether pruning leaves it alone.
        keep: bool = false,
    }
}

const LIMIT: Duration = Duration::from_secs(24 * 3600);

fn newest(list: &Value, vmid: u32) -> Option<String> {
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let mine =
        all.iter().filter(|b| b["vmid"].as_u64().or_else(|| b["vmid"].as_str()?.parse().ok()) == Some(u64::from(vmid)));
    let last = mine.max_by_key(|b| (b["ctime"].as_u64(), b["volid"].as_str().map(str::to_owned)))?;
    last["volid"].as_str().map(str::to_owned)
}

impl Vm {
    /// Backs the machine up to a storage; gives the volume id of the backup.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours; `failed` with the last lines of the task.
    pub async fn backup(&self, ctx: &Ctx, storage: &str, o: &BackupOptions) -> OpResult<String> {
        let op = Op::run("proxmox", "backup", self.name()).args(&(storage, &o.mode));
        ctx.run_op(op, |s| async move {
            let m = self.own(ctx, "back it up").await?;
            if o.mode == "snapshot" && m.config.keys().any(|k| k.starts_with("hostpci")) && self.is_running(ctx).await? {
                s.waiting("a running machine with passed-through devices: Proxmox may refuse mode `snapshot`, `stop` always works");
            }
            let change = Change::new(self.name(), "backup", None, Some(storage.into()));
            s.act(format!("vzdump {}", self.vmid()), vec![change], async {
                let r = request::vzdump(&self.at, storage, &o.mode, &o.compress)
                    .set("notes-template", o.notes.clone())
                    .set("protected", o.keep.then_some(1));
                self.pve.change(&s, "the backup", &r, LIMIT).await?;
                let list = self.pve.send(ctx, &request::storage_content(self.pve_node(), storage, "backup")).await?;
                newest(&list, self.vmid()).ok_or_else(|| {
                    OpError::not_found(format!("the backup ended well, but {storage} does not show it"))
                        .hint("the token needs Datastore.Audit on the storage and VM.Backup on the VM")
                })
            })
            .await
        })
        .await
    }

    /// Puts a backup of this machine in its place: its present disks are lost.
    ///
    /// # Errors
    /// `denied` for a machine that is not ours, a server of the cluster, or when the user declines.
    pub async fn restore(&self, ctx: &Ctx, volid: &str) -> OpResult<()> {
        ctx.run_op(Op::destroy("proxmox", "restore", self.name()).args(&volid), |s| async move {
            self.own(ctx, "restore it").await?;
            self.not_a_server("restore")?;
            if self.is_running(ctx).await? {
                return Err(OpError::conflict(format!("{} runs", self.name())).hint("stop it first: `vm.shutdown()`"));
            }
            if !volid.contains(&format!("-{}-", self.vmid())) && !volid.contains(&format!("/{}/", self.vmid())) {
                return Err(OpError::refused(format!("`{volid}` is not a backup of VM {}", self.vmid())).hint(
                    "list its backups: `pve.get_storage(name).list_content(#{ content: \"backup\", vmid: vm.vmid })`",
                ));
            }
            let change = Change::new(self.name(), "disks", Some("present state".into()), Some(volid.into()));
            s.act(format!("restore {volid}"), vec![change], async {
                let protected = self.protect(&s, false).await?;
                let done = self.pve.change_once(&s, "the restore", &request::restore(&self.at, volid), LIMIT).await;
                // The backup may be older than the protection, and a failed restore leaves the machine without it.
                if !protected {
                    return done;
                }
                let back = self.protect(&s, true).await;
                done.and(back.map(|_| ()))
            })
            .await
        })
        .await
    }
}

impl Vm {
    /// Switches the protection against removal on or off; says whether it was the other way before.
    pub(super) async fn protect(&self, s: &OpScope, on: bool) -> OpResult<bool> {
        let m = self.read(s.ctx()).await?;
        if m.get("protection").is_some_and(|p| p == "1") == on {
            return Ok(false);
        }
        let set = Map::from_iter([("protection".to_owned(), Value::from(u8::from(on)))]);
        let r = request::put_config(&self.at, set, &[], m.digest().as_deref());
        let what = if on { "switching protection on" } else { "switching protection off" };
        self.pve.change(s, what, &r, CONFIG).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_backup_of_the_machine_is_found() {
        let b = |vmid: u32, t: u64| json!({"volid": format!("nas:backup/vzdump-qemu-{vmid}-{t}.vma.zst"), "vmid": vmid, "ctime": t});
        let list = json!([b(201, 5), b(201, 9), b(202, 99), b(201, 7)]);
        assert_eq!(newest(&list, 201).as_deref(), Some("nas:backup/vzdump-qemu-201-9.vma.zst"));
        assert_eq!(newest(&list, 203), None);
    }
}
