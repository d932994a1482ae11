//! What the operator's containers do on a node: the texts are those of the real programs (grade: issue threads, source).
use serde_json::Value;

use super::super::behaviour::Run;
use super::{mig, plugin, validator};
use crate::kube::cx::Cx;
use crate::kube::state::NodeRt;
use crate::kube::text::{arr, s};

const SOCKET: &str = "/run/k3s/containerd/containerd.sock";

fn wait(log: &str) -> Run {
    Run::Wait { log: log.to_owned() }
}

fn crash(log: String) -> Run {
    Run::Crash { log }
}

fn done(after_ms: u64, log: &str) -> Run {
    Run::Exit { code: 0, after_ms, log: log.to_owned() }
}

/// What container `c` of an operand does; `None` for pods that are not the operator's.
pub fn run_of(cx: &mut Cx, pod: &Value, c: &Value, node: &str) -> Option<Run> {
    let rt = cx.c.nodes.get(node).cloned().unwrap_or_default();
    let init = arr(pod, "/spec/initContainers").iter().any(|i| i["name"] == c["name"]);
    Some(match (s(pod, "/metadata/labels/app"), init) {
        ("nvidia-driver-daemonset", true) => driver_manager(cx, &rt, node),
        ("nvidia-driver-daemonset", false) => driver(cx, &rt),
        ("nvidia-container-toolkit-daemonset", true) => driver_validation(cx, &rt, pod),
        ("nvidia-container-toolkit-daemonset", false) => toolkit(cx, c),
        (
            "nvidia-device-plugin-daemonset"
            | "gpu-feature-discovery"
            | "nvidia-dcgm-exporter"
            | "nvidia-mig-manager"
            | "nvidia-device-plugin-mps-control-daemon",
            true,
        ) => {
            if rt.toolkit {
                done(1000, "")
            } else if own_toolkit(cx, &rt) {
                driver_validation(cx, &rt, pod)
            } else {
                wait("waiting for nvidia container stack to be setup")
            }
        }
        ("nvidia-device-plugin-daemonset", false) => device_plugin(cx, &rt),
        ("nvidia-operator-validator", true) => validator::step(cx, pod, s(c, "/name"), &rt),
        ("nvidia-operator-validator", false) => {
            Run::Forever { ready_ms: 2000, log: "all validations are successful".to_owned() }
        }
        ("nvidia-cuda-validator" | "nvidia-device-plugin-validator", init) => validator::workload(cx, pod, &rt, init),
        ("nvidia-dcgm-exporter", false) => Run::Forever { ready_ms: 3000, log: xids(cx, rt.vmid) },
        ("gpu-feature-discovery" | "nvidia-mig-manager" | "nvidia-device-plugin-mps-control-daemon", false) => {
            Run::forever(3000)
        }
        _ => return None,
    })
}

/// The driver manager clears the way for the driver container, unless the guest has a driver of its own: then it says so
/// on the node, which takes the whole pod away (k8s-driver-manager's sources).
fn driver_manager(cx: &mut Cx, rt: &NodeRt, node: &str) -> Run {
    if crate::guest::own_driver(cx.w, rt.vmid).is_none() {
        return done(1500, "level=info msg=\"Driver uninstallation completed successfully\"");
    }
    super::label(cx, node, &[(super::DRIVER, "pre-installed")]);
    let log = format!(
        "level=info msg=\"NVIDIA GPU driver is already pre-installed on the node, disabling the containerized driver\"\nlevel=info msg=\"Labeling node {node} with {}=pre-installed\"\nlevel=fatal msg=\"driver is pre-installed on host\"",
        super::DRIVER
    );
    Run::Exit { code: 1, after_ms: 60_000, log }
}

/// The driver container: it builds the module for the running kernel and loads it, if nothing is in the way.
fn driver(cx: &Cx, rt: &NodeRt) -> Run {
    let Some(g) = cx.w.guests.get(&rt.vmid) else { return wait("") };
    let begin = "========== NVIDIA Software Installer ==========\nStarting installation of NVIDIA driver\n";
    let cards = cx.w.cards_of(rt.vmid);
    if cards.is_empty() {
        return crash(format!("{begin}NVRM: No NVIDIA GPU found."));
    }
    if g.modules.contains("nouveau") {
        return crash(format!(
            "{begin}ERROR: The Nouveau kernel driver is currently in use by your system.  This driver is incompatible with the NVIDIA driver, and must be disabled before proceeding."
        ));
    }
    let held = g.services.get("nvidia-persistenced.service").is_some_and(|u| u.state == "active");
    if held && g.modules.contains("nvidia") {
        return crash(format!(
            "{begin}Stopping NVIDIA persistence daemon...\nUnloading NVIDIA driver kernel modules...\nCould not unload NVIDIA driver kernel modules, driver is currently in use"
        ));
    }
    if let Some(kernel) = &g.facts.kernel {
        return crash(format!(
            "{begin}Resolving Linux kernel version...\nE: Unable to locate package linux-headers-{kernel}\nCould not resolve Linux kernel version"
        ));
    }
    if secure_boot(cx, rt.vmid) {
        return crash(format!(
            "{begin}Loading NVIDIA driver kernel modules...\n+ modprobe nvidia\nmodprobe: ERROR: could not insert 'nvidia': Required key not available"
        ));
    }
    if let Some((p, _)) = cards.iter().find(|(_, c)| c.stuck) {
        return crash(format!(
            "{begin}Loading NVIDIA driver kernel modules...\nNVRM: GPU {}: RmInitAdapter failed! (0x22:0x56:884)\nNVRM: GPU {}: rm_init_adapter failed, device minor number 0",
            p.address, p.address
        ));
    }
    let log = "Resolving Linux kernel version...\nBuilding NVIDIA driver package\nLoading NVIDIA driver kernel modules...\nDone, now waiting for signal\n";
    Run::Forever { ready_ms: 210_000, log: log.to_owned() }
}

/// Whether the machine's firmware came with Microsoft's keys: unsigned modules are refused then.
pub(super) fn secure_boot(cx: &Cx, vmid: u32) -> bool {
    let efi = cx.w.pve.vms.get(&vmid).and_then(|v| v.conf.get("efidisk0")).cloned().unwrap_or_default();
    efi.split(',').any(|p| p == "pre-enrolled-keys=1")
}

/// The operator brings no toolkit, and K3s has found the machine's own.
pub(super) fn own_toolkit(cx: &Cx, rt: &NodeRt) -> bool {
    super::policy::policy(cx).is_some_and(|p| p["spec"]["toolkit"]["enabled"] == false)
        && cx.w.k3s.get(&rt.vmid).is_some_and(|k| k.runtimes.iter().any(|r| r == "nvidia"))
}

/// The toolkit's first container waits for the driver: the container's, or one of the image.
fn driver_validation(cx: &mut Cx, rt: &NodeRt, pod: &Value) -> Run {
    if rt.driver.is_some() {
        return done(1500, "running command: nvidia-smi");
    }
    let ours = super::policy::driver_container(cx);
    let own = crate::guest::own_driver(cx.w, rt.vmid);
    let host = cx.w.guests.get(&rt.vmid).and_then(|g| g.facts.nvidia_driver.clone());
    match host.filter(|_| !ours || own.is_some()) {
        Some(version) => {
            let node = s(pod, "/spec/nodeName").to_owned();
            cx.node_rt(&node).driver = Some(version);
            done(1500, "Detected pre-installed driver on the host\nrunning command: nvidia-smi")
        }
        None if ours => wait("waiting for the driver to be ready ..."),
        None => wait(
            "running command chroot with args [/host nvidia-smi]\nchroot: failed to run command 'nvidia-smi': No such file or directory\ncommand failed, retrying after 5 seconds",
        ),
    }
}

/// The toolkit writes its runtimes and restarts containerd.
fn toolkit(cx: &Cx, c: &Value) -> Run {
    let env = |name: &str| arr(c, "/env").iter().find(|e| e["name"] == name).map(|e| s(e, "/value").to_owned());
    let socket = env("CONTAINERD_SOCKET").unwrap_or_else(|| "/run/containerd/containerd.sock".to_owned());
    if socket != SOCKET {
        return crash(format!(
            "level=error msg=\"error running nvidia-toolkit: unable to restart containerd: unable to dial: dial unix {socket}: connect: no such file or directory: {socket}\""
        ));
    }
    // v1.17.1 is the first toolkit that reads containerd's configuration version 3
    let version = s(c, "/image").rsplit(":v").next().unwrap_or_default().split('-').next().unwrap_or_default();
    let parts: Vec<u32> = version.split('.').filter_map(|p| p.parse().ok()).collect();
    let minor = |v: &str| v.split('.').nth(1).and_then(|m| m.parse::<u32>().ok()).unwrap_or(0);
    if parts.len() == 3 && (parts[0], parts[1], parts[2]) < (1, 17, 1) && minor(&cx.c.version) >= 32 {
        return crash(
            "level=error msg=\"error running nvidia-toolkit: unable to setup runtime: unable to load containerd config: unsupported config version: 3\"".to_owned(),
        );
    }
    if env("RUNTIME_CONFIG_SOURCE").as_deref() != Some("file") && minor(&cx.c.version) >= 37 {
        return crash(
            "level=error msg=\"failed to load containerd config: drop-in config version 4 higher than root config version 3\"".to_owned(),
        );
    }
    Run::forever(6000)
}

/// The device plugin registers what NVML shows.
fn device_plugin(cx: &Cx, rt: &NodeRt) -> Run {
    let loaded = cx.w.guests.get(&rt.vmid).and_then(|g| g.facts.nvidia_driver.clone());
    if let (Some(loaded), Some(library)) = (&loaded, &rt.driver)
        && loaded != library
    {
        return crash(format!(
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: {library}, kernel module: {loaded}\nIf this is a GPU node, did you configure the NVIDIA Container Toolkit?"
        ));
    }
    if let Some(text) = plugin::config_error(cx) {
        return crash(text);
    }
    if let Some(why) = mig::invalid(&plugin::strategy(cx), &cx.w.cards_of(rt.vmid)) {
        return crash(format!(
            "error starting plugins: error getting plugins: unable to create plugins: failed to construct NVML resource managers: error building device map: error building device map from config.resources: invalid MIG configuration: {why}"
        ));
    }
    Run::Forever {
        ready_ms: 3000,
        log: format!("Registered device plugin for 'nvidia.com/gpu' with Kubelet\n{}", xids(cx, rt.vmid)),
    }
}

fn xids(cx: &Cx, vmid: u32) -> String {
    let bad = cx.w.cards_of(vmid).into_iter().filter_map(|(p, c)| Some((p.address, c.xid?)));
    bad.map(|(a, x)| format!("XidCriticalError: Xid={x} on Device={a}; marking device as unhealthy.\n")).collect()
}
