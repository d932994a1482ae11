//! The three-way merge of clients (`kubectl apply`, Helm): what was applied before, what is applied now, and what is there.
use serde_json::{Map, Value, json};

use crate::kube::schema::node::Node;

/// A strategic merge patch (with a `node` of a built-in kind) or a merge patch that makes `current` what `now` says;
/// what `last` said and `now` does not is taken away.
#[must_use]
pub fn patch(node: Option<Node<'_>>, last: &Value, now: &Value, current: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let object = |v: &'_ Value| v.as_object().cloned().unwrap_or_default();
    let (last, now, current) = (object(last), now.as_object().unwrap_or(&empty), object(current));
    let mut out = Map::new();
    for (k, v) in now {
        let down = node.map(|n| n.down(k));
        let before = last.get(k).unwrap_or(&Value::Null);
        match (current.get(k), v) {
            (None, Value::Null) => {}
            (None, v) => drop(out.insert(k.clone(), v.clone())),
            (Some(have), v) if have == v => {}
            (Some(have @ Value::Object(_)), Value::Object(_)) => {
                let inner = patch(down, before, v, have);
                if !inner.is_empty() {
                    out.insert(k.clone(), Value::Object(inner));
                }
            }
            (Some(Value::Array(have)), Value::Array(want)) if down.is_some_and(merges) => {
                let node = down.unwrap_or(Node::any());
                list(node, k, before.as_array().map_or(&[], Vec::as_slice), want, have, &mut out);
            }
            (Some(_), v) => drop(out.insert(k.clone(), v.clone())),
        }
    }
    for k in last.keys().filter(|k| !now.contains_key(*k) && current.contains_key(*k)) {
        out.insert(k.clone(), Value::Null);
    }
    if !out.is_empty() && node.is_some_and(retains) {
        out.insert("$retainKeys".to_owned(), now.keys().cloned().collect());
    }
    out
}

fn merges(node: Node<'_>) -> bool {
    node.merge_key().is_some() || node.merges_scalars()
}

fn retains(node: Node<'_>) -> bool {
    node.word("x-kubernetes-patch-strategy").as_str().is_some_and(|s| s.contains("retainKeys"))
        && node.merge_key().is_none()
}

/// The part of a list that merges.
fn list(node: Node<'_>, field: &str, last: &[Value], now: &[Value], current: &[Value], out: &mut Map<String, Value>) {
    let Some(key) = node.merge_key() else {
        let fresh: Vec<Value> = now.iter().filter(|v| !current.contains(v)).cloned().collect();
        let gone: Vec<Value> = last.iter().filter(|v| !now.contains(v) && current.contains(v)).cloned().collect();
        if !fresh.is_empty() {
            out.insert(field.to_owned(), Value::Array(fresh));
        }
        if !gone.is_empty() {
            out.insert(format!("$deleteFromPrimitiveList/{field}"), Value::Array(gone));
        }
        return;
    };
    let of = |all: &[Value], name: &Value| all.iter().find(|v| v[key] == *name).cloned();
    let mut changes = Vec::new();
    for item in now {
        let Some(have) = of(current, &item[key]) else {
            changes.push(item.clone());
            continue;
        };
        let mut inner = patch(Some(node.items()), &of(last, &item[key]).unwrap_or_default(), item, &have);
        if !inner.is_empty() {
            inner.insert(key.to_owned(), item[key].clone());
            changes.push(Value::Object(inner));
        }
    }
    for item in last.iter().filter(|v| of(now, &v[key]).is_none() && of(current, &v[key]).is_some()) {
        changes.push(json!({"$patch": "delete", key: item[key]}));
    }
    if !changes.is_empty() {
        out.insert(field.to_owned(), Value::Array(changes));
        let order: Vec<Value> = now.iter().map(|v| json!({key: v[key]})).collect();
        out.insert(format!("$setElementOrder/{field}"), Value::Array(order));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::schema::Kind;

    #[test]
    fn what_was_applied_before_and_is_not_now_goes() {
        let (last, now) = (json!({"data": {"a": "1", "b": "2"}}), json!({"data": {"a": "3"}}));
        let current = json!({"data": {"a": "1", "b": "2", "theirs": "x"}});
        let got = Value::Object(patch(None, &last, &now, &current));
        assert_eq!(got, json!({"data": {"a": "3", "b": null}}));
        assert!(patch(None, &now, &now, &json!({"data": {"a": "3", "theirs": "x"}})).is_empty());
    }

    #[test]
    fn lists_of_built_in_kinds_merge_by_their_keys() {
        let kind = Kind { type_name: "io.k8s.api.core.v1.Pod".into(), ..Kind::default() };
        let pod = |list: Value| json!({"spec": {"containers": list}});
        let last = pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
        let now = pod(json!([{"name": "a", "image": "2"}]));
        let current = pod(
            json!([{"name": "a", "image": "1", "tty": false}, {"name": "b", "image": "1"}, {"name": "c", "image": "1"}]),
        );
        let got = Value::Object(patch(Some(Node::of(&kind)), &last, &now, &current));
        let want = json!([{"image": "2", "name": "a"}, {"$patch": "delete", "name": "b"}]);
        assert_eq!(got, json!({"spec": {"containers": want, "$setElementOrder/containers": [{"name": "a"}]}}));
    }
}
