//! What a container is told after its start and before its end, and how long it takes to end. Grade: source
//! (pkg/kubelet/kuberuntime and pkg/kubelet/lifecycle of kubernetes).
use serde_json::Value;

use super::super::container;
use super::super::cx::Cx;
use super::super::text::{arr, s};
use super::{containers, images, shell, status};
use crate::guest::programs::duration;

/// Time that a server takes to end once it is told to.
const PROMPT_MS: u64 = 1500;

fn command(hook: &Value) -> Option<Vec<String>> {
    let words: Vec<String> = arr(hook, "/exec/command").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    words.first().is_some_and(|first| container::shell::has(first)).then_some(words)
}

/// A container has started: its hook runs, and ends it when it fails.
pub(super) fn started(cx: &mut Cx, uid: &str, pod: &Value, c: &Value) {
    let Some(words) = command(&c["lifecycle"]["postStart"]) else { return };
    let (uid, name, of) = (uid.to_owned(), s(c, "/name").to_owned(), pod.clone());
    shell::beside(cx, pod, s(c, "/name"), words, move |cx, code, _| {
        if code != 0 {
            cx.container_event(&of, &name, false, "FailedPostStartHook", "PostStartHook failed");
            cx.container_event(&of, &name, true, "Killing", "FailedPostStartHook");
            containers::stopped(cx, &uid, &name);
        }
    });
}

/// Sum of what a text sleeps, in milliseconds.
fn sleeps(text: &str) -> u64 {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c == ';').collect();
    words.windows(2).filter(|w| w[0] == "sleep").filter_map(|w| duration(w[1])).fold(0, u64::saturating_add)
}

/// Whether the first process of a container does not hear that it is to end: a shell or `sleep` as process 1 has no
/// handler for the signal unless it sets a trap.
fn is_deaf(pod: &Value, c: &Value, words: &[String]) -> bool {
    let first = words.first().map(|w| w.rsplit('/').next().unwrap_or(w)).unwrap_or_default();
    let text = words.join(" ");
    let heard = text.contains("trap ") && !text.contains("trap ''") && !text.contains("trap \"\"");
    let alone = pod["spec"]["shareProcessNamespace"] != true && pod["spec"]["hostPID"] != true;
    images::plain(s(c, "/image"))
        && alone
        && !heard
        && matches!(first, "sh" | "ash" | "bash" | "dash" | "sleep" | "tail")
}

/// How long the containers of a pod take to end, once they are told, of the `grace` that they have at most.
pub(super) fn ending(cx: &mut Cx, pod: &Value, grace: u64) -> u64 {
    let running = |c: &&Value| status::of(pod, s(c, "/name")).is_some_and(|st| st["state"]["running"].is_object());
    let all = arr(pod, "/spec/initContainers").iter().chain(arr(pod, "/spec/containers"));
    let list: Vec<Value> = all.filter(running).cloned().collect();
    let mut longest = 0;
    for c in list {
        let hook = &c["lifecycle"]["preStop"];
        let said = arr(hook, "/exec/command").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        let pause = hook["sleep"]["seconds"].as_u64().unwrap_or(0).saturating_mul(1000);
        let before = sleeps(&said).saturating_add(pause);
        if let Some(words) = command(hook) {
            shell::beside(cx, pod, s(&c, "/name"), words, |_, _, _| ());
        }
        let words = container::argv(cx, pod, &c);
        longest = longest.max(if is_deaf(pod, &c, &words) { grace } else { before.saturating_add(PROMPT_MS) });
    }
    longest.max(200).min(grace)
}
