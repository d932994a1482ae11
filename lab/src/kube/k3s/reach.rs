//! Port 6443 between machines: packet filters that close it, and what servers and agents notice of that.
use super::super::KubeEvent;
use super::super::state::Role;
use super::{Stage, go, join, line, serve, wake};
use crate::guest::firewall::{self, Way};
use crate::world::{Event, World};
use crate::{Lab, guest};

const PORT: u16 = 6443;

/// Where the API server of a machine answers.
#[must_use]
pub fn address(ip: &str) -> String {
    format!("{ip}:{PORT}")
}

/// Whether packets from one machine get to the API server of another.
#[must_use]
pub fn open(w: &World, from: u32, to: u32) -> bool {
    !firewall::between(w, from, to, PORT)
}

/// Whether a machine takes no packets for its API server.
#[must_use]
pub fn shut(w: &World, vmid: u32) -> bool {
    firewall::closed(w, vmid, Way::In, PORT)
}

/// The packet filter of a machine changed, or its server answers: agents lose their servers or find them again.
pub fn filter_changed(lab: &Lab, w: &mut World, vmid: u32) {
    if lab.kube().api.guests().contains(&vmid) {
        serve::filtered(lab, w, vmid);
    }
    let agents: Vec<(u32, String, bool)> = w
        .k3s
        .iter()
        .filter(|(_, p)| p.start.role == Role::Agent && p.unit.is_some() && !p.waiting)
        .filter_map(|(v, p)| Some((*v, p.cluster.clone()?, p.cut_off)))
        .collect();
    for (agent, id, was) in agents {
        // without an answer of any server it is not the filter's doing
        let closed =
            w.clusters.get(&id).is_some_and(|c| !c.members.is_empty() && c.members.keys().all(|s| !open(w, agent, *s)));
        if closed == was {
            continue;
        }
        // a way that opens is no help before a server answers: then this is looked at again
        if !closed && !join::any_server(w, agent, &id) {
            continue;
        }
        if let Some(p) = w.k3s.get_mut(&agent) {
            p.cut_off = closed;
        }
        if closed {
            cut_off(w, agent, &id);
        } else {
            go(w, agent, 2000, Stage::Register);
        }
    }
    wake(w);
}

/// An agent reaches no server any more: its connections break, its kubelet cannot renew its lease.
fn cut_off(w: &mut World, agent: u32, id: &str) {
    let servers: Vec<u32> = w.clusters.get(id).map(|c| c.members.keys().copied().collect()).unwrap_or_default();
    for server in servers {
        let ip = guest::ip(w, server).unwrap_or_default();
        let said = line(w, "error", "Failed to connect to proxy. Empty dialer response");
        if let Some(p) = w.k3s.get_mut(&agent) {
            p.journal.push(format!("{said} error=\"dial tcp {}: i/o timeout\"", address(&ip)));
        }
    }
    let Some(p) = w.k3s.get_mut(&agent) else { return };
    let node = p.node.clone();
    let lease = format!(
        "https://127.0.0.1:6444/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}?timeout=10s"
    );
    p.journal.push(format!(
        "\"Failed to update lease\" err=\"Put \\\"{lease}\\\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)\""
    ));
    w.schedule(40_000, Event::Kube(KubeEvent::NodeSilent { cluster: id.to_owned(), node }));
}
