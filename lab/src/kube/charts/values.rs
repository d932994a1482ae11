//! Top-level values of the catalogue's charts, as their values.yaml has them. Grade: source (chart values).
use gpuhost_stdlib::wire::charts::GPU_OPERATOR;
use serde_json::{Map, Value, json};

const KEYS: &[(&str, &[&str])] = &[
    (
        "csi-driver-nfs",
        &[
            "customLabels",
            "image",
            "serviceAccount",
            "rbac",
            "driver",
            "feature",
            "kubeletDir",
            "controller",
            "node",
            "externalSnapshotter",
            "imagePullSecrets",
            "storageClass",
            "storageClasses",
            "volumeSnapshotClass",
            "volumeSnapshotClasses",
        ],
    ),
    ("gpu-operator", GPU_OPERATOR),
    (
        "cert-manager",
        &[
            "global",
            "installCRDs",
            "crds",
            "replicaCount",
            "strategy",
            "podDisruptionBudget",
            "featureGates",
            "maxConcurrentChallenges",
            "image",
            "clusterResourceNamespace",
            "namespace",
            "fullnameOverride",
            "nameOverride",
            "serviceAccount",
            "automountServiceAccountToken",
            "enableCertificateOwnerRef",
            "config",
            "dns01RecursiveNameservers",
            "dns01RecursiveNameserversOnly",
            "disableAutoApproval",
            "approveSignerNames",
            "extraArgs",
            "extraEnv",
            "resources",
            "securityContext",
            "containerSecurityContext",
            "volumes",
            "volumeMounts",
            "podLabels",
            "serviceLabels",
            "nodeSelector",
            "ingressShim",
            "affinity",
            "tolerations",
            "topologySpreadConstraints",
            "livenessProbe",
            "enableServiceLinks",
            "prometheus",
            "webhook",
            "cainjector",
            "acmesolver",
            "startupapicheck",
            "extraObjects",
            "creator",
        ],
    ),
];

/// The values of a chart: every known top-level key; an empty map where they are not known.
#[must_use]
pub fn of(chart: &str) -> Value {
    let known = KEYS.iter().find(|(name, _)| *name == chart).map_or(&[][..], |(_, keys)| keys);
    Value::Object(known.iter().map(|k| ((*k).to_owned(), json!({}))).collect::<Map<_, _>>())
}
