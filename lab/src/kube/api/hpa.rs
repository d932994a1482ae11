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
    let (cpu, other): (Vec<&Value>, Vec<&Value>) = metrics.as_array().into_iter().flatten().partition(|m| of_cpu(m));
    if let Some(m) = cpu.first() {
        spec.insert("targetCPUUtilizationPercentage".into(), m["resource"]["target"]["averageUtilization"].clone());
    }
    let mut notes = Vec::new();
    if !other.is_empty() {
        notes.push(("metrics", other.into_iter().map(|m| flat(m, "target", "target")).collect::<Value>()));
    }
    if let Some(behavior) = spec.shift_remove("behavior") {
        notes.push(("behavior", inside(&behavior)));
    }
    if let Some(status) = o.get_mut("status").and_then(Value::as_object_mut) {
        let current = status.shift_remove("currentMetrics").unwrap_or_default();
        let current: Vec<&Value> = current.as_array().into_iter().flatten().collect();
        let used = current.iter().find(|m| m["resource"]["name"] == "cpu");
        if let Some(n) = used.map(|m| &m["resource"]["current"]["averageUtilization"]).filter(|n| !n.is_null()) {
            status.insert("currentCPUUtilizationPercentage".into(), n.clone());
        }
        if !current.is_empty() {
            notes.push(("current-metrics", current.into_iter().map(|m| flat(m, "current", "current")).collect()));
        }
        if let Some(conditions) =
            status.shift_remove("conditions").filter(|c| c.as_array().is_some_and(|c| !c.is_empty()))
        {
            notes.push(("conditions", conditions));
        }
        status.entry("currentReplicas").or_insert(json!(0));
    }
    for (k, v) in notes {
        o["metadata"]["annotations"][format!("{NOTES}{k}")] = v.to_string().into();
    }
}

/// Where the old form keeps what it has no fields for.
const NOTES: &str = "autoscaling.alpha.kubernetes.io/";

/// The one metric that the old form has a field for.
fn of_cpu(m: &Value) -> bool {
    m["type"] == "Resource"
        && m["resource"]["name"] == "cpu"
        && !m["resource"]["target"]["averageUtilization"].is_null()
}

/// A metric with the parts of its target, or of what it is now, as fields of its own.
fn flat(m: &Value, part: &str, prefix: &str) -> Value {
    let mut out = json!({"type": m["type"]});
    for (source, of) in m.as_object().into_iter().flatten().filter(|(k, _)| *k != "type") {
        let mut old = of.clone();
        let Some(fields) = old.as_object_mut() else { continue };
        let target = fields.shift_remove(part).unwrap_or_default();
        if let Some(metric) = fields.shift_remove("metric") {
            fields.insert("metricName".into(), metric["name"].clone());
        }
        for (k, v) in target.as_object().into_iter().flatten().filter(|(k, _)| *k != "type") {
            fields.insert(format!("{prefix}{}{}", k[..1].to_uppercase(), &k[1..]), v.clone());
        }
        out[source] = old;
    }
    out
}

/// A value with the names that the server has for its fields inside.
fn inside(v: &Value) -> Value {
    match v {
        Value::Object(m) => m
            .iter()
            .map(|(k, v)| (k[..1].to_uppercase() + &k[1..], inside(v)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(a) => a.iter().map(inside).collect(),
        v => v.clone(),
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
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let mut o =
            json!({"metadata": {}, "spec": {"metrics": [memory], "behavior": {"scaleUp": {"selectPolicy": "Max"}}}});
        lower(&mut o);
        let notes = &o["metadata"]["annotations"];
        assert_eq!(
            notes["autoscaling.alpha.kubernetes.io/metrics"],
            r#"[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}}]"#
        );
        assert_eq!(notes["autoscaling.alpha.kubernetes.io/behavior"], r#"{"ScaleUp":{"SelectPolicy":"Max"}}"#);
    }
}
