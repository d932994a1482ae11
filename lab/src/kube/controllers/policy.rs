//! What a Job's failure and success policies say of its pods. Grade: source (pkg/controller/job of kubernetes).
use std::collections::BTreeSet;

use serde_json::Value;

use super::super::text::{arr, s};
use super::status;

/// Action of the first rule of the failure policy that a failed pod matches, and why it does.
pub(super) fn judge<'a>(job: &'a Value, pod: &Value) -> Option<(&'a str, String)> {
    let (ns, name) = (s(pod, "/metadata/namespace"), s(pod, "/metadata/name"));
    for (i, rule) in arr(job, "/spec/podFailurePolicy/rules").iter().enumerate() {
        let action = s(rule, "/action");
        if let Some((container, code)) = exit(rule, pod) {
            let text = format!(
                "Container {container} for pod {ns}/{name} failed with exit code {code} matching {action} rule at index {i}"
            );
            return Some((action, text));
        }
        let held = |c: &Value| {
            let status = if s(c, "/status").is_empty() { "True" } else { s(c, "/status") };
            arr(pod, "/status/conditions").iter().any(|p| p["type"] == c["type"] && p["status"] == status)
        };
        if let Some(c) = arr(rule, "/onPodConditions").iter().find(|c| held(c)) {
            let kind = s(c, "/type");
            return Some((action, format!("Pod {ns}/{name} has condition {kind} matching {action} rule at index {i}")));
        }
    }
    None
}

/// The container whose exit code a rule means, with the code.
fn exit(rule: &Value, pod: &Value) -> Option<(String, i64)> {
    let on = rule.get("onExitCodes").filter(|o| o.is_object())?;
    let only = s(on, "/containerName");
    let means = |code: i64| {
        let listed = arr(on, "/values").iter().any(|v| v.as_i64() == Some(code));
        if s(on, "/operator") == "NotIn" { !listed } else { listed }
    };
    status::statuses(pod).find_map(|st| {
        let code = st["state"]["terminated"]["exitCode"].as_i64().filter(|c| *c != 0)?;
        let name = s(st, "/name");
        ((only.is_empty() || only == name) && means(code)).then(|| (name.to_owned(), code))
    })
}

/// Indexes that a text names (`0-2,5`).
fn named(text: &str) -> Vec<(i64, i64)> {
    let part = |p: &str| {
        let (a, b) = p.split_once('-').unwrap_or((p, p));
        Some((a.trim().parse().ok()?, b.trim().parse().ok()?))
    };
    text.split(',').filter_map(part).collect()
}

/// The rule of the success policy that the completed indexes meet.
pub(super) fn succeeded(job: &Value, done: &BTreeSet<i64>) -> Option<usize> {
    arr(job, "/spec/successPolicy/rules").iter().position(|rule| {
        let ranges = rule["succeededIndexes"].as_str().map(named);
        let within = |i: &&i64| ranges.as_ref().is_none_or(|r| r.iter().any(|(a, b)| (*a..=*b).contains(*i)));
        let count = done.iter().filter(within).count() as i64;
        match (&ranges, rule["succeededCount"].as_i64()) {
            (_, Some(least)) => count >= least,
            (Some(r), None) => count >= r.iter().map(|(a, b)| b - a + 1).sum::<i64>(),
            (None, None) => false,
        }
    })
}
