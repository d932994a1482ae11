//! What the controllers make of workloads, on nodes without machines.
use gpuhost_lab::kube::bare;
use serde_json::{Value, json};

use crate::bed::Bed;

const APPS: &str = "/apis/apps/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";

pub async fn with_nodes(n: usize) -> Bed {
    let bed = Bed::running().await;
    for i in 0..n {
        bare::node(&bed.lab, &bed.cluster, &format!("n{i}"));
    }
    bed
}

/// Lets lab time run until `f` holds of the object at `path`.
pub async fn until(bed: &Bed, path: &str, what: &str, f: impl Fn(&Value) -> bool) -> Value {
    let mark = bed.lab.clock().busy_guard();
    let out = held(bed, path, what, f).await;
    drop(mark);
    out
}

/// As `until`, for a caller who holds time from before what it waits for: nothing passes between two looks.
pub async fn held(bed: &Bed, path: &str, what: &str, f: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..600 {
        let a = bed.get(path).await;
        if f(&a.body) {
            return a.body;
        }
        bed.lab.clock().sleep(std::time::Duration::from_secs(1)).await;
    }
    panic!("{path}: never {what}: {:#}", bed.get(path).await.body);
}

fn deployment(name: &str, image: &str, replicas: i64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn available(n: u64) -> impl Fn(&Value) -> bool {
    move |d| {
        d["status"]["availableReplicas"] == n && d["status"]["updatedReplicas"] == n && d["status"]["replicas"] == n
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_keeps_its_limits_and_can_be_undone() {
    let bed = with_nodes(2).await;
    bed.post(&format!("{APPS}/deployments"), deployment("web", "nginx:1", 4)).await;
    let at = format!("{APPS}/deployments/web");
    let d = until(&bed, &at, "available", available(4)).await;
    assert_eq!(d["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    let image = |i: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": i}]}}}});
    bed.patch("strategic", &at, image("nginx:2")).await;
    until(&bed, &at, "rolling", |d| {
        let s = &d["status"];
        assert!(s["replicas"].as_u64() <= Some(5), "maxSurge 25% of 4 is 1: {s}");
        assert!(s["availableReplicas"].as_u64() >= Some(3), "maxUnavailable 25% of 4 is 1: {s}");
        d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2" && available(4)(d)
    })
    .await;
    bed.patch("strategic", &at, image("nginx:1")).await;
    let d = until(&bed, &at, "rolled back", |d| {
        d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3" && available(4)(d)
    })
    .await;
    assert_eq!(d["spec"]["template"]["spec"]["containers"][0]["image"], "nginx:1");
    let sets = bed.get(&format!("{APPS}/replicasets")).await;
    let old = sets.body["items"].as_array().unwrap().iter().filter(|r| r["spec"]["replicas"] == 0).count();
    assert_eq!((sets.body["items"].as_array().unwrap().len(), old), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_deployment_only_scales() {
    let bed = with_nodes(1).await;
    bed.post(&format!("{APPS}/deployments"), deployment("web", "nginx:1", 1)).await;
    let at = format!("{APPS}/deployments/web");
    until(&bed, &at, "available", available(1)).await;
    let change = json!({"spec": {"paused": true, "replicas": 2, "template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}});
    bed.patch("strategic", &at, change).await;
    until(&bed, &at, "scaled", |d| d["status"]["readyReplicas"] == 2).await;
    let sets = bed.get(&format!("{APPS}/replicasets")).await;
    assert_eq!(sets.body["items"].as_array().unwrap().len(), 1, "no new set while it is paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_init_containers_run_first_and_share_volumes() {
    let bed = with_nodes(1).await;
    let mount = json!([{"name": "v", "mountPath": "/data"}]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"restartPolicy": "Never", "volumes": [{"name": "v", "emptyDir": {}}],
        "initContainers": [{"name": "i", "image": "busybox", "command": ["sh", "-c", "sleep 30; echo made > /data/x"], "volumeMounts": mount}],
        "containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c"], "args": ["cat /data/x; echo $WHO; exit 3"],
            "env": [{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}], "volumeMounts": mount}]}});
    bed.post(PODS, pod).await;
    let p = until(&bed, &format!("{PODS}/p"), "ended", |p| p["status"]["phase"] == "Failed").await;
    assert_eq!(p["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    assert_eq!(bed.get(&format!("{PODS}/p/log")).await.text, "made\np\n");
    let a = bed.get(&format!("{PODS}/p/log?container=nope")).await;
    assert_eq!((a.code, a.message()), (400, "container nope is not valid for pod p"));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_retry_and_index() {
    let bed = with_nodes(1).await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = |name: &str, script: &str, more: Value| {
        let mut spec = json!({"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", script]}]}}});
        for (k, v) in more.as_object().unwrap() {
            spec[k] = v.clone();
        }
        json!({"metadata": {"name": name}, "spec": spec})
    };
    bed.post(jobs, job("bad", "exit 1", json!({"backoffLimit": 1}))).await;
    let j = until(&bed, &format!("{jobs}/bad"), "failed", |j| {
        j["status"]["conditions"].as_array().is_some_and(|c| c.iter().any(|c| c["type"] == "Failed"))
    })
    .await;
    assert_eq!(j["status"]["failed"], 2);
    let more = json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed", "ttlSecondsAfterFinished": 60});
    // it is removed a minute after its end
    let mark = bed.lab.clock().busy_guard();
    bed.post(jobs, job("many", "echo $JOB_COMPLETION_INDEX", more)).await;
    let j = held(&bed, &format!("{jobs}/many"), "complete", |j| j["status"]["succeeded"] == 3).await;
    assert_eq!(j["status"]["completedIndexes"], "0-2");
    held(&bed, &format!("{jobs}/many"), "gone", |j| j["code"] == 404).await;
    drop(mark);
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_refuse_evictions() {
    let bed = with_nodes(1).await;
    bed.post(&format!("{APPS}/deployments"), deployment("web", "nginx:1", 2)).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    bed.post(
        budgets,
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}}),
    )
    .await;
    until(&bed, &format!("{APPS}/deployments/web"), "available", available(2)).await;
    let b = until(&bed, &format!("{budgets}/b"), "counted", |b| b["status"]["currentHealthy"] == 2).await;
    assert_eq!(b["status"]["disruptionsAllowed"], 0);
    let pods = bed.get(PODS).await;
    let name = pods.body["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let a = bed.post(&format!("{PODS}/{name}/eviction"), json!({"metadata": {"name": name}})).await;
    assert_eq!((a.code, a.message()), (429, "Cannot evict pod as it would violate the pod's disruption budget."));
    assert_eq!(
        a.body["details"]["causes"][0]["message"],
        "The disruption budget b needs 2 healthy pods and has 2 currently"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_replica_set_has_its_deployments_annotations() {
    let bed = with_nodes(1).await;
    let mut d = deployment("web", "nginx:1", 1);
    d["metadata"]["annotations"] = json!({"kubernetes.io/change-cause": "first"});
    assert_eq!(bed.post(&format!("{APPS}/deployments"), d).await.code, 201);
    let sets = format!("{APPS}/replicasets");
    let notes = |o: &Value| o["items"][0]["metadata"]["annotations"].clone();
    until(&bed, &sets, "annotated", |o| notes(o)["kubernetes.io/change-cause"] == "first").await;
    let more = json!({"why": "because", "kubectl.kubernetes.io/last-applied-configuration": "{}"});
    bed.patch("merge", &format!("{APPS}/deployments/web"), json!({"metadata": {"annotations": more}})).await;
    let seen = until(&bed, &sets, "annotated again", |o| notes(o)["why"] == "because").await;
    assert!(notes(&seen)["kubectl.kubernetes.io/last-applied-configuration"].is_null(), "{seen:#}");
    assert_eq!(seen["items"].as_array().unwrap().len(), 1, "no new rollout");
}
