//! What makes an object of a custom kind invalid: types, limits, patterns and rules of its schema, in the API server's
//! words. Grade: source (kube-openapi's validator and the CEL rules of apiextensions).
use serde_json::Value;

use super::cel::{self, Verdict};
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

/// Checks an object; `old` is what it was.
pub fn check(node: Node<'_>, obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let Value::Object(m) = obj else { return };
    let before = out.len();
    for r in node.required().into_iter().filter(|r| !m.contains_key(*r)) {
        out.push(Cause::required(r, ""));
    }
    let parts = || m.iter().filter(|(k, _)| !matches!(k.as_str(), "metadata" | "apiVersion" | "kind"));
    for (k, v) in parts() {
        place(node.down(k), k, v, out);
    }
    combined(node, "", obj, out);
    if out[before..].iter().any(|c| BLOCKING.contains(&c.reason)) {
        out.push(Cause { reason: "FieldValueInvalid", field: "<nil>".into(), message: SKIPPED.into() });
        return;
    }
    rules(node, "", obj, old, out);
    for (k, v) in parts() {
        walk_rules(node.down(k), k, v, old.and_then(|o| o.get(k)), out);
    }
}

/// Checks a value of a place, be it one that a schema gives by itself.
pub(super) fn value(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    place(node, path, v, out);
}

fn place(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    if node.schema().is_none() || v.is_null() {
        return;
    }
    let is = type_of(v);
    let kind = if node.int_or_string() { Some("integer,string") } else { node.kind() };
    match kind {
        Some("integer,string") if matches!(is, "integer" | "string") => {}
        Some(want) if want != is && !(want == "number" && is == "integer") => {
            let why = format!("{path} in body must be of type {want}: \"{is}\"");
            let shown = if v.is_string() { v.clone() } else { is.into() };
            out.push(Cause {
                reason: "FieldValueTypeInvalid",
                field: path.into(),
                message: format!("Invalid value: {shown}: {why}"),
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
    combined(node, path, v, out);
    match v {
        Value::Object(m) => {
            for r in node.required().into_iter().filter(|r| !m.contains_key(*r)) {
                out.push(Cause::required(format!("{path}.{r}"), ""));
            }
            for (k, v) in m {
                place(node.down(k), &format!("{path}.{k}"), v, out);
            }
        }
        Value::Array(a) => a.iter().enumerate().for_each(|(i, v)| place(node.items(), &format!("{path}[{i}]"), v, out)),
        _ => {}
    }
}

/// Checks a value against `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(node: Node<'_>, path: &str, v: &Value, out: &mut Vec<Cause>) {
    let judged = |schema: &Value| {
        let mut found = Vec::new();
        place(Node::new(schema), path, v, &mut found);
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
        if let Some(p) = node.word("pattern").as_str()
            && regex::Regex::new(p).is_ok_and(|r| !r.is_match(s))
        {
            say(format!("should match '{p}'"));
        }
    }
    if let Some(n) = count("minItems").filter(|n| v.as_array().is_some_and(|a| a.len() < *n)) {
        say(format!("should have at least {n} items"));
    }
    if let Some(n) = count("minProperties").filter(|n| v.as_object().is_some_and(|m| m.len() < *n)) {
        say(format!("should have at least {n} properties"));
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
                // Only the items of a map-list are known again.
                let before = match node.list() {
                    ListKind::Map(keys) => old.and_then(Value::as_array).and_then(|l| {
                        let key = item_key(&keys, v);
                        l.iter().find(|o| item_key(&keys, o) == key)
                    }),
                    _ => None,
                };
                walk_rules(node.items(), &format!("{path}[{i}]"), v, before, out);
            }
        }
        _ => {}
    }
}

fn rules(node: Node<'_>, path: &str, v: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    for r in node.word("x-kubernetes-validations").as_array().into_iter().flatten() {
        let rule = r["rule"].as_str().unwrap_or_default();
        let Verdict::Broken(trouble) = cel::check(rule, v, old) else { continue };
        let said = r["messageExpression"].as_str().and_then(|e| cel::text(e, v, old));
        let said = said.or_else(|| r["message"].as_str().map(str::to_owned));
        let why = match trouble {
            Some(t) => format!("rule evaluation error: {t}"),
            None => said.unwrap_or_else(|| format!("failed rule: {}", rule.trim())),
        };
        let (below, shown) = (r["fieldPath"].as_str().unwrap_or_default(), node.kind().unwrap_or(type_of(v)));
        let field = format!("{path}{below}");
        let field = field.trim_start_matches('.').to_owned();
        out.push(match r["reason"].as_str() {
            Some("FieldValueForbidden") => {
                Cause { reason: "FieldValueForbidden", field, message: format!("Forbidden: {why}") }
            }
            Some("FieldValueRequired") => Cause::required(field, &why),
            Some("FieldValueDuplicate") => {
                Cause { reason: "FieldValueDuplicate", field, message: format!("Duplicate value: \"{shown}\"") }
            }
            _ => Cause::invalid(if field.is_empty() { "<nil>".to_owned() } else { field }, &shown.into(), &why),
        });
    }
}
