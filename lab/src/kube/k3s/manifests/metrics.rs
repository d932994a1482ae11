//! metrics-server, in seven files.
use serde_json::{Value, json};

use super::{Filled, account, binding, deployment, holder, probe, reader, role, rule, tolerations};
use crate::kube::k3s::config;

const NAME: &str = "metrics-server";

/// Its files with their objects.
pub(super) fn server(f: &Filled) -> Vec<(&'static str, Vec<Value>)> {
    let look = ["get", "list", "watch"];
    let mut seen =
        role("system:aggregated-metrics-reader", json!([rule(&["metrics.k8s.io"], &["pods", "nodes"], &look)]));
    for to in ["view", "edit", "admin"] {
        seen["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{to}")] = json!("true");
    }
    let right = role(
        "system:metrics-server",
        json!([rule(&[""], &["nodes/metrics"], &["get"]), rule(&[""], &["pods", "nodes"], &look)]),
    );
    let api = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {"service": {"name": NAME, "namespace": "kube-system"}, "group": "metrics.k8s.io", "version": "v1beta1",
            "insecureSkipTLSVerify": true, "groupPriorityMinimum": 100, "versionPriority": 100}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, "namespace": "kube-system",
            "labels": {"kubernetes.io/name": "Metrics-server", "kubernetes.io/cluster-service": "true"}},
        "spec": {"selector": {"k8s-app": NAME}, "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"port": 443, "name": "https", "protocol": "TCP", "targetPort": "https"}]}});
    let named = json!({"k8s-app": NAME});
    let mut deployment = deployment(NAME, named.clone(), named, pod(f));
    deployment["spec"]["template"]["metadata"]["name"] = json!(NAME);
    vec![
        ("metrics-server/aggregated-metrics-reader.yaml", vec![seen]),
        (
            "metrics-server/auth-delegator.yaml",
            vec![binding("metrics-server:system:auth-delegator", "system:auth-delegator", holder(NAME))],
        ),
        ("metrics-server/auth-reader.yaml", vec![reader("metrics-server-auth-reader", holder(NAME))]),
        ("metrics-server/metrics-apiservice.yaml", vec![api]),
        ("metrics-server/metrics-server-deployment.yaml", vec![account(NAME), deployment]),
        ("metrics-server/metrics-server-service.yaml", vec![service]),
        (
            "metrics-server/resource-reader.yaml",
            vec![right, binding("system:metrics-server", "system:metrics-server", holder(NAME))],
        ),
    ]
}

fn pod(f: &Filled) -> Value {
    let first =
        if config::on(f.config, "flannel-external-ip") { "ExternalIP,InternalIP" } else { "InternalIP,ExternalIP" };
    let ciphers = ["AES_256_GCM_SHA384", "AES_128_GCM_SHA256", "CHACHA20_POLY1305"]
        .iter()
        .flat_map(|c| [format!("TLS_ECDHE_ECDSA_WITH_{c}"), format!("TLS_ECDHE_RSA_WITH_{c}")])
        .collect::<Vec<_>>()
        .join(",");
    json!({
        "priorityClassName": "system-node-critical", "serviceAccountName": NAME, "tolerations": tolerations(f),
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "volumes": [{"name": "tmp-dir", "emptyDir": {}}],
        "containers": [{
            "name": NAME, "image": f.image("mirrored-metrics-server", f.parts.metrics_server),
            "args": ["--cert-dir=/tmp", "--secure-port=10250",
                format!("--kubelet-preferred-address-types={first},Hostname"), "--kubelet-use-node-status-port",
                "--metric-resolution=15s", format!("--tls-cipher-suites={ciphers}")],
            "resources": {"requests": {"cpu": "100m", "memory": "70Mi"}},
            "ports": [{"name": "https", "containerPort": 10250, "protocol": "TCP"}],
            "readinessProbe": probe("/readyz", json!("https"), "HTTPS", (0, 2)),
            "livenessProbe": probe("/livez", json!("https"), "HTTPS", (60, 10)),
            "securityContext": {"readOnlyRootFilesystem": true, "runAsNonRoot": true, "runAsUser": 1000,
                "allowPrivilegeEscalation": false},
            "volumeMounts": [{"name": "tmp-dir", "mountPath": "/tmp"}],
        }],
    })
}
