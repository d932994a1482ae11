//! What became of a Job's pods. Each is counted once, when it has ended: its tracking finalizer keeps it until then.
//! Grade: source (pkg/controller/job of kubernetes).
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::cx::Cx;
use super::super::text::{arr, s};
use super::{pods, policy, status};

/// Keeps pods that have not been counted.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "/metadata/annotations/batch.kubernetes.io~1job-completion-index";
const FAILURES: &str = "/metadata/annotations/batch.kubernetes.io~1job-index-failure-count";

/// What became of a Job's pods.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) active: Vec<String>,
    pub(super) terminating: i64,
    pub(super) ready: i64,
    pub(super) succeeded: i64,
    pub(super) failed: i64,
    /// Restarts of containers in pods that have not ended.
    pub(super) restarts: i64,
    /// Indexes that have succeeded, and those that have a pod.
    pub(super) done: BTreeSet<i64>,
    pub(super) busy: BTreeSet<i64>,
    /// Failures by index.
    pub(super) failures: BTreeMap<i64, i64>,
    /// Indexes that are not tried again, where each has a limit of its own.
    pub(super) lost: Option<BTreeSet<i64>>,
    /// Why a rule ends the Job.
    pub(super) fatal: Option<String>,
    /// Pods that are counted now, for the first time.
    pub(super) counted: Vec<String>,
}

fn tracked(pod: &Value) -> bool {
    arr(pod, "/metadata/finalizers").iter().any(|f| f == TRACKING)
}

/// Whether a pod has failed. One that is deleted before its end has, too, unless only failed ones are replaced.
fn has_failed(job: &Value, pod: &Value) -> bool {
    let phase = s(pod, "/status/phase");
    let deleted = !pod["metadata"]["deletionTimestamp"].is_null() && phase != "Succeeded";
    phase == "Failed" || deleted && job["spec"]["podReplacementPolicy"] != "Failed"
}

/// Counts the pods of a Job, beginning with what its status tells of those that were counted before.
pub(super) fn of(cx: &Cx, job: &Value) -> Tally {
    let number = |f: &str| job["status"][f].as_i64().unwrap_or(0);
    let indexed = s(job, "/spec/completionMode") == "Indexed";
    let mut c = Tally { succeeded: number("succeeded"), failed: number("failed"), ..Tally::default() };
    if indexed {
        c.done = named(s(job, "/status/completedIndexes"));
    }
    let mut given_up = named(s(job, "/status/failedIndexes"));
    for p in pods::owned(cx, s(job, "/metadata/namespace"), s(job, "/metadata/uid")) {
        let name = s(p, "/metadata/name").to_owned();
        let index = s(p, INDEX).parse().unwrap_or(0);
        let ended = pods::has_ended(p);
        c.terminating += i64::from(!p["metadata"]["deletionTimestamp"].is_null() && !ended);
        if s(p, "/status/phase") == "Succeeded" {
            if tracked(p) {
                c.succeeded += i64::from(!indexed);
                c.counted.push(name);
                c.done.extend(indexed.then_some(index));
            }
        } else if has_failed(job, p) {
            let (action, why) = policy::judge(job, p).unwrap_or(("Count", String::new()));
            match action {
                "FailJob" => drop(c.fatal.get_or_insert(why)),
                "FailIndex" => drop(given_up.insert(index)),
                _ => {}
            }
            if tracked(p) {
                c.failed += i64::from(action != "Ignore");
                c.counted.push(name);
            }
            if action != "Ignore" {
                let times = s(p, FAILURES).parse::<i64>().unwrap_or(0) + 1;
                let most = c.failures.entry(index).or_default();
                *most = times.max(*most);
            }
        } else if pods::is_active(p) {
            c.active.push(name);
            c.busy.insert(index);
            c.ready += i64::from(pods::is_ready(p));
            c.restarts += status::statuses(p).filter_map(|st| st["restartCount"].as_i64()).sum::<i64>();
        }
    }
    if indexed {
        let most = job["spec"]["completions"].as_i64().unwrap_or(i64::MAX);
        c.done.retain(|i| *i < most);
        c.succeeded = c.done.len() as i64;
    }
    if let Some(limit) = job["spec"]["backoffLimitPerIndex"].as_i64() {
        given_up.extend(c.failures.iter().filter(|(_, n)| **n > limit).map(|(i, _)| *i));
        given_up.retain(|i| !c.done.contains(i));
        c.lost = Some(given_up);
    }
    c
}

/// A pod has been counted, or nobody counts it any more.
pub(super) fn let_go(cx: &mut Cx, ns: &str, pod: &str) {
    if !cx.get("pods", ns, pod).is_some_and(tracked) {
        return;
    }
    let free = |p: &mut Value| {
        let rest: Vec<Value> = arr(p, "/metadata/finalizers").iter().filter(|f| *f != TRACKING).cloned().collect();
        if !rest.is_empty() {
            p["metadata"]["finalizers"] = Value::Array(rest);
        } else if let Some(m) = p["metadata"].as_object_mut() {
            m.shift_remove("finalizers");
        }
    };
    cx.update("pods", ns, pod, free);
}

/// Nobody counts the pods of a Job any more.
pub(super) fn let_go_all(cx: &mut Cx, ns: &str, uid: &str) {
    let names: Vec<String> = pods::owned(cx, ns, uid).into_iter().map(|p| s(p, "/metadata/name").to_owned()).collect();
    names.iter().for_each(|name| let_go(cx, ns, name));
}

/// A Job is gone: nobody counts pods without one.
pub(super) fn release(cx: &mut Cx, ns: &str) {
    let job = |p: &Value| arr(p, "/metadata/ownerReferences").iter().find(|o| o["controller"] == true).cloned();
    let alone = |p: &&Value| {
        tracked(p)
            && job(p).is_none_or(|o| {
                cx.get("jobs.batch", ns, s(&o, "/name")).is_none_or(|j| j["metadata"]["uid"] != o["uid"])
            })
    };
    let names: Vec<String> =
        cx.list_in("pods", ns).into_iter().filter(alone).map(|p| s(p, "/metadata/name").to_owned()).collect();
    names.iter().for_each(|name| let_go(cx, ns, name));
}

/// The indexes that a text names (`0-2,4`).
fn named(text: &str) -> BTreeSet<i64> {
    let part = |p: &str| {
        let (a, b) = p.split_once('-').unwrap_or((p, p));
        Some(a.parse::<i64>().ok()?..=b.parse::<i64>().ok()?)
    };
    text.split(',').filter_map(part).flatten().collect()
}

/// `0-2,4` of a set of indexes.
pub(super) fn ranges(done: &BTreeSet<i64>) -> String {
    let mut out: Vec<(i64, i64)> = Vec::new();
    for i in done {
        match out.last_mut().filter(|r| r.1 + 1 == *i) {
            Some(r) => r.1 = *i,
            None => out.push((*i, *i)),
        }
    }
    let text = out.into_iter().map(|(a, b)| match b - a {
        0 => a.to_string(),
        1 => format!("{a},{b}"),
        _ => format!("{a}-{b}"),
    });
    text.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges() {
        let some = BTreeSet::from([0, 1, 2, 4, 6, 7]);
        assert_eq!(ranges(&some), "0-2,4,6,7");
        assert_eq!(named("0-2,4,6,7"), some);
        assert!(named("").is_empty());
    }
}
