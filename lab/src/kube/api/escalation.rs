//! Nobody grants more than they hold: what writers of roles and bindings are told. Grade: source (the policy-based storages
//! of pkg/registry/rbac).
use serde_json::{Value, json};

use super::auth::User;
use super::rbac::{self, Ask};
use crate::kube::schema::Kind;
use crate::kube::store::{Failure, Store, meta};
use crate::kube::text::{arr, s};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role or a binding that gives what its writer does not hold.
///
/// # Errors
/// 403 with what is missing, 404 for a role that is not there.
pub fn check(store: &Store, user: &User, kind: &Kind, obj: &Value, old: Option<&Value>) -> Result<(), Failure> {
    if kind.group != GROUP || user.admin() || old.is_some_and(|old| only_collected(old, obj)) {
        return Ok(());
    }
    let may = |verb: &str, resource: &str, name: &str| {
        let ask = Ask { verb, group: GROUP, resource, namespace: meta::namespace(obj), name };
        rbac::allowed(store, user, &ask)
    };
    // a new object has no name in its request
    let named = if old.is_some() { meta::name(obj) } else { "" };
    let whole = || vec![json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})];
    match kind.kind.as_str() {
        "Role" | "ClusterRole" if may("escalate", &kind.plural, named) => Ok(()),
        "Role" | "ClusterRole" => {
            confirm(store, user, kind, obj, arr(obj, "/rules"))?;
            let gathers = |o: &Value| o["aggregationRule"].is_object();
            if kind.kind == "ClusterRole" && (gathers(obj) || old.is_some_and(gathers)) {
                confirm(store, user, kind, obj, &whole()).map_err(|_| {
                    let why = "must have cluster-admin privileges to use the aggregationRule";
                    Failure::forbidden(kind, meta::name(obj), why)
                })?;
            }
            Ok(())
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let (sort, name) = (s(obj, "/roleRef/kind"), s(obj, "/roleRef/name"));
            let plural = if sort == "Role" { "roles" } else { "clusterroles" };
            if !matches!(sort, "Role" | "ClusterRole") || may("bind", plural, name) {
                return Ok(());
            }
            let of = Kind { group: GROUP.to_owned(), plural: plural.to_owned(), ..Kind::default() };
            let role = rbac::role(store, obj).ok_or_else(|| Failure::not_found(&of, name))?;
            confirm(store, user, kind, obj, arr(role, "/rules"))
        }
        _ => Ok(()),
    }
}

/// Whether an update changes nothing but what lets the object be collected: its finalizers and owners.
fn only_collected(old: &Value, new: &Value) -> bool {
    let bare = |o: &Value| {
        let mut o = o.clone();
        meta::edit(&mut o, |m| {
            for f in ["finalizers", "ownerReferences", "managedFields", "resourceVersion"] {
                m.shift_remove(f);
            }
        });
        o
    };
    bare(old) == bare(new)
}

/// The caller holds all of `rules`.
fn confirm(store: &Store, user: &User, kind: &Kind, obj: &Value, rules: &[Value]) -> Result<(), Failure> {
    let held = rbac::rules(store, user, meta::namespace(obj));
    let missing: Vec<Value> = rules.iter().flat_map(parts).filter(|p| !held.iter().any(|h| covers(h, p))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut told: Vec<String> = compacted(missing).iter().map(shown).collect();
    told.sort();
    told.dedup();
    let groups: Vec<String> = user.groups.iter().map(|g| format!("{g:?}")).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        told.join("\n")
    );
    Err(Failure::forbidden(kind, meta::name(obj), &why))
}

/// A rule as rules of one verb and one thing.
fn parts(rule: &Value) -> Vec<Value> {
    let mut out = Vec::new();
    let verbs = arr(rule, "/verbs");
    for group in arr(rule, "/apiGroups") {
        for resource in arr(rule, "/resources") {
            for verb in verbs {
                let part = json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
                match arr(rule, "/resourceNames") {
                    [] => out.push(part),
                    names => out.extend(names.iter().map(|n| {
                        let mut part = part.clone();
                        part["resourceNames"] = json!([n]);
                        part
                    })),
                }
            }
        }
    }
    for url in arr(rule, "/nonResourceURLs") {
        out.extend(verbs.iter().map(|verb| json!({"nonResourceURLs": [url], "verbs": [verb]})));
    }
    out
}

/// Whether a rule that is held covers a part.
fn covers(held: &Value, part: &Value) -> bool {
    let all = |f: &str| {
        let have = arr(held, f);
        arr(part, f).iter().all(|x| have.iter().any(|h| h == "*" || h == x))
    };
    let resources = arr(part, "/resources").iter().filter_map(Value::as_str).all(|x| {
        let below = x.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        arr(held, "/resources").iter().any(|h| h == "*" || h == x || below.as_ref().is_some_and(|b| h == b))
    });
    let paths = arr(part, "/nonResourceURLs").iter().filter_map(Value::as_str).all(|x| {
        let fits = |h: &str| h == "*" || h == x || h.strip_suffix('*').is_some_and(|start| x.starts_with(start));
        arr(held, "/nonResourceURLs").iter().filter_map(Value::as_str).any(fits)
    });
    let (names, have) = (arr(part, "/resourceNames"), arr(held, "/resourceNames"));
    let names = have.is_empty() || !names.is_empty() && names.iter().all(|n| have.contains(n));
    all("/verbs") && all("/apiGroups") && resources && paths && names
}

/// Parts about the same thing become one with all their verbs.
fn compacted(parts: Vec<Value>) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for part in parts {
        let same = |o: &&mut Value| {
            ["apiGroups", "resources", "resourceNames"].iter().all(|f| o[*f] == part[*f])
                && part["nonResourceURLs"].is_null()
                && o["nonResourceURLs"].is_null()
        };
        match out.iter_mut().find(same).and_then(|o| o["verbs"].as_array_mut()) {
            Some(verbs) => {
                let more = arr(&part, "/verbs").iter().filter(|v| !verbs.contains(v)).cloned().collect::<Vec<_>>();
                verbs.extend(more);
            }
            None => out.push(part),
        }
    }
    out
}

/// A rule in one line.
fn shown(rule: &Value) -> String {
    let fields = [
        ("apiGroups", "APIGroups"),
        ("resources", "Resources"),
        ("nonResourceURLs", "NonResourceURLs"),
        ("resourceNames", "ResourceNames"),
        ("verbs", "Verbs"),
    ];
    let said = |(k, title): &(&str, &str)| {
        let list: Vec<String> = rule[*k].as_array()?.iter().map(Value::to_string).collect();
        (!list.is_empty()).then(|| format!("{title}:[{}]", list.join(" ")))
    };
    format!("{{{}}}", fields.iter().filter_map(said).collect::<Vec<_>>().join(", "))
}
