//! A configuration laid over an object, as structured-merge-diff merges them.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::compare::{element, leaf};
use crate::kube::schema::node::{ListKind, Node};

/// `config` laid over `live`: nothing is taken away; a null or empty container leaves what is there.
pub(super) fn merge(node: Node<'_>, live: &Value, config: &Value) -> Value {
    match (live, config) {
        (Value::Object(a), Value::Object(b)) if !node.atomic() => {
            let mut out = a.clone();
            for (k, v) in b {
                let merged = a.get(k).map_or_else(|| v.clone(), |l| merge(node.down(k), l, v));
                out.insert(k.clone(), merged);
            }
            Value::Object(out)
        }
        (Value::Array(a), Value::Array(b)) if node.list() != ListKind::Atomic => Value::Array(items(node, a, b)),
        (live, Value::Null) if !leaf(node, live) && !empty(live) => live.clone(),
        _ => config.clone(),
    }
}

fn empty(v: &Value) -> bool {
    v.as_object().is_some_and(Map::is_empty) || v.as_array().is_some_and(Vec::is_empty)
}

/// Items of both lists, those of both in the order of `config`; an element that `live` has several
/// times and `config` sets is there once afterwards.
fn items(node: Node<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let kind = node.list();
    let name = |v: &Value| element(&kind, v).unwrap_or_default();
    let (lefts, rights): (Vec<String>, Vec<String>) =
        (live.iter().map(name).collect(), config.iter().map(name).collect());
    let asked: BTreeSet<&String> = rights.iter().collect();
    let mut here: BTreeMap<&String, Option<&Value>> = BTreeMap::new();
    for (e, v) in lefts.iter().zip(live) {
        here.entry(e).and_modify(|one| *one = None).or_insert(Some(v));
    }
    let mut shared = rights.iter().filter(|e| here.contains_key(e)).peekable();
    let both = |e: &String, v: &Value| match here.get(e) {
        Some(Some(l)) => merge(node.items(), l, v),
        _ => v.clone(),
    };
    let (mut out, mut done) = (Vec::new(), BTreeSet::new());
    let (mut l, mut r) = (0, 0);
    while l < lefts.len() || r < rights.len() {
        if let (Some(left), Some(right)) = (lefts.get(l), rights.get(r)) {
            if left == right {
                out.push(both(right, &config[r]));
                done.insert(right);
                (l, r) = (l + 1, r + 1);
                shared.next();
                continue;
            }
            if asked.contains(left) && shared.peek().is_some_and(|next| *next != left) {
                // It is in both, but its turn comes later.
                l += 1;
                continue;
            }
        }
        if let Some(left) = lefts.get(l) {
            if !asked.contains(left) {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            if done.contains(left) {
                l += 1;
            }
        }
        if let Some(right) = rights.get(r) {
            out.push(both(right, &config[r]));
            done.insert(right);
            r += 1;
            if shared.peek().is_some_and(|next| *next == right) {
                shared.next();
            }
        }
    }
    out
}
