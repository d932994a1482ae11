//! What is said of a Deployment: its counts, and whether its rollout comes forward. Grade: source
//! (pkg/controller/deployment of kubernetes).
use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::store::meta::parse_time;
use super::super::text::{arr, s};
use super::deployments::{DEPLOYMENTS, number, outage, sets_of};
use super::replicasets::{self, FAILURE};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// How long a rollout may stand still, in milliseconds; none: for ever.
fn deadline(d: &Value) -> Option<u64> {
    let seconds = d["spec"]["progressDeadlineSeconds"].as_u64().filter(|n| *n != 2_147_483_647)?;
    Some(seconds * 1000)
}

fn find<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    arr(status, "/conditions").iter().find(|c| c["type"] == kind)
}

fn take_away(status: &mut Value, kind: &str) {
    let rest: Vec<Value> = arr(status, "/conditions").iter().filter(|c| c["type"] != kind).cloned().collect();
    if !rest.is_empty() {
        status["conditions"] = Value::Array(rest);
    } else if let Some(m) = status.as_object_mut() {
        m.shift_remove("conditions");
    }
}

/// Says something new, at the end of the list; the same status for the same reason is nothing new.
fn say(status: &mut Value, stamp: &str, kind: &str, (value, reason, text): (&str, &str, &str)) {
    let old = find(status, kind);
    if old.is_some_and(|c| c["status"] == value && c["reason"] == reason) {
        return;
    }
    let since = old.filter(|c| c["status"] == value).map_or_else(|| json!(stamp), |c| c["lastTransitionTime"].clone());
    take_away(status, kind);
    let fresh = json!({"type": kind, "status": value, "lastUpdateTime": stamp, "lastTransitionTime": since,
        "reason": reason, "message": text});
    match status["conditions"].as_array_mut() {
        Some(list) => list.push(fresh),
        None => status["conditions"] = json!([fresh]),
    }
}

/// Says something of a rollout that has a deadline.
pub(super) fn note(cx: &mut Cx, d: &Value, value: &str, reason: &str, text: &str) {
    if deadline(d).is_none() {
        return;
    }
    let stamp = cx.stamp();
    cx.update(DEPLOYMENTS, s(d, "/metadata/namespace"), s(d, "/metadata/name"), |d| {
        say(&mut d["status"], &stamp, PROGRESSING, (value, reason, text));
    });
}

/// A rollout that is paused, or goes on, says so.
pub(super) fn paused(cx: &mut Cx, d: &Value) {
    let old = find(&d["status"], PROGRESSING).map_or("", |c| s(c, "/reason"));
    match (d["spec"]["paused"] == true, old) {
        (true, PAUSED | TIMED_OUT) => {}
        (true, _) => note(cx, d, "Unknown", PAUSED, "Deployment is paused"),
        (false, PAUSED) => note(cx, d, "Unknown", "DeploymentResumed", "Deployment is resumed"),
        _ => {}
    }
}

/// The ReplicaSet of a Deployment that says nothing of its progress is there.
pub(super) fn found(cx: &mut Cx, d: &Value, set: &str) {
    if find(&d["status"], PROGRESSING).is_none() {
        note(cx, d, "True", "FoundNewReplicaSet", &format!("Found new replica set \"{set}\""));
    }
}

/// Whether all that is wanted is there, and nothing else.
pub(super) fn complete(d: &Value, status: &Value) -> bool {
    let want = number(d, "/spec/replicas", 1);
    let all = ["updatedReplicas", "replicas", "availableReplicas"];
    all.iter().all(|f| number(status, &format!("/{f}"), 0) == want)
        && status["observedGeneration"].as_u64() >= d["metadata"]["generation"].as_u64()
}

/// Writes the counts; in a rollout also whether it comes forward.
pub(super) fn write(cx: &mut Cx, ns: &str, name: &str, current: &str, rollout: bool) {
    let Some(d) = cx.get(DEPLOYMENTS, ns, name).cloned() else { return };
    let stamp = cx.stamp();
    let mut st = counted(cx, &d, current);
    let want = number(&d, "/spec/replicas", 1);
    let enough = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
    let missing = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.");
    let available = number(&st, "/availableReplicas", 0) >= want - outage(&d, want);
    say(&mut st, &stamp, "Available", if available { enough } else { missing });
    if rollout {
        match deadline(&d) {
            None => take_away(&mut st, PROGRESSING),
            Some(limit) => progress(&d, &mut st, &stamp, cx.now(), (current, limit)),
        }
        failure(cx, &d, &mut st, current);
    }
    cx.update(DEPLOYMENTS, ns, name, |d| d["status"] = st);
    look_again(cx, ns, name);
}

/// The status with its counts.
fn counted(cx: &Cx, d: &Value, current: &str) -> Value {
    let mut st = if d["status"].is_object() { d["status"].clone() } else { json!({}) };
    let mut sum = [0i64; 5];
    let (mut wanted, mut leaving) = (0, 0);
    for r in sets_of(cx, s(d, "/metadata/namespace"), s(d, "/metadata/uid")) {
        let of = |f: &str| number(r, &format!("/status/{f}"), 0);
        sum[0] += of("replicas");
        sum[1] += of("readyReplicas");
        sum[2] += of("availableReplicas");
        sum[3] += if s(r, "/metadata/name") == current { of("replicas") } else { 0 };
        wanted += number(r, "/spec/replicas", 0);
        leaving += of("terminatingReplicas");
    }
    sum[4] = (wanted - sum[2]).max(0);
    counts(&mut st, sum);
    if replicasets::counts_leaving(cx) {
        st["terminatingReplicas"] = json!(leaving);
    }
    st["observedGeneration"] = d["metadata"]["generation"].clone();
    st
}

/// Replica counts of a status (all, ready, available, updated, unavailable); zeros are left out, as the API does.
pub fn counts(st: &mut Value, of: [i64; 5]) {
    let names = ["replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "unavailableReplicas"];
    for (k, v) in names.into_iter().zip(of) {
        if v > 0 {
            st[k] = json!(v);
        } else if let Some(m) = st.as_object_mut() {
            m.shift_remove(k);
        }
    }
}

/// The condition Progressing: done, going on, or stuck for longer than the deadline.
fn progress(d: &Value, st: &mut Value, stamp: &str, now: u64, (current, limit): (&str, u64)) {
    let old = find(&d["status"], PROGRESSING).cloned();
    let n = |v: &Value, f: &str| number(v, &format!("/{f}"), 0);
    let reason = old.as_ref().map_or("", |c| s(c, "/reason"));
    if n(st, "replicas") == n(st, "updatedReplicas") && reason == AVAILABLE {
        return;
    }
    let was = &d["status"];
    let others = |v: &Value| n(v, "replicas") - n(v, "updatedReplicas");
    let more = |f: &str| n(st, f) > n(was, f);
    if complete(d, st) {
        let text = format!("ReplicaSet \"{current}\" has successfully progressed.");
        say(st, stamp, PROGRESSING, ("True", AVAILABLE, &text));
    } else if more("updatedReplicas") || others(st) < others(was) || more("readyReplicas") || more("availableReplicas")
    {
        take_away(st, PROGRESSING);
        let text = format!("ReplicaSet \"{current}\" is progressing.");
        say(st, stamp, PROGRESSING, ("True", "ReplicaSetUpdated", &text));
        let since = old.filter(|c| c["status"] == "True").map(|c| c["lastTransitionTime"].clone());
        let last = st["conditions"].as_array_mut().and_then(|l| l.last_mut());
        if let (Some(since), Some(c)) = (since, last) {
            c["lastTransitionTime"] = since;
        }
    } else if reason == TIMED_OUT
        || old.is_some_and(|c| parse_time(s(&c, "/lastUpdateTime")).is_some_and(|t| t + limit < now))
    {
        let text = format!("ReplicaSet \"{current}\" has timed out progressing.");
        say(st, stamp, PROGRESSING, ("False", TIMED_OUT, &text));
    }
}

/// What keeps a ReplicaSet from having its pods is said of the Deployment, too; the newest one comes first.
fn failure(cx: &Cx, d: &Value, st: &mut Value, current: &str) {
    let mut sets = sets_of(cx, s(d, "/metadata/namespace"), s(d, "/metadata/uid"));
    sets.sort_by_key(|r| s(r, "/metadata/name") != current);
    match sets.iter().find_map(|r| find(&r["status"], FAILURE)) {
        Some(c) => say(st, s(c, "/lastTransitionTime"), FAILURE, ("True", s(c, "/reason"), s(c, "/message"))),
        None => take_away(st, FAILURE),
    }
}

/// A rollout that is under way is looked at again when it will have stood still for too long.
fn look_again(cx: &mut Cx, ns: &str, name: &str) {
    let Some(d) = cx.get(DEPLOYMENTS, ns, name) else { return };
    let (Some(limit), Some(c)) = (deadline(d), find(&d["status"], PROGRESSING)) else { return };
    if complete(d, &d["status"]) || matches!(s(c, "/reason"), TIMED_OUT | AVAILABLE) {
        return;
    }
    let since = parse_time(s(c, "/lastUpdateTime")).unwrap_or(0);
    let left = (since + limit + 1000).saturating_sub(cx.now()).max(1000);
    cx.look_within(left, (DEPLOYMENTS, ns, name));
}
