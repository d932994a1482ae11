//! Node objects: registration, conditions, heartbeats, silence.
use serde_json::{Value, json};
use sha2::Digest;

use super::super::controllers;
use super::super::cx::{Cx, set_condition, with_cluster};
use super::super::state::{Process, Role, UnitState};
use super::super::text::{arr, b64, s, sha256, shown};
use super::{Stage, config, files, go, log, wait};
use crate::world::World;
use crate::{Lab, guest};

const NO_NETWORK: &str = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";
const DOWN: &str = "Kubelet stopped posting node status.";

/// The kubelet registers its node, or says that the known node is back.
pub fn register(lab: &Lab, w: &mut World, vmid: u32) {
    let Some(p) = w.k3s.get(&vmid).cloned() else { return };
    let Some(id) = p.cluster.clone() else { return };
    if config::on(&p.start.config, "disable-agent") {
        return;
    }
    let password = files::node_password(lab, w, vmid);
    let ip = guest::ip(w, vmid).unwrap_or_default();
    // the Secret is the only record: with it goes the old password
    let known = w.clusters.get(&id).and_then(|c| c.store.get("secrets", "kube-system", &password_name(&p.node)));
    let clash = known.is_some_and(|s| s["data"]["hash"] != password_hash(&p.node, &password));
    if clash {
        let text = format!(
            "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry, try enabling a unique node name with the --with-node-id flag: hash does not match for node {}",
            p.node
        );
        return wait(w, vmid, &text);
    }
    if let Some(c) = w.clusters.remove(&id) {
        super::certificates::write(lab, w, vmid, &c, &[p.node.clone(), ip.clone(), "127.0.0.1".to_owned()]);
        w.clusters.insert(id.clone(), c);
    }
    log(w, vmid, "info", &format!("Running kubelet --hostname-override={} --node-ip={ip}", p.node));
    with_cluster(lab, w, &id, |cx| {
        password_secret(cx, &p.node, &password);
        let rt = cx.node_rt(&p.node);
        rt.vmid = vmid;
        rt.runtimes = p.runtimes.clone();
        rt.posting = true;
        let fresh = cx.get("nodes", "", &p.node).is_none();
        if fresh {
            let node = new_node(cx, vmid, &p, &ip);
            cx.create(node);
            lease(cx, &p.node);
            csi_node(cx, &p.node);
            let node = cx.get("nodes", "", &p.node).cloned().unwrap_or_default();
            cx.event(
                &node,
                true,
                "RegisteredNode",
                &format!("Node {0} event: Registered Node {0} in Controller", p.node),
                "node-controller",
            );
        }
        refresh(cx, vmid, &p, &ip);
        let node = cx.get("nodes", "", &p.node).cloned().unwrap_or_default();
        cx.event(&node, true, "Starting", "Starting kubelet.", "kubelet");
        if p.start.role == Role::Server {
            voter_condition(cx, vmid);
        }
    });
    go(w, vmid, 6000, Stage::NodeReady);
}

/// Name of the Secret that keeps a node's password.
#[must_use]
pub fn password_name(node: &str) -> String {
    format!("{node}.node-password.k3s")
}

fn password_hash(node: &str, password: &str) -> String {
    b64(format!("$1:{}:15:8:1:{}", &sha256(node)[..16], &sha256(password)[..43]).as_bytes())
}

/// Since autumn 2025 such Secrets have a type of their own.
fn password_type(version: &str) -> &'static str {
    if super::release::round(version) >= 2 { "k3s.cattle.io/node-password" } else { "Opaque" }
}

fn password_secret(cx: &mut Cx, node: &str, password: &str) {
    cx.create(json!({
        "apiVersion": "v1", "kind": "Secret", "type": password_type(&cx.c.version), "immutable": true,
        "metadata": {"name": password_name(node), "namespace": "kube-system"},
        "data": {"hash": password_hash(node, password)},
    }));
}

fn lease(cx: &mut Cx, node: &str) {
    let uid = cx.get("nodes", "", node).map(|n| n["metadata"]["uid"].clone());
    let renew = super::super::text::stamp_micro(cx.now());
    cx.create(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": node, "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": renew},
    }));
}

/// What the kubelet says of the volume drivers of its node: none has registered yet.
pub fn csi_node(cx: &mut Cx, node: &str) {
    let uid = cx.get("nodes", "", node).map(|n| n["metadata"]["uid"].clone());
    let moved = "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,kubernetes.io/cinder,kubernetes.io/gce-pd,kubernetes.io/portworx-volume,kubernetes.io/vsphere-volume";
    cx.create(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
        "metadata": {"name": node, "annotations": {"storage.alpha.kubernetes.io/migrated-plugins": moved},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]},
        "spec": {"drivers": null},
    }));
}

/// A Node as the kubelet makes it at its first registration.
fn new_node(cx: &Cx, vmid: u32, p: &Process, ip: &str) -> Value {
    let instance = "k3s";
    let mut labels = json!({
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": p.node,
        "beta.kubernetes.io/instance-type": instance, "node.kubernetes.io/instance-type": instance,
    });
    if p.start.role == Role::Server {
        labels["node-role.kubernetes.io/control-plane"] = json!("true");
        if cx.c.etcd {
            labels["node-role.kubernetes.io/etcd"] = json!("true");
        }
        if minor(&p.start.version) < 34 {
            labels["node-role.kubernetes.io/master"] = json!("true");
        }
        if config::on(&cx.c.config, "embedded-registry") {
            labels["p2p.k3s.cattle.io/enabled"] = json!("true");
        }
    }
    for l in config::list(&p.start.config, "node-label") {
        if let Some((k, v)) = l.split_once('=') {
            labels[k] = json!(v);
        }
    }
    let mut taints: Vec<Value> = vec![json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})];
    for t in config::list(&p.start.config, "node-taint") {
        let Some((kv, effect)) = t.rsplit_once(':') else { continue };
        let (k, v) = kv.split_once('=').unwrap_or((kv, ""));
        let mut taint = json!({"key": k, "effect": effect});
        if !v.is_empty() {
            taint["value"] = json!(v);
        }
        taints.push(taint);
    }
    let base = match s(&cx.c.config, "/cluster-cidr").split(',').next() {
        Some(t) if !t.is_empty() => t.to_owned(),
        _ => "10.42.0.0/16".to_owned(),
    };
    let net: Vec<&str> = base.split('.').take(2).collect();
    let taken: std::collections::BTreeSet<&str> = cx.list("nodes").into_iter().map(|n| s(n, "/spec/podCIDR")).collect();
    let range = |n: usize| format!("{}.{n}.0/24", net.join("."));
    let free = (0..=taken.len()).find(|n| !taken.contains(range(*n).as_str())).unwrap_or_default();
    let pod_cidr = range(free);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": p.node, "labels": labels, "annotations": {
            "alpha.kubernetes.io/provided-node-ip": ip,
            "flannel.alpha.coreos.com/backend-data": json!({"VNI": 1, "VtepMAC": tunnel(&p.node)}).to_string(),
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            "flannel.alpha.coreos.com/public-ip": ip,
            "k3s.io/hostname": p.node, "k3s.io/internal-ip": ip,
            "node.alpha.kubernetes.io/ttl": "0",
            "volumes.kubernetes.io/controller-managed-attach-detach": "true",
        }},
        "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr], "providerID": format!("k3s://{}", p.node), "taints": taints},
        "status": capacity(cx, vmid, p),
    })
}

/// Hardware address of a node's end of the pod network.
fn tunnel(node: &str) -> String {
    let sum = sha2::Sha256::digest(node);
    // a locally administered address of one machine
    let first = (sum[0] | 2) & !1;
    format!("{first:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", sum[1], sum[2], sum[3], sum[4], sum[5])
}

pub(in crate::kube) fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|m| m.parse().ok()).unwrap_or(0)
}

fn capacity(cx: &Cx, vmid: u32, p: &Process) -> Value {
    let (cores, mib, disk) = cx.w.guests.get(&vmid).map_or((2, 4096, 50 << 30), |g| {
        (g.spec.cores, g.spec.memory_mib, g.spec.disks.first().map_or(50 << 30, |d| d.size))
    });
    let max_pods = config::list(&p.start.config, "kubelet-arg")
        .iter()
        .find_map(|a| a.strip_prefix("max-pods=").map(str::to_owned))
        .unwrap_or_else(|| "110".to_owned());
    let memory_ki = mib * 1024 - 250_000.min(mib * 50);
    json!({
        "capacity": {"cpu": cores.to_string(), "memory": format!("{memory_ki}Ki"), "pods": max_pods,
            "ephemeral-storage": format!("{}Ki", disk / 1024), "hugepages-1Gi": "0", "hugepages-2Mi": "0"},
        "allocatable": {"cpu": cores.to_string(), "memory": format!("{memory_ki}Ki"), "pods": max_pods,
            "ephemeral-storage": (disk / 100 * 95).to_string(), "hugepages-1Gi": "0", "hugepages-2Mi": "0"},
    })
}

/// What the kubelet says of its machine and of itself.
fn node_info(cx: &Cx, vmid: u32, p: &Process) -> Value {
    let guest = cx.w.guests.get(&vmid);
    let (uuid, boot_id) = guest.map(|g| (g.spec.uuid.clone(), g.boot_id.clone())).unwrap_or_default();
    let kernel = guest.map_or(crate::guest::hw::KERNEL, crate::guest::hw::running_kernel);
    json!({
        "architecture": "amd64", "bootID": boot_id, "systemUUID": uuid, "machineID": uuid.replace('-', ""),
        "containerRuntimeVersion": super::release::containerd(&p.start.version), "kernelVersion": kernel,
        "kubeProxyVersion": "", "kubeletVersion": p.start.version, "operatingSystem": "linux",
        "osImage": "Debian GNU/Linux 12 (bookworm)",
    })
}

/// What the kubelet sets at every start.
fn refresh(cx: &mut Cx, vmid: u32, p: &Process, ip: &str) {
    let stamp = cx.stamp();
    let fresh = capacity(cx, vmid, p);
    let info = node_info(cx, vmid, p);
    let handlers = runtime_handlers(&p.runtimes);
    let (args, env) = (node_args(p), json!({"K3S_DATA_DIR": super::files::data_dir(&p.start.version)}).to_string());
    let hash = base32(&sha2::Sha256::digest(format!("{args}{env}")));
    // all servers have the same keys
    let keys = sha256(&cx.c.id);
    let encrypted = p.start.role == Role::Server && config::on(&p.start.config, "secrets-encryption");
    cx.update("nodes", "", &p.node, |n| {
        n["metadata"]["annotations"]["k3s.io/node-args"] = json!(args);
        n["metadata"]["annotations"]["k3s.io/node-config-hash"] = json!(hash);
        n["metadata"]["annotations"]["k3s.io/node-env"] = json!(env);
        if encrypted {
            n["metadata"]["annotations"]["k3s.io/encryption-config-hash"] = json!(format!("start-{keys}"));
        }
        for part in ["capacity", "allocatable"] {
            for (k, v) in fresh[part].as_object().into_iter().flatten() {
                n["status"][part][k] = v.clone();
            }
        }
        n["status"]["addresses"] =
            json!([{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": p.node}]);
        n["status"]["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": 10250}});
        n["status"]["nodeInfo"] = info;
        n["status"]["runtimeHandlers"] = handlers;
        for (kind, reason, text) in [
            ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ] {
            set_condition(n, &stamp, kind, "False", reason, text);
        }
        set_condition(n, &stamp, "Ready", "False", "KubeletNotReady", NO_NETWORK);
        beat(n, &stamp);
    });
}

/// The command line and the configuration of the process, as the node tells them.
fn node_args(p: &Process) -> String {
    const SECRET: [&str; 4] = ["token", "agent-token", "datastore-endpoint", "vpn-auth"];
    let role = if p.start.role == Role::Server { "server" } else { "agent" };
    let mut words = vec![role.to_owned()];
    for (k, v) in p.start.config.as_object().into_iter().flatten() {
        let values = v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]);
        for v in values {
            let hidden = SECRET.contains(&k.as_str()) || k.starts_with("etcd-s3-") && k.ends_with("-key");
            words.push(format!("--{k}"));
            words.push(if hidden { "********".to_owned() } else { shown(&v) });
        }
    }
    json!(words).to_string()
}

/// RFC 4648, with its padding.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = String::new();
    for chunk in bytes.chunks(5) {
        let whole = chunk.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)) << (8 * (5 - chunk.len()));
        let letters = (chunk.len() * 8).div_ceil(5);
        out.extend((0..letters).map(|i| char::from(LETTERS[(whole >> (35 - 5 * i) & 31) as usize])));
        out.extend(std::iter::repeat_n('=', 8 - letters));
    }
    out
}

fn runtime_handlers(found: &[String]) -> Value {
    let features = json!({"recursiveReadOnlyMounts": true, "userNamespaces": true});
    let mut list = vec![json!({"name": "", "features": features}), json!({"name": "runc", "features": features})];
    list.extend(found.iter().map(|n| json!({"name": n, "features": features})));
    Value::Array(list)
}

fn beat(n: &mut Value, stamp: &str) {
    for c in n["status"]["conditions"].as_array_mut().into_iter().flatten() {
        if c["type"] != "EtcdIsVoter" || c["lastHeartbeatTime"].is_null() {
            c["lastHeartbeatTime"] = json!(stamp);
        }
    }
}

/// The network plugin is there.
pub fn ready(lab: &Lab, w: &mut World, vmid: u32) {
    let Some(p) = w.k3s.get(&vmid).cloned() else { return };
    let Some(id) = p.cluster.clone() else { return };
    files::network_plugin(lab, w, vmid);
    with_cluster(lab, w, &id, |cx| {
        let (stamp, etcd) = (cx.stamp(), cx.c.etcd);
        cx.node_rt(&p.node).network = true;
        cx.update("nodes", "", &p.node, |n| {
            set_condition(n, &stamp, "Ready", "True", "KubeletReady", "kubelet is posting ready status");
            beat(n, &stamp);
            if let Some(t) = n.pointer_mut("/spec/taints").and_then(Value::as_array_mut) {
                let own = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
                t.retain(|x| !own.contains(&s(x, "/key")));
            }
            // an empty list is left out
            if arr(n, "/spec/taints").is_empty()
                && let Some(spec) = n["spec"].as_object_mut()
            {
                spec.shift_remove("taints");
            }
            if p.start.role == Role::Server && etcd {
                n["metadata"]["annotations"]["etcd.k3s.cattle.io/local-snapshots-timestamp"] = json!(stamp);
            }
        });
        let node = cx.get("nodes", "", &p.node).cloned().unwrap_or_default();
        cx.event(&node, true, "NodeReady", &format!("Node {} status is now: NodeReady", p.node), "kubelet");
        controllers::kubelet::guest_back(cx, &p.node);
        super::vip::look(cx);
    });
}

/// Shows the etcd membership of a server on its node.
pub fn voter_condition(cx: &mut Cx, vmid: u32) {
    if !cx.c.etcd {
        return;
    }
    let Some(m) = cx.c.members.get(&vmid).cloned() else { return };
    let (status, reason, text) = if m.learner {
        ("False", "MemberIsLearner", "Node has not been promoted to voting member of the etcd cluster")
    } else {
        ("True", "MemberNotLearner", "Node is a voting member of the etcd cluster")
    };
    let stamp = cx.stamp();
    let name = format!("{}-{:08x}", m.node, vmid);
    let address = format!("https://{}:2380", m.ip);
    cx.update("nodes", "", &m.node, |n| {
        n["metadata"]["annotations"]["etcd.k3s.cattle.io/node-name"] = json!(name);
        n["metadata"]["annotations"]["etcd.k3s.cattle.io/node-address"] = json!(address);
        set_condition(n, &stamp, "EtcdIsVoter", status, reason, text);
        for c in n["status"]["conditions"].as_array_mut().into_iter().flatten() {
            if c["type"] == "EtcdIsVoter" {
                c["lastHeartbeatTime"] = json!(stamp);
            }
        }
    });
}

/// 40 s have passed since a kubelet may have posted last.
pub fn silent(lab: &Lab, w: &mut World, id: &str, node: &str) {
    if posts(w, id, node) {
        return corrected(lab, w, id, node);
    }
    with_cluster(lab, w, id, |cx| {
        let stamp = cx.stamp();
        cx.node_rt(node).posting = false;
        cx.update("nodes", "", node, |n| {
            for kind in ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"] {
                set_condition(n, &stamp, kind, "Unknown", "NodeStatusUnknown", DOWN);
            }
            let mut taints = n["spec"]["taints"].as_array().cloned().unwrap_or_default();
            taints.retain(|t| s(t, "/key") != "node.kubernetes.io/unreachable");
            for effect in ["NoSchedule", "NoExecute"] {
                taints.push(json!({"key": "node.kubernetes.io/unreachable", "effect": effect, "timeAdded": stamp}));
            }
            n["spec"]["taints"] = Value::Array(taints);
        });
        let object = cx.get("nodes", "", node).cloned().unwrap_or_default();
        cx.event(&object, true, "NodeNotReady", &format!("Node {node} status is now: NodeNotReady"), "node-controller");
        controllers::kubelet::node_silent(cx, node);
    });
}

/// A kubelet that runs posts what its Node has otherwise: after a restore the Node may be older than the machine.
fn corrected(lab: &Lab, w: &mut World, id: &str, node: &str) {
    let active =
        |(vmid, p): &(&u32, &Process)| p.node == node && p.unit == Some(UnitState::Active) && runs(w, id, **vmid, p);
    let Some((vmid, p)) = w.k3s.iter().find(active).map(|(v, p)| (*v, p.clone())) else { return };
    with_cluster(lab, w, id, |cx| {
        if !cx.node_rt(node).posting {
            return;
        }
        let info = node_info(cx, vmid, &p);
        if cx.get("nodes", "", node).is_some_and(|n| n["status"]["nodeInfo"] != info) {
            cx.update("nodes", "", node, |n| n["status"]["nodeInfo"] = info);
        }
    });
}

/// Whether the kubelet of a node runs.
#[must_use]
pub fn posts(w: &World, id: &str, node: &str) -> bool {
    w.k3s.iter().any(|(vmid, p)| p.node == node && runs(w, id, *vmid, p))
}

fn runs(w: &World, id: &str, vmid: u32, p: &Process) -> bool {
    p.cluster.as_deref() == Some(id)
        && matches!(p.unit, Some(UnitState::Active | UnitState::Activating))
        && !p.waiting
        && !p.cut_off
        && guest::is_up(w, vmid)
}

/// Nodes whose network plugin has lost its configuration are not Ready: K3s writes it at its start only. The kubelet
/// sees it at once; it is computed when somebody looks.
pub fn look_at_networks(lab: &Lab, w: &mut World, id: &str) {
    let Some(c) = w.clusters.get(id) else { return };
    let lost = |n: &super::super::state::NodeRt| {
        n.network && n.posting && guest::is_up(w, n.vmid) && !guest::has_file(lab, w, n.vmid, files::NETWORK_PLUGIN)
    };
    let lost: Vec<String> = c.nodes.iter().filter(|(_, n)| lost(n)).map(|(name, _)| name.clone()).collect();
    if lost.is_empty() {
        return;
    }
    with_cluster(lab, w, id, |cx| {
        for node in lost {
            cx.node_rt(&node).network = false;
            let stamp = cx.stamp();
            cx.update("nodes", "", &node, |n| {
                set_condition(n, &stamp, "Ready", "False", "KubeletNotReady", NO_NETWORK);
                let mut taints = n["spec"]["taints"].as_array().cloned().unwrap_or_default();
                taints.retain(|t| s(t, "/key") != "node.kubernetes.io/not-ready");
                for effect in ["NoSchedule", "NoExecute"] {
                    taints.push(json!({"key": "node.kubernetes.io/not-ready", "effect": effect, "timeAdded": stamp}));
                }
                n["spec"]["taints"] = Value::Array(taints);
            });
            let object = cx.get("nodes", "", &node).cloned().unwrap_or_default();
            let text = format!("Node {node} status is now: NodeNotReady");
            cx.event(&object, true, "NodeNotReady", &text, "kubelet");
            controllers::kubelet::node_silent(cx, &node);
        }
    });
}

/// Renews the leases and heartbeats of all nodes whose kubelets run: they are computed when somebody looks.
pub fn heartbeats(w: &mut World, id: &str) {
    let Some(c) = w.clusters.get(id) else { return };
    let posting = |p: &&Process| c.nodes.get(&p.node).is_some_and(|n| n.posting);
    let alive: Vec<String> = w
        .k3s
        .iter()
        .filter(|(v, p)| runs(w, id, **v, p))
        .map(|(_, p)| p)
        .filter(posting)
        .map(|p| p.node.clone())
        .collect();
    let Some(c) = w.clusters.get_mut(id) else { return };
    c.store.at(w.now_ms);
    let renew = super::super::text::stamp_micro(w.now_ms);
    for node in alive {
        let _ = c.store.patch_with("leases.coordination.k8s.io", "kube-node-lease", &node, |l| {
            l["spec"]["renewTime"] = json!(renew);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_the_node_shows_them() {
        assert_eq!((base32(b"foobar").as_str(), base32(b"foob").as_str()), ("MZXW6YTBOI======", "MZXW6YQ="));
        assert!(base32(&[7; 32]).ends_with("===="));
    }
}
