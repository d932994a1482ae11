//! Faults of NFS, classes, provisioners and claims.
use serde_json::{Value, json};

use super::tools::{cluster, edit, machine, scale, stop_unit};
use super::{Fault, On};
use crate::guest::{mounts, nfs};
use crate::kube::text::s;

const SC: &str = "storageclasses.storage.k8s.io";
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "class-missing",
        on: On::Class,
        what: "the storage class was deleted; claims that name it wait for ever",
        source: "seed: storage class nfs-client vanished, claims pending for seven months",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                cx.get(SC, "", t).ok_or_else(|| format!("there is no class `{t}`"))?;
                cx.delete(SC, "", t);
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "two-default-classes",
        on: On::Class,
        what: "a second class was marked as default",
        source: "seed, ansible 03-storage.yml: nfs-client default while local-path is too",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                if cx.get(SC, "", t).is_some_and(|c| c["metadata"]["annotations"][DEFAULT] == "true") {
                    return Err(format!("`{t}` is the default class already: name another one"));
                }
                let there = cx.update(SC, "", t, |o| o["metadata"]["annotations"][DEFAULT] = json!("true"));
                there.then_some(()).ok_or_else(|| format!("there is no class `{t}`"))
            })
        },
        hands: None,
    },
    Fault {
        name: "scratch-path",
        on: On::ScratchClass,
        what: "the provisioner's configuration lost the path that the class hands out",
        source: "seed: SC nodePath not in nodePathMap, dead for months; local-path-provisioner sources",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                let class = cx.get(SC, "", t).cloned().ok_or_else(|| format!("there is no class `{t}`"))?;
                let map = cx
                    .list("configmaps")
                    .into_iter()
                    .find(|m| {
                        s(m, "/data/config.json").contains("nodePathMap")
                            && s(m, "/metadata/namespace") != "kube-system"
                    })
                    .cloned()
                    .ok_or_else(|| format!("class {} has no provisioner of its own", s(&class, "/metadata/name")))?;
                let empty = json!({"nodePathMap": [{"node": "some-other-node", "paths": ["/opt/local-path"]}]});
                cx.update("configmaps", s(&map, "/metadata/namespace"), s(&map, "/metadata/name"), |o| {
                    o["data"]["config.json"] = Value::String(empty.to_string());
                });
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "scratch-unmounted",
        on: On::Node,
        what: "the scratch disk of the machine is no longer mounted",
        source: "local-path-provisioner documentation: setup script; K3s storage documentation",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let at = w
                .guests
                .get(&m.vmid)
                .and_then(|g| g.mounts.iter().find(|x| x.target.contains("scratch")))
                .map(|x| x.target.clone());
            let at = at.ok_or_else(|| format!("`{t}` has no scratch disk"))?;
            mounts::unmount(w, &m, &at)
        },
        hands: None,
    },
    Fault {
        name: "nfs-stopped",
        on: On::Nfs,
        what: "the NFS server's service does not run",
        source: "mount.nfs4: Connection refused (nfs-utils)",
        make: |lab, w, t| stop_unit(lab, w, t, "nfs-server.service"),
        hands: None,
    },
    Fault {
        name: "export-lacks-node",
        on: On::Node,
        what: "the export list no longer names the node",
        source: "mount.nfs4: access denied by server while mounting (nfs-utils); seed troubleshooting guide, NFS",
        make: |lab, w, t| {
            let ip = crate::guest::ip(w, super::tools::vmid(w, t)?).ok_or_else(|| format!("`{t}` has no address"))?;
            let server = w.guests.iter().find(|(_, g)| !g.exports.is_empty()).map(|(id, g)| (*id, g.hostname.clone()));
            let (id, name) = server.ok_or("the lab has no NFS server that exports anything")?;
            let m = lab.guests().get(id).ok_or("the NFS server does not run")?;
            let files = crate::guest::file_names(lab, id, "/etc/exports.d");
            for f in files {
                let drop = |text: String| {
                    text.split(' ').filter(|w| !w.starts_with(&format!("{ip}("))).collect::<Vec<_>>().join(" ")
                };
                edit(lab, w, &name, &format!("/etc/exports.d/{f}"), drop)?;
            }
            let (exports, _) = nfs::read(&m);
            if let Some(g) = w.guests.get_mut(&id) {
                g.exports = exports;
            }
            Ok(())
        },
        hands: None,
    },
    Fault {
        name: "nfs-blocked",
        on: On::Nfs,
        what: "somebody loaded a packet filter on the NFS server that drops its port",
        source: "mount.nfs4: Connection timed out (nfs-utils); NFS documentation: version 4 needs TCP port 2049 and no other",
        make: |lab, w, t| {
            let id = super::tools::vmid(w, t)?;
            crate::guest::put_file(lab, w, id, "/usr/sbin/nft", "#!/usr/lib/lab/program nft\n", 0o755);
            let g = w.guests.get_mut(&id).ok_or_else(|| format!("`{t}` does not run"))?;
            let body =
                "chain input {\n\t\ttype filter hook input priority 0; policy accept;\n\t\ttcp dport 2049 drop\n\t}";
            g.facts.packages.insert("nftables".to_owned(), "1.0.6-2+deb12u2".to_owned());
            g.nft.insert("inet homelab".to_owned(), body.to_owned());
            Ok(())
        },
        hands: None,
    },
    Fault {
        name: "nfs-path-missing",
        on: On::Nfs,
        what: "the file of the exports was deleted and the exports read again: the server exports nothing",
        source: "mount.nfs4: mounting failed, reason given by server: No such file or directory (nfs-utils); seed troubleshooting guide, NFS",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            for f in crate::guest::file_names(lab, m.vmid, "/etc/exports.d") {
                crate::guest::remove_file(lab, m.vmid, &format!("/etc/exports.d/{f}"));
            }
            let (exports, _) = nfs::read(&m);
            if let Some(g) = w.guests.get_mut(&m.vmid) {
                g.exports = exports;
            }
            Ok(())
        },
        hands: None,
    },
    Fault {
        name: "claim-access-mode",
        on: On::ScratchClass,
        what: "a team's deployment asks a class of node-local folders for a volume that several nodes share",
        source: "local-path-provisioner: NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                cx.create(claim("render", t, "ReadWriteMany", None));
                cx.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "render", "namespace": "default"},
                    "spec": {"containers": [{"name": "render", "image": "busybox:1.37", "command": ["sleep", "infinity"]}],
                        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "render"}}]}}));
                Ok(())
            })
        },
        hands: Some(|lab, w, _| {
            cluster(lab, w, |cx| {
                cx.delete("pods", "default", "render");
                cx.delete("persistentvolumeclaims", "default", "render");
                Ok(())
            })
        }),
    },
    Fault {
        name: "claim-pending",
        on: On::Class,
        what: "a team's claim asks a provisioner for a volume by labels, which it does not do",
        source: "external-provisioner: claim Selector is not supported; Kubernetes documentation: a selector needs volumes made by hand",
        make: |lab, w, t| {
            cluster(lab, w, |cx| {
                let labels = json!({"matchLabels": {"tier": "gold"}});
                cx.create(claim("archive", t, "ReadWriteOnce", Some(labels)));
                Ok(())
            })
        },
        hands: Some(|lab, w, _| {
            cluster(lab, w, |cx| {
                cx.delete("persistentvolumeclaims", "default", "archive");
                Ok(())
            })
        }),
    },
    Fault {
        name: "volume-orphaned",
        on: On::Cluster,
        what: "a team deleted a claim that nobody names any more: its volume is kept and takes space",
        source: "seed: thirteen orphaned Released volumes; Kubernetes documentation: reclaim policy Retain",
        make: |lab, w, _| {
            cluster(lab, w, |cx| {
                cx.create(claim("thesis", "", "ReadWriteOnce", None));
                Ok(())
            })?;
            // its volume has been made by now
            cluster(lab, w, |cx| {
                cx.delete("persistentvolumeclaims", "default", "thesis");
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "claim-lost",
        on: On::Cluster,
        what: "a team deleted the claim of its stopped database: the volume is kept, and the pods that come back find no claim",
        source: "seed troubleshooting guide: orphaned Released volumes; kube-scheduler: persistentvolumeclaim not found",
        make: |lab, w, _| {
            cluster(lab, w, |cx| {
                cx.create(claim("postgres", "", "ReadWriteOnce", None));
                Ok(())
            })?;
            // its volume has been made by now
            cluster(lab, w, |cx| {
                cx.delete("persistentvolumeclaims", "default", "postgres");
                Ok(())
            })?;
            cluster(lab, w, |cx| {
                cx.create(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "postgres", "namespace": "default"},
                    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "postgres"}},
                        "template": {"metadata": {"labels": {"app": "postgres"}}, "spec": {
                            "containers": [{"name": "postgres", "image": "postgres:17", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "postgres"}}]}}}}));
                Ok(())
            })
        },
        hands: None,
    },
    Fault {
        name: "nfs-disk-unmounted",
        on: On::Nfs,
        what: "the data disk is not mounted: the server would export an empty folder of the system disk",
        source: "nfs-utils exports(5), mountpoint; seed troubleshooting guide, storage node",
        make: |lab, w, t| {
            let m = machine(lab, w, t)?;
            let at = w
                .guests
                .get(&m.vmid)
                .and_then(|g| g.mounts.iter().find(|x| x.target.contains("nfs")))
                .map(|x| x.target.clone());
            let at = at.ok_or_else(|| format!("`{t}` has no data disk mounted"))?;
            mounts::unmount(w, &m, &at)
        },
        hands: None,
    },
    Fault {
        name: "nfs-provisioner-down",
        on: On::Cluster,
        what: "the controller of the NFS driver was scaled to nothing",
        source: "Kubernetes event ExternalProvisioning: Waiting for a volume to be created",
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "kube-system", "csi-nfs-controller", 0)),
        hands: None,
    },
    Fault {
        name: "scratch-provisioner-down",
        on: On::Cluster,
        what: "the provisioner of the scratch class was scaled to nothing",
        source: "Kubernetes event ExternalProvisioning: Waiting for a volume to be created",
        make: |lab, w, _| cluster(lab, w, |cx| scale(cx, "scratch-provisioner", "scratch-provisioner", 0)),
        hands: None,
    },
    Fault {
        name: "claim-names-no-class",
        on: On::Cluster,
        what: "a team's claim names a class that never existed",
        source: "Kubernetes event ProvisioningFailed: storageclass not found; seed troubleshooting guide",
        make: |lab, w, _| {
            cluster(lab, w, |cx| {
                cx.create(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "metadata": {"name": "datasets", "namespace": "default"},
                    "spec": {"storageClassName": "nfs-fast", "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Gi"}}}}));
                Ok(())
            })
        },
        hands: Some(|lab, w, _| {
            cluster(lab, w, |cx| {
                cx.delete("persistentvolumeclaims", "default", "datasets");
                Ok(())
            })
        }),
    },
];

/// A team's claim; without a class it takes the default one.
fn claim(name: &str, class: &str, mode: &str, selector: Option<Value>) -> Value {
    let mut spec = json!({"accessModes": [mode], "resources": {"requests": {"storage": "20Gi"}}});
    if !class.is_empty() {
        spec["storageClassName"] = json!(class);
    }
    if let Some(s) = selector {
        spec["selector"] = s;
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}
