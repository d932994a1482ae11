//! Workloads that the platform's releases and K3s brought, and that have not the replicas they want.
use std::fmt;

use serde_json::Value;

use super::Cluster;
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;

/// Who brought a workload, as Helm notes it.
const RELEASE: &str = "meta.helm.sh/release-name";
/// Who brought a workload, as K3s notes it for what it packages.
const ADDON: &str = "objectset.rio.cattle.io/owner-name";

/// A workload without all of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// `Deployment`, `StatefulSet` or `DaemonSet`.
    pub kind: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The release or the component of K3s that brought it.
    pub owner: String,
    /// Replicas that it is scaled to; nodes that a DaemonSet covers.
    pub wants: i64,
    /// Replicas that are ready.
    pub ready: i64,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Short { kind, namespace, name, owner, wants, ready } = self;
        let kind = kind.to_lowercase();
        match wants {
            0 => write!(f, "{kind} {namespace}/{name} of {owner} is scaled to 0"),
            _ => write!(f, "{kind} {namespace}/{name} of {owner}: {ready} of {wants} ready"),
        }
    }
}

/// What is missing of a workload; `None` when nobody's release brought it or nothing is missing.
#[must_use]
pub fn short(kind: &'static str, w: &Value) -> Option<Short> {
    let meta = &w["metadata"];
    let note = |key: &str| meta["annotations"][key].as_str().filter(|o| !o.is_empty());
    let owner = note(RELEASE).or_else(|| note(ADDON))?.to_owned();
    let n = |key: &str| w["status"][key].as_i64().unwrap_or(0);
    let (wants, ready, may_be_none) = match kind {
        // a set whose nodes are not there has no pods, and that is right
        "DaemonSet" => (n("desiredNumberScheduled"), n("numberReady"), true),
        _ => (w["spec"]["replicas"].as_i64().unwrap_or(1), n("readyReplicas"), false),
    };
    let text = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
    let missing = ready < wants || wants == 0 && !may_be_none;
    missing.then(|| Short { kind, namespace: text("namespace"), name: text("name"), owner, wants, ready })
}

impl Cluster {
    /// Workloads of releases and of K3s that have not the replicas they want. What a release itself wants none of is in order.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn short_workloads(&self, ctx: &Ctx) -> OpResult<Vec<Short>> {
        let mut out = Vec::new();
        for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
            for w in self.list_in(ctx, &kind.to_lowercase(), "").await? {
                let Some(s) = short(kind, &w) else { continue };
                let home = w["metadata"]["annotations"]["meta.helm.sh/release-namespace"].as_str();
                let none_wanted = match home.filter(|_| s.wants == 0) {
                    Some(home) => self.release_wants(ctx, home, &s.owner, kind, &s.name).await? == Some(0),
                    None => false,
                };
                if !none_wanted {
                    out.push(s);
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_a_release_brought_is_counted() {
        let of = |notes: Value, spec: Value, status: Value| json!({"metadata": {"name": "a", "namespace": "b", "annotations": notes}, "spec": spec, "status": status});
        let helm = json!({"meta.helm.sh/release-name": "r"});
        let said = |kind, w: Value| short(kind, &w).map(|s| s.to_string());
        let none = of(helm.clone(), json!({"replicas": 0}), json!({}));
        assert_eq!(said("Deployment", none).unwrap(), "deployment b/a of r is scaled to 0");
        let part = of(helm.clone(), json!({"replicas": 3}), json!({"readyReplicas": 2}));
        assert_eq!(said("StatefulSet", part).unwrap(), "statefulset b/a of r: 2 of 3 ready");
        assert_eq!(said("Deployment", of(helm.clone(), json!({}), json!({"readyReplicas": 1}))), None);
        assert_eq!(said("DaemonSet", of(helm, json!({}), json!({"desiredNumberScheduled": 0}))), None);
        let packaged = of(json!({"objectset.rio.cattle.io/owner-name": "coredns"}), json!({"replicas": 0}), json!({}));
        assert!(said("Deployment", packaged).unwrap().contains("of coredns is scaled to 0"));
        assert_eq!(said("Deployment", of(json!({}), json!({"replicas": 0}), json!({}))), None, "somebody's own");
    }
}
