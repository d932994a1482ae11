//! Rules of built-in kinds beyond their types, kind by kind; schedules, roles, autoscalers and definitions themselves.
//! Grade: source (the validation packages of kube-apiserver).
use serde_json::Value;

use super::{
    Kind, devices, flow, jobs, limits, names, network, nodes, podspec, scalers, slices, storage, volumes, workloads,
};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

/// What a number that is below zero is told.
pub(in crate::kube) const LEAST: &str = "must be greater than or equal to 0";

/// Words that own their text.
pub(in crate::kube) fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

/// A text that has to be one of a list, where it is given.
pub(in crate::kube) fn one_of(at: String, v: &Value, list: &[&str], out: &mut Vec<Cause>) {
    if v.as_str().is_some_and(|t| !list.contains(&t)) {
        out.push(Cause::unsupported(at, v, &words(list)));
    }
}

/// A value that is there twice.
pub(in crate::kube) fn duplicate(field: String, v: &Value) -> Cause {
    Cause { reason: "FieldValueDuplicate", field, message: format!("Duplicate value: {v}") }
}

/// A value that may not be there.
pub(in crate::kube) fn forbidden(field: &str, why: &str) -> Cause {
    Cause { reason: "FieldValueForbidden", field: field.to_owned(), message: format!("Forbidden: {why}") }
}

/// A value that never changes.
pub(super) fn immutable(field: &str, new: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    if old.is_some_and(|o| o != new) {
        out.push(Cause::invalid(field, new, "field is immutable"));
    }
}

/// A port's number.
pub(super) fn port(at: String, v: &Value, out: &mut Vec<Cause>) {
    if v.as_i64().is_some_and(|n| !(1..=65_535).contains(&n)) {
        out.push(Cause::invalid(at, v, "must be between 1 and 65535, inclusive"));
    }
}

/// A text that is too long.
pub(super) fn too_long(field: &str, most: usize) -> Cause {
    let message = format!("Too long: may not be more than {most} bytes");
    Cause { reason: "FieldValueTooLong", field: field.to_owned(), message }
}

/// A list of at most so many items.
pub(super) fn too_many(field: &str, have: usize, most: usize, out: &mut Vec<Cause>) {
    if have > most {
        let message = format!("Too many: {have}: must have at most {most} items");
        out.push(Cause { reason: "FieldValueTooMany", field: field.to_owned(), message });
    }
}

/// A path behind a domain: `acme.io/foo`.
pub(super) fn domain_path(at: &str, text: &str, out: &mut Vec<Cause>) {
    let good = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    match text.split_once('/') {
        _ if text.is_empty() => out.push(Cause::required(at, "")),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            super::validate::judged(at, host, names::subdomain, out);
            if !path.chars().all(good) {
                let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                out.push(Cause::invalid(at, &path.into(), why));
            }
        }
        _ => out.push(Cause::invalid(at, &text.into(), "must be a domain-prefixed path (such as \"acme.io/foo\")")),
    }
}

/// Checks an object of a built-in kind; `old` is what it was.
pub(super) fn check(kind: &Kind, obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    match kind.kind.as_str() {
        "Pod" => {
            podspec::check(spec, "spec", &[], out);
            pod(obj, old, out);
        }
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" => {
            if let Some(old) = old.filter(|_| kind.kind == "DaemonSet") {
                immutable("spec.selector", &spec["selector"], Some(&old["spec"]["selector"]), out);
            }
            workloads::check(&kind.kind, spec, old.is_some(), out);
        }
        "Job" => jobs::check(obj, out),
        "CronJob" => jobs::cron(spec, old.map(|o| &o["spec"]), out),
        "Service" => super::services::check(obj, old, out),
        "Ingress" => network::ingress(obj, old, out),
        "IngressClass" => network::class(spec, old, out),
        "NetworkPolicy" => network::policy(spec, out),
        "ResourceQuota" => limits::quota(obj, old, out),
        "LimitRange" => limits::range(spec, out),
        "PriorityClass" => limits::priority(obj, old, out),
        "RuntimeClass" => limits::runtime(obj, old, out),
        "IPAddress" => network::address(obj, old, out),
        "ServiceCIDR" => network::ranges(spec, old.map(|o| &o["spec"]), out),
        _ if kind.group == "storage.k8s.io" => storage::check(kind, obj, old, out),
        "Lease" => limits::lease(spec, out),
        "Node" => nodes::check(obj, old, out),
        "PersistentVolumeClaim" => volumes::claim(spec, "spec", out),
        "PersistentVolume" => volumes::volume(spec, out),
        "EndpointSlice" => slices::slice(obj, old, out),
        "Endpoints" => slices::endpoints(obj, out),
        "HorizontalPodAutoscaler" => scalers::check(spec, out),
        "ReplicationController" => workloads::replication(spec, out),
        "PodTemplate" => podspec::check(&obj["template"]["spec"], "template.spec", &[], out),
        "APIService" => service(obj, out),
        "FlowSchema" => flow::schema(obj, out),
        "PriorityLevelConfiguration" => flow::level(obj, out),
        _ if kind.group == "resource.k8s.io" => devices::check(kind, obj, old, out),
        "ControllerRevision" => revision(obj, old, out),
        "PodDisruptionBudget" => workloads::budget(spec, out),
        "Event" if kind.group.is_empty() => crate::kube::api::events::rules(obj, out),
        "Role" | "ClusterRole" => role(kind, obj, out),
        "RoleBinding" | "ClusterRoleBinding" => binding(kind, obj, out),
        "Secret" => super::secrets::secret(obj, out),
        "ConfigMap" => super::secrets::config_map(obj, out),
        "CustomResourceDefinition" => super::definition::check(obj, old, out),
        _ if kind.group == "admissionregistration.k8s.io" => crate::kube::dynamic::check(kind, obj, out),
        _ => {}
    }
}

/// What only a pod, not a template, is told.
fn pod(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let placed = !s(obj, "/spec/nodeName").is_empty();
    if old.is_none() && placed && !arr(obj, "/spec/schedulingGates").is_empty() {
        out.push(forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"));
    }
    if old.is_none() && !arr(obj, "/spec/ephemeralContainers").is_empty() {
        out.push(forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    let mirror = &obj["metadata"]["annotations"][MIRROR];
    if !mirror.is_null() && !placed {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        out.push(Cause::invalid(format!("metadata.annotations[{MIRROR}]"), mirror, why));
    }
}

/// Checks a ControllerRevision.
fn revision(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    workloads::counted(obj, "", &["revision"], out);
    let data = &obj["data"];
    match old {
        Some(old) => immutable("data", data, Some(&old["data"]), out),
        None if data.is_null() => out.push(Cause::required("data", "data is mandatory")),
        None if !data.is_object() => out.push(Cause::required("data", "data must be a valid JSON object")),
        None => {}
    }
}

/// Checks an APIService.
fn service(obj: &Value, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    let want = format!("{}.{}", s(spec, "/version"), s(spec, "/group"));
    if s(obj, "/metadata/name") != want {
        let why = format!("must be `spec.version+\".\"+spec.group`: {want:?}");
        out.push(Cause::invalid("metadata.name", &obj["metadata"]["name"], &why));
    }
    match s(spec, "/group") {
        "" if s(spec, "/version") == "v1" => {}
        "" => out.push(Cause::required("spec.group", "only v1 may have an empty group and it better be legacy kube")),
        group => super::validate::judged("spec.group", group, names::subdomain, out),
    }
    super::validate::judged("spec.version", s(spec, "/version"), names::label_1035, out);
    for (f, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let n = spec[f].as_i64().unwrap_or(0);
        if n <= 0 || n > most {
            let why = format!("must be positive and less than {most}");
            out.push(Cause::invalid(format!("spec.{f}"), &n.into(), &why));
        }
    }
    let (sure, loose) = (!s(spec, "/caBundle").is_empty(), spec["insecureSkipTLSVerify"] == true);
    if spec["service"].is_object() {
        for f in ["namespace", "name"].into_iter().filter(|f| s(spec, &format!("/service/{f}")).is_empty()) {
            out.push(Cause::required(format!("spec.service.{f}"), ""));
        }
        let port = &spec["service"]["port"];
        if port.as_i64().is_some_and(|n| !(1..=65_535).contains(&n)) {
            let why = "port is not valid: must be between 1 and 65535, inclusive";
            out.push(Cause::invalid("spec.service.port", port, why));
        }
        if sure && loose {
            let why = "may not be true if caBundle is present";
            out.push(Cause::invalid("spec.insecureSkipTLSVerify", &true.into(), why));
        }
    } else if loose {
        let why = "local APIServices may not have insecureSkipTLSVerify";
        out.push(Cause::invalid("spec.insecureSkipTLSVerify", &true.into(), why));
    }
}

fn role(kind: &Kind, obj: &Value, out: &mut Vec<Cause>) {
    if obj["aggregationRule"].is_object() {
        let (at, list) = ("aggregationRule.clusterRoleSelectors", arr(obj, "/aggregationRule/clusterRoleSelectors"));
        if list.is_empty() {
            let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            out.push(Cause::required(at, why));
        }
        for (i, one) in list.iter().enumerate() {
            let before = out.len();
            super::validate::selector(one, &format!("{at}[{i}]"), out);
            if out.len() > before {
                out.push(Cause::invalid(format!("{at}[{i}]"), &Value::Null, "invalid label selector."));
            }
        }
    }
    for (i, r) in arr(obj, "/rules").iter().enumerate() {
        let none = |f: &str| r[f].as_array().is_none_or(Vec::is_empty);
        let at = |f: &str| format!("rules[{i}].{f}");
        if none("verbs") {
            out.push(Cause::required(at("verbs"), "verbs must contain at least one value"));
        }
        if !none("nonResourceURLs") {
            let mut say = |why: &str| out.push(Cause::invalid(at("nonResourceURLs"), &r["nonResourceURLs"], why));
            if kind.namespaced {
                say("namespaced rules cannot apply to non-resource URLs");
            }
            if !(none("apiGroups") && none("resources") && none("resourceNames")) {
                say("rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if none("apiGroups") {
            out.push(Cause::required(at("apiGroups"), "resource rules must supply at least one api group"));
        }
        if none("resources") {
            out.push(Cause::required(at("resources"), "resource rules must supply at least one resource"));
        }
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

fn binding(kind: &Kind, obj: &Value, out: &mut Vec<Cause>) {
    let role = &obj["roleRef"];
    one_of("roleRef.apiGroup".into(), &role["apiGroup"], &[RBAC], out);
    let roles: &[&str] = if kind.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !roles.contains(&s(role, "/kind")) {
        out.push(Cause::unsupported("roleRef.kind", &s(role, "/kind").into(), &words(roles)));
    }
    match s(role, "/name") {
        "" => out.push(Cause::required("roleRef.name", "")),
        name => super::validate::judged("roleRef.name", name, names::segment, out),
    }
    for (i, x) in arr(obj, "/subjects").iter().enumerate() {
        let at = format!("subjects[{i}]");
        let (name, sort, group) = (s(x, "/name"), s(x, "/kind"), s(x, "/apiGroup"));
        if name.is_empty() {
            out.push(Cause::required(format!("{at}.name"), ""));
        }
        match sort {
            "ServiceAccount" => {
                if !name.is_empty() {
                    super::validate::judged(format!("{at}.name"), name, names::subdomain, out);
                }
                if !group.is_empty() {
                    out.push(Cause::unsupported(format!("{at}.apiGroup"), &group.into(), &words(&[""])));
                }
                if !kind.namespaced && s(x, "/namespace").is_empty() {
                    out.push(Cause::required(format!("{at}.namespace"), ""));
                }
            }
            "User" | "Group" => {
                if group != RBAC {
                    out.push(Cause::unsupported(format!("{at}.apiGroup"), &group.into(), &words(&[RBAC])));
                }
            }
            _ => {
                let sorts = words(&["ServiceAccount", "User", "Group"]);
                out.push(Cause::unsupported(format!("{at}.kind"), &sort.into(), &sorts));
            }
        }
    }
}
