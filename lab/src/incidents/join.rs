//! Faults of joining: servers that cannot become members of etcd, agents that reach no server, kernels K3s refuses.
use serde_json::json;

use super::tools::{cluster, edit, k3s_config, k3s_unit, machine, power_off, start, start_unit, stop_unit};
use super::{Fault, On};
use crate::Lab;
use crate::guest::{self, remove_file};
use crate::kube::k3s::config;
use crate::world::World;

const DB: &str = "/var/lib/rancher/k3s/server/db";
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "member-left-behind",
        on: On::Server,
        what: "the server's datastore was deleted by hand, and its member stayed in etcd",
        source: "issues k3s-io/k3s#10408, k3s-io/k3s#4210: duplicate node name found",
        make: |lab, w, t| {
            joins(lab, w, t)?;
            let unit = k3s_unit(lab, w, t)?;
            stop_unit(lab, w, t, unit)?;
            remove_file(lab, machine(lab, w, t)?.vmid, DB);
            start_unit(lab, w, t, unit)
        },
        hands: None,
    },
    Fault {
        name: "certificate-address",
        on: On::Server,
        what: "the server joins anew through a name that the others' certificate does not have",
        source: "issues k3d-io/k3d#365, k3s-io/k3s#13064; K3s documentation, tls-san",
        make: |lab, w, t| {
            joins(lab, w, t)?;
            let first = cluster(lab, w, |cx| {
                let other = cx.c.members.values().find(|m| m.node != t).map(|m| m.ip.clone());
                other.ok_or_else(|| "the cluster has one server only".to_owned())
            })?;
            w.lan.names.insert("k3s.home.arpa".to_owned(), vec![first]);
            leave(lab, w, t)?;
            k3s_config(lab, w, t, |c| c["server"] = json!("https://k3s.home.arpa:6443"))
        },
        hands: None,
    },
    Fault {
        name: "port-6443-blocked",
        on: On::Agent,
        what: "a firewall on the machine drops what it sends to port 6443 of the servers",
        source: "K3s documentation, networking requirements; issues k3s-io/k3s#6194, k3s-io/k3s-ansible#206",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let vmid = m.vmid;
            if let Some(package) = guest::apt::find("nftables") {
                guest::apt::bring(lab, w, &m, package);
            }
            let chain = "chain output {\n\t\ttype filter hook output priority filter; policy accept;\n\t\ttcp dport 6443 drop\n\t}";
            if let Some(g) = w.guests.get_mut(&vmid) {
                g.nft.insert("inet hardening".to_owned(), chain.to_owned());
            }
            crate::kube::filter_changed(lab, w, vmid);
            Ok(())
        },
        hands: None,
    },
    Fault {
        name: "no-memory-cgroup",
        on: On::Node,
        what: "the kernel was booted without its memory cgroup",
        source: "issues k3s-io/k3s#10755, k3d-io/k3d#853: failed to find memory cgroup (v2)",
        make: |lab, w, t| {
            edit(lab, w, t, "/etc/default/grub", |text| {
                text.replace("GRUB_CMDLINE_LINUX=\"", "GRUB_CMDLINE_LINUX=\"cgroup_disable=memory ")
            })?;
            guest::programs::write_boot_arguments(&*machine(lab, w, t)?, guest::hw::KERNEL);
            let id = power_off(lab, w, t)?;
            start(w, id);
            Ok(())
        },
        hands: None,
    },
    Fault {
        name: "network-plugin-missing",
        on: On::Node,
        what: "a cleanup deleted the configuration of the network plugin that K3s had written",
        source: "kubelet and containerd: cni plugin not initialized; K3s' flannel package writes it at its start only",
        make: |lab, w, t| {
            remove_file(lab, machine(lab, w, t)?.vmid, crate::kube::k3s::files::NETWORK_PLUGIN);
            Ok(())
        },
        hands: None,
    },
];

/// A server whose configuration lets it join; the one that founded the cluster would found another.
fn joins(lab: &Lab, w: &World, name: &str) -> Result<(), String> {
    let vmid = machine(lab, w, name)?.vmid;
    match w.k3s.get(&vmid).is_some_and(|p| config::on(&p.start.config, "cluster-init")) {
        true => Err(format!("`{name}` founded the cluster: it does not join")),
        false => Ok(()),
    }
}

/// Somebody took the server out of the cluster in order to let it join again.
fn leave(lab: &Lab, w: &mut World, name: &str) -> Result<(), String> {
    let unit = k3s_unit(lab, w, name)?;
    stop_unit(lab, w, name, unit)?;
    cluster(lab, w, |cx| {
        cx.delete("nodes", "", name);
        Ok(())
    })?;
    remove_file(lab, machine(lab, w, name)?.vmid, DB);
    Ok(())
}
