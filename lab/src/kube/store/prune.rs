//! What an apply takes away: fields that its manager set the last time, sets no longer, and nobody else owns.
use serde_json::Value;

use super::compare::{element, field_set, leaf};
use super::fields::Set;
use crate::kube::schema::node::{Field, Node};

/// `merged` without what `last` (the manager's fields the last time) has and `managed` (everybody's
/// fields now) has not. What an owned field is in stays; a struct that nobody owns a field of goes as a whole.
pub(super) fn prune(node: Node<'_>, merged: Value, last: &Set, managed: &Set) -> Value {
    if last.minus(managed).is_empty() {
        return merged;
    }
    let last = named(node, last);
    let all = named(node, &field_set(node, &merged));
    let without = |gone: &Set| remove(node, &merged, gone).unwrap_or_else(|| emptied(&merged));
    let left = |v: &Value| named(node, &field_set(node, v));
    let owned = without(&all.minus(&left(&without(&last)).union(&named(node, managed))));
    without(&all.minus(&left(&owned)).both(&last))
}

/// The set with every declared field that something in it is below.
fn named(node: Node<'_>, set: &Set) -> Set {
    let mut out = Set { members: set.members.clone(), ..Set::default() };
    for (element, below) in &set.children {
        let sub = match element.strip_prefix("f:") {
            Some(f) => match node.field(f) {
                Field::Known(n) => {
                    out.members.insert(element.clone());
                    n
                }
                Field::Entry(n) => n,
                Field::Unknown => Node::any(),
            },
            None => node.items(),
        };
        out.children.insert(element.clone(), named(sub, below));
    }
    out
}

fn emptied(v: &Value) -> Value {
    if v.is_array() { Value::Array(Vec::new()) } else { Value::Object(serde_json::Map::new()) }
}

/// The value without the members of `gone`; nothing when nothing is left in it.
fn remove(node: Node<'_>, v: &Value, gone: &Set) -> Option<Value> {
    if leaf(node, v) {
        // Fields below a value that is replaced as a whole are from another schema: it goes.
        return (!v.is_object() && !v.is_array()).then(|| v.clone());
    }
    match v {
        Value::Object(m) => {
            let mut out = serde_json::Map::new();
            for (k, v) in m {
                let name = format!("f:{k}");
                if gone.members.contains(&name) {
                    continue;
                }
                let kept = match (gone.children.get(&name), node.field(k)) {
                    (None, _) => Some(v.clone()),
                    (Some(below), Field::Known(n)) => remove(n, v, below),
                    // An entry that is owned itself stays, however empty.
                    (Some(below), Field::Entry(n)) => remove(n, v, below).or_else(|| Some(emptied(v))),
                    (Some(below), Field::Unknown) => remove(Node::any(), v, below),
                };
                if let Some(kept) = kept {
                    out.insert(k.clone(), kept);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        Value::Array(a) => {
            let kind = node.list();
            let mut out = Vec::new();
            for v in a {
                let name = element(&kind, v).unwrap_or_default();
                match gone.children.get(&name) {
                    _ if gone.members.contains(&name) => {}
                    // An item that is owned itself keeps what it is known by.
                    Some(below) => out.push(remove(node.items(), v, below).unwrap_or_else(|| v.clone())),
                    None => out.push(v.clone()),
                }
            }
            (!out.is_empty()).then_some(Value::Array(out))
        }
        _ => Some(v.clone()),
    }
}
