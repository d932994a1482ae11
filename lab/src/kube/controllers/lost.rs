//! Nodes that fall silent and come back, and what becomes of their pods.
use serde_json::Value;

use super::super::KubeEvent;
use super::super::cx::{Cx, is_true, key, set_condition};
use super::super::state::{PodRt, PodStage};
use super::super::text::{arr, s};
use super::status::Container;
use super::{effects, kubelet, pods};

/// The guest under a node is gone: its pods stand still.
pub fn guest_gone(cx: &mut Cx, node: &str) {
    if let Some(n) = cx.c.nodes.get_mut(node) {
        n.posting = false;
        n.plugin = false;
        n.cuda = false;
        n.csi.clear();
        if n.driver.take().is_some() {
            let vmid = n.vmid;
            crate::guest::set_nvidia_driver(cx.lab, cx.w, vmid, None);
        }
    }
    let lab = cx.lab;
    for (uid, rt) in cx.c.pods.iter_mut().filter(|(_, p)| p.node == node) {
        lab.kube().containers.end_pod(uid);
        rt.step += 1;
        if rt.stage != PodStage::Done {
            rt.stage = PodStage::Prepare;
            rt.why = "lost".to_owned();
        }
    }
    effects::node_down(cx, node);
}

/// 40 s of silence: the pods of the node are no longer ready.
pub fn node_silent(cx: &mut Cx, node: &str) {
    let stamp = cx.stamp();
    let here: Vec<(String, String)> =
        cx.list("pods").into_iter().filter(|p| s(p, "/spec/nodeName") == node && pods::is_active(p)).map(key).collect();
    for (ns, name) in here {
        cx.update("pods", &ns, &name, |p| set_condition(p, &stamp, "Ready", "False", "NodeNotReady", ""));
    }
    cx.later(300_000, KubeEvent::Evict { cluster: cx.c.id.clone(), node: node.to_owned() });
}

/// Five minutes more: pods that do not tolerate it are deleted (and wait for the node to confirm).
pub fn evict(cx: &mut Cx, node: &str) {
    let Some(n) = cx.get("nodes", "", node) else { return };
    if is_true(n, "Ready") || cx.c.nodes.get(node).is_some_and(|n| n.posting) {
        return;
    }
    let here: Vec<Value> =
        cx.list("pods").into_iter().filter(|p| s(p, "/spec/nodeName") == node && pods::is_active(p)).cloned().collect();
    for p in here {
        let stays = arr(&p, "/metadata/ownerReferences").iter().any(|o| s(o, "/kind") == "DaemonSet");
        if !stays {
            let (ns, name) = key(&p);
            cx.event(
                &p,
                true,
                "TaintManagerEviction",
                &format!("Marking for deletion Pod {ns}/{name}"),
                "taint-eviction-controller",
            );
            cx.delete("pods", &ns, &name);
        }
    }
}

/// The node is Ready (again): pods that were lost start anew, the others are seen again.
pub fn guest_back(cx: &mut Cx, node: &str) {
    let here: Vec<(String, PodRt)> =
        cx.c.pods.iter().filter(|(_, p)| p.node == node).map(|(u, p)| (u.clone(), p.clone())).collect();
    for (uid, rt) in here {
        let Some(pod) = cx.get("pods", &rt.ns, &rt.name).cloned() else { continue };
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            kubelet::stop(cx, &pod, &uid);
        } else if rt.why == "lost" {
            if let Some(p) = cx.c.pods.get_mut(&uid) {
                p.why.clear();
                p.restarts += 1;
            }
            kubelet::show(
                cx,
                &uid,
                "Running",
                0,
                Container::waiting("PodInitializing"),
                Container::waiting("ContainerCreating"),
                false,
            );
            kubelet::go(cx, &uid, PodStage::Prepare, 1000);
        } else if rt.stage == PodStage::Ready && !pods::is_ready(&pod) {
            let inits = arr(&pod, "/spec/initContainers").len();
            kubelet::show(cx, &uid, "Running", inits, Container::Ended(0), Container::Running, true);
        } else if !matches!(rt.stage, PodStage::Ready | PodStage::Done) {
            // its step fell due while the node was silent
            kubelet::go(cx, &uid, rt.stage, 1000);
        }
    }
    let unknown: Vec<(String, String)> = cx
        .list("pods")
        .into_iter()
        .filter(|p| s(p, "/spec/nodeName") == node && !cx.c.pods.contains_key(s(p, "/metadata/uid")))
        .map(key)
        .collect();
    for (ns, name) in unknown {
        kubelet::look(cx, &ns, &name);
    }
}
