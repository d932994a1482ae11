//! Typed comparison of two objects and the field set of one, for managedFields.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fields::Set;
use crate::kube::schema::node::{Field, ListKind, Node, item_key};

/// What changed between two objects.
#[derive(Debug, Default)]
pub struct Diff {
    /// Paths only the new one has.
    pub added: Set,
    /// Leaves with another value.
    pub modified: Set,
    /// Paths only the old one has.
    pub removed: Set,
}

/// Struct fields that Go always writes, so that they are never members of an update's set.
const ALWAYS: &[&str] = &[
    "f:metadata",
    "f:spec",
    "f:status",
    "f:template",
    "f:containers",
    "f:nodeInfo",
    "f:daemonEndpoints",
    "f:kubeletEndpoint",
    "f:involvedObject",
    "f:source",
    "f:names",
    "f:versions",
    "f:updateStrategy",
    "f:strategy",
    "f:jobTemplate",
    "f:scaleTargetRef",
];

/// The element of a list's item, if the list merges.
pub(super) fn element(kind: &ListKind<'_>, item: &Value) -> Option<String> {
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Map(keys) => Some(item_key(keys, item)),
    }
}

/// Items of a list by their element, if it merges; several where an element occurs more than once.
fn keyed<'v>(node: Node<'_>, list: &'v [Value]) -> Option<BTreeMap<String, Vec<&'v Value>>> {
    let kind = node.list();
    let mut out: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for v in list {
        out.entry(element(&kind, v)?).or_default().push(v);
    }
    (kind != ListKind::Atomic).then_some(out)
}

/// Whether the value is compared as a whole.
pub(super) fn leaf(node: Node<'_>, v: &Value) -> bool {
    match v {
        Value::Object(_) => node.atomic(),
        Value::Array(_) => node.list() == ListKind::Atomic,
        _ => true,
    }
}

/// Compares two objects.
#[must_use]
pub fn compare(node: Node<'_>, old: &Value, new: &Value) -> Diff {
    let mut d = Diff::default();
    walk(node, old, new, &mut d);
    d
}

fn walk(node: Node<'_>, old: &Value, new: &Value, d: &mut Diff) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for (k, nv) in b {
                step(&format!("f:{k}"), node.down(k), a.get(k), Some(nv), d);
            }
            for (k, ov) in a {
                if !b.contains_key(k) {
                    step(&format!("f:{k}"), node.down(k), Some(ov), None, d);
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            let (Some(a), Some(b)) = (keyed(node, a), keyed(node, b)) else { return };
            let none = Vec::new();
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for k in names {
                items(k, node.items(), a.get(k).unwrap_or(&none), b.get(k).unwrap_or(&none), d);
            }
        }
        _ => {}
    }
}

/// Compares the items that have one element: what occurs more than once is one leaf.
fn items(element: &str, node: Node<'_>, old: &[&Value], new: &[&Value], d: &mut Diff) {
    let (was, is) = (old.first().copied(), new.first().copied());
    match (old.len() > 1, new.len() > 1) {
        (false, false) => step(element, node, was, is, d),
        (true, true) if old != new => drop(d.modified.members.insert(element.to_owned())),
        (true, true) => {}
        (true, false) => {
            step(element, node, None, is, d);
            d.removed.members.insert(element.to_owned());
        }
        (false, true) => {
            step(element, node, was, None, d);
            d.added.members.insert(element.to_owned());
        }
    }
}

fn step(element: &str, node: Node<'_>, old: Option<&Value>, new: Option<&Value>, d: &mut Diff) {
    // A time that is not set is written as null, and managed; any other null is nothing.
    let there = |v: &&Value| !v.is_null() || element.ends_with("Time");
    let (old, new) = (old.filter(there), new.filter(there));
    match (old, new) {
        (Some(o), Some(n)) if o == n => {}
        (Some(o), Some(n)) => {
            let whole = leaf(node, o) || leaf(node, n) || o.is_array() != n.is_array();
            if whole {
                if o != n {
                    d.modified.members.insert(element.to_owned());
                }
                return;
            }
            let mut sub = Diff::default();
            walk(node, o, n, &mut sub);
            d.added.put(element.to_owned(), sub.added);
            d.modified.put(element.to_owned(), sub.modified);
            d.removed.put(element.to_owned(), sub.removed);
        }
        (None, Some(n)) => put_all(element, node, n, false, &mut d.added),
        (Some(o), None) => put_all(element, node, o, false, &mut d.removed),
        (None, None) => {}
    }
}

/// Adds `v` and everything below to `set`, members at every level; `listed` is what is below an item of a list, where
/// nothing is there without being told.
fn put_all(element: &str, node: Node<'_>, v: &Value, listed: bool, set: &mut Set) {
    let listed = listed || element.starts_with("k:");
    let below = if leaf(node, v) { Set::default() } else { everything(node, v, listed) };
    let implied = !listed && ALWAYS.contains(&element) && !node.open() && !node.custom();
    if below.is_empty() || !implied {
        set.members.insert(element.to_owned());
    }
    set.put(element.to_owned(), below);
}

fn everything(node: Node<'_>, v: &Value, listed: bool) -> Set {
    let mut out = Set::default();
    match v {
        Value::Object(m) => {
            // there the template is a pointer, and nothing of it is implied
            let pointed = node.type_name().is_some_and(|t| t.ends_with("core.v1.ReplicationControllerSpec"));
            for (k, v) in m.iter().filter(|(k, v)| !v.is_null() || k.ends_with("Time")) {
                let listed = listed || pointed && k == "template";
                put_all(&format!("f:{k}"), node.down(k), v, listed, &mut out);
            }
        }
        Value::Array(a) => {
            for (k, v) in keyed(node, a).unwrap_or_default() {
                match v.as_slice() {
                    [one] => put_all(&k, node.items(), one, listed, &mut out),
                    _ => drop(out.members.insert(k)),
                }
            }
        }
        _ => {}
    }
    out
}

/// The set of an applied configuration: leaves, entries of maps and items of lists.
#[must_use]
pub fn field_set(node: Node<'_>, v: &Value) -> Set {
    let mut out = Set::default();
    match v {
        Value::Object(m) => {
            for (k, v) in m {
                let (sub, entry) = match node.field(k) {
                    Field::Known(n) => (n, false),
                    Field::Entry(n) => (n, true),
                    Field::Unknown => (Node::any(), false),
                };
                applied(format!("f:{k}"), sub, v, entry, &mut out);
            }
        }
        Value::Array(a) => {
            for (k, v) in keyed(node, a).unwrap_or_default() {
                match v.as_slice() {
                    [one] => applied(k, node.items(), one, true, &mut out),
                    _ => drop(out.members.insert(k)),
                }
            }
        }
        _ => {}
    }
    out
}

fn applied(element: String, node: Node<'_>, v: &Value, member: bool, out: &mut Set) {
    let whole = leaf(node, v);
    if whole || member || v.as_object().is_some_and(serde_json::Map::is_empty) {
        out.members.insert(element.clone());
    }
    if !whole {
        out.put(element, field_set(node, v));
    }
}
