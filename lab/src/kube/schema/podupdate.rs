//! What of a pod changes: images, a deadline that comes nearer, more tolerations, fewer gates, further ephemeral
//! containers. Grade: source (the validation of the core group).
use serde_json::{Value, json};

use super::rules::forbidden;
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

const REST: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks how a pod changed.
pub(super) fn check(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let (had, has) = (&old["spec"], &new["spec"]);
    ephemeral(had, has, out);
    for list in ["containers", "initContainers"] {
        let (a, b) = (arr(had, &format!("/{list}")), arr(has, &format!("/{list}")));
        if a.len() != b.len() {
            out.push(forbidden(&format!("spec.{list}"), "pod updates may not add or remove containers"));
            return;
        }
        for (i, _) in b.iter().enumerate().filter(|(_, c)| s(c, "/image").trim().is_empty()) {
            out.push(Cause::required(format!("spec.{list}[{i}].image"), ""));
        }
    }
    if !deadline(&had["activeDeadlineSeconds"], &has["activeDeadlineSeconds"], out) {
        return;
    }
    tolerations(arr(had, "/tolerations"), arr(has, "/tolerations"), out);
    gates(arr(had, "/schedulingGates"), arr(has, "/schedulingGates"), out);
    if frozen(had, had) != frozen(has, had) {
        out.push(forbidden("spec", REST));
    }
}

/// A deadline only comes nearer; false when nothing more is looked at.
fn deadline(had: &Value, has: &Value, out: &mut Vec<Cause>) -> bool {
    let why = match (had.as_i64(), has.as_i64()) {
        (_, Some(n)) if !(0..=i64::from(i32::MAX)).contains(&n) => "must be between 0 and 2147483647, inclusive",
        (Some(before), Some(n)) if n > before => "must be less than or equal to previous value",
        (Some(_), None) => {
            let why = "must not update from a positive integer to nil value";
            out.push(Cause::invalid("spec.activeDeadlineSeconds", &Value::Null, why));
            return true;
        }
        _ => return true,
    };
    out.push(Cause::invalid("spec.activeDeadlineSeconds", has, why));
    false
}

fn tolerations(had: &[Value], has: &[Value], out: &mut Vec<Cause>) {
    let same = |a: &Value, b: &Value| {
        let but = |t: &Value| {
            let mut t = t.clone();
            t.as_object_mut().map(|m| m.shift_remove("tolerationSeconds"));
            t
        };
        but(a) == but(b)
    };
    if !had.iter().all(|a| has.iter().any(|b| same(a, b))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        out.push(forbidden("spec.tolerations", why));
    }
}

fn gates(had: &[Value], has: &[Value], out: &mut Vec<Cause>) {
    for (i, g) in has.iter().enumerate().filter(|(_, g)| !had.iter().any(|h| h["name"] == g["name"])) {
        let why = format!("only deletion is allowed, but found new scheduling gate '{}'", s(g, "/name"));
        out.push(forbidden(&format!("spec.schedulingGates[{i}].name"), &why));
    }
}

fn ephemeral(had: &Value, has: &Value, out: &mut Vec<Cause>) {
    let now = arr(has, "/ephemeralContainers");
    for c in arr(had, "/ephemeralContainers") {
        let how = match now.iter().find(|n| n["name"] == c["name"]) {
            Some(n) if n == c => continue,
            Some(_) => "changed",
            None => "removed",
        };
        let why = format!("existing ephemeral containers {} may not be {how}\n", c["name"]);
        out.push(forbidden("spec.ephemeralContainers", &why));
    }
}

/// What of a pod's spec never changes, seen from what it was.
fn frozen(spec: &Value, was: &Value) -> Value {
    let mut spec = spec.clone();
    let Some(m) = spec.as_object_mut() else { return spec };
    for list in ["containers", "initContainers"] {
        for c in m.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            c["image"] = Value::Null;
        }
    }
    for free in ["activeDeadlineSeconds", "tolerations", "schedulingGates", "ephemeralContainers"] {
        m.shift_remove(free);
    }
    if was["terminationGracePeriodSeconds"].as_i64().is_some_and(|n| n < 0)
        && m.get("terminationGracePeriodSeconds") == Some(&json!(1))
    {
        m.insert("terminationGracePeriodSeconds".into(), was["terminationGracePeriodSeconds"].clone());
    }
    // before the gates are open nobody has looked where the pod may go
    if !arr(was, "/schedulingGates").is_empty() {
        m.shift_remove("affinity");
        if let Some(kept) = was["nodeSelector"].as_object()
            && let Some(own) = m.get_mut("nodeSelector").and_then(Value::as_object_mut)
        {
            own.retain(|k, _| kept.contains_key(k));
        } else if was["nodeSelector"].is_null() {
            m.shift_remove("nodeSelector");
        }
    }
    spec
}
