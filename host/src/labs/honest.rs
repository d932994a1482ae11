//! What a lab run cannot show, by what the run did, and where it shows on hardware.
use std::collections::BTreeSet;

/// Op (or its module with a dot), what the lab stood in for, and the check that does it on hardware.
const TABLE: &[(&str, &str)] = &[
    (
        "gpu.passthrough_report",
        "passthrough on the real boards: IOMMU groups and vfio are the lab's own (on hardware: \
         `gpu::passthrough_report` of deploy, verify `CUDA test`)",
    ),
    (
        "gpu.ensure_operator",
        "driver build and container toolkit on the real kernel (on hardware: verify `GPU operator running`)",
    ),
    ("gpu.run_test", "CUDA itself: the lab's cards only count (on hardware: verify `CUDA test`)"),
    ("proxmox.ensure_vm", "speed of real disks and networks: durations are estimates until a real run"),
    ("ssh.ensure", "package mirrors and their versions (on hardware: `prepare the systems` of deploy)"),
    ("helm.ensure_release", "image pulls and what the charts' programs do (on hardware: verify, all of its proofs)"),
];

/// The list for a run that did `ops`.
#[must_use]
pub fn list(ops: &BTreeSet<String>) -> Vec<String> {
    TABLE.iter().filter(|(op, _)| ops.contains(*op)).map(|(_, text)| (*text).to_owned()).collect()
}
