//! The chart of the GPU operator: what each of its versions brings. Grade: source (values.yaml of the versions).
use serde_json::{Value, json};

use super::Wanted;
use crate::kube::objects::{Container, Workload};

/// Versions of the operands and of feature discovery that come with one version of the chart.
struct Brought {
    chart: &'static str,
    driver: &'static str,
    manager: &'static str,
    toolkit: &'static str,
    /// Device plugin and GPU feature discovery are one image.
    plugin: &'static str,
    dcgm: &'static str,
    exporter: &'static str,
    mig: &'static str,
    nfd: &'static str,
}

const BROUGHT: &[Brought] = &[
    Brought {
        chart: "v26.7.0",
        driver: "595.91.07",
        manager: "v0.12.0",
        toolkit: "v1.20.0",
        plugin: "v0.20.0",
        dcgm: "4.6.0-1-ubuntu24.04",
        exporter: "4.6.0-4.8.3-distroless",
        mig: "v0.15.0",
        nfd: "v0.19.0",
    },
    Brought {
        chart: "v26.3.3",
        driver: "580.126.20",
        manager: "v0.11.0",
        toolkit: "v1.19.1",
        plugin: "v0.19.3",
        dcgm: "4.5.2-1-ubuntu22.04",
        exporter: "4.5.3-4.8.2-distroless",
        mig: "v0.14.2",
        nfd: "v0.18.3",
    },
    Brought {
        chart: "v25.10.1",
        driver: "580.105.08",
        manager: "v0.9.1",
        toolkit: "v1.18.1",
        plugin: "v0.18.1",
        dcgm: "4.4.2-1-ubuntu22.04",
        exporter: "4.4.2-4.7.0-distroless",
        mig: "v0.13.1",
        nfd: "v0.18.2",
    },
    Brought {
        chart: "v25.10.0",
        driver: "580.95.05",
        manager: "v0.9.0",
        toolkit: "v1.18.0",
        plugin: "v0.18.0",
        dcgm: "4.4.1-2-ubuntu22.04",
        exporter: "4.4.1-4.6.0-distroless",
        mig: "v0.13.0",
        nfd: "v0.18.2",
    },
];

/// Versions of the chart, the newest first.
pub(super) const VERSIONS: &[&str] = &[BROUGHT[0].chart, BROUGHT[1].chart, BROUGHT[2].chart, BROUGHT[3].chart];

/// Values that go into the policy.
const PARTS: &[&str] = &[
    "driver",
    "toolkit",
    "devicePlugin",
    "gfd",
    "dcgm",
    "dcgmExporter",
    "mig",
    "migManager",
    "validator",
    "cdi",
    "daemonsets",
    "operator",
];

fn brought(version: &str) -> &'static Brought {
    BROUGHT.iter().find(|b| b.chart == version).unwrap_or(&BROUGHT[0])
}

fn tolerations(w: &Wanted, path: &str) -> Value {
    w.values.pointer(path).cloned().unwrap_or(Value::Null)
}

/// The policy as the chart's own values make it.
fn policy(w: &Wanted, b: &Brought) -> Value {
    let part = |enabled: bool, repository: &str, image: &str, version: &str| json!({"enabled": enabled, "repository": repository, "image": image, "version": version, "imagePullPolicy": "IfNotPresent"});
    let (nvidia, k8s, cloud) = ("nvcr.io/nvidia", "nvcr.io/nvidia/k8s", "nvcr.io/nvidia/cloud-native");
    let mut spec = json!({
        "driver": part(true, nvidia, "driver", b.driver),
        "toolkit": part(true, k8s, "container-toolkit", b.toolkit),
        "devicePlugin": part(true, nvidia, "k8s-device-plugin", b.plugin),
        "gfd": part(true, nvidia, "k8s-device-plugin", b.plugin),
        "dcgm": part(false, cloud, "dcgm", b.dcgm),
        "dcgmExporter": part(true, k8s, "dcgm-exporter", b.exporter),
        "migManager": part(true, cloud, "k8s-mig-manager", b.mig),
        "validator": {"repository": nvidia, "image": "gpu-operator", "version": w.version, "imagePullPolicy": "IfNotPresent"},
        "nodeStatusExporter": {"enabled": false}, "mig": {"strategy": "single"},
        "operator": {"defaultRuntime": "containerd", "runtimeClass": "nvidia"},
        "daemonsets": {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]},
    });
    spec["driver"]["manager"] = json!({"repository": cloud, "image": "k8s-driver-manager", "version": b.manager, "imagePullPolicy": "IfNotPresent"});
    spec
}

/// gpu-operator: the operator, node feature discovery and the ClusterPolicy.
pub(super) fn render(w: &Wanted) -> (Vec<&'static str>, Vec<Value>) {
    let (ns, brought) = (&w.namespace, brought(&w.version));
    let own = json!([{"key": "node-role.kubernetes.io/control-plane", "operator": "Equal", "value": "", "effect": "NoSchedule"}]);
    let or_own = |v: Value| if v.is_null() { own.clone() } else { v };
    let mut out = Workload::deployment(ns, "gpu-operator")
        .label("app", "gpu-operator")
        .label("app.kubernetes.io/component", "gpu-operator")
        .container(
            Container::new("gpu-operator", &format!("nvcr.io/nvidia/gpu-operator:{}", w.version))
                .set("ports", json!([{"name": "metrics", "containerPort": 8080}])),
        )
        .spec("tolerations", or_own(tolerations(w, "/operator/tolerations")))
        .objects();
    let nfd = |name: &str, role: &str, set: bool| {
        let base = if set { Workload::daemonset(ns, name) } else { Workload::deployment(ns, name) };
        base.label("app.kubernetes.io/name", "node-feature-discovery")
            .label("role", role)
            .container(Container::new(role, &format!("registry.k8s.io/nfd/node-feature-discovery:{}", brought.nfd)))
            .spec("tolerations", or_own(tolerations(w, &format!("/node-feature-discovery/{role}/tolerations"))))
            .objects()
    };
    out.extend(nfd("gpu-operator-node-feature-discovery-worker", "worker", true));
    out.extend(nfd("gpu-operator-node-feature-discovery-master", "master", false));
    out.extend(nfd("gpu-operator-node-feature-discovery-gc", "gc", false));
    let mut spec = policy(w, brought);
    for part in PARTS {
        // What concerns the operator's own Deployment stays out of the policy.
        let own =
            |k: &str| *part == "operator" && !matches!(k, "defaultRuntime" | "runtimeClass" | "labels" | "annotations");
        for (k, v) in w.values[part].as_object().into_iter().flatten().filter(|(k, _)| !own(k)) {
            spec[part][k] = v.clone();
        }
    }
    let labels =
        json!({"app.kubernetes.io/component": "gpu-operator", "helm.sh/chart": format!("gpu-operator-{}", w.version)});
    out.push(json!({"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "cluster-policy", "labels": labels}, "spec": spec}));
    (vec!["clusterpolicies.nvidia.com"], out)
}
