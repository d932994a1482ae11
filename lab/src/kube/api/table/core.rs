//! Rows of the core group: services, claims, volumes, events and what holds data.
use serde_json::{Value, json};

use super::{AGE, Layout, NAME, Row, number, text, wide};
use crate::kube::schema::Kind;

pub(super) fn layout(kind: &Kind, minor: u32) -> Option<Layout> {
    if !(kind.group.is_empty() || kind.group == "storage.k8s.io") {
        return None;
    }
    Some(match kind.plural.as_str() {
        "services" => Layout {
            columns: vec![
                NAME,
                text("Type"),
                text("Cluster-IP"),
                text("External-IP"),
                text("Port(s)"),
                AGE,
                wide("Selector"),
            ],
            cells: service,
        },
        "persistentvolumeclaims" => Layout {
            columns: vec![
                NAME,
                text("Status"),
                text("Volume"),
                text("Capacity"),
                text("Access Modes"),
                text("StorageClass"),
                text("VolumeAttributesClass"),
                AGE,
                wide("VolumeMode"),
            ],
            cells: claim,
        },
        "persistentvolumes" => Layout {
            columns: vec![
                NAME,
                text("Capacity"),
                text("Access Modes"),
                text("Reclaim Policy"),
                text("Status"),
                text("Claim"),
                text("StorageClass"),
                text("VolumeAttributesClass"),
                text("Reason"),
                AGE,
                wide("VolumeMode"),
            ],
            cells: volume,
        },
        "storageclasses" => Layout {
            columns: vec![
                NAME,
                text("Provisioner"),
                text("ReclaimPolicy"),
                text("VolumeBindingMode"),
                text("AllowVolumeExpansion"),
                AGE,
            ],
            cells: class,
        },
        "events" => Layout {
            columns: vec![
                text("Last Seen"),
                text("Type"),
                text("Reason"),
                text("Object"),
                wide("Subobject"),
                wide("Source"),
                text("Message"),
                wide("First Seen"),
                ("Count", "string", 1),
                ("Name", "string", 1),
            ],
            cells: event,
        },
        "namespaces" => Layout {
            columns: vec![NAME, text("Status"), AGE],
            cells: |r| vec![r.name(), json!(r.or("/status/phase", "Active")), r.age()],
        },
        "configmaps" => Layout {
            columns: vec![NAME, text("Data"), AGE],
            cells: |r| {
                let n = |p| r.at(p).as_object().map_or(0, serde_json::Map::len);
                vec![r.name(), json!(n("/data") + n("/binaryData")), r.age()]
            },
        },
        "secrets" => Layout {
            columns: vec![NAME, text("Type"), text("Data"), AGE],
            cells: |r| {
                let n = r.at("/data").as_object().map_or(0, serde_json::Map::len);
                vec![r.name(), json!(r.or("/type", "Opaque")), json!(n), r.age()]
            },
        },
        "serviceaccounts" if minor >= 35 => Layout { columns: vec![NAME, AGE], cells: |r| vec![r.name(), r.age()] },
        "serviceaccounts" => Layout {
            columns: vec![NAME, number("Secrets"), AGE],
            cells: |r| vec![r.name(), json!(r.list("/secrets").len()), r.age()],
        },
        "endpoints" => Layout {
            columns: vec![NAME, text("Endpoints"), AGE],
            cells: |r| vec![r.name(), json!(endpoints(r)), r.age()],
        },
        "resourcequotas" => Layout { columns: vec![NAME, text("Request"), text("Limit"), AGE], cells: quota },
        "csinodes" => Layout {
            columns: vec![NAME, number("Drivers"), AGE],
            cells: |r| vec![r.name(), json!(r.list("/spec/drivers").len()), r.age()],
        },
        "csidrivers" => Layout {
            columns: vec![
                NAME,
                ("AttachRequired", "boolean", 0),
                ("PodInfoOnMount", "boolean", 0),
                ("StorageCapacity", "boolean", 0),
                text("TokenRequests"),
                ("RequiresRepublish", "boolean", 0),
                text("Modes"),
                AGE,
            ],
            cells: driver,
        },
        _ => return None,
    })
}

fn service(r: &Row<'_>) -> Vec<Value> {
    let ports = r.join("/spec/ports", |p| {
        let node = p["nodePort"].as_u64().filter(|n| *n > 0).map(|n| format!(":{n}")).unwrap_or_default();
        Some(format!("{}{node}/{}", p["port"], p["protocol"].as_str().unwrap_or("TCP")))
    });
    let given = r.join("/spec/externalIPs", |i| i.as_str().map(str::to_owned));
    let balanced = r.join("/status/loadBalancer/ingress", |i| {
        i["ip"].as_str().or_else(|| i["hostname"].as_str()).map(str::to_owned)
    });
    let external = match r.text("/spec/type").as_str() {
        "LoadBalancer" if balanced.is_empty() && given.is_empty() => "<pending>".to_owned(),
        "LoadBalancer" if given.is_empty() => balanced,
        "LoadBalancer" if balanced.is_empty() => given,
        "LoadBalancer" => format!("{balanced},{given}"),
        "ExternalName" => r.text("/spec/externalName"),
        _ if given.is_empty() => "<none>".to_owned(),
        _ => given,
    };
    vec![
        r.name(),
        json!(r.or("/spec/type", "ClusterIP")),
        json!(r.or("/spec/clusterIP", "<none>")),
        json!(external),
        json!(if ports.is_empty() { "<none>".to_owned() } else { ports }),
        r.age(),
        json!(r.selector("/spec/selector")),
    ]
}

fn modes(r: &Row<'_>, at: &str) -> String {
    r.join(at, |m| {
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
    let going = !r.at("/metadata/deletionTimestamp").is_null();
    let bound = !r.text("/spec/volumeName").is_empty();
    vec![
        r.name(),
        json!(if going { "Terminating".to_owned() } else { r.or("/status/phase", "Pending") }),
        json!(r.text("/spec/volumeName")),
        json!(if bound { r.or("/status/capacity/storage", "0") } else { String::new() }),
        json!(if bound { modes(r, "/status/accessModes") } else { String::new() }),
        json!(r.text("/spec/storageClassName")),
        json!(r.or("/spec/volumeAttributesClassName", "<unset>")),
        r.age(),
        json!(r.or("/spec/volumeMode", "Filesystem")),
    ]
}

fn volume(r: &Row<'_>) -> Vec<Value> {
    let (ns, name) = (r.text("/spec/claimRef/namespace"), r.text("/spec/claimRef/name"));
    let claim = if name.is_empty() { String::new() } else { format!("{ns}/{name}") };
    let going = !r.at("/metadata/deletionTimestamp").is_null();
    vec![
        r.name(),
        json!(r.text("/spec/capacity/storage")),
        json!(modes(r, "/spec/accessModes")),
        json!(r.or("/spec/persistentVolumeReclaimPolicy", "Retain")),
        json!(if going { "Terminating".to_owned() } else { r.or("/status/phase", "Pending") }),
        json!(claim),
        json!(r.text("/spec/storageClassName")),
        json!(r.or("/spec/volumeAttributesClassName", "<unset>")),
        json!(r.text("/status/reason")),
        r.age(),
        json!(r.or("/spec/volumeMode", "Filesystem")),
    ]
}

fn class(r: &Row<'_>) -> Vec<Value> {
    let default = r.at("/metadata/annotations/storageclass.kubernetes.io~1is-default-class") == "true";
    vec![
        json!(format!("{}{}", r.text("/metadata/name"), if default { " (default)" } else { "" })),
        json!(r.text("/provisioner")),
        json!(r.or("/reclaimPolicy", "Delete")),
        json!(r.or("/volumeBindingMode", "Immediate")),
        json!(r.at("/allowVolumeExpansion").as_bool().unwrap_or(false)),
        r.age(),
    ]
}

fn event(r: &Row<'_>) -> Vec<Value> {
    let first = |a: &'static str, b: &'static str| if r.text(a).is_empty() { b } else { a };
    let last = match r.text("/series/lastObservedTime").is_empty() {
        false => "/series/lastObservedTime",
        true => first("/lastTimestamp", "/eventTime"),
    };
    let object = format!("{}/{}", r.text("/involvedObject/kind").to_lowercase(), r.text("/involvedObject/name"));
    let told = |a: &str, b: &str| Some(r.text(a)).filter(|t| !t.is_empty()).unwrap_or_else(|| r.text(b));
    let by = told("/source/component", "/reportingComponent");
    let source = match (by, told("/source/host", "/reportingInstance")) {
        (c, h) if h.is_empty() => c,
        (c, h) => format!("{c}, {h}"),
    };
    vec![
        json!(r.since(last)),
        json!(r.text("/type")),
        json!(r.text("/reason")),
        json!(object),
        json!(r.text("/involvedObject/fieldPath")),
        json!(source),
        json!(r.text("/message").trim()),
        json!(r.since(first("/firstTimestamp", "/eventTime"))),
        json!(r.at("/series/count").as_u64().or(r.at("/count").as_u64()).unwrap_or(1)),
        r.name(),
    ]
}

/// Up to three addresses and how many more there are.
fn endpoints(r: &Row<'_>) -> String {
    let mut all: Vec<String> = Vec::new();
    for s in r.list("/subsets") {
        for a in s["addresses"].as_array().into_iter().flatten() {
            let ip = a["ip"].as_str().unwrap_or_default();
            let ports = s["ports"].as_array().into_iter().flatten();
            all.extend(ports.map(|p| format!("{ip}:{}", p["port"])));
        }
    }
    match all.len() {
        0 => "<none>".to_owned(),
        n if n > 3 => format!("{} + {} more...", all[..3].join(","), n - 3),
        _ => all.join(","),
    }
}

fn quota(r: &Row<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let mut hard: Vec<(&String, &Value)> = r.at("/status/hard").as_object().into_iter().flatten().collect();
    hard.sort_by_key(|h| h.0);
    for (k, v) in hard {
        let used = r.at("/status/used").get(k).and_then(Value::as_str).unwrap_or("0").to_owned();
        let line = format!("{k}: {used}/{}", v.as_str().unwrap_or_default());
        if k.starts_with("limits.") { limits.push(line) } else { requests.push(line) }
    }
    vec![r.name(), json!(requests.join(", ")), json!(limits.join(", ")), r.age()]
}

fn driver(r: &Row<'_>) -> Vec<Value> {
    let tokens = r.join("/spec/tokenRequests", |t| t["audience"].as_str().map(str::to_owned));
    let modes = r.join("/spec/volumeLifecycleModes", |m| m.as_str().map(str::to_owned));
    vec![
        r.name(),
        json!(r.at("/spec/attachRequired").as_bool().unwrap_or(true)),
        json!(r.at("/spec/podInfoOnMount").as_bool().unwrap_or(false)),
        json!(r.at("/spec/storageCapacity").as_bool().unwrap_or(false)),
        json!(if tokens.is_empty() { "<unset>".to_owned() } else { tokens }),
        json!(r.at("/spec/requiresRepublish").as_bool().unwrap_or(false)),
        json!(if modes.is_empty() { "<none>".to_owned() } else { modes }),
        r.age(),
    ]
}
