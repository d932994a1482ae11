//! Charts below the platform: storage driver, GPU operator.
use serde_json::{Value, json};

use super::Wanted;
use crate::kube::objects::{Container, Workload};

fn tolerations(w: &Wanted, path: &str) -> Value {
    w.values.pointer(path).cloned().unwrap_or(Value::Null)
}

/// csi-driver-nfs: the node plugin everywhere, one controller.
pub(super) fn csi_nfs(w: &Wanted) -> (Vec<&'static str>, Vec<Value>) {
    let ns = &w.namespace;
    let image = format!("registry.k8s.io/sig-storage/nfsplugin:v{}", w.version.trim_start_matches('v'));
    let mut out =
        vec![json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "nfs.csi.k8s.io"},
        "spec": {"attachRequired": false, "volumeLifecycleModes": ["Persistent"], "fsGroupPolicy": "File"}})];
    out.extend(
        Workload::daemonset(ns, "csi-nfs-node")
            .label("app", "csi-nfs-node")
            .container(Container::new("nfs", &image))
            .container(Container::new(
                "node-driver-registrar",
                "registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.15.0",
            ))
            .spec("hostNetwork", json!(true))
            .spec("tolerations", json!([{"operator": "Exists"}]))
            .objects(),
    );
    out.extend(
        Workload::deployment(ns, "csi-nfs-controller")
            .label("app", "csi-nfs-controller")
            .container(Container::new("csi-provisioner", "registry.k8s.io/sig-storage/csi-provisioner:v5.3.0"))
            .container(Container::new("nfs", &image))
            .spec("hostNetwork", json!(true))
            .spec(
                "tolerations",
                json!([
                {"key": "node-role.kubernetes.io/master", "operator": "Exists", "effect": "NoSchedule"},
                {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}]),
            )
            .objects(),
    );
    (Vec::new(), out)
}

/// gpu-operator: the operator, node feature discovery and the ClusterPolicy.
pub(super) fn gpu_operator(w: &Wanted) -> (Vec<&'static str>, Vec<Value>) {
    let ns = &w.namespace;
    let own = json!([{"key": "node-role.kubernetes.io/control-plane", "operator": "Equal", "value": "", "effect": "NoSchedule"}]);
    let or_own = |v: Value| if v.is_null() { own.clone() } else { v };
    let mut out = Workload::deployment(ns, "gpu-operator")
        .label("app", "gpu-operator")
        .label("app.kubernetes.io/component", "gpu-operator")
        .container(Container::new("gpu-operator", &format!("nvcr.io/nvidia/gpu-operator:{}", w.version)))
        .spec("tolerations", or_own(tolerations(w, "/operator/tolerations")))
        .objects();
    let nfd = |name: &str, role: &str, set: bool| {
        let base = if set { Workload::daemonset(ns, name) } else { Workload::deployment(ns, name) };
        base.label("app.kubernetes.io/name", "node-feature-discovery")
            .label("role", role)
            .container(Container::new(role, "registry.k8s.io/nfd/node-feature-discovery:v0.18.2"))
            .spec("tolerations", or_own(tolerations(w, &format!("/node-feature-discovery/{role}/tolerations"))))
            .objects()
    };
    out.extend(nfd("gpu-operator-node-feature-discovery-worker", "worker", true));
    out.extend(nfd("gpu-operator-node-feature-discovery-master", "master", false));
    out.extend(nfd("gpu-operator-node-feature-discovery-gc", "gc", false));
    let mut spec = json!({
        "driver": {"enabled": true, "version": "580.105.08"}, "toolkit": {"enabled": true},
        "devicePlugin": {"enabled": true}, "dcgmExporter": {"enabled": true}, "mig": {"strategy": "single"},
        "gfd": {"enabled": true}, "dcgm": {"enabled": false}, "nodeStatusExporter": {"enabled": false},
        "operator": {"defaultRuntime": "containerd", "runtimeClass": "nvidia"},
        "daemonsets": {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]},
    });
    for part in
        ["driver", "toolkit", "devicePlugin", "dcgmExporter", "mig", "migManager", "cdi", "daemonsets", "operator"]
    {
        // What concerns the operator's own Deployment stays out of the policy.
        let own =
            |k: &str| part == "operator" && !matches!(k, "defaultRuntime" | "runtimeClass" | "labels" | "annotations");
        for (k, v) in w.values[part].as_object().into_iter().flatten().filter(|(k, _)| !own(k)) {
            spec[part][k] = v.clone();
        }
    }
    out.push(json!({"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "cluster-policy"}, "spec": spec}));
    (vec!["clusterpolicies.nvidia.com"], out)
}
