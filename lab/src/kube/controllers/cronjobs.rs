//! CronJobs: a Job whenever the schedule says so, by lab time.
use gpuhost_stdlib::wire::cron::next;
use serde_json::{Value, json};

use super::super::cx::{Cx, is_true, owner_ref};
use super::super::store::meta;
use super::super::text::{arr, s};

const CRONS: &str = "cronjobs.batch";
const JOBS: &str = "jobs.batch";

/// The last minute up to `now_ms` that the schedule names after `from_ms`.
fn missed(schedule: &str, from_ms: u64, now_ms: u64) -> Option<u64> {
    let mut last = next(schedule, from_ms).filter(|t| *t <= now_ms)?;
    // More than a day of them is not counted one by one.
    if now_ms - last > 86_400_000 {
        last = next(schedule, now_ms - 86_400_000).filter(|t| *t <= now_ms).unwrap_or(last);
    }
    while let Some(later) = next(schedule, last).filter(|t| *t <= now_ms) {
        last = later;
    }
    Some(last)
}

/// A CronJob changed, or one of its Jobs did, or a minute has come that it names.
pub fn reconcile(cx: &mut Cx, ns: &str, name: &str) {
    let Some(cron) = cx.get(CRONS, ns, name).cloned() else { return };
    if !cron["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    tidy(cx, &cron, ns, name);
    let mark = format!("cron/{}", s(&cron, "/metadata/uid"));
    if cron["spec"]["suspend"] == true {
        cx.c.apps.remove(&mark);
        return;
    }
    let (schedule, now) = (s(&cron, "/spec/schedule"), cx.now());
    let time = |p: &str| meta::parse_time(s(&cron, p));
    let last = time("/status/lastScheduleTime").or_else(|| time("/metadata/creationTimestamp")).unwrap_or(now);
    let patience = cron["spec"]["startingDeadlineSeconds"].as_u64().map(|n| n * 1000);
    let from = patience.map_or(last, |p| last.max(now.saturating_sub(p)));
    if let Some(due) = missed(schedule, from, now) {
        begin(cx, &cron, ns, name, due);
    }
    look_at_next(cx, schedule, ns, name, mark);
}

fn look_at_next(cx: &mut Cx, schedule: &str, ns: &str, name: &str, mark: String) {
    let Some(due) = next(schedule, cx.now()) else { return };
    if cx.c.apps.get(&mark).and_then(Value::as_u64) != Some(due) {
        cx.c.apps.insert(mark, json!(due));
        cx.look_later(due.saturating_sub(cx.now()), (CRONS, ns, name));
    }
}

/// A scheduled minute has come.
pub fn due(cx: &mut Cx, ns: &str, name: &str) {
    reconcile(cx, ns, name);
}

/// Starts the Job of a scheduled minute, as far as those that still run allow it.
fn begin(cx: &mut Cx, cron: &Value, ns: &str, name: &str, due: u64) {
    let active = active(cx, cron, ns);
    let job = format!("{name}-{}", due / 60_000);
    let policy = s(cron, "/spec/concurrencyPolicy");
    if policy == "Forbid" && !active.is_empty() {
        let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
        return cx.event(cron, true, "JobAlreadyActive", text, "cronjob-controller");
    }
    if policy == "Replace" {
        for j in active {
            cx.delete(JOBS, ns, &j);
            cx.event(cron, true, "SuccessfulDelete", &format!("Deleted job {j}"), "cronjob-controller");
        }
    }
    let template = &cron["spec"]["jobTemplate"];
    let mut notes = template["metadata"]["annotations"].clone();
    notes["batch.kubernetes.io/cronjob-scheduled-timestamp"] = json!(meta::time(due));
    let made = cx.create(json!({"apiVersion": "batch/v1", "kind": "Job", "spec": template["spec"],
        "metadata": {"name": job, "namespace": ns, "labels": template["metadata"]["labels"], "annotations": notes,
            "ownerReferences": owner_ref(cron)}}));
    if made {
        cx.event(cron, true, "SuccessfulCreate", &format!("Created job {job}"), "cronjob-controller");
    }
    cx.update(CRONS, ns, name, |c| c["status"]["lastScheduleTime"] = json!(meta::time(due)));
}

fn mine<'a>(cx: &'a Cx, cron: &Value, ns: &str) -> Vec<&'a Value> {
    let uid = s(cron, "/metadata/uid");
    let owned = |j: &&Value| arr(j, "/metadata/ownerReferences").iter().any(|o| s(o, "/uid") == uid);
    cx.list_in(JOBS, ns).into_iter().filter(owned).collect()
}

fn active(cx: &Cx, cron: &Value, ns: &str) -> Vec<String> {
    let open = |j: &&Value| !is_true(j, "Complete") && !is_true(j, "Failed");
    mine(cx, cron, ns).into_iter().filter(open).map(|j| s(j, "/metadata/name").to_owned()).collect()
}

/// Status, and Jobs beyond the history limits.
fn tidy(cx: &mut Cx, cron: &Value, ns: &str, name: &str) {
    for (kind, limit, or) in [("Complete", "successfulJobsHistoryLimit", 3), ("Failed", "failedJobsHistoryLimit", 1)] {
        let keep = cron["spec"][limit].as_u64().unwrap_or(or);
        let mut over: Vec<(String, String)> = mine(cx, cron, ns)
            .into_iter()
            .filter(|j| is_true(j, kind))
            .map(|j| (s(j, "/status/startTime").to_owned(), s(j, "/metadata/name").to_owned()))
            .collect();
        over.sort();
        let surplus = over.len().saturating_sub(usize::try_from(keep).unwrap_or(0));
        for (_, j) in &over[..surplus] {
            cx.delete(JOBS, ns, j);
            cx.event(cron, true, "SuccessfulDelete", &format!("Deleted job {j}"), "cronjob-controller");
        }
    }
    for r in arr(cron, "/status/active") {
        let Some(j) = cx.get(JOBS, ns, s(r, "/name")) else { continue };
        let Some(how) = ["Complete", "Failed"].into_iter().find(|k| is_true(j, k)) else { continue };
        let text = format!("Saw completed job: {}, condition: {how}", s(r, "/name"));
        cx.event(cron, true, "SawCompletedJob", &text, "cronjob-controller");
    }
    let list: Vec<Value> = mine(cx, cron, ns)
        .into_iter()
        .filter(|j| !is_true(j, "Complete") && !is_true(j, "Failed"))
        .map(|j| {
            let m = &j["metadata"];
            let known = arr(cron, "/status/active").iter().find(|r| r["uid"] == m["uid"]).cloned();
            known.unwrap_or_else(|| {
                json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": ns, "name": m["name"], "uid": m["uid"],
                    "resourceVersion": m["resourceVersion"]})
            })
        })
        .collect();
    let last =
        mine(cx, cron, ns).into_iter().map(|j| s(j, "/status/completionTime").to_owned()).max().unwrap_or_default();
    cx.update(CRONS, ns, name, |c| {
        if list.is_empty() {
            c["status"].as_object_mut().and_then(|m| m.shift_remove("active"));
        } else {
            c["status"]["active"] = json!(list);
        }
        if !last.is_empty() {
            c["status"]["lastSuccessfulTime"] = json!(last);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_name_the_next_minute() {
        let from = meta::parse_time("2026-11-25T22:56:30Z").unwrap();
        for (schedule, want) in [
            ("*/5 * * * *", "2026-11-25T23:00:00Z"),
            ("* * * * *", "2026-11-25T22:57:00Z"),
            ("30 3 * * MON-FRI", "2026-11-26T03:30:00Z"),
            ("0 0 1 1 *", "2027-01-01T00:00:00Z"),
            ("@weekly", "2026-11-29T00:00:00Z"),
        ] {
            assert_eq!(next(schedule, from).map(meta::time).as_deref(), Some(want), "{schedule}");
        }
    }
}
