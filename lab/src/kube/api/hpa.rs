//! autoscaling/v1 on top of autoscaling/v2: the one target of the old form is a metric of the new one.
use serde_json::{Value, json};

use crate::kube::schema::Kind;

/// Whether the path names the old form.
#[must_use]
pub fn old(kind: &Kind) -> bool {
    kind.group == "autoscaling" && kind.version == "v1" && kind.plural == "horizontalpodautoscalers"
}

/// The new form of an object in the old one.
pub fn raise(o: &mut Value) {
    o["apiVersion"] = json!("autoscaling/v2");
    raise_patch(o);
}

/// The new form of a part of an object.
pub fn raise_patch(o: &mut Value) {
    if o.get("apiVersion").is_some_and(|v| v == "autoscaling/v1") {
        o["apiVersion"] = json!("autoscaling/v2");
    }
    let Some(spec) = o.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(target) = spec.shift_remove("targetCPUUtilizationPercentage").filter(|t| !t.is_null()) {
        let target = json!({"type": "Utilization", "averageUtilization": target});
        spec.insert("metrics".into(), json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
}

/// The old form of an object, or of the items of a list; anything else stays as it is.
pub fn lower(o: &mut Value) {
    for item in o.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        lower(item);
    }
    if o["apiVersion"] == "autoscaling/v2" {
        o["apiVersion"] = json!("autoscaling/v1");
    }
    let Some(spec) = o.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let metrics = spec.shift_remove("metrics").unwrap_or_default();
    let cpu = metrics.as_array().into_iter().flatten().find(|m| m["resource"]["name"] == "cpu");
    if let Some(n) = cpu.map(|m| m["resource"]["target"]["averageUtilization"].clone()).filter(|n| !n.is_null()) {
        spec.insert("targetCPUUtilizationPercentage".into(), n);
    }
    if let Some(status) = o.get_mut("status").and_then(Value::as_object_mut) {
        status.shift_remove("currentMetrics");
        status.entry("currentReplicas").or_insert(json!(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_goes_there_and_back() {
        let old =
            json!({"apiVersion": "autoscaling/v1", "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 80}});
        let mut o = old.clone();
        raise(&mut o);
        assert_eq!(o["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        lower(&mut o);
        assert_eq!(o, old);
    }
}
