//! DaemonSets: one pod on each node that the selector takes and whose taints are tolerated.
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::text::s;
use super::deployments::share;
use super::{pods, revisions, scheduler};

const SETS: &str = "daemonsets.apps";
const CONTROLLER: &str = "daemonset-controller";

/// Tolerations that every daemon pod gets.
fn own_tolerations(host_network: bool) -> Vec<Value> {
    let mut list = vec![
        json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}),
        json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}),
        json!({"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"}),
        json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}),
        json!({"key": "node.kubernetes.io/pid-pressure", "operator": "Exists", "effect": "NoSchedule"}),
        json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}),
    ];
    if host_network {
        list.push(
            json!({"key": "node.kubernetes.io/network-unavailable", "operator": "Exists", "effect": "NoSchedule"}),
        );
    }
    list
}

/// Template with the tolerations of daemon pods.
fn template(set: &Value) -> Value {
    let mut t = set["spec"]["template"].clone();
    let mut list = t["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    list.extend(own_tolerations(t["spec"]["hostNetwork"] == true));
    t["spec"]["tolerations"] = Value::Array(list);
    t
}

/// Brings a DaemonSet's pods and status up to date.
pub fn reconcile(cx: &mut Cx, ns: &str, name: &str) {
    let Some(set) = cx.get(SETS, ns, name).cloned() else { return };
    if !set["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let uid = s(&set, "/metadata/uid").to_owned();
    let template = template(&set);
    let hash = revisions::hash(cx, &set);
    revisions::ensure(cx, &set, ns, &format!("{name}-{hash}"), ("controller-revision-hash", &hash));
    let wanted: Vec<String> = cx
        .list("nodes")
        .into_iter()
        .filter(|n| scheduler::fits_node(&template["spec"], n, 0).is_none())
        .map(|n| s(n, "/metadata/name").to_owned())
        .collect();
    let have: Vec<(String, String, bool, String)> = pods::owned(cx, ns, &uid)
        .into_iter()
        .filter(|p| p["metadata"]["deletionTimestamp"].is_null())
        .map(|p| {
            let ended = matches!(s(p, "/status/phase"), "Succeeded" | "Failed");
            let rev = s(p, "/metadata/labels/controller-revision-hash").to_owned();
            (s(p, "/metadata/name").to_owned(), target(p), ended, rev)
        })
        .collect();
    let meant: BTreeSet<&String> = wanted.iter().collect();
    for (pod, node, ended, _) in &have {
        if *ended || !meant.contains(node) {
            cx.delete_pod(&set, pod, CONTROLLER);
        }
    }
    let running: BTreeSet<&String> = have.iter().filter(|h| !h.2).map(|h| &h.1).collect();
    let leaving: BTreeSet<String> = pods::owned(cx, ns, &uid)
        .into_iter()
        .filter(|p| !p["metadata"]["deletionTimestamp"].is_null())
        .map(target)
        .collect();
    for node in &wanted {
        if !running.contains(node) && !leaving.contains(node) {
            create(cx, &set, &template, name, node, &hash);
        }
    }
    let rolling = &set["spec"]["updateStrategy"]["rollingUpdate"];
    let surge = share(&rolling["maxSurge"], wanted.len() as i64, true);
    match s(&set, "/spec/updateStrategy/type") {
        "OnDelete" => {}
        _ if surge > 0 => {
            for node in surged(cx, &set, ns, &hash, surge, &wanted) {
                create(cx, &set, &template, name, &node, &hash);
            }
        }
        _ => {
            let limit = share(&rolling["maxUnavailable"], wanted.len() as i64, true).max(1);
            roll(cx, &set, ns, &hash, limit, &wanted);
        }
    }
    status(cx, ns, name, &uid, &hash, &wanted);
}

/// Node a daemon pod is meant for.
fn target(pod: &Value) -> String {
    match s(pod, "/spec/nodeName") {
        "" => s(pod, "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0"),
        n => n,
    }
    .to_owned()
}

fn create(cx: &mut Cx, set: &Value, template: &Value, name: &str, node: &str, hash: &str) {
    let generation = match s(set, "/metadata/annotations/deprecated.daemonset.template.generation") {
        "" => "1",
        g => g,
    };
    let labels = [("controller-revision-hash", hash), ("pod-template-generation", generation)];
    let mut pod = pods::of_template(set, template, "", &format!("{name}-"), &labels);
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]});
    // A refusal is in the events; the set tries again when something changes.
    cx.create_pod(set, pod, CONTROLLER).ok();
}

/// Old pods go once a new one is available beside them; nodes that get a new one now.
fn surged(cx: &mut Cx, set: &Value, ns: &str, hash: &str, surge: i64, wanted: &[String]) -> Vec<String> {
    let (now, min) = (cx.now(), set["spec"]["minReadySeconds"].as_u64().unwrap_or(0));
    let (mut begin, mut gone, mut busy) = (Vec::new(), Vec::new(), 0);
    for node in wanted {
        let here: Vec<&Value> = pods::owned(cx, ns, s(set, "/metadata/uid"))
            .into_iter()
            .filter(|p| pods::is_active(p) && target(p) == *node)
            .collect();
        let is_new = |p: &&&Value| s(p, "/metadata/labels/controller-revision-hash") == hash;
        let Some(old) = here.iter().find(|p| !is_new(p)) else { continue };
        match here.iter().find(is_new) {
            Some(new) if pods::until_available(new, min, now) == Some(0) => {
                gone.push(s(old, "/metadata/name").to_owned())
            }
            Some(_) => busy += 1,
            // one that does not work is replaced at once
            None if !pods::is_ready(old) => gone.push(s(old, "/metadata/name").to_owned()),
            None => begin.push(node.clone()),
        }
    }
    for pod in gone {
        cx.delete_pod(set, &pod, CONTROLLER);
    }
    begin.truncate(usize::try_from(surge - busy).unwrap_or(0));
    begin
}

/// Replaces pods of an older template, as long as no more than `limit` nodes are without a ready one.
fn roll(cx: &mut Cx, set: &Value, ns: &str, hash: &str, limit: i64, wanted: &[String]) {
    let (mut ready, mut broken, mut old) = (0, Vec::new(), Vec::new());
    for p in pods::owned(cx, ns, s(set, "/metadata/uid")) {
        let is_old = s(p, "/metadata/labels/controller-revision-hash") != hash;
        let name = s(p, "/metadata/name").to_owned();
        ready += i64::from(pods::is_ready(p));
        match (is_old && p["metadata"]["deletionTimestamp"].is_null(), pods::is_ready(p)) {
            (true, true) => old.push(name),
            (true, false) => broken.push(name),
            _ => {}
        }
    }
    let missing = wanted.len() as i64 - ready;
    let spare = usize::try_from(limit - missing).unwrap_or(0);
    for pod in broken.iter().chain(old.iter().take(spare)) {
        cx.delete_pod(set, pod, CONTROLLER);
    }
}

fn status(cx: &mut Cx, ns: &str, name: &str, uid: &str, hash: &str, wanted: &[String]) {
    let (mut current, mut ready, mut updated, mut misplaced) = (0, 0, 0, 0);
    let min = cx.get(SETS, ns, name).and_then(|o| o["spec"]["minReadySeconds"].as_u64()).unwrap_or(0);
    let (_, available) = pods::counted(cx, SETS, (ns, name), uid, min);
    let mut covered: BTreeSet<String> = BTreeSet::new();
    let meant: BTreeSet<&String> = wanted.iter().collect();
    for p in pods::owned(cx, ns, uid).into_iter().filter(|p| pods::is_active(p)) {
        if !meant.contains(&target(p)) {
            misplaced += 1;
            continue;
        }
        if !covered.insert(target(p)) {
            continue;
        }
        current += 1;
        ready += i64::from(pods::is_ready(p));
        updated += i64::from(s(p, "/metadata/labels/controller-revision-hash") == hash);
    }
    let desired = wanted.len() as i64;
    cx.update(SETS, ns, name, |o| {
        let st = &mut o["status"];
        st["currentNumberScheduled"] = json!(current);
        st["desiredNumberScheduled"] = json!(desired);
        st["numberMisscheduled"] = json!(misplaced);
        st["numberReady"] = json!(ready);
        for (k, v) in [
            ("updatedNumberScheduled", updated),
            ("numberAvailable", available),
            ("numberUnavailable", desired - available),
        ] {
            if v > 0 {
                st[k] = json!(v);
            } else if let Some(m) = st.as_object_mut() {
                m.shift_remove(k);
            }
        }
        o["status"]["observedGeneration"] = o["metadata"]["generation"].clone();
    });
}
