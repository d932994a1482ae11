//! Strict validation of objects before anything is sent: a misspelt field is an error with its path.
mod cluster;
mod walk;

use serde_json::{Map, Value};

pub use walk::{ANYTHING, Fault, Schemas, Step, check};

use crate::core::error::OpError;
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

/// Checks an object as far as that goes without a cluster: its identity, and built-in kinds in full.
#[must_use]
pub fn check_object(object: &Value) -> Vec<Fault> {
    let mut out = identity(object);
    if out.is_empty() {
        out.extend(check_builtin(object).unwrap_or_default());
    }
    out
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
                let near = crate::core::options::closest(key, map.keys().map(String::as_str));
                let mut f = Fault::at(&[], format!("`{key}` is missing"));
                f.hint = near.map(|n| format!("it is written `{key}`, not `{n}`"));
                out.push(f);
            }
        }
    }
    let named = |m: &Map<String, Value>| m.get("name").is_some_and(|n| n.is_string() || walk::unknown(n));
    let meta = map.get("metadata");
    if !list && !meta.is_some_and(|m| walk::unknown(m) || m.as_object().is_some_and(named)) {
        out.push(Fault::at(&[Step::key("metadata")], "`metadata.name` is missing"));
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
