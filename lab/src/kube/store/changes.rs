//! What a write changes: nothing, a pod's place, a spec.
use serde_json::Value;

use crate::kube::schema::Kind;

/// Equal but for the times in managedFields.
pub(super) fn same(old: &Value, new: &Value) -> bool {
    if old == new {
        return true;
    }
    let without = |v: &Value| {
        let mut v = v.clone();
        for e in v["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
            e.as_object_mut().and_then(|e| e.shift_remove("time"));
        }
        v
    };
    without(old) == without(new)
}

/// Whether a pod has got its node by this write: that is no new generation.
pub(super) fn is_bound(kind: &Kind, old: &Value, new: &Value) -> bool {
    let node = |o: &Value| o["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    kind.group.is_empty() && kind.kind == "Pod" && node(old).is_empty() && !node(new).is_empty()
}

/// Whether anything but metadata and status differs.
pub(super) fn spec_changed(old: &Value, new: &Value) -> bool {
    let (Value::Object(a), Value::Object(b)) = (old, new) else { return false };
    let skip = |k: &str| matches!(k, "metadata" | "status" | "apiVersion" | "kind");
    let count = |m: &serde_json::Map<String, Value>| m.keys().filter(|k| !skip(k)).count();
    count(a) != count(b) || a.iter().any(|(k, v)| !skip(k) && b.get(k) != Some(v))
}
