//! Strict validation of objects before anything is sent: a misspelt field is an error with its path.
mod cluster;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::{Map, Value};

pub use walk::{ANYTHING, Fault, MISSING, NO_FIELD, Schemas, Step, check};

use crate::core::error::OpError;
use crate::core::options::closest;
use crate::wire::crds;
use crate::wire::schema::{definitions, type_name};

/// Kinds that the compiled-in schemas know are checked; `None` for other kinds.
#[must_use]
pub fn check_builtin(object: &Value) -> Option<Vec<Fault>> {
    let api = object["apiVersion"].as_str()?;
    let kind = object["kind"].as_str()?;
    let name = type_name(api, kind);
    let root = definitions().get(&name)?;
    Some(check(&Builtin, root, object))
}

/// Custom kinds of charts that recipes write objects for; `None` for other kinds.
#[must_use]
fn check_custom(object: &Value) -> Option<Vec<Fault>> {
    let root = crds::schema(object["apiVersion"].as_str()?, object["kind"].as_str()?)?;
    Some(check(&Closed, root, object))
}

/// Checks an object as far as that goes without a cluster: its identity, and kinds whose schema is compiled in.
#[must_use]
pub fn check_object(object: &Value) -> Vec<Fault> {
    let mut out = identity(object);
    if out.is_empty() {
        let known = check_builtin(object).or_else(|| check_custom(object));
        out.extend(known.unwrap_or_else(|| unknown_kind(object).into_iter().collect()));
    }
    out
}

/// Kinds of Kubernetes itself by their `apiVersion`.
fn kinds() -> &'static BTreeMap<String, BTreeSet<String>> {
    static KINDS: OnceLock<BTreeMap<String, BTreeSet<String>>> = OnceLock::new();
    KINDS.get_or_init(|| {
        let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, schema) in definitions() {
            let has = |field: &str| !schema["properties"][field].is_null();
            if let Some((package, kind)) = name.rsplit_once('.')
                && has("apiVersion")
                && has("kind")
                && has("metadata")
            {
                out.entry(package.to_owned()).or_default().insert(kind.to_owned());
            }
        }
        out
    })
}

/// A kind that Kubernetes does not have in this `apiVersion`, though it has others there or has it elsewhere.
#[must_use]
pub fn unknown_kind(object: &Value) -> Option<Fault> {
    let (api, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let home = type_name(api, "");
    let here = kinds().get(home.trim_end_matches('.'))?;
    if here.contains(kind) || kind.ends_with("List") {
        return None;
    }
    let near = |list: &BTreeSet<String>| closest(kind, list.iter().map(String::as_str)).map(str::to_owned);
    let row = |k: &str| crate::kubernetes::kinds::builtin().into_iter().find(|b| b.kind == k);
    let hint = match (row(kind), near(here)) {
        (Some(k), _) => format!("it is of `{}`", k.api_version()),
        (None, Some(k)) => format!("did you mean `{k}`?"),
        (None, None) => {
            let all: BTreeSet<String> = kinds().values().flatten().cloned().collect();
            let k = near(&all)?;
            let of = row(&k).map(|r| format!(" of `{}`", r.api_version())).unwrap_or_default();
            format!("did you mean `{k}`{of}?")
        }
    };
    let mut fault = Fault::at(&[Step::key("kind")], format!("`{api}` has no kind `{kind}`"));
    fault.hint = Some(hint);
    Some(fault)
}

/// Every object needs `apiVersion`, `kind` and `metadata.name`.
fn identity(object: &Value) -> Vec<Fault> {
    let Some(map) = object.as_object() else {
        return vec![Fault::at(&[], "an object is a map with `apiVersion`, `kind` and `metadata`")];
    };
    let list =
        map.get("kind").and_then(Value::as_str).is_some_and(|k| k.ends_with("List")) && map.contains_key("items");
    let mut out = Vec::new();
    for key in ["apiVersion", "kind"] {
        match map.get(key) {
            Some(v) if v.is_string() || walk::unknown(v) => {}
            Some(_) => out.push(Fault::at(&[Step::key(key)], format!("`{key}` is a text"))),
            None => {
                let near = closest(key, map.keys().map(String::as_str));
                let mut f = Fault::at(&[], format!("`{key}` {MISSING}"));
                f.hint = near.map(|n| format!("it is written `{key}`, not `{n}`"));
                out.push(f);
            }
        }
    }
    let named = |m: &Map<String, Value>| m.get("name").is_some_and(|n| n.is_string() || walk::unknown(n));
    let meta = map.get("metadata");
    if !list && !meta.is_some_and(|m| walk::unknown(m) || m.as_object().is_some_and(named)) {
        out.push(Fault::at(&[Step::key("metadata")], format!("`metadata.name` {MISSING}")));
    }
    out
}

/// The compiled-in definitions.
struct Builtin;

impl Schemas for Builtin {
    fn definition(&self, name: &str) -> Option<&Value> {
        definitions().get(name)
    }
}

/// A CRD's schema has no references.
struct Closed;

impl Schemas for Closed {
    fn definition(&self, _: &str) -> Option<&Value> {
        None
    }
}

/// Faults of one object as an error on it.
#[must_use]
pub fn fault_error(object: &Value, faults: &[Fault]) -> OpError {
    let subject = super::describe(object);
    let mut e = match faults {
        [one] => {
            let mut e = OpError::invalid(one.to_string());
            e.hint.clone_from(&one.hint);
            e
        }
        many => {
            let mut e = OpError::invalid(format!("the object has {} mistakes", many.len()));
            e.causes =
                many.iter().map(|f| f.hint.as_ref().map_or_else(|| f.to_string(), |h| format!("{f}: {h}"))).collect();
            e
        }
    };
    if e.hint.is_none() {
        let kind = object["kind"].as_str().unwrap_or("KIND").to_lowercase();
        e.hint = Some(format!("see the fields: `kubectl explain {kind}`"));
    }
    e.on(subject)
}

#[cfg(test)]
mod tests;
