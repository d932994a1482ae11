//! K3s processes of guests: start, stop, and what systemd and the journal say of them.
pub mod apiservices;
pub mod certificates;
pub mod config;
pub mod files;
pub mod flow;
pub mod hosts;
pub mod join;
pub mod manifests;
pub mod membership;
pub mod node;
pub mod packaged;
pub mod reach;
pub mod release;
pub mod reset;
pub mod roles;
pub mod schedule;
pub mod serve;
pub mod snapshot;
pub mod tokens;
pub mod vip;

use serde::{Deserialize, Serialize};

use super::KubeEvent;
use super::cx::with_cluster;
use super::state::{K3sProcess, Process, Role, UnitState};
use crate::world::{Event, World};
use crate::{Lab, guest};

/// Stages of a start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    /// The binary has unpacked itself and looks for its datastore or server.
    Boot,
    /// A joining server asks to become an etcd learner.
    Learn,
    /// A learner has caught up and becomes a voter.
    Promote,
    /// The control plane answers: the unit is active.
    Ready,
    /// The kubelet registers the node.
    Register,
    /// The network plugin is there: the node is Ready.
    NodeReady,
}

/// A guest's init system started K3s.
///
/// # Errors
/// When the configuration is refused before anything runs; the text is K3s' own.
pub fn k3s_start(lab: &Lab, w: &mut World, vmid: u32, mut start: K3sProcess) -> Result<(), String> {
    let old = w.k3s.remove(&vmid);
    let (generation, mut journal, issued) =
        old.map_or((0, Vec::new(), 0), |p| (p.generation, p.journal, p.certificates_ms));
    journal.push(line(w, "info", &format!("Starting k3s {}", start.version)));
    for text in config::skip_unknown(&mut start) {
        journal.push(line(w, "warning", &text));
    }
    guest::remove_file(lab, vmid, files::RESET_FLAG);
    let start_version = start.version.clone();
    let process = Process {
        start,
        unit: Some(UnitState::Activating),
        journal,
        cluster: None,
        node: guest::hostname(w, vmid).unwrap_or_default(),
        generation: generation + 1,
        runtimes: Vec::new(),
        waiting: false,
        certificates_ms: certificates::renewed(w.now_ms, issued, &start_version),
        snapshot_ms: 0,
        cut_off: false,
    };
    let refused = config::refuse(&process.start);
    w.k3s.insert(vmid, process);
    if let Err(text) = refused {
        fail(lab, w, vmid, &text);
        return Err(text);
    }
    go(w, vmid, 3000, Stage::Boot);
    Ok(())
}

/// K3s ended before it ran: what it said goes into its journal.
pub fn k3s_refused(w: &mut World, vmid: u32, text: &str) {
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.journal.push(text.to_owned());
    }
}

/// The state of the guest's K3s unit; `Failed("")` when it never ran or was stopped.
#[must_use]
pub fn k3s_unit(w: &World, vmid: u32) -> UnitState {
    w.k3s.get(&vmid).and_then(|p| p.unit.clone()).unwrap_or(UnitState::Failed(String::new()))
}

/// The journal of the guest's K3s unit.
#[must_use]
pub fn k3s_journal(w: &World, vmid: u32) -> Vec<String> {
    w.k3s.get(&vmid).map(|p| p.journal.clone()).unwrap_or_default()
}

/// Where K3s' containerd reads files beside its configuration.
pub const DROP_INS: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d";

/// The unit was stopped. Pods go on running.
pub fn k3s_stop(lab: &Lab, w: &mut World, vmid: u32) {
    let Some(p) = w.k3s.get_mut(&vmid) else { return };
    p.unit = None;
    p.waiting = false;
    p.generation += 1;
    let (cluster, node) = (p.cluster.clone(), p.node.clone());
    serve::down(lab, w, vmid);
    if let Some(id) = cluster {
        // The node controller notices 40 s after the last heartbeat.
        w.schedule(40_000, Event::Kube(KubeEvent::NodeSilent { cluster: id.clone(), node }));
        join::may_stall(w, &id, vmid);
        with_cluster(lab, w, &id, |cx| {
            vip::move_away(cx, vmid);
        });
    }
}

/// K3s was uninstalled: its data on the guest is gone, its Node object and etcd member stay.
pub fn k3s_uninstalled(lab: &Lab, w: &mut World, vmid: u32) {
    guest_down(lab, w, vmid);
    for c in w.clusters.values_mut() {
        c.on_disk.remove(&vmid);
    }
    w.k3s.remove(&vmid);
}

/// The guest lost power or reboots: K3s and the pods on it are gone, the disk stays.
pub fn guest_down(lab: &Lab, w: &mut World, vmid: u32) {
    k3s_stop(lab, w, vmid);
    let Some(p) = w.k3s.get_mut(&vmid) else { return };
    p.journal.clear();
    let (node, cluster) = (p.node.clone(), p.cluster.clone());
    if let Some(id) = cluster {
        with_cluster(lab, w, &id, |cx| super::controllers::kubelet::guest_gone(cx, &node));
    }
}

/// A start reaches its next stage.
pub fn stage(lab: &Lab, w: &mut World, vmid: u32, generation: u64, stage: Stage) {
    let Some(p) = w.k3s.get_mut(&vmid).filter(|p| p.generation == generation) else { return };
    p.waiting = false;
    let role = p.start.role;
    match stage {
        Stage::Boot => {
            if let Some(text) = in_the_way(w, vmid, role) {
                return fail(lab, w, vmid, &text);
            }
            detect_runtimes(lab, w, vmid);
            if let Some(said) = files::refused_drop_in(lab, w, vmid) {
                let log = format!("{}/containerd/containerd.log", files::AGENT);
                guest::put_file(lab, w, vmid, &log, &format!("containerd: {said}\n"), 0o644);
                return fail(lab, w, vmid, "Shutdown request received: containerd exited: exit status 1");
            }
            if let (Role::Server, Err(said)) = (role, files::standards(lab, w, vmid)) {
                return fail(lab, w, vmid, &said);
            }
            match role {
                Role::Server => join::server_boot(lab, w, vmid),
                Role::Agent => join::agent_boot(lab, w, vmid),
            }
        }
        Stage::Learn => join::learn(lab, w, vmid),
        Stage::Promote => join::promote(lab, w, vmid),
        Stage::Ready => join::ready(lab, w, vmid),
        Stage::Register => node::register(lab, w, vmid),
        Stage::NodeReady => node::ready(lab, w, vmid),
    }
}

/// What of the machine keeps K3s from starting.
fn in_the_way(w: &World, vmid: u32, role: Role) -> Option<String> {
    let g = w.guests.get(&vmid)?;
    if g.cmdline.split_whitespace().any(|a| a == "cgroup_disable=memory") {
        return Some("failed to find memory cgroup (v2)".to_owned());
    }
    if g.net.as_ref().is_some_and(|n| n.gateway.is_none()) {
        return Some("no default routes found in \"/proc/net/route\" or \"/proc/net/ipv6_route\"".to_owned());
    }
    let taken = g.services.get("haproxy.service").is_some_and(|s| s.state == "active");
    (taken && role == Role::Server).then(|| {
        "starting kubernetes: preparing server: init cluster datastore and https: listen tcp :6443: bind: address already in use".to_owned()
    })
}

/// Schedules the next stage of the current start.
pub(super) fn go(w: &mut World, vmid: u32, delay_ms: u64, stage: Stage) {
    let Some(p) = w.k3s.get(&vmid) else { return };
    let generation = p.generation;
    w.schedule(delay_ms, Event::Kube(KubeEvent::Start { vmid, generation, stage }));
}

/// Something a waiting process may wait for has happened: all of them try again.
pub(super) fn wake(w: &mut World) {
    let waiting: Vec<u32> = w.k3s.iter().filter(|(_, p)| p.waiting && p.unit.is_some()).map(|(id, _)| *id).collect();
    for vmid in waiting {
        if let Some(p) = w.k3s.get_mut(&vmid) {
            p.waiting = false;
        }
        let delay = w.between(1500, 5000);
        go(w, vmid, delay, Stage::Boot);
    }
}

/// Notes that the process waits for something; it tries again when the cluster changes.
pub(super) fn wait(w: &mut World, vmid: u32, text: &str) {
    log(w, vmid, "error", text);
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.waiting = true;
    }
}

/// The process ended with a fatal error.
pub(super) fn fail(lab: &Lab, w: &mut World, vmid: u32, text: &str) {
    log(w, vmid, "fatal", text);
    serve::down(lab, w, vmid);
    let unit = match w.k3s.get(&vmid).map(|p| p.start.role) {
        Some(Role::Agent) => "k3s-agent",
        _ => "k3s",
    };
    for end in [
        format!("{unit}.service: Main process exited, code=exited, status=1/FAILURE"),
        format!("{unit}.service: Failed with result 'exit-code'."),
    ] {
        if let Some(p) = w.k3s.get_mut(&vmid) {
            p.journal.push(end);
        }
    }
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.unit = Some(UnitState::Failed(text.to_owned()));
    }
}

/// Adds a journal line.
pub(super) fn log(w: &mut World, vmid: u32, level: &str, text: &str) {
    let text = line(w, level, text);
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.journal.push(text);
        if p.journal.len() > 400 {
            p.journal.drain(..200);
        }
    }
}

fn line(w: &World, level: &str, text: &str) -> String {
    format!("time=\"{}\" level={level} msg={text:?}", super::text::stamp(w.now_ms))
}

/// K3s looks for NVIDIA's runtimes once, at its start.
fn detect_runtimes(lab: &Lab, w: &mut World, vmid: u32) {
    let mut found = Vec::new();
    for name in ["nvidia-container-runtime", "nvidia-container-runtime.cdi"] {
        let places = [format!("/usr/local/nvidia/toolkit/{name}"), format!("/usr/bin/{name}")];
        if let Some(place) = places.iter().find(|p| guest::has_file(lab, w, vmid, p)) {
            let runtime = if name.ends_with("cdi") { "nvidia-cdi" } else { "nvidia" };
            log(w, vmid, "info", &format!("Found {runtime} container runtime at {place}"));
            found.push(runtime.to_owned());
        }
    }
    files::containerd_config(lab, w, vmid, &found);
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.runtimes = found;
    }
}
