//! What the containers of known images do: run for ever, end, wait for something, crash, or run a shell script.
use gpuhost_stdlib::core::clock::Mode;
use serde_json::Value;

use super::super::container::{self, memory, shell};
use super::super::cx::Cx;
use super::super::text::{arr, s};
use super::{gpu, helm, images, probes, scheduler};

/// How a container runs.
#[derive(Debug, Clone)]
pub enum Run {
    /// It runs on; ready after so long.
    Forever {
        /// Until it is ready.
        ready_ms: u64,
        /// What it writes at its start.
        log: String,
    },
    /// It ends by itself.
    Exit {
        /// Exit code.
        code: i64,
        /// After so long.
        after_ms: u64,
        /// What it writes.
        log: String,
    },
    /// It runs but waits for something outside.
    Wait {
        /// What it writes meanwhile.
        log: String,
    },
    /// It ends at once with an error.
    Crash {
        /// What it writes.
        log: String,
    },
    /// A command line that the lab can run.
    Shell(Vec<String>),
    /// Its image has no such program.
    Missing(String),
}

impl Run {
    /// Runs on, ready after `ready_ms`.
    #[must_use]
    pub fn forever(ready_ms: u64) -> Run {
        Run::Forever { ready_ms, log: String::new() }
    }
}

/// The command line of a container, when it is one that the lab can run.
fn command(cx: &mut Cx, pod: &Value, c: &Value) -> Option<Vec<String>> {
    let words = container::argv(cx, pod, c);
    let first = words.first()?;
    if first.ends_with(shell::SMI) {
        let gpus = gpu::given(cx, pod, c).is_some();
        return shell::is_in(first, gpus).then_some(words);
    }
    let base = images::plain(s(c, "/image"));
    let scripted = shell::script(&words).0 != shell::script(&words[..1]).0 && first.ends_with("sh");
    (scripted || base && shell::has(first) || memory::is_greedy(pod, c, &words)).then_some(words)
}

/// Whether a command line never ends by itself.
fn endless(words: &[String]) -> bool {
    let text = words.join(" ");
    ["sleep inf", "while true", "while :", "while [ 1 ]", "tail -f", "until false"].iter().any(|w| text.contains(w))
}

/// How a container runs whose command line the lab can run.
#[must_use]
pub fn scripted(cx: &mut Cx, pod: &Value, c: &Value) -> Option<Run> {
    if c["stdin"] == true && shell::is_interactive(&container::argv(cx, pod, c)) {
        // It waits for somebody who attaches.
        return Some(Run::forever(300));
    }
    let argv = command(cx, pod, c)?;
    // A loop without an end is run only where time flows by itself.
    let flows = matches!(cx.lab.clock().mode(), Mode::Scaled(_));
    let waits = ["sleep inf", "tail -f"].iter().any(|w| argv.join(" ").contains(w));
    Some(if waits || endless(&argv) && !flows { Run::forever(500) } else { Run::Shell(argv) })
}

/// What container `c` of `pod` does on `node`.
#[must_use]
pub fn run_of(cx: &mut Cx, pod: &Value, c: &Value, node: &str) -> Run {
    let image = s(c, "/image");
    ["kube/controllers/behaviour", "kube/controllers/images"].iter().for_each(|k| cx.w.meets(k));
    if let Some(run) = gpu::run_of(cx, pod, c, node) {
        return run;
    }
    if image.contains("klipper-helm") {
        return helm::run_of(cx, pod);
    }
    if image.contains("k8s-network-tools") {
        let log = "modprobe: can't change directory to '/lib/modules': No such file or directory\niptables v1.8.11 (legacy): can't initialize iptables table `filter': Table does not exist (do you need to insmod?)\nPerhaps iptables or your kernel needs to be upgraded.";
        return Run::Crash { log: log.to_owned() };
    }
    if image.contains("cuda-sample") {
        return cuda(cx, pod, node);
    }
    if let Some(run) = scripted(cx, pod, c) {
        return run;
    }
    let words = container::argv(cx, pod, c);
    // what a volume brings is nothing of the image
    let brought = |w: &str| arr(c, "/volumeMounts").iter().any(|m| w.starts_with(s(m, "/mountPath")));
    let lacks = |w: &str| images::lacks(image, w) && !w.starts_with('.') && !brought(w);
    if let Some(first) = words.first().filter(|w| w.ends_with(shell::SMI) || lacks(w)) {
        return Run::Missing(first.clone());
    }
    if image.contains("hello-world") && words.is_empty() {
        return Run::Exit { code: 0, after_ms: 200, log: images::HELLO.to_owned() };
    }
    if images::plain(image) && arr(c, "/command").is_empty() && arr(c, "/args").is_empty() {
        // A bare shell image: its shell ends at once unless it is given something to read.
        return if c["stdin"] == true {
            Run::forever(300)
        } else {
            Run::Exit { code: 0, after_ms: 200, log: String::new() }
        };
    }
    if !images::known(image) {
        cx.w.not_rehearsed.insert(format!("what the image {image} does"));
    }
    let init = arr(pod, "/spec/initContainers").iter().any(|i| i["name"] == c["name"]);
    let job = arr(pod, "/metadata/ownerReferences").iter().any(|o| s(o, "/kind") == "Job");
    if init || job {
        return Run::Exit { code: 0, after_ms: 2500, log: unsaid(c, "counts as done") };
    }
    let slow = [
        ("rancher/rancher:", 35_000),
        ("k8s-hub", 12_000),
        ("grafana", 9000),
        ("notebook", 6000),
        ("prometheus/prometheus", 8000),
    ];
    let start = slow.iter().find(|(part, _)| image.contains(part)).map_or(3000, |x| x.1);
    let log = unsaid(c, "counts as running") + images::greeting(image);
    Run::Forever { ready_ms: start + probes::delay(&c["readinessProbe"]), log }
}

/// What the log of a container says whose own command the lab does not know; nothing where it knows the image.
fn unsaid(c: &Value, counts: &str) -> String {
    let image = s(c, "/image");
    let known = images::known(image) && !images::plain(image);
    let program = arr(c, "/command").first().or(arr(c, "/args").first()).and_then(Value::as_str);
    match program {
        Some(program) if !known => format!("lab: {program} is not simulated; the container {counts}\n"),
        _ => String::new(),
    }
}

/// NVIDIA's vectorAdd sample.
fn cuda(cx: &Cx, pod: &Value, node: &str) -> Run {
    let asked: i64 = scheduler::requests(pod).iter().filter(|(r, _)| gpu::is_gpu(r)).map(|(_, n)| *n).sum();
    let driver = cx.c.nodes.get(node).and_then(|n| n.driver.clone());
    let runtime = s(pod, "/spec/runtimeClassName").starts_with("nvidia");
    if asked == 0 || driver.is_none() || !runtime {
        let log = "[Vector addition of 50000 elements]\nFailed to allocate device vector A (error code no CUDA-capable device is detected)!";
        return Run::Exit { code: 1, after_ms: 1500, log: log.to_owned() };
    }
    let vmid = cx.c.nodes.get(node).map_or(0, |n| n.vmid);
    if cx.w.cards_of(vmid).iter().any(|(_, c)| c.exclusive) {
        let log = "[Vector addition of 50000 elements]\nFailed to allocate device vector A (error code all CUDA-capable devices are busy or unavailable)!";
        return Run::Exit { code: 1, after_ms: 1500, log: log.to_owned() };
    }
    let log = "[Vector addition of 50000 elements]\nCopy input data from the host memory to the CUDA device\nCUDA kernel launch with 196 blocks of 256 threads\nCopy output data from the CUDA device to the host memory\nTest PASSED\nDone";
    Run::Exit { code: 0, after_ms: 4000, log: log.to_owned() }
}
