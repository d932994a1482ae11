//! Jobs: pods until enough have succeeded or too many have failed.
use serde_json::{Value, json};

use super::super::KubeEvent;
use super::super::cx::{Cx, is_true, set_condition};
use super::super::text::s;
use super::pods;

const JOBS: &str = "jobs.batch";

/// Brings a Job's pods and status up to date.
pub fn reconcile(cx: &mut Cx, ns: &str, name: &str) {
    let Some(job) = cx.get(JOBS, ns, name).cloned() else { return };
    if !job["metadata"]["deletionTimestamp"].is_null() || is_true(&job, "Complete") || is_true(&job, "Failed") {
        return;
    }
    let uid = s(&job, "/metadata/uid").to_owned();
    let (mut active, mut succeeded, mut failed, mut ready) = (0i64, 0i64, 0i64, 0i64);
    for p in pods::owned(cx, ns, &uid) {
        match s(p, "/status/phase") {
            "Succeeded" => succeeded += 1,
            "Failed" => failed += 1,
            _ if pods::is_active(p) => {
                active += 1;
                ready += i64::from(pods::is_ready(p));
            }
            _ => {}
        }
    }
    let completions = job["spec"]["completions"].as_i64().unwrap_or(1);
    let limit = job["spec"]["backoffLimit"].as_i64().unwrap_or(6);
    let parallelism = job["spec"]["parallelism"].as_i64().unwrap_or(1);
    let suspended = job["spec"]["suspend"] == true;
    let counts = json!({"active": active, "succeeded": succeeded, "failed": failed, "ready": ready});
    write(cx, ns, name, &counts);
    if succeeded >= completions {
        return finish(cx, ns, name, "Complete", "CompletionsReached", "Reached expected number of succeeded pods");
    }
    if failed > limit {
        return finish(cx, ns, name, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if suspended {
        return;
    }
    let missing = parallelism.min(completions - succeeded) - active;
    if missing <= 0 {
        return;
    }
    let tried = cx.c.apps.get(&tries(&uid)).and_then(Value::as_i64).unwrap_or(0);
    if failed > tried {
        // A failed pod is tried again after a growing pause; the event clears the mark.
        let pause = (10_000u64 << failed.clamp(1, 6).saturating_sub(1)).min(360_000);
        let event = KubeEvent::JobRetry { cluster: cx.c.id.clone(), ns: ns.to_owned(), name: name.to_owned(), failed };
        if !cx.w.is_pending(&crate::world::Event::Kube(event.clone())) && failed <= 15 {
            cx.later(pause, event);
        }
        return;
    }
    for _ in 0..missing {
        let labels = [
            ("batch.kubernetes.io/job-name", name),
            ("job-name", name),
            ("batch.kubernetes.io/controller-uid", uid.as_str()),
            ("controller-uid", uid.as_str()),
        ];
        let pod = pods::of_template(&job, &job["spec"]["template"], "", &format!("{name}-"), &labels);
        if !cx.create(pod) {
            return;
        }
    }
    let last = cx.list_in("pods", ns).last().map(|p| s(p, "/metadata/name").to_owned()).unwrap_or_default();
    cx.event(&job, true, "SuccessfulCreate", &format!("Created pod: {last}"), "job-controller");
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

fn write(cx: &mut Cx, ns: &str, name: &str, counts: &Value) {
    let stamp = cx.stamp();
    cx.update(JOBS, ns, name, |j| {
        if !j["status"].is_object() {
            j["status"] = json!({});
        }
        if j["status"]["startTime"].is_null() && j["spec"]["suspend"] != true {
            j["status"]["startTime"] = json!(stamp);
        }
        for (k, v) in counts.as_object().into_iter().flatten() {
            if v.as_i64().unwrap_or(0) > 0 {
                j["status"][k] = v.clone();
            } else if let Some(m) = j["status"].as_object_mut() {
                m.shift_remove(k);
            }
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
    });
    let Some(job) = cx.get(JOBS, ns, name).cloned() else { return };
    if kind == "Complete" {
        cx.event(&job, true, "Completed", "Job completed", "job-controller");
    } else {
        cx.event(&job, false, reason, text, "job-controller");
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
