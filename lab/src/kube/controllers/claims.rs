//! Claims and volumes: provisioning, binding, mounting, reclaiming.
use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::text::{arr, s};
use super::{localpath, pods, statics};
use crate::guest;
use crate::kube::bare;
use crate::kube::container::voldata::{self, Place};

const PVC: &str = "persistentvolumeclaims";
const PV: &str = "persistentvolumes";
const SC: &str = "storageclasses.storage.k8s.io";
const SELECTED: &str = "volume.kubernetes.io/selected-node";
const NFS: &str = "nfs.csi.k8s.io";

/// Claims of a pod.
///
/// # Errors
/// The scheduler's words when one is missing or will not be bound before the pod is placed.
pub fn wanted_by(cx: &Cx, pod: &Value) -> Result<Vec<Value>, String> {
    let ns = s(pod, "/metadata/namespace");
    let mut out = Vec::new();
    for v in arr(pod, "/spec/volumes") {
        let Some(name) = v["persistentVolumeClaim"]["claimName"].as_str() else { continue };
        let Some(claim) = cx.get(PVC, ns, name) else {
            return Err(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        if !claim["metadata"]["deletionTimestamp"].is_null() {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let bound = s(claim, "/status/phase") == "Bound";
        if !bound && !waits(cx, claim) {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        out.push(claim.clone());
    }
    Ok(out)
}

fn class_of<'a>(cx: &'a Cx, claim: &Value) -> Option<&'a Value> {
    cx.get(SC, "", s(claim, "/spec/storageClassName"))
}

fn waits(cx: &Cx, claim: &Value) -> bool {
    class_of(cx, claim).is_some_and(|c| s(c, "/volumeBindingMode") == "WaitForFirstConsumer")
}

/// Why a node cannot have the pod's volumes.
#[must_use]
pub fn keeps_away(cx: &Cx, volumes: &[Value], node: &Value) -> Option<String> {
    let name = s(node, "/metadata/name");
    volumes.iter().find_map(|claim| {
        let pv = cx.get(PV, "", s(claim, "/spec/volumeName"))?;
        let other = voldata::node_of(pv).is_some_and(|n| n != name);
        other.then(|| "node(s) didn't match PersistentVolume's node affinity".to_owned())
    })
}

/// Tells waiting claims which node was chosen; true while one is not bound.
pub fn await_binding(cx: &mut Cx, volumes: &[Value], node: &str) -> bool {
    let mut waiting = false;
    for claim in volumes.iter().filter(|c| s(c, "/status/phase") != "Bound") {
        let (ns, name) = key(claim);
        if claim["metadata"]["annotations"][SELECTED] != node {
            cx.update(PVC, &ns, &name, |o| o["metadata"]["annotations"][SELECTED] = json!(node));
        }
        waiting |= cx.get(PVC, &ns, &name).is_some_and(|c| s(c, "/status/phase") != "Bound");
    }
    waiting
}

/// Whether the kubelet can mount a share that a pod names itself, with the tools of its machine.
fn share_mountable(cx: &Cx, pod: &Value, v: &Value, vmid: u32) -> Result<(), (&'static str, String)> {
    let (server, path, name) = (s(v, "/nfs/server"), s(v, "/nfs/path"), s(v, "/name"));
    let tool = || {
        match guest::has_file(cx.lab, cx.w, vmid, "/usr/sbin/mount.nfs") {
        true => Ok(()),
        false => Err("mount: bad option; for several filesystems (e.g. nfs, cifs) you might need a /sbin/mount.<type> helper program.".to_owned()),
    }
    };
    let ip = guest::ip(cx.w, vmid).unwrap_or_default();
    tool().and_then(|()| guest::nfs_allows(cx.w, server, path, &ip)).map_err(|e| {
        let at = format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~nfs/{name}", s(pod, "/metadata/uid"));
        let text = format!(
            "MountVolume.SetUp failed for volume \"{name}\" : mount failed: exit status 32\nMounting command: mount\nMounting arguments: -t nfs {server}:{path} {at}\nOutput: {e}"
        );
        ("FailedMount", text)
    })
}

/// Whether the kubelet can mount the pod's volumes.
///
/// # Errors
/// Reason and text of the event.
pub fn mountable(cx: &Cx, pod: &Value, node: &str) -> Result<(), (&'static str, String)> {
    let ns = s(pod, "/metadata/namespace");
    let vmid = cx.c.nodes.get(node).map_or(0, |n| n.vmid);
    for v in arr(pod, "/spec/volumes") {
        if v["nfs"].is_object() {
            share_mountable(cx, pod, v, vmid)?;
        }
        let Some(name) = v["persistentVolumeClaim"]["claimName"].as_str() else { continue };
        let claim = cx.get(PVC, ns, name).cloned().unwrap_or_default();
        let Some(pv) = cx.get(PV, "", s(&claim, "/spec/volumeName")) else {
            return Err(("FailedMount", format!("persistentvolumeclaim \"{name}\" is not bound")));
        };
        if s(pv, "/spec/csi/driver") == NFS {
            if !cx.c.nodes.get(node).is_some_and(|n| n.csi.contains(NFS)) {
                let text = format!(
                    "MountVolume.MountDevice failed for volume \"{}\" : kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: driver name {NFS} not found in the list of registered CSI drivers",
                    s(pv, "/metadata/name")
                );
                return Err(("FailedMount", text));
            }
            let ip = guest::ip(cx.w, vmid).unwrap_or_default();
            let (server, share) =
                (s(pv, "/spec/csi/volumeAttributes/server"), s(pv, "/spec/csi/volumeAttributes/share"));
            if let Err(e) = guest::nfs_allows(cx.w, server, share, &ip) {
                let text = format!(
                    "MountVolume.SetUp failed for volume \"{}\" : rpc error: code = Internal desc = mount failed: exit status 32\nOutput: {e}",
                    s(pv, "/metadata/name")
                );
                return Err(("FailedMount", text));
            }
        }
    }
    Ok(())
}

/// Looks at all claims and volumes.
pub fn reconcile(cx: &mut Cx) {
    default_class(cx);
    statics::offer(cx);
    let open: Vec<Value> = cx
        .list(PVC)
        .into_iter()
        .filter(|c| s(c, "/status/phase") != "Bound" && c["metadata"]["deletionTimestamp"].is_null())
        .cloned()
        .collect();
    for claim in open {
        provision(cx, &claim);
    }
    unprotect(cx);
    reclaim(cx);
}

/// Claims and volumes that are deleted and used by nobody any more go.
fn unprotect(cx: &mut Cx) {
    let ending = |o: &&Value| !o["metadata"]["deletionTimestamp"].is_null();
    let claims: Vec<(String, String)> = cx.list(PVC).into_iter().filter(ending).map(key).collect();
    for (ns, name) in claims.iter().filter(|(ns, name)| !is_used(cx, ns, name)).cloned().collect::<Vec<_>>() {
        cx.update(PVC, &ns, &name, |o| drop_finalizer(o, "kubernetes.io/pvc-protection"));
    }
    let volumes: Vec<String> = cx
        .list(PV)
        .into_iter()
        .filter(|v| ending(v) && s(v, "/status/phase") != "Bound")
        .map(|v| s(v, "/metadata/name").to_owned())
        .collect();
    for name in volumes {
        cx.update(PV, "", &name, |o| drop_finalizer(o, "kubernetes.io/pv-protection"));
    }
}

/// Whether a pod that has a node names the claim, ended or not.
fn is_used(cx: &Cx, ns: &str, claim: &str) -> bool {
    cx.list_in("pods", ns).into_iter().any(|p| {
        !s(p, "/spec/nodeName").is_empty()
            && arr(p, "/spec/volumes").iter().any(|v| v["persistentVolumeClaim"]["claimName"] == claim)
    })
}

fn drop_finalizer(o: &mut Value, name: &str) {
    if let Some(all) = o["metadata"]["finalizers"].as_array_mut() {
        all.retain(|f| f != name);
    }
}

fn default_class(cx: &mut Cx) {
    const MARK: &str = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";
    let newest = cx
        .list(SC)
        .into_iter()
        .filter(|c| s(c, MARK) == "true")
        .max_by_key(|c| s(c, "/metadata/creationTimestamp").to_owned())
        .map(|c| s(c, "/metadata/name").to_owned());
    let Some(class) = newest else { return };
    let bare: Vec<(String, String)> = cx
        .list(PVC)
        .into_iter()
        .filter(|c| c["spec"]["storageClassName"].is_null() && s(c, "/spec/volumeName").is_empty())
        .map(key)
        .collect();
    for (ns, name) in bare {
        cx.update(PVC, &ns, &name, |o| o["spec"]["storageClassName"] = json!(class));
    }
}

fn pending(cx: &mut Cx, claim: &Value, normal: bool, reason: &str, text: &str, from: &str) {
    let (ns, name) = key(claim);
    if s(claim, "/status/phase").is_empty() {
        cx.update(PVC, &ns, &name, |o| o["status"] = json!({"phase": "Pending"}));
    }
    let mark = format!("claim/{}", s(claim, "/metadata/uid"));
    if cx.c.apps.get(&mark).and_then(Value::as_str) != Some(text) {
        cx.c.apps.insert(mark, json!(text));
        cx.event(claim, normal, reason, text, from);
    }
}

fn provision(cx: &mut Cx, claim: &Value) {
    if statics::bind(cx, claim) {
        return;
    }
    let class_name = s(claim, "/spec/storageClassName").to_owned();
    let Some(class) = cx.get(SC, "", &class_name).cloned() else {
        // One that names its volume waits for it in silence.
        if !s(claim, "/spec/volumeName").is_empty() {
            let (ns, name) = key(claim);
            cx.update(PVC, &ns, &name, |o| o["status"]["phase"] = json!("Pending"));
            return;
        }
        if class_name.is_empty() {
            let text = "no persistent volumes available for this claim and no storage class is set";
            return pending(cx, claim, true, "FailedBinding", text, "persistentvolume-controller");
        }
        let text = format!("storageclass.storage.k8s.io \"{class_name}\" not found");
        return pending(cx, claim, false, "ProvisioningFailed", &text, "persistentvolume-controller");
    };
    let node = s(claim, &format!("/metadata/annotations/{}", SELECTED.replace('/', "~1"))).to_owned();
    if s(&class, "/volumeBindingMode") == "WaitForFirstConsumer" && node.is_empty() {
        return pending(
            cx,
            claim,
            true,
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
            "persistentvolume-controller",
        );
    }
    let provisioner = s(&class, "/provisioner").to_owned();
    let made = if provisioner == NFS { nfs(cx, claim, &class) } else { localpath::provision(cx, claim, &class, &node) };
    match made {
        Ok(Some(source)) => bind(cx, claim, &class, source),
        Ok(None) => {
            let text = format!(
                "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
            );
            pending(cx, claim, true, "ExternalProvisioning", &text, "persistentvolume-controller");
        }
        Err(text) => {
            let full = format!("failed to provision volume with StorageClass \"{class_name}\": {text}");
            pending(cx, claim, false, "ProvisioningFailed", &full, &provisioner);
            again(cx, claim);
        }
    }
}

/// A provisioner that failed tries again after a growing pause.
fn again(cx: &mut Cx, claim: &Value) {
    let (ns, name) = key(claim);
    if cx.will_look((PVC, &ns, &name)) {
        return;
    }
    let mark = format!("claim-tries/{}", s(claim, "/metadata/uid"));
    let tries = cx.c.apps.get(&mark).and_then(Value::as_u64).unwrap_or(0);
    if tries < 20 {
        cx.c.apps.insert(mark, json!(tries + 1));
        cx.look_later((15_000u64 << tries.min(5)).min(300_000), (PVC, &ns, &name));
    }
}

/// A ready pod of this label value.
pub(super) fn ready_pod(cx: &Cx, label: &str, value: &str) -> Option<Value> {
    let selector = json!({"matchLabels": {label: value}});
    cx.c.store.select("pods", "", &selector).into_iter().find(|p| pods::is_ready(p)).cloned()
}

/// Address of the machine that csi-driver-nfs' controller works on.
fn controller_ip(cx: &Cx) -> Option<String> {
    let controller = ready_pod(cx, "app", "csi-nfs-controller")?;
    let vmid = cx.c.nodes.get(s(&controller, "/spec/nodeName")).map_or(0, |n| n.vmid);
    Some(guest::ip(cx.w, vmid).unwrap_or_default())
}

/// csi-driver-nfs makes a directory on the share.
fn nfs(cx: &mut Cx, claim: &Value, class: &Value) -> Result<Option<Value>, String> {
    let Some(ip) = controller_ip(cx) else { return Ok(None) };
    if claim["spec"]["selector"].is_object() {
        return Err("claim Selector is not supported".to_owned());
    }
    let (server, share) = (s(class, "/parameters/server").to_owned(), s(class, "/parameters/share").to_owned());
    guest::nfs_allows(cx.w, &server, &share, &ip)
        .map_err(|e| format!("rpc error: code = Internal desc = failed to mount nfs server: rpc error: code = Internal desc = mount failed: exit status 32\nOutput: {e}"))?;
    let (ns, name) = key(claim);
    let sub =
        s(class, "/parameters/subDir").replace("${pvc.metadata.namespace}", &ns).replace("${pvc.metadata.name}", &name);
    let volume = format!("pvc-{}", s(claim, "/metadata/uid"));
    // one that the class names is no volume's own: its handle has the volume's name too
    let (sub, own) = if sub.is_empty() { (volume, String::new()) } else { (sub, volume) };
    if let Some(Place::Machine { vmid, dir }) = voldata::share(cx, &server, &share) {
        guest::put_dir(cx.lab, vmid, &format!("{dir}/{sub}"), 0o755, "");
    }
    let on_delete = s(class, "/parameters/onDelete");
    let handle = format!("{server}#{}#{}#{own}#{on_delete}", share.trim_matches('/'), sub.trim_matches('/'));
    let mut about = json!({"server": server, "share": share, "subDir": sub});
    if !on_delete.is_empty() {
        about["onDelete"] = json!(on_delete);
    }
    Ok(Some(json!({"csi": {"driver": NFS, "volumeHandle": handle, "volumeAttributes": about},
        "mountOptions": class["mountOptions"]})))
}

fn bind(cx: &mut Cx, claim: &Value, class: &Value, source: Value) {
    let (ns, name) = key(claim);
    let uid = s(claim, "/metadata/uid");
    let volume = format!("pvc-{uid}");
    let capacity = claim["spec"]["resources"]["requests"]["storage"].clone();
    let mut spec = json!({
        "capacity": {"storage": capacity}, "accessModes": claim["spec"]["accessModes"], "storageClassName": class["metadata"]["name"],
        "persistentVolumeReclaimPolicy": class["reclaimPolicy"].as_str().unwrap_or("Delete"), "volumeMode": "Filesystem",
        "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": ns, "name": name, "uid": uid,
            "resourceVersion": claim["metadata"]["resourceVersion"]},
    });
    for (k, v) in source.as_object().into_iter().flatten() {
        if !v.is_null() {
            spec[k] = v.clone();
        }
    }
    let by = if s(class, "/provisioner") == NFS { "csi-provisioner" } else { "local-path-provisioner" };
    let made = json!({"apiVersion": "v1", "kind": "PersistentVolume", "spec": spec,
        "metadata": {"name": volume, "annotations": {"pv.kubernetes.io/provisioned-by": class["provisioner"]}}});
    cx.writing(by, |cx| cx.create(made));
    statics::enters(cx, &volume, "Bound");
    cx.update(PVC, &ns, &name, |o| {
        o["spec"]["volumeName"] = json!(volume);
        for key in ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"] {
            o["metadata"]["annotations"][key] = class["provisioner"].clone();
        }
        o["metadata"]["annotations"][statics::BY_CONTROLLER] = json!("yes");
        o["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
        o["status"] =
            json!({"phase": "Bound", "accessModes": o["spec"]["accessModes"], "capacity": {"storage": capacity}});
    });
    cx.event(
        claim,
        true,
        "ProvisioningSucceeded",
        &format!("Successfully provisioned volume {volume}"),
        s(class, "/provisioner"),
    );
}

/// Does with a volume's data what its provisioner does when it deletes the volume; false while it cannot.
fn thrown_away(cx: &mut Cx, name: &str) -> bool {
    let Some(pv) = cx.get(PV, "", name).cloned() else { return true };
    let place = voldata::of_volume(cx, &pv);
    if s(&pv, "/spec/csi/driver") != NFS {
        let by = s(&pv, "/metadata/annotations/pv.kubernetes.io~1provisioned-by");
        let known = voldata::node_of(&pv).is_some_and(|n| cx.c.nodes.contains_key(n));
        return match &place {
            Place::Machine { .. } => by.is_empty() || localpath::tear_down(cx, by, &place),
            // the directory of a machine that is switched off waits for it
            Place::Cluster(_) if !by.is_empty() && known && cx.c.id != bare::ID => false,
            Place::Cluster(_) => {
                voldata::remove(cx, &place);
                true
            }
        };
    }
    let at = |key: &str| s(&pv, &format!("/spec/csi/volumeAttributes/{key}"));
    let Some(ip) = controller_ip(cx) else { return false };
    if guest::nfs_allows(cx.w, at("server"), at("share"), &ip).is_err() {
        return false;
    }
    match (s(&pv, "/spec/csi/volumeHandle").rsplit('#').next().unwrap_or_default(), &place) {
        ("retain", _) => {}
        ("archive", Place::Machine { vmid, dir }) => {
            let to = format!("{}/archived-{}", at("share").trim_end_matches('/'), at("subDir").trim_matches('/'));
            guest::move_file(cx.lab, *vmid, dir, &to);
        }
        _ => voldata::remove(cx, &place),
    }
    true
}

/// Volumes whose claim is gone: deleted or released.
fn reclaim(cx: &mut Cx) {
    let orphans: Vec<(String, bool)> = cx
        .list(PV)
        .into_iter()
        .filter(|v| {
            let r = &v["spec"]["claimRef"];
            let claim = cx.get(PVC, s(r, "/namespace"), s(r, "/name"));
            // without a uid it is kept for a claim that may come
            r.is_object() && !s(r, "/uid").is_empty() && !claim.is_some_and(|c| c["metadata"]["uid"] == r["uid"])
        })
        .map(|v| (s(v, "/metadata/name").to_owned(), s(v, "/spec/persistentVolumeReclaimPolicy") == "Delete"))
        .collect();
    for (name, goes) in orphans {
        if goes && thrown_away(cx, &name) {
            cx.remove(PV, "", &name);
        } else if cx.get(PV, "", &name).is_some_and(|v| s(v, "/status/phase") != "Released") {
            statics::enters(cx, &name, "Released");
        }
    }
}
