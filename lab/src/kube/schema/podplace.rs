//! Rules of where a pod runs: affinity, spread, tolerations, gates, claims of devices. Grade: source (the validation of
//! the core group).
use serde_json::{Value, json};

use super::names;
use super::rules::{duplicate, forbidden, one_of, words};
use super::validate::{judged, selector};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Claims of devices.
pub(super) fn claims(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    let list = arr(spec, "/resourceClaims");
    for (i, c) in list.iter().enumerate() {
        let at = format!("{path}.resourceClaims[{i}]");
        match s(c, "/name") {
            "" => out.push(Cause::required(format!("{at}.name"), "")),
            _ if list[..i].iter().any(|x| x["name"] == c["name"]) => {
                out.push(duplicate(format!("{at}.name"), &c["name"]));
            }
            name => judged(format!("{at}.name"), name, names::label, out),
        }
        let (own, made) = (&c["resourceClaimName"], &c["resourceClaimTemplateName"]);
        let whole = json!({"Name": c["name"], "ResourceClaimName": own, "ResourceClaimTemplateName": made});
        let why = match (own.is_string(), made.is_string()) {
            (true, true) => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            (false, false) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => "",
        };
        if !why.is_empty() {
            out.push(Cause::invalid(at.as_str(), &whole, why));
        }
        for f in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = c[f].as_str() {
                judged(format!("{at}.{f}"), name, names::subdomain, out);
            }
        }
    }
}

/// Conditions that a pod waits for before it is ready, and gates before it is placed.
pub(super) fn gates(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    for (i, g) in arr(spec, "/readinessGates").iter().enumerate() {
        judged(format!("{path}.readinessGates[{i}].conditionType"), s(g, "/conditionType"), names::key, out);
    }
    let list = arr(spec, "/schedulingGates");
    for (i, g) in list.iter().enumerate() {
        let at = format!("{path}.schedulingGates[{i}]");
        judged(at.as_str(), s(g, "/name"), names::key, out);
        if list[..i].iter().any(|x| x["name"] == g["name"]) {
            out.push(duplicate(at, &g["name"]));
        }
    }
}

/// Checks an affinity.
pub(super) fn affinity(a: &Value, at: &str, out: &mut Vec<Cause>) {
    let node = &a["nodeAffinity"];
    if node[REQUIRED].is_object() {
        node_selector(&node[REQUIRED], &format!("{at}.nodeAffinity.{REQUIRED}"), out);
    }
    for (i, t) in arr(node, &format!("/{PREFERRED}")).iter().enumerate() {
        let at = format!("{at}.nodeAffinity.{PREFERRED}[{i}]");
        weight(t, &at, out);
        term(&t["preference"], &format!("{at}.preference"), out);
    }
    for sort in ["podAffinity", "podAntiAffinity"] {
        for (i, t) in arr(a, &format!("/{sort}/{REQUIRED}")).iter().enumerate() {
            pod_term(t, &format!("{at}.{sort}.{REQUIRED}[{i}]"), out);
        }
        for (i, t) in arr(a, &format!("/{sort}/{PREFERRED}")).iter().enumerate() {
            let at = format!("{at}.{sort}.{PREFERRED}[{i}]");
            weight(t, &at, out);
            pod_term(&t["podAffinityTerm"], &format!("{at}.podAffinityTerm"), out);
        }
    }
}

fn weight(t: &Value, at: &str, out: &mut Vec<Cause>) {
    let number = t["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&number) {
        out.push(Cause::invalid(format!("{at}.weight"), &number.into(), "must be in the range 1-100"));
    }
}

/// Checks a selector of nodes.
pub(super) fn node_selector(v: &Value, at: &str, out: &mut Vec<Cause>) {
    let terms = arr(v, "/nodeSelectorTerms");
    if terms.is_empty() {
        let why = "must have at least one node selector term";
        out.push(Cause::required(format!("{at}.nodeSelectorTerms"), why));
    }
    for (i, t) in terms.iter().enumerate() {
        term(t, &format!("{at}.nodeSelectorTerms[{i}]"), out);
    }
}

fn term(t: &Value, at: &str, out: &mut Vec<Cause>) {
    for (i, e) in arr(t, "/matchExpressions").iter().enumerate() {
        expression(e, &format!("{at}.matchExpressions[{i}]"), out);
    }
    for (i, e) in arr(t, "/matchFields").iter().enumerate() {
        let at = format!("{at}.matchFields[{i}]");
        let values = arr(e, "/values");
        match s(e, "/operator") {
            "In" | "NotIn" => {
                if values.len() != 1 {
                    let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    out.push(Cause::required(format!("{at}.values"), why));
                }
            }
            _ => out.push(Cause::invalid(format!("{at}.operator"), &e["operator"], "not a valid selector operator")),
        }
        if s(e, "/key") == "metadata.name" {
            for (j, v) in values.iter().enumerate() {
                judged(format!("{at}.values[{j}]"), v.as_str().unwrap_or_default(), names::subdomain, out);
            }
        } else {
            out.push(Cause::invalid(format!("{at}.key"), &e["key"], "not a valid field selector key"));
        }
    }
}

fn expression(e: &Value, at: &str, out: &mut Vec<Cause>) {
    let values = arr(e, "/values");
    let field = format!("{at}.values");
    match s(e, "/operator") {
        "In" | "NotIn" if values.is_empty() => {
            out.push(Cause::required(field, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            out.push(forbidden(&field, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            out.push(Cause::required(field, "must be specified single value when `operator` is 'Lt' or 'Gt'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => out.push(Cause::invalid(format!("{at}.operator"), &e["operator"], "not a valid selector operator")),
    }
    judged(format!("{at}.key"), s(e, "/key"), names::key, out);
    for (j, v) in values.iter().enumerate() {
        judged(format!("{at}.values[{j}]"), v.as_str().unwrap_or_default(), names::value, out);
    }
}

fn pod_term(t: &Value, at: &str, out: &mut Vec<Cause>) {
    selector(&t["labelSelector"], &format!("{at}.labelSelector"), out);
    selector(&t["namespaceSelector"], &format!("{at}.namespaceSelector"), out);
    for n in arr(t, "/namespaces") {
        judged(format!("{at}.namespace"), n.as_str().unwrap_or_default(), names::label, out);
    }
    label_keys(t, at, out);
    if s(t, "/topologyKey").is_empty() {
        out.push(Cause::required(format!("{at}.topologyKey"), "can not be empty"));
    }
    judged(format!("{at}.topologyKey"), s(t, "/topologyKey"), names::key, out);
}

/// Keys of labels whose values are the pod's own.
fn label_keys(t: &Value, at: &str, out: &mut Vec<Cause>) {
    let (same, other) = (arr(t, "/matchLabelKeys"), arr(t, "/mismatchLabelKeys"));
    if same.len() + other.len() > 0 && t["labelSelector"].is_null() {
        for f in ["matchLabelKeys", "mismatchLabelKeys"].into_iter().filter(|f| !arr(t, &format!("/{f}")).is_empty()) {
            out.push(forbidden(&format!("{at}.{f}"), "must not be specified when labelSelector is not set"));
        }
    }
    for (f, list) in [("matchLabelKeys", same), ("mismatchLabelKeys", other)] {
        for (i, k) in list.iter().enumerate() {
            judged(format!("{at}.{f}[{i}]"), k.as_str().unwrap_or_default(), names::key, out);
        }
    }
    for (i, k) in same.iter().enumerate().filter(|(_, k)| other.contains(k)) {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        out.push(Cause::invalid(format!("{at}.matchLabelKeys[{i}]"), k, why));
    }
}

/// Checks how pods are spread.
pub(super) fn spread(list: &[Value], path: &str, out: &mut Vec<Cause>) {
    for (i, t) in list.iter().enumerate() {
        let at = format!("{path}[{i}]");
        if t["maxSkew"].as_i64().unwrap_or(0) <= 0 {
            let skew = t["maxSkew"].as_i64().unwrap_or(0);
            out.push(Cause::invalid(format!("{at}.maxSkew"), &skew.into(), "must be greater than zero"));
        }
        if s(t, "/topologyKey").is_empty() {
            out.push(Cause::required(format!("{at}.topologyKey"), "can not be empty"));
        }
        let way = s(t, "/whenUnsatisfiable");
        let ways = ["DoNotSchedule", "ScheduleAnyway"];
        if !ways.contains(&way) {
            out.push(Cause::unsupported(format!("{at}.whenUnsatisfiable"), &way.into(), &words(&ways)));
        }
        let same = |o: &Value| ["topologyKey", "whenUnsatisfiable"].iter().all(|f| o[*f] == t[*f]);
        if list[i + 1..].iter().any(same) {
            let shown = format!("{{{}, {way}}}", s(t, "/topologyKey"));
            out.push(duplicate(format!("{at}.{{topologyKey, whenUnsatisfiable}}"), &shown.into()));
        }
        let least = &t["minDomains"];
        if least.as_i64().is_some_and(|n| n <= 0) {
            out.push(Cause::invalid(format!("{at}.minDomains"), least, "must be greater than zero"));
        }
        if least.is_i64() && way != "DoNotSchedule" {
            let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {way}");
            out.push(Cause::invalid(format!("{at}.minDomains"), least, &why));
        }
        for f in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            one_of(format!("{at}.{f}"), &t[f], &["Honor", "Ignore"], out);
        }
        label_keys(t, &at, out);
        selector(&t["labelSelector"], &format!("{at}.labelSelector"), out);
    }
}

/// Checks a toleration.
pub(super) fn toleration(t: &Value, at: &str, out: &mut Vec<Cause>) {
    let (key, operator, value) = (s(t, "/key"), s(t, "/operator"), s(t, "/value"));
    if !key.is_empty() {
        judged(format!("{at}.key"), key, names::key, out);
    } else if operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        out.push(Cause::invalid(format!("{at}.operator"), &operator.into(), why));
    }
    if !t["tolerationSeconds"].is_null() && t["effect"] != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        out.push(Cause::invalid(format!("{at}.effect"), &s(t, "/effect").into(), why));
    }
    match operator {
        "" | "Equal" => {
            let wrong = names::value(value);
            if !wrong.is_empty() {
                out.push(Cause::invalid(format!("{at}.operator"), &value.into(), &wrong.join(";")));
            }
        }
        "Exists" if !value.is_empty() => {
            let why = "value must be empty when `operator` is 'Exists'";
            out.push(Cause::invalid(format!("{at}.operator"), &value.into(), why));
        }
        "Exists" => {}
        // known, but behind a gate
        "Lt" | "Gt" => {
            let all = words(&["Equal", "Exists", "Lt", "Gt"]);
            out.push(Cause::unsupported(format!("{at}.operator"), &t["operator"], &all));
        }
        _ => one_of(format!("{at}.operator"), &t["operator"], &["Equal", "Exists"], out),
    }
    if !s(t, "/effect").is_empty() {
        one_of(format!("{at}.effect"), &t["effect"], &["NoSchedule", "PreferNoSchedule", "NoExecute"], out);
    }
}
