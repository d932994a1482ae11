//! Draining a node: who holds its GPUs, what has no other copy, and evictions that respect disruption budgets.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::nodes::quantity;
use super::objects::ListOptions;
use super::rest::Request;
use super::watch::Target;
use super::{Cluster, describe};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult, Stop};
use crate::core::event::Change;
use crate::core::op::{Look, Op, OpScope};
use crate::options;

options! {
    /// How to drain.
    pub struct DrainOptions {
        /// Only pods with these labels.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// How long a pod gets for its end; default: what the pod itself asks for.
        grace: Option<crate::core::units::Duration> = None,
        /// Evict pods that have an emptyDir, whose data goes; `false` refuses the drain while there are some.
        delete_emptydir: bool = true,
        /// Evict pods that nothing makes anew; `false` refuses the drain while there are some.
        lone_pods: bool = true,
        /// Ask disruption budgets; `false` deletes the pods past them.
        eviction: bool = true,
    }
}

/// Whether a controller makes the pod anew.
#[must_use]
pub fn is_made_anew(pod: &Value) -> bool {
    pod["metadata"]["ownerReferences"].as_array().is_some_and(|o| o.iter().any(|o| o["controller"] == true))
}

/// Whether data goes with the pod.
#[must_use]
pub fn has_emptydir(pod: &Value) -> bool {
    pod["spec"]["volumes"].as_array().into_iter().flatten().any(|v| v["emptyDir"].is_object())
}

/// Refuses a drain that would end what the options keep.
fn refuse_kept(node: &str, pods: &[Value], o: &DrainOptions) -> OpResult<()> {
    let names = |keep: bool, holds: fn(&Value) -> bool| -> Vec<String> {
        pods.iter().filter(|p| keep && holds(p)).map(describe).collect()
    };
    let rules = [
        ("delete_emptydir", "an emptyDir", names(!o.delete_emptydir, has_emptydir)),
        ("lone_pods", "nothing that makes them anew", names(!o.lone_pods, |p| !is_made_anew(p))),
    ];
    match rules.into_iter().find(|(.., kept)| !kept.is_empty()) {
        None => Ok(()),
        Some((option, what, kept)) => Err(OpError::conflict(format!("pods of the node have {what}"))
            .on(node)
            .because(kept.join(", "))
            .hint(format!("nothing was evicted; `#{{ {option}: true }}` evicts them too"))),
    }
}

/// Prefix of extended resources that people wait for.
const GPUS: &str = "nvidia.com/";

/// Taint of a cordoned node.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// GPUs that a pod asks for, of any resource name (`nvidia.com/gpu`, MIG slices).
#[must_use]
pub fn gpus_of(pod: &Value) -> i64 {
    let containers = pod["spec"]["containers"].as_array();
    let limits = containers.into_iter().flatten().filter_map(|c| c["resources"]["limits"].as_object());
    limits.flatten().filter(|(k, _)| k.starts_with(GPUS)).map(|(_, v)| quantity(v)).sum()
}

/// What an eviction of this pod means to somebody, as words after its name.
#[must_use]
pub fn eviction_words(pod: &Value) -> String {
    let mut out = Vec::new();
    match gpus_of(pod) {
        0 => {}
        1 => out.push("holds 1 GPU".to_owned()),
        n => out.push(format!("holds {n} GPUs")),
    }
    if let Some(user) = pod["metadata"]["annotations"]["hub.jupyter.org/username"].as_str() {
        out.push(format!("notebook of {user}"));
    }
    if !is_made_anew(pod) {
        out.push("nothing makes it anew".to_owned());
    }
    if has_emptydir(pod) {
        out.push("loses its emptyDir".to_owned());
    }
    out.join(", ")
}

fn is_evictable(pod: &Value) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let daemon = owners.into_iter().flatten().any(|o| o["kind"] == "DaemonSet" || o["kind"] == "Node");
    let mirror = pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some();
    let done = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    !daemon && !mirror && !done
}

/// Whether a pod may be placed on a cordoned node: what replaces it may come right back.
fn ignores_cordon(pod: &Value) -> bool {
    let tolerations = pod["spec"]["tolerations"].as_array();
    tolerations.into_iter().flatten().any(|t| {
        let key = t["key"].as_str().unwrap_or_default();
        let effect = matches!(t["effect"].as_str(), None | Some("" | "NoSchedule"));
        let exists = t["operator"] == "Exists";
        effect
            && (exists && key.is_empty()
                || key == UNSCHEDULABLE && (exists || t["value"].as_str().is_none_or(str::is_empty)))
    })
}

/// The pods a drain still has to see off: those it began with, and what slipped in before the cordon held.
fn remaining(now: Vec<Value>, begun_with: &BTreeSet<String>) -> Vec<Value> {
    let known = |p: &Value| p["metadata"]["uid"].as_str().is_some_and(|u| begun_with.contains(u));
    now.into_iter().filter(|p| known(p) || !ignores_cordon(p)).collect()
}

/// A drain that was declined has evicted nothing: the node that was cordoned for it takes pods again.
pub(crate) async fn take_back<T>(
    ctx: &Ctx,
    node: &str,
    drained: &OpResult<()>,
    uncordon: impl Future<Output = OpResult<T>>,
) {
    if drained.as_ref().is_err_and(|e| e.stop == Some(Stop::Refused))
        && let Err(e) = uncordon.await
    {
        let next = format!("`gpuhost run scripts/uncordon.rhai --set node={node}`");
        ctx.message("warn", format!("{node} stays cordoned: {e}; {next}"));
    }
}

impl Cluster {
    /// Cordons a node and evicts its pods (daemon sets stay); waits until they are gone. Holders of GPUs come first
    /// in the question. A pod that tolerates the cordon and comes back meanwhile is left alone.
    ///
    /// # Errors
    /// `denied` when declined, and for a server that the quorum hangs on; `timeout` naming the pods that stay and why.
    pub async fn drain_node(&self, ctx: &Ctx, node: &str, limit: Duration) -> OpResult<()> {
        self.drain_with(ctx, node, limit, &DrainOptions::read(&rhai::Map::new())?).await
    }

    /// As [`Cluster::drain_node`], with options.
    ///
    /// # Errors
    /// Like [`Cluster::drain_node`]; `conflict` when there are pods that the options keep.
    pub async fn drain_with(&self, ctx: &Ctx, node: &str, limit: Duration, o: &DrainOptions) -> OpResult<()> {
        self.keep_quorum(ctx, node).await?;
        refuse_kept(node, &self.evictable(ctx, node, &o.labels).await?, o)?;
        let cordoned = self.set_cordon(ctx, node, true).await?;
        let op = Op::destroy("kubernetes", "drain", node);
        let drained = ctx.run_op(op, |s| async move {
            let mut pods = self.evictable(s.ctx(), node, &o.labels).await?;
            if pods.is_empty() {
                return Ok(());
            }
            pods.sort_by_key(|p| std::cmp::Reverse(gpus_of(p)));
            let changes: Vec<_> = pods
                .iter()
                .map(|p| {
                    let words = eviction_words(p);
                    let words = if words.is_empty() { words } else { format!(" ({words})") };
                    Change::new(node, format!("{}{words}", describe(p)), Some("running".into()), None)
                })
                .collect();
            s.act(format!("node {node}"), changes, self.evict_all(&s, node, &pods, limit, o)).await
        });
        let drained = drained.await;
        if cordoned {
            take_back(ctx, node, &drained, self.set_cordon(ctx, node, false)).await;
        }
        drained.map_err(|e| match e.stop {
            Some(Stop::Refused) => e,
            _ => e.because(format!(
                "{node} stays cordoned; to give it pods again: `gpuhost run scripts/uncordon.rhai --set node={node}`"
            )),
        })
    }

    async fn evict_all(
        &self,
        s: &OpScope,
        node: &str,
        pods: &[Value],
        limit: Duration,
        o: &DrainOptions,
    ) -> OpResult<()> {
        let uid = |p: &Value| p["metadata"]["uid"].as_str().map(str::to_owned);
        let begun_with: BTreeSet<String> = pods.iter().filter_map(uid).collect();
        let begun_with = &begun_with;
        self.wait_watching(s, &format!("drain of {node}"), Target::all("pod", ""), limit, || async {
            let pods = match self.evictable(s.ctx(), node, &o.labels).await {
                Err(e) if super::waits_on(&e) => return Ok(Look::Pending(super::seen(&e))),
                other => remaining(other?, begun_with),
            };
            let mut held = Vec::new();
            for pod in &pods {
                held.push(self.evict(s.ctx(), pod, o).await?);
            }
            Ok(if pods.is_empty() { Look::Ready(()) } else { Look::Pending(held.join("; ")) })
        })
        .await
    }

    /// Asks for the eviction of a pod, or deletes it; what keeps it otherwise.
    pub(super) async fn evict(&self, ctx: &Ctx, pod: &Value, o: &DrainOptions) -> OpResult<String> {
        let text = |k: &str| pod["metadata"][k].as_str().unwrap_or_default().to_owned();
        let (ns, name) = (text("namespace"), text("name"));
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            let finalizers = pod["metadata"]["finalizers"].as_array().map(|f| f.len()).unwrap_or(0);
            let held = if finalizers > 0 {
                format!(", held by finalizers {}", pod["metadata"]["finalizers"])
            } else {
                String::new()
            };
            return Ok(format!("{ns}/{name} is ending{held}"));
        }
        let mut how = json!({"preconditions": {"uid": pod["metadata"]["uid"]}});
        if let Some(grace) = &o.grace {
            how["gracePeriodSeconds"] = grace.0.as_secs().into();
        }
        let path = format!("/api/v1/namespaces/{ns}/pods/{name}");
        let request = if o.eviction {
            let body = json!({"apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": name, "namespace": ns}, "deleteOptions": how});
            Request::post(format!("{path}/eviction"), &body)
        } else {
            Request::delete_so(path, &how)
        };
        let reply = self.send(ctx, &request).await?;
        Ok(match reply.status {
            429 => {
                let said = reply.json();
                let why =
                    said["details"]["causes"][0]["message"].as_str().or(said["message"].as_str()).unwrap_or_default();
                format!("{ns}/{name} is kept by a disruption budget: {why}")
            }
            // gone, or another pod of that name by now
            404 | 409 => format!("{ns}/{name} has gone"),
            _ if reply.ok() => format!("{ns}/{name} is ending"),
            _ => return Err(reply.error(&format!("pod {ns}/{name}"))),
        })
    }

    /// Pods of a node that a drain evicts.
    async fn evictable(&self, ctx: &Ctx, node: &str, labels: &BTreeMap<String, String>) -> OpResult<Vec<Value>> {
        let fields = BTreeMap::from([("spec.nodeName".to_owned(), node.to_owned())]);
        let o = ListOptions { namespace: String::new(), labels: labels.clone(), fields };
        Ok(self.list_objects(ctx, "pod", &o).await?.into_iter().filter(is_evictable).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eviction_says_what_it_costs() {
        let pod = json!({"metadata": {"annotations": {"hub.jupyter.org/username": "ada"}}, "spec": {
            "containers": [{"resources": {"limits": {"nvidia.com/gpu": "2"}}}], "volumes": [{"emptyDir": {}}]}});
        assert_eq!(eviction_words(&pod), "holds 2 GPUs, notebook of ada, nothing makes it anew, loses its emptyDir");
        let plain = json!({"metadata": {"ownerReferences": [{"kind": "ReplicaSet", "controller": true}]}, "spec": {"containers": [{}]}});
        assert_eq!((eviction_words(&plain), is_evictable(&plain)), (String::new(), true));
        assert!(!is_evictable(&json!({"metadata": {"ownerReferences": [{"kind": "DaemonSet"}]}})));
    }

    #[test]
    fn a_drain_keeps_what_its_options_keep() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "a", "namespace": "x"}, "spec": {"volumes": [{"emptyDir": {}}]}});
        let refused = |set: &[(&str, bool)]| {
            let map = set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            refuse_kept("n1", std::slice::from_ref(&pod), &DrainOptions::read(&map).unwrap()).err()
        };
        assert!(refused(&[]).is_none());
        let e = refused(&[("delete_emptydir", false)]).unwrap();
        assert_eq!((e.message.as_str(), e.causes[0].as_str()), ("pods of the node have an emptyDir", "Pod x/a"));
        assert!(refused(&[("lone_pods", false)]).unwrap().hint.unwrap().contains("lone_pods: true"));
    }

    #[test]
    fn what_comes_back_to_a_cordoned_node_does_not_hold_the_drain() {
        let pod =
            |uid: &str, tolerations: Value| json!({"metadata": {"uid": uid}, "spec": {"tolerations": tolerations}});
        let all = json!([{"operator": "Exists"}]);
        let begun_with = BTreeSet::from(["old".to_owned()]);
        let left = |pods: Vec<Value>| remaining(pods, &begun_with).len();
        assert_eq!(left(vec![pod("old", all.clone()), pod("back", all)]), 1);
        assert_eq!(
            left(vec![pod("back", json!([{"key": UNSCHEDULABLE, "operator": "Exists", "effect": "NoSchedule"}]))]),
            0
        );
        // what was placed between the look and the cordon goes too
        assert_eq!(
            left(vec![pod(
                "late",
                json!([{"operator": "Exists", "effect": "NoExecute"}, {"key": "gpu", "operator": "Exists"}])
            )]),
            1
        );
    }
}
