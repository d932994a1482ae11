//! What the containers of known images do: run for ever, end, wait for something, crash, or run a shell script.
use serde_json::Value;

use super::super::cx::Cx;
use super::super::text::{arr, s};
use super::{gpu, helm, images, scheduler};

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
    /// A shell script.
    Shell(String),
}

impl Run {
    /// Runs on, ready after `ready_ms`.
    #[must_use]
    pub fn forever(ready_ms: u64) -> Run {
        Run::Forever { ready_ms, log: String::new() }
    }
}

/// The text of a `sh -c TEXT` container.
fn script(c: &Value) -> Option<String> {
    let words: Vec<&str> = arr(c, "/command").iter().chain(arr(c, "/args")).filter_map(Value::as_str).collect();
    let shell = matches!(*words.first()?, "sh" | "bash" | "/bin/sh" | "/bin/bash");
    let at = words.iter().position(|w| w.starts_with('-') && w.ends_with('c'))?;
    shell.then(|| words.get(at + 1).map(|t| (*t).to_owned()))?
}

/// What container `c` of `pod` does on `node`.
#[must_use]
pub fn run_of(cx: &mut Cx, pod: &Value, c: &Value, node: &str) -> Run {
    let image = s(c, "/image");
    if let Some(run) = gpu::run_of(cx, pod, c, node) {
        return run;
    }
    if image.contains("klipper-helm") {
        return helm::run_of(cx, pod);
    }
    if image.contains("cuda-sample") {
        return cuda(cx, pod, node);
    }
    if let Some(text) = script(c) {
        return if text.contains("sleep inf") || text.contains("while true") {
            Run::forever(500)
        } else {
            Run::Shell(text)
        };
    }
    if !images::known(image) {
        cx.w.not_rehearsed.insert(format!("what the image {image} does"));
    }
    let init = arr(pod, "/spec/initContainers").iter().any(|i| i["name"] == c["name"]);
    let job = arr(pod, "/metadata/ownerReferences").iter().any(|o| s(o, "/kind") == "Job");
    if init || job {
        return Run::Exit { code: 0, after_ms: 2500, log: String::new() };
    }
    let slow = [
        ("rancher/rancher:", 35_000),
        ("k8s-hub", 12_000),
        ("grafana", 9000),
        ("notebook", 6000),
        ("prometheus/prometheus", 8000),
    ];
    Run::forever(slow.iter().find(|(part, _)| image.contains(part)).map_or(3000, |x| x.1))
}

/// NVIDIA's vectorAdd sample.
fn cuda(cx: &Cx, pod: &Value, node: &str) -> Run {
    let asked = scheduler::requested(pod, "nvidia.com/gpu");
    let driver = cx.c.nodes.get(node).and_then(|n| n.driver.clone());
    let runtime = s(pod, "/spec/runtimeClassName").starts_with("nvidia");
    if asked == 0 || driver.is_none() || !runtime {
        let log = "[Vector addition of 50000 elements]\nFailed to allocate device vector A (error code no CUDA-capable device is detected)!";
        return Run::Exit { code: 1, after_ms: 1500, log: log.to_owned() };
    }
    let log = "[Vector addition of 50000 elements]\nCopy input data from the host memory to the CUDA device\nCUDA kernel launch with 196 blocks of 256 threads\nCopy output data from the CUDA device to the host memory\nTest PASSED\nDone";
    Run::Exit { code: 0, after_ms: 4000, log: log.to_owned() }
}
