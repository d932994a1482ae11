//! The `scale` subresource.
use serde_json::{Value, json};

use super::route::Target;
use super::{Answer, Call, decode, options, read, sub, write};
use crate::kube::schema::{Kind, remarks};
use crate::kube::store::{Cause, Failure, WriteOptions, patch as patches};

/// JSON pointer of a scale path (`.spec.replicas`).
fn pointer(kind: &Kind, field: &str, or: &str) -> String {
    kind.scale_paths[field].as_str().unwrap_or(or).replace('.', "/")
}

fn selector(kind: &Kind, o: &Value) -> Option<String> {
    if kind.custom {
        let at = pointer(kind, "labelSelectorPath", "");
        return o.pointer(&at).filter(|_| !at.is_empty()).and_then(Value::as_str).map(str::to_owned);
    }
    let labels = o["spec"]["selector"]["matchLabels"].as_object().or(o["spec"]["selector"].as_object())?;
    let pairs = labels.iter().filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?)));
    Some(pairs.collect::<Vec<_>>().join(","))
}

fn of(kind: &Kind, o: &Value) -> Value {
    let m = &o["metadata"];
    let n = |at: &str| o.pointer(at).and_then(Value::as_u64).unwrap_or(0);
    let mut out = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": m["name"], "namespace": m["namespace"], "uid": m["uid"],
            "resourceVersion": m["resourceVersion"], "creationTimestamp": m["creationTimestamp"]},
        "spec": {}, "status": {"replicas": n(&pointer(kind, "statusReplicasPath", ".status.replicas"))},
    });
    let wanted = n(&pointer(kind, "specReplicasPath", ".spec.replicas"));
    if wanted > 0 {
        out["spec"]["replicas"] = json!(wanted);
    }
    if let Some(s) = selector(kind, o) {
        out["status"]["selector"] = json!(s);
    }
    out
}

/// The Scale object that the request asks for.
fn wanted(call: &Call<'_>, kind: &Kind, t: &Target, old: &Value) -> Result<Value, Failure> {
    if call.req.method == "PUT" {
        let (scale, _) = decode::object(call, &sub::taken("autoscaling/v1", "Scale", kind.namespaced), t)?;
        write::named(&scale, t.name.as_deref().unwrap_or_default())?;
        return Ok(scale);
    }
    let change = decode_patch(call)?;
    let mut new = old.clone();
    if new["spec"].get("replicas").is_none() {
        new["spec"]["replicas"] = json!(0);
    }
    match call.req.content_type.as_str() {
        "application/json-patch+json" => patches::json(&mut new, &change)?,
        _ => patches::merge(&mut new, &change),
    }
    Ok(new)
}

fn decode_patch(call: &Call<'_>) -> Result<Value, Failure> {
    if !call.req.content_type.contains("patch") {
        let why = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";
        return Err(Failure::new(415, "UnsupportedMediaType", why));
    }
    if call.req.content_type == "application/apply-patch+yaml" {
        let text = String::from_utf8_lossy(&call.req.body);
        return serde_saphyr::from_str(&text).map_err(|e| decode::no_yaml("decoding YAML", &e));
    }
    let parsed = super::gojson::parse(&call.req.body);
    parsed.map(|p| p.value).map_err(|e| Failure::bad_request(format!("error decoding patch: {e}")))
}

/// GET, PUT and PATCH.
///
/// # Errors
/// 400, 404, 409, 422.
pub fn serve(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let old = sub::target(call, kind, t)?;
    let at = pointer(kind, "specReplicasPath", ".spec.replicas");
    if kind.custom && call.req.method == "GET" && old.pointer(&at).is_none_or(Value::is_null) {
        let path = at.replace('/', ".");
        let why = format!("the spec replicas field \"{path}\" does not exist");
        let details = json!({"causes": [{"message": why}]});
        let refused = Failure::new(500, "InternalError", format!("Internal error occurred: {why}"));
        return Err(Failure { details: Some(details), ..refused });
    }
    if call.req.method == "GET" {
        let mut scale = of(kind, &old);
        let form = read::form(call.req)?;
        read::shaped(call, &sub::taken("autoscaling/v1", "Scale", kind.namespaced), form, &mut scale)?;
        return Ok(Answer::ok(scale));
    }
    if !matches!(call.req.method.as_str(), "PUT" | "PATCH") {
        return Err(Failure::not_allowed());
    }
    let what = if call.req.method == "PUT" { "UpdateOptions" } else { "PatchOptions" };
    let dry_run = options::write(call.req, what)?;
    let name = t.name.as_deref().unwrap_or_default();
    let body = wanted(call, kind, t, &of(kind, &old))?;
    let scale = sub::taken("autoscaling/v1", "Scale", kind.namespaced);
    let n = match &body["spec"]["replicas"] {
        Value::Null => 0,
        v => v.as_i64().ok_or_else(|| {
            let why = format!("Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal {} into Go struct field ScaleSpec.spec.replicas of type int32", if v.is_string() { "string" } else { "value" });
            Failure::bad_request(why)
        })?,
    };
    if n < 0 {
        let cause = Cause::invalid("spec.replicas", &n.into(), "must be greater than or equal to 0");
        return Err(Failure::invalid(&scale, name, &[cause]));
    }
    let asked = body["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if !asked.is_empty() && old["metadata"]["resourceVersion"] != asked {
        return Err(Failure::modified(kind, name));
    }
    if kind.custom && call.req.content_type == "application/apply-patch+yaml" {
        // the real server does not get this far either
        return Err(Failure::unforeseen(format!(
            "failed to convert new object (/{name}; autoscaling/v1, Kind=Scale) to proper version: request to convert CR to an invalid group/version: autoscaling/v1"
        )));
    }
    let o = WriteOptions { dry_run, ..decode::write_options(call, what, "scale")? };
    let mut new = old.clone();
    put(&mut new, &at, n);
    let warnings = remarks::of(kind, &new, Some(&old));
    let ns = read::namespace(kind, t);
    let w = read::store(call, &kind.resource(), |s| match call.req.content_type.as_str() {
        "application/apply-patch+yaml" => {
            let mut config = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name}});
            put(&mut config, &at, n);
            s.apply_as(kind, ns, name, config, &o, call.req.query.flag("force"))
        }
        _ => s.replace_as(kind, ns, name, new, &o),
    })?;
    write::ring(call);
    Ok(Answer { warnings, ..Answer::ok(of(kind, &w.object)) })
}

/// Sets the number of replicas, at a pointer whose parts need not be there.
fn put(obj: &mut Value, at: &str, n: i64) {
    let mut place = obj;
    for part in at.trim_start_matches('/').split('/') {
        place = &mut place[part];
    }
    *place = json!(n);
}
