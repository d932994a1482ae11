//! Fleet: repositories that it follows, the bundles that come of them, and what those do to the cluster.
pub mod bundle;
mod deploy;
mod deployment;
mod show;

use serde_json::{Value, json};

use super::super::cx::{Cx, key, set_condition};
use super::super::text::{arr, s, stamp};
use super::claims::ready_pod;
use crate::git;
use crate::world::World;
use bundle::Bundle;
pub use deploy::{SET, upgrade_by_hand};
use deploy::{State, state};
pub use deployment::HOME;

const REPOS: &str = "gitrepos.fleet.cattle.io";
const BUNDLES: &str = "bundles.fleet.cattle.io";
/// Holds a bundle until its deployments are gone.
const FINALIZER: &str = "fleet.cattle.io/bundle-finalizer";
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
    forgotten(cx);
    let works = agent(cx);
    if works && deployment::departing(cx) {
        // what was uninstalled goes first; that its deployment is gone brings the controller back here
        return;
    }
    deployment::leaving(cx, BUNDLES, FINALIZER, works);
    for repo in repos(cx) {
        one(cx, &repo);
    }
    show::cluster(cx);
}

/// Whether the agent of the local cluster works.
fn agent(cx: &Cx) -> bool {
    ready_pod(cx, "app", "fleet-agent").is_some()
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
    if !seen {
        import(cx, repo, &bundles, &commit.id);
    }
    let mut states = Vec::new();
    for b in &bundles {
        let there = cx.get(BUNDLES, &ns, &b.name).is_some_and(|o| o["metadata"]["deletionTimestamp"].is_null());
        // one that somebody deleted comes back with the next commit, or when the repository is synced by force
        if there {
            states.push((b.name.clone(), apply(cx, repo, b, &commit.id, here, !seen)));
        }
    }
    show::repo(cx, repo, &commit.id, here && !states.is_empty(), &states);
}

/// The job that reads a commit: its folders become Bundles, those without a folder go.
fn import(cx: &mut Cx, repo: &Value, bundles: &[Bundle], commit: &str) {
    let (ns, name) = key(repo);
    for b in bundles {
        let mut spec = deployment::options(b);
        let restricted = match arr(repo, "/spec/targets") {
            [] => vec![json!({"name": "default", "clusterGroup": "default"})],
            list => list.to_vec(),
        };
        let mut targets: Vec<Value> = arr(&b.fleet, "/targetCustomizations").iter().map(bundle::known_target).collect();
        targets.extend(restricted.clone());
        spec["targets"] = json!(targets);
        spec["targetRestrictions"] = json!(restricted);
        let labels = json!({"fleet.cattle.io/repo-name": name, "fleet.cattle.io/commit": commit});
        let object = json!({"apiVersion": "fleet.cattle.io/v1alpha1", "kind": "Bundle",
            "metadata": {"name": b.name, "namespace": ns, "labels": labels, "finalizers": [FINALIZER]}, "spec": spec});
        cx.writing("fleetcli", |cx| cx.ensure(object));
    }
    let old: Vec<Value> = cx.list_in(BUNDLES, &ns).into_iter().cloned().collect();
    for b in old {
        let mine = s(&b, "/metadata/labels/fleet.cattle.io~1repo-name") == name;
        if mine && !bundles.iter().any(|x| x.name == s(&b, "/metadata/name")) {
            cx.delete(BUNDLES, &ns, s(&b, "/metadata/name"));
        }
    }
    let works = agent(cx);
    deployment::leaving(cx, BUNDLES, FINALIZER, works);
}

/// Makes the bundle's deployment on the cluster, and shows both.
fn apply(cx: &mut Cx, repo: &Value, b: &Bundle, commit: &str, here: bool, changed: bool) -> State {
    let ns = s(repo, "/metadata/namespace").to_owned();
    let st = match (here, agent(cx)) {
        (false, _) => {
            deployment::withdraw(cx, &b.name);
            state("Ready", "")
        }
        (true, works) => {
            let d = deployment::ensure(cx, repo, b);
            let gone = !d["metadata"]["deletionTimestamp"].is_null();
            match works && !gone {
                false if gone || changed => state("WaitApplied", "waiting for the agent of cluster local"),
                false => state("NotReady", "agent of cluster local is offline"),
                true => deployed(cx, repo, b, commit, &d, changed),
            }
        }
    };
    if here {
        deployment::show(cx, &b.name, &st);
    }
    show::bundle(cx, &ns, &b.name, here, &st);
    st
}

/// The agent looks at a deployment: one that it has not applied yet, it applies.
fn deployed(cx: &mut Cx, repo: &Value, b: &Bundle, commit: &str, d: &Value, changed: bool) -> State {
    let mark = format!("fleet/applied/{}", b.name);
    let now = format!("{commit} {}", s(d, "/metadata/uid"));
    let applied = cx.c.apps.get(&mark).and_then(Value::as_str) == Some(&now);
    let correct = repo["spec"]["correctDrift"]["enabled"] == true;
    let st = deploy::run(cx, b, commit, !applied || changed, correct);
    if st.word != "ErrApplied" {
        cx.c.apps.insert(mark, json!(now));
    }
    st
}
