//! Deployments and ReplicaSets.
use serde_json::{Value, json};

use super::super::KubeEvent;
use super::super::cx::{Cx, owner_ref, set_condition};
use super::super::text::{arr, hash_name, ordered, s};
use super::{adopt, pods};

const DEPLOYMENTS: &str = "deployments.apps";
const SETS: &str = "replicasets.apps";

fn number(v: &Value, pointer: &str, default: i64) -> i64 {
    v.pointer(pointer).and_then(Value::as_i64).unwrap_or(default)
}

fn sets_of<'a>(cx: &'a Cx, ns: &str, uid: &str) -> Vec<&'a Value> {
    cx.c.store.owned(SETS, ns, uid)
}

/// One ReplicaSet as its Deployment counts it.
#[derive(Debug, Clone)]
struct Set {
    name: String,
    wanted: i64,
    available: i64,
    revision: i64,
    born: String,
}

fn set(r: &Value) -> Set {
    Set {
        name: s(r, "/metadata/name").to_owned(),
        wanted: number(r, "/spec/replicas", 0),
        available: number(r, "/status/availableReplicas", 0),
        revision: s(r, REVISION).parse().unwrap_or(0),
        born: s(r, "/metadata/creationTimestamp").to_owned(),
    }
}

const REVISION: &str = "/metadata/annotations/deployment.kubernetes.io~1revision";

/// A count or percentage of `of`; percentages of a surge round up, of an outage down.
#[must_use]
pub fn share(v: &Value, of: i64, up: bool) -> i64 {
    match v {
        Value::Number(n) => n.as_i64().unwrap_or(0),
        Value::String(t) => match t.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()) {
            Some(p) if up => (p * of + 99) / 100,
            Some(p) => p * of / 100,
            None => t.parse().unwrap_or(0),
        },
        _ => 0,
    }
}

/// Brings a Deployment's ReplicaSets and status up to date.
pub fn deployment(cx: &mut Cx, ns: &str, name: &str) {
    let Some(d) = cx.get(DEPLOYMENTS, ns, name).cloned() else { return };
    if !d["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let uid = s(&d, "/metadata/uid").to_owned();
    if d["status"]["observedGeneration"].is_null() {
        adopt::orphans(cx, &d, SETS);
    }
    let hash = hash_name(&ordered(&d["spec"]["template"]), 10);
    let want = number(&d, "/spec/replicas", 1);
    let current = format!("{name}-{hash}");
    if d["spec"]["paused"] == true {
        resize(cx, &d, ns, want);
    } else if s(&d, "/spec/strategy/type") == "Recreate" {
        let old: Vec<Set> = sets_of(cx, ns, &uid).into_iter().map(set).filter(|r| r.name != current).collect();
        old.iter().filter(|o| o.wanted > 0).for_each(|o| scale(cx, &d, ns, &o.name, o.wanted, 0));
        let running = sets_of(cx, ns, &uid)
            .iter()
            .any(|r| s(r, "/metadata/name") != current && number(r, "/status/replicas", 0) > 0);
        if !running {
            current_set(cx, &d, ns, &current, &hash, want);
        }
    } else {
        roll(cx, &d, ns, &current, &hash, want);
    }
    tidy(cx, &d, ns, &current);
    status(cx, ns, name, &uid, &current, want);
}

/// Scales the ReplicaSets that are there, the newest first; no new one is made.
fn resize(cx: &mut Cx, d: &Value, ns: &str, want: i64) {
    let mut sets: Vec<Set> = sets_of(cx, ns, s(d, "/metadata/uid")).into_iter().map(set).collect();
    sets.sort_by_key(|r| std::cmp::Reverse(r.revision));
    let total: i64 = sets.iter().map(|r| r.wanted).sum();
    let Some(newest) = sets.iter().find(|r| r.wanted > 0).or_else(|| sets.first()) else { return };
    let goal = (newest.wanted + want - total).max(0);
    if goal != newest.wanted {
        scale(cx, d, ns, &newest.name.clone(), newest.wanted, goal);
    }
}

/// A step of a rolling update: as many new pods as the surge allows, then as few old ones as must stay.
fn roll(cx: &mut Cx, d: &Value, ns: &str, current: &str, hash: &str, want: i64) {
    let limits = &d["spec"]["strategy"]["rollingUpdate"];
    let surge = share(&limits["maxSurge"], want, true);
    let mut outage = share(&limits["maxUnavailable"], want, false).min(want);
    if surge == 0 && outage == 0 {
        outage = 1;
    }
    let uid = s(d, "/metadata/uid").to_owned();
    let others = |cx: &Cx| -> Vec<Set> {
        let mut list: Vec<Set> = sets_of(cx, ns, &uid).into_iter().map(set).filter(|r| r.name != current).collect();
        list.sort_by(|a, b| a.born.cmp(&b.born).then(a.name.cmp(&b.name)));
        list
    };
    let busy: i64 = others(cx).iter().map(|o| o.wanted).sum();
    let have = cx.get(SETS, ns, current).map_or(0, |r| number(r, "/spec/replicas", 0));
    let goal = if have > want { want } else { have + (want + surge - busy - have).clamp(0, want - have) };
    current_set(cx, d, ns, current, hash, goal);
    let Some(new) = cx.get(SETS, ns, current).map(set) else { return };
    let floor = want - outage;
    let old = others(cx);
    let total: i64 = old.iter().map(|o| o.wanted).sum::<i64>() + new.wanted;
    let mut spare = total - floor - (new.wanted - new.available);
    // Old pods that do not work go first, then those that work.
    for o in &old {
        let broken = (o.wanted - o.available).min(spare).max(0);
        if broken > 0 {
            scale(cx, d, ns, &o.name, o.wanted, o.wanted - broken);
            spare -= broken;
        }
    }
    let old = others(cx);
    let available: i64 = old.iter().map(|o| o.available.min(o.wanted)).sum::<i64>() + new.available;
    let mut spare = (available - floor).min(spare);
    for o in old {
        let n = o.wanted.min(spare).max(0);
        if n > 0 {
            scale(cx, d, ns, &o.name, o.wanted, o.wanted - n);
            spare -= n;
        }
    }
}

fn scale(cx: &mut Cx, d: &Value, ns: &str, set: &str, from: i64, to: i64) {
    let want = number(d, "/spec/replicas", 1).to_string();
    cx.update(SETS, ns, set, |r| {
        r["spec"]["replicas"] = json!(to);
        r["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"] = json!(want);
    });
    let word = if to > from { "up" } else { "down" };
    let text = format!("Scaled {word} replica set {set} from {from} to {to}");
    cx.event(d, true, "ScalingReplicaSet", &text, "deployment-controller");
}

/// The ReplicaSet of the present template has `goal` replicas and the highest revision.
fn current_set(cx: &mut Cx, d: &Value, ns: &str, current: &str, hash: &str, goal: i64) {
    let highest = sets_of(cx, ns, s(d, "/metadata/uid"))
        .into_iter()
        .filter(|r| s(r, "/metadata/name") != current)
        .map(|r| set(r).revision)
        .max()
        .unwrap_or(0);
    let rev = match cx.get(SETS, ns, current).map(set) {
        Some(have) => {
            let rev = if have.revision > highest { have.revision } else { highest + 1 };
            if have.revision != rev {
                let past = have.revision.to_string();
                cx.update(SETS, ns, current, |r| {
                    r["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!(rev.to_string());
                    r["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] = json!(past);
                });
            }
            let noted = cx.get(SETS, ns, current).map(|r| r["metadata"]["annotations"].clone()).unwrap_or_default();
            if notes_of(d).any(|(k, v)| noted[k] != *v) {
                cx.update(SETS, ns, current, |r| {
                    notes_of(d).for_each(|(k, v)| r["metadata"]["annotations"][k] = v.clone());
                });
            }
            let min = &d["spec"]["minReadySeconds"];
            if cx
                .get(SETS, ns, current)
                .is_some_and(|r| number(r, "/spec/minReadySeconds", 0) != min.as_i64().unwrap_or(0))
            {
                cx.update(SETS, ns, current, |r| r["spec"]["minReadySeconds"] = min.clone());
            }
            if have.wanted != goal {
                scale(cx, d, ns, current, have.wanted, goal);
            }
            rev
        }
        None => {
            create_set(cx, d, ns, current, hash, goal, highest + 1);
            highest + 1
        }
    };
    if s(d, REVISION) != rev.to_string() {
        cx.update(DEPLOYMENTS, ns, s(d, "/metadata/name"), |d| {
            d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!(rev.to_string());
        });
    }
}

/// Annotations of a Deployment that its newest ReplicaSet has too: those that are not about the Deployment itself.
fn notes_of(d: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let own =
        |k: &str| k == "kubectl.kubernetes.io/last-applied-configuration" || k.starts_with("deployment.kubernetes.io/");
    d["metadata"]["annotations"].as_object().into_iter().flatten().filter(move |(k, _)| !own(k))
}

fn create_set(cx: &mut Cx, d: &Value, ns: &str, current: &str, hash: &str, goal: i64, rev: i64) {
    let mut template = d["spec"]["template"].clone();
    template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
    let mut selector = d["spec"]["selector"].clone();
    selector["matchLabels"]["pod-template-hash"] = json!(hash);
    let want = number(d, "/spec/replicas", 1);
    let surge = share(&d["spec"]["strategy"]["rollingUpdate"]["maxSurge"], want, true);
    let mut notes = json!({"deployment.kubernetes.io/revision": rev.to_string(),
        "deployment.kubernetes.io/desired-replicas": want.to_string(),
        "deployment.kubernetes.io/max-replicas": (want + surge).to_string()});
    for (k, v) in notes_of(d) {
        notes[k] = v.clone();
    }
    cx.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": current, "namespace": ns, "labels": template["metadata"]["labels"],
            "ownerReferences": owner_ref(d), "annotations": notes},
        "spec": {"replicas": goal, "selector": selector, "template": template}}));
    if let Some(min) = d["spec"]["minReadySeconds"].as_u64().filter(|n| *n > 0) {
        cx.update(SETS, ns, current, |r| r["spec"]["minReadySeconds"] = json!(min));
    }
    let text = format!("Scaled up replica set {current} from 0 to {goal}");
    cx.event(d, true, "ScalingReplicaSet", &text, "deployment-controller");
    let limit = d["spec"]["progressDeadlineSeconds"].as_u64().unwrap_or(600);
    let look = KubeEvent::Look {
        cluster: cx.c.id.clone(),
        resource: DEPLOYMENTS.to_owned(),
        ns: ns.to_owned(),
        name: s(d, "/metadata/name").to_owned(),
    };
    cx.later(limit * 1000 + 1000, look);
}

/// Old ReplicaSets beyond `revisionHistoryLimit` go.
fn tidy(cx: &mut Cx, d: &Value, ns: &str, current: &str) {
    let limit = d["spec"]["revisionHistoryLimit"].as_u64().unwrap_or(10);
    let mut idle: Vec<Set> = sets_of(cx, ns, s(d, "/metadata/uid"))
        .into_iter()
        .filter(|r| {
            s(r, "/metadata/name") != current
                && number(r, "/spec/replicas", 0) == 0
                && number(r, "/status/replicas", 0) == 0
        })
        .map(set)
        .collect();
    idle.sort_by_key(|r| r.revision);
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(10));
    for r in &idle[..surplus] {
        cx.delete(SETS, ns, &r.name);
    }
}

fn status(cx: &mut Cx, ns: &str, name: &str, uid: &str, current: &str, want: i64) {
    let (mut total, mut ready, mut available, mut updated) = (0, 0, 0, 0);
    let mut failure = None;
    for r in sets_of(cx, ns, uid) {
        let failing = arr(r, "/status/conditions").iter().find(|c| c["type"] == "ReplicaFailure");
        failure = failing.map(|c| s(c, "/message").to_owned()).or(failure);
        total += number(r, "/status/replicas", 0);
        ready += number(r, "/status/readyReplicas", 0);
        available += number(r, "/status/availableReplicas", 0);
        if s(r, "/metadata/name") == current {
            updated = number(r, "/status/replicas", 0);
        }
    }
    let (stamp, now) = (cx.stamp(), cx.now());
    let current = current.to_owned();
    cx.update(DEPLOYMENTS, ns, name, |d| {
        let outage = share(&d["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], want, false);
        let before = d["status"].clone();
        d["status"]["observedGeneration"] = d["metadata"]["generation"].clone();
        counts(&mut d["status"], total, (ready, available), updated, want);
        let enough = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
        let missing = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.");
        let (value, reason, text) = if available >= want - outage { enough } else { missing };
        set_condition(d, &stamp, "Available", value, reason, text);
        if let Some(why) = &failure {
            set_condition(d, &stamp, "ReplicaFailure", "True", "FailedCreate", why);
        } else if let Some(list) = d["status"]["conditions"].as_array_mut() {
            list.retain(|c| c["type"] != "ReplicaFailure");
        }
        progress(d, &before, &stamp, now, &current, available >= want && updated >= want && total == updated);
    });
}

/// The condition Progressing: done, going on, or stuck for longer than the deadline.
fn progress(d: &mut Value, before: &Value, stamp: &str, now: u64, current: &str, done: bool) {
    let old = arr(d, "/status/conditions").iter().find(|c| c["type"] == "Progressing").cloned().unwrap_or_default();
    let moved = ["replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "observedGeneration"]
        .iter()
        .any(|f| before.get(*f) != d["status"].get(*f));
    let limit = d["spec"]["progressDeadlineSeconds"].as_u64().unwrap_or(600) * 1000;
    let since = crate::kube::store::meta::parse_time(s(&old, "/lastUpdateTime")).unwrap_or(now);
    let (value, reason, text) = if d["spec"]["paused"] == true {
        ("Unknown", "DeploymentPaused", "Deployment is paused".to_owned())
    } else if done {
        ("True", "NewReplicaSetAvailable", format!("ReplicaSet \"{current}\" has successfully progressed."))
    } else if !moved && (now.saturating_sub(since) > limit || old["reason"] == "ProgressDeadlineExceeded") {
        ("False", "ProgressDeadlineExceeded", format!("ReplicaSet \"{current}\" has timed out progressing."))
    } else {
        ("True", "ReplicaSetUpdated", format!("ReplicaSet \"{current}\" is progressing."))
    };
    let fresh = moved || old["reason"] != reason || old.is_null();
    set_condition(d, stamp, "Progressing", value, reason, &text);
    for c in d["status"]["conditions"].as_array_mut().into_iter().flatten() {
        let kept = if c["type"] == "Progressing" && !fresh { old["lastUpdateTime"].clone() } else { Value::Null };
        match c["type"].as_str() {
            Some("Progressing") if !kept.is_null() => c["lastUpdateTime"] = kept,
            Some("Progressing") => c["lastUpdateTime"] = json!(stamp),
            _ => c["lastUpdateTime"] = c["lastTransitionTime"].clone(),
        }
    }
}

/// Replica counts of a status; zeros are left out, as the API does.
pub fn counts(st: &mut Value, total: i64, (ready, available): (i64, i64), updated: i64, want: i64) {
    for (k, v) in [
        ("replicas", total),
        ("readyReplicas", ready),
        ("availableReplicas", available),
        ("updatedReplicas", updated),
        ("unavailableReplicas", (total.max(want) - available).max(0)),
    ] {
        if v > 0 {
            st[k] = json!(v);
        } else if let Some(m) = st.as_object_mut() {
            m.shift_remove(k);
        }
    }
}

/// Brings a ReplicaSet's pods and status up to date.
pub fn replicaset(cx: &mut Cx, ns: &str, name: &str) {
    let Some(r) = cx.get(SETS, ns, name).cloned() else { return };
    if !r["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let uid = s(&r, "/metadata/uid").to_owned();
    if r["status"]["observedGeneration"].is_null() {
        adopt::orphans(cx, &r, "pods");
    }
    let want = number(&r, "/spec/replicas", 1);
    let mut active: Vec<(bool, String)> = pods::owned(cx, ns, &uid)
        .into_iter()
        .filter(|p| pods::is_active(p))
        .map(|p| (pods::is_ready(p), s(p, "/metadata/name").to_owned()))
        .collect();
    let mut refused = None;
    for _ in active.len() as i64..want {
        let pod = pods::of_template(&r, &r["spec"]["template"], "", &format!("{name}-"), &[]);
        refused = cx.create_pod(&r, pod, "replicaset-controller").err();
        if refused.is_some() {
            break;
        }
    }
    if active.len() as i64 > want {
        active.sort();
        let surplus = active.len() - usize::try_from(want).unwrap_or(0);
        for (_, pod) in active.drain(..surplus) {
            cx.delete_pod(&r, &pod, "replicaset-controller");
        }
    }
    let total = pods::owned(cx, ns, &uid).into_iter().filter(|p| pods::is_active(p)).count();
    let min = r["spec"]["minReadySeconds"].as_u64().unwrap_or(0);
    let (ready, available) = pods::counted(cx, SETS, (ns, name), &uid, min);
    let total = total as i64;
    let stamp = cx.stamp();
    cx.update(SETS, ns, name, |r| {
        let failing = arr(r, "/status/conditions").iter().any(|c| c["type"] == "ReplicaFailure");
        // The names of refused pods differ: what was said first stays.
        if let Some(why) = refused.as_deref().filter(|_| !failing) {
            set_condition(r, &stamp, "ReplicaFailure", "True", "FailedCreate", why);
        } else if refused.is_none()
            && failing
            && let Some(m) = r["status"].as_object_mut()
        {
            m.shift_remove("conditions");
        }
        r["status"]["observedGeneration"] = r["metadata"]["generation"].clone();
        r["status"]["replicas"] = json!(total);
        for (k, v) in [("fullyLabeledReplicas", total), ("readyReplicas", ready), ("availableReplicas", available)] {
            if v > 0 {
                r["status"][k] = json!(v);
            } else if let Some(m) = r["status"].as_object_mut() {
                m.shift_remove(k);
            }
        }
    });
}
