//! Causes that time does not mend: a wait ends early when it stands before one.
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::operator::{NAMESPACE, operator_pods};
use super::patterns::explain_log;
use super::stages::{Broken, operand_of, pod_of};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::kubernetes::{Cluster, LogOptions};

/// For so long a cause may stand: pods of an older release are still there when a new one is rolled out.
const BORNE_MS: u64 = 180_000;
/// From so many restarts on, a container's log is believed.
const RESTARTS: i64 = 2;

/// What keeps a node back for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    what: String,
    evidence: String,
    fix: String,
}

/// Since when which node has stood before which cause.
#[derive(Default)]
pub(super) struct Lasting(Mutex<BTreeMap<String, (Cause, u64)>>);

impl Lasting {
    /// Notes what a node stands before; an error once it has stood there long enough.
    pub(super) fn borne(&self, node: &str, seen: Option<Cause>, now_ms: u64) -> Option<OpError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cause) = seen else {
            all.remove(node);
            return None;
        };
        let (known, since) = all.entry(node.to_owned()).or_insert_with(|| (cause.clone(), now_ms));
        if known.what != cause.what {
            (*known, *since) = (cause, now_ms);
            return None;
        }
        if now_ms.saturating_sub(*since) < BORNE_MS {
            return None;
        }
        let e = OpError::failed(format!("the GPUs of {node} do not come up: {}", cause.what));
        Some(e.on(node).because(cause.evidence).hint(cause.fix))
    }
}

/// Why the broken operand of a node does not come up by itself, if that is so. `version` is the driver's: pods of
/// another one are about to be replaced.
pub(super) async fn lasting(ctx: &Ctx, cluster: &Cluster, b: &Broken, version: &str) -> OpResult<Option<Cause>> {
    let Some(app) = operand_of(b.rung) else { return Ok(None) };
    let pods = operator_pods(ctx, cluster).await?;
    let Some(pod) = pod_of(&pods, &b.node, app) else { return Ok(None) };
    if b.rung == 3 && !images(pod).any(|i| i.contains(version)) {
        return Ok(None);
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if let Some((image, text)) = missing_image(pod) {
        let warning = cluster.last_warning(ctx, "pod", NAMESPACE, name).await?.unwrap_or_default();
        let evidence = if text.contains("not found") { text } else { warning };
        return Ok(evidence.contains("not found").then(|| Cause {
            what: format!("there is no image {image}"),
            evidence,
            fix: "correct the version in the site file".to_owned(),
        }));
    }
    if !crashes(pod) {
        return Ok(None);
    }
    let o = LogOptions { namespace: NAMESPACE.to_owned(), container: String::new(), tail: 100 };
    let log = cluster.pod_log(ctx, name, &o).await.unwrap_or_default();
    Ok(explain_log(&log).map(|(line, p)| Cause {
        what: p.cause.to_owned(),
        evidence: line,
        fix: format!("{}; `gpuhost run scripts/doctor.rhai` prints the command", p.fix),
    }))
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainerStatuses", "containerStatuses"];
    lists.into_iter().flat_map(|l| pod["status"][l].as_array().into_iter().flatten())
}

fn images(pod: &Value) -> impl Iterator<Item = &str> {
    pod["spec"]["containers"].as_array().into_iter().flatten().filter_map(|c| c["image"].as_str())
}

/// The image that a container waits for, and what is said of it.
fn missing_image(pod: &Value) -> Option<(String, String)> {
    let c = statuses(pod)
        .find(|c| matches!(c["state"]["waiting"]["reason"].as_str(), Some("ErrImagePull" | "ImagePullBackOff")))?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    Some((text(&c["image"]), text(&c["state"]["waiting"]["message"])))
}

/// Whether a container ends again and again.
fn crashes(pod: &Value) -> bool {
    statuses(pod).any(|c| c["ready"] != true && c["restartCount"].as_i64().unwrap_or(0) >= RESTARTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cause_is_final_once_it_has_stood_long_enough() {
        let cause =
            |what: &str| Some(Cause { what: what.to_owned(), evidence: "line".to_owned(), fix: "fix".to_owned() });
        let l = Lasting::default();
        assert!(l.borne("g1", cause("a"), 0).is_none() && l.borne("g1", cause("a"), 100_000).is_none());
        assert!(l.borne("g2", cause("a"), 180_000).is_none(), "another node has its own time");
        assert!(l.borne("g1", cause("b"), 180_000).is_none(), "another cause, too");
        assert!(l.borne("g1", None, 200_000).is_none() && l.borne("g1", cause("b"), 500_000).is_none());
        let e = l.borne("g1", cause("b"), 700_000).unwrap();
        assert!(e.message.contains("g1") && e.message.contains('b') && e.causes == ["line"], "{e}");
    }

    #[test]
    fn pods_say_what_they_wait_for() {
        let waits = json!({"status": {"containerStatuses": [{"name": "d", "image": "nvcr.io/nvidia/driver:999", "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}]}});
        assert_eq!(missing_image(&waits).unwrap().0, "nvcr.io/nvidia/driver:999");
        assert!(!crashes(&waits));
        let ends = json!({"status": {"containerStatuses": [{"ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        assert!(crashes(&ends) && missing_image(&ends).is_none());
    }
}
