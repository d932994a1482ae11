//! `get` and `list`: selectors, paging, Tables and partial metadata.
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::route::Target;
use super::{Answer, Call, table};
use crate::kube::hooks;
use crate::kube::schema::Kind;
use crate::kube::store::{Failure, Fields, Labels, Store};

/// The form a client wants an answer in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The objects.
    Plain,
    /// `meta.k8s.io/v1 Table`.
    Table,
    /// `PartialObjectMetadata`.
    Partial,
}

/// Reads the form from `Accept`.
///
/// # Errors
/// 406 when nothing acceptable is spoken.
pub fn form(accept: &str) -> Result<Form, Failure> {
    if accept.is_empty() {
        return Ok(Form::Plain);
    }
    for part in accept.split(',').map(str::trim) {
        let json = part.starts_with("application/json") || part.starts_with("*/*") || part.starts_with("application/*");
        if !json {
            continue;
        }
        if part.contains("as=Table") {
            return Ok(Form::Table);
        }
        if part.contains("as=PartialObjectMetadata") {
            return Ok(Form::Partial);
        }
        return Ok(Form::Plain);
    }
    let why = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    Err(Failure::new(406, "NotAcceptable", why))
}

/// The metadata of an object alone.
#[must_use]
pub fn partial(obj: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]})
}

/// Looks at the cluster's store.
///
/// # Errors
/// 503 when the cluster is gone; what `f` returns.
pub fn store<T>(
    call: &Call<'_>,
    resource: &str,
    f: impl FnOnce(&mut Store) -> Result<T, Failure>,
) -> Result<T, Failure> {
    call.lab.with(|w| {
        hooks::before_read(call.lab, w, call.cluster, resource);
        let now = w.now_ms;
        let Some(c) = w.clusters.get_mut(call.cluster) else {
            return Err(Failure::new(503, "ServiceUnavailable", "apiserver not ready"));
        };
        f(c.store.at(now))
    })
}

/// Namespace of an object's key.
#[must_use]
pub fn namespace<'a>(kind: &Kind, t: &'a Target) -> &'a str {
    if kind.namespaced { &t.namespace } else { "" }
}

/// One object.
///
/// # Errors
/// 404, 406.
pub fn get(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let form = form(&call.req.accept)?;
    let name = t.name.as_deref().unwrap_or_default();
    let (obj, rv, now) = store(call, &kind.resource(), |s| {
        let obj =
            s.arc(&kind.resource(), namespace(kind, t), name).cloned().ok_or_else(|| Failure::not_found(kind, name))?;
        Ok((obj, s.version(), s.now_ms()))
    })?;
    Ok(Answer::ok(match form {
        Form::Plain => (*obj).clone(),
        Form::Partial => partial(&obj),
        Form::Table => table::of(kind, &[obj], &rv.to_string(), now, true),
    }))
}

/// Checks `resourceVersion` and `resourceVersionMatch` of a list.
fn version(call: &Call<'_>, current: u64) -> Result<(), Failure> {
    let Some(text) = call.req.query.text("resourceVersion") else { return Ok(()) };
    let rv: u64 = text.parse().map_err(|_| Failure::bad_request(format!("invalid resource version \"{text}\"")))?;
    if rv > current {
        let why = format!("Too large resource version: {rv}, current: {current}");
        return Err(Failure::new(504, "Timeout", why));
    }
    Ok(())
}

/// Where a list goes on.
fn start(call: &Call<'_>) -> Result<Option<String>, Failure> {
    let Some(token) = call.req.query.text("continue") else { return Ok(None) };
    let bad = || Failure::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    String::from_utf8(bytes).map(Some).map_err(|_| bad())
}

fn key(o: &Value) -> String {
    let m = &o["metadata"];
    format!("{}/{}", m["namespace"].as_str().unwrap_or_default(), m["name"].as_str().unwrap_or_default())
}

/// Objects that a request selects.
///
/// # Errors
/// 400 for selectors that do not parse.
pub fn selected(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<(Vec<Arc<Value>>, u64, u64), Failure> {
    let labels = Labels::parse(call.req.query.text("labelSelector").unwrap_or_default())?;
    let fields = Fields::parse(call.req.query.text("fieldSelector").unwrap_or_default(), kind)?;
    store(call, &kind.resource(), |s| {
        let all = s.all(&kind.resource(), namespace(kind, t));
        let list: Vec<Arc<Value>> = all.filter(|o| labels.matches(o) && fields.matches(o)).cloned().collect();
        Ok((list, s.version(), s.now_ms()))
    })
}

/// A collection.
///
/// # Errors
/// 400 for bad selectors and continue tokens, 406.
pub fn list(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let form = form(&call.req.accept)?;
    let (mut items, rv, now) = selected(call, kind, t)?;
    version(call, rv)?;
    if let Some(from) = start(call)? {
        items.retain(|o| key(o) > from);
    }
    let mut meta = json!({"resourceVersion": rv.to_string()});
    let limit = call.req.query.text("limit").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
    if limit > 0 && items.len() > limit {
        meta["remainingItemCount"] = json!(items.len() - limit);
        items.truncate(limit);
        meta["continue"] = json!(items.last().map(|o| URL_SAFE_NO_PAD.encode(key(o))).unwrap_or_default());
    }
    Ok(Answer::ok(match form {
        Form::Plain => {
            // Items of a list carry no kind of their own.
            let bare: Vec<Value> = items.iter().map(|o| bare(o, kind)).collect();
            json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": meta, "items": bare})
        }
        Form::Partial => {
            let parts: Vec<Value> = items.iter().map(|o| partial(o)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": parts})
        }
        Form::Table => {
            let mut table = table::of(kind, &items, &rv.to_string(), now, true);
            table["metadata"] = meta;
            table
        }
    }))
}

fn bare(o: &Value, kind: &Kind) -> Value {
    let mut o = o.clone();
    if !kind.custom
        && let Some(m) = o.as_object_mut()
    {
        m.shift_remove("kind");
        m.shift_remove("apiVersion");
    }
    o
}
