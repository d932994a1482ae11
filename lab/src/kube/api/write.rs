//! `create`, `replace`, `delete`, `deletecollection`.
use serde_json::{Value, json};

use super::read::{self, namespace};
use super::route::Target;
use super::{Answer, Call, csr, decode, events, options};
use crate::kube::dynamic::{self, Attributes};
use crate::kube::hooks;
use crate::kube::schema::{Kind, remarks};
use crate::kube::store::delete::DeleteOptions;
use crate::kube::store::write::Written;
use crate::kube::store::{Deleted, Failure, Propagation, Store, admission, meta};

/// Kinds that take no update without a resourceVersion, beside the custom ones.
const VERSIONED: &[&str] = &[
    "Lease",
    "PodDisruptionBudget",
    "CustomResourceDefinition",
    "APIService",
    "RuntimeClass",
    "CSIDriver",
    "CSINode",
    "VolumeAttachment",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "FlowSchema",
    "PriorityLevelConfiguration",
];

/// Kinds that an update makes where there is none yet.
const MADE: &[(&str, &str)] = &[
    ("", "Endpoints"),
    ("", "Event"),
    ("", "LimitRange"),
    ("", "Service"),
    ("coordination.k8s.io", "Lease"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
];

/// Kinds whose dependents stay unless somebody says otherwise.
const LEFT: &[(&str, &str)] = &[("batch", "Job"), ("", "ReplicationController")];

fn among(list: &[(&str, &str)], kind: &Kind) -> bool {
    list.iter().any(|(g, k)| *g == kind.group && *k == kind.kind)
}

const JOB_LEFT: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

pub(super) fn answer(w: &Written, mut warnings: Vec<String>) -> Answer {
    warnings.extend(w.warnings.iter().cloned());
    Answer { code: if w.created { 201 } else { 200 }, body: (*w.object).clone(), warnings }
}

/// The controllers will look at what changed.
pub(super) fn ring(call: &Call<'_>) {
    call.lab.with(|w| hooks::changed(call.lab, w, call.cluster));
}

/// The name in the body is the one in the path.
///
/// # Errors
/// 400 when it is not.
pub(super) fn named(obj: &Value, name: &str) -> Result<(), Failure> {
    match meta::name(obj) {
        n if n == name => Ok(()),
        "" => {
            let why = format!("the name of the object ({name} based on URL) was undeterminable: name must be provided");
            Err(Failure::bad_request(why))
        }
        n => {
            let why = format!("the name of the object ({n}) does not match the name on the URL ({name})");
            Err(Failure::bad_request(why))
        }
    }
}

/// POST to a collection.
///
/// # Errors
/// 400, 409, 422.
pub fn create(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let o = decode::write_options(call, "CreateOptions", "")?;
    let (mut obj, mut warnings) = decode::object(call, kind, t)?;
    let read = warnings.clone();
    warnings.extend(remarks::of(kind, &obj, None));
    if events::asked(t) {
        events::check(kind, &obj)?;
    }
    if csr::is(kind) {
        csr::asked_by(&call.user, &mut obj);
        csr::check(kind, &obj)?;
    }
    if !matches!(meta::text(&obj, "resourceVersion"), "" | "0") {
        return Err(Failure::unforeseen("resourceVersion should not be set on objects to be created"));
    }
    let w = read::store(call, &kind.resource(), |s| {
        let spec = remarks::pod_spec(kind, &obj);
        warnings.extend(spec.and_then(|spec| admission::warned(s, namespace(kind, t), spec, &call.user.name)));
        // what is invalid is not spoken of
        s.create_as(kind, obj, &o).map_err(|f| if f.code == 409 { f.warning(&warnings) } else { f.warning(&read) })
    })?;
    ring(call);
    let mut a = answer(&w, warnings);
    if kind.kind == "CustomResourceDefinition" {
        // its names are accepted a moment later
        let kept = a.body["status"]["storedVersions"].clone();
        a.body["status"] =
            json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": kept});
    }
    Ok(Answer { code: 201, ..a })
}

/// PUT of an object.
///
/// # Errors
/// 400, 404, 409, 422.
pub fn replace(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    replace_sub(call, kind, t, "")
}

/// PUT of an object or of its status.
///
/// # Errors
/// As [`replace`].
pub(super) fn replace_sub(call: &Call<'_>, kind: &Kind, t: &Target, sub: &str) -> Result<Answer, Failure> {
    let name = t.name.as_deref().unwrap_or_default();
    let o = decode::write_options(call, "UpdateOptions", sub)?;
    let (obj, mut warnings) = decode::object(call, kind, t)?;
    let read = warnings.clone();
    named(&obj, name)?;
    let bare = matches!(meta::text(&obj, "resourceVersion"), "" | "0");
    let w = read::store(call, &kind.resource(), |s| {
        let old = s.get(&kind.resource(), namespace(kind, t), name);
        let known = old.is_some();
        warnings.extend(remarks::of(kind, &obj, old));
        if !known && sub.is_empty() && among(MADE, kind) {
            if !meta::uid(&obj).is_empty() {
                return Err(Failure::other_uid(kind, namespace(kind, t), name, meta::uid(&obj), ""));
            }
            return s.create_as(kind, obj, &o);
        }
        if let Some(old) = old.filter(|_| events::asked(t)) {
            events::unchanged(kind, old, &obj)?;
        }
        if known && bare && (kind.custom || VERSIONED.contains(&kind.kind.as_str())) {
            return Err(Failure::unversioned(kind, name));
        }
        s.replace_as(kind, namespace(kind, t), name, obj, &o).map_err(|f| f.warning(&read))
    })?;
    ring(call);
    Ok(answer(&w, warnings))
}

/// What answers the deletion of an object that is gone.
pub(super) fn gone(kind: &Kind, obj: &Value) -> Value {
    let mut details = json!({"name": meta::name(obj)});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    details["kind"] = json!(kind.plural);
    details["uid"] = json!(meta::uid(obj));
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Options of a delete.
///
/// # Errors
/// 400 when the body cannot be read or is something else, 422 for options that are not valid.
fn delete_options(call: &Call<'_>) -> Result<(DeleteOptions, Value), Failure> {
    let body = if call.req.body.is_empty() { Value::Null } else { decode::body(call.req)? };
    let kind = body["kind"].as_str().unwrap_or("DeleteOptions");
    if !matches!(kind, "DeleteOptions") {
        let version = body["apiVersion"].as_str().unwrap_or("v1");
        let place = "scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"";
        let why = format!("no kind \"{kind}\" is registered for version \"{version}\" in {place}");
        return Err(Failure::bad_request(why));
    }
    Ok((options::delete(call.req, &body)?, body))
}

/// Asks policies and webhooks about a deletion; with what the client is to be warned of.
fn admitted(
    call: &Call<'_>,
    store: &Store,
    kind: &Kind,
    (namespace, name): (&str, &str),
    o: &DeleteOptions,
) -> Result<Vec<String>, Failure> {
    let Some(old) = store.get(&kind.resource(), namespace, name) else { return Ok(Vec::new()) };
    let a = Attributes {
        kind,
        operation: "DELETE",
        namespace,
        name,
        subresource: "",
        object: None,
        old: Some(old),
        user: &call.user,
        dry_run: o.dry_run,
    };
    dynamic::mutating(store, &a)?;
    dynamic::validating(store, &a)
}

/// DELETE of an object.
///
/// # Errors
/// 404, 409.
pub fn delete(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let name = t.name.as_deref().unwrap_or_default();
    let (mut o, body) = delete_options(call)?;
    let mut warnings = Vec::new();
    if !options::names_policy(call.req, &body) && among(LEFT, kind) {
        o.propagation = Propagation::Orphan;
        warnings.extend((kind.kind == "Job").then(|| JOB_LEFT.to_owned()));
    }
    let d = read::store(call, &kind.resource(), |s| {
        warnings.extend(admitted(call, s, kind, (namespace(kind, t), name), &o)?);
        s.delete_as(kind, namespace(kind, t), name, &o)
    })?;
    ring(call);
    // who said in the old way that dependents go is told that it takes time
    let takes_time = matches!(d, Deleted::Marked(_))
        && (body["orphanDependents"] == false || call.req.query.text("orphanDependents") == Some("false"));
    let body = match d {
        Deleted::Gone(obj) if kind.returned() => (*obj).clone(),
        Deleted::Gone(obj) => gone(kind, &obj),
        Deleted::Marked(obj) => (*obj).clone(),
    };
    Ok(Answer { code: if takes_time { 202 } else { 200 }, body, warnings })
}

/// DELETE of a collection.
///
/// # Errors
/// 400 for bad selectors.
pub fn delete_collection(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    if kind.goes_alone() {
        return Err(Failure::not_allowed());
    }
    let (o, _) = delete_options(call)?;
    options::list(call.req)?;
    let (items, meta) = read::chosen(call, kind, t)?;
    for obj in &items {
        let (ns, name) = (meta::namespace(obj).to_owned(), meta::name(obj).to_owned());
        let gone = read::store(call, &kind.resource(), |s| {
            admitted(call, s, kind, (&ns, &name), &o)?;
            s.delete_as(kind, &ns, &name, &o)
        });
        match gone {
            Err(f) if f.code != 404 => return Err(f),
            _ => {}
        }
    }
    ring(call);
    let list: Vec<Value> = items.iter().map(|o| read::bare(o, kind)).collect();
    Ok(Answer::ok(json!({
        "kind": kind.list_kind(), "apiVersion": kind.api_version(),
        "metadata": meta, "items": list,
    })))
}
