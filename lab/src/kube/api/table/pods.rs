//! Rows of pods and nodes.
use serde_json::{Value, json};

use super::{AGE, Layout, NAME, Row, age, text, wide};
use crate::kube::schema::Kind;
use crate::kube::store::meta;

pub(super) fn layout(kind: &Kind) -> Option<Layout> {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "nodes") => Some(Layout {
            columns: vec![
                NAME,
                text("Status"),
                text("Roles"),
                AGE,
                text("Version"),
                wide("Internal-IP"),
                wide("External-IP"),
                wide("OS-Image"),
                wide("Kernel-Version"),
                wide("Container-Runtime"),
            ],
            cells: node,
        }),
        ("", "pods") => Some(Layout {
            columns: vec![
                NAME,
                text("Ready"),
                text("Status"),
                text("Restarts"),
                AGE,
                wide("IP"),
                wide("Node"),
                wide("Nominated Node"),
                wide("Readiness Gates"),
            ],
            cells: pod,
        }),
        _ => None,
    }
}

fn node(r: &Row<'_>) -> Vec<Value> {
    let ready = r.list("/status/conditions").iter().find(|c| c["type"] == "Ready");
    let mut status = match ready.map(|c| c["status"] == "True") {
        Some(true) => "Ready".to_owned(),
        Some(false) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if r.at("/spec/unschedulable") == true {
        status += ",SchedulingDisabled";
    }
    let labels = r.at("/metadata/labels").as_object().into_iter().flatten();
    let mut roles: Vec<&str> = labels.filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/")).collect();
    roles.sort_unstable();
    let roles = if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") };
    let info = |f: &str| json!(r.or(&format!("/status/nodeInfo/{f}"), "<unknown>"));
    let built = r.text("/status/nodeInfo/architecture");
    let kernel = match r.or("/status/nodeInfo/kernelVersion", "<unknown>") {
        k if r.minor < 36 || built.is_empty() => k,
        k => format!("{k} ({built})"),
    };
    let address = |kind: &str| {
        let mut list = r.list("/status/addresses").iter().filter(|a| a["type"] == kind);
        json!(list.find_map(|a| a["address"].as_str()).unwrap_or("<none>"))
    };
    vec![
        r.name(),
        json!(status),
        json!(roles),
        r.age(),
        json!(r.text("/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        json!(kernel),
        info("containerRuntimeVersion"),
    ]
}

/// What the row of a pod says when the pod has ended.
pub(super) fn ended_row(kind: &Kind, o: &Value) -> Option<Value> {
    if !kind.group.is_empty() || kind.kind != "Pod" {
        return None;
    }
    let phase = o["status"]["phase"].as_str()?;
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}]))
}

/// What ended a container, when its state gives no reason.
fn ended(state: &Value) -> String {
    let t = &state["terminated"];
    match (t["reason"].as_str(), t["signal"].as_i64().filter(|s| *s != 0)) {
        (Some(why), _) if !why.is_empty() => why.to_owned(),
        (_, Some(signal)) => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", t["exitCode"]),
    }
}

/// The first init container that is not through, as STATUS shows it.
fn initializing(r: &Row<'_>, ready: &mut usize) -> Option<String> {
    let specs = r.list("/spec/initContainers");
    for (i, c) in r.list("/status/initContainerStatuses").iter().enumerate() {
        let state = &c["state"];
        let sidecar = specs.iter().any(|s| s["name"] == c["name"] && s["restartPolicy"] == "Always");
        if state["terminated"]["exitCode"] == 0 {
            continue;
        }
        if sidecar && c["started"] == true {
            *ready += usize::from(c["ready"] == true);
            continue;
        }
        return Some(match state["waiting"]["reason"].as_str() {
            _ if state["terminated"].is_object() => format!("Init:{}", ended(state)),
            Some(why) if why != "PodInitializing" => format!("Init:{why}"),
            _ => format!("Init:{i}/{}", specs.len()),
        });
    }
    None
}

fn pod(r: &Row<'_>) -> Vec<Value> {
    let condition = |t: &str| r.list("/status/conditions").iter().find(|c| c["type"] == t).cloned().unwrap_or_default();
    let statuses = r.list("/status/containerStatuses");
    let sidecars = r.list("/spec/initContainers").iter().filter(|c| c["restartPolicy"] == "Always").count();
    let total = r.list("/spec/containers").len() + sidecars;
    let mut ready = 0;
    let mut status = r.or("/status/reason", &r.or("/status/phase", "Unknown"));
    if condition("PodScheduled")["reason"] == "SchedulingGated" {
        status = "SchedulingGated".to_owned();
    }
    let init = initializing(r, &mut ready);
    let mut counted = r.list("/status/initContainerStatuses");
    if let Some(text) = init.filter(|_| condition("Initialized")["status"] != "True") {
        status = text;
    } else {
        counted = statuses;
        let mut running = false;
        for c in statuses.iter().rev() {
            let state = &c["state"];
            match state["waiting"]["reason"].as_str() {
                Some(why) if !why.is_empty() => why.clone_into(&mut status),
                _ if state["terminated"].is_object() => status = ended(state),
                _ if c["ready"] == true && state["running"].is_object() => {
                    running = true;
                    ready += 1;
                }
                _ => {}
            }
        }
        if status == "Completed" && running {
            status = if condition("Ready")["status"] == "True" { "Running" } else { "NotReady" }.to_owned();
        }
    }
    let over = matches!(r.text("/status/phase").as_str(), "Succeeded" | "Failed");
    if !r.at("/metadata/deletionTimestamp").is_null() && !over {
        status = if r.text("/status/reason") == "NodeLost" { "Unknown" } else { "Terminating" }.to_owned();
    }
    let gates = r.list("/spec/readinessGates").len();
    let gates = if gates == 0 { "<none>".to_owned() } else { format!("0/{gates}") };
    vec![
        r.name(),
        json!(format!("{ready}/{total}")),
        json!(status),
        json!(restarts(r, counted)),
        r.age(),
        json!(r.or("/status/podIP", "<none>")),
        json!(r.or("/spec/nodeName", "<none>")),
        json!(r.or("/status/nominatedNodeName", "<none>")),
        json!(gates),
    ]
}

fn restarts(r: &Row<'_>, statuses: &[Value]) -> String {
    let count: u64 = statuses.iter().filter_map(|c| c["restartCount"].as_u64()).sum();
    let last = statuses
        .iter()
        .filter_map(|c| meta::parse_time(c["lastState"]["terminated"]["finishedAt"].as_str()?))
        .max()
        .filter(|_| count > 0);
    last.map_or_else(|| count.to_string(), |t| format!("{count} ({} ago)", age(r.now.saturating_sub(t))))
}
