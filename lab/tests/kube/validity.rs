//! What the API server refuses, holds and hands out beside the everyday: types of Secrets, rules that do not compile,
//! claims in use, pods resized in place, tokens that others verify, windows of watches.
use std::time::Duration;

use gpuhost_lab::kube::bare;
use serde_json::{Value, json};

use crate::bed::{Answer, Bed};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";

/// Lets lab time pass.
pub async fn pass(bed: &Bed, seconds: u64) {
    let mark = bed.lab.clock().busy_guard();
    bed.lab.clock().sleep(Duration::from_secs(seconds)).await;
    drop(mark);
}

async fn until(bed: &Bed, path: &str, what: &str, f: impl Fn(&Answer) -> bool) -> Answer {
    for _ in 0..600 {
        let a = bed.get(path).await;
        if f(&a) {
            return a;
        }
        pass(bed, 1).await;
    }
    panic!("{path}: never {what}: {:#}", bed.get(path).await.body);
}

#[tokio::test]
async fn secrets_have_what_their_type_asks_for() {
    let bed = Bed::still().await;
    let make = |kind: &str, data: Value| json!({"metadata": {"name": "s"}, "type": kind, "stringData": data});
    for (kind, data, want) in [
        ("kubernetes.io/tls", json!({"tls.crt": "x"}), "data[tls.key]: Required value"),
        ("kubernetes.io/tls", json!({}), "[data[tls.crt]: Required value, data[tls.key]: Required value]"),
        ("kubernetes.io/dockerconfigjson", json!({}), "data[.dockerconfigjson]: Required value"),
        (
            "kubernetes.io/dockerconfigjson",
            json!({".dockerconfigjson": "x"}),
            "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid character 'x' looking for beginning of value",
        ),
        ("kubernetes.io/dockercfg", json!({}), "data[.dockercfg]: Required value"),
        ("kubernetes.io/basic-auth", json!({}), "[data[username]: Required value, data[password]: Required value]"),
        ("kubernetes.io/ssh-auth", json!({"ssh-privatekey": ""}), "data[ssh-privatekey]: Required value"),
        (
            "kubernetes.io/service-account-token",
            json!({}),
            "metadata.annotations[kubernetes.io/service-account.name]: Required value",
        ),
        ("Opaque", json!({"a b": "x"}), "data[a b]: Invalid value: \"a b\": a valid config key must consist of"),
    ] {
        let a = bed.post(SECRETS, make(kind, data)).await;
        assert_eq!(a.code, 422, "{kind}: {}", a.text);
        assert!(a.message().contains(want), "{kind}: {}", a.message());
    }
    for (kind, data) in [
        ("kubernetes.io/tls", json!({"tls.crt": "x", "tls.key": "y"})),
        ("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "{\"auths\":{}}"})),
        ("kubernetes.io/basic-auth", json!({"username": "u"})),
        ("ex.io/own", json!({})),
    ] {
        let mut o = make(kind, data);
        o["metadata"] = json!({"generateName": "s-"});
        let a = bed.post(SECRETS, o).await;
        assert_eq!(a.code, 201, "{kind}: {}", a.text);
    }
}

#[tokio::test]
async fn rules_that_do_not_compile_are_refused_with_the_definition() {
    let bed = Bed::still().await;
    let at = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = |rule: &str| {
        json!({"metadata": {"name": "things.ex.io"}, "spec": {"group": "ex.io", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "x-kubernetes-validations": [{"rule": rule}],
                    "properties": {"size": {"type": "integer"}}}}}}}]}})
    };
    let field = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    for (rule, want) in [
        ("self.sise > 1", "compilation failed: ERROR: <input>:1:5: undefined field 'sise'"),
        ("size > 1", "undeclared reference to 'size'"),
        ("self.size >", "compilation failed: ERROR: <input>:1:12: Syntax error"),
        ("self.size", "cel expression must evaluate to a bool"),
    ] {
        let a = bed.post(at, definition(rule)).await;
        assert_eq!(a.code, 422, "{rule}: {}", a.text);
        assert!(a.message().contains(&format!("{field}: Invalid value: ")), "{}", a.message());
        assert!(a.message().contains(want), "{rule}: {}", a.message());
    }
    let a = bed.post(at, definition("")).await;
    assert!(a.message().contains(&format!("{field}: Required value: rule is not specified")), "{}", a.message());
    assert_eq!(bed.post(at, definition("self.size > 1")).await.code, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_use_goes_with_its_last_pod() {
    let bed = Bed::running().await;
    bare::node(&bed.lab, &bed.cluster, "n1");
    let claim = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let made = bed.post(CLAIMS, claim("used")).await;
    assert_eq!(made.body["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let volume = json!({"metadata": {"name": "v1"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "hostPath": {"path": "/data"}}});
    let volume = bed.post("/api/v1/persistentvolumes", volume).await;
    assert_eq!(volume.body["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]), "{}", volume.text);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "used"}}]}});
    assert_eq!(bed.post(PODS, pod).await.code, 201);
    until(&bed, &format!("{PODS}/p"), "placed", |a| a.body["spec"]["nodeName"] == "n1").await;

    let gone = bed.delete(&format!("{CLAIMS}/used"), Value::Null).await;
    assert!(gone.body["metadata"]["deletionTimestamp"].is_string(), "{}", gone.text);
    pass(&bed, 120).await;
    assert_eq!(bed.get(&format!("{CLAIMS}/used")).await.code, 200, "the pod holds it");
    bed.delete(&format!("{PODS}/p"), Value::Null).await;
    until(&bed, &format!("{CLAIMS}/used"), "gone", |a| a.code == 404).await;
    // its volume is released now, and nothing holds that
    bed.delete("/api/v1/persistentvolumes/v1", Value::Null).await;
    until(&bed, "/api/v1/persistentvolumes/v1", "gone", |a| a.code == 404).await;

    // nobody uses this one
    bed.post(CLAIMS, claim("idle")).await;
    bed.delete(&format!("{CLAIMS}/idle"), Value::Null).await;
    until(&bed, &format!("{CLAIMS}/idle"), "gone", |a| a.code == 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_resized_in_place() {
    let bed = Bed::running().await;
    bare::node(&bed.lab, &bed.cluster, "n1");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx:1",
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}}]}});
    assert_eq!(bed.post(PODS, pod).await.code, 201);
    let was = until(&bed, &format!("{PODS}/p"), "running", |a| a.body["status"]["phase"] == "Running").await;
    let was = was.body["metadata"]["generation"].as_u64().unwrap();
    let of = |requests: Value, limits: Value| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}});
    let at = format!("{PODS}/p/resize");
    let a = bed.patch("strategic", &at, of(json!({"cpu": "200m"}), json!({"cpu": "2"}))).await;
    assert_eq!(a.code, 200, "{}", a.text);
    let (spec, status) = (&a.body["spec"]["containers"][0], &a.body["status"]["containerStatuses"][0]);
    assert_eq!((&spec["resources"]["requests"]["cpu"], &spec["image"]), (&json!("200m"), &json!("nginx:1")));
    assert_eq!(status["allocatedResources"], json!({"cpu": "200m", "memory": "64Mi"}));
    assert_eq!(status["resources"]["limits"]["cpu"], "2");
    assert_eq!(a.body["metadata"]["generation"], was + 1);

    // the main resource does not take it, the subresource takes nothing else
    let a = bed.patch("strategic", &format!("{PODS}/p"), of(json!({"cpu": "300m"}), json!({}))).await;
    assert_eq!(a.code, 422, "{}", a.text);
    let a = bed
        .patch("merge", &at, json!({"metadata": {"labels": {"x": "y"}}, "spec": {"activeDeadlineSeconds": 5}}))
        .await;
    assert_eq!((a.code, a.body["metadata"]["labels"].is_null()), (200, true), "{}", a.text);
    let a = bed.patch("strategic", &at, of(json!({"ephemeral-storage": "1Gi"}), json!({}))).await;
    assert!(a.message().contains("Forbidden: only cpu and memory resources are mutable"), "{}", a.text);
    let a = bed.patch("strategic", &at, of(json!({"cpu": "2", "memory": "128Mi"}), json!({}))).await;
    assert!(a.message().contains("Pod QOS Class may not change as a result of resizing"), "{}", a.text);
    let a = bed.patch("strategic", &at, of(json!({"cpu": "900"}), json!({"cpu": "1000"}))).await;
    let conditions = a.body["status"]["conditions"].as_array().unwrap();
    let pending = conditions.iter().find(|c| c["type"] == "PodResizePending").unwrap();
    assert_eq!((pending["status"].as_str(), pending["reason"].as_str()), (Some("True"), Some("Infeasible")));
    let found = bed.get("/api/v1").await;
    let resources = found.body["resources"].as_array().unwrap();
    assert!(resources.iter().any(|r| r["name"] == "pods/resize"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_can_be_verified_by_others() {
    let bed = Bed::still().await;
    let config = bed.get("/.well-known/openid-configuration").await;
    assert_eq!(config.body["issuer"], "https://kubernetes.default.svc.cluster.local", "{}", config.text);
    assert!(config.body["jwks_uri"].as_str().unwrap().ends_with(":6443/openid/v1/jwks"));
    let keys = bed.get("/openid/v1/jwks").await;
    assert_eq!(keys.body["keys"][0]["use"], "sig");
    let kid = keys.body["keys"][0]["kid"].as_str().unwrap();

    let at = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let ask = |spec: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let a = bed.post(at, ask(json!({"expirationSeconds": 60}))).await;
    assert_eq!(a.code, 422);
    assert!(a.message().contains("may not specify a duration less than 10 minutes"), "{}", a.message());
    let made = bed.post(at, ask(json!({"audiences": ["vault"], "expirationSeconds": 900}))).await;
    assert_eq!((made.code, &made.body["spec"]["audiences"]), (201, &json!(["vault"])), "{}", made.text);
    let token = made.body["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(token.split('.').count(), 3);
    let head = String::from_utf8(
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, token.split('.').next().unwrap())
            .unwrap(),
    )
    .unwrap();
    assert!(head.contains(kid), "{head}");
    let review = |audiences: Value| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences}})
    };
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let a = bed.post(reviews, review(json!(["vault", "other"]))).await;
    assert_eq!((&a.body["status"]["authenticated"], &a.body["status"]["audiences"]), (&json!(true), &json!(["vault"])));
    let a = bed.post(reviews, review(json!([]))).await;
    assert!(a.body["status"]["authenticated"].is_null(), "a token for somebody else: {}", a.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_before_the_window_is_told_so() {
    let bed = Bed::running().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let first = bed.config_map("a", json!({"n": "0"})).await;
    let rv = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    // more changes than the window holds, slower than it takes to be fresh
    for n in 1..=110 {
        bed.patch("merge", &format!("{maps}/a"), json!({"data": {"n": n.to_string()}})).await;
        pass(&bed, 80).await;
    }
    let w = bed.get(&format!("{maps}?watch=1&resourceVersion={rv}&timeoutSeconds=1")).await;
    let said: Value = serde_json::from_str(w.text.lines().next().unwrap()).unwrap();
    assert_eq!((said["type"].as_str(), said["object"]["code"].as_u64()), (Some("ERROR"), Some(410)), "{}", w.text);
    let text = said["object"]["message"].as_str().unwrap();
    assert!(text.starts_with(&format!("too old resource version: {rv} (")), "{text}");
    // what is named there is where a watch may begin
    let from = text.rsplit('(').next().unwrap().trim_end_matches(')');
    let w = bed.get(&format!("{maps}?watch=1&resourceVersion={from}&timeoutSeconds=1")).await;
    assert!(w.text.lines().count() >= 100 && !w.text.contains("ERROR"), "{}", w.text.lines().count());
    // resources that nothing happened to are remembered
    let w = bed.get(&format!("{SECRETS}?watch=1&resourceVersion={rv}&timeoutSeconds=1")).await;
    assert_eq!(w.text, "");
}

#[tokio::test]
async fn variables_declared_twice_are_warned_about() {
    let bed = Bed::still().await;
    let env = json!([{"name": "A", "value": "1"}, {"name": "B"}, {"name": "A", "value": "2"}]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "env": env}]}});
    let a = bed.post(PODS, pod).await;
    assert_eq!(a.code, 201, "{}", a.text);
    // who applies has to say it once
    let mut pod: Value = serde_json::from_value(a.body.clone()).unwrap();
    pod["metadata"] = json!({"name": "q"});
    let q = bed.patch("apply", &format!("{PODS}/q?fieldManager=me"), pod).await;
    let twice = ".spec.containers[name=\"c\"].env: duplicate entries for key [name=\"A\"]";
    assert!(q.code == 500 && q.message().contains(twice), "{}", q.text);
    let want =
        "spec.containers[0].env[2]: hides previous definition of \\\"A\\\", which may be dropped when using apply";
    assert!(a.warnings.iter().any(|w| w.contains(want)), "{:?}", a.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_fills_in_and_refuses() {
    let bed = Bed::still().await;
    let pod = |ns: &str, spec: Value| {
        let mut o = json!({"metadata": {"name": "p", "namespace": ns}, "spec": spec});
        if o["spec"]["containers"].is_null() {
            o["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
        }
        o
    };
    for (spec, want) in [
        (
            json!({"serviceAccountName": "no"}),
            "error looking up service account default/no: serviceaccount \"no\" not found",
        ),
        (json!({"priorityClassName": "no"}), "no PriorityClass with name no was found"),
        (json!({"runtimeClassName": "no"}), "pod rejected: RuntimeClass \"no\" not found"),
    ] {
        let a = bed.post(PODS, pod("default", spec)).await;
        assert_eq!((a.code, a.message()), (403, format!("pods \"p\" is forbidden: {want}").as_str()));
    }
    let a = bed.delete("/api/v1/namespaces/default", Value::Null).await;
    assert_eq!((a.code, a.message()), (403, "namespaces \"default\" is forbidden: this namespace may not be deleted"));

    let ns = json!({"metadata": {"name": "safe", "labels": {"pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "restricted"}}});
    assert_eq!(bed.post("/api/v1/namespaces", ns).await.code, 201);
    let at = "/api/v1/namespaces/safe/pods";
    let bad = json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}],
        "volumes": [{"name": "h", "hostPath": {"path": "/"}}]});
    let a = bed.post(at, pod("safe", bad)).await;
    let want = "violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true), privileged (container \"c\" must not set securityContext.privileged=true), hostPath volumes (volume \"h\")";
    assert_eq!((a.code, a.message()), (403, format!("pods \"p\" is forbidden: {want}").as_str()));
    let a = bed.post(at, pod("safe", json!({}))).await;
    assert_eq!(a.code, 201, "{}", a.text);
    let want = "would violate PodSecurity \\\"restricted:latest\\\": allowPrivilegeEscalation != false (container \\\"c\\\" must set securityContext.allowPrivilegeEscalation=false)";
    assert!(a.warnings.iter().any(|w| w.contains(want)), "{:?}", a.warnings);

    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"},
        "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "2"}}]}});
    assert_eq!(bed.post("/api/v1/namespaces/default/limitranges", range).await.code, 201);
    let a = bed.post(PODS, pod("default", json!({}))).await;
    assert_eq!(a.code, 201, "{}", a.text);
    let resources = &a.body["spec"]["containers"][0]["resources"];
    assert_eq!(*resources, json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}));
    assert_eq!(a.body["status"]["qosClass"], "Burstable");
    let much = json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "3"}}}]});
    let a = bed.post(PODS, pod("default", much)).await;
    let want = "maximum cpu usage per Container is 2, but limit is 3";
    assert_eq!((a.code, a.message()), (403, format!("pods \"p\" is forbidden: {want}").as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn approved_requests_are_signed() {
    let bed = Bed::still().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wanted = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    wanted.distinguished_name = rcgen::DistinguishedName::new();
    wanted.distinguished_name.push(rcgen::DnType::CommonName, "ada");
    let pem = wanted.serialize_request(&key).unwrap().pem().unwrap();
    let at = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let coded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    let request = |text: &str| {
        json!({"metadata": {"name": "ada"}, "spec": {"request": text, "usages": ["client auth"],
            "signerName": "kubernetes.io/kube-apiserver-client"}})
    };
    let a = bed.post(at, request("bm9wZQ==")).await;
    assert!(a.code == 422 && a.message().contains("PEM block type must be CERTIFICATE REQUEST"), "{}", a.text);
    let a = bed.post(at, request(&coded)).await;
    assert_eq!((a.code, &a.body["spec"]["username"]), (201, &json!("admin")), "{}", a.text);
    let mut o = a.body;
    o["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "KubectlApprove"}]});
    let a = bed.put(&format!("{at}/ada/approval"), o).await;
    assert_eq!(a.code, 200, "{}", a.text);
    let made = a.body["status"]["certificate"].as_str().unwrap();
    let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, made).unwrap();
    assert!(String::from_utf8(pem).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
}
