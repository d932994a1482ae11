//! What a resize of a pod may change: cpu and memory of its containers. Grade: source.
use serde_json::Value;

use super::{Kind, rules};
use crate::kube::store::{Cause, Failure, meta};

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// Takes the resources of `new` into the pod as it was; everything else stays.
#[must_use]
pub fn taken(old: &Value, new: &Value) -> Value {
    let mut out = old.clone();
    for list in LISTS {
        for c in out["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let asked = new["spec"][list].as_array().into_iter().flatten().find(|n| n["name"] == c["name"]);
            if let Some(asked) = asked {
                match asked.get("resources") {
                    Some(r) => c["resources"] = r.clone(),
                    None => c["resources"] = Value::Object(serde_json::Map::new()),
                }
            }
        }
    }
    out
}

/// Checks a resized pod.
///
/// # Errors
/// 422 with every cause.
pub fn check(kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let mut causes = Vec::new();
    for list in LISTS {
        let had = old["spec"][list].as_array().into_iter().flatten();
        let has = new["spec"][list].as_array().into_iter().flatten();
        for (i, (a, b)) in had.zip(has).enumerate() {
            for part in ["limits", "requests"] {
                parts(
                    &format!("spec.{list}[{i}].resources"),
                    part,
                    &a["resources"][part],
                    &b["resources"][part],
                    &mut causes,
                );
            }
        }
    }
    rules::check(kind, new, Some(old), &mut causes);
    let class = super::defaults::quality(new);
    if old["status"]["qosClass"].as_str().is_some_and(|c| c != class) {
        let why = "Pod QOS Class may not change as a result of resizing";
        causes.push(Cause::invalid("spec", &class.into(), why));
    }
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, meta::name(new), &causes)) }
}

fn parts(at: &str, part: &str, had: &Value, has: &Value, out: &mut Vec<Cause>) {
    let forbidden =
        |field: String, why: &str| Cause { reason: "FieldValueForbidden", field, message: format!("Forbidden: {why}") };
    let names = |v: &Value| v.as_object().map(|m| m.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    for name in names(had).into_iter().chain(names(has)) {
        let (a, b) = (had.get(&name), has.get(&name));
        if !matches!(name.as_str(), "cpu" | "memory") && a != b {
            out.push(forbidden("spec".into(), "only cpu and memory resources are mutable"));
            return;
        }
        if a.is_some() && b.is_none() {
            out.push(forbidden(format!("{at}.{part}"), &format!("resource {part} cannot be removed")));
            return;
        }
    }
}
