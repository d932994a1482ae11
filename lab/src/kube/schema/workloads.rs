//! Rules of workloads: selectors, strategies, numbers that are not negative, what of them never changes. Grade: source
//! (the validation packages of kube-apiserver).
use serde_json::{Value, json};

use super::Kind;
use super::rules::{LEAST, forbidden, one_of};
use super::validate::selector;
use crate::kube::store::Cause;
use crate::kube::text::s;

/// Numbers that may not be negative.
pub(super) fn counted(spec: &Value, at: &str, fields: &[&str], out: &mut Vec<Cause>) {
    for f in fields.iter().filter(|f| spec[**f].as_i64().is_some_and(|n| n < 0)) {
        out.push(Cause::invalid(format!("{at}.{f}"), &spec[*f], LEAST));
    }
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

/// Checks the spec of a workload with a pod template.
pub(super) fn check(kind: &Kind, spec: &Value, out: &mut Vec<Cause>) {
    let fields = [
        "replicas",
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ];
    counted(spec, "spec", &fields, out);
    let label = match kind.kind.as_str() {
        "Deployment" => "empty selector is invalid for deployment",
        "DaemonSet" => "empty selector is invalid for daemonset",
        "StatefulSet" => "empty selector is invalid for statefulset",
        "ReplicaSet" => "empty selector is invalid for replicaset",
        _ => "",
    };
    if spec["selector"].is_object() {
        selector(&spec["selector"], "spec.selector", out);
        let empty = |f: &str| match &spec["selector"][f] {
            Value::Object(m) => m.is_empty(),
            Value::Array(a) => a.is_empty(),
            _ => true,
        };
        if !label.is_empty() && empty("matchLabels") && empty("matchExpressions") {
            out.push(Cause::invalid("spec.selector", &spec["selector"], label));
        }
    }
    match kind.kind.as_str() {
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
        }
        "Job" => {
            one_of("spec.completionMode".into(), &spec["completionMode"], &["Indexed", "NonIndexed"], out);
            if spec["completionMode"] == "Indexed" && spec["completions"].is_null() {
                out.push(Cause::required("spec.completions", "when completion mode is Indexed"));
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
