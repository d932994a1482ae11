//! `k3s server --cluster-reset`: one server becomes the only member, with its own data or a snapshot's. Grade: docs.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::KubeEvent;
use super::super::state::{Cluster, Member, UnitState};
use super::super::text::s;
use super::snapshot::Snapshot;
use super::{config, files};
use crate::guest::fs::Who;
use crate::world::{Event, World};
use crate::{Lab, guest};

/// What the command prints when it is done.
pub const DONE: &str = "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. Backup and delete ${datadir}/server/db on each peer etcd server and rejoin the nodes";

/// Resets the cluster to this server.
///
/// # Errors
/// K3s' own text; nothing was changed then.
pub fn reset(lab: &Lab, w: &mut World, vmid: u32, config: &Value) -> Result<(), String> {
    let runs = w.k3s.get(&vmid).is_some_and(|p| matches!(p.unit, Some(UnitState::Active | UnitState::Activating)));
    if runs {
        return Err("starting kubernetes: preparing server: listen tcp :6443: bind: address already in use".to_owned());
    }
    if !s(config, "/server").is_empty() {
        return Err(
            "cannot perform cluster-reset while server URL is set - remove server from configuration before resetting"
                .to_owned(),
        );
    }
    if guest::has_file(lab, w, vmid, files::RESET_FLAG) {
        return Err(format!(
            "Managed etcd cluster membership was previously reset, please remove the cluster-reset flag and start k3s normally. If you need to perform another cluster reset, you must first manually delete the file at {}",
            files::RESET_FLAG
        ));
    }
    let path = s(config, "/cluster-reset-restore-path");
    let c = if path.is_empty() { alone(w, vmid)? } else { restored(lab, w, vmid, config, path)? };
    install(lab, w, vmid, c, config);
    Ok(())
}

fn password(config: &Value) -> String {
    let given = config::token(config);
    match given.strip_prefix("K10").and_then(|r| r.split_once("::")) {
        Some((_, cred)) => cred.split_once(':').map_or(cred, |(_, p)| p).to_owned(),
        None => given.to_owned(),
    }
}

/// The cluster as this server's disk has it.
fn alone(w: &World, vmid: u32) -> Result<Cluster, String> {
    let c = w.clusters.values().find(|c| c.on_disk.contains_key(&vmid));
    c.cloned().ok_or_else(|| "no etcd datastore found on this server".to_owned())
}

/// The cluster of a snapshot, over what goes on running of the old one.
fn restored(lab: &Lab, w: &World, vmid: u32, config: &Value, path: &str) -> Result<Cluster, String> {
    let missing = || format!("starting kubernetes: preparing server: etcd: snapshot path does not exist: {path}");
    let bytes = lab.guests().get(vmid).and_then(|m| m.files.read(&Who::root(), path).ok()).ok_or_else(missing)?;
    let snap = Snapshot::unpack(&bytes).ok_or("snapshot file integrity check failed")?;
    if password(config) != snap.token {
        return Err(
            "starting kubernetes: preparing server: failed to bootstrap cluster data: bootstrap data already found and encrypted with different token"
                .to_owned(),
        );
    }
    let old = w.clusters.get(&snap.id).cloned().unwrap_or_default();
    let mut store = snap.store;
    // clients that watched before must not take the older objects for newer ones
    let newest = old.store.version().max(store["rv"].as_u64().unwrap_or(0));
    store["rv"] = json!(newest + 1000);
    let store: super::super::store::Store = serde_json::from_value(store).map_err(|e| e.to_string())?;
    let known: Vec<String> = store.all("pods", "").map(|p| s(p, "/metadata/uid").to_owned()).collect();
    let pods = old.pods.into_iter().filter(|(uid, _)| known.contains(uid)).collect();
    Ok(Cluster {
        id: snap.id,
        ca: snap.ca,
        client_ca: snap.client_ca,
        token: snap.token,
        agent_token: snap.agent_token,
        version: snap.version,
        etcd: true,
        on_disk: old.on_disk,
        store,
        nodes: old.nodes,
        pods,
        volumes: old.volumes,
        addresses: snap.addresses,
        apps: serde_json::from_value(snap.apps).unwrap_or_default(),
        ..Cluster::default()
    })
}

fn install(lab: &Lab, w: &mut World, vmid: u32, mut c: Cluster, config: &Value) {
    let node = match s(config, "/node-name") {
        "" => guest::hostname(w, vmid).unwrap_or_default(),
        n => n.to_owned(),
    };
    let ip = guest::ip(w, vmid).unwrap_or_default();
    let others: Vec<u32> = c.members.keys().chain(c.on_disk.keys()).copied().filter(|v| *v != vmid).collect();
    c.members = BTreeMap::from([(vmid, Member { vmid, node: node.clone(), ip, learner: false })]);
    c.on_disk.insert(vmid, node.clone());
    c.config = config.clone();
    c.vips.clear();
    c.seen = 0;
    let names: Vec<String> = c.store.all("nodes", "").map(|n| s(n, "/metadata/name").to_owned()).collect();
    for name in &names {
        // a removal that was asked for before the snapshot must not take a member away now
        let _ = c.store.patch_with("nodes", "", name, |n| {
            if let Some(a) = n["metadata"]["annotations"].as_object_mut() {
                a.remove("etcd.k3s.cattle.io/remove");
            }
        });
    }
    let id = c.id.clone();
    guest::put_file(
        lab,
        w,
        vmid,
        &format!("/var/lib/rancher/k3s/server/db/etcd-old-{}/name", w.now_ms / 1000),
        &node,
        0o600,
    );
    files::server(lab, w, vmid, &c, config, &node);
    guest::put_file(lab, w, vmid, files::RESET_FLAG, "", 0o600);
    super::membership::only_of(w, vmid, &id);
    w.clusters.insert(id.clone(), c);
    if let Some(p) = w.k3s.get_mut(&vmid) {
        p.cluster = Some(id.clone());
    }
    for other in others {
        let member = w.k3s.get(&other).is_some_and(|p| {
            p.cluster.as_deref() == Some(&id)
                && p.start.role == super::super::state::Role::Server
                && matches!(p.unit, Some(UnitState::Active | UnitState::Activating))
        });
        if member {
            super::fail(
                lab,
                w,
                other,
                "etcd cluster membership was reset by another server: this server is a not a member of the etcd cluster",
            );
        }
    }
    // the Nodes are as they were when the snapshot was taken: who does not post is found out
    for node in names {
        w.schedule(45_000, Event::Kube(KubeEvent::NodeSilent { cluster: id.clone(), node }));
    }
}
