//! Jobs: pods until enough have succeeded or too many have failed.
use serde_json::{Value, json};

use super::super::KubeEvent;
use super::super::cx::{Cx, is_true, key};
use super::super::text::{arr, s};
use super::tally::{self, TRACKING, Tally};
use super::{pods, policy};
use crate::kube::k3s::node::minor;

const JOBS: &str = "jobs.batch";
const CONTROLLER: &str = "job-controller";

/// How a Job ends by what became of its pods.
fn verdict(job: &Value, c: &Tally) -> Option<End> {
    let fails = |reason: &str, text: &str| Some(End { failed: true, reason: reason.into(), text: text.into() });
    let succeeds = |reason: &str, text: &str| Some(End { failed: false, reason: reason.into(), text: text.into() });
    let limit = job["spec"]["backoffLimit"].as_i64().unwrap_or(6);
    let restarted = s(job, "/spec/template/spec/restartPolicy") == "OnFailure";
    if let Some(why) = &c.fatal {
        return fails("PodFailurePolicy", why);
    }
    if c.failed > limit || restarted && c.restarts > 0 && c.restarts >= limit {
        return fails("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    let lost = c.lost.as_ref().map_or(0, |l| l.len() as i64);
    if job["spec"]["maxFailedIndexes"].as_i64().is_some_and(|most| lost > most) {
        let text = "Job has exceeded the specified maximal number of failed indexes";
        return fails("MaxFailedIndexesExceeded", text);
    }
    let most = job["spec"]["completions"].as_i64();
    if lost > 0 && most.is_some_and(|n| c.succeeded + lost >= n) {
        return fails("FailedIndexes", "Job has failed indexes");
    }
    if let Some(i) = policy::succeeded(job, &c.done) {
        return succeeds("SuccessPolicy", &format!("Matched rules at index {i}"));
    }
    let complete = match most {
        Some(n) => c.succeeded >= n && c.active.is_empty(),
        // a queue of work: one pod that succeeds tells that nothing is left to begin
        None => c.succeeded > 0 && c.active.is_empty(),
    };
    complete.then(|| succeeds("CompletionsReached", "Reached expected number of succeeded pods"))?
}

/// Brings a Job's pods and status up to date.
pub fn reconcile(cx: &mut Cx, ns: &str, name: &str) {
    let Some(job) = cx.get(JOBS, ns, name).cloned() else { return tally::release(cx, ns) };
    let managed = s(&job, "/spec/managedBy");
    if !matches!(managed, "" | "kubernetes.io/job-controller") {
        return;
    }
    let uid = s(&job, "/metadata/uid").to_owned();
    if !job["metadata"]["deletionTimestamp"].is_null() {
        return tally::let_go_all(cx, ns, &uid);
    }
    if is_true(&job, "Complete") || is_true(&job, "Failed") {
        return;
    }
    let mut c = tally::of(cx, &job);
    let end = ending(&job).or_else(|| verdict(&job, &c)).or_else(|| late(cx, &job, ns, name));
    if let Some(end) = &end {
        stop(cx, &job, &mut c, end.failed);
    }
    let fresh = std::mem::take(&mut c.counted);
    fresh.iter().for_each(|pod| tally::let_go(cx, ns, pod));
    let stamp = cx.stamp();
    cx.update(JOBS, ns, name, |j| {
        write(j, &c, &stamp);
        if let Some(e) = &end {
            say(j, &stamp, e.first(), "True", &e.reason, &e.text);
        }
    });
    if let Some(end) = end {
        // The pods have to be gone first.
        if c.terminating == 0 {
            finish(cx, ns, name, &end);
        }
    } else if job["spec"]["suspend"] == true {
        suspend(cx, &job, &c.active);
    } else {
        resumed(cx, &job);
        begin(cx, &job, &c);
    }
}

/// How a Job ends.
struct End {
    failed: bool,
    reason: String,
    text: String,
}

impl End {
    /// What is said while its pods are still there, and when they are gone.
    fn first(&self) -> &'static str {
        if self.failed { "FailureTarget" } else { "SuccessCriteriaMet" }
    }

    fn last(&self) -> &'static str {
        if self.failed { "Failed" } else { "Complete" }
    }
}

/// The end that has been decided before.
fn ending(job: &Value) -> Option<End> {
    let kinds = ["SuccessCriteriaMet", "FailureTarget"];
    let c = kinds
        .iter()
        .find_map(|k| arr(job, "/status/conditions").iter().find(|c| c["type"] == *k && c["status"] == "True"))?;
    Some(End {
        failed: c["type"] == "FailureTarget",
        reason: s(c, "/reason").to_owned(),
        text: s(c, "/message").to_owned(),
    })
}

/// Pods that are still there go; those of a Job that fails count as failed.
fn stop(cx: &mut Cx, job: &Value, c: &mut Tally, failed: bool) {
    let ns = s(job, "/metadata/namespace").to_owned();
    for pod in std::mem::take(&mut c.active) {
        cx.delete_pod(job, &pod, CONTROLLER);
        tally::let_go(cx, &ns, &pod);
        c.failed += i64::from(failed);
        c.terminating += i64::from(cx.get("pods", &ns, &pod).is_some());
    }
    c.ready = 0;
}

/// Says something of a Job, in the place where it was said before; false is nothing new.
fn say(j: &mut Value, stamp: &str, kind: &str, status: &str, reason: &str, text: &str) -> bool {
    let fresh = json!({"type": kind, "status": status, "lastProbeTime": stamp, "lastTransitionTime": stamp,
        "reason": reason, "message": text});
    let same = |c: &Value| ["status", "reason", "message"].iter().all(|f| c[*f] == fresh[*f]);
    if !j["status"]["conditions"].is_array() {
        j["status"]["conditions"] = json!([]);
    }
    let Some(list) = j["status"]["conditions"].as_array_mut() else { return false };
    match list.iter_mut().find(|c| c["type"] == kind) {
        Some(c) if same(c) => return false,
        Some(c) => *c = fresh,
        None if status == "False" => return false,
        None => list.push(fresh),
    }
    true
}

/// A Job that was suspended goes on.
fn resumed(cx: &mut Cx, job: &Value) {
    if !is_true(job, "Suspended") {
        return;
    }
    let ((ns, name), stamp) = (key(job), cx.stamp());
    cx.update(JOBS, &ns, &name, |j| {
        say(j, &stamp, "Suspended", "False", "JobResumed", "Job resumed");
        j["status"]["startTime"] = json!(stamp);
    });
    cx.event(job, true, "Resumed", "Job resumed", CONTROLLER);
}

/// Makes the pods that are missing, or takes those away that are too many.
fn begin(cx: &mut Cx, job: &Value, c: &Tally) {
    let (ns, name) = key(job);
    let lost = c.lost.as_ref();
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
        drop_pod(cx, job, pod);
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

/// Takes a pod away without counting it.
fn drop_pod(cx: &mut Cx, job: &Value, pod: &str) {
    tally::let_go(cx, s(job, "/metadata/namespace"), pod);
    cx.delete_pod(job, pod, CONTROLLER);
}

/// A failed pod is tried again after a growing pause; true while the pause lasts.
fn pauses(cx: &mut Cx, ns: &str, name: &str, uid: &str, failed: i64) -> bool {
    let tried = cx.c.apps.get(&tries(uid)).and_then(Value::as_i64).unwrap_or(0);
    if failed <= tried {
        return false;
    }
    let pause = (10_000u64 << failed.clamp(1, 7).saturating_sub(1)).min(600_000);
    let event = KubeEvent::JobRetry { cluster: cx.c.id.clone(), ns: ns.to_owned(), name: name.to_owned(), failed };
    if !cx.w.is_pending(&crate::world::Event::Kube(event.clone())) && failed <= 15 {
        cx.later(pause, event);
    }
    true
}

/// Whether the Job has been active for longer than it may; looks again when it will have been.
fn late(cx: &mut Cx, job: &Value, ns: &str, name: &str) -> Option<End> {
    let limit = job["spec"]["activeDeadlineSeconds"].as_u64().filter(|_| job["spec"]["suspend"] != true)?;
    let start = crate::kube::store::meta::parse_time(s(job, "/status/startTime")).unwrap_or(cx.now());
    let due = start + limit * 1000;
    if cx.now() >= due {
        let text = "Job was active longer than specified deadline".to_owned();
        return Some(End { failed: true, reason: "DeadlineExceeded".to_owned(), text });
    }
    if !cx.will_look((JOBS, ns, name)) {
        cx.look_later(due - cx.now(), (JOBS, ns, name));
    }
    None
}

fn suspend(cx: &mut Cx, job: &Value, active: &[String]) {
    active.iter().for_each(|p| drop_pod(cx, job, p));
    let ((ns, name), stamp) = (key(job), cx.stamp());
    let starts_anew = minor(&cx.c.version) >= 36;
    let mut news = false;
    cx.update(JOBS, &ns, &name, |j| {
        news = say(j, &stamp, "Suspended", "True", "JobSuspended", "Job suspended");
        if news && starts_anew {
            j["status"].as_object_mut().and_then(|m| m.shift_remove("startTime"));
        }
    });
    if news {
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
    let kept = arr(&job["spec"]["template"], "/metadata/finalizers").iter().cloned();
    pod["metadata"]["finalizers"] = kept.chain([json!(TRACKING)]).collect();
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

fn write(j: &mut Value, c: &Tally, stamp: &str) {
    if !j["status"].is_object() {
        j["status"] = json!({});
    }
    if j["status"]["startTime"].is_null() && j["spec"]["suspend"] != true {
        j["status"]["startTime"] = json!(stamp);
    }
    let active = c.active.len() as i64;
    for (k, v) in [("active", active), ("succeeded", c.succeeded), ("failed", c.failed), ("ready", c.ready)] {
        if v > 0 || k == "ready" {
            j["status"][k] = json!(v);
        } else if let Some(m) = j["status"].as_object_mut() {
            m.shift_remove(k);
        }
    }
    j["status"]["terminating"] = json!(c.terminating);
    j["status"]["uncountedTerminatedPods"] = json!({});
    if !c.done.is_empty() {
        j["status"]["completedIndexes"] = json!(tally::ranges(&c.done));
    }
    if let Some(lost) = &c.lost {
        j["status"]["failedIndexes"] = json!(tally::ranges(lost));
    }
}

fn finish(cx: &mut Cx, ns: &str, name: &str, end: &End) {
    let stamp = cx.stamp();
    cx.update(JOBS, ns, name, |j| {
        say(j, &stamp, end.last(), "True", &end.reason, &end.text);
        if !end.failed {
            j["status"]["completionTime"] = json!(stamp);
        }
    });
    let Some(job) = cx.get(JOBS, ns, name).cloned() else { return };
    match end.failed {
        true => cx.event(&job, false, &end.reason, &end.text, CONTROLLER),
        false => cx.event(&job, true, "Completed", "Job completed", CONTROLLER),
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
