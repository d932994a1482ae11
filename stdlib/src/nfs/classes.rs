//! Storage classes over NFS and over local scratch disks, and proving one with a claim and a pod.
use std::time::Duration;

use serde_json::{Value, json};

use super::Export;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Op, OpScope};
use crate::helm::ReleaseOptions;
use crate::kubernetes::rest::Request;
use crate::kubernetes::{ApplyOptions, Cluster};
use crate::options;

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const NFS_DRIVER: &str = "nfs.csi.k8s.io";
const CSI_REPO: &str = "https://kubernetes-csi.github.io/csi-driver-nfs";
/// Namespace of the scratch provisioner.
pub const SCRATCH_NS: &str = "scratch-provisioner";
const SCRATCH_DRIVER: &str = "cluster.local/scratch";
const LOCAL_PATH_IMAGE: &str = "rancher/local-path-provisioner:v0.0.37";
pub(super) const BUSYBOX: &str = "busybox:1.37";

options! {
    /// A storage class over an NFS export.
    pub struct NfsClassOptions {
        /// Version of the csi-driver-nfs chart.
        chart: String,
        /// Whether claims without a class get this one; any other default loses the mark.
        default_class: bool = false,
        /// What happens to a volume whose claim goes: `Retain` or `Delete`.
        reclaim: String = "Retain".to_owned(),
    }
}

options! {
    /// A storage class over local scratch disks.
    pub struct ScratchClassOptions {
        /// Where the scratch disk is mounted on every node.
        path: String,
    }
}

options! {
    /// How to prove a storage class.
    pub struct CheckClassOptions {
        /// How long binding and writing may take.
        timeout: crate::core::units::Duration = crate::core::units::Duration::minutes(5),
        /// Node to write on; default: any.
        node: Option<String> = None,
    }
}

/// The class over NFS.
#[must_use]
pub fn nfs_class(name: &str, export: &Export, o: &NfsClassOptions) -> Value {
    let on_delete = if o.reclaim == "Delete" { "delete" } else { "retain" };
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": name, "annotations": {DEFAULT: o.default_class.to_string()}},
        "provisioner": NFS_DRIVER,
        "parameters": {
            "server": export.server(), "share": export.path(), "onDelete": on_delete,
            "subDir": "${pvc.metadata.namespace}/${pvc.metadata.name}",
        },
        "mountOptions": ["nfsvers=4.1", "hard", "noatime"],
        "reclaimPolicy": o.reclaim, "volumeBindingMode": "Immediate", "allowVolumeExpansion": true,
    })
}

/// Own provisioner of scratch volumes: independent of the one K3s rewrites at each start.
#[must_use]
pub fn scratch_objects(name: &str, path: &str) -> Vec<Value> {
    let meta = |n: &str| json!({"name": n, "namespace": SCRATCH_NS});
    let config = json!({"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [path]}]});
    // never onto the system disk when the scratch disk is not mounted
    let setup = format!(
        "#!/bin/sh\nset -eu\nif ! mountpoint -q {path}; then\n  echo \"{path} is not mounted\" >&2\n  exit 1\nfi\n\
         mkdir -m 0777 -p \"$VOL_DIR\"\n"
    );
    let teardown = "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n";
    let helper = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: helper-pod\nspec:\n  priorityClassName: system-node-critical\n  \
         tolerations:\n  - operator: Exists\n  containers:\n  - name: helper-pod\n    image: {BUSYBOX}\n    \
         imagePullPolicy: IfNotPresent\n"
    );
    let rules = json!([
        {"apiGroups": [""], "resources": ["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "create", "delete"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get", "list", "watch"]},
    ]);
    let labels = json!({"app.kubernetes.io/name": SCRATCH_NS});
    let container = json!({
        "name": "provisioner", "image": LOCAL_PATH_IMAGE,
        "command": ["local-path-provisioner", "start", "--config", "/etc/config/config.json",
            "--provisioner-name", SCRATCH_DRIVER, "--service-account-name", SCRATCH_NS],
        "env": [
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "CONFIG_MOUNT_PATH", "value": "/etc/config/"},
        ],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/config/"}],
    });
    let rbac = "rbac.authorization.k8s.io";
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SCRATCH_NS,
            "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(SCRATCH_NS)}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": SCRATCH_NS}, "rules": rules}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": SCRATCH_NS},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": SCRATCH_NS},
            "subjects": [{"kind": "ServiceAccount", "name": SCRATCH_NS, "namespace": SCRATCH_NS}]}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("local-path-config"),
            "data": {"config.json": config.to_string(), "setup": setup, "teardown": teardown, "helperPod.yaml": helper}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(SCRATCH_NS), "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": SCRATCH_NS, "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
                "containers": [container],
                "volumes": [{"name": "config", "configMap": {"name": "local-path-config"}}],
            }},
        }}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": name, "annotations": {DEFAULT: "false"}},
            "provisioner": SCRATCH_DRIVER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer"}),
    ]
}

impl Cluster {
    /// A storage class over an NFS export, with its driver.
    ///
    /// # Errors
    /// `refused` for a class of another owner; what kept the driver from starting.
    pub async fn ensure_nfs_class(&self, ctx: &Ctx, name: &str, export: &Export, o: &NfsClassOptions) -> OpResult<()> {
        if !["Retain", "Delete"].contains(&o.reclaim.as_str()) {
            return Err(OpError::invalid(format!(
                "option `reclaim`: `{}` is neither `Retain` nor `Delete`",
                o.reclaim
            )));
        }
        let op = Op::write("nfs", "ensure_nfs_class", name).class(Class::Adoptable).args(&(
            export.server(),
            export.path(),
            &o.chart,
        ));
        ctx.run_op(op, |s| async move {
            let values = json!({"controller": {"enableSnapshotter": false, "replicas": 1}, "externalSnapshotter": {"enabled": false}});
            let release = ReleaseOptions {
                chart: "csi-driver-nfs".to_owned(),
                repo: CSI_REPO.to_owned(),
                version: o.chart.clone(),
                namespace: "kube-system".to_owned(),
                values: rhai::serde::to_dynamic(values).ok().and_then(rhai::Dynamic::try_cast).unwrap_or_default(),
                timeout: crate::core::units::Duration::minutes(15),
                wait: true,
            };
            self.ensure_release_in(&s, "csi-driver-nfs", &release).await?;
            self.ensure_class(&s, nfs_class(name, export, o)).await?;
            if o.default_class { self.only_default(&s, name).await } else { Ok(()) }
        })
        .await
    }

    /// How an existing class differs from a share that it shall be of: that cannot change in place.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn nfs_class_trouble(&self, ctx: &Ctx, name: &str, export: &Export) -> OpResult<Option<String>> {
        let Some(live) = self.find_object(ctx, "storageclass", "", name).await? else { return Ok(None) };
        let is = |key: &str| live["parameters"][key].as_str().unwrap_or_default().to_owned();
        let (server, share) = (is("server"), is("share"));
        if live["provisioner"] != NFS_DRIVER || (server == export.server() && share == export.path()) {
            return Ok(None);
        }
        let wanted = format!("{}:{}", export.server(), export.path());
        Ok(Some(format!("storage class {name} is of {server}:{share}, the site file says {wanted}")))
    }

    /// A storage class over the nodes' scratch disks, with its own provisioner.
    ///
    /// # Errors
    /// `refused` for a class of another owner.
    pub async fn ensure_scratch_class(&self, ctx: &Ctx, name: &str, o: &ScratchClassOptions) -> OpResult<()> {
        if !o.path.starts_with('/') || o.path.contains(['"', '\'', ' ', '$', '`', '\n']) {
            return Err(OpError::invalid(format!("option `path`: `{}` is not a plain absolute path", o.path)));
        }
        let op = Op::write("nfs", "ensure_scratch_class", name).class(Class::Adoptable).args(&o.path);
        ctx.run_op(op, |s| async move {
            let mut objects = scratch_objects(name, &o.path);
            let class = objects.pop().unwrap_or_default();
            let apply = ApplyOptions { namespace: String::new(), take_over: false };
            let planned = self.plan_objects(s.ctx(), objects, &apply).await?;
            self.write_planned(&s, planned).await?;
            self.ensure_class(&s, class).await?;
            self.wait_object(s.ctx(), "deploy", SCRATCH_NS, SCRATCH_NS, "condition=Available", Duration::from_secs(300))
                .await
        })
        .await
    }

    /// Applies a class; parameters of an existing one cannot change, and that is said before anything is sent.
    async fn ensure_class(&self, s: &OpScope, class: Value) -> OpResult<()> {
        let name = class["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if let Some(live) = self.find_object(s.ctx(), "storageclass", "", &name).await? {
            for key in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
                if live[key] != class[key] {
                    return Err(OpError::refused(format!("`{key}` of storage class `{name}` cannot change in place"))
                        .on(name)
                        .because(format!("it is {}, wanted is {}", live[key], class[key]))
                        .hint(
                            "use another class name, or delete the class first: volumes made from it stay as they are",
                        ));
                }
            }
        }
        let apply = ApplyOptions { namespace: String::new(), take_over: false };
        let planned = self.plan_objects(s.ctx(), vec![class], &apply).await?;
        self.write_planned(s, planned).await
    }

    /// Takes the default mark off every other class.
    async fn only_default(&self, s: &OpScope, name: &str) -> OpResult<()> {
        for class in self.list_in(s.ctx(), "storageclass", "").await? {
            let other = class["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if other == name || class["metadata"]["annotations"][DEFAULT] != "true" {
                continue;
            }
            let patch = json!({"metadata": {"annotations": {DEFAULT: "false"}}});
            let request = Request::merge(format!("/apis/storage.k8s.io/v1/storageclasses/{other}"), &patch);
            let change =
                Change::new(self.name(), format!("default class {other}"), Some(true.into()), Some(false.into()));
            s.act(format!("storageclass {other}"), vec![change], self.demand(s.ctx(), &other, &request)).await?;
        }
        Ok(())
    }

    /// Proves a class: a claim binds, a pod writes and reads; all of it is thrown away. Returns what was seen.
    ///
    /// # Errors
    /// `failed` or `timeout` with the newest event of the claim.
    pub async fn check_storage_class(&self, ctx: &Ctx, name: &str, o: &CheckClassOptions) -> OpResult<String> {
        self.get_object(ctx, "storageclass", "", name).await?;
        let op = Op::run("nfs", "check_storage_class", name).class(crate::core::event::Class::Repeatable);
        let namespace = format!("gpuhost-verify-{}", crate::gpu::short_id());
        ctx.run_op(op, |s| async move {
            let work = async {
                self.make_namespace(s.ctx(), &namespace, false).await?;
                let said = self.probe_class(&s, &namespace, name, o).await?;
                let left = self.leftovers(&s, &namespace, None, &[&namespace]).await?;
                self.sweep(&s, &namespace, &left).await?;
                Ok(said)
            };
            let clean = async {
                // the volume of a class that retains would stay behind
                self.release_volumes(s.ctx(), &namespace, None).await?;
                self.drop_namespace(&s, &namespace).await
            };
            s.probe(format!("namespace {namespace}"), work, clean).await
        })
        .await
    }

    async fn probe_class(&self, s: &OpScope, ns: &str, class: &str, o: &CheckClassOptions) -> OpResult<String> {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "probe", "namespace": ns}, "spec": {"storageClassName": class,
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}});
        let path = format!("/api/v1/namespaces/{ns}/persistentvolumeclaims");
        self.demand(s.ctx(), "claim probe", &Request::post(path, &claim)).await?;
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": ns},
            "spec": {"restartPolicy": "Never",
                "containers": [{"name": "probe", "image": BUSYBOX,
                    "command": ["sh", "-c", "echo gpuhost > /data/probe && cat /data/probe && stat -c 'uid %u' /data/probe"],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "probe"}}]}});
        if let Some(node) = &o.node {
            pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
            pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        }
        let ran = self.run_to_end(s, &pod, o.timeout.0).await;
        let warning = self.last_warning(s.ctx(), "pvc", ns, "probe").await.ok().flatten();
        match ran {
            Ok(end) if end.phase == "Succeeded" => Ok(format!("claim bound, pod wrote and read on {}", end.node)),
            Ok(end) => {
                let last = end.log.lines().last().unwrap_or("no log").to_owned();
                Err(OpError::failed(format!("a pod could not write to a volume of `{class}`")).on(class).because(last))
            }
            Err(e) => {
                let e = e.on(class);
                Err(match warning {
                    Some(w) => {
                        let hint = explain_claim(&w);
                        let e = e.because(w);
                        if let Some(h) = hint { e.hint(h) } else { e }
                    }
                    None => e,
                })
            }
        }
    }

    /// Removes the claim of verify's own test user with its volume; any other claim is refused.
    ///
    /// # Errors
    /// `refused` for a claim that is not verify's.
    pub async fn remove_probe_claim(&self, ctx: &Ctx, ns: &str, name: &str) -> OpResult<()> {
        if !name.starts_with("claim-gpuhost-verify") {
            return Err(OpError::refused(format!("claim `{name}` is not one of verify's")).on(name));
        }
        let op =
            Op::run("nfs", "remove_probe_claim", format!("{ns}/{name}")).class(crate::core::event::Class::Repeatable);
        ctx.run_op(op, |s| async move {
            let namespace = format!("gpuhost-verify-{}", crate::gpu::short_id());
            let clean = async {
                let left = self.leftovers(&s, ns, Some(name), &[name]).await?;
                self.release_volumes(s.ctx(), ns, Some(name)).await?;
                s.waiting(format!("removal of claim {ns}/{name}"));
                self.delete_now(s.ctx(), "pvc", ns, name).await?;
                if left.is_empty() {
                    return Ok(());
                }
                self.make_namespace(s.ctx(), &namespace, false).await?;
                let swept = self.sweep(&s, &namespace, &left).await;
                self.drop_namespace(&s, &namespace).await?;
                swept
            };
            s.probe(format!("claim {ns}/{name}"), async { Ok(()) }, clean).await
        })
        .await
    }

    /// Makes the probe's volumes go with their claims.
    async fn release_volumes(&self, ctx: &Ctx, ns: &str, claim: Option<&str>) -> OpResult<()> {
        for pv in self.list_in(ctx, "pv", "").await? {
            let of = &pv["spec"]["claimRef"];
            let ours = of["namespace"] == ns && claim.is_none_or(|c| of["name"] == c);
            if ours && pv["spec"]["persistentVolumeReclaimPolicy"] != "Delete" {
                let name = pv["metadata"]["name"].as_str().unwrap_or_default();
                let patch = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
                self.demand(ctx, name, &Request::merge(format!("/api/v1/persistentvolumes/{name}"), &patch)).await?;
            }
        }
        Ok(())
    }
}

/// What to do about a claim's warning.
fn explain_claim(warning: &str) -> Option<&'static str> {
    let known = [
        (
            "config doesn't contain path",
            "the provisioner's config has no path for this node: `cluster.ensure_scratch_class` writes one",
        ),
        ("is not mounted", "mount the scratch disk on that node; `host.ensure` of the deploy recipe does it"),
        ("access denied", "the export does not list that node: run the storage step of the deploy recipe again"),
        ("No such file", "the exported path does not exist on the NFS server"),
        ("timed out", "a firewall drops port 2049 between node and NFS server"),
    ];
    known.iter().find(|(p, _)| warning.contains(p)).map(|(_, h)| *h)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_render() {
        let mut m = rhai::Map::new();
        m.insert("chart".into(), "4.13.4".into());
        let o = NfsClassOptions::read(&m).unwrap();
        let c = nfs_class("nfs-client", &Export::new("10.0.0.31", "/srv/nfs/k8s"), &o);
        assert_eq!(
            (c["reclaimPolicy"].as_str(), c["parameters"]["onDelete"].as_str()),
            (Some("Retain"), Some("retain"))
        );
        let all = scratch_objects("fast", "/mnt/scratch");
        assert_eq!(all.last().unwrap()["provisioner"], SCRATCH_DRIVER);
        let config = all.iter().find(|o| o["kind"] == "ConfigMap").unwrap();
        assert!(config["data"]["setup"].as_str().unwrap().contains("mountpoint -q /mnt/scratch"));
        let helper: Value = serde_saphyr::from_str(config["data"]["helperPod.yaml"].as_str().unwrap()).unwrap();
        assert_eq!(helper["spec"]["containers"][0]["image"], BUSYBOX);
    }
}
