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
            let orders = m.iter().filter_map(|(k, v)| Some((k.strip_prefix("$setElementOrder/")?, v.as_array()?)));
            for (k, order) in orders {
                ordered(node.down(k), m.get(k).and_then(Value::as_array).map_or(&[], Vec::as_slice), order)?;
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

/// Refuses items that stand in another order than the one that is asked for.
fn ordered(node: Node<'_>, items: &[Value], order: &[Value]) -> Result<(), Failure> {
    let key = node.merge_key();
    let same = |a: &Value, b: &Value| key.map_or_else(|| a == b, |k| a[k] == b[k]);
    let kept: Vec<&Value> = items.iter().filter(|i| i["$patch"].is_null()).collect();
    let mut at = 0;
    for item in &kept {
        match order[at..].iter().position(|o| same(o, item)) {
            Some(i) => at += i + 1,
            None => {
                let kept: Vec<Value> = kept.iter().map(|v| (*v).clone()).collect();
                return Err(Failure::unforeseen(format!(
                    "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                    printed(&kept.into()),
                    printed(&order.to_vec().into())
                )));
            }
        }
    }
    Ok(())
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
        let text = |f: &str| op[f].as_str().unwrap_or_default().to_owned();
        let path = op["path"].as_str().ok_or_else(|| invalid("missing path".into()))?;
        match op["op"].as_str() {
            Some("test") => {
                if *get(target, path)? != op["value"] {
                    return Err(invalid(format!("testing value {path} failed: test failed")));
                }
            }
            Some("add") => add(target, path, op["value"].clone())?,
            Some("replace") => replace(target, path, op["value"].clone())?,
            Some("remove") => drop(remove(target, path)?),
            Some("move") => {
                let v = remove(target, &text("from"))?;
                add(target, path, v)?;
            }
            Some("copy") => {
                let v = get(target, &text("from"))?.clone();
                add(target, path, v)?;
            }
            other => return Err(invalid(format!("Unexpected kind: {}", other.unwrap_or("unknown")))),
        }
    }
    Ok(())
}

/// The place of a word in a list of so many; from its end for one below 0.
fn index(word: &str, length: usize) -> Option<usize> {
    let i: i64 = word.parse().ok()?;
    let i = if i < 0 { i + i64::try_from(length).ok()? } else { i };
    usize::try_from(i).ok()
}

/// The object or list that a path's last word is in, and that word. What stands before the first `/` counts for nothing.
fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), Failure> {
    let missing = || invalid(format!("doc is missing path: \"{path}\": missing value"));
    let plain = |word: &str| word.replace("~1", "/").replace("~0", "~");
    let mut words = path.split('/').skip(1).map(plain).collect::<Vec<_>>();
    let last = words.pop().ok_or_else(missing)?;
    let mut at = target;
    for word in words {
        let next = match at {
            Value::Object(m) => m.get_mut(&word),
            Value::Array(a) => index(&word, a.len()).and_then(|i| a.get_mut(i)),
            _ => None,
        };
        at = next.filter(|v| v.is_object() || v.is_array()).ok_or_else(missing)?;
    }
    Ok((at, last))
}

/// A value; null for a key that an object does not have.
fn get<'a>(target: &'a mut Value, path: &str) -> Result<&'a Value, Failure> {
    if path.is_empty() {
        return Ok(target);
    }
    match parent(target, path)? {
        (Value::Object(m), key) => Ok(m.get(&key).unwrap_or(&Value::Null)),
        (Value::Array(a), key) => index(&key, a.len()).and_then(|i| a.get(i)).ok_or_else(|| no_index(&key)),
        _ => Ok(&Value::Null),
    }
}

fn no_index(word: &str) -> Failure {
    invalid(format!("Unable to access invalid index: {word}"))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), Failure> {
    match parent(target, path)? {
        (Value::Object(m), key) => drop(m.insert(key, value)),
        (Value::Array(a), key) if key == "-" => a.push(value),
        (Value::Array(a), key) => {
            let i = index(&key, a.len() + 1).filter(|i| *i <= a.len()).ok_or_else(|| no_index(&key))?;
            a.insert(i, value);
        }
        _ => {}
    }
    Ok(())
}

/// Of objects it is as good as an addition: nothing asks whether the key was there.
fn replace(target: &mut Value, path: &str, value: Value) -> Result<(), Failure> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, path)? {
        (Value::Object(m), key) => drop(m.insert(key, value)),
        (Value::Array(a), key) => {
            let at = index(&key, a.len()).and_then(|i| a.get_mut(i));
            *at.ok_or_else(|| no_index(&key))? = value;
        }
        _ => {}
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, Failure> {
    match parent(target, path)? {
        (Value::Object(m), key) => {
            m.shift_remove(&key).ok_or_else(|| invalid(format!("Unable to remove nonexistent key: {key}")))
        }
        (Value::Array(a), key) => match index(&key, a.len()).filter(|i| *i < a.len()) {
            Some(i) => Ok(a.remove(i)),
            None => Err(no_index(&key)),
        },
        _ => Ok(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_patch_is_as_lenient_as_the_servers() {
        let after = |op: Value| {
            let mut o = json!({"a": {"b": 1}, "l": [1, 2, 3]});
            json(&mut o, &json!([op])).map(|()| o)
        };
        let value = |op: &str, path: &str| json!({"op": op, "path": path, "value": 9});
        assert_eq!(after(value("replace", "/a/none")).unwrap()["a"], json!({"b": 1, "none": 9}));
        assert_eq!(after(value("replace", "/l/-1")).unwrap()["l"], json!([1, 2, 9]));
        assert_eq!(after(value("add", "/l/-1")).unwrap()["l"], json!([1, 2, 3, 9]));
        assert_eq!(after(value("add", "a/c")).unwrap()["c"], 9);
        assert_eq!(after(json!({"op": "test", "path": "/a/none"})).unwrap()["a"]["b"], 1);
        assert_eq!(after(json!({"op": "copy", "from": "/a/none", "path": "/c"})).unwrap()["c"], Value::Null);
        for wrong in [value("add", ""), value("replace", "/none/c"), value("replace", "/l/3"), value("test", "/a/none")]
        {
            assert!(after(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(after(json!({"op": "remove", "path": "/a/none"})).is_err());
    }
}
