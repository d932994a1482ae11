//! Kubelets: what happens to a pod after it has a node, step by step in lab time.
use std::collections::BTreeSet;

use serde_json::Value;

use super::super::KubeEvent;
use super::super::cx::{Cx, key};
use super::super::state::{PodRt, PodStage};
use super::super::text::{arr, s};
use super::behaviour::{self, Run};
use super::logs::{append, repeat, rotate};
use super::needs::{references, runtime};
use super::status::{self, Container, View};
use super::{claims, effects, ephemeral, images, pods, shell};

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
    if node.is_empty() || cx.c.pods.contains_key(&uid) || matches!(s(&pod, "/status/phase"), "Succeeded" | "Failed") {
        return;
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
            restarts: 0,
            finished: std::collections::BTreeMap::new(),
            log: std::collections::BTreeMap::new(),
        },
    );
    let waits = if arr(&pod, "/spec/initContainers").is_empty() { "ContainerCreating" } else { "PodInitializing" };
    show(cx, &uid, "Pending", 0, Container::waiting("PodInitializing"), Container::waiting(waits), false);
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
fn block(cx: &mut Cx, uid: &str, pod: &Value, reason: &str, text: &str) {
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
            let (cluster, resource) = (cx.c.id.clone(), "pods".to_owned());
            cx.later(PATIENCE, KubeEvent::Look { cluster, resource, ns: String::new(), name: String::new() });
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
        PodStage::Prepare | PodStage::BackOff => prepare(cx, uid, &rt, &pod),
        PodStage::Pull(i) => pulled(cx, uid, &rt, &pod, i),
        PodStage::Init(i) => init_step(cx, uid, &rt, &pod, i),
        PodStage::Running => main_step(cx, uid, &rt, &pod),
        PodStage::Stopping => {
            cx.remove("pods", &rt.ns, &rt.name);
        }
        PodStage::Ready | PodStage::Done => {}
    }
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
    pull(cx, uid, rt, pod, 0);
}

fn containers(pod: &Value) -> (usize, Vec<&Value>) {
    let inits = arr(pod, "/spec/initContainers");
    (inits.len(), inits.iter().chain(arr(pod, "/spec/containers")).collect())
}

/// Pulls the image of init container `i`, or the images of all main containers.
fn pull(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, i: usize) {
    let (inits, all) = containers(pod);
    let now: Vec<&Value> = if i < inits { all[i..=i].to_vec() } else { all[inits..].to_vec() };
    let mut delay = 200;
    for c in now {
        let image = s(c, "/image");
        if let Some(text) = images::missing(image) {
            let waiting = Container::Waiting(
                "ImagePullBackOff".into(),
                format!("Back-off pulling image \"{image}\": ErrImagePull: {text}"),
            );
            if i < inits {
                show(cx, uid, "Pending", i, waiting, Container::waiting("PodInitializing"), false);
            } else {
                show(cx, uid, "Pending", inits, Container::Running, waiting, false);
            }
            return block(
                cx,
                uid,
                pod,
                "Failed",
                &format!("Failed to pull image \"{image}\": rpc error: code = NotFound desc = {text}"),
            );
        }
        let present = cx.node_rt(&rt.node).images.contains(image);
        if !present {
            cx.event(pod, true, "Pulling", &format!("Pulling image \"{image}\""), "kubelet");
            // A gigabit line and unpacking: about 40 MiB a second.
            delay += images::mib(image) * 25 + 800;
        }
    }
    go(cx, uid, PodStage::Pull(i), delay);
}

fn pulled(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, i: usize) {
    let (inits, all) = containers(pod);
    let now: Vec<Value> =
        if i < inits { vec![all[i].clone()] } else { all[inits..].iter().map(|c| (*c).clone()).collect() };
    for c in &now {
        let image = s(c, "/image").to_owned();
        if cx.node_rt(&rt.node).images.insert(image.clone()) {
            cx.event(pod, true, "Pulled", &format!("Successfully pulled image \"{image}\""), "kubelet");
        } else {
            cx.event(
                pod,
                true,
                "Pulled",
                &format!("Container image \"{image}\" already present on machine"),
                "kubelet",
            );
        }
        let name = s(c, "/name");
        rotate(cx, uid, name);
        cx.lab.kube().containers.end(uid, name);
        cx.event(pod, true, "Created", &format!("Created container: {name}"), "kubelet");
        cx.event(pod, true, "Started", &format!("Started container {name}"), "kubelet");
    }
    if i < inits {
        show(cx, uid, "Pending", i, Container::Running, Container::waiting("PodInitializing"), false);
        start_init(cx, uid, rt, pod, &now[0], i);
    } else {
        show(cx, uid, "Running", inits, Container::Running, Container::Running, false);
        start_main(cx, uid, rt, pod, &now);
    }
}

fn start_init(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, c: &Value, i: usize) {
    let run = behaviour::run_of(cx, pod, c, &rt.node);
    if s(c, "/restartPolicy") == "Always" {
        // A sidecar: the next container starts while it runs on.
        if let Run::Shell(argv) = run {
            shell::start(cx, uid, pod, s(c, "/name"), argv);
        }
        return next_init(cx, uid, rt, pod, i);
    }
    act(cx, uid, pod, s(c, "/name"), run, PodStage::Init(i));
}

/// Init container `i` has ended well.
fn next_init(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, i: usize) {
    let (inits, _) = containers(pod);
    let waits = Container::waiting("PodInitializing");
    let next = if i + 1 < inits { waits.clone() } else { Container::Running };
    show(cx, uid, "Pending", i + 1, next, waits, false);
    pull(cx, uid, rt, pod, i + 1);
}

/// Lets a container run as `run` says, on the way to `stage`.
fn act(cx: &mut Cx, uid: &str, pod: &Value, container: &str, run: Run, stage: PodStage) {
    match run {
        Run::Forever { ready_ms, log } => {
            append(cx, uid, container, &log);
            go(cx, uid, stage, ready_ms);
        }
        Run::Exit { after_ms, .. } => go(cx, uid, stage, after_ms),
        Run::Wait { log } => {
            repeat(cx, uid, container, &log);
            if let Some(rt) = cx.c.pods.get_mut(uid) {
                rt.stage = stage;
            }
            block(cx, uid, pod, "", &log);
        }
        Run::Crash { log } => crash(cx, uid, pod, container, &log, 1),
        Run::Shell(argv) => {
            if stage == PodStage::Running {
                // It runs and is ready unless a probe says otherwise; its end comes by itself.
                go(cx, uid, stage, 300 + behaviour::probe_delay(pod));
            } else if let Some(rt) = cx.c.pods.get_mut(uid) {
                rt.stage = stage;
                rt.blocked = false;
                rt.step += 1;
            }
            shell::start(cx, uid, pod, container, argv);
        }
    }
}

fn start_main(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, now: &[Value]) {
    for c in now {
        let run = behaviour::run_of(cx, pod, c, &rt.node);
        let name = s(c, "/name").to_owned();
        // The container that decides is the first; sidecars only log.
        if std::ptr::eq(c, &raw const now[0]) || matches!(run, Run::Crash { .. } | Run::Wait { .. }) {
            let decided = !matches!(run, Run::Forever { .. } | Run::Shell(_) | Run::Exit { .. });
            act(cx, uid, pod, &name, run, PodStage::Running);
            if decided {
                return;
            }
            continue;
        }
        match run {
            Run::Forever { log, .. } => append(cx, uid, &name, &log),
            Run::Shell(argv) => shell::start(cx, uid, pod, &name, argv),
            _ => {}
        }
    }
}

/// An init container has run for as long as it takes, or what it waits for may have come.
fn init_step(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, i: usize) {
    let (_, all) = containers(pod);
    let c = all[i].clone();
    let name = s(&c, "/name").to_owned();
    match behaviour::run_of(cx, pod, &c, &rt.node) {
        Run::Wait { log } => {
            repeat(cx, uid, &name, &log);
            block(cx, uid, pod, "", &log);
        }
        Run::Crash { log } => crash(cx, uid, pod, &name, &log, 1),
        Run::Exit { code, log, .. } if code != 0 => crash(cx, uid, pod, &name, &log, code),
        Run::Exit { log, .. } | Run::Forever { log, .. } => {
            append(cx, uid, &name, &log);
            next_init(cx, uid, rt, pod, i);
        }
        Run::Shell(_) => {}
    }
}

/// The main containers have run for as long as it takes to be ready, or to end.
fn main_step(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value) {
    let (inits, all) = containers(pod);
    let mains: Vec<Value> = all[inits..].iter().map(|c| (*c).clone()).collect();
    let Some(first) = mains.first() else { return };
    let name = s(first, "/name").to_owned();
    match behaviour::run_of(cx, pod, first, &rt.node) {
        Run::Wait { log } => {
            repeat(cx, uid, &name, &log);
            block(cx, uid, pod, "", &log);
        }
        Run::Crash { log } => crash(cx, uid, pod, &name, &log, 1),
        Run::Exit { code, log, .. } => ended(cx, uid, pod, &name, code, &log),
        Run::Forever { .. } | Run::Shell(_) => match behaviour::exec_probe(pod) {
            Some((container, argv, period)) => shell::probe(cx, uid, pod, &container, argv, period),
            None => ready(cx, uid, pod),
        },
    }
}

/// The readiness probe of a pod that runs has been answered.
pub fn probed(cx: &mut Cx, uid: &str, good: bool, period_ms: u64, text: &str) {
    let Some(rt) = cx.c.pods.get(uid).cloned().filter(|rt| rt.stage == PodStage::Running) else { return };
    let Some(pod) = cx.get("pods", &rt.ns, &rt.name).cloned() else { return };
    if good {
        return ready(cx, uid, &pod);
    }
    cx.event(&pod, false, "Unhealthy", &format!("Readiness probe failed: {text}"), "kubelet");
    go(cx, uid, PodStage::Running, period_ms);
}

/// The script of a container has ended by itself.
pub fn script_ended(cx: &mut Cx, uid: &str, container: &str, code: i64) {
    let Some(rt) = cx.c.pods.get(uid).cloned() else { return };
    if matches!(rt.stage, PodStage::Done | PodStage::Stopping) {
        return;
    }
    let Some(pod) = cx.get("pods", &rt.ns, &rt.name).cloned() else { return };
    if ephemeral::ended(cx, &pod, container, code) {
        return;
    }
    match arr(&pod, "/spec/initContainers").iter().position(|c| s(c, "/name") == container) {
        Some(i) if rt.stage == PodStage::Init(i) && code == 0 => next_init(cx, uid, &rt, &pod, i),
        Some(i) if rt.stage == PodStage::Init(i) => crash(cx, uid, &pod, container, "", code),
        Some(_) => {}
        None => ended(cx, uid, &pod, container, code, ""),
    }
}

/// The main container ended.
pub fn ended(cx: &mut Cx, uid: &str, pod: &Value, container: &str, code: i64, log: &str) {
    append(cx, uid, container, log);
    let policy = pods::restart_policy(pod);
    if policy == "Always" || (policy == "OnFailure" && code != 0) {
        return crash(cx, uid, pod, container, "", code);
    }
    let Some(rt) = cx.c.pods.get_mut(uid) else { return };
    rt.finished.insert(container.to_owned(), code);
    let mains = arr(pod, "/spec/containers");
    let inits = arr(pod, "/spec/initContainers").len();
    if mains.iter().any(|c| !rt.finished.contains_key(s(c, "/name"))) {
        return show(cx, uid, "Running", inits, Container::Ended(0), Container::Running, false);
    }
    let worst = rt.finished.values().copied().find(|c| *c != 0).unwrap_or(0);
    rt.stage = PodStage::Done;
    rt.blocked = false;
    rt.step += 1;
    let phase = if worst == 0 { "Succeeded" } else { "Failed" };
    show(cx, uid, phase, inits, Container::Ended(0), Container::Ended(code), false);
    effects::done(cx, pod, worst);
}

/// A container failed and is started again after a growing pause (for a while), or when something changes.
fn crash(cx: &mut Cx, uid: &str, pod: &Value, container: &str, log: &str, code: i64) {
    append(cx, uid, container, log);
    let inits = arr(pod, "/spec/initContainers");
    let at = inits.iter().position(|c| s(c, "/name") == container);
    if pods::restart_policy(pod) == "Never" {
        if let Some(rt) = cx.c.pods.get_mut(uid) {
            rt.stage = PodStage::Done;
            rt.step += 1;
        }
        let (done, init, main) = match at {
            Some(i) => (i, Container::Ended(code), Container::waiting("PodInitializing")),
            None => (inits.len(), Container::Ended(0), Container::Ended(code)),
        };
        show(cx, uid, "Failed", done, init, main, false);
        effects::done(cx, pod, code);
        return;
    }
    let Some(rt) = cx.c.pods.get_mut(uid) else { return };
    rt.restarts += 1;
    let restarts = rt.restarts;
    let pause = (10_000u64 << restarts.saturating_sub(1).min(5)).min(300_000);
    let text = format!(
        "back-off {}s restarting failed container={container} pod={}_{}",
        pause / 1000,
        s(pod, "/metadata/name"),
        s(pod, "/metadata/namespace")
    );
    let waiting = Container::Waiting("CrashLoopBackOff".into(), text.clone());
    match at {
        Some(i) => {
            show(cx, uid, "Pending", i, Container::Ended(code), Container::waiting("PodInitializing"), false);
            show(cx, uid, "Pending", i, waiting, Container::waiting("PodInitializing"), false);
        }
        None => {
            show(cx, uid, "Running", inits.len(), Container::Ended(0), Container::Ended(code), false);
            show(cx, uid, "Running", inits.len(), Container::Ended(0), waiting, false);
        }
    }
    cx.event(
        pod,
        false,
        "BackOff",
        &format!("Back-off restarting failed container {container} in pod {}", s(pod, "/metadata/name")),
        "kubelet",
    );
    go(cx, uid, PodStage::BackOff, pause);
}

fn ready(cx: &mut Cx, uid: &str, pod: &Value) {
    if let Some(rt) = cx.c.pods.get_mut(uid) {
        rt.stage = PodStage::Ready;
        rt.blocked = false;
    }
    let inits = arr(pod, "/spec/initContainers").len();
    show(cx, uid, "Running", inits, Container::Ended(0), Container::Running, true);
    effects::ready(cx, pod);
}

pub(super) fn show(
    cx: &mut Cx,
    uid: &str,
    phase: &'static str,
    inits_done: usize,
    init: Container,
    main: Container,
    is_ready: bool,
) {
    let Some(rt) = cx.c.pods.get(uid) else { return };
    let (ns, name, restarts, finished) = (rt.ns.clone(), rt.name.clone(), rt.restarts, rt.finished.clone());
    status::write(cx, &ns, &name, &View { phase, inits_done, init, main, finished, ready: is_ready, restarts });
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
    cx.event(pod, true, "Killing", &format!("Stopping container {}", s(pod, "/spec/containers/0/name")), "kubelet");
    let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(30) * 1000;
    go(cx, uid, PodStage::Stopping, grace.min(1500));
}
