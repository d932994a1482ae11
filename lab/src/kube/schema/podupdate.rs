//! What of a pod changes: images, a deadline that comes nearer, more tolerations, fewer gates, further ephemeral
//! containers. Grade: source (the validation of the core group).
use serde_json::Value;

use super::goshape;
use super::rules::forbidden;
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

const REST: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks how a pod changed.
pub(super) fn check(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let (had, has) = (&old["spec"], &new["spec"]);
    for list in ["containers", "initContainers"] {
        let (a, b) = (arr(had, &format!("/{list}")), arr(has, &format!("/{list}")));
        if a.len() != b.len() {
            out.push(forbidden(&format!("spec.{list}"), "pod updates may not add or remove containers"));
            return;
        }
        for (i, image) in b.iter().map(|c| s(c, "/image")).enumerate() {
            let at = format!("spec.{list}[{i}].image");
            if image.is_empty() {
                out.push(Cause::required(at.as_str(), ""));
            }
            if image.trim() != image {
                out.push(Cause::invalid(at, &image.into(), "must not have leading or trailing whitespace"));
            }
        }
    }
    if !deadline(&had["activeDeadlineSeconds"], &has["activeDeadlineSeconds"], out) {
        return;
    }
    tolerations(arr(had, "/tolerations"), arr(has, "/tolerations"), out);
    gates(arr(had, "/schedulingGates"), arr(has, "/schedulingGates"), out);
    let now = munged(has, had, out);
    if goshape::shaped("PodSpec", had) != goshape::shaped("PodSpec", &now) {
        out.push(forbidden("spec", &format!("{REST}\n{}", goshape::difference("PodSpec", had, &now))));
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

/// Refuses to change or remove ephemeral containers that are there.
pub(super) fn ephemeral(had: &Value, has: &Value, out: &mut Vec<Cause>) {
    let now = arr(has, "/ephemeralContainers");
    for c in arr(had, "/ephemeralContainers") {
        let how = match now.iter().find(|n| n["name"] == c["name"]) {
            Some(n) if n == c => continue,
            Some(n) => format!("changed\n{}", goshape::difference("EphemeralContainer", c, n)),
            None => "removed\n".to_owned(),
        };
        let why = format!("existing ephemeral containers {} may not be {how}", c["name"]);
        out.push(forbidden("spec.ephemeralContainers", &why));
    }
}

/// A changed spec without the changes that are allowed; others are told of.
fn munged(spec: &Value, was: &Value, out: &mut Vec<Cause>) -> Value {
    let mut spec = spec.clone();
    for list in ["containers", "initContainers"] {
        let had = arr(was, &format!("/{list}"));
        let now = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        now.zip(had).for_each(|(c, h)| c["image"] = h["image"].clone());
    }
    let mut keep = |f: &str| spec[f] = was[f].clone();
    ["activeDeadlineSeconds", "tolerations", "schedulingGates"].into_iter().for_each(&mut keep);
    let grace = "terminationGracePeriodSeconds";
    if was[grace].as_i64().is_some_and(|n| n < 0) && spec[grace] == 1 {
        spec[grace] = was[grace].clone();
    }
    // before the gates are open nobody has looked where the pod may go
    if !arr(was, "/schedulingGates").is_empty() {
        selected(&mut spec, was, out);
        near(&mut spec, was, out);
    }
    spec
}

fn selected(spec: &mut Value, was: &Value, out: &mut Vec<Cause>) {
    let had = was["nodeSelector"].as_object();
    if had.into_iter().flatten().any(|(k, v)| spec["nodeSelector"].get(k) != Some(v)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        out.push(Cause::invalid("spec.nodeSelector", &spec["nodeSelector"], why));
    }
    spec["nodeSelector"] = was["nodeSelector"].clone();
}

/// The nodes that a gated pod may go to only become fewer.
fn near(spec: &mut Value, was: &Value, out: &mut Vec<Cause>) {
    const TERMS: &str = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let at = format!("spec{}", TERMS.replace('/', "."));
    let (had, has) = (arr(was, TERMS), arr(spec, TERMS));
    if !had.is_empty() && had.len() != has.len() {
        let shown: Vec<Value> = has.iter().map(|t| goshape::shaped("NodeSelectorTerm", t)).collect();
        let shown = if shown.is_empty() { Value::Null } else { shown.into() };
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        out.push(Cause::invalid(at, &shown, why));
    } else {
        for (i, (a, b)) in had.iter().zip(has).enumerate() {
            let lost = |p: &str| arr(a, p).iter().any(|e| !arr(b, p).contains(e));
            if lost("/matchExpressions") || lost("/matchFields") {
                let why = "only additions are allowed (no mutations or deletions)";
                out.push(Cause::invalid(format!("{at}[{i}]"), &goshape::shaped("NodeSelectorTerm", b), why));
            }
        }
    }
    let own = was["affinity"]["nodeAffinity"].clone();
    let others = ["podAffinity", "podAntiAffinity"].iter().any(|f| !spec["affinity"][*f].is_null());
    if was["affinity"].is_null() && !others {
        spec["affinity"] = Value::Null;
    } else if !(own.is_null() && spec["affinity"].is_null()) {
        spec["affinity"]["nodeAffinity"] = own;
    }
}
