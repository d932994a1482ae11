//! Groups that show the same objects in two ways, what every API server has from birth, forms and headers of answers,
//! and the finer points of lists, watches, updates and deletes.
use gpuhost_lab::kube::bare;
use serde_json::{Value, json};

use crate::bed::Bed;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const OLD: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[tokio::test]
async fn events_are_the_same_in_both_groups() {
    let bed = Bed::still().await;
    let of = json!({"kind": "Pod", "name": "p", "namespace": "default", "apiVersion": "v1"});
    let old = json!({"metadata": {"name": "a"}, "involvedObject": of, "reason": "Tested", "message": "said", "type": "Normal", "count": 2,
        "source": {"component": "c"}, "firstTimestamp": "2026-11-23T03:21:21Z", "lastTimestamp": "2026-11-23T03:21:21Z"});
    let made = bed.post(OLD, old).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let shown = bed.get(&format!("{NEW}/a")).await.body;
    assert_eq!((&shown["apiVersion"], &shown["kind"]), (&json!("events.k8s.io/v1"), &json!("Event")));
    assert_eq!((&shown["regarding"], &shown["note"], &shown["deprecatedCount"]), (&of, &json!("said"), &json!(2)));
    assert_eq!(shown["deprecatedSource"], json!({"component": "c"}));
    assert_eq!(shown["deprecatedFirstTimestamp"], "2026-11-23T03:21:21Z");
    assert!(["involvedObject", "message", "source"].iter().all(|f| shown.get(*f).is_none()), "{shown}");
    assert_eq!(shown["metadata"]["uid"], made.body["metadata"]["uid"]);

    let new = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "b"}, "regarding": of, "reason": "Tested",
        "note": "told", "type": "Warning", "eventTime": "2026-11-23T03:21:21.000000Z", "reportingController": "ex.io/c",
        "reportingInstance": "c-1", "action": "Testing"});
    let a = bed.post(NEW, new.clone()).await;
    assert_eq!((a.code, &a.body["note"]), (201, &json!("told")), "{}", a.text);
    let kept = bed.get(&format!("{OLD}/b")).await.body;
    assert_eq!((&kept["message"], &kept["reportingComponent"]), (&json!("told"), &json!("ex.io/c")), "{kept}");
    let all = bed.get(&format!("{NEW}?fieldSelector=regarding.name%3Dp,type%3DWarning")).await.body;
    assert_eq!((&all["kind"], &all["apiVersion"]), (&json!("EventList"), &json!("events.k8s.io/v1")));
    assert_eq!((all["items"].as_array().unwrap().len(), &all["items"][0]["note"]), (1, &json!("told")), "{all}");
    let a = bed.get(&format!("{NEW}?fieldSelector=spec.x%3Dp")).await;
    assert_eq!((a.code, a.message()), (400, "field label not supported: spec.x"));
    let w = bed.get(&format!("{NEW}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Db")).await;
    assert_eq!(lines(&w.text)[0]["object"]["note"], "told", "{}", w.text);
    let a = bed.patch("merge", &format!("{NEW}/b"), json!({"note": "changed"})).await;
    assert_eq!(
        (a.code, a.message()),
        (422, "Event \"b\" is invalid: message: Invalid value: \"changed\": field is immutable")
    );
    let a = bed.patch("json", &format!("{NEW}/b"), json!([{"op": "replace", "path": "/note", "value": "again"}])).await;
    assert_eq!((a.code, a.body["details"]["causes"][0]["field"].as_str()), (422, Some("message")), "{}", a.text);
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-11-23T03:22:21.000000Z"}});
    let a = bed.patch("merge", &format!("{NEW}/b"), series).await;
    assert_eq!((a.code, &a.body["series"]["count"], &a.body["note"]), (200, &json!(2), &json!("told")), "{}", a.text);

    // the newer group is stricter
    let mut bad = new;
    bad["metadata"]["name"] = json!("c");
    bad["eventTime"] = Value::Null;
    bad["deprecatedCount"] = json!(1);
    let a = bed.post(NEW, bad).await;
    let causes: Vec<&str> =
        a.body["details"]["causes"].as_array().unwrap().iter().map(|c| c["field"].as_str().unwrap()).collect();
    assert_eq!((a.code, causes), (422, vec!["eventTime", "count"]), "{}", a.text);
    let a = bed
        .post(
            OLD,
            json!({"metadata": {"name": "d"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "other"}}),
        )
        .await;
    assert_eq!(
        a.message(),
        "Event \"d\" is invalid: involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"
    );
    let a = bed.delete(&format!("{NEW}/b"), Value::Null).await;
    assert_eq!((a.code, bed.get(&format!("{OLD}/b")).await.code), (200, 404), "{}", a.text);
    let found = bed.get("/apis/events.k8s.io/v1").await;
    assert_eq!(found.body["resources"][0]["kind"], "Event", "{}", found.text);
}

#[tokio::test]
async fn every_cluster_has_flow_schemas() {
    let bed = Bed::still().await;
    let at = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let all = bed.get(&format!("{at}/flowschemas")).await;
    assert_eq!(all.body["items"].as_array().unwrap().len(), 13, "{}", all.text);
    let one = bed.get(&format!("{at}/flowschemas/exempt")).await.body;
    assert_eq!(
        (&one["spec"]["matchingPrecedence"], &one["spec"]["rules"][0]["subjects"][0]["group"]["name"]),
        (&json!(1), &json!("system:masters"))
    );
    let level = bed.get(&format!("{at}/prioritylevelconfigurations/workload-low")).await.body;
    assert_eq!(
        level["spec"]["limited"]["limitResponse"]["queuing"],
        json!({"queues": 128, "handSize": 6, "queueLengthLimit": 50})
    );
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let rows =
        bed.send("GET", &format!("{at}/prioritylevelconfigurations"), "", Vec::new(), &[("accept", table)]).await.body;
    let row = rows["rows"].as_array().unwrap().iter().find(|r| r["cells"][0] == "system").unwrap().clone();
    assert_eq!(
        row["cells"].as_array().unwrap()[..6],
        [json!("system"), json!("Limited"), json!("30"), json!("64"), json!("6"), json!("50")]
    );
    // answers say which of them a request fell under
    let exempt = bed.get(&format!("{at}/prioritylevelconfigurations/exempt")).await;
    assert_eq!(exempt.headers["x-kubernetes-pf-flowschema-uid"], one["metadata"]["uid"].as_str().unwrap());
    assert_eq!(exempt.headers["x-kubernetes-pf-prioritylevel-uid"], exempt.body["metadata"]["uid"].as_str().unwrap());
}

#[tokio::test]
async fn kinds_on_their_way_out_are_warned_of() {
    let bed = Bed::still().await;
    let a = bed.get("/api/v1/componentstatuses").await;
    assert_eq!(a.warnings, ["299 - \"v1 ComponentStatus is deprecated in v1.19+\""]);
    let names: Vec<&str> =
        a.body["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["controller-manager", "scheduler", "etcd-0"]);
    let one = bed.get("/api/v1/componentstatuses/scheduler").await.body;
    assert_eq!(one["conditions"], json!([{"type": "Healthy", "status": "True", "message": "ok"}]));
    assert_eq!(bed.get("/api/v1/componentstatuses/none").await.message(), "componentstatus \"none\" not found");
    assert_eq!(bed.post("/api/v1/componentstatuses", json!({"metadata": {"name": "x"}})).await.code, 405);
    let a = bed.get("/api/v1/namespaces/default/endpoints").await;
    assert_eq!(a.warnings, ["299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""]);
    assert!(bed.get(MAPS).await.warnings.is_empty());
}

#[tokio::test]
async fn answers_have_the_form_that_is_asked_for() {
    let bed = Bed::still().await;
    bed.config_map("a", json!({"k": "1"})).await;
    let one = format!("{MAPS}/a");
    let get = |path: &str, accept: &'static str| {
        let (bed, path) = (bed.clone(), path.to_owned());
        async move { bed.send("GET", &path, "", Vec::new(), &[("accept", accept)]).await }
    };
    let part = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let parts = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    assert_eq!(get(&one, part).await.body["kind"], "PartialObjectMetadata");
    assert_eq!(get(MAPS, parts).await.body["kind"], "PartialObjectMetadataList");
    let a = get(MAPS, part).await;
    assert_eq!(
        (a.code, a.message()),
        (406, "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)")
    );
    let a = get(&one, parts).await;
    assert_eq!(
        (a.code, a.message()),
        (406, "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)")
    );
    // what is not spoken is passed over; weights count
    let a =
        get(&one, "application/vnd.kubernetes.protobuf, application/json;as=Odd;v=v1;g=meta.k8s.io, application/json")
            .await;
    assert_eq!((a.code, &a.body["kind"]), (200, &json!("ConfigMap")));
    let a = get(&one, "application/json;q=0.5, application/yaml").await;
    assert_eq!(a.headers["content-type"], "application/yaml");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let a = get(&format!("{one}?includeObject=Odd"), table).await;
    assert_eq!(
        (a.code, a.message()),
        (
            400,
            "Unable to convert to Table as requested: includeObject: Invalid value: \"Odd\": must be 'Metadata', 'Object', 'None', or empty"
        )
    );
    let body = json!({"metadata": {"name": "b"}}).to_string().into_bytes();
    let a = bed.send("POST", MAPS, "application/json", body.clone(), &[("accept", part)]).await;
    assert_eq!((a.code, &a.body["kind"]), (201, &json!("PartialObjectMetadata")), "{}", a.text);
    let a = bed.send("POST", MAPS, "application/json", body, &[("accept", "text/html")]).await;
    assert_eq!(a.code, 406);
    let a = get(&format!("{MAPS}?watch=1"), "application/yaml").await;
    assert!(
        a.code == 406
            && a.message().ends_with("application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch")
    );

    assert!(bed.get(&format!("{one}?pretty=true")).await.text.starts_with("{\n  \""), "indented");
    let a = bed.send("GET", &one, "", Vec::new(), &[("user-agent", "curl/8")]).await;
    assert!(a.text.starts_with("{\n"), "{}", a.text);
    let a = bed.get(&one).await;
    assert!(a.text.starts_with("{\"") && a.text.ends_with("}\n"), "{}", a.text);
    assert_eq!((a.headers["cache-control"].as_str(), a.headers["audit-id"].len()), ("no-cache, private", 36));
    let a = bed.send("GET", &one, "", Vec::new(), &[("audit-id", "mine")]).await;
    assert_eq!(a.headers["audit-id"], "mine");
    let a = bed.get(&format!("{MAPS}?resourceVersion=99999")).await;
    assert_eq!(a.headers["retry-after"], "1");
    let a = bed.send("POST", MAPS, "application/json", vec![b' '; 3 * 1024 * 1024 + 1], &[]).await;
    assert_eq!((a.code, a.message()), (413, "Request entity too large: limit is 3145728"));
}

#[tokio::test]
async fn watches_begin_where_they_are_told() {
    let bed = Bed::still().await;
    let a = bed.config_map("a", json!({"k": "1"})).await;
    let rv = a["metadata"]["resourceVersion"].as_str().unwrap();
    bed.config_map("b", json!({"k": "1"})).await;
    let one = "fieldSelector=metadata.name%3Da&timeoutSeconds=1";
    let initial = "resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let types =
        |text: &str| -> Vec<String> { lines(text).iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect() };
    // any text but `false` and `0` is true
    let w = bed.get(&format!("{MAPS}?watch=yes&{one}")).await;
    assert_eq!(types(&w.text), ["ADDED"], "{}", w.text);
    assert_eq!(bed.get(&format!("{MAPS}?watch=false&{one}")).await.body["kind"], "ConfigMapList");
    // one object by its name is read, not watched
    assert_eq!(bed.get(&format!("{MAPS}/a?watch=true")).await.body["kind"], "ConfigMap");
    let w = bed.get(&format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersion={rv}&{initial}&{one}")).await;
    assert_eq!(types(&w.text), ["ADDED", "BOOKMARK"], "{}", w.text);
    let w = bed.get(&format!("{MAPS}?watch=1&sendInitialEvents=false&resourceVersion=0&{initial}&{one}")).await;
    // a short watch says nothing at its end
    assert_eq!(types(&w.text), Vec::<String>::new(), "{}", w.text);
    for (selector, want) in [
        ("a%3Db%3Dc", "found '=', expected: ',' or 'end of string'"),
        ("a+in+b", "unable to parse requirement: found 'b' expected: '('"),
    ] {
        let a = bed.get(&format!("{MAPS}?labelSelector={selector}")).await;
        assert_eq!((a.code, a.message()), (400, want));
    }
    let a = bed.get("/api/v1/nodes?fieldSelector=metadata.namespace%3Dx").await;
    assert_eq!((a.code, a.message()), (400, "field label not supported: metadata.namespace"));
    let a = bed.delete(&format!("{MAPS}/a?gracePeriodSeconds=x"), Value::Null).await;
    assert_eq!((a.code, a.message()), (400, "strconv.ParseInt: parsing \"x\": invalid syntax"));
}

#[tokio::test]
async fn updates_make_and_deletes_mark() {
    let bed = Bed::still().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let a = bed.put(&format!("{leases}/l"), json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}})).await;
    assert_eq!((a.code, &a.body["spec"]["holderIdentity"]), (201, &json!("me")), "{}", a.text);
    let a = bed.put(&format!("{leases}/m"), json!({"metadata": {"name": "m", "uid": "x"}})).await;
    assert_eq!(
        a.message(),
        "Operation cannot be fulfilled on leases.coordination.k8s.io \"m\": StorageError: invalid object, Code: 4, Key: /registry/leases/default/m, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta: "
    );
    assert_eq!(bed.put(&format!("{MAPS}/zz"), json!({"metadata": {"name": "zz"}})).await.code, 404);
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        bed.config_map("a", json!({})).await;
        let a = bed.delete(&format!("{MAPS}/a"), json!({"propagationPolicy": policy})).await;
        assert_eq!(a.body["metadata"]["finalizers"], json!([finalizer]), "{}", a.text);
        assert!(a.body["metadata"]["deletionTimestamp"].is_string());
        assert_eq!(bed.get(&format!("{MAPS}/a")).await.code, 404);
    }
    bed.post(MAPS, json!({"metadata": {"name": "h", "finalizers": ["ex.io/h"]}})).await;
    let a = bed.delete(&format!("{MAPS}/h"), json!({"orphanDependents": false})).await;
    assert_eq!(a.code, 202, "{}", a.text);
    let apps = "/apis/apps/v1/namespaces/default/deployments";
    let d = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(bed.post(apps, d).await.code, 201);
    let patch = |c: Value| json!({"spec": {"template": {"spec": {"containers": [c]}}}});
    let a = bed.patch("strategic", &format!("{apps}/d"), patch(json!({"image": "j"}))).await;
    assert_eq!((a.code, a.message()), (500, "map: map[image:j] does not contain declared merge key: name"));
    let a = bed.patch("strategic", &format!("{apps}/d"), patch(json!({"$patch": "odd", "name": "c"}))).await;
    assert_eq!((a.code, a.message()), (500, "unknown patch type: odd in map: map[$patch:odd name:c]"));
    let a = bed
        .patch(
            "json",
            &format!("{apps}/d"),
            json!(vec![json!({"op": "test", "path": "/kind", "value": "Deployment"}); 10_001]),
        )
        .await;
    assert_eq!(
        (a.code, a.message()),
        (413, "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001")
    );
}

#[tokio::test]
async fn resources_are_where_they_belong() {
    let bed = Bed::still().await;
    let map = json!({"metadata": {"name": "a", "namespace": "default"}});
    assert_eq!(bed.get("/api/v1/configmaps").await.code, 200);
    for (method, path, code) in [
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("GET", "/api/v1/configmaps/a", 404),
        ("POST", "/api/v1/configmaps", 405),
        ("DELETE", "/api/v1/configmaps", 405),
        ("POST", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews", 405),
    ] {
        let a = bed.send(method, path, "application/json", map.to_string().into_bytes(), &[]).await;
        assert_eq!(a.code, code, "{method} {path}: {}", a.text);
    }
}

#[tokio::test]
async fn nodes_are_reached_through_the_api_server() {
    let bed = Bed::still().await;
    bare::node(&bed.lab, &bed.cluster, "n1");
    let a = bed.get("/api/v1/nodes/n1/proxy/healthz").await;
    assert_eq!((a.code, a.text.as_str()), (200, "ok"));
    let a = bed.get("/api/v1/nodes/n1:10250/proxy/pods").await;
    assert_eq!((a.code, &a.body["kind"], &a.body["items"]), (200, &json!("PodList"), &json!([])), "{}", a.text);
    let a = bed.get("/api/v1/nodes/n1/proxy/stats/summary").await;
    assert_eq!((a.code, &a.body["node"]["nodeName"], &a.body["pods"]), (200, &json!("n1"), &json!([])), "{}", a.text);
    assert!(a.body["node"]["cpu"]["usageNanoCores"].as_u64().is_some_and(|n| n > 0), "{}", a.text);
    let a = bed.get("/api/v1/nodes/n1/proxy/metrics/resource").await;
    assert!(
        a.code == 200 && a.text.contains("\nnode_memory_working_set_bytes ") && a.text.ends_with("error 0\n"),
        "{}",
        a.text
    );
    let a = bed.get("/api/v1/nodes/no/proxy/healthz").await;
    assert_eq!((a.code, a.message()), (404, "nodes \"no\" not found"));
    // each has one object for its volume drivers, which goes with it
    let drivers = bed.get("/apis/storage.k8s.io/v1/csinodes/n1").await.body;
    let node = bed.get("/api/v1/nodes/n1").await.body;
    assert_eq!(
        (&drivers["spec"], &drivers["metadata"]["ownerReferences"][0]["uid"]),
        (&json!({"drivers": null}), &node["metadata"]["uid"])
    );
    bed.delete("/api/v1/nodes/n1", Value::Null).await;
    assert_eq!(bed.get("/apis/storage.k8s.io/v1/csinodes/n1").await.code, 404);
}

#[tokio::test]
async fn custom_objects_are_selected_by_their_own_fields() {
    let bed = Bed::still().await;
    let definition = json!({"metadata": {"name": "things.ex.io"}, "spec": {"group": "ex.io", "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "selectableFields": [{"jsonPath": ".spec.colour"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                "properties": {"colour": {"type": "string"}}}}}}}]}});
    let made = bed.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let at = "/apis/ex.io/v1/namespaces/default/things";
    for (name, colour) in [("a", "red"), ("b", "blue")] {
        let a = bed
            .post(
                at,
                json!({"apiVersion": "ex.io/v1", "kind": "Thing", "metadata": {"name": name, "finalizers": ["mine"]},
            "spec": {"colour": colour}}),
            )
            .await;
        assert_eq!(a.code, 201, "{}", a.text);
        assert!(
            a.warnings[0].contains("prefer a domain-qualified finalizer name including a path (/)"),
            "{:?}",
            a.warnings
        );
    }
    // such an object says itself what it is
    let body = json!({"metadata": {"name": "c"}});
    let a = bed.post(at, body.clone()).await;
    let why = format!(
        "the object provided is unrecognized (must be of type Thing): Object 'Kind' is missing in '{body}' ({body})"
    );
    assert_eq!((a.code, a.message()), (400, why.as_str()));
    let a = bed.post(at, json!({"apiVersion": "ex.io/v1", "kind": "Odd", "metadata": {"name": "c"}})).await;
    assert_eq!(
        (a.code, a.message()),
        (422, "Thing.ex.io \"c\" is invalid: kind: Invalid value: \"Odd\": must be Thing")
    );
    let a = bed.post(at, json!({"apiVersion": "ex.io/v2", "kind": "Thing", "metadata": {"name": "c"}})).await;
    assert_eq!(
        (a.code, a.message()),
        (400, "the API version in the data (ex.io/v2) does not match the expected API version (ex.io/v1)")
    );
    let a = bed.get(&format!("{at}?fieldSelector=spec.colour%3Dblue")).await;
    assert_eq!((a.body["items"].as_array().unwrap().len(), &a.body["items"][0]["metadata"]["name"]), (1, &json!("b")));
    let a = bed.get(&format!("{at}?fieldSelector=spec.size%3D1")).await;
    assert_eq!((a.code, a.message()), (400, "field label not supported: spec.size"));
}
