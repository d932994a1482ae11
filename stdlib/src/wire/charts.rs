//! What is known of charts, by their values.yaml.

/// Top-level keys of the values of NVIDIA's `gpu-operator` (v25.10 to v26.7).
pub const GPU_OPERATOR: &[&str] = &[
    "platform",
    "nfd",
    "psa",
    "cdi",
    "sandboxWorkloads",
    "hostPaths",
    "daemonsets",
    "validator",
    "operator",
    "mig",
    "driver",
    "toolkit",
    "devicePlugin",
    "dcgm",
    "dcgmExporter",
    "gfd",
    "migManager",
    "nodeStatusExporter",
    "gds",
    "gdrcopy",
    "vgpuManager",
    "vgpuDeviceManager",
    "vfioManager",
    "kataManager",
    "kataSandboxDevicePlugin",
    "sandboxDevicePlugin",
    "ccManager",
    "node-feature-discovery",
    "gpuCluster",
    "clusterPolicy",
    "extraObjects",
    "nameOverride",
    "fullnameOverride",
    "global",
];

/// Rancher minors and the first Kubernetes minor that their charts refuse (`kubeVersion: < 1.35.0-0` of 2.13 …).
const RANCHER: &[((u32, u32), u32)] = &[((2, 13), 35), ((2, 14), 36), ((2, 15), 37)];

/// The first minor of Kubernetes 1 that Rancher's chart of this version refuses, where it is known.
#[must_use]
pub fn rancher_refuses(version: &str) -> Option<u32> {
    let mut n = version.trim_start_matches('v').split('.').map(|p| p.parse::<u32>().ok());
    let minor = (n.next()??, n.next()??);
    RANCHER.iter().find(|r| r.0 == minor).map(|r| r.1)
}

/// The oldest minor of Rancher whose chart takes this minor of Kubernetes 1, where one is known.
#[must_use]
pub fn rancher_for(kubernetes: u32) -> Option<String> {
    RANCHER.iter().find(|r| kubernetes < r.1).map(|((a, b), _)| format!("{a}.{b}"))
}
