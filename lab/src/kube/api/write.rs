//! `create`, `replace`, `patch`, `delete`, `deletecollection`.
use serde_json::{Value, json};

use super::read::{self, namespace};
use super::route::Target;
use super::{Answer, Call, decode};
use crate::kube::hooks;
use crate::kube::schema::Kind;
use crate::kube::schema::node::{Field, Node};
use crate::kube::store::write::Written;
use crate::kube::store::{Deleted, Failure, meta, patch as patches};

/// Unknown fields of an object, as paths.
fn unknown(node: Node<'_>, v: &Value, path: &str, out: &mut Vec<String>) {
    match v {
        Value::Object(map) => {
            for (k, x) in map {
                let sub = if path.is_empty() { k.clone() } else { format!("{path}.{k}") };
                match node.field(k) {
                    Field::Unknown => out.push(sub),
                    _ => unknown(node.down(k), x, &sub, out),
                }
            }
        }
        Value::Array(list) => {
            for (i, x) in list.iter().enumerate() {
                unknown(node.items(), x, &format!("{path}[{i}]"), out);
            }
        }
        _ => {}
    }
}

/// `fieldValidation`: Strict refuses unknown fields, Warn names them.
fn validate(call: &Call<'_>, kind: &Kind, obj: &Value) -> Result<Vec<String>, Failure> {
    let mode = call.req.query.text("fieldValidation").unwrap_or("Warn");
    if mode == "Ignore" {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let mut body = obj.clone();
    if let Some(m) = body.as_object_mut() {
        for k in ["apiVersion", "kind", "metadata"] {
            m.shift_remove(k);
        }
    }
    unknown(Node::of(kind), &body, "", &mut found);
    let texts: Vec<String> = found.iter().map(|p| format!("unknown field \"{p}\"")).collect();
    if mode == "Strict" && !texts.is_empty() {
        let why = format!(
            "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {}",
            kind.kind,
            kind.version,
            kind.kind,
            texts.join(", ")
        );
        return Err(Failure::bad_request(why));
    }
    Ok(texts)
}

/// The body is of the kind the path names, in the namespace the path names.
fn fits(kind: &Kind, t: &Target, obj: &mut Value) -> Result<(), Failure> {
    let (av, k) = (obj["apiVersion"].as_str().unwrap_or_default(), obj["kind"].as_str().unwrap_or_default());
    if !(av.is_empty() && k.is_empty()) && (av != kind.api_version() || k != kind.kind) {
        let why =
            format!("{k} in version \"{av}\" cannot be handled as a {}: no kind \"{k}\" is registered here", kind.kind);
        return Err(Failure::bad_request(why));
    }
    if !obj.is_object() {
        return Err(Failure::bad_request("the object provided is unrecognized (must be of type object)"));
    }
    obj["apiVersion"] = json!(kind.api_version());
    obj["kind"] = json!(kind.kind);
    let own = meta::namespace(obj).to_owned();
    if kind.namespaced && !own.is_empty() && own != t.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta::edit(obj, |m| {
        if kind.namespaced {
            m.insert("namespace".into(), t.namespace.clone().into());
        } else {
            m.shift_remove("namespace");
        }
    });
    Ok(())
}

fn answer(w: &Written, warnings: Vec<String>) -> Answer {
    Answer { code: if w.created { 201 } else { 200 }, body: (*w.object).clone(), warnings }
}

/// The controllers will look at what changed.
pub(super) fn ring(call: &Call<'_>) {
    call.lab.with(|w| hooks::changed(call.lab, w, call.cluster));
}

/// POST to a collection.
///
/// # Errors
/// 400, 409, 422.
pub fn create(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let mut obj = decode::body(call.req)?;
    fits(kind, t, &mut obj)?;
    let warnings = validate(call, kind, &obj)?;
    let o = decode::write_options(call, kind, "")?;
    let w = read::store(call, &kind.resource(), |s| s.create_as(kind, obj, &o))?;
    ring(call);
    Ok(Answer { code: 201, ..answer(&w, warnings) })
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
    let mut obj = decode::body(call.req)?;
    fits(kind, t, &mut obj)?;
    if meta::name(&obj) != name {
        let why = format!("the name of the object ({}) does not match the name on the URL ({name})", meta::name(&obj));
        return Err(Failure::bad_request(why));
    }
    let warnings = validate(call, kind, &obj)?;
    let o = decode::write_options(call, kind, sub)?;
    let w = read::store(call, &kind.resource(), |s| s.replace_as(kind, namespace(kind, t), name, obj, &o))?;
    ring(call);
    Ok(answer(&w, warnings))
}

/// PATCH of an object.
///
/// # Errors
/// 400, 404, 409, 415, 422.
pub fn patch(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    patch_sub(call, kind, t, "")
}

/// PATCH of an object or of its status.
///
/// # Errors
/// As [`patch`].
pub(super) fn patch_sub(call: &Call<'_>, kind: &Kind, t: &Target, sub: &str) -> Result<Answer, Failure> {
    let (name, ns) = (t.name.as_deref().unwrap_or_default(), namespace(kind, t));
    let o = decode::write_options(call, kind, sub)?;
    let q = &call.req.query;
    if call.req.content_type.starts_with("application/apply-patch") {
        let text = std::str::from_utf8(&call.req.body).map_err(|e| Failure::bad_request(e.to_string()))?;
        let mut obj: Value =
            serde_saphyr::from_str(text).map_err(|e| Failure::bad_request(format!("error decoding YAML: {e}")))?;
        if q.text("fieldManager").is_none() {
            let why =
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
            return Err(Failure::new(422, "Invalid", why));
        }
        if !obj["metadata"]["managedFields"].is_null() {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        fits(kind, t, &mut obj)?;
        let warnings = validate(call, kind, &obj)?;
        let w = read::store(call, &kind.resource(), |s| s.apply_as(kind, ns, name, obj, &o, q.flag("force")))?;
        ring(call);
        return Ok(answer(&w, warnings));
    }
    let change = decode::body(call.req)?;
    let how = call.req.content_type.as_str();
    let w = read::store(call, &kind.resource(), |s| {
        let old = s.arc(&kind.resource(), ns, name).cloned().ok_or_else(|| Failure::not_found(kind, name))?;
        let mut new = (*old).clone();
        match how {
            "application/merge-patch+json" => patches::merge(&mut new, &change),
            "application/strategic-merge-patch+json" if kind.custom => {
                let why = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
                return Err(Failure::new(415, "UnsupportedMediaType", why));
            }
            "application/strategic-merge-patch+json" => patches::strategic(Node::of(kind), &mut new, &change),
            "application/json-patch+json" => patches::json(&mut new, &change)?,
            _ => {
                let why = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";
                return Err(Failure::new(415, "UnsupportedMediaType", why));
            }
        }
        if meta::name(&new) != name {
            return Err(Failure::bad_request("the name of the object does not match the name on the URL"));
        }
        s.replace_as(kind, ns, name, new, &o)
    })?;
    ring(call);
    Ok(answer(&w, Vec::new()))
}

fn gone(kind: &Kind, obj: &Value) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": meta::name(obj), "group": kind.group, "kind": kind.plural, "uid": meta::uid(obj)},
    })
}

/// DELETE of an object.
///
/// # Errors
/// 404, 409.
pub fn delete(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let name = t.name.as_deref().unwrap_or_default();
    let o = decode::delete_options(call)?;
    let d = read::store(call, &kind.resource(), |s| s.delete_as(kind, namespace(kind, t), name, &o))?;
    ring(call);
    Ok(Answer::ok(match d {
        Deleted::Gone(obj) if kind.plural == "pods" => (*obj).clone(),
        Deleted::Gone(obj) => gone(kind, &obj),
        Deleted::Marked(obj) => (*obj).clone(),
    }))
}

/// DELETE of a collection.
///
/// # Errors
/// 400 for bad selectors.
pub fn delete_collection(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let o = decode::delete_options(call)?;
    let (items, rv, _) = read::selected(call, kind, t)?;
    for obj in &items {
        let (ns, name) = (meta::namespace(obj).to_owned(), meta::name(obj).to_owned());
        read::store(call, &kind.resource(), |s| s.delete_as(kind, &ns, &name, &o))?;
    }
    ring(call);
    let list: Vec<Value> = items.iter().map(|o| (**o).clone()).collect();
    Ok(Answer::ok(json!({
        "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": rv.to_string()}, "items": list,
    })))
}
