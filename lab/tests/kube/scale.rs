//! Large clusters: time to start, list, watch, verify and remove pods, which has to grow with their number and no
//! faster. The test takes a small one; the measurement is the bench `kube_scale` of the crate gpuhost-tests.
use std::time::{Duration, Instant};

use gpuhost_lab::kube::bare;
use serde_json::{Value, json};

use crate::bed::Bed;

/// Pods of a namespace.
const SHARE: usize = 100;

/// What was measured, in order.
pub struct Times(pub Vec<(&'static str, Duration)>);

impl Times {
    pub async fn add<T>(&mut self, what: &'static str, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let out = work.await;
        self.0.push((what, begun.elapsed()));
        out
    }
}

fn workload(kind: &str, name: &str, ns: &str, replicas: usize) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [
            {"name": "c", "image": "nginx:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}}});
    if kind == "Deployment" {
        spec["replicas"] = json!(replicas);
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": ns}, "spec": spec})
}

/// Lets lab time run until `count` pods are Running.
async fn running(bed: &Bed, count: usize) {
    for _ in 0..900 {
        let a = bed.get("/api/v1/pods?fieldSelector=status.phase%3DRunning&limit=1").await;
        let ready = bed.lab.with(|w| {
            let pods = w.clusters[&bed.cluster].store.all("pods", "");
            pods.filter(|p| p["status"]["phase"] == "Running").count()
        });
        assert_eq!(a.code, 200);
        if ready >= count {
            return;
        }
        let mark = bed.lab.clock().busy_guard();
        bed.lab.clock().sleep(Duration::from_secs(1)).await;
        drop(mark);
    }
    panic!("not all of {count} pods run");
}

/// A cluster of `nodes` nodes with ten pods each, one of them a daemon's; what has been measured until all run.
pub async fn started(bed: &Bed, nodes: usize) -> Times {
    let mut t = Times(Vec::new());
    let pods = nodes * 9;
    t.add("nodes", async {
        for i in 0..nodes {
            bare::node(&bed.lab, &bed.cluster, &format!("n{i:04}"));
        }
    })
    .await;
    t.add("start", async {
        let ds = workload("DaemonSet", "agent", "kube-system", 0);
        assert_eq!(bed.post("/apis/apps/v1/namespaces/kube-system/daemonsets", ds).await.code, 201);
        for i in 0..pods.div_ceil(SHARE) {
            let ns = format!("team{i:03}");
            assert_eq!(bed.post("/api/v1/namespaces", json!({"metadata": {"name": ns}})).await.code, 201);
            let d = workload("Deployment", "web", &ns, SHARE.min(pods - i * SHARE));
            assert_eq!(bed.post(&format!("/apis/apps/v1/namespaces/{ns}/deployments"), d).await.code, 201);
        }
        running(bed, nodes * 10).await;
    })
    .await;
    t
}

/// Reads of the whole, a change of every pod, and a watch that tells them all.
pub async fn used(bed: &Bed, nodes: usize, t: &mut Times) {
    // from the list on in one instant of lab time: what the window of watches keeps is a matter of age
    let mark = bed.lab.clock().busy_guard();
    let all = t.add("list", async { bed.get("/api/v1/pods").await.body }).await;
    let items = all["items"].as_array().unwrap();
    assert_eq!(items.len(), nodes * 10);
    t.add("pages", async {
        let (mut seen, mut next) = (0, String::new());
        loop {
            let page = bed.get(&format!("/api/v1/pods?limit=500&continue={next}")).await.body;
            seen += page["items"].as_array().unwrap().len();
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => token.clone_into(&mut next),
                _ => break,
            }
        }
        assert_eq!(seen, nodes * 10);
    })
    .await;
    let rv = all["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    t.add("change", async {
        for p in items {
            let (ns, name) = (p["metadata"]["namespace"].as_str().unwrap(), p["metadata"]["name"].as_str().unwrap());
            let body = json!({"metadata": {"labels": {"seen": "yes"}}});
            let a = bed.patch("merge", &format!("/api/v1/namespaces/{ns}/pods/{name}"), body).await;
            assert_eq!(a.code, 200, "{}", a.text);
        }
    })
    .await;
    t.add("watch", async {
        let at = format!("/api/v1/pods?watch=1&resourceVersion={rv}&timeoutSeconds=1&labelSelector=seen%3Dyes");
        let said = bed.get(&at).await.text;
        let first = said.lines().next().unwrap_or_default();
        assert_eq!(said.lines().count(), nodes * 10, "{}", first.chars().take(300).collect::<String>());
    })
    .await;
    drop(mark);
    let mut addresses: Vec<&str> = items.iter().filter_map(|p| p["status"]["podIP"].as_str()).collect();
    addresses.sort_unstable();
    let count = addresses.len();
    addresses.dedup();
    assert_eq!(addresses.len(), count, "no two pods have one address");
}

/// Every namespace goes, with what is in it.
pub async fn removed(bed: &Bed, nodes: usize, t: &mut Times) {
    t.add("remove", async {
        for i in 0..(nodes * 9).div_ceil(SHARE) {
            bed.delete(&format!("/api/v1/namespaces/team{i:03}"), Value::Null).await;
        }
        for _ in 0..900 {
            let left = bed.lab.with(|w| w.clusters[&bed.cluster].store.all("pods", "").count());
            if left == nodes {
                return;
            }
            let mark = bed.lab.clock().busy_guard();
            bed.lab.clock().sleep(Duration::from_secs(1)).await;
            drop(mark);
        }
        panic!("pods are left");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_some_nodes_starts_lists_watches_and_ends() {
    let bed = Bed::running().await;
    let mut times = started(&bed, 12).await;
    used(&bed, 12, &mut times).await;
    removed(&bed, 12, &mut times).await;
    assert_eq!(times.0.len(), 7);
}
