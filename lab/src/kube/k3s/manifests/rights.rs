//! What K3s' own controllers may do.
use serde_json::{Value, json};

use super::{binding, reader, role, rule};

const CLOUD: &str = "k3s-cloud-controller-manager";
const CONTROLLER: &str = "system:k3s-controller";
const CIDRS: &str = "clustercidrs-node";

/// The cloud controller, which gives nodes their addresses and Services their load balancers.
pub(super) fn cloud_controller() -> Vec<Value> {
    let user = json!({"kind": "User", "name": CLOUD, "namespace": "kube-system"});
    let look = ["get", "list", "watch"];
    let rules = json!([
        rule(&["coordination.k8s.io"], &["leases"], &["get", "create", "update"]),
        rule(&[""], &["events"], &["create", "patch", "update"]),
        rule(&[""], &["nodes"], &["*"]),
        rule(&[""], &["nodes/status", "services/status"], &["patch"]),
        rule(&[""], &["services", "pods"], &look),
        rule(&[""], &["services"], &["patch", "update"]),
        rule(&[""], &["serviceaccounts"], &["create", "get"]),
        rule(&[""], &["namespaces"], &["create", "get"]),
        rule(&["apps"], &["daemonsets"], &["*"]),
        rule(&["discovery.k8s.io"], &["endpointslices"], &look),
    ]);
    vec![
        role(CLOUD, rules),
        binding(CLOUD, CLOUD, user.clone()),
        binding(&format!("{CLOUD}-auth-delegator"), "system:auth-delegator", user.clone()),
        reader(&format!("{CLOUD}-authentication-reader"), user),
    ]
}

/// The API server's way to kubelets, and what agents look at.
pub(super) fn bindings() -> Vec<Value> {
    let rbac = "rbac.authorization.k8s.io";
    let user = |name: &str| json!({"apiGroup": rbac, "kind": "User", "name": name});
    let networks = "networking.k8s.io";
    let rules = json!([
        rule(&[""], &["nodes"], &["get", "list", "watch"]),
        rule(&[""], &["nodes/status"], &["patch"]),
        rule(&[""], &["namespaces"], &["list", "watch"]),
        rule(&[networks], &["networkpolicies", "clustercidrs"], &["list", "watch"]),
        rule(&[""], &["endpoints", "pods"], &["list", "get", "watch"]),
        rule(&["discovery.k8s.io"], &["endpointslices"], &["list", "get", "watch"]),
    ]);
    vec![
        binding("kube-apiserver-kubelet-admin", "system:kubelet-api-admin", user("kube-apiserver")),
        role(CONTROLLER, rules),
        binding(CONTROLLER, CONTROLLER, user(CONTROLLER)),
        role(CIDRS, json!([rule(&[networks], &["clustercidrs"], &["list", "watch"])])),
        binding(CIDRS, CIDRS, json!({"kind": "Group", "name": "system:nodes", "apiGroup": rbac})),
    ]
}
