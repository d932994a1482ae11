//! Ephemeral containers (`kubectl debug`): started as soon as they are asked for, never started again.
use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::text::{arr, s, sha256};
use super::behaviour::{self, Run};
use super::{containers, images, shell};

const STATUSES: &str = "ephemeralContainerStatuses";

/// Starts the ephemeral containers of a placed pod that have no state yet.
pub fn start(cx: &mut Cx, pod: &Value) {
    let uid = s(pod, "/metadata/uid").to_owned();
    if !cx.c.pods.contains_key(&uid) {
        return;
    }
    let (ns, name) = key(pod);
    let known = |c: &&Value| arr(pod, "/status/ephemeralContainerStatuses").iter().any(|k| k["name"] == c["name"]);
    let fresh: Vec<Value> = arr(pod, "/spec/ephemeralContainers").iter().filter(|c| !known(c)).cloned().collect();
    for c in fresh {
        let container = s(&c, "/name").to_owned();
        let stamp = cx.stamp();
        let (image, id) = images::identity(s(&c, "/image"));
        let entry = json!({"name": container, "image": image, "ready": false, "restartCount": 0, "lastState": {},
            "imageID": id,
            "containerID": format!("containerd://{}", sha256(&format!("{uid}{container}"))),
            "state": {"running": {"startedAt": stamp}}});
        cx.update("pods", &ns, &name, |p| match p["status"][STATUSES].as_array_mut() {
            Some(list) => list.push(entry),
            None => p["status"][STATUSES] = json!([entry]),
        });
        containers::told(cx, pod, &container, "Created");
        containers::told(cx, pod, &container, "Started");
        let Some(live) = cx.get("pods", &ns, &name).cloned() else { return };
        match behaviour::scripted(cx, &live, &c) {
            Some(Run::Shell(argv)) => shell::start(cx, &uid, &live, &container, argv),
            // a shell that nobody gives anything to read
            None if c["stdin"] != true && images::plain(s(&c, "/image")) && arr(&c, "/args").is_empty() => {
                ended(cx, &live, &container, 0);
            }
            _ => {}
        }
    }
}

/// An ephemeral container has ended; false when the container is none of them.
pub fn ended(cx: &mut Cx, pod: &Value, container: &str, code: i64) -> bool {
    if !arr(pod, "/spec/ephemeralContainers").iter().any(|c| s(c, "/name") == container) {
        return false;
    }
    let (ns, name) = key(pod);
    let stamp = cx.stamp();
    cx.update("pods", &ns, &name, |p| {
        for c in p["status"][STATUSES].as_array_mut().into_iter().flatten().filter(|c| c["name"] == container) {
            let began = c["state"]["running"]["startedAt"].as_str().unwrap_or(&stamp).to_owned();
            c["state"] = json!({"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
                "startedAt": began, "finishedAt": stamp, "containerID": c["containerID"]}});
        }
    });
    true
}
