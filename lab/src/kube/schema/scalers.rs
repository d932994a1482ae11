//! Rules of horizontal pod autoscalers. Grade: source (pkg/apis/autoscaling/validation).
use serde_json::Value;

use super::names;
use super::rules::{forbidden, one_of};
use super::validate::judged;
use crate::kube::store::Cause;
use crate::kube::text::{arr, milli, s};

/// Sorts of metrics, with the field that tells of each.
const SORTS: &[(&str, &str)] = &[
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// Checks an autoscaler.
pub(super) fn check(spec: &Value, out: &mut Vec<Cause>) {
    let (least, most) = (&spec["minReplicas"], &spec["maxReplicas"]);
    if least.as_i64().is_some_and(|n| n < 1) {
        out.push(Cause::invalid("spec.minReplicas", least, "must be greater than or equal to 1"));
    }
    if most.as_i64().is_some_and(|n| n < 1) {
        out.push(Cause::invalid("spec.maxReplicas", most, "must be greater than 0"));
    } else if least.as_i64().zip(most.as_i64()).is_some_and(|(a, b)| a > b) {
        out.push(Cause::invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"));
    }
    for f in ["kind", "name"] {
        let at = format!("spec.scaleTargetRef.{f}");
        match s(spec, &format!("/scaleTargetRef/{f}")) {
            // an object that is not there is told by the schema
            "" if spec["scaleTargetRef"][f].is_string() => out.push(Cause::required(at, "")),
            "" => {}
            text => judged(at, text, names::segment, out),
        }
    }
    for (i, m) in arr(spec, "/metrics").iter().enumerate() {
        metric(m, &format!("spec.metrics[{i}]"), out);
    }
    for way in ["scaleUp", "scaleDown"].into_iter().filter(|w| spec["behavior"][*w].is_object()) {
        scaling(&spec["behavior"][way], &format!("spec.behavior.{way}"), out);
    }
}

fn metric(m: &Value, at: &str, out: &mut Vec<Cause>) {
    let sort = s(m, "/type");
    if sort.is_empty() {
        out.push(Cause::required(format!("{at}.type"), "must specify a metric source type"));
        return;
    }
    let Some((_, field)) = SORTS.iter().find(|x| x.0 == sort) else {
        let known: Vec<&str> = SORTS.iter().map(|x| x.0).collect();
        one_of(format!("{at}.type"), &m["type"], &known, out);
        return;
    };
    for (_, other) in SORTS.iter().filter(|x| x.1 != *field && m[x.1].is_object()) {
        out.push(forbidden(&format!("{at}.{other}"), "must populate the given metric source only"));
    }
    let (of, at) = (&m[*field], format!("{at}.{field}"));
    if !of.is_object() {
        out.push(Cause::required(at, "must populate information for the given metric source"));
        return;
    }
    let target = &of["target"];
    goal(target, &format!("{at}.target"), out);
    let set = |f: &str| !target[f].is_null();
    if field.ends_with("esource") {
        if s(of, "/name").is_empty() {
            out.push(Cause::required(format!("{at}.name"), "must specify a resource name"));
        }
        if !set("averageUtilization") && !set("averageValue") {
            let why = "must set either a target raw value or a target utilization";
            out.push(Cause::required(format!("{at}.target.averageUtilization"), why));
        } else if set("averageUtilization") && set("averageValue") {
            let why = "may not set both a target raw value and a target utilization";
            out.push(forbidden(&format!("{at}.target.averageValue"), why));
        }
        return;
    }
    if s(of, "/metric/name").is_empty() {
        out.push(Cause::required(format!("{at}.metric.name"), "must specify a metric name"));
    }
    if *field == "pods" && milli(&target["averageValue"]) <= 0 {
        let why = "must specify a positive target averageValue";
        out.push(Cause::required(format!("{at}.target.averageValue"), why));
    }
    if *field != "pods" && !set("value") && !set("averageValue") {
        let why = if *field == "object" {
            "must set either a target value or averageValue"
        } else {
            "must set either a target value for metric or a per-pod target"
        };
        out.push(Cause::required(format!("{at}.target.averageValue"), why));
    }
}

fn goal(target: &Value, at: &str, out: &mut Vec<Cause>) {
    match s(target, "/type") {
        "" => out.push(Cause::required(format!("{at}.type"), "must specify a metric target type")),
        "Utilization" | "Value" | "AverageValue" => {}
        _ => {
            let why = "must be either Utilization, Value, or AverageValue";
            out.push(Cause::invalid(format!("{at}.type"), &target["type"], why));
        }
    }
    for f in ["value", "averageValue"].into_iter().filter(|f| !target[*f].is_null() && milli(&target[*f]) <= 0) {
        out.push(Cause::invalid(format!("{at}.{f}"), &target[f], "must be positive"));
    }
    if target["averageUtilization"].as_i64().is_some_and(|n| n < 1) {
        out.push(Cause::invalid(
            format!("{at}.averageUtilization"),
            &target["averageUtilization"],
            "must be greater than 0",
        ));
    }
}

fn scaling(rules: &Value, at: &str, out: &mut Vec<Cause>) {
    let window = &rules["stabilizationWindowSeconds"];
    let bounded = |at: String, v: &Value, most: i64, out: &mut Vec<Cause>| {
        if v.as_i64().is_some_and(|n| n > most) {
            out.push(Cause::invalid(at, v, &format!("must be less than or equal to {most}")));
        }
    };
    if window.as_i64().is_some_and(|n| n < 0) {
        out.push(Cause::invalid(
            format!("{at}.stabilizationWindowSeconds"),
            window,
            "must be greater than or equal to zero",
        ));
    }
    bounded(format!("{at}.stabilizationWindowSeconds"), window, 3600, out);
    one_of(format!("{at}.selectPolicy"), &rules["selectPolicy"], &["Disabled", "Max", "Min"], out);
    let policies = arr(rules, "/policies");
    if policies.is_empty() {
        out.push(Cause::required(format!("{at}.policies"), "must specify at least one Policy"));
    }
    for (i, p) in policies.iter().enumerate() {
        let at = format!("{at}.policies[{i}]");
        one_of(format!("{at}.type"), &p["type"], &["Percent", "Pods"], out);
        for f in ["value", "periodSeconds"].into_iter().filter(|f| p[*f].as_i64().is_some_and(|n| n <= 0)) {
            out.push(Cause::invalid(format!("{at}.{f}"), &p[f], "must be greater than zero"));
        }
        bounded(format!("{at}.periodSeconds"), &p["periodSeconds"], 1800, out);
    }
}
