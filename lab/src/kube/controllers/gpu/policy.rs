//! The operator: operands for the ClusterPolicy, labels for nodes with a device, and the policy's state.
use serde_json::{Value, json};

use super::super::claims::ready_pod;
use super::{DEVICE, NS, POLICY, label};
use crate::kube::cx::{Cx, key, owner_ref, set_condition};
use crate::kube::objects::{Container, Workload, service};
use crate::kube::text::{arr, s, sha256};

const HASH: &str = "nvidia.com/last-applied-hash";

/// The cluster policy, when its kind is served and there is one.
pub fn policy(cx: &Cx) -> Option<Value> {
    cx.c.store.kind_for(POLICY)?;
    cx.list(POLICY).first().map(|p| (*p).clone())
}

/// Whether the operator runs a driver container (else the image brings the driver).
#[must_use]
pub fn driver_container(cx: &Cx) -> bool {
    policy(cx).is_some_and(|p| p["spec"]["driver"]["enabled"] != false)
}

/// A node changed: the operator labels those with a device.
pub fn node(cx: &mut Cx, name: &str) {
    if policy(cx).is_none() {
        return;
    }
    let Some(n) = cx.get("nodes", "", name).cloned() else { return };
    if n["metadata"]["labels"][DEVICE] != "true" {
        return;
    }
    let mut labels = vec![
        ("nvidia.com/gpu.present", "true"),
        ("nvidia.com/gpu.deploy.container-toolkit", "true"),
        ("nvidia.com/gpu.deploy.device-plugin", "true"),
        ("nvidia.com/gpu.deploy.gpu-feature-discovery", "true"),
        ("nvidia.com/gpu.deploy.dcgm", "true"),
        ("nvidia.com/gpu.deploy.dcgm-exporter", "true"),
        ("nvidia.com/gpu.deploy.node-status-exporter", "true"),
        ("nvidia.com/gpu.deploy.operator-validator", "true"),
        ("nvidia.com/gpu.deploy.mig-manager", "true"),
    ];
    // the driver manager writes `pre-installed` here, which stays
    if n["metadata"]["labels"][super::DRIVER].is_null() {
        labels.push((super::DRIVER, "true"));
    }
    if !super::plugin::wants_mig(&n) {
        labels.push(("nvidia.com/mig.config", "all-disabled"));
    }
    label(cx, name, &labels);
    super::mig::follow(cx, name);
}

/// An operand: its DaemonSet, the label that places it, its part of the policy, and the image that it has when the policy
/// does not name one.
struct Operand {
    name: &'static str,
    deploy: &'static str,
    part: &'static str,
    image: &'static str,
    /// Whether it needs the runtime class.
    runtime: bool,
    /// Whether it waits in an init container.
    waits: bool,
}

const fn operand_row(name: &'static str, deploy: &'static str, part: &'static str, image: &'static str) -> Operand {
    Operand { name, deploy, part, image, runtime: true, waits: true }
}

const PLUGIN: &str = "nvcr.io/nvidia/k8s-device-plugin:v0.19.3";

const OPERANDS: &[Operand] = &[
    Operand {
        runtime: false,
        waits: false,
        ..operand_row("nvidia-driver-daemonset", "driver", "driver", "nvcr.io/nvidia/driver:580.105.08")
    },
    Operand {
        runtime: false,
        ..operand_row(
            "nvidia-container-toolkit-daemonset",
            "container-toolkit",
            "toolkit",
            "nvcr.io/nvidia/k8s/container-toolkit:v1.19.1",
        )
    },
    operand_row("nvidia-device-plugin-daemonset", "device-plugin", "devicePlugin", PLUGIN),
    operand_row("gpu-feature-discovery", "gpu-feature-discovery", "gfd", PLUGIN),
    operand_row(
        "nvidia-dcgm-exporter",
        "dcgm-exporter",
        "dcgmExporter",
        "nvcr.io/nvidia/k8s/dcgm-exporter:4.5.3-4.8.2-distroless",
    ),
    operand_row(
        "nvidia-mig-manager",
        "mig-manager",
        "migManager",
        "nvcr.io/nvidia/cloud-native/k8s-mig-manager:v0.14.2",
    ),
    operand_row("nvidia-operator-validator", "operator-validator", "validator", VALIDATOR),
];

const VALIDATOR: &str = "nvcr.io/nvidia/gpu-operator:v26.3.3";
const DRIVER_MANAGER: &str = "nvcr.io/nvidia/cloud-native/k8s-driver-manager:v0.11.0";

/// The image that a part of the policy names; what it leaves out is that of `default`.
fn image_of(part: &Value, default: &str) -> String {
    let (path, tag) = default.rsplit_once(':').unwrap_or((default, ""));
    let (repository, image) = path.rsplit_once('/').unwrap_or(("", path));
    let told = |k: &str, or: &str| part[k].as_str().filter(|v| !v.is_empty()).unwrap_or(or).to_owned();
    let version = told("version", tag);
    let join = if version.starts_with("sha256:") { "@" } else { ":" };
    format!("{}/{}{join}{version}", told("repository", repository), told("image", image))
}

/// What the container of an operand is called.
fn container_of<'a>(deploy: &str, name: &'a str) -> &'a str {
    match deploy {
        "container-toolkit" => "nvidia-container-toolkit-ctr",
        "device-plugin" => "nvidia-device-plugin",
        _ => name,
    }
}

/// The account of an operand.
fn account_of(name: &str) -> String {
    let short = name.trim_end_matches("-daemonset");
    if short.starts_with("nvidia-") { short.to_owned() } else { format!("nvidia-{short}") }
}

fn operand(policy: &Value, o: &Operand) -> Option<Value> {
    let Operand { name, deploy, runtime, waits, .. } = *o;
    let spec = &policy["spec"];
    let image = image_of(&spec[o.part], o.image);
    let mut main = Container::new(container_of(deploy, name), &image);
    let mut volumes = Value::Null;
    match deploy {
        "driver" => {
            if spec["driver"]["enabled"] == false {
                return None;
            }
            main = Container::new("nvidia-driver-ctr", &format!("{image}-debian12"));
        }
        "container-toolkit" if spec["toolkit"]["enabled"] == false => return None,
        "container-toolkit" => {
            main = main.set("env", spec["toolkit"]["env"].clone());
        }
        "device-plugin" | "gpu-feature-discovery" => {
            let strategy = spec["mig"]["strategy"].as_str().unwrap_or("single");
            main = main.set("env", json!([{"name": "MIG_STRATEGY", "value": strategy}]));
            if let Some(map) = spec["devicePlugin"]["config"]["name"].as_str().filter(|n| !n.is_empty()) {
                volumes = json!([{"name": "device-plugin-config", "configMap": {"name": map}}]);
            }
        }
        "mig-manager" if spec["migManager"]["enabled"] == false => return None,
        "dcgm-exporter" if spec["dcgmExporter"]["enabled"] == false => return None,
        "dcgm-exporter" => main = main.set("ports", json!([{"name": "metrics", "containerPort": EXPORTER_PORT}])),
        _ => {}
    }
    let mut w = Workload::daemonset(NS, name)
        .label("app", name)
        .container(main)
        .spec("nodeSelector", json!({format!("nvidia.com/gpu.deploy.{deploy}"): "true"}))
        .spec("tolerations", spec["daemonsets"]["tolerations"].clone())
        .spec("serviceAccountName", json!(account_of(name)))
        .spec("priorityClassName", json!("system-node-critical"));
    if waits {
        let before: &[&str] = match deploy {
            "container-toolkit" => &["driver-validation"],
            "operator-validator" => super::validator::STEPS,
            _ => &["toolkit-validation"],
        };
        let validator = image_of(&spec["validator"], VALIDATOR);
        for name in before {
            w = w.init(Container::new(name, &validator));
        }
    }
    if deploy == "driver" {
        w = w.init(Container::new("k8s-driver-manager", &image_of(&spec["driver"]["manager"], DRIVER_MANAGER)));
    }
    if runtime {
        w = w.spec("runtimeClassName", json!("nvidia"));
    }
    if !volumes.is_null() {
        w = w.spec("volumes", volumes);
    }
    let mut made = w.object();
    if deploy == "driver" {
        // its pods are replaced by the upgrade, one node after another
        made["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    }
    Some(made)
}

const EXPORTER_PORT: u16 = 9400;

/// The Services that the operator makes: its own metrics, and those of the cards.
fn services(cx: &mut Cx, policy: &Value, owner: &Value) {
    let exports = policy["spec"]["dcgmExporter"]["enabled"] != false;
    for (wanted, app, port, number) in [
        (true, "gpu-operator", "gpu-operator-metrics", 8080),
        (exports, "nvidia-dcgm-exporter", "gpu-metrics", EXPORTER_PORT),
    ] {
        let there = cx.get("services", NS, app).is_some();
        if wanted && !there {
            let mut made = service(NS, app, &json!({"app": app}), &[(port, number)]);
            made["metadata"]["ownerReferences"] = owner.clone();
            made["metadata"]["annotations"] = json!({"prometheus.io/scrape": "true"});
            cx.writing("gpu-operator", |cx| cx.create(made));
        } else if !wanted && there {
            cx.delete("services", NS, app);
        }
    }
}

/// The operator looks at its policy.
pub fn reconcile(cx: &mut Cx) {
    let Some(policy) = policy(cx) else { return };
    if ready_pod(cx, "app", "gpu-operator").is_none() {
        return;
    }
    let nodes: Vec<String> = cx.list("nodes").into_iter().map(|n| s(n, "/metadata/name").to_owned()).collect();
    for n in nodes {
        node(cx, &n);
    }
    let owner = owner_ref(&policy);
    if policy["spec"]["migManager"]["enabled"] != false && cx.get("configmaps", NS, super::mig::CONFIGS).is_none() {
        let mut map = super::mig::configurations();
        map["metadata"]["ownerReferences"] = owner.clone();
        cx.writing("gpu-operator", |cx| cx.create(map));
    }
    for o in OPERANDS {
        let Some(mut ds) = operand(&policy, o) else {
            cx.delete("daemonsets.apps", NS, o.name);
            continue;
        };
        let hash = sha256(&ds["spec"].to_string())[..16].to_owned();
        ds["metadata"]["ownerReferences"] = owner.clone();
        ds["metadata"]["annotations"][HASH] = json!(hash);
        let (ns, name) = key(&ds);
        if cx.get("daemonsets.apps", &ns, &name).is_none_or(|old| old["metadata"]["annotations"][HASH] != hash.as_str())
        {
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account_of(&name), "namespace": ns}});
            cx.writing("gpu-operator", |cx| {
                cx.create(account);
                cx.ensure(ds);
            });
        }
    }
    services(cx, &policy, &owner);
    super::upgrades::step(cx, &policy);
    super::plugin::refresh(cx);
    state(cx, s(&policy, "/metadata/name"));
}

/// The state of the operator that an operand is made in, as the policy's conditions name it.
fn stage(deploy: &str) -> String {
    match deploy {
        "gpu-feature-discovery" => deploy.to_owned(),
        "operator-validator" => "state-operator-validation".to_owned(),
        _ => format!("state-{deploy}"),
    }
}

/// The order in which the operator goes through its states.
const ORDER: &[&str] = &[
    "driver",
    "container-toolkit",
    "operator-validator",
    "device-plugin",
    "dcgm-exporter",
    "gpu-feature-discovery",
    "mig-manager",
];

fn state(cx: &mut Cx, name: &str) {
    let mut waits = Vec::new();
    let mut any = false;
    for deploy in ORDER {
        let Some(operand) = OPERANDS.iter().find(|o| o.deploy == *deploy) else { continue };
        let Some(ds) = cx.get("daemonsets.apps", NS, operand.name) else { continue };
        let n = |f: &str| ds["status"][f].as_i64().unwrap_or(0);
        any |= n("desiredNumberScheduled") > 0;
        let behind = *deploy == "driver" && super::upgrades::is_behind(cx);
        if n("numberReady") < n("desiredNumberScheduled") || behind {
            waits.push(stage(deploy));
        }
    }
    let (state, reason, text) = match (any, waits.is_empty()) {
        (true, true) => (
            "ready",
            "Reconciled",
            "ClusterPolicy is ready as all resources have been successfully reconciled".to_owned(),
        ),
        (false, _) => {
            ("notReady", "NoGPUNodes", "No GPU node found, watching for new nodes to join the cluster.".to_owned())
        }
        (true, false) => (
            "notReady",
            "OperandNotReady",
            format!("ClusterPolicy is not ready, states not ready: [{}]", waits.join(" ")),
        ),
    };
    let old = cx.get(POLICY, "", name).cloned().unwrap_or_default();
    if s(&old, "/status/state") == state
        && arr(&old, "/status/conditions").iter().any(|c| c["message"] == text.as_str())
    {
        return;
    }
    let stamp = cx.stamp();
    cx.update(POLICY, "", name, |o| {
        o["status"]["state"] = json!(state);
        o["status"]["namespace"] = json!(NS);
        let conditions = match reason {
            "OperandNotReady" => [("Ready", "False", "Error", ""), ("Error", "True", reason, text.as_str())],
            _ => [("Ready", "True", reason, text.as_str()), ("Error", "False", "Ready", "")],
        };
        for (kind, status, reason, text) in conditions {
            set_condition(o, &stamp, kind, status, reason, text);
        }
        // these are metav1.Conditions: their message is there even when it is empty
        for c in o["status"]["conditions"].as_array_mut().into_iter().flatten().filter(|c| c["message"].is_null()) {
            c["message"] = json!("");
        }
    });
}
