//! Faults of cards, drivers and runtimes inside the GPU machines: the ladder from the guest to the device plugin.
use super::tools::{cluster, edit, machine, power_off, restart_driver, restart_k3s, restart_operand, start};
use super::{Fault, On};
use crate::Lab;
use crate::guest::hw;
use crate::guest::state::Service;
use crate::kube::controllers::gpu;
use crate::world::World;

const TS: &str = "seed troubleshooting guide, GPU chapter";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "nouveau-loaded",
        on: On::GpuNode,
        what: "the open nouveau driver holds the cards, the driver container restarted",
        source: "issue NVIDIA/gpu-operator#974; text of nvidia-installer",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            if let Some(g) = w.guests.get_mut(&m.vmid) {
                hw::load_module(g, "nouveau");
            }
            restart_driver(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "kernel-without-headers",
        on: On::GpuNode,
        what: "the machine runs a kernel whose headers are no longer in the package mirror",
        source: "NVIDIA driver container, nvidia-driver script: Could not resolve Linux kernel version",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            if let Some(g) = w.guests.get_mut(&m.vmid) {
                g.facts.kernel = Some("6.1.0-35-amd64".to_owned());
            }
            restart_driver(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "driver-in-use",
        on: On::GpuNode,
        what: "a service of the machine holds the driver while its container is replaced",
        source: "seed troubleshooting guide: driver is currently in use",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let unit =
                "[Unit]\nDescription=NVIDIA Persistence Daemon\n[Service]\nExecStart=/usr/bin/nvidia-persistenced\n";
            crate::guest::put_file(lab, w, m.vmid, "/usr/lib/systemd/system/nvidia-persistenced.service", unit, 0o644);
            let since_ms = w.now_ms;
            if let Some(g) = w.guests.get_mut(&m.vmid) {
                let s = Service { state: "active".to_owned(), since_ms, pid: 812, status: 0 };
                g.services.insert("nvidia-persistenced.service".to_owned(), s);
            }
            restart_driver(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "secure-boot",
        on: On::GpuNode,
        what: "the VM's firmware was made with Microsoft's keys and Secure Boot refuses the module",
        source: "issue NVIDIA/gpu-operator#497; kernel text: Required key not available",
        make: |lab, w, t| {
            let id = power_off(lab, w, t)?;
            efi(w, id, "pre-enrolled-keys=0", "pre-enrolled-keys=1")?;
            start(w, id);
            Ok(())
        },
        hands: Some(|_, w, t| {
            let id = super::tools::vmid(w, t)?;
            efi(w, id, "pre-enrolled-keys=1", "pre-enrolled-keys=0")
        }),
    },
    Fault {
        name: "driver-in-guest",
        on: On::GpuNode,
        what: "somebody installed Debian's driver in the machine while the operator brings its own",
        source: "issues NVIDIA/gpu-operator#126, #2150; k8s-driver-manager sources: already pre-installed on the node, disabling the containerized driver",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let wanted = ["nvidia-driver".to_owned()];
            if let Some(g) = w.guests.get_mut(&m.vmid) {
                for p in crate::guest::apt::resolve(g, &wanted)? {
                    g.facts.packages.insert(p.name.to_owned(), p.version.to_owned());
                }
            }
            restart_driver(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "driver-label-stale",
        on: On::GpuNode,
        what: "the node is labelled as if its guest brought a driver, which it does not",
        source: "issue NVIDIA/gpu-operator#398: daemonset never launches, shows drivers as pre-installed even though they are not",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                let there = cx.update("nodes", "", t, |n| {
                    n["metadata"]["labels"]["nvidia.com/gpu.deploy.driver"] = "pre-installed".into();
                });
                there.then_some(()).ok_or_else(|| format!("the cluster has no node `{t}`"))
            })
        },
        hands: None,
    },
    Fault {
        name: "toolkit-drop-in",
        on: On::GpuNode,
        what: "the toolkit wrote its drop-in in the newest version that it found a containerd to speak: K3s' containerd refuses it",
        source: "issue NVIDIA/aicr#1688: drop-in config version 4 higher than root config version; containerd pull request #12891; K3s sources: containerd exited",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let text = "version = 4\n\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia]\n  runtime_type = 'io.containerd.runc.v2'\n";
            let path = format!("{}/99-nvidia.toml", crate::kube::k3s::DROP_INS);
            crate::guest::put_file(lab, w, m.vmid, &path, text, 0o644);
            restart_k3s(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "driver-mismatch",
        on: On::GpuNode,
        what: "an old kernel module stays loaded under the new driver's libraries",
        source: "NVML: Driver/library version mismatch; issue NVIDIA/gpu-operator#2150",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            if let Some(g) = w.guests.get_mut(&m.vmid) {
                g.facts.nvidia_driver = Some("575.57.08".to_owned());
            }
            restart_plugin(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "card-not-initialising",
        on: On::GpuNode,
        what: "a card no longer initialises in its guest",
        source: "issue NVIDIA/gpu-operator#1146: RmInitAdapter failed",
        make: |lab, w, t| {
            let (node, address) = first_card(lab, w, t)?;
            w.change_card(&node, &address, |c| c.stuck = true);
            restart_driver(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "card-off-bus",
        on: On::GpuNode,
        what: "a card has fallen off the bus (Xid 79)",
        source: "NVIDIA XID documentation, 79; k8s-device-plugin health check",
        make: |lab, w, t| xid(lab, w, t, 79),
        hands: None,
    },
    Fault {
        name: "card-memory-errors",
        on: On::GpuNode,
        what: "a card reports memory errors that it cannot remap (Xid 64)",
        source: "NVIDIA XID documentation, 64: row remapping failure; GPU memory error management guide",
        make: |lab, w, t| xid(lab, w, t, 64),
        hands: None,
    },
    Fault {
        name: "compute-exclusive",
        on: On::GpuNode,
        what: "the cards were left in compute mode EXCLUSIVE_PROCESS after MPS",
        source: "seed troubleshooting guide 2026-07-22: Exclusive_Process against MPS",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            w.change_cards_of(m.vmid, |c| c.exclusive = true);
            Ok(())
        },
        hands: None,
    },
    Fault {
        name: "mig-waits",
        on: On::GpuNode,
        what: "MIG was switched off, but the cards keep their mode until the VM is stopped and started",
        source: TS,
        make: |lab, w, t| {
            first_card(lab, w, t)?;
            let m = machine(lab, w, t)?;
            w.change_cards_of(m.vmid, |c| {
                c.mig = true;
                c.profile = None;
            });
            cluster(lab, w, |cx| {
                cx.update("nodes", "", t, |n| {
                    n["metadata"]["labels"]["nvidia.com/mig.config.state"] = "pending".into()
                });
                restart_operand(cx, t, "nvidia-device-plugin-daemonset");
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "mig-layouts-differ",
        on: On::Node,
        what: "the node runs in MIG mode, and somebody cut one of its cards into other instances by hand",
        source: "issue NVIDIA/gpu-operator#460: More than one MIG device type present on node; k8s-device-plugin sources, device_map",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let (node, first) = first_card(lab, w, t)?;
            w.change_cards_of(m.vmid, |c| {
                (c.mig, c.mig_next) = (true, true);
                c.profile = Some("1g.5gb".to_owned());
            });
            w.change_card(&node, &first, |c| c.profile = Some("3g.20gb".to_owned()));
            cluster(lab, w, |cx| {
                cx.node_rt(t).mig = Some("all-1g.5gb".to_owned());
                cx.update("nodes", "", t, |n| {
                    n["metadata"]["labels"]["nvidia.com/mig.config"] = "all-1g.5gb".into();
                    n["metadata"]["labels"]["nvidia.com/mig.config.state"] = "success".into();
                });
                restart_operand(cx, t, "nvidia-device-plugin-daemonset");
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "mig-cards-busy",
        on: On::GpuNode,
        what: "the node was told to cut its cards while a monitoring service of the machine holds them",
        source: "issue NVIDIA/mig-parted#181: In use by another client, error resetting all GPUs; NVIDIA MIG user guide: daemons that hold handles on the driver",
        make: |lab, w, t| {
            first_card(lab, w, t)?;
            let m = machine(lab, w, t)?;
            let unit = "[Unit]\nDescription=NVIDIA DCGM service\n[Service]\nExecStart=/usr/bin/nv-hostengine -n\n";
            crate::guest::put_file(lab, w, m.vmid, &format!("/usr/lib/systemd/system/{}", gpu::HOLDER), unit, 0o644);
            let since_ms = w.now_ms;
            if let Some(g) = w.guests.get_mut(&m.vmid) {
                let s = Service { state: "active".to_owned(), since_ms, pid: 733, status: 0 };
                g.services.insert(gpu::HOLDER.to_owned(), s);
            }
            cluster(lab, w, |cx| {
                let there = cx.update("nodes", "", t, |n| {
                    n["metadata"]["labels"]["nvidia.com/mig.config"] = "all-1g.5gb".into();
                });
                there.then_some(()).ok_or_else(|| format!("the cluster has no node `{t}`"))
            })
        },
        hands: None,
    },
    Fault {
        name: "mig-config-unknown",
        on: On::Node,
        what: "the node was labelled with a MIG configuration that the manager does not have",
        source: "GPU Operator documentation, MIG: mig.config.state=failed; nvidia-mig-parted: selected mig-config not present",
        make: |lab, w, t| {
            first_card(lab, w, t)?;
            cluster(lab, w, |cx| {
                let there = cx.update("nodes", "", t, |n| {
                    n["metadata"]["labels"]["nvidia.com/mig.config"] = "all-9g.5gb".into();
                });
                there.then_some(()).ok_or_else(|| format!("the cluster has no node `{t}`"))
            })
        },
        hands: None,
    },
    Fault {
        name: "runtime-undetected",
        on: On::GpuNode,
        what: "K3s started before the toolkit was there and does not know the nvidia runtime",
        source: "issues NVIDIA/gpu-operator#413, #432, #730; K3s sources, pkg/agent/containerd",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let dir = "/usr/local/nvidia/toolkit";
            let names = ["nvidia-container-runtime", "nvidia-container-runtime.cdi"];
            edit(lab, w, t, &format!("{dir}/{}", names[0]), |x| format!("{x}\n"))?;
            for n in names {
                crate::guest::remove_file(lab, m.vmid, &format!("{dir}/{n}"));
            }
            restart_k3s(lab, w, t)?;
            // the toolkit comes back after K3s has looked, and restarts containerd
            w.schedule(60_000, crate::world::Event::Kube(crate::kube::KubeEvent::Toolkit { vmid: m.vmid }));
            Ok(())
        },
        hands: None,
    },
    Fault {
        name: "plugin-not-registered",
        on: On::GpuNode,
        what: "the kubelet forgot the device plugin, which runs on without noticing",
        source: "k8s-device-plugin issues: allocatable is 0 after a kubelet restart until the plugin restarts",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                cx.node_rt(t).plugin = false;
                cx.update("nodes", "", t, |n| {
                    for part in ["capacity", "allocatable"] {
                        n["status"][part]["nvidia.com/gpu"] = "0".into();
                    }
                });
                Ok(())
            })
        },
        hands: None,
    },
];

fn efi(w: &mut World, id: u32, from: &str, to: &str) -> Result<(), String> {
    let disk = w.pve.vms.get_mut(&id).and_then(|v| v.conf.get_mut("efidisk0")).ok_or("the machine has no EFI disk")?;
    *disk = disk.replace(from, to);
    Ok(())
}

fn first_card(lab: &Lab, w: &World, t: &str) -> Result<(String, String), String> {
    let m = machine(lab, w, t)?;
    let node = w.guests.get(&m.vmid).map(|g| g.spec.pve_node.clone()).unwrap_or_default();
    let card = w.cards_of(m.vmid).first().map(|(p, _)| p.address.clone());
    card.map(|c| (node, c)).ok_or_else(|| format!("`{t}` has no card"))
}

fn restart_plugin(lab: &Lab, w: &mut World, t: &str) -> Result<(), String> {
    cluster(lab, w, |cx| {
        restart_operand(cx, t, "nvidia-device-plugin-daemonset");
        Ok(())
    })
}

/// The driver reports an Xid; the device plugin's health check sees it.
fn xid(lab: &Lab, w: &mut World, t: &str, n: u32) -> Result<(), String> {
    let (node, address) = first_card(lab, w, t)?;
    let id = super::tools::vmid(w, t)?;
    w.change_card(&node, &address, |c| c.xid = Some(n));
    let text = match n {
        79 => "GPU has fallen off the bus.".to_owned(),
        _ => "Failed to persist row remap table".to_owned(),
    };
    let now = w.now_ms;
    if let Some(g) = w.guests.get_mut(&id) {
        crate::guest::journal::add(
            g,
            now,
            "kernel",
            &format!("NVRM: Xid (PCI:{address}): {n}, pid='<unknown>', name=<unknown>, {text}"),
        );
    }
    cluster(lab, w, |cx| {
        gpu::refresh(cx);
        Ok(())
    })
}
