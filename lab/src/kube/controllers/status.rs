//! Writes a pod's status from how far its containers are.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::cx::{Cx, set_condition};
use super::super::text::{arr, s, sha256};

/// State of one container.
#[derive(Debug, Clone, PartialEq)]
pub enum Container {
    /// Not started, with reason and message.
    Waiting(String, String),
    /// Running.
    Running,
    /// Ended with this code.
    Ended(i64),
}

impl Container {
    /// Waiting with a reason only.
    #[must_use]
    pub fn waiting(reason: &str) -> Self {
        Container::Waiting(reason.to_owned(), String::new())
    }
}

/// Status of a pod as a whole.
#[derive(Debug, Clone)]
pub struct View {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: &'static str,
    /// Init containers before this one have ended well.
    pub inits_done: usize,
    /// State of the current init container; later ones wait.
    pub init: Container,
    /// State of all main containers.
    pub main: Container,
    /// Main containers that have ended for good, with their codes.
    pub finished: BTreeMap<String, i64>,
    /// Whether the main containers are ready.
    pub ready: bool,
    /// Restarts of the container that is restarted.
    pub restarts: u32,
}

/// Writes `view` into the pod's status.
pub fn write(cx: &mut Cx, ns: &str, name: &str, view: &View) {
    let stamp = cx.stamp();
    let Some(pod) = cx.get("pods", ns, name) else { return };
    let node = s(pod, "/spec/nodeName").to_owned();
    let uid = s(pod, "/metadata/uid").to_owned();
    let host = cx.get("nodes", "", &node).map(|n| s(n, "/status/addresses/0/address").to_owned()).unwrap_or_default();
    let pod_ip = if cx.get("pods", ns, name).is_some_and(|p| p["spec"]["hostNetwork"] == true) {
        host.clone()
    } else {
        match s(pod, "/status/podIP") {
            "" => pod_address(cx, &node, &uid),
            ip => ip.to_owned(),
        }
    };
    cx.update("pods", ns, name, |p| {
        let inits = arr(p, "/spec/initContainers").len();
        let init_list = list(p, "/spec/initContainers", &stamp, "initContainerStatuses", |i| {
            if i < view.inits_done {
                (Container::Ended(0), true, 0)
            } else if i == view.inits_done {
                (view.init.clone(), false, view.restarts)
            } else {
                (Container::waiting("PodInitializing"), false, 0)
            }
        });
        let names: Vec<String> = arr(p, "/spec/containers").iter().map(|c| s(c, "/name").to_owned()).collect();
        let main = list(p, "/spec/containers", &stamp, "containerStatuses", |i| {
            let restarts = if view.inits_done >= inits { view.restarts } else { 0 };
            match view.finished.get(&names[i]) {
                Some(code) => (Container::Ended(*code), false, restarts),
                None => (view.main.clone(), view.ready, restarts),
            }
        });
        p["status"]["phase"] = json!(view.phase);
        p["status"]["hostIP"] = json!(host);
        p["status"]["hostIPs"] = json!([{"ip": host}]);
        if view.inits_done > 0 || view.main == Container::Running || view.init == Container::Running || view.ready {
            p["status"]["podIP"] = json!(pod_ip);
            p["status"]["podIPs"] = json!([{"ip": pod_ip}]);
        }
        if p["status"]["startTime"].is_null() {
            p["status"]["startTime"] = json!(stamp);
        }
        p["status"]["qosClass"] = json!(p["status"]["qosClass"].as_str().unwrap_or("BestEffort"));
        if inits > 0 {
            p["status"]["initContainerStatuses"] = init_list;
        }
        p["status"]["containerStatuses"] = main;
        conditions(p, view, inits, &stamp);
    });
}

fn conditions(p: &mut Value, view: &View, inits: usize, stamp: &str) {
    let ended = matches!(view.phase, "Succeeded");
    let initialised = view.inits_done >= inits;
    let yes = |b: bool| if b { "True" } else { "False" };
    set_condition(p, stamp, "PodReadyToStartContainers", yes(p["status"]["podIP"].is_string() && !ended), "", "");
    if initialised {
        let reason = if ended { "PodCompleted" } else { "" };
        set_condition(p, stamp, "Initialized", "True", reason, "");
    } else {
        set_condition(
            p,
            stamp,
            "Initialized",
            "False",
            "ContainersNotInitialized",
            &incomplete(p, "/spec/initContainers", "incomplete status", view.inits_done),
        );
    }
    for kind in ["Ready", "ContainersReady"] {
        if view.ready {
            set_condition(p, stamp, kind, "True", "", "");
        } else if ended {
            set_condition(p, stamp, kind, "False", "PodCompleted", "");
        } else {
            let text = incomplete(p, "/spec/containers", "unready status", 0);
            set_condition(p, stamp, kind, "False", "ContainersNotReady", &text);
        }
    }
}

fn incomplete(p: &Value, at: &str, what: &str, skip: usize) -> String {
    let names: Vec<&str> = arr(p, at).iter().skip(skip).map(|c| s(c, "/name")).collect();
    format!("containers with {what}: [{}]", names.join(" "))
}

fn list(p: &Value, at: &str, stamp: &str, old: &str, state: impl Fn(usize) -> (Container, bool, u32)) -> Value {
    let mut out = Vec::new();
    for (i, c) in arr(p, at).iter().enumerate() {
        let (state, ready, restarts) = state(i);
        let before = &p["status"][old][i];
        let id = format!("containerd://{}", sha256(&format!("{}{}{restarts}", s(p, "/metadata/uid"), s(c, "/name"))));
        let mut entry = json!({
            "name": c["name"], "image": c["image"], "imageID": "", "ready": ready, "restartCount": restarts,
            "started": state == Container::Running, "lastState": before["lastState"].as_object().cloned().unwrap_or_default(),
            "state": {},
        });
        if !matches!(state, Container::Waiting(..)) {
            entry["containerID"] = json!(id);
            entry["imageID"] = json!(format!("{}@sha256:{}", s(c, "/image"), sha256(s(c, "/image"))));
        }
        entry["state"] = match &state {
            Container::Waiting(reason, message) if message.is_empty() => json!({"waiting": {"reason": reason}}),
            Container::Waiting(reason, message) => json!({"waiting": {"reason": reason, "message": message}}),
            Container::Running => match before["state"]["running"].is_object() && before["restartCount"] == restarts {
                true => before["state"].clone(),
                false => json!({"running": {"startedAt": stamp}}),
            },
            Container::Ended(code) => match before["state"]["terminated"]["exitCode"] == *code {
                true => before["state"].clone(),
                false => {
                    let started = before["state"]["running"]["startedAt"].as_str().unwrap_or(stamp);
                    json!({"terminated": {"exitCode": code, "reason": if *code == 0 { "Completed" } else { "Error" },
                        "startedAt": started, "finishedAt": stamp, "containerID": id}})
                }
            },
        };
        if before["state"]["terminated"].is_object() && !matches!(state, Container::Ended(_)) {
            entry["lastState"] = before["state"].clone();
        }
        out.push(entry);
    }
    Value::Array(out)
}

/// A free address for a pod in its node's pod network.
fn pod_address(cx: &Cx, node: &str, uid: &str) -> String {
    let net = cx.get("nodes", "", node).map(|n| s(n, "/spec/podCIDR").to_owned()).unwrap_or_default();
    let base: Vec<&str> = net.split('.').take(3).collect();
    let first = u32::from_str_radix(&sha256(uid)[..4], 16).unwrap_or(2);
    let address = |i: u32| format!("{}.{}", base.join("."), (first + i) % 253 + 2);
    (0..253).map(address).find(|ip| !cx.c.store.index().is_taken(ip)).unwrap_or_else(|| address(0))
}
