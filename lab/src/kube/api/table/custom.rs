//! Rows of custom kinds: their printer columns, found by JSON path.
use serde_json::{Value, json};

use super::{AGE, NAME, Row, head};
use crate::kube::schema::Kind;

/// Column definitions of a custom kind.
pub(super) fn heads(kind: &Kind) -> Vec<Value> {
    let mut out = vec![head(&NAME)];
    if kind.columns.is_empty() {
        out.push(head(&(AGE.0, "date", 0)));
    }
    out.extend(kind.columns.iter().map(|c| {
        json!({"name": c["name"], "type": c["type"], "format": c["format"].as_str().unwrap_or_default(),
            "description": c["description"].as_str().unwrap_or_default(), "priority": c["priority"].as_u64().unwrap_or(0)})
    }));
    out
}

/// Cells of a custom kind.
pub(super) fn cells(kind: &Kind, r: &Row<'_>) -> Vec<Value> {
    let mut out = vec![r.name()];
    if kind.columns.is_empty() {
        out.push(r.age());
    }
    out.extend(kind.columns.iter().map(|c| cell(r, c)));
    out
}

fn cell(r: &Row<'_>, column: &Value) -> Value {
    let found = find(r.o, column["jsonPath"].as_str().unwrap_or_default());
    let Some(v) = found.first().filter(|v| !v.is_null()) else { return Value::Null };
    match column["type"].as_str() {
        Some("integer") => v.as_i64().map_or(Value::Null, Value::from),
        Some("number") => v.as_f64().map_or(Value::Null, Value::from),
        Some("boolean") => v.as_bool().map_or(Value::Null, Value::from),
        Some("date") => {
            let at = v.as_str().and_then(crate::kube::store::meta::parse_time);
            at.map_or_else(|| json!("<unknown>"), |t| json!(super::age(r.now.saturating_sub(t))))
        }
        // of several values the first; lists and objects as JSON
        _ if v.is_array() || v.is_object() => json!(crate::kube::text::ordered(v)),
        _ => json!(v.as_str().map_or_else(|| super::super::gojson::printed(v), str::to_owned)),
    }
}

/// Values at a JSON path (`.status.conditions[?(@.type=="Ready")].status`, `.a['b.c']`, `.list[*].x`, `.list[0]`).
#[must_use]
pub(crate) fn find<'a>(root: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut now = vec![root];
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}');
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some(end) = closing(inner, ']') else { return Vec::new() };
            now = now.into_iter().flat_map(|v| step(v, &inner[..end])).collect();
            rest = &inner[end + 1..];
            continue;
        }
        let name = rest.trim_start_matches('.');
        // `\.` belongs to the name.
        let bytes = name.as_bytes();
        let end = (0..name.len())
            .find(|i| matches!(bytes[*i], b'.' | b'[') && (*i == 0 || bytes[i - 1] != b'\\'))
            .unwrap_or(name.len());
        if end == 0 {
            return Vec::new();
        }
        let key = name[..end].replace("\\.", ".");
        now = now.into_iter().filter_map(|v| v.get(&key)).collect();
        rest = &name[end..];
    }
    now
}

/// Where the bracket or brace `end` closes, quotes minded.
pub(crate) fn closing(inner: &str, end: char) -> Option<usize> {
    let mut quote = None;
    for (i, c) in inner.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, c) if c == end => return Some(i),
            _ => {}
        }
    }
    None
}

fn step<'a>(v: &'a Value, inner: &str) -> Vec<&'a Value> {
    if inner == "*" {
        return match v {
            Value::Array(a) => a.iter().collect(),
            Value::Object(m) => m.values().collect(),
            _ => Vec::new(),
        };
    }
    if let Some(test) = inner.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (left, right, equal) = match (test.split_once("=="), test.split_once("!=")) {
            (Some((l, r)), _) => (l, r, true),
            (None, Some((l, r))) => (l, r, false),
            _ => return Vec::new(),
        };
        let (left, right) = (left.trim().trim_start_matches('@'), right.trim().trim_matches(['"', '\'']));
        let is = |x: &Value| {
            find(x, left).first().is_some_and(|f| f.as_str().map_or_else(|| f.to_string(), str::to_owned) == right)
        };
        return v.as_array().into_iter().flatten().filter(|x| is(x) == equal).collect();
    }
    if let Some(key) = inner.strip_prefix(['\'', '"']) {
        return v.get(key.trim_end_matches(['\'', '"'])).into_iter().collect();
    }
    let len = v.as_array().map_or(0, Vec::len) as i64;
    let at = inner.parse::<i64>().map(|i| if i < 0 { i + len } else { i });
    at.ok().and_then(|i| v.get(usize::try_from(i).ok()?)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_what_kubernetes_finds() {
        let o = json!({"a": {"b.c": 1, "list": [{"x": 1, "t": "A"}, {"x": 2, "t": "B"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        for (path, want) in [
            (".a['b.c']", json!([1])),
            (".a.b\\.c", json!([1])),
            (".a.list[1].x", json!([2])),
            (".a.list[-1].x", json!([2])),
            (".a.list[*].x", json!([1, 2])),
            (".a.list[?(@.t=='B')].x", json!([2])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".missing.x", json!([])),
        ] {
            assert_eq!(json!(find(&o, path)), want, "{path}");
        }
    }
}
