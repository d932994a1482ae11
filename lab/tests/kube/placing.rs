//! Where pods go when several nodes would do, why they leave, and how claims and volumes find each other, as recorded from
//! a real control plane 1.36.2.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::bed::{Bed, made};
use crate::controllers::{until, with_nodes};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";

async fn label(bed: &Bed, node: &str, labels: Value) {
    let a = bed.patch("merge", &format!("/api/v1/nodes/{node}"), json!({"metadata": {"labels": labels}})).await;
    assert_eq!(a.code, 200, "{}", a.text);
}

/// Makes a pod and says where it went.
async fn placed(bed: &Bed, name: &str, app: &str, more: Value) -> String {
    let mut spec = json!({"containers": [{"name": "c", "image": "nginx:1"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    made(bed, PODS, json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": spec})).await;
    let p = until(bed, &format!("{PODS}/{name}"), "placed", |p| p["spec"]["nodeName"].is_string()).await;
    p["spec"]["nodeName"].as_str().unwrap().to_owned()
}

fn near(kind: &str, app: &str, key: &str) -> Value {
    let term = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key});
    json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_decide_among_the_nodes_that_would_do() {
    let bed = with_nodes(3).await;
    for (node, zone) in [("n0", "a"), ("n1", "a"), ("n2", "b")] {
        label(&bed, node, json!({"zone": zone})).await;
    }
    let pinned = |node: &str| json!({"nodeSelector": {"kubernetes.io/hostname": node}});
    let first = placed(&bed, "db", "db", pinned("n0")).await;
    assert_eq!(first, "n0");
    for i in 0..3 {
        assert_eq!(
            placed(&bed, &format!("near{i}"), "x", near("podAffinity", "db", "kubernetes.io/hostname")).await,
            "n0"
        );
        assert_eq!(placed(&bed, &format!("far{i}"), "y", near("podAntiAffinity", "db", "zone")).await, "n2");
    }
    let like = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n0"]}]}}]}}});
    assert_eq!(placed(&bed, "likes", "z", like).await, "n0");
    // spread as far as it goes: zone b has as many as zone a
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "s"}}}]});
    let mut zones: BTreeMap<bool, usize> = BTreeMap::new();
    for i in 0..4 {
        *zones.entry(placed(&bed, &format!("s{i}"), "s", spread.clone()).await == "n2").or_default() += 1;
    }
    assert_eq!(zones, BTreeMap::from([(false, 2), (true, 2)]));
    // a node that asks to be left alone is taken last
    let soft = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    for node in ["n1", "n2"] {
        bed.patch("merge", &format!("/api/v1/nodes/{node}"), soft.clone()).await;
    }
    assert_eq!(placed(&bed, "calm", "c", json!({})).await, "n0");
    // pods of a set go to different nodes
    bed.patch("merge", "/api/v1/nodes/n1", json!({"spec": {"taints": []}})).await;
    bed.patch("merge", "/api/v1/nodes/n2", json!({"spec": {"taints": []}})).await;
    let template =
        json!({"metadata": {"labels": {"app": "r"}}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}});
    let spec = json!({"replicas": 6, "selector": {"matchLabels": {"app": "r"}}, "template": template});
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    made(&bed, sets, json!({"metadata": {"name": "r"}, "spec": spec})).await;
    until(&bed, &format!("{sets}/r"), "ready", |r| r["status"]["readyReplicas"] == 6).await;
    let l = bed.get(&format!("{PODS}?labelSelector=app%3Dr")).await.body;
    let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
    for p in l["items"].as_array().unwrap() {
        *nodes.entry(p["spec"]["nodeName"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(nodes, BTreeMap::from([("n0", 2), ("n1", 2), ("n2", 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_says_why_it_is_evicted_and_a_wide_toleration_needs_no_others() {
    let bed = with_nodes(1).await;
    placed(&bed, "p", "p", json!({"tolerations": [{"operator": "Exists"}]})).await;
    let p = until(&bed, &format!("{PODS}/p"), "running", |p| p["status"]["phase"] == "Running").await;
    assert_eq!(p["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    let held = json!({"metadata": {"finalizers": ["example.com/held"]}});
    bed.patch("merge", &format!("{PODS}/p"), held).await;
    assert_eq!(bed.post(&format!("{PODS}/p/eviction"), json!({"metadata": {"name": "p"}})).await.code, 201);
    let p = bed.get(&format!("{PODS}/p")).await.body;
    let why = p["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&why["reason"], &why["message"]), (&json!("EvictionByEvictionAPI"), &json!("Eviction API: evicting")));
    // its containers end, but it stays as long as somebody holds it
    let p = until(&bed, &format!("{PODS}/p"), "ended", |p| p["status"]["phase"] == "Succeeded").await;
    assert_eq!(p["metadata"]["deletionGracePeriodSeconds"], 0);
    bed.patch("merge", &format!("{PODS}/p"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(bed.get(&format!("{PODS}/p")).await.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_volumes_say_who_brought_them_together() {
    let bed = with_nodes(1).await;
    let volume = json!({"metadata": {"name": "a"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "storageClassName": "by-hand", "hostPath": {"path": "/tmp/a"}}});
    made(&bed, VOLUMES, volume).await;
    let claim = |name: &str, class: &str, volume: Value| {
        json!({"metadata": {"name": name}, "spec": {"storageClassName": class, "volumeName": volume,
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "500Mi"}}}})
    };
    made(&bed, CLAIMS, claim("c", "by-hand", Value::Null)).await;
    let c = until(&bed, &format!("{CLAIMS}/c"), "bound", |c| c["status"]["phase"] == "Bound").await;
    let yes = json!({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"});
    assert_eq!(c["metadata"]["annotations"], yes);
    let v = bed.get(&format!("{VOLUMES}/a")).await.body;
    assert_eq!(v["metadata"]["annotations"], json!({"pv.kubernetes.io/bound-by-controller": "yes"}));
    assert!(
        v["status"]["lastPhaseTransitionTime"].is_string() && v["spec"]["claimRef"]["resourceVersion"].is_string(),
        "{v}"
    );
    // nobody makes one without a class; one that names its volume waits in silence
    made(&bed, CLAIMS, claim("none", "", Value::Null)).await;
    made(&bed, CLAIMS, claim("named", "", json!("nowhere"))).await;
    for name in ["none", "named"] {
        until(&bed, &format!("{CLAIMS}/{name}"), "waits", |c| c["status"]["phase"] == "Pending").await;
    }
    let about = |l: &Value| -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let all = l["items"].as_array().into_iter().flatten();
        all.filter(|e| e["involvedObject"]["kind"] == "PersistentVolumeClaim")
            .map(|e| (text(&e["involvedObject"]["name"]), format!("{} {}", text(&e["type"]), text(&e["reason"]))))
            .collect()
    };
    let l = until(&bed, "/api/v1/namespaces/default/events", "told", |l| !about(l).is_empty()).await;
    assert_eq!(about(&l), [("none".to_owned(), "Normal FailedBinding".to_owned())]);
    bed.delete(&format!("{CLAIMS}/c"), json!({})).await;
    until(&bed, &format!("{VOLUMES}/a"), "released", |v| v["status"]["phase"] == "Released").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spread_counts_the_nodes_that_it_is_told_to() {
    let bed = with_nodes(2).await;
    let spread = |policy: Value| {
        let mut c = json!({"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "s"}}});
        for (k, v) in policy.as_object().unwrap() {
            c[k] = v.clone();
        }
        json!({"nodeSelector": {"kubernetes.io/hostname": "n0"}, "topologySpreadConstraints": [c]})
    };
    for name in ["a", "b"] {
        assert_eq!(placed(&bed, name, "s", spread(json!({}))).await, "n0", "the only node that it wants");
    }
    let mut spec = spread(json!({"nodeAffinityPolicy": "Ignore"}));
    spec["containers"] = json!([{"name": "c", "image": "nginx:1"}]);
    made(&bed, PODS, json!({"metadata": {"name": "all", "labels": {"app": "s"}}, "spec": spec})).await;
    let why = until(&bed, &format!("{PODS}/all"), "refused", |p| !p["status"]["conditions"].is_null()).await;
    let why = why["status"]["conditions"][0]["message"].as_str().unwrap().to_owned();
    assert!(why.contains("1 node(s) didn't match pod topology spread constraints"), "{why}");
    // a node that nobody may go to is not missed, where taints are honoured
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    bed.patch("merge", "/api/v1/nodes/n1", taint).await;
    let both = json!({"nodeAffinityPolicy": "Ignore", "nodeTaintsPolicy": "Honor"});
    assert_eq!(placed(&bed, "c", "s", spread(both)).await, "n0");
}
