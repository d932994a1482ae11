//! Admission that users configure: policies with their bindings and parameters, webhooks that nobody answers.
use serde_json::{Value, json};

use crate::bed::{Answer, Bed};
use crate::refused::{CORE, refuses};

const ADM: &str = "/apis/admissionregistration.k8s.io/v1";
const APPS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn rule(group: &str, resource: &str, operations: &[&str]) -> Value {
    json!({"apiGroups": [group], "apiVersions": ["v1"], "operations": operations, "resources": [resource]})
}

fn policy(name: &str, of: Value, validations: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [of]}, "validations": validations}})
}

fn binding(name: &str, actions: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": actions}})
}

async fn bound(bed: &Bed, policy: Value, binding: Value) {
    for (kind, body) in [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)] {
        let a = bed.post(&format!("{ADM}/{kind}"), body).await;
        assert_eq!(a.code, 201, "{}", a.text);
    }
}

fn deployment(name: &str, replicas: u64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": {
        "metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1.27"}]}}}})
}

fn said(a: &Answer) -> (u16, &str, &str) {
    (a.code, a.body["reason"].as_str().unwrap_or_default(), a.message())
}

#[tokio::test]
async fn a_policy_refuses_what_it_is_bound_to() {
    let bed = Bed::still().await;
    let of = rule("apps", "deployments", &["CREATE", "UPDATE"]);
    let p = policy("few", of, json!([{"expression": "object.spec.replicas <= 5"}]));
    let a = bed.post(&format!("{ADM}/validatingadmissionpolicies"), p).await;
    let spec = &a.body["spec"];
    assert_eq!(
        (&spec["failurePolicy"], &spec["matchConstraints"]["matchPolicy"]),
        (&json!("Fail"), &json!("Equivalent"))
    );
    assert_eq!(spec["matchConstraints"]["namespaceSelector"], json!({}));
    assert_eq!(spec["matchConstraints"]["resourceRules"][0]["scope"], "*");
    let form = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let path = format!("{ADM}/validatingadmissionpolicies");
    let a = bed.send("GET", &path, "", Vec::new(), &[("accept", form)]).await;
    assert_eq!(a.body["rows"][0]["cells"], json!(["few", 1, "<unset>", "0s"]), "{}", a.text);
    // without a binding it says nothing
    assert_eq!(bed.post(APPS, deployment("unbound", 9)).await.code, 201);
    bed.post(&format!("{ADM}/validatingadmissionpolicybindings"), binding("few", &["Deny"])).await;
    let why = |name: &str| {
        format!(
            "deployments.apps \"{name}\" is forbidden: ValidatingAdmissionPolicy 'few' with binding 'few' denied request: failed expression: object.spec.replicas <= 5"
        )
    };
    let a = bed.post(APPS, deployment("many", 6)).await;
    assert_eq!(said(&a), (422, "Invalid", why("many").as_str()));
    assert_eq!(
        a.body["details"],
        json!({"name": "many", "group": "apps", "kind": "deployments",
            "causes": [{"message": why("many").split_once("forbidden: ").unwrap().1}]})
    );
    assert_eq!(bed.post(APPS, deployment("few", 5)).await.code, 201);
    let a = bed.patch("merge", &format!("{APPS}/few"), json!({"spec": {"replicas": 7}})).await;
    assert_eq!(said(&a), (422, "Invalid", why("few").as_str()));
    let mut applied = deployment("few", 8);
    applied["apiVersion"] = json!("apps/v1");
    applied["kind"] = json!("Deployment");
    let a = bed.patch("apply", &format!("{APPS}/few?fieldManager=x&force=true"), applied).await;
    assert_eq!(a.code, 422, "{}", a.text);
    // the scale is another resource
    let a = bed.patch("merge", &format!("{APPS}/few/scale"), json!({"spec": {"replicas": 8}})).await;
    assert_eq!(a.code, 200, "{}", a.text);
    assert_eq!(bed.delete(&format!("{APPS}/unbound"), Value::Null).await.code, 200);
}

#[tokio::test]
async fn messages_reasons_and_actions() {
    let bed = Bed::still().await;
    let of = rule("", "configmaps", &["*"]);
    let checks = json!([
        {"expression": "!has(object.data) || !has(object.data.secret)", "message": "no secrets here", "reason": "Forbidden"},
        {"expression": "variables.size < 3", "messageExpression": "'has ' + string(variables.size) + ' of ' + request.userInfo.username"},
    ]);
    let mut p = policy("maps", of, checks);
    p["spec"]["matchConditions"] = json!([{"name": "made", "expression": "request.operation != 'DELETE'"}]);
    p["spec"]["variables"] = json!([{"name": "size", "expression": "object.?data.orValue({}).size()"}]);
    bound(&bed, p, binding("maps", &["Deny"])).await;
    let path = format!("{CORE}/configmaps");
    let denied = |name: &str, why: &str| {
        format!(
            "configmaps \"{name}\" is forbidden: ValidatingAdmissionPolicy 'maps' with binding 'maps' denied request: {why}"
        )
    };
    let a = bed.post(&path, json!({"metadata": {"name": "a"}, "data": {"secret": "x"}})).await;
    assert_eq!(said(&a), (403, "Forbidden", denied("a", "no secrets here").as_str()));
    let three = json!({"metadata": {"generateName": "b-"}, "data": {"a": "1", "b": "2", "c": "3"}});
    let a = bed.post(&path, three).await;
    assert_eq!((a.code, a.message().ends_with("denied request: has 3 of admin")), (422, true), "{}", a.text);
    // a binding that warns lets through
    let b = json!({"spec": {"validationActions": ["Warn", "Audit"]}});
    bed.patch("merge", &format!("{ADM}/validatingadmissionpolicybindings/maps"), b).await;
    let a = bed.post(&path, json!({"metadata": {"name": "a"}, "data": {"secret": "x"}})).await;
    assert_eq!(a.code, 201, "{}", a.text);
    assert_eq!(
        a.warnings,
        ["299 - \"Validation failed for ValidatingAdmissionPolicy 'maps' with binding 'maps': no secrets here\""]
    );
    assert_eq!(bed.delete(&format!("{path}/a"), Value::Null).await.code, 200);
}

#[tokio::test]
async fn namespaces_parameters_and_failures() {
    let bed = Bed::still().await;
    bed.post("/api/v1/namespaces", json!({"metadata": {"name": "team", "labels": {"tier": "prod"}}})).await;
    let mut p = policy(
        "limit",
        rule("apps", "deployments", &["CREATE"]),
        json!([{"expression": "object.spec.replicas <= int(params.data.most)", "message": "too many"},
            {"expression": "namespaceObject.metadata.labels.tier == 'prod'"}]),
    );
    p["spec"]["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let mut b = binding("limit", &["Deny"]);
    b["spec"]["paramRef"] = json!({"name": "most", "parameterNotFoundAction": "Deny"});
    b["spec"]["matchResources"] = json!({"namespaceSelector": {"matchLabels": {"tier": "prod"}}});
    bound(&bed, p, b).await;
    let team = "/apis/apps/v1/namespaces/team/deployments";
    let a = bed.post(team, deployment("a", 1)).await;
    assert!(
        a.code == 422
            && a.message().ends_with("denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{}",
        a.text
    );
    let most = |n: &str| json!({"metadata": {"name": "most"}, "data": {"most": n}});
    bed.post("/api/v1/namespaces/team/configmaps", most("2")).await;
    assert_eq!(bed.post(team, deployment("a", 2)).await.code, 201);
    let a = bed.post(team, deployment("b", 3)).await;
    assert!(a.message().ends_with("denied request: too many"), "{}", a.text);
    assert_eq!(bed.post(APPS, deployment("b", 3)).await.code, 201, "another namespace");
    // an expression that fails refuses, unless the policy says otherwise
    let of = rule("", "secrets", &["CREATE"]);
    bound(&bed, policy("odd", of, json!([{"expression": "object.data.none == 'x'"}])), binding("odd", &["Deny"])).await;
    let secret = |name: &str| json!({"metadata": {"name": name}, "data": {"a": "eA=="}});
    let a = bed.post(&format!("{CORE}/secrets"), secret("s")).await;
    assert!(
        a.message()
            .ends_with("denied request: expression 'object.data.none == 'x'' resulted in error: no such key: none"),
        "{}",
        a.text
    );
    let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
    bed.patch("merge", &format!("{ADM}/validatingadmissionpolicies/odd"), ignore).await;
    assert_eq!(bed.post(&format!("{CORE}/secrets"), secret("s")).await.code, 201);
}

#[tokio::test]
async fn what_makes_them_invalid() {
    let bed = Bed::still().await;
    let good = policy("p", rule("apps", "deployments", &["CREATE"]), json!([{"expression": "true"}]));
    let table: &[(Value, &[&str])] = &[
        (json!({"spec": {"matchConstraints": null}}), &["spec.matchConstraints: Required value"]),
        (
            json!({"spec": {"validations": []}}),
            &[
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ],
        ),
        (
            json!({"spec": {"validations": [{"expression": "objekt.x == 1"}]}}),
            &[
                "spec.validations[0].expression: Invalid value: \"objekt.x == 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'objekt' (in container '')\n | objekt.x == 1\n | ^",
            ],
        ),
        (
            json!({"spec": {"validations": [{"expression": "true", "reason": "Odd"}]}}),
            &[
                "spec.validations[0].reason: Unsupported value: \"Odd\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
            ],
        ),
    ];
    refuses(&bed, &format!("{ADM}/validatingadmissionpolicies"), &good, table).await;
    let table: &[(Value, &[&str])] = &[
        (
            json!({"spec": {"validationActions": []}}),
            &["spec.validationActions: Required value: at least one validation action is required"],
        ),
        (json!({"spec": {"paramRef": {"name": "x"}}}), &["spec.paramRef.parameterNotFoundAction: Required value"]),
    ];
    refuses(&bed, &format!("{ADM}/validatingadmissionpolicybindings"), &binding("p", &["Deny"]), table).await;
    let table: &[(Value, &[&str])] = &[(
        json!({"webhooks": [{"name": "x", "clientConfig": {}, "sideEffects": "Some", "admissionReviewVersions": ["v1"]}]}),
        &[
            "webhooks[0].name: Invalid value: \"x\": should be a domain with at least three segments separated by dots",
            "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
        ],
    )];
    let hooks = json!({"metadata": {"name": "h"}, "webhooks": []});
    refuses(&bed, &format!("{ADM}/validatingwebhookconfigurations"), &hooks, table).await;
}

#[tokio::test]
async fn webhooks_that_nobody_answers() {
    let bed = Bed::still().await;
    let hook = |policy: &str, config: Value| {
        json!({"metadata": {"name": "h"}, "webhooks": [{"name": "check.wire.example", "failurePolicy": policy, "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": config, "rules": [rule("", "configmaps", &["CREATE"])]}]})
    };
    let service = json!({"service": {"name": "hook", "namespace": "default", "path": "/check"}});
    let path = format!("{ADM}/validatingwebhookconfigurations");
    let a = bed.post(&path, hook("Fail", service)).await;
    assert_eq!((a.code, &a.body["webhooks"][0]["timeoutSeconds"]), (201, &json!(10)), "{}", a.text);
    let map = |name: &str| json!({"metadata": {"name": name}});
    let a = bed.post(&format!("{CORE}/configmaps"), map("a")).await;
    let why = "failed calling webhook \"check.wire.example\": failed to call webhook: Post \"https://hook.default.svc:443/check?timeout=10s\": service \"hook\" not found";
    assert_eq!(said(&a), (500, "InternalError", format!("Internal error occurred: {why}").as_str()));
    assert_eq!(a.body["details"], json!({"causes": [{"message": why}]}));
    bed.post(&format!("{CORE}/services"), json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}}))
        .await;
    let a = bed.post(&format!("{CORE}/configmaps"), map("a")).await;
    assert!(a.message().ends_with("no endpoints available for service \"hook\""), "{}", a.text);
    assert_eq!(bed.delete(&format!("{path}/h"), Value::Null).await.code, 200, "configurations are exempt");
    bed.post(&path, hook("Ignore", json!({"url": "https://nowhere.example/x"}))).await;
    assert_eq!(bed.post(&format!("{CORE}/configmaps"), map("a")).await.code, 201);
}
