//! What the API machinery and its controllers do beside the everyday: rules of custom schemas, stuck namespaces, owners by
//! labels, refused pods, combined events, tokens and people one speaks for.
use gpuhost_lab::kube::bare;
use serde_json::{Value, json};

use crate::bed::{Answer, Bed};

const APPS: &str = "/apis/apps/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Lets lab time run until `f` holds of the object at `path`.
async fn until(bed: &Bed, path: &str, what: &str, f: impl Fn(&Answer) -> bool) -> Answer {
    for _ in 0..600 {
        let a = bed.get(path).await;
        if f(&a) {
            return a;
        }
        let mark = bed.lab.clock().busy_guard();
        bed.lab.clock().sleep(std::time::Duration::from_secs(1)).await;
        drop(mark);
    }
    panic!("{path}: never {what}: {:#}", bed.get(path).await.body);
}

fn items(a: &Answer) -> &Vec<Value> {
    a.body["items"].as_array().unwrap()
}

fn widgets(spec: Value) -> Value {
    json!({"metadata": {"name": "widgets.ex.io"}, "spec": {"group": "ex.io", "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_objects_obey_limits_and_rules() {
    let bed = Bed::still().await;
    let spec = json!({"type": "object", "required": ["size"],
        "x-kubernetes-validations": [
            {"rule": "self.size <= self.most", "message": "size must not exceed most"},
            {"rule": "!has(oldSelf.fixed) || self.fixed == oldSelf.fixed", "messageExpression": "'fixed was ' + oldSelf.fixed"}],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 9},
            "most": {"type": "integer", "default": 5},
            "fixed": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
            "tags": {"type": "array", "maxItems": 2, "items": {"type": "string"},
                "x-kubernetes-validations": [{"rule": "self.all(t, t.startsWith('x'))"}]}}});
    assert_eq!(bed.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", widgets(spec)).await.code, 201);
    let at = "/apis/ex.io/v1/namespaces/default/widgets";
    let make =
        |spec: Value| json!({"apiVersion": "ex.io/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec});
    for (spec, want) in [
        (json!({}), "spec.size: Required value"),
        (json!({"size": 10}), "spec.size in body should be less than or equal to 9"),
        (json!({"size": 1, "fixed": "a"}), "spec.fixed in body should be at least 2 chars long"),
        (json!({"size": 1, "fixed": "abcde"}), "spec.fixed: Too long: may not be more than 4 bytes"),
        (json!({"size": 1, "fixed": "A1"}), "spec.fixed in body should match '^[a-z]+$'"),
        (json!({"size": 1, "tags": ["xa", "xb", "xc"]}), "spec.tags: Too many: 3: must have at most 2 items"),
        (json!({"size": 1, "tags": ["a"]}), "spec.tags: Invalid value: failed rule: self.all(t, t.startsWith('x'))"),
        (json!({"size": 6}), "spec: Invalid value: size must not exceed most"),
    ] {
        let a = bed.post(at, make(spec.clone())).await;
        assert_eq!(a.code, 422, "{spec}: {}", a.text);
        assert!(a.message().contains(want), "{spec}: {}", a.message());
    }
    let made = bed.post(at, make(json!({"size": 3, "fixed": "ab", "tags": ["x"]}))).await;
    assert_eq!((made.code, &made.body["spec"]["most"]), (201, &json!(5)), "{}", made.text);
    let one = format!("{at}/w");
    let a = bed.patch("merge", &one, json!({"spec": {"fixed": "cd"}})).await;
    assert_eq!((a.code, a.message()), (422, "Widget.ex.io \"w\" is invalid: spec: Invalid value: fixed was ab"));
    assert_eq!(bed.patch("merge", &one, json!({"spec": {"size": 4}})).await.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_says_what_keeps_it_and_can_be_forced() {
    let bed = Bed::running().await;
    for (space, held) in [("stuck", true), ("forced", true), ("empty", false)] {
        assert_eq!(bed.post("/api/v1/namespaces", json!({"metadata": {"name": space}})).await.code, 201);
        let holders = if held { json!(["example.com/hold"]) } else { json!([]) };
        let map = json!({"metadata": {"name": "m", "finalizers": holders}});
        assert_eq!(bed.post(&format!("/api/v1/namespaces/{space}/configmaps"), map).await.code, 201);
        bed.delete(&format!("/api/v1/namespaces/{space}"), Value::Null).await;
    }
    until(&bed, "/api/v1/namespaces/empty", "gone", |a| a.code == 404).await;
    let told = |a: &Answer, kind: &str| {
        let list = a.body["status"]["conditions"].as_array().into_iter().flatten();
        list.clone().find(|c| c["type"] == kind).cloned().unwrap_or_default()
    };
    let at = "/api/v1/namespaces/stuck";
    let a = until(&bed, at, "told", |a| told(a, "NamespaceFinalizersRemaining")["status"] == "True").await;
    assert_eq!(a.body["status"]["phase"], "Terminating");
    assert_eq!(
        told(&a, "NamespaceContentRemaining")["message"],
        "Some resources are remaining: configmaps. has 1 resource instances"
    );
    assert_eq!(
        told(&a, "NamespaceFinalizersRemaining")["message"],
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
    );
    // The object lets go: the namespace follows.
    let free = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    assert_eq!(bed.patch("json", &format!("{at}/configmaps/m"), free).await.code, 200);
    until(&bed, at, "gone", |a| a.code == 404).await;
    // By its finalize subresource it goes whatever is left; an ordinary update leaves the control plane's hold on.
    let at = "/api/v1/namespaces/forced";
    let mut ns = bed.get(at).await.body;
    ns["spec"]["finalizers"] = json!([]);
    // the namespace's controller may write its conditions in between
    ns["metadata"]["resourceVersion"] = json!("");
    assert_eq!(bed.put(at, ns.clone()).await.body["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(bed.put(&format!("{at}/finalize"), ns).await.code, 200);
    assert_eq!(bed.get(at).await.code, 404);
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_own_pods_by_their_labels() {
    let bed = Bed::running().await;
    bare::node(&bed.lab, &bed.cluster, "n0");
    bed.post(&format!("{APPS}/deployments"), deployment("web", 2)).await;
    let at = format!("{APPS}/deployments/web");
    until(&bed, &at, "available", |a| a.body["status"]["availableReplicas"] == 2).await;
    let first = items(&bed.get(PODS).await)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let one = format!("{PODS}/{first}");
    // A pod that leaves the selector is let go, and another takes its place.
    bed.patch("merge", &one, json!({"metadata": {"labels": {"app": "apart"}}})).await;
    let a = until(&bed, &format!("{PODS}?labelSelector=app%3Dweb"), "two again", |a| items(a).len() == 2).await;
    assert!(items(&a).iter().all(|p| p["metadata"]["name"] != first.as_str()));
    let a = until(&bed, &one, "let go", |a| a.body["metadata"]["ownerReferences"].is_null()).await;
    assert_eq!(a.body["metadata"]["labels"]["app"], "apart");
    // Back again it is one too many.
    bed.patch("merge", &one, json!({"metadata": {"labels": {"app": "web"}}})).await;
    until(&bed, &format!("{PODS}?labelSelector=app%3Dweb"), "two again", |a| items(a).len() == 2).await;
    // What an orphaning deletion leaves belongs to the next Deployment of that selector.
    let before = bed.get(&format!("{APPS}/replicasets")).await;
    bed.delete(&at, json!({"propagationPolicy": "Orphan"})).await;
    until(&bed, &at, "gone", |a| a.code == 404).await;
    bed.post(&format!("{APPS}/deployments"), deployment("web", 2)).await;
    until(&bed, &at, "available", |a| a.body["status"]["availableReplicas"] == 2).await;
    let after = bed.get(&format!("{APPS}/replicasets")).await;
    assert_eq!(items(&after).len(), 1);
    assert_eq!(items(&after)[0]["metadata"]["uid"], items(&before)[0]["metadata"]["uid"]);
    assert_eq!(items(&after)[0]["metadata"]["ownerReferences"][0]["name"], "web");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_pods_are_told_where_one_looks() {
    let bed = Bed::running().await;
    bare::node(&bed.lab, &bed.cluster, "n0");
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}});
    assert_eq!(bed.post("/api/v1/namespaces/default/resourcequotas", quota).await.code, 201);
    bed.post(&format!("{APPS}/deployments"), deployment("web", 3)).await;
    let at = format!("{APPS}/deployments/web");
    let failing = |a: &Answer| {
        let list = a.body["status"]["conditions"].as_array().into_iter().flatten();
        list.clone().find(|c| c["type"] == "ReplicaFailure").cloned()
    };
    let a = until(&bed, &at, "refused", |a| failing(a).is_some()).await;
    let c = failing(&a).unwrap();
    let text = c["message"].as_str().unwrap();
    assert!(
        c["reason"] == "FailedCreate"
            && text.contains("exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1"),
        "{c}"
    );
    let job = json!({"metadata": {"name": "job"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "nginx:1"}]}}}});
    bed.post("/apis/batch/v1/namespaces/default/jobs", job).await;
    let events = "/api/v1/namespaces/default/events?fieldSelector=reason%3DFailedCreate";
    let a = until(&bed, events, "both told", |a| {
        ["ReplicaSet", "Job"].iter().all(|k| items(a).iter().any(|e| e["involvedObject"]["kind"] == *k))
    })
    .await;
    assert!(
        items(&a).iter().all(|e| e["message"].as_str().unwrap().starts_with("Error creating: pods \"")),
        "{}",
        a.text
    );
    // Room again: the set goes on by itself.
    let more = json!({"spec": {"hard": {"pods": "9"}}});
    assert_eq!(bed.patch("merge", "/api/v1/namespaces/default/resourcequotas/small", more).await.code, 200);
    let a = until(&bed, &at, "available", |a| a.body["status"]["availableReplicas"] == 3).await;
    assert!(failing(&a).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_like_events_become_one() {
    let bed = Bed::running().await;
    bare::node(&bed.lab, &bed.cluster, "n0");
    bed.post(&format!("{APPS}/deployments"), deployment("web", 30)).await;
    until(&bed, &format!("{APPS}/deployments/web"), "available", |a| a.body["status"]["availableReplicas"] == 30).await;
    let a = bed.get("/api/v1/namespaces/default/events?fieldSelector=reason%3DSuccessfulCreate").await;
    let (one, many): (Vec<&Value>, Vec<&Value>) =
        items(&a).iter().partition(|e| !e["message"].as_str().unwrap().starts_with("(combined from similar events): "));
    assert_eq!((one.len(), many.len(), &many[0]["count"]), (9, 1, &json!(21)));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_reviewed_and_people_spoken_for() {
    let bed = Bed::still().await;
    let a = bed.post("/api/v1/namespaces/default/serviceaccounts/default/token", json!({})).await;
    let token = a.body["status"]["token"].as_str().unwrap().to_owned();
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let ask = |token: &str| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let a = bed.post(reviews, ask(&token)).await;
    assert_eq!((a.code, &a.body["status"]["authenticated"]), (201, &json!(true)), "{}", a.text);
    assert_eq!(a.body["status"]["user"]["username"], "system:serviceaccount:default:default");
    // by its own number
    let number = &a.body["status"]["user"]["extra"]["authentication.kubernetes.io/credential-id"];
    assert!(number[0].as_str().is_some_and(|n| n.starts_with("JTI=") && n.len() == 40), "{}", a.text);
    let a = bed.post(reviews, ask("nonsense")).await;
    assert!(a.body["status"]["authenticated"].is_null() && a.body["status"]["error"].is_string(), "{}", a.text);

    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string().into_bytes();
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let headers = [("Impersonate-User", "ada"), ("Impersonate-Group", "staff")];
    let a = bed.send("POST", path, "application/json", body.clone(), &headers).await;
    assert_eq!(a.body["status"]["userInfo"], json!({"username": "ada", "groups": ["staff", "system:authenticated"]}));
    let more = [headers[0], ("Impersonate-Extra-Scopes", "view"), ("Impersonate-Extra-a%2Fb", "c")];
    let a = bed.send("POST", path, "application/json", body.clone(), &more).await;
    assert_eq!(a.body["status"]["userInfo"]["extra"], json!({"a/b": ["c"], "scopes": ["view"]}), "{}", a.text);
    // Whoever is spoken for has no more rights than their own.
    let a = bed.send("GET", PODS, "", Vec::new(), &headers).await;
    assert_eq!(a.code, 403);
    assert!(a.message().contains("User \"ada\" cannot list resource \"pods\" in API group \"\""), "{}", a.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_document_describes_every_kind() {
    let bed = Bed::still().await;
    let a = bed.get("/openapi/v2").await;
    assert_eq!((a.code, &a.body["swagger"]), (200, &json!("2.0")));
    let definitions = a.body["definitions"].as_object().unwrap();
    let pod = &definitions["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    assert!(a.body["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"].is_object());
    // Every reference leads somewhere.
    let text = a.text.as_str();
    for part in text.split("\"#/definitions/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(definitions.contains_key(name), "{name}");
    }
    let proto = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let a = bed.send("GET", "/openapi/v2", "", Vec::new(), &[("accept", proto)]).await;
    assert_eq!(
        (a.code, a.headers["content-type"].as_str()),
        (200, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
    );
    let other = bed.send("GET", "/openapi/v2", "", Vec::new(), &[("accept", "text/html")]).await;
    assert_eq!(other.code, 406);
    // A kind without a status has no such place.
    bed.config_map("plain", json!({})).await;
    assert_eq!(bed.get("/api/v1/namespaces/default/configmaps/plain/status").await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_kinds_obey_their_rules() {
    let bed = Bed::still().await;
    let core = "/api/v1/namespaces/default";
    let pod = |c: Value| {
        let mut c = c;
        c["name"] = c.get("name").cloned().unwrap_or(json!("c"));
        c["image"] = json!("nginx");
        json!({"metadata": {"name": "p"}, "spec": {"containers": [c]}})
    };
    let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "x", "jobTemplate": {"spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "nginx"}]}}}}}});
    let crd = |schema: Value| {
        json!({"metadata": {"name": "xs.ex.io"}, "spec": {"group": "ex.io", "scope": "Namespaced",
        "names": {"plural": "xs", "kind": "X"}, "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
    };
    let pods = format!("{core}/pods");
    let services = format!("{core}/services");
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned();
    for (path, body, want) in [
        (
            &pods,
            pod(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            &pods,
            pod(json!({"resources": {"requests": {"nvidia.com/gpu": "1"}}})),
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            &pods,
            pod(json!({"resources": {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "2"}}})),
            "must be equal to nvidia.com/gpu limit of 2",
        ),
        (
            &pods,
            pod(json!({"ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            &pods,
            pod(json!({"imagePullPolicy": "Now"})),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Now\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (&pods, pod(json!({"name": "C"})), "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label"),
        (&pods, pod(json!({"env": [{"name": "", "value": "1"}]})), "spec.containers[0].env[0].name: Required value"),
        (
            &services,
            json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}}),
            "provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            &services,
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}, {"port": 81}]}}),
            "spec.ports[0].name: Required value",
        ),
        (
            &"/apis/batch/v1/namespaces/default/cronjobs".to_owned(),
            cron,
            "spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]",
        ),
        (
            &"/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers".to_owned(),
            json!({"metadata": {"name": "h"}, "spec": {"minReplicas": 5, "maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "w"}}}),
            "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`",
        ),
        (
            &"/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles".to_owned(),
            json!({"metadata": {"name": "r"}, "rules": [{"verbs": [], "apiGroups": [""], "resources": ["pods"]}]}),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (&crds, crd(Value::Null), "spec.versions[0].schema.openAPIV3Schema: Required value"),
        (
            &crds,
            crd(json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {}}}})),
            "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
    ] {
        let a = bed.post(path, body.clone()).await;
        assert_eq!(a.code, 422, "{body}: {}", a.text);
        assert!(a.message().contains(want), "{body}: {}", a.message());
    }
}
