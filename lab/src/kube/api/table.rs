//! Tables: kubectl's columns for the kinds people list.
use std::sync::Arc;

use serde_json::{Value, json};

use super::read::partial;
use crate::kube::schema::Kind;
use crate::kube::store::meta;

/// `3m12s`, `5h`, `12d`, as kubectl writes ages.
#[must_use]
pub fn age(ms: u64) -> String {
    let s = ms / 1000;
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    let two = |big: u64, unit: &str, small: u64, sub: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{sub}") }
    };
    match s {
        0..120 => format!("{s}s"),
        120..600 => two(m, "m", s % 60, "s"),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => two(h, "h", m % 60, "m"),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => two(d, "d", h % 24, "h"),
        _ => format!("{d}d"),
    }
}

struct Row<'a> {
    o: &'a Value,
    now: u64,
}

impl Row<'_> {
    fn at(&self, p: &str) -> &Value {
        self.o.pointer(p).unwrap_or(&Value::Null)
    }
    fn text(&self, p: &str) -> String {
        match self.at(p) {
            Value::String(s) => s.clone(),
            Value::Null => String::new(),
            v => v.to_string(),
        }
    }
    fn or(&self, p: &str, none: &str) -> String {
        let t = self.text(p);
        if t.is_empty() { none.to_owned() } else { t }
    }
    fn n(&self, p: &str) -> u64 {
        self.at(p).as_u64().unwrap_or(0)
    }
    fn age(&self) -> String {
        self.since("/metadata/creationTimestamp")
    }
    fn since(&self, p: &str) -> String {
        meta::parse_time(&self.text(p)).map_or_else(|| "<unknown>".to_owned(), |t| age(self.now.saturating_sub(t)))
    }
    fn join(&self, p: &str, f: impl Fn(&Value) -> Option<String>) -> String {
        self.at(p).as_array().into_iter().flatten().filter_map(f).collect::<Vec<_>>().join(",")
    }
    fn selector(&self, p: &str) -> String {
        let list: Vec<String> = self
            .at(p)
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        if list.is_empty() { "<none>".to_owned() } else { list.join(",") }
    }
    fn containers(&self) -> [Value; 2] {
        let p = "/spec/template/spec/containers";
        [
            json!(self.join(p, |c| c["name"].as_str().map(str::to_owned))),
            json!(self.join(p, |c| c["image"].as_str().map(str::to_owned))),
        ]
    }
    fn address(&self, kind: &str) -> String {
        let list = self.at("/status/addresses").as_array().into_iter().flatten();
        list.filter(|a| a["type"] == kind).find_map(|a| a["address"].as_str()).unwrap_or("<none>").to_owned()
    }
}

/// Name of a column and its priority (1: only with `-o wide`).
type Column = (&'static str, u8);

fn node(r: &Row<'_>) -> Vec<Value> {
    let ready = r.at("/status/conditions").as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    let mut status = match ready.and_then(|c| c["status"].as_str()) {
        Some("True") => "Ready".to_owned(),
        Some("False") => "NotReady".to_owned(),
        _ => "Unknown".to_owned(),
    };
    if status == "Unknown" {
        status = "NotReady".to_owned();
    }
    if r.at("/spec/unschedulable") == true {
        status += ",SchedulingDisabled";
    }
    let mut roles: Vec<&str> = r
        .at("/metadata/labels")
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    roles.sort_unstable();
    let roles = if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") };
    let info = |f: &str| json!(r.text(&format!("/status/nodeInfo/{f}")));
    vec![
        json!(r.text("/metadata/name")),
        json!(status),
        json!(roles),
        json!(r.age()),
        info("kubeletVersion"),
        json!(r.address("InternalIP")),
        json!(r.address("ExternalIP")),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn pod(r: &Row<'_>) -> Vec<Value> {
    let list = r.at("/status/containerStatuses").as_array().cloned().unwrap_or_default();
    let total = r.at("/spec/containers").as_array().map_or(0, Vec::len);
    let ready = list.iter().filter(|c| c["ready"] == true).count();
    let restarts: u64 = list.iter().filter_map(|c| c["restartCount"].as_u64()).sum();
    let mut status = r.or("/status/reason", &r.or("/status/phase", "Unknown"));
    let init = r.at("/status/initContainerStatuses").as_array().cloned().unwrap_or_default();
    let initialising =
        init.iter().position(|c| c["state"]["terminated"]["exitCode"].as_i64() != Some(0) && c["ready"] != true);
    if let Some(i) = initialising {
        let n = r.at("/spec/initContainers").as_array().map_or(0, Vec::len);
        status = match init[i]["state"]["waiting"]["reason"].as_str() {
            Some(why) if why != "PodInitializing" => format!("Init:{why}"),
            _ => format!("Init:{i}/{n}"),
        };
    } else {
        for c in &list {
            if let Some(why) =
                c["state"]["waiting"]["reason"].as_str().or_else(|| c["state"]["terminated"]["reason"].as_str())
            {
                why.clone_into(&mut status);
            }
        }
    }
    if !r.at("/metadata/deletionTimestamp").is_null() {
        status = "Terminating".to_owned();
    }
    vec![
        json!(r.text("/metadata/name")),
        json!(format!("{ready}/{total}")),
        json!(status),
        json!(restarts.to_string()),
        json!(r.age()),
        json!(r.or("/status/podIP", "<none>")),
        json!(r.or("/spec/nodeName", "<none>")),
        json!(r.or("/status/nominatedNodeName", "<none>")),
        json!("<none>"),
    ]
}

fn workload(r: &Row<'_>) -> Vec<Value> {
    let mut out = vec![
        json!(r.text("/metadata/name")),
        json!(format!("{}/{}", r.n("/status/readyReplicas"), r.at("/spec/replicas").as_u64().unwrap_or(1))),
        json!(r.n("/status/updatedReplicas")),
        json!(r.n("/status/availableReplicas")),
        json!(r.age()),
    ];
    out.extend(r.containers());
    out.push(json!(r.selector("/spec/selector/matchLabels")));
    out
}

fn daemon_set(r: &Row<'_>) -> Vec<Value> {
    let n = |f: &str| json!(r.n(&format!("/status/{f}")));
    let mut out = vec![
        json!(r.text("/metadata/name")),
        n("desiredNumberScheduled"),
        n("currentNumberScheduled"),
        n("numberReady"),
        n("updatedNumberScheduled"),
        n("numberAvailable"),
        json!(r.selector("/spec/template/spec/nodeSelector")),
        json!(r.age()),
    ];
    out.extend(r.containers());
    out.push(json!(r.selector("/spec/selector/matchLabels")));
    out
}

fn stateful_set(r: &Row<'_>) -> Vec<Value> {
    let want = r.at("/spec/replicas").as_u64().unwrap_or(1);
    let mut out = vec![
        json!(r.text("/metadata/name")),
        json!(format!("{}/{want}", r.n("/status/readyReplicas"))),
        json!(r.age()),
    ];
    out.extend(r.containers());
    out
}

fn job(r: &Row<'_>) -> Vec<Value> {
    let want = r.at("/spec/completions").as_u64().unwrap_or(1);
    let done = |t: &str| {
        r.at("/status/conditions").as_array().into_iter().flatten().any(|c| c["type"] == t && c["status"] == "True")
    };
    let status = if done("Complete") {
        "Complete"
    } else if done("Failed") {
        "Failed"
    } else if r.at("/spec/suspend") == true {
        "Suspended"
    } else {
        "Running"
    };
    let (a, b) = (meta::parse_time(&r.text("/status/startTime")), meta::parse_time(&r.text("/status/completionTime")));
    let duration = a.map(|a| age(b.unwrap_or(r.now).saturating_sub(a))).unwrap_or_default();
    let mut out = vec![
        json!(r.text("/metadata/name")),
        json!(status),
        json!(format!("{}/{want}", r.n("/status/succeeded"))),
        json!(duration),
        json!(r.age()),
    ];
    out.extend(r.containers());
    out.push(json!(r.selector("/spec/selector/matchLabels")));
    out
}

fn service(r: &Row<'_>) -> Vec<Value> {
    let ports = r.join("/spec/ports", |p| {
        let node = p["nodePort"].as_u64().map(|n| format!(":{n}")).unwrap_or_default();
        Some(format!("{}{node}/{}", p["port"], p["protocol"].as_str().unwrap_or("TCP")))
    });
    let external = r.join("/status/loadBalancer/ingress", |i| i["ip"].as_str().map(str::to_owned));
    let external = match (r.text("/spec/type").as_str(), external.is_empty()) {
        (_, false) => external,
        ("LoadBalancer", true) => "<pending>".to_owned(),
        _ => "<none>".to_owned(),
    };
    vec![
        json!(r.text("/metadata/name")),
        json!(r.or("/spec/type", "ClusterIP")),
        json!(r.or("/spec/clusterIP", "<none>")),
        json!(external),
        json!(if ports.is_empty() { "<none>".to_owned() } else { ports }),
        json!(r.age()),
        json!(r.selector("/spec/selector")),
    ]
}

fn modes(r: &Row<'_>) -> String {
    r.join("/spec/accessModes", |m| {
        Some(match m.as_str()? {
            "ReadWriteOnce" => "RWO".to_owned(),
            "ReadWriteMany" => "RWX".to_owned(),
            "ReadOnlyMany" => "ROX".to_owned(),
            "ReadWriteOncePod" => "RWOP".to_owned(),
            other => other.to_owned(),
        })
    })
}

fn claim(r: &Row<'_>) -> Vec<Value> {
    let status = if r.at("/metadata/deletionTimestamp").is_null() {
        r.or("/status/phase", "Pending")
    } else {
        "Terminating".to_owned()
    };
    vec![
        json!(r.text("/metadata/name")),
        json!(status),
        json!(r.text("/spec/volumeName")),
        json!(r.text("/status/capacity/storage")),
        json!(if r.text("/spec/volumeName").is_empty() { String::new() } else { modes(r) }),
        json!(r.text("/spec/storageClassName")),
        json!("<unset>"),
        json!(r.age()),
        json!(r.or("/spec/volumeMode", "Filesystem")),
    ]
}

fn volume(r: &Row<'_>) -> Vec<Value> {
    let (ns, name) = (r.text("/spec/claimRef/namespace"), r.text("/spec/claimRef/name"));
    let claim = if name.is_empty() { String::new() } else { format!("{ns}/{name}") };
    vec![
        json!(r.text("/metadata/name")),
        json!(r.text("/spec/capacity/storage")),
        json!(modes(r)),
        json!(r.or("/spec/persistentVolumeReclaimPolicy", "Retain")),
        json!(r.or("/status/phase", "Pending")),
        json!(claim),
        json!(r.text("/spec/storageClassName")),
        json!("<unset>"),
        json!(r.text("/status/reason")),
        json!(r.age()),
        json!(r.or("/spec/volumeMode", "Filesystem")),
    ]
}

fn class(r: &Row<'_>) -> Vec<Value> {
    let default = r.at("/metadata/annotations/storageclass.kubernetes.io~1is-default-class") == "true";
    let name = format!("{}{}", r.text("/metadata/name"), if default { " (default)" } else { "" });
    vec![
        json!(name),
        json!(r.text("/provisioner")),
        json!(r.or("/reclaimPolicy", "Delete")),
        json!(r.or("/volumeBindingMode", "Immediate")),
        json!(r.at("/allowVolumeExpansion").as_bool().unwrap_or(false)),
        json!(r.age()),
    ]
}

fn event(r: &Row<'_>) -> Vec<Value> {
    let last = if r.text("/lastTimestamp").is_empty() { "/eventTime" } else { "/lastTimestamp" };
    let object = format!("{}/{}", r.text("/involvedObject/kind").to_lowercase(), r.text("/involvedObject/name"));
    vec![
        json!(r.since(last)),
        json!(r.text("/type")),
        json!(r.text("/reason")),
        json!(object),
        json!(r.text("/message")),
        json!(r.text("/source/component")),
        json!(r.since("/firstTimestamp")),
        json!(r.at("/count").as_u64().unwrap_or(1)),
        json!(r.text("/metadata/name")),
    ]
}

type Cells = fn(&Row<'_>) -> Vec<Value>;

fn layout(kind: &Kind) -> (&'static [Column], Cells) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "nodes") => (
            &[
                ("Name", 0),
                ("Status", 0),
                ("Roles", 0),
                ("Age", 0),
                ("Version", 0),
                ("Internal-IP", 1),
                ("External-IP", 1),
                ("OS-Image", 1),
                ("Kernel-Version", 1),
                ("Container-Runtime", 1),
            ],
            node,
        ),
        ("", "pods") => (
            &[
                ("Name", 0),
                ("Ready", 0),
                ("Status", 0),
                ("Restarts", 0),
                ("Age", 0),
                ("IP", 1),
                ("Node", 1),
                ("Nominated Node", 1),
                ("Readiness Gates", 1),
            ],
            pod,
        ),
        ("apps", "deployments") => (
            &[
                ("Name", 0),
                ("Ready", 0),
                ("Up-to-date", 0),
                ("Available", 0),
                ("Age", 0),
                ("Containers", 1),
                ("Images", 1),
                ("Selector", 1),
            ],
            workload,
        ),
        ("apps", "daemonsets") => (
            &[
                ("Name", 0),
                ("Desired", 0),
                ("Current", 0),
                ("Ready", 0),
                ("Up-to-date", 0),
                ("Available", 0),
                ("Node Selector", 0),
                ("Age", 0),
                ("Containers", 1),
                ("Images", 1),
                ("Selector", 1),
            ],
            daemon_set,
        ),
        ("apps", "statefulsets") => {
            (&[("Name", 0), ("Ready", 0), ("Age", 0), ("Containers", 1), ("Images", 1)], stateful_set)
        }
        ("batch", "jobs") => (
            &[
                ("Name", 0),
                ("Status", 0),
                ("Completions", 0),
                ("Duration", 0),
                ("Age", 0),
                ("Containers", 1),
                ("Images", 1),
                ("Selector", 1),
            ],
            job,
        ),
        ("", "services") => (
            &[
                ("Name", 0),
                ("Type", 0),
                ("Cluster-IP", 0),
                ("External-IP", 0),
                ("Port(s)", 0),
                ("Age", 0),
                ("Selector", 1),
            ],
            service,
        ),
        ("", "persistentvolumeclaims") => (
            &[
                ("Name", 0),
                ("Status", 0),
                ("Volume", 0),
                ("Capacity", 0),
                ("Access Modes", 0),
                ("StorageClass", 0),
                ("VolumeAttributesClass", 0),
                ("Age", 0),
                ("VolumeMode", 1),
            ],
            claim,
        ),
        ("", "persistentvolumes") => (
            &[
                ("Name", 0),
                ("Capacity", 0),
                ("Access Modes", 0),
                ("Reclaim Policy", 0),
                ("Status", 0),
                ("Claim", 0),
                ("StorageClass", 0),
                ("VolumeAttributesClass", 0),
                ("Reason", 0),
                ("Age", 0),
                ("VolumeMode", 1),
            ],
            volume,
        ),
        ("storage.k8s.io", "storageclasses") => (
            &[
                ("Name", 0),
                ("Provisioner", 0),
                ("ReclaimPolicy", 0),
                ("VolumeBindingMode", 0),
                ("AllowVolumeExpansion", 0),
                ("Age", 0),
            ],
            class,
        ),
        ("", "events") => (
            &[
                ("Last Seen", 0),
                ("Type", 0),
                ("Reason", 0),
                ("Object", 0),
                ("Message", 0),
                ("Source", 1),
                ("First Seen", 1),
                ("Count", 1),
                ("Name", 1),
            ],
            event,
        ),
        ("", "namespaces") => (&[("Name", 0), ("Status", 0), ("Age", 0)], |r| {
            vec![json!(r.text("/metadata/name")), json!(r.or("/status/phase", "Active")), json!(r.age())]
        }),
        ("", "configmaps") => (&[("Name", 0), ("Data", 0), ("Age", 0)], |r| {
            let n = r.at("/data").as_object().map_or(0, serde_json::Map::len)
                + r.at("/binaryData").as_object().map_or(0, serde_json::Map::len);
            vec![json!(r.text("/metadata/name")), json!(n), json!(r.age())]
        }),
        ("", "secrets") => (&[("Name", 0), ("Type", 0), ("Data", 0), ("Age", 0)], |r| {
            vec![
                json!(r.text("/metadata/name")),
                json!(r.or("/type", "Opaque")),
                json!(r.at("/data").as_object().map_or(0, serde_json::Map::len)),
                json!(r.age()),
            ]
        }),
        ("coordination.k8s.io", "leases") => (&[("Name", 0), ("Holder", 0), ("Age", 0)], |r| {
            vec![json!(r.text("/metadata/name")), json!(r.text("/spec/holderIdentity")), json!(r.age())]
        }),
        _ => (&[("Name", 0), ("Created At", 0)], |r| {
            vec![json!(r.text("/metadata/name")), json!(r.text("/metadata/creationTimestamp"))]
        }),
    }
}

/// Columns of a custom kind: its printer columns between name and age.
fn custom(kind: &Kind, r: &Row<'_>) -> Vec<Value> {
    let mut out = vec![json!(r.text("/metadata/name"))];
    for c in &kind.columns {
        let path = c["jsonPath"].as_str().unwrap_or_default().replace('.', "/");
        let shown = if c["type"] == "date" { r.since(&path) } else { r.text(&path) };
        out.push(json!(shown));
    }
    if !kind.columns.iter().any(|c| c["name"] == "Age") {
        out.push(json!(r.age()));
    }
    out
}

/// A Table of these objects; `headed`: with column definitions.
#[must_use]
pub fn of(kind: &Kind, items: &[Arc<Value>], rv: &str, now: u64, headed: bool) -> Value {
    let (columns, cells) = layout(kind);
    let mut heads: Vec<Value> = columns
        .iter()
        .map(|(n, p)| json!({"name": n, "type": "string", "format": if *n == "Name" { "name" } else { "" }, "description": "", "priority": p}))
        .collect();
    if kind.custom {
        heads = vec![json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0})];
        heads.extend(kind.columns.iter().map(|c| {
            json!({"name": c["name"], "type": c["type"], "format": "", "description": "", "priority": c["priority"].as_u64().unwrap_or(0)})
        }));
        if !kind.columns.iter().any(|c| c["name"] == "Age") {
            heads.push(json!({"name": "Age", "type": "date", "format": "", "description": "", "priority": 0}));
        }
    }
    let rows: Vec<Value> = items
        .iter()
        .map(|o| {
            let r = Row { o, now };
            let cells = if kind.custom { custom(kind, &r) } else { cells(&r) };
            json!({"cells": cells, "object": partial(o)})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": rv},
        "columnDefinitions": if headed { json!(heads) } else { json!([]) }, "rows": rows,
    })
}
