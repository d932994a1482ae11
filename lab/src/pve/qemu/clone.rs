//! Full and linked clones. As on the server a clone begins as an almost empty, locked config; its settings are written
//! with its first drive, and it joins its pool when all is done and the lock is gone.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props::{self, Prop, Props};
use serde::{Deserialize, Serialize};

use super::{conf, create, drive, new_mac, perms, spawn, unlocked};
use crate::pve::params::{b, cid, dns_name, e, f, n, node as node_param, poolid, req, t, vmid};
use crate::pve::reply::{ApiError, Reply};
use crate::pve::router::Call;
use crate::pve::state::Vm;
use crate::pve::task::{self, Job, Step};
use crate::pve::{content, space, storage, text};
use crate::world::World;

/// A clone to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Clone {
    /// Source.
    pub source: u32,
    /// New id.
    pub vmid: u32,
    /// Node of the source.
    pub node: String,
    /// Node of the clone.
    pub target: String,
    /// Full or linked.
    pub full: bool,
    /// Storage of the new disks.
    pub storage: Option<String>,
    /// Format of the new disks.
    pub format: Option<String>,
    /// Snapshot of the source that is cloned instead of its present state.
    #[serde(default)]
    pub snapname: Option<String>,
    /// Name of the clone.
    #[serde(default)]
    pub name: Option<String>,
    /// Its description instead of the source's.
    #[serde(default)]
    pub description: Option<String>,
    /// Pool that it joins at the end.
    #[serde(default)]
    pub pool: Option<String>,
}

/// The notes of a clone's config before its settings are in it.
const TEMPORARY: &str = " qmclone temporary file";
/// How long a worker waits for the locks of both configs.
const LOCK_MS: u64 = 1000;

/// Parts of a copy, for the progress lines.
const CHUNKS: u32 = 10;

/// `POST /nodes/{node}/qemu/{vmid}/clone`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, source: u32) -> Reply {
    let p = &c.params;
    let who = c.who()?;
    let newid = u32::try_from(p.int("newid").unwrap_or(0)).unwrap_or(0);
    let pool = p.get("pool");
    w.pve.need(who, &format!("/vms/{source}"), "VM.Clone")?;
    w.pve.need_vm(who, newid, pool.as_deref(), "VM.Allocate").map_err(|_| create::bare_denial())?;
    p.check(&[
        req(vmid("newid")),
        f("name", dns_name),
        t("description"),
        f("pool", poolid),
        Prop { max_len: Some(40), ..cid("snapname") },
        f("storage", storage::id_format),
        e("format", &["raw", "qcow2", "vmdk"]),
        b("full"),
        node_param("target"),
        n("bwlimit"),
    ])?;
    if let Some(pl) = &pool
        && !w.pve.pools.contains_key(pl)
    {
        return Err(ApiError::fail(format!("pool '{pl}' does not exist")));
    }
    if let Some(s) = p.get("storage") {
        if let Err(e) = space::usable(w, &s, "images") {
            let off = w.pve.storages.get(&s).is_none_or(|s| s.disabled);
            let text = format!("storage '{s}' does not support vm images");
            return Err(if off { ApiError::fail(e) } else { ApiError::param("storage", text) });
        }
        w.pve.need(who, &format!("/storage/{s}"), "Datastore.AllocateSpace")?;
    }
    let target = p.get("target").unwrap_or_else(|| node.to_owned());
    let vm = super::vm(w, node, source)?.clone();
    unlocked(&vm).map_err(ApiError::fail)?;
    let template = vm.conf.get("template").is_some_and(|t| t == "1");
    let full = if p.get("full").is_some() { p.flag("full") } else { !template };
    perms::bridges(w, who, &vm.conf)?;
    let job = Clone {
        source,
        vmid: newid,
        node: node.to_owned(),
        target: target.clone(),
        full,
        storage: p.get("storage"),
        format: p.get("format"),
        snapname: p.get("snapname"),
        name: p.get("name"),
        description: p.get("description"),
        pool,
    };
    let vm = as_of(&vm, job.snapname.as_deref()).map_err(ApiError::fail)?;
    checks(w, &job, &vm)?;
    is_new(w, newid).map_err(ApiError::fail)?;
    spawn(w, c, node, "qmclone", source, Job::Clone(job))
}

fn is_new(w: &World, vmid: u32) -> Result<(), String> {
    if w.pve.vms.contains_key(&vmid) {
        return Err(format!("unable to create VM {vmid}: config file already exists"));
    }
    Ok(())
}

/// A VM as it was when a snapshot was made.
fn as_of(vm: &Vm, snapname: Option<&str>) -> Result<Vm, String> {
    let Some(name) = snapname else { return Ok(vm.clone()) };
    let s = vm.snapshots.get(name).ok_or_else(|| format!("snapshot '{name}' does not exist"))?;
    Ok(Vm { conf: s.conf.clone(), ..vm.clone() })
}

/// What the server refuses before it starts the task.
fn checks(w: &World, j: &Clone, vm: &Vm) -> Result<(), ApiError> {
    if !j.full {
        for (name, given) in [("storage", &j.storage), ("format", &j.format)] {
            if given.is_some() {
                return Err(ApiError::fail(format!("parameter '{name}' not allowed for linked clones")));
            }
        }
    }
    if !w.pve.nodes.contains_key(&j.target) {
        return Err(ApiError::fail(format!("no such cluster node '{}'", j.target)));
    }
    let shared = |id: &str| w.pve.storages.get(id).is_some_and(|s| s.shared);
    if j.target != j.node {
        if let Some(s) = j.storage.as_ref().filter(|s| !storage::on_node(w, s, &j.target)) {
            return Err(ApiError::fail(format!("storage '{s}' is not available on node '{}'", j.target)));
        }
        if let Some(s) = j.storage.as_ref().filter(|s| !shared(s)) {
            return Err(ApiError::fail(format!("can't clone to non-shared storage '{s}'")));
        }
        let volumes = conf::drives(&vm.conf);
        let local =
            volumes.iter().filter_map(|(_, p)| conf::volume(p)).any(|v| !shared(v.split(':').next().unwrap_or("")));
        if local {
            return Err(ApiError::fail(format!("can't clone VM to node '{}' (VM uses local storage)", j.target)));
        }
    }
    for (key, p) in conf::drives(&vm.conf) {
        let Some(volid) = conf::volume(&p) else { continue };
        if j.full || copied_always(&key, &p) || conf::is_cdrom(&p) {
            continue;
        }
        if j.snapname.is_some() {
            let what = format!("Linked clone feature is not supported for a snapshot of '{volid}' ({key})");
            return Err(ApiError::fail(what));
        }
        if !volid.contains("base-") {
            return Err(ApiError::fail(format!("Linked clone feature is not supported for '{volid}' ({key})")));
        }
    }
    Ok(())
}

fn copied_always(key: &str, p: &Props) -> bool {
    conf::is_cloudinit(p) || key == "tpmstate0"
}

/// The clone's config: everything but identity, locks, leftovers and the drives that are copied.
fn offspring(w: &mut World, j: &Clone, vm: &Vm) -> BTreeMap<String, String> {
    let mut conf: BTreeMap<String, String> = vm.conf.clone();
    conf.retain(|k, _| !matches!(k.as_str(), "template" | "lock" | "parent") && props::numbered(k).0 != "unused");
    for (k, p) in conf::drives(&vm.conf) {
        if conf::volume(&p).is_some() && (!conf::is_cdrom(&p) || conf::is_cloudinit(&p)) {
            conf.remove(&k);
        }
    }
    for (k, v) in &mut conf {
        if matches!(props::numbered(k), ("net", Some(_))) {
            let mut p = props::read("net0", v);
            p.insert("macaddr".into(), new_mac(w));
            *v = props::print("net0", &p);
        }
    }
    let mut smbios = props::read("smbios1", conf.get("smbios1").map(String::as_str).unwrap_or_default());
    smbios.insert("uuid".into(), w.uuid());
    conf.insert("smbios1".into(), props::print("smbios1", &smbios));
    if conf.contains_key("vmgenid") {
        conf.insert("vmgenid".into(), w.uuid());
    }
    let name = j.name.clone().unwrap_or_else(|| {
        let old = vm.conf.get("name").cloned().unwrap_or_else(|| j.source.to_string());
        format!("Copy-of-VM-{old}")
    });
    conf.insert("name".into(), name);
    // An empty one counts as none given.
    if let Some(d) = j.description.as_deref().map(|d| d.trim_end_matches('\n')).filter(|d| !d.is_empty()) {
        conf.insert("description".into(), d.to_owned());
    }
    conf.insert("lock".into(), "clone".into());
    conf
}

/// Takes the locks of both configs; then the new VM is there, as an empty config.
fn begin(w: &mut World, upid: &str, j: &Clone) -> Result<Step, String> {
    let has = |w: &World, vmid: u32| w.pve.tasks.get(upid).is_some_and(|t| t.locks.iter().any(|l| l.0 == vmid));
    let running = w.pve.vms.get(&j.source).is_some_and(|v| v.run.is_some());
    for (vmid, shared) in [(j.source, !running), (j.vmid, false)] {
        if !has(w, vmid)
            && let Some(wait) = task::lock(w, upid, vmid, shared, LOCK_MS)
        {
            return Ok(wait);
        }
    }
    let vm = super::task_vm(w, upid, j.source)?;
    unlocked(vm)?;
    let vm = as_of(vm, j.snapname.as_deref())?;
    is_new(w, j.vmid)?;
    task::log(w, upid, format!("creating a clone of VM {} with ID {}", j.source, j.vmid));
    let unwritten = offspring(w, j, &vm);
    let conf = [("lock", "clone"), ("description", TEMPORARY)].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let new = Vm { node: j.node.clone(), conf: conf.into(), unwritten, born_ms: w.now_ms, ..Vm::default() };
    w.pve.vms.insert(j.vmid, new);
    Ok(Step::Next(300))
}

/// Writes what is known of the clone into its config.
fn write(w: &mut World, vmid: u32) {
    if let Some(vm) = w.pve.vms.get_mut(&vmid).filter(|v| !v.unwritten.is_empty()) {
        vm.conf = vm.unwritten.clone();
    }
}

/// The last two steps: the lock goes and the config moves to its node, then the VM joins its pool.
fn finish(w: &mut World, j: &Clone) -> Step {
    write(w, j.vmid);
    match w.pve.vms.get_mut(&j.vmid).filter(|v| !v.unwritten.is_empty()) {
        Some(vm) => {
            vm.conf.remove("lock");
            vm.unwritten.clear();
            vm.node.clone_from(&j.target);
            Step::Next(20)
        }
        None => {
            if let Some(pool) = j.pool.as_ref().and_then(|p| w.pve.pools.get_mut(p)) {
                pool.vms.insert(j.vmid);
            }
            Step::Done
        }
    }
}

/// The drives that are copied, by key.
fn work(w: &World, j: &Clone) -> Vec<(String, Props)> {
    let source = w.pve.vms.get(&j.source).and_then(|vm| as_of(vm, j.snapname.as_deref()).ok());
    let Some(vm) = source else { return Vec::new() };
    let drives = conf::drives(&vm.conf).into_iter();
    drives.filter(|(_, p)| conf::volume(p).is_some() && (!conf::is_cdrom(p) || conf::is_cloudinit(p))).collect()
}

/// Runs a step of the clone: per drive one allocation and the parts of the copy.
pub fn run(w: &mut World, upid: &str, j: &Clone, n: u32) -> Step {
    if n == 0 {
        return begin(w, upid, j).into();
    }
    let (drive_no, part) = ((n - 1) / (CHUNKS + 1), (n - 1) % (CHUNKS + 1));
    let drives = work(w, j);
    let Some((key, p)) = drives.get(drive_no as usize) else {
        return finish(w, j);
    };
    let step = if part == 0 { allocate(w, upid, j, key, p) } else { copy(w, upid, j, key, part) };
    step.unwrap_or_else(|e| {
        undo(w, j);
        Step::Fail(format!("clone failed: {e}"))
    })
}

fn allocate(w: &mut World, upid: &str, j: &Clone, key: &str, p: &Props) -> Result<Step, String> {
    let old = conf::volume(p).unwrap_or_default().to_owned();
    let linked = !j.full && !copied_always(key, p);
    let (old_store, old_name) = old.split_once(':').ok_or_else(|| format!("unable to parse volume ID '{old}'"))?;
    let how = if linked { "linked" } else { "full" };
    task::log(w, upid, format!("create {how} clone of drive {key} ({old})"));
    let frozen =
        j.snapname.as_ref().and_then(|n| w.pve.vms.get(&j.source)?.snapshots.get(n)?.volumes.get(&old)).cloned();
    let volume = frozen.or_else(|| w.volumes.get(&old).cloned());
    let volume = volume.ok_or_else(|| format!("volume '{old}' does not exist"))?;
    let storage = j.storage.clone().unwrap_or_else(|| old_store.to_owned());
    let wait = space::storage_lock(w, &storage).inspect_err(|_| task::log(w, upid, "trying to acquire lock..."))?;
    let dir = w.pve.storages.get(&storage).is_some_and(crate::pve::state::Storage::is_dir);
    let mut new = p.clone();
    let volid = if conf::is_cloudinit(p) {
        let made = drive::cloudinit(w, &j.target, &storage, j.vmid, dir)?;
        if dir {
            let path = content::path_of(w, &made);
            task::log(w, upid, text::formatting(&path, "qcow2", 4 << 20, None));
        }
        made
    } else {
        let was = w.pve.files.get(&old).map(|f| f.format.clone()).unwrap_or_else(|| "raw".into());
        let format = match (dir, linked) {
            (true, true) => "qcow2".to_owned(),
            (true, false) => j.format.clone().unwrap_or_else(|| was.clone()),
            _ => "raw".into(),
        };
        let mut name = space::next_name(w, &storage, j.vmid, &format, "vm");
        if linked {
            if dir {
                let (file, to) = (name.rsplit('/').next().unwrap_or_default(), j.vmid);
                let line = format!("clone {old_name}: images, {file}, {to} to {file} (base=../{old_name})");
                task::log(w, upid, line);
                let path = content::path_of(w, &format!("{storage}:{name}"));
                let back = (format!("../{old_name}"), was);
                let back = Some((back.0.as_str(), back.1.as_str()));
                task::log(w, upid, text::formatting(&path, &format, volume.size, back));
            }
            name = format!("{old_name}/{name}");
        } else if dir {
            let path = content::path_of(w, &format!("{storage}:{name}"));
            task::log(w, upid, text::formatting(&path, &format, volume.size, None));
        }
        let base = linked.then(|| old.clone());
        let new = space::New {
            node: &j.target,
            storage: &storage,
            vmid: j.vmid,
            name,
            format: &format,
            kind: "images",
            base,
            volume,
        };
        space::create(w, new)?
    };
    if !linked {
        task::log(w, upid, format!("allocated target volume '{volid}'"));
    }
    let size = w.volumes.get(&volid).map_or(0, |v| v.size);
    new.insert("file".into(), volid);
    new.insert("size".into(), props::print_disk_size(size));
    if let Some(vm) = w.pve.vms.get_mut(&j.vmid) {
        vm.unwritten.insert(key.to_owned(), props::print(key, &new));
    }
    Ok(Step::Next(wait))
}

fn copy(w: &mut World, upid: &str, j: &Clone, key: &str, part: u32) -> Result<Step, String> {
    if part == CHUNKS {
        write(w, j.vmid);
    }
    let value = w.pve.vms.get(&j.vmid).and_then(|v| v.unwritten.get(key)).cloned().unwrap_or_default();
    let p = props::read(key, &value);
    let volid = conf::volume(&p).unwrap_or_default().to_owned();
    let Some(volume) = w.volumes.get(&volid) else { return Ok(Step::Next(0)) };
    let size = volume.size;
    if size < 64 << 20 || w.pve.files.get(&volid).is_some_and(|f| f.base.is_some()) {
        return Ok(Step::Next(20));
    }
    // Copies at the same time share the disks.
    let running = w.pve.active.iter().filter_map(|u| w.pve.tasks.get(u));
    let rivals = running.filter(|t| matches!(t.job, Job::Clone(_))).count() as u64;
    let ms = drive::copy_ms(volume) * (4 + rivals.saturating_sub(1)) / 4 / u64::from(CHUNKS);
    if part == 1 {
        task::log(w, upid, format!("transferred 0.0 B of {} (0.00%)", space::pretty(size)));
    }
    let done = if part == CHUNKS { size } else { size / u64::from(CHUNKS) * u64::from(part) };
    let percent = f64::from(part) * 100.0 / f64::from(CHUNKS);
    task::log(w, upid, format!("transferred {} of {} ({percent:.2}%)", space::pretty(done), space::pretty(size)));
    Ok(Step::Next(ms))
}

/// Takes back what an aborted or failed clone had made.
pub fn undo(w: &mut World, j: &Clone) {
    create::undo(w, j.vmid);
}
