//! What the API server warns of in objects that it takes. Grade: source (pkg/api/pod/warnings.go).
use serde_json::Value;

use super::Kind;
use crate::kube::text::arr;

/// Where a kind has the spec of its pods.
fn path(kind: &Kind) -> Option<&'static str> {
    match kind.kind.as_str() {
        _ if kind.custom => None,
        "Pod" => Some("spec"),
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job" => Some("spec.template.spec"),
        "CronJob" => Some("spec.jobTemplate.spec.template.spec"),
        _ => None,
    }
}

/// The spec of an object's pods.
#[must_use]
pub fn pod_spec<'a>(kind: &Kind, obj: &'a Value) -> Option<&'a Value> {
    obj.pointer(&format!("/{}", path(kind)?.replace('.', "/")))
}

/// The warnings of an object.
#[must_use]
pub fn of(kind: &Kind, obj: &Value) -> Vec<String> {
    let (Some(at), Some(spec)) = (path(kind), pod_spec(kind, obj)) else { return Vec::new() };
    let mut out = Vec::new();
    for list in ["initContainers", "containers"] {
        for (i, c) in arr(spec, &format!("/{list}")).iter().enumerate() {
            let env = arr(c, "/env");
            for (j, e) in env.iter().enumerate().filter(|(j, e)| env[..*j].iter().any(|x| x["name"] == e["name"])) {
                out.push(format!(
                    "{at}.{list}[{i}].env[{j}]: hides previous definition of {}, which may be dropped when using apply",
                    e["name"]
                ));
            }
        }
    }
    out
}
