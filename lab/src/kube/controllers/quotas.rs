//! ResourceQuotas: what a namespace uses of what it may, and the refusal of what would be more.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::text::{arr, milli, s};
use super::{pods, scheduler};
use crate::kube::schema::Kind;
use crate::kube::schema::defaults::canonical;
use crate::kube::store::{Failure, Store, meta};

const QUOTAS: &str = "resourcequotas";

/// Resource that a count of a quota means.
fn counted(key: &str) -> String {
    match key {
        "services"
        | "secrets"
        | "configmaps"
        | "persistentvolumeclaims"
        | "replicationcontrollers"
        | "resourcequotas" => key.to_owned(),
        k => k.strip_prefix("count/").unwrap_or_default().to_owned(),
    }
}

/// What a pod takes of a quota's key, in thousandths.
fn of_pod(pod: &Value, key: &str) -> i64 {
    let sum = |part: &str, resource: &str| -> i64 {
        arr(pod, "/spec/containers").iter().map(|c| milli(&c["resources"][part][resource])).sum()
    };
    match key {
        "pods" | "count/pods" => 1000,
        "cpu" | "memory" => sum("requests", key),
        k if k.starts_with("requests.") => scheduler::requests(pod).get(&k["requests.".len()..]).copied().unwrap_or(0),
        k if k.starts_with("limits.") => sum("limits", &k["limits.".len()..]),
        _ => 0,
    }
}

/// What any object takes of a quota's key.
fn of_object(resource: &str, o: &Value, key: &str) -> i64 {
    match (resource, key) {
        ("pods", k) => of_pod(o, k),
        ("persistentvolumeclaims", "requests.storage") => milli(&o["spec"]["resources"]["requests"]["storage"]),
        (r, k) if counted(k) == r => 1000,
        _ => 0,
    }
}

/// What the namespace uses, by the keys of a quota.
fn used(store: &Store, ns: &str, key: &str) -> i64 {
    let sum = |resource: &str| store.all(resource, ns).map(|o| of_object(resource, o, key)).sum::<i64>();
    match (key, counted(key).as_str()) {
        ("requests.storage", _) => sum("persistentvolumeclaims"),
        (_, "" | "pods") => store.all("pods", ns).filter(|p| pods::is_active(p)).map(|p| of_pod(p, key)).sum(),
        (_, resource) => sum(resource),
    }
}

/// What every container has to say where a quota counts it.
const TOLD: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Containers of a pod that do not say how much of the key they want.
fn silent<'a>(pod: &'a Value, key: &str) -> Vec<&'a str> {
    let (part, resource) = match key.split_once('.') {
        Some(("limits", r)) => ("limits", r),
        Some((_, r)) => ("requests", r),
        None => ("requests", key),
    };
    let says = |c: &&Value| {
        c["resources"][part][resource].is_null() && (part == "limits" || c["resources"]["limits"][resource].is_null())
    };
    arr(pod, "/spec/containers").iter().filter(says).map(|c| s(c, "/name")).collect()
}

/// Refuses a new object that would take more than a quota of its namespace leaves.
///
/// # Errors
/// 403 in the words of the real server.
pub fn admit(store: &Store, kind: &Kind, ns: &str, o: &Value) -> Result<(), Failure> {
    let resource = kind.resource();
    for q in store.all(QUOTAS, ns) {
        let hard = q["spec"]["hard"].as_object().into_iter().flatten();
        let (mut asked, mut had, mut limits, mut untold) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (key, limit) in hard {
            if resource == "pods" && TOLD.contains(&key.as_str()) {
                let names = silent(o, key);
                if !names.is_empty() {
                    untold.push(format!("{key} for: {}", names.join(",")));
                }
            }
            let (more, have) = (of_object(&resource, o, key), used(store, ns, key));
            if more > 0 && have + more > milli(limit) {
                asked.push(format!("{key}={}", shown(more, limit)));
                had.push(format!("{key}={}", shown(have, limit)));
                limits.push(format!("{key}={}", limit.as_str().map_or_else(|| limit.to_string(), str::to_owned)));
            }
        }
        let name = meta::name(q);
        let why = if !untold.is_empty() {
            format!("failed quota: {name}: must specify {}", untold.join("; "))
        } else if !asked.is_empty() {
            let (asked, had, limits) = (asked.join(","), had.join(","), limits.join(","));
            format!("exceeded quota: {name}, requested: {asked}, used: {had}, limited: {limits}")
        } else {
            continue;
        };
        return Err(Failure::forbidden(kind, meta::name(o), &why));
    }
    Ok(())
}

/// Thousandths as a quantity in the unit of `like`.
fn shown(value: i64, like: &Value) -> String {
    let unit = s(like, "");
    let binary = unit.ends_with('i');
    let text = if value % 1000 == 0 { (value / 1000).to_string() } else { format!("{value}m") };
    if binary && value % 1_048_576_000 == 0 && value > 0 {
        return canonical(&format!("{}Mi", value / 1_048_576_000)).unwrap_or(text);
    }
    canonical(&text).unwrap_or(text)
}

/// Counts again in a namespace.
pub fn reconcile(cx: &mut Cx, ns: &str) {
    let all: Vec<Value> = cx.list_in(QUOTAS, ns).into_iter().cloned().collect();
    for q in all {
        let hard: BTreeMap<String, Value> =
            q["spec"]["hard"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut list = json!({});
        for (k, v) in &hard {
            list[k] = json!(shown(used(&cx.c.store, ns, k), v));
        }
        let status = json!({"hard": q["spec"]["hard"], "used": list});
        if q["status"] != status {
            cx.update(QUOTAS, ns, s(&q, "/metadata/name"), |o| o["status"] = status);
        }
    }
}
