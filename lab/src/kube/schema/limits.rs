//! Rules of what bounds others: quotas, limit ranges, priority and runtime classes, storage classes, leases. Grade: source
//! (the validation packages of kube-apiserver).
use serde_json::Value;

use super::names;
use super::rules::{LEAST, duplicate, forbidden, immutable, one_of};
use super::validate::{judged, labels};
use crate::kube::store::{Cause, meta};
use crate::kube::text::{arr, milli, s, shown};

/// Resources that a quota bounds without a domain in their names.
pub(super) const COUNTED: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

/// Checks a ResourceQuota.
pub(super) fn quota(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    for (k, v) in obj["spec"]["hard"].as_object().into_iter().flatten() {
        let at = format!("spec.hard[{k}]");
        judged(at.as_str(), k, names::key, out);
        if !k.contains('/') && !COUNTED.contains(&k.as_str()) && !k.contains("hugepages-") {
            for why in ["must be a standard resource type or fully qualified", "must be a standard resource for quota"]
            {
                out.push(Cause::invalid(at.as_str(), &k.as_str().into(), why));
            }
        }
        if milli(v) < 0 {
            out.push(Cause::invalid(at, v, LEAST));
        }
    }
    scopes(&obj["spec"], out);
    immutable("spec.scopes", &obj["spec"]["scopes"], old.map(|o| &o["spec"]["scopes"]), out);
}

/// What quotas may be about.
const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// Whether a scope has to do with a resource.
fn concerns(scope: &str, resource: &str) -> bool {
    let computed = ["cpu", "memory", "ephemeral-storage"];
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => {
            resource == "pods"
                || computed.iter().any(|c| resource.trim_start_matches("requests.").trim_start_matches("limits.") == *c)
        }
    }
}

fn scopes(spec: &Value, out: &mut Vec<Cause>) {
    let list: Vec<&str> = arr(spec, "/scopes").iter().filter_map(Value::as_str).collect();
    let hard: Vec<&str> = spec["hard"].as_object().into_iter().flatten().map(|(k, _)| k.as_str()).collect();
    let strays = |scope: &str| hard.iter().filter(|k| COUNTED.contains(k) && !concerns(scope, k)).count();
    let mut say = |why: &str| out.push(Cause::invalid("spec.scopes", &spec["scopes"], why));
    for scope in &list {
        if !SCOPES.contains(scope) {
            say("unsupported scope");
        }
        (0..strays(scope)).for_each(|_| say("unsupported scope applied to resource"));
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|p| list.contains(p)) {
            say("conflicting scopes");
        }
    }
    let at = "spec.scopeSelector.matchExpressions";
    for e in arr(spec, "/scopeSelector/matchExpressions") {
        let (scope, operator, values) = (s(e, "/scopeName"), s(e, "/operator"), arr(e, "/values"));
        if !SCOPES.contains(&scope) {
            out.push(Cause::invalid(format!("{at}.scopeName"), &e["scopeName"], "unsupported scope"));
        }
        let only = SCOPES[..4].contains(&scope) || scope == "CrossNamespacePodAffinity";
        if only && operator != "Exists" {
            let why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            out.push(Cause::invalid(format!("{at}.operator"), &e["operator"], why));
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                out.push(Cause::required(format!("{at}.values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                out.push(Cause::invalid(format!("{at}.values"), &e["values"], why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => out.push(Cause::invalid(format!("{at}.operator"), &e["operator"], "not a valid selector operator")),
        }
    }
}

/// Checks a LimitRange.
pub(super) fn range(spec: &Value, out: &mut Vec<Cause>) {
    let mut seen: Vec<&Value> = Vec::new();
    for (i, l) in arr(spec, "/limits").iter().enumerate() {
        let at = format!("spec.limits[{i}]");
        let kind = s(l, "/type");
        judged(format!("{at}.type"), kind, names::key, out);
        if !kind.is_empty() && !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
            let why = "must be a standard limit type or fully qualified";
            out.push(Cause::invalid(format!("{at}.type"), &kind.into(), why));
        }
        if seen.contains(&&l["type"]) {
            out.push(duplicate(format!("{at}.type"), &l["type"]));
        }
        seen.push(&l["type"]);
        if kind == "Pod" {
            for f in
                ["default", "defaultRequest"].into_iter().filter(|f| l[*f].as_object().is_some_and(|m| !m.is_empty()))
            {
                out.push(forbidden(&format!("{at}.{f}"), "may not be specified when `type` is 'Pod'"));
            }
        }
        if kind == "PersistentVolumeClaim" && l["min"]["storage"].is_null() && l["max"]["storage"].is_null() {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            out.push(Cause::required(format!("{at}.limits"), why));
        }
        ordered(l, &at, out);
    }
}

/// (lower part, upper part, part that is at fault, whether the lower value is shown, words for both).
type Order = (&'static str, &'static str, &'static str, bool, &'static str, &'static str);

const ORDER: &[Order] = &[
    ("min", "max", "min", true, "min value", "max value"),
    ("min", "defaultRequest", "defaultRequest", false, "min value", "default request value"),
    ("defaultRequest", "max", "defaultRequest", true, "default request value", "max value"),
    ("defaultRequest", "default", "defaultRequest", true, "default request value", "default limit value"),
    ("min", "default", "default", true, "min value", "default value"),
    ("default", "max", "default", false, "default value", "max value"),
];

fn ordered(l: &Value, at: &str, out: &mut Vec<Cause>) {
    for (low, high, place, lower, a, b) in ORDER {
        for (k, x) in l[*low].as_object().into_iter().flatten() {
            let y = &l[*high][k];
            if !y.is_null() && milli(x) > milli(y) {
                let why = format!("{a} {} is greater than {b} {}", shown(x), shown(y));
                out.push(Cause::invalid(format!("{at}.{place}[{k}]"), if *lower { x } else { y }, &why));
            }
        }
    }
}

/// Priorities of the system's own classes.
const SYSTEM: &[(&str, i64)] = &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// Checks a PriorityClass.
pub(super) fn priority(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let (name, value) = (meta::name(obj), obj["value"].as_i64().unwrap_or(0));
    if name.starts_with("system-") && old.is_none() {
        let why = match SYSTEM.iter().find(|(n, _)| *n == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, v)) if *v != value => Some(format!("value of {name} PriorityClass must be {v}")),
            Some(_) => None,
        };
        out.extend(why.map(|w| {
            forbidden(
                "metadata.name",
                &format!("priority class names with 'system-' prefix are reserved for system use only. error: {w}"),
            )
        }));
    } else if value > 1_000_000_000 && old.is_none() {
        out.push(forbidden("value", "maximum allowed value of a user defined priority is 1000000000"));
    }
    one_of("preemptionPolicy".into(), &obj["preemptionPolicy"], &["PreemptLowerPriority", "Never"], out);
    let Some(old) = old else { return };
    if old["value"].as_i64().unwrap_or(0) != value {
        out.push(forbidden("value", "may not be changed in an update."));
    }
    immutable("preemptionPolicy", &obj["preemptionPolicy"], Some(&old["preemptionPolicy"]), out);
}

/// Checks a RuntimeClass.
pub(super) fn runtime(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    if let Some(old) = old {
        immutable("handler", &obj["handler"], Some(&old["handler"]), out);
        return;
    }
    match s(obj, "/handler") {
        "" => out.push(Cause::required("handler", "")),
        handler => judged("handler", handler, names::label, out),
    }
    for (k, v) in obj["overhead"]["podFixed"].as_object().into_iter().flatten() {
        let at = format!("overhead.limits[{k}]");
        if !k.contains('/') && !matches!(k.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            for why in
                ["must be a standard resource type or fully qualified", "must be a standard resource for containers"]
            {
                out.push(Cause::invalid(at.as_str(), &k.as_str().into(), why));
            }
        }
        if milli(v) < 0 {
            out.push(Cause::invalid(at, v, LEAST));
        }
    }
    labels(&obj["scheduling"]["nodeSelector"], "scheduling.nodeSelector", out);
    let tolerated = arr(obj, "/scheduling/tolerations");
    for (i, t) in tolerated.iter().enumerate() {
        super::podplace::toleration(t, &format!("scheduling.tolerations[{i}]"), out);
    }
    for (i, t) in tolerated.iter().enumerate().filter(|(i, t)| tolerated[..*i].contains(t)) {
        let shown = serde_json::json!({"Key": s(t, "/key"), "Operator": s(t, "/operator"), "Value": s(t, "/value"),
            "Effect": s(t, "/effect"), "TolerationSeconds": t["tolerationSeconds"]});
        out.push(duplicate(format!("scheduling.tolerations[{i}]"), &shown));
    }
}

/// Checks a Lease.
pub(super) fn lease(spec: &Value, out: &mut Vec<Cause>) {
    let (length, changes) = (&spec["leaseDurationSeconds"], &spec["leaseTransitions"]);
    if length.as_i64().is_some_and(|n| n <= 0) {
        out.push(Cause::invalid("spec.leaseDurationSeconds", length, "must be greater than 0"));
    }
    if changes.as_i64().is_some_and(|n| n < 0) {
        out.push(Cause::invalid("spec.leaseTransitions", changes, LEAST));
    }
}

/// Fields of a volume beside where it is.
const AROUND: &[&str] = &[
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
];

/// Refuses to put a volume somewhere else.
pub(super) fn volume_update(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let source = |o: &Value| {
        let mut spec = o["spec"].clone();
        if let Some(m) = spec.as_object_mut() {
            m.retain(|k, v| !AROUND.contains(&k.as_str()) && !v.is_null());
        }
        spec
    };
    if source(old) != source(new) {
        let why = "spec.persistentvolumesource is immutable after creation";
        out.push(forbidden("spec.persistentvolumesource", why));
    }
    immutable("volumeMode", &new["spec"]["volumeMode"], Some(&old["spec"]["volumeMode"]), out);
}

/// Refuses changes of a claim beside its size, its attributes and, once, its volume.
pub(super) fn claim_update(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let rest = |o: &Value| {
        let mut spec = o["spec"].clone();
        if let Some(m) = spec.as_object_mut() {
            m.shift_remove("volumeAttributesClassName");
            if s(old, "/spec/volumeName").is_empty() {
                m.shift_remove("volumeName");
            }
            m.retain(|_, v| !v.is_null());
        }
        if new["status"]["phase"] == "Bound" {
            spec["resources"]["requests"]["storage"] = Value::Null;
        }
        spec
    };
    if rest(old) != rest(new) {
        let why =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        out.push(forbidden("spec", why));
    }
    let (have, want) = (&old["status"]["capacity"]["storage"], &new["spec"]["resources"]["requests"]["storage"]);
    if !have.is_null() && milli(want) < milli(have) {
        out.push(forbidden("spec.resources.requests.storage", "field can not be less than status.capacity"));
    }
}
