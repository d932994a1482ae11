//! PATCH: merge patch, JSON patch, strategic merge patch, server-side apply.
use serde_json::{Value, json};

use super::options::{self, Fields};
use super::read::{self, namespace};
use super::route::Target;
use super::{Answer, Call, decode, events, gojson, typing, write};
use crate::kube::schema::kinds::builtin;
use crate::kube::schema::node::Node;
use crate::kube::schema::{Kind, remarks, typed};
use crate::kube::store::{Failure, managers, patch as patches};
use crate::kube::text::s;

/// Most operations of a JSON patch.
const OPERATIONS: usize = 10_000;

/// The media types of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Json,
    Merge,
    Strategic,
    Apply,
}

fn how(call: &Call<'_>, kind: &Kind) -> Result<How, Failure> {
    match call.req.content_type.as_str() {
        "application/json-patch+json" => Ok(How::Json),
        "application/merge-patch+json" => Ok(How::Merge),
        "application/strategic-merge-patch+json" if !kind.custom => Ok(How::Strategic),
        "application/apply-patch+yaml" => Ok(How::Apply),
        _ if kind.custom => {
            let why = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            Err(Failure::new(415, "UnsupportedMediaType", why))
        }
        _ => Err(Failure {
            details: Some(json!({})),
            ..Failure::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
        }),
    }
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
    let how = how(call, kind)?;
    let o = decode::write_options(call, "PatchOptions", sub)?;
    if how == How::Apply {
        return apply(call, kind, t, sub);
    }
    let (change, twice) = change(call, how)?;
    let mode = options::fields(call.req);
    let (w, warnings) = read::store(call, &kind.resource(), |s| {
        let old = s.arc(&kind.resource(), ns, name).cloned().ok_or_else(|| Failure::not_found(kind, name))?;
        let mut new = (*old).clone();
        managers::unfold(&mut new);
        match how {
            How::Json => patches::json(&mut new, &change)?,
            How::Strategic => {
                patches::mergeable(Node::of(kind), &change)?;
                patches::strategic(Node::of(kind), &mut new, &change);
            }
            _ => patches::merge(&mut new, &change),
        }
        let shown = || if how == How::Strategic { gojson::printed(&change) } else { new.to_string() };
        let shown = shown();
        let wrong = if how == How::Strategic { typing::unrestored(kind, &new) } else { None };
        let unknown = match wrong {
            Some(e) => Err(e),
            None => typed::read(kind, &mut new),
        }
        .map_err(|e| Failure::invalid_patch(&shown, &e))?;
        let found: Vec<String> = twice.iter().cloned().chain(decode::remarks(&[], &unknown)).collect();
        let mut warnings = decode::strict(mode, found, |e| Failure::invalid_patch(&shown, &e))?;
        let read = warnings.clone();
        warnings.extend(remarks::of(kind, &new, Some(&old)));
        if how == How::Merge {
            same_kind(kind, t, &change).map_err(|e| Failure::invalid_patch(&shown, &e))?;
        }
        decode::place(kind, t, &mut new)?;
        write::named(&new, name)?;
        if events::asked(t) {
            events::unchanged(kind, &old, &new)?;
        }
        let written = s.replace_as(kind, ns, name, new, &o).map_err(|f| f.warning(&read))?;
        Ok((written, warnings))
    })?;
    write::ring(call);
    Ok(write::answer(&w, warnings))
}

/// A merge patch may name the kind of its object, and no other.
fn same_kind(kind: &Kind, t: &Target, change: &Value) -> Result<(), String> {
    let asked = if t.group.is_empty() { t.version.clone() } else { format!("{}/{}", t.group, t.version) };
    let word = |f: &str, or: &str| change[f].as_str().unwrap_or(or).to_owned();
    let (version, name) = (word("apiVersion", &asked), word("kind", &kind.kind));
    if (version == asked || version == kind.api_version()) && name == kind.kind {
        return Ok(());
    }
    let (group, short) = version.split_once('/').unwrap_or(("", &version));
    if builtin().iter().any(|k| k.group == group && k.version == short && k.kind == name) {
        let own = kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
        return Err(format!("converting ({short}.{name}) to ({own}.{}): unknown conversion", kind.kind));
    }
    let place = "scheme \"pkg/api/legacyscheme/scheme.go:30\"";
    Err(format!("no kind \"{name}\" is registered for version \"{version}\" in {place}"))
}

/// The patch itself, with remarks about keys that appear twice.
fn change(call: &Call<'_>, how: How) -> Result<(Value, Vec<String>), Failure> {
    let refuse = |e: String| match how {
        How::Strategic => Failure::bad_request(e),
        _ => Failure::bad_request(format!("error decoding patch: {e}")),
    };
    let parsed = gojson::parse(&call.req.body).map_err(refuse)?;
    let wrong = |into: &str| {
        let word = match &parsed.value {
            Value::Object(_) => "object",
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            _ => "number",
        };
        refuse(format!("json: cannot unmarshal {word} into Go value of type {into}"))
    };
    let mut twice = decode::remarks(&parsed.duplicates, &[]);
    match (how, &parsed.value) {
        (How::Json, Value::Array(ops)) if ops.len() > OPERATIONS => {
            let why = format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS}, got {}",
                ops.len()
            );
            return Err(Failure::new(413, "RequestEntityTooLarge", why));
        }
        (How::Json, Value::Array(ops)) => {
            twice = twice.into_iter().map(|r| format!("json patch {r}")).collect();
            for (i, op) in ops.iter().enumerate() {
                let known = |k: &&String| !matches!(k.as_str(), "op" | "path" | "from" | "value");
                let odd = op.as_object().into_iter().flat_map(|m| m.keys()).filter(known);
                twice.extend(odd.map(|k| format!("json patch unknown field \"[{i}].{k}\"")));
            }
        }
        (How::Json, Value::Null) => return Ok((json!([]), twice)),
        (How::Json, _) => return Err(wrong("[]handlers.jsonPatchOp")),
        (_, Value::Object(_)) => {}
        (How::Merge, Value::Null) => return Err(Failure::bad_request("Invalid JSON Patch")),
        (_, Value::Null) => return Ok((json!({}), twice)),
        _ => return Err(wrong("map[string]interface {}")),
    }
    Ok((parsed.value, twice))
}

/// A configuration to apply, as JSON or YAML, and the complaint about keys that appear twice.
fn document(text: &str) -> Result<(Value, Option<String>), Failure> {
    if text.trim_start().starts_with('{')
        && let Ok(p) = gojson::parse(text.as_bytes())
    {
        let twice: Vec<String> = p
            .duplicates
            .iter()
            .map(|d| format!("key \"{}\" already set in map", d.rsplit('.').next().unwrap_or(d)))
            .collect();
        let complaint = format!("error converting YAML to JSON: yaml: unmarshal errors:\n  {}", twice.join("\n  "));
        return Ok((p.value, (!twice.is_empty()).then_some(complaint)));
    }
    decode::yaml(text, "decoding YAML")
}

/// Server-side apply.
fn apply(call: &Call<'_>, kind: &Kind, t: &Target, sub: &str) -> Result<Answer, Failure> {
    let (name, ns) = (t.name.as_deref().unwrap_or_default(), namespace(kind, t));
    let o = decode::write_options(call, "PatchOptions", sub)?;
    let text = std::str::from_utf8(&call.req.body).map_err(|e| Failure::bad_request(e.to_string()))?;
    let (mut obj, repeated) = document(text)?;
    if !obj.is_object() {
        return Err(Failure::bad_request("error decoding YAML: the document is no object"));
    }
    let word = |f: &str| obj[f].as_str().unwrap_or_default();
    if word("apiVersion") != kind.api_version() || word("kind") != kind.kind {
        let (group, version) = word("apiVersion").split_once('/').unwrap_or(("", word("apiVersion")));
        let why = format!("invalid object type: {group}/{version}, Kind={}", word("kind"));
        return Err(Failure::bad_request(why));
    }
    if !obj["metadata"]["managedFields"].is_null() {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let place = format!("{}/{}", s(&obj, "/metadata/namespace"), s(&obj, "/metadata/name"));
    let spaced = !obj["metadata"]["namespace"].is_null();
    decode::fits(call, kind, t, &mut obj, |_, k, why| Failure::bad_request(format!("{k}: {why}")))?;
    if let Some(m) = obj["metadata"].as_object_mut().filter(|_| !spaced) {
        // what is noted as applied says what was said
        m.shift_remove("namespace");
    }
    if obj["metadata"]["name"].is_null() {
        obj["metadata"]["name"] = json!(name);
    }
    write::named(&obj, name)?;
    let what =
        format!("failed to create typed patch object ({place}; {}/{}, Kind={})", kind.group, kind.version, kind.kind);
    if let Some(why) = typing::misfits(kind, &obj) {
        return Err(Failure::unforeseen(format!("{what}: {why}")));
    }
    let mut read_as = obj;
    typed::read(kind, &mut read_as).map_err(|e| Failure::unforeseen(format!("{what}: {e}")))?;
    let mut warnings = Vec::new();
    if let Some(e) = repeated {
        match options::fields(call.req) {
            Fields::Strict => return Err(Failure::bad_request(format!("error strict decoding YAML: {e}"))),
            Fields::Warn => warnings.push(e.to_string()),
            Fields::Ignore => {}
        }
    }
    let force = call.req.query.flag("force");
    let w = read::store(call, &kind.resource(), |s| s.apply_as(kind, ns, name, read_as, &o, force))?;
    write::ring(call);
    Ok(write::answer(&w, warnings))
}
