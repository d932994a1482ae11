//! Who may do what: grants beyond one's own rights, roles that gather others, tokens that Secrets keep.
use serde_json::{Value, json};

use crate::bed::{Answer, Bed};
use crate::refused::CORE;
use crate::validity::pass;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn by(bed: &Bed, user: &str, method: &str, path: &str, body: Value) -> Answer {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    bed.send(method, path, "application/json", body, &[("impersonate-user", user)]).await
}

fn role(name: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": verbs}]})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": user}]})
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let bed = Bed::still().await;
    let (roles, bindings) =
        (format!("{RBAC}/namespaces/default/roles"), format!("{RBAC}/namespaces/default/rolebindings"));
    let maker = json!({"metadata": {"name": "maker"}, "rules": [
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create", "get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]});
    assert_eq!(bed.post(&roles, maker).await.code, 201);
    assert_eq!(bed.post(&bindings, binding("maker", "Role", "maker", "ada")).await.code, 201);
    assert_eq!(by(&bed, "ada", "POST", &roles, role("own", "pods", &["get"])).await.code, 201);
    let a = by(&bed, "ada", "POST", &roles, role("more", "secrets", &["list", "get"])).await;
    let why = "user \"ada\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"list\" \"get\"]}";
    assert_eq!(
        (a.code, a.message()),
        (403, format!("roles.rbac.authorization.k8s.io \"more\" is forbidden: {why}").as_str())
    );
    let a = by(&bed, "ada", "POST", &bindings, binding("all", "ClusterRole", "nope", "eve")).await;
    assert_eq!((a.code, a.message()), (404, "clusterroles.rbac.authorization.k8s.io \"nope\" not found"));
    bed.post(&format!("{RBAC}/clusterroles"), role("keeper", "secrets", &["get"])).await;
    let keeper = binding("keeper", "ClusterRole", "keeper", "eve");
    let a = by(&bed, "ada", "POST", &bindings, keeper.clone()).await;
    assert!(
        a.code == 403 && a.message().ends_with("{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"),
        "{}",
        a.text
    );
    let bind = json!([{"op": "add", "path": "/rules/-", "value": {"apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["clusterroles"], "resourceNames": ["keeper"], "verbs": ["bind"]}}]);
    bed.patch("json", &format!("{roles}/maker"), bind).await;
    assert_eq!(by(&bed, "ada", "POST", &bindings, keeper).await.code, 201, "who may bind a role need not hold it");
}

#[tokio::test]
async fn refusals_name_what_is_missing() {
    let bed = Bed::still().await;
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    bed.post(&bindings, binding("lost", "ClusterRole", "gone", "ada")).await;
    let a = by(&bed, "ada", "GET", &format!("{CORE}/pods"), Value::Null).await;
    assert_eq!(
        a.message(),
        "pods is forbidden: User \"ada\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\": RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found"
    );
    for (path, why) in [
        ("/metrics", "forbidden: User \"ada\" cannot get path \"/metrics\""),
        ("/nowhere", "forbidden: User \"ada\" cannot get path \"/nowhere\""),
        (
            "/apis/none.example/v1/things",
            "things.none.example is forbidden: User \"ada\" cannot list resource \"things\" in API group \"none.example\" at the cluster scope",
        ),
    ] {
        let a = by(&bed, "ada", "GET", path, Value::Null).await;
        assert_eq!((a.code, a.message()), (403, why), "{path}");
    }
}

#[tokio::test]
async fn roles_gather_the_rules_of_others() {
    let bed = Bed::running().await;
    let gather = json!({"metadata": {"name": "all"}, "rules": [],
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]}});
    bed.post(&format!("{RBAC}/clusterroles"), gather).await;
    let mut part = role("part", "pods", &["get"]);
    part["metadata"]["labels"] = json!({"part": "yes"});
    bed.post(&format!("{RBAC}/clusterroles"), part.clone()).await;
    pass(&bed, 1).await;
    let a = bed.get(&format!("{RBAC}/clusterroles/all")).await;
    assert_eq!(a.body["rules"], part["rules"]);
    bed.delete(&format!("{RBAC}/clusterroles/part"), Value::Null).await;
    pass(&bed, 1).await;
    assert_eq!(bed.get(&format!("{RBAC}/clusterroles/all")).await.body["rules"], json!([]));
}

#[tokio::test]
async fn secrets_keep_tokens() {
    let bed = Bed::running().await;
    bed.post(&format!("{CORE}/serviceaccounts"), json!({"metadata": {"name": "robot"}})).await;
    let secret = |name: &str, account: &str| {
        json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
            "type": "kubernetes.io/service-account-token"})
    };
    bed.post(&format!("{CORE}/secrets"), secret("token", "robot")).await;
    pass(&bed, 1).await;
    let a = bed.get(&format!("{CORE}/secrets/token")).await;
    let token = gpuhost_lab::kube::text::unb64(a.body["data"]["token"].as_str().unwrap()).unwrap();
    let token = String::from_utf8(token).unwrap();
    assert_eq!(a.body["data"]["namespace"], "ZGVmYXVsdA==");
    let review = |token: &str| json!({"spec": {"token": token}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let a = bed.post(reviews, review(&token)).await;
    assert_eq!(a.body["status"]["user"]["username"], "system:serviceaccount:default:robot", "{}", a.text);
    bed.delete(&format!("{CORE}/secrets/token"), Value::Null).await;
    let a = bed.post(reviews, review(&token)).await;
    assert_eq!(a.body["status"]["error"], "invalid bearer token");
    // a Secret for nobody does not stay
    bed.post(&format!("{CORE}/secrets"), secret("none", "nobody")).await;
    pass(&bed, 1).await;
    assert_eq!(bed.get(&format!("{CORE}/secrets/none")).await.code, 404);
}
