//! Creating a VM.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props;
use serde::{Deserialize, Serialize};

use super::{conf, drive, new_mac, perms, spawn};
use crate::pve::params::{b, f, n, poolid, req, short, vmid};
use crate::pve::reply::{ApiError, Reply};
use crate::pve::router::Call;
use crate::pve::state::Vm;
use crate::pve::task::{self, Job, Step};
use crate::pve::{backup, ha, space, storage};
use crate::world::World;

/// A VM to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Create {
    /// Id.
    pub vmid: u32,
    /// Node.
    pub node: String,
    /// Drives still to make, by key.
    pub drives: Vec<(String, String)>,
    /// Other options; they appear when everything is made.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Pool to join then.
    #[serde(default)]
    pub pool: Option<String>,
    /// Make it a resource of the manager.
    #[serde(default)]
    pub managed: bool,
    /// Start it afterwards.
    pub start: bool,
}

/// `POST /nodes/{node}/qemu`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str) -> Reply {
    let p = &c.params;
    let spec = [
        req(vmid("vmid")),
        f("pool", poolid),
        b("start"),
        b("unique"),
        b("force"),
        short("archive", 255),
        f("storage", storage::id_format),
        n("bwlimit"),
        b("ha-managed"),
        b("live-restore"),
        f("import-working-storage", storage::id_format),
    ];
    p.check_with(&spec, |k| super::config::option_check(k))?;
    let id = u32::try_from(p.int("vmid").unwrap_or(0)).unwrap_or(0);
    let who = c.who()?;
    let pool = p.get("pool");
    if let Some(s) = p.get("storage") {
        w.pve.need(who, &format!("/storage/{s}"), "Datastore.AllocateSpace")?;
    }
    if p.flag("ha-managed") {
        w.pve.need(who, "/", "Sys.Console")?;
    }
    if p.flag("start") {
        w.pve.need_vm(who, id, pool.as_deref(), "VM.PowerMgmt")?;
    }
    let replaces = p.flag("force") && p.get("archive").is_some() && w.pve.has(who, &format!("/vms/{id}"), "VM.Backup");
    if !replaces {
        w.pve.need_vm(who, id, pool.as_deref(), "VM.Allocate").map_err(|_| bare_denial())?;
    }
    if let Some(pl) = pool.as_ref().filter(|pl| !w.pve.pools.contains_key(*pl)) {
        return Err(ApiError::fail(format!("pool '{pl}' does not exist")));
    }
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    for k in p.0.keys().filter(|k| !spec.iter().any(|s| s.name == k.as_str())) {
        let v = p.text(k);
        perms::option(w, who, id, pool.as_deref(), k, Some(&v))?;
        options.insert(k.clone(), v);
    }
    for (k, v) in options.iter().filter(|(k, _)| props::is_drive(k)) {
        drive::check(w, k, v).map_err(ApiError::fail)?;
    }
    if let Some(archive) = p.get("archive") {
        return restore(w, c, node, id, &archive, options);
    }
    if let Some(vm) = w.pve.vms.get(&id) {
        let text = format!("unable to create VM {id} - VM {id} already exists on node '{}'", vm.node);
        return Err(ApiError::fail(text));
    }
    // A new VM is an empty, locked config until everything is made; only then it joins its pool.
    let conf = BTreeMap::from([("lock".to_owned(), "create".to_owned())]);
    w.pve.vms.insert(id, Vm { node: node.to_owned(), born_ms: w.now_ms, conf, ..Vm::default() });
    let (drives, options): (BTreeMap<_, _>, BTreeMap<_, _>) =
        options.into_iter().partition(|(k, _)| props::is_drive(k));
    let job = Create {
        vmid: id,
        node: node.to_owned(),
        drives: drives.into_iter().collect(),
        options,
        pool,
        start: p.flag("start"),
        managed: p.flag("ha-managed"),
    };
    spawn(w, c, node, "qmcreate", id, Job::Create(job))
}

/// Brings a VM back from a backup, over an existing one only with `force`.
fn restore(w: &mut World, c: &Call, node: &str, id: u32, archive: &str, options: BTreeMap<String, String>) -> Reply {
    let p = &c.params;
    let who = c.who()?.clone();
    if let Some(k) = options.keys().find(|k| props::is_drive(k)) {
        return Err(ApiError::param(k, "option conflicts with option 'archive'"));
    }
    backup::restorable(w, &who, archive)?;
    let fail = |text: String| Err(ApiError::fail(format!("unable to restore VM {id} - {text}")));
    let old = w.pve.vms.get(&id).cloned();
    match &old {
        Some(vm) if !p.flag("force") => return fail(format!("VM {id} already exists on node '{}'", vm.node)),
        // Protection and a running VM are found out by the task.
        Some(vm) => {
            if let Err(e) = super::unlocked(vm) {
                return fail(e);
            }
        }
        None => {}
    }
    let vm = w.pve.vms.entry(id).or_insert_with(|| Vm { node: node.to_owned(), ..Vm::default() });
    vm.conf.insert("lock".into(), "create".into());
    if old.is_none() {
        vm.born_ms = w.now_ms;
    }
    let job = backup::Restore {
        vmid: id,
        node: node.to_owned(),
        archive: archive.to_owned(),
        storage: p.get("storage"),
        pool: p.get("pool"),
        unique: p.flag("unique"),
        start: p.flag("start"),
        options,
        replaces: old.is_some(),
    };
    spawn(w, c, node, "qmrestore", id, Job::Restore(job))
}

/// A composite permission check fails without detail.
#[must_use]
pub fn bare_denial() -> ApiError {
    ApiError::status(403, "Permission check failed")
}

/// Identity of a new VM: UUID, generation id, creation data, MAC addresses.
fn birth_marks(w: &mut World, vm: &mut Vm) {
    let ctime = w.now_ms / 1000;
    let (uuid, generation) = (w.uuid(), w.uuid());
    let smbios = vm.conf.entry("smbios1".into()).or_default();
    if !smbios.contains("uuid=") {
        *smbios = if smbios.is_empty() { format!("uuid={uuid}") } else { format!("{smbios},uuid={uuid}") };
    }
    match vm.conf.get("vmgenid").map(String::as_str) {
        Some("0") => {
            vm.conf.remove("vmgenid");
        }
        None | Some("1") => {
            vm.conf.insert("vmgenid".into(), generation);
        }
        Some(_) => {}
    }
    vm.conf.insert("meta".into(), format!("creation-qemu=10.1.2,ctime={ctime}"));
}

/// Gives network cards without an address one.
pub fn fill_mac(w: &mut World, value: &str) -> String {
    let mut p = props::read("net0", value);
    if !p.contains_key("macaddr") {
        p.insert("macaddr".into(), new_mac(w));
    } else if let Some(m) = p.get_mut("macaddr") {
        *m = m.to_ascii_uppercase();
    }
    props::print("net0", &p)
}

/// Runs a step of the creation: one drive each, then the end.
///
/// # Errors
/// The message the task ends with.
pub fn run(w: &mut World, upid: &str, j: &Create, n: u32) -> Result<Step, String> {
    if n == 0
        && let Some(wait) = task::lock(w, upid, j.vmid, false, 10_000)
    {
        return Ok(wait);
    }
    if let Some((key, value)) = j.drives.get(n as usize) {
        return match drive::realize(w, Some(upid), &j.node, j.vmid, key, value) {
            Ok((printed, ms, _)) => {
                if let Some(vm) = w.pve.vms.get_mut(&j.vmid) {
                    vm.conf.insert(key.clone(), printed);
                }
                Ok(Step::Next(ms))
            }
            Err(e) => {
                undo(w, j.vmid);
                Err(format!("unable to create VM {} - {e}", j.vmid))
            }
        };
    }
    settle(w, j)?;
    if j.start {
        let who = w.pve.tasks.get(upid).map(|t| crate::pve::acl::Who { user: t.user.clone(), token: t.token.clone() });
        task::unlock(w, upid);
        if let Some(who) = who {
            task::start(w, &j.node, "qmstart", &j.vmid.to_string(), &who, Job::Start { vmid: j.vmid });
        }
    }
    Ok(Step::Done)
}

/// Everything is made: the options appear, and the VM joins its pool.
fn settle(w: &mut World, j: &Create) -> Result<(), String> {
    let mut made = Vm::default();
    for (k, v) in &j.options {
        if let Some(v) = super::config::normal(w, k, v) {
            made.conf.insert(k.clone(), v);
        }
    }
    birth_marks(w, &mut made);
    let Some(vm) = w.pve.vms.get_mut(&j.vmid) else { return Err("config vanished".into()) };
    vm.conf.remove("lock");
    vm.conf.extend(made.conf);
    if !vm.conf.contains_key("boot") {
        let order = default_boot(&vm.conf);
        let boot = if order.is_empty() { " ".to_owned() } else { format!("order={order}") };
        vm.conf.insert("boot".into(), boot);
    }
    if let Some(p) = j.pool.as_ref().and_then(|p| w.pve.pools.get_mut(p)) {
        p.vms.insert(j.vmid);
    }
    if j.managed {
        ha::request(w, j.vmid, if j.start { "started" } else { "stopped" });
    }
    Ok(())
}

/// Boot order the server chooses: the first disk, the first CD-ROM, the first network card.
fn default_boot(c: &BTreeMap<String, String>) -> String {
    let drives = conf::drives(c);
    let usable = |k: &str| k != "efidisk0" && k != "tpmstate0";
    let disk = drives.iter().find(|(k, p)| usable(k) && !conf::is_cdrom(p)).map(|d| d.0.clone());
    let cdrom = drives.iter().find(|(k, p)| usable(k) && conf::is_cdrom(p) && !conf::is_cloudinit(p));
    let net = c.keys().find(|k| matches!(props::numbered(k), ("net", Some(_))));
    [disk, cdrom.map(|d| d.0.clone()), net.cloned()].into_iter().flatten().collect::<Vec<_>>().join(";")
}

/// Takes back what an aborted or failed creation had made.
pub fn undo(w: &mut World, vmid: u32) {
    let mine: Vec<String> =
        w.pve.files.iter().filter(|(_, f)| f.vmid == vmid && f.content == "images").map(|(id, _)| id.clone()).collect();
    for id in mine {
        space::free(w, &id);
    }
    w.pve.vms.remove(&vmid);
    for p in w.pve.pools.values_mut() {
        p.vms.remove(&vmid);
    }
}
