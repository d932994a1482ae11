//! Pods as their controllers make and count them.
use serde_json::{Value, json};

use super::super::cx::{Cx, is_true, owner_ref};
use super::super::text::s;

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

/// Neither ended nor being deleted.
#[must_use]
pub fn is_active(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && !matches!(s(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Condition Ready.
#[must_use]
pub fn is_ready(pod: &Value) -> bool {
    is_true(pod, "Ready") && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Restart policy, `Always` by default.
#[must_use]
pub fn restart_policy(pod: &Value) -> &str {
    match s(pod, "/spec/restartPolicy") {
        "" => "Always",
        p => p,
    }
}
