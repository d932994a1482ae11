//! BundleDeployments: what Fleet's controller asks of the agent of a cluster, and what the agent says has become of it.
//! Grade: source (internal/cmd/controller and internal/cmd/agent of Fleet).
use serde_json::{Value, json};

use super::bundle::Bundle;
use super::deploy::{self, State};
use crate::kube::cx::{Cx, key, set_condition};
use crate::kube::text::{arr, s, sha256};

pub(super) const DEPLOYMENTS: &str = "bundledeployments.fleet.cattle.io";
/// Where those of the cluster `local` are: the name follows from the cluster's and is the same everywhere.
pub const HOME: &str = "cluster-fleet-local-local-1a3d67d0a899";
/// Holds a deployment until the agent has taken its release away.
const FINALIZER: &str = "fleet.cattle.io/bundle-deployment-finalizer";

/// What a `fleet.yaml` says of the way its bundle is deployed.
pub(super) fn options(b: &Bundle) -> Value {
    let mut out = json!({"ignore": {}});
    for field in ["defaultNamespace", "helm", "keepResources", "namespace", "correctDrift"] {
        if !b.fleet[field].is_null() {
            out[field] = b.fleet[field].clone();
        }
    }
    out
}

/// The deployment of a bundle, made if it is not there.
pub(super) fn ensure(cx: &mut Cx, repo: &Value, b: &Bundle) -> Value {
    let options = options(b);
    let content = sha256(&format!("{:?}{:?}", b.objects, b.error));
    let id = format!("s-{}:{}", &content[..59], sha256(&options.to_string()));
    let same = cx.get(DEPLOYMENTS, HOME, &b.name).is_some_and(|d| d["spec"]["deploymentID"] == id.as_str());
    if !same {
        let labels = json!({
            "fleet.cattle.io/bundle-name": b.name, "fleet.cattle.io/bundle-namespace": "fleet-local",
            "fleet.cattle.io/cluster": "local", "fleet.cattle.io/cluster-namespace": "fleet-local",
            "fleet.cattle.io/managed": "true", "fleet.cattle.io/repo-name": repo["metadata"]["name"],
        });
        let object = json!({"apiVersion": "fleet.cattle.io/v1alpha1", "kind": "BundleDeployment",
            "metadata": {"name": b.name, "namespace": HOME, "labels": labels, "finalizers": [FINALIZER]},
            "spec": {"deploymentID": id, "options": options, "stagedDeploymentID": id, "stagedOptions": options}});
        cx.writing("fleetcontroller", |cx| cx.ensure(object));
    }
    cx.get(DEPLOYMENTS, HOME, &b.name).cloned().unwrap_or_default()
}

/// The bundle is gone: so is its deployment.
pub(super) fn withdraw(cx: &mut Cx, bundle: &str) {
    cx.delete(DEPLOYMENTS, HOME, bundle);
}

/// Deployments that are being deleted: the agent takes their releases away and lets them go. Says whether there were any.
pub(super) fn departing(cx: &mut Cx) -> bool {
    let all: Vec<Value> = cx
        .list_in(DEPLOYMENTS, HOME)
        .into_iter()
        // one that waits for somebody else's finalizer is no longer the agent's
        .filter(|d| {
            !d["metadata"]["deletionTimestamp"].is_null()
                && arr(d, "/metadata/finalizers").iter().any(|f| f == FINALIZER)
        })
        .cloned()
        .collect();
    let any = !all.is_empty();
    for d in all {
        let (ns, name) = key(&d);
        deploy::remove(cx, &d);
        cx.update(DEPLOYMENTS, &ns, &name, |o| {
            if let Some(held) = o["metadata"]["finalizers"].as_array_mut() {
                held.retain(|f| f != FINALIZER);
            }
        });
    }
    any
}

/// What the agent says of a deployment.
pub(super) fn show(cx: &mut Cx, bundle: &str, st: &State) {
    let Some(d) = cx.get(DEPLOYMENTS, HOME, bundle).cloned() else { return };
    let applied = st.word != "ErrApplied" && st.word != "WaitApplied";
    let ready = st.word == "Ready";
    let mut status = d["status"].clone();
    if !status.is_object() {
        status = json!({});
    }
    if applied {
        status["appliedDeploymentID"] = d["spec"]["deploymentID"].clone();
    }
    if let Some(release) = &st.release {
        status["release"] = json!(release);
    }
    status["ready"] = json!(ready);
    status["nonModified"] = json!(st.word != "Modified");
    status["display"] = json!({
        "deployed": if st.word == "ErrApplied" { format!("Error: {}", st.message) } else { "True".to_owned() },
        "monitored": if applied { "True" } else { "False" },
        "state": st.word,
    });
    status["resources"] = json!(st.resources);
    let n = st.resources.len();
    let good = if ready { n } else { n.saturating_sub(1) };
    status["resourceCounts"] = json!({"desiredReady": n, "ready": good, "missing": 0, "modified": usize::from(st.word == "Modified"),
        "notReady": usize::from(st.word == "NotReady"), "orphaned": 0, "unknown": 0, "waitApplied": 0});
    let stamp = cx.stamp();
    let mut fresh = json!({"status": status});
    for (kind, yes, reason, text) in [
        ("Installed", applied, "", ""),
        ("Deployed", st.word != "ErrApplied", "Error", st.message.as_str()),
        ("Monitored", applied, "", ""),
        ("Ready", ready, if st.word == "ErrApplied" { "Error" } else { "" }, st.message.as_str()),
    ] {
        let (is, reason, text) = if yes { ("True", "", "") } else { ("False", reason, text) };
        set_condition(&mut fresh, &stamp, kind, is, reason, text);
    }
    if fresh["status"] != d["status"] {
        cx.update(DEPLOYMENTS, HOME, bundle, |o| o["status"] = fresh["status"].clone());
    }
}

/// Bundles of a repository that somebody deletes take their deployments along, then go. Without an agent that `works`
/// their deployments wait, and so do they.
pub(super) fn leaving(cx: &mut Cx, bundles: &str, finalizer: &str, works: bool) {
    let all: Vec<Value> =
        cx.list(bundles).into_iter().filter(|b| !b["metadata"]["deletionTimestamp"].is_null()).cloned().collect();
    for b in all {
        let (ns, name) = key(&b);
        withdraw(cx, &name);
        if works {
            departing(cx);
        }
        if cx.get(DEPLOYMENTS, HOME, &name).is_none() && arr(&b, "/metadata/finalizers").iter().any(|f| f == finalizer)
        {
            cx.update(bundles, &ns, &name, |o| {
                if let Some(held) = o["metadata"]["finalizers"].as_array_mut() {
                    held.retain(|f| f != finalizer);
                }
            });
        }
    }
}

/// The release that a deployment stands for: its namespace and its name.
#[must_use]
pub(super) fn release_of(options: &Value, bundle: &str) -> (String, String) {
    let ns = [&options["namespace"], &options["defaultNamespace"]].into_iter().find_map(Value::as_str);
    let named = s(options, "/helm/releaseName");
    // a release's name has 53 characters at most
    let own: String = if named.is_empty() { bundle } else { named }.chars().take(53).collect();
    (ns.unwrap_or("default").to_owned(), own.trim_end_matches('-').to_owned())
}
