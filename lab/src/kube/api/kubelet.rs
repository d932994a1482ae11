//! What a node's kubelet serves beside its pods' streams, through `/api/v1/nodes/NAME/proxy`: its health, its pods, what
//! they use. Grade: docs for the forms; the amounts are those of `kubectl top` (estimate).
use http::Response;
use serde_json::{Value, json};

use super::metrics::{node_usage, usage};
use super::{Body, text};
use crate::kube::controllers::pods;
use crate::kube::store::meta;
use crate::kube::text::{arr, milli, s};

/// A node, as far as its kubelet tells of it.
pub(super) struct Told {
    /// The Node.
    pub node: Value,
    /// The pods that are bound to it.
    pub pods: Vec<Value>,
    /// What the machine uses: thousandths of a core, KiB.
    pub used: (i64, i64),
    /// Now, in milliseconds.
    pub now_ms: u64,
}

/// What a kubelet knows of itself.
pub(super) fn told(c: &crate::kube::state::Cluster, node: &Value, now_ms: u64) -> Told {
    let here = |p: &&std::sync::Arc<Value>| p["spec"]["nodeName"] == node["metadata"]["name"];
    let pods = c.store.all("pods", "").filter(here).map(|p| (**p).clone()).collect();
    Told { node: node.clone(), pods, used: node_usage(&c.store, node), now_ms }
}

/// Serves a path of the kubelet.
pub(super) fn serve(t: &Told, path: &str) -> Response<Body> {
    let plain = "text/plain; charset=utf-8";
    let json = |v: &Value| text(200, "application/json", v.to_string().into_bytes());
    match path {
        "healthz" => text(200, plain, b"ok".to_vec()),
        "pods" | "runningpods" => {
            let runs = |p: &&Value| path == "pods" || p["status"]["phase"] == "Running";
            let items: Vec<&Value> = t.pods.iter().filter(runs).collect();
            json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
        }
        "stats/summary" => json(&summary(t)),
        "metrics/resource" => text(200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", resource(t)),
        _ => text(404, plain, b"404 page not found\n".to_vec()),
    }
}

/// Seconds since a time.
fn since(t: &Told, time: &Value) -> i64 {
    let at = time.as_str().and_then(meta::parse_time).unwrap_or(t.now_ms);
    i64::try_from(t.now_ms.saturating_sub(at) / 1000).unwrap_or(0)
}

fn cpu(time: &str, cores: i64, seconds: i64) -> Value {
    json!({"time": time, "usageNanoCores": cores * 1_000_000, "usageCoreNanoSeconds": cores * 1_000_000 * seconds})
}

fn memory(time: &str, kib: i64, whole: Option<i64>) -> Value {
    let bytes = kib * 1024;
    let mut m = json!({"time": time, "usageBytes": bytes, "workingSetBytes": bytes, "rssBytes": bytes * 7 / 10,
        "pageFaults": 0, "majorPageFaults": 0});
    if let Some(whole) = whole {
        m["availableBytes"] = json!(whole - bytes);
    }
    m
}

/// A container: its name, its start, thousandths of a core and KiB.
type Used<'a> = (&'a Value, Value, (i64, i64));

/// What a metric says of a container: its pod, its start, what it uses.
type Row<'a> = &'a dyn Fn(&Value, &Value, &(i64, i64)) -> String;

/// The ready pods with their containers' starts and amounts.
fn running(t: &Told) -> impl Iterator<Item = (&Value, Vec<Used<'_>>)> {
    t.pods.iter().filter(|p| pods::is_ready(p)).map(|p| {
        let start = |name: &Value| {
            let all = arr(p, "/status/containerStatuses").iter().find(|s| s["name"] == *name);
            all.map(|s| s["state"]["running"]["startedAt"].clone()).unwrap_or_default()
        };
        (p, arr(p, "/spec/containers").iter().map(|c| (&c["name"], start(&c["name"]), usage(p, c))).collect())
    })
}

fn summary(t: &Told) -> Value {
    let now = meta::time(t.now_ms);
    let up = since(t, &t.node["metadata"]["creationTimestamp"]);
    let of_pod = |(p, all): (&Value, Vec<Used<'_>>)| {
        let sum = all.iter().fold((0, 0), |sum, x| (sum.0 + x.2.0, sum.1 + x.2.1));
        let containers: Vec<Value> = all
            .iter()
            .map(|(name, start, used)| {
                json!({"name": name, "startTime": start, "cpu": cpu(&now, used.0, since(t, start)),
                    "memory": memory(&now, used.1, None)})
            })
            .collect();
        let reference = json!({"name": p["metadata"]["name"], "namespace": p["metadata"]["namespace"],
            "uid": p["metadata"]["uid"]});
        let start = &p["status"]["startTime"];
        json!({"podRef": reference, "startTime": start, "containers": containers, "cpu": cpu(&now, sum.0, since(t, start)),
            "memory": memory(&now, sum.1, None)})
    };
    let whole = milli(&t.node["status"]["capacity"]["memory"]) / 1000;
    let node = json!({"nodeName": t.node["metadata"]["name"], "startTime": t.node["metadata"]["creationTimestamp"],
        "cpu": cpu(&now, t.used.0, up), "memory": memory(&now, t.used.1, Some(whole))});
    json!({"node": node, "pods": running(t).map(of_pod).collect::<Vec<_>>()})
}

/// The metrics that metrics-server reads.
fn resource(t: &Told) -> Vec<u8> {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: Vec<String>| {
        out += &format!("# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n");
        rows.iter().for_each(|r| out += &format!("{name}{r}\n"));
    };
    let seconds = |cores: i64, s: i64| format!("{:.3}", cores as f64 * s as f64 / 1000.0);
    let of = |p: &Value| format!("namespace=\"{}\",pod=\"{}\"", s(p, "/metadata/namespace"), s(p, "/metadata/name"));
    let now = t.now_ms;
    let each = |row: Row<'_>| -> Vec<String> {
        let rows = running(t).flat_map(|(p, all)| {
            let lines: Vec<String> = all
                .iter()
                .map(|(name, start, used)| format!("{{container={name},{}}} {}", of(p), row(p, start, used)))
                .collect();
            lines
        });
        rows.collect()
    };
    let pods = |row: &dyn Fn(&Value, (i64, i64)) -> String| -> Vec<String> {
        let sum = |all: &[Used<'_>]| all.iter().fold((0, 0), |n, x| (n.0 + x.2.0, n.1 + x.2.1));
        running(t).map(|(p, all)| format!("{{{}}} {}", of(p), row(p, sum(&all)))).collect()
    };
    let used = each(&|_, start, u| format!("{} {now}", seconds(u.0, since(t, start))));
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        used,
    );
    let held = each(&|_, _, u| format!("{} {now}", u.1 * 1024));
    family("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes", held);
    let began = each(&|_, start, _| (i64::try_from(now / 1000).unwrap_or(0) - since(t, start)).to_string());
    family("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds", began);
    let up = since(t, &t.node["metadata"]["creationTimestamp"]);
    let node = vec![format!(" {} {now}", seconds(t.used.0, up))];
    family("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds", node);
    let node = vec![format!(" {} {now}", t.used.1 * 1024)];
    family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes", node);
    let all = pods(&|p, u| format!("{} {now}", seconds(u.0, since(t, &p["status"]["startTime"]))));
    family("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds", all);
    let all = pods(&|_, u| format!("{} {now}", u.1 * 1024));
    family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", all);
    family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
        vec![" 0".into()],
    );
    out.into_bytes()
}
