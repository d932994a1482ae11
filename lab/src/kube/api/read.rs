//! `get` and `list`: selectors, paging, Tables and partial metadata.
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::route::Target;
use super::{Answer, Call, Request, options, table};
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
    /// `PartialObjectMetadataList`.
    PartialList,
}

/// A media type of `Accept`, with its parameters.
fn clauses(accept: &str) -> Vec<(&str, Vec<&str>)> {
    let mut all: Vec<(f32, (&str, Vec<&str>))> = accept
        .split(',')
        .map(|part| {
            let mut words = part.split(';').map(str::trim);
            let media = words.next().unwrap_or_default();
            let params: Vec<&str> = words.collect();
            let q = params.iter().find_map(|p| p.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            (q, (media, params))
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all.into_iter().map(|c| c.1).collect()
}

/// What is written for a client: the form, and whether as YAML. None when it speaks nothing that is spoken here.
fn negotiated(accept: &str) -> Option<(Form, bool)> {
    if accept.is_empty() {
        return Some((Form::Plain, false));
    }
    clauses(accept).into_iter().find_map(|(media, params)| {
        let yaml = match media {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" => true,
            _ => return None,
        };
        let word = |key: &str| params.iter().find_map(|p| p.strip_prefix(key));
        let form = match word("as=") {
            None => Form::Plain,
            Some(_) if word("g=") != Some("meta.k8s.io") || !matches!(word("v="), Some("v1" | "v1beta1")) => {
                return None;
            }
            Some("Table") => Form::Table,
            Some("PartialObjectMetadata") => Form::Partial,
            Some("PartialObjectMetadataList") => Form::PartialList,
            Some(_) => return None,
        };
        Some((form, yaml))
    })
}

/// Reads the form from `Accept`.
///
/// # Errors
/// 406 when nothing acceptable is spoken, 400 for a Table with objects of no known sort.
pub fn form(req: &Request) -> Result<Form, Failure> {
    let why = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let (form, _) = negotiated(&req.accept).ok_or_else(|| Failure::new(406, "NotAcceptable", why))?;
    let include = req.query.text("includeObject").filter(|i| !matches!(*i, "None" | "Metadata" | "Object"));
    match include {
        Some(i) if form == Form::Table => Err(Failure::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: \"{i}\": must be 'Metadata', 'Object', 'None', or empty"
        ))),
        _ => Ok(form),
    }
}

/// The form of an answer with objects of a kind: built-in kinds speak three types, each called by its whole name.
///
/// # Errors
/// 406 when nothing acceptable is spoken, 400 for a Table with objects of no known sort.
pub(super) fn offered(call: &Call<'_>, kind: &Kind) -> Result<Form, Failure> {
    let spoken = |media: &str| {
        matches!(media, "*/*" | "application/json" | "application/yaml" | "application/vnd.kubernetes.protobuf")
    };
    let accept = call.req.accept.as_str();
    if !kind.custom && !accept.is_empty() && !clauses(accept).iter().any(|(media, _)| spoken(media)) {
        return Err(unspoken(""));
    }
    form(call.req)
}

/// 406 of a page that tells what there is: the list of groups says it in other words than the rest.
pub(super) fn unspoken(path: &str) -> Failure {
    let kinds = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    if path == "/apis" {
        return Failure::new(406, "NotAcceptable", format!("only the following media types are accepted: {kinds}"));
    }
    let why = format!("406: Not Acceptable\n\nAvailable representations: {kinds}");
    Failure { details: Some(json!({})), ..Failure::new(406, "NotAcceptable", why) }
}

/// Whether YAML comes before JSON in `Accept`.
#[must_use]
pub fn yaml(accept: &str) -> bool {
    negotiated(accept).is_some_and(|n| n.1)
}

/// The Go type of a kind's objects.
fn go_type(kind: &Kind, suffix: &str) -> String {
    let group = kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    if kind.custom { format!("*unstructured.Unstructured{suffix}") } else { format!("*{group}.{}{suffix}", kind.kind) }
}

fn not_acceptable(why: String) -> Failure {
    Failure::new(406, "NotAcceptable", why)
}

/// The answer to a write in the form that the client wants.
///
/// # Errors
/// 406 for a form that one object does not have.
pub fn shaped(call: &Call<'_>, kind: &Kind, form: Form, body: &mut Value) -> Result<(), Failure> {
    if form == Form::Plain || body["kind"] == "Status" || body["items"].is_array() {
        return Ok(());
    }
    let (now, rv) = (call.lab.clock().now_ms(), body["metadata"]["resourceVersion"].as_str().unwrap_or_default());
    *body = one(call, kind, form, &Arc::new(body.clone()), rv, now)?;
    Ok(())
}

fn one(call: &Call<'_>, kind: &Kind, form: Form, o: &Arc<Value>, rv: &str, now: u64) -> Result<Value, Failure> {
    match form {
        Form::Plain => Ok((**o).clone()),
        Form::Partial => Ok(partial(o)),
        Form::PartialList => Err(not_acceptable(format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
            go_type(kind, "")
        ))),
        Form::Table => Ok(table::of(kind, std::slice::from_ref(o), rv, now, &table::Shape::of(call))),
    }
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
    let form = form(call.req)?;
    let name = t.name.as_deref().unwrap_or_default();
    let (obj, rv, now) = store(call, &kind.resource(), |s| {
        // of one object it is the storage that cannot read the number
        asked(call, s.version(), Failure::unforeseen)?;
        let obj =
            s.arc(&kind.resource(), namespace(kind, t), name).cloned().ok_or_else(|| Failure::not_found(kind, name))?;
        Ok((obj, s.version(), s.now_ms()))
    })?;
    one(call, kind, form, &obj, &rv.to_string(), now).map(Answer::ok)
}

/// The resourceVersion that is asked for; none for the newest.
///
/// # Errors
/// What `unread` makes of a text that is none, 504 for one that is still to come.
fn asked(call: &Call<'_>, current: u64, unread: impl Fn(String) -> Failure) -> Result<Option<u64>, Failure> {
    let Some(text) = call.req.query.text("resourceVersion") else { return Ok(None) };
    let rv: u64 = text.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
        unread(format!("resourceVersion: Invalid value: \"{text}\": {why}"))
    })?;
    if rv > current {
        let why = format!("Timeout: Too large resource version: {rv}, current: {current}");
        let mut f = Failure::new(504, "Timeout", why);
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        f.details = Some(json!({"causes": [cause], "retryAfterSeconds": 1}));
        return Err(f);
    }
    Ok((rv > 0).then_some(rv))
}

/// Where a list goes on: its resourceVersion and the key it comes after.
struct Going {
    rv: u64,
    after: String,
}

fn going_on(call: &Call<'_>) -> Result<Option<Going>, Failure> {
    let Some(token) = call.req.query.text("continue") else { return Ok(None) };
    let bad = |why: &str| Failure::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let letters = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if let Some(i) = token.bytes().position(|b| !letters(&b)) {
        return Err(bad(&format!("illegal base64 data at input byte {i}")));
    }
    let bytes = URL_SAFE_NO_PAD
        .decode(token)
        .map_err(|_| bad(&format!("illegal base64 data at input byte {}", token.len() / 4 * 4)))?;
    let v = super::gojson::parse(&bytes).map_err(|e| bad(&e))?.value;
    if v["v"] != "meta.k8s.io/v1" {
        let why = format!("server does not recognize this encoded version {}", v["v"].as_str().unwrap_or_default());
        return Err(Failure::bad_request(format!("invalid continue token: continue key is not valid: {why}")));
    }
    if call.req.query.text("resourceVersion").is_some_and(|v| v != "0") {
        return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
    }
    let rv = v["rv"].as_u64().unwrap_or(0);
    Ok(Some(Going { rv, after: v["start"].as_str().unwrap_or_default().trim_end_matches('\0').to_owned() }))
}

fn token(rv: u64, last: &Value) -> String {
    let start = format!("{}\0", key(last));
    URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": rv, "start": start}).to_string())
}

fn key(o: &Value) -> String {
    let m = &o["metadata"];
    let name = m["name"].as_str().unwrap_or_default();
    m["namespace"].as_str().map_or_else(|| name.to_owned(), |ns| format!("{ns}/{name}"))
}

/// The selectors of a request.
///
/// # Errors
/// 400 for one that does not parse.
pub fn selectors(call: &Call<'_>, kind: &Kind) -> Result<(Labels, Fields), Failure> {
    let q = &call.req.query;
    let labels = Labels::parse(q.text("labelSelector").unwrap_or_default())?;
    Ok((labels, Fields::parse(q.text("fieldSelector").unwrap_or_default(), kind)?))
}

/// Objects that a request selects now, with the resourceVersion and the time.
///
/// # Errors
/// 400 for selectors that do not parse.
pub fn selected(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<(Vec<Arc<Value>>, u64, u64), Failure> {
    let (labels, fields) = selectors(call, kind)?;
    let named = |o: &Value| t.name.as_deref().is_none_or(|n| o["metadata"]["name"] == n);
    store(call, &kind.resource(), |s| {
        let all = s.all(&kind.resource(), namespace(kind, t));
        let list = all.filter(|o| named(o) && labels.matches(o) && fields.matches(o)).cloned().collect();
        Ok((list, s.version(), s.now_ms()))
    })
}

const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// A page of a list as of `rv`, and how many objects are left.
struct Page {
    items: Vec<Arc<Value>>,
    rv: u64,
    now: u64,
    left: usize,
}

fn selects(call: &Call<'_>) -> bool {
    ["labelSelector", "fieldSelector"].iter().any(|s| call.req.query.text(s).is_some())
}

fn page(call: &Call<'_>, kind: &Kind, t: &Target, limit: usize) -> Result<Page, Failure> {
    let (labels, fields) = selectors(call, kind)?;
    let going = going_on(call)?;
    let exact = call.req.query.text("resourceVersionMatch") == Some("Exact");
    store(call, &kind.resource(), |s| {
        let asked = if going.is_some() {
            None
        } else {
            let unread = |why: String| Failure::bad_request(format!("invalid resource version: {why}"));
            asked(call, s.version(), unread)?
        };
        let past = going.as_ref().map(|g| g.rv).or(asked.filter(|_| exact)).filter(|rv| *rv < s.version());
        let rv = past.unwrap_or_else(|| s.version());
        let after = going.as_ref().map_or("", |g| g.after.as_str());
        let all = s.as_of(&kind.resource(), namespace(kind, t), after, past).ok_or_else(|| {
            Failure::expired(if going.is_some() {
                TOO_OLD
            } else {
                "The resourceVersion for the provided list is too old."
            })
        })?;
        let most = if limit > 0 { limit } else { usize::MAX };
        let mut rest = all.filter(|o| labels.matches(o) && fields.matches(o));
        let items: Vec<Arc<Value>> = rest.by_ref().take(most).cloned().collect();
        // With a selector nobody counts what is left: one more is enough to know that there is more.
        let left = if selects(call) { rest.take(1).count() } else { rest.count() };
        Ok(Page { items, rv, now: s.now_ms(), left })
    })
}

/// What a request selects of a collection, and the metadata of the list.
///
/// # Errors
/// 400 for bad selectors and continue tokens, 410 for a state that is forgotten.
pub(super) fn chosen(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<(Vec<Arc<Value>>, Value), Failure> {
    let limit = call.req.query.text("limit").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
    let page = page(call, kind, t, limit)?;
    let mut meta = described(call, &page);
    if kind.custom && meta["continue"].is_null() {
        meta["continue"] = json!("");
    }
    Ok((page.items, meta))
}

/// The metadata of a list.
fn described(call: &Call<'_>, page: &Page) -> Value {
    let mut meta = json!({"resourceVersion": page.rv.to_string()});
    if let (true, Some(last)) = (page.left > 0, page.items.last()) {
        meta["continue"] = json!(token(page.rv, last));
        // Nobody counts what a selector would leave out.
        if !selects(call) {
            meta["remainingItemCount"] = json!(page.left);
        }
    }
    meta
}

/// A collection.
///
/// # Errors
/// 400 for bad selectors and continue tokens, 406, 410 for a state that is forgotten, 422, 504.
pub fn list(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<Answer, Failure> {
    let form = form(call.req)?;
    options::list(call.req)?;
    let limit = call.req.query.text("limit").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
    let page = page(call, kind, t, limit)?;
    let mut meta = described(call, &page);
    if kind.custom && form == Form::Plain && meta["continue"].is_null() {
        // lists without a type of their own write it always
        meta["continue"] = json!("");
    }
    listed(call, kind, form, &page.items, meta, page.now).map(Answer::ok)
}

/// A list in the form that the client wants.
///
/// # Errors
/// 406 for a form that no list has.
pub fn listed(
    call: &Call<'_>,
    kind: &Kind,
    form: Form,
    items: &[Arc<Value>],
    meta: Value,
    now: u64,
) -> Result<Value, Failure> {
    Ok(match form {
        Form::Plain => {
            // Items of a list of built-in kinds carry no kind of their own.
            let bare: Vec<Value> = items.iter().map(|o| bare(o, kind)).collect();
            of_items(kind.list_kind(), kind.api_version(), meta, bare)
        }
        Form::Partial => {
            return Err(not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({})",
                go_type(kind, "List")
            )));
        }
        Form::PartialList => {
            let parts: Vec<Value> = items.iter().map(|o| partial(o)).collect();
            of_items("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned(), meta, parts)
        }
        Form::Table => {
            let rv = meta["resourceVersion"].as_str().unwrap_or_default();
            let mut table = table::of(kind, items, rv, now, &table::Shape::of(call));
            table["metadata"] = meta;
            table
        }
    })
}

/// A list of items that are not copied again.
fn of_items(kind: String, version: String, meta: Value, items: Vec<Value>) -> Value {
    let mut list = json!({"kind": kind, "apiVersion": version, "metadata": meta});
    list["items"] = Value::Array(items);
    list
}

/// An object as an item of a list.
#[must_use]
pub fn bare(o: &Value, kind: &Kind) -> Value {
    let mut o = o.clone();
    if !kind.custom
        && let Some(m) = o.as_object_mut()
    {
        m.shift_remove("kind");
        m.shift_remove("apiVersion");
    }
    o
}
