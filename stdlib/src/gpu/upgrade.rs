//! The operator's driver upgrade of a node: it leaves pods alone that nothing would make again, and gives the node up.
use serde_json::Value;

use super::inventory::requests;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::doctor::{Finding, Scene, on_machine};
use crate::kubernetes::{Cluster, has_emptydir, is_made_anew};
use crate::site::{Node, RoleKind};

/// Where the operator notes how far the upgrade of a node is.
const STATE: &str = "nvidia.com/gpu-driver-upgrade-state";
const FAILED: &str = "upgrade-failed";
const CAUSE: &str = "the GPU operator has given the upgrade of the driver up";

/// Whether the operator has given the upgrade of a node up.
fn has_failed(node: &Value) -> bool {
    node["metadata"]["labels"][STATE] == FAILED
}

/// How far the operator is with the upgrade of the driver of a node that it has cordoned for it; none while it has not.
#[must_use]
pub fn upgrading(node: &Value) -> Option<&str> {
    let state = node["metadata"]["labels"][STATE].as_str()?;
    (!matches!(state, "" | "upgrade-done" | "upgrade-required" | "cordon-required")).then_some(state)
}

/// The finding for a node whose driver is being upgraded and that lacks nothing else.
pub(super) fn under_way(object: &Value, node: &Node) -> Option<Finding> {
    let state = upgrading(object).filter(|_| object["spec"]["unschedulable"] == true)?;
    Some(Finding {
        id: "driver-upgrading",
        area: "gpu",
        target: node.name.clone(),
        cause: "the GPU operator is upgrading the driver, the node is cordoned for it".to_owned(),
        evidence: format!("label {STATE}={state}"),
        fix: "wait: it takes some minutes for each node; what was not cordoned before is uncordoned by the operator"
            .to_owned(),
        next: "gpuhost run recipes/verify.rhai".to_owned(),
    })
}

/// Pods on a node that hold a GPU and that the upgrade does not end, as `namespace/name` and why.
fn left_alone(pods: &[Value], node: &str) -> Vec<(String, &'static str)> {
    let why = |p: &Value| {
        let word = match (is_made_anew(p), has_emptydir(p)) {
            (false, _) => "no controller",
            (true, true) => "emptyDir",
            (true, false) => return None,
        };
        let text = |k: &str| p["metadata"][k].as_str().unwrap_or_default();
        Some((format!("{}/{}", text("namespace"), text("name")), word))
    };
    pods.iter().filter(|p| p["spec"]["nodeName"] == node && !requests(p).is_empty()).filter_map(why).collect()
}

/// What is to be done for a node: the pods in the way go, then the operator tries again.
fn retry(node: &str, pods: &[(String, &'static str)]) -> String {
    let gone = pods.iter().filter_map(|(p, _)| p.split_once('/'));
    let gone: String = gone.map(|(ns, name)| format!("sudo k3s kubectl -n {ns} delete pod {name} && ")).collect();
    format!("{gone}sudo k3s kubectl label node {node} {STATE}=upgrade-required --overwrite")
}

fn evidence(pods: &[(String, &'static str)]) -> String {
    let list: Vec<String> = pods.iter().map(|(p, why)| format!("{p} ({why})")).collect();
    match list.is_empty() {
        true => format!("label {STATE}={FAILED}; no pod is in its way now"),
        false => format!("label {STATE}={FAILED}; in its way: {}", list.join(", ")),
    }
}

/// The finding for a node whose upgrade was given up.
///
/// # Errors
/// `unreachable`, `denied`.
pub(super) async fn failed(s: &Scene, cluster: &Cluster, object: &Value, node: &Node) -> OpResult<Option<Finding>> {
    if !has_failed(object) {
        return Ok(None);
    }
    let pods = left_alone(&cluster.list_in(&s.ctx, "pod", "").await?, &node.name);
    let command = retry(&node.name, &pods);
    let server = s.site.nodes_of(RoleKind::Server).find(|n| !s.down.contains(&n.name));
    Ok(Some(Finding {
        id: "driver-upgrade-failed",
        area: "gpu",
        target: node.name.clone(),
        cause: CAUSE.to_owned(),
        evidence: evidence(&pods),
        fix: "end the pods that hold its cards, then let the operator try again".to_owned(),
        next: server.map_or_else(|| command.clone(), |at| on_machine(s.ctx.lab, &s.site, at, &command)),
    }))
}

/// An error when the operator has given up the upgrade of one of `nodes` (none named: of any): no wait ends that.
///
/// # Errors
/// `failed` naming the node and the pods in the way; `unreachable`, `denied`.
pub(super) async fn check(ctx: &Ctx, cluster: &Cluster, nodes: &[Value], names: &[String]) -> OpResult<()> {
    let meant = |n: &Value| names.is_empty() || names.iter().any(|name| n["metadata"]["name"] == name.as_str());
    let Some(node) = nodes.iter().find(|n| has_failed(n) && meant(n)) else { return Ok(()) };
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let pods = left_alone(&cluster.list_in(ctx, "pod", "").await?, name);
    let e = OpError::failed(format!("{CAUSE} on {name}")).on(name).because(evidence(&pods));
    let command = retry(name, &pods);
    Err(e.hint(format!("on a server: `{command}`; `gpuhost run scripts/doctor.rhai` prints it whole")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_that_nothing_makes_again_are_named() {
        let pod = |name: &str, owners: Value, volumes: Value| {
            json!({"metadata": {"namespace": "lab", "name": name, "ownerReferences": owners}, "spec": {"nodeName": "g1",
                "volumes": volumes, "containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]}, "status": {"phase": "Running"}})
        };
        let set = json!([{"kind": "ReplicaSet", "controller": true}]);
        let mut done = pod("done", json!([]), json!([]));
        done["status"]["phase"] = json!("Succeeded");
        let all = [
            pod("bare", json!([]), json!([])),
            pod("web", set.clone(), json!([])),
            pod("cache", set, json!([{"name": "c", "emptyDir": {}}])),
            done,
        ];
        let found = left_alone(&all, "g1");
        assert_eq!(found, [("lab/bare".to_owned(), "no controller"), ("lab/cache".to_owned(), "emptyDir")]);
        assert!(left_alone(&all, "g2").is_empty());
        let command = retry("g1", &found[..1]);
        assert!(command.starts_with("sudo k3s kubectl -n lab delete pod bare && sudo k3s kubectl label node g1 "));
        let cordoned = |state: &str| json!({"metadata": {"labels": {STATE: state}}, "spec": {"unschedulable": true}});
        assert_eq!(upgrading(&cordoned("drain-required")), Some("drain-required"));
        assert!(upgrading(&cordoned("upgrade-done")).is_none() && upgrading(&json!({})).is_none());
        assert!(has_failed(&json!({"metadata": {"labels": {STATE: FAILED}}})) && !has_failed(&json!({})));
    }
}
