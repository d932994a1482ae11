//! What controllers make of nodes, quotas, slices and hashes that a client sees.
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::controllers::{until, with_nodes};

const CORE: &str = "/api/v1/namespaces/default";
const APPS: &str = "/apis/apps/v1/namespaces/default";

fn taints(n: &Value) -> Vec<&str> {
    n["spec"]["taints"].as_array().into_iter().flatten().map(|t| t["key"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_node_is_tainted_until_it_takes_pods_again() {
    let bed = with_nodes(1).await;
    let at = "/api/v1/nodes/n0";
    bed.patch("merge", at, json!({"spec": {"unschedulable": true}})).await;
    let n = until(&bed, at, "tainted", |n| taints(n) == ["node.kubernetes.io/unschedulable"]).await;
    assert!(n["spec"]["taints"][0]["timeAdded"].is_string(), "{n}");
    bed.patch("merge", at, json!({"spec": {"unschedulable": null}})).await;
    until(&bed, at, "free", |n| n["spec"]["taints"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_is_tainted_until_it_is_ready() {
    let bed = Bed::running().await;
    let ready = |status: &str| json!({"conditions": [{"type": "Ready", "status": status}]});
    let a = bed.post("/api/v1/nodes", json!({"metadata": {"name": "w"}, "status": ready("False")})).await;
    assert_eq!(taints(&a.body), ["node.kubernetes.io/not-ready"]);
    let status = json!({"status": ready("True")});
    assert_eq!(bed.patch("merge", "/api/v1/nodes/w/status", status).await.code, 200);
    until(&bed, "/api/v1/nodes/w", "free", |n| n["spec"]["taints"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_hundred_pods_are_in_several_slices() {
    let bed = with_nodes(1).await;
    let labels = json!({"app": "many"});
    let port = json!([{"port": 80}]);
    bed.post(
        &format!("{CORE}/services"),
        json!({"metadata": {"name": "many"}, "spec": {"selector": labels, "ports": port}}),
    )
    .await;
    let d = json!({"metadata": {"name": "many"}, "spec": {"replicas": 120, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}});
    bed.post(&format!("{APPS}/deployments"), d).await;
    let at =
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name%3Dmany";
    let sizes = |l: &Value| -> Vec<usize> {
        let mut all: Vec<usize> =
            l["items"].as_array().unwrap().iter().map(|s| s["endpoints"].as_array().map_or(0, Vec::len)).collect();
        all.sort_unstable();
        all
    };
    until(&bed, at, "two slices", |l| sizes(l) == [20, 100]).await;
    let scale = json!({"spec": {"replicas": 30}});
    bed.patch("merge", &format!("{APPS}/deployments/many/scale"), scale).await;
    until(&bed, at, "one slice", |l| sizes(l) == [30]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn template_hashes_are_numbers_in_letters() {
    let bed = with_nodes(1).await;
    let labels = json!({"app": "h"});
    let d = json!({"metadata": {"name": "h"}, "spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}});
    bed.post(&format!("{APPS}/deployments"), d).await;
    let l = until(&bed, &format!("{APPS}/replicasets"), "a set", |l| !l["items"][0].is_null()).await;
    let hash = l["items"][0]["metadata"]["labels"]["pod-template-hash"].as_str().unwrap();
    assert!(hash.len() <= 10 && hash.chars().all(|c| "456789bcdf".contains(c)), "{hash}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_quota_counts_goes_down_again() {
    let bed = Bed::running().await;
    let quota =
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/configmaps": "9", "services.nodeports": "1"}}});
    assert_eq!(bed.post(&format!("{CORE}/resourcequotas"), quota).await.code, 201);
    let count = |q: &Value| q["status"]["used"]["count/configmaps"].as_str().map(str::to_owned);
    let at = format!("{CORE}/resourcequotas/q");
    let before = until(&bed, &at, "counted", |q| count(q).is_some()).await;
    bed.config_map("a", json!({})).await;
    assert_ne!(count(&bed.get(&at).await.body), count(&before), "counted at once");
    let ports = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"name": "a", "port": 1},
        {"name": "b", "port": 2}]}});
    let a = bed.post(&format!("{CORE}/services"), ports).await;
    assert!(a.code == 403 && a.message().contains("requested: services.nodeports=2"), "{}", a.text);
    bed.delete(&format!("{CORE}/configmaps/a"), Value::Null).await;
    until(&bed, &at, "counted again", |q| count(q) == count(&before)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_node_that_is_gone_are_collected() {
    let bed = with_nodes(2).await;
    let pods = format!("{CORE}/pods");
    let bound = |name: &str, node: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "nginx:1"}]}});
    let mark = bed.lab.clock().busy_guard();
    assert_eq!(bed.post(&pods, bound("a", "n1")).await.code, 201);
    let a = bed.post(&pods, bound("b", "never")).await;
    assert_eq!(a.code, 201, "{}", a.text);
    assert_eq!(bed.post(&pods, bound("stays", "n0")).await.code, 201);
    // no kubelet has seen the other one
    let b = bed.get(&format!("{pods}/b")).await.body;
    assert_eq!((&b["status"]["phase"], &b["status"]["startTime"]), (&json!("Pending"), &Value::Null), "{b:#}");
    drop(mark);
    until(&bed, &format!("{pods}/a"), "running", |p| p["status"]["phase"] == "Running").await;
    let version = b["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    assert_eq!(bed.delete("/api/v1/nodes/n1", json!({})).await.code, 200);
    until(&bed, &format!("{pods}/a"), "collected", |p| p["code"] == 404).await;
    until(&bed, &format!("{pods}/b"), "collected", |p| p["code"] == 404).await;
    assert_eq!(bed.get(&format!("{pods}/stays")).await.body["status"]["phase"], "Running");
    let watched = bed.get(&format!("{pods}?watch=true&timeoutSeconds=1&resourceVersion={version}")).await.text;
    let events = watched.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    let last: Vec<Value> = events.filter(|e| e["type"] == "DELETED").map(|e| e["object"]["status"].clone()).collect();
    assert_eq!(last.len(), 2, "{watched}");
    for status in last {
        let why = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
        assert_eq!((&status["phase"], &why["reason"]), (&json!("Failed"), &json!("DeletionByPodGC")), "{status:#}");
        assert_eq!(why["message"], "PodGC: node no longer exists");
    }
    let events = bed.get("/api/v1/namespaces/default/events?fieldSelector=reason%3DRemovingNode").await.body;
    assert_eq!(events["items"][0]["message"], "Node n1 event: Removing Node n1 from Controller", "{events:#}");
}
