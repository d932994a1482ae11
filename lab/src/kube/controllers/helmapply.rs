//! How Helm writes the objects of a release: what is not there is created, the rest is patched by a three-way merge, and
//! the API server checks both as any client's. Grade: source (pkg/kube and pkg/action of Helm).
use serde_json::{Value, json};

use super::super::cx::{Cx, key, resource_of};
use super::super::schema::node::Node;
use super::super::schema::typed;
use super::super::store::write::WriteOptions;
use super::super::store::{managers, patch};
use super::super::text::s;

/// Helm leaves what says `keep` here when a release goes, or no longer has it.
const POLICY: &str = "/metadata/annotations/helm.sh~1resource-policy";

/// Whether Helm leaves an object where it is.
#[must_use]
pub fn kept(o: &Value) -> bool {
    s(o, POLICY) == "keep"
}

/// Creates an object of a release, or patches it; `before` is what the revision before wanted of it.
///
/// # Errors
/// Helm's words.
pub fn write(cx: &mut Cx, manager: &str, before: Option<&Value>, wanted: &Value) -> Result<(), String> {
    put(cx, manager, before, wanted, false)
}

/// Whether the API server takes the patch of an object that is there; what is not there is not looked at.
///
/// # Errors
/// Helm's words.
pub fn fits(cx: &mut Cx, before: Option<&Value>, wanted: &Value) -> Result<(), String> {
    let (ns, name) = key(wanted);
    match cx.get(&resource_of(wanted), &ns, &name) {
        Some(_) => put(cx, "helm", before, wanted, true),
        None => Ok(()),
    }
}

fn put(cx: &mut Cx, manager: &str, before: Option<&Value>, wanted: &Value, dry_run: bool) -> Result<(), String> {
    let (ns, name) = key(wanted);
    let Some(kind) = cx.c.store.kind_of(s(wanted, "/apiVersion"), s(wanted, "/kind")) else {
        return Err(unmapped(wanted));
    };
    let now = cx.now();
    cx.c.store.at(now);
    let o = WriteOptions { manager: manager.to_owned(), check: true, dry_run, ..WriteOptions::default() };
    let Some(live) = cx.get(&kind.resource(), &ns, &name).cloned() else {
        let mut new = wanted.clone();
        typed::read(&kind, &mut new).map_err(|e| format!("failed to create resource: {e}"))?;
        let made = cx.c.store.create_as(&kind, new, &o);
        return made.map(drop).map_err(|e| format!("failed to create resource: {}", e.message));
    };
    let refused = |e: String| format!("cannot patch \"{name}\" with kind {}: {e}", kind.kind);
    let mut new = live;
    managers::unfold(&mut new);
    let mut change = before.map_or_else(|| json!({}), |b| lost(b, wanted));
    patch::merge(&mut new, &change);
    change = wanted.clone();
    if kind.custom {
        patch::merge(&mut new, &change);
    } else {
        patch::mergeable(Node::of(&kind), &change).map_err(|e| refused(e.message))?;
        patch::strategic(Node::of(&kind), &mut new, &change);
    }
    typed::read(&kind, &mut new).map_err(&refused)?;
    let written = cx.c.store.replace_as(&kind, &ns, &name, new, &WriteOptions { patch: true, ..o });
    written.map(drop).map_err(|e| refused(e.message))
}

/// Helm's words for a kind that nobody defines.
#[must_use]
pub fn unmapped(o: &Value) -> String {
    format!(
        "unable to build kubernetes objects from release manifest: resource mapping not found for name: \"{}\" namespace: \"{}\" from \"\": no matches for kind \"{}\" in version \"{}\"\nensure CRDs are installed first",
        s(o, "/metadata/name"),
        s(o, "/metadata/namespace"),
        s(o, "/kind"),
        s(o, "/apiVersion")
    )
}

/// A merge patch that takes out what `before` had and `after` has not; lists go as wholes.
fn lost(before: &Value, after: &Value) -> Value {
    let mut out = json!({});
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else { return out };
    for (k, v) in old {
        match new.get(k) {
            None => out[k] = Value::Null,
            Some(n) if v.is_object() && n.is_object() => {
                let inner = lost(v, n);
                if inner.as_object().is_some_and(|m| !m.is_empty()) {
                    out[k] = inner;
                }
            }
            Some(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_revision_no_longer_has_is_taken_out() {
        let before = json!({"spec": {"a": 1, "b": {"c": 1, "d": 2}}, "metadata": {"labels": {"x": "1"}}});
        let after = json!({"spec": {"b": {"c": 1}}, "metadata": {"labels": {"x": "2"}}});
        assert_eq!(lost(&before, &after), json!({"spec": {"a": null, "b": {"d": null}}}));
        assert!(kept(&json!({"metadata": {"annotations": {"helm.sh/resource-policy": "keep"}}})));
    }
}
