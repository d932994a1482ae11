//! Kubelets: what happens to a pod after it has a node, step by step in lab time.
use serde_json::Value;

use super::super::KubeEvent;
use super::super::cx::{Cx, is_true, key, set_condition};
use super::super::state::{PodRt, PodStage};
use super::super::text::{arr, s};
use super::behaviour::{self, Run};
use super::status::{self, Container, View};
use super::{claims, effects, images, pods, shell};

/// A pod appeared, got a node, or is being deleted.
pub fn look(cx: &mut Cx, ns: &str, name: &str) {
    let Some(pod) = cx.get("pods", ns, name).cloned() else {
        let gone: Vec<String> =
            cx.c.pods.iter().filter(|(_, p)| p.ns == ns && p.name == name).map(|(u, _)| u.clone()).collect();
        for uid in gone {
            if let Some(rt) = cx.c.pods.remove(&uid) {
                effects::gone(cx, &rt);
            }
        }
        return;
    };
    let uid = s(&pod, "/metadata/uid").to_owned();
    let node = s(&pod, "/spec/nodeName").to_owned();
    let stale: Vec<String> =
        cx.c.pods.iter().filter(|(u, p)| p.ns == ns && p.name == name && **u != uid).map(|(u, _)| u.clone()).collect();
    for u in stale {
        cx.c.pods.remove(&u);
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return stop(cx, &pod, &uid);
    }
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
            restarts: 0,
            logs: std::collections::BTreeMap::new(),
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

/// Leaves the pod waiting for something outside; says why once.
fn block(cx: &mut Cx, uid: &str, pod: &Value, reason: &str, text: &str) {
    let Some(rt) = cx.c.pods.get_mut(uid) else { return };
    rt.blocked = true;
    if rt.why == text {
        return;
    }
    text.clone_into(&mut rt.why);
    if !reason.is_empty() {
        cx.event(pod, false, reason, text, "kubelet");
    }
}

/// Pods that wait for something outside try again; called when anything has changed.
pub fn retry_blocked(cx: &mut Cx) {
    let blocked: Vec<String> = cx.c.pods.iter().filter(|(_, p)| p.blocked).map(|(u, _)| u.clone()).collect();
    for uid in blocked {
        advance(cx, &uid);
    }
}

/// A step of the pod is due.
pub fn step(cx: &mut Cx, uid: &str, step: u64) {
    if cx.c.pods.get(uid).is_some_and(|p| p.step == step) {
        advance(cx, uid);
    }
}

fn advance(cx: &mut Cx, uid: &str) {
    let Some(rt) = cx.c.pods.get(uid).cloned() else { return };
    let Some(pod) = cx.get("pods", &rt.ns, &rt.name).cloned() else {
        cx.c.pods.remove(uid);
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

/// Secrets and ConfigMaps that volumes and environment need.
fn references(cx: &Cx, pod: &Value) -> Result<(), (&'static str, String)> {
    let ns = s(pod, "/metadata/namespace");
    for v in arr(pod, "/spec/volumes") {
        for (field, key, resource, word) in
            [("secret", "secretName", "secrets", "secret"), ("configMap", "name", "configmaps", "configmap")]
        {
            let r = &v[field];
            let name = r[key].as_str().unwrap_or("");
            if r.is_object() && r["optional"] != true && cx.get(resource, ns, name).is_none() {
                let text =
                    format!("MountVolume.SetUp failed for volume \"{}\" : {word} \"{name}\" not found", s(v, "/name"));
                return Err(("FailedMount", text));
            }
        }
    }
    for c in arr(pod, "/spec/initContainers").iter().chain(arr(pod, "/spec/containers")) {
        for e in arr(c, "/env") {
            for (field, resource, word) in
                [("secretKeyRef", "secrets", "secret"), ("configMapKeyRef", "configmaps", "configmap")]
            {
                let r = &e["valueFrom"][field];
                if r.is_object() && r["optional"] != true && cx.get(resource, ns, s(r, "/name")).is_none() {
                    return Err(("Failed", format!("Error: {word} \"{}\" not found", s(r, "/name"))));
                }
            }
        }
    }
    Ok(())
}

/// Whether the node's container runtime has the handler of the pod's RuntimeClass.
fn runtime(cx: &Cx, pod: &Value, node: &str) -> Result<(), String> {
    let class = s(pod, "/spec/runtimeClassName");
    if class.is_empty() {
        return Ok(());
    }
    let Some(rc) = cx.get("runtimeclasses.node.k8s.io", "", class) else {
        return Err(format!("failed to get sandbox runtime: RuntimeClass \"{class}\" not found"));
    };
    let handler = s(rc, "/handler");
    let known = handler == "runc" || cx.c.nodes.get(node).is_some_and(|n| n.runtimes.iter().any(|r| r == handler));
    if known {
        return Ok(());
    }
    Err(format!(
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for \"{handler}\" is configured"
    ))
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
        cx.event(pod, true, "Created", &format!("Created container: {name}"), "kubelet");
        cx.event(pod, true, "Started", &format!("Started container {name}"), "kubelet");
    }
    if i < inits {
        show(cx, uid, "Pending", i, Container::Running, Container::waiting("PodInitializing"), false);
        start(cx, uid, rt, pod, &now[0], Some(i));
    } else {
        show(cx, uid, "Running", inits, Container::Running, Container::Running, false);
        start_main(cx, uid, rt, pod, &now);
    }
}

fn start(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, c: &Value, init: Option<usize>) {
    let run = behaviour::run_of(cx, pod, c, &rt.node);
    let Some(i) = init else { return };
    act(cx, uid, pod, s(c, "/name"), run, PodStage::Init(i));
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
            replace(cx, uid, container, &log);
            if let Some(rt) = cx.c.pods.get_mut(uid) {
                rt.stage = stage;
            }
            block(cx, uid, pod, "", &log);
        }
        Run::Crash { log } => crash(cx, uid, pod, container, &log, 1),
        Run::Shell(script) => {
            if let Some(rt) = cx.c.pods.get_mut(uid) {
                rt.stage = stage;
                rt.blocked = false;
                rt.step += 1;
            }
            shell::start(cx, uid, pod, container, script);
        }
    }
}

fn start_main(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, now: &[Value]) {
    for c in now {
        let run = behaviour::run_of(cx, pod, c, &rt.node);
        let name = s(c, "/name").to_owned();
        // The container that decides is the first; sidecars only log.
        if std::ptr::eq(c, &raw const now[0]) || matches!(run, Run::Crash { .. } | Run::Wait { .. }) {
            let decided = !matches!(run, Run::Forever { .. });
            act(cx, uid, pod, &name, run, PodStage::Running);
            if decided {
                return;
            }
        } else if let Run::Forever { log, .. } = run {
            append(cx, uid, &name, &log);
        }
    }
}

/// An init container has run for as long as it takes, or what it waits for may have come.
fn init_step(cx: &mut Cx, uid: &str, rt: &PodRt, pod: &Value, i: usize) {
    let (inits, all) = containers(pod);
    let c = all[i].clone();
    let name = s(&c, "/name").to_owned();
    match behaviour::run_of(cx, pod, &c, &rt.node) {
        Run::Wait { log } => {
            replace(cx, uid, &name, &log);
            block(cx, uid, pod, "", &log);
        }
        Run::Crash { log } => crash(cx, uid, pod, &name, &log, 1),
        Run::Exit { code, log, .. } if code != 0 => crash(cx, uid, pod, &name, &log, code),
        Run::Exit { log, .. } | Run::Forever { log, .. } => {
            append(cx, uid, &name, &log);
            let waits = Container::waiting("PodInitializing");
            let next = if i + 1 < inits { waits.clone() } else { Container::Running };
            show(cx, uid, "Pending", i + 1, next, waits, false);
            pull(cx, uid, rt, pod, i + 1);
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
            replace(cx, uid, &name, &log);
            block(cx, uid, pod, "", &log);
        }
        Run::Crash { log } => crash(cx, uid, pod, &name, &log, 1),
        Run::Exit { code, log, .. } => ended(cx, uid, pod, &name, code, &log),
        Run::Forever { .. } => ready(cx, uid, pod),
        Run::Shell(_) => {}
    }
}

/// The main container ended.
pub fn ended(cx: &mut Cx, uid: &str, pod: &Value, container: &str, code: i64, log: &str) {
    append(cx, uid, container, log);
    let policy = pods::restart_policy(pod);
    if policy == "Always" || (policy == "OnFailure" && code != 0) {
        return crash(cx, uid, pod, container, "", code);
    }
    if let Some(rt) = cx.c.pods.get_mut(uid) {
        rt.stage = PodStage::Done;
        rt.blocked = false;
        rt.step += 1;
    }
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let inits = arr(pod, "/spec/initContainers").len();
    show(cx, uid, phase, inits, Container::Ended(0), Container::Ended(code), false);
    effects::done(cx, pod, code);
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
    if restarts <= 8 {
        go(cx, uid, PodStage::BackOff, pause);
    } else if let Some(rt) = cx.c.pods.get_mut(uid) {
        rt.stage = PodStage::BackOff;
        rt.blocked = false;
    }
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

fn show(
    cx: &mut Cx,
    uid: &str,
    phase: &'static str,
    inits_done: usize,
    init: Container,
    main: Container,
    is_ready: bool,
) {
    let Some(rt) = cx.c.pods.get(uid) else { return };
    let (ns, name, restarts) = (rt.ns.clone(), rt.name.clone(), rt.restarts);
    status::write(cx, &ns, &name, &View { phase, inits_done, init, main, ready: is_ready, restarts });
}

/// Adds to a container's log.
pub fn append(cx: &mut Cx, uid: &str, container: &str, log: &str) {
    if log.is_empty() {
        return;
    }
    if let Some(rt) = cx.c.pods.get_mut(uid) {
        let all = rt.logs.entry(container.to_owned()).or_default();
        all.push_str(log);
        if !log.ends_with('\n') {
            all.push('\n');
        }
    }
}

fn replace(cx: &mut Cx, uid: &str, container: &str, log: &str) {
    if let Some(rt) = cx.c.pods.get_mut(uid) {
        rt.logs.insert(container.to_owned(), format!("{log}\n"));
    }
}

/// The pod is being deleted: its node ends it, unless the node is silent.
fn stop(cx: &mut Cx, pod: &Value, uid: &str) {
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
    for rt in cx.c.pods.values_mut().filter(|p| p.node == node) {
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
            stop(cx, &pod, &uid);
        } else if rt.why == "lost" {
            if let Some(p) = cx.c.pods.get_mut(&uid) {
                p.why.clear();
                p.restarts += 1;
            }
            show(
                cx,
                &uid,
                "Running",
                0,
                Container::waiting("PodInitializing"),
                Container::waiting("ContainerCreating"),
                false,
            );
            go(cx, &uid, PodStage::Prepare, 1000);
        } else if rt.stage == PodStage::Ready && !pods::is_ready(&pod) {
            let inits = arr(&pod, "/spec/initContainers").len();
            show(cx, &uid, "Running", inits, Container::Ended(0), Container::Running, true);
        } else if !matches!(rt.stage, PodStage::Ready | PodStage::Done) {
            // its step fell due while the node was silent
            go(cx, &uid, rt.stage, 1000);
        }
    }
    let unknown: Vec<(String, String)> = cx
        .list("pods")
        .into_iter()
        .filter(|p| s(p, "/spec/nodeName") == node && !cx.c.pods.contains_key(s(p, "/metadata/uid")))
        .map(key)
        .collect();
    for (ns, name) in unknown {
        look(cx, &ns, &name);
    }
}
