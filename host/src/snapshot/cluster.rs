//! The cluster's part of a snapshot: its objects without secret values.
use std::collections::BTreeMap;
use std::time::Duration;

use gpuhost_lab::Lab;
use gpuhost_lab::kube::k3s::membership;
use gpuhost_lab::seed;
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::k3s;
use gpuhost_stdlib::kubernetes::Cluster;
use gpuhost_stdlib::kubernetes::kinds::{Kind, read_resources};
use gpuhost_stdlib::site::{RoleKind, Site};
use gpuhost_stdlib::ssh::Host;
use serde_json::{Value, json};

use super::guests::Inside;
use super::{Notes, Swap};

/// Resource, namespace, name.
type Key = (String, String, String);

/// What was read of the cluster.
pub enum Read {
    /// There is none.
    Nothing,
    /// There may be one; nothing was read.
    Unknown,
    /// Its objects, and the token of its servers.
    Objects {
        /// Objects.
        all: BTreeMap<Key, Value>,
        /// Kept in memory only.
        token: String,
    },
}

/// API groups whose objects servers write by themselves.
const OWN_GROUPS: [&str; 7] = [
    "metrics.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "events.k8s.io",
    "discovery.k8s.io",
    "authentication.k8s.io",
];

/// Resources that come and go by themselves, or whose names are drawn.
const OWN: [&str; 15] = [
    "pods",
    "events",
    "endpoints",
    "bindings",
    "componentstatuses",
    "replicasets.apps",
    "controllerrevisions.apps",
    "persistentvolumes",
    "jobs.batch",
    "volumeattachments.storage.k8s.io",
    "csinodes.storage.k8s.io",
    "csistoragecapacities.storage.k8s.io",
    "ipaddresses.networking.k8s.io",
    "etcdsnapshotfiles.k3s.cattle.io",
    "servicecidrs.networking.k8s.io",
];

/// How long controllers get afterwards.
const SETTLE: Duration = Duration::from_secs(180);

/// The token of the lab's cluster.
pub fn token_of(lab: &Lab) -> Option<String> {
    lab.with(|w| w.clusters.values().find(|c| !c.on_disk.is_empty()).map(|c| c.full_token()))
}

fn servers(site: &Site) -> Vec<Host> {
    site.nodes.iter().filter(|n| n.kind == RoleKind::Server).map(|n| Host::for_node(site, n)).collect()
}

/// Reads the cluster of the site's servers.
pub async fn read(ctx: &Ctx, site: &Site, inside: &Inside, notes: &mut Notes) -> Read {
    let servers = servers(site);
    let with_k3s = servers.iter().any(|h| inside.0.get(h.name()).is_some_and(|p| !p.k3s.is_empty()));
    if !with_k3s {
        let all_seen = servers.iter().all(|h| inside.0.contains_key(h.name()));
        if !all_seen && !inside.0.is_empty() {
            notes.unread.push("the cluster: no server could be looked into".to_owned());
        }
        return if all_seen { Read::Nothing } else { Read::Unknown };
    }
    let got = async {
        let cluster = k3s::connect(ctx, &servers).await?;
        let all = objects(ctx, &cluster, notes).await?;
        let token = cluster.join().map(|j| j.token.reveal().to_owned()).unwrap_or_default();
        Ok::<_, gpuhost_stdlib::core::error::OpError>((all, token))
    };
    match got.await {
        Ok((all, token)) => {
            notes.read.push(format!("{} objects of the cluster, without the values of Secrets", all.len()));
            notes.assumed.push("values of Secrets and contents of volumes are as a deploy leaves them".to_owned());
            Read::Objects { all, token }
        }
        Err(e) => {
            notes.unread.push(format!("the cluster: {} (taken as a deploy leaves it)", e.message));
            Read::Unknown
        }
    }
}

async fn kinds(ctx: &Ctx, cluster: &Cluster) -> OpResult<Vec<Kind>> {
    let mut out = read_resources("", "v1", &cluster.read_json(ctx, "/api/v1").await?);
    let groups = cluster.read_json(ctx, "/apis").await?;
    for g in groups["groups"].as_array().into_iter().flatten() {
        let (name, version) = (g["name"].as_str().unwrap_or_default(), &g["preferredVersion"]);
        let version = version["version"].as_str().unwrap_or_default();
        if OWN_GROUPS.contains(&name) {
            continue;
        }
        out.extend(read_resources(name, version, &cluster.read_json(ctx, &format!("/apis/{name}/{version}")).await?));
    }
    out.retain(|k| k.listed && !OWN.contains(&resource(k).as_str()));
    Ok(out)
}

fn resource(k: &Kind) -> String {
    if k.group.is_empty() { k.plural.clone() } else { format!("{}.{}", k.plural, k.group) }
}

async fn objects(ctx: &Ctx, cluster: &Cluster, notes: &mut Notes) -> OpResult<BTreeMap<Key, Value>> {
    let mut out = BTreeMap::new();
    for k in kinds(ctx, cluster).await? {
        let at = if k.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", k.api_version()) };
        let list = match cluster.read_json(ctx, &format!("{at}/{}", k.plural)).await {
            Ok(l) => l,
            Err(e) => {
                notes.unread.push(format!("{}: {}", k.plural, e.message));
                continue;
            }
        };
        for o in list["items"].as_array().into_iter().flatten() {
            let mut o = o.clone();
            o["apiVersion"] = json!(k.api_version());
            o["kind"] = json!(k.kind);
            if k.plural == "secrets" {
                withhold(&mut o);
            }
            let text = |key: &str| o["metadata"][key].as_str().unwrap_or_default().to_owned();
            out.insert((resource(&k), text("namespace"), text("name")), o);
        }
    }
    Ok(out)
}

/// Names of a Secret's values stay, the values go.
fn withhold(o: &mut Value) {
    for (_, v) in o["data"].as_object_mut().into_iter().flatten() {
        *v = json!("");
    }
}

/// What an object says by itself.
fn told(o: &Value) -> Value {
    let mut o = o.clone();
    if let Some(meta) = o["metadata"].as_object_mut() {
        for key in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences"] {
            meta.remove(key);
        }
        if let Some(notes) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            notes.remove("deployment.kubernetes.io/revision");
        }
    }
    if let Some(m) = o.as_object_mut() {
        m.remove("status");
    }
    if let Some(spec) = o.get_mut("spec").and_then(Value::as_object_mut) {
        for key in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            spec.remove(key);
        }
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(p) = port.as_object_mut() {
                p.remove("nodePort");
            }
        }
    }
    o
}

/// The node as the world has it, with the labels, taints and the cordon that were read.
fn node(mine: &Value, theirs: &Value) -> Value {
    let mut out = mine.clone();
    out["metadata"]["labels"] = theirs["metadata"]["labels"].clone();
    out["metadata"]["managedFields"] = theirs["metadata"]["managedFields"].clone();
    for key in ["taints", "unschedulable"] {
        match theirs["spec"].get(key) {
            Some(v) => out["spec"][key] = v.clone(),
            None => drop(out["spec"].as_object_mut().and_then(|s| s.remove(key))),
        }
    }
    out
}

fn is_release(o: &Value) -> bool {
    o["type"] == "helm.sh/release.v1"
}

/// Puts first what others need: namespaces, then definitions.
fn rank(key: &Key) -> u8 {
    match key.0.as_str() {
        "namespaces" => 0,
        "customresourcedefinitions.apiextensions.k8s.io" => 1,
        _ => 2,
    }
}

/// Makes the world's cluster be as it was read.
///
/// # Errors
/// When the world's cluster does not answer.
pub async fn place(ctx: &Ctx, site: &Site, lab: &Lab, read: &Read, swap: &Swap, notes: &mut Notes) -> OpResult<()> {
    let Read::Objects { all: theirs, .. } = read else { return Ok(()) };
    let Some(id) = lab.with(|w| w.clusters.values().find(|c| membership::lives(w, c)).map(|c| c.id.clone())) else {
        return Ok(());
    };
    let cluster = k3s::connect(ctx, &servers(site)).await?;
    let mine = objects(ctx, &cluster, &mut Notes::default()).await?;
    let mut put: Vec<(&Key, Value)> = Vec::new();
    for (key, o) in theirs {
        let own = mine.get(key);
        let managed = o["metadata"]["ownerReferences"].is_array();
        match own {
            Some(m) if key.0 == "nodes" => put.push((key, node(m, o))),
            Some(_) if key.0 == "secrets" || key.0 == "persistentvolumeclaims" => {}
            None if key.0 == "nodes" => {
                notes.unread.push(format!("node {} of the cluster is no machine of the site", key.2))
            }
            None if key.0 == "secrets" && is_release(o) => {
                let known = mine.values().any(|m| is_release(m) && release(m) == release(o));
                if !known {
                    notes.unread.push(format!("what release {} holds (its values may be secret)", release(o).1));
                }
            }
            Some(m) if told(m) == told(o) => {}
            None if managed => {}
            _ => put.push((key, o.clone())),
        }
    }
    put.sort_by_key(|(key, _)| rank(key));
    let gone = mine.iter().filter(|(key, o)| !stays(key, o, theirs)).map(|(key, _)| key);
    let mut gone: Vec<&Key> = gone.collect();
    gone.sort_by_key(|key| std::cmp::Reverse(rank(key)));
    lab.with(|w| {
        for key in gone {
            seed::remove_object(lab, w, &id, &key.0, &key.1, &key.2);
        }
        for (key, o) in put {
            let o: Value = serde_json::from_str(&swap.text(&o.to_string())).unwrap_or(o);
            if !seed::put_object(lab, w, &id, &key.0, &o) {
                notes.unread.push(format!("{} {}: the world does not take it", key.0, key.2));
            }
        }
    });
    ctx.clock.sleep(SETTLE).await;
    Ok(())
}

/// Namespace and name of a release.
fn release(o: &Value) -> (String, String) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (text(&o["metadata"]["namespace"]), text(&o["metadata"]["labels"]["name"]))
}

fn stays(key: &Key, o: &Value, theirs: &BTreeMap<Key, Value>) -> bool {
    if is_release(o) {
        return theirs.values().any(|t| is_release(t) && release(t) == release(o));
    }
    theirs.contains_key(key) || o["metadata"]["ownerReferences"].is_array()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_withheld() {
        let mut o = json!({"type": "Opaque", "data": {"password": "aHVudGVyMg=="}});
        withhold(&mut o);
        assert_eq!(o, json!({"type": "Opaque", "data": {"password": ""}}));
    }

    #[test]
    fn a_node_keeps_what_only_the_world_knows() {
        let mine = json!({"metadata": {"labels": {"a": "1"}, "annotations": {"x": "mine"}}, "spec": {"taints": [1]}});
        let theirs = json!({"metadata": {"labels": {"a": "2"}}, "spec": {"unschedulable": true}});
        let n = node(&mine, &theirs);
        assert_eq!(n["metadata"]["annotations"]["x"], "mine");
        assert_eq!((&n["spec"]["unschedulable"], n["spec"].get("taints")), (&json!(true), None));
    }
}
