//! Pods as their controllers make and count them.
use serde_json::{Value, json};

use super::super::cx::{Cx, is_true, owner_ref, set_condition};
use super::super::store::meta::parse_time;
use super::super::text::{arr, s};

/// Makes a pod of `template` for `owner`.
#[must_use]
pub fn of_template(owner: &Value, template: &Value, name: &str, generate: &str, labels: &[(&str, &str)]) -> Value {
    let mut meta = json!({
        "namespace": owner["metadata"]["namespace"],
        "labels": template["metadata"]["labels"],
        "ownerReferences": owner_ref(owner),
    });
    if !name.is_empty() {
        meta["name"] = json!(name);
    }
    if !generate.is_empty() {
        meta["generateName"] = json!(generate);
    }
    if template["metadata"]["annotations"].is_object() {
        meta["annotations"] = template["metadata"]["annotations"].clone();
    }
    for (k, v) in labels {
        meta["labels"][*k] = json!(v);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"], "status": {"phase": "Pending"}})
}

/// Pods that `uid` owns.
#[must_use]
pub fn owned<'a>(cx: &'a Cx, ns: &str, uid: &str) -> Vec<&'a Value> {
    cx.c.store.owned("pods", ns, uid)
}

/// Ended for good.
#[must_use]
pub fn has_ended(pod: &Value) -> bool {
    matches!(s(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Neither ended nor being deleted.
#[must_use]
pub fn is_active(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && !has_ended(pod)
}

/// Says why a pod is about to go.
pub fn disrupted(pod: &mut Value, stamp: &str, reason: &str, why: &str) {
    const TARGET: &str = "DisruptionTarget";
    set_condition(pod, stamp, TARGET, "True", reason, why);
    let generation = pod["metadata"]["generation"].clone();
    for c in pod["status"]["conditions"].as_array_mut().into_iter().flatten().filter(|c| c["type"] == TARGET) {
        c["lastProbeTime"] = Value::Null;
        c["observedGeneration"] = generation.clone();
    }
}

/// Condition Ready.
#[must_use]
pub fn is_ready(pod: &Value) -> bool {
    is_true(pod, "Ready") && pod["metadata"]["deletionTimestamp"].is_null()
}

/// How many milliseconds are left until a pod that is ready has been so for `min_s` seconds; none when it is not ready.
#[must_use]
pub fn until_available(pod: &Value, min_s: u64, now_ms: u64) -> Option<u64> {
    if !is_ready(pod) {
        return None;
    }
    let ready = arr(pod, "/status/conditions").iter().find(|c| c["type"] == "Ready")?;
    let since = parse_time(s(ready, "/lastTransitionTime")).unwrap_or(now_ms);
    Some((since + min_s * 1000).saturating_sub(now_ms))
}

/// How many active pods of an owner are ready, and how many have been so for `min_s` seconds; looks again when the next
/// one will have been.
pub fn counted(cx: &mut Cx, resource: &str, (ns, name): (&str, &str), uid: &str, min_s: u64) -> (i64, i64) {
    let now = cx.now();
    let left: Vec<u64> = owned(cx, ns, uid)
        .into_iter()
        .filter(|p| is_active(p))
        .filter_map(|p| until_available(p, min_s, now))
        .collect();
    if let Some(delay) = left.iter().copied().filter(|ms| *ms > 0).min() {
        cx.look_later(delay, (resource, ns, name));
    }
    (left.len() as i64, left.iter().filter(|ms| **ms == 0).count() as i64)
}

/// Restart policy, `Always` by default.
#[must_use]
pub fn restart_policy(pod: &Value) -> &str {
    match s(pod, "/spec/restartPolicy") {
        "" => "Always",
        p => p,
    }
}
