//! Who manages which fields (`metadata.managedFields`). The store keeps a field set as its text, which is a tenth of the
//! tree that clients see ([`Shown`]). Grade: source (the field manager of k8s.io/apimachinery).
use std::collections::{BTreeMap, BTreeSet};

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};

use super::compare::{Diff, compare};
use super::fields::{Set, strip};
use super::meta;
use super::write::WriteOptions;
use crate::kube::schema::kinds::builtin;
use crate::kube::schema::node::Node;
use crate::kube::schema::{Kind, typed};

/// Entries of updates that are kept; the oldest beyond them become one.
const UPDATERS: usize = 10;
/// The manager of those that became one.
const ANCIENT: &str = "ancient-changes";
const STATUS: &str = "f:status";

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

    /// What those of one operation are sorted by.
    fn order(&self) -> [&str; 4] {
        [&self.time, &self.manager, &self.api_version, &self.subresource]
    }

    /// Whether it is of a group that the kind is in: others are forgotten by the next write.
    pub(super) fn fits(&self, kind: &Kind) -> bool {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        // events are of two groups
        let own = group == kind.group || kind.group.is_empty() && kind.kind == "Event" && group == "events.k8s.io";
        !version.is_empty() && own
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
    list.sort_by(|a, b| a.operation.cmp(&b.operation).then_with(|| a.order().cmp(&b.order())));
    let json: Vec<Value> = list
        .into_iter()
        .map(|e| {
            let mut m = Map::new();
            m.insert("manager".into(), e.manager.into());
            m.insert("operation".into(), e.operation.into());
            m.insert("apiVersion".into(), e.api_version.into());
            if !e.time.is_empty() {
                m.insert("time".into(), e.time.into());
            }
            m.insert("fieldsType".into(), "FieldsV1".into());
            m.insert("fieldsV1".into(), e.set.text().into());
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

/// Whether a client asks for managedFields to be forgotten: by an empty list, or by one empty entry.
fn is_reset(new: &Value) -> bool {
    match new["metadata"]["managedFields"].as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Whether nobody manages anything of an object that is there: updates leave it so, until somebody applies.
fn is_untold(old: Option<&Value>) -> bool {
    old.is_some_and(|o| o["metadata"]["managedFields"].as_array().is_none_or(Vec::is_empty))
}

/// Updates managedFields of `new` after an update by `o.manager`.
pub(super) fn track(kind: &Kind, old: Option<&Value>, new: &mut Value, o: &WriteOptions, now_ms: u64) {
    let empty = typed::blank(kind);
    let base = old.unwrap_or(&empty);
    if o.subresource.is_empty() && old.is_some() && is_reset(new) {
        return set_entries(new, Vec::new());
    }
    // A client may send a list of its own; one that sends none keeps what was.
    let sent = if o.subresource.is_empty() { entries(new) } else { Vec::new() };
    if sent.is_empty() && is_untold(old) {
        return set_entries(new, Vec::new());
    }
    let differs = |kind: &Kind, old: &Value, new: &Value| {
        let [main, status] = changes(kind, old, new);
        if o.subresource == "status" { join(main, status) } else { main }
    };
    let diff = differs(kind, base, new);
    let mut list = if sent.is_empty() { entries(base) } else { sent };
    match &o.spoken {
        None => {
            if let Some(s) = other(kind) {
                let lost = differs(&s.kind, &s.shown(base), &s.shown(new));
                lose(&mut list, &lost, |e| e.api_version == s.kind.api_version());
            }
            wrote(kind, &mut list, &diff, (&o.manager, &o.subresource), now_ms);
        }
        Some(s) => {
            let own = differs(&s.kind, &s.shown(base), &s.shown(new));
            // what is kept under other names is no longer theirs
            lose(&mut list, &diff, |e| e.api_version != s.kind.api_version());
            let (kept, mut rest): (Vec<Entry>, Vec<Entry>) =
                list.into_iter().partition(|e| e.api_version != s.kind.api_version());
            wrote(&s.kind, &mut rest, &own, (&o.manager, &o.subresource), now_ms);
            list = kept.into_iter().chain(rest).collect();
        }
    }
    set_entries(new, list);
}

/// Entries of another form than the one that is written lose what was changed, too.
fn lose(list: &mut [Entry], diff: &Diff, of: impl Fn(&Entry) -> bool) {
    let touched = diff.added.clone().union(&diff.modified);
    for e in list.iter_mut().filter(|e| of(e)) {
        e.set = std::mem::take(&mut e.set).minus(&touched).minus_below(&diff.removed);
    }
}

/// The form besides the one that is kept which clients may have written in.
fn other(kind: &Kind) -> Option<Spoken> {
    if kind.group != "autoscaling" || kind.kind != "HorizontalPodAutoscaler" {
        return None;
    }
    let old = builtin().iter().find(|k| crate::kube::api::hpa::old(k))?;
    Some(Spoken { kind: (**old).clone(), show: |_, o| crate::kube::api::hpa::lower(o) })
}

/// Another form of a kind than the one that is kept, which a client speaks.
#[derive(Debug, Clone)]
pub struct Spoken {
    /// The kind as it is spoken of.
    pub kind: Kind,
    /// Gives an object, or the items of a list, that form.
    pub show: fn(&Kind, &mut Value),
}

impl Spoken {
    fn shown(&self, v: &Value) -> Value {
        let mut v = v.clone();
        (self.show)(&self.kind, &mut v);
        v
    }
}

/// Notes what the control plane itself has written: the object in one entry, its status in another.
pub(super) fn record(kind: &Kind, old: Option<&Value>, new: &mut Value, manager: &str, now_ms: u64) {
    if old == Some(&*new) || is_untold(old) {
        return;
    }
    let empty = typed::blank(kind);
    let mut parts = changes(kind, old.unwrap_or(&empty), new);
    // The status that an object begins with is nobody's, but for nodes, which their kubelets make with one.
    if old.is_none() && kind.kind != "Node" {
        parts[1] = Diff::default();
    }
    if parts.iter().all(is_nothing) {
        return;
    }
    let mut list = entries(new);
    for (diff, subresource) in parts.iter().zip(["", "status"]) {
        wrote(kind, &mut list, diff, (manager, subresource), now_ms);
    }
    set_entries(new, list);
}

fn is_nothing(d: &Diff) -> bool {
    d.added.is_empty() && d.modified.is_empty() && d.removed.is_empty()
}

/// What differs outside and inside the status, where that is a place of its own.
fn changes(kind: &Kind, old: &Value, new: &Value) -> [Diff; 2] {
    let mut main = compare(Node::of(kind), old, new);
    let mut status = Diff::default();
    for (of, to) in [
        (&mut main.added, &mut status.added),
        (&mut main.modified, &mut status.modified),
        (&mut main.removed, &mut status.removed),
    ] {
        strip(of);
        if kind.status {
            if of.members.remove(STATUS) {
                to.members.insert(STATUS.to_owned());
            }
            if let Some(sub) = of.children.remove(STATUS) {
                to.children.insert(STATUS.to_owned(), sub);
            }
        }
    }
    [main, status]
}

fn join(a: Diff, b: Diff) -> Diff {
    Diff {
        added: a.added.union(&b.added),
        modified: a.modified.union(&b.modified),
        removed: a.removed.union(&b.removed),
    }
}

/// The entries after an update: its manager has what it added and changed, the others no longer do.
fn wrote(kind: &Kind, list: &mut Vec<Entry>, diff: &Diff, (manager, subresource): (&str, &str), now_ms: u64) {
    if is_nothing(diff) {
        return;
    }
    let version = kind.api_version();
    let is_mine = |e: &Entry| e.is(manager, "Update", subresource) && e.api_version == version;
    let touched = diff.added.clone().union(&diff.modified);
    list.retain(|e| e.fits(kind));
    for e in list.iter_mut() {
        e.set = match is_mine(e) {
            true => e.set.minus_below(&diff.removed),
            false => e.set.minus(&touched).minus_below(&diff.removed),
        };
    }
    let time = moment(subresource, now_ms);
    match list.iter_mut().find(|e| is_mine(e)) {
        Some(e) => {
            e.set = std::mem::take(&mut e.set).union(&touched);
            e.time = time;
        }
        None => list.push(Entry {
            manager: manager.to_owned(),
            operation: "Update".into(),
            api_version: version,
            subresource: subresource.to_owned(),
            time,
            set: touched,
        }),
    }
    list.retain(|e| !e.set.is_empty());
    cap(list);
}

/// Makes the oldest updates one per version until no more than ten are left.
fn cap(list: &mut Vec<Entry>) {
    let updates = |list: &[Entry]| list.iter().filter(|e| e.operation == "Update").count();
    if updates(list) <= UPDATERS {
        return;
    }
    list.sort_by(|a, b| a.order().cmp(&b.order()));
    // The first of a version waits for a second one.
    let mut firsts: BTreeMap<String, usize> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    let mut count = updates(list);
    for i in 0..list.len() {
        if count <= UPDATERS {
            break;
        }
        if list[i].operation != "Update" {
            continue;
        }
        let Some(first) = firsts.get(&list[i].api_version).copied() else {
            firsts.insert(list[i].api_version.clone(), i);
            continue;
        };
        let (set, time) = (list[i].set.clone(), list[i].time.clone());
        let bucket = &mut list[first];
        ANCIENT.clone_into(&mut bucket.manager);
        bucket.subresource.clear();
        bucket.set = std::mem::take(&mut bucket.set).union(&set);
        bucket.time = time;
        gone.insert(i);
        count -= 1;
    }
    let mut i = 0;
    list.retain(|_| {
        i += 1;
        !gone.contains(&(i - 1))
    });
}

/// When something was written; of a scale nobody notes it.
fn moment(subresource: &str, now_ms: u64) -> String {
    if subresource == "scale" { String::new() } else { meta::time(now_ms) }
}

/// Stamps the entry of an apply.
pub(super) fn applied(kind: &Kind, o: &WriteOptions, now_ms: u64, set: Set) -> Entry {
    Entry {
        manager: o.manager.clone(),
        operation: "Apply".into(),
        api_version: kind.api_version(),
        subresource: o.subresource.clone(),
        time: moment(&o.subresource, now_ms),
        set,
    }
}

/// Makes trees of the field sets that are kept as texts.
pub fn unfold(obj: &mut Value) {
    for e in obj["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
        if let Some(tree) = e["fieldsV1"].as_str().and_then(|t| serde_json::from_str(t).ok()) {
            e["fieldsV1"] = tree;
        }
    }
}

/// A place on the way to a field set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Object,
    Objects,
    Rows,
    Row,
    Metadata,
    Managers,
    Manager,
    Fields,
    Else,
}

/// What an object begins with as the real server writes it.
const HEAD: &[&str] = &["kind", "apiVersion", "metadata"];
/// The order of what is in metadata.
const META: &[&str] = &[
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
];

/// An object, a list or a Table as clients see it: field sets are trees, and what every object has stands in its order.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(&'a Value, Place);

impl<'a> Shown<'a> {
    /// What is shown of an answer's body.
    #[must_use]
    pub fn of(body: &'a Value) -> Shown<'a> {
        Shown(body, Place::Object)
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use Place::{Else, Fields, Manager, Managers, Metadata, Object, Objects, Row, Rows};
        let below = |key: &str| match (self.1, key) {
            (Object, "metadata") => Metadata,
            (Object, "items") => Objects,
            (Object, "rows") => Rows,
            (Row, "object") => Object,
            (Metadata, "managedFields") => Managers,
            (Manager, "fieldsV1") => Fields,
            _ => Else,
        };
        match (self.0, self.1) {
            (v, Else) => v.serialize(s),
            (Value::String(text), Fields) => match serde_json::from_str::<Value>(text) {
                Ok(tree) => tree.serialize(s),
                Err(_) => text.serialize(s),
            },
            (Value::Object(m), place) => {
                let (first, last) = match place {
                    // of a Status that is what it says, and stands among its fields
                    Object if m.get("kind").is_some_and(|k| k == "Status") => (HEAD, None),
                    Object | Objects => (HEAD, Some("status")),
                    Metadata => (META, Some("managedFields")),
                    _ => (&[][..], None),
                };
                let mut map = s.serialize_map(Some(m.len()))?;
                for (k, v) in first.iter().filter_map(|k| m.get_key_value(*k)) {
                    map.serialize_entry(k, &Shown(v, below(k)))?;
                }
                let rest = |k: &str| !first.contains(&k) && last != Some(k);
                for (k, v) in m.iter().filter(|(k, _)| rest(k)) {
                    map.serialize_entry(k, &Shown(v, below(k)))?;
                }
                for (k, v) in last.iter().filter_map(|k| m.get_key_value(*k)) {
                    map.serialize_entry(k, &Shown(v, below(k)))?;
                }
                map.end()
            }
            (Value::Array(a), place) => {
                let item = match place {
                    Objects => Object,
                    Rows => Row,
                    Managers => Manager,
                    _ => Else,
                };
                let mut seq = s.serialize_seq(Some(a.len()))?;
                for v in a {
                    seq.serialize_element(&Shown(v, item))?;
                }
                seq.end()
            }
            (v, _) => v.serialize(s),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn field_sets_are_trees_only_where_they_stand() {
        let text = r#"{"f:data":{".":{},"f:a":{}}}"#;
        let o =
            json!({"metadata": {"managedFields": [{"manager": "m", "fieldsV1": text}]}, "data": {"fieldsV1": text}});
        let tree = json!({".": {}, "f:a": {}});
        for body in [o.clone(), json!({"items": [o]}), json!({"rows": [{"cells": [text], "object": o}]})] {
            let said: Value = serde_json::from_str(&serde_json::to_string(&Shown::of(&body)).unwrap()).unwrap();
            let o = said.pointer("/items/0").or(said.pointer("/rows/0/object")).unwrap_or(&said);
            assert_eq!(o["metadata"]["managedFields"][0]["fieldsV1"]["f:data"], tree);
            assert_eq!(o["data"]["fieldsV1"], text);
        }
        assert_eq!(Set::parse(&json!(text)).text(), text);
        assert_eq!(Set::parse(&json!({"f:data": tree})).text(), text);
    }

    #[test]
    fn the_first_status_is_nobodys() {
        let kind = Kind { version: "v1".into(), kind: "X".into(), status: true, custom: true, ..Kind::default() };
        let mut o = json!({"metadata": {"name": "a", "labels": {"l": "v"}}, "status": {"n": 0}});
        record(&kind, None, &mut o, "k3s", 0);
        assert_eq!(
            (entries(&o).len(), entries(&o)[0].set.paths()),
            (1, vec![".metadata.labels".to_owned(), ".metadata.labels.l".to_owned()])
        );
        let old = o.clone();
        o["status"]["n"] = json!(1);
        record(&kind, Some(&old), &mut o, "k3s", 0);
        assert_eq!(entries(&o)[1].subresource, "status");
    }

    #[test]
    fn the_oldest_of_more_than_ten_updates_become_one() {
        let kind = Kind { version: "v1".into(), ..Kind::default() };
        let mut list: Vec<Entry> = Vec::new();
        for i in 0..12_u64 {
            let added = Set { members: BTreeSet::from([format!("f:{i}")]), ..Set::default() };
            let diff = Diff { added, ..Diff::default() };
            wrote(&kind, &mut list, &diff, (&format!("m{i}"), ""), i * 1000);
        }
        assert_eq!((list.len(), list[0].manager.as_str(), list[0].set.members.len()), (10, ANCIENT, 3));
        assert_eq!(list[0].time, meta::time(2000));
    }
}
