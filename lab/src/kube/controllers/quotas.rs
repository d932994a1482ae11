//! ResourceQuotas: what a namespace uses of what it may.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::text::{milli, s};
use super::{pods, scheduler};
use crate::kube::schema::defaults::canonical;

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

/// What the namespace uses, by the keys of a quota.
fn used(cx: &Cx, ns: &str, key: &str) -> i64 {
    let live: Vec<&Value> = cx.list_in("pods", ns).into_iter().filter(|p| pods::is_active(p)).collect();
    let sum = |part: &str, resource: &str| -> i64 {
        let each = |c: &Value| milli(&c["resources"][part][resource]);
        live.iter().flat_map(|p| p["spec"]["containers"].as_array().into_iter().flatten()).map(each).sum()
    };
    match key {
        "pods" | "count/pods" => live.len() as i64 * 1000,
        "cpu" | "memory" => sum("requests", key),
        "requests.storage" => {
            let each = |c: &&Value| milli(&c["spec"]["resources"]["requests"]["storage"]);
            cx.list_in("persistentvolumeclaims", ns).iter().map(each).sum()
        }
        k if k.starts_with("requests.") => {
            let name = &k["requests.".len()..];
            live.iter().map(|p| scheduler::requests(p).get(name).copied().unwrap_or(0)).sum()
        }
        k if k.starts_with("limits.") => sum("limits", &k["limits.".len()..]),
        k => cx.list_in(&counted(k), ns).len() as i64 * 1000,
    }
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
            list[k] = json!(shown(used(cx, ns, k), v));
        }
        let status = json!({"hard": q["spec"]["hard"], "used": list});
        if q["status"] != status {
            cx.update(QUOTAS, ns, s(&q, "/metadata/name"), |o| o["status"] = status);
        }
    }
}
