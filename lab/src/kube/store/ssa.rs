//! Server-side apply: merge, ownership, conflicts, removal of what the manager no longer sets.
use serde_json::{Value, json};

use super::compare::{compare, field_set};
use super::fields::{Set, strip};
use super::lastapplied::{follow, taken_over};
use super::managers::{Entry, applied, entries, set_entries};
use super::merge::merge;
use super::prune::prune;
use super::write::{WriteOptions, Written};
use super::{Failure, Store, meta};
use crate::kube::schema::Kind;
use crate::kube::schema::node::Node;

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
        let full = managed(kind, &o.subresource, field_set(node, &config));
        let mut mine = full.clone();
        strip(&mut mine);
        let Some(live) = self.arc(&kind.resource(), ns, name).cloned() else {
            if !o.subresource.is_empty() {
                return Err(Failure::not_found(kind, name));
            }
            if kind.namespaced {
                config["metadata"]["namespace"] = ns.into();
            }
            return self.apply_new(kind, config, mine, o);
        };
        let asked = meta::text(&config, "resourceVersion").to_owned();
        if !asked.is_empty() && asked != meta::text(&live, "resourceVersion") {
            return Err(Failure::modified(kind, name));
        }
        let mut list = entries(&live);
        list.retain(|e| e.fits(kind));
        if list.is_empty() {
            list.extend(unmanaged(kind, &live));
        }
        let is_mine = |e: &Entry| e.is(&o.manager, "Apply", &o.subresource);
        let before = list.iter().find(|e| is_mine(e)).map(|e| e.set.clone()).unwrap_or_default();
        let others = || list.iter().filter(|e| !is_mine(e));
        let owned = others().fold(full, |all, e| all.union(&e.set));
        let merged = merge(node, &live, &without_identity(&config));
        let mut merged = prune(node, merged, &before, &owned);
        let diff = compare(node, &live, &merged);
        let mut touched = managed(kind, &o.subresource, diff.added.union(&diff.modified));
        strip(&mut touched);
        let clashes: Vec<(String, Set)> = others()
            .map(|e| (named(e, &o.subresource), recorded(e).both(&touched)))
            .filter(|(_, fields)| !force && !fields.is_empty())
            .collect();
        let allowed = || taken_over(node, &o.manager, &kind.api_version(), &live);
        let refused: Vec<(String, Set)> = if clashes.is_empty() {
            Vec::new()
        } else {
            let allowed = allowed();
            clashes.into_iter().map(|(who, f)| (who, f.minus(&allowed))).filter(|c| !c.1.is_empty()).collect()
        };
        if !refused.is_empty() {
            return Err(conflict(&refused));
        }
        for e in list.iter_mut().filter(|e| !is_mine(e)) {
            e.set = e.set.minus(&touched).minus(&diff.removed);
        }
        let same = touched.is_empty() && diff.removed.is_empty();
        match list.iter_mut().find(|e| is_mine(e)) {
            Some(_) if same && before == mine => {}
            // an apply that changes nothing but who manages what is not noted as a new moment
            Some(e) if same => e.set = mine,
            None if same => list.push(Entry { time: String::new(), ..applied(kind, o, self.now_ms, mine) }),
            Some(e) => *e = applied(kind, o, self.now_ms, mine),
            None => list.push(applied(kind, o, self.now_ms, mine)),
        }
        follow(&o.manager, &config, &mut merged);
        set_entries(&mut merged, list);
        let quiet = WriteOptions { quiet: true, ..o.clone() };
        meta::edit(&mut merged, |m| m.shift_remove("resourceVersion"));
        self.replace_as(kind, ns, name, merged, &quiet)
    }

    fn apply_new(&mut self, kind: &Kind, mut config: Value, mine: Set, o: &WriteOptions) -> Result<Written, Failure> {
        let uid = meta::text(&config, "uid");
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Failure::conflict(kind, meta::name(&config), &why));
        }
        if kind.status
            && let Some(m) = config.as_object_mut()
        {
            m.shift_remove("status");
        }
        set_entries(&mut config, vec![applied(kind, o, self.now_ms, mine)]);
        let quiet = WriteOptions { quiet: true, ..o.clone() };
        self.create_as(kind, config, &quiet)
    }
}

/// The part of `set` that a write to this subresource may own.
fn managed(kind: &Kind, subresource: &str, mut set: Set) -> Set {
    const STATUS: &str = "f:status";
    if subresource == "status" {
        set.members.retain(|m| m == STATUS);
        set.children.retain(|c, _| c == STATUS);
    } else if kind.status {
        set.members.remove(STATUS);
        set.children.remove(STATUS);
    }
    set
}

/// Who owns the fields of an object that nobody applied before and whose writers were not recorded.
fn unmanaged(kind: &Kind, live: &Value) -> Option<Entry> {
    let o = WriteOptions { manager: "before-first-apply".into(), ..WriteOptions::default() };
    let mut set = managed(kind, "", compare(Node::of(kind), &json!({}), live).added);
    strip(&mut set);
    let at = meta::text(live, "creationTimestamp").to_owned();
    (!set.is_empty()).then(|| Entry { operation: "Update".into(), time: at, ..applied(kind, &o, 0, set) })
}

fn without_identity(config: &Value) -> Value {
    let mut c = config.clone();
    meta::edit(&mut c, |m| {
        for f in ["resourceVersion", "generation", "creationTimestamp", "selfLink"] {
            m.shift_remove(f);
        }
    });
    c
}

/// The fields of a manager as conflicts see them: what an update sent as text is data by then.
fn recorded(e: &Entry) -> Set {
    let mut set = e.set.clone();
    if e.operation == "Update" {
        set.children.remove("f:stringData");
        set.members.remove("f:stringData");
    }
    set
}

/// A manager as conflicts name it.
fn named(e: &Entry, written: &str) -> String {
    let sub = if e.subresource.is_empty() { String::new() } else { format!(" with subresource \"{}\"", e.subresource) };
    // whoever writes a scale sees all managers as such
    let version = if written == "scale" { "autoscaling/v1" } else { &e.api_version };
    let using = if e.operation == "Update" { format!(" using {version}") } else { String::new() };
    format!("\"{}\"{sub}{using}", e.manager)
}

fn conflict(clashes: &[(String, Set)]) -> Failure {
    let mut each: Vec<(&String, Vec<String>)> = clashes.iter().map(|(who, fields)| (who, fields.paths())).collect();
    each.sort();
    let cause = |who: &str, path: &str| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {who}"), "field": path});
    let causes: Vec<Value> = each.iter().flat_map(|(who, paths)| paths.iter().map(|p| cause(who, p))).collect();
    let message = match each.as_slice() {
        [(who, paths)] if paths.len() == 1 => {
            format!("Apply failed with 1 conflict: conflict with {who}: {}", paths[0])
        }
        _ => {
            let line =
                |(who, paths): &(&String, Vec<String>)| format!("conflicts with {who}:\n- {}", paths.join("\n- "));
            let text: Vec<String> = each.iter().map(line).collect();
            format!("Apply failed with {} conflicts: {}", causes.len(), text.join("\n"))
        }
    };
    Failure { details: Some(json!({"causes": causes})), ..Failure::new(409, "Conflict", message) }
}
