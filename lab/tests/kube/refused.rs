//! What the API server refuses of built-in kinds, field by field and in its words, and what it takes.
use serde_json::{Value, json};

use crate::bed::{Answer, Bed};

pub const CORE: &str = "/api/v1/namespaces/default";
const APPS: &str = "/apis/apps/v1/namespaces/default";
const BATCH: &str = "/apis/batch/v1/namespaces/default";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// `field: message` of every cause.
pub fn causes(a: &Answer) -> Vec<String> {
    let list = a.body["details"]["causes"].as_array().into_iter().flatten();
    list.map(|c| format!("{}: {}", c["field"].as_str().unwrap(), c["message"].as_str().unwrap())).collect()
}

/// Tries objects that differ from a good one; each has exactly these causes.
pub async fn refuses(bed: &Bed, path: &str, good: &Value, table: &[(Value, &[&str])]) {
    for (change, want) in table {
        let mut o = good.clone();
        merge(&mut o, change);
        let a = bed.post(&format!("{path}?dryRun=All"), o).await;
        assert_eq!((a.code, a.body["reason"].as_str()), (422, Some("Invalid")), "{path} {change}: {}", a.text);
        let have = causes(&a);
        assert_eq!(have.len(), want.len(), "{path} {change}: {have:#?}");
        for (h, w) in have.iter().zip(*want) {
            assert!(h.starts_with(w), "{path} {change}:\n have {h}\n want {w}");
        }
    }
    let a = bed.post(&format!("{path}?dryRun=All"), good.clone()).await;
    assert_eq!(a.code, 201, "{path}: {}", a.text);
}

fn merge(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(t), Value::Object(c)) => {
            for (k, v) in c {
                if v.is_null() {
                    t.remove(k);
                } else {
                    merge(t.entry(k.clone()).or_insert(Value::Null), v);
                }
            }
        }
        (t, c) => *t = c.clone(),
    }
}

#[tokio::test]
async fn metadata() {
    let bed = Bed::still().await;
    let long = "a".repeat(254);
    let named = |name: &str| json!({"metadata": {"name": name}});
    let label = "name part must consist of alphanumeric characters, '-', '_' or '.'";
    let table: &[(Value, &[&str])] = &[
        (named("A_b"), &["metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of"]),
        (named(&long), &["metadata.name: Invalid value: \"aaa"]),
        (
            json!({"metadata": {"labels": {"a b": "x"}}}),
            &[&format!("metadata.labels: Invalid value: \"a b\": {label}")],
        ),
        (
            json!({"metadata": {"labels": {"/x": "-"}}}),
            &[
                "metadata.labels: Invalid value: \"/x\": prefix part must be non-empty",
                "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of",
            ],
        ),
        (
            json!({"metadata": {"annotations": {"Ex.IO/a/b": ""}}}),
            &["metadata.annotations: Invalid value: \"Ex.IO/a/b\": a valid label key must consist of"],
        ),
        (
            json!({"metadata": {"annotations": {"a": "x".repeat(300_000)}}}),
            &["metadata.annotations: Too long: may not be more than 262144 bytes"],
        ),
        (
            json!({"metadata": {"finalizers": ["mine"]}}),
            &[
                "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
            ],
        ),
        (
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}}),
            &["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
        ),
        (
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "p", "uid": "1", "controller": true},
                {"apiVersion": "v1", "kind": "B", "name": "q", "uid": "2", "controller": true}]}}),
            &["metadata.ownerReferences: Invalid value: [{"],
        ),
    ];
    refuses(&bed, &format!("{CORE}/configmaps"), &json!({"metadata": {"name": "a"}}), table).await;
    let a = bed.post("/api/v1/namespaces", named("a.b")).await;
    assert_eq!(causes(&a), ["metadata.name: Invalid value: \"a.b\": must not contain dots"]);
    // a generated name is cut so that it stays a label
    let a = bed.post(&format!("{CORE}/configmaps"), json!({"metadata": {"generateName": "a".repeat(90)}})).await;
    assert_eq!((a.code, a.body["metadata"]["name"].as_str().unwrap().len()), (201, 63), "{}", a.text);
}

#[tokio::test]
async fn workloads() {
    let bed = Bed::still().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let good =
        json!({"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let spec = |s: Value| json!({"spec": s});
    let table: &[(Value, &[&str])] = &[
        (spec(json!({"replicas": -1})), &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        (
            spec(json!({"selector": {"matchLabels": {"a": "c"}}})),
            &[
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        ),
        (
            spec(json!({"selector": {"matchLabels": null}})),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        ),
        (
            spec(json!({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}})),
            &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        ),
        (
            spec(json!({"strategy": {"type": "Odd"}})),
            &[
                "spec.strategy: Unsupported value: {\"Type\":\"Odd\",\"RollingUpdate\":null}: supported values: \"Recreate\", \"RollingUpdate\"",
            ],
        ),
        (
            spec(json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}})),
            &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
        ),
        (
            spec(json!({"strategy": {"rollingUpdate": {"maxUnavailable": "120%"}}})),
            &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"120%\": must not be greater than 100%"],
        ),
        (
            spec(json!({"progressDeadlineSeconds": 5, "minReadySeconds": 5})),
            &["spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"],
        ),
        (
            spec(json!({"template": {"spec": {"restartPolicy": "Never"}}})),
            &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        ),
    ];
    refuses(&bed, &format!("{APPS}/deployments"), &good, table).await;
    let sets = format!("{APPS}/statefulsets");
    let mut set = good.clone();
    set["spec"]["serviceName"] = json!("s");
    assert_eq!(bed.post(&sets, set).await.code, 201);
    let a = bed.patch("merge", &format!("{sets}/w"), spec(json!({"serviceName": "t"}))).await;
    assert_eq!(
        causes(&a),
        [
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        ]
    );
    assert_eq!(bed.patch("merge", &format!("{sets}/w"), spec(json!({"replicas": 2}))).await.code, 200);

    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let table: &[(Value, &[&str])] = &[
        (
            spec(json!({"template": {"spec": {"restartPolicy": "Always"}}})),
            &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        ),
        (
            spec(json!({"completions": -1})),
            &["spec.completions: Invalid value: -1: must be greater than or equal to 0"],
        ),
    ];
    refuses(&bed, &format!("{BATCH}/jobs"), &job, table).await;
    let cron =
        json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job["spec"]}}});
    let table: &[(Value, &[&str])] = &[
        (
            spec(json!({"schedule": "* *"})),
            &["spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]"],
        ),
        (
            spec(json!({"concurrencyPolicy": "Odd"})),
            &[
                "spec.concurrencyPolicy: Unsupported value: \"Odd\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ],
        ),
        (json!({"metadata": {"name": "c".repeat(53)}}), &["metadata.name: Invalid value: "]),
    ];
    refuses(&bed, &format!("{BATCH}/cronjobs"), &cron, table).await;
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    let table: &[(Value, &[&str])] = &[
        (spec(json!({"maxUnavailable": 1})), &["spec: Invalid value: {\"MinAvailable\":1,"]),
        (
            spec(json!({"minAvailable": "x"})),
            &["spec.minAvailable: Invalid value: \"x\": a valid percent string must be"],
        ),
    ];
    refuses(&bed, "/apis/policy/v1/namespaces/default/poddisruptionbudgets", &budget, table).await;
}

#[tokio::test]
async fn pods() {
    let bed = Bed::still().await;
    let good = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = |s: Value| json!({"spec": s});
    let with = |c: Value| {
        let mut all = json!({"name": "c", "image": "i"});
        merge(&mut all, &c);
        json!({"spec": {"containers": [all]}})
    };
    let at = "spec.containers[0]";
    let table: &[(Value, &[&str])] = &[
        (
            spec(json!({"dnsPolicy": "x"})),
            &[
                "spec.dnsPolicy: Unsupported value: \"x\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
            ],
        ),
        (
            spec(json!({"nodeSelector": {"a": "-"}})),
            &["spec.nodeSelector: Invalid value: \"-\": a valid label must be"],
        ),
        (
            spec(json!({"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 3}]})),
            &[
                "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
            ],
        ),
        (
            spec(json!({"tolerations": [{"operator": "Equal"}]})),
            &["spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty"],
        ),
        (
            spec(json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]})),
            &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            with(json!({"name": "C"})),
            &[&format!("{at}.name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of")],
        ),
        (
            with(json!({"image": " i"})),
            &[&format!("{at}.image: Invalid value: \" i\": must not have leading or trailing whitespace")],
        ),
        (
            with(json!({"ports": [{"containerPort": 80, "name": "much-too-long-name"}]})),
            &[&format!(
                "{at}.ports[0].name: Invalid value: \"much-too-long-name\": must be no more than 15 characters"
            )],
        ),
        (
            with(json!({"ports": [{"containerPort": 70_000}]})),
            &[&format!("{at}.ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive")],
        ),
        (
            with(json!({"livenessProbe": {}})),
            &[&format!("{at}.livenessProbe: Required value: must specify a handler type")],
        ),
        (
            with(json!({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}})),
            &[&format!("{at}.livenessProbe.successThreshold: Invalid value: 2: must be 1")],
        ),
        (
            with(
                json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            ),
            &[&format!("{at}.env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty")],
        ),
        (
            with(json!({"resources": {"requests": {"cores": "1"}}})),
            &[
                &format!(
                    "{at}.resources.requests[cores]: Invalid value: \"cores\": must be a standard resource type or fully qualified"
                ),
                &format!(
                    "{at}.resources.requests[cores]: Invalid value: \"cores\": must be a standard resource for containers"
                ),
            ],
        ),
        (
            with(json!({"resources": {"requests": {"nvidia.com/gpu": "1"}}})),
            &[&format!("{at}.resources.limits: Required value: Limit must be set for non overcommitable resources")],
        ),
        (
            with(json!({"volumeMounts": [{"name": "no", "mountPath": "/a"}]})),
            &[&format!("{at}.volumeMounts[0].name: Not found: \"no\"")],
        ),
    ];
    refuses(&bed, &format!("{CORE}/pods"), &good, table).await;
    // a volume without a source is an empty folder
    let a = bed
        .post(
            &format!("{CORE}/pods"),
            json!({"metadata": {"name": "v"}, "spec": {"volumes": [{"name": "v"}],
        "containers": [{"name": "c", "image": "i"}]}}),
        )
        .await;
    assert_eq!(a.body["spec"]["volumes"][0], json!({"name": "v", "emptyDir": {}}), "{}", a.text);
}

#[tokio::test]
async fn bounds_and_classes() {
    let bed = Bed::still().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = json!({"metadata": {"name": "c"}, "value": 10});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"value": 1_000_000_001}),
            &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
        ),
        (
            json!({"metadata": {"name": "system-x"}}),
            &[
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class",
            ],
        ),
        (
            json!({"preemptionPolicy": "x"}),
            &["preemptionPolicy: Unsupported value: \"x\": supported values: \"PreemptLowerPriority\", \"Never\""],
        ),
    ];
    refuses(&bed, classes, &class, table).await;
    bed.post(classes, class).await;
    let a = bed.patch("merge", &format!("{classes}/c"), json!({"value": 11, "preemptionPolicy": "Never"})).await;
    assert_eq!(
        causes(&a),
        [
            "value: Forbidden: may not be changed in an update.",
            "preemptionPolicy: Invalid value: \"Never\": field is immutable"
        ]
    );

    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let modes = "supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"";
    let table: &[(Value, &[&str])] = &[
        (
            json!({"spec": {"accessModes": ["RWO"]}}),
            &[&format!("spec.accessModes: Unsupported value: \"RWO\": {modes}")],
        ),
        (
            json!({"spec": {"accessModes": null}}),
            &["spec.accessModes: Required value: at least 1 access mode is required"],
        ),
        (json!({"spec": {"resources": null}}), &["spec.resources[storage]: Required value"]),
    ];
    refuses(&bed, &format!("{CORE}/persistentvolumeclaims"), &claim, table).await;

    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"spec": {"hard": {"cores": "1"}}}),
            &[
                "spec.hard[cores]: Invalid value: \"cores\": must be a standard resource type or fully qualified",
                "spec.hard[cores]: Invalid value: \"cores\": must be a standard resource for quota",
            ],
        ),
        (
            json!({"spec": {"hard": {"pods": "-1"}}}),
            &["spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"],
        ),
    ];
    refuses(&bed, &format!("{CORE}/resourcequotas"), &quota, table).await;

    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]}});
    let limits = |l: Value| json!({"spec": {"limits": [l]}});
    let table: &[(Value, &[&str])] = &[
        (
            limits(
                json!({"type": "Container", "min": {"cpu": "3"}, "max": {"cpu": "2"}, "defaultRequest": {"cpu": "3"}, "default": {"cpu": "3"}}),
            ),
            &[
                "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"3\": default request value 3 is greater than max value 2",
                "spec.limits[0].default[cpu]: Invalid value: \"2\": default value 3 is greater than max value 2",
            ],
        ),
        (
            limits(json!({"type": "Pod", "default": {"cpu": "1"}})),
            &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
        ),
    ];
    refuses(&bed, &format!("{CORE}/limitranges"), &range, table).await;

    let sc = "/apis/storage.k8s.io/v1/storageclasses";
    let class = json!({"metadata": {"name": "s"}, "provisioner": "ex.io/p", "parameters": {"a": "b"}});
    let table: &[(Value, &[&str])] = &[
        (json!({"provisioner": null}), &["provisioner: Required value"]),
        (
            json!({"reclaimPolicy": "Keep"}),
            &["reclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\""],
        ),
    ];
    refuses(&bed, sc, &class, table).await;
    bed.post(sc, class).await;
    let a = bed
        .patch(
            "merge",
            &format!("{sc}/s"),
            json!({"parameters": {"a": "c"}, "volumeBindingMode": "WaitForFirstConsumer"}),
        )
        .await;
    assert_eq!(
        causes(&a),
        [
            "parameters: Invalid value: {\"a\":\"c\"}: field is immutable",
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"
        ]
    );
    let lease = json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 3}});
    let table: &[(Value, &[&str])] = &[(
        json!({"spec": {"leaseDurationSeconds": 0}}),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    )];
    refuses(&bed, "/apis/coordination.k8s.io/v1/namespaces/default/leases", &lease, table).await;
}

#[tokio::test]
async fn roles_bindings_and_reviews() {
    let bed = Bed::still().await;
    let role =
        json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"]}]}),
            &["rules[0].verbs: Required value: verbs must contain at least one value"],
        ),
        (
            json!({"rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}]}),
            &["rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"],
        ),
    ];
    refuses(&bed, &format!("{RBAC}/namespaces/default/roles"), &role, table).await;
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "ada"}]});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"roleRef": {"kind": "Odd"}}),
            &["roleRef.kind: Unsupported value: \"Odd\": supported values: \"Role\", \"ClusterRole\""],
        ),
        (
            json!({"subjects": [{"kind": "Odd", "name": "x"}]}),
            &[
                "subjects[0].kind: Unsupported value: \"Odd\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ],
        ),
    ];
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    refuses(&bed, &bindings, &binding, table).await;
    bed.post(&format!("{RBAC}/namespaces/default/roles"), role).await;
    bed.post(&bindings, binding).await;
    let a = bed.patch("merge", &format!("{bindings}/b"), json!({"roleRef": {"name": "s"}})).await;
    assert!(
        causes(&a)[0].starts_with("roleRef: Invalid value: {") && causes(&a)[0].ends_with(": cannot change roleRef"),
        "{}",
        a.text
    );

    let reviews = |kind: &str| format!("/apis/authorization.k8s.io/v1/{kind}");
    let nothing = "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified";
    let a = bed.post(&reviews("selfsubjectaccessreviews"), json!({"spec": {}})).await;
    assert_eq!((a.code, causes(&a)), (422, vec![nothing.to_owned()]), "{}", a.text);
    assert_eq!(a.message(), format!(".authorization.k8s.io \"\" is invalid: {nothing}"));
    let a =
        bed.post(&reviews("subjectaccessreviews"), json!({"spec": {"nonResourceAttributes": {"path": "/x"}}})).await;
    assert_eq!(causes(&a), ["spec.user: Invalid value: \"\": at least one of user or group must be specified"]);
    let both = json!({"spec": {"user": "ada", "resourceAttributes": {"resource": "pods"}, "nonResourceAttributes": {"path": "/x"}}});
    let a = bed.post(&reviews("subjectaccessreviews"), both).await;
    assert_eq!(
        causes(&a),
        [
            "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/x\",\"Verb\":\"\"}: cannot be specified in combination with resourceAttributes"
        ]
    );
    let ask = |verb: &str| json!({"spec": {"user": "ada", "resourceAttributes": {"namespace": "default", "verb": verb, "resource": "pods"}}});
    let a = bed.post(&reviews("subjectaccessreviews"), ask("get")).await;
    let why = "RBAC: allowed by RoleBinding \"b/default\" of Role \"r\" to User \"ada\"";
    assert_eq!(a.body["status"], json!({"allowed": true, "reason": why}));
    let a = bed.post(&reviews("subjectaccessreviews"), ask("list")).await;
    assert_eq!(a.body["status"], json!({"allowed": false}));
    let local = "/apis/authorization.k8s.io/v1/namespaces/kube-system/localsubjectaccessreviews";
    let a = bed.post(local, ask("get")).await;
    assert_eq!(
        causes(&a),
        ["spec.resourceAttributes.namespace: Invalid value: \"default\": must match metadata.namespace"]
    );
}

#[tokio::test]
async fn namespaces_go_one_by_one() {
    let bed = Bed::still().await;
    let a = bed.delete("/api/v1/namespaces", Value::Null).await;
    assert_eq!((a.code, a.message()), (405, "the server does not allow this method on the requested resource"));
    let found = bed.get("/api/v1").await;
    let verbs = |name: &str| {
        let all = found.body["resources"].as_array().unwrap();
        all.iter().find(|r| r["name"] == name).unwrap()["verbs"].clone()
    };
    assert_eq!(verbs("namespaces"), json!(["create", "delete", "get", "list", "patch", "update", "watch"]));
    assert_eq!(verbs("componentstatuses"), json!(["get", "list"]));
    assert_eq!(bed.delete(&format!("{CORE}/configmaps"), Value::Null).await.code, 200);
}

#[tokio::test]
async fn warnings() {
    let bed = Bed::still().await;
    let pod = json!({"metadata": {"name": "a.b"}, "spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"},
        "imagePullSecrets": [{"name": ""}], "containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {"limits": {"memory": "100m"}}},
            {"name": "d", "image": "i", "ports": [{"containerPort": 80}]}]}});
    let a = bed.post(&format!("{CORE}/pods?dryRun=All"), pod).await;
    assert_eq!(a.code, 201, "{}", a.text);
    for want in [
        "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
        "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \\\"kubernetes.io/os\\\" instead",
        "spec.imagePullSecrets[0].name: invalid empty name \\\"\\\"",
        "spec.containers[0].resources.limits[memory]: fractional byte value \\\"100m\\\" is invalid, must be an integer",
        "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
    ] {
        assert!(a.warnings.iter().any(|w| w == &format!("299 - \"{want}\"")), "{want}\n{:#?}", a.warnings);
    }
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    bed.post(&format!("{BATCH}/jobs"), job).await;
    let a = bed.delete(&format!("{BATCH}/jobs/j"), Value::Null).await;
    assert!(a.warnings[0].contains("child pods are preserved by default when jobs are deleted"), "{:?}", a.warnings);
    assert_eq!((a.code, &a.body["metadata"]["finalizers"]), (200, &json!(["orphan"])), "{}", a.text);
    assert_eq!(bed.get(&format!("{BATCH}/jobs/j")).await.code, 404);
}

#[tokio::test]
async fn what_never_changes() {
    let bed = Bed::still().await;
    let at = format!("{CORE}/configmaps");
    bed.post(&at, json!({"metadata": {"name": "m"}, "data": {"a": "1"}, "immutable": true})).await;
    let a = bed.patch("merge", &format!("{at}/m"), json!({"data": {"a": "2"}, "immutable": false})).await;
    let why = "Forbidden: field is immutable when `immutable` is set";
    assert_eq!(causes(&a), [format!("immutable: {why}"), format!("data: {why}")]);
    let at = format!("{CORE}/secrets");
    bed.post(&at, json!({"metadata": {"name": "s"}})).await;
    let a = bed.patch("merge", &format!("{at}/s"), json!({"type": "ex.io/x"})).await;
    assert_eq!(causes(&a), ["type: Invalid value: \"ex.io/x\": field is immutable"]);

    let at = format!("{CORE}/persistentvolumeclaims");
    let claim = json!({"metadata": {"name": "c"}, "spec": {"storageClassName": "slow", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}}}});
    bed.post(&at, claim).await;
    let a = bed.patch("merge", &format!("{at}/c"), json!({"spec": {"storageClassName": "fast"}})).await;
    assert_eq!(
        causes(&a),
        [
            "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n@@ -10,7 +10,7 @@\n   }\n  },\n  \"VolumeName\": \"\",\n- \"StorageClassName\": \"slow\",\n+ \"StorageClassName\": \"fast\",\n  \"VolumeMode\": \"Filesystem\",\n  \"DataSource\": null,\n  \"DataSourceRef\": null,\n"
        ]
    );
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}});
    assert_eq!(bed.patch("merge", &format!("{at}/c/status"), bound).await.code, 200);
    let grown = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let a = bed.patch("merge", &format!("{at}/c"), grown("1Gi")).await;
    assert_eq!(causes(&a), ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]);
    let a = bed.patch("merge", &format!("{at}/c"), grown("3Gi")).await;
    assert_eq!(
        a.message(),
        "persistentvolumeclaims \"c\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
    );
    let class = json!({"metadata": {"name": "slow"}, "provisioner": "ex.io/p", "allowVolumeExpansion": true});
    bed.post("/apis/storage.k8s.io/v1/storageclasses", class).await;
    assert_eq!(bed.patch("merge", &format!("{at}/c"), grown("3Gi")).await.code, 200);

    // an empty entry clears what the server knows of writers
    bed.config_map("n", json!({"a": "1"})).await;
    let clear = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    let a = bed.patch("json", &format!("{CORE}/configmaps/n"), clear).await;
    assert_eq!((a.code, a.body["metadata"].get("managedFields")), (200, None), "{}", a.text);
    let a =
        bed.patch("apply", &format!("{CORE}/configmaps/n?fieldManager=me"), json!({"metadata": {"name": "n"}})).await;
    assert_eq!((a.code, a.message()), (400, "invalid object type: /, Kind="));
}
