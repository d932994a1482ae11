//! What stands in the lab's clusters, as comparable data: no uids, no versions, nothing whose name is drawn.
use gpuhost_lab::kube::k3s::membership;
use gpuhost_lab::world::World;
use serde_json::{Value, json};

/// Resources whose objects come and go by themselves or carry drawn names.
const FLEETING: [&str; 13] = [
    "pods",
    "replicasets.apps",
    "controllerrevisions.apps",
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "persistentvolumes",
    "jobs.batch",
    "etcdsnapshotfiles.k3s.cattle.io",
    "secrets",
    "volumeattachments.storage.k8s.io",
];

/// The world as `gpuhost lab status` shows it.
#[must_use]
pub fn look(w: &World) -> Value {
    let alive = w.clusters.values().filter(|c| membership::lives(w, c)).count();
    let machines = w.pve.vms.iter().map(|(id, vm)| {
        let state = if vm.run.is_some() { "running" } else { "stopped" };
        json!({ "vmid": id, "name": vm.conf.get("name"), "state": state })
    });
    json!({
        "time": crate::when::iso(w.now_ms), "vms": w.pve.vms.len(), "running": w.guests.len(),
        "clusters": alive, "pending_events": w.queue.len(), "machines": machines.collect::<Vec<_>>(),
        "hypervisor": gpuhost_lab::pve::world_diff_view(w), "in_clusters": clusters(w), "tasks": tasks(w),
    })
}

/// How often the hypervisor did what on which object: what was done twice is seen here.
fn tasks(w: &World) -> std::collections::BTreeMap<String, u64> {
    let mut out = std::collections::BTreeMap::new();
    for t in w.pve.tasks.values() {
        *out.entry(format!("{} {}", t.kind, t.id).trim().to_owned()).or_default() += 1;
    }
    out
}

/// Members and objects of every cluster that lives.
#[must_use]
pub fn clusters(w: &World) -> Value {
    let alive = w.clusters.values().filter(|c| membership::lives(w, c));
    alive
        .map(|c| {
            let members: std::collections::BTreeSet<&String> = c.members.values().map(|m| &m.node).collect();
            let store = serde_json::to_value(&c.store).unwrap_or_default();
            json!({ "members": members, "version": c.version, "objects": objects(&store["objects"]) })
        })
        .collect()
}

fn objects(all: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for (resource, list) in all.as_object().into_iter().flatten() {
        if FLEETING.contains(&resource.as_str()) {
            continue;
        }
        for (key, object) in list.as_object().into_iter().flatten() {
            let labels = match resource.as_str() {
                "nodes" => format!(" {}", object["metadata"]["labels"]),
                _ => String::new(),
            };
            out.push(format!("{resource} {key}{labels}"));
        }
    }
    out.sort();
    out
}
