//! Kubelets: what happens to a pod after it has a node, step by step in lab time.
use std::collections::BTreeSet;

use serde_json::Value;

use super::super::KubeEvent;
use super::super::cx::{Cx, key};
use super::super::state::{PodRt, PodStage};
use super::super::text::{arr, s};
use super::needs::{references, runtime};
use super::{claims, containers, effects, ephemeral, images, lifecycle, pulls, status};

pub use super::containers::{ended, out_of_memory, probed, script_ended};
pub use super::lost::{evict, guest_back, guest_gone, node_silent};

/// A pod appeared, got a node, or is being deleted.
pub fn look(cx: &mut Cx, ns: &str, name: &str) {
    let Some(pod) = cx.get("pods", ns, name).cloned() else {
        for (uid, rt) in cx.c.pods.remove_named(ns, name, "") {
            effects::gone(cx, &uid, &rt);
        }
        return;
    };
    let uid = s(&pod, "/metadata/uid").to_owned();
    let node = s(&pod, "/spec/nodeName").to_owned();
    for (u, rt) in cx.c.pods.remove_named(ns, name, &uid) {
        effects::gone(cx, &u, &rt);
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return stop(cx, &pod, &uid);
    }
    ephemeral::start(cx, &pod);
    if cx.c.pods.contains_key(&uid) {
        pulls::changed(cx, &uid, &pod);
        if !arr(&pod, "/spec/readinessGates").is_empty() {
            status::edit(cx, ns, name, |_| ());
        }
    }
    if node.is_empty() || cx.c.pods.contains_key(&uid) || matches!(s(&pod, "/status/phase"), "Succeeded" | "Failed") {
        return;
    }
    if cx.get("nodes", "", &node).is_none() {
        return super::lost::missing(cx, &node);
    }
    cx.c.pods.insert(
        uid.clone(),
        PodRt {
            ns: ns.to_owned(),
            name: name.to_owned(),
            node,
            stage: PodStage::Prepare,
            step: 0,
            blocked: false,
            why: String::new(),
            tries: 0,
            lives: std::collections::BTreeMap::new(),
            log: std::collections::BTreeMap::new(),
            gpus: std::collections::BTreeMap::new(),
        },
    );
    status::edit(cx, ns, name, |_| ());
    if let Some(limit) = pod["spec"]["activeDeadlineSeconds"].as_u64() {
        // its start is written in whole seconds
        cx.look_later(limit * 1000 + 1000, ("pods", ns, name));
    }
    go(cx, &uid, PodStage::Prepare, 300);
}

/// Schedules the pod's next step.
pub fn go(cx: &mut Cx, uid: &str, stage: PodStage, delay_ms: u64) {
    let Some(rt) = cx.c.pods.get_mut(uid) else { return };
    rt.stage = stage;
    rt.blocked = false;
    rt.step += 1;
    let event = KubeEvent::Pod { cluster: cx.c.id.clone(), uid: uid.to_owned(), step: rt.step };
    cx.later(delay_ms, event);
}

/// Leaves the pod waiting for something outside; says why once. What has failed is tried again after a growing
/// pause, whatever else happens meanwhile.
pub(super) fn block(cx: &mut Cx, uid: &str, pod: &Value, reason: &str, text: &str) {
    let Some(rt) = cx.c.pods.get_mut(uid) else { return };
    let waiting = std::mem::replace(&mut rt.blocked, true);
    let known = rt.why == text;
    if known && waiting {
        return;
    }
    let node = rt.node.clone();
    text.clone_into(&mut rt.why);
    rt.tries = if known { rt.tries + 1 } else { 0 };
    if !reason.is_empty() && rt.tries < 12 {
        rt.step += 1;
        let pause = (10_000u64 << rt.tries.min(5)).min(300_000);
        let event = KubeEvent::Pod { cluster: cx.c.id.clone(), uid: uid.to_owned(), step: rt.step };
        cx.later(pause, event);
    }
    cx.c.pods.block(&node, uid);
    if !reason.is_empty() {
        cx.event(pod, false, reason, text, "kubelet");
    }
}

/// How long blocked pods wait at most before all of them try again, in milliseconds.
const PATIENCE: u64 = 2000;

/// What has changed, as far as it decides which blocked pods try again.
#[derive(Debug, Default)]
pub struct Touched {
    /// Nodes that changed, or on which pods did.
    pub nodes: BTreeSet<String>,
    /// Namespaces in which objects came or went.
    pub spaces: BTreeSet<String>,
    /// Something that may concern any pod.
    pub wide: bool,
}

/// Pods that wait for something outside try again: those it concerns at once, the others before long.
pub fn retry_blocked(cx: &mut Cx, touched: &Touched) {
    let now = cx.now();
    let Some(pause) = cx.c.pods.untried(now) else { return };
    let blocked = if touched.wide || pause >= PATIENCE {
        cx.c.pods.all_blocked(now)
    } else {
        if cx.c.pods.is_to_look(now, PATIENCE) {
            cx.look_later(PATIENCE, ("pods", "", ""));
        }
        cx.c.pods.blocked_on(&touched.nodes)
    };
    for uid in blocked {
        advance(cx, &uid);
    }
}

/// A step of the pod is due.
pub fn step(cx: &mut Cx, uid: &str, step: u64) {
    if let Some(rt) = cx.c.pods.get_mut(uid).filter(|p| p.step == step) {
        rt.blocked = false;
        advance(cx, uid);
    }
}

fn advance(cx: &mut Cx, uid: &str) {
    let Some(rt) = cx.c.pods.get(uid).cloned() else { return };
    let Some(pod) = cx.get("pods", &rt.ns, &rt.name).cloned() else {
        if let Some(rt) = cx.c.pods.remove(uid) {
            effects::gone(cx, uid, &rt);
        }
        return;
    };
    if !cx.c.nodes.get(&rt.node).is_some_and(|n| n.posting) && rt.stage != PodStage::Stopping {
        return;
    }
    match rt.stage {
        PodStage::Prepare => prepare(cx, uid, &rt, &pod),
        PodStage::Pull(i) => pulled(cx, uid, &rt, &pod, i),
        PodStage::Init(_) | PodStage::Running | PodStage::Ready => containers::retry(cx, uid),
        PodStage::Stopping => stopped(cx, uid, &pod),
        PodStage::Done => {}
    }
}

/// The containers of a pod that is being deleted have ended: it goes, unless somebody still holds it.
fn stopped(cx: &mut Cx, uid: &str, pod: &Value) {
    let (ns, name) = key(pod);
    if arr(pod, "/metadata/finalizers").is_empty() {
        return cx.remove("pods", &ns, &name);
    }
    let running: Vec<(String, i64)> = status::statuses(pod)
        .filter(|st| st["state"]["running"].is_object())
        .map(|st| (s(st, "/name").to_owned(), if images::web(s(st, "/image")) { 0 } else { 137 }))
        .collect();
    status::edit(cx, &ns, &name, |e| running.iter().for_each(|(c, code)| e.end(c, *code)));
    stay(cx, uid, PodStage::Done);
    cx.delete_at_once(&ns, &name);
}

/// Volumes, referenced objects, runtime class; then the first image.
fn prepare(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value) {
    if let Err((reason, text)) = claims::mountable(cx, pod, &rt.node).and_then(|()| references(cx, pod)) {
        return block(cx, uid, pod, reason, &text);
    }
    if let Err(text) = runtime(cx, pod, &rt.node) {
        return block(cx, uid, pod, "FailedCreatePodSandBox", &text);
    }
    if let Some(rt) = cx.c.pods.get_mut(uid) {
        rt.why.clear();
    }
    let (inits, all) = listed(pod);
    let past = |c: &&Value| status::of(pod, s(c, "/name")).is_some_and(|st| status::is_past(c, st));
    pull(cx, uid, rt, pod, all[..inits].iter().take_while(|c| past(c)).count());
}

/// Number of init containers, and all containers.
fn listed(pod: &Value) -> (usize, Vec<&Value>) {
    let inits = arr(pod, "/spec/initContainers");
    (inits.len(), inits.iter().chain(arr(pod, "/spec/containers")).collect())
}

/// Pulls the image of init container `i`, or the images of all main containers.
fn pull(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, i: usize) {
    let (inits, all) = listed(pod);
    let now: Vec<&Value> = if i < inits { all[i..=i].to_vec() } else { all[inits..].to_vec() };
    let (mut delay, mut there) = (200, 0);
    for c in now {
        if !pulls::has_image(cx, uid, pod, c, &rt.node) {
            continue;
        }
        there += 1;
        if pulls::pulling(cx, pod, c, &rt.node) {
            delay += line_ms(s(c, "/image"));
        }
    }
    let stage = if i < inits { PodStage::Init(i) } else { PodStage::Running };
    match there {
        0 => stay(cx, uid, stage),
        _ => go(cx, uid, PodStage::Pull(i), delay),
    }
}

/// A gigabit line and unpacking: about 40 MiB a second.
fn line_ms(image: &str) -> u64 {
    images::mib(image) * 25 + 800
}

/// The pod is at a stage, and its containers do the rest.
fn stay(cx: &mut Cx, uid: &str, stage: PodStage) {
    if let Some(rt) = cx.c.pods.get_mut(uid) {
        rt.stage = stage;
        rt.blocked = false;
        rt.step += 1;
    }
}

fn pulled(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, i: usize) {
    let (inits, all) = listed(pod);
    let now = if i < inits { &all[i..=i] } else { &all[inits..] };
    let there: Vec<Value> =
        now.iter().filter(|c| rt.lives.get(s(c, "/name")).is_none_or(|l| l.pulls == 0)).map(|c| (*c).clone()).collect();
    for c in &there {
        pulls::pulled(cx, pod, c, &rt.node, line_ms(s(c, "/image")));
    }
    stay(cx, uid, if i < inits { PodStage::Init(i) } else { PodStage::Running });
    containers::start(cx, uid, pod, &there, &rt.node);
}

/// Init container `i` no longer holds up the next one.
pub(super) fn next_init(cx: &mut Cx, uid: &str, pod: &Value, i: usize) {
    if let Some(rt) = cx.c.pods.get(uid).cloned() {
        pull(cx, uid, &rt, pod, i + 1);
    }
}

/// The pod is being deleted: its node ends it, unless the node is silent.
pub(super) fn stop(cx: &mut Cx, pod: &Value, uid: &str) {
    let node = s(pod, "/spec/nodeName").to_owned();
    let known = cx.c.nodes.get(&node);
    if known.is_none() && cx.get("nodes", "", &node).is_none() {
        let (ns, name) = key(pod);
        cx.remove("pods", &ns, &name);
        return;
    }
    if !known.is_some_and(|n| n.posting) {
        return;
    }
    if !cx.c.pods.contains_key(uid) {
        let (ns, name) = key(pod);
        cx.remove("pods", &ns, &name);
        return;
    }
    if cx.c.pods.get(uid).is_some_and(|p| p.stage == PodStage::Stopping) {
        return;
    }
    for st in status::statuses(pod).filter(|st| st["state"]["running"].is_object()) {
        cx.container_event(pod, s(st, "/name"), true, "Killing", &format!("Stopping container {}", s(st, "/name")));
    }
    let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(30) * 1000;
    let took = lifecycle::ending(cx, pod, grace);
    go(cx, uid, PodStage::Stopping, took);
}
