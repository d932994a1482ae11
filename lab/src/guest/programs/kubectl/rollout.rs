//! `kubectl rollout`: restart and status; `revisions` has what is about former states.
use http::Method;
use serde_json::{Value, json};

use super::super::Call;
use super::items::{Item, named};
use super::output::{Dry, said};
use super::request::{At, Change, Form, refused};
use super::revisions;
use super::words::Words;
use crate::kube::store::meta::time;

/// Runs it; `None` when the words ask for more than it does.
pub(super) async fn run(c: &mut Call, at: &At, words: &[String]) -> Option<i32> {
    let (what, words) = words.split_first()?;
    if !matches!(what.as_str(), "restart" | "status" | "history" | "undo" | "pause" | "resume") {
        return None;
    }
    let w = Words::read(words, "selector/l= timeout= watch/w output/o= revision= to-revision= dry-run")?;
    let timeout = w.wait_ms("timeout", 0)?;
    let items = match named(c, at, &w, &w.bare).await {
        Ok(items) => items,
        Err(code) => return Some(code),
    };
    let mut code = 0;
    for item in items {
        if matches!(what.as_str(), "pause" | "resume") {
            code = code.max(revisions::pause(c, at, &w, &item, what == "pause").await);
            continue;
        }
        if !matches!(item.kind.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
            let text = match what.as_str() {
                "restart" => format!("error: {} \"{}\" restarting is not supported", item.kind.plural, item.name),
                "history" => revisions::unsupported("history", &item),
                "undo" => {
                    revisions::remark(c, at, &item).await;
                    revisions::unsupported("rollbacker", &item)
                }
                _ => format!("error: no status viewer has been implemented for {}", item.kind.kind),
            };
            return Some(c.fail(1, &text));
        }
        let done = match what.as_str() {
            "restart" => restart(c, at, &w, &item).await,
            "history" => revisions::history(c, at, &w, &item).await?,
            "undo" => revisions::undo(c, at, &w, &item).await?,
            _ => status(c, at, &w, &item, timeout).await,
        };
        code = code.max(done);
    }
    Some(code)
}

async fn restart(c: &mut Call, at: &At, w: &Words, item: &Item) -> i32 {
    let now = time(c.m.lab.clock().now_ms());
    let notes = json!({"annotations": {"kubectl.kubernetes.io/restartedAt": now}});
    let (path, body) = (item.path(), json!({"spec": {"template": {"metadata": notes}}}));
    let sent = Change {
        method: Method::PATCH,
        path: &path,
        query: "fieldManager=kubectl-rollout",
        form: Form::Strategic,
        body: &body,
    };
    match sent.send(c, at).await {
        Ok(after) => {
            said(c, w, item, "restarted", Dry::No, &after);
            0
        }
        Err(v) => refused(c, &v),
    }
}

async fn status(c: &mut Call, at: &At, w: &Words, item: &Item, timeout: u64) -> i32 {
    let end = c.m.lab.clock().now_ms() + timeout;
    let mut last = String::new();
    loop {
        let object = match item.read(c, at).await {
            Ok(v) => v,
            Err(v) => return refused(c, &v),
        };
        let (text, done) = match progress(&object, &item.name) {
            Ok(p) => p,
            Err(why) => return c.fail(1, &why),
        };
        if text != last {
            c.line(&text);
            last.clone_from(&text);
        }
        if done || w.off("watch") {
            return 0;
        }
        if timeout > 0 && c.m.lab.clock().now_ms() >= end {
            return c.fail(1, "error: timed out waiting for the condition");
        }
        c.pause(500).await;
    }
}

/// How far a rollout is, in kubectl's words, and whether it is through.
fn progress(o: &Value, name: &str) -> Result<(String, bool), String> {
    let n = |p: &str| o.pointer(p).and_then(Value::as_i64).unwrap_or(0);
    let (spec, status) = (&o["spec"], &o["status"]);
    let seen = n("/metadata/generation") <= n("/status/observedGeneration");
    let how = spec["updateStrategy"]["type"].as_str().unwrap_or("RollingUpdate");
    if how == "OnDelete" {
        return Err("error: rollout status is only available for RollingUpdate strategy type".to_owned());
    }
    let (replicas, updated) = (spec["replicas"].as_i64().unwrap_or(1), n("/status/updatedReplicas"));
    let text = match o["kind"].as_str() {
        Some("Deployment") => {
            let late = status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|x| x["reason"] == "ProgressDeadlineExceeded");
            if late && seen {
                return Err(format!("error: deployment \"{name}\" exceeded its progress deadline"));
            }
            let (all, ready) = (n("/status/replicas"), n("/status/availableReplicas"));
            let doing = format!("Waiting for deployment \"{name}\" rollout to finish:");
            match () {
                () if !seen => "Waiting for deployment spec update to be observed...".to_owned(),
                () if updated < replicas => {
                    format!("{doing} {updated} out of {replicas} new replicas have been updated...")
                }
                () if all > updated => format!("{doing} {} old replicas are pending termination...", all - updated),
                () if ready < updated => format!("{doing} {ready} of {updated} updated replicas are available..."),
                () => return Ok((format!("deployment \"{name}\" successfully rolled out"), true)),
            }
        }
        Some("DaemonSet") => {
            let (want, have, ready) = (
                n("/status/desiredNumberScheduled"),
                n("/status/updatedNumberScheduled"),
                n("/status/numberAvailable"),
            );
            let doing = format!("Waiting for daemon set \"{name}\" rollout to finish:");
            match () {
                () if !seen => "Waiting for daemon set spec update to be observed...".to_owned(),
                () if have < want => format!("{doing} {have} out of {want} new pods have been updated..."),
                () if ready < want => format!("{doing} {ready} of {want} updated pods are available..."),
                () => return Ok((format!("daemon set \"{name}\" successfully rolled out"), true)),
            }
        }
        _ => {
            let ready = n("/status/readyReplicas");
            let from = n("/spec/updateStrategy/rollingUpdate/partition");
            let (now, next) = (&status["currentRevision"], &status["updateRevision"]);
            match () {
                () if !seen => "Waiting for statefulset spec update to be observed...".to_owned(),
                () if ready < replicas => format!("Waiting for {} pods to be ready...", replicas - ready),
                () if from > 0 && updated < replicas - from => {
                    format!(
                        "Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...",
                        replicas - from
                    )
                }
                () if from > 0 => {
                    return Ok((
                        format!("partitioned roll out complete: {updated} new pods have been updated..."),
                        true,
                    ));
                }
                () if now != next => {
                    let to = next.as_str().unwrap_or_default();
                    format!("waiting for statefulset rolling update to complete {updated} pods at revision {to}...")
                }
                () => {
                    let (count, at) = (n("/status/currentReplicas"), now.as_str().unwrap_or_default());
                    return Ok((format!("statefulset rolling update complete {count} pods at revision {at}..."), true));
                }
            }
        }
    };
    Ok((text, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_told_step_by_step() {
        let d = |replicas: i64, updated: i64, all: i64, ready: i64| {
            progress(&json!({"kind": "Deployment", "metadata": {"generation": 1}, "spec": {"replicas": replicas},
                "status": {"observedGeneration": 1, "updatedReplicas": updated, "replicas": all, "availableReplicas": ready}}), "w").unwrap().0
        };
        let doing = "Waiting for deployment \"w\" rollout to finish:";
        assert_eq!(d(3, 1, 4, 3), format!("{doing} 1 out of 3 new replicas have been updated..."));
        assert_eq!(d(3, 3, 4, 3), format!("{doing} 1 old replicas are pending termination..."));
        assert_eq!(d(3, 3, 3, 2), format!("{doing} 2 of 3 updated replicas are available..."));
        assert_eq!(d(3, 3, 3, 3), "deployment \"w\" successfully rolled out");
        let s = json!({"kind": "StatefulSet", "spec": {"updateStrategy": {"type": "OnDelete"}}});
        assert!(progress(&s, "w").is_err());
    }
}
