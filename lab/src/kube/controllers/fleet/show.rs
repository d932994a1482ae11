//! What Fleet shows of its bundles, repositories and clusters.
use serde_json::{Value, json};

use super::deploy::State;
use super::{BUNDLES, REPOS};
use crate::kube::cx::{Cx, key, set_condition};
use crate::kube::text::arr;

pub(super) const CLUSTERS: &str = "clusters.fleet.cattle.io";

/// `ErrApplied` as a field of a summary.
fn field(word: &str) -> String {
    format!("{}{}", word[..1].to_lowercase(), &word[1..])
}

/// A bundle: how many clusters have it, and what is wrong with the first that has not.
pub(super) fn bundle(cx: &mut Cx, ns: &str, bundle: &str, here: bool, st: &State) {
    let ok = st.word == "Ready";
    let desired = i64::from(here);
    let mut summary = json!({"desiredReady": desired, "ready": if ok { desired } else { 0 }});
    if !ok {
        summary[field(st.word)] = json!(1);
        summary["nonReadyResources"] =
            json!([{"name": "fleet-local/local", "bundleState": st.word, "message": st.message}]);
    }
    let same = cx.get(BUNDLES, ns, bundle).is_some_and(|b| b["status"]["summary"] == summary);
    if same {
        return;
    }
    let stamp = cx.stamp();
    let text = if ok { String::new() } else { format!("{}(1) [Cluster fleet-local/local: {}]", st.word, st.message) };
    cx.update(BUNDLES, ns, bundle, |o| {
        o["status"]["summary"] = summary;
        o["status"]["display"] = json!({"readyClusters": format!("{}/{desired}", if ok { desired } else { 0 }), "state": if ok { "" } else { st.word }});
        set_condition(o, &stamp, "Ready", if ok { "True" } else { "False" }, "", &text);
    });
}

/// A repository: the commit that was read, and how its bundles are.
pub(super) fn repo(cx: &mut Cx, repo: &Value, commit: &str, here: bool, states: &[(String, State)]) {
    let (ns, name) = key(repo);
    let bad: Vec<String> = states
        .iter()
        .filter(|(_, st)| st.word != "Ready")
        .map(|(b, st)| format!("{}(1) [Bundle {b}: {}]", st.word, st.message))
        .collect();
    let ready = states.len() - bad.len();
    let clusters = i64::from(here);
    let generation = repo["metadata"]["generation"].clone();
    let display = json!({"readyBundleDeployments": format!("{ready}/{}", states.len()), "state": states.iter().find(|(_, s)| s.word != "Ready").map_or("", |(_, s)| s.word)});
    let now = cx.get(REPOS, &ns, &name).cloned().unwrap_or_default();
    let same = now["status"]["commit"] == commit
        && now["status"]["observedGeneration"] == generation
        && arr(&now, "/status/conditions").iter().any(|c| c["type"] == "GitPolling" && c["status"] == "True")
        && now["status"]["display"] == display
        && now["status"]["desiredReadyClusters"] == clusters;
    if same {
        return;
    }
    let mut summary =
        json!({"desiredReady": if here { states.len() } else { 0 }, "ready": if here { ready } else { 0 }});
    for (_, st) in states.iter().filter(|(_, st)| st.word != "Ready") {
        let n = summary[field(st.word)].as_u64().unwrap_or(0);
        summary[field(st.word)] = json!(n + 1);
    }
    let stamp = cx.stamp();
    let text = bad.join("; ");
    cx.update(REPOS, &ns, &name, |o| {
        let st = &mut o["status"];
        st["observedGeneration"] = generation;
        st["commit"] = json!(commit);
        st["pollingCommit"] = json!(commit);
        st["lastPollingTriggered"] = json!(stamp);
        st["gitJobStatus"] = json!("Current");
        st["desiredReadyClusters"] = json!(clusters);
        st["readyClusters"] = json!(if bad.is_empty() { clusters } else { 0 });
        st["display"] = display;
        st["summary"] = summary;
        let is = if bad.is_empty() { "True" } else { "False" };
        for (kind, is, text) in [
            ("GitPolling", "True", ""),
            ("Accepted", "True", ""),
            ("Ready", is, text.as_str()),
            ("Reconciling", "False", ""),
            ("Stalled", "False", ""),
        ] {
            set_condition(o, &stamp, kind, is, "", text);
        }
    });
}

/// The local cluster: how many of its bundles are ready.
pub(super) fn cluster(cx: &mut Cx) {
    let deployments: Vec<Value> = cx
        .list_in(super::deployment::DEPLOYMENTS, super::HOME)
        .into_iter()
        .map(|d| d["status"]["ready"].clone())
        .collect();
    let (all, ready) = (deployments.len(), deployments.iter().filter(|r| **r == true).count());
    let shown = json!({"readyBundles": format!("{ready}/{all}")});
    let stamp = cx.stamp();
    if cx.get(CLUSTERS, "fleet-local", "local").is_some_and(|c| c["status"]["display"] != shown) {
        cx.update(CLUSTERS, "fleet-local", "local", |o| {
            o["status"]["display"] = shown;
            o["status"]["summary"] = json!({"desiredReady": all, "ready": ready});
            set_condition(o, &stamp, "Ready", if ready == all { "True" } else { "False" }, "", "");
        });
    }
}
