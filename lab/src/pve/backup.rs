//! Backups: `vzdump` and restoring.
use std::collections::BTreeMap;

use gpuhost_stdlib::wire::pve::props;
use serde::{Deserialize, Serialize};

use super::acl::Who;
use super::params::{b, e, f, n, opt, pat, range, req, short, t, vmids, with};
use super::prune::{keep_format, marks};
use super::qemu::{self, conf, drive};
use super::reply::{ApiError, Reply, data};
use super::router::Call;
use super::state::{Storage, Vm};
use super::task::{self, Job, Step};
use super::{content, space, storage, text};
use crate::volume::{Content, Volume};
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::{Prop, Ty};

/// A backup run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backup {
    /// VMs of this node.
    pub vms: Vec<u32>,
    /// Node.
    pub node: String,
    /// Storage.
    pub storage: String,
    /// `snapshot`, `suspend`, `stop`.
    pub mode: String,
    /// End of the file name.
    pub suffix: String,
    /// Notes with `{{guestname}}` and such.
    pub notes: Option<String>,
    /// Protects the backup.
    pub protected: bool,
    /// Which old ones stay, `keep-last=3`.
    pub keep: Option<String>,
}

/// A VM that comes back from a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restore {
    /// VM.
    pub vmid: u32,
    /// Node.
    pub node: String,
    /// The backup.
    pub archive: String,
    /// Storage of the disks; without one they go where they were.
    pub storage: Option<String>,
    /// Pool.
    pub pool: Option<String>,
    /// New MAC addresses and UUID.
    pub unique: bool,
    /// Start it afterwards.
    pub start: bool,
    /// Options that replace those of the backup.
    pub options: BTreeMap<String, String>,
    /// Whether a VM is replaced.
    pub replaces: bool,
}

const COMPRESS: &[&str] = &["0", "1", "gzip", "lzo", "zstd"];
const MODES: &[&str] = &["snapshot", "suspend", "stop"];
const NOTIFY: &[&str] = &["auto", "legacy-sendmail", "notification-system"];

/// Parameters that `vzdump` and backup jobs share.
pub const COMMON: &[Prop] = &[
    b("all"),
    n("bwlimit"),
    e("compress", COMPRESS),
    t("dumpdir"),
    f("exclude", vmids),
    t("exclude-path"),
    t("fleecing"),
    range("ionice", 0, 8),
    n("lockwait"),
    e("mailnotification", &["always", "failure"]),
    t("mailto"),
    Prop { min: Some(1.0), ..opt("maxfiles", Ty::Int) },
    e("mode", MODES),
    with(short("notes-template", 1024), "storage"),
    e("notification-mode", NOTIFY),
    e("pbs-change-detection-mode", &["legacy", "data", "metadata"]),
    t("performance"),
    opt("pigz", Ty::Int),
    t("pool"),
    with(b("protected"), "storage"),
    f("prune-backups", keep_format),
    b("quiet"),
    b("remove"),
    t("script"),
    b("stdexcludes"),
    b("stop"),
    n("stopwait"),
    f("storage", storage::id_format),
    t("tmpdir"),
    f("vmid", vmids),
    opt("zstd", Ty::Int),
];

/// Parameters that 8.x has besides.
pub const ONLY_8: &[Prop] = &[e("notification-policy", &["always", "failure", "never"]), t("notification-target")];

fn no_blank(v: &str) -> bool {
    !v.is_empty() && !v.contains(char::is_whitespace)
}

/// `POST /nodes/{node}/vzdump`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str) -> Reply {
    let p = &c.params;
    let mut spec = COMMON.to_vec();
    spec.extend([Prop { max_len: Some(50), ..pat("job-id", no_blank) }, b("stdout")]);
    if w.pve.is_8() {
        spec.extend_from_slice(ONLY_8);
    }
    p.check(&spec)?;
    let who = c.who()?.clone();
    for k in ["tmpdir", "dumpdir", "script", "job-id"] {
        if p.get(k).is_some() && !who.is_root() {
            return Err(ApiError::param(k, "Only root may set this option."));
        }
    }
    if p.flag("stdout") {
        return Err(ApiError::param("stdout", "option is only allowed on the command line interface."));
    }
    let (ids, all, pool) = (p.split("vmid"), p.flag("all"), p.get("pool"));
    if ids.is_empty() && !all && pool.is_none() && !p.flag("stop") {
        return Err(ApiError::param("vmid", "property is missing and it is not optional"));
    }
    if let Some(s) = p.get("storage") {
        w.pve.need(&who, &format!("/storage/{s}"), "Datastore.AllocateSpace")?;
        if p.get("prune-backups").is_some() {
            w.pve.need(&who, &format!("/storage/{s}"), "Datastore.Allocate")?;
        }
    }
    for k in ["bwlimit", "performance", "ionice"] {
        if p.get(k).is_some() {
            w.pve.need(&who, "/", "Sys.Modify")?;
        }
    }
    if p.flag("stop") {
        w.pve.need(&who, &format!("/nodes/{node}"), "Sys.Modify")?;
        let running = w.pve.active.iter().filter(|u| w.pve.tasks.get(*u).is_some_and(|t| t.kind == "vzdump"));
        for u in running.cloned().collect::<Vec<_>>() {
            task::abort(w, &u);
        }
        return data("OK");
    }
    let excluded = p.split("exclude");
    let chosen: Vec<u32> = match &pool {
        Some(id) => w.pve.pools.get(id).map(|p| p.vms.iter().copied().collect()).unwrap_or_default(),
        None if all => w.pve.vms.keys().copied().collect(),
        None => ids.iter().filter_map(|v| v.parse().ok()).collect(),
    };
    let here = |v: &u32| w.pve.vms.get(v).is_none_or(|vm| vm.node == node);
    let vms: Vec<u32> = chosen.into_iter().filter(here).filter(|v| !excluded.contains(&v.to_string())).collect();
    if vms.is_empty() && !all {
        return data("OK");
    }
    let job = Backup {
        node: node.to_owned(),
        storage: p.get("storage").unwrap_or_else(|| "local".into()),
        mode: p.get("mode").unwrap_or_else(|| "snapshot".into()),
        suffix: match p.get("compress").as_deref() {
            Some("1" | "lzo") => "vma.lzo",
            Some("gzip") => "vma.gz",
            Some("zstd") => "vma.zst",
            _ => "vma",
        }
        .to_owned(),
        notes: p.get("notes-template"),
        protected: p.flag("protected"),
        keep: p.get("prune-backups").filter(|_| p.get("remove").is_none_or(|r| r == "1")),
        vms: vms.clone(),
    };
    start(w, node, &who, job)
}

/// `GET vzdump/extractconfig`: the config file that a backup holds.
///
/// # Errors
/// The server's refusal.
pub fn config_of(w: &World, c: &Call, node: &str) -> Reply {
    c.params.check(&[req(t("volume"))])?;
    let volid = c.params.text("volume");
    let who = c.who()?;
    let storage = volid.split(':').next().unwrap_or_default();
    w.pve.need(who, &format!("/storage/{storage}"), "Datastore.AllocateSpace")?;
    let here = w.pve.files.get(&volid).is_some_and(|f| f.node.is_empty() || f.node == node);
    match w.volumes.get(&volid).map(|v| &v.content) {
        Some(Content::Backup { conf, .. }) if here => {
            let lines = conf.iter().map(|(k, v)| format!("{k}: {}\n", v.replace('\n', "\\n")));
            data(lines.collect::<String>())
        }
        _ => Err(ApiError::fail(format!("volume '{volid}' does not exist"))),
    }
}

/// Starts a backup run.
///
/// # Errors
/// Never.
pub fn start(w: &mut World, node: &str, who: &Who, job: Backup) -> Reply {
    let id = if let [one] = job.vms[..] { one.to_string() } else { String::new() };
    data(task::start(w, node, "vzdump", &id, who, Job::Backup(job)))
}

/// Runs `vzdump`: per VM one step that locks and reads, and one that writes.
///
/// # Errors
/// The message the task ends with.
pub fn run(w: &mut World, upid: &str, j: &Backup, n: u32) -> Result<Step, String> {
    if n == 0 {
        let ids = j.vms.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let line = format!("INFO: starting new backup job: vzdump {ids} --storage {} --mode {}", j.storage, j.mode);
        task::log(w, upid, line);
        space::usable(w, &j.storage, "backup").map_err(|e| {
            if w.pve.storages.contains_key(&j.storage) {
                format!(
                    "could not get storage information for '{}': storage '{}' does not support backup content",
                    j.storage, j.storage
                )
            } else {
                format!("could not get storage information for '{}': {e}", j.storage)
            }
        })?;
        return Ok(Step::Next(200));
    }
    let (i, part) = (((n - 1) / 2) as usize, (n - 1) % 2);
    let Some(vmid) = j.vms.get(i).copied() else {
        let failed = w.pve.tasks.get(upid).is_some_and(|t| t.log.iter().any(|l| l.starts_with("ERROR:")));
        if failed {
            return Err("job errors".into());
        }
        task::log(w, upid, "INFO: Backup job finished successfully");
        return Ok(Step::Done);
    };
    if part == 0 {
        return Ok(begin(w, upid, j, vmid));
    }
    if w.pve.vms.get(&vmid).is_some_and(|v| v.conf.get("lock").is_some_and(|l| l == "backup"))
        && let Err(e) = write(w, upid, j, vmid)
    {
        fail(w, upid, vmid, &e);
    }
    qemu::unlock_config(w, vmid, "backup");
    Ok(Step::Next(200))
}

fn fail(w: &mut World, upid: &str, vmid: u32, why: &str) {
    task::log(w, upid, format!("ERROR: Backup of VM {vmid} failed - {why}"));
    let at = text::clock(w.now_ms);
    task::log(w, upid, format!("INFO: Failed at {at}"));
}

fn begin(w: &mut World, upid: &str, j: &Backup, vmid: u32) -> Step {
    task::log(w, upid, format!("INFO: Starting Backup of VM {vmid} (qemu)"));
    let at = text::clock(w.now_ms);
    task::log(w, upid, format!("INFO: Backup started at {at}"));
    let Some(vm) = w.pve.vms.get(&vmid).cloned() else {
        fail(w, upid, vmid, &format!("unable to find VM '{vmid}'"));
        return Step::Next(100);
    };
    if let Err(e) = qemu::unlocked(&vm) {
        fail(w, upid, vmid, &e);
        return Step::Next(100);
    }
    let running = vm.run.is_some();
    let mode = if running { j.mode.as_str() } else { "stop" };
    for line in [
        format!("INFO: status = {}", if running { "running" } else { "stopped" }),
        format!("INFO: backup mode: {mode}"),
        "INFO: ionice priority: 7".to_owned(),
        format!("INFO: VM Name: {}", vm.conf.get("name").map_or("", String::as_str)),
    ] {
        task::log(w, upid, line);
    }
    for (key, p) in saved_drives(&vm.conf) {
        let volid = conf::volume(&p).unwrap_or_default().to_owned();
        let size = p.get("size").cloned().unwrap_or_default();
        task::log(w, upid, format!("INFO: include disk '{key}' '{volid}' {size}"));
    }
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.conf.insert("lock".into(), "backup".into());
    }
    Step::Next(reading_ms(w, &vm.conf))
}

/// How long it takes to read a VM's drives.
fn reading_ms(w: &World, c: &BTreeMap<String, String>) -> u64 {
    let volumes = saved_drives(c).into_iter().filter_map(|(_, p)| w.volumes.get(conf::volume(&p)?));
    1500 + volumes.map(space::real_bytes).sum::<u64>() / (100 << 10)
}

/// The drives that a backup holds.
fn saved_drives(conf: &BTreeMap<String, String>) -> Vec<(String, props::Props)> {
    let all = conf::drives(conf).into_iter();
    all.filter(|(_, p)| {
        conf::volume(p).is_some()
            && !conf::is_cdrom(p)
            && !conf::is_cloudinit(p)
            && p.get("backup").is_none_or(|b| b != "0")
    })
    .collect()
}

fn write(w: &mut World, upid: &str, j: &Backup, vmid: u32) -> Result<(), String> {
    let Some(vm) = w.pve.vms.get(&vmid).cloned() else { return Err(format!("unable to find VM '{vmid}'")) };
    let mut conf = vm.conf.clone();
    conf.retain(|k, _| k != "lock" && k != "parent" && props::numbered(k).0 != "unused");
    let mut disks = BTreeMap::new();
    for (key, p) in saved_drives(&vm.conf) {
        let volid = conf::volume(&p).unwrap_or_default();
        let format = w.pve.files.get(volid).map_or_else(|| "raw".to_owned(), |f| f.format.clone());
        let volume = w.volumes.get(volid).cloned().ok_or_else(|| format!("volume '{volid}' does not exist"))?;
        disks.insert(key, (volume, format));
    }
    let size = 4096 + disks.values().map(|(v, _)| space::real_bytes(v)).sum::<u64>() / 2;
    let name = format!("backup/vzdump-qemu-{vmid}-{}.{}", text::stamp(w.now_ms), j.suffix);
    let path = content::path_of(w, &format!("{}:{name}", j.storage));
    task::log(w, upid, format!("INFO: creating vzdump archive '{path}'"));
    let volume = Volume::new(size, Content::Backup { conf: conf.clone(), disks });
    let new = space::New {
        node: &j.node,
        storage: &j.storage,
        vmid,
        name,
        format: &j.suffix,
        kind: "backup",
        base: None,
        volume,
    };
    let volid = space::create(w, new)?;
    let guest = conf.get("name").cloned().unwrap_or_default();
    let notes = j.notes.as_ref().map(|t| {
        t.replace("{{guestname}}", &guest)
            .replace("{{vmid}}", &vmid.to_string())
            .replace("{{node}}", &j.node)
            .replace("{{cluster}}", &w.pve.name)
            .replace("\\n", "\n")
    });
    if let Some(f) = w.pve.files.get_mut(&volid) {
        f.used = size;
        f.notes = notes;
        f.protected = j.protected;
    }
    task::log(w, upid, format!("INFO: archive file size: {}", space::pretty(size).replace(' ', "")));
    if let Some(keep) = &j.keep {
        let old = marks(w, &j.storage, &j.node, keep, Some(vmid));
        for (volid, mark) in old {
            if mark == "remove" {
                task::log(w, upid, format!("INFO: removing backup '{volid}'"));
                space::free(w, &volid);
            }
        }
    }
    let at = text::clock(w.now_ms);
    let s = reading_ms(w, &conf) / 1000;
    let took = format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
    task::log(w, upid, format!("INFO: Finished Backup of VM {vmid} ({took})"));
    task::log(w, upid, format!("INFO: Backup finished at {at}"));
    Ok(())
}

/// Checks what a restore needs before its task.
///
/// # Errors
/// The server's refusal.
pub fn restorable(w: &World, who: &Who, archive: &str) -> Result<(), ApiError> {
    let store = archive.split(':').next().unwrap_or_default();
    if !w.pve.storages.contains_key(store) {
        return Err(storage::missing(store));
    }
    w.pve.need(who, &format!("/storage/{store}"), "Datastore.AllocateSpace|Datastore.Allocate")?;
    match w.volumes.get(archive).map(|v| &v.content) {
        Some(Content::Backup { .. }) => Ok(()),
        _ => {
            let path = content::path_of(w, archive);
            Err(ApiError::fail(format!("volume '{archive}' does not exist ({path})")))
        }
    }
}

/// Runs `qmrestore`.
///
/// # Errors
/// The message the task ends with.
pub fn restore(w: &mut World, upid: &str, j: &Restore, n: u32) -> Result<Step, String> {
    restore_step(w, upid, j, n).inspect_err(|_| {
        qemu::unlock_config(w, j.vmid, "create");
        let line = "error before or during data restore, some or all disks were not completely restored. VM";
        task::log(w, upid, format!("{line} {} state is NOT cleaned up.", j.vmid));
    })
}

fn restore_step(w: &mut World, upid: &str, j: &Restore, n: u32) -> Result<Step, String> {
    let failed = |e: String| format!("unable to restore VM {} - {e}", j.vmid);
    let old = w.pve.vms.get(&j.vmid);
    // The text of the server has two dashes.
    if old.is_some_and(|v| v.conf.get("protection").is_some_and(|p| p == "1")) {
        return Err(failed("- protection mode enabled".into()));
    }
    if old.is_some_and(|v| v.run.is_some()) {
        return Err(failed("vm is running".into()));
    }
    if let Some(wait) = task::lock(w, upid, j.vmid, false, 10_000) {
        return Ok(wait);
    }
    let Some(Content::Backup { conf: saved, disks }) = w.volumes.get(&j.archive).map(|v| v.content.clone()) else {
        return Err(failed(format!("volume '{}' does not exist", j.archive)));
    };
    if n == 0 {
        let path = content::path_of(w, &j.archive);
        task::log(w, upid, format!("restore vma archive: vma extract -v -r /var/tmp/vzdumptmp.fifo {path}"));
        let bytes: u64 = disks.values().map(|(v, _)| space::real_bytes(v)).sum();
        return Ok(Step::Next(1500 + bytes / (100 << 10)));
    }
    if j.replaces {
        let old: Vec<String> = w
            .pve
            .vms
            .get(&j.vmid)
            .map(|v| conf::drives(&v.conf))
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(_, p)| conf::volume(&p).map(str::to_owned))
            .collect();
        for volid in old
            .into_iter()
            .filter(|v| w.pve.files.get(v).is_some_and(|f| f.vmid == j.vmid && f.content == "images"))
            .collect::<Vec<_>>()
        {
            space::free(w, &volid);
        }
    }
    let mut conf = saved.clone();
    for (key, p) in conf::drives(&saved) {
        if conf::is_cdrom(&p) && !conf::is_cloudinit(&p) {
            continue;
        }
        match place(w, upid, j, &key, &p, disks.get(&key)).map_err(failed)? {
            Some(value) => conf.insert(key, value),
            None => conf.remove(&key),
        };
    }
    for (k, v) in &mut conf {
        if j.unique && matches!(props::numbered(k), ("net", Some(_))) {
            let mut p = props::read("net0", v);
            p.insert("macaddr".into(), qemu::new_mac(w));
            *v = props::print("net0", &p);
        }
        if k == "vmgenid" || (j.unique && k == "smbios1") {
            let id = w.uuid();
            *v = if k == "vmgenid" { id } else { format!("uuid={id}") };
        }
    }
    for (k, v) in &j.options {
        if let Some(v) = qemu::config::normal(w, k, v) {
            conf.insert(k.clone(), v);
        }
    }
    let template = conf.remove("template").is_some();
    let born_ms = w.pve.vms.get(&j.vmid).map_or(w.now_ms, |v| v.born_ms);
    w.pve.vms.insert(j.vmid, Vm { node: j.node.clone(), conf, born_ms, ..Vm::default() });
    if let Some(p) = j.pool.as_ref().and_then(|p| w.pve.pools.get_mut(p)) {
        p.vms.insert(j.vmid);
    }
    task::log(w, upid, "rescan volumes...");
    if template {
        qemu::destroy::to_base(w, j.vmid, None);
    }
    if j.start {
        let who = w.pve.tasks.get(upid).map(|t| Who { user: t.user.clone(), token: t.token.clone() });
        task::unlock(w, upid);
        if let Some(who) = who {
            task::start(w, &j.node, "qmstart", &j.vmid.to_string(), &who, Job::Start { vmid: j.vmid });
        }
    }
    Ok(Step::Done)
}

/// Makes one drive of a restored VM; `None`: it was not in the backup.
fn place(
    w: &mut World,
    upid: &str,
    j: &Restore,
    key: &str,
    p: &props::Props,
    saved: Option<&(Volume, String)>,
) -> Result<Option<String>, String> {
    let was = conf::volume(p).and_then(|v| v.split(':').next()).unwrap_or_default().to_owned();
    let id = j.storage.clone().unwrap_or(was);
    let dir = w.pve.storages.get(&id).is_some_and(Storage::is_dir);
    let mut p = p.clone();
    let made = if conf::is_cloudinit(&p) {
        drive::cloudinit(w, &j.node, &id, j.vmid, dir)?
    } else {
        let Some((volume, format)) = saved.cloned() else { return Ok(None) };
        space::usable(w, &id, "images")?;
        let format = if dir { format } else { "raw".into() };
        let name = space::next_name(w, &id, j.vmid, &format, "vm");
        p.insert("size".into(), props::print_disk_size(volume.size));
        let new = space::New {
            node: &j.node,
            storage: &id,
            vmid: j.vmid,
            name,
            format: &format,
            kind: "images",
            base: None,
            volume,
        };
        let made = space::create(w, new)?;
        task::log(w, upid, format!("new volume ID is '{made}'"));
        made
    };
    p.insert("file".into(), made);
    Ok(Some(props::print(key, &p)))
}
