//! Fleet: repositories that it follows and the bundles that come of them.
use serde_json::{Value, json};

use super::super::cx::{Cx, key, set_condition};
use super::super::text::{arr, s, sha256};
use super::claims::ready_pod;

const REPOS: &str = "gitrepos.fleet.cattle.io";
const BUNDLES: &str = "bundles.fleet.cattle.io";

/// Looks at every repository.
pub fn reconcile(cx: &mut Cx) {
    if cx.c.store.kind_for(REPOS).is_none() || ready_pod(cx, "app", "gitjob").is_none() {
        return;
    }
    let repos: Vec<Value> = cx.list(REPOS).into_iter().cloned().collect();
    for repo in repos {
        one(cx, &repo);
    }
}

fn one(cx: &mut Cx, repo: &Value) {
    let (ns, name) = key(repo);
    let url = s(repo, "/spec/repo").to_owned();
    let generation = repo["metadata"]["generation"].as_i64().unwrap_or(1);
    if repo["status"]["observedGeneration"].as_i64() == Some(generation) {
        return;
    }
    let stamp = cx.stamp();
    if url.contains("does-not-exist")
        || !(url.starts_with("https://") || url.starts_with("git@") || url.starts_with("ssh://"))
    {
        let text = format!("failed to get commit: unable to list remote for {url}: repository not found");
        cx.update(REPOS, &ns, &name, |o| {
            o["status"]["observedGeneration"] = json!(generation);
            set_condition(o, &stamp, "GitPolling", "False", "Error", &text);
            set_condition(o, &stamp, "Stalled", "True", "Stalled", &text);
            set_condition(o, &stamp, "Ready", "False", "Error", &text);
        });
        return;
    }
    cx.w.not_rehearsed.insert(format!("what the repository {url} contains"));
    // The lab's remotes have one commit, made of their address and branch.
    let commit = sha256(&format!("{url}@{}", s(repo, "/spec/branch")))[..40].to_owned();
    // Only the local cluster exists, and it is matched in fleet-local alone.
    let clusters = i64::from(ns == "fleet-local");
    let paths: Vec<String> = match arr(repo, "/spec/paths") {
        [] => vec!["/".to_owned()],
        list => list.iter().filter_map(|p| p.as_str().map(str::to_owned)).collect(),
    };
    for path in &paths {
        let bundle = format!("{name}-{}", path.trim_matches('/').replace(['/', '_', '.'], "-"))
            .trim_end_matches('-')
            .to_lowercase();
        if cx.get(BUNDLES, &ns, &bundle).is_none() {
            cx.create(json!({"apiVersion": "fleet.cattle.io/v1alpha1", "kind": "Bundle",
                "metadata": {"name": bundle, "namespace": ns, "labels": {"fleet.cattle.io/repo-name": name, "fleet.cattle.io/commit": commit}},
                "spec": {"targets": [{"clusterName": "local"}]}}));
        }
        cx.update(BUNDLES, &ns, &bundle, |o| {
            o["status"]["summary"] = json!({"desiredReady": clusters, "ready": clusters});
            set_condition(o, &stamp, "Ready", "True", "", "");
        });
    }
    cx.update(REPOS, &ns, &name, |o| {
        o["status"]["observedGeneration"] = json!(generation);
        o["status"]["commit"] = json!(commit);
        o["status"]["pollingCommit"] = json!(commit);
        o["status"]["lastPollingTriggered"] = json!(stamp);
        o["status"]["gitJobStatus"] = json!("Current");
        o["status"]["desiredReadyClusters"] = json!(clusters);
        o["status"]["readyClusters"] = json!(clusters);
        o["status"]["display"] = json!({"readyBundleDeployments": format!("{0}/{0}", paths.len()), "state": ""});
        for (kind, is) in [
            ("GitPolling", "True"),
            ("Accepted", "True"),
            ("Ready", "True"),
            ("Reconciling", "False"),
            ("Stalled", "False"),
        ] {
            set_condition(o, &stamp, kind, is, "", "");
        }
    });
}
