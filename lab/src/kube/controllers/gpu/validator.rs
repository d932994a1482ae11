//! The operator's validator: its steps on a node, and the pods that two of them run a workload in. Grade: source (assets
//! and validator of the GPU operator).
use serde_json::{Value, json};

use super::super::behaviour::Run;
use super::{NS, POLICY};
use crate::kube::cx::{Cx, key, owner_ref};
use crate::kube::state::NodeRt;
use crate::kube::text::{arr, s};

/// Its init containers, in their order.
pub(super) const STEPS: &[&str] = &["driver-validation", "toolkit-validation", "cuda-validation", "plugin-validation"];

fn wait(log: &str) -> Run {
    Run::Wait { log: log.to_owned() }
}

fn done(log: &str) -> Run {
    Run::Exit { code: 0, after_ms: 1000, log: log.to_owned() }
}

/// What a step of the validator `pod` does.
pub(super) fn step(cx: &mut Cx, pod: &Value, name: &str, rt: &NodeRt) -> Run {
    match name {
        "driver-validation" if rt.driver.is_none() => wait("waiting for the driver to be ready ..."),
        "driver-validation" => done("running command: nvidia-smi"),
        "toolkit-validation" if !rt.toolkit && !super::operands::own_toolkit(cx, rt) => {
            wait("waiting for nvidia container stack to be setup")
        }
        "toolkit-validation" => done("running command: nvidia-smi"),
        "cuda-validation" => run(cx, pod, "nvidia-cuda-validator", None),
        _ if !rt.plugin => wait("waiting for GPU resources to be discovered"),
        _ => {
            let resource = offered(cx, s(pod, "/spec/nodeName"));
            match resource {
                Some(r) => run(cx, pod, "nvidia-device-plugin-validator", Some(&r)),
                None => wait("waiting for GPU resources to be discovered"),
            }
        }
    }
}

/// A GPU resource that the node has something of: whole cards first.
fn offered(cx: &Cx, node: &str) -> Option<String> {
    let all = cx.get("nodes", "", node)?["status"]["allocatable"].as_object()?.clone();
    let mut names: Vec<String> =
        all.iter().filter(|(k, v)| super::is_gpu(k) && *v != "0").map(|(k, _)| k.clone()).collect();
    names.sort();
    names.into_iter().next()
}

/// Waits until the workload has ended well in a pod of its own; one that is older than the validator goes first.
fn run(cx: &mut Cx, validator: &Value, app: &str, resource: Option<&str>) -> Run {
    let node = s(validator, "/spec/nodeName");
    let born = s(validator, "/metadata/creationTimestamp").to_owned();
    let mine: Vec<Value> = cx
        .list_in("pods", NS)
        .into_iter()
        .filter(|p| s(p, "/metadata/labels/app") == app && s(p, "/spec/nodeName") == node)
        .cloned()
        .collect();
    let (fresh, old): (Vec<_>, Vec<_>) =
        mine.into_iter().partition(|p| s(p, "/metadata/creationTimestamp") >= born.as_str());
    for p in old {
        let (ns, name) = key(&p);
        cx.delete("pods", &ns, &name);
    }
    match fresh.first() {
        Some(p) if s(p, "/status/phase") == "Succeeded" => {
            done(&format!("pod {} have run successfully", s(p, "/metadata/name")))
        }
        Some(_) => wait(&format!("pod {app} is curently in Pending phase")),
        None => {
            let made = pod(cx, validator, app, resource);
            cx.writing("nvidia-validator", |cx| cx.create(made));
            wait(&format!("pod {app} is curently in Pending phase"))
        }
    }
}

fn pod(cx: &Cx, validator: &Value, app: &str, resource: Option<&str>) -> Value {
    let what = app.trim_start_matches("nvidia-").trim_end_matches("-validator").trim_start_matches("device-");
    let image = &validator["spec"]["containers"][0]["image"];
    let mut first = json!({"name": format!("{what}-validation"), "image": image, "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c"], "args": ["vectorAdd"]});
    match resource {
        Some(r) => first["resources"] = json!({"limits": {r: "1"}}),
        None => first["env"] = json!([{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]),
    }
    let word = if resource.is_some() { "device-plugin" } else { "cuda" };
    let owner = cx.list(POLICY).first().map(|p| owner_ref(p));
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": format!("{app}-"), "namespace": NS, "labels": {"app": app}, "ownerReferences": owner},
        "spec": {"nodeName": validator["spec"]["nodeName"], "restartPolicy": "OnFailure", "runtimeClassName": "nvidia",
            "serviceAccountName": "nvidia-operator-validator", "tolerations": validator["spec"]["tolerations"],
            "initContainers": [first],
            "containers": [{"name": app, "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"],
                "args": [format!("echo {word} workload validation is successful")]}]}})
}

/// What the containers of such a pod do: vectorAdd, then a line that says that it went well.
pub(super) fn workload(cx: &Cx, pod: &Value, rt: &NodeRt, init: bool) -> Run {
    if !init {
        let text = arr(pod, "/spec/containers").first().map(|c| s(c, "/args/0").to_owned()).unwrap_or_default();
        return done(text.trim_start_matches("echo "));
    }
    if cx.w.cards_of(rt.vmid).iter().any(|(_, c)| c.exclusive) && s(pod, "/metadata/labels/app").contains("cuda") {
        let log = "Failed to allocate device vector A (error code all CUDA-capable devices are busy or unavailable)!\n[Vector addition of 50000 elements]";
        return Run::Exit { code: 1, after_ms: 1500, log: log.to_owned() };
    }
    done(
        "[Vector addition of 50000 elements]\nCopy input data from the host memory to the CUDA device\nCUDA kernel launch with 196 blocks of 256 threads\nCopy output data from the CUDA device to the host memory\nTest PASSED\nDone",
    )
}
