//! What makes an object of a custom kind invalid: types, limits, patterns and rules of its schema, in the API server's
//! words. Grade: source (kube-openapi's validator and the CEL rules of apiextensions).
use serde_json::Value;

use super::cel::{self, Verdict};
use super::formats;
use super::node::{ListKind, Node, item_key};
use crate::kube::store::Cause;

const SKIPPED: &str = "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// Reasons that keep rules from being checked.
const BLOCKING: &[&str] = &[
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
];

fn type_of(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Checks an object; `old` is what it was. What has not changed since is not judged again, but by rules that compare.
pub fn check(node: Node<'_>, obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let Value::Object(m) = obj else { return };
    let before = out.len();
    for r in node.required().into_iter().filter(|r| !m.contains_key(*r)) {
        out.push(Cause::required(r, ""));
    }
    let parts = || m.iter().filter(|(k, _)| !matches!(k.as_str(), "metadata" | "apiVersion" | "kind"));
    for (k, v) in parts() {
        place(node.down(k), k, v, old.and_then(|o| o.get(k)), out);
    }
    combined(node, "", obj, out);
    let ruled = node.schema().is_some_and(has_rules);
    if ruled && out[before..].iter().any(|c| BLOCKING.contains(&c.reason)) {
        out.push(Cause { reason: "FieldValueInvalid", field: "<nil>".into(), message: SKIPPED.into() });
        return;
    }
    rules(node, "", obj, old, out);
    for (k, v) in parts() {
        walk_rules(node.down(k), k, v, old.and_then(|o| o.get(k)), out);
    }
}

/// Whether a schema has rules anywhere.
fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(m) => m.contains_key("x-kubernetes-validations") || m.values().any(has_rules),
        Value::Array(a) => a.iter().any(has_rules),
        _ => false,
    }
}

/// Checks a value of a place, be it one that a schema gives by itself; such a one has no name in texts.
pub(super) fn value(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    let mut found = Vec::new();
    place(node, "", v, None, &mut found);
    out.extend(found.into_iter().map(|c| Cause { field: format!("{path}{}", c.field), ..c }));
}

/// The item of a list that is known again; only those of a map are.
fn before<'a>(node: Node<'_>, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let (ListKind::Map(keys), Some(list)) = (node.list(), old.and_then(Value::as_array)) else { return None };
    let key = item_key(&keys, item);
    list.iter().find(|o| item_key(&keys, o) == key)
}

fn place(node: Node<'_>, path: &str, v: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    if node.schema().is_none() || v.is_null() || old == Some(v) {
        return;
    }
    let is = type_of(v);
    let kind = if node.int_or_string() { Some("integer,string") } else { node.kind() };
    match kind {
        Some("integer,string") if matches!(is, "integer" | "string") => {}
        Some(want) if want != is && !(want == "number" && is == "integer") => {
            let why = format!("{path} in body must be of type {want}: \"{is}\"");
            out.push(Cause {
                reason: "FieldValueTypeInvalid",
                field: path.into(),
                message: format!("Invalid value: \"{is}\": {why}"),
            });
            return;
        }
        _ => {}
    }
    if let Some(allowed) = node.allowed().filter(|a| !a.contains(v)) {
        let list: Vec<String> =
            allowed.iter().map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_owned)).collect();
        out.push(Cause::unsupported(path, v, &list));
    }
    limits(node, path, v, out);
    formed(node, path, v, out);
    combined(node, path, v, out);
    match v {
        Value::Object(m) => {
            for r in node.required().into_iter().filter(|r| !m.contains_key(*r)) {
                out.push(Cause::required(format!("{path}.{r}"), ""));
            }
            for (k, v) in m {
                place(node.down(k), &format!("{path}.{k}"), v, old.and_then(|o| o.get(k)), out);
            }
            embedded(node, path, m, out);
        }
        Value::Array(a) => {
            for (i, v) in a.iter().enumerate() {
                place(node.items(), &format!("{path}[{i}]"), v, before(node, v, old), out);
            }
        }
        _ => {}
    }
}

/// A whole object inside of another says what it is.
fn embedded(node: Node<'_>, path: &str, m: &serde_json::Map<String, Value>, out: &mut Vec<Cause>) {
    if node.word("x-kubernetes-embedded-resource") != true {
        return;
    }
    for f in ["apiVersion", "kind"].into_iter().filter(|f| m.get(*f).and_then(Value::as_str).is_none_or(str::is_empty))
    {
        out.push(Cause::required(format!("{path}.{f}"), ""));
    }
}

/// Texts and numbers have the form that their format names, where the server knows it.
fn formed(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    let Some(format) = node.word("format").as_str() else { return };
    if let (Some(n), "int32") = (v.as_i64(), format) {
        if i32::try_from(n).is_err() {
            let why = format!("Checked value must be of type integer with format int32 in {path}");
            out.push(Cause::invalid("<nil>", &"".into(), &why));
        }
        return;
    }
    if v.as_str().is_some_and(|text| !formats::fits(format, text)) {
        let message = format!("Invalid value: {v}: {path} in body must be of type {format}: {v}");
        out.push(Cause { reason: "FieldValueTypeInvalid", field: path.into(), message });
    }
}

/// Checks a value against `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    let judged = |schema: &Value| {
        let mut found = Vec::new();
        place(Node::new(schema), path, v, None, &mut found);
        found
    };
    let all = |key: &str| -> Vec<Vec<Cause>> {
        node.word(key).as_array().into_iter().flatten().filter(|s| s.get("$ref").is_none()).map(judged).collect()
    };
    let mut say = |why: String, more: Option<&Vec<Cause>>| {
        let message = format!("Invalid value: \"\": {path:?} must {why}");
        out.push(Cause { reason: "FieldValueInvalid", field: "<nil>".into(), message });
        out.extend(more.into_iter().flatten().cloned());
    };
    let any = all("anyOf");
    if !any.is_empty() && any.iter().all(|f| !f.is_empty()) {
        say("validate at least one schema (anyOf)".to_owned(), any.first());
    }
    let one = all("oneOf");
    match one.iter().filter(|f| f.is_empty()).count() {
        _ if one.is_empty() => {}
        1 => {}
        0 => say("validate one and only one schema (oneOf). Found none valid".to_owned(), one.first()),
        n => say(
            format!("validate one and only one schema (oneOf). Found {n} valid alternatives"),
            one.iter().find(|f| !f.is_empty()),
        ),
    }
    let each = all("allOf");
    if each.iter().any(|f| !f.is_empty()) {
        let none = if each.iter().all(|f| !f.is_empty()) { ". None validated" } else { "" };
        let more: Vec<Cause> = each.iter().flatten().cloned().collect();
        say(format!("validate all the schemas (allOf){none}"), Some(&more));
    }
    if node.word("not").is_object() && judged(node.word("not")).is_empty() {
        say("not validate the schema (not)".to_owned(), None);
    }
}

/// Numbers as Go prints them: `3`, not `3.0`.
fn plain(n: f64) -> String {
    n.to_string()
}

fn limits(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    let number = |key: &str| node.word(key).as_f64();
    let count = |key: &str| node.word(key).as_u64().and_then(|n| usize::try_from(n).ok());
    let mut say = |why: String| out.push(Cause::invalid(path, v, &format!("{path} in body {why}")));
    if let Some(x) = v.as_f64() {
        let open = |key: &str| node.word(key) == true;
        if let Some(m) = number("minimum").filter(|m| x < *m || open("exclusiveMinimum") && x <= *m) {
            let or = if open("exclusiveMinimum") { "" } else { " or equal to" };
            say(format!("should be greater than{or} {}", plain(m)));
        }
        if let Some(m) = number("maximum").filter(|m| x > *m || open("exclusiveMaximum") && x >= *m) {
            let or = if open("exclusiveMaximum") { "" } else { " or equal to" };
            say(format!("should be less than{or} {}", plain(m)));
        }
        if let Some(m) = number("multipleOf").filter(|m| *m != 0.0 && (x / m).fract() != 0.0) {
            say(format!("should be a multiple of {}", plain(m)));
        }
    }
    if let Value::String(s) = v {
        if let Some(n) = count("minLength").filter(|n| s.chars().count() < *n) {
            say(format!("should be at least {n} chars long"));
        }
        let short = count("minLength").is_some_and(|n| s.chars().count() < n);
        if let Some(p) = node.word("pattern").as_str().filter(|_| !short)
            && regex::Regex::new(p).is_ok_and(|r| !r.is_match(s))
        {
            say(format!("should match '{p}'"));
        }
    }
    let mut few = |have: usize, least: Option<usize>, what: &str| {
        if let Some(n) = least.filter(|n| have < *n) {
            let why = format!("{path} in body should have at least {n} {what}");
            out.push(Cause::invalid(path, &have.into(), &why));
        }
    };
    match v {
        Value::Array(a) => few(a.len(), count("minItems"), "items"),
        Value::Object(m) => few(m.len(), count("minProperties"), "properties"),
        _ => {}
    }
    most(node, path, v, out);
    unique(node, path, v, out);
}

/// Limits from above have words of their own.
fn most(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    let count = |key: &str| node.word(key).as_u64().and_then(|n| usize::try_from(n).ok());
    if let Some(n) = count("maxLength").filter(|n| v.as_str().is_some_and(|s| s.chars().count() > *n)) {
        let message = format!("Too long: may not be more than {n} bytes");
        out.push(Cause { reason: "FieldValueTooLong", field: path.into(), message });
    }
    let have = v.as_array().map(Vec::len).or_else(|| v.as_object().map(serde_json::Map::len));
    let limit = if v.is_array() { count("maxItems") } else { count("maxProperties") };
    if let (Some(have), Some(limit)) = (have, limit)
        && have > limit
    {
        let message = format!("Too many: {have}: must have at most {limit} items");
        out.push(Cause { reason: "FieldValueTooMany", field: path.into(), message });
    }
    if let (Value::Array(a), ListKind::Map(keys)) = (v, node.list()) {
        let mut seen = Vec::new();
        for (i, item) in a.iter().enumerate() {
            let key = item_key(&keys, item);
            if seen.contains(&key) {
                let shown = key.trim_start_matches("k:").to_owned();
                let message = format!("Duplicate value: {shown}");
                out.push(Cause { reason: "FieldValueDuplicate", field: format!("{path}[{i}]"), message });
            }
            seen.push(key);
        }
    }
}

/// Items of a set are there once.
fn unique(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    let (Value::Array(a), ListKind::Set) = (v, node.list()) else { return };
    for (i, item) in a.iter().enumerate().filter(|(i, item)| a[..*i].contains(item)) {
        out.push(super::rules::duplicate(format!("{path}[{i}]"), item));
    }
}

fn walk_rules(node: Node<'_>, path: &str, v: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    if v.is_null() {
        return;
    }
    rules(node, path, v, old, out);
    match v {
        Value::Object(m) => {
            for (k, v) in m {
                walk_rules(node.down(k), &format!("{path}.{k}"), v, old.and_then(|o| o.get(k)), out);
            }
        }
        Value::Array(a) => {
            for (i, v) in a.iter().enumerate() {
                walk_rules(node.items(), &format!("{path}[{i}]"), v, before(node, v, old), out);
            }
        }
        _ => {}
    }
}

fn rules(node: Node<'_>, path: &str, v: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    for r in node.word("x-kubernetes-validations").as_array().into_iter().flatten() {
        let rule = r["rule"].as_str().unwrap_or_default();
        let maybe = r["optionalOldSelf"] == true;
        // what has not changed is judged only by rules that compare
        if old == Some(v) && !cel::parse(rule).is_ok_and(|e| cel::compares(&e)) {
            continue;
        }
        let Verdict::Broken(trouble) = cel::check(rule, v, old, maybe) else { continue };
        let told = r["message"].as_str().map(str::trim).filter(|m| !m.is_empty()).map(str::to_owned);
        let said = r["messageExpression"].as_str().and_then(|e| cel::text(e, v, old)).or_else(|| told.clone());
        let field = format!("{path}{}", r["fieldPath"].as_str().unwrap_or_default());
        let field = field.trim_start_matches('.').to_owned();
        let place = if field.is_empty() { "<nil>".to_owned() } else { field };
        if let Some(trouble) = trouble {
            let of = told.as_deref().unwrap_or(rule.trim());
            let shown = node.kind().unwrap_or(type_of(v));
            let place = if path.is_empty() { "<nil>" } else { path };
            out.push(Cause::invalid(place, &shown.into(), &format!("{trouble} evaluating rule: {of}")));
            continue;
        }
        let why = said.unwrap_or_else(|| format!("failed rule: {}", rule.trim()));
        out.push(match r["reason"].as_str() {
            Some("FieldValueForbidden") => {
                Cause { reason: "FieldValueForbidden", field: place, message: format!("Forbidden: {why}") }
            }
            Some("FieldValueRequired") => Cause::required(place, &why),
            Some("FieldValueDuplicate") => super::rules::duplicate(place, v),
            // lists and objects are not shown
            _ if v.is_object() || v.is_array() => Cause::plain(&place, &why),
            _ => Cause::invalid(place, v, &why),
        });
    }
}
