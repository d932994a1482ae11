//! Fleet: repositories that it follows, the bundles that come of them, and what those do to the cluster.
pub mod bundle;
mod deploy;

use serde_json::{Value, json};

use super::super::cx::{Cx, key, set_condition};
use super::super::text::{arr, s, stamp};
use super::claims::ready_pod;
use crate::git;
use crate::world::World;
use bundle::Bundle;
pub use deploy::SET;
use deploy::State;

const REPOS: &str = "gitrepos.fleet.cattle.io";
const BUNDLES: &str = "bundles.fleet.cattle.io";
/// Where the agent's pod is noted that stopped polling.
pub const WEDGED: &str = "fleet/wedged";

fn works(cx: &Cx) -> bool {
    cx.c.store.kind_for(REPOS).is_some() && gitjob(cx).is_some()
}

/// The pod that polls, unless it hangs.
fn gitjob(cx: &Cx) -> Option<Value> {
    let pod = ready_pod(cx, "app", "gitjob")?;
    let hangs = cx.c.apps.get(WEDGED).and_then(Value::as_str) == Some(s(&pod, "/metadata/uid"));
    (!hangs).then_some(pod)
}

/// Every repository is compared with its remote, every bundle with the cluster.
pub fn reconcile(cx: &mut Cx) {
    if !works(cx) {
        return;
    }
    for repo in repos(cx) {
        one(cx, &repo);
    }
    forgotten(cx);
}

/// Before somebody reads repositories: the time of the last poll is computed, not written every minute.
pub fn heartbeat(cx: &mut Cx) {
    if !works(cx) {
        return;
    }
    let now = cx.now();
    for repo in repos(cx) {
        let (ns, name) = key(&repo);
        let every = interval(s(&repo, "/spec/pollingInterval"));
        let at = stamp(now - now % every);
        if repo["spec"]["paused"] != true && repo["status"]["lastPollingTriggered"] != at.as_str() {
            cx.update(REPOS, &ns, &name, |o| o["status"]["lastPollingTriggered"] = json!(at));
        }
    }
}

/// `60s`, `5m`, `1m30s` in milliseconds; 15 s when there is none.
fn interval(text: &str) -> u64 {
    let mut total = 0;
    let mut number = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let n: u64 = number.parse().unwrap_or(0);
        number.clear();
        total += n * match c {
            'h' => 3_600_000,
            'm' => 60_000,
            's' => 1000,
            _ => 0,
        };
    }
    if total == 0 { 15_000 } else { total }
}

fn repos(cx: &Cx) -> Vec<Value> {
    cx.list(REPOS).into_iter().cloned().collect()
}

/// Bundles whose repository is gone.
fn forgotten(cx: &mut Cx) {
    let all: Vec<Value> = cx.list(BUNDLES).into_iter().cloned().collect();
    for b in all {
        let (ns, name) = key(&b);
        let repo = s(&b, "/metadata/labels/fleet.cattle.io~1repo-name");
        if cx.get(REPOS, &ns, repo).is_none() {
            deploy::remove(cx, &b);
            cx.delete(BUNDLES, &ns, &name);
        }
    }
}

/// Why the remote cannot be read.
fn trouble(cx: &Cx, repo: &Value) -> Option<String> {
    let url = s(repo, "/spec/repo");
    let host = url.split("://").nth(1).unwrap_or(url).split(['/', ':']).next().unwrap_or_default();
    match git::remote(cx.w, url) {
        None => Some(format!("failed to get commit: unable to list remote for {url}: repository not found")),
        Some(r) if r.down => Some(format!(
            "failed to get commit: unable to list remote for {url}: Get \"{url}/info/refs?service=git-upload-pack\": dial tcp: lookup {host}: connect: connection refused"
        )),
        Some(r) if !r.branches.contains_key(branch(repo)) => {
            Some(format!("failed to get commit: couldn't find remote ref \"refs/heads/{}\"", branch(repo)))
        }
        Some(_) => None,
    }
}

/// Who follows a branch of a repository, with the paths that are watched.
#[must_use]
pub fn followed(w: &World, url: &str, wanted: &str) -> Vec<(String, Vec<String>)> {
    let plain = |u: &str| u.trim_end_matches('/').trim_end_matches(".git").to_owned();
    let all = w.clusters.values().flat_map(|c| c.store.list(REPOS, "", ""));
    all.filter(|r| plain(s(r, "/spec/repo")) == plain(url) && branch(r) == wanted)
        .map(|r| (s(r, "/metadata/name").to_owned(), watched(r)))
        .collect()
}

/// Paths of the repository that are read; the whole of it without any.
fn watched(repo: &Value) -> Vec<String> {
    match arr(repo, "/spec/paths") {
        [] => vec![String::new()],
        list => list.iter().filter_map(|p| p.as_str().map(str::to_owned)).collect(),
    }
}

fn branch(repo: &Value) -> &str {
    match s(repo, "/spec/branch") {
        "" => "master",
        b => b,
    }
}

/// Only the local cluster exists; it is matched in `fleet-local` by no target at all, by its name, or by an empty selector.
fn targeted(repo: &Value) -> bool {
    let targets = arr(repo, "/spec/targets");
    s(repo, "/metadata/namespace") == "fleet-local"
        && (targets.is_empty()
            || targets.iter().any(|t| {
                let selector = t["clusterSelector"].as_object();
                s(t, "/clusterName") == "local"
                    || selector.is_some_and(|m| m.is_empty())
                    || t["clusterSelector"]["matchLabels"]["name"] == "local"
                    || (selector.is_none() && s(t, "/clusterName").is_empty() && s(t, "/clusterGroup").is_empty())
            }))
}

fn one(cx: &mut Cx, repo: &Value) {
    let (ns, name) = key(repo);
    if repo["spec"]["paused"] == true {
        return;
    }
    let stamp = cx.stamp();
    let generation = repo["metadata"]["generation"].as_i64().unwrap_or(1);
    if let Some(text) = trouble(cx, repo) {
        let known = arr(repo, "/status/conditions").iter().any(|c| c["message"] == text.as_str());
        if !known {
            cx.update(REPOS, &ns, &name, |o| {
                o["status"]["observedGeneration"] = json!(generation);
                set_condition(o, &stamp, "GitPolling", "False", "Error", &text);
                set_condition(o, &stamp, "Stalled", "True", "Stalled", &text);
                set_condition(o, &stamp, "Ready", "False", "Error", &text);
            });
        }
        return;
    }
    let Some(commit) = git::remote(cx.w, s(repo, "/spec/repo")).and_then(|r| r.branches.get(branch(repo))).cloned()
    else {
        return;
    };
    let seen =
        s(repo, "/status/commit") == commit.id && repo["status"]["observedGeneration"].as_i64() == Some(generation);
    let bundles: Vec<Bundle> = watched(repo).iter().flat_map(|p| bundle::read(&name, p, &commit.files)).collect();
    let here = targeted(repo);
    let mut states = Vec::new();
    for b in &bundles {
        states.push((b.name.clone(), apply(cx, repo, b, &commit.id, here, !seen)));
    }
    let old: Vec<Value> = cx.list_in(BUNDLES, &ns).into_iter().cloned().collect();
    for b in old {
        let mine = s(&b, "/metadata/labels/fleet.cattle.io~1repo-name") == name;
        if mine && !bundles.iter().any(|x| x.name == s(&b, "/metadata/name")) {
            deploy::remove(cx, &b);
            cx.delete(BUNDLES, &ns, s(&b, "/metadata/name"));
        }
    }
    status(cx, repo, &commit.id, here, &states);
}

/// Makes the Bundle, its deployment on the cluster, and shows both.
fn apply(cx: &mut Cx, repo: &Value, b: &Bundle, commit: &str, here: bool, changed: bool) -> State {
    let ns = s(repo, "/metadata/namespace").to_owned();
    let repo_name = s(repo, "/metadata/name").to_owned();
    if cx.get(BUNDLES, &ns, &b.name).is_none_or(|o| o["metadata"]["labels"]["fleet.cattle.io/commit"] != commit) {
        let mut spec = json!({"targets": [{"clusterName": "local"}]});
        for key in ["defaultNamespace", "helm", "keepResources"] {
            if !b.fleet[key].is_null() {
                spec[key] = b.fleet[key].clone();
            }
        }
        cx.ensure(json!({"apiVersion": "fleet.cattle.io/v1alpha1", "kind": "Bundle",
            "metadata": {"name": b.name, "namespace": ns, "labels": {"fleet.cattle.io/repo-name": repo_name, "fleet.cattle.io/commit": commit}},
            "spec": spec}));
    }
    let agent = ready_pod(cx, "app", "fleet-agent").is_some();
    let st = match (here, agent) {
        (false, _) => State { word: "Ready", message: String::new() },
        (true, false) if changed => {
            State { word: "WaitApplied", message: "waiting for the agent of cluster local".to_owned() }
        }
        (true, false) => State { word: "NotReady", message: "agent of cluster local is offline".to_owned() },
        (true, true) => {
            let mark = format!("fleet/applied/{}", b.name);
            let applied = cx.c.apps.get(&mark).and_then(Value::as_str) == Some(commit);
            let correct = repo["spec"]["correctDrift"]["enabled"] == true;
            let st = deploy::run(cx, b, !applied || changed, correct);
            if st.word != "ErrApplied" {
                cx.c.apps.insert(mark, json!(commit));
            }
            st
        }
    };
    show(cx, &ns, &b.name, here, &st);
    st
}

fn show(cx: &mut Cx, ns: &str, bundle: &str, here: bool, st: &State) {
    let ok = st.word == "Ready";
    let desired = i64::from(here);
    let mut summary = json!({"desiredReady": desired, "ready": if ok { desired } else { 0 }});
    if !ok {
        let field = format!("{}{}", st.word[..1].to_lowercase(), &st.word[1..]);
        summary[field] = json!(1);
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

fn status(cx: &mut Cx, repo: &Value, commit: &str, here: bool, states: &[(String, State)]) {
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
