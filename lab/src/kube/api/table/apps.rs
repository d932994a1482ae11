//! Rows of workloads: Deployments, sets, Jobs, autoscalers, budgets.
use serde_json::{Value, json};

use super::{AGE, Layout, NAME, Row, age, number, text, wide};
use crate::kube::schema::Kind;
use crate::kube::store::meta;

pub(super) fn layout(kind: &Kind) -> Option<Layout> {
    Some(match (kind.group.as_str(), kind.plural.as_str()) {
        _ if kind.kind == "Scale" => Layout {
            columns: vec![NAME, number("Desired"), number("Available"), AGE],
            cells: |r| vec![r.name(), json!(r.n("/spec/replicas")), json!(r.n("/status/replicas")), r.age()],
        },
        ("apps", "deployments") => Layout {
            columns: vec![
                NAME,
                text("Ready"),
                text("Up-to-date"),
                text("Available"),
                AGE,
                wide("Containers"),
                wide("Images"),
                wide("Selector"),
            ],
            cells: deployment,
        },
        ("apps", "replicasets") | ("", "replicationcontrollers") => Layout {
            columns: vec![
                NAME,
                number("Desired"),
                number("Current"),
                number("Ready"),
                AGE,
                wide("Containers"),
                wide("Images"),
                wide("Selector"),
            ],
            cells: replica_set,
        },
        ("apps", "daemonsets") => Layout {
            columns: vec![
                NAME,
                number("Desired"),
                number("Current"),
                number("Ready"),
                number("Up-to-date"),
                number("Available"),
                text("Node Selector"),
                AGE,
                wide("Containers"),
                wide("Images"),
                wide("Selector"),
            ],
            cells: daemon_set,
        },
        ("apps", "statefulsets") => {
            Layout { columns: vec![NAME, text("Ready"), AGE, wide("Containers"), wide("Images")], cells: stateful_set }
        }
        ("apps", "controllerrevisions") => {
            Layout { columns: vec![NAME, text("Controller"), text("Revision"), AGE], cells: revision }
        }
        ("batch", "jobs") => Layout {
            columns: vec![
                NAME,
                text("Status"),
                text("Completions"),
                text("Duration"),
                AGE,
                wide("Containers"),
                wide("Images"),
                wide("Selector"),
            ],
            cells: job,
        },
        ("batch", "cronjobs") => Layout {
            columns: vec![
                NAME,
                text("Schedule"),
                text("Timezone"),
                ("Suspend", "boolean", 0),
                number("Active"),
                text("Last Schedule"),
                AGE,
                wide("Containers"),
                wide("Images"),
                wide("Selector"),
            ],
            cells: cron_job,
        },
        ("autoscaling", "horizontalpodautoscalers") => Layout {
            columns: vec![
                NAME,
                text("Reference"),
                text("Targets"),
                text("MinPods"),
                text("MaxPods"),
                text("Replicas"),
                AGE,
            ],
            cells: autoscaler,
        },
        ("policy", "poddisruptionbudgets") => Layout {
            columns: vec![NAME, text("Min Available"), text("Max Unavailable"), number("Allowed Disruptions"), AGE],
            cells: budget,
        },
        _ => return None,
    })
}

/// A label selector of a spec as text.
fn selector(r: &Row<'_>) -> Value {
    let full = r.at("/spec/template").is_null() || !r.at("/spec/selector/matchLabels").is_null();
    let plain = r.selector(if full || !r.at("/spec/selector/matchExpressions").is_null() {
        "/spec/selector/matchLabels"
    } else {
        "/spec/selector"
    });
    let more = r.join("/spec/selector/matchExpressions", |e| {
        let values: Vec<&str> = e["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let key = e["key"].as_str()?;
        Some(match e["operator"].as_str()? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        })
    });
    json!(match (plain.as_str(), more.as_str()) {
        (p, "") => p.to_owned(),
        ("<none>", m) => m.to_owned(),
        (p, m) => format!("{p},{m}"),
    })
}

fn wanted(r: &Row<'_>) -> u64 {
    r.at("/spec/replicas").as_u64().unwrap_or(1)
}

fn deployment(r: &Row<'_>) -> Vec<Value> {
    let mut out = vec![
        r.name(),
        json!(format!("{}/{}", r.n("/status/readyReplicas"), wanted(r))),
        json!(r.n("/status/updatedReplicas")),
        json!(r.n("/status/availableReplicas")),
        r.age(),
    ];
    out.extend(r.containers());
    out.push(selector(r));
    out
}

fn replica_set(r: &Row<'_>) -> Vec<Value> {
    let mut out =
        vec![r.name(), json!(wanted(r)), json!(r.n("/status/replicas")), json!(r.n("/status/readyReplicas")), r.age()];
    out.extend(r.containers());
    out.push(selector(r));
    out
}

fn daemon_set(r: &Row<'_>) -> Vec<Value> {
    let n = |f: &str| json!(r.n(&format!("/status/{f}")));
    let mut out = vec![
        r.name(),
        n("desiredNumberScheduled"),
        n("currentNumberScheduled"),
        n("numberReady"),
        n("updatedNumberScheduled"),
        n("numberAvailable"),
        json!(r.selector("/spec/template/spec/nodeSelector")),
        r.age(),
    ];
    out.extend(r.containers());
    out.push(selector(r));
    out
}

fn stateful_set(r: &Row<'_>) -> Vec<Value> {
    let mut out = vec![r.name(), json!(format!("{}/{}", r.n("/status/readyReplicas"), wanted(r))), r.age()];
    out.extend(r.containers());
    out
}

fn revision(r: &Row<'_>) -> Vec<Value> {
    let owner = r.list("/metadata/ownerReferences").first().cloned().unwrap_or_default();
    let group = owner["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or("", |v| v.0);
    let kind = owner["kind"].as_str().unwrap_or_default().to_lowercase();
    let shown = match owner["name"].as_str() {
        None => "<none>".to_owned(),
        Some(name) if group.is_empty() => format!("{kind}/{name}"),
        Some(name) => format!("{kind}.{group}/{name}"),
    };
    vec![r.name(), json!(shown), json!(r.n("/revision")), r.age()]
}

fn job(r: &Row<'_>) -> Vec<Value> {
    let done = |t: &str| r.list("/status/conditions").iter().any(|c| c["type"] == t && c["status"] == "True");
    let status = if done("Complete") {
        "Complete"
    } else if done("Failed") {
        "Failed"
    } else if !r.at("/metadata/deletionTimestamp").is_null() {
        "Terminating"
    } else if done("Suspended") {
        "Suspended"
    } else if done("FailureTarget") {
        "FailureTarget"
    } else if done("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let completions = match (r.at("/spec/completions").as_u64(), r.n("/spec/parallelism")) {
        (Some(n), _) => n.to_string(),
        (None, p) if p > 1 => format!("1 of {p}"),
        (None, _) => "1".to_owned(),
    };
    let time = |p: &str| meta::parse_time(&r.text(p));
    let duration = time("/status/startTime")
        .map(|from| age(time("/status/completionTime").unwrap_or(r.now).saturating_sub(from)))
        .unwrap_or_default();
    let mut out = vec![
        r.name(),
        json!(status),
        json!(format!("{}/{completions}", r.n("/status/succeeded"))),
        json!(duration),
        r.age(),
    ];
    out.extend(r.containers());
    out.push(selector(r));
    out
}

fn cron_job(r: &Row<'_>) -> Vec<Value> {
    let last = if r.text("/status/lastScheduleTime").is_empty() {
        "<none>".to_owned()
    } else {
        r.since("/status/lastScheduleTime")
    };
    let p = "/spec/jobTemplate/spec/template/spec/containers";
    let each = |f: &str| json!(r.join(p, |c| c[f].as_str().map(str::to_owned)));
    vec![
        r.name(),
        json!(r.text("/spec/schedule")),
        json!(r.or("/spec/timeZone", "<none>")),
        json!(if r.at("/spec/suspend").as_bool().unwrap_or(false) { "True" } else { "False" }),
        json!(r.list("/status/active").len()),
        json!(last),
        r.age(),
        each("name"),
        each("image"),
        json!(r.selector("/spec/jobTemplate/spec/selector/matchLabels")),
    ]
}

/// A metric as what it is now and what it should be; `now` is its place in the status.
fn metric(m: &Value, now: &Value) -> Option<String> {
    let (sort, field) = match m["type"].as_str()? {
        "External" => ("outside", "external"),
        "Object" => ("outside", "object"),
        "Pods" => ("pods", "pods"),
        "Resource" => ("resource", "resource"),
        _ => ("resource", "containerResource"),
    };
    let (want, have) = (&m[field]["target"], &now[field]["current"]);
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let unknown = |v: Option<String>| v.unwrap_or_else(|| "<unknown>".to_owned());
    let average = text(&want["averageValue"]);
    Some(match (sort, average) {
        ("outside", Some(average)) => format!("{}/{average} (avg)", unknown(text(&have["averageValue"]))),
        ("outside", None) => format!("{}/{}", unknown(text(&have["value"])), text(&want["value"])?),
        ("pods", average) => format!("{}/{}", unknown(text(&have["averageValue"])), average?),
        (_, Some(average)) => {
            format!("{}: {}/{average}", text(&m[field]["name"])?, unknown(text(&have["averageValue"])))
        }
        (_, None) => {
            let percent = |v: &Value| v.as_i64().map(|n| format!("{n}%"));
            let used = unknown(percent(&have["averageUtilization"]));
            let goal = percent(&want["averageUtilization"]).unwrap_or_else(|| "<auto>".to_owned());
            format!("{}: {used}/{goal}", text(&m[field]["name"])?)
        }
    })
}

fn autoscaler(r: &Row<'_>) -> Vec<Value> {
    let target = format!("{}/{}", r.text("/spec/scaleTargetRef/kind"), r.text("/spec/scaleTargetRef/name"));
    let now = r.list("/status/currentMetrics");
    let all = r.list("/spec/metrics").iter().enumerate();
    let metrics: Vec<String> = all.filter_map(|(i, m)| metric(m, now.get(i).unwrap_or(&Value::Null))).collect();
    let shown = match metrics.as_slice() {
        [] => "<none>".to_owned(),
        [a, b, rest @ ..] if !rest.is_empty() => format!("{a}, {b} + {} more...", rest.len()),
        few => few.join(", "),
    };
    vec![
        r.name(),
        json!(target),
        json!(shown),
        json!(r.or("/spec/minReplicas", "<unset>")),
        json!(r.n("/spec/maxReplicas")),
        json!(r.n("/status/currentReplicas")),
        r.age(),
    ]
}

fn budget(r: &Row<'_>) -> Vec<Value> {
    vec![
        r.name(),
        json!(r.or("/spec/minAvailable", "N/A")),
        json!(r.or("/spec/maxUnavailable", "N/A")),
        json!(r.n("/status/disruptionsAllowed")),
        r.age(),
    ]
}
