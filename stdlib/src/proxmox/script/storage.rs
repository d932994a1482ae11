//! Storages and tasks.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map, NativeCallContext};

use super::hypervisor::list;
use crate::core::ctx::{List, RhaiResultOf, call};
use crate::core::units::{Duration, Size};
use crate::proxmox::storage::{FileOptions, ListContent, Storage};
use crate::proxmox::tasks::{ListTasks, Task};
use crate::proxmox::types::Proxmox;

fn texts(all: Vec<String>) -> Array {
    all.into_iter().map(Dynamic::from).collect()
}

#[export_module]
pub mod api {
    /// Lists the storages of the site's hypervisor node.
    ///
    /// # Example
    /// ```rhai
    /// for s in pve.list_storage() { print(`${s.name}: ${s.kind}, ${s.free} free`); }
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "list_storage")]
    pub fn list_storage_default(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<List<Storage>> {
        let node = pve.section().pve_node.clone();
        list_storage(ncc, pve, &node)
    }

    /// Lists the storages that a hypervisor node sees.
    ///
    /// # Example
    /// ```rhai
    /// let common = pve.list_storage("pve1").filter(|s| s.is_on_all_nodes);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_storage(ncc: NativeCallContext, pve: &mut Proxmox, pve_node: &str) -> RhaiResultOf<List<Storage>> {
        let (pve, node) = (pve.clone(), pve_node.to_owned());
        call(&ncc, |ctx| async move { Ok(pve.storages(&ctx, &node).await?.into_iter().map(Dynamic::from).collect()) })
    }

    /// Gives a storage of the site's hypervisor node; an error when there is none.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_storage("local-zfs").free);
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "get_storage")]
    pub fn get_storage_default(ncc: NativeCallContext, pve: &mut Proxmox, name: &str) -> RhaiResultOf<Storage> {
        let node = pve.section().pve_node.clone();
        get_storage(ncc, pve, name, &node)
    }

    /// Gives a storage as a hypervisor node sees it; an error when there is none.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_storage("local-zfs", "pve1").content);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_storage(ncc: NativeCallContext, pve: &mut Proxmox, name: &str, pve_node: &str) -> RhaiResultOf<Storage> {
        let (pve, name, node) = (pve.clone(), name.to_owned(), pve_node.to_owned());
        call(&ncc, |ctx| async move { pve.storage(&ctx, &node, &name).await })
    }

    /// Lists all volumes: maps with `volid`, `content`, `size` and `vmid`.
    ///
    /// # Example
    /// ```rhai
    /// for v in pve.get_storage("local").list_content() { print(v.volid); }
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "list_content")]
    pub fn list_all_content(ncc: NativeCallContext, storage: &mut Storage) -> RhaiResultOf<Array> {
        list_content(ncc, storage, Map::new())
    }

    /// Lists the volumes of a content type or of a VM.
    ///
    /// # Example
    /// ```rhai
    /// let isos = pve.get_storage("local").list_content(#{ content: "iso" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_content(ncc: NativeCallContext, storage: &mut Storage, options: Map) -> RhaiResultOf<Array> {
        let o = ListContent::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let storage = storage.clone();
        call(&ncc, |ctx| async move { Ok(list(&storage.list_content(&ctx, &o).await?)) })
    }

    /// Sends a local file to the storage; nothing when it is there. Gives its volume id.
    ///
    /// # Example
    /// ```rhai
    /// write_file("seed.iso", "an image");
    /// let volid = pve.get_storage("local").upload("seed.iso", #{ content: "iso" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn upload(ncc: NativeCallContext, storage: &mut Storage, path: &str, options: Map) -> RhaiResultOf<String> {
        let o = FileOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let (storage, path) = (storage.clone(), path.to_owned());
        call(&ncc, |ctx| async move { storage.upload(&ctx, &path, &o).await })
    }

    /// Lets the hypervisor download a file; nothing when it is there. Gives its volume id.
    ///
    /// # Example
    /// ```rhai
    /// let t = site().template;
    /// let volid = pve.get_storage("local").download_url(t.image_url, #{ content: "import", sha512: t.image_sha512 });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn download_url(
        ncc: NativeCallContext,
        storage: &mut Storage,
        url: &str,
        options: Map,
    ) -> RhaiResultOf<String> {
        let o = FileOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let (storage, url) = (storage.clone(), url.to_owned());
        call(&ncc, |ctx| async move { storage.download_url(&ctx, &url, &o).await })
    }

    /// Lists the newest tasks of all hypervisor nodes.
    ///
    /// # Example
    /// ```rhai
    /// for t in pve.tasks() { print(`${t.kind} ${t.id}: ${t.status}`); }
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "tasks")]
    pub fn all_tasks(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<List<Task>> {
        tasks(ncc, pve, Map::new())
    }

    /// Lists tasks of a node, a VM or a type; those that failed, or those that run.
    ///
    /// # Example
    /// ```rhai
    /// for t in pve.tasks(#{ errors: true }) { print(t.log()); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn tasks(ncc: NativeCallContext, pve: &mut Proxmox, options: Map) -> RhaiResultOf<List<Task>> {
        let o = ListTasks::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let pve = pve.clone();
        call(&ncc, |ctx| async move { Ok(pve.tasks(&ctx, &o).await?.into_iter().map(Dynamic::from).collect()) })
    }

    /// Waits for the end of a task and gives its warnings.
    ///
    /// An error with its last lines when it failed.
    ///
    /// # Example
    /// ```rhai
    /// for t in pve.tasks(#{ running: true }) { t.wait(10.minutes); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn wait(ncc: NativeCallContext, task: &mut Task, timeout: Duration) -> RhaiResultOf<List<String>> {
        let task = task.clone();
        call(&ncc, |ctx| async move { task.wait(&ctx, timeout.0).await.map(texts) })
    }

    /// Gives all lines of a task's log.
    ///
    /// # Example
    /// ```rhai
    /// for t in pve.tasks(#{ kind: "qmclone", limit: 1 }) { print(t.log()); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn log(ncc: NativeCallContext, task: &mut Task) -> RhaiResultOf<List<String>> {
        let task = task.clone();
        call(&ncc, |ctx| async move { task.log(&ctx).await.map(texts) })
    }

    /// Name of the storage.
    #[rhai_fn(global, get = "name", pure)]
    pub fn storage_name(storage: &mut Storage) -> String {
        storage.name().to_owned()
    }
    /// Kind of the storage: `dir`, `zfspool`, `lvmthin`, `nfs` and others.
    #[rhai_fn(global, get = "kind", pure)]
    pub fn storage_kind(storage: &mut Storage) -> String {
        storage.kind().to_owned()
    }
    /// Hypervisor node that was asked.
    #[rhai_fn(global, get = "pve_node", pure)]
    pub fn storage_pve_node(storage: &mut Storage) -> String {
        storage.pve_node().to_owned()
    }
    /// Content types that the storage takes.
    #[rhai_fn(global, get = "content", pure)]
    pub fn storage_content(storage: &mut Storage) -> Array {
        texts(storage.content())
    }
    /// Whether all hypervisor nodes see the same volumes.
    #[rhai_fn(global, get = "is_on_all_nodes", pure)]
    pub fn storage_is_shared(storage: &mut Storage) -> bool {
        storage.is_shared()
    }
    /// Whether the storage can be used now.
    #[rhai_fn(global, get = "is_active", pure)]
    pub fn storage_is_active(storage: &mut Storage) -> bool {
        storage.is_active()
    }
    /// Size of the storage.
    #[rhai_fn(global, get = "total", pure)]
    pub fn storage_total(storage: &mut Storage) -> Size {
        storage.space().0
    }
    /// Used space.
    #[rhai_fn(global, get = "used", pure)]
    pub fn storage_used(storage: &mut Storage) -> Size {
        storage.space().1
    }
    /// Free space.
    #[rhai_fn(global, get = "free", pure)]
    pub fn storage_free(storage: &mut Storage) -> Size {
        storage.space().2
    }
    /// The storage as text.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn storage_text(storage: &mut Storage) -> String {
        format!("{} ({}) on {}", storage.name(), storage.kind(), storage.pve_node())
    }
    /// Id of the task.
    #[rhai_fn(global, get = "upid", pure)]
    pub fn task_upid(task: &mut Task) -> String {
        task.upid().to_owned()
    }
    /// Type of the task, for example `qmclone`.
    #[rhai_fn(global, get = "kind", pure)]
    pub fn task_kind(task: &mut Task) -> String {
        task.kind().to_owned()
    }
    /// What the task works on: a VM id, a file name.
    #[rhai_fn(global, get = "id", pure)]
    pub fn task_id(task: &mut Task) -> String {
        task.id().to_owned()
    }
    /// Hypervisor node of the task.
    #[rhai_fn(global, get = "pve_node", pure)]
    pub fn task_pve_node(task: &mut Task) -> String {
        task.pve_node().to_owned()
    }
    /// Who started the task.
    #[rhai_fn(global, get = "user", pure)]
    pub fn task_user(task: &mut Task) -> String {
        task.user()
    }
    /// `running`, or how the task ended.
    #[rhai_fn(global, get = "status", pure)]
    pub fn task_status(task: &mut Task) -> String {
        task.status().to_owned()
    }
    /// Start of the task, in seconds since 1970.
    #[rhai_fn(global, get = "started", pure)]
    pub fn task_started(task: &mut Task) -> i64 {
        task.started()
    }
    /// The task as text.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn task_text(task: &mut Task) -> String {
        format!("{} {} on {}: {}", task.kind(), task.id(), task.pve_node(), task.status())
    }
}
