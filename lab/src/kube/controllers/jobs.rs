//! Jobs: pods until enough have succeeded or too many have failed.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::KubeEvent;
use super::super::cx::{Cx, is_true, set_condition};
use super::super::text::{arr, s};
use super::{pods, policy, status};

const JOBS: &str = "jobs.batch";
const CONTROLLER: &str = "job-controller";
const INDEX: &str = "/metadata/annotations/batch.kubernetes.io~1job-completion-index";

/// What became of a Job's pods.
#[derive(Debug, Default)]
struct Count {
    active: Vec<String>,
    terminating: i64,
    ready: i64,
    succeeded: i64,
    failed: i64,
    /// Restarts of containers in pods that have not ended.
    restarts: i64,
    done: BTreeSet<i64>,
    busy: BTreeSet<i64>,
    /// Failures by index.
    failures: BTreeMap<i64, i64>,
    /// Indexes that a rule gave up.
    given_up: BTreeSet<i64>,
    /// Why a rule ends the Job.
    fatal: Option<String>,
}

fn count(cx: &Cx, job: &Value, ns: &str, uid: &str, indexed: bool) -> Count {
    let mut c = Count::default();
    for p in pods::owned(cx, ns, uid) {
        let index = s(p, INDEX).parse().unwrap_or(0);
        match s(p, "/status/phase") {
            "Succeeded" => {
                c.succeeded += 1;
                c.done.insert(index);
            }
            "Failed" => {
                let (action, why) = policy::judge(job, p).unwrap_or(("Count", String::new()));
                match action {
                    "Ignore" => continue,
                    "FailJob" => drop(c.fatal.get_or_insert(why)),
                    "FailIndex" => drop(c.given_up.insert(index)),
                    _ => {}
                }
                c.failed += 1;
                *c.failures.entry(index).or_default() += 1;
            }
            _ if pods::is_active(p) => {
                c.active.push(s(p, "/metadata/name").to_owned());
                c.busy.insert(index);
                c.ready += i64::from(pods::is_ready(p));
                c.restarts += status::statuses(p).filter_map(|st| st["restartCount"].as_i64()).sum::<i64>();
            }
            _ => c.terminating += 1,
        }
    }
    if indexed {
        let most = job["spec"]["completions"].as_i64().unwrap_or(i64::MAX);
        c.done.retain(|i| *i < most);
        c.succeeded = c.done.len() as i64;
    }
    c
}

/// Indexes that are not tried again, where each has a limit of its own.
fn lost(job: &Value, c: &Count) -> Option<BTreeSet<i64>> {
    let limit = job["spec"]["backoffLimitPerIndex"].as_i64()?;
    let over = c.failures.iter().filter(|(_, n)| **n > limit).map(|(i, _)| *i);
    Some(over.chain(c.given_up.iter().copied()).filter(|i| !c.done.contains(i)).collect())
}

/// `0-2,4` of a set of indexes.
fn ranges(done: &BTreeSet<i64>) -> String {
    let mut out: Vec<(i64, i64)> = Vec::new();
    for i in done {
        match out.last_mut().filter(|r| r.1 + 1 == *i) {
            Some(r) => r.1 = *i,
            None => out.push((*i, *i)),
        }
    }
    let text: Vec<String> = out
        .into_iter()
        .map(|(a, b)| {
            if a == b {
                a.to_string()
            } else if b == a + 1 {
                format!("{a},{b}")
            } else {
                format!("{a}-{b}")
            }
        })
        .collect();
    text.join(",")
}

/// How a Job ends by what became of its pods: condition, reason, message.
fn verdict(job: &Value, c: &Count, lost: Option<&BTreeSet<i64>>) -> Option<(&'static str, &'static str, String)> {
    let limit = job["spec"]["backoffLimit"].as_i64().unwrap_or(6);
    let restarted = s(job, "/spec/template/spec/restartPolicy") == "OnFailure";
    if let Some(why) = &c.fatal {
        return Some(("Failed", "PodFailurePolicy", why.clone()));
    }
    if c.failed > limit || restarted && c.restarts > 0 && c.restarts >= limit {
        return Some(("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit".to_owned()));
    }
    if let (Some(lost), Some(most)) = (lost, job["spec"]["maxFailedIndexes"].as_i64())
        && lost.len() as i64 > most
    {
        let text = "Job has exceeded the specified maximal number of failed indexes";
        return Some(("Failed", "MaxFailedIndexesExceeded", text.to_owned()));
    }
    if let Some(i) = policy::succeeded(job, &c.done) {
        return Some(("Complete", "SuccessPolicy", format!("Matched rules at index {i}")));
    }
    let failed = lost.map_or(0, |l| l.len() as i64);
    let complete = match job["spec"]["completions"].as_i64() {
        Some(n) => c.succeeded + failed >= n,
        // a queue of work: one pod that succeeds tells that nothing is left to begin
        None => c.succeeded > 0 && c.active.is_empty(),
    };
    match complete {
        true if failed > 0 => Some(("Failed", "FailedIndexes", "Job has failed indexes".to_owned())),
        true => Some(("Complete", "CompletionsReached", "Reached expected number of succeeded pods".to_owned())),
        false => None,
    }
}

/// Brings a Job's pods and status up to date.
pub fn reconcile(cx: &mut Cx, ns: &str, name: &str) {
    let Some(job) = cx.get(JOBS, ns, name).cloned() else { return };
    if !job["metadata"]["deletionTimestamp"].is_null() || is_true(&job, "Complete") || is_true(&job, "Failed") {
        return;
    }
    let managed = s(&job, "/spec/managedBy");
    if !matches!(managed, "" | "kubernetes.io/job-controller") {
        return;
    }
    let uid = s(&job, "/metadata/uid").to_owned();
    let indexed = s(&job, "/spec/completionMode") == "Indexed";
    let c = count(cx, &job, ns, &uid, indexed);
    let lost = lost(&job, &c);
    write(cx, ns, name, &c, indexed, lost.as_ref());
    let late = late(cx, &job, ns, name)
        .then(|| ("Failed", "DeadlineExceeded", "Job was active longer than specified deadline".to_owned()));
    if let Some((kind, reason, text)) = verdict(&job, &c, lost.as_ref()).or(late) {
        c.active.iter().for_each(|p| cx.delete_pod(&job, p, CONTROLLER));
        return finish(cx, ns, name, kind, reason, &text);
    }
    if job["spec"]["suspend"] == true {
        return suspend(cx, &job, &c.active);
    }
    if is_true(&job, "Suspended") {
        cx.condition((JOBS, ns, name), "Suspended", "False", "JobResumed", "Job resumed");
        let stamp = cx.stamp();
        cx.update(JOBS, ns, name, |j| j["status"]["startTime"] = json!(stamp));
        cx.event(&job, true, "Resumed", "Job resumed", CONTROLLER);
    }
    begin(cx, &job, &c, lost.as_ref());
}

/// Makes the pods that are missing, or takes those away that are too many.
fn begin(cx: &mut Cx, job: &Value, c: &Count, lost: Option<&BTreeSet<i64>>) {
    let (ns, name) = super::super::cx::key(job);
    let uid = s(job, "/metadata/uid").to_owned();
    let parallelism = job["spec"]["parallelism"].as_i64().unwrap_or(1);
    let completions = job["spec"]["completions"].as_i64();
    let active = c.active.len() as i64;
    let gone = lost.map_or(0, |l| l.len() as i64);
    let want = match completions {
        Some(n) => parallelism.min(n - c.succeeded - gone),
        None if c.succeeded > 0 => active,
        None => parallelism,
    };
    for pod in c.active.iter().take(usize::try_from(active - want).unwrap_or(0)) {
        cx.delete_pod(job, pod, CONTROLLER);
    }
    let ending = if job["spec"]["podReplacementPolicy"] == "Failed" { c.terminating } else { 0 };
    let Ok(missing) = usize::try_from(want - active - ending) else { return };
    if missing == 0 || pauses(cx, &ns, &name, &uid, c.failed) {
        return;
    }
    let out = |i: &i64| c.done.contains(i) || c.busy.contains(i) || lost.is_some_and(|l| l.contains(i));
    let indexed = s(job, "/spec/completionMode") == "Indexed";
    let free = (0..completions.unwrap_or(0)).filter(|i| !out(i));
    let indexes: Vec<Option<i64>> = if indexed { free.map(Some).collect() } else { vec![None; missing] };
    for index in indexes.into_iter().take(missing) {
        let failures = index.and_then(|i| c.failures.get(&i)).copied().unwrap_or(0);
        if !create(cx, job, &name, &uid, index, failures) {
            return;
        }
    }
}

/// A failed pod is tried again after a growing pause; true while the pause lasts.
fn pauses(cx: &mut Cx, ns: &str, name: &str, uid: &str, failed: i64) -> bool {
    let tried = cx.c.apps.get(&tries(uid)).and_then(Value::as_i64).unwrap_or(0);
    if failed <= tried {
        return false;
    }
    let pause = (10_000u64 << failed.clamp(1, 6).saturating_sub(1)).min(360_000);
    let event = KubeEvent::JobRetry { cluster: cx.c.id.clone(), ns: ns.to_owned(), name: name.to_owned(), failed };
    if !cx.w.is_pending(&crate::world::Event::Kube(event.clone())) && failed <= 15 {
        cx.later(pause, event);
    }
    true
}

/// Whether the Job has been active for longer than it may; looks again when it will have been.
fn late(cx: &mut Cx, job: &Value, ns: &str, name: &str) -> bool {
    let Some(limit) = job["spec"]["activeDeadlineSeconds"].as_u64() else { return false };
    let start = crate::kube::store::meta::parse_time(s(job, "/status/startTime")).unwrap_or(cx.now());
    let due = start + limit * 1000;
    if cx.now() >= due {
        return true;
    }
    let look =
        KubeEvent::Look { cluster: cx.c.id.clone(), resource: JOBS.into(), ns: ns.to_owned(), name: name.to_owned() };
    if !cx.w.is_pending(&crate::world::Event::Kube(look.clone())) {
        let delay = due - cx.now();
        cx.later(delay, look);
    }
    false
}

fn suspend(cx: &mut Cx, job: &Value, active: &[String]) {
    active.iter().for_each(|p| cx.delete_pod(job, p, CONTROLLER));
    if !is_true(job, "Suspended") {
        cx.condition(
            (JOBS, s(job, "/metadata/namespace"), s(job, "/metadata/name")),
            "Suspended",
            "True",
            "JobSuspended",
            "Job suspended",
        );
        cx.event(job, true, "Suspended", "Job suspended", CONTROLLER);
    }
}

fn create(cx: &mut Cx, job: &Value, name: &str, uid: &str, index: Option<i64>, failures: i64) -> bool {
    let labels = [
        ("batch.kubernetes.io/job-name", name),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("controller-uid", uid),
    ];
    let prefix = index.map_or_else(|| format!("{name}-"), |i| format!("{name}-{i}-"));
    let mut pod = pods::of_template(job, &job["spec"]["template"], "", &prefix, &labels);
    if let Some(i) = index {
        pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] = json!(i.to_string());
        pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = json!(i.to_string());
        if job["spec"]["backoffLimitPerIndex"].is_number() {
            pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] = json!(failures.to_string());
        }
        pod["spec"]["hostname"] = json!(format!("{name}-{i}"));
        for list in ["containers", "initContainers"] {
            for c in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let mut env = arr(c, "/env").to_vec();
                let at = "metadata.labels['batch.kubernetes.io/job-completion-index']";
                let from = json!({"fieldRef": {"apiVersion": "v1", "fieldPath": at}});
                env.push(json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": from}));
                c["env"] = json!(env);
            }
        }
    }
    cx.create_pod(job, pod, CONTROLLER).is_ok()
}

/// The pause after failure number `failed` is over.
pub fn retry(cx: &mut Cx, ns: &str, name: &str, failed: i64) {
    let Some(uid) = cx.get(JOBS, ns, name).map(|j| s(j, "/metadata/uid").to_owned()) else { return };
    cx.c.apps.insert(tries(&uid), json!(failed));
    reconcile(cx, ns, name);
}

fn tries(uid: &str) -> String {
    format!("job-tries/{uid}")
}

fn write(cx: &mut Cx, ns: &str, name: &str, c: &Count, indexed: bool, lost: Option<&BTreeSet<i64>>) {
    let stamp = cx.stamp();
    let active = c.active.len() as i64;
    cx.update(JOBS, ns, name, |j| {
        if !j["status"].is_object() {
            j["status"] = json!({});
        }
        if j["status"]["startTime"].is_null() && j["spec"]["suspend"] != true {
            j["status"]["startTime"] = json!(stamp);
        }
        for (k, v) in [("active", active), ("succeeded", c.succeeded), ("failed", c.failed), ("ready", c.ready)] {
            if v > 0 || k == "ready" {
                j["status"][k] = json!(v);
            } else if let Some(m) = j["status"].as_object_mut() {
                m.shift_remove(k);
            }
        }
        j["status"]["terminating"] = json!(c.terminating);
        j["status"]["uncountedTerminatedPods"] = json!({});
        if indexed && !c.done.is_empty() {
            j["status"]["completedIndexes"] = json!(ranges(&c.done));
        }
        if let Some(lost) = lost {
            j["status"]["failedIndexes"] = json!(ranges(lost));
        }
    });
}

fn finish(cx: &mut Cx, ns: &str, name: &str, kind: &str, reason: &str, text: &str) {
    let stamp = cx.stamp();
    let first = if kind == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
    cx.update(JOBS, ns, name, |j| {
        set_condition(j, &stamp, first, "True", reason, text);
        set_condition(j, &stamp, kind, "True", reason, text);
        if kind == "Complete" {
            j["status"]["completionTime"] = json!(stamp);
        }
        if let Some(m) = j["status"].as_object_mut() {
            m.shift_remove("active");
        }
        j["status"]["ready"] = json!(0);
    });
    let Some(job) = cx.get(JOBS, ns, name).cloned() else { return };
    if kind == "Complete" {
        cx.event(&job, true, "Completed", "Job completed", CONTROLLER);
    } else {
        cx.event(&job, false, reason, text, CONTROLLER);
    }
    if let Some(ttl) = job["spec"]["ttlSecondsAfterFinished"].as_u64() {
        let uid = s(&job, "/metadata/uid").to_owned();
        cx.later(
            ttl * 1000,
            KubeEvent::JobExpired { cluster: cx.c.id.clone(), ns: ns.to_owned(), name: name.to_owned(), uid },
        );
    }
}

/// A finished Job has outlived its `ttlSecondsAfterFinished`.
pub fn expired(cx: &mut Cx, ns: &str, name: &str, uid: &str) {
    if cx.get(JOBS, ns, name).is_some_and(|j| s(j, "/metadata/uid") == uid) {
        cx.delete(JOBS, ns, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges() {
        assert_eq!(ranges(&BTreeSet::from([0, 1, 2, 4, 6, 7])), "0-2,4,6,7");
    }
}
