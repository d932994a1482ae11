//! What a user may do, by the RBAC objects of the cluster.
use serde_json::Value;

use super::auth::User;
use super::route::{Route, Target};
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

/// The subject of a binding that a user is.
fn subject<'a>(binding: &'a Value, user: &User) -> Option<&'a Value> {
    binding["subjects"].as_array().into_iter().flatten().find(|s| match s["kind"].as_str() {
        Some("User") => s["name"] == user.name.as_str(),
        Some("Group") => user.groups.iter().any(|g| s["name"] == g.as_str()),
        Some("ServiceAccount") => {
            let ns = s["namespace"].as_str().unwrap_or(meta::namespace(binding));
            user.name == format!("system:serviceaccount:{ns}:{}", s["name"].as_str().unwrap_or_default())
        }
        _ => false,
    })
}

/// What a binding gives to a user.
struct Grant<'a> {
    binding: &'a Value,
    subject: &'a Value,
    rules: &'a [Value],
}

impl Grant<'_> {
    /// In the words of the authorizer.
    fn told(&self) -> String {
        let text = |v: &Value, f: &str| v[f].as_str().unwrap_or_default().to_owned();
        let (role, own) = (&self.binding["roleRef"], meta::namespace(self.binding));
        let name = match own {
            "" => meta::name(self.binding).to_owned(),
            ns => format!("{}/{ns}", meta::name(self.binding)),
        };
        let sort = if own.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
        let who = match self.subject["kind"].as_str() {
            Some("ServiceAccount") => {
                format!("{}/{}", text(self.subject, "name"), self.subject["namespace"].as_str().unwrap_or(own))
            }
            _ => text(self.subject, "name"),
        };
        format!(
            "RBAC: allowed by {sort} {name:?} of {} {:?} to {} {who:?}",
            text(role, "kind"),
            text(role, "name"),
            text(self.subject, "kind")
        )
    }
}

/// The bindings that count in `namespace`, or everywhere when it is empty.
fn bindings<'a>(store: &'a Store, namespace: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    let here = (!namespace.is_empty()).then(|| store.all(&format!("rolebindings.{GROUP}"), namespace));
    let all = store.all(&format!("clusterrolebindings.{GROUP}"), "").chain(here.into_iter().flatten());
    all.map(AsRef::as_ref)
}

/// The role that a binding names.
pub(super) fn role<'a>(store: &'a Store, binding: &Value) -> Option<&'a Value> {
    let r = &binding["roleRef"];
    let name = r["name"].as_str().unwrap_or_default();
    if r["kind"] == "Role" {
        store.get(&format!("roles.{GROUP}"), meta::namespace(binding), name)
    } else {
        store.get(&format!("clusterroles.{GROUP}"), "", name)
    }
}

/// What `user` is granted: in `namespace`, or everywhere when it is empty.
fn grants<'a>(store: &'a Store, user: &User, namespace: &str) -> Vec<Grant<'a>> {
    bindings(store, namespace)
        .filter_map(|binding| {
            let subject = subject(binding, user)?;
            Some(Grant { binding, subject, rules: role(store, binding)?["rules"].as_array()? })
        })
        .collect()
}

/// What the authorizer has to say when it does not allow: bindings of `user` that name roles which are not there.
#[must_use]
pub fn unresolved(store: &Store, user: &User, namespace: &str) -> Option<String> {
    let mut all: Vec<String> = Vec::new();
    for binding in bindings(store, namespace).filter(|b| subject(b, user).is_some()) {
        if role(store, binding).is_some() {
            continue;
        }
        let r = &binding["roleRef"];
        let text = |f: &str| r[f].as_str().unwrap_or_default();
        // its lister is named in the singular
        let said = format!("{}.{GROUP} {:?} not found", text("kind").to_lowercase(), text("name"));
        if !all.contains(&said) {
            all.push(said);
        }
    }
    match all.as_slice() {
        [] => None,
        [one] => Some(format!("RBAC: {one}")),
        many => Some(format!("RBAC: [{}]", many.join(", "))),
    }
}

/// Rules that hold for `user`: in `namespace`, or everywhere when it is empty.
#[must_use]
pub fn rules(store: &Store, user: &User, namespace: &str) -> Vec<Value> {
    grants(store, user, namespace).iter().flat_map(|g| g.rules.iter().cloned()).collect()
}

/// The binding that lets `user` do `a`.
fn granting<'a>(store: &'a Store, user: &User, a: &Ask<'_>) -> Option<Grant<'a>> {
    grants(store, user, a.namespace).into_iter().find(|g| g.rules.iter().any(|r| allows(r, a)))
}

/// Why `user` may do `a`, by the binding that says so.
#[must_use]
pub fn why(store: &Store, user: &User, a: &Ask<'_>) -> Option<String> {
    granting(store, user, a).map(|g| g.told())
}

/// Whether `user` may do `a`.
#[must_use]
pub fn allowed(store: &Store, user: &User, a: &Ask<'_>) -> bool {
    user.admin() || granting(store, user, a).is_some()
}

/// Why `user` may use `verb` on a path that is no resource.
#[must_use]
pub fn why_path(store: &Store, user: &User, verb: &str, path: &str) -> Option<String> {
    let fits = |p: &str| p == path || p.strip_suffix('*').is_some_and(|start| path.starts_with(start));
    let lets = |r: &Value| {
        let paths = r["nonResourceURLs"].as_array();
        has(&r["verbs"], verb) && paths.into_iter().flatten().filter_map(Value::as_str).any(fits)
    };
    grants(store, user, "").iter().find(|g| g.rules.iter().any(lets)).map(Grant::told)
}

/// Whether `user` may use `verb` on a path that is no resource (`/healthz`).
#[must_use]
pub fn allowed_path(store: &Store, user: &User, verb: &str, path: &str) -> bool {
    why_path(store, user, verb, path).is_some()
}

/// Refuses a path that is no resource to who may not use it; probes and resources are looked at elsewhere.
#[must_use]
pub fn path_refused(call: &Call<'_>, route: &Route) -> Option<Failure> {
    if call.user.admin() || matches!(route, Route::Object(_) | Route::Health(..)) {
        return None;
    }
    let (verb, path) = (call.req.method.as_str().to_lowercase(), call.req.path.as_str());
    call.lab.with(|w| {
        let c = w.clusters.get(call.cluster)?;
        if allowed_path(&c.store, &call.user, &verb, path) {
            return None;
        }
        let said = unresolved(&c.store, &call.user, "").map(|s| format!(": {s}")).unwrap_or_default();
        let why = format!("forbidden: User {:?} cannot {verb} path {path:?}{said}", call.user.name);
        Some(Failure { details: Some(serde_json::json!({})), ..Failure::new(403, "Forbidden", why) })
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
    let refused = call.lab.with(|w| {
        let c = w.clusters.get(call.cluster)?;
        (!allowed(&c.store, &call.user, &ask)).then(|| unresolved(&c.store, &call.user, &t.namespace))
    });
    let Some(said) = refused else { return Ok(()) };
    let said = said.map(|s| format!(": {s}")).unwrap_or_default();
    // a namespace is in itself
    let within = if kind.group.is_empty() && kind.plural == "namespaces" { name } else { &t.namespace };
    let place =
        if within.is_empty() { "at the cluster scope".to_owned() } else { format!("in the namespace \"{within}\"") };
    let why = format!(
        "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {place}{said}",
        call.user.name, kind.group
    );
    Err(Failure::forbidden(kind, name, &why))
}
