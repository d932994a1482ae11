//! What the published schema of a built-in type says beyond what the lab itself checks. Grade: recorded (kube-apiserver 1.36.2).
use serde_json::{Value, json};

use super::words;
use crate::kube::schema::builtin;

/// Types whose `name` may be left out: it is `""` then.
const NAMELESS: &[&str] = &[
    "ConfigMapEnvSource",
    "ConfigMapKeySelector",
    "ConfigMapProjection",
    "ConfigMapVolumeSource",
    "LocalObjectReference",
    "SecretEnvSource",
    "SecretKeySelector",
    "SecretProjection",
];

/// Other fields that Go writes always and nobody has to send: type and field.
const OPTIONAL: &[(&str, &str)] = &[("PodFailurePolicyOnPodConditionsPattern", "status"), ("RoleRef", "apiGroup")];

/// Fields that have to be sent, though the type can do without: type and field.
const NEEDED: &[(&str, &str)] = &[
    ("CronJob", "spec"),
    ("HorizontalPodAutoscaler", "spec"),
    ("IPAddress", "spec"),
    ("ValidatingAdmissionPolicyBinding", "spec"),
    ("ValidatingAdmissionPolicyBindingSpec", "policyName"),
    ("ValidatingAdmissionPolicyBindingSpec", "validationActions"),
];

/// A built-in type as it is published.
pub(super) fn of(name: &str, mut def: Value) -> Value {
    let short = name.rsplit('.').next().unwrap_or(name);
    let optional = |field: &str| match field {
        "metadata" => short != "Event",
        "name" => NAMELESS.contains(&short),
        _ => OPTIONAL.contains(&(short, field)),
    };
    let mut required: Vec<Value> = def["required"].as_array().cloned().unwrap_or_default();
    required.retain(|r| !r.as_str().is_some_and(optional));
    required.extend(NEEDED.iter().filter(|(t, _)| *t == short).map(|(_, f)| (*f).into()));
    if let Some(m) = def.as_object_mut() {
        m.shift_remove("required");
        if !required.is_empty() {
            m.insert("required".into(), required.into());
        }
    }
    words::list(name, &mut def);
    def
}

/// Gives the schema of a custom kind what every object has.
pub(super) fn with_what_all_have(schema: &mut Value) {
    let all = builtin::definition("io.k8s.api.core.v1.ConfigMap").map_or(&Value::Null, |d| &d["properties"]);
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    for field in ["apiVersion", "kind", "metadata"] {
        schema["properties"][field] = all[field].clone();
    }
}
