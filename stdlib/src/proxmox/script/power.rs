//! Power, snapshots, backups and moves of machines.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Map, NativeCallContext};

use super::hypervisor::value;
use crate::core::ctx::{RhaiResultOf, call};
use crate::core::op::Op;
use crate::proxmox::backup::BackupOptions;
use crate::proxmox::moves::{MigrateOptions, MoveDiskOptions};
use crate::proxmox::snapshot::SnapshotOptions;
use crate::proxmox::types::Vm;

#[export_module]
pub mod api {
    /// Starts the machine; nothing when it runs.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").start();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn start(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.start(&ctx).await })
    }

    /// Pulls the plug; nothing when the machine is off.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").stop();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn stop(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.stop(&ctx).await })
    }

    /// Asks the guest to power off; nothing when the machine is off.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").shutdown();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn shutdown(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.shutdown(&ctx).await })
    }

    /// Reboots the guest, which applies changes that wait for a restart.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").reboot();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn reboot(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.reboot(&ctx).await })
    }

    /// Presses the reset button of a running machine; changes that wait stay waiting.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").reset();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn reset(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.reset(&ctx).await })
    }

    /// Pauses a running machine; its memory stays.
    ///
    /// # Example
    /// ```rhai
    /// let vm = pve.get_vm("k3s-cp1");
    /// vm.suspend();
    /// vm.resume();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn suspend(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.suspend(&ctx).await })
    }

    /// Ends a pause; nothing when the machine runs.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").resume();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn resume(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.resume(&ctx).await })
    }

    /// Lists the snapshots, oldest first: maps with `name`, `snaptime` and `description`.
    ///
    /// # Example
    /// ```rhai
    /// for s in pve.get_vm("k3s-gpu1").list_snapshots() { print(s.name); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_snapshots(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<Array> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move {
            let op = Op::read("proxmox", "list_snapshots", vm.name());
            ctx.run_op(op, |_| async { Ok(vm.snapshots(&ctx).await?.iter().map(value).collect()) }).await
        })
    }

    /// Makes a snapshot of the disks exist.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-gpu1").ensure_snapshot("before-driver");
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "ensure_snapshot")]
    pub fn ensure_snapshot_default(ncc: NativeCallContext, vm: &mut Vm, name: &str) -> RhaiResultOf<()> {
        ensure_snapshot(ncc, vm, name, Map::new())
    }

    /// Makes a snapshot exist.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-gpu1").ensure_snapshot("before-driver", #{ description: "driver 580" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_snapshot(ncc: NativeCallContext, vm: &mut Vm, name: &str, options: Map) -> RhaiResultOf<()> {
        let o = SnapshotOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let (vm, name) = (vm.clone(), name.to_owned());
        call(&ncc, |ctx| async move { vm.ensure_snapshot(&ctx, &name, &o).await })
    }

    /// Takes the disks back to a snapshot: what came after is lost.
    ///
    /// Servers of the cluster are refused: etcd's disks must not go back in time.
    ///
    /// # Example
    /// ```rhai
    /// let vm = pve.get_vm("k3s-gpu1");
    /// vm.ensure_snapshot("before-driver");
    /// vm.rollback("before-driver");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn rollback(ncc: NativeCallContext, vm: &mut Vm, name: &str) -> RhaiResultOf<()> {
        let (vm, name) = (vm.clone(), name.to_owned());
        call(&ncc, |ctx| async move { vm.rollback(&ctx, &name).await })
    }

    /// Removes a snapshot; says whether it was there.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-gpu1").remove_snapshot("before-driver");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_snapshot(ncc: NativeCallContext, vm: &mut Vm, name: &str) -> RhaiResultOf<bool> {
        let (vm, name) = (vm.clone(), name.to_owned());
        call(&ncc, |ctx| async move { vm.remove_snapshot(&ctx, &name).await })
    }

    /// Backs the machine up to a storage; gives the volume id of the backup.
    ///
    /// # Example
    /// ```rhai,check
    /// let volid = pve.get_vm("nfs1").backup("local");
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "backup")]
    pub fn backup_default(ncc: NativeCallContext, vm: &mut Vm, storage: &str) -> RhaiResultOf<String> {
        backup(ncc, vm, storage, Map::new())
    }

    /// Backs the machine up to a storage; gives the volume id of the backup.
    ///
    /// # Example
    /// ```rhai,check
    /// let volid = pve.get_vm("nfs1").backup("local", #{ mode: "stop", notes: "before the move" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn backup(ncc: NativeCallContext, vm: &mut Vm, storage: &str, options: Map) -> RhaiResultOf<String> {
        let o = BackupOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let (vm, storage) = (vm.clone(), storage.to_owned());
        call(&ncc, |ctx| async move { vm.backup(&ctx, &storage, &o).await })
    }

    /// Puts a backup of this machine in its place: its present disks are lost.
    ///
    /// # Example
    /// ```rhai,check
    /// let vm = pve.get_vm("nfs1");
    /// let volid = vm.backup("local", #{ mode: "stop" });
    /// vm.shutdown();
    /// vm.restore(volid);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn restore(ncc: NativeCallContext, vm: &mut Vm, volid: &str) -> RhaiResultOf<()> {
        let (vm, volid) = (vm.clone(), volid.to_owned());
        call(&ncc, |ctx| async move { vm.restore(&ctx, &volid).await })
    }

    /// Moves the machine to another hypervisor node, running or not; gives its handle there.
    ///
    /// # Example
    /// ```rhai,check
    /// let vm = pve.get_vm("k3s-cp1").migrate("pve2");
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "migrate")]
    pub fn migrate_default(ncc: NativeCallContext, vm: &mut Vm, pve_node: &str) -> RhaiResultOf<Vm> {
        migrate(ncc, vm, pve_node, Map::new())
    }

    /// Moves the machine to another hypervisor node, running or not; gives its handle there.
    ///
    /// # Example
    /// ```rhai,check
    /// let vm = pve.get_vm("k3s-cp1").migrate("pve2", #{ with_disks: true });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn migrate(ncc: NativeCallContext, vm: &mut Vm, pve_node: &str, options: Map) -> RhaiResultOf<Vm> {
        let o = MigrateOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let (vm, target) = (vm.clone(), pve_node.to_owned());
        call(&ncc, |ctx| async move { vm.migrate(&ctx, &target, &o).await })
    }

    /// Moves a disk to another storage.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("nfs1").move_disk("scsi0", "local-zfs");
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "move_disk")]
    pub fn move_disk_default(ncc: NativeCallContext, vm: &mut Vm, disk: &str, storage: &str) -> RhaiResultOf<()> {
        move_disk(ncc, vm, disk, storage, Map::new())
    }

    /// Moves a disk to another storage; the old volume goes unless `keep_source: true`.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("nfs1").move_disk("scsi0", "local-zfs", #{ keep_source: true });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn move_disk(ncc: NativeCallContext, vm: &mut Vm, disk: &str, storage: &str, options: Map) -> RhaiResultOf<()> {
        let o = MoveDiskOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let (vm, disk, storage) = (vm.clone(), disk.to_owned(), storage.to_owned());
        call(&ncc, |ctx| async move { vm.move_disk(&ctx, &disk, &storage, &o).await })
    }

    /// Turns a machine that is no node of the site into a template; nothing when it is one.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm(9000).convert_to_template();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn convert_to_template(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.convert_to_template(&ctx).await })
    }
}
