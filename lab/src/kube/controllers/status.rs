//! A pod's status as its kubelet writes it: the state of each container, and what follows from them for the whole.
//! Grade: source (pkg/kubelet/kubelet_pods.go and pkg/kubelet/status of kubernetes).
use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::text::{arr, s, sha256};
use super::{images, pods};

/// Reason of a container whose program could not be started.
pub(super) const START: &str = "StartError";

/// Waiting reasons of containers that nothing was begun for yet.
const UNTOUCHED: &[&str] = &["ContainerCreating", "PodInitializing"];
const INITS: &str = "initContainerStatuses";
const MAINS: &str = "containerStatuses";

/// Whether an init container runs beside the main ones.
#[must_use]
pub fn is_sidecar(c: &Value) -> bool {
    s(c, "/restartPolicy") == "Always"
}

/// How a container has ended.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// Exit code.
    pub code: i64,
    /// The kernel ended it for its memory.
    pub out_of_memory: bool,
    /// What it left to say.
    pub message: String,
}

impl From<i64> for End {
    fn from(code: i64) -> End {
        End { code, ..End::default() }
    }
}

/// A pod whose status is being written.
#[derive(Debug)]
pub struct Editor<'a> {
    pod: &'a mut Value,
    stamp: String,
}

/// Writes what `f` says of the pod's containers into its status, with everything that follows from it.
pub fn edit(cx: &mut Cx, ns: &str, name: &str, f: impl FnOnce(&mut Editor)) {
    let stamp = cx.stamp();
    let Some(pod) = cx.get("pods", ns, name) else { return };
    let node = s(pod, "/spec/nodeName").to_owned();
    let host = cx.get("nodes", "", &node).map(|n| s(n, "/status/addresses/0/address").to_owned()).unwrap_or_default();
    let ip = match s(pod, "/status/podIP") {
        _ if pod["spec"]["hostNetwork"] == true => host.clone(),
        "" => pod_address(cx, &node, s(pod, "/metadata/uid")),
        ip => ip.to_owned(),
    };
    cx.update("pods", ns, name, |p| {
        let mut e = Editor { pod: p, stamp };
        e.lay_out();
        f(&mut e);
        e.whole(&host, &ip);
    });
}

impl Editor<'_> {
    /// Every container has a status, in the order of the spec.
    fn lay_out(&mut self) {
        if !self.pod["status"].is_object() {
            self.pod["status"] = json!({});
        }
        let inits = !arr(self.pod, "/spec/initContainers").is_empty();
        let waits = if inits { "PodInitializing" } else { "ContainerCreating" };
        for (at, list) in [("/spec/initContainers", INITS), ("/spec/containers", MAINS)] {
            let named: Vec<Value> = arr(self.pod, at).to_vec();
            if named.is_empty() || arr(&self.pod["status"], &format!("/{list}")).len() == named.len() {
                continue;
            }
            let fresh = named.iter().map(|c| {
                json!({"name": c["name"], "image": c["image"], "imageID": "", "ready": false, "restartCount": 0,
                    "started": false, "lastState": {}, "state": {"waiting": {"reason": waits}}})
            });
            self.pod["status"][list] = fresh.collect();
        }
    }

    fn entry(&mut self, name: &str) -> Option<&mut Value> {
        let status = self.pod.get_mut("status")?;
        let has = |v: &Value, list: &str| arr(v, &format!("/{list}")).iter().any(|c| c["name"] == name);
        let list = if has(status, MAINS) { MAINS } else { INITS };
        status.get_mut(list)?.as_array_mut()?.iter_mut().find(|c| c["name"] == name)
    }

    /// The container waits.
    pub fn wait(&mut self, name: &str, reason: &str, message: &str) {
        let Some(c) = self.entry(name) else { return };
        if c["state"]["terminated"].is_object() {
            c["lastState"] = c["state"].clone();
        }
        c["state"] = json!({"waiting": {"reason": reason}});
        if !message.is_empty() {
            c["state"]["waiting"]["message"] = json!(message);
        }
        c["ready"] = json!(false);
        c["started"] = json!(false);
    }

    /// The container runs; `ready` from the first moment on, or later.
    pub fn run(&mut self, name: &str, ready: bool) {
        let uid = s(self.pod, "/metadata/uid").to_owned();
        let spec = crate::kube::container::spec(self.pod, name).cloned().unwrap_or_default();
        let stamp = self.stamp.clone();
        let Some(c) = self.entry(name) else { return };
        if c["state"]["terminated"].is_object() {
            c["lastState"] = c["state"].clone();
        }
        let again = c["containerID"].is_string();
        let count = c["restartCount"].as_u64().unwrap_or(0) + u64::from(again);
        let (image, id) = images::identity(s(&spec, "/image"));
        c["restartCount"] = json!(count);
        c["containerID"] = json!(format!("containerd://{}", sha256(&format!("{uid}{name}{count}"))));
        c["imageID"] = json!(id);
        c["image"] = json!(image);
        c["state"] = json!({"running": {"startedAt": stamp}});
        let probed = spec["startupProbe"].is_object();
        c["started"] = json!(!probed);
        c["ready"] = json!(ready && !probed);
    }

    /// The container was made but its program could not be started.
    pub fn refuse(&mut self, name: &str, why: &str) {
        let stamp = self.stamp.clone();
        let Some(c) = self.entry(name) else { return };
        c["state"] = json!({"terminated": {"exitCode": 128, "reason": START, "message": why,
            "startedAt": "1970-01-01T00:00:00Z", "finishedAt": stamp, "containerID": c["containerID"]}});
        c["started"] = json!(false);
    }

    /// The pod came to its end before the container was there: nobody knows what became of it.
    pub fn lose(&mut self, name: &str) {
        let Some(c) = self.entry(name).filter(|c| c["state"]["waiting"].is_object()) else { return };
        c["state"] = json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was terminated",
            "startedAt": null, "finishedAt": null}});
        c["started"] = json!(false);
    }

    /// The container has ended.
    pub fn end(&mut self, name: &str, end: impl Into<End>) {
        let End { code, out_of_memory, message } = end.into();
        let reason = match code {
            _ if out_of_memory => "OOMKilled",
            0 => "Completed",
            255 => "Unknown",
            _ => "Error",
        };
        let init = arr(self.pod, "/spec/initContainers").iter().any(|c| c["name"] == name);
        let stamp = self.stamp.clone();
        let Some(c) = self.entry(name) else { return };
        let unborn = c["state"]["waiting"].is_object() && c["containerID"].is_null();
        if unborn || c["state"]["terminated"]["reason"] == START {
            return;
        }
        let started = c["state"]["running"]["startedAt"].as_str().unwrap_or(&stamp).to_owned();
        c["state"] = json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": started,
            "finishedAt": stamp, "containerID": c["containerID"]}});
        if !message.is_empty() {
            c["state"]["terminated"]["message"] = json!(message);
        }
        c["ready"] = json!(init && code == 0);
        c["started"] = json!(false);
    }

    /// The pod as a whole has failed, whatever its containers come to.
    pub fn fail(&mut self, reason: &str, message: &str) {
        self.pod["status"]["reason"] = json!(reason);
        self.pod["status"]["message"] = json!(message);
    }

    /// The container is ready, or no longer.
    pub fn ready(&mut self, name: &str, yes: bool) {
        let Some(c) = self.entry(name).filter(|c| c["state"]["running"].is_object()) else { return };
        c["ready"] = json!(yes);
        c["started"] = json!(true);
    }

    /// Phase, addresses and conditions.
    fn whole(&mut self, host: &str, ip: &str) {
        let phase = phase(self.pod);
        let touched = statuses(self.pod).any(|c| {
            let why = s(c, "/state/waiting/reason");
            !c["state"]["waiting"].is_object() || c["containerID"].is_string() || !UNTOUCHED.contains(&why)
        });
        let generation = self.pod["metadata"]["generation"].clone();
        let st = &mut self.pod["status"];
        st["phase"] = json!(phase);
        st["observedGeneration"] = generation;
        st["hostIP"] = json!(host);
        st["hostIPs"] = json!([{"ip": host}]);
        if touched {
            st["podIP"] = json!(ip);
            st["podIPs"] = json!([{"ip": ip}]);
        }
        if st["startTime"].is_null() {
            st["startTime"] = json!(self.stamp);
        }
        if st["qosClass"].is_null() {
            st["qosClass"] = json!("BestEffort");
        }
        self.conditions(phase);
    }

    fn conditions(&mut self, phase: &str) {
        let p = &*self.pod;
        let ended = matches!(phase, "Succeeded" | "Failed");
        let done = match phase {
            "Succeeded" => "PodCompleted",
            "Failed" => "PodFailed",
            _ => "",
        };
        let uninitialised: Vec<&str> = inits(p).filter(|(c, st)| !is_past(c, st)).map(|(c, _)| s(c, "/name")).collect();
        let sidecars = inits(p).filter(|(c, _)| is_sidecar(c));
        let mains = arr(p, "/spec/containers").iter().zip(arr(p, "/status/containerStatuses"));
        let unready: Vec<&str> =
            sidecars.chain(mains).filter(|(_, st)| st["ready"] != true).map(|(c, _)| s(c, "/name")).collect();
        let list = |what: &str, names: &[&str]| format!("containers with {what}: [{}]", names.join(" "));
        let sandbox = !s(p, "/status/podIP").is_empty() && !ended;
        let initialised = if !uninitialised.is_empty() && phase != "Succeeded" {
            ("False", "ContainersNotInitialized", list("incomplete status", &uninitialised))
        } else {
            ("True", if phase == "Succeeded" { done } else { "" }, String::new())
        };
        let ready = if ended {
            ("False", done, String::new())
        } else if unready.is_empty() {
            ("True", "", String::new())
        } else {
            ("False", "ContainersNotReady", list("unready status", &unready))
        };
        let shut = gates(p);
        let whole = if ready.0 == "True" && !shut.is_empty() {
            ("False", "ReadinessGatesNotReady", shut.join(", "))
        } else {
            ready.clone()
        };
        let yes = if sandbox { "True" } else { "False" };
        let all = [
            ("PodReadyToStartContainers", (yes, "", String::new())),
            ("Initialized", initialised),
            ("Ready", whole),
            ("ContainersReady", ready),
            ("PodScheduled", ("True", "", String::new())),
        ];
        let generation = p["metadata"]["generation"].clone();
        let mut out: Vec<Value> = Vec::new();
        for (kind, (value, reason, text)) in all {
            out.push(condition(p, &generation, &self.stamp, kind, value, reason, &text));
        }
        let own = |c: &&Value| !out.iter().any(|o| o["type"] == c["type"]);
        let others: Vec<Value> = arr(p, "/status/conditions").iter().filter(own).cloned().collect();
        out.extend(others);
        self.pod["status"]["conditions"] = Value::Array(out);
    }
}

/// What is said of readiness gates that are shut.
fn gates(p: &Value) -> Vec<String> {
    let told = |kind: &str| {
        let found = arr(p, "/status/conditions").iter().find(|c| c["type"] == kind);
        match found.map(|c| s(c, "/status")) {
            None => Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some("True") => None,
            Some(value) => Some(format!("the status of pod readiness gate {kind:?} is not \"True\", but {value}")),
        }
    };
    arr(p, "/spec/readinessGates").iter().filter_map(|g| told(s(g, "/conditionType"))).collect()
}

fn condition(p: &Value, generation: &Value, stamp: &str, kind: &str, value: &str, reason: &str, text: &str) -> Value {
    let before = arr(p, "/status/conditions").iter().find(|c| c["type"] == kind);
    let since = before.filter(|c| c["status"] == value).map_or(json!(stamp), |c| c["lastTransitionTime"].clone());
    let mut c = json!({"type": kind, "observedGeneration": generation, "status": value, "lastProbeTime": null,
        "lastTransitionTime": since});
    for (field, text) in [("reason", reason), ("message", text)] {
        if !text.is_empty() {
            c[field] = json!(text);
        }
    }
    c
}

fn inits(p: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    arr(p, "/spec/initContainers").iter().zip(arr(p, "/status/initContainerStatuses"))
}

/// Statuses of all containers, init containers first.
pub fn statuses(p: &Value) -> impl Iterator<Item = &Value> {
    arr(p, "/status/initContainerStatuses").iter().chain(arr(p, "/status/containerStatuses"))
}

/// As [`statuses`], with those of ephemeral containers; the pod's own containers come first.
pub fn every(p: &Value) -> impl Iterator<Item = &Value> {
    ["/status/containerStatuses", "/status/initContainerStatuses", "/status/ephemeralContainerStatuses"]
        .into_iter()
        .flat_map(|at| arr(p, at))
}

/// The status of a container.
#[must_use]
pub fn of<'a>(p: &'a Value, name: &str) -> Option<&'a Value> {
    statuses(p).find(|c| c["name"] == name)
}

/// Whether an init container no longer holds up the ones after it.
pub(super) fn is_past(c: &Value, st: &Value) -> bool {
    if is_sidecar(c) {
        return st["started"] == true || st["state"]["terminated"].is_object() || st["containerID"].is_string();
    }
    st["state"]["terminated"]["exitCode"] == 0
}

/// Phase that follows from the containers' states.
fn phase(p: &Value) -> &'static str {
    if !s(p, "/status/reason").is_empty() {
        return "Failed";
    }
    let policy = pods::restart_policy(p);
    let failed = |st: &Value| st["state"]["terminated"].is_object() && st["state"]["terminated"]["exitCode"] != 0;
    if policy == "Never" && inits(p).any(|(c, st)| !is_sidecar(c) && failed(st)) {
        return "Failed";
    }
    if inits(p).any(|(c, st)| !is_past(c, st)) {
        return "Pending";
    }
    let ends = !p["metadata"]["deletionTimestamp"].is_null();
    let (mut waiting, mut running, mut stopped, mut good) = (0, 0, 0, 0);
    for st in arr(p, "/status/containerStatuses") {
        if st["state"]["running"].is_object() {
            running += 1;
        } else if st["state"]["terminated"].is_object() || st["lastState"]["terminated"].is_object() {
            stopped += 1;
            good += usize::from(st["state"]["terminated"]["exitCode"] == 0);
        } else {
            waiting += 1;
        }
    }
    match (waiting, running, stopped) {
        (0, 0, 0) => "Pending",
        (0, 0, _) if policy == "Always" && !ends => "Running",
        (0, 0, n) if good == n => "Succeeded",
        (0, 0, _) if policy == "Never" || ends => "Failed",
        (0, _, _) => "Running",
        _ => "Pending",
    }
}

/// A free address for a pod in its node's pod network.
fn pod_address(cx: &Cx, node: &str, uid: &str) -> String {
    let net = cx.get("nodes", "", node).map(|n| s(n, "/spec/podCIDR").to_owned()).unwrap_or_default();
    let base: Vec<&str> = net.split('.').take(3).collect();
    let first = u32::from_str_radix(&sha256(uid)[..4], 16).unwrap_or(2);
    let address = |i: u32| format!("{}.{}", base.join("."), (first + i) % 253 + 2);
    (0..253).map(address).find(|ip| !cx.c.store.index().is_taken(ip)).unwrap_or_else(|| address(0))
}
