//! The local-path provisioner and its class.
use serde_json::{Value, json};

use super::{Filled, account, binding, deployment, holder, role, rule, tolerations};

const ACCOUNT: &str = "local-path-provisioner-service-account";

/// Everything of its manifest.
pub(super) fn local(f: &Filled) -> Vec<Value> {
    let look = ["get", "list", "watch"];
    let right = role(
        "local-path-provisioner-role",
        json!([
            rule(&[""], &["nodes", "persistentvolumeclaims", "configmaps", "pods/log"], &look),
            rule(&[""], &["endpoints", "persistentvolumes", "pods"], &["*"]),
            rule(&[""], &["events"], &["create", "patch"]),
            rule(&["storage.k8s.io"], &["storageclasses"], &look),
        ]),
    );
    let pod = json!({
        "priorityClassName": "system-node-critical", "serviceAccountName": ACCOUNT, "tolerations": tolerations(f),
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "containers": [{
            "name": "local-path-provisioner", "image": f.image("local-path-provisioner", f.parts.local_path),
            "imagePullPolicy": "IfNotPresent",
            "command": ["local-path-provisioner", "start", "--config", "/etc/config/config.json"],
            "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/config/"}],
            "env": [{"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
        }],
        "volumes": [{"name": "config-volume", "configMap": {"name": "local-path-config"}}],
    });
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local-path", "annotations": {"defaultVolumeType": "local",
            "storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "rancher.io/local-path", "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete"});
    vec![
        account(ACCOUNT),
        right,
        binding("local-path-provisioner-bind", "local-path-provisioner-role", holder(ACCOUNT)),
        deployment("local-path-provisioner", Value::Null, json!({"app": "local-path-provisioner"}), pod),
        class,
        config(f),
    ]
}

fn config(f: &Filled) -> Value {
    let paths = format!(
        "{{\n  \"nodePathMap\":[\n  {{\n    \"node\":\"DEFAULT_PATH_FOR_NON_LISTED_NODES\",\n    \"paths\":[\"{}\"]\n  }}\n  ]\n}}",
        f.storage
    );
    let script = |lines: &[&str]| format!("#!/bin/sh\nset -eu\n{}", lines.join("\n"));
    let helper = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: helper-pod\nspec:\n  containers:\n  - name: helper-pod\n    image: \"{}\"\n    imagePullPolicy: IfNotPresent\n",
        f.image("mirrored-library-busybox", f.parts.busybox)
    );
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "local-path-config", "namespace": "kube-system"},
        "data": {"config.json": paths,
            "setup": script(&["mkdir -m 0777 -p \"${VOL_DIR}\"", "chmod 700 \"${VOL_DIR}/..\""]),
            "teardown": script(&["rm -rf \"${VOL_DIR}\""]), "helperPod.yaml": helper.trim_end()}})
}
