//! The annotation of a client-side apply, which server-side apply by `kubectl` takes over and keeps up to date.
use serde_json::Value;

use super::compare::{compare, field_set};
use super::fields::Set;
use super::meta;
use crate::kube::schema::node::Node;
use crate::kube::text::ordered;

/// Where `kubectl apply` keeps what it applied.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager whose applies follow the annotation.
const KUBECTL: &str = "kubectl";
/// Most bytes of all annotations together.
const LIMIT: usize = 256 * 1024;

fn recorded(obj: &Value) -> Option<&str> {
    obj["metadata"]["annotations"][ANNOTATION].as_str().filter(|s| !s.is_empty())
}

/// Fields that `kubectl` applied from the client and that are still as it left them: taking them over is no conflict.
pub(super) fn taken_over(node: Node<'_>, manager: &str, api_version: &str, live: &Value) -> Set {
    let text = if manager == KUBECTL { recorded(live) } else { None };
    let Some(last) = text.and_then(|t| serde_json::from_str::<Value>(t).ok()) else { return Set::default() };
    if last["apiVersion"] != api_version {
        return Set::default();
    }
    let d = compare(node, &last, live);
    field_set(node, &last).minus(&d.modified).minus(&d.added).minus(&d.removed)
}

/// Writes what `kubectl` applied now into the annotation, if the object has one.
pub(super) fn follow(manager: &str, config: &Value, merged: &mut Value) {
    if manager != KUBECTL || recorded(merged).is_none() {
        return;
    }
    let mut plain = config.clone();
    meta::edit(&mut plain, |m| {
        m.shift_remove("managedFields");
        if let Some(Value::Object(a)) = m.get_mut("annotations") {
            a.shift_remove(ANNOTATION);
            if a.is_empty() {
                m.shift_remove("annotations");
            }
        }
    });
    let text = format!("{}\n", ordered(&plain));
    let Some(Value::Object(all)) = merged["metadata"].get_mut("annotations") else { return };
    all.insert(ANNOTATION.to_owned(), text.into());
    let size: usize = all.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > LIMIT {
        all.insert(ANNOTATION.to_owned(), "".into());
    }
}
