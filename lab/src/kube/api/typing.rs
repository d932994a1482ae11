//! What of a configuration to apply does not fit its schema, in the words of the machinery that merges it. Grade: source
//! (structured-merge-diff).
use serde_json::Value;

use crate::kube::schema::Kind;
use crate::kube::schema::node::{Field, ListKind, Node};

/// Everything that does not fit, as one text.
#[must_use]
pub fn misfits(kind: &Kind, obj: &Value) -> Option<String> {
    let mut out = Vec::new();
    walk(Node::of(kind), obj, "", &mut out);
    out.sort();
    match out.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("errors:\n  {}", many.join("\n  "))),
    }
}

/// What a schema wants at a place.
#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Map,
    List,
    Text,
    Number,
    Flag,
    Any,
}

fn sort(node: Node<'_>) -> Sort {
    if node.open() || node.quantity() || node.int_or_string() || node.format() == Some("date-time") {
        return Sort::Any;
    }
    match node.kind() {
        Some("object") => Sort::Map,
        Some("array") => Sort::List,
        Some("string") => Sort::Text,
        Some("integer" | "number") => Sort::Number,
        Some("boolean") => Sort::Flag,
        _ => Sort::Any,
    }
}

/// A value as Go prints it.
fn printed(v: &Value) -> String {
    match v {
        Value::Null => "<nil>".to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(a) => format!("[{}]", a.iter().map(printed).collect::<Vec<_>>().join(" ")),
        Value::Object(m) => {
            let mut all: Vec<String> = m.iter().map(|(k, v)| format!("{k}:{}", printed(v))).collect();
            all.sort();
            format!("map[{}]", all.join(" "))
        }
        other => other.to_string(),
    }
}

/// What is wrong with the value itself.
fn misfit(want: Sort, v: &Value) -> Option<String> {
    let go = match v {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Array(_) => "[]interface {}",
        _ => "map[string]interface {}",
    };
    match (want, v) {
        (_, Value::Null) | (Sort::Any, _) => None,
        (Sort::Map, Value::Object(_)) | (Sort::List, Value::Array(_)) => None,
        (Sort::Text, Value::String(_)) | (Sort::Number, Value::Number(_)) | (Sort::Flag, Value::Bool(_)) => None,
        (Sort::Map, v) => Some(format!("expected map, got &{{{}}}", printed(v))),
        (Sort::List, v) => Some(format!("expected list, got &{{{}}}", printed(v))),
        (Sort::Flag, v) => Some(format!("expected boolean, got &{{{}}}", printed(v))),
        (Sort::Text, v) => Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", printed(v))),
        (Sort::Number, _) => Some(format!("expected numeric (int or float), got {go}")),
    }
}

fn walk(node: Node<'_>, v: &Value, path: &str, out: &mut Vec<String>) {
    if let Some(why) = misfit(if path.is_empty() { Sort::Any } else { sort(node) }, v) {
        return out.push(format!("{path}: {why}"));
    }
    match v {
        Value::Object(m) => {
            for (k, v) in m {
                let at = format!("{path}.{k}");
                match node.field(k) {
                    Field::Known(n) | Field::Entry(n) => walk(n, v, &at, out),
                    Field::Unknown => out.push(format!("{at}: field not declared in schema")),
                }
            }
        }
        Value::Array(items) => list(node, items, path, out),
        _ => {}
    }
}

fn list(node: Node<'_>, items: &[Value], path: &str, out: &mut Vec<String>) {
    let ListKind::Map(keys) = node.list() else {
        let each = items.iter().enumerate();
        return each.for_each(|(i, v)| walk(node.items(), v, &format!("{path}[{i}]"), out));
    };
    let mut seen = Vec::new();
    for (i, v) in items.iter().enumerate() {
        if !v.is_object() {
            out.push(format!("{path}: element {i}: associative list with keys may not have non-map elements"));
            continue;
        }
        let shown: Vec<String> = keys.iter().filter(|k| !v[**k].is_null()).map(|k| format!("{k}={}", v[*k])).collect();
        let key = format!("[{}]", shown.join(","));
        if seen.contains(&key) {
            out.push(format!("{path}: duplicate entries for key {key}"));
        }
        walk(node.items(), v, &format!("{path}{key}"), out);
        seen.push(key);
    }
}

/// Why what a strategic patch has made cannot be read again: the words for the first value of another sort.
#[must_use]
pub fn unrestored(kind: &Kind, obj: &Value) -> Option<String> {
    unread(Node::of(kind), obj, true)
}

fn unread(node: Node<'_>, v: &Value, top: bool) -> Option<String> {
    let want = if top { Sort::Any } else { sort(node) };
    if misfit(want, v).is_some() {
        let is = match v {
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            Value::Number(n) if n.is_f64() => "float64",
            Value::Number(_) => "int64",
            Value::Array(_) => "slice",
            _ => "map",
        };
        return Some(match want {
            Sort::List => format!("cannot restore slice from {is}"),
            Sort::Map if node.word("properties").is_object() => format!("cannot restore struct from: {is}"),
            Sort::Map => format!("cannot restore map from {is}"),
            Sort::Flag => "unrecognized type: bool".to_owned(),
            Sort::Number => format!("unrecognized type: {}", node.format().unwrap_or("int64")),
            _ => "unrecognized type: string".to_owned(),
        });
    }
    match v {
        Value::Object(m) => m.iter().find_map(|(k, v)| match node.field(k) {
            Field::Known(n) | Field::Entry(n) => unread(n, v, false),
            Field::Unknown => None,
        }),
        Value::Array(items) => items.iter().find_map(|v| unread(node.items(), v, false)),
        _ => None,
    }
}
