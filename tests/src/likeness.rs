//! Two worlds of a lab compared: without what is drawn anew in each.
use std::path::Path;

use serde_json::Value;

use crate::Bench;

/// The world of the lab in a state directory, as `gpuhost lab status` shows it, without what is drawn.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn of(b: &Bench, state: &Path, site: &str) -> Value {
    look(b, state, site).0
}

/// The same, and how often the hypervisor did what on which object.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn look(b: &Bench, state: &Path, site: &str) -> (Value, Value) {
    let shown = state.display().to_string();
    let args = ["lab", "status", "--json", "--site", site, "--state-dir", &shown];
    let status: Value = serde_json::from_str(&b.run(&args).expect(0).stdout).unwrap_or_default();
    let w = &status["world"];
    assert!(w["hypervisor"].to_string().contains("pfsense"), "the foreign machine is in view");
    let view = normal(&serde_json::json!({ "hypervisor": w["hypervisor"], "in_clusters": w["in_clusters"] }));
    (view, w["tasks"].clone())
}

/// Replaces what is drawn anew in every world: UUIDs and creation ids.
#[must_use]
pub fn normal(v: &Value) -> Value {
    match v {
        // When something was done once is part of its mark.
        Value::String(s) if s.starts_with("gpuhost once ") => {
            Value::String(s.rsplit_once('=').map_or(s.as_str(), |(words, _)| words).to_owned())
        }
        // When a machine was made is part of its config.
        Value::String(s) if s.contains("ctime=") => {
            Value::String(s.split("ctime=").next().unwrap_or_default().to_owned())
        }
        // Addresses of services are drawn.
        Value::String(s) if s.starts_with("ipaddresses.networking.k8s.io ") => {
            Value::String("ipaddresses.networking.k8s.io <drawn>".to_owned())
        }
        Value::String(s) => Value::String(without_ids(&without_moments(s))),
        Value::Array(a) => a.iter().map(normal).collect(),
        Value::Object(o) => o.iter().map(|(k, v)| (without_time(k), normal(v))).collect(),
        other => other.clone(),
    }
}

/// A text without when feature discovery last looked, and without what K3s makes of a Service's uid in a name.
fn without_moments(text: &str) -> String {
    let mut out = text.to_owned();
    for (before, drawn) in [
        ("\"nvidia.com/gfd.timestamp\":\"", char::is_alphanumeric as fn(char) -> bool),
        ("/svclb-traefik-", char::is_alphanumeric),
    ] {
        let Some(at) = out.find(before).map(|at| at + before.len()) else { continue };
        let rest = out[at..].trim_start_matches(drawn).to_owned();
        out = format!("{}<drawn>{rest}", &out[..at]);
    }
    out
}

/// The name of a volume without the time that a backup carries in it.
fn without_time(name: &str) -> String {
    match name.split_once("vzdump-qemu-").and_then(|(head, rest)| Some((head, rest.split_once('-')?))) {
        Some((head, (vmid, rest))) => format!("{head}vzdump-qemu-{vmid}-<time>{}", rest.get(19..).unwrap_or_default()),
        None => name.to_owned(),
    }
}

/// A text without UUIDs and creation ids.
#[must_use]
pub fn without_ids(text: &str) -> String {
    let hex = |c: char| c.is_ascii_hexdigit() || c == '-';
    let mut out = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        let drawn = word.len() == 12 && !word.contains('-') || word.len() == 36 && word.matches('-').count() == 4;
        out.push_str(if drawn { "<drawn>" } else { word });
        word.clear();
    };
    for c in text.chars() {
        if hex(c) {
            word.push(c);
        } else {
            flush(&mut word, &mut out);
            out.push(c);
        }
    }
    flush(&mut word, &mut out);
    out
}

/// Lines that only one of two has.
#[must_use]
pub fn difference(want: &Value, found: &Value) -> String {
    let lines = |v: &Value| -> Vec<String> { format!("{v:#}").lines().map(str::to_owned).collect() };
    let (a, b) = (lines(want), lines(found));
    let less = a.iter().filter(|l| !b.contains(l)).map(|l| format!("- {}", l.trim()));
    let more = b.iter().filter(|l| !a.contains(l)).map(|l| format!("+ {}", l.trim()));
    less.chain(more).take(30).collect::<Vec<_>>().join("\n")
}
