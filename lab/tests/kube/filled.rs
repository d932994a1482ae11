//! What the server fills into objects by itself, kind by kind.
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::refused::CORE;

async fn filled(bed: &Bed, path: &str, body: Value) -> Value {
    let a = bed.post(&format!("{path}?dryRun=All"), body).await;
    assert_eq!(a.code, 201, "{path}: {}", a.text);
    a.body
}

#[tokio::test]
async fn pods_and_their_volumes() {
    let bed = Bed::still().await;
    let get = json!({"httpGet": {"port": 80}});
    let volumes = json!([{"name": "d", "downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        {"name": "i", "iscsi": {"targetPortal": "1.2.3.4", "iqn": "iqn.2001-04.com.example:x", "lun": 0}},
        {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}}}]);
    let spec = json!({"hostNetwork": true, "volumes": volumes, "containers": [{"name": "c", "image": "nginx:1.27",
        "lifecycle": {"preStop": get}, "readinessProbe": {"grpc": {"port": 90}}, "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1"}}}]});
    let pod = filled(&bed, &format!("{CORE}/pods"), json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let c = &pod["spec"]["containers"][0];
    assert_eq!(c["lifecycle"]["preStop"]["httpGet"], json!({"port": 80, "path": "/", "scheme": "HTTP"}));
    assert_eq!(c["readinessProbe"]["grpc"], json!({"port": 90, "service": ""}));
    assert_eq!((&c["ports"][0]["hostPort"], &c["resources"]["requests"]["cpu"]), (&json!(80), &json!("1")));
    let v = |i: usize| &pod["spec"]["volumes"][i];
    assert_eq!(v(0)["downwardAPI"]["defaultMode"], 420);
    assert_eq!(v(0)["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(v(1)["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
    assert_eq!(v(2)["iscsi"]["iscsiInterface"], "default");
    assert_eq!(v(3)["ephemeral"]["volumeClaimTemplate"]["spec"]["volumeMode"], "Filesystem");
    // templates get what all have, and not what only pods have
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": spec});
    let rc = filled(
        &bed,
        &format!("{CORE}/replicationcontrollers"),
        json!({"metadata": {"name": "r"}, "spec": {"template": template}}),
    )
    .await;
    assert_eq!((&rc["spec"]["replicas"], &rc["spec"]["selector"]), (&json!(1), &json!({"a": "b"})));
    assert_eq!(rc["metadata"]["labels"], json!({"a": "b"}));
    let c = &rc["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&c["terminationMessagePolicy"], &c["resources"]["requests"]), (&json!("File"), &Value::Null));
    assert_eq!(c["ports"][0].get("hostPort"), None);
}

#[tokio::test]
async fn sets_and_jobs() {
    let bed = Bed::still().await;
    let claim = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let set = json!({"metadata": {"name": "s"}, "spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
        "template": template, "volumeClaimTemplates": [claim]}});
    let set = filled(&bed, "/apis/apps/v1/namespaces/default/statefulsets", set).await;
    assert_eq!(set["spec"]["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    let claim = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!((&claim["kind"], &claim["status"]["phase"]), (&json!("PersistentVolumeClaim"), &json!("Pending")));
    let job = |spec: Value| {
        let mut job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "x"}]}}}});
        for (k, v) in spec.as_object().unwrap() {
            job["spec"][k] = v.clone();
        }
        job
    };
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let plain = filled(&bed, jobs, job(json!({}))).await;
    assert_eq!((&plain["spec"]["completions"], &plain["spec"]["manualSelector"]), (&json!(1), &json!(false)));
    assert_eq!(plain["metadata"]["labels"]["job-name"], "j");
    let wide = filled(&bed, jobs, job(json!({"parallelism": 3}))).await;
    assert_eq!(wide["spec"].get("completions"), None);
    let own = json!({"completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}});
    let own = filled(&bed, jobs, job(own)).await;
    assert_eq!(
        (&own["spec"]["backoffLimit"], &own["spec"]["podReplacementPolicy"]),
        (&json!(2_147_483_647), &json!("Failed"))
    );
    assert_eq!(own["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
}

#[tokio::test]
async fn services_and_networks() {
    let bed = Bed::still().await;
    let service = |spec: Value| json!({"metadata": {"name": "s"}, "spec": spec});
    let services = format!("{CORE}/services");
    let s = filled(
        &bed,
        &services,
        service(json!({"sessionAffinity": "ClientIP", "externalIPs": ["1.2.3.4"], "ports": [{"port": 80}]})),
    )
    .await;
    assert_eq!(s["spec"]["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10_800}}));
    assert_eq!(s["spec"]["externalTrafficPolicy"], "Cluster");
    let s = filled(&bed, &services, service(json!({"type": "ExternalName", "externalName": "a.b"}))).await;
    assert_eq!(s["spec"].get("internalTrafficPolicy"), None);
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let s = filled(&bed, &services, service(local)).await;
    assert!(s["spec"]["healthCheckNodePort"].as_u64().is_some_and(|p| (30_000..32_768).contains(&p)), "{s}");
    let net = "/apis/networking.k8s.io/v1";
    let policy =
        json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}});
    let p = filled(&bed, &format!("{net}/namespaces/default/networkpolicies"), policy).await;
    assert_eq!(p["spec"]["ingress"][0]["ports"][0]["protocol"], "TCP");
    let slice = json!({"metadata": {"name": "d"}, "addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4"]}], "ports": [{"port": 80}]});
    let s = filled(&bed, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    assert_eq!(s["ports"][0], json!({"port": 80, "name": "", "protocol": "TCP"}));
    assert_eq!(s["metadata"]["generation"], 1);
}

#[tokio::test]
async fn bounds_and_scalers() {
    let bed = Bed::still().await;
    let limits = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"memory": "1Mi"}}]}});
    let l = filled(&bed, &format!("{CORE}/limitranges"), limits).await;
    assert_eq!(l["spec"]["limits"][0]["default"], json!({"cpu": "1"}));
    assert_eq!(l["spec"]["limits"][0]["defaultRequest"], json!({"cpu": "1", "memory": "1Mi"}));
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}});
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let h = filled(&bed, path, scaler.clone()).await;
    assert_eq!(
        (&h["spec"]["minReplicas"], &h["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"]),
        (&json!(1), &json!(80))
    );
    let down = json!({"stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]});
    assert_eq!(h["spec"]["behavior"]["scaleDown"], down);
    let mut old = scaler;
    old["spec"].as_object_mut().unwrap().remove("behavior");
    let h = filled(&bed, &path.replace("v2", "v1"), old).await;
    assert_eq!(h["spec"]["targetCPUUtilizationPercentage"], 80);
    let driver =
        filled(&bed, "/apis/storage.k8s.io/v1/csidrivers", json!({"metadata": {"name": "a.b"}, "spec": {}})).await;
    assert_eq!(
        (&driver["spec"]["attachRequired"], &driver["spec"]["fsGroupPolicy"]),
        (&json!(true), &json!("ReadWriteOnceWithFSType"))
    );
}
