//! `crictl` on a node: what its kubelet has told the cluster's API.
use serde_json::Value;

use super::Call;
use super::kubectl::{ask, cluster, columns};
use crate::guest::fs::Who;
use crate::kube::text::sha256;

fn ago(c: &Call, time: &Value) -> String {
    let at = time.as_str().and_then(crate::kube::store::meta::parse_time);
    let secs = at.map_or(0, |t| c.m.lab.clock().now_ms().saturating_sub(t) / 1000);
    let (n, unit) = match secs {
        0..60 => (secs, "second"),
        60..3600 => (secs / 60, "minute"),
        3600..86_400 => (secs / 3600, "hour"),
        _ => (secs / 86_400, "day"),
    };
    format!("{n} {unit}{} ago", if n == 1 { "" } else { "s" })
}

fn short(text: &str) -> String {
    sha256(text)[..13].to_owned()
}

/// Runs `crictl ps`, `pods`, `images` and `rmi --prune`; `None` for its other commands.
pub(super) async fn crictl(c: &mut Call, words: &[String]) -> Option<i32> {
    let verb = words.first().map(String::as_str)?;
    let every = words.iter().any(|w| w == "-a" || w == "--all");
    let known = words.iter().skip(1).all(|w| matches!(w.as_str(), "-a" | "--all"));
    let prunes = verb == "rmi" && words[1..] == ["--prune"];
    if !prunes && (!matches!(verb, "ps" | "pods" | "images" | "img") || !known) {
        return None;
    }
    if c.who.uid != Who::root().uid {
        let text = "FATA[0000] validate service connection: validate CRI v1 runtime API for endpoint \"unix:///run/k3s/containerd/containerd.sock\": rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial unix /run/k3s/containerd/containerd.sock: connect: permission denied\"";
        return Some(c.fail(1, text));
    }
    let host = c.guest(|g| g.hostname.clone()).unwrap_or_default();
    let query = format!("fieldSelector=spec.nodeName%3D{host}");
    let (_, list) = match cluster(c, false) {
        Some(at) => ask(c, &at, "/api/v1/pods", &query, "application/json").await,
        None => (0, Value::Null),
    };
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    if prunes {
        // `images` lists those of pods, and these stay
        return Some(0);
    }
    if verb.starts_with("im") {
        images(c, &list);
        return Some(0);
    }
    let heads: &[&str] = if verb == "ps" {
        &["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE"]
    } else {
        &["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"]
    };
    let mut rows: Vec<Vec<String>> = vec![heads.iter().map(|h| (*h).to_owned()).collect()];
    for p in list["items"].as_array().into_iter().flatten() {
        let (name, ns, pod) =
            (text(&p["metadata"]["name"]), text(&p["metadata"]["namespace"]), short(&text(&p["metadata"]["uid"])));
        let ready = p["status"]["phase"] == "Running";
        if verb == "pods" {
            let state = if ready { "Ready" } else { "NotReady" };
            let born = ago(c, &p["status"]["startTime"]);
            rows.push(vec![pod, born, state.into(), name, ns, "0".into(), "(default)".into()]);
            continue;
        }
        for s in p["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let running = s["state"]["running"].is_object();
            if !running && !every {
                continue;
            }
            let state = if running { "Running" } else { "Exited" };
            let born = &s["state"][if running { "running" } else { "terminated" }]["startedAt"];
            rows.push(vec![
                short(&text(&s["containerID"])),
                short(&text(&s["image"])),
                ago(c, born),
                state.into(),
                text(&s["name"]),
                s["restartCount"].to_string(),
                pod.clone(),
                name.clone(),
                ns.clone(),
            ]);
        }
    }
    for l in columns(&rows) {
        c.line(&l);
    }
    Some(0)
}

/// Images of the pods that are on this node. Their sizes are not simulated.
fn images(c: &mut Call, pods: &Value) {
    let mut found: Vec<[String; 3]> = Vec::new();
    for p in pods["items"].as_array().into_iter().flatten() {
        for kind in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
            for s in p["status"][kind].as_array().into_iter().flatten() {
                let image = s["image"].as_str().unwrap_or_default();
                if s["imageID"].as_str().is_none_or(str::is_empty) {
                    continue;
                }
                let (name, tag) = match image.rsplit_once(':').filter(|(_, t)| !t.contains('/')) {
                    Some((n, t)) => (n, t),
                    None => (image, "latest"),
                };
                found.push([name.to_owned(), tag.to_owned(), short(image)]);
            }
        }
    }
    found.sort();
    found.dedup();
    let mut rows = vec![["IMAGE", "TAG", "IMAGE ID", "SIZE"].map(str::to_owned).to_vec()];
    rows.extend(found.into_iter().map(|f| f.into_iter().chain(["-".to_owned()]).collect()));
    for l in columns(&rows) {
        c.line(&l);
    }
}
