//! What differs between two objects, and who holds one. No I/O.
use serde_json::Value;

use crate::core::event::Change;

/// Label of everything that gpuhost makes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Field manager of our applies.
pub const MANAGER: &str = "gpuhost";

/// Parts of `metadata` that the server keeps.
const SERVER_SIDE: &[&str] =
    &["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"];

/// Differences between a live object and what an apply would make of it, as changes on `target`.
#[must_use]
pub fn object_changes(target: &str, subject: &str, live: &Value, wanted: &Value) -> Vec<Change> {
    let secret = live["kind"] == "Secret";
    let mut out = Vec::new();
    let (Some(a), Some(b)) = (live.as_object(), wanted.as_object()) else { return Vec::new() };
    let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for key in keys {
        match key.as_str() {
            "status" | "apiVersion" | "kind" => {}
            "metadata" => {
                let strip = |v: &Value| {
                    let mut v = v.clone();
                    if let Some(m) = v.as_object_mut() {
                        m.retain(|k, _| !SERVER_SIDE.contains(&k.as_str()));
                    }
                    v
                };
                walk("metadata", &strip(&live["metadata"]), &strip(&wanted["metadata"]), &mut out);
            }
            k => walk(k, &live[k], &wanted[k], &mut out),
        }
    }
    out.into_iter()
        .map(|(path, before, after)| {
            let hide = |v: Value| if v.is_null() { None } else { Some(if secret { "***".into() } else { v }) };
            Change::new(target, format!("{subject} {path}"), hide(before), hide(after))
        })
        .collect()
}

/// Collects leaf differences; lists and texts are leaves.
fn walk(path: &str, a: &Value, b: &Value, out: &mut Vec<(String, Value, Value)>) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys: std::collections::BTreeSet<_> = x.keys().chain(y.keys()).collect();
            for k in keys {
                let (va, vb) = (x.get(k).unwrap_or(&Value::Null), y.get(k).unwrap_or(&Value::Null));
                walk(&format!("{path}.{k}"), va, vb, out);
            }
        }
        _ if same(a, b) => {}
        _ => out.push((path.to_owned(), a.clone(), b.clone())),
    }
}

/// Equal, where an absent and an empty container are the same.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Object(m) => m.is_empty(),
        Value::Array(l) => l.is_empty(),
        _ => false,
    };
    a == b || (empty(a) && empty(b))
}

/// Which tool outside the cluster's own controllers takes care of an object.
#[must_use]
pub fn manager_of(object: &Value) -> Option<String> {
    let meta = &object["metadata"];
    let label = |k: &str| meta["labels"][k].as_str();
    let note = |k: &str| meta["annotations"][k].as_str();
    if let Some(bundle) = label("fleet.cattle.io/bundle-name").or_else(|| label("fleet.cattle.io/bundle-id")) {
        return Some(format!("Fleet bundle `{bundle}`"));
    }
    if let Some(id) = note("objectset.rio.cattle.io/id").filter(|id| id.starts_with("default-") || id.contains("fleet"))
    {
        return Some(format!("Fleet (object set `{id}`)"));
    }
    if let (Some("Helm"), Some(release)) = (label(MANAGED_BY), note("meta.helm.sh/release-name")) {
        let ns = note("meta.helm.sh/release-namespace").unwrap_or("?");
        return Some(format!("Helm release `{ns}/{release}`"));
    }
    let addon = note("objectset.rio.cattle.io/owner-name")
        .filter(|_| note("objectset.rio.cattle.io/owner-gvk").is_some_and(|g| g.contains("Addon")));
    if let Some(name) = addon {
        return Some(format!("K3s addon `{name}` (rewritten at each start of K3s)"));
    }
    if let Some(app) = note("argocd.argoproj.io/tracking-id").or_else(|| label("argocd.argoproj.io/instance")) {
        return Some(format!("Argo CD application `{}`", app.split(':').next().unwrap_or(app)));
    }
    label("kustomize.toolkit.fluxcd.io/name").map(|k| format!("Flux kustomization `{k}`"))
}

/// Who else takes care of an object: a name for messages; `None` when it is ours or nobody's.
#[must_use]
pub fn other_owner(object: &Value) -> Option<String> {
    manager_of(object).or_else(|| {
        let owners = object["metadata"]["ownerReferences"].as_array();
        let owner = owners.into_iter().flatten().find(|o| o["controller"] == true)?;
        Some(format!("{} `{}`", owner["kind"].as_str().unwrap_or("?"), owner["name"].as_str().unwrap_or("?")))
    })
}

/// Whether our field manager has applied it before.
#[must_use]
pub fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"][MANAGED_BY] == MANAGER
        || object["metadata"]["managedFields"].as_array().into_iter().flatten().any(|m| m["manager"] == MANAGER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_wanted_differences_count() {
        let live = json!({"kind":"ConfigMap","metadata":{"name":"a","uid":"1","resourceVersion":"5"},"data":{"x":"1"},"status":{"a":1}});
        let mut wanted = live.clone();
        wanted["metadata"]["resourceVersion"] = "6".into();
        wanted["metadata"]["labels"] = json!({});
        assert!(object_changes("c", "ConfigMap a", &live, &wanted).is_empty());
        wanted["data"]["x"] = "2".into();
        let c = object_changes("c", "ConfigMap a", &live, &wanted);
        assert_eq!((c.len(), c[0].what.as_str()), (1, "ConfigMap a data.x"));
        assert_eq!(c[0].after, Some("2".into()));
    }

    #[test]
    fn secrets_stay_secret() {
        let live = json!({"kind":"Secret","metadata":{},"data":{"k":"YQ=="}});
        let wanted = json!({"kind":"Secret","metadata":{},"data":{"k":"Yg=="}});
        let c = object_changes("c", "Secret a", &live, &wanted);
        assert_eq!(c[0].after, Some("***".into()));
    }

    #[test]
    fn owners_are_named() {
        let helm = json!({"metadata":{"labels":{MANAGED_BY:"Helm"},"annotations":{"meta.helm.sh/release-name":"x","meta.helm.sh/release-namespace":"y"}}});
        assert_eq!(other_owner(&helm).as_deref(), Some("Helm release `y/x`"));
        let fleet = json!({"metadata":{"labels":{"fleet.cattle.io/bundle-name":"b"}}});
        assert_eq!(other_owner(&fleet).as_deref(), Some("Fleet bundle `b`"));
        assert_eq!(other_owner(&json!({"metadata":{"labels":{MANAGED_BY:"gpuhost"}}})), None);
    }
}
