//! Which requests a policy or a webhook is about.
use serde_json::Value;

use super::Attributes;
use crate::kube::store::{Labels, Store, meta};
use crate::kube::text::{arr, s};

fn lists(rule: &Value, field: &str, want: &str) -> bool {
    arr(rule, field).iter().any(|x| x == "*" || x == want)
}

/// Whether a rule names the resource, in the version asked for or, when equivalent ones count, in any that is served.
fn rule(store: &Store, r: &Value, exact: bool, a: &Attributes<'_>) -> bool {
    let k = a.kind;
    let version = lists(r, "/apiVersions", &k.version)
        || !exact
            && store
                .kinds()
                .any(|o| o.group == k.group && o.plural == k.plural && lists(r, "/apiVersions", &o.version));
    let resource = arr(r, "/resources").iter().filter_map(Value::as_str).any(|x| {
        let (res, sub) = x.split_once('/').unwrap_or((x, ""));
        (res == "*" || res == k.plural) && (sub == "*" || sub == a.subresource)
    });
    let scope = match s(r, "/scope") {
        "Cluster" => !k.namespaced,
        "Namespaced" => k.namespaced,
        _ => true,
    };
    let names = arr(r, "/resourceNames");
    lists(r, "/apiGroups", &k.group)
        && version
        && resource
        && scope
        && lists(r, "/operations", a.operation)
        && (names.is_empty() || names.iter().any(|n| n == a.name))
}

fn any(store: &Store, m: &Value, list: &str, a: &Attributes<'_>) -> bool {
    let exact = m["matchPolicy"] == "Exact";
    arr(m, list).iter().any(|r| rule(store, r, exact, a))
}

/// Whether the selectors of `m` let the request through to it.
fn selected(store: &Store, m: &Value, a: &Attributes<'_>) -> bool {
    let empty = |v: &Value| v.as_object().is_none_or(serde_json::Map::is_empty);
    if !empty(&m["namespaceSelector"]) {
        let place = match (a.kind.kind.as_str(), a.operation) {
            ("Namespace", "CREATE" | "UPDATE") if a.kind.group.is_empty() => a.object,
            ("Namespace", _) if a.kind.group.is_empty() => a.old,
            _ if a.kind.namespaced => store.get("namespaces", "", a.namespace),
            // what has no namespace is never exempt
            _ => None,
        };
        let namespaced = a.kind.namespaced || a.kind.group.is_empty() && a.kind.kind == "Namespace";
        let sel = Labels::from_spec(&m["namespaceSelector"]);
        if namespaced && !place.is_some_and(|n| sel.matches(n)) {
            return false;
        }
    }
    if !empty(&m["objectSelector"]) {
        let sel = Labels::from_spec(&m["objectSelector"]);
        return a.object.is_some_and(|o| sel.matches(o)) || a.old.is_some_and(|o| sel.matches(o));
    }
    true
}

/// Whether `m` (the constraints of a policy, the resources of a binding) is about a request.
pub(super) fn resources(store: &Store, m: &Value, a: &Attributes<'_>) -> bool {
    selected(store, m, a)
        && !any(store, m, "/excludeResourceRules", a)
        && (arr(m, "/resourceRules").is_empty() || any(store, m, "/resourceRules", a))
}

/// Whether a webhook is about a request.
pub(super) fn webhook(store: &Store, hook: &Value, a: &Attributes<'_>) -> bool {
    any(store, hook, "/rules", a) && selected(store, hook, a)
}

/// Objects of a resource as they come: by name.
pub(super) fn named<'a>(store: &'a Store, resource: &str) -> Vec<&'a Value> {
    let mut all: Vec<&Value> = store.all(resource, "").map(AsRef::as_ref).collect();
    all.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
    all
}
