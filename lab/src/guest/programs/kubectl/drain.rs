//! `kubectl drain`.
use http::Method;
use serde_json::{Value, json};

use super::super::Call;
use super::change::{cordon_one, nodes};
use super::items::{Item, encoded, must_know};
use super::request::{At, Change, Form, JSON, ask, refused};
use super::words::Words;

const OPTIONS: &str = "ignore-daemonsets delete-emptydir-data force grace-period= timeout= selector/l= pod-selector= \
    disable-eviction skip-wait-for-delete-timeout=";

/// Pods of a node by what a drain does about them.
#[derive(Default)]
struct Sorted {
    go: Vec<Item>,
    daemons: Vec<String>,
    local: Vec<String>,
    bare: Vec<String>,
}

/// Runs it; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let w = Words::read(words, OPTIONS)?;
    let timeout = w.wait_ms("timeout", 0)?;
    if w.on("disable-eviction") || w.value("skip-wait-for-delete-timeout").is_some() {
        return None;
    }
    let items = match nodes(c, at, &w).await {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    let plain = Words::default();
    for node in &items {
        if cordon_one(c, at, &plain, node, true).await != 0 {
            return Some(1);
        }
    }
    for node in &items {
        let code = one(c, at, &w, node, timeout).await;
        if code != 0 {
            return Some(code);
        }
    }
    Some(0)
}

async fn one(c: &mut Call, at: &At, w: &Words, node: &Item, timeout: u64) -> i32 {
    let query = format!(
        "fieldSelector={}&labelSelector={}",
        encoded(&format!("spec.nodeName={}", node.name)),
        encoded(w.value("pod-selector").unwrap_or_default())
    );
    let kind = match must_know(c, at, "pods") {
        Ok(kind) => kind,
        Err(code) => return code,
    };
    let list = match ask(c, at, "/api/v1/pods", &query, JSON).await {
        (200, v) => v,
        (_, v) => return refused(c, &v),
    };
    let mut sorted = Sorted::default();
    for pod in list["items"].as_array().into_iter().flatten() {
        let text = |f: &str| pod["metadata"][f].as_str().unwrap_or_default();
        let item = Item::new(kind.clone(), text("namespace"), text("name"));
        sort(pod, item, &mut sorted, w);
    }
    let refusals: Vec<String> = [
        (
            &sorted.daemons,
            !w.on("ignore-daemonsets"),
            "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)",
        ),
        (
            &sorted.local,
            !w.on("delete-emptydir-data"),
            "cannot delete Pods with local storage (use --delete-emptydir-data to override)",
        ),
        (&sorted.bare, !w.on("force"), "cannot delete Pods that declare no controller (use --force to override)"),
    ]
    .into_iter()
    .filter(|(pods, refused, _)| *refused && !pods.is_empty())
    .map(|(pods, _, why)| format!("{why}: {}", pods.join(", ")))
    .collect();
    if !refusals.is_empty() {
        let why = if refusals.len() == 1 { refusals[0].clone() } else { format!("[{}]", refusals.join(", ")) };
        let name = &node.name;
        c.complain(&format!("error: unable to drain node \"{name}\" due to error: {why}, continuing command...\nThere are pending nodes to be drained:\n {name}\n{}", refusals.join("\n")));
        return 1;
    }
    let mut warnings = Vec::new();
    if !sorted.bare.is_empty() {
        warnings.push(format!("deleting Pods that declare no controller: {}", sorted.bare.join(", ")));
    }
    if !sorted.daemons.is_empty() {
        warnings.push(format!("ignoring DaemonSet-managed Pods: {}", sorted.daemons.join(", ")));
    }
    if !warnings.is_empty() {
        c.complain(&format!("Warning: {}", warnings.join("; ")));
    }
    if let Err(code) = evict(c, at, w, &sorted.go, timeout).await {
        return code;
    }
    c.line(&format!("{} drained", node.shown()));
    0
}

fn sort(pod: &Value, item: Item, out: &mut Sorted, w: &Words) {
    let meta = &pod["metadata"];
    if meta["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return;
    }
    let shown = format!("{}/{}", item.namespace.as_deref().unwrap_or_default(), item.name);
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let owner = meta["ownerReferences"].as_array().into_iter().flatten().find(|o| o["controller"] == true);
    if owner.is_some_and(|o| o["kind"] == "DaemonSet") && !ended {
        out.daemons.push(shown);
        return;
    }
    let local = pod["spec"]["volumes"].as_array().into_iter().flatten().any(|v| !v["emptyDir"].is_null());
    if local && !ended {
        out.local.push(shown.clone());
        if !w.on("delete-emptydir-data") {
            return;
        }
    }
    if owner.is_none() && !ended {
        out.bare.push(shown);
    }
    out.go.push(item);
}

/// Evicts pods and waits until they are gone; one that its budget holds is asked again every five seconds.
async fn evict(c: &mut Call, at: &At, w: &Words, pods: &[Item], timeout: u64) -> Result<(), i32> {
    let end = c.m.lab.clock().now_ms() + timeout;
    let late = |c: &Call| timeout > 0 && c.m.lab.clock().now_ms() >= end;
    let mut body = json!({"apiVersion": "policy/v1", "kind": "Eviction"});
    if let Some(g) = w.value("grace-period").and_then(|g| g.parse::<i64>().ok()).filter(|g| *g >= 0) {
        body["deleteOptions"] = json!({"gracePeriodSeconds": g});
    }
    let (mut left, mut going): (Vec<&Item>, Vec<(&Item, Value)>) = (pods.iter().collect(), Vec::new());
    while !left.is_empty() {
        let mut held = Vec::new();
        for item in left {
            let ns = item.namespace.as_deref().unwrap_or_default();
            let uid = item.read(c, at).await.map(|v| v["metadata"]["uid"].clone()).unwrap_or_default();
            c.complain(&format!("evicting pod {ns}/{}", item.name));
            body["metadata"] = json!({"name": item.name, "namespace": ns});
            let path = format!("{}/eviction", item.path());
            match (Change { method: Method::POST, path: &path, query: "", form: Form::Plain, body: &body })
                .send(c, at)
                .await
            {
                Ok(_) => going.push((item, uid)),
                Err(v) if v["code"] == 404 => {}
                Err(v) if v["code"] == 429 => {
                    let why = v["message"].as_str().unwrap_or_default();
                    c.complain(&format!(
                        "error when evicting pods/\"{}\" -n \"{ns}\" (will retry after 5s): {why}",
                        item.name
                    ));
                    held.push(item);
                }
                Err(v) => return Err(refused(c, &v)),
            }
        }
        left = held;
        if !left.is_empty() {
            if late(c) {
                return Err(c.fail(1, "error: global timeout reached"));
            }
            c.pause(5000).await;
        }
    }
    for (item, uid) in going {
        while item.read(c, at).await.is_ok_and(|v| v["metadata"]["uid"] == uid) {
            if late(c) {
                return Err(c.fail(1, "error: global timeout reached"));
            }
            c.pause(1000).await;
        }
        c.line(&format!("pod/{} evicted", item.name));
    }
    Ok(())
}
