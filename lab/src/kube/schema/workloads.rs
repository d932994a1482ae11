//! Rules of workloads: selectors, strategies, numbers that are not negative, what of them never changes. Grade: source
//! (the validation packages of kube-apiserver).
use serde_json::{Value, json};

use super::rules::{LEAST, forbidden, one_of};
use super::validate::{annotations, judged, labels, selector};
use super::{names, podspec};
use crate::kube::store::{Cause, Labels};
use crate::kube::text::{arr, s};

/// Numbers that may not be negative.
pub(super) fn counted(spec: &Value, at: &str, fields: &[&str], out: &mut Vec<Cause>) {
    for f in fields.iter().filter(|f| spec[**f].as_i64().is_some_and(|n| n < 0)) {
        let place = if at.is_empty() { (*f).to_owned() } else { format!("{at}.{f}") };
        out.push(Cause::invalid(place, &spec[*f], LEAST));
    }
}

/// Checks the spec of a ReplicationController, whose selector is a map.
pub(super) fn replication(spec: &Value, out: &mut Vec<Cause>) {
    let empty = |v: &Value| v.as_object().is_none_or(serde_json::Map::is_empty);
    if empty(&spec["selector"]) {
        out.push(Cause::required("spec.selector", ""));
    }
    if !spec["template"].is_object() {
        out.push(Cause::required("spec.template", ""));
        return;
    }
    let mut like = spec.clone();
    like["selector"] = if empty(&spec["selector"]) { Value::Null } else { json!({"matchLabels": spec["selector"]}) };
    check("ReplicaSet", &like, false, out);
}

/// A number or a percentage, of which `most` is not more than all.
pub(super) fn share(v: &Value, at: &str, most: bool, out: &mut Vec<Cause>) {
    if v.as_i64().is_some_and(|n| n < 0) {
        out.push(Cause::invalid(at, v, LEAST));
    }
    if v.as_str().is_some_and(|t| percent(t).is_none()) {
        let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
        out.push(Cause::invalid(at, v, why));
    }
    if most {
        whole(v, at, out);
    }
}

/// A percentage of not more than all.
fn whole(v: &Value, at: &str, out: &mut Vec<Cause>) {
    if v.as_str().and_then(percent).is_some_and(|n| n > 100) {
        out.push(Cause::invalid(at, v, "must not be greater than 100%"));
    }
}

fn percent(text: &str) -> Option<u64> {
    text.strip_suffix('%').filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

fn none(v: &Value) -> bool {
    v.is_null() || v == &json!(0) || v.as_str().is_some_and(|t| percent(t).is_none_or(|n| n == 0))
}

/// Checks the spec of a workload with a pod template, in the order of its kind's own validation.
pub(super) fn check(kind: &str, spec: &Value, old: bool, out: &mut Vec<Cause>) {
    match kind {
        "Deployment" => {
            counted(spec, "spec", &["replicas"], out);
            selected(spec, "deployment", "invalid label selector", out);
            template("ReplicaSet", spec, out);
            deployment(spec, out);
        }
        "ReplicaSet" => {
            counted(spec, "spec", &["replicas", "minReadySeconds"], out);
            // its text tells of Deployments
            selected(spec, "deployment", "invalid label selector", out);
            template(kind, spec, out);
        }
        "StatefulSet" => {
            stateful(spec, old, out);
            selected(spec, "statefulset", "", out);
            template(kind, spec, out);
        }
        _ => {
            daemon_selector(spec, out);
            template(kind, spec, out);
            counted(spec, "spec", &["minReadySeconds"], out);
            daemon(spec, out);
            counted(spec, "spec", &["revisionHistoryLimit"], out);
        }
    }
}

fn empty(selector: &Value) -> bool {
    let none = |v: &Value| match v {
        Value::Object(m) => m.is_empty(),
        Value::Array(a) => a.is_empty(),
        _ => true,
    };
    none(&selector["matchLabels"]) && none(&selector["matchExpressions"])
}

/// Checks a selector that has to be there and to select something.
fn selected(spec: &Value, of: &str, unread: &str, out: &mut Vec<Cause>) {
    let (own, at) = (&spec["selector"], "spec.selector");
    if !own.is_object() {
        out.push(Cause::required(at, ""));
        return;
    }
    let before = out.len();
    selector(own, at, out);
    if out.len() > before {
        out.push(Cause::invalid(at, own, unread));
    } else if empty(own) {
        out.push(Cause::invalid(at, own, &format!("empty selector is invalid for {of}")));
    }
}

fn daemon_selector(spec: &Value, out: &mut Vec<Cause>) {
    let (own, at) = (&spec["selector"], "spec.selector");
    selector(own, at, out);
    mismatch(spec, "spec", out);
    if own.is_object() && empty(own) {
        out.push(Cause::invalid(at, own, "empty selector is invalid for daemonset"));
    }
}

/// The template has the labels that the selector asks for; no selector selects nothing.
pub(super) fn mismatch(spec: &Value, at: &str, out: &mut Vec<Cause>) {
    let (own, template) = (&spec["selector"], &spec["template"]);
    let mut wrong = Vec::new();
    selector(own, "", &mut wrong);
    let fits = own.is_object() && Labels::from_spec(own).matches(template);
    if wrong.is_empty() && !fits {
        let why = "`selector` does not match template `labels`";
        out.push(Cause::invalid(format!("{at}.template.metadata.labels"), &template["metadata"]["labels"], why));
    }
}

/// Checks the template of pods that run for ever.
fn template(kind: &str, spec: &Value, out: &mut Vec<Cause>) {
    let mut wrong = Vec::new();
    selector(&spec["selector"], "", &mut wrong);
    if kind != "DaemonSet" {
        if !wrong.is_empty() {
            return;
        }
        if !spec["selector"].is_object() || !empty(&spec["selector"]) {
            mismatch(spec, "spec", out);
        }
    }
    let claims: Vec<&str> =
        arr(spec, "/volumeClaimTemplates").iter().filter_map(|c| c["metadata"]["name"].as_str()).collect();
    pods(&spec["template"], "spec.template", &claims, out);
    let (pod, at) = (&spec["template"]["spec"], "spec.template.spec");
    if pod["restartPolicy"].as_str().is_some_and(|p| p != "Always") {
        let always = ["Always".to_owned()];
        out.push(Cause::unsupported(format!("{at}.restartPolicy"), &pod["restartPolicy"], &always));
    }
    if !pod["activeDeadlineSeconds"].is_null() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        out.push(forbidden(&format!("{at}.activeDeadlineSeconds"), &why));
    }
}

/// Checks a template of pods.
pub(super) fn pods(template: &Value, at: &str, claims: &[&str], out: &mut Vec<Cause>) {
    labels(&template["metadata"]["labels"], &format!("{at}.labels"), out);
    annotations(&template["metadata"]["annotations"], &format!("{at}.annotations"), out);
    let spec = &template["spec"];
    podspec::check(spec, &format!("{at}.spec"), claims, out);
    if !arr(spec, "/ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        out.push(forbidden(&format!("{at}.spec.ephemeralContainers"), why));
    }
}

fn daemon(spec: &Value, out: &mut Vec<Cause>) {
    let (strategy, at) = (&spec["updateStrategy"], "spec.updateStrategy.rollingUpdate");
    let update = &strategy["rollingUpdate"];
    match s(strategy, "/type") {
        "OnDelete" => return,
        "RollingUpdate" => {}
        other => {
            let shown = json!({"Type": other, "RollingUpdate": update});
            let known = ["RollingUpdate".to_owned(), "OnDelete".to_owned()];
            out.push(Cause::unsupported("spec.updateStrategy", &shown, &known));
            return;
        }
    }
    share(&update["maxUnavailable"], &format!("{at}.maxUnavailable"), true, out);
    share(&update["maxSurge"], &format!("{at}.maxSurge"), true, out);
    match (none(&update["maxUnavailable"]), none(&update["maxSurge"])) {
        (true, true) => out.push(Cause::required(format!("{at}.maxUnavailable"), "cannot be 0 when maxSurge is 0")),
        (false, false) => {
            let why = "may not be set when maxUnavailable is non-zero";
            out.push(Cause::invalid(format!("{at}.maxSurge"), &update["maxSurge"], why));
        }
        _ => {}
    }
}

fn deployment(spec: &Value, out: &mut Vec<Cause>) {
    let (strategy, at) = (&spec["strategy"], "spec.strategy.rollingUpdate");
    let update = &strategy["rollingUpdate"];
    match s(strategy, "/type") {
        "Recreate" if !update.is_null() => {
            out.push(forbidden(at, "may not be specified when strategy `type` is 'Recreate'"));
        }
        "RollingUpdate" => {
            let part = |f: &str| format!("{at}.{f}");
            share(&update["maxUnavailable"], &part("maxUnavailable"), false, out);
            share(&update["maxSurge"], &part("maxSurge"), false, out);
            if none(&update["maxUnavailable"]) && none(&update["maxSurge"]) {
                let why = "may not be 0 when `maxSurge` is 0";
                out.push(Cause::invalid(part("maxUnavailable"), &update["maxUnavailable"], why));
            }
            whole(&update["maxUnavailable"], &part("maxUnavailable"), out);
        }
        "Recreate" => {}
        other => {
            let shown = json!({"Type": other, "RollingUpdate": update});
            out.push(Cause::unsupported("spec.strategy", &shown, &["Recreate".to_owned(), "RollingUpdate".to_owned()]));
        }
    }
    counted(spec, "spec", &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], out);
    let deadline = &spec["progressDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|d| d <= spec["minReadySeconds"].as_i64().unwrap_or(0)) {
        out.push(Cause::invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"));
    }
}

fn stateful(spec: &Value, old: bool, out: &mut Vec<Cause>) {
    if !matches!(s(spec, "/podManagementPolicy"), "" | "OrderedReady" | "Parallel") {
        let why = "must be 'OrderedReady' or 'Parallel'";
        out.push(Cause::invalid("spec.podManagementPolicy", &spec["podManagementPolicy"], why));
    }
    let (update, at) = (&spec["updateStrategy"]["rollingUpdate"], "spec.updateStrategy");
    let shown = match update.is_object() {
        true => json!({"Partition": update["partition"], "MaxUnavailable": update["maxUnavailable"]}),
        false => Value::Null,
    };
    match s(spec, "/updateStrategy/type") {
        "" => {}
        "RollingUpdate" => counted(update, &format!("{at}.rollingUpdate"), &["partition"], out),
        "OnDelete" if !update.is_null() => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            out.push(Cause::invalid(format!("{at}.rollingUpdate"), &shown, why));
        }
        "OnDelete" => {}
        other => {
            let shown = json!({"Type": other, "RollingUpdate": shown});
            out.push(Cause::invalid(at, &shown, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
    let policy = &spec["persistentVolumeClaimRetentionPolicy"];
    for f in ["whenDeleted", "whenScaled"] {
        let at = format!("spec.persistentVolumeClaimRetentionPolicy.{f}");
        one_of(at, &policy[f], &["Retain", "Delete"], out);
    }
    for (i, c) in arr(spec, "/volumeClaimTemplates").iter().enumerate().filter(|_| !old) {
        let at = format!("spec.volumeClaimTemplates[{i}].spec");
        if arr(c, "/spec/accessModes").is_empty() {
            out.push(Cause::required(format!("{at}.accessModes"), "at least 1 access mode is required"));
        }
        if c["spec"]["resources"]["requests"]["storage"].is_null() {
            out.push(Cause::required(format!("{at}.resources[storage]"), ""));
        }
    }
    counted(spec, "spec", &["replicas", "minReadySeconds"], out);
    counted(&spec["ordinals"], "spec.ordinals", &["start"], out);
    match s(spec, "/serviceName") {
        "" => {}
        _ if old => {}
        name => judged("spec.serviceName", name, names::label, out),
    }
}

/// What of a StatefulSet's spec may change.
const FREE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Refuses changes of a StatefulSet's spec beside those that may be.
pub(super) fn stateful_update(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let rest = |o: &Value| {
        let mut spec = o["spec"].clone();
        if let Some(m) = spec.as_object_mut() {
            m.retain(|k, v| !FREE.contains(&k.as_str()) && !v.is_null());
        }
        spec
    };
    if rest(old) != rest(new) {
        out.push(forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
    }
}

/// Checks a PodDisruptionBudget.
pub(super) fn budget(spec: &Value, out: &mut Vec<Cause>) {
    let (least, most) = (&spec["minAvailable"], &spec["maxUnavailable"]);
    if !least.is_null() && !most.is_null() {
        let shown = json!({"MinAvailable": least, "Selector": spec["selector"], "MaxUnavailable": most,
            "UnhealthyPodEvictionPolicy": spec["unhealthyPodEvictionPolicy"]});
        out.push(Cause::invalid("spec", &shown, "minAvailable and maxUnavailable cannot be both set"));
    }
    share(least, "spec.minAvailable", true, out);
    share(most, "spec.maxUnavailable", true, out);
    if spec["selector"].is_object() {
        selector(&spec["selector"], "spec.selector", out);
    }
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    one_of("spec.unhealthyPodEvictionPolicy".into(), &spec["unhealthyPodEvictionPolicy"], &policies, out);
}
