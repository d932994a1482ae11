//! `events.k8s.io/v1`: the same events as those of the core group, under other names. Grade: source (the conversions and
//! the validation of events in kube-apiserver).
use serde_json::{Value, json};

use super::route::Target;
use super::{Request, decode};
use crate::kube::schema::{Kind, names};
use crate::kube::store::{Cause, Failure};

/// The group.
const GROUP: &str = "events.k8s.io";

/// Names of fields: as they are shown, as they are kept.
const FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Whether the kind is that of the newer group.
#[must_use]
pub fn fresh(kind: &Kind) -> bool {
    kind.group == GROUP
}

/// Whether a path names the newer group.
#[must_use]
pub fn asked(t: &Target) -> bool {
    t.group == GROUP
}

fn renamed(o: &mut Value, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(m) = o.as_object_mut() else { return };
    for (from, to) in pairs {
        if let Some(v) = m.shift_remove(from) {
            m.insert(to.to_owned(), v);
        }
    }
}

fn raise(o: &mut Value) {
    for op in o.as_array_mut().into_iter().flatten() {
        for place in ["path", "from"] {
            let Some(path) = op[place].as_str().and_then(|p| p.strip_prefix('/')) else { continue };
            let (first, rest) = path.split_once('/').map_or((path, String::new()), |(f, r)| (f, format!("/{r}")));
            let kept = FIELDS.iter().find(|f| f.0 == first).map_or(first, |f| f.1);
            op[place] = json!(format!("/{kept}{rest}"));
        }
    }
    renamed(o, FIELDS.iter().copied());
    if o.get("apiVersion").is_some_and(|v| v == "events.k8s.io/v1") {
        o["apiVersion"] = json!("v1");
    }
}

/// The request as one for the core group.
///
/// # Errors
/// 400 for an object of another version.
pub fn raised(req: &Request) -> Result<Option<Request>, Failure> {
    let mut other = None;
    let out = decode::rewritten(req, |o| {
        let delete = req.method == http::Method::DELETE;
        other = o["apiVersion"].as_str().filter(|v| *v != "events.k8s.io/v1" && !delete).map(str::to_owned);
        raise(o);
    });
    let selected =
        |q: &str| q.replace("regarding.", "involvedObject.").replace("reportingController", "reportingComponent");
    match other {
        Some(v) => Err(Failure::bad_request(format!(
            "the API version in the data ({v}) does not match the expected API version (events.k8s.io/v1)"
        ))),
        None if req.query.text("fieldSelector").is_some() => {
            let mut req = out.unwrap_or_else(|| req.clone());
            req.query.rewrite("fieldSelector", selected);
            Ok(Some(req))
        }
        None => Ok(out),
    }
}

/// An event, or the items of a list, as the newer group shows them; anything else stays as it is.
pub fn lower(o: &mut Value) {
    for item in o.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        lower(item);
    }
    if o["kind"] == "Status" || o["kind"] == "Table" {
        return;
    }
    if o.get("apiVersion").is_some_and(|v| v == "v1") {
        o["apiVersion"] = json!("events.k8s.io/v1");
    }
    if o.get("items").is_none() {
        renamed(o, FIELDS.iter().map(|f| (f.1, f.0)));
        if let Some(m) = o.as_object_mut() {
            m.retain(|k, v| !(k.starts_with("reporting") && v == ""));
        }
    }
}

/// What an event has to say when it is made through the newer group.
///
/// # Errors
/// 422 with every cause.
pub fn check(kind: &Kind, o: &Value) -> Result<(), Failure> {
    let mut out = Vec::new();
    old_rules(o, "reportingController", &mut out);
    let set = |f: &str| !o[f].is_null();
    if o["series"].is_object() {
        if o["series"]["count"].as_i64().unwrap_or(0) < 2 {
            out.push(Cause::invalid("series.count", &"".into(), "should be at least 2"));
        }
        if o["series"]["lastObservedTime"].is_null() {
            out.push(Cause::required("series.lastObservedTime", ""));
        }
    }
    if !set("eventTime") {
        out.push(Cause::required("eventTime", ""));
    }
    let sort = o["type"].as_str().unwrap_or_default();
    if !matches!(sort, "Normal" | "Warning") {
        out.push(Cause::invalid("type", &"".into(), &format!("has invalid value: {sort}")));
    }
    let unset = [("firstTimestamp", set("firstTimestamp")), ("lastTimestamp", set("lastTimestamp"))];
    let counted = ("count", o["count"].as_i64().unwrap_or(0) != 0);
    let sent =
        ("source", ["component", "host"].iter().any(|f| o["source"][*f].as_str().is_some_and(|t| !t.is_empty())));
    for (f, _) in unset.into_iter().chain([counted, sent]).filter(|f| f.1) {
        out.push(Cause::invalid(f, &"".into(), "needs to be unset"));
    }
    if out.is_empty() {
        Ok(())
    } else {
        Err(Failure::invalid(kind, o["metadata"]["name"].as_str().unwrap_or_default(), &out))
    }
}

/// Refuses to change what an event says through the newer group; only its series goes on.
///
/// # Errors
/// 422 with every field.
pub fn unchanged(kind: &Kind, old: &Value, new: &Value) -> Result<(), Failure> {
    let fields = [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingComponent"),
        ("reportingInstance", "reportingInstance"),
    ];
    // what Go writes of a field that is not set says nothing
    let bare = |v: &Value| match v {
        Value::Object(m) => m.is_empty(),
        v => v.is_null() || v == "" || v == 0,
    };
    let changed = fields.into_iter().filter(|f| old[f.1] != new[f.1] && !(bare(&old[f.1]) && bare(&new[f.1])));
    let out: Vec<Cause> = changed.map(|f| Cause::invalid(f.0, &new[f.1], "field is immutable")).collect();
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    if out.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, name, &out)) }
}

/// The old rules of an event: where it may be, and what one with a time has to say.
pub fn rules(o: &Value, out: &mut Vec<Cause>) {
    old_rules(o, "reportingComponent", out);
}

fn old_rules(o: &Value, controller: &'static str, out: &mut Vec<Cause>) {
    let (own, of) = (o["metadata"]["namespace"].as_str().unwrap_or_default(), &o["involvedObject"]["namespace"]);
    let of = of.as_str().unwrap_or_default();
    let elsewhere = |out: &mut Vec<Cause>| {
        out.push(Cause::invalid("involvedObject.namespace", &of.into(), "does not match event.namespace"));
    };
    if o["eventTime"].is_null() {
        if of.is_empty() && !matches!(own, "" | "default") || !of.is_empty() && of != own {
            elsewhere(out);
        }
        return;
    }
    if of.is_empty() && !matches!(own, "default" | "kube-system") {
        elsewhere(out);
    }
    let names_of = [
        (controller, "reportingComponent"),
        ("reportingInstance", "reportingInstance"),
        ("action", "action"),
        ("reason", "reason"),
    ];
    for (shown, f) in names_of {
        let text = o[f].as_str().unwrap_or_default();
        if text.is_empty() {
            out.push(Cause::required(shown, ""));
        }
        if f == "reportingComponent" {
            out.extend(names::key(text).iter().map(|why| Cause::invalid(shown, &text.into(), why)));
        } else if text.len() > 128 {
            out.push(Cause::invalid(shown, &"".into(), "can have at most 128 characters"));
        }
    }
    if o["message"].as_str().is_some_and(|t| t.len() > 1024) {
        out.push(Cause::invalid("message", &"".into(), "can have at most 1024 characters"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_there_and_back() {
        let shown = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"name": "p"}, "note": "n",
            "reportingController": "ex.io/c", "deprecatedCount": 2});
        let mut o = shown.clone();
        raise(&mut o);
        assert_eq!(o["involvedObject"]["name"], "p");
        assert_eq!((&o["message"], &o["count"], &o["apiVersion"]), (&json!("n"), &json!(2), &json!("v1")));
        lower(&mut o);
        assert_eq!(o, shown);
        let mut ops =
            json!([{"op": "replace", "path": "/note", "value": "m"}, {"op": "test", "path": "/regarding/name"}]);
        raise(&mut ops);
        assert_eq!((&ops[0]["path"], &ops[1]["path"]), (&json!("/message"), &json!("/involvedObject/name")));
    }
}
