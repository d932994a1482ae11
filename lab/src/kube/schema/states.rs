//! Rules of statuses: counts that fit together, conditions that never go back. Grade: source (the validation packages of
//! kube-apiserver).
use serde_json::Value;

use super::jobs::intervals;
use super::workloads::counted;
use super::{Kind, network};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

/// Kind, counts, those of them that `replicas` bounds, what the number that is ready is called.
type Counts = (&'static str, &'static [&'static str], &'static [&'static str], &'static str);

/// Counts of sets of pods that their number bounds.
const BOUNDED: &[&str] = &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

const COUNTS: &[Counts] = &[
    (
        "Deployment",
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
        "readyReplicas",
    ),
    (
        "ReplicationController",
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
        BOUNDED,
        "readyReplicas",
    ),
    (
        "ReplicaSet",
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "terminatingReplicas",
        ],
        BOUNDED,
        "readyReplicas",
    ),
    (
        "StatefulSet",
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
        "status.readyReplicas",
    ),
    (
        "DaemonSet",
        &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
        &[],
        "",
    ),
    ("HorizontalPodAutoscaler", &["currentReplicas", "desiredReplicas"], &[], ""),
    ("PodDisruptionBudget", &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"], &[], ""),
];

/// Whether a kind's status has rules of its own, and a changed one is judged by them alone.
pub(super) fn known(kind: &Kind) -> bool {
    matches!(kind.kind.as_str(), "Job" | "Ingress") || COUNTS.iter().any(|c| c.0 == kind.kind)
}

/// Checks the status of an object; `old` is the object as it was.
pub(super) fn check(kind: &Kind, old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let status = &new["status"];
    if let Some((_, counts, bounded, ready)) = COUNTS.iter().find(|c| c.0 == kind.kind) {
        counted(status, "status", counts, out);
        let n = |f: &str| status[f].as_i64().unwrap_or(0);
        let mut greater = |f: &str, than: &str| {
            let why = format!("cannot be greater than {than}");
            out.push(Cause::invalid(format!("status.{f}"), &status[f], &why));
        };
        for f in bounded.iter().filter(|f| n(f) > n("replicas")) {
            greater(f, "status.replicas");
        }
        if !bounded.is_empty() && n("availableReplicas") > n("readyReplicas") {
            greater("availableReplicas", ready);
        }
        let (had, has) = (&old["status"]["collisionCount"], &status["collisionCount"]);
        if has.as_i64().unwrap_or(0) < had.as_i64().unwrap_or(0) {
            let shown = has.as_i64().unwrap_or(0);
            out.push(Cause::invalid("status.collisionCount", &shown.into(), "cannot be decremented"));
        }
    }
    match kind.kind.as_str() {
        "Job" => job(old, new, out),
        "Ingress" => network::balanced(&status["loadBalancer"], "status.loadBalancer", out),
        _ => {}
    }
}

fn holds(obj: &Value, sort: &str) -> bool {
    arr(obj, "/status/conditions").iter().any(|c| c["type"] == sort && c["status"] == "True")
}

/// Checks the status of a Job, which is how other controllers than the server's own end one.
fn job(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let (was, is) = (&old["status"], &new["status"]);
    counted(is, "status", &["active", "succeeded", "failed", "ready", "terminating"], out);
    let moved = |f: &str| was[f] != is[f];
    let ended = |o: &Value| holds(o, "Complete") || holds(o, "Failed");
    let turned = |sort: &str| holds(old, sort) != holds(new, sort);
    let now_ended = ended(old) != ended(new);
    let conditions = |why: &str| Cause::plain("status.conditions", why);
    for (sort, shown) in [("Failed", "Failed=true"), ("FailureTarget", "FailureTarget=true")] {
        if (turned("Complete") || turned(sort)) && holds(new, "Complete") && holds(new, sort) {
            out.push(conditions(&format!("cannot set Complete=True and {shown} conditions")));
        }
    }
    let (done, at) = (&is["completionTime"], "status.completionTime");
    if (turned("Complete") || moved("completionTime")) && done.is_null() == holds(new, "Complete") {
        out.push(if done.is_null() {
            Cause::required(at, "completionTime is required for Complete jobs")
        } else {
            Cause::invalid(at, done, "cannot set completionTime when there is no Complete=True condition")
        });
    }
    let (from, to) = (s(is, "/startTime"), s(is, "/completionTime"));
    if (moved("startTime") || moved("completionTime")) && !from.is_empty() && !to.is_empty() && to < from {
        out.push(Cause::invalid(at, done, "must be equal to or after `startTime`"));
    }
    if (turned("Failed") || moved("failedIndexes")) && holds(new, "Failed") && !holds(new, "FailureTarget") {
        out.push(conditions("cannot set Failed=True condition without the FailureTarget=true condition"));
    }
    let met = "SuccessCriteriaMet";
    if (turned("Complete") || turned(met)) && holds(new, "Complete") && !holds(new, met) {
        out.push(conditions("cannot set Complete=True condition without the SuccessCriteriaMet=true condition"));
    }
    if (now_ended || moved("active")) && ended(new) && is["active"].as_i64().is_some_and(|n| n > 0) {
        out.push(Cause::invalid("status.active", &is["active"], "active>0 is invalid for finished job"));
    }
    let none = new["spec"]["suspend"] == true && new["spec"]["completions"] == 0;
    if (now_ended || moved("startTime")) && !none && ended(new) && is["startTime"].is_null() {
        out.push(Cause::required("status.startTime", "startTime is required for finished job"));
    }
    job_indexes(old, new, out);
    job_kept(old, new, out);
}

fn job_indexes(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let (was, is, spec) = (&old["status"], &new["status"], &new["spec"]);
    let mut say = |f: &str, why: &str| out.push(Cause::invalid(format!("status.{f}"), &is[f], why));
    for f in ["completedIndexes", "failedIndexes"].into_iter().filter(|f| was[*f] != is[*f] && is[*f].is_string()) {
        if f == "failedIndexes" && spec["backoffLimitPerIndex"].is_null() {
            say(f, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
            continue;
        }
        if let Some(Err(why)) = spec["completions"].as_i64().map(|n| intervals(s(is, &format!("/{f}")), n)) {
            say(f, &format!("error parsing {f}: {why}"));
        }
        if f == "completedIndexes" && spec["completionMode"] != "Indexed" {
            say(f, "cannot set non-empty completedIndexes when non-indexed completion mode");
        }
    }
    let (ready, active) = (is["ready"].as_i64(), is["active"].as_i64().unwrap_or(0));
    if (was["ready"] != is["ready"] || was["active"] != is["active"]) && ready.is_some_and(|r| r > active) {
        say("ready", "cannot set more ready pods than active");
    }
    for other in ["Failed", "FailureTarget"].into_iter().filter(|c| holds(new, "SuccessCriteriaMet") && holds(new, c)) {
        let shown = if other == "Failed" { "Failed=true" } else { "FailureTarget=true" };
        let why = format!("cannot set SuccessCriteriaMet=True and {shown} conditions");
        out.push(Cause::plain("status.conditions", &why));
    }
}

/// What of a Job's status does not go back.
fn job_kept(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let (was, is) = (&old["status"], &new["status"]);
    for sort in ["Failed", "Complete", "FailureTarget"].into_iter().filter(|c| holds(old, c) && !holds(new, c)) {
        let why = format!("cannot disable the terminal {sort}=True condition");
        out.push(Cause::plain("status.conditions", &why));
    }
    let elastic =
        new["spec"]["completionMode"] == "Indexed" && new["spec"]["completions"] == new["spec"]["parallelism"];
    for f in ["failed", "succeeded"].into_iter().filter(|f| *f == "failed" || !elastic) {
        let n = |o: &Value| o[f].as_i64().unwrap_or(0);
        if n(is) < n(was) {
            let why = format!("cannot decrease the {f} counter");
            out.push(Cause::invalid(format!("status.{f}"), &n(is).into(), &why));
        }
    }
    let (had, has) = (&was["completionTime"], &is["completionTime"]);
    if !had.is_null() && !has.is_null() && had != has {
        out.push(Cause::invalid("status.completionTime", has, "field is immutable"));
    }
    let (had, has) = (&was["startTime"], &is["startTime"]);
    let resumed = holds(old, "Suspended") && !holds(new, "Suspended");
    if !had.is_null() && had != has && new["spec"]["suspend"] != true && !resumed {
        out.push(Cause::invalid("status.startTime", has, "field is immutable for unsuspended job once set"));
    }
    if holds(old, "SuccessCriteriaMet") && !holds(new, "SuccessCriteriaMet") {
        out.push(Cause::plain("status.conditions", "cannot disable the SuccessCriteriaMet=True condition"));
    }
}
