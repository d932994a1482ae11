//! What makes an object invalid (422): names, labels, required and immutable fields, custom schemas.
#![allow(clippy::collapsible_match)] // one arm per kind reads better
use serde_json::Value;

use super::names::{self, Judge};
use super::node::{Field, Node};
use super::{Kind, custom, jobs, limits, podupdate, rules, states, statuses, workloads};
use crate::kube::store::{Cause, Failure, meta};

/// Most bytes of all annotations of an object together.
const NOTES: usize = 256 * 1024;

/// How a kind's objects may be called.
fn judge(kind: &Kind) -> Judge {
    match kind.kind.as_str() {
        _ if kind.custom => names::subdomain,
        "Namespace" | "StatefulSet" => names::label,
        "Service" => names::label_1035,
        "IPAddress" => names::address,
        "Event" | "PodDisruptionBudget" | "CertificateSigningRequest" | "APIService" => names::segment,
        _ if kind.group == "rbac.authorization.k8s.io" => names::segment,
        _ => names::subdomain,
    }
}

/// What `judge` has against a text.
pub(super) fn judged(at: impl Into<String>, text: &str, judge: Judge, out: &mut Vec<Cause>) {
    let at = at.into();
    out.extend(judge(text).iter().map(|why| Cause::invalid(at.as_str(), &text.into(), why)));
}

/// Checks what is in metadata whether an object is new or not.
fn metadata(obj: &Value, out: &mut Vec<Cause>) {
    described(obj, out);
    let all = meta::finalizers(obj);
    all.iter().for_each(|f| judged("metadata.finalizers", f, names::key, out));
    if ["orphan", "foregroundDeletion"].iter().all(|f| all.contains(f)) {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        out.push(Cause::invalid("metadata.finalizers", &all.into(), why));
    }
}

pub(super) fn described(obj: &Value, out: &mut Vec<Cause>) {
    labels(&obj["metadata"]["labels"], "metadata.labels", out);
    annotations(&obj["metadata"]["annotations"], "metadata.annotations", out);
    owners(&obj["metadata"]["ownerReferences"], out);
}

/// Checks how metadata changed; each layer of the real server does it by itself.
fn changed(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    if meta::deleting(old) {
        let had = meta::finalizers(old);
        let mut fresh: Vec<&str> = meta::finalizers(new).into_iter().filter(|f| !had.contains(f)).collect();
        fresh.sort_unstable();
        if !fresh.is_empty() {
            let why = "no new finalizers can be added if the object is being deleted, found new finalizers";
            let list = format!("[]string{{\"{}\"}}", fresh.join("\", \""));
            out.push(rules::forbidden("metadata.finalizers", &format!("{why} {list}")));
        }
    }
    described(new, out);
}

/// Built-in kinds have finalizers with a domain, or the machinery's own.
fn finalizers(kind: &Kind, obj: &Value, out: &mut Vec<Cause>) {
    for (i, f) in meta::finalizers(obj).into_iter().enumerate().filter(|_| !kind.custom) {
        finalizer(format!("metadata.finalizers[{i}]"), f, out);
    }
}

fn finalizer(at: String, f: &str, out: &mut Vec<Cause>) {
    judged(at.as_str(), f, names::key, out);
    if !f.contains('/') && !matches!(f, "kubernetes" | "orphan" | "foregroundDeletion") {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        out.push(Cause::invalid(at, &f.into(), why));
    }
}

/// Checks who holds a namespace; whether each has a place of its own in the words.
fn held(obj: &Value, placed: bool, out: &mut Vec<Cause>) {
    for (i, f) in obj["spec"]["finalizers"].as_array().into_iter().flatten().enumerate() {
        let at = if placed { format!("spec.finalizers[{i}]") } else { "spec.finalizers".to_owned() };
        finalizer(at, f.as_str().unwrap_or_default(), out);
    }
}

/// Checks the holders that are to be left of a namespace.
///
/// # Errors
/// 422 with every cause.
pub fn finalize(kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let mut causes = Vec::new();
    metadata(new, &mut causes);
    changed(old, new, &mut causes);
    changed(old, new, &mut causes);
    held(new, true, &mut causes);
    finish(kind, new, &causes)
}

/// Refuses an update that says that an object ends: only a deletion does.
///
/// # Errors
/// 422 with every cause.
pub fn ends(kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let mut causes = Vec::new();
    for f in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        if old["metadata"][f].is_null() {
            rules::immutable(&format!("metadata.{f}"), &new["metadata"][f], Some(&Value::Null), &mut causes);
        }
    }
    // looked at by the generic rules and by those of the kind
    causes.extend(causes.clone());
    finish(kind, new, &causes)
}

/// Checks a label selector.
pub(in crate::kube) fn selector(v: &Value, path: &str, out: &mut Vec<Cause>) {
    labels(&v["matchLabels"], &format!("{path}.matchLabels"), out);
    for (i, e) in v["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{path}.matchExpressions[{i}]");
        let values = e["values"].as_array().map_or(&[][..], Vec::as_slice);
        match e["operator"].as_str() {
            Some("In" | "NotIn") if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                out.push(Cause::required(format!("{at}.values"), why));
            }
            Some("Exists" | "DoesNotExist") if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                out.push(rules::forbidden(&format!("{at}.values"), why));
            }
            Some("In" | "NotIn" | "Exists" | "DoesNotExist") => {}
            _ => out.push(Cause::invalid(format!("{at}.operator"), &e["operator"], "not a valid selector operator")),
        }
        judged(format!("{at}.key"), e["key"].as_str().unwrap_or_default(), names::key, out);
        for (j, v) in values.iter().enumerate() {
            judged(format!("{at}.values[{j}]"), v.as_str().unwrap_or_default(), names::value, out);
        }
    }
}

/// Checks the name of a new object.
fn name(kind: &Kind, obj: &Value, out: &mut Vec<Cause>) {
    let judge = judge(kind);
    let start = meta::text(obj, "generateName");
    let wrong = judge(&names::beginning(start));
    if !start.is_empty() {
        out.extend(wrong.iter().map(|why| Cause::invalid("metadata.generateName", &start.into(), why)));
    }
    match meta::name(obj) {
        "" => out.push(Cause::required("metadata.name", "name or generateName is required")),
        name => judged("metadata.name", name, judge, out),
    }
    if kind.kind == "CronJob" && meta::name(obj).len() > 52 {
        out.push(Cause::invalid("metadata.name", &meta::name(obj).into(), "must be no more than 52 characters"));
    }
}

/// Checks labels.
pub(super) fn labels(v: &Value, path: &str, out: &mut Vec<Cause>) {
    for (k, v) in v.as_object().into_iter().flatten() {
        judged(path, k, names::key, out);
        judged(path, v.as_str().unwrap_or_default(), names::value, out);
    }
}

/// Checks annotations.
pub(super) fn annotations(v: &Value, path: &str, out: &mut Vec<Cause>) {
    let mut size = 0;
    for (k, v) in v.as_object().into_iter().flatten() {
        let wrong = names::key(&k.to_lowercase());
        out.extend(wrong.iter().map(|why| Cause::invalid(path, &k.as_str().into(), why)));
        size += k.len() + v.as_str().map_or(0, str::len);
    }
    if size > NOTES {
        let message = format!("Too long: may not be more than {NOTES} bytes");
        out.push(Cause { reason: "FieldValueTooLong", field: path.to_owned(), message });
    }
}

const OWNERS: &str = "metadata.ownerReferences";

fn owners(list: &Value, out: &mut Vec<Cause>) {
    let mut controller: Option<String> = None;
    for r in list.as_array().into_iter().flatten() {
        let text = |f: &str| r[f].as_str().unwrap_or_default();
        let version = text("apiVersion");
        if version.is_empty() || version.matches('/').count() > 1 || version.ends_with('/') {
            out.push(Cause::invalid(format!("{OWNERS}.apiVersion"), &version.into(), "version must not be empty"));
        }
        for f in ["kind", "name", "uid"].into_iter().filter(|f| text(f).is_empty()) {
            out.push(Cause::invalid(format!("{OWNERS}.{f}"), &"".into(), "must not be empty"));
        }
        if version == "v1" && text("kind") == "Event" {
            out.push(Cause::invalid(OWNERS, r, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if r["controller"] != true {
            continue;
        }
        let this = format!("{}/{}", text("kind"), text("name"));
        match &controller {
            None => controller = Some(this),
            Some(first) => {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                out.push(Cause::invalid(OWNERS, list, &why));
            }
        }
    }
}

fn finish(kind: &Kind, obj: &Value, causes: &[Cause]) -> Result<(), Failure> {
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, meta::name(obj), causes)) }
}

/// Checks a new object.
///
/// # Errors
/// 422 with every cause.
pub fn create(kind: &Kind, obj: &Value) -> Result<(), Failure> {
    let mut causes = Vec::new();
    name(kind, obj, &mut causes);
    metadata(obj, &mut causes);
    finalizers(kind, obj, &mut causes);
    if kind.group.is_empty() && kind.kind == "Namespace" {
        held(obj, false, &mut causes);
    }
    body(kind, obj, None, &mut causes);
    finish(kind, obj, &causes)
}

/// Checks a changed object.
///
/// # Errors
/// 422 with every cause.
pub fn update(kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let mut causes = Vec::new();
    metadata(new, &mut causes);
    changed(old, new, &mut causes);
    changed(old, new, &mut causes);
    finalizers(kind, new, &mut causes);
    if kind.group.is_empty() && kind.kind == "ConfigMap" {
        // a changed map is looked at as a new one once more
        described(new, &mut causes);
        finalizers(kind, new, &mut causes);
    }
    body(kind, new, Some(old), &mut causes);
    immutable(kind, old, new, &mut causes);
    finish(kind, new, &causes)
}

/// Checks a pod that gets ephemeral containers.
///
/// # Errors
/// 422 with every cause.
pub fn ephemeral(kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let mut causes = Vec::new();
    metadata(new, &mut causes);
    changed(old, new, &mut causes);
    changed(old, new, &mut causes);
    finalizers(kind, new, &mut causes);
    body(kind, new, Some(old), &mut causes);
    podupdate::ephemeral(&old["spec"], &new["spec"], &mut causes);
    finish(kind, new, &causes)
}

/// Checks a changed status.
///
/// # Errors
/// 422 with every cause.
pub fn status(kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let core = statuses::known(kind);
    if !core && (kind.custom || !states::known(kind)) {
        return update(kind, old, new);
    }
    let mut causes = Vec::new();
    metadata(new, &mut causes);
    changed(old, new, &mut causes);
    changed(old, new, &mut causes);
    if core {
        statuses::check(kind, old, new, &mut causes);
    } else {
        states::check(kind, old, new, &mut causes);
    }
    finish(kind, new, &causes)
}

/// Fields that never change: (kind, pointer, shown path).
const IMMUTABLE: &[(&str, &str)] = &[
    ("Deployment", "/spec/selector"),
    ("ReplicaSet", "/spec/selector"),
    ("RoleBinding", "/roleRef"),
    ("ClusterRoleBinding", "/roleRef"),
    ("Secret", "/type"),
];

fn immutable(kind: &Kind, old: &Value, new: &Value, out: &mut Vec<Cause>) {
    if kind.custom {
        return;
    }
    for (_, pointer) in IMMUTABLE.iter().filter(|(k, _)| *k == kind.kind) {
        let (a, b) = (old.pointer(pointer), new.pointer(pointer));
        let null = |v: Option<&Value>| v.is_none_or(Value::is_null);
        if a != b && !null(a) {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            out.push(match kind.kind.as_str() {
                "RoleBinding" | "ClusterRoleBinding" => {
                    let role = b.unwrap_or(&Value::Null);
                    let shown =
                        serde_json::json!({"APIGroup": role["apiGroup"], "Kind": role["kind"], "Name": role["name"]});
                    Cause::invalid(field, &shown, "cannot change roleRef")
                }
                _ => Cause::invalid(field, b.unwrap_or(&Value::Null), "field is immutable"),
            });
        }
    }
    match kind.kind.as_str() {
        "StatefulSet" => workloads::stateful_update(old, new, out),
        "Job" => jobs::changed(old, new, out),
        "Pod" => podupdate::check(old, new, out),
        "PersistentVolumeClaim" => limits::claim_update(old, new, out),
        "PersistentVolume" => limits::volume_update(old, new, out),
        _ => {}
    }
    if matches!(kind.kind.as_str(), "ConfigMap" | "Secret") && old["immutable"] == true {
        for f in ["immutable", "data", "binaryData"].into_iter().filter(|f| old[*f] != new[*f]) {
            out.push(rules::forbidden(f, "field is immutable when `immutable` is set"));
        }
    }
}

fn body(kind: &Kind, obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let node = Node::of(kind);
    if kind.custom {
        custom::check(node, obj, old, out);
        return;
    }
    if OWN.contains(&kind.kind.as_str()) {
        // their own rules tell what is missing, each at its place
    } else if let Some(spec) = obj.get("spec") {
        required(node.down("spec"), "spec", spec, out);
    } else if matches!(kind.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet" | "Job" | "CronJob") {
        out.push(Cause::required("spec", ""));
    }
    if kind.kind == "CustomResourceDefinition" && old.is_none() {
        named(obj, out);
    }
    rules::check(kind, obj, old, out);
}

/// A definition is called as its objects.
fn named(obj: &Value, out: &mut Vec<Cause>) {
    let want = format!(
        "{}.{}",
        obj["spec"]["names"]["plural"].as_str().unwrap_or_default(),
        obj["spec"]["group"].as_str().unwrap_or_default()
    );
    if meta::name(obj) != want {
        out.push(Cause::invalid(
            "metadata.name",
            &obj["metadata"]["name"],
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
}

/// Kinds whose own rules tell of every required field.
const OWN: &[&str] = &[
    "Pod",
    "Service",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "HorizontalPodAutoscaler",
    "Node",
    "LimitRange",
    "IPAddress",
    "ServiceCIDR",
    "CSIDriver",
    "CSINode",
    "VolumeAttachment",
    "CustomResourceDefinition",
    "MutatingAdmissionPolicy",
    "FlowSchema",
    "PriorityLevelConfiguration",
    "APIService",
    "DeviceClass",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "ResourceSlice",
];

/// Required fields that rules of their own look at, or that Go has a value for without being told.
const CHECKED: &[&str] = &[
    "paths",
    "metadata",
    "status",
    "mountPath",
    "pathType",
    "backend",
    "podSelector",
    "controller",
    "service",
    "limits",
];

/// Required fields of built-in types.
fn required(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    // rules of their own look at these
    if node.type_name().is_some_and(|t| t.ends_with("core.v1.PodSpec")) {
        return;
    }
    match v {
        Value::Object(m) => {
            for r in node.required() {
                if m.get(r).is_none_or(Value::is_null) && !CHECKED.contains(&r) {
                    out.push(Cause::required(format!("{path}.{r}"), ""));
                }
            }
            for (k, v) in m {
                if let Field::Known(sub) = node.field(k) {
                    required(sub, &format!("{path}.{k}"), v, out);
                }
            }
        }
        Value::Array(a) => {
            for (i, v) in a.iter().enumerate() {
                required(node.items(), &format!("{path}[{i}]"), v, out);
            }
        }
        _ => {}
    }
}
