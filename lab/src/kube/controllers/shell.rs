//! Containers whose command the lab can run: a real shell language over the container's files, by the lab's clock.
use serde_json::Value;
use tokio::sync::mpsc;

use super::super::container::{self, shell};
use super::super::cx::{Cx, with_pods};
use super::super::state::{PodStage, Probe};
use super::super::text::{arr, s};
use super::behaviour::{self, Run};
use super::{images, kubelet, logs, status};
use crate::guest::shell::Chunk;

/// Starts a container's command; what it writes goes to its log, its end to the kubelet.
pub fn start(cx: &mut Cx, uid: &str, pod: &Value, name: &str, argv: Vec<String>) {
    let Some(inside) = container::enter(cx, pod, name) else { return };
    let (lab, uid) = (cx.lab.clone(), uid.to_owned());
    // Time must not run on while the script does; `sleep` lends the mark.
    let mark = lab.clock().busy_guard();
    let reads = container::spec(pod, name).is_some_and(|c| c["stdin"] == true);
    let input = if reads {
        shell::Input::Live(lab.kube().containers.open_stdin(&uid, name))
    } else {
        shell::Input::Bytes(Vec::new())
    };
    lab.rt().clone().spawn(async move {
        let (tx, mut rx) = mpsc::channel(64);
        let work = {
            let inside = inside.clone();
            async move { shell::run(&inside, &argv, input, &tx).await }
        };
        let log = async {
            while let Some(Chunk::Out(b) | Chunk::Err(b)) = rx.recv().await {
                let text = String::from_utf8_lossy(&b).into_owned();
                lab.with(|w| with_pods(&lab, w, &inside.cluster, |cx| logs::write(cx, &uid, &inside.container, &text)));
            }
        };
        let code = tokio::select! { biased;
            (code, ()) = async { tokio::join!(work, log) } => i64::from(code),
            () = inside.stop.cancelled() => return drop(mark),
        };
        if code == i64::from(shell::NOT_FOUND) && !images::plain(&inside.image) {
            // Its own programs are not simulated: it counts as running, or as done when it has to end.
            lab.with(|w| w.not_rehearsed.insert(format!("what the image {} does", inside.image)));
            if !ends(&inside.pod, &inside.container) {
                return drop(mark);
            }
        }
        let honest = if images::plain(&inside.image) || code != i64::from(shell::NOT_FOUND) { code } else { 0 };
        lab.with(|w| {
            with_pods(&lab, w, &inside.cluster, |cx| kubelet::script_ended(cx, &uid, &inside.container, honest));
        });
        lab.kube().wrote();
        drop(mark);
    });
}

/// Starts the commands of containers that ran when the world was saved.
pub fn resume(cx: &mut Cx) {
    let running: Vec<(String, super::super::state::PodRt)> =
        cx.c.pods
            .iter()
            .filter(|(_, rt)| matches!(rt.stage, PodStage::Init(_) | PodStage::Running | PodStage::Ready))
            .map(|(uid, rt)| (uid.clone(), rt.clone()))
            .collect();
    for (uid, rt) in running {
        let Some(pod) = cx.get("pods", &rt.ns, &rt.name).cloned() else { continue };
        let all = arr(&pod, "/spec/initContainers").iter().chain(arr(&pod, "/spec/containers"));
        let running = |c: &&Value| status::of(&pod, s(c, "/name")).is_some_and(|st| st["state"]["running"].is_object());
        for c in all.filter(running) {
            if let Some(Run::Shell(argv)) = behaviour::scripted(cx, &pod, c) {
                start(cx, &uid, &pod, s(c, "/name"), argv);
            }
        }
    }
}

/// Whether a container is expected to end by itself.
fn ends(pod: &Value, container: &str) -> bool {
    let init = arr(pod, "/spec/initContainers").iter().any(|c| s(c, "/name") == container);
    init || s(pod, "/spec/restartPolicy") != "Always"
}

/// Runs a probe in a container; the kubelet hears of its result.
pub fn probe(cx: &mut Cx, uid: &str, pod: &Value, name: &str, argv: Vec<String>, what: (Probe, u64)) {
    let (uid, container) = (uid.to_owned(), name.to_owned());
    beside(cx, pod, name, argv, move |cx, code, text| {
        let answer = if code == 0 { Ok(true) } else { Err(text) };
        kubelet::probed(cx, &uid, &container, what, answer);
    });
}

/// Runs a command beside the main one of a container; `done` hears its exit code and what it wrote.
pub fn beside<F>(cx: &mut Cx, pod: &Value, name: &str, argv: Vec<String>, done: F)
where
    F: FnOnce(&mut Cx, i32, String) + Send + 'static,
{
    let Some(inside) = container::enter(cx, pod, name) else { return };
    let lab = cx.lab.clone();
    let mark = lab.clock().busy_guard();
    lab.rt().clone().spawn(async move {
        let (tx, mut rx) = mpsc::channel(64);
        let work = async { shell::run(&inside, &argv, shell::Input::Bytes(Vec::new()), &{ tx }).await };
        let read = async {
            let mut text = Vec::new();
            while let Some(Chunk::Out(b) | Chunk::Err(b)) = rx.recv().await {
                text.extend(b);
            }
            String::from_utf8_lossy(&text).into_owned()
        };
        let (code, text) = tokio::select! { biased;
            r = async { tokio::join!(work, read) } => r,
            () = inside.stop.cancelled() => return drop(mark),
        };
        lab.with(|w| with_pods(&lab, w, &inside.cluster, |cx| done(cx, code, text)));
        drop(mark);
    });
}
