//! The Proxmox API with ten, a hundred and a thousand VMs: what a request costs, and how that grows.
//! `cargo bench --workspace --bench pve_scale`; `-- --quick` takes few samples.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a measurement reads the clock
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gpuhost_lab::pve::PveEvent;
use gpuhost_lab::spec::{ForeignVm, Spec};
use gpuhost_lab::world::{Event, World};
use gpuhost_lab::{Lab, RouteSink};
use gpuhost_stdlib::core::clock::Mode;

#[derive(Default)]
struct Seen(Mutex<Vec<(String, SocketAddr)>>);

impl RouteSink for Seen {
    fn up(&self, addr: &str, at: SocketAddr) {
        self.0.lock().unwrap().push((addr.to_owned(), at));
    }
    fn down(&self, _: &str) {}
}

struct Server {
    _lab: Lab,
    _dir: tempfile::TempDir,
    http: reqwest::Client,
    url: String,
    auth: String,
}

async fn server(vms: u32) -> Server {
    let mut spec = Spec::homelab().unwrap();
    spec.storages[1].size_gib = 1 << 20;
    for vmid in 1000..1000 + vms {
        spec.foreign_vms.push(ForeignVm {
            vmid,
            name: format!("vm{vmid}"),
            node: "pve1".into(),
            storage: "local-zfs".into(),
            disk_gib: 8,
            description: String::new(),
            running: vmid % 2 == 0,
        });
    }
    let mut world = World::new(&spec).unwrap();
    let pool = world.pve.pools.entry("half".into()).or_default();
    pool.vms = (1000..1000 + vms / 2).collect();
    let auth = format!("PVEAPIToken={}={}", spec.token_id, world.token_secret(&spec.token_id).unwrap());
    let ca = world.pve.ca.cert.clone();
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Seen::default());
    let lab = Lab::start(world, dir.path(), Mode::Scaled(1.0), seen.clone()).await.unwrap();
    let at = seen.0.lock().unwrap().iter().find(|r| r.0 == spec.api_addr).unwrap().1;
    let http = reqwest::Client::builder()
        .add_root_certificate(reqwest::Certificate::from_pem(ca.as_bytes()).unwrap())
        .build()
        .unwrap();
    Server { _lab: lab, _dir: dir, http, url: format!("https://127.0.0.1:{}/api2/json", at.port()), auth }
}

/// The median of some requests, one after the other.
async fn median(s: &Server, path: &str, n: usize) -> Duration {
    let mut all = Vec::new();
    for _ in 0..n {
        let start = Instant::now();
        let r = s.http.get(format!("{}{path}", s.url)).header("authorization", &s.auth).send().await.unwrap();
        assert!(r.status().is_success(), "{path}: {}", r.status());
        let _ = r.bytes().await.unwrap();
        all.push(start.elapsed());
    }
    all.sort();
    all[all.len() / 2]
}

/// Requests per second of several clients at once.
async fn load(s: &Arc<Server>, path: &'static str, clients: usize, each: usize) -> f64 {
    let start = Instant::now();
    let work: Vec<_> = (0..clients)
        .map(|_| {
            let s = s.clone();
            tokio::spawn(async move { median(&s, path, each).await })
        })
        .collect();
    for w in work {
        w.await.unwrap();
    }
    (clients * each) as f64 / start.elapsed().as_secs_f64()
}

/// Nanoseconds per event that is scheduled and taken, with so many pending.
fn queue(pending: u64) -> u128 {
    let mut w = World::new(&Spec::homelab().unwrap()).unwrap();
    let event = || Event::Pve(PveEvent::Ha);
    for i in 0..pending {
        w.schedule(1_000_000 + i, event());
    }
    let n = 2000;
    let start = Instant::now();
    for i in 0..n {
        w.schedule(i, event());
    }
    w.now_ms += n;
    while let Some(event) = w.pop_due() {
        std::hint::black_box(event);
    }
    start.elapsed().as_nanos() / u128::from(n)
}

#[tokio::main]
async fn main() {
    let quick = std::env::args().any(|a| a == "--quick" || a == "--test");
    let n = if quick { 3 } else { 40 };
    rustls::crypto::ring::default_provider().install_default().ok();
    let sizes = [10, 100, 1000];
    let mut servers = Vec::new();
    for n in sizes {
        servers.push(Arc::new(server(n).await));
    }
    println!("{:<40} {:>10} {:>10} {:>10} {:>12}", "request", "10 VMs", "100 VMs", "1,000 VMs", "100 -> 1,000");
    for path in [
        "/version",
        "/cluster/resources",
        "/cluster/resources?type=vm",
        "/nodes/pve1/qemu",
        "/cluster/nextid",
        "/pools?poolid=half",
        "/nodes/pve1/storage/local-zfs/content",
        "/nodes/pve1/qemu/100/config",
    ] {
        let mut took = Vec::new();
        for s in &servers {
            took.push(median(s, path, n).await);
        }
        // Ten times as many VMs cost at most ten times as much: it is linear.
        let growth = took[2].as_secs_f64() / took[1].as_secs_f64();
        println!("{path:<40} {:>10.1?} {:>10.1?} {:>10.1?} {growth:>11.1}x", took[0], took[1], took[2]);
    }
    let many = servers.remove(2);
    let rate = load(&many, "/cluster/resources?type=vm", 8, n).await;
    println!("cluster/resources of 1,000 VMs, 8 clients at once: {rate:.0} requests/s");
    let (a, b) = (queue(100), queue(100_000));
    println!("event queue: {a} ns each with 100 pending, {b} ns with 100,000");
}
