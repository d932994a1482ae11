//! Creating a VM.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props;
use serde::{Deserialize, Serialize};

use super::{conf, drive, new_mac, perms, spawn};
use crate::pve::params::{b, f, n, poolid, req, t, vmid};
use crate::pve::reply::{ApiError, Reply};
use crate::pve::router::Call;
use crate::pve::state::Vm;
use crate::pve::task::{self, Job, Step};
use crate::pve::{space, storage};
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
        t("archive"),
        f("storage", storage::id_format),
        n("bwlimit"),
        b("ha-managed"),
        b("live-restore"),
        t("node"),
        t("import-working-storage"),
    ];
    p.check_with(&spec, |k| super::config::option_check(k))?;
    let id = u32::try_from(p.int("vmid").unwrap_or(0)).unwrap_or(0);
    let who = c.who()?;
    let pool = p.get("pool");
    w.pve.need_vm(who, id, pool.as_deref(), "VM.Allocate").map_err(|_| bare_denial())?;
    if let Some(pl) = pool.as_ref().filter(|pl| !w.pve.pools.contains_key(*pl)) {
        return Err(ApiError::fail(format!("pool '{pl}' does not exist")));
    }
    if p.get("archive").is_some() {
        return Err(ApiError::fail("unable to restore: the lab keeps no backups"));
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
    if let Some(vm) = w.pve.vms.get(&id) {
        let text = format!("unable to create VM {id} - VM {id} already exists on node '{}'", vm.node);
        return Err(ApiError::fail(text));
    }
    let drives: Vec<(String, String)> =
        options.iter().filter(|(k, _)| props::is_drive(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
    options.retain(|k, _| !props::is_drive(k));
    let mut vm = Vm { node: node.to_owned(), born_ms: w.now_ms, ..Vm::default() };
    for (k, v) in options {
        if let Some(v) = super::config::normal(w, &k, &v) {
            vm.conf.insert(k, v);
        }
    }
    birth_marks(w, &mut vm);
    vm.conf.insert("lock".into(), "create".into());
    w.pve.vms.insert(id, vm);
    if let Some(pl) = pool.and_then(|pl| w.pve.pools.get_mut(&pl)) {
        pl.vms.insert(id);
    }
    let job = Create { vmid: id, node: node.to_owned(), drives, start: p.flag("start") };
    spawn(w, c, node, "qmcreate", id, Job::Create(job))
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
                undo(w, j);
                Err(format!("unable to create VM {} - {e}", j.vmid))
            }
        };
    }
    let Some(vm) = w.pve.vms.get_mut(&j.vmid) else { return Err("config vanished".into()) };
    vm.conf.remove("lock");
    if !vm.conf.contains_key("boot") {
        let order = default_boot(&vm.conf);
        if !order.is_empty() {
            vm.conf.insert("boot".into(), format!("order={order}"));
        }
    }
    if j.start {
        let who = w.pve.tasks.get(upid).map(|t| crate::pve::acl::Who { user: t.user.clone(), token: t.token.clone() });
        task::unlock(w, upid);
        if let Some(who) = who {
            task::start(w, &j.node, "qmstart", &j.vmid.to_string(), &who, Job::Start { vmid: j.vmid });
        }
    }
    Ok(Step::Done)
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
pub fn undo(w: &mut World, j: &Create) {
    let mine: Vec<String> = w.pve.files.iter().filter(|(_, f)| f.vmid == j.vmid).map(|(id, _)| id.clone()).collect();
    for id in mine {
        space::free(w, &id);
    }
    w.pve.vms.remove(&j.vmid);
    for p in w.pve.pools.values_mut() {
        p.vms.remove(&j.vmid);
    }
}
