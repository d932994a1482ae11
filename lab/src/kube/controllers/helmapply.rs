//! How Helm writes the objects of a release: what is not there is created, the rest is patched by a three-way merge, and
//! the API server checks both as any client's. Grade: source (pkg/kube and pkg/action of Helm).
use serde_json::{Value, json};

use super::super::cx::{Cx, key, resource_of};
use super::super::schema::node::Node;
use super::super::schema::{Kind, typed};
use super::super::store::write::WriteOptions;
use super::super::store::{managers, patch, threeway};
use super::super::text::s;
use super::release;

/// Helm leaves what says `keep` here when a release goes, or no longer has it.
const POLICY: &str = "/metadata/annotations/helm.sh~1resource-policy";

/// Whether Helm leaves an object where it is.
#[must_use]
pub fn kept(o: &Value) -> bool {
    s(o, POLICY) == "keep"
}

/// An object of a release as Helm marks it, in the release's namespace where it names none.
#[must_use]
pub fn dressed(cx: &Cx, ns: &str, name: &str, o: &Value) -> Value {
    let mut obj = o.clone();
    obj["metadata"]["annotations"]["meta.helm.sh/release-name"] = json!(name);
    obj["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = json!(ns);
    obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
    if obj["metadata"]["namespace"].is_null() && cx.namespaced(&obj) {
        obj["metadata"]["namespace"] = json!(ns);
    }
    obj
}

/// What the deployed revision wanted, as Helm marks it.
#[must_use]
pub fn earlier(cx: &Cx, ns: &str, name: &str) -> Vec<Value> {
    release::objects(cx, ns, name).iter().map(|o| dressed(cx, ns, name, o)).collect()
}

/// Whether two objects are the same one.
fn same(a: &Value, b: &Value) -> bool {
    a["kind"] == b["kind"] && key(a) == key(b)
}

/// What a revision wanted of an object.
#[must_use]
pub fn was<'a>(before: &'a [Value], o: &Value) -> Option<&'a Value> {
    before.iter().find(|b| same(b, o))
}

/// Removes what a revision had and the one after it has not, unless Helm leaves it.
pub fn prune(cx: &mut Cx, before: &[Value], after: &[Value]) {
    for old in before.iter().filter(|o| was(after, o).is_none()) {
        let (at, name) = key(old);
        if !cx.get(&resource_of(old), &at, &name).is_some_and(kept) {
            cx.delete(&resource_of(old), &at, &name);
        }
    }
}

/// Creates an object of a release, or patches it; `before` is what the revision before wanted of it.
///
/// # Errors
/// Helm's words.
pub fn write(cx: &mut Cx, manager: &str, before: Option<&Value>, wanted: &Value) -> Result<(), String> {
    put(cx, manager, before, wanted, false)
}

/// Whether the API server takes an object of a release. Not looked at: a new one whose kind the chart brings, and a new
/// pod, as what a pod needs may come with the chart.
///
/// # Errors
/// Helm's words.
pub fn fits(cx: &mut Cx, before: Option<&Value>, wanted: &Value) -> Result<(), String> {
    let (ns, name) = key(wanted);
    let new = cx.get(&resource_of(wanted), &ns, &name).is_none();
    let unknown = cx.c.store.kind_of(s(wanted, "/apiVersion"), s(wanted, "/kind")).is_none();
    if new && (unknown || s(wanted, "/kind") == "Pod") {
        return Ok(());
    }
    put(cx, "helm", before, wanted, true)
}

fn put(cx: &mut Cx, manager: &str, before: Option<&Value>, wanted: &Value, dry_run: bool) -> Result<(), String> {
    let (ns, name) = key(wanted);
    let Some(kind) = cx.c.store.kind_of(s(wanted, "/apiVersion"), s(wanted, "/kind")) else {
        return Err(unmapped(wanted));
    };
    let now = cx.now();
    cx.c.store.at(now);
    let o = WriteOptions { manager: manager.to_owned(), check: true, dry_run, ..WriteOptions::default() };
    let Some(mut live) = cx.get(&kind.resource(), &ns, &name).cloned() else {
        let mut new = wanted.clone();
        typed::read(&kind, &mut new).map_err(|e| format!("failed to create resource: {e}"))?;
        let made = cx.c.store.create_as(&kind, new, &o);
        return made.map(drop).map_err(|e| format!("failed to create resource: {}", e.message));
    };
    let refused = |e: String| format!("cannot patch \"{name}\" with kind {}: {e}", kind.kind);
    managers::unfold(&mut live);
    let Some(mut new) = merged(&kind, before, wanted, &live).map_err(&refused)? else { return Ok(()) };
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

/// What an object comes to that is `live` now; `None` when nothing changes.
fn merged(kind: &Kind, before: Option<&Value>, wanted: &Value, live: &Value) -> Result<Option<Value>, String> {
    let node = (!kind.custom).then(|| Node::of(kind));
    let change = threeway::patch(node, before.unwrap_or(&Value::Null), wanted, live);
    if change.is_empty() {
        return Ok(None);
    }
    let (change, mut new) = (Value::Object(change), live.clone());
    match node {
        Some(node) => {
            patch::mergeable(node, &change).map_err(|e| e.message)?;
            patch::strategic(node, &mut new, &change);
        }
        None => patch::merge(&mut new, &change),
    }
    Ok(Some(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_revision_no_longer_has_is_taken_out() {
        let kind = Kind { type_name: "io.k8s.api.core.v1.Pod".into(), ..Kind::default() };
        let pod = |list: Value| json!({"metadata": {"labels": {"x": "1"}}, "spec": {"containers": list}});
        let web = |env: Value| json!({"name": "web", "image": "web:1", "env": env});
        let (a, b) = (json!({"name": "A", "value": "1"}), json!({"name": "B", "value": "2"}));
        let sidecar = |name: &str| json!({"name": name, "image": "side:1"});
        let before = pod(json!([web(json!([a, b])), sidecar("side")]));
        let live = pod(json!([web(json!([a, b])), sidecar("side"), sidecar("injected")]));
        let wanted = pod(json!([web(json!([a]))]));
        let new = merged(&kind, Some(&before), &wanted, &live).unwrap().unwrap();
        assert_eq!(new, pod(json!([web(json!([a])), sidecar("injected")])));
        assert_eq!(merged(&kind, Some(&wanted), &wanted, &new), Ok(None));
        let custom = Kind { custom: true, ..Kind::default() };
        let new = merged(
            &custom,
            Some(&json!({"spec": {"a": 1, "b": 2}})),
            &json!({"spec": {"b": 2}}),
            &json!({"spec": {"a": 1, "b": 2, "c": 3}}),
        );
        assert_eq!(new, Ok(Some(json!({"spec": {"b": 2, "c": 3}}))));
        assert!(kept(&json!({"metadata": {"annotations": {"helm.sh/resource-policy": "keep"}}})));
    }
}
