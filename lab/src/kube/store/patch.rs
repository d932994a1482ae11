//! JSON patch, merge patch and strategic merge patch.
use serde_json::{Map, Value};

use super::Failure;
use crate::kube::api::gojson::printed;
use crate::kube::schema::node::Node;

/// RFC 7386.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(p) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(t) = target else { return };
    for (k, v) in p {
        if v.is_null() {
            t.shift_remove(k);
        } else {
            merge(t.entry(k.clone()).or_insert(Value::Null), v);
        }
    }
}

/// Strategic merge patch: lists merge by their keys, directives (`$patch`, `$deleteFromPrimitiveList`,
/// `$setElementOrder`, `$retainKeys`) are honoured.
pub fn strategic(node: Node<'_>, target: &mut Value, patch: &Value) {
    let Value::Object(p) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(t) = target else { return };
    if p.get("$patch").is_some_and(|v| v == "replace") {
        t.clear();
    }
    if let Some(keep) = p.get("$retainKeys").and_then(Value::as_array) {
        t.retain(|k, _| keep.iter().any(|x| x == k.as_str()));
    }
    for (k, v) in p {
        if k == "$patch" || k == "$retainKeys" || k.starts_with("$setElementOrder/") {
            continue;
        }
        if let Some(list) = k.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(a), Some(del)) = (t.get_mut(list).and_then(Value::as_array_mut), v.as_array()) {
                a.retain(|x| !del.contains(x));
            }
            continue;
        }
        if v.is_null() {
            t.shift_remove(k);
            continue;
        }
        let sub = node.down(k);
        match v {
            Value::Array(items) => strategic_list(sub, t.entry(k.clone()).or_insert(Value::Array(Vec::new())), items),
            Value::Object(o) if o.get("$patch").is_some_and(|x| x == "delete") => drop(t.shift_remove(k)),
            _ => strategic(sub, t.entry(k.clone()).or_insert(Value::Null), v),
        }
    }
    for (k, order) in p.iter().filter_map(|(k, v)| Some((k.strip_prefix("$setElementOrder/")?, v.as_array()?))) {
        let key = node.down(k).merge_key();
        if let Some(a) = t.get_mut(k).and_then(Value::as_array_mut) {
            let place = |x: &Value| {
                order.iter().position(|o| key.map_or_else(|| o == x, |key| o[key] == x[key])).unwrap_or(usize::MAX)
            };
            a.sort_by_key(place);
        }
    }
}

/// Refuses a strategic merge patch whose lists cannot be merged.
///
/// # Errors
/// 500 for an item without its merge key, or with a directive that nobody knows.
pub fn mergeable(node: Node<'_>, patch: &Value) -> Result<(), Failure> {
    let known = |v: &Value| matches!(v.as_str(), Some("replace" | "delete" | "merge"));
    match patch {
        Value::Object(m) => {
            if let Some(how) = m.get("$patch").filter(|v| !known(v)) {
                let how = how.as_str().unwrap_or_default();
                return Err(Failure::unforeseen(format!("unknown patch type: {how} in map: {}", printed(patch))));
            }
            m.iter().filter(|(k, _)| !k.starts_with('$')).try_for_each(|(k, v)| mergeable(node.down(k), v))
        }
        Value::Array(items) => {
            let key = node.merge_key();
            for item in items.iter().filter(|i| i.is_object()) {
                let lacks = key.filter(|k| item.get(k).is_none() && item["$patch"] != "replace");
                if let Some(key) = lacks {
                    let why = format!("map: {} does not contain declared merge key: {key}", printed(item));
                    return Err(Failure::unforeseen(why));
                }
                mergeable(node.items(), item)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn strategic_list(node: Node<'_>, target: &mut Value, patch: &[Value]) {
    let replace = patch.iter().any(|p| p["$patch"] == "replace");
    let plain = || patch.iter().filter(|p| p["$patch"] != "replace").cloned().collect::<Vec<_>>();
    let Some(list) = target.as_array_mut().filter(|_| !replace) else {
        *target = Value::Array(plain());
        return;
    };
    let was = list.clone();
    if let Some(key) = node.merge_key() {
        for p in patch {
            let at = list.iter().position(|x| x[key] == p[key]);
            if p["$patch"] == "delete" {
                at.map(|i| list.remove(i));
                continue;
            }
            match at {
                Some(i) => strategic(node.items(), &mut list[i], p),
                None => {
                    let mut fresh = Value::Object(Map::new());
                    strategic(node.items(), &mut fresh, p);
                    list.push(fresh);
                }
            }
        }
        in_order(list, &was, patch, |a, b| a[key] == b[key]);
    } else if node.merges_scalars() {
        for p in patch.iter().filter(|p| !list.contains(p)).cloned().collect::<Vec<_>>() {
            list.push(p);
        }
        in_order(list, &was, patch, |a, b| a == b);
    } else {
        *target = Value::Array(plain());
    }
}

/// Puts a merged list in order: what the patch names comes as there, the rest as it was, and what is new goes first.
fn in_order(list: &mut Vec<Value>, was: &[Value], patch: &[Value], same: impl Fn(&Value, &Value) -> bool) {
    let place = |all: &[Value], v: &Value| all.iter().position(|x| same(x, v));
    let (mut named, rest): (Vec<Value>, Vec<Value>) =
        std::mem::take(list).into_iter().partition(|v| place(patch, v).is_some());
    named.sort_by_key(|v| place(patch, v));
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let next = match (rest.peek(), named.peek()) {
            (Some(r), Some(n)) => {
                let before = matches!((place(was, r), place(was, n)), (Some(r), Some(n)) if r < n);
                if before { rest.next() } else { named.next() }
            }
            (Some(_), None) => rest.next(),
            (None, _) => named.next(),
        };
        match next {
            Some(v) => list.push(v),
            None => return,
        }
    }
}

/// The server keeps to itself which operation failed, and why.
fn invalid(why: String) -> Failure {
    tracing::debug!(why, "a JSON patch does not apply");
    let mut f = Failure::new(422, "Invalid", "the server rejected our request due to an error in our request");
    f.details = Some(Value::Object(Map::new()));
    f
}

/// RFC 6902.
///
/// # Errors
/// 400 when it is no list of operations, 422 when one of them fails.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), Failure> {
    let Some(ops) = patch.as_array() else {
        return Err(Failure::bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        ));
    };
    for op in ops {
        let text = |f: &str| op[f].as_str().map(str::to_owned);
        let path = text("path").ok_or_else(|| invalid("missing path".into()))?;
        match op["op"].as_str() {
            Some("test") => {
                let have = target.pointer(&path).unwrap_or(&Value::Null);
                if *have != op["value"] {
                    return Err(invalid(format!("testing value {path} failed: test failed")));
                }
            }
            Some("add") => add(target, &path, op["value"].clone())?,
            Some("replace") => {
                let at = target.pointer_mut(&path).ok_or_else(|| {
                    invalid(format!("replace operation does not apply: doc is missing path: {path}: missing value"))
                })?;
                *at = op["value"].clone();
            }
            Some("remove") => drop(remove(target, &path)?),
            Some("move") => {
                let v = remove(target, &text("from").unwrap_or_default())?;
                add(target, &path, v)?;
            }
            Some("copy") => {
                let from = text("from").unwrap_or_default();
                let v = target.pointer(&from).cloned().ok_or_else(|| {
                    invalid(format!("copy operation does not apply: doc is missing from path: {from}: missing value"))
                })?;
                add(target, &path, v)?;
            }
            other => return Err(invalid(format!("Unexpected kind: {}", other.unwrap_or("unknown")))),
        }
    }
    Ok(())
}

fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), Failure> {
    let missing = || invalid(format!("add operation does not apply: doc is missing path: \"{path}\": missing value"));
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, last) = split(path).ok_or_else(missing)?;
    match target.pointer_mut(parent) {
        Some(Value::Object(m)) => drop(m.insert(last, value)),
        Some(Value::Array(a)) if last == "-" => a.push(value),
        Some(Value::Array(a)) => {
            let i: usize = last.parse().map_err(|_| missing())?;
            if i > a.len() {
                return Err(missing());
            }
            a.insert(i, value);
        }
        _ => return Err(missing()),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, Failure> {
    let missing =
        || invalid(format!("remove operation does not apply: doc is missing path: \"{path}\": missing value"));
    let (parent, last) = split(path).ok_or_else(missing)?;
    match target.pointer_mut(parent) {
        Some(Value::Object(m)) => m.shift_remove(&last).ok_or_else(missing),
        Some(Value::Array(a)) => {
            let i: usize = last.parse().map_err(|_| missing())?;
            if i < a.len() { Ok(a.remove(i)) } else { Err(missing()) }
        }
        _ => Err(missing()),
    }
}
