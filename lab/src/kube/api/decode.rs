//! Bodies of requests: JSON and YAML become values, options of deletes and writes are read.
use serde_json::Value;

use super::{Call, Request};
use crate::kube::schema::Kind;
use crate::kube::store::delete::DeleteOptions;
use crate::kube::store::{Failure, Propagation, WriteOptions};

/// The body as a value.
///
/// # Errors
/// 400 when it cannot be read, 415 for a content type that is not spoken.
pub fn body(req: &Request) -> Result<Value, Failure> {
    if req.content_type.contains("protobuf") {
        let why = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml";
        return Err(Failure::new(415, "UnsupportedMediaType", why));
    }
    let text = std::str::from_utf8(&req.body).map_err(|e| Failure::bad_request(e.to_string()))?;
    if req.content_type.contains("yaml") {
        return serde_saphyr::from_str(text).map_err(|e| Failure::bad_request(e.to_string()));
    }
    serde_json::from_str(text)
        .map_err(|e| Failure::bad_request(format!("couldn't get version/kind; json parse error: {e}")))
}

/// `dryRun`, `fieldManager` and who writes.
///
/// # Errors
/// 422 for a dryRun other than `All`.
pub fn write_options(call: &Call<'_>, kind: &Kind, sub: &str) -> Result<WriteOptions, Failure> {
    let q = &call.req.query;
    let dry = q.text("dryRun");
    if dry.is_some_and(|d| d != "All") {
        let shown = dry.unwrap_or_default();
        let message =
            format!("{} \"\" is invalid: dryRun: Unsupported value: \"{shown}\": supported values: \"All\"", kind.kind);
        return Err(Failure::new(422, "Invalid", message));
    }
    let agent = call.req.agent.split('/').next().unwrap_or("unknown").to_owned();
    Ok(WriteOptions {
        manager: q.text("fieldManager").map_or(agent, str::to_owned),
        subresource: sub.to_owned(),
        dry_run: dry.is_some(),
        check: true,
    })
}

/// Options of a delete: the body, then the query.
///
/// # Errors
/// 400 when the body cannot be read.
pub fn delete_options(call: &Call<'_>) -> Result<DeleteOptions, Failure> {
    let v = if call.req.body.is_empty() { Value::Null } else { body(call.req)? };
    let q = &call.req.query;
    let policy = v["propagationPolicy"].as_str().or_else(|| q.text("propagationPolicy"));
    let orphan = v["orphanDependents"] == true || q.flag("orphanDependents");
    let grace = v["gracePeriodSeconds"].as_u64().or_else(|| q.text("gracePeriodSeconds").and_then(|t| t.parse().ok()));
    let dry = v["dryRun"].as_array().is_some_and(|d| !d.is_empty()) || q.text("dryRun").is_some();
    let want = |field: &str| v["preconditions"][field].as_str().map(str::to_owned);
    Ok(DeleteOptions {
        propagation: match policy {
            Some("Foreground") => Propagation::Foreground,
            Some("Orphan") => Propagation::Orphan,
            _ if orphan => Propagation::Orphan,
            _ => Propagation::Background,
        },
        grace,
        uid: want("uid"),
        version: want("resourceVersion"),
        dry_run: dry,
    })
}
