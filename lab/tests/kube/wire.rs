//! Requests as they come over the wire: methods and paths that nobody serves, forms of answers, subresources and their
//! bodies, and what an update of an object may not do.
use serde_json::{Value, json};

use crate::bed::{Answer, Bed, made};
use crate::refused::{CORE, causes, refuses};

const APPS: &str = "/apis/apps/v1/namespaces/default";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "nginx:1.27"}]}})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {
        "metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1.27"}]}}}})
}

fn said(a: &Answer) -> (u16, &str) {
    (a.code, a.message())
}

#[tokio::test]
async fn routes_have_their_methods() {
    let bed = Bed::still().await;
    let not_allowed = "the server does not allow this method on the requested resource";
    made(&bed, &format!("{APPS}/deployments"), deployment("d")).await;
    made(&bed, &format!("{CORE}/pods"), pod("p")).await;
    for (method, path) in [
        ("HEAD", format!("{CORE}/pods")),
        ("OPTIONS", format!("{CORE}/pods")),
        ("POST", "/version".to_owned()),
        ("DELETE", "/api".to_owned()),
        ("PUT", "/apis/apps/v1".to_owned()),
        ("HEAD", "/openid/v1/jwks".to_owned()),
        ("POST", format!("{APPS}/deployments/d/status")),
        ("DELETE", format!("{APPS}/deployments/d/scale")),
        ("GET", format!("{CORE}/pods/p/binding")),
        ("GET", format!("{CORE}/pods/p/eviction")),
        ("GET", format!("{CORE}/serviceaccounts/default/token")),
        ("GET", "/api/v1/namespaces/default/finalize".to_owned()),
    ] {
        let a = bed.send(method, &path, "application/json", Vec::new(), &[]).await;
        let text = if method == "HEAD" { "" } else { not_allowed };
        assert_eq!(said(&a), (405, text), "{method} {path}");
    }
    for path in ["/apis", "/apis/apps", "/"] {
        assert_eq!(bed.send("POST", path, "", Vec::new(), &[]).await.code, 200, "{path}");
    }
    let status = "the server could not find the requested resource";
    for path in
        [format!("{CORE}/configmaps/kube-root-ca.crt/status"), format!("{CORE}/nothings"), "/apis/apps/v9".to_owned()]
    {
        assert_eq!(said(&bed.get(&path).await), (404, status), "{path}");
    }
    for path in ["/apis/none.example/v1/things", "/apis/none.example", "//api/v1", "/api//v1/pods"] {
        let a = bed.get(path).await;
        let status = path.starts_with("/api//");
        assert_eq!((a.code, a.text.trim() == "404 page not found"), (404, !status), "{path}: {}", a.text);
    }
}

#[tokio::test]
async fn large_answers_are_packed_and_documents_have_hashes() {
    let bed = Bed::still().await;
    let gzip = [("accept-encoding", "gzip")];
    let big = bed.get("/openapi/v3/api/v1").await;
    let a = bed.send("GET", "/api/v1/namespaces", "", Vec::new(), &gzip).await;
    assert_eq!(a.headers.get("content-encoding"), None);
    bed.config_map("big", json!({"k": "x".repeat(200 * 1024)})).await;
    let a = bed.send("GET", &format!("{CORE}/configmaps/big"), "", Vec::new(), &gzip).await;
    assert_eq!(a.headers["content-encoding"], "gzip");
    assert!(a.headers["vary"].contains("Accept-Encoding") && a.text.len() < 10_000);
    let index = bed.get("/openapi/v3").await;
    let url = index.body["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
    let a = bed.get(url).await;
    assert_eq!((a.code, a.headers["cache-control"].as_str(), a.body == big.body), (200, "public, immutable", true));
    let tag = a.headers["etag"].clone();
    assert!(url.ends_with(&format!("?hash={}", tag.trim_matches('"'))), "{url} {tag}");
    let a = bed.get("/openapi/v3/api/v1?hash=OLD").await;
    assert_eq!((a.code, a.headers["location"].as_str()), (301, url));
    let a = bed.send("GET", url, "", Vec::new(), &[("if-none-match", &tag)]).await;
    assert_eq!((a.code, a.text.as_str()), (304, ""));
    let a = bed.get("/.well-known/openid-configuration").await;
    assert_eq!(a.headers["cache-control"], "public, max-age=3600");
    let a = bed.get("/version").await;
    assert_eq!(a.headers["cache-control"], "no-cache, private");
}

#[tokio::test]
async fn groups_come_by_priority_in_the_form_that_is_spoken() {
    let bed = Bed::still().await;
    let a = bed.get("/apis").await;
    let names: Vec<&str> = a.body["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names[..4], ["apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io"]);
    assert!(names.contains(&"resource.k8s.io"));
    for version in ["v2", "v2beta1"] {
        let form = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let a = bed.send("GET", "/apis", "", Vec::new(), &[("accept", &format!("{form},application/json"))]).await;
        assert_eq!((&a.headers["content-type"], a.headers.contains_key("etag")), (&form, true));
        assert_eq!(a.body["apiVersion"], format!("apidiscovery.k8s.io/{version}"));
        assert_eq!(a.body["items"][1]["metadata"]["name"], "apps");
        let items = a.body["items"].as_array().unwrap();
        let scaling = items.iter().find(|g| g["metadata"]["name"] == "autoscaling").unwrap();
        assert_eq!(scaling["versions"][0]["version"], "v2", "clients take the first version");
    }
    let list = bed.get("/api/v1").await.body;
    let names: Vec<&str> = list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    let pods = names.iter().position(|n| *n == "pods").unwrap();
    assert_eq!(
        names[pods - 2..pods + 3],
        ["persistentvolumes", "persistentvolumes/status", "pods", "pods/attach", "pods/binding"]
    );
    for path in [
        "/apis/networking.k8s.io/v1/servicecidrs",
        "/apis/networking.k8s.io/v1/ipaddresses",
        "/apis/resource.k8s.io/v1/deviceclasses",
        "/apis/storage.k8s.io/v1/volumeattributesclasses",
    ] {
        assert_eq!(bed.get(path).await.code, 200, "{path}");
    }
    let version = |v: &str| {
        let v = v.to_owned();
        bed.lab.with(|w| w.clusters.get_mut(&bed.cluster).unwrap().version = v);
    };
    version("v1.33.5+k3s1");
    assert_eq!(bed.get("/apis/networking.k8s.io/v1/servicecidrs").await.code, 200);
    assert_eq!(bed.get("/apis/resource.k8s.io/v1").await.code, 404);
    version("v1.32.9+k3s1");
    assert_eq!(bed.get("/apis/networking.k8s.io/v1/servicecidrs").await.code, 404);
}

#[tokio::test]
async fn bodies_of_subresources_are_what_they_say() {
    let bed = Bed::still().await;
    made(&bed, &format!("{APPS}/deployments"), deployment("d")).await;
    made(&bed, &format!("{CORE}/pods"), pod("p")).await;
    let scale = format!("{APPS}/deployments/d/scale");
    let a = bed.put(&scale, json!({"kind": "Foo", "apiVersion": "autoscaling/v1", "metadata": {"name": "d"}})).await;
    assert!(
        a.code == 400 && a.message().starts_with("Foo in version \"v1\" cannot be handled as a Scale: no kind"),
        "{}",
        a.text
    );
    let a = bed.put(&scale, json!({"spec": {"replicas": 3}})).await;
    assert_eq!(said(&a), (400, "the name of the object (d based on URL) was undeterminable: name must be provided"));
    assert_eq!(bed.get(&scale).await.body["spec"]["replicas"], 1);
    let a = bed.put(&scale, json!({"metadata": {"name": "d"}, "spec": {"replicas": 3}})).await;
    assert_eq!((a.code, &a.body["spec"]["replicas"]), (200, &json!(3)));

    let evict = format!("{CORE}/pods/p/eviction");
    for body in [json!({}), json!({"metadata": {"name": "q"}})] {
        let a = bed.post(&evict, body).await;
        assert_eq!(said(&a), (400, "name in URL does not match name in Eviction object"));
    }
    assert_eq!(bed.post(&evict, json!({"kind": "Pod", "apiVersion": "v1"})).await.code, 400);
    let a =
        bed.post(&evict, json!({"metadata": {"name": "p"}, "deleteOptions": {"preconditions": {"uid": "u"}}})).await;
    assert!(
        a.code == 409 && a.message().ends_with("The object might have been deleted and then recreated"),
        "{}",
        a.text
    );

    let bind = format!("{CORE}/pods/p/binding");
    let a = bed.post(&bind, json!({"metadata": {"name": "p"}, "target": {"kind": "Pod"}})).await;
    let want = "[target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\", target.name: Required value]";
    assert_eq!(said(&a), (500, want));
    let a = bed
        .post(&format!("{CORE}/bindings"), json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}))
        .await;
    assert_eq!(a.code, 201, "{}", a.text);
    let a = bed.post(&bind, json!({"metadata": {"name": "p"}, "target": {"name": "m"}})).await;
    let want = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\"";
    assert_eq!(said(&a), (409, want));

    let token = format!("{CORE}/serviceaccounts/default/token");
    let a = bed.post(&token, json!({"spec": {"boundObjectRef": {"kind": "Foo", "name": "x"}}})).await;
    assert_eq!(said(&a), (400, "cannot bind token to object of type /, Kind=Foo"));
    let a = bed
        .post(&token, json!({"spec": {"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "x"}}}))
        .await;
    assert_eq!(said(&a), (404, "secrets \"x\" not found"));
    assert_eq!(bed.post(&token, json!({"kind": "Pod", "apiVersion": "v1"})).await.code, 400);

    for (query, want) in [
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        (
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
    ] {
        let a = bed.get(&format!("{CORE}/pods/p/log?{query}")).await;
        assert_eq!(said(&a), (422, format!("PodLogOptions \"p\" is invalid: {want}").as_str()), "{query}");
    }
}

#[tokio::test]
async fn patches_keep_the_kind_and_pods_are_reached_through_the_server() {
    let bed = Bed::still().await;
    made(&bed, &format!("{APPS}/deployments"), deployment("d")).await;
    let at = format!("{APPS}/deployments/d");
    for (change, kind, version) in
        [(json!({"kind": "Pod"}), "Pod", "apps/v1"), (json!({"apiVersion": "apps/v2"}), "Deployment", "apps/v2")]
    {
        let a = bed.patch("merge", &at, change).await;
        let why = format!("no kind \"{kind}\" is registered for version \"{version}\" in scheme");
        assert!(a.code == 422 && a.message().contains(&why), "{}", a.text);
    }
    assert_eq!(bed.patch("merge", &at, json!({"kind": "Deployment", "apiVersion": "apps/v1"})).await.code, 200);
    let a = bed.get(&format!("{CORE}/pods/none/proxy/")).await;
    assert_eq!(said(&a), (404, "pods \"none\" not found"));
    made(&bed, &format!("{CORE}/pods"), pod("p")).await;
    let a = bed.get(&format!("{CORE}/pods/p:99/proxy/x")).await;
    assert!(a.code == 503 && a.message().ends_with(":99: connect: connection refused"), "{}", a.text);
    let yaml = b"kind: ConfigMap\n  bad: {".to_vec();
    let a = bed.send("POST", &format!("{CORE}/configmaps"), "application/yaml", yaml, &[]).await;
    assert!(a.message().contains("ConfigMap): yaml: line 2: "), "{}", a.text);
    let class = json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true});
    made(&bed, "/apis/scheduling.k8s.io/v1/priorityclasses", class).await;
    made(&bed, &format!("{CORE}/pods"), pod("q")).await;
    let q = bed.get(&format!("{CORE}/pods/q")).await.body;
    assert_eq!((&q["spec"]["priority"], &q["spec"]["priorityClassName"]), (&json!(7), &json!("usual")));
}

#[tokio::test]
async fn pods_stay_what_they_are() {
    let bed = Bed::still().await;
    let mut p = pod("p");
    p["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    p["spec"]["activeDeadlineSeconds"] = json!(50);
    made(&bed, &format!("{CORE}/pods"), p).await;
    let at = format!("{CORE}/pods/p");
    for (change, want) in [
        (
            json!({"activeDeadlineSeconds": 60}),
            "spec.activeDeadlineSeconds: Invalid value: 60: must be less than or equal to previous value",
        ),
        (
            json!({"activeDeadlineSeconds": null}),
            "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
        ),
        (
            json!({"tolerations": []}),
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ),
        (json!({"terminationGracePeriodSeconds": 5}), "spec: Forbidden: pod updates may not change fields other than"),
        (json!({"nodeName": "n"}), "spec: Forbidden: pod updates may not change fields other than"),
        (
            json!({"containers": [{"name": "c", "image": "a"}, {"name": "d", "image": "b"}]}),
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ),
        (
            json!({"schedulingGates": [{"name": "g"}]}),
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'",
        ),
    ] {
        let a = bed.patch("merge", &at, json!({"spec": change})).await;
        assert_eq!(a.code, 422, "{change}: {}", a.text);
        let have = causes(&a);
        assert!(have.len() == 1 && have[0].starts_with(want), "{change}: {have:#?}");
    }
    let mut more = bed.get(&at).await.body["spec"]["tolerations"].as_array().unwrap().clone();
    more.push(json!({"key": "b", "operator": "Exists"}));
    for (how, change) in [
        ("merge", json!({"activeDeadlineSeconds": 40})),
        ("merge", json!({"tolerations": more})),
        ("strategic", json!({"containers": [{"name": "c", "image": "nginx:1.28"}]})),
    ] {
        let a = bed.patch(how, &at, json!({"spec": change})).await;
        assert_eq!(a.code, 200, "{change}: {}", a.text);
    }
    let ephemeral = format!("{at}/ephemeralcontainers");
    let with = |list: Value| json!({"spec": {"ephemeralContainers": list}});
    let a = bed.patch("strategic", &ephemeral, with(json!([{"name": "e", "image": "busybox"}]))).await;
    assert_eq!(a.code, 200, "{}", a.text);
    for (how, list, want) in [
        (
            "strategic",
            json!([{"name": "e", "image": "other"}]),
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed",
        ),
        (
            "merge",
            json!([]),
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed",
        ),
        ("strategic", json!([{"name": "c", "image": "x"}]), "spec.ephemeralContainers[0].name: Duplicate value: \"c\""),
        (
            "strategic",
            json!([{"name": "f", "image": "x", "ports": [{"containerPort": 1}]}]),
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ] {
        let a = bed.patch(how, &ephemeral, with(list.clone())).await;
        let have = causes(&a);
        assert!(
            a.code == 422 && have.iter().any(|c| c.replace("[1]", "[0]").starts_with(want)),
            "{list}: {have:#?} {}",
            a.text
        );
    }
}

#[tokio::test]
async fn templates_and_metadata_are_looked_at_everywhere() {
    let bed = Bed::still().await;
    let container = |more: Value| {
        let mut c = json!({"name": "c", "image": "nginx:1.27"});
        c.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": {"template": {"spec": {"containers": [c]}}}})
    };
    let spec = |s: Value| json!({"spec": {"template": {"spec": s}}});
    let env = |v: Value| container(json!({"env": [{"name": "A", "valueFrom": v}]}));
    let at = "spec.template.spec.containers[0]";
    refuses(&bed, &format!("{APPS}/deployments"), &deployment("d"), &[
        (json!({"spec": {"template": {"metadata": {"labels": {"x": "a b"}}}}}), &["spec.template.labels: Invalid value: \"a b\": a valid label"]),
        (json!({"spec": {"template": {"metadata": {"annotations": {"a b": ""}}}}}), &["spec.template.annotations: Invalid value: \"a b\": name part"]),
        (json!({"spec": {"selector": {"matchExpressions": [{"key": "y", "operator": "Exists"}]}}}), &["spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match"]),
        (spec(json!({"initContainers": [{"name": "c", "image": "x"}]})), &["spec.template.spec.initContainers[0].name: Duplicate value: \"c\""]),
        (spec(json!({"initContainers": [{"name": "i", "image": "x", "readinessProbe": {"exec": {"command": ["a"]}}}]})), &["spec.template.spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"]),
        (env(json!({"fieldRef": {"fieldPath": "status.phase"}})), &[&format!("{at}.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", ")]),
        (env(json!({"fieldRef": {"fieldPath": "spec.x"}})), &[&format!("{at}.env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x")]),
        (env(json!({"secretKeyRef": {"key": "k", "name": ""}})), &[&format!("{at}.env[0].valueFrom.secretKeyRef.name: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of")]),
        (container(json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "../x"}]})), &[&format!("{at}.volumeMounts[0].name: Not found: \"v\""), &format!("{at}.volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'")]),
        (container(json!({"resources": {"requests": {"pods": "1"}}})), &[&format!("{at}.resources.requests[pods]: Invalid value: \"pods\": must be a standard resource for containers")]),
        (spec(json!({"volumes": [{"name": "v", "secret": {}}]})), &["spec.template.spec.volumes[0].secret.secretName: Required value"]),
        (spec(json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "k", "whenUnsatisfiable": "Maybe"}]})), &["spec.template.spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero", "spec.template.spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Maybe\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\""]),
        (json!({"metadata": {"finalizers": ["orphan", "foregroundDeletion"]}}), &["metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set"]),
    ]).await;
    let good = [
        env(json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}})),
        env(json!({"fieldRef": {"fieldPath": "status.hostIPs"}})),
        spec(
            json!({"initContainers": [{"name": "i", "image": "x", "restartPolicy": "Always", "readinessProbe": {"exec": {"command": ["a"]}}}]}),
        ),
    ];
    for change in good {
        let mut d = deployment("d");
        for (k, v) in change["spec"]["template"]["spec"].as_object().unwrap() {
            d["spec"]["template"]["spec"][k] = v.clone();
        }
        let a = bed.post(&format!("{APPS}/deployments?dryRun=All"), d).await;
        assert_eq!(a.code, 201, "{change}: {}", a.text);
    }
    let job = json!({"metadata": {"name": "c"}, "spec": {"schedule": "0 * * * *", "jobTemplate": {"spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}}}});
    let job_spec = |s: Value| json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": s}}}}});
    refuses(&bed, "/apis/batch/v1/namespaces/default/cronjobs", &job, &[
        (json!({"spec": {"schedule": "61 * * * *"}}), &["spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61"]),
        (job_spec(json!({"containers": [{"name": "c"}]})), &["spec.jobTemplate.spec.template.spec.containers[0].image: Required value"]),
        (job_spec(json!({"restartPolicy": "Always"})), &["spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]),
    ]).await;
    bed.config_map("m", json!({})).await;
    let a = bed
        .patch(
            "merge",
            &format!("{CORE}/configmaps/m"),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        )
        .await;
    assert_eq!(
        causes(&a)[0],
        "metadata.deletionTimestamp: Invalid value: \"2026-01-01T00:00:00Z\": field is immutable"
    );
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    made(&bed, &format!("{CORE}/services"), service).await;
    let a = bed.patch("merge", &format!("{CORE}/services/s"), json!({"spec": {"clusterIP": "None"}})).await;
    assert!(
        causes(&a).iter().any(|c| c == "spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set"),
        "{}",
        a.text
    );
}

#[tokio::test]
async fn published_schemas_say_what_explain_reads() {
    let bed = Bed::still().await;
    let schema = async |place: &str, name: &str| {
        bed.get(&format!("/openapi/v3/{place}")).await.body["components"]["schemas"][name].clone()
    };
    let pod = schema("api/v1", "io.k8s.api.core.v1.Pod").await;
    assert_eq!(pod.get("required"), None, "metadata may be left out");
    let key = schema("api/v1", "io.k8s.api.core.v1.SecretKeySelector").await;
    assert_eq!(key["required"], json!(["key"]));
    let container = schema("api/v1", "io.k8s.api.core.v1.Container").await;
    assert_eq!(container["properties"]["imagePullPolicy"]["enum"], json!(["Always", "IfNotPresent", "Never"]));
    let claim = schema("api/v1", "io.k8s.api.core.v1.PersistentVolumeClaimSpec").await;
    assert_eq!(claim["properties"]["accessModes"]["items"]["enum"][3], "ReadWriteOncePod");
    let definition = json!({"metadata": {"name": "ws.x.org"}, "spec": {"group": "x.org", "scope": "Namespaced",
        "names": {"plural": "ws", "kind": "W"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}}]}});
    bed.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let own = schema("apis/x.org/v1", "org.x.v1.W").await;
    assert_eq!(own["properties"]["kind"]["type"], "string");
    let meta = own["properties"]["metadata"].to_string();
    assert!(meta.contains("#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"), "{meta}");
    let meta = schema("apis/x.org/v1", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").await;
    assert!(meta["properties"]["labels"].is_object());
}

#[tokio::test]
async fn tables_of_accounts_and_scales_have_their_columns() {
    let bed = Bed::still().await;
    let columns = async |path: &str| {
        let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        let table = bed.send("GET", path, "", Vec::new(), &accept).await.body;
        let heads: Vec<String> =
            table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().into()).collect();
        (heads.join(" "), table["rows"][0]["cells"].clone())
    };
    assert_eq!(columns(&format!("{CORE}/serviceaccounts")).await.0, "Name Secrets Age");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"metadata": {"name": "d"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    bed.post("/apis/apps/v1/namespaces/default/deployments", set).await;
    let (heads, cells) = columns("/apis/apps/v1/namespaces/default/deployments/d/scale").await;
    assert_eq!((heads.as_str(), &cells[0], &cells[1]), ("Name Desired Available Age", &json!("d"), &json!(3)));
}
