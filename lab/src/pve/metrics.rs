//! Metric servers of the cluster and the export of its figures: `/cluster/metrics…`.
use serde_json::{Value, json};

use super::nodes;
use super::params::{Params, b, config_id, delete, digest as digest_param, e, n, range, req, short, t};
use super::reply::{ApiError, Reply, data, null};
use super::router::{Call, subdirs};
use super::sections::{digest, fill, unchanged};
use super::state::Row;
use crate::world::World;
use gpuhost_stdlib::wire::pve::props::Prop;

const TABLE: &str = "metrics/server";
const KINDS_9: &[&str] = &["graphite", "influxdb", "opentelemetry"];
const KINDS_8: &[&str] = &["graphite", "influxdb"];
const FIELDS: &[Prop] = &[
    t("api-path-prefix"),
    t("bucket"),
    b("disable"),
    e("influxdbproto", &["udp", "http", "https"]),
    range("max-body-size", 1, i64::MAX),
    range("mtu", 512, 65_536),
    t("organization"),
    t("path"),
    range("port", 1, 65_536),
    e("proto", &["udp", "tcp"]),
    t("server"),
    n("timeout"),
    t("token"),
    b("verify-certificate"),
];
const ONLY_9: &[Prop] = &[
    e("otel-compression", &["none", "gzip"]),
    short("otel-headers", 1024),
    range("otel-max-body-size", 1024, i64::MAX),
    t("otel-path"),
    e("otel-protocol", &["http", "https"]),
    short("otel-resource-attributes", 1024),
    range("otel-timeout", 1, 10),
    b("otel-verify-ssl"),
];

fn fields(w: &World) -> Vec<Prop> {
    if w.pve.is_8() { FIELDS.to_vec() } else { [FIELDS, ONLY_9].concat() }
}

fn view(id: &str, row: &Row) -> Value {
    let mut v = json!({ "id": id });
    for (k, x) in row.iter().filter(|(k, _)| *k != "token") {
        v[k] = x.clone();
    }
    v
}

/// Handles `/cluster/metrics…`.
///
/// # Errors
/// The server's refusal.
pub fn route(w: &mut World, c: &Call, method: &str, path: &[&str]) -> Reply {
    let who = c.who()?.clone();
    if path.is_empty() && method == "GET" {
        let names: &[&str] = if w.pve.is_8() { &["server"] } else { &["export", "server"] };
        return data(subdirs("name", names));
    }
    w.pve.need(&who, "/", if method == "GET" { "Sys.Audit" } else { "Sys.Modify" })?;
    match (method, path) {
        ("GET", ["server"]) => {
            c.params.check(&[])?;
            data(w.pve.table(TABLE).iter().map(|(id, r)| view(id, r)).collect::<Vec<Value>>())
        }
        (_, ["server", id]) => server(w, &c.params, method, id).unwrap_or_else(|| Err(c.unknown())),
        ("GET", ["export"]) => {
            c.params.check(&[b("history"), b("local-only"), t("node-list"), n("start-time")])?;
            data(json!({ "data": export(w) }))
        }
        _ => Err(c.unknown()),
    }
}

fn server(w: &mut World, p: &Params, method: &str, id: &str) -> Option<Reply> {
    if let Err(why) = config_id(id) {
        return Some(Err(ApiError::param("id", why)));
    }
    let now = digest(w.pve.table(TABLE));
    let fields = fields(w);
    let missing = || ApiError::fail(format!("status server entry '{id}' does not exist"));
    let kinds = if w.pve.is_8() { KINDS_8 } else { KINDS_9 };
    let work = |w: &mut World| match method {
        "GET" => {
            p.check(&[])?;
            data(view(id, w.pve.table(TABLE).get(id).ok_or_else(missing)?))
        }
        "POST" => {
            let mut spec: Vec<Prop> = fields.clone();
            spec.push(req(e("type", kinds)));
            for f in spec.iter_mut().filter(|f| matches!(f.name, "server" | "port")) {
                f.required = true;
            }
            p.check(&spec)?;
            if w.pve.table(TABLE).contains_key(id) {
                return Err(ApiError::fail(format!(
                    "create metric server failed: Metric server '{id}' already exists"
                )));
            }
            let mut row = Row::from([("type".to_owned(), json!(p.text("type")))]);
            fill(&mut row, p, &fields)?;
            w.pve.put_row(TABLE, id, row);
            null()
        }
        "PUT" => {
            let mut spec = fields.clone();
            spec.extend([digest_param(), delete()]);
            for f in spec.iter_mut().filter(|f| matches!(f.name, "server" | "port")) {
                f.required = true;
            }
            p.check(&spec)?;
            unchanged(p, &now)?;
            let mut row = w.pve.table(TABLE).get(id).cloned().ok_or_else(missing)?;
            fill(&mut row, p, &fields)?;
            w.pve.put_row(TABLE, id, row);
            null()
        }
        _ => {
            p.check(&[])?;
            w.pve.drop_row(TABLE, id);
            null()
        }
    };
    matches!(method, "GET" | "POST" | "PUT" | "DELETE").then(|| work(w))
}

/// The figures of nodes and running machines as they are now.
fn export(w: &World) -> Vec<Value> {
    let now = w.now_ms / 1000;
    let gauge = |id: &str, metric: &str, value: &Value| json!({ "id": id, "metric": metric, "timestamp": now, "type": "gauge", "value": value });
    let mut out = Vec::new();
    for node in w.pve.nodes.keys().filter(|n| !w.pve.offline.contains(*n)) {
        let id = format!("node/{node}");
        let names = [
            ("maxcpu", "cpu_max"),
            ("cpu", "cpu_current"),
            ("maxmem", "mem_total"),
            ("mem", "mem_used"),
            ("maxdisk", "disk_total"),
            ("disk", "disk_used"),
            ("uptime", "uptime"),
        ];
        for (k, v) in nodes::figures(w, node) {
            if let Some((_, metric)) = names.iter().find(|(n, _)| *n == k) {
                out.push(gauge(&id, metric, &v));
            }
        }
    }
    for (vmid, vm) in w.pve.vms.iter().filter(|(_, v)| v.run.is_some()) {
        let id = format!("qemu/{vmid}");
        let memory = super::qemu::conf::memory_mib(&vm.conf) << 20;
        let uptime = vm.run.as_ref().map_or(0, |r| w.now_ms.saturating_sub(r.since_ms) / 1000);
        out.push(gauge(&id, "cpu_max", &json!(super::qemu::conf::cpus(&vm.conf))));
        out.push(gauge(&id, "mem_total", &json!(memory)));
        out.push(gauge(&id, "uptime", &json!(uptime)));
    }
    out
}
