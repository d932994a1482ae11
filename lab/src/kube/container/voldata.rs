//! Where the data of volumes is: in directories of machines, as on real ones; in the cluster for what no machine holds.
use std::collections::BTreeMap;

use serde_json::Value;

use crate::guest;
use crate::kube::cx::Cx;
use crate::kube::text::s;

/// Text files and directories by their path below a place; directories end in `/`.
pub type Data = BTreeMap<String, String>;

/// A place where a volume's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory of a machine.
    Machine {
        /// Guest.
        vmid: u32,
        /// Absolute path.
        dir: String,
    },
    /// In the cluster, under a key.
    Cluster(String),
}

impl Place {
    /// A directory below this place.
    #[must_use]
    pub fn below(self, sub: &str) -> Place {
        match self {
            Place::Machine { vmid, dir } if !sub.is_empty() => {
                Place::Machine { vmid, dir: format!("{dir}/{}", sub.trim_matches('/')) }
            }
            other => other,
        }
    }
}

/// Node that a volume's affinity names.
#[must_use]
pub fn node_of(pv: &Value) -> Option<&str> {
    pv.pointer("/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0").and_then(Value::as_str)
}

/// The directory `path` of the NFS server with an address, when that is a machine of the lab.
#[must_use]
pub fn share(cx: &Cx, server: &str, path: &str) -> Option<Place> {
    let vmid = guest::by_ip(cx.w, server)?;
    Some(Place::Machine { vmid, dir: path.trim_end_matches('/').to_owned() })
}

/// A directory of a node's machine, when that is one of the lab.
pub(super) fn on_node(cx: &Cx, node: &str, dir: &str) -> Option<Place> {
    let vmid = cx.c.nodes.get(node)?.vmid;
    cx.lab.guests().get(vmid)?;
    Some(Place::Machine { vmid, dir: dir.trim_end_matches('/').to_owned() })
}

/// Where a persistent volume has its data.
#[must_use]
pub fn of_volume(cx: &Cx, pv: &Value) -> Place {
    let (csi, nfs) = (&pv["spec"]["csi"]["volumeAttributes"], &pv["spec"]["nfs"]);
    let found = if !s(csi, "/share").is_empty() {
        share(cx, s(csi, "/server"), s(csi, "/share")).map(|p| p.below(s(csi, "/subDir")))
    } else if nfs.is_object() {
        share(cx, s(nfs, "/server"), s(nfs, "/path"))
    } else {
        let dir = [s(pv, "/spec/local/path"), s(pv, "/spec/hostPath/path")].into_iter().find(|d| !d.is_empty());
        dir.zip(node_of(pv)).and_then(|(dir, node)| on_node(cx, node, dir))
    };
    found.unwrap_or_else(|| Place::Cluster(s(pv, "/metadata/name").to_owned()))
}

/// What is in a place.
#[must_use]
pub fn read(cx: &Cx, place: &Place) -> Data {
    match place {
        Place::Machine { vmid, dir } => guest::texts_below(cx.lab, *vmid, dir),
        Place::Cluster(key) => cx.c.volumes.get(key).map(|v| v.files.clone()).unwrap_or_default(),
    }
}

/// Brings to a place what was changed between `before` and `after`; what others wrote there meanwhile stays.
pub fn change(cx: &mut Cx, place: &Place, before: &Data, after: &Data) {
    let gone: Vec<&String> = before.keys().filter(|k| !after.contains_key(*k)).collect();
    let new: Vec<(&String, &String)> = after.iter().filter(|(k, v)| before.get(*k) != Some(v)).collect();
    match place {
        Place::Machine { vmid, dir } => {
            for path in gone {
                guest::remove_file(cx.lab, *vmid, &format!("{dir}/{}", path.trim_end_matches('/')));
            }
            for (path, text) in new {
                match path.strip_suffix('/') {
                    Some(sub) => guest::put_dir(cx.lab, *vmid, &format!("{dir}/{sub}"), 0o755, ""),
                    None => guest::put_file(cx.lab, cx.w, *vmid, &format!("{dir}/{path}"), text, 0o644),
                }
            }
        }
        Place::Cluster(key) => {
            let files = &mut cx.c.volumes.entry(key.clone()).or_default().files;
            gone.into_iter().for_each(|k| drop(files.remove(k)));
            files.extend(new.into_iter().map(|(k, v)| (k.clone(), v.clone())));
        }
    }
}

/// Throws a place's data away.
pub fn remove(cx: &mut Cx, place: &Place) {
    match place {
        Place::Machine { vmid, dir } => guest::remove_file(cx.lab, *vmid, dir),
        Place::Cluster(key) => drop(cx.c.volumes.remove(key)),
    }
}
