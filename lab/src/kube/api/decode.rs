//! Bodies of requests: JSON and YAML become objects of the kind the path names.
use serde_json::{Value, json};

use super::gojson::{self, Parsed};
use super::options::{self, Fields};
use super::route::Target;
use super::{Call, Request, hpa, proto};
use crate::kube::schema::{Kind, typed};
use crate::kube::store::{Cause, Failure, WriteOptions, meta};
use crate::kube::text::hex;

/// 415 with the media types of bodies.
fn unsupported() -> Failure {
    let why = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    Failure::new(415, "UnsupportedMediaType", why)
}

/// The start of a body as messages show it.
fn summary(body: &[u8]) -> String {
    let text = |b: &[u8]| {
        if b.first() == Some(&b'{') { String::from_utf8_lossy(b).into_owned() } else { hex(b) }
    };
    match body.len() {
        0 => "<empty>".to_owned(),
        n if n > 30 => format!("{} ...", text(&body[..30])),
        _ => text(body),
    }
}

/// YAML as Go reads it where nothing is strict: the last of equal keys counts; with the complaint about them.
pub(super) fn yaml(text: &str, doing: &str) -> Result<(Value, Option<String>), Failure> {
    let lenient =
        serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins, budget: None };
    // what is applied is unpacked by another way, which says so
    let applied = doing == "decoding YAML";
    let converting = if applied { "error converting YAML to JSON: " } else { "" };
    let refuse = |e: serde_saphyr::Error| {
        let said = yaml_trouble(&e.to_string());
        let before = if applied { "error decoding YAML: " } else { "" };
        Failure::bad_request(format!("{before}{converting}{said}"))
    };
    let value = serde_saphyr::from_str_with_options(text, lenient).map_err(refuse)?;
    let repeated = serde_saphyr::from_str_with_options::<Value>(text, serde_saphyr::options! { budget: None });
    let told = |e: serde_saphyr::Error| {
        let said = yaml_trouble(&e.to_string());
        let line = said.strip_prefix("yaml: ").and_then(|s| s.split_once(": ")).map_or("line 1", |(line, _)| line);
        let key = said.split_once("duplicate mapping key: ").map_or("", |(_, k)| k);
        let key = key.split_once(", set ").map_or(key, |(k, _)| k);
        format!("{converting}yaml: unmarshal errors:\n  {line}: key {key:?} already set in map")
    };
    Ok((value, repeated.err().map(told)))
}

/// What a body says, and what is odd about its keys.
fn parse(req: &Request) -> Result<(Parsed, Option<String>), Failure> {
    let kind = req.content_type.as_str();
    if kind.contains("yaml") {
        let text = std::str::from_utf8(&req.body).map_err(|e| Failure::bad_request(e.to_string()))?;
        let (value, repeated) = yaml(text, "converting YAML to JSON")?;
        return Ok((Parsed { value, duplicates: Vec::new() }, repeated));
    }
    if kind == "application/vnd.kubernetes.protobuf" {
        let value = proto::read(&req.body).map_err(Failure::bad_request)?;
        return Ok((Parsed { value, duplicates: Vec::new() }, None));
    }
    if !(kind.is_empty() || kind == "*/*" || kind == "application/json") {
        return Err(unsupported());
    }
    gojson::parse(&req.body).map(|p| (p, None)).map_err(|e| {
        let why = format!("couldn't get version/kind; json parse error: {e}");
        Failure::bad_request(why)
    })
}

/// A text that is no YAML, met in `doing` something with it.
pub(super) fn no_yaml(doing: &str, e: &serde_saphyr::Error) -> Failure {
    Failure::bad_request(format!("error {doing}: {}", yaml_trouble(&e.to_string())))
}

/// Why a text is no YAML, as Go's parser says it: without the place in the line, and without the text.
#[must_use]
pub(crate) fn yaml_trouble(said: &str) -> String {
    let first = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
    match first.strip_prefix("line ").and_then(|r| r.split_once(" column ")) {
        Some((line, rest)) => {
            let why = rest.split_once(": ").map_or(rest, |(_, why)| why);
            let why =
                if why.starts_with("tabs disallowed") { "found character that cannot start any token" } else { why };
            format!("yaml: line {line}: {why}")
        }
        None => format!("yaml: {first}"),
    }
}

/// The request with its body rewritten, if it has one that can be read.
#[must_use]
pub fn rewritten(req: &Request, f: impl FnOnce(&mut Value)) -> Option<Request> {
    let yaml = || -> Option<Value> { serde_saphyr::from_str(std::str::from_utf8(&req.body).ok()?).ok() };
    let parsed = gojson::parse(&req.body).ok().map(|p| p.value);
    let mut value: Value = parsed.or_else(|| req.content_type.contains("yaml").then(yaml)?)?;
    f(&mut value);
    let plain = req.content_type == "application/yaml";
    let content_type = if plain { "application/json".to_owned() } else { req.content_type.clone() };
    Some(Request { body: value.to_string().into(), content_type, ..req.clone() })
}

/// The body as a value of no particular kind.
///
/// # Errors
/// 400 when it cannot be read, 415 for a content type that is not spoken.
pub fn body(req: &Request) -> Result<Value, Failure> {
    parse(req).map(|p| p.0.value)
}

/// Refuses strict errors, or turns them into warnings.
///
/// # Errors
/// What `refuse` makes of the decoder's text.
pub fn strict(how: Fields, found: Vec<String>, refuse: impl FnOnce(String) -> Failure) -> Result<Vec<String>, Failure> {
    match how {
        _ if found.is_empty() => Ok(Vec::new()),
        Fields::Ignore => Ok(Vec::new()),
        Fields::Warn => Ok(found),
        Fields::Strict => Err(refuse(format!("strict decoding error: {}", found.join(", ")))),
    }
}

/// Repeated and undeclared fields in the decoder's words.
pub fn remarks(duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let twice = duplicates.iter().map(|p| format!("duplicate field \"{p}\""));
    twice.chain(unknown.iter().map(|p| format!("unknown field \"{p}\""))).collect()
}

/// The body as an object of `kind`, with warnings for the client.
///
/// # Errors
/// 400 when it is no such object, 415 for a content type that is not spoken.
pub fn object(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<(Value, Vec<String>), Failure> {
    let unrecognized = |why: &str| {
        let (kind, start) = (&kind.kind, summary(&call.req.body));
        Failure::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({start})"))
    };
    let parsed = parse(call.req).map_err(|f| if f.code == 400 { unrecognized(&f.message) } else { f });
    let (Parsed { value: mut obj, duplicates }, repeated) = parsed?;
    let refuse = |av: &str, k: &str, why: &str| {
        let version = av.rsplit('/').next().unwrap_or_default();
        Failure::bad_request(format!("{k} in version \"{version}\" cannot be handled as a {}: {why}", kind.kind))
    };
    if !obj.is_object() {
        let shown = match &obj {
            Value::Null => None,
            Value::Array(_) => Some("array"),
            Value::String(_) => Some("string"),
            Value::Bool(_) => Some("bool"),
            _ => Some("number"),
        };
        if let Some(word) = shown {
            let into = r#"Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
            let why = format!("couldn't get version/kind; json parse error: json: cannot unmarshal {word} into {into}");
            return Err(unrecognized(&why));
        }
        obj = json!({});
    }
    if kind.custom {
        own_kind(kind, &obj, &call.req.body, unrecognized)?;
    }
    let older = t.version == "v1" && (obj["apiVersion"].is_null() || obj["apiVersion"] == "autoscaling/v1");
    if kind.kind == "HorizontalPodAutoscaler" && older {
        hpa::raise(&mut obj);
    }
    if let Some(v) = obj.get("metadata").filter(|v| !v.is_object() && !v.is_null()) {
        let word = typed::word(v);
        let into = format!("Go struct field {}.metadata of type v1.ObjectMeta", kind.kind);
        let why = format!("json: cannot unmarshal {word} into {into}");
        return Err(refuse(&kind.api_version(), &kind.kind, &why));
    }
    fits(call, kind, t, &mut obj, refuse)?;
    let unknown = typed::read(kind, &mut obj).map_err(|e| refuse(&kind.api_version(), &kind.kind, &e))?;
    let found = repeated.into_iter().chain(remarks(&duplicates, &unknown)).collect();
    let warnings = strict(options::fields(call.req), found, |e| refuse(&kind.api_version(), &kind.kind, &e))?;
    Ok((obj, warnings))
}

/// A custom object says itself what it is.
fn own_kind(kind: &Kind, obj: &Value, body: &[u8], refuse: impl Fn(&str) -> Failure) -> Result<(), Failure> {
    let word = |f: &str| obj[f].as_str().unwrap_or_default();
    let (wanted, have) = (kind.api_version(), word("apiVersion"));
    if word("kind").is_empty() {
        return Err(refuse(&format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(body))));
    }
    if have != wanted {
        let why = format!("the API version in the data ({have}) does not match the expected API version ({wanted})");
        return Err(Failure::bad_request(why));
    }
    if word("kind") != kind.kind {
        let cause = Cause::invalid("kind", &obj["kind"], &format!("must be {}", kind.kind));
        return Err(Failure::invalid(kind, meta::name(obj), &[cause]));
    }
    Ok(())
}

/// Versions that are not served any more and are known all the same.
const OLD_VERSIONS: &[&str] = &[
    "autoscaling/v1",
    "apps/v1beta1",
    "apps/v1beta2",
    "batch/v1beta1",
    "extensions/v1beta1",
    "networking.k8s.io/v1beta1",
    "policy/v1beta1",
    "rbac.authorization.k8s.io/v1beta1",
    "storage.k8s.io/v1beta1",
];

/// The object is of the kind the path names, in the namespace the path names.
///
/// # Errors
/// 400 when it is not.
pub fn fits(
    call: &Call<'_>,
    kind: &Kind,
    t: &Target,
    obj: &mut Value,
    refuse: impl Fn(&str, &str, &str) -> Failure,
) -> Result<(), Failure> {
    let word = |f: &str| obj[f].as_str().unwrap_or_default().to_owned();
    let (av, k) = (word("apiVersion"), word("kind"));
    let av = if av.is_empty() { kind.api_version() } else { av };
    let k = if k.is_empty() { kind.kind.clone() } else { k };
    if k == kind.kind && av != kind.api_version() && OLD_VERSIONS.contains(&av.as_str()) {
        let wanted = kind.api_version();
        let why = format!("the API version in the data ({av}) does not match the expected API version ({wanted})");
        return Err(Failure::bad_request(why));
    }
    if av != kind.api_version() || k != kind.kind {
        let known = |k: &str| {
            call.lab.with(|w| w.clusters.get(call.cluster).is_some_and(|c| c.store.kind_of(&av, k).is_some()))
        };
        if !known(&k) {
            // lists of a kind that is known are known too
            if kind.group.is_empty() && k.strip_suffix("List").is_some_and(known) {
                let version = av.rsplit('/').next().unwrap_or_default();
                let why = format!("converting ({version}.{k}) to (core.{}): unknown conversion", kind.kind);
                return Err(refuse(&av, &k, &why));
            }
            let place = "scheme \"pkg/api/legacyscheme/scheme.go:30\"";
            return Err(refuse(&av, &k, &format!("no kind \"{k}\" is registered for version \"{av}\" in {place}")));
        }
        if av != kind.api_version() {
            let why = format!(
                "the API version in the data ({av}) does not match the expected API version ({})",
                kind.api_version()
            );
            return Err(Failure::bad_request(why));
        }
        let group = kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
        let why = format!("converting ({}.{k}) to ({group}.{}): unknown conversion", kind.version, kind.kind);
        return Err(refuse(&av, &k, &why));
    }
    obj["apiVersion"] = json!(kind.api_version());
    obj["kind"] = json!(kind.kind);
    place(kind, t, obj)
}

/// Sets the namespace of the path.
///
/// # Errors
/// 400 when the object names another.
pub fn place(kind: &Kind, t: &Target, obj: &mut Value) -> Result<(), Failure> {
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

/// `dryRun`, `fieldManager` and who writes; `what` names the options' kind.
///
/// # Errors
/// 422 for options that are not valid.
pub fn write_options(call: &Call<'_>, what: &'static str, sub: &str) -> Result<WriteOptions, Failure> {
    let dry_run = options::write(call.req, what)?;
    let agent: String = call.req.agent.split('/').next().unwrap_or("unknown").chars().take(128).collect();
    Ok(WriteOptions {
        manager: call.req.query.text("fieldManager").map_or(agent, str::to_owned),
        subresource: sub.to_owned(),
        dry_run,
        check: true,
        patch: what == "PatchOptions",
        user: Some(call.user.clone()),
        quiet: false,
        spoken: call.lens.clone(),
    })
}
