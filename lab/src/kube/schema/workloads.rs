//! Rules of workloads: selectors, strategies, numbers that are not negative, what of them never changes. Grade: source
//! (the validation packages of kube-apiserver).
use serde_json::{Value, json};

use super::defaults::tidy;
use super::podspec;
use super::rules::{LEAST, forbidden, one_of};
use super::validate::{annotations, labels, selector};
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
    check("ReplicaSet", &like, "spec", out);
}

/// A number or a percentage.
pub(super) fn share(v: &Value, at: &str, whole: bool, out: &mut Vec<Cause>) {
    if v.as_i64().is_some_and(|n| n < 0) {
        out.push(Cause::invalid(at, v, LEAST));
    }
    let Some(text) = v.as_str() else { return };
    match text.strip_suffix('%').map(|n| n.bytes().all(|b| b.is_ascii_digit()).then(|| n.parse::<u64>().ok())) {
        Some(Some(Some(n))) if n > 100 && whole => out.push(Cause::invalid(at, v, "must not be greater than 100%")),
        Some(Some(Some(_))) => {}
        _ => {
            let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            out.push(Cause::invalid(at, v, why));
        }
    }
}

fn none(v: &Value) -> bool {
    v == &json!(0) || v == "0%"
}

/// Checks the spec of a workload with a pod template, which is at `at`.
pub(super) fn check(kind: &str, spec: &Value, at: &str, out: &mut Vec<Cause>) {
    let fields =
        ["replicas", "parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"];
    counted(spec, at, &fields, out);
    if spec["selector"].is_object() {
        selector(&spec["selector"], &format!("{at}.selector"), out);
        let empty = |f: &str| match &spec["selector"][f] {
            Value::Object(m) => m.is_empty(),
            Value::Array(a) => a.is_empty(),
            _ => true,
        };
        if kind != "Job" && empty("matchLabels") && empty("matchExpressions") {
            let why = format!("empty selector is invalid for {}", kind.to_lowercase());
            out.push(Cause::invalid(format!("{at}.selector"), &spec["selector"], &why));
        }
    }
    template(kind, spec, at, out);
    strategy(kind, spec, at, out);
    counted(spec, at, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], out);
}

/// Checks the template of a workload's pods.
fn template(kind: &str, spec: &Value, at: &str, out: &mut Vec<Cause>) {
    let (template, at) = (&spec["template"], format!("{at}.template"));
    if !Labels::from_spec(&spec["selector"]).matches(template) {
        let why = "`selector` does not match template `labels`";
        out.push(Cause::invalid(format!("{at}.metadata.labels"), &template["metadata"]["labels"], why));
    }
    labels(&template["metadata"]["labels"], &format!("{at}.labels"), out);
    annotations(&template["metadata"]["annotations"], &format!("{at}.annotations"), out);
    let claims: Vec<&str> =
        arr(spec, "/volumeClaimTemplates").iter().filter_map(|c| c["metadata"]["name"].as_str()).collect();
    podspec::check(&template["spec"], &format!("{at}.spec"), &claims, out);
    let (policy, at) = (&template["spec"]["restartPolicy"], format!("{at}.spec.restartPolicy"));
    match policy.as_str() {
        Some("OnFailure" | "Never") if kind == "Job" => {}
        Some(_) if kind == "Job" => out.push(Cause::required(at, "valid values: \"OnFailure\", \"Never\"")),
        Some(p) if p != "Always" => out.push(Cause::unsupported(at, policy, &["Always".to_owned()])),
        _ => {}
    }
}

fn strategy(kind: &str, spec: &Value, at: &str, out: &mut Vec<Cause>) {
    match kind {
        "Deployment" => deployment(spec, out),
        "StatefulSet" => stateful(spec, out),
        "DaemonSet" => {
            let update = &spec["updateStrategy"]["rollingUpdate"];
            one_of("spec.updateStrategy".into(), &spec["updateStrategy"]["type"], &["RollingUpdate", "OnDelete"], out);
            let at = "spec.updateStrategy.rollingUpdate";
            share(&update["maxUnavailable"], &format!("{at}.maxUnavailable"), true, out);
            share(&update["maxSurge"], &format!("{at}.maxSurge"), true, out);
            if none(&update["maxUnavailable"]) && none(&update["maxSurge"]) {
                out.push(Cause::required(format!("{at}.maxUnavailable"), "cannot be 0 when maxSurge is 0"));
            }
            if [&update["maxUnavailable"], &update["maxSurge"]].iter().all(|v| !v.is_null() && !none(v)) {
                let why = "may not be set when maxUnavailable is non-zero";
                out.push(Cause::invalid(format!("{at}.maxSurge"), &update["maxSurge"], why));
            }
        }
        "Job" => {
            one_of(format!("{at}.completionMode"), &spec["completionMode"], &["Indexed", "NonIndexed"], out);
            if spec["completionMode"] == "Indexed" && spec["completions"].is_null() {
                out.push(Cause::required(format!("{at}.completions"), "when completion mode is Indexed"));
            }
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
            share(&update["maxUnavailable"], &format!("{at}.maxUnavailable"), true, out);
            share(&update["maxSurge"], &format!("{at}.maxSurge"), false, out);
            if none(&update["maxUnavailable"]) && none(&update["maxSurge"]) {
                let why = "may not be 0 when `maxSurge` is 0";
                out.push(Cause::invalid(format!("{at}.maxUnavailable"), &update["maxUnavailable"], why));
            }
        }
        "Recreate" => {}
        other => {
            let shown = json!({"Type": other, "RollingUpdate": update});
            out.push(Cause::unsupported("spec.strategy", &shown, &["Recreate".to_owned(), "RollingUpdate".to_owned()]));
        }
    }
    let deadline = &spec["progressDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|d| d >= 0 && d <= spec["minReadySeconds"].as_i64().unwrap_or(0)) {
        out.push(Cause::invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"));
    }
}

fn stateful(spec: &Value, out: &mut Vec<Cause>) {
    if !matches!(s(spec, "/podManagementPolicy"), "" | "OrderedReady" | "Parallel") {
        let why = "must be 'OrderedReady' or 'Parallel'";
        out.push(Cause::invalid("spec.podManagementPolicy", &spec["podManagementPolicy"], why));
    }
    let (update, at) = (&spec["updateStrategy"]["rollingUpdate"], "spec.updateStrategy");
    match s(spec, "/updateStrategy/type") {
        "" => {}
        "RollingUpdate" => counted(update, &format!("{at}.rollingUpdate"), &["partition"], out),
        "OnDelete" if !update.is_null() => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            out.push(Cause::invalid(format!("{at}.rollingUpdate"), update, why));
        }
        "OnDelete" => {}
        other => {
            let shown = json!({"Type": other, "RollingUpdate": update});
            out.push(Cause::invalid(at, &shown, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}

/// What of a Job's template may change before it starts.
const UNSTARTED: &[&str] = &["/spec/affinity", "/spec/nodeSelector", "/spec/tolerations", "/spec/schedulingGates"];

/// Refuses changes of a Job's template and of its completions, but for those that may be.
pub(super) fn job_update(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let waits = old["spec"]["suspend"] == true && old["status"]["startTime"].is_null();
    let rest = |o: &Value| {
        let mut t = o["spec"]["template"].clone();
        if waits {
            for field in UNSTARTED.iter().chain(&["/metadata/labels", "/metadata/annotations"]) {
                t.pointer_mut(field).map(Value::take);
            }
        }
        tidy(&mut t);
        t
    };
    if rest(old) != rest(new) {
        out.push(Cause::invalid("spec.template", &new["spec"]["template"], "field is immutable"));
    }
    let (had, has) = (&old["spec"]["completions"], &new["spec"]["completions"]);
    let why = match new["spec"]["completionMode"].as_str() {
        _ if had == has => return,
        Some("Indexed") if *has == new["spec"]["parallelism"] => return,
        Some("Indexed") => "can only be modified in tandem with spec.parallelism",
        _ => "field is immutable",
    };
    out.push(Cause::invalid("spec.completions", has, why));
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

/// Checks a CronJob.
pub(super) fn cron(spec: &Value, out: &mut Vec<Cause>) {
    counted(spec, "spec", &["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"], out);
    one_of("spec.concurrencyPolicy".into(), &spec["concurrencyPolicy"], &["Allow", "Forbid", "Replace"], out);
    let text = s(spec, "/schedule");
    if text.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        out.push(Cause::invalid("spec.schedule", &text.into(), why));
    }
    let zone = &spec["timeZone"];
    if zone.as_str().is_some_and(str::is_empty) {
        out.push(Cause::invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string"));
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
