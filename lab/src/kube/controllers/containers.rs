//! The life of a pod's containers, each by itself: it is started, comes up, is probed, ends and is started again after a
//! growing pause. Grade: source (pkg/kubelet/kuberuntime, pkg/kubelet/images and pkg/kubelet/prober of kubernetes).
use bashkit::FileSystem as _;
use futures::FutureExt as _;
use serde_json::Value;

use super::super::KubeEvent;
use super::super::container::{self, spec};
use super::super::cx::{Cx, key};
use super::super::state::{Due, Life, PodStage, Probe};
use super::super::store::meta::parse_time;
use super::super::text::{arr, s};
use super::behaviour::{self, Run};
use super::logs::{append, repeat, rotate};
use super::probes::{self, Verdict};
use super::pulls::{pull, pulled};
use super::status::{self, End, is_sidecar};
use super::{effects, images, kubelet, lifecycle, needs, pods, pulls, shell};
use crate::kube::k3s::node::minor;

/// The longest pause before a container is started again, and how long it has to run for the pause to be short again.
const LONGEST_MS: u64 = 300_000;
const FRESH_MS: u64 = 600_000;

/// Place of an init container; none for a main one.
fn init(pod: &Value, name: &str) -> Option<usize> {
    arr(pod, "/spec/initContainers").iter().position(|c| s(c, "/name") == name)
}

/// A pod as events name it.
fn formatted(pod: &Value) -> String {
    let m = &pod["metadata"];
    format!("{}_{}({})", s(m, "/name"), s(m, "/namespace"), s(m, "/uid"))
}

pub(super) fn life<'a>(cx: &'a mut Cx, uid: &str, name: &str) -> Option<&'a mut Life> {
    Some(cx.c.pods.get_mut(uid)?.lives.entry(name.to_owned()).or_default())
}

/// The pod and its node, as long as a kubelet looks after its containers.
pub(super) fn held(cx: &Cx, uid: &str) -> Option<(Value, String)> {
    let rt = cx.c.pods.get(uid)?;
    let over = matches!(rt.stage, PodStage::Done | PodStage::Stopping);
    if over || !cx.c.nodes.get(&rt.node).is_some_and(|n| n.posting) {
        return None;
    }
    Some((cx.get("pods", &rt.ns, &rt.name)?.clone(), rt.node.clone()))
}

/// Something falls due for a container, unless it starts or ends before.
pub(super) fn later(cx: &mut Cx, uid: &str, name: &str, due: Due, delay_ms: u64) {
    let Some(run) = life(cx, uid, name).map(|l| l.run) else { return };
    let (cluster, uid, container) = (cx.c.id.clone(), uid.to_owned(), name.to_owned());
    cx.later(delay_ms, KubeEvent::Container { cluster, uid, container, run, due });
}

/// What fell due for a container.
pub fn due(cx: &mut Cx, uid: &str, name: &str, run: u64, due: &Due) {
    if life(cx, uid, name).is_none_or(|l| l.run != run) {
        return;
    }
    let Some((pod, node)) = held(cx, uid) else { return };
    let Some(c) = spec(&pod, name).cloned() else { return };
    match due {
        Due::Step => {
            let run = behaviour::run_of(cx, &pod, &c, &node);
            stepped(cx, uid, &pod, &c, run);
        }
        Due::Start => again(cx, uid, &pod, &c, &node),
        Due::BackOff => pulls::backs_off(cx, uid, &pod, &c),
        Due::Pull => pull(cx, uid, &pod, &c, &node),
        Due::Probe(probe) => probe_now(cx, uid, &pod, &c, *probe),
        Due::Kill => {
            stopped(cx, uid, name);
        }
    }
}

/// A container was created or started, in the words of the minor.
pub(super) fn told(cx: &mut Cx, pod: &Value, name: &str, what: &str) {
    let text = match (minor(&cx.c.version), what) {
        (35.., _) => format!("Container {}", what.to_lowercase()),
        (_, "Created") => format!("Created container: {name}"),
        _ => format!("{what} container {name}"),
    };
    cx.container_event(pod, name, true, what, &text);
}

/// Starts containers whose images are there.
pub(super) fn start(cx: &mut Cx, uid: &str, pod: &Value, list: &[Value], node: &str) {
    let (ns, pod_name) = key(pod);
    let (mut going, mut stuck, mut unstarted) = (Vec::new(), Vec::new(), Vec::new());
    for c in list {
        let name = s(c, "/name");
        let why = needs::configuration(cx, pod, c).err();
        let now = cx.now();
        if let Some(l) = life(cx, uid, name) {
            l.run += 1;
            l.failures = (0, 0);
            (l.pulls, l.waits, l.since_ms) = (0, why.is_some(), now);
            s(c, "/image").clone_into(&mut l.image);
        }
        match why {
            Some(why) => stuck.push((name, why)),
            None => {
                rotate(cx, uid, name);
                cx.lab.kube().containers.end(uid, name);
                told(cx, pod, name, "Created");
                let run = behaviour::run_of(cx, pod, c, node);
                if let Run::Missing(program) = &run {
                    unstarted.push((name, program.clone()));
                    continue;
                }
                told(cx, pod, name, "Started");
                // What ends by itself is ready while it runs; servers take their time.
                let ready = matches!(run, Run::Exit { .. }) && c["readinessProbe"].is_null();
                going.push((c, run, ready));
            }
        }
    }
    status::edit(cx, &ns, &pod_name, |e| {
        going.iter().for_each(|(c, _, ready)| e.run(s(c, "/name"), *ready));
        stuck.iter().for_each(|(name, why)| e.wait(name, "CreateContainerConfigError", why));
    });
    if !stuck.is_empty() {
        let all: Vec<String> = stuck.iter().map(|(_, why)| format!("Error: {why}")).collect();
        kubelet::block(cx, uid, pod, "Failed", &all.join("; "));
    }
    for (name, program) in unstarted {
        let why = unstartable(&program);
        cx.container_event(pod, name, false, "Failed", &format!("Error: {why}"));
        status::edit(cx, &ns, &pod_name, |e| {
            e.run(name, false);
            e.refuse(name, &why);
        });
        ended(cx, uid, pod, name, 128, "");
    }
    // with the address that it has by now
    let Some(pod) = cx.get("pods", &ns, &pod_name).cloned() else { return };
    for (c, run, _) in going {
        let name = s(c, "/name").to_owned();
        let run = match run {
            Run::Shell(_) => Run::Shell(container::argv(cx, &pod, c)),
            other => other,
        };
        act(cx, uid, &pod, c, run);
        lifecycle::started(cx, uid, &pod, c);
        for probe in [Probe::Startup, Probe::Liveness] {
            let p = &c[probe.field()];
            if p.is_object() && (probe == Probe::Startup || c["startupProbe"].is_null()) {
                later(cx, uid, &name, Due::Probe(probe), probes::delay(p).max(100) + probes::period(p));
            }
        }
        if is_sidecar(c) && c["startupProbe"].is_null() {
            past_init(cx, uid, &name);
        }
    }
}

/// What containerd and runc say of a program that an image does not have.
fn unstartable(program: &str) -> String {
    let why = if program.contains('/') {
        format!("stat {program}: no such file or directory")
    } else {
        "executable file not found in $PATH".to_owned()
    };
    format!(
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: \"{program}\": {why}: unknown"
    )
}

/// An init container no longer holds up those after it.
fn past_init(cx: &mut Cx, uid: &str, name: &str) {
    let Some((pod, _)) = held(cx, uid) else { return };
    let Some(i) = init(&pod, name) else { return };
    if cx.c.pods.get(uid).is_some_and(|rt| rt.stage == PodStage::Init(i)) {
        kubelet::next_init(cx, uid, &pod, i);
    }
}

/// Lets a container run as `run` says.
fn act(cx: &mut Cx, uid: &str, pod: &Value, c: &Value, run: Run) {
    let name = s(c, "/name");
    match run {
        Run::Forever { ready_ms, log } => {
            append(cx, uid, name, &log);
            later(cx, uid, name, Due::Step, ready_ms);
        }
        Run::Exit { after_ms, .. } => later(cx, uid, name, Due::Step, after_ms),
        Run::Wait { log } => waits(cx, uid, pod, name, &log),
        Run::Crash { log } => ended(cx, uid, pod, name, 1, &log),
        // It was not started.
        Run::Missing(_) => {}
        Run::Shell(argv) => {
            if init(pod, name).is_none() || is_sidecar(c) {
                // It runs and is ready unless a probe says otherwise; its end comes by itself.
                later(cx, uid, name, Due::Step, 300 + probes::delay(&c["readinessProbe"]));
            }
            shell::start(cx, uid, pod, name, argv);
        }
    }
}

fn waits(cx: &mut Cx, uid: &str, pod: &Value, name: &str, log: &str) {
    repeat(cx, uid, name, log);
    if let Some(l) = life(cx, uid, name) {
        l.waits = true;
    }
    kubelet::block(cx, uid, pod, "", log);
}

/// A container has run for as long as it takes to come up or to end.
fn stepped(cx: &mut Cx, uid: &str, pod: &Value, c: &Value, run: Run) {
    let name = s(c, "/name");
    if let Some(l) = life(cx, uid, name) {
        l.waits = false;
    }
    match run {
        Run::Wait { log } => waits(cx, uid, pod, name, &log),
        Run::Crash { log } => ended(cx, uid, pod, name, 1, &log),
        Run::Exit { code, log, .. } => ended(cx, uid, pod, name, code, &log),
        Run::Forever { log, .. } if init(pod, name).is_some() && !is_sidecar(c) => {
            ended(cx, uid, pod, name, 0, &log);
        }
        Run::Forever { .. } | Run::Shell(_) if c["startupProbe"].is_object() => {}
        Run::Missing(_) => {}
        Run::Forever { .. } | Run::Shell(_) => up(cx, uid, pod, c),
    }
}

/// A container is up: ready, if its readiness probe says so.
fn up(cx: &mut Cx, uid: &str, pod: &Value, c: &Value) {
    if c["readinessProbe"].is_object() {
        probe_now(cx, uid, pod, c, Probe::Readiness);
    } else {
        set_ready(cx, uid, s(c, "/name"), true);
    }
}

/// Containers that wait for something outside look again.
pub(super) fn retry(cx: &mut Cx, uid: &str) {
    let Some((pod, node)) = held(cx, uid) else { return };
    let Some(rt) = cx.c.pods.get(uid) else { return };
    let waiting: Vec<String> = rt.lives.iter().filter(|(_, l)| l.waits).map(|(n, _)| n.clone()).collect();
    for name in waiting {
        let Some(c) = spec(&pod, &name).cloned() else { continue };
        if status::of(&pod, &name).is_some_and(|st| st["state"]["running"].is_object()) {
            let run = behaviour::run_of(cx, &pod, &c, &node);
            stepped(cx, uid, &pod, &c, run);
        } else {
            start(cx, uid, &pod, &[c], &node);
        }
    }
}

/// Containers whose timers ran out while nobody looked after them go on.
pub(super) fn resume(cx: &mut Cx, uid: &str, pod: &Value) {
    for st in status::statuses(pod) {
        let name = s(st, "/name");
        if st["state"]["waiting"].is_object() {
            later(cx, uid, name, Due::Start, 1000);
        } else if st["state"]["running"].is_object() && st["ready"] != true {
            later(cx, uid, name, Due::Step, 1000);
        }
    }
}

fn set_ready(cx: &mut Cx, uid: &str, name: &str, yes: bool) {
    let Some((pod, _)) = held(cx, uid) else { return };
    let (ns, pod_name) = key(&pod);
    status::edit(cx, &ns, &pod_name, |e| e.ready(name, yes));
    past_init(cx, uid, name);
    let Some(pod) = cx.get("pods", &ns, &pod_name).cloned() else { return };
    let (ready, Some(rt)) = (pods::is_ready(&pod), cx.c.pods.get_mut(uid)) else { return };
    match (ready, &rt.stage) {
        (true, PodStage::Running) => {
            rt.stage = PodStage::Ready;
            rt.blocked = false;
            effects::ready(cx, &pod);
        }
        (false, PodStage::Ready) => rt.stage = PodStage::Running,
        _ => {}
    }
}

fn probe_now(cx: &mut Cx, uid: &str, pod: &Value, c: &Value, probe: Probe) {
    let name = s(c, "/name").to_owned();
    let now = cx.now();
    let Some((run, since)) = life(cx, uid, &name).map(|l| (l.run, l.since_ms)) else { return };
    match probes::ask(cx, pod, c, probe, now.saturating_sub(since)) {
        Verdict::Run(argv) => shell::probe(cx, uid, pod, &name, argv, (probe, run)),
        Verdict::Good => probed(cx, uid, &name, (probe, run), Ok(true)),
        Verdict::Bad(why) => probed(cx, uid, &name, (probe, run), Err(why)),
        Verdict::Unknown => probed(cx, uid, &name, (probe, run), Ok(false)),
    }
}

/// A probe has been answered: whether it is asked again, or why it failed.
pub fn probed(cx: &mut Cx, uid: &str, name: &str, (probe, run): (Probe, u64), answer: Result<bool, String>) {
    if life(cx, uid, name).is_none_or(|l| l.run != run) {
        return;
    }
    let Some((pod, _)) = held(cx, uid) else { return };
    let Some(c) = spec(&pod, name).cloned() else { return };
    let p = &c[probe.field()];
    let good = answer.is_ok();
    let failures = life(cx, uid, name).map_or(0, |l| {
        let count = if probe == Probe::Readiness { &mut l.failures.1 } else { &mut l.failures.0 };
        *count = if good { 0 } else { *count + 1 };
        *count
    });
    if let Err(why) = &answer {
        cx.container_event(&pod, name, false, "Unhealthy", &format!("{} probe failed: {why}", probe.word()));
    }
    let over = failures >= probes::threshold(p);
    let was = status::of(&pod, name).is_some_and(|st| st["ready"] == true);
    match probe {
        Probe::Readiness if good && !was => set_ready(cx, uid, name, true),
        Probe::Readiness if over && was => set_ready(cx, uid, name, false),
        Probe::Startup if good => {
            if c["livenessProbe"].is_object() {
                later(cx, uid, name, Due::Probe(Probe::Liveness), probes::period(&c["livenessProbe"]));
            }
            return up(cx, uid, &pod, &c);
        }
        Probe::Liveness | Probe::Startup if over => return kill(cx, uid, &pod, &c, probe),
        _ => {}
    }
    if answer != Ok(false) {
        later(cx, uid, name, Due::Probe(probe), probes::period(p));
    }
}

/// A container whose probe failed too often has its grace period to end.
fn kill(cx: &mut Cx, uid: &str, pod: &Value, c: &Value, probe: Probe) {
    let name = s(c, "/name");
    let word = probe.word().to_lowercase();
    let text = format!("Container {name} failed {word} probe, will be restarted");
    cx.container_event(pod, name, true, "Killing", &text);
    if let Some(l) = life(cx, uid, name) {
        l.run += 1;
    }
    let own = c[probe.field()]["terminationGracePeriodSeconds"].as_u64();
    let grace = own.or(pod["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30);
    later(cx, uid, name, Due::Kill, if images::web(s(c, "/image")) { 500 } else { grace * 1000 });
}

/// The script of a container has ended by itself.
pub fn script_ended(cx: &mut Cx, uid: &str, name: &str, code: i64) {
    let Some(rt) = cx.c.pods.get(uid) else { return };
    let (ns, pod_name) = (rt.ns.clone(), rt.name.clone());
    let Some(pod) = cx.get("pods", &ns, &pod_name).cloned() else { return };
    if super::ephemeral::ended(cx, &pod, name, code) || held(cx, uid).is_none() {
        return;
    }
    ended(cx, uid, &pod, name, code, "");
}

/// The kernel has ended a container that took more memory than it may.
pub fn out_of_memory(cx: &mut Cx, uid: &str, name: &str) {
    // of a pod that is being stopped nobody is told, but what runs in it ends as well
    if let Some((pod, _)) = held(cx, uid)
        && !super::ephemeral::ended(cx, &pod, name, 137)
    {
        ended_as(cx, uid, &pod, name, End { code: 137, out_of_memory: true, ..End::default() });
    }
    cx.lab.kube().containers.end(uid, name);
}

/// A container has been stopped, but not for good.
pub(super) fn stopped(cx: &mut Cx, uid: &str, name: &str) {
    let Some((pod, _)) = held(cx, uid) else { return };
    let code = spec(&pod, name).map_or(137, |c| if images::web(s(c, "/image")) { 0 } else { 137 });
    ended(cx, uid, &pod, name, code, "");
    cx.lab.kube().containers.end(uid, name);
}

/// What a container leaves to say: its file for that, or the end of its log.
fn last_words(cx: &Cx, uid: &str, c: &Value, code: i64) -> String {
    let name = s(c, "/name");
    let path = match s(c, "/terminationMessagePath") {
        "" => "/dev/termination-log",
        path => path,
    };
    // files of a container are in memory: reading them never waits
    let file = cx.lab.kube().containers.files(uid, name);
    let file = file.and_then(|fs| fs.read_file(std::path::Path::new(path)).now_or_never()?.ok()).unwrap_or_default();
    if !file.is_empty() {
        return String::from_utf8_lossy(&file[..file.len().min(4096)]).into_owned();
    }
    if code == 0 || s(c, "/terminationMessagePolicy") != "FallbackToLogsOnError" {
        return String::new();
    }
    let text =
        cx.c.pods.get(uid).and_then(|rt| rt.log.get(name)).map(super::super::state::Log::text).unwrap_or_default();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let tail: String = lines[lines.len().saturating_sub(80)..].concat();
    let from = (tail.len().saturating_sub(2048)..).find(|i| tail.is_char_boundary(*i)).unwrap_or(0);
    tail[from..].to_owned()
}

/// A container has ended.
pub fn ended(cx: &mut Cx, uid: &str, pod: &Value, name: &str, code: i64, log: &str) {
    append(cx, uid, name, log);
    ended_as(cx, uid, pod, name, code.into());
}

fn ended_as(cx: &mut Cx, uid: &str, pod: &Value, name: &str, mut end: End) {
    let code = end.code;
    end.message = spec(pod, name).map(|c| last_words(cx, uid, c, code)).unwrap_or_default();
    let now = cx.now();
    let Some(l) = life(cx, uid, name) else { return };
    l.run += 1;
    l.waits = false;
    if now.saturating_sub(l.since_ms) >= FRESH_MS {
        l.ends = 0;
    }
    let (ns, pod_name) = key(pod);
    let policy = pods::restart_policy(pod);
    let place = init(pod, name);
    let sidecar = spec(pod, name).is_some_and(is_sidecar) && place.is_some();
    let again = match (place, policy) {
        _ if sidecar => true,
        (Some(_), "Never") => false,
        (Some(_), _) => code != 0,
        (None, "Always") => true,
        (None, "OnFailure") => code != 0,
        _ => false,
    };
    if again {
        l.ends += 1;
        let ends = l.ends;
        return restart(cx, uid, pod, name, end, ends);
    }
    l.done = true;
    status::edit(cx, &ns, &pod_name, |e| e.end(name, end));
    match place {
        Some(i) if code == 0 => kubelet::next_init(cx, uid, pod, i),
        Some(_) => finish(cx, uid, &ns, &pod_name, code),
        None => {
            let Some(rt) = cx.c.pods.get(uid) else { return };
            let mains = arr(pod, "/spec/containers");
            if mains.iter().all(|c| rt.lives.get(s(c, "/name")).is_some_and(|l| l.done)) {
                finish(cx, uid, &ns, &pod_name, code);
            }
        }
    }
}

/// The pod has ended, by its last container.
fn finish(cx: &mut Cx, uid: &str, ns: &str, name: &str, code: i64) {
    if let Some(rt) = cx.c.pods.get_mut(uid) {
        rt.stage = PodStage::Done;
        rt.blocked = false;
        rt.step += 1;
    }
    let Some(pod) = cx.get("pods", ns, name).cloned() else { return };
    let running = |c: &&Value| status::of(&pod, s(c, "/name")).is_some_and(|st| st["state"]["running"].is_object());
    let sidecars: Vec<&Value> = arr(&pod, "/spec/initContainers").iter().filter(running).collect();
    if !sidecars.is_empty() {
        sidecars.iter().for_each(|c| cx.lab.kube().containers.end(uid, s(c, "/name")));
        status::edit(cx, ns, name, |e| sidecars.iter().for_each(|c| e.end(s(c, "/name"), 0)));
    }
    let codes =
        arr(&pod, "/status/containerStatuses").iter().filter_map(|c| c["state"]["terminated"]["exitCode"].as_i64());
    let worst = codes.chain([code]).find(|c| *c != 0).unwrap_or(0);
    effects::done(cx, &pod, worst);
}

/// A pod may have been active for longer than it may.
pub fn overdue(cx: &mut Cx, ns: &str, name: &str) {
    let Some(pod) = cx.get("pods", ns, name).cloned() else { return };
    let uid = s(&pod, "/metadata/uid").to_owned();
    let Some(limit) = pod["spec"]["activeDeadlineSeconds"].as_u64() else { return };
    let start = parse_time(s(&pod, "/status/startTime")).unwrap_or(cx.now());
    if held(cx, &uid).is_none() || cx.now() < start + limit * 1000 {
        return;
    }
    let (reason, text) = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
    end_pod(cx, &pod, true, reason, text);
}

/// The kubelet ends a pod for good and says why.
pub fn end_pod(cx: &mut Cx, pod: &Value, normal: bool, reason: &str, text: &str) {
    let (ns, name, uid) = (s(pod, "/metadata/namespace"), s(pod, "/metadata/name"), s(pod, "/metadata/uid"));
    cx.event(pod, normal, reason, text, "kubelet");
    cx.lab.kube().containers.end_pod(uid);
    let running = |c: &&Value| c["state"]["running"].is_object();
    let names: Vec<String> = status::statuses(pod).filter(running).map(|c| s(c, "/name").to_owned()).collect();
    for n in &names {
        cx.container_event(pod, n, true, "Killing", &format!("Stopping container {n}"));
    }
    let past = |c: &Value| status::of(pod, s(c, "/name")).is_some_and(|st| status::is_past(c, st));
    let begun = arr(pod, "/spec/initContainers").iter().all(past);
    let lost: Vec<String> =
        arr(pod, "/spec/containers").iter().filter(|_| begun).map(|c| s(c, "/name").to_owned()).collect();
    status::edit(cx, ns, name, |e| {
        e.fail(reason, text);
        names.iter().for_each(|n| e.end(n, 137));
        lost.iter().for_each(|n| e.lose(n));
    });
    finish(cx, uid, ns, name, 137);
}

/// How long the `ends`th restart waits: not at all, then ten seconds, twice as long each time.
pub(super) fn pause(ends: u32) -> u64 {
    if ends < 2 { 0 } else { (10_000u64 << (ends - 2).min(5)).min(LONGEST_MS) }
}

/// A duration of whole seconds as Go prints it.
fn duration(ms: u64) -> String {
    let (m, sec) = (ms / 60_000, ms / 1000 % 60);
    if m > 0 { format!("{m}m{sec}s") } else { format!("{sec}s") }
}

fn restart(cx: &mut Cx, uid: &str, pod: &Value, name: &str, end: End, ends: u32) {
    let (ns, pod_name) = key(pod);
    let pause = pause(ends);
    status::edit(cx, &ns, &pod_name, |e| e.end(name, end));
    let live =
        cx.get("pods", &ns, &pod_name).and_then(|p| status::of(p, name)).map(|st| st["state"]["terminated"].clone());
    if let Some(end) = live.filter(|end| end["reason"] == status::START && pause == 0) {
        status::edit(cx, &ns, &pod_name, |e| e.wait(name, "RunContainerError", s(&end, "/message")));
    }
    if pause > 0 {
        let who = formatted(pod);
        let text = format!("back-off {} restarting failed container={name} pod={who}", duration(pause));
        status::edit(cx, &ns, &pod_name, |e| e.wait(name, "CrashLoopBackOff", &text));
        let text = format!("Back-off restarting failed container {name} in pod {who}");
        cx.container_event(pod, name, false, "BackOff", &text);
    }
    if let Some(rt) = cx.c.pods.get_mut(uid).filter(|rt| rt.stage == PodStage::Ready) {
        rt.stage = PodStage::Running;
    }
    later(cx, uid, name, Due::Start, pause.max(500));
}

/// The pause is over.
fn again(cx: &mut Cx, uid: &str, pod: &Value, c: &Value, node: &str) {
    pulls::pulling(cx, pod, c, node);
    pulled(cx, pod, c, node, 0);
    start(cx, uid, pod, std::slice::from_ref(c), node);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_the_pause_grows_to_five_minutes() {
        let pauses: Vec<u64> = (1..9).map(|n| pause(n) / 1000).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!([80_000, 10_000, 300_000].map(duration), ["1m20s", "10s", "5m0s"]);
    }
}
