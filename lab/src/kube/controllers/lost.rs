//! Nodes that fall silent and come back, and what becomes of their pods.
use std::collections::BTreeSet;

use serde_json::Value;

use super::super::KubeEvent;
use super::super::cx::{Cx, is_true, key};
use super::super::state::{Life, PodRt, PodStage};
use super::super::text::{arr, s};
use super::{containers, effects, kubelet, pods, scheduler, status};

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
            rt.lives.values_mut().for_each(|l| *l = Life { run: l.run + 1, ..Life::default() });
        }
    }
    effects::node_down(cx, node);
}

/// 40 s of silence: the pods of the node are no longer ready.
pub fn node_silent(cx: &mut Cx, node: &str) {
    let stamp = cx.stamp();
    let here: Vec<Value> =
        cx.list("pods").into_iter().filter(|p| s(p, "/spec/nodeName") == node && pods::is_active(p)).cloned().collect();
    for p in here.iter().filter(|p| is_true(p, "Ready")) {
        let (ns, name) = key(p);
        cx.update("pods", &ns, &name, |p| {
            let all = p["status"]["conditions"].as_array_mut().into_iter().flatten();
            for c in all.filter(|c| c["type"] == "Ready") {
                c["status"] = "False".into();
                c["lastTransitionTime"] = stamp.as_str().into();
            }
        });
        cx.event(p, false, "NodeNotReady", "Node is not ready", "node-controller");
    }
    // Whoever says nothing bears it for five minutes.
    let mut pauses = BTreeSet::from([300_000]);
    let all = cx.list("pods").into_iter().filter(|p| s(p, "/spec/nodeName") == node && pods::is_active(p));
    pauses.extend(all.filter_map(|p| patience(&p["spec"], &unreachable())));
    for ms in pauses {
        cx.later(ms, KubeEvent::Evict { cluster: cx.c.id.clone(), node: node.to_owned() });
    }
}

/// The taint of a node that is silent.
fn unreachable() -> Value {
    serde_json::json!({"key": SILENCE[0], "effect": "NoExecute"})
}

/// A while more: pods that do not tolerate it for longer are deleted (and wait for the node to confirm).
pub fn evict(cx: &mut Cx, node: &str) {
    let Some(n) = cx.get("nodes", "", node) else { return };
    if is_true(n, "Ready") || cx.c.nodes.get(node).is_some_and(|n| n.posting) {
        return;
    }
    let since = arr(n, "/status/conditions").iter().find(|c| c["type"] == "Ready");
    let since = since.and_then(|c| crate::kube::store::meta::parse_time(s(c, "/lastTransitionTime")));
    let silent = cx.now().saturating_sub(since.unwrap_or(0));
    let here: Vec<Value> =
        cx.list("pods").into_iter().filter(|p| s(p, "/spec/nodeName") == node && pods::is_active(p)).cloned().collect();
    for p in here {
        let daemon = arr(&p, "/metadata/ownerReferences").iter().any(|o| s(o, "/kind") == "DaemonSet");
        // Times are written in whole seconds.
        let due = patience(&p["spec"], &unreachable()).is_some_and(|ms| ms <= silent + 1000);
        if due && !daemon {
            drive_off(cx, &p);
        }
    }
}

/// The node is Ready (again): pods that were lost start anew, the others are seen again.
pub fn guest_back(cx: &mut Cx, node: &str) {
    super::pressure::look(cx, node);
    let here: Vec<(String, PodRt)> =
        cx.c.pods.iter().filter(|(_, p)| p.node == node).map(|(u, p)| (u.clone(), p.clone())).collect();
    for (uid, rt) in here {
        let Some(pod) = cx.get("pods", &rt.ns, &rt.name).cloned() else { continue };
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            kubelet::stop(cx, &pod, &uid);
        } else if rt.why == "lost" {
            if let Some(p) = cx.c.pods.get_mut(&uid) {
                p.why.clear();
            }
            began_anew(cx, &rt, &pod);
            kubelet::go(cx, &uid, PodStage::Prepare, 1000);
        } else if rt.stage == PodStage::Ready && !pods::is_ready(&pod) {
            status::edit(cx, &rt.ns, &rt.name, |_| ());
        } else if matches!(rt.stage, PodStage::Prepare | PodStage::Pull(_) | PodStage::Stopping) {
            // its step fell due while the node was silent
            kubelet::go(cx, &uid, rt.stage, 1000);
        } else if rt.stage != PodStage::Done {
            containers::resume(cx, &uid, &pod);
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

/// What ran when the node went down has ended, nobody knows how.
fn began_anew(cx: &mut Cx, rt: &PodRt, pod: &Value) {
    let names = |at: &str| -> Vec<String> { arr(pod, at).iter().map(|c| s(c, "/name").to_owned()).collect() };
    let (inits, mains) = (names("/spec/initContainers"), names("/spec/containers"));
    status::edit(cx, &rt.ns, &rt.name, |e| {
        for name in inits.iter().chain(&mains) {
            e.end(name, 255);
        }
        inits.iter().for_each(|name| e.wait(name, "PodInitializing", ""));
        mains
            .iter()
            .for_each(|name| e.wait(name, if inits.is_empty() { "ContainerCreating" } else { "PodInitializing" }, ""));
    });
}

/// Taints that pods are driven off by after the node has been silent for long enough.
const SILENCE: &[&str] = &["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"];

/// A node's taints changed: pods that do not tolerate one that drives them off go, at once or when their time is over.
pub fn tainted(cx: &mut Cx, node: &str) {
    let Some(n) = cx.get("nodes", "", node).cloned() else { return };
    let drives = |t: &&Value| s(t, "/effect") == "NoExecute" && !SILENCE.contains(&s(t, "/key"));
    let taints: Vec<&Value> = arr(&n, "/spec/taints").iter().filter(drives).collect();
    let mark = format!("taint/{node}/");
    if taints.is_empty() {
        cx.c.apps.retain(|k, _| !k.starts_with(&mark));
        return;
    }
    let here: Vec<Value> = cx
        .list("pods")
        .into_iter()
        .filter(|p| s(p, "/spec/nodeName") == node && p["metadata"]["deletionTimestamp"].is_null())
        .cloned()
        .collect();
    for p in here {
        let now = cx.now();
        let Some(least) = taints.iter().filter_map(|t| patience(&p["spec"], t)).min() else { continue };
        let mark = format!("{mark}{}", s(&p, "/metadata/uid"));
        let due = cx.c.apps.entry(mark).or_insert_with(|| (now + least).into()).as_u64().unwrap_or(now);
        match due.saturating_sub(now) {
            0 => drive_off(cx, &p),
            ms => cx.look_within(ms, ("nodes", "", node)),
        }
    }
}

/// How many milliseconds a pod tolerates a taint for; none: for ever. The toleration that bears least decides.
fn patience(spec: &Value, taint: &Value) -> Option<u64> {
    let bears = |t: &&Value| scheduler::tolerates(&serde_json::json!({"tolerations": [t]}), taint);
    let borne: Vec<&Value> = arr(spec, "/tolerations").iter().filter(bears).collect();
    if borne.is_empty() {
        return Some(0);
    }
    let least = borne.iter().filter_map(|t| t["tolerationSeconds"].as_i64()).min()?;
    Some(u64::try_from(least).unwrap_or(0) * 1000)
}

/// How long a node may be missing until its pods are collected, in milliseconds: 40 s, and the collector's own pause.
/// Grade: source (gc_controller.go).
const MISSING: u64 = 60_000;

/// What is looked at again then: a look of its own, as others at the node come sooner.
pub const GONE: &str = "nodes that are gone";

/// Pods are bound to a node that is not there: the collector of pods looks again later.
pub fn missing(cx: &mut Cx, node: &str) {
    cx.look_within(MISSING, (GONE, "", node));
}

/// The pods of a node that is still missing have failed, and go without its kubelet.
pub fn collect(cx: &mut Cx, node: &str) {
    if cx.get("nodes", "", node).is_some() {
        return;
    }
    let stamp = cx.stamp();
    let here: Vec<Value> = cx.list("pods").into_iter().filter(|p| s(p, "/spec/nodeName") == node).cloned().collect();
    for p in here {
        let (ns, name) = key(&p);
        if !pods::has_ended(&p) {
            cx.update("pods", &ns, &name, |p| {
                pods::disrupted(p, &stamp, "DeletionByPodGC", "PodGC: node no longer exists");
                p["status"]["phase"] = "Failed".into();
            });
        }
        cx.delete_at_once(&ns, &name);
    }
}

fn drive_off(cx: &mut Cx, p: &Value) {
    let (ns, name) = key(p);
    let stamp = cx.stamp();
    let text = format!("Marking for deletion Pod {ns}/{name}");
    cx.event(p, true, "TaintManagerEviction", &text, "taint-eviction-controller");
    let why = "Taint manager: deleting due to NoExecute taint";
    cx.update("pods", &ns, &name, |p| {
        pods::disrupted(p, &stamp, "DeletionByTaintManager", why);
    });
    cx.delete("pods", &ns, &name);
}
