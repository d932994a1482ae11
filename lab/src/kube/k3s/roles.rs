//! The roles and bindings that every cluster has from birth. Grade: recorded (kube-apiserver 1.36.2).
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::cx::Cx;

/// A role's line is its name, with its namespace if it has one, and behind `>` the role that gathers its rules, or the
/// name of a namespace's binding that is called otherwise. Its lines below begin with a blank: `=`
/// and the kind and name of a subject that it is bound to (nothing: a binding without subjects), or verbs, groups,
/// resources and `#` names, or verbs and paths.
const ROLES: &str = include_str!("roles.txt");

/// Roles that gather the rules of others: name, and the one that gathers theirs.
const GATHERING: [(&str, &str); 3] = [("admin", ""), ("edit", "admin"), ("view", "edit")];

const RBAC: &str = "rbac.authorization.k8s.io";

/// Metadata of what the server makes itself.
fn own(name: &str) -> Value {
    json!({"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}})
}

/// The label of what a role gathers.
fn aggregated(role: &str) -> String {
    format!("{RBAC}/aggregate-to-{role}")
}

/// A rule of its line.
fn rule(line: &str) -> Value {
    let mut words = line.split_whitespace();
    let verbs: Vec<&str> = words.next().unwrap_or_default().split(',').collect();
    let rest: Vec<&str> = words.collect();
    if rest.first().is_some_and(|w| w.starts_with('/')) || rest == ["*"] {
        return json!({"nonResourceURLs": rest, "verbs": verbs});
    }
    let Some((groups, what)) = rest.split_first() else { return Value::Null };
    let groups: Vec<&str> = groups.split(',').map(|g| if g == "core" { "" } else { g }).collect();
    let (names, resources): (Vec<&str>, Vec<&str>) = what.iter().partition(|w| w.starts_with('#'));
    let mut out = json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    if !names.is_empty() {
        out["resourceNames"] = names.iter().map(|n| n.trim_start_matches('#')).collect();
    }
    out
}

/// A subject of its line (`G system:masters`); nothing for a binding without one.
fn subject(words: &str) -> Option<Value> {
    let (kind, name) = words.trim().split_once(' ')?;
    Some(match kind {
        "S" => {
            let (ns, name) = name.split_once('/')?;
            json!({"kind": "ServiceAccount", "name": name, "namespace": ns})
        }
        "G" => json!({"apiGroup": RBAC, "kind": "Group", "name": name}),
        _ => json!({"apiGroup": RBAC, "kind": "User", "name": name}),
    })
}

/// A role as its lines tell it.
#[derive(Default)]
struct Told<'a> {
    gathered: &'a str,
    rules: Vec<Value>,
    subjects: Option<Vec<Value>>,
}

fn told() -> BTreeMap<&'static str, Told<'static>> {
    let mut out: BTreeMap<&str, Told<'_>> = BTreeMap::new();
    let mut name = "";
    for line in ROLES.lines() {
        match line.strip_prefix(' ') {
            None => {
                let gathered;
                (name, gathered) = line.split_once(" > ").unwrap_or((line, ""));
                out.entry(name).or_default().gathered = gathered;
            }
            Some(below) => {
                let role = out.entry(name).or_default();
                match below.strip_prefix('=') {
                    Some(words) => role.subjects.get_or_insert_default().extend(subject(words)),
                    None => role.rules.push(rule(below)),
                }
            }
        }
    }
    out
}

/// The priority classes that every API server makes.
fn priorities(cx: &mut Cx) {
    for (name, value, what) in [
        (
            "system-cluster-critical",
            2_000_000_000_u64,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        cx.create(json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": what}));
    }
}

/// Makes the roles, the bindings and the priority classes that everybody has.
pub fn birth(cx: &mut Cx) {
    priorities(cx);
    let mut roles = told();
    // what the aggregation finds in a moment: the rules of all labelled roles in the order of their names
    for (name, gathered) in GATHERING.into_iter().rev() {
        let mut rules: Vec<Value> = Vec::new();
        for rule in roles.values().filter(|r| r.gathered == name).flat_map(|r| &r.rules) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        roles.insert(name, Told { gathered, rules, subjects: None });
    }
    for (place, role) in &roles {
        let (kind, mut meta, _) = placed(place, role);
        if kind == "ClusterRole" && !role.gathered.is_empty() {
            meta["labels"][aggregated(role.gathered)] = json!("true");
        }
        let mut object =
            json!({"apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": meta, "rules": role.rules});
        if GATHERING.iter().any(|(n, _)| n == place) {
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {aggregated(place): "true"}}]});
        }
        cx.create(object);
    }
    for (place, role) in &roles {
        let Some(subjects) = &role.subjects else { continue };
        let (kind, mut meta, binding) = placed(place, role);
        let name = std::mem::replace(&mut meta["name"], json!(binding));
        let mut object = json!({"apiVersion": format!("{RBAC}/v1"), "kind": format!("{kind}Binding"), "metadata": meta,
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name}});
        if !subjects.is_empty() {
            object["subjects"] = json!(subjects);
        }
        cx.create(object);
    }
}

/// Kind and metadata of a role, and the name of its binding.
fn placed<'a>(place: &'a str, role: &Told<'a>) -> (&'static str, Value, &'a str) {
    match place.split_once('/') {
        None => ("ClusterRole", own(place), place),
        Some((ns, name)) => {
            let mut meta = own(name);
            meta["namespace"] = json!(ns);
            ("Role", meta, if role.gathered.is_empty() { name } else { role.gathered })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let roles = told();
        assert_eq!(roles["cluster-admin"].rules[0], json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
        assert_eq!(roles["cluster-admin"].rules[1], json!({"nonResourceURLs": ["*"], "verbs": ["*"]}));
        assert_eq!(roles["system:aggregate-to-view"].gathered, "view");
        assert_eq!(roles["system:node"].subjects, Some(Vec::new()));
        let approver = &roles["system:certificates.k8s.io:kubelet-serving-approver"].rules[0];
        assert_eq!(approver["resourceNames"], json!(["kubernetes.io/kubelet-serving"]));
        let bound = roles["system:controller:job-controller"].subjects.as_ref().unwrap();
        assert_eq!(bound[0]["namespace"], "kube-system");
        let (place, role) = roles.get_key_value("kube-system/extension-apiserver-authentication-reader").unwrap();
        let (kind, meta, binding) = placed(place, role);
        assert_eq!((kind, &meta["namespace"]), ("Role", &json!("kube-system")));
        assert_eq!(binding, "system::extension-apiserver-authentication-reader");
    }
}
