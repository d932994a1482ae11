//! What a user may do, by the RBAC objects of the cluster.
use serde_json::Value;

use super::auth::User;
use super::route::Target;
use super::{Call, watch};
use crate::kube::schema::Kind;
use crate::kube::store::{Failure, Store, meta};

const GROUP: &str = "rbac.authorization.k8s.io";

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// `get`, `list` …
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Resource, with its subresource (`pods/log`).
    pub resource: &'a str,
    /// Namespace; empty: the whole cluster.
    pub namespace: &'a str,
    /// Name; empty: any.
    pub name: &'a str,
}

fn has(list: &Value, want: &str) -> bool {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).any(|x| x == "*" || x == want)
}

fn allows(rule: &Value, a: &Ask<'_>) -> bool {
    let resource =
        a.resource.split_once('/').is_some_and(|(_, sub)| has_exact(&rule["resources"], &format!("*/{sub}")))
            || has(&rule["resources"], a.resource);
    let names = rule["resourceNames"].as_array().is_none_or(|n| n.is_empty() || n.iter().any(|x| x == a.name));
    has(&rule["apiGroups"], a.group) && resource && has(&rule["verbs"], a.verb) && names
}

fn has_exact(list: &Value, want: &str) -> bool {
    list.as_array().into_iter().flatten().any(|x| x == want)
}

fn subject(binding: &Value, user: &User) -> bool {
    binding["subjects"].as_array().into_iter().flatten().any(|s| match s["kind"].as_str() {
        Some("User") => s["name"] == user.name.as_str(),
        Some("Group") => user.groups.iter().any(|g| s["name"] == g.as_str()),
        Some("ServiceAccount") => {
            let ns = s["namespace"].as_str().unwrap_or(meta::namespace(binding));
            user.name == format!("system:serviceaccount:{ns}:{}", s["name"].as_str().unwrap_or_default())
        }
        _ => false,
    })
}

/// Rules that hold for `user`: in `namespace`, or everywhere when it is empty.
#[must_use]
pub fn rules(store: &Store, user: &User, namespace: &str) -> Vec<Value> {
    let mut out = Vec::new();
    let mut add = |binding: &Value| {
        let r = &binding["roleRef"];
        let (name, ns) = (r["name"].as_str().unwrap_or_default(), meta::namespace(binding));
        let role = if r["kind"] == "Role" {
            store.get(&format!("roles.{GROUP}"), ns, name)
        } else {
            store.get(&format!("clusterroles.{GROUP}"), "", name)
        };
        out.extend(role.and_then(|r| r["rules"].as_array()).into_iter().flatten().cloned());
    };
    store.all(&format!("clusterrolebindings.{GROUP}"), "").filter(|b| subject(b, user)).for_each(|b| add(b));
    if !namespace.is_empty() {
        store.all(&format!("rolebindings.{GROUP}"), namespace).filter(|b| subject(b, user)).for_each(|b| add(b));
    }
    out
}

/// Whether `user` may do `a`.
#[must_use]
pub fn allowed(store: &Store, user: &User, a: &Ask<'_>) -> bool {
    user.admin() || rules(store, user, a.namespace).iter().any(|r| allows(r, a))
}

/// Whether `user` may use `verb` on a path that is no resource (`/healthz`).
#[must_use]
pub fn allowed_path(store: &Store, user: &User, verb: &str, path: &str) -> bool {
    let fits = |p: &str| p == path || p.strip_suffix('*').is_some_and(|start| path.starts_with(start));
    rules(store, user, "").iter().any(|r| {
        let paths = r["nonResourceURLs"].as_array();
        has(&r["verbs"], verb) && paths.into_iter().flatten().filter_map(Value::as_str).any(fits)
    })
}

/// Refuses what the caller may not do.
///
/// # Errors
/// 403 in the words of the real server.
pub fn demand(call: &Call<'_>, kind: &Kind, t: &Target) -> Result<(), Failure> {
    if call.user.admin() || kind.create_only {
        return Ok(());
    }
    let watching = watch::wanted(call.req, t);
    let verb = match (call.req.method.as_str(), t.name.is_some()) {
        ("GET" | "HEAD", _) if watching => "watch",
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        _ => "deletecollection",
    };
    let resource = t.sub.as_ref().map_or_else(|| kind.plural.clone(), |s| format!("{}/{s}", kind.plural));
    let name = t.name.as_deref().unwrap_or_default();
    let ask = Ask { verb, group: &kind.group, resource: &resource, namespace: &t.namespace, name };
    let ok = call.lab.with(|w| w.clusters.get(call.cluster).is_some_and(|c| allowed(&c.store, &call.user, &ask)));
    if ok {
        return Ok(());
    }
    let place = if t.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", t.namespace)
    };
    let why = format!(
        "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {place}",
        call.user.name, kind.group
    );
    Err(Failure::forbidden(kind, name, &why))
}
