//! Rules of horizontal pod autoscalers. Grade: source (pkg/apis/autoscaling/validation).
use serde_json::Value;

use super::names;
use super::rules::{forbidden, one_of, words};
use super::validate::judged;
use crate::kube::store::Cause;
use crate::kube::text::{arr, milli, s};

/// Sorts of metrics with the field that tells of each, in the order in which they are looked at.
const SORTS: &[(&str, &str)] = &[
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

/// Checks an autoscaler.
pub(super) fn check(spec: &Value, out: &mut Vec<Cause>) {
    let (least, most) = (&spec["minReplicas"], &spec["maxReplicas"]);
    if least.as_i64().is_some_and(|n| n < 1) {
        out.push(Cause::invalid("spec.minReplicas", least, "must be greater than or equal to 1"));
    }
    match most.as_i64().unwrap_or(0) {
        0 => out.push(Cause::required("spec.maxReplicas", "must be set and greater than 0")),
        n if n < 0 => out.push(Cause::invalid("spec.maxReplicas", most, "must be greater than or equal to 1")),
        _ => {}
    }
    if least.as_i64().is_some_and(|n| n > most.as_i64().unwrap_or(0)) {
        out.push(Cause::invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"));
    }
    target(&spec["scaleTargetRef"], "spec.scaleTargetRef", out);
    let metrics = arr(spec, "/metrics");
    for (i, m) in metrics.iter().enumerate() {
        metric(m, &format!("spec.metrics[{i}]"), out);
    }
    let outside = metrics.iter().any(|m| m["type"] == "Object" || m["type"] == "External");
    if least == 0 && !outside {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        out.push(forbidden("spec.metrics", why));
    }
    for way in ["scaleUp", "scaleDown"].into_iter().filter(|w| spec["behavior"][*w].is_object()) {
        scaling(&spec["behavior"][way], &format!("spec.behavior.{way}"), out);
    }
}

/// Checks a reference to what is scaled, or to what a metric is of.
fn target(of: &Value, at: &str, out: &mut Vec<Cause>) {
    for f in ["kind", "name"] {
        match s(of, &format!("/{f}")) {
            "" => out.push(Cause::required(format!("{at}.{f}"), "")),
            text => judged(format!("{at}.{f}"), text, names::segment, out),
        }
    }
    let version = s(of, "/apiVersion");
    if at.ends_with("scaleTargetRef") && !version.contains('/') && of["kind"] != "ReplicationController" {
        let why = "apiVersion must specify API group";
        out.push(Cause::invalid(format!("{at}.apiVersion"), &version.into(), why));
    }
}

fn metric(m: &Value, at: &str, out: &mut Vec<Cause>) {
    let sort = s(m, "/type");
    if sort.is_empty() {
        out.push(Cause::required(format!("{at}.type"), "must specify a metric source type"));
    }
    let own = SORTS.iter().find(|x| x.0 == sort).map(|x| x.1);
    let unknown = || {
        let known = ["ContainerResource", "External", "Object", "Pods", "Resource"];
        Cause::unsupported(format!("{at}.type"), &sort.into(), &words(&known))
    };
    if own.is_none() {
        out.push(unknown());
    }
    let present: Vec<&str> = SORTS.iter().map(|x| x.1).filter(|f| m[*f].is_object()).collect();
    if let Some(first) = present.first() {
        source(first, &m[*first], &format!("{at}.{first}"), out);
    }
    match own {
        Some(field) if !m[field].is_object() => {
            let why = "must populate information for the given metric source";
            out.push(Cause::required(format!("{at}.{field}"), why));
        }
        Some(_) => {}
        None => out.push(unknown()),
    }
    for other in present.iter().filter(|f| present.len() != 1 && own != Some(**f)) {
        out.push(forbidden(&format!("{at}.{other}"), "must populate the given metric source only"));
    }
}

fn source(field: &str, of: &Value, at: &str, out: &mut Vec<Cause>) {
    let wanted = &of["target"];
    let set = |f: &str| !wanted[f].is_null();
    if field.ends_with("esource") {
        if s(of, "/name").is_empty() {
            out.push(Cause::required(format!("{at}.name"), "must specify a resource name"));
        }
        if field == "containerResource" {
            match s(of, "/container") {
                "" => out.push(Cause::required(format!("{at}.container"), "must specify a container")),
                name => judged(format!("{at}.container"), name, names::label, out),
            }
        }
        goal(wanted, &format!("{at}.target"), out);
        if !set("averageUtilization") && !set("averageValue") {
            let why = "must set either a target raw value or a target utilization";
            out.push(Cause::required(format!("{at}.target.averageUtilization"), why));
        } else if set("averageUtilization") && set("averageValue") {
            let why = "may not set both a target raw value and a target utilization";
            out.push(forbidden(&format!("{at}.target.averageValue"), why));
        }
        return;
    }
    if field == "object" {
        target(&of["describedObject"], &format!("{at}.describedObject"), out);
    }
    match s(of, "/metric/name") {
        "" => out.push(Cause::required(format!("{at}.metric.name"), "must specify a metric name")),
        name => judged(format!("{at}.metric.name"), name, names::segment, out),
    }
    goal(wanted, &format!("{at}.target"), out);
    let missing = match field {
        "pods" if !set("averageValue") => Some("must specify a positive target averageValue"),
        "object" if !set("value") && !set("averageValue") => Some("must set either a target value or averageValue"),
        "external" if !set("value") && !set("averageValue") => {
            Some("must set either a target value for metric or a per-pod target")
        }
        _ => None,
    };
    if let Some(why) = missing {
        out.push(Cause::required(format!("{at}.target.averageValue"), why));
    }
    if field == "external" && set("value") && set("averageValue") {
        let why = "may not set both a target value for metric and a per-pod target";
        out.push(forbidden(&format!("{at}.target.value"), why));
    }
}

fn goal(target: &Value, at: &str, out: &mut Vec<Cause>) {
    match s(target, "/type") {
        "Utilization" | "Value" | "AverageValue" => {}
        sort => {
            if sort.is_empty() {
                out.push(Cause::required(format!("{at}.type"), "must specify a metric target type"));
            }
            let why = "must be either Utilization, Value, or AverageValue";
            out.push(Cause::invalid(format!("{at}.type"), &sort.into(), why));
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
    let (window, slack) = (&rules["stabilizationWindowSeconds"], &rules["tolerance"]);
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
    if !slack.is_null() && milli(slack) < 0 {
        out.push(Cause::invalid(format!("{at}.tolerance"), slack, super::rules::LEAST));
    }
}
