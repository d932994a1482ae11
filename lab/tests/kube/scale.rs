//! Large clusters: time to start, list, watch and remove pods, which has to grow with their number and no faster.
//!
//! The whole, about four minutes: `cargo test --workspace --test kube scale -- --ignored --nocapture`
//! (`GPUHOST_SCALE=100,200` names other numbers of nodes; ten pods for each).
#![allow(clippy::print_stdout)] // the table of the measurement
use std::time::{Duration, Instant};

use gpuhost_lab::kube::bare;
use serde_json::{Value, json};

use crate::bed::Bed;

/// Pods of a namespace.
const SHARE: usize = 100;

/// What was measured, in the order of the table.
struct Times(Vec<(&'static str, Duration)>);

impl Times {
    async fn add<T>(&mut self, what: &'static str, work: impl Future<Output = T>) -> T {
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

/// A cluster of `nodes` nodes with ten pods each, one of them a daemon's.
async fn measure(nodes: usize) -> Times {
    let bed = Bed::running().await;
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
        running(&bed, nodes * 10).await;
    })
    .await;
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
        assert_eq!(bed.get(&at).await.text.lines().count(), nodes * 10);
    })
    .await;
    t.add("remove", async {
        for i in 0..pods.div_ceil(SHARE) {
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
    let mut addresses: Vec<&str> = items.iter().filter_map(|p| p["status"]["podIP"].as_str()).collect();
    addresses.sort_unstable();
    let count = addresses.len();
    addresses.dedup();
    assert_eq!(addresses.len(), count, "no two pods have one address");
    t
}

fn table(sizes: &[usize], all: &[Times]) {
    let head: Vec<String> = sizes.iter().map(|n| format!("{n} nodes")).collect();
    println!("{:<8} {:>12}  per pod, first = 1", "", head.join(" / "));
    for (i, (what, _)) in all[0].0.iter().enumerate() {
        let seconds: Vec<f64> = all.iter().map(|t| t.0[i].1.as_secs_f64()).collect();
        let each: Vec<f64> = seconds.iter().zip(sizes).map(|(s, n)| s / *n as f64).collect();
        let times: Vec<String> = seconds.iter().map(|s| format!("{s:.2} s")).collect();
        let ratios: Vec<String> = each.iter().map(|e| format!("{:.2}", e / each[0].max(1e-9))).collect();
        println!("{what:<8} {:>12}  {}", times.join(" / "), ratios.join(" / "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_some_nodes_starts_lists_watches_and_ends() {
    let times = measure(12).await;
    assert_eq!(times.0.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; prints how time grows with the number of nodes and pods"]
async fn scale() {
    let asked = std::env::var("GPUHOST_SCALE").unwrap_or_else(|_| "250,500,1000".to_owned());
    let sizes: Vec<usize> = asked.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let mut all = Vec::new();
    for n in &sizes {
        all.push(measure(*n).await);
    }
    table(&sizes, &all);
}
