//! What makes volumes, scalers, endpoints, quotas and other bodies invalid, and how odd YAML is read.
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::refused::{CORE, refuses};

#[tokio::test]
async fn volumes_and_claims() {
    let bed = Bed::still().await;
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/x"}}});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"spec": {"accessModes": [], "capacity": {"storage": "0"}, "hostPath": null}}),
            &[
                "spec.accessModes: Required value",
                "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
                "spec: Required value: must specify a volume type",
            ],
        ),
        (
            json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadWriteOncePod"], "persistentVolumeReclaimPolicy": "Keep",
                "nfs": {"server": "a", "path": "/b"}}}),
            &[
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ],
        ),
        (
            json!({"spec": {"hostPath": null, "local": {"path": "/x"}}}),
            &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
        (
            json!({"spec": {"hostPath": {"path": "/a/../b"}}}),
            &["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
        ),
    ];
    refuses(&bed, "/api/v1/persistentvolumes", &volume, table).await;
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let table: &[(Value, &[&str])] = &[(
        json!({"spec": {"resources": {"requests": {"storage": "-1"}}}}),
        &["spec.resources[storage]: Invalid value: \"-1\": must be greater than zero"],
    )];
    refuses(&bed, &format!("{CORE}/persistentvolumeclaims"), &claim, table).await;
}

#[tokio::test]
async fn scalers_and_quotas() {
    let bed = Bed::still().await;
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"spec": {"metrics": [{"type": "Odd"}, {"type": "Resource"}]}}),
            &[
                "spec.metrics[0].type: Unsupported value: \"Odd\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
                "spec.metrics[0].type: Unsupported value: \"Odd\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
                "spec.metrics[1].resource: Required value: must populate information for the given metric source",
            ],
        ),
        (
            json!({"spec": {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]}}),
            &[
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            ],
        ),
        (
            json!({"spec": {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 5}]}}}}),
            &["spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero"],
        ),
    ];
    refuses(&bed, "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", &scaler, table).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"spec": {"scopes": ["BestEffort", "NotBestEffort"]}}),
            &["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
        ),
        (
            json!({"spec": {"hard": {"services": "1"}, "scopes": ["BestEffort"]}}),
            &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
        ),
    ];
    refuses(&bed, &format!("{CORE}/resourcequotas"), &quota, table).await;
}

#[tokio::test]
async fn endpoints_controllers_and_services_of_others() {
    let bed = Bed::still().await;
    let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"addressType": "Odd"}),
            &["addressType: Unsupported value: \"Odd\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
        ),
        (
            json!({"endpoints": [{"addresses": ["::1", "127.0.0.1"]}]}),
            &[
                "endpoints[0].addresses: Invalid value: \"::1\": must be an IPv4 address",
                "endpoints[0].addresses[1]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        ),
        (json!({"ports": [{"port": 1}, {"port": 2}]}), &["ports[1].name: Duplicate value: \"\""]),
    ];
    refuses(&bed, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice, table).await;
    let controller = json!({"metadata": {"name": "r"}, "spec": {"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    let table: &[(Value, &[&str])] = &[
        (json!({"spec": {"template": null}}), &["spec.selector: Required value", "spec.template: Required value"]),
        (
            json!({"spec": {"selector": {"a": "c"}}}),
            &[
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        ),
    ];
    refuses(&bed, &format!("{CORE}/replicationcontrollers"), &controller, table).await;
    let service = json!({"metadata": {"name": "v1.foo.example"}, "spec": {"group": "foo.example", "version": "v1",
        "groupPriorityMinimum": 100, "versionPriority": 10, "service": {"name": "s", "namespace": "default"}}});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"metadata": {"name": "x"}}),
            &["metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.foo.example\""],
        ),
        (
            json!({"spec": {"groupPriorityMinimum": 30000}}),
            &["spec.groupPriorityMinimum: Invalid value: 30000: must be positive and less than 20000"],
        ),
    ];
    refuses(&bed, "/apis/apiregistration.k8s.io/v1/apiservices", &service, table).await;
}

#[tokio::test]
async fn keys_that_are_twice_in_yaml() {
    let bed = Bed::still().await;
    let path = format!("{CORE}/configmaps");
    let yaml = |name: &str| format!("metadata: {{name: {name}}}\ndata:\n  a: b\n  a: c\n").into_bytes();
    let a = bed.send("POST", &path, "application/yaml", yaml("one"), &[]).await;
    assert_eq!((a.code, &a.body["data"]), (201, &json!({"a": "c"})), "{}", a.text);
    let strict = format!("{path}?fieldValidation=Strict");
    let a = bed.send("POST", &strict, "application/yaml", yaml("two"), &[]).await;
    assert_eq!(
        (a.code, a.message()),
        (
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:\n  line 4: key \"a\" already set in map"
        )
    );
    let a = bed.put(&format!("{path}/one"), json!({"metadata": {"name": "one", "resourceVersion": "x"}})).await;
    assert_eq!((a.code, a.message()), (500, "strconv.ParseUint: parsing \"x\": invalid syntax"));
    let a = bed.patch("merge", &format!("{path}/one"), json!({"metadata": {"uid": "x"}})).await;
    let why = "ConfigMap \"one\" is invalid: metadata.uid: Invalid value: \"x\": field is immutable";
    assert_eq!((a.code, a.message()), (422, why), "a patch has no preconditions");
    let a = bed.put(&format!("{path}/one"), json!({"metadata": {"name": "one", "uid": "x"}})).await;
    let why = "StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/one, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x";
    assert!(a.code == 409 && a.message().contains(why), "{}", a.text);
}
