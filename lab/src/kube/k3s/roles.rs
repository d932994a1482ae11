//! The roles that every cluster has from birth. Grade: docs (the user-facing roles of Kubernetes).
use serde_json::{Value, json};

use super::super::cx::Cx;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

/// What `view` shows and `edit` changes, by group.
const USUAL: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "endpoints",
            "persistentvolumeclaims",
            "pods",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "serviceaccounts",
            "services",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
];

/// What is only looked at.
const SHOWN: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "bindings",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "persistentvolumeclaims/status",
            "pods/log",
            "pods/status",
            "resourcequotas",
            "resourcequotas/status",
            "services/status",
        ],
    ),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets/status",
            "deployments/status",
            "replicasets/status",
            "statefulsets/status",
        ],
    ),
    ("batch", &["cronjobs/status", "jobs/status"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("metrics.k8s.io", &["pods", "nodes"]),
];

fn rule((group, resources): &(&str, &[&str]), verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn view() -> Vec<Value> {
    USUAL.iter().chain(SHOWN).map(|r| rule(r, READ)).collect()
}

fn edit() -> Vec<Value> {
    let mut out = view();
    out.extend(USUAL.iter().map(|r| rule(r, WRITE)));
    out.push(json!({"apiGroups": [""], "resources": ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy",
        "secrets", "services/proxy"], "verbs": READ}));
    out.push(json!({"apiGroups": [""], "resources": ["pods/attach", "pods/eviction", "pods/exec", "pods/portforward",
        "pods/proxy", "secrets", "serviceaccounts/token", "services/proxy"], "verbs": WRITE}));
    out.push(json!({"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}));
    out
}

fn admin() -> Vec<Value> {
    let mut out = edit();
    let all: Vec<&str> = READ.iter().chain(WRITE).copied().collect();
    out.push(json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings", "roles"], "verbs": all}));
    out.push(json!({"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"],
        "verbs": ["create"]}));
    out
}

/// Makes the roles and the bindings that everybody has.
pub fn birth(cx: &mut Cx) {
    let everything =
        json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
    let discovery = json!([{"nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi",
        "/openapi/*", "/readyz", "/version", "/version/"], "verbs": ["get"]}]);
    let public =
        json!([{"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}]);
    let issuer = json!([{"nonResourceURLs": ["/.well-known/openid-configuration", "/.well-known/openid-configuration/",
        "/openid/v1/jwks", "/openid/v1/jwks/"], "verbs": ["get"]}]);
    let own = json!([
        {"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            "verbs": ["create"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
    ]);
    for (name, rules) in [
        ("cluster-admin", everything),
        ("admin", json!(admin())),
        ("edit", json!(edit())),
        ("view", json!(view())),
        ("system:basic-user", own),
        ("system:discovery", discovery),
        ("system:public-info-viewer", public),
        ("system:service-account-issuer-discovery", issuer),
    ] {
        cx.create(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": rules}));
    }
    for (name, group) in [
        ("cluster-admin", "system:masters"),
        ("system:basic-user", "system:authenticated"),
        ("system:discovery", "system:authenticated"),
        ("system:public-info-viewer", "system:authenticated"),
        ("system:service-account-issuer-discovery", "system:serviceaccounts"),
    ] {
        cx.create(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]}));
    }
}
