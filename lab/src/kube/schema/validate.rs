//! What makes an object invalid (422): names, labels, required and immutable fields, custom schemas.
#![allow(clippy::collapsible_match)] // one arm per kind reads better
use serde_json::Value;

use super::node::{Field, Node};
use super::{Kind, custom, rules};
use crate::kube::store::{Cause, Failure, Store, meta};

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(super) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

fn edges(s: &str, ok: impl Fn(char) -> bool) -> bool {
    s.chars().next().is_some_and(&ok) && s.chars().last().is_some_and(&ok)
}

/// Whether a text is a DNS label, or a subdomain where dots may be in it.
pub(super) fn dns(s: &str, dots: bool) -> bool {
    let part = |p: &str| {
        edges(p, |c| c.is_ascii_lowercase() || c.is_ascii_digit())
            && p.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if dots { s.len() <= 253 && s.split('.').all(part) } else { s.len() <= 63 && part(s) }
}

fn word(s: &str) -> bool {
    s.len() <= 63
        && edges(s, |c| c.is_ascii_alphanumeric())
        && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Checks metadata; as in the real server each of its `times` layers complains about labels by itself.
fn metadata(kind: &Kind, obj: &Value, times: usize, out: &mut Vec<Cause>) {
    let name = meta::name(obj);
    let strict = matches!(kind.kind.as_str(), "Namespace" | "Service");
    let loose = kind.group == "rbac.authorization.k8s.io";
    if strict && !dns(name, false) {
        out.push(Cause::invalid("metadata.name", &name.into(), LABEL));
    } else if !strict && !loose && !dns(name, true) {
        out.push(Cause::invalid("metadata.name", &name.into(), SUBDOMAIN));
    }
    for _ in 0..times {
        labels(&obj["metadata"]["labels"], "metadata.labels", out);
    }
    for (k, v) in obj["metadata"]["annotations"].as_object().into_iter().flatten() {
        if !v.is_string() {
            out.push(Cause::invalid(format!("metadata.annotations.{k}"), v, "must be a string"));
        }
    }
}

fn labels(v: &Value, path: &str, out: &mut Vec<Cause>) {
    for (k, v) in v.as_object().into_iter().flatten() {
        let (prefix, part) = k.rsplit_once('/').map_or((None, k.as_str()), |(p, n)| (Some(p), n));
        if !word(part) || prefix.is_some_and(|p| !dns(p, true)) {
            out.push(Cause::invalid(path, &k.as_str().into(), QUALIFIED));
        }
        let text = v.as_str().unwrap_or_default();
        if !text.is_empty() && !word(text) {
            let why = if text.len() > 63 { "must be no more than 63 bytes" } else { LABEL_VALUE };
            out.push(Cause::invalid(path, v, why));
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
pub fn create(store: &Store, kind: &Kind, obj: &Value) -> Result<(), Failure> {
    let mut causes = Vec::new();
    metadata(kind, obj, 2, &mut causes);
    if kind.group.is_empty() && kind.kind == "Service" {
        causes.extend(super::addresses::trouble(store, obj));
    }
    body(kind, obj, None, &mut causes);
    finish(kind, obj, &causes)
}

/// Checks a changed object.
///
/// # Errors
/// 422 with every cause.
pub fn update(_store: &Store, kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let mut causes = Vec::new();
    metadata(kind, new, 3, &mut causes);
    body(kind, new, Some(old), &mut causes);
    immutable(kind, old, new, &mut causes);
    if meta::deleting(old) {
        let had = meta::finalizers(old);
        let fresh: Vec<&str> = meta::finalizers(new).into_iter().filter(|f| !had.contains(f)).collect();
        if !fresh.is_empty() {
            causes.push(Cause {
                reason: "FieldValueForbidden",
                field: "metadata.finalizers".into(),
                message: format!(
                    "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{\"{}\"}}",
                    fresh.join("\", \"")
                ),
            });
        }
    }
    finish(kind, new, &causes)
}

/// Fields that never change: (kind, pointer, shown path).
const IMMUTABLE: &[(&str, &str)] = &[
    ("Deployment", "/spec/selector"),
    ("DaemonSet", "/spec/selector"),
    ("StatefulSet", "/spec/selector"),
    ("StatefulSet", "/spec/serviceName"),
    ("Job", "/spec/selector"),
    ("Job", "/spec/template"),
    ("Job", "/spec/completions"),
    ("StorageClass", "/parameters"),
    ("StorageClass", "/provisioner"),
    ("StorageClass", "/volumeBindingMode"),
    ("PersistentVolumeClaim", "/spec/storageClassName"),
    ("PersistentVolumeClaim", "/spec/accessModes"),
    ("RoleBinding", "/roleRef"),
    ("ClusterRoleBinding", "/roleRef"),
    ("Secret", "/type"),
    ("PriorityClass", "/value"),
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
                "StorageClass" => Cause {
                    reason: "FieldValueForbidden",
                    message: format!("Forbidden: updates to {field} are forbidden."),
                    field,
                },
                "PersistentVolumeClaim" => Cause {
                    reason: "FieldValueForbidden",
                    field: "spec".into(),
                    message: "Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims".into(),
                },
                "PriorityClass" => Cause {
                    reason: "FieldValueForbidden",
                    field,
                    message: "Forbidden: may not be changed in an update.".into(),
                },
                "RoleBinding" | "ClusterRoleBinding" => {
                    Cause::invalid(field, b.unwrap_or(&Value::Null), "cannot change roleRef")
                }
                _ => Cause::invalid(field, b.unwrap_or(&Value::Null), "field is immutable"),
            });
        }
    }
    if kind.kind == "Pod" && frozen(old) != frozen(new) {
        out.push(Cause {
            reason: "FieldValueForbidden",
            field: "spec".into(),
            message: "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)".into(),
        });
    }
    if kind.kind == "Service"
        && old["spec"]["clusterIP"] != new["spec"]["clusterIP"]
        && old["spec"]["clusterIP"].is_string()
        && new["spec"]["type"] != "ExternalName"
    {
        out.push(Cause::invalid("spec.clusterIPs[0]", &new["spec"]["clusterIP"], "may not change once set"));
    }
    if (kind.kind == "ConfigMap" || kind.kind == "Secret")
        && old["immutable"] == true
        && (old["data"] != new["data"] || new["immutable"] != true)
    {
        out.push(Cause {
            reason: "FieldValueForbidden",
            field: "data".into(),
            message: "Forbidden: field is immutable when `immutable` is set".into(),
        });
    }
}

/// What of a pod's spec never changes.
fn frozen(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    let Some(m) = spec.as_object_mut() else { return spec };
    for list in ["containers", "initContainers"] {
        for c in m.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            c["image"] = Value::Null;
        }
    }
    for free in [
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "schedulingGates",
        "ephemeralContainers",
    ] {
        m.shift_remove(free);
    }
    spec
}

fn body(kind: &Kind, obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let node = Node::of(kind);
    if kind.custom {
        custom::check(node, obj, old, out);
        return;
    }
    if let Some(spec) = obj.get("spec") {
        required(node.down("spec"), "spec", spec, out);
    } else if matches!(kind.kind.as_str(), "Pod" | "Deployment" | "DaemonSet" | "StatefulSet" | "Job" | "CronJob") {
        out.push(Cause::required("spec", ""));
    }
    rules::check(kind, obj, out);
    match kind.kind.as_str() {
        "Pod" => containers(&obj["spec"], "spec", &[], out),
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job" => {
            let claims: Vec<&str> = obj["spec"]["volumeClaimTemplates"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|c| c["metadata"]["name"].as_str())
                .collect();
            containers(&obj["spec"]["template"]["spec"], "spec.template.spec", &claims, out);
            template_labels(obj, out);
            let policy = &obj["spec"]["template"]["spec"]["restartPolicy"];
            let job = kind.kind == "Job";
            let known = matches!(policy.as_str(), Some("Always" | "OnFailure" | "Never"));
            if known && (*policy == "Always") == job {
                let allowed: &[String] = if job { &["OnFailure".into(), "Never".into()] } else { &["Always".into()] };
                out.push(Cause::unsupported("spec.template.spec.restartPolicy", policy, allowed));
            }
        }
        "Service"
            if !matches!(obj["spec"]["clusterIP"].as_str(), Some("None")) && obj["spec"]["type"] != "ExternalName" =>
        {
            if obj["spec"]["ports"].as_array().is_none_or(Vec::is_empty) {
                out.push(Cause::required("spec.ports", ""));
            }
        }
        "PersistentVolumeClaim" => {
            if obj["spec"]["accessModes"].as_array().is_none_or(Vec::is_empty) {
                out.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
            }
            if obj["spec"]["resources"]["requests"]["storage"].is_null() {
                out.push(Cause::required("spec.resources[storage]", ""));
            }
        }
        "StorageClass" if obj["provisioner"].as_str().is_none_or(str::is_empty) => {
            out.push(Cause::required("provisioner", ""))
        }
        "CustomResourceDefinition" => {
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
        _ => {}
    }
}

fn template_labels(obj: &Value, out: &mut Vec<Cause>) {
    let labels = &obj["spec"]["template"]["metadata"]["labels"];
    let want = obj["spec"]["selector"]["matchLabels"].as_object();
    if want.into_iter().flatten().any(|(k, v)| labels[k] != *v) {
        let shown = if labels.is_null() { Value::Null } else { labels.clone() };
        out.push(Cause::invalid(
            "spec.template.metadata.labels",
            &shown,
            "`selector` does not match template `labels`",
        ));
    }
}

/// Containers of a pod; `claims` are volumes that come from elsewhere (claim templates).
fn containers(spec: &Value, path: &str, claims: &[&str], out: &mut Vec<Cause>) {
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        if !out.iter().any(|c| c.field == format!("{path}.containers")) {
            out.push(Cause::required(format!("{path}.containers"), ""));
        }
        return;
    }
    let volumes: Vec<&str> =
        spec["volumes"].as_array().into_iter().flatten().filter_map(|v| v["name"].as_str()).collect();
    for list in ["containers", "initContainers"] {
        let mut seen: Vec<&str> = Vec::new();
        for (i, c) in spec[list].as_array().into_iter().flatten().enumerate() {
            let at = format!("{path}.{list}[{i}]");
            if c["image"].as_str().is_none_or(str::is_empty) {
                out.push(Cause::required(format!("{at}.image"), ""));
            }
            let name = c["name"].as_str().unwrap_or_default();
            if seen.contains(&name) {
                out.push(Cause {
                    reason: "FieldValueDuplicate",
                    field: format!("{at}.name"),
                    message: format!("Duplicate value: \"{name}\""),
                });
            }
            seen.push(name);
            for (j, m) in c["volumeMounts"].as_array().into_iter().flatten().enumerate() {
                let v = m["name"].as_str().unwrap_or_default();
                if !volumes.contains(&v) && !claims.contains(&v) {
                    out.push(Cause {
                        reason: "FieldValueNotFound",
                        field: format!("{at}.volumeMounts[{j}].name"),
                        message: format!("Not found: \"{v}\""),
                    });
                }
            }
        }
    }
}

/// Required fields of built-in types.
fn required(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    match v {
        Value::Object(m) => {
            for r in node.required() {
                if m.get(r).is_none_or(Value::is_null) && !matches!(r, "metadata" | "status" | "mountPath") {
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
