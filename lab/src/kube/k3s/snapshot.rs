//! etcd snapshots: files on a server's disk that hold the whole datastore, and their objects. Grade: docs.
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::cx::{Cx, with_cluster};
use super::super::state::{Cluster, UnitState};
use super::super::text::{s, sha256, stamp};
use super::files;
use crate::tls::Pair;
use crate::world::World;
use crate::{Lab, guest};

/// What a snapshot file holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Cluster's identity.
    pub id: String,
    /// CA of the API server.
    pub ca: Pair,
    /// CA of clients.
    pub client_ca: Pair,
    /// Password of the server token: the key of the bootstrap data.
    pub token: String,
    /// Agent token.
    pub agent_token: Option<String>,
    /// Version.
    pub version: String,
    /// The store, as it is saved.
    pub store: Value,
    /// State of applications.
    pub apps: Value,
    /// Service addresses given out.
    pub addresses: u32,
}

const MAGIC: &[u8] = b"lab-etcd-snapshot\n";

impl Snapshot {
    fn of(c: &Cluster) -> Self {
        Snapshot {
            id: c.id.clone(),
            ca: c.ca.clone(),
            client_ca: c.client_ca.clone(),
            token: c.token.clone(),
            agent_token: c.agent_token.clone(),
            version: c.version.clone(),
            store: serde_json::to_value(&c.store).unwrap_or_default(),
            apps: serde_json::to_value(&c.apps).unwrap_or_default(),
            addresses: c.addresses,
        }
    }

    fn pack(&self) -> std::io::Result<Vec<u8>> {
        let mut gz = GzEncoder::new(MAGIC.to_vec(), Compression::default());
        gz.write_all(&serde_json::to_vec(self)?)?;
        gz.finish()
    }

    /// Reads a snapshot file; `None` when it is damaged.
    #[must_use]
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut text = Vec::new();
        GzDecoder::new(bytes.strip_prefix(MAGIC)?).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// One row of `k3s etcd-snapshot ls`.
#[derive(Debug, Clone)]
pub struct Row {
    /// Name of the file.
    pub name: String,
    /// Bytes.
    pub size: usize,
    /// When it was made, as Kubernetes writes it.
    pub created: String,
}

/// Resource of the snapshots' objects.
const KIND: &str = "etcdsnapshotfiles.k3s.cattle.io";

/// Cluster of a guest whose server answers.
fn running(w: &World, vmid: u32) -> Result<String, String> {
    let p = w.k3s.get(&vmid).filter(|p| p.unit == Some(UnitState::Active));
    let id = p.and_then(|p| p.cluster.clone()).filter(|id| super::join::has_quorum(w, id));
    id.ok_or_else(|| {
        "see server log for details: https://127.0.0.1:6443/db/snapshot: 500 Internal Server Error".to_owned()
    })
}

/// Saves a snapshot; gives its name.
///
/// # Errors
/// K3s' own text when no server answers.
pub fn save(lab: &Lab, w: &mut World, vmid: u32, name: &str) -> Result<String, String> {
    let id = running(w, vmid)?;
    let node = w.k3s.get(&vmid).map(|p| p.node.clone()).unwrap_or_default();
    let prefix = if name.is_empty() { "on-demand" } else { name };
    let name = format!("{prefix}-{node}-{}", w.now_ms / 1000);
    let Some(c) = w.clusters.get(&id) else { return Err("no cluster".to_owned()) };
    let bytes = pack(c).map_err(|e| e.to_string())?;
    write(lab, w, vmid, &id, &name, &bytes);
    Ok(name)
}

/// What a snapshot file of a cluster holds now.
///
/// # Errors
/// When it cannot be packed.
pub fn pack(c: &Cluster) -> std::io::Result<Vec<u8>> {
    Snapshot::of(c).pack()
}

/// Puts a snapshot on a server's disk, with its object and event.
pub fn write(lab: &Lab, w: &mut World, vmid: u32, id: &str, name: &str, bytes: &[u8]) {
    let node = w.k3s.get(&vmid).map(|p| p.node.clone()).unwrap_or_default();
    let path = format!("{}/{name}", files::SNAPSHOTS);
    if let Some(m) = lab.guests().get(vmid) {
        m.files.place_file(&path, bytes, 0o600);
    }
    with_cluster(lab, w, id, |cx| {
        let stamp = cx.stamp();
        let object = note(cx, &node, &Row { name: name.to_owned(), size: bytes.len(), created: stamp.clone() });
        let made = cx.get(KIND, "", &object).cloned().unwrap_or_default();
        cx.event(&made, true, "ETCDSnapshotCreated", &format!("Snapshot {name} saved on {node}"), "k3s-supervisor");
        cx.update("nodes", "", &node, |n| {
            n["metadata"]["annotations"]["etcd.k3s.cattle.io/local-snapshots-timestamp"] = json!(stamp);
        });
    });
}

/// The object of a snapshot on a server's disk; gives its name.
fn note(cx: &mut Cx, node: &str, row: &Row) -> String {
    let path = format!("{}/{}", files::SNAPSHOTS, row.name);
    let object = object_name(&row.name, node, &path);
    let status = json!({"size": row.size.to_string(), "creationTime": row.created, "readyToUse": true});
    cx.create(json!({"apiVersion": "k3s.cattle.io/v1", "kind": "ETCDSnapshotFile",
        "metadata": {"name": object, "labels": {"etcd.k3s.cattle.io/snapshot-storage-node": node},
            "annotations": {"etcd.k3s.cattle.io/snapshot-token-hash": &sha256(&cx.c.token)[..12]}},
        "spec": {"snapshotName": row.name, "nodeName": node, "location": format!("file://{path}")}}));
    // the main resource does not take a status
    cx.update(KIND, "", &object, |o| o["status"] = status);
    object
}

/// A server that starts notes what lies on its disk and has no object, as after a restore, and forgets objects without a file.
pub fn reconcile(lab: &Lab, w: &mut World, vmid: u32, id: &str) {
    let node = w.k3s.get(&vmid).map(|p| p.node.clone()).unwrap_or_default();
    let there = list(lab, vmid);
    with_cluster(lab, w, id, |cx| {
        let known: Vec<(String, String)> = cx
            .list(KIND)
            .into_iter()
            .filter(|o| s(o, "/spec/nodeName") == node && s(o, "/spec/location").starts_with("file://"))
            .map(|o| (s(o, "/metadata/name").to_owned(), s(o, "/spec/snapshotName").to_owned()))
            .collect();
        for row in there.iter().filter(|r| !known.iter().any(|k| k.1 == r.name)) {
            note(cx, &node, row);
        }
        for (object, _) in known.iter().filter(|k| !there.iter().any(|r| r.name == k.1)) {
            cx.delete(KIND, "", object);
        }
    });
}

/// Deletes all but the newest `keep` snapshots of a server whose names begin with `base`.
pub fn prune(lab: &Lab, w: &mut World, vmid: u32, base: &str, keep: usize) {
    let mut mine: Vec<Row> = list(lab, vmid).into_iter().filter(|r| r.name.starts_with(&format!("{base}-"))).collect();
    mine.sort_by(|a, b| b.created.cmp(&a.created));
    for old in mine.into_iter().skip(keep) {
        delete(lab, w, vmid, &old.name);
    }
}

/// Name of a snapshot's object.
#[must_use]
pub fn object_name(snapshot: &str, node: &str, path: &str) -> String {
    format!("local-{}-{}", snapshot.to_lowercase(), &sha256(&format!("{node}file://{path}"))[..6])
}

/// Snapshots on the disk of a guest.
#[must_use]
pub fn list(lab: &Lab, vmid: u32) -> Vec<Row> {
    let Some(m) = lab.guests().get(vmid) else { return Vec::new() };
    let root = crate::guest::fs::Who::root();
    let mut out: Vec<Row> = guest::file_names(lab, vmid, files::SNAPSHOTS)
        .into_iter()
        .map(|name| {
            let size = m.files.read(&root, &format!("{}/{name}", files::SNAPSHOTS)).map_or(0, |b| b.len());
            let secs: u64 = name.rsplit('-').next().and_then(|t| t.parse().ok()).unwrap_or(0);
            Row { name, size, created: stamp(secs * 1000) }
        })
        .collect();
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

/// Deletes a snapshot of a guest; false when there is none.
pub fn delete(lab: &Lab, w: &mut World, vmid: u32, name: &str) -> bool {
    if !list(lab, vmid).iter().any(|r| r.name == name) {
        return false;
    }
    guest::remove_file(lab, vmid, &format!("{}/{name}", files::SNAPSHOTS));
    if let Ok(id) = running(w, vmid) {
        with_cluster(lab, w, &id, |cx| {
            let mine: Vec<String> = cx
                .list(KIND)
                .into_iter()
                .filter(|o| s(o, "/spec/snapshotName") == name)
                .map(|o| s(o, "/metadata/name").to_owned())
                .collect();
            for object in mine {
                let gone = cx.get(KIND, "", &object).cloned().unwrap_or_default();
                cx.event(&gone, true, "ETCDSnapshotDeleted", &format!("Snapshot {name} deleted"), "k3s-supervisor");
                cx.delete(KIND, "", &object);
            }
        });
    }
    true
}
