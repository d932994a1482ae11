//! Probes of containers: what the kubelet asks, and what is answered as far as the lab knows.
use bashkit::FileSystem as _;
use futures::FutureExt as _;
use serde_json::Value;

use super::super::container::{self, shell};
use super::super::cx::Cx;
use super::super::state::Probe;
use super::super::text::{arr, s};
use super::images;

/// What a probe came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// It succeeded.
    Good,
    /// It failed, with the kubelet's words.
    Bad(String),
    /// A command has to be run first.
    Run(Vec<String>),
    /// Nobody knows: it counts as a success, and is not asked again.
    Unknown,
}

impl Probe {
    /// The field of a container's spec.
    pub(super) fn field(self) -> &'static str {
        match self {
            Probe::Startup => "startupProbe",
            Probe::Readiness => "readinessProbe",
            Probe::Liveness => "livenessProbe",
        }
    }

    /// As events name it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Probe::Startup => "Startup",
            Probe::Readiness => "Readiness",
            Probe::Liveness => "Liveness",
        }
    }
}

/// How often a container is probed, in milliseconds.
pub(super) fn period(p: &Value) -> u64 {
    p["periodSeconds"].as_u64().unwrap_or(10).max(1) * 1000
}

/// How long the first probe waits, in milliseconds.
pub(super) fn delay(p: &Value) -> u64 {
    p["initialDelaySeconds"].as_u64().unwrap_or(0) * 1000
}

/// How many failures in a row count.
pub(super) fn threshold(p: &Value) -> u32 {
    p["failureThreshold"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(3)
}

fn port(c: &Value, port: &Value) -> u64 {
    let named = |name: &str| arr(c, "/ports").iter().find(|p| p["name"] == name)?["containerPort"].as_u64();
    port.as_u64().or_else(|| named(port.as_str()?)).unwrap_or(0)
}

/// Whether nothing listens in a container of a bare shell image: all words of its command line are of those that only wait.
fn shut(name: &str, words: &[String]) -> bool {
    const IDLE: &[&str] = &[
        "sh", "bash", "ash", "bin", "usr", "c", "ec", "sleep", "infinity", "tail", "f", "dev", "null", "echo", "while",
        "true", "do", "done", "for", "i", "in", "touch", "rm", "rf", "tmp", "healthy", "ready", "cat", "exit", "date",
        "started", "hello", "trap", "wait",
    ];
    let text = words.join(" ");
    let mut all = text.split(|c: char| !c.is_ascii_alphanumeric());
    matches!(name, "busybox" | "alpine" | "debian" | "ubuntu")
        && !words.is_empty()
        && all.all(|w| IDLE.contains(&w) || w.chars().all(|c| c.is_ascii_digit()))
}

/// Asks container `c` of `pod`, which has run for `up_ms`.
pub(super) fn ask(cx: &mut Cx, pod: &Value, c: &Value, probe: Probe, up_ms: u64) -> Verdict {
    let p = &c[probe.field()];
    let argv: Vec<String> = arr(p, "/exec/command").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if argv.first().is_some_and(|first| shell::has(first)) {
        return Verdict::Run(argv);
    }
    let image = images::full(s(c, "/image"));
    let last = images::repository(&image).rsplit('/').next().unwrap_or_default();
    let web = images::web(&image);
    let ip = s(pod, "/status/podIP");
    let refused = |port: u64| {
        let listens = port == 80 || arr(c, "/ports").iter().any(|p| p["containerPort"] == port);
        let deaf = || shut(last, &container::argv(cx, pod, c));
        (web && !listens || deaf()).then(|| format!("dial tcp {ip}:{port}: connect: connection refused"))
    };
    if p["tcpSocket"].is_object() {
        return match refused(port(c, &p["tcpSocket"]["port"])) {
            Some(why) => Verdict::Bad(why),
            None => Verdict::Unknown,
        };
    }
    if !p["httpGet"].is_object() {
        return Verdict::Unknown;
    }
    let (path, port) = (s(p, "/httpGet/path"), port(c, &p["httpGet"]["port"]));
    if let Some(why) = refused(port) {
        let scheme = s(p, "/httpGet/scheme").to_lowercase();
        let scheme = if scheme.is_empty() { "http" } else { &scheme };
        return Verdict::Bad(format!("Get \"{scheme}://{ip}:{port}{path}\": {why}"));
    }
    let failed = |code: u16| Verdict::Bad(format!("HTTP probe failed with statuscode: {code}"));
    // The server of the documentation's examples is well for ten seconds.
    if last == "agnhost" && arr(c, "/args").first().is_some_and(|a| a == "liveness") {
        return if up_ms > 10_000 { failed(500) } else { Verdict::Good };
    }
    if last != "nginx" || matches!(path, "" | "/") {
        return Verdict::Unknown;
    }
    let Some(inside) = container::enter(cx, pod, s(c, "/name")) else { return Verdict::Unknown };
    let file = format!("/usr/share/nginx/html{}", path.split('?').next().unwrap_or(path));
    // Files of a container are in memory: reading them never waits.
    match inside.fs.read_file(std::path::Path::new(&file)).now_or_never() {
        Some(Ok(_)) => Verdict::Good,
        _ => failed(404),
    }
}
