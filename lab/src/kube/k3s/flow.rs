//! Priority and fairness: the FlowSchemas and priority levels that every API server makes. Grade: source (the bootstrap
//! configuration of k8s.io/apiserver); requests are not queued here.
use serde_json::{Value, json};

use super::super::cx::Cx;

const API: &str = "flowcontrol.apiserver.k8s.io/v1";

/// Name, shares, what of them others may borrow (percent); queues, hand, length. Without queues it refuses.
type Level = (&'static str, u64, u64, Option<(u64, u64, u64)>);

const LEVELS: &[Level] = &[
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
    ("global-default", 20, 50, Some((128, 6, 50))),
];

fn all_of(subjects: &Value) -> Value {
    json!([{"subjects": subjects,
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}])
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn system_account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": "kube-system"}})
}

fn rule(verbs: &[&str], group: &str, resources: &[&str], namespaces: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": namespaces})
}

/// Name, level, precedence, what tells flows apart, rules.
type Schema = (&'static str, &'static str, u64, &'static str, Value);

fn schemas() -> Vec<Schema> {
    let lead = ["get", "create", "update"];
    let electors = json!([user("system:kube-controller-manager"), user("system:kube-scheduler"), system_account("*")]);
    let leases = rule(&lead, "coordination.k8s.io", &["leases"], &["*"]);
    let health = ["/healthz", "/readyz", "/livez"];
    let everybody = json!([group("system:unauthenticated"), group("system:authenticated")]);
    let nodes = json!([group("system:nodes")]);
    let node_rules = json!([{"subjects": nodes, "resourceRules": [
        {"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "clusterScope": true, "namespaces": ["*"]},
        rule(&["*"], "coordination.k8s.io", &["leases"], &["*"])]}]);
    let endpoints = json!([{"subjects": [user("system:kube-controller-manager"), system_account("endpoint-controller"),
            system_account("endpointslicemirroring-controller")],
        "resourceRules": [rule(&["get", "create", "update"], "", &["endpoints"], &["*"]),
            rule(&["list", "watch"], "", &["services", "pods", "endpoints"], &["*"])]}]);
    let election = |who: Value, place: &str| json!([{"subjects": who, "resourceRules": [rule(&lead, "", &["endpoints", "configmaps"], &[place]), leases]}]);
    vec![
        ("exempt", "exempt", 1, "", all_of(&json!([group("system:masters")]))),
        (
            "probes",
            "exempt",
            2,
            "",
            json!([{"subjects": everybody,
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": health}]}]),
        ),
        ("system-leader-election", "leader-election", 100, "ByUser", election(electors, "kube-system")),
        ("endpoint-controller", "workload-high", 150, "ByUser", endpoints),
        ("workload-leader-election", "leader-election", 200, "ByUser", election(json!([system_account("*")]), "*")),
        ("system-node-high", "node-high", 400, "ByUser", node_rules),
        ("system-nodes", "system", 500, "ByUser", all_of(&nodes)),
        (
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            all_of(&json!([user("system:kube-controller-manager")])),
        ),
        ("kube-scheduler", "workload-high", 800, "ByNamespace", all_of(&json!([user("system:kube-scheduler")]))),
        ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", all_of(&json!([system_account("*")]))),
        ("service-accounts", "workload-low", 9000, "ByUser", all_of(&json!([group("system:serviceaccounts")]))),
        ("global-default", "global-default", 9900, "ByUser", all_of(&everybody)),
        ("catch-all", "catch-all", 10_000, "ByUser", all_of(&everybody)),
    ]
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}})
}

/// Makes them.
pub fn birth(cx: &mut Cx) {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let limited = LEVELS.iter().map(|(name, shares, lent, queues)| {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand, length)) => json!({"type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}),
        };
        (
            *name,
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lent,
            "limitResponse": response}}),
        )
    });
    let levels: Vec<(&str, Value)> = std::iter::once(("exempt", exempt)).chain(limited).collect();
    for (name, spec) in levels {
        cx.create(json!({"apiVersion": API, "kind": "PriorityLevelConfiguration", "metadata": metadata(name),
            "spec": spec, "status": {}}));
    }
    for (name, level, precedence, how, rules) in schemas() {
        let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
            "rules": rules});
        if !how.is_empty() {
            spec["distinguisherMethod"] = json!({"type": how});
        }
        let found =
            format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists");
        let stamp = cx.stamp();
        cx.create(json!({"apiVersion": API, "kind": "FlowSchema", "metadata": metadata(name), "spec": spec,
            "status": {"conditions": [{"type": "Dangling", "status": "False", "reason": "Found", "message": found,
                "lastTransitionTime": stamp}]}}));
    }
}
