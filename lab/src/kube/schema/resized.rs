//! What a resize of a pod may change: cpu and memory of its containers. Grade: source.
use serde_json::Value;

use super::{Kind, rules};
use crate::kube::store::{Cause, Failure, meta};
use crate::kube::text::arr;

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
                match asked.get("resizePolicy") {
                    Some(p) => c["resizePolicy"] = p.clone(),
                    None => drop(c.as_object_mut().and_then(|m| m.shift_remove("resizePolicy"))),
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
    rules::check(kind, new, Some(old), &mut causes);
    let class = old["status"]["qosClass"].as_str().unwrap_or_default();
    if !class.is_empty() && class != super::defaults::quality(new) {
        let why = "Pod QOS Class may not change as a result of resizing";
        causes.push(Cause::invalid("spec", &class.into(), why));
    }
    let pairs = |list: &'static str| {
        let of = |o: &'_ Value| arr(&o["spec"], &format!("/{list}")).to_vec();
        of(old).into_iter().zip(of(new)).enumerate()
    };
    for list in ["initContainers", "containers"] {
        for (i, (a, b)) in pairs(list) {
            for part in ["requests", "limits"] {
                let had = a["resources"][part].as_object().into_iter().flatten();
                if had.into_iter().any(|(k, _)| b["resources"][part][k].is_null()) {
                    let at = format!("spec.{list}[{i}].resources.{part}");
                    causes.push(rules::forbidden(&at, &format!("resource {part} cannot be removed")));
                }
            }
        }
    }
    for _ in pairs("containers").filter(|(_, (a, b))| fixed(a) != fixed(b)) {
        causes.push(rules::forbidden("spec", "only cpu and memory resources are mutable"));
    }
    for (i, (a, b)) in pairs("initContainers") {
        if fixed(&a) != fixed(&b) {
            let why = "only cpu and memory resources for init or sidecar containers are mutable";
            causes.push(rules::forbidden(&format!("spec.initContainers[{i}]"), why));
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, meta::name(new), &causes)) }
}

/// What of a container a resize leaves alone.
fn fixed(c: &Value) -> Value {
    let mut c = c.clone();
    for part in ["requests", "limits"] {
        if let Some(m) = c["resources"].get_mut(part).and_then(Value::as_object_mut) {
            m.retain(|k, _| !matches!(k.as_str(), "cpu" | "memory"));
            if m.is_empty() {
                c["resources"].as_object_mut().map(|r| r.shift_remove(part));
            }
        }
    }
    c
}
