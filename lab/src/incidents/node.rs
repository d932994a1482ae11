//! Faults of nodes: kubelets that do not run, cannot join, or run the wrong thing.
use serde_json::json;

use super::tools::{cluster, edit, k3s_config, k3s_unit, machine, restart_k3s, stop_unit};
use super::{Fault, On};
use crate::guest::state::Service;
use crate::guest::{k3s, put_file};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "kubelet-stopped",
        on: On::Node,
        what: "K3s was stopped on the machine",
        source: "Kubernetes documentation: node conditions, `Kubelet stopped posting node status.`",
        make: |lab, w, t| {
            let unit = k3s_unit(lab, w, t)?;
            stop_unit(lab, w, t, unit)
        },
        hands: None,
    },
    Fault {
        name: "k3s-config-broken",
        on: On::Node,
        what: "a hand edit left K3s' configuration file unreadable, then it was restarted",
        source: "K3s sources, pkg/configfilearg: a file that is no YAML is fatal (an unknown key is only skipped)",
        make: |lab, w, t| {
            edit(lab, w, t, "/etc/rancher/k3s/config.yaml", |text| format!("{text}\nnode-label: [a=b\n"))?;
            restart_k3s(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "token-wrong",
        on: On::Node,
        what: "the token in K3s' configuration is not the cluster's",
        source: "K3s documentation, token; issue k3s-io/k3s-ansible#490",
        make: |lab, w, t| {
            k3s_config(lab, w, t, |c| {
                let hash = c["token"].as_str().and_then(|t| t.split_once("::")).map(|(h, _)| h.to_owned());
                c["token"] = match hash {
                    Some(h) => json!(format!("{h}::server:0123456789abcdef0123456789abcdef")),
                    None => json!("0123456789abcdef0123456789abcdef"),
                };
            })
        },
        hands: None,
    },
    Fault {
        name: "token-of-another-cluster",
        on: On::Node,
        what: "the token in K3s' configuration belongs to another cluster",
        source: "K3s documentation, token: the CA hash in the secure form",
        make: |lab, w, t| {
            k3s_config(lab, w, t, |c| c["token"] = json!(format!("K10{}::server:0123456789abcdef", "ab".repeat(32))))
        },
        hands: None,
    },
    Fault {
        name: "node-password",
        on: On::Node,
        what: "the machine was made anew under its old name and brings another node password",
        source: "issues k3s-io/k3s#802, k3s-io/k3s#6054",
        make: |lab, w, t| {
            edit(lab, w, t, "/etc/rancher/node/password", |_| "ffffffffffffffffffffffffffffffff\n".to_owned())?;
            restart_k3s(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "cordoned",
        on: On::Node,
        what: "somebody cordoned the node and forgot it",
        source: "Kubernetes documentation: kubectl cordon",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                let there = cx.update("nodes", "", t, |n| {
                    n["spec"]["unschedulable"] = json!(true);
                    let mut taints = n["spec"]["taints"].as_array().cloned().unwrap_or_default();
                    taints.push(json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}));
                    n["spec"]["taints"] = json!(taints);
                });
                there.then_some(()).ok_or_else(|| format!("the cluster has no node `{t}`"))
            })
        },
        hands: None,
    },
    Fault {
        name: "disk-pressure",
        on: On::Node,
        what: "the machine's journal was allowed to grow and has taken its disk",
        source: "Kubernetes documentation: node-pressure eviction; pkg/kubelet eviction and images: texts of its events; journald.conf(5), SystemMaxUse",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let full = |g: &mut crate::guest::state::Guest| {
                let size = g.spec.disks.first().map_or(0, |d| d.size);
                g.facts.large.insert(
                    "/var/log/journal".to_owned(),
                    (size / 100 * 97).saturating_sub(crate::guest::SYSTEM_BYTES),
                );
            };
            w.guests.get_mut(&m.vmid).map(full);
            cluster(lab, w, |cx| {
                crate::kube::controllers::pressure::look(cx, t);
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "version-drift",
        on: On::Node,
        what: "the machine runs an older K3s than the site file says",
        source: "seed, ansible 02-k3s-cluster.yml: k3s_version was never used, drift 1.31.2 to 1.33.5",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let now = w.k3s.get(&m.vmid).map(|p| p.start.version.clone()).unwrap_or_default();
            let older = k3s::VERSIONS.iter().rev().find(|v| minor(v) < minor(&now));
            let older = older.ok_or_else(|| format!("the lab has no K3s older than {now}"))?;
            let text = String::from_utf8_lossy(&k3s::binary(older)).into_owned();
            put_file(lab, w, m.vmid, "/usr/local/bin/k3s", &text, 0o755);
            restart_k3s(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "no-default-route",
        on: On::Node,
        what: "the machine's default route was deleted, then K3s was restarted",
        source: "K3s documentation, air-gap: a default route must exist; text of pkg/agent/config",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            if let Some(net) = w.guests.get_mut(&m.vmid).and_then(|g| g.net.as_mut()) {
                net.gateway = None;
            }
            restart_k3s(lab, w, t)
        },
        hands: None,
    },
    Fault {
        name: "port-taken",
        on: On::Server,
        what: "another program listens on port 6443 of the server",
        source: "Go's net package: listen tcp :6443: bind: address already in use; K3s issues",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let unit = "[Unit]\nDescription=HAProxy Load Balancer\n[Service]\nExecStart=/usr/sbin/haproxy -Ws\n[Install]\nWantedBy=multi-user.target\n";
            put_file(lab, w, m.vmid, "/usr/lib/systemd/system/haproxy.service", unit, 0o644);
            let k3s = k3s_unit(lab, w, t)?;
            stop_unit(lab, w, t, k3s)?;
            let since_ms = w.now_ms;
            if let Some(g) = w.guests.get_mut(&m.vmid) {
                let s = Service { state: "active".to_owned(), since_ms, pid: 4242, status: 0 };
                g.services.insert("haproxy.service".to_owned(), s);
            }
            super::tools::start_unit(lab, w, t, k3s)
        },
        hands: None,
    },
    Fault {
        name: "server-settings-differ",
        on: On::Server,
        what: "a value that must be equal on all servers was changed on one, which was restarted",
        source: "K3s documentation, server flags: critical configuration value mismatch",
        make: |lab, w, t| k3s_config(lab, w, t, |c| c["cluster-cidr"] = json!("10.99.0.0/16")),
        hands: None,
    },
];

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or(0)
}
