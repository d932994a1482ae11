//! How servers found or join a cluster and agents find their server.

use super::super::cx::with_cluster;
use super::super::state::{Cluster, Member, Process, Role, UnitState};
use super::super::text::{s, sha256};
use super::{
    Stage, certificates, config, fail, files, go, log, node, packaged, reach, schedule, serve, snapshot, tokens, vip,
    wait, wake,
};
use crate::kube::KubeEvent;
use crate::world::{Event, World};
use crate::{Lab, guest, tls};

fn process(w: &World, vmid: u32) -> Option<Process> {
    w.k3s.get(&vmid).map(|p| Process { journal: Vec::new(), ..p.clone() })
}

/// A server looks for its datastore, else for a server to join, else it founds a cluster.
pub fn server_boot(lab: &Lab, w: &mut World, vmid: u32) {
    let Some(p) = process(w, vmid) else { return };
    ["kube/k3s", "guest/k3s"].iter().for_each(|k| w.meets(k));
    let on_disk = w.clusters.values().find(|c| c.on_disk.contains_key(&vmid)).map(|c| c.id.clone());
    let is_marked = guest::has_file(lab, w, vmid, files::MARK);
    match on_disk {
        Some(id) if is_marked => return restart(lab, w, vmid, &id, &p),
        Some(id) => {
            // The disk was made anew: this guest has no data any more.
            if let Some(c) = w.clusters.get_mut(&id) {
                c.on_disk.remove(&vmid);
            }
        }
        None => {}
    }
    if s(&p.start.config, "/server").is_empty() { found(lab, w, vmid, &p) } else { join(lab, w, vmid, &p) }
}

/// A server founds a new cluster.
fn found(lab: &Lab, w: &mut World, vmid: u32, p: &Process) {
    let (born, end) = (w.now_ms / 1000, Some(w.now_ms + certificates::CA_MS));
    let ca = |of: &str| tls::make_ca_until(&format!("k3s-{of}-ca@{born}"), end);
    let made = ca("server").and_then(|server| Ok((server, ca("client")?)));
    let Ok((ca, client_ca)) = made else { return fail(lab, w, vmid, "cannot make the cluster's certificates") };
    let id = sha256(&ca.cert);
    let given = config::token(&p.start.config).to_owned();
    let password = match given.strip_prefix("K10").and_then(|r| r.split_once("::")) {
        Some((_, cred)) => cred.split_once(':').map_or(cred, |(_, p)| p).to_owned(),
        None if given.is_empty() => format!("{:016x}{:016x}", w.random(), w.random()),
        None => given,
    };
    let ip = guest::ip(w, vmid).unwrap_or_default();
    let etcd = config::on(&p.start.config, "cluster-init");
    let mut c = Cluster {
        id: id.clone(),
        ca,
        client_ca,
        token: password,
        agent_token: Some(s(&p.start.config, "/agent-token").to_owned()).filter(|t| !t.is_empty()),
        version: p.start.version.clone(),
        config: p.start.config.clone(),
        etcd,
        ..Cluster::default()
    };
    c.members.insert(vmid, Member { vmid, node: p.node.clone(), ip, learner: false });
    c.on_disk.insert(vmid, p.node.clone());
    c.store = super::super::store::Store::new(w.seed ^ w.draws, w.now_ms);
    super::membership::forget_dead(w);
    w.clusters.insert(id.clone(), c);
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.cluster = Some(id.clone());
    }
    log(w, vmid, "info", "Starting etcd for new cluster, cluster-reset=false");
    // From here on there is a datastore: a start that is cut short is followed by one with it.
    guest::put_file(lab, w, vmid, files::MARK, &p.node, 0o600);
    with_cluster(lab, w, &id, packaged::birth);
    let delay = w.between(15_000, 22_000);
    go(w, vmid, delay, Stage::Ready);
}

fn host_of(url: &str) -> &str {
    url.trim_start_matches("https://").split(['/', ':']).next().unwrap_or_default()
}

/// The guest whose running server answers `from` at `url`.
///
/// # Errors
/// What Go's client says when nobody answers.
fn server_at(w: &World, from: u32, url: &str) -> Result<(u32, String), String> {
    let mut silent = false;
    // A name may stand for several servers: any that answers will do.
    let found = w.lan.addresses(host_of(url)).iter().find_map(|at| {
        let holder = w.clusters.values().find_map(|c| c.vips.get(at).copied());
        let vmid = holder.or_else(|| guest::by_ip(w, at)).or_else(|| by_name(w, at))?;
        if !reach::open(w, from, vmid) {
            silent = true;
            return None;
        }
        let p = w.k3s.get(&vmid)?;
        let up = p.start.role == Role::Server && p.unit == Some(UnitState::Active) && guest::is_up(w, vmid);
        up.then(|| p.cluster.clone()).flatten().filter(|id| has_quorum(w, id)).map(|id| (vmid, id))
    });
    found.ok_or_else(|| match silent {
        true => "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        false => format!("dial tcp {}: connect: connection refused", url.trim_start_matches("https://")),
    })
}

fn by_name(w: &World, host: &str) -> Option<u32> {
    let short = host.split('.').next().unwrap_or(host);
    w.guests.keys().copied().find(|v| guest::hostname(w, *v).as_deref() == Some(short))
}

/// Whether more than half of the voters run.
#[must_use]
pub fn has_quorum(w: &World, cluster: &str) -> bool {
    let Some(c) = w.clusters.get(cluster) else { return false };
    quorum_of(w, c)
}

/// The same for a cluster that is taken out of the world.
#[must_use]
pub fn quorum_of(w: &World, c: &Cluster) -> bool {
    let voters: Vec<u32> = c.members.values().filter(|m| !m.learner).map(|m| m.vmid).collect();
    let running = |v: &&u32| {
        let started = w.k3s.get(v).is_some_and(|p| {
            p.cluster.as_deref() == Some(&c.id) && matches!(p.unit, Some(UnitState::Active | UnitState::Activating))
        });
        started && guest::is_up(w, **v)
    };
    voters.iter().filter(running).count() * 2 > voters.len()
}

/// A server without data asks the server in its configuration for the cluster's CA and secrets.
fn join(lab: &Lab, w: &mut World, vmid: u32, p: &Process) {
    let url = s(&p.start.config, "/server").to_owned();
    let (holder, id) = match server_at(w, vmid, &url) {
        Ok(found) => found,
        Err(why) => return wait(w, vmid, &format!("failed to get CA certs: Get \"{url}/cacerts\": {why}")),
    };
    let Some(c) = w.clusters.get(&id) else { return };
    let checked = config::check_token(c, config::token(&p.start.config), Role::Server, &url)
        .and_then(|()| serve::check_name(w, c, holder, &url, host_of(&url)))
        .and_then(|()| config::check_critical(&c.config, &p.start.config));
    let duplicate = c.members.values().find(|m| m.node == p.node && m.vmid != vmid).map(|m| m.ip.clone());
    let stale = c.members.contains_key(&vmid);
    let etcd = c.etcd;
    if let Err(text) = checked {
        return fail(lab, w, vmid, &text);
    }
    if !etcd {
        return fail(
            lab,
            w,
            vmid,
            "starting kubernetes: preparing server: failed to bootstrap cluster data: cannot join a cluster that uses SQLite: the first server was started without cluster-init",
        );
    }
    if duplicate.is_some() || stale {
        let text = format!(
            "etcd cluster join failed: duplicate node name found, please use a unique name for this node: {}",
            p.node
        );
        return fail(lab, w, vmid, &text);
    }
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.cluster = Some(id);
    }
    log(w, vmid, "info", &format!("Joining etcd cluster of {url}"));
    go(w, vmid, 5000, Stage::Learn);
}

/// A joining server becomes an etcd learner; there can be only one at a time.
pub fn learn(lab: &Lab, w: &mut World, vmid: u32) {
    let Some(p) = process(w, vmid) else { return };
    let Some(id) = p.cluster.clone() else { return };
    let Some(c) = w.clusters.get(&id) else { return };
    if c.members.values().any(|m| m.learner) {
        return wait(
            w,
            vmid,
            "Failed to join etcd cluster: failed to add member: etcdserver: too many learner members in cluster; retrying",
        );
    }
    if !has_quorum(w, &id) {
        return wait(w, vmid, "Failed to join etcd cluster: etcdserver: no leader");
    }
    let ip = guest::ip(w, vmid).unwrap_or_default();
    log(
        w,
        vmid,
        "info",
        &format!("Adding member {}-{:08x}=https://{ip}:2380 to etcd cluster as learner", p.node, vmid),
    );
    super::membership::only_of(w, vmid, &id);
    with_cluster(lab, w, &id, |cx| {
        cx.c.members.insert(vmid, Member { vmid, node: p.node.clone(), ip, learner: true });
        cx.c.on_disk.insert(vmid, p.node.clone());
    });
    guest::put_file(lab, w, vmid, files::MARK, &p.node, 0o600);
    go(w, vmid, 4000, Stage::Register);
    let delay = w.between(10_000, 20_000);
    go(w, vmid, delay, Stage::Promote);
}

/// How long K3s bears a learner that makes no progress. Grade: source (K3s' etcd package).
const STALL_MS: u64 = 300_000;

/// A member's K3s has stopped or may fail: a learner that does not run when the time is over makes no progress.
pub fn may_stall(w: &mut World, id: &str, vmid: u32) {
    if w.clusters.get(id).and_then(|c| c.members.get(&vmid)).is_some_and(|m| m.learner) {
        w.schedule(STALL_MS, Event::Kube(KubeEvent::Stalled { cluster: id.to_owned(), vmid }));
    }
}

/// A learner that still makes no progress is taken out of etcd; the next one may join.
pub fn stalled(lab: &Lab, w: &mut World, id: &str, vmid: u32) {
    let runs = w.k3s.get(&vmid).is_some_and(|p| {
        p.cluster.as_deref() == Some(id) && matches!(p.unit, Some(UnitState::Active | UnitState::Activating))
    });
    let learner = w.clusters.get(id).and_then(|c| c.members.get(&vmid)).is_some_and(|m| m.learner);
    if runs || !learner || !has_quorum(w, id) {
        return;
    }
    guest::remove_file(lab, vmid, files::MARK);
    if let Some(c) = w.clusters.get_mut(id) {
        c.members.remove(&vmid);
        c.on_disk.remove(&vmid);
    }
    wake(w);
}

/// The learner has caught up.
pub fn promote(lab: &Lab, w: &mut World, vmid: u32) {
    let Some(id) = process(w, vmid).and_then(|p| p.cluster) else { return };
    with_cluster(lab, w, &id, |cx| {
        if let Some(m) = cx.c.members.get_mut(&vmid) {
            m.learner = false;
        }
        node::voter_condition(cx, vmid);
    });
    log(w, vmid, "info", "Promoted learner to voting member");
    wake(w);
    go(w, vmid, 3000, Stage::Ready);
}

/// A server with data starts again.
fn restart(lab: &Lab, w: &mut World, vmid: u32, id: &str, p: &Process) {
    // should this start end in an error, a learner makes no progress
    may_stall(w, id, vmid);
    let Some(c) = w.clusters.get(id) else { return };
    let given = config::token(&p.start.config);
    if !given.is_empty() && config::check_token(c, given, Role::Server, "").is_err() {
        return fail(
            lab,
            w,
            vmid,
            "starting kubernetes: preparing server: failed to bootstrap cluster data: bootstrap data already found and encrypted with different token",
        );
    }
    let others = c.members.len() > 1;
    if others && let Err(text) = config::check_critical(&c.config, &p.start.config) {
        return fail(lab, w, vmid, &text);
    }
    let member = c.members.contains_key(&vmid);
    if !member {
        return fail(
            lab,
            w,
            vmid,
            "starting kubernetes: preparing server: failed to start managed database: this server is a not a member of the etcd cluster. Found [] expect: this server",
        );
    }
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.cluster = Some(id.to_owned());
    }
    if !others && let Some(c) = w.clusters.get_mut(id) {
        c.config = p.start.config.clone();
    }
    if !has_quorum(w, id) {
        wait(w, vmid, "Waiting for etcd server to become available: etcdserver: no leader");
        wake_members(w, id, vmid);
        return;
    }
    wake_members(w, id, vmid);
    let learner = w.clusters.get(id).and_then(|c| c.members.get(&vmid)).is_some_and(|m| m.learner);
    go(w, vmid, 9000, if learner { Stage::Promote } else { Stage::Ready });
}

/// With this member back there may be a quorum for those that wait.
fn wake_members(w: &mut World, id: &str, _vmid: u32) {
    if has_quorum(w, id) {
        wake(w);
    }
}

/// The control plane answers.
pub fn ready(lab: &Lab, w: &mut World, vmid: u32) {
    let Some(p) = process(w, vmid) else { return };
    let Some(id) = p.cluster.clone() else { return };
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.unit = Some(UnitState::Active);
    }
    log(w, vmid, "info", &format!("k3s is up and running: {}", p.start.version));
    if let Some(c) = w.clusters.remove(&id) {
        files::server(lab, w, vmid, &c, &p.start.config, &p.node);
        w.clusters.insert(id.clone(), c);
    }
    serve::up(lab, w, vmid, &id);
    schedule::started(w, vmid);
    snapshot::reconcile(lab, w, vmid, &id);
    let standards = files::standards(lab, w, vmid).unwrap_or_default();
    with_cluster(lab, w, &id, |cx| {
        cx.c.store.standards = standards;
        cx.c.version = p.start.version.clone();
        packaged::server_started(cx, vmid, &p.start.config);
        vip::look(cx);
    });
    // its filter may be another since its machine started; this wakes those that wait, too
    reach::filter_changed(lab, w, vmid);
    go(w, vmid, 2000, Stage::Register);
}

/// An agent asks its server for the configuration.
pub fn agent_boot(lab: &Lab, w: &mut World, vmid: u32) {
    let Some(p) = process(w, vmid) else { return };
    ["kube/k3s", "guest/k3s"].iter().for_each(|k| w.meets(k));
    // `Type=exec`: systemd calls it active as soon as it runs.
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.unit = Some(UnitState::Active);
    }
    let url = s(&p.start.config, "/server").to_owned();
    let known =
        w.clusters.values().find(|c| c.nodes.get(&p.node).is_some_and(|n| n.vmid == vmid)).map(|c| c.id.clone());
    // An agent that has joined knows all servers and balances over them.
    let by_list = known.filter(|id| any_server(w, vmid, id));
    let id = match server_at(w, vmid, &url).map(|x| x.1).or_else(|why| by_list.ok_or(why)) {
        Ok(id) => id,
        Err(why) => {
            let text = format!("failed to get CA certs: Get \"https://127.0.0.1:6444/cacerts\": {why}");
            return wait(w, vmid, &text);
        }
    };
    let Some(c) = w.clusters.get(&id) else { return };
    let token = config::token(&p.start.config);
    let by_bootstrap = tokens::admits(c, w.now_ms, token);
    if !by_bootstrap && let Err(text) = config::check_token(c, token, Role::Agent, &url) {
        return fail(lab, w, vmid, &text);
    }
    if newer(&p.start.version, &c.version) {
        log(w, vmid, "warning", "This agent is newer than its server");
    }
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.cluster = Some(id);
    }
    let delay = w.between(6000, 10_000);
    go(w, vmid, delay, Stage::Register);
}

/// Whether a server answers an agent that knows all of them.
#[must_use]
pub fn any_server(w: &World, from: u32, id: &str) -> bool {
    let active = |v: &u32| {
        let up = w.k3s.get(v).is_some_and(|p| p.unit == Some(UnitState::Active)) && guest::is_up(w, *v);
        up && reach::open(w, from, *v)
    };
    w.clusters.get(id).is_some_and(|c| c.members.keys().any(active)) && has_quorum(w, id)
}

fn newer(a: &str, b: &str) -> bool {
    let minor = |v: &str| v.split('.').nth(1).and_then(|m| m.parse::<u32>().ok()).unwrap_or(0);
    minor(a) > minor(b)
}
