//! Power: start, stop, shutdown, reboot, reset, pause; what a halted guest means.
use gpuhost_stdlib::wire::pve::props::Prop;

use super::{boot, conf, pci, spawn, task_vm, unlocked};
use crate::grades::missing;
use crate::pve::params::{b, e, f, n, node as node_param, short, t, with};
use crate::pve::reply::{ApiError, Reply, data};
use crate::pve::router::Call;
use crate::pve::state::Running;
use crate::pve::task::{self, Job, Step};
use crate::pve::{ha, space, storage};
use crate::world::World;
use crate::{Lab, guest};

/// `POST /nodes/{node}/qemu/{vmid}/status/{verb}`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, vmid: u32, verb: &str) -> Reply {
    let p = &c.params;
    let Some(spec) = parameters(w.pve.is_8(), verb) else { return Err(c.unknown()) };
    let who = c.who()?;
    w.pve.need(who, &format!("/vms/{vmid}"), "VM.PowerMgmt")?;
    p.check(&spec)?;
    for k in ["skiplock", "stateuri", "migratedfrom", "migration_type", "migration_network", "keepActive", "force-cpu"]
    {
        if p.get(k).is_some_and(|v| v != "0") && !who.is_root() {
            return Err(ApiError::param(k, "Only root may use this option."));
        }
    }
    if let Some(reply) = managed(w, c, node, vmid, verb) {
        return reply;
    }
    let running = w.pve.vms.get(&vmid).is_some_and(|v| v.run.is_some());
    let must_run = || {
        if running { Ok(()) } else { Err(ApiError::fail(format!("VM {vmid} not running"))) }
    };
    let timeout = p.int("timeout").map(i64::unsigned_abs);
    match verb {
        "start" => spawn(w, c, node, "qmstart", vmid, Job::Start { vmid }),
        "stop" => {
            if p.flag("overrule-shutdown") {
                abort_shutdowns(w, vmid);
            }
            spawn(w, c, node, "qmstop", vmid, Job::Stop { vmid })
        }
        "shutdown" => {
            let job = Job::Shutdown { vmid, timeout: timeout.unwrap_or(60), force: p.flag("forceStop") };
            spawn(w, c, node, "qmshutdown", vmid, job)
        }
        "reboot" => {
            super::vm(w, node, vmid)?;
            must_run()?;
            spawn(w, c, node, "qmreboot", vmid, Job::Reboot { vmid, timeout: timeout.unwrap_or(60) })
        }
        "reset" => {
            super::vm(w, node, vmid)?;
            must_run()?;
            spawn(w, c, node, "qmreset", vmid, Job::Reset { vmid })
        }
        "suspend" => {
            super::vm(w, node, vmid)?;
            must_run()?;
            if p.flag("todisk") {
                w.pve.need(who, &format!("/vms/{vmid}"), "VM.Config.Disk")?;
                if let Some(s) = p.get("statestorage") {
                    w.pve.need(who, &format!("/storage/{s}"), "Datastore.AllocateSpace")?;
                    space::usable(w, &s, "images").map_err(ApiError::fail)?;
                }
                let job = Job::Hibernate { vmid, storage: p.get("statestorage") };
                return spawn(w, c, node, "qmsuspend", vmid, job);
            }
            spawn(w, c, node, "qmpause", vmid, Job::Pause { vmid, on: true })
        }
        "resume" => {
            let vm = super::vm(w, node, vmid)?;
            if vm.conf.get("lock").is_some_and(|l| l == "suspended") {
                return spawn(w, c, node, "qmresume", vmid, Job::Start { vmid });
            }
            must_run()?;
            spawn(w, c, node, "qmresume", vmid, Job::Pause { vmid, on: false })
        }
        _ => Err(c.unknown()),
    }
}

/// The parameters of each verb.
fn parameters(old: bool, verb: &str) -> Option<Vec<Prop>> {
    let skip = b("skiplock");
    let mut spec = match verb {
        "start" => vec![
            skip,
            t("force-cpu"),
            t("machine"),
            node_param("migratedfrom"),
            t("migration_network"),
            e("migration_type", &["secure", "insecure"]),
            t("nets-host-mtu"),
            short("stateuri", 128),
            t("targetstorage"),
            n("timeout"),
        ],
        "stop" => vec![skip, b("keepActive"), node_param("migratedfrom"), b("overrule-shutdown"), n("timeout")],
        "reset" => vec![skip],
        "shutdown" => vec![skip, b("forceStop"), b("keepActive"), n("timeout")],
        "reboot" => vec![n("timeout")],
        "suspend" => vec![skip, with(f("statestorage", storage::id_format), "todisk"), b("todisk")],
        "resume" => vec![skip, b("nocheck")],
        _ => return None,
    };
    if verb == "start" && !old {
        spec.push(b("with-conntrack-state"));
    }
    Some(spec)
}

/// Starting and stopping a resource of the manager asks the manager.
fn managed(w: &mut World, c: &Call, node: &str, vmid: u32, verb: &str) -> Option<Reply> {
    let state = ha::wanted(w, vmid).filter(|s| s != "ignored")?;
    let running = w.pve.vms.get(&vmid).is_some_and(|v| v.run.is_some());
    let (kind, text, wanted) = match verb {
        "start" => ("hastart", "start", "started"),
        "stop" | "shutdown" if running || state == "started" => ("hastop", "stop", "stopped"),
        _ => return None,
    };
    let who = c.who().ok()?.clone();
    let upid = task::start(w, node, kind, &vmid.to_string(), &who, Job::Over);
    task::log(w, &upid, format!("Requesting HA {text} for VM {vmid}"));
    ha::request(w, vmid, wanted);
    Some(data(upid))
}

fn abort_shutdowns(w: &mut World, vmid: u32) {
    let shuts =
        |u: &&String| w.pve.tasks.get(*u).is_some_and(|t| matches!(t.job, Job::Shutdown { vmid: v, .. } if v == vmid));
    for upid in w.pve.active.iter().filter(shuts).cloned().collect::<Vec<_>>() {
        task::finish(w, &upid, Some("received interrupt".into()));
    }
}

/// Runs `qmsuspend`: the memory goes to a volume, the VM is off and locked until it is started again.
///
/// # Errors
/// The message the task ends with.
pub fn hibernate(
    lab: &Lab,
    w: &mut World,
    upid: &str,
    vmid: u32,
    storage: Option<&str>,
    step: u32,
) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    let vm = task_vm(w, upid, vmid)?.clone();
    if step == 0 {
        unlocked(&vm)?;
        if vm.run.is_none() {
            return Err(format!("VM {vmid} not running"));
        }
        if vm.run.as_ref().is_some_and(|r| !r.cards.is_empty()) {
            return Err("VM uses passed-through devices, cannot suspend to disk".into());
        }
        if let Some(vm) = w.pve.vms.get_mut(&vmid) {
            vm.conf.insert("lock".into(), "suspending".into());
        }
        return Ok(Step::Next(1000 + conf::memory_mib(&vm.conf) * 4));
    }
    let what = format!("state-suspend-{}", crate::pve::text::stamp(w.now_ms).split('-').next().unwrap_or_default());
    let made = super::snapshot::memory_volume(w, vmid, &vm, &what.replace('_', "-"), storage);
    let volid = made.inspect_err(|_| super::unlock_config(w, vmid, "suspending"))?;
    power_off(lab, w, vmid);
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.conf.insert("lock".into(), "suspended".into());
        vm.conf.insert("vmstate".into(), volid);
    }
    Ok(Step::Done)
}

/// A VM that was written to disk comes back from there.
fn awaken(w: &mut World, upid: &str, vmid: u32) {
    let Some(vm) = w.pve.vms.get_mut(&vmid).filter(|v| v.conf.get("lock").is_some_and(|l| l == "suspended")) else {
        return;
    };
    vm.conf.remove("lock");
    if let Some(volid) = vm.conf.remove("vmstate") {
        space::free(w, &volid);
        task::log(w, upid, "Resuming suspended VM");
    }
}

/// Runs `qmstart`.
///
/// # Errors
/// The message the task ends with.
pub fn start(lab: &Lab, w: &mut World, upid: &str, vmid: u32, step: u32) -> Result<Step, String> {
    if step == 0 {
        if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
            return Ok(wait);
        }
        awaken(w, upid, vmid);
        let vm = task_vm(w, upid, vmid)?;
        unlocked(vm)?;
        if vm.conf.get("template").is_some_and(|t| t == "1") {
            return Err("you can't start a vm if it's a template".into());
        }
        if vm.run.is_some() {
            return Err(format!("VM {vmid} already running"));
        }
        if let Some(vm) = w.pve.vms.get_mut(&vmid) {
            conf::apply_pending(vm);
        }
        return prepare(w, upid, vmid).map(Step::Next);
    }
    let cards = pci::reserved(w, vmid);
    let spec = match boot::spec(w, vmid, &cards) {
        Ok(s) => s,
        Err(e) => {
            give_cards_back(w, vmid);
            return Err(e);
        }
    };
    let node = w.pve.vms.get(&vmid).map(|v| v.node.clone()).unwrap_or_default();
    crate::card::power_cycled(w, &node, &cards);
    w.pve.last_pid += 11;
    let run = Running { since_ms: w.now_ms, pid: w.pve.last_pid, paused: false, cards: cards_of(&cards) };
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.starting.clear();
        vm.run = Some(run);
    }
    guest::power_on(lab, w, spec);
    Ok(Step::Done)
}

fn cards_of(cards: &[crate::spec::PciSpec]) -> Vec<String> {
    cards.iter().map(|c| c.address.clone()).collect()
}

/// Everything before QEMU runs; answers how long it takes until the VM runs.
fn prepare(w: &mut World, upid: &str, vmid: u32) -> Result<u64, String> {
    let Some(vm) = w.pve.vms.get(&vmid).cloned() else { return Err("config vanished".into()) };
    if conf::drives(&vm.conf).iter().any(|(_, p)| conf::is_cloudinit(p)) {
        task::log(w, upid, "generating cloud-init ISO");
        for volume in super::cloudinit::custom_files(&vm.conf) {
            if !w.pve.files.contains_key(&volume) {
                return Err(format!("volume '{volume}' does not exist"));
            }
            w.not_rehearsed.insert(missing(&format!("cloud-init data in {volume}"), "guest/cloudinit"));
        }
        super::cloudinit::generate(w, vmid);
    }
    for (_, p) in conf::drives(&vm.conf) {
        if let Some(v) = conf::volume(&p).filter(|v| !w.volumes.contains_key(*v)) {
            return Err(format!("volume '{v}' does not exist"));
        }
    }
    let cards = pci::take(w, vmid, &vm).inspect_err(|e| {
        // Messages of mappings end with two newlines; the server logs them as they are.
        if let Some(text) = e.strip_suffix("\n\n") {
            task::log(w, upid, text);
            task::log(w, upid, "");
        }
    })?;
    let most = w.pve.nodes.get(&vm.node).map_or(1, |n| n.cpus);
    if conf::cpus(&vm.conf) > most {
        give_cards_back(w, vmid);
        return Err(format!("MAX {most} vcpus allowed per VM on this node"));
    }
    let cards_now = pci::reserved(w, vmid);
    if let Some((card, group)) = pci::not_viable(w, &vm.node, &cards_now) {
        give_cards_back(w, vmid);
        task::log(
            w,
            upid,
            format!(
                "kvm: -device vfio-pci,host={card},id=hostpci0.0,bus=ich9-pcie-port-1,addr=0x0: vfio {card}: group {group} is not viable"
            ),
        );
        task::log(w, upid, "Please ensure all devices within the iommu_group are bound to their vfio bus driver.");
        return Err("start failed: QEMU exited with code 1".into());
    }
    let mib = conf::memory_mib(&vm.conf);
    let taken: u64 =
        w.pve.vms.values().filter(|v| v.node == vm.node && v.run.is_some()).map(|v| conf::memory_mib(&v.conf)).sum();
    let total = w.pve.nodes.get(&vm.node).map_or(0, |n| n.memory_gib) * 1024;
    if taken + mib > total {
        give_cards_back(w, vmid);
        task::log(w, upid, "kvm: cannot set up guest memory 'pc.ram': Cannot allocate memory");
        return Err("start failed: QEMU exited with code 1".into());
    }
    if let Err(e) = boot::bridges(w, &vm) {
        give_cards_back(w, vmid);
        task::log(w, upid, e);
        return Err("start failed: QEMU exited with code 1".into());
    }
    if vm.conf.get("bios").is_some_and(|b| b == "ovmf") && !vm.conf.contains_key("efidisk0") {
        task::warn(w, upid, "no efidisk configured! Using temporary efivars disk.");
    }
    // Cards pin all memory: about 0.3 s per GiB, and two seconds of reset each.
    let pinned = if cards.is_empty() { 0 } else { mib * 300 / 1024 + 2000 * cards.len() as u64 };
    Ok(1500 + pinned)
}

/// Cards reserved for a start that did not happen are free again.
pub fn give_cards_back(w: &mut World, vmid: u32) {
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.starting.clear();
    }
}

/// The guest has switched its machine off.
pub fn guest_halted(_lab: &Lab, w: &mut World, vmid: u32) {
    super::status::remember(w, vmid);
    ha::halted(w, vmid);
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.run = None;
        vm.starting.clear();
    }
}

fn power_off(lab: &Lab, w: &mut World, vmid: u32) {
    guest::power_off(lab, w, vmid);
    guest_halted(lab, w, vmid);
}

fn find(w: &World, upid: &str, vmid: u32) -> Result<(), String> {
    let node = w.pve.tasks.get(upid).map(|t| t.node.clone()).unwrap_or_default();
    let vm = w.pve.vms.get(&vmid);
    let vm = vm.ok_or_else(|| format!("unable to find configuration file for VM {vmid} on node '{node}'"))?;
    unlocked(vm)
}

fn is_running(w: &World, vmid: u32) -> bool {
    w.pve.vms.get(&vmid).is_some_and(|v| v.run.is_some())
}

/// Runs `qmstop`.
///
/// # Errors
/// The message the task ends with.
pub fn stop(lab: &Lab, w: &mut World, upid: &str, vmid: u32) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    find(w, upid, vmid)?;
    if is_running(w, vmid) {
        power_off(lab, w, vmid);
        return Ok(Step::Again(800));
    }
    Ok(Step::Done)
}

/// Runs `qmshutdown`: step 0 presses the button, the others wait.
///
/// # Errors
/// The message the task ends with.
pub fn shutdown(
    lab: &Lab,
    w: &mut World,
    upid: &str,
    vmid: u32,
    (timeout, force): (u64, bool),
    step: u32,
) -> Result<Step, String> {
    if step == 0 {
        if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
            return Ok(wait);
        }
        find(w, upid, vmid)?;
        if !is_running(w, vmid) {
            return Ok(Step::Done);
        }
        press(lab, w, vmid);
        return Ok(Step::Next(1000));
    }
    if !is_running(w, vmid) {
        return Ok(Step::Done);
    }
    if u64::from(step) < timeout {
        if !w.guests.contains_key(&vmid) && step > 2 {
            // Somebody else's machine: nothing of it is simulated but that it obeys.
            guest_halted(lab, w, vmid);
        }
        return Ok(Step::Next(1000));
    }
    if force {
        task::log(w, upid, "VM quit/powerdown failed - terminating now with SIGTERM");
        power_off(lab, w, vmid);
        return Ok(Step::Next(800));
    }
    Err("VM quit/powerdown failed - got timeout".into())
}

fn press(lab: &Lab, w: &mut World, vmid: u32) {
    if w.guests.contains_key(&vmid) {
        guest::request_shutdown(lab, w, vmid);
    }
}

/// Runs `qmreboot`: shuts down, then starts again with the pending changes.
///
/// # Errors
/// The message the task ends with.
pub fn reboot(lab: &Lab, w: &mut World, upid: &str, vmid: u32, timeout: u64, step: u32) -> Result<Step, String> {
    if step == 0 {
        if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
            return Ok(wait);
        }
        find(w, upid, vmid)?;
        press(lab, w, vmid);
        return Ok(Step::Next(1000));
    }
    if is_running(w, vmid) && u64::from(step) >= timeout {
        return Err("VM quit/powerdown failed - got timeout".into());
    }
    if is_running(w, vmid) {
        if !w.guests.contains_key(&vmid) && step > 2 {
            guest_halted(lab, w, vmid);
        }
        return Ok(Step::Next(1000));
    }
    let t = w.pve.tasks.get(upid).map(|t| (t.node.clone(), t.user.clone(), t.token.clone()));
    if let Some((node, user, token)) = t {
        task::unlock(w, upid);
        let who = crate::pve::acl::Who { user, token };
        task::start(w, &node, "qmstart", &vmid.to_string(), &who, Job::Start { vmid });
    }
    Ok(Step::Done)
}

/// Runs `qmreset`: power off and on without pending changes.
///
/// # Errors
/// The message the task ends with.
pub fn reset(lab: &Lab, w: &mut World, upid: &str, vmid: u32) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    find(w, upid, vmid)?;
    let Some(g) = w.guests.get(&vmid) else { return Ok(Step::Done) };
    let spec = g.spec.clone();
    guest::power_off(lab, w, vmid);
    guest::power_on(lab, w, spec);
    Ok(Step::Done)
}

/// Runs `qmpause` and `qmresume`.
///
/// # Errors
/// The message the task ends with.
pub fn pause(w: &mut World, upid: &str, vmid: u32, on: bool) -> Result<Step, String> {
    if let Some(wait) = task::lock(w, upid, vmid, false, 10_000) {
        return Ok(wait);
    }
    find(w, upid, vmid)?;
    if let Some(r) = w.pve.vms.get_mut(&vmid).and_then(|v| v.run.as_mut()) {
        r.paused = on;
    }
    Ok(Step::Done)
}
