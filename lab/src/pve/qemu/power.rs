//! Power: start, stop, shutdown, reboot, reset, pause; what a halted guest means.
use super::{boot, conf, pci, spawn, task_vm, unlocked};
use crate::pve::params::{b, n, t};
use crate::pve::reply::{ApiError, Reply};
use crate::pve::router::Call;
use crate::pve::state::Running;
use crate::pve::task::{self, Job, Step};
use crate::world::World;
use crate::{Lab, guest};

/// `POST /nodes/{node}/qemu/{vmid}/status/{verb}`.
///
/// # Errors
/// The server's refusal.
pub fn request(w: &mut World, c: &Call, node: &str, vmid: u32, verb: &str) -> Reply {
    let p = &c.params;
    let common = [b("skiplock"), n("timeout"), b("forceStop"), b("keepActive"), b("overrule-shutdown")];
    let starts = [t("machine"), t("stateuri"), t("migratedfrom"), t("force-cpu"), t("targetstorage"), b("nocheck")];
    let rest = [b("todisk"), t("statestorage"), b("nets-host-mtu"), b("with-conntrack-state"), t("migration_type")];
    p.check(&[&common[..], &starts, &rest].concat())?;
    let who = c.who()?;
    w.pve.need(who, &format!("/vms/{vmid}"), "VM.PowerMgmt")?;
    if p.flag("skiplock") && !who.is_root() {
        return Err(ApiError::param("skiplock", "Only root may use this option."));
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
                return Err(ApiError::fail("suspend to disk is not simulated (lab/src/pve/qemu/power.rs)"));
            }
            spawn(w, c, node, "qmpause", vmid, Job::Pause { vmid, on: true })
        }
        "resume" => {
            super::vm(w, node, vmid)?;
            must_run()?;
            spawn(w, c, node, "qmresume", vmid, Job::Pause { vmid, on: false })
        }
        _ => Err(c.unknown()),
    }
}

fn abort_shutdowns(w: &mut World, vmid: u32) {
    let all = w.pve.tasks.iter_mut().map(|(_, t)| t);
    let mine = all.filter(|t| t.running() && matches!(t.job, Job::Shutdown { vmid: v, .. } if v == vmid));
    let now = w.now_ms / 1000;
    for t in mine {
        t.exit = Some("interrupted by signal".into());
        t.end = Some(now);
        t.log.push("TASK ERROR: interrupted by signal".into());
        t.locks.clear();
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
        super::cloudinit::generate(w, vmid);
    }
    let most = w.pve.nodes.get(&vm.node).map_or(1, |n| n.cpus);
    if conf::cpus(&vm.conf) > most {
        return Err(format!("MAX {most} vcpus allowed per VM on this node"));
    }
    for (_, p) in conf::drives(&vm.conf) {
        if let Some(v) = conf::volume(&p).filter(|v| !w.volumes.contains_key(*v)) {
            return Err(format!("volume '{v}' does not exist"));
        }
    }
    let cards = pci::take(w, vmid, &vm)?;
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
pub fn guest_halted(lab: &Lab, w: &mut World, vmid: u32) {
    let _ = lab;
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
