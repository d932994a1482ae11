//! What the lines of the operands' logs mean, and what mends it. No I/O.

/// The kind of command that mends something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// Run the deploy recipe again.
    Deploy,
    /// Stop and start the VM.
    RestartVm,
    /// Reboot the guest.
    Reboot,
    /// Take the cards' MIG mode away.
    Whole,
    /// Restart K3s on the node.
    RestartAgent,
    /// Restart the pod of this operand on the node.
    Operand(&'static str),
    /// Run this on the node.
    OnNode(&'static str),
    /// Cut the cards again as the node's label says, with the power cycle that this needs.
    Recut,
    /// Take the guest's own driver away.
    OwnDriver,
}

/// A line that explains itself to those who know it.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// Part of the line.
    pub part: &'static str,
    /// Word for the cause.
    pub id: &'static str,
    /// What is wrong.
    pub cause: &'static str,
    /// What mends it.
    pub fix: &'static str,
    /// The kind of command.
    pub mend: Mend,
    /// Whether it is the release's fault, and not one node's.
    pub release: bool,
}

const fn on_node(part: &'static str, id: &'static str, cause: &'static str, fix: &'static str, mend: Mend) -> Pattern {
    Pattern { part, id, cause, fix, mend, release: false }
}

const fn of_release(part: &'static str, id: &'static str, cause: &'static str, fix: &'static str) -> Pattern {
    Pattern { part, id, cause, fix, mend: Mend::Deploy, release: true }
}

/// Lines of driver, toolkit and device plugin; the first match of the newest line wins.
pub const PATTERNS: &[Pattern] = &[
    on_node(
        "Nouveau kernel driver is currently in use",
        "nouveau-loaded",
        "nouveau holds the cards",
        "keep nouveau off the node and unload it",
        Mend::OnNode("echo blacklist nouveau | sudo tee /etc/modprobe.d/nouveau.conf && sudo modprobe -r nouveau"),
    ),
    on_node(
        "driver is currently in use",
        "driver-in-use",
        "something on the node holds the old driver",
        "stop what holds it (nvidia-persistenced, an X server, a process outside of Kubernetes), or reboot the VM",
        Mend::OnNode("sudo systemctl disable --now nvidia-persistenced"),
    ),
    on_node(
        "Could not resolve Linux kernel version",
        "kernel-without-headers",
        "the package mirror has no headers for the running kernel",
        "reboot into the newest installed kernel, and hold it there (`apt-mark hold linux-image-amd64`)",
        Mend::Reboot,
    ),
    on_node(
        "Required key not available",
        "secure-boot",
        "Secure Boot refuses the driver's module",
        "switch Secure Boot off in the VM's firmware menu, or make its EFI disk anew with pre-enrolled-keys=0; then restart the VM",
        Mend::RestartVm,
    ),
    on_node(
        "RmInitAdapter failed",
        "card-not-initialising",
        "a card does not initialise in the guest",
        "stop and start the VM (a reboot does not reset the card); if it stays, look at MMIO size and ROM",
        Mend::RestartVm,
    ),
    of_release(
        "unsupported config version: 3",
        "toolkit-too-old",
        "the container toolkit is too old for containerd 2",
        "take the toolkit version that the operator's release brings",
    ),
    of_release(
        "higher than root",
        "toolkit-drop-in",
        "the toolkit's drop-in has another version than containerd's configuration",
        "set RUNTIME_CONFIG_SOURCE=file in the toolkit's environment",
    ),
    of_release(
        "containerd.sock",
        "toolkit-socket",
        "the toolkit looks for containerd at another socket than K3s'",
        "set CONTAINERD_SOCKET to /run/k3s/containerd/containerd.sock",
    ),
    on_node(
        "Driver/library version mismatch",
        "driver-mismatch",
        "the loaded kernel module and the driver's libraries differ",
        "reboot the node: the new module is loaded then",
        Mend::Reboot,
    ),
    on_node(
        "more than one MIG device type present",
        "mig-layouts-differ",
        "the cards are cut into instances of several sizes, which the strategy `single` does not know",
        "have the MIG manager cut them again as the node's label says; for several sizes take mig_strategy = \"mixed\"",
        Mend::Operand("nvidia-mig-manager"),
    ),
    on_node(
        "configured with the same migEnabled value",
        "mig-layouts-differ",
        "some cards are cut into instances and others are whole, which the strategy `single` does not know",
        "have the MIG manager cut them again as the node's label says; for both take mig_strategy = \"mixed\"",
        Mend::Operand("nvidia-mig-manager"),
    ),
    on_node(
        "migEnabled=true was not configured correctly",
        "mig-waits",
        "the cards are in MIG mode, but have no instances",
        "a mode change of a passed-through card needs the VM stopped and started",
        Mend::RestartVm,
    ),
    on_node(
        "In use by another client",
        "mig-cards-busy",
        "something on the node holds the cards: their MIG mode cannot be changed",
        "stop what holds them (a monitoring service of the machine, a process outside of Kubernetes); the script drains the node, power-cycles its VM and cuts the cards as the label says",
        Mend::Recut,
    ),
    on_node(
        "Incompatible strategy",
        "plugin-without-runtime",
        "the device plugin was started without NVIDIA's runtime and sees no card",
        "restart K3s on the node, then the device plugin",
        Mend::RestartAgent,
    ),
    of_release(
        "config file for",
        "sharing-config-missing",
        "the sharing configuration that the policy names does not exist",
        "make the ConfigMap, or take its name out of the values",
    ),
    on_node(
        "Xid=79",
        "card-off-bus",
        "a card has fallen off the bus (Xid 79)",
        "stop and start the VM; if it comes back, the card, its power or its slot is at fault",
        Mend::RestartVm,
    ),
    on_node(
        "Xid=",
        "card-memory-errors",
        "a card reports errors of its memory or engine (Xid)",
        "reboot the node, which resets the card; if it comes back, have the card replaced",
        Mend::Reboot,
    ),
];

/// The newest line of a log that a pattern knows.
#[must_use]
pub fn explain_log(log: &str) -> Option<(String, &'static Pattern)> {
    log.lines()
        .rev()
        .find_map(|line| PATTERNS.iter().find(|p| line.contains(p.part)).map(|p| (line.trim().to_owned(), p)))
}

/// What a pod's own trouble says without a log: images and volumes.
#[must_use]
pub fn explain_trouble(trouble: &str) -> Option<(&'static str, &'static str, &'static str)> {
    if trouble.contains("ImagePullBackOff") || trouble.contains("ErrImagePull") {
        return Some((
            "driver-image-missing",
            "the image that the release names does not exist",
            "correct the version in the site file",
        ));
    }
    if trouble.contains("configmap") && trouble.contains("not found") {
        return Some((
            "sharing-config-missing",
            "the sharing configuration that the policy names does not exist",
            "make the ConfigMap, or take its name out of the values",
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_known_line_wins() {
        let (line, p) = explain_log("a\nmodprobe: Required key not available\nb\n").unwrap();
        assert!(line.contains("modprobe") && p.id == "secure-boot");
        assert_eq!(explain_log("XidCriticalError: Xid=64 on Device=x").unwrap().1.id, "card-memory-errors");
        assert_eq!(explain_log("XidCriticalError: Xid=79 on Device=x").unwrap().1.id, "card-off-bus");
        assert!(explain_log("all fine").is_none());
        assert_eq!(explain_trouble("FailedMount: configmap \"x\" not found").unwrap().0, "sharing-config-missing");
    }
}
