//! The CUDA test: one pod per GPU node with as many GPUs as it may take, in a namespace that is thrown away.
use std::time::Duration;

use serde_json::{Value, json};

use super::inventory::{Amounts, NodeGpus, RESOURCE, inventory};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::kubernetes::Cluster;
use crate::options;

/// The sample of NVIDIA.
const IMAGE: &str = "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0-ubuntu22.04";

options! {
    /// The CUDA test.
    pub struct TestOptions {
        /// Nodes to test; default: every node that offers GPUs.
        nodes: Vec<String> = Vec::new(),
        /// Image to run.
        image: String = IMAGE.to_owned(),
        /// How long one pod may take, its image pull included.
        timeout: crate::core::units::Duration = crate::core::units::Duration::minutes(10),
    }
}

/// What the test of one node gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// Node.
    pub node: String,
    /// `passed`, `failed` or `busy`.
    pub result: &'static str,
    /// GPUs, instances or shares used.
    pub gpus: i64,
    /// GPUs and instances that others hold: they were not tested.
    pub untested: i64,
    /// Whether pods share the cards: one share is tested then.
    pub shared: bool,
    /// Why.
    pub text: String,
}

/// The pod of one node for one resource. Affinity by name leaves the accounting of GPUs to the scheduler.
#[must_use]
pub fn test_pod(namespace: &str, node: &str, (resource, gpus): (&str, i64), image: &str) -> Value {
    let name = match resource.strip_prefix("nvidia.com/mig-") {
        Some(profile) => format!("cuda-{node}-{}", profile.replace(['.', '+'], "-")),
        None => format!("cuda-{node}"),
    };
    let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "gpuhost", "app.kubernetes.io/name": "cuda-test"}},
        "spec": {
            "restartPolicy": "Never", "runtimeClassName": "nvidia",
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}},
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "cuda", "image": image, "resources": {"limits": {resource: gpus.to_string()}}}],
        },
    })
}

/// Runs the test on every GPU node at the same time.
///
/// # Errors
/// `not_found` when no node offers a GPU; `unreachable`.
pub async fn run_test(ctx: &Ctx, cluster: &Cluster, o: &TestOptions) -> OpResult<Vec<TestResult>> {
    let all = inventory(ctx, cluster).await?;
    let mut nodes: Vec<NodeGpus> =
        all.nodes.into_iter().filter(|n| n.allocatable > 0 || o.nodes.contains(&n.node)).collect();
    if !o.nodes.is_empty() {
        nodes.retain(|n| o.nodes.contains(&n.node));
        let missing: Vec<_> = o.nodes.iter().filter(|n| !nodes.iter().any(|x| x.node == **n)).cloned().collect();
        nodes.extend(missing.into_iter().map(|node| NodeGpus { node, ..NodeGpus::default() }));
    }
    if nodes.is_empty() {
        return Err(OpError::not_found("no node offers a GPU")
            .on(cluster.name())
            .hint("find the broken link: `gpu::diagnose(cluster)`"));
    }
    let namespace = format!("gpuhost-cuda-{}", short_id());
    let op = Op::run("gpu", "run_test", cluster.name()).class(crate::core::event::Class::Repeatable).args(&o.image);
    ctx.run_op(op, |s| async move {
        // not counted as changes: the namespace goes away with everything in it
        let work = async {
            cluster.make_namespace(s.ctx(), &namespace, true).await?;
            let tests = nodes.iter().map(|n| test_node(&s, cluster, &namespace, n, o)).collect();
            Ok(s.ctx().clock.join_all(tests).await)
        };
        s.probe(format!("namespace {namespace}"), work, cluster.drop_namespace(&s, &namespace)).await
    })
    .await
}

/// Tests a node: one pod for each of its resources, as one container can use one kind of instance only.
async fn test_node(
    s: &crate::core::op::OpScope,
    cluster: &Cluster,
    ns: &str,
    n: &NodeGpus,
    o: &TestOptions,
) -> TestResult {
    let shared = n.replicas > 1;
    let mut all =
        TestResult { node: n.node.clone(), result: "busy", gpus: 0, untested: 0, shared, text: String::new() };
    if n.allocatable == 0 {
        return TestResult { result: "failed", text: "the node offers no GPU".to_owned(), ..all };
    }
    let mut texts = Vec::new();
    for (resource, amounts) in n.resources.iter().filter(|(_, a)| a.allocatable > 0) {
        let shared = shared && resource == RESOURCE;
        let (asked, result, text) = test_resource(s, cluster, ns, (n, resource, amounts, shared), o).await;
        all.gpus += asked;
        all.untested += if shared { 0 } else { amounts.allocatable - asked };
        all.result = match (all.result, result) {
            ("failed", _) | (_, "failed") => "failed",
            ("passed", _) | (_, "passed") => "passed",
            _ => "busy",
        };
        texts.push(text);
    }
    all.text = texts.join("; ");
    all
}

/// How many devices of a resource were asked for, what came of it, and why.
async fn test_resource(
    s: &crate::core::op::OpScope,
    cluster: &Cluster,
    ns: &str,
    (n, resource, amounts, shared): (&NodeGpus, &str, &Amounts, bool),
    o: &TestOptions,
) -> (i64, &'static str, String) {
    let what = match resource.strip_prefix("nvidia.com/mig-") {
        Some(profile) => format!("instances {profile}"),
        None if shared => "shares".to_owned(),
        None => "GPUs".to_owned(),
    };
    let free = amounts.allocatable - amounts.requested;
    if free <= 0 {
        return (0, "busy", format!("all {} {what} are in use", amounts.allocatable));
    }
    // a shared card gives a pod one share: the plugin refuses more
    let asked = if shared { 1 } else { free };
    match cluster.run_to_end(s, &test_pod(ns, &n.node, (resource, asked), &o.image), o.timeout.0).await {
        Ok(end) if end.phase == "Succeeded" && end.log.contains("Test PASSED") => {
            let note = match (shared, amounts.requested) {
                (true, _) => format!(" of {}", amounts.allocatable),
                (_, 0) => String::new(),
                (_, busy) => format!(" ({busy} of {} busy)", amounts.allocatable),
            };
            (asked, "passed", format!("Test PASSED with {asked} {what}{note}"))
        }
        Ok(end) => (asked, "failed", format!("pod {}: {}", end.phase, end.log.lines().last().unwrap_or("no log"))),
        Err(e) => {
            let seen = e.last.clone().into_iter().chain(e.causes.iter().cloned());
            (asked, "failed", std::iter::once(e.message.clone()).chain(seen).collect::<Vec<_>>().join(": "))
        }
    }
}

/// Eight random hexadecimal digits.
pub(crate) fn short_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..8].to_owned()
}

/// Beginnings of the names of throw-away namespaces.
const THROW_AWAY: [&str; 2] = ["gpuhost-cuda-", "gpuhost-verify-"];
/// A throw-away namespace that is older belongs to nobody who still works in it.
const LEFT_BEHIND_S: u64 = 1800;

/// Whether a run that died has left this namespace behind.
fn is_left_behind(namespace: &serde_json::Value, now_s: u64) -> bool {
    let meta = &namespace["metadata"];
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let ours = meta["labels"]["app.kubernetes.io/managed-by"] == "gpuhost";
    let made = crate::kubernetes::epoch_seconds(&text(&meta["creationTimestamp"])).unwrap_or(i64::MAX);
    let old = u64::try_from(made).is_ok_and(|t| t.saturating_add(LEFT_BEHIND_S) < now_s);
    ours && old && THROW_AWAY.iter().any(|p| text(&meta["name"]).starts_with(p))
}

impl Cluster {
    /// Makes a throw-away namespace; those that dead runs have left behind go.
    pub(crate) async fn make_namespace(&self, ctx: &Ctx, name: &str, privileged: bool) -> OpResult<()> {
        let now_s = ctx.clock.now_ms().await / 1000;
        for old in self.list_labelled(ctx, "namespace", "", ("app.kubernetes.io/managed-by", "gpuhost")).await? {
            if is_left_behind(&old, now_s) {
                self.delete_now(ctx, "namespace", "", old["metadata"]["name"].as_str().unwrap_or_default()).await?;
            }
        }
        let level = if privileged { "privileged" } else { "baseline" };
        let labels = json!({"app.kubernetes.io/managed-by": "gpuhost", "pod-security.kubernetes.io/enforce": level});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        let request = crate::kubernetes::rest::Request::post("/api/v1/namespaces", &object);
        self.demand(ctx, name, &request).await.map(drop)
    }

    /// Removes a throw-away namespace with all that is in it. An interrupted run asks for it and does not wait.
    pub(crate) async fn drop_namespace(&self, s: &crate::core::op::OpScope, name: &str) -> OpResult<()> {
        match self.delete_now(s.ctx(), "namespace", "", name).await {
            Err(e) if e.is(crate::core::error::Kind::NotFound) => return Ok(()),
            other => other?,
        }
        if s.ctx().cancel.is_cancelled() {
            return Ok(());
        }
        let what = format!("removal of namespace {name}");
        s.wait_for(&what, Duration::from_secs(3), Duration::from_secs(180), || async {
            let found = self.find_object(s.ctx(), "namespace", "", name).await?;
            Ok(match found {
                None => crate::core::op::Look::Ready(()),
                Some(n) => {
                    crate::core::op::Look::Pending(format!("phase {}", n["status"]["phase"].as_str().unwrap_or("?")))
                }
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_throw_away_namespaces_of_ours_are_left_behind() {
        let of = |name: &str, by: &str, at: &str| json!({"metadata": {"name": name, "creationTimestamp": at, "labels": {"app.kubernetes.io/managed-by": by}}});
        let now = 1_795_339_800; // 2026-11-22T09:30:00Z
        let old = "2026-11-22T08:00:00Z";
        assert!(is_left_behind(&of("gpuhost-cuda-ab", "gpuhost", old), now));
        assert!(is_left_behind(&of("gpuhost-verify-ab", "gpuhost", old), now));
        assert!(!is_left_behind(&of("gpuhost-verify-ab", "gpuhost", "2026-11-22T09:20:00Z"), now), "at work");
        assert!(!is_left_behind(&of("gpuhost-verify-ab", "Helm", old), now), "somebody else's");
        assert!(!is_left_behind(&of("shop", "gpuhost", old), now), "no throw-away one");
        assert!(!is_left_behind(&of("gpuhost-cuda-ab", "gpuhost", ""), now));
    }

    #[test]
    fn pods_ask_for_all_gpus_of_one_node() {
        let p = test_pod("ns", "g1", (RESOURCE, 2), IMAGE);
        assert_eq!(p["spec"]["containers"][0]["resources"]["limits"][RESOURCE], "2");
        assert_eq!(super::super::inventory::requests(&p)[RESOURCE], 2);
        let p = test_pod("ns", "g1", ("nvidia.com/mig-1g.5gb", 7), IMAGE);
        assert_eq!(p["metadata"]["name"], "cuda-g1-1g-5gb");
        assert_eq!(short_id().len(), 8);
    }
}
