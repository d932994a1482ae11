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

/// What `user` is granted: in `namespace`, or everywhere when it is empty.
fn grants<'a>(store: &'a Store, user: &User, namespace: &str) -> Vec<Grant<'a>> {
    let here = (!namespace.is_empty()).then(|| store.all(&format!("rolebindings.{GROUP}"), namespace));
    let all = store.all(&format!("clusterrolebindings.{GROUP}"), "").chain(here.into_iter().flatten());
    all.filter_map(|binding| {
        let subject = subject(binding, user)?;
        let r = &binding["roleRef"];
        let (name, ns) = (r["name"].as_str().unwrap_or_default(), meta::namespace(binding));
        let role = if r["kind"] == "Role" {
            store.get(&format!("roles.{GROUP}"), ns, name)
        } else {
            store.get(&format!("clusterroles.{GROUP}"), "", name)
        };
        Some(Grant { binding, subject, rules: role?["rules"].as_array()? })
    })
    .collect()
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
