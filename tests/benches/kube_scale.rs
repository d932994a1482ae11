//! The lab's cluster with 100 to 1,000 nodes and ten pods on each: what starting, reading, changing, watching, verifying
//! and removing them costs, and how that grows. `cargo bench -p gpuhost-tests --bench kube_scale`; `--quick` takes 10,
//! 20 and 40 nodes, `GPUHOST_SCALE=50,100` others.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a measurement reads the clock
#[path = "../../lab/tests/kube/bed.rs"]
#[allow(dead_code)]
mod bed;
#[path = "../../lab/tests/kube/scale.rs"]
mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;

use bed::Bed;
use gpuhost_lab::kube::bare;
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::dialer::Routes;
use gpuhost_stdlib::core::units::Secret;
use gpuhost_stdlib::gpu;
use gpuhost_stdlib::kubernetes::Cluster;
use gpuhost_tests::bed::{SITE, Tape, new_run};
use scale::Times;

const AT: &str = "10.0.0.11";

/// What `verify` asks of the cluster without starting a pod, by our own client over TLS.
async fn verified(bed: &Bed, nodes: usize, t: &mut Times) {
    let kubeconfig = bare::serve(&bed.lab, &bed.cluster, &format!("{AT}:6443")).unwrap();
    let routes = Routes::default();
    let place = format!("{AT}:6443");
    routes.set(place.clone(), bed.places.get(&place).unwrap());
    let site = gpuhost_stdlib::site::load(std::path::Path::new("site.toml"), SITE).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = new_run(&bed.lab, routes, Arc::new(site), BTreeMap::new(), Arc::new(Tape::default()), dir.path());
    let mark = run.clock.busy();
    let ctx = Ctx::new(Arc::new(run));
    let cluster = Cluster::new("bare", Secret::new(kubeconfig), vec![(AT.to_owned(), 6443)]);
    t.add("verify", async {
        let names: Vec<String> = (0..nodes).map(|i| format!("n{i:04}")).collect();
        let wrong = cluster.check_nodes(&ctx, &names, "v1.34.9+k3s1").await.unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        let found = gpu::inventory(&ctx, &cluster).await.unwrap().json();
        assert_eq!(found["allocatable"], nodes);
        let pods = cluster.list_in(&ctx, "pod", "").await.unwrap();
        assert_eq!(pods.len(), nodes * 10);
        let classes = cluster.list_in(&ctx, "storageclass", "").await.unwrap();
        let claims = cluster.list_in(&ctx, "pvc", "").await.unwrap();
        assert!(classes.is_empty() && claims.is_empty());
    })
    .await;
    drop(mark);
}

fn table(sizes: &[usize], all: &[Times]) {
    let head: Vec<String> = sizes.iter().map(|n| format!("{n} nodes")).collect();
    println!("{:<8} {}   time per pod against the first size", "", head.join(" / "));
    for (i, (what, _)) in all[0].0.iter().enumerate() {
        let seconds: Vec<f64> = all.iter().map(|t| t.0[i].1.as_secs_f64()).collect();
        let each: Vec<f64> = seconds.iter().zip(sizes).map(|(s, n)| s / *n as f64).collect();
        let times: Vec<String> = seconds.iter().map(|s| format!("{s:.3} s")).collect();
        let ratios: Vec<String> = each.iter().map(|e| format!("{:.2}", e / each[0].max(1e-9))).collect();
        println!("{what:<8} {}   {}", times.join(" / "), ratios.join(" / "));
    }
}

#[tokio::main]
async fn main() {
    let quick = std::env::args().any(|a| a == "--quick" || a == "--test");
    let default = if quick { "10,20,40" } else { "100,250,500,1000" };
    let asked = std::env::var("GPUHOST_SCALE").unwrap_or_else(|_| default.to_owned());
    let sizes: Vec<usize> = asked.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let mut all = Vec::new();
    for n in &sizes {
        let bed = Bed::running().await;
        let mut times = scale::started(&bed, *n).await;
        verified(&bed, *n, &mut times).await;
        scale::used(&bed, *n, &mut times).await;
        scale::removed(&bed, *n, &mut times).await;
        bed.lab.stop();
        all.push(times);
    }
    table(&sizes, &all);
}
