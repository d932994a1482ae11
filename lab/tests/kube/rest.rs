//! What the API machinery answers beside the recording: options, decoding, patches, lists, watches, deletes.
use serde_json::{Value, json};

use crate::bed::Bed;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn cause(a: &crate::bed::Answer) -> &str {
    a.body["details"]["causes"][0]["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn options_that_are_not_valid_are_named() {
    let bed = Bed::still().await;
    let map = json!({"metadata": {"name": "a"}});
    let a = bed.post(&format!("{MAPS}?dryRun=bad"), map.clone()).await;
    assert_eq!((a.code, cause(&a)), (422, r#"Unsupported value: ["bad"]: supported values: "All""#));
    assert!(a.message().starts_with("CreateOptions.meta.k8s.io \"\" is invalid: dryRun: "), "{}", a.text);
    let a = bed.post(&format!("{MAPS}?fieldValidation=Loose"), map.clone()).await;
    assert_eq!(
        a.message(),
        "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Loose\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
    );
    let a = bed.patch("apply", &format!("{MAPS}/a"), map.clone()).await;
    assert_eq!((a.code, cause(&a)), (422, "Required value: is required for apply patch"));
    let a = bed.patch("merge", &format!("{MAPS}/a?force=true"), map).await;
    assert_eq!((a.code, cause(&a)), (422, "Forbidden: may not be specified for non-apply patch"));
    let a = bed.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await;
    assert_eq!(
        (a.code, cause(&a)),
        (422, "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")
    );
    let a = bed.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await;
    assert_eq!(
        (a.code, cause(&a)),
        (422, "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    );
    let a = bed.delete(&format!("{MAPS}/a"), json!({"propagationPolicy": "Gone"})).await;
    assert_eq!(a.code, 422);
    assert!(cause(&a).ends_with(r#"supported values: "Foreground", "Background", "Orphan", "nil""#), "{}", a.text);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let bed = Bed::still().await;
    assert_eq!(bed.post(&format!("{MAPS}?dryRun=All"), json!({"metadata": {"name": "a"}})).await.code, 201);
    assert_eq!(bed.get(&format!("{MAPS}/a")).await.code, 404);
    bed.config_map("a", json!({"k": "1"})).await;
    let a = bed.patch("merge", &format!("{MAPS}/a?dryRun=All"), json!({"data": {"k": "2"}})).await;
    assert_eq!((a.code, &a.body["data"]["k"]), (200, &json!("2")));
    assert_eq!(bed.delete(&format!("{MAPS}/a?dryRun=All"), Value::Null).await.code, 200);
    assert_eq!(bed.get(&format!("{MAPS}/a")).await.body["data"]["k"], "1");
    let apps = "/apis/apps/v1/namespaces/default/deployments";
    let pod = json!({"containers": [{"name": "c", "image": "nginx"}]});
    let d = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}});
    assert_eq!(bed.post(apps, d).await.code, 201);
    let a = bed.patch("merge", &format!("{apps}/d/scale?dryRun=All"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!((a.code, &a.body["spec"]["replicas"]), (200, &json!(5)), "{}", a.text);
    assert_eq!(bed.get(&format!("{apps}/d")).await.body["spec"]["replicas"], 1);
    let pods = "/api/v1/namespaces/default/pods";
    let p = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    assert_eq!(bed.post(pods, p).await.code, 201);
    let eviction = json!({"metadata": {"name": "p"}, "deleteOptions": {"dryRun": ["All"]}});
    assert_eq!(bed.post(&format!("{pods}/p/eviction"), eviction).await.code, 201);
    assert_eq!(bed.get(&format!("{pods}/p")).await.code, 200);
}

#[tokio::test]
async fn bodies_are_read_as_go_reads_them() {
    let bed = Bed::still().await;
    let json = "application/json";
    for (body, code, text) in [
        (
            "{",
            400,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({)",
        ),
        (
            r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#,
            400,
            "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
        ),
        (
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"}}"#,
            400,
            "the API version in the data (apps/v1) does not match the expected API version (v1)",
        ),
        (
            r#"{"metadata":{"name":"a"},"data":{"k":1}}"#,
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            r#"{"metadata":{}}"#,
            422,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            r#"{"metadata":{"name":"a","namespace":"other"}}"#,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            r#"{"metadata":{"name":"a","resourceVersion":"7"}}"#,
            500,
            "resourceVersion should not be set on objects to be created",
        ),
    ] {
        let a = bed.send("POST", MAPS, json, body.into(), &[]).await;
        assert_eq!((a.code, a.message()), (code, text), "{body}");
    }
    let a = bed.send("POST", MAPS, "text/plain", b"{}".to_vec(), &[]).await;
    assert_eq!((a.code, &a.body["reason"]), (415, &json!("UnsupportedMediaType")));
    let a = bed.send("GET", MAPS, "", Vec::new(), &[("accept", "text/html")]).await;
    assert_eq!(a.code, 406);
    let a = bed
        .send(
            "POST",
            &format!("{MAPS}?fieldValidation=Warn"),
            json,
            br#"{"metadata":{"name":"w"},"dta":{},"data":{"a":"1","a":"2"}}"#.to_vec(),
            &[],
        )
        .await;
    assert_eq!(a.warnings, ["299 - \"duplicate field \\\"data.a\\\"\"", "299 - \"unknown field \\\"dta\\\"\""]);
    assert_eq!((a.code, &a.body["data"]["a"], a.body.get("dta")), (201, &json!("2"), None));
}

#[tokio::test]
async fn an_update_names_the_object_it_means() {
    let bed = Bed::still().await;
    let old = bed.config_map("a", json!({"k": "1"})).await;
    let put = |body: Value| {
        let bed = bed.clone();
        async move { bed.put(&format!("{MAPS}/a"), body).await }
    };
    let a = put(json!({"metadata": {"name": "b"}})).await;
    assert_eq!((a.code, a.message()), (400, "the name of the object (b) does not match the name on the URL (a)"));
    let a = put(json!({"metadata": {}})).await;
    assert_eq!(a.message(), "the name of the object (a based on URL) was undeterminable: name must be provided");
    let a = put(json!({"metadata": {"name": "a", "uid": "x"}})).await;
    assert_eq!((a.code, &a.body["reason"]), (409, &json!("Conflict")));
    assert_eq!(bed.put(&format!("{MAPS}/zz"), json!({"metadata": {"name": "zz"}})).await.code, 404);
    let same = put(old.clone()).await;
    assert_eq!(
        same.body["metadata"]["resourceVersion"], old["metadata"]["resourceVersion"],
        "a no-op keeps its version"
    );
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    bed.post(lease, json!({"metadata": {"name": "l"}})).await;
    let a = bed.put(&format!("{lease}/l"), json!({"metadata": {"name": "l"}})).await;
    assert_eq!(
        (a.code, a.message()),
        (
            422,
            "leases.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        )
    );
}

#[tokio::test]
async fn patches_are_checked_like_any_body() {
    let bed = Bed::still().await;
    bed.config_map("a", json!({"k": "1"})).await;
    let at = format!("{MAPS}/a");
    let a = bed.patch("merge", &format!("{at}?fieldValidation=Strict"), json!({"zzz": 1})).await;
    assert_eq!((a.code, &a.body["reason"]), (422, &json!("Invalid")));
    assert!(
        a.message().starts_with(" \"\" is invalid: patch: Invalid value: ")
            && a.message().ends_with("strict decoding error: unknown field \"zzz\""),
        "{}",
        a.text
    );
    let a = bed.patch("strategic", &format!("{at}?fieldValidation=Strict"), json!({"zzz": 1})).await;
    assert!(a.message().contains("Invalid value: \"map[zzz:1]\""), "{}", a.text);
    let a = bed.patch("merge", &at, json!({"zzz": 1})).await;
    assert_eq!((a.code, a.warnings.as_slice()), (200, &["299 - \"unknown field \\\"zzz\\\"\"".to_owned()][..]));
    assert!(a.body.get("zzz").is_none());
    let a = bed.patch("merge", &at, json!({"metadata": {"name": "b"}})).await;
    assert_eq!((a.code, a.message()), (400, "the name of the object (b) does not match the name on the URL (a)"));
    let a = bed.patch("json", &at, json!([{"op": "test", "path": "/data/k", "value": "2"}])).await;
    assert_eq!(
        (a.code, a.message(), &a.body["details"]),
        (422, "the server rejected our request due to an error in our request", &json!({}))
    );
    let a = bed.patch("json", &at, json!({"op": "add"})).await;
    assert_eq!(
        (a.code, a.message()),
        (400, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp")
    );
    let a = bed.send("PATCH", &at, "application/json", b"{}".to_vec(), &[]).await;
    assert_eq!((a.code, a.message()), (415, "415: Unsupported Media Type"));
    let a = bed
        .patch(
            "apply",
            &format!("{at}?fieldManager=m"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": [{}]}}),
        )
        .await;
    assert_eq!((a.code, a.message()), (400, "metadata.managedFields must be nil"));
    let a = bed
        .patch("apply", &format!("{at}?fieldManager=m"), json!({"apiVersion": "v1", "kind": "ConfigMap", "dta": {}}))
        .await;
    assert_eq!(
        (a.code, a.message()),
        (500, "failed to create typed patch object (/; /v1, Kind=ConfigMap): .dta: field not declared in schema")
    );
}

#[tokio::test]
async fn pages_show_one_moment() {
    let bed = Bed::still().await;
    for n in ["a", "b", "c", "d"] {
        bed.config_map(n, json!({"k": "1"})).await;
    }
    let all = bed.get(MAPS).await;
    let count = all.body["items"].as_array().unwrap().len();
    let first = bed.get(&format!("{MAPS}?limit=2")).await;
    let token = first.body["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(first.body["metadata"]["remainingItemCount"], count - 2);
    bed.delete(&format!("{MAPS}/d"), Value::Null).await;
    bed.patch("merge", &format!("{MAPS}/c"), json!({"data": {"k": "2"}})).await;
    let second = bed.get(&format!("{MAPS}?limit=100&continue={token}")).await;
    assert_eq!(second.body["metadata"]["resourceVersion"], first.body["metadata"]["resourceVersion"]);
    assert_eq!(second.body["items"].as_array().unwrap().len(), count - 2, "the deleted one is still there");
    let c = second.body["items"].as_array().unwrap().iter().find(|o| o["metadata"]["name"] == "c").unwrap().clone();
    assert_eq!(c["data"]["k"], "1");
    let a = bed.get(&format!("{MAPS}?limit=1&continue=%21%21")).await;
    assert_eq!(
        (a.code, a.message()),
        (400, "invalid continue token: continue key is not valid: illegal base64 data at input byte 0")
    );
    let rv = all.body["metadata"]["resourceVersion"].as_str().unwrap();
    let past = bed.get(&format!("{MAPS}?resourceVersion={rv}&resourceVersionMatch=Exact")).await;
    assert_eq!(past.body["items"], all.body["items"]);
    let a = bed.get(&format!("{MAPS}?resourceVersion=99999")).await;
    assert_eq!(
        (a.code, &a.body["reason"], &a.body["details"]["retryAfterSeconds"]),
        (504, &json!("Timeout"), &json!(1))
    );
    let a = bed.get(&format!("{MAPS}?resourceVersion=abc")).await;
    assert_eq!(
        (a.code, a.message()),
        (
            400,
            "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax"
        )
    );
}

#[tokio::test]
async fn watches_resume_and_end() {
    let bed = Bed::still().await;
    let a = bed.config_map("a", json!({"k": "1"})).await;
    let rv = a["metadata"]["resourceVersion"].as_str().unwrap();
    bed.patch("merge", &format!("{MAPS}/a"), json!({"data": {"k": "2"}})).await;
    bed.delete(&format!("{MAPS}/a"), Value::Null).await;
    let lines = |text: &str| -> Vec<Value> { text.lines().map(|l| serde_json::from_str(l).unwrap()).collect() };
    let w = bed.get(&format!("{MAPS}?watch=1&resourceVersion={rv}&timeoutSeconds=1")).await;
    let types: Vec<String> = lines(&w.text).iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types, ["MODIFIED", "DELETED"]);
    let w = bed.get(&format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&labelSelector=x")).await;
    assert_eq!(lines(&w.text)[0]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let w = bed.get(&format!("{MAPS}?watch=1&resourceVersion=zz")).await;
    assert_eq!(w.code, 500);
}

#[tokio::test]
async fn finalizers_hold_and_owners_take_their_dependents() {
    let bed = Bed::still().await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/x"]}});
    bed.post(MAPS, held).await;
    let a = bed.delete(&format!("{MAPS}/held"), Value::Null).await;
    assert!(a.body["metadata"]["deletionTimestamp"].is_string());
    let a = bed
        .patch(
            "merge",
            &format!("{MAPS}/held"),
            json!({"metadata": {"finalizers": ["example.com/x", "example.com/y"]}}),
        )
        .await;
    assert_eq!(a.code, 422);
    assert!(cause(&a).starts_with("Forbidden: no new finalizers can be added if the object is being deleted"));
    bed.patch("merge", &format!("{MAPS}/held"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(bed.get(&format!("{MAPS}/held")).await.code, 404);
    for (policy, stays) in [("Background", false), ("Foreground", false), ("Orphan", true)] {
        let owner = bed.config_map("owner", json!({})).await;
        let reference =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
        bed.post(MAPS, json!({"metadata": {"name": "kid", "ownerReferences": reference}})).await;
        bed.delete(&format!("{MAPS}/owner"), json!({"propagationPolicy": policy})).await;
        assert_eq!(bed.get(&format!("{MAPS}/owner")).await.code, 404, "{policy}");
        let kid = bed.get(&format!("{MAPS}/kid")).await;
        assert_eq!(kid.code == 200, stays, "{policy}");
        bed.delete(&format!("{MAPS}/kid"), Value::Null).await;
    }
    bed.config_map("p", json!({})).await;
    let a = bed.delete(&format!("{MAPS}/p"), json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!((a.code, &a.body["reason"]), (409, &json!("Conflict")));
    let a = bed.delete(&format!("{MAPS}/p"), Value::Null).await;
    assert_eq!((&a.body["status"], a.body["details"].get("group")), (&json!("Success"), None));
}

#[tokio::test]
async fn unknown_places_and_methods() {
    let bed = Bed::still().await;
    let a = bed.get("/apis/apps/v1/namespaces/default/nothings").await;
    assert_eq!((a.code, a.message()), (404, "the server could not find the requested resource"));
    let a = bed.post(&format!("{MAPS}/a"), json!({})).await;
    assert_eq!((a.code, a.message()), (405, "the server does not allow this method on the requested resource"));
    let a = bed.get("/api/v1/namespaces/default/pods/none").await;
    assert_eq!(
        (a.code, a.message(), &a.body["details"]),
        (404, "pods \"none\" not found", &json!({"name": "none", "kind": "pods"}))
    );
    let a = bed.get("/api/v1/namespaces/default/secrets?fieldSelector=spec.x%3D1").await;
    assert_eq!((a.code, a.message()), (400, "field label not supported: spec.x"));
}
