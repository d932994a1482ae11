//! Charts below the platform: the storage driver.
use serde_json::{Value, json};

use super::Wanted;
use crate::kube::objects::{Container, Workload};

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
