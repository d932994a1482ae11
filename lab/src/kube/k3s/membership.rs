//! What goes with a Node: its etcd member, its password, its lease. Grade: source (K3s' member and node controllers).
use serde_json::json;

use super::super::bare;
use super::super::cx::Cx;
use super::super::state::Cluster;
use super::super::text::s;
use super::{files, node};
use crate::guest;
use crate::world::World;

const REMOVE: &str = "/metadata/annotations/etcd.k3s.cattle.io~1remove";
const REMOVED: &str = "etcd.k3s.cattle.io/removed-node-name";

/// A server is of this cluster from now on: whichever had it before has it no longer.
pub fn only_of(w: &mut World, vmid: u32, id: &str) {
    for c in w.clusters.values_mut().filter(|c| c.id != id) {
        c.members.remove(&vmid);
        c.on_disk.remove(&vmid);
    }
}

/// Whether a machine that is switched on carries the cluster's data; a bare control plane has no machines.
#[must_use]
pub fn lives(w: &World, c: &Cluster) -> bool {
    c.id == bare::ID || c.on_disk.keys().any(|v| w.guests.contains_key(v))
}

/// The cluster that a machine works in: the one its K3s has joined, else one that knows it as a node.
#[must_use]
pub fn of_machine(w: &World, vmid: u32) -> Option<String> {
    let joined = w.k3s.get(&vmid).and_then(|p| p.cluster.clone()).filter(|id| w.clusters.contains_key(id));
    joined.or_else(|| {
        let knows = w.clusters.values().filter(|c| c.nodes.values().any(|n| n.vmid == vmid));
        knows.max_by_key(|c| lives(w, c)).map(|c| c.id.clone())
    })
}

/// A machine is destroyed. Unless a backup has its disks, they carry no cluster any more.
pub fn machine_gone(w: &mut World, vmid: u32) {
    if w.pve.files.values().any(|f| f.vmid == vmid && f.content == "backup") {
        return;
    }
    w.k3s.remove(&vmid);
    for c in w.clusters.values_mut() {
        c.on_disk.remove(&vmid);
    }
    forget_dead(w);
}

/// Forgets clusters that no disk carries any more.
pub fn forget_dead(w: &mut World) {
    w.clusters.retain(|id, c| id == bare::ID || !c.on_disk.is_empty());
}

/// A Node was changed or deleted.
pub fn node(cx: &mut Cx, name: &str) {
    match cx.get("nodes", "", name) {
        None => deleted(cx, name),
        Some(n) => {
            let asked = s(n, REMOVE) == "true" && n["metadata"]["annotations"][REMOVED].is_null();
            if asked && let Some(member) = leave(cx, name) {
                cx.update("nodes", "", name, |n| {
                    n["metadata"]["annotations"][REMOVED] = json!(member);
                    if let Some(a) = n["metadata"]["annotations"].as_object_mut() {
                        a.remove("etcd.k3s.cattle.io/node-name");
                        a.remove("etcd.k3s.cattle.io/node-address");
                    }
                    if let Some(list) = n["status"]["conditions"].as_array_mut() {
                        list.retain(|c| c["type"] != "EtcdIsVoter");
                    }
                });
            }
        }
    }
}

fn deleted(cx: &mut Cx, name: &str) {
    leave(cx, name);
    let gone = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let text = format!("Node {name} event: Removing Node {name} from Controller");
    cx.event(&gone, true, "RemovingNode", &text, "node-controller");
    super::super::controllers::lost::missing(cx, name);
    cx.delete("secrets", "kube-system", &node::password_name(name));
    cx.delete("leases.coordination.k8s.io", "kube-node-lease", name);
}

/// Takes the etcd member of a node out, unless it is the last one; gives the member's name.
fn leave(cx: &mut Cx, name: &str) -> Option<String> {
    let member = cx.c.members.values().find(|m| m.node == name)?.clone();
    if cx.c.members.len() == 1 {
        return None;
    }
    cx.c.members.remove(&member.vmid);
    cx.c.on_disk.remove(&member.vmid);
    // what its own K3s finds when it starts again: its datastore is not the cluster's any more
    guest::remove_file(cx.lab, member.vmid, files::MARK);
    guest::put_file(cx.lab, cx.w, member.vmid, "/var/lib/rancher/k3s/server/db/tombstone", &member.node, 0o600);
    super::log(
        cx.w,
        member.vmid,
        "error",
        "this server has been removed from the cluster please restart k3s to rejoin the cluster",
    );
    let id = format!("{}-{:08x}", member.node, member.vmid);
    Some(id)
}
