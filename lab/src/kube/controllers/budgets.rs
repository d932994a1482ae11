//! PodDisruptionBudgets: how many of their pods may go.
use serde_json::{Value, json};

use super::super::cx::{Cx, set_condition};
use super::super::text::{arr, s};
use super::deployments::share;
use super::pods;

const BUDGETS: &str = "poddisruptionbudgets.policy";
const ALLOWED: &str = "DisruptionAllowed";

/// Pods of a namespace, or a budget in it, changed.
pub fn reconcile(cx: &mut Cx, ns: &str) {
    let all: Vec<Value> = cx.list_in(BUDGETS, ns).into_iter().cloned().collect();
    for b in all {
        one(cx, ns, &b);
    }
}

/// How many pods the workloads behind these pods want.
fn expected(cx: &Cx, ns: &str, covered: &[Value]) -> i64 {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let mut total = 0;
    for p in covered {
        let Some(o) = arr(p, "/metadata/ownerReferences").iter().find(|o| o["controller"] == true) else {
            total += 1;
            continue;
        };
        let key = (s(o, "/kind"), s(o, "/name"));
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let resource = match key.0 {
            "ReplicaSet" => "replicasets.apps",
            "ReplicationController" => "replicationcontrollers",
            "StatefulSet" => "statefulsets.apps",
            _ => "",
        };
        let wanted = cx.get(resource, ns, key.1).and_then(|w| w["spec"]["replicas"].as_i64());
        let own = || {
            covered.iter().filter(|p| arr(p, "/metadata/ownerReferences").iter().any(|r| r["uid"] == o["uid"])).count()
                as i64
        };
        total += wanted.unwrap_or_else(own);
    }
    total
}

fn one(cx: &mut Cx, ns: &str, b: &Value) {
    let covered: Vec<Value> =
        cx.c.store
            .select("pods", ns, &b["spec"]["selector"])
            .into_iter()
            .filter(|p| pods::is_active(p))
            .cloned()
            .collect();
    let healthy = covered.iter().filter(|p| pods::is_ready(p)).count() as i64;
    let expected = expected(cx, ns, &covered);
    let desired = match (&b["spec"]["minAvailable"], &b["spec"]["maxUnavailable"]) {
        (Value::Null, Value::Null) => 0,
        (Value::Null, max) => expected - share(max, expected, true),
        (min, _) => share(min, expected, true),
    }
    .max(0);
    if covered.is_empty() && b["status"]["observedGeneration"] != b["metadata"]["generation"] {
        cx.event(b, true, "NoPods", "No matching pods found", "controllermanager");
    }
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let stamp = cx.stamp();
    cx.update(BUDGETS, ns, s(b, "/metadata/name"), |o| {
        let st = &mut o["status"];
        st["currentHealthy"] = json!(healthy);
        st["desiredHealthy"] = json!(desired);
        st["disruptionsAllowed"] = json!(allowed);
        st["expectedPods"] = json!(expected);
        o["status"]["observedGeneration"] = o["metadata"]["generation"].clone();
        let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        set_condition(o, &stamp, ALLOWED, value, reason, "");
        let generation = o["metadata"]["generation"].clone();
        for c in o["status"]["conditions"].as_array_mut().into_iter().flatten().filter(|c| c["type"] == ALLOWED) {
            c["message"] = json!("");
            c["observedGeneration"] = generation.clone();
        }
    });
}
