//! Server-side apply: merge, ownership, conflicts, removal of what the manager no longer sets.
use serde_json::{Map, Value, json};

use super::compare::{compare, field_set};
use super::fields::{Set, applied, entries, set_entries, strip};
use super::write::{WriteOptions, Written};
use super::{Failure, Store, meta};
use crate::kube::schema::Kind;
use crate::kube::schema::node::{ListKind, Node, item_key};

impl Store {
    /// Server-side apply, as a controller.
    ///
    /// # Errors
    /// 409 with the fields and managers in the way unless `force`; and those of a create or update.
    pub fn apply_ssa(&mut self, now_ms: u64, manager: &str, obj: &Value, force: bool) -> Result<Written, Failure> {
        self.at(now_ms);
        let (av, k) = (obj["apiVersion"].as_str().unwrap_or_default(), obj["kind"].as_str().unwrap_or_default());
        let kind = self.kind_of(av, k).ok_or_else(Failure::no_resource)?;
        let o = WriteOptions { manager: manager.to_owned(), ..WriteOptions::default() };
        let (ns, name) = (meta::namespace(obj).to_owned(), meta::name(obj).to_owned());
        self.apply_as(&kind, &ns, &name, obj.clone(), &o, force)
    }

    /// Server-side apply on behalf of a client.
    ///
    /// # Errors
    /// As [`Store::apply_ssa`].
    pub fn apply_as(
        &mut self,
        kind: &Kind,
        ns: &str,
        name: &str,
        mut config: Value,
        o: &WriteOptions,
        force: bool,
    ) -> Result<Written, Failure> {
        let node = Node::of(kind);
        meta::edit(&mut config, |m| {
            m.insert("name".into(), name.into());
            m.shift_remove("managedFields");
        });
        let mut mine = field_set(node, &config);
        strip(&mut mine);
        if o.subresource == "status" {
            mine = only(&mine, "f:status");
        } else if kind.status {
            mine.children.remove("f:status");
            mine.members.remove("f:status");
        }
        let Some(live) = self.arc(&kind.resource(), ns, name).cloned() else {
            if !o.subresource.is_empty() {
                return Err(Failure::not_found(kind, name));
            }
            return self.apply_new(kind, config, mine, o);
        };
        let asked = meta::text(&config, "resourceVersion").to_owned();
        if !asked.is_empty() && asked != meta::text(&live, "resourceVersion") {
            return Err(Failure::modified(kind, name));
        }
        let mut list = entries(&live);
        let mut merged = merge(node, &live, &without_identity(&config));
        let before =
            list.iter().find(|e| e.is(&o.manager, "Apply", &o.subresource)).map(|e| e.set.clone()).unwrap_or_default();
        let mut gone = before.minus(&mine);
        for e in list.iter().filter(|e| !e.is(&o.manager, "Apply", &o.subresource)) {
            gone = gone.minus(&e.set);
        }
        prune(node, &mut merged, &gone);
        let diff = compare(node, &live, &merged);
        let mut touched = diff.added.union(&diff.modified);
        strip(&mut touched);
        let touched = touched.both(&mine);
        if !force {
            let clashes: Vec<(String, String, String)> = list
                .iter()
                .filter(|e| !e.is(&o.manager, "Apply", &o.subresource) && e.subresource == o.subresource)
                .flat_map(|e| {
                    let how = if e.operation == "Update" {
                        let sub = if e.subresource.is_empty() {
                            String::new()
                        } else {
                            format!(" with subresource \"{}\"", e.subresource)
                        };
                        format!("\"{}\"{sub} using {}", e.manager, e.api_version)
                    } else {
                        format!("\"{}\"", e.manager)
                    };
                    e.set.both(&touched).leaves().paths().into_iter().map(move |p| (how.clone(), e.manager.clone(), p))
                })
                .collect();
            if !clashes.is_empty() {
                return Err(conflict(&clashes));
            }
        }
        for e in &mut list {
            if !e.is(&o.manager, "Apply", &o.subresource) {
                e.set = e.set.minus(&touched).minus_below(&diff.removed);
            }
        }
        let unchanged = before == mine;
        match list.iter_mut().find(|e| e.is(&o.manager, "Apply", &o.subresource)) {
            Some(e) if unchanged && touched.is_empty() => e.set = mine,
            Some(e) => *e = applied(kind, o, self.now_ms, mine),
            None => list.push(applied(kind, o, self.now_ms, mine)),
        }
        set_entries(&mut merged, list);
        let quiet = WriteOptions { manager: String::new(), ..o.clone() };
        meta::edit(&mut merged, |m| m.shift_remove("resourceVersion"));
        self.replace_as(kind, ns, name, merged, &quiet)
    }

    fn apply_new(&mut self, kind: &Kind, mut config: Value, mine: Set, o: &WriteOptions) -> Result<Written, Failure> {
        if !meta::text(&config, "uid").is_empty() {
            let why = "uid mismatch: the provided object specified uid, and no existing object was found";
            return Err(Failure::conflict(kind, meta::name(&config), why));
        }
        if kind.status
            && let Some(m) = config.as_object_mut()
        {
            m.shift_remove("status");
        }
        set_entries(&mut config, vec![applied(kind, o, self.now_ms, mine)]);
        let quiet = WriteOptions { manager: String::new(), ..o.clone() };
        self.create_as(kind, config, &quiet)
    }
}

fn only(set: &Set, element: &str) -> Set {
    let mut out = Set::default();
    if set.members.contains(element) {
        out.members.insert(element.to_owned());
    }
    if let Some(c) = set.children.get(element) {
        out.put(element.to_owned(), c.clone());
    }
    out
}

fn without_identity(config: &Value) -> Value {
    let mut c = config.clone();
    meta::edit(&mut c, |m| {
        for f in ["uid", "resourceVersion", "generation", "creationTimestamp", "selfLink"] {
            m.shift_remove(f);
        }
    });
    c
}

fn conflict(clashes: &[(String, String, String)]) -> Failure {
    let causes: Vec<Value> = clashes
        .iter()
        .map(|(how, _, path)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {how}"), "field": path}))
        .collect();
    let n = clashes.len();
    let message = if n == 1 {
        format!("Apply failed with 1 conflict: conflict with {}: {}", clashes[0].0, clashes[0].2)
    } else {
        let mut by: Vec<(String, Vec<&str>)> = Vec::new();
        for (how, _, path) in clashes {
            match by.iter_mut().find(|(h, _)| h == how) {
                Some((_, list)) => list.push(path),
                None => by.push((how.clone(), vec![path])),
            }
        }
        let text: Vec<String> = by
            .iter()
            .map(|(how, list)| {
                let colon =
                    if list.len() == 1 { format!(": {}", list[0]) } else { format!(":\n- {}", list.join("\n- ")) };
                let noun = if list.len() == 1 { "conflict" } else { "conflicts" };
                format!("{noun} with {how}{colon}")
            })
            .collect();
        format!("Apply failed with {n} conflicts: {}", text.join("\n"))
    };
    let details = json!({"causes": causes});
    Failure { details: Some(details), ..Failure::new(409, "Conflict", message) }
}

/// `config` laid over `live`.
pub(super) fn merge(node: Node<'_>, live: &Value, config: &Value) -> Value {
    match (live, config) {
        (Value::Object(a), Value::Object(b)) if !node.atomic() => {
            let mut out = a.clone();
            for (k, v) in b {
                let sub = node.down(k);
                let merged = a.get(k).map_or_else(|| v.clone(), |l| merge(sub, l, v));
                out.insert(k.clone(), merged);
            }
            Value::Object(out)
        }
        (Value::Array(a), Value::Array(b)) => match node.list() {
            ListKind::Atomic => config.clone(),
            ListKind::Set => {
                let mut out = a.clone();
                out.extend(b.iter().filter(|v| !a.contains(v)).cloned());
                Value::Array(out)
            }
            ListKind::Map(keys) => {
                let mut out = a.clone();
                for v in b {
                    let key = item_key(&keys, v);
                    match out.iter_mut().find(|o| item_key(&keys, o) == key) {
                        Some(o) => *o = merge(node.items(), o, v),
                        None => out.push(v.clone()),
                    }
                }
                Value::Array(out)
            }
        },
        _ => config.clone(),
    }
}

/// Removes the fields of `gone` from `v`.
fn prune(node: Node<'_>, v: &mut Value, gone: &Set) {
    match v {
        Value::Object(m) => {
            let keys: Vec<String> = m.keys().cloned().collect();
            for k in keys {
                let e = format!("f:{k}");
                if let Some(sub) = gone.children.get(&e)
                    && let Some(child) = m.get_mut(&k)
                {
                    prune(node.down(&k), child, sub);
                    if is_empty(child) {
                        m.shift_remove(&k);
                    }
                }
                if gone.members.contains(&e) && m.get(&k).is_none_or(|c| !gone.children.contains_key(&e) || is_empty(c))
                {
                    m.shift_remove(&k);
                }
            }
        }
        Value::Array(a) => {
            let kind = node.list();
            let element = |x: &Value| match &kind {
                ListKind::Map(keys) => item_key(keys, x),
                _ => format!("v:{x}"),
            };
            if kind == ListKind::Atomic {
                return;
            }
            a.retain(|x| !gone.members.contains(&element(x)));
            for x in a.iter_mut() {
                if let Some(sub) = gone.children.get(&element(x)) {
                    prune(node.items(), x, sub);
                }
            }
        }
        _ => {}
    }
}

fn is_empty(v: &Value) -> bool {
    v.as_object().is_some_and(Map::is_empty) || v.as_array().is_some_and(Vec::is_empty)
}
