//! Faults of the GPU operator's release: values that do not fit K3s, taints that nothing tolerates.
use serde_json::{Value, json};

use super::tools::{cluster, restart_operand, scale, values};
use super::{Fault, On};
use crate::kube::text::s;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "toolkit-socket",
        on: On::Release("gpu-operator"),
        what: "the toolkit's values lost the path of K3s' containerd socket",
        source: "K3s pull request #11065; seed commit 2025-11-07 `Fix GPU operator toolkit configuration`",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                values(cx, t, |v| {
                    v["toolkit"]["env"] = json!([{"name": "CONTAINERD_RUNTIME_CLASS", "value": "nvidia"}])
                })
            })
        },
        hands: None,
    },
    Fault {
        name: "toolkit-too-old",
        on: On::Release("gpu-operator"),
        what: "the values pin a toolkit that cannot read containerd's configuration",
        source: "issue NVIDIA/gpu-operator#2060: unsupported config version: 3",
        make: |lab, w, t| {
            cluster(lab, w, |cx| values(cx, t, |v| v["toolkit"]["version"] = json!("v1.16.2-ubuntu20.04")))
        },
        hands: None,
    },
    Fault {
        name: "driver-image-missing",
        on: On::Release("gpu-operator"),
        what: "the values ask for a driver version for which there is no image",
        source: "containerd: failed to pull and unpack image, not found; NGC catalogue",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                values(cx, t, |v| v["driver"]["version"] = json!("999.10.01"))?;
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "sharing-config-missing",
        on: On::Release("gpu-operator"),
        what: "the values name a sharing configuration whose ConfigMap does not exist",
        source: "kubelet: MountVolume.SetUp failed, configmap not found; operator documentation, time slicing",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                values(cx, t, |v| {
                    v["devicePlugin"] = json!({"config": {"name": "time-slicing-config", "default": "any"}})
                })
            })
        },
        hands: None,
    },
    Fault {
        name: "gpu-taint",
        on: On::GpuNode,
        what: "the node got a taint that the operator's daemon sets do not tolerate",
        source: "seed troubleshooting guide: daemonsets never scheduling",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                values(cx, "gpu-operator", |v| {
                    v["daemonsets"] = json!({"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]});
                })?;
                let taint = json!({"key": "gpu-pool", "value": "a100", "effect": "NoSchedule"});
                let there = cx.update("nodes", "", t, |n| {
                    let mut all = n["spec"]["taints"].as_array().cloned().unwrap_or_default();
                    all.push(taint);
                    n["spec"]["taints"] = json!(all);
                });
                for app in
                    ["nvidia-driver-daemonset", "nvidia-container-toolkit-daemonset", "nvidia-device-plugin-daemonset"]
                {
                    restart_operand(cx, t, app);
                }
                there.then_some(()).ok_or_else(|| format!("the cluster has no node `{t}`"))
            })
        },
        hands: None,
    },
    Fault {
        name: "nfd-worker-gone",
        on: On::GpuNode,
        what: "the node registered anew with a taint that feature discovery's worker does not tolerate: nothing says that it has cards",
        source: "seed troubleshooting guide: daemonsets never scheduling; GPU Operator values: node-feature-discovery.worker.tolerations is a list of its own",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                let own = json!([{"key": "node-role.kubernetes.io/control-plane", "operator": "Equal", "value": "", "effect": "NoSchedule"}]);
                values(cx, "gpu-operator", |v| v["node-feature-discovery"]["worker"]["tolerations"] = own.clone())?;
                cx.update("daemonsets.apps", "gpu-operator", "gpu-operator-node-feature-discovery-worker", |d| {
                    d["spec"]["template"]["spec"]["tolerations"] = own;
                });
                let there = cx.update("nodes", "", t, |n| {
                    let mut all = n["spec"]["taints"].as_array().cloned().unwrap_or_default();
                    all.push(json!({"key": "gpu-pool", "value": "a100", "effect": "NoSchedule"}));
                    n["spec"]["taints"] = json!(all);
                    if let Some(l) = n["metadata"]["labels"].as_object_mut() {
                        l.retain(|k, _| !k.starts_with("feature.node.kubernetes.io/") && !k.starts_with("nvidia.com/"));
                    }
                });
                let worker = |p: &&Value| s(p, "/spec/nodeName") == t && s(p, "/metadata/labels/role") == "worker";
                let pods: Vec<String> = cx
                    .list_in("pods", "gpu-operator")
                    .into_iter()
                    .filter(worker)
                    .map(|p| s(p, "/metadata/name").to_owned())
                    .collect();
                for name in pods {
                    cx.delete("pods", "gpu-operator", &name);
                }
                there.then_some(()).ok_or_else(|| format!("the cluster has no node `{t}`"))
            })
        },
        hands: None,
    },
    Fault {
        name: "driver-not-installed",
        on: On::Release("gpu-operator"),
        what: "the values say that the machines bring the driver, and they do not",
        source: "cozystack/cozystack#863: failed to validate the driver, retrying after 5 seconds; GPU Operator documentation, pre-installed drivers",
        make: |lab, w, t| cluster(lab, w, |cx| values(cx, t, |v| v["driver"] = json!({"enabled": false}))),
        hands: None,
    },
    Fault {
        name: "runtime-class-missing",
        on: On::Cluster,
        what: "somebody deleted the RuntimeClass that pods with GPUs name",
        source: "API server, admission plugin RuntimeClass: pod rejected: RuntimeClass \"nvidia\" not found; K3s sources, manifests/runtimes.yaml",
        make: |lab, w, _| {
            cluster(lab, w, |cx| {
                cx.delete("runtimeclasses.node.k8s.io", "", "nvidia");
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "operator-missing",
        on: On::Release("gpu-operator"),
        what: "somebody deleted the operator's HelmChart",
        source: "helm-controller: deleting a HelmChart uninstalls its release",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                cx.delete("helmcharts.helm.cattle.io", "kube-system", t);
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "operator-down",
        on: On::Cluster,
        what: "the operator's deployment was scaled to nothing: what runs goes on, nothing new is made ready",
        source: "GPU operator documentation: the controller reconciles the operands",
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "gpu-operator", "gpu-operator", 0)),
        hands: None,
    },
];
