//! Rules of what bounds others: quotas, limit ranges, priority and runtime classes, storage classes, leases. Grade: source
//! (the validation packages of kube-apiserver).
use serde_json::Value;

use super::rules::{LEAST, duplicate, forbidden, immutable, one_of};
use super::validate::{judged, labels};
use super::{goshape, names};
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
    amounts(&obj["spec"]["hard"], "spec.hard", out);
    scopes(&obj["spec"], out);
    immutable("spec.scopes", &obj["spec"]["scopes"], old.map(|o| &o["spec"]["scopes"]), out);
}

/// Checks the status of a ResourceQuota.
pub(super) fn quota_status(obj: &Value, out: &mut Vec<Cause>) {
    for f in ["hard", "used"] {
        amounts(&obj["status"][f], &format!("status.{f}"), out);
    }
}

fn amounts(map: &Value, at: &str, out: &mut Vec<Cause>) {
    for (k, v) in map.as_object().into_iter().flatten() {
        let at = format!("{at}[{k}]");
        let known = k.contains('/') || COUNTED.contains(&k.as_str()) || k.contains("hugepages-");
        named(&at, k, known, out);
        if !known {
            out.push(Cause::invalid(at.as_str(), &k.as_str().into(), "must be a standard resource for quota"));
        }
        counted(k, v, at, out);
    }
}

/// The name of a resource, which is `known` or has a domain.
fn named(at: &str, name: &str, known: bool, out: &mut Vec<Cause>) {
    let before = out.len();
    judged(at, name, names::key, out);
    if !known && out.len() == before {
        out.push(Cause::invalid(at, &name.into(), "must be a standard resource type or fully qualified"));
    }
}

/// Resources that come in whole numbers.
const WHOLE: &[&str] = &[
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// How much there is of a resource.
pub(super) fn counted(name: &str, v: &Value, at: String, out: &mut Vec<Cause>) {
    if milli(v) < 0 {
        out.push(Cause::invalid(at.as_str(), v, LEAST));
    }
    let extended = name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.");
    if (WHOLE.contains(&name) || extended) && milli(v) % 1000 != 0 {
        out.push(Cause::invalid(at, v, "must be an integer"));
    }
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
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
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
        let before = out.len();
        judged(format!("{at}.type"), kind, names::key, out);
        let standard = kind.contains('/') || matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim");
        if !standard && out.len() == before {
            let why = "must be a standard limit type or fully qualified";
            out.push(Cause::invalid(format!("{at}.type"), &kind.into(), why));
        }
        if seen.contains(&&l["type"]) {
            out.push(duplicate(format!("{at}.type"), &l["type"]));
        }
        seen.push(&l["type"]);
        for part in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            if kind == "Pod" && part.starts_with("default") {
                if l[part].as_object().is_some_and(|m| !m.is_empty()) {
                    out.push(forbidden(&format!("{at}.{part}"), "may not be specified when `type` is 'Pod'"));
                }
                continue;
            }
            bounded(kind, &l[part], &format!("{at}.{part}"), out);
            if part == "defaultRequest" {
                sized(kind, l, &at, out);
            }
        }
        ordered(l, &at, out);
        ratios(l, &at, out);
    }
}

/// Names of what a LimitRange bounds.
fn bounded(kind: &str, map: &Value, at: &str, out: &mut Vec<Cause>) {
    for (k, _) in map.as_object().into_iter().flatten() {
        let at = format!("{at}[{k}]");
        let container = matches!(k.as_str(), "cpu" | "memory" | "ephemeral-storage") || k.starts_with("hugepages-");
        let known = k.contains('/') || container || k == "storage" || COUNTED.contains(&k.as_str());
        named(&at, k, known, out);
        if matches!(kind, "Pod" | "Container") && !container && !k.contains('/') {
            out.push(Cause::invalid(at, &k.as_str().into(), "must be a standard resource for containers"));
        }
    }
}

fn sized(kind: &str, l: &Value, at: &str, out: &mut Vec<Cause>) {
    if kind == "PersistentVolumeClaim" && l["min"]["storage"].is_null() && l["max"]["storage"].is_null() {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        out.push(Cause::required(format!("{at}.limits"), why));
    }
}

/// How much more than its request a limit may be.
fn ratios(l: &Value, at: &str, out: &mut Vec<Cause>) {
    for (k, v) in l["maxLimitRequestRatio"].as_object().into_iter().flatten() {
        let at = format!("{at}.maxLimitRequestRatio[{k}]");
        if milli(v) < 1000 {
            out.push(Cause::invalid(at.as_str(), v, &format!("ratio {} is less than 1", shown(v))));
        }
        let (least, most) = (&l["min"][k], &l["max"][k]);
        if !least.is_null() && !most.is_null() {
            let bound = milli(most) as f64 / milli(least) as f64;
            if milli(v) as f64 / 1000.0 > bound {
                let why = format!("ratio {} is greater than max/min = {bound:.6}", shown(v));
                out.push(Cause::invalid(at, v, &why));
            }
        }
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
    // a changed volume is looked at as a new one once more
    super::volumes::volume(&new["spec"], out);
    let source = |o: &Value| {
        let mut spec = o["spec"].clone();
        if let Some(m) = spec.as_object_mut() {
            m.retain(|k, v| !AROUND.contains(&k.as_str()) && !v.is_null());
        }
        spec
    };
    if source(old) != source(new) {
        let how = goshape::difference("PersistentVolumeSource", &old["spec"], &new["spec"]);
        let why = format!("spec.persistentvolumesource is immutable after creation\n{how}");
        out.push(forbidden("spec.persistentvolumesource", &why));
    }
    immutable("volumeMode", &new["spec"]["volumeMode"], Some(&old["spec"]["volumeMode"]), out);
    let (had, has) = (&old["spec"]["nodeAffinity"], &new["spec"]["nodeAffinity"]);
    if had.is_object() && had != has {
        let why = "field is immutable, except for updating from beta label to GA";
        out.push(Cause::invalid("nodeAffinity", &goshape::shaped("VolumeNodeAffinity", has), why));
    }
    attributes(
        old,
        new,
        &old["spec"]["volumeAttributesClassName"],
        "update from non-nil value to nil is forbidden",
        out,
    );
}

/// Refuses to take the class of attributes away from what has one.
fn attributes(old: &Value, new: &Value, had: &Value, why: &str, out: &mut Vec<Cause>) {
    let at = "volumeAttributesClassName";
    if old["spec"][at] != new["spec"][at] && had.is_string() && new["spec"][at].is_null() {
        out.push(forbidden(&format!("spec.{at}"), why));
    }
}

const BETA: &str = "volume.beta.kubernetes.io/storage-class";

/// Refuses changes of a claim beside its size, its attributes and, once, its volume and its class.
pub(super) fn claim_update(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let (class, note) = (&new["spec"]["storageClassName"], meta::annotation(old, BETA));
    let unclassed = old["spec"]["storageClassName"].is_null() && class.is_string();
    let told = unclassed && note.is_none_or(|n| class == n);
    if !(told && note.is_some()) && meta::annotation(new, BETA) != note {
        let at = format!("metadata.annotations[{BETA}]");
        let shown = meta::annotation(new, BETA).unwrap_or_default();
        out.push(Cause::invalid(at, &shown.into(), "field is immutable"));
    }
    let bound = new["status"]["phase"] == "Bound";
    let (mut had, mut has) = (old["spec"].clone(), new["spec"].clone());
    if s(&had, "/volumeName").is_empty() {
        had["volumeName"] = has["volumeName"].clone();
    }
    if told {
        has["storageClassName"] = Value::Null;
    }
    if bound {
        let (size, class) = ("/resources/requests/storage", "volumeAttributesClassName");
        if let Some(now) = has.pointer_mut(size) {
            *now = had.pointer(size).cloned().unwrap_or_default();
        }
        has[class] = had[class].clone();
    }
    let of = "PersistentVolumeClaimSpec";
    if goshape::shaped(of, &had) != goshape::shaped(of, &has) {
        let why =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        out.push(forbidden("spec", &format!("{why}\n{}", goshape::difference(of, &had, &has))));
    }
    let size = |o: &Value| milli(&o["spec"]["resources"]["requests"]["storage"]);
    if size(new) < size(old) && size(new) <= milli(&old["status"]["capacity"]["storage"]) {
        out.push(forbidden("spec.resources.requests.storage", "field can not be less than status.capacity"));
    }
    immutable("volumeMode", &new["spec"]["volumeMode"], Some(&old["spec"]["volumeMode"]), out);
    let why = "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil";
    attributes(old, new, &old["status"]["currentVolumeAttributesClassName"], why, out);
}
