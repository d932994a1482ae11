//! Field sets (`fieldsV1`) and who manages which fields.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::compare::compare;
use super::write::WriteOptions;
use super::{meta, write};
use crate::kube::schema::Kind;
use crate::kube::schema::node::Node;

/// A set of field paths, as structured-merge-diff models it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// Elements that are members themselves.
    pub members: BTreeSet<String>,
    /// Elements with something below.
    pub children: BTreeMap<String, Set>,
}

impl Set {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Adds a subtree unless it is empty.
    pub fn put(&mut self, element: String, sub: Set) {
        if !sub.is_empty() {
            self.children.insert(element, sub);
        }
    }

    /// Both together.
    #[must_use]
    pub fn union(mut self, other: &Set) -> Set {
        self.members.extend(other.members.iter().cloned());
        for (k, c) in &other.children {
            let mine = self.children.remove(k).unwrap_or_default();
            self.children.insert(k.clone(), mine.union(c));
        }
        self
    }

    /// What is in this and not in `other` (equal paths only).
    #[must_use]
    pub fn minus(&self, other: &Set) -> Set {
        let mut out = Set { members: self.members.difference(&other.members).cloned().collect(), ..Set::default() };
        for (k, c) in &self.children {
            let rest = other.children.get(k).map_or_else(|| c.clone(), |o| c.minus(o));
            out.put(k.clone(), rest);
        }
        out
    }

    /// What is in this and neither in `other` nor below a member of `other`.
    #[must_use]
    pub fn minus_below(&self, other: &Set) -> Set {
        let mut out = Set { members: self.members.difference(&other.members).cloned().collect(), ..Set::default() };
        for (k, c) in &self.children {
            if other.members.contains(k) {
                continue;
            }
            let rest = other.children.get(k).map_or_else(|| c.clone(), |o| c.minus_below(o));
            out.put(k.clone(), rest);
        }
        out
    }

    /// What is in both.
    #[must_use]
    pub fn both(&self, other: &Set) -> Set {
        let mut out = Set { members: self.members.intersection(&other.members).cloned().collect(), ..Set::default() };
        for (k, c) in &self.children {
            if let Some(o) = other.children.get(k) {
                out.put(k.clone(), c.both(o));
            }
        }
        out
    }

    /// As `fieldsV1`.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut out = Map::new();
        let names: BTreeSet<&String> = self.members.iter().chain(self.children.keys()).collect();
        for n in names {
            let mut v = Map::new();
            if let Some(c) = self.children.get(n) {
                if self.members.contains(n) {
                    v.insert(".".into(), Value::Object(Map::new()));
                }
                if let Value::Object(sub) = c.json() {
                    v.extend(sub);
                }
            }
            out.insert(n.clone(), Value::Object(v));
        }
        Value::Object(out)
    }

    /// From `fieldsV1`.
    #[must_use]
    pub fn parse(v: &Value) -> Set {
        let mut out = Set::default();
        for (k, sub) in v.as_object().into_iter().flatten().filter(|(k, _)| *k != ".") {
            let empty = sub.as_object().is_none_or(Map::is_empty);
            if empty || sub.get(".").is_some() {
                out.members.insert(k.clone());
            }
            out.put(k.clone(), Set::parse(sub));
        }
        out
    }

    /// Paths as messages show them (`.spec.version`, `.spec.containers[name="c"].image`).
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        let names: BTreeSet<&String> = self.members.iter().chain(self.children.keys()).collect();
        for n in names {
            let path = format!("{prefix}{}", shown(n));
            if self.members.contains(n) {
                out.push(path.clone());
            }
            if let Some(c) = self.children.get(n) {
                c.collect(&path, out);
            }
        }
    }
}

fn shown(element: &str) -> String {
    if let Some(f) = element.strip_prefix("f:") {
        return format!(".{f}");
    }
    if let Some(k) = element.strip_prefix("k:")
        && let Ok(Value::Object(m)) = serde_json::from_str(k)
    {
        let parts: Vec<String> = m.iter().map(|(k, v)| format!("{k}={v}")).collect();
        return format!("[{}]", parts.join(","));
    }
    element.strip_prefix("v:").map_or_else(|| element.to_owned(), |v| format!("[={v}]"))
}

/// Metadata nobody manages.
const UNMANAGED: &[&str] = &[
    "f:name",
    "f:namespace",
    "f:uid",
    "f:resourceVersion",
    "f:generation",
    "f:creationTimestamp",
    "f:selfLink",
    "f:managedFields",
    "f:deletionTimestamp",
    "f:deletionGracePeriodSeconds",
];

/// Takes out what is never managed.
pub(super) fn strip(set: &mut Set) {
    set.members.remove("f:apiVersion");
    set.members.remove("f:kind");
    if let Some(m) = set.children.get_mut("f:metadata") {
        m.members.retain(|k| !UNMANAGED.contains(&k.as_str()));
        m.children.retain(|k, _| !UNMANAGED.contains(&k.as_str()));
        if m.is_empty() {
            set.children.remove("f:metadata");
        }
    }
    set.members.remove("f:metadata");
}

/// One manager's entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub manager: String,
    pub operation: String,
    pub api_version: String,
    pub subresource: String,
    pub time: String,
    pub set: Set,
}

impl Entry {
    pub(super) fn is(&self, manager: &str, operation: &str, subresource: &str) -> bool {
        self.manager == manager && self.operation == operation && self.subresource == subresource
    }
}

/// Reads `metadata.managedFields`.
pub(super) fn entries(obj: &Value) -> Vec<Entry> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let list = obj["metadata"]["managedFields"].as_array();
    list.into_iter()
        .flatten()
        .map(|e| Entry {
            manager: text(&e["manager"]),
            operation: text(&e["operation"]),
            api_version: text(&e["apiVersion"]),
            subresource: text(&e["subresource"]),
            time: text(&e["time"]),
            set: Set::parse(&e["fieldsV1"]),
        })
        .collect()
}

/// Writes `metadata.managedFields`.
pub(super) fn set_entries(obj: &mut Value, mut list: Vec<Entry>) {
    list.retain(|e| !e.set.is_empty());
    // Applied ones first, as the real server sorts them.
    list.sort_by(|a, b| a.operation.cmp(&b.operation).then(a.time.cmp(&b.time)).then(a.manager.cmp(&b.manager)));
    let json: Vec<Value> = list
        .into_iter()
        .map(|e| {
            let mut m = Map::new();
            m.insert("manager".into(), e.manager.into());
            m.insert("operation".into(), e.operation.into());
            m.insert("apiVersion".into(), e.api_version.into());
            m.insert("time".into(), e.time.into());
            m.insert("fieldsType".into(), "FieldsV1".into());
            m.insert("fieldsV1".into(), e.set.json());
            if !e.subresource.is_empty() {
                m.insert("subresource".into(), e.subresource.into());
            }
            Value::Object(m)
        })
        .collect();
    meta::edit(obj, |m| {
        if json.is_empty() { m.shift_remove("managedFields") } else { m.insert("managedFields".into(), json.into()) }
    });
}

/// The same for a Secret whose `stringData` has become data: the manager owns what it sent.
pub(super) fn track_as_sent(
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
    plain: Option<Value>,
    o: &WriteOptions,
    now_ms: u64,
) {
    let Some(Value::Object(sent)) = plain else { return track(kind, old, new, o, now_ms) };
    let mut as_sent = new.clone();
    for k in sent.keys() {
        let before = old.and_then(|o| o["data"].get(k)).cloned();
        match (before, as_sent["data"].as_object_mut()) {
            (Some(v), Some(data)) => drop(data.insert(k.clone(), v)),
            (None, Some(data)) => drop(data.shift_remove(k)),
            _ => {}
        }
    }
    if as_sent["data"].as_object().is_some_and(Map::is_empty)
        && let Some(m) = as_sent.as_object_mut()
    {
        m.shift_remove("data");
    }
    as_sent["stringData"] = Value::Object(sent);
    track(kind, old, &mut as_sent, o, now_ms);
    let fields = as_sent["metadata"].get("managedFields").cloned();
    meta::edit(new, |m| match fields {
        Some(f) => drop(m.insert("managedFields".into(), f)),
        None => drop(m.shift_remove("managedFields")),
    });
}

/// Whether a client asks for managedFields to be forgotten: by an empty list, or by one empty entry.
fn is_reset(new: &Value) -> bool {
    match new["metadata"]["managedFields"].as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Updates managedFields of `new` after an update by `o.manager`.
pub(super) fn track(kind: &Kind, old: Option<&Value>, new: &mut Value, o: &WriteOptions, now_ms: u64) {
    let node = Node::of(kind);
    let empty = Value::Object(Map::new());
    let base = old.unwrap_or(&empty);
    if o.subresource.is_empty() && old.is_some() && is_reset(new) {
        return set_entries(new, Vec::new());
    }
    // A client may send a list of its own; one that sends none keeps what was.
    let sent = if o.subresource.is_empty() { entries(new) } else { Vec::new() };
    let mut diff = compare(node, base, new);
    for s in [&mut diff.added, &mut diff.modified, &mut diff.removed] {
        strip(s);
    }
    if let Some(s) = (o.subresource != "status" && kind.status).then_some("f:status") {
        for set in [&mut diff.added, &mut diff.modified, &mut diff.removed] {
            set.children.remove(s);
            set.members.remove(s);
        }
    }
    let touched = diff.added.clone().union(&diff.modified);
    let mut list = if sent.is_empty() { entries(base) } else { sent };
    if touched.is_empty() && diff.removed.is_empty() {
        set_entries(new, list);
        return;
    }
    for e in &mut list {
        e.set = if e.is(&o.manager, "Update", &o.subresource) {
            e.set.minus_below(&diff.removed)
        } else {
            e.set.minus(&touched).minus_below(&diff.removed)
        };
    }
    let time = meta::time(now_ms);
    match list.iter_mut().find(|e| e.is(&o.manager, "Update", &o.subresource)) {
        Some(e) => {
            e.set = std::mem::take(&mut e.set).union(&touched);
            e.time = time;
            e.api_version = kind.api_version();
        }
        None => list.push(Entry {
            manager: o.manager.clone(),
            operation: "Update".into(),
            api_version: kind.api_version(),
            subresource: o.subresource.clone(),
            time,
            set: touched,
        }),
    }
    set_entries(new, list);
}

/// Stamps the entry of an apply.
pub(super) fn applied(kind: &Kind, o: &write::WriteOptions, now_ms: u64, set: Set) -> Entry {
    Entry {
        manager: o.manager.clone(),
        operation: "Apply".into(),
        api_version: kind.api_version(),
        subresource: o.subresource.clone(),
        time: meta::time(now_ms),
        set,
    }
}
