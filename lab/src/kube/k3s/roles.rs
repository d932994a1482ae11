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

/// What `edit` has beside `view`.
fn changes() -> Vec<Value> {
    let mut out: Vec<Value> = USUAL.iter().map(|r| rule(r, WRITE)).collect();
    out.push(json!({"apiGroups": [""], "resources": ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy",
        "secrets", "services/proxy"], "verbs": READ}));
    out.push(json!({"apiGroups": [""], "resources": ["pods/attach", "pods/eviction", "pods/exec", "pods/portforward",
        "pods/proxy", "secrets", "serviceaccounts/token", "services/proxy"], "verbs": WRITE}));
    out.push(json!({"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}));
    out
}

fn edit() -> Vec<Value> {
    changes().into_iter().chain(view()).collect()
}

/// What `admin` has beside `edit`.
fn rights() -> Vec<Value> {
    let all: Vec<&str> = READ.iter().chain(WRITE).copied().collect();
    vec![
        json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings", "roles"], "verbs": all}),
        json!({"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]}),
    ]
}

fn admin() -> Vec<Value> {
    edit().into_iter().chain(rights()).collect()
}

/// Metadata of what the server makes itself; `gathered`: the role that has the rules of this one too.
fn own(name: &str, gathered: &str) -> Value {
    let mut out = json!({"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}});
    if !gathered.is_empty() {
        out["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{gathered}")] = json!("true");
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
    let everything =
        json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]);
    let discovery = json!([{"nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi",
        "/openapi/*", "/readyz", "/version", "/version/"], "verbs": ["get"]}]);
    let public =
        json!([{"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}]);
    let issuer = json!([{"nonResourceURLs": ["/.well-known/openid-configuration", "/.well-known/openid-configuration/",
        "/openid/v1/jwks", "/openid/v1/jwks/"], "verbs": ["get"]}]);
    let oneself = json!([
        {"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            "verbs": ["create"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
    ]);
    for (name, rules) in [
        ("cluster-admin", everything),
        ("system:basic-user", oneself),
        ("system:discovery", discovery),
        ("system:public-info-viewer", public),
        ("system:service-account-issuer-discovery", issuer),
    ] {
        cx.create(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": own(name, ""), "rules": rules}));
    }
    // the roles of people gather the rules that are labelled for them
    for (name, whole, part, next) in
        [("view", view(), view(), "edit"), ("edit", edit(), changes(), "admin"), ("admin", admin(), rights(), "")]
    {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
        cx.create(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": own(&format!("system:aggregate-to-{name}"), name), "rules": part}));
        cx.create(
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": own(name, next),
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}, "rules": whole}),
        );
    }
    for (name, group) in [
        ("cluster-admin", "system:masters"),
        ("system:basic-user", "system:authenticated"),
        ("system:discovery", "system:authenticated"),
        ("system:public-info-viewer", "system:authenticated"),
        ("system:service-account-issuer-discovery", "system:serviceaccounts"),
    ] {
        cx.create(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": own(name, ""),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]}));
    }
}
