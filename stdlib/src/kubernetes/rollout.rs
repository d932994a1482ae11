//! How far the rollout of a workload is, as `kubectl rollout status` tells it.
use serde_json::Value;

use super::wait::condition;

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollout {
    /// Every replica is of the newest template and available.
    Done,
    /// What is still missing.
    Pending(String),
    /// Waiting will not help.
    Stuck(String),
}

fn n(v: &Value) -> i64 {
    v.as_i64().unwrap_or(0)
}

/// Looks at a Deployment, a StatefulSet or a DaemonSet.
#[must_use]
pub fn rollout(w: &Value) -> Rollout {
    let (spec, status) = (&w["spec"], &w["status"]);
    let kind = w["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet") {
        return Rollout::Stuck(format!("a {kind} has no rollout: Deployment, StatefulSet and DaemonSet have one"));
    }
    let strategy = spec["updateStrategy"]["type"].as_str().unwrap_or("RollingUpdate");
    if kind != "Deployment" && strategy != "RollingUpdate" {
        return Rollout::Stuck(format!(
            "its update strategy is {strategy}: pods are replaced when somebody deletes them"
        ));
    }
    if n(&status["observedGeneration"]) < n(&w["metadata"]["generation"]) {
        return Rollout::Pending("the change is not looked at yet".to_owned());
    }
    let found = match kind {
        "Deployment" => deployment(w),
        "DaemonSet" => daemonset(status),
        _ => statefulset(spec, status),
    };
    found.unwrap_or(Rollout::Done)
}

fn deployment(w: &Value) -> Option<Rollout> {
    let (spec, status) = (&w["spec"], &w["status"]);
    if let Some((_, why)) = condition(w, "Progressing").filter(|(_, why)| why.starts_with("ProgressDeadlineExceeded")) {
        return Some(Rollout::Stuck(why));
    }
    let (want, updated) = (spec["replicas"].as_i64().unwrap_or(1), n(&status["updatedReplicas"]));
    let (all, available) = (n(&status["replicas"]), n(&status["availableReplicas"]));
    if updated < want {
        return Some(Rollout::Pending(format!("{updated} of {want} new replicas are made")));
    }
    if all > updated {
        return Some(Rollout::Pending(format!("{} old replicas are not gone yet", all - updated)));
    }
    (available < updated).then(|| Rollout::Pending(format!("{available} of {updated} new replicas are available")))
}

fn daemonset(status: &Value) -> Option<Rollout> {
    let (want, updated) = (n(&status["desiredNumberScheduled"]), n(&status["updatedNumberScheduled"]));
    let available = n(&status["numberAvailable"]);
    if updated < want {
        return Some(Rollout::Pending(format!("{updated} of {want} nodes have the new pod")));
    }
    (available < want).then(|| Rollout::Pending(format!("{available} of {want} pods are available")))
}

fn statefulset(spec: &Value, status: &Value) -> Option<Rollout> {
    let want = spec["replicas"].as_i64().unwrap_or(1);
    let (ready, updated) = (n(&status["readyReplicas"]), n(&status["updatedReplicas"]));
    if ready < want {
        return Some(Rollout::Pending(format!("{ready} of {want} pods are ready")));
    }
    if let Some(partition) = spec["updateStrategy"]["rollingUpdate"]["partition"].as_i64().filter(|p| *p > 0) {
        let part = want - partition;
        return (updated < part)
            .then(|| Rollout::Pending(format!("{updated} of {part} pods of the partition are new")));
    }
    (status["updateRevision"] != status["currentRevision"])
        .then(|| Rollout::Pending(format!("{updated} of {want} pods are new")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(kind: &str, spec: Value, status: Value) -> Value {
        json!({"kind": kind, "metadata": {"generation": 2}, "spec": spec, "status": status})
    }

    fn pending(kind: &str, spec: Value, status: Value, words: &str) {
        match rollout(&object(kind, spec, status)) {
            Rollout::Pending(text) => assert!(text.contains(words), "{text}"),
            other => panic!("{other:?}, not `{words}`"),
        }
    }

    #[test]
    fn a_deployment_is_done_when_no_old_replica_is_left_and_the_new_ones_are_available() {
        let two = json!({"replicas": 2});
        // the old pods are all available: `condition=Available` would be true here
        let old = json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        pending("Deployment", two.clone(), old, "not looked at");
        let seen = |replicas: i64, updated: i64, available: i64| json!({"observedGeneration": 2, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available});
        pending("Deployment", two.clone(), seen(3, 1, 2), "1 of 2 new");
        pending("Deployment", two.clone(), seen(3, 2, 3), "1 old replicas");
        pending("Deployment", two.clone(), seen(2, 2, 1), "1 of 2 new replicas are available");
        assert_eq!(rollout(&object("Deployment", two.clone(), seen(2, 2, 2))), Rollout::Done);
        let mut stuck = object("Deployment", two, seen(3, 1, 2));
        stuck["status"]["conditions"] = json!([{"type": "Progressing", "status": "False",
            "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet \"web-1\" has timed out progressing."}]);
        assert!(matches!(rollout(&stuck), Rollout::Stuck(why) if why.contains("has timed out progressing")));
    }

    #[test]
    fn sets_have_their_own_counters() {
        let daemons = |updated: i64, available: i64| json!({"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": updated, "numberAvailable": available});
        pending("DaemonSet", json!({}), daemons(1, 3), "1 of 3 nodes");
        pending("DaemonSet", json!({}), daemons(3, 2), "2 of 3 pods");
        assert_eq!(rollout(&object("DaemonSet", json!({}), daemons(3, 3))), Rollout::Done);
        let by_hand = json!({"updateStrategy": {"type": "OnDelete"}});
        assert!(matches!(rollout(&object("DaemonSet", by_hand, daemons(3, 3))), Rollout::Stuck(_)));
        let stateful = |ready: i64, updated: i64, revision: &str| {
            json!({"observedGeneration": 2, "readyReplicas": ready, "updatedReplicas": updated,
                "currentRevision": "a", "updateRevision": revision})
        };
        let three = json!({"replicas": 3});
        pending("StatefulSet", three.clone(), stateful(2, 1, "b"), "2 of 3 pods are ready");
        pending("StatefulSet", three.clone(), stateful(3, 1, "b"), "1 of 3 pods are new");
        assert_eq!(rollout(&object("StatefulSet", three, stateful(3, 3, "a"))), Rollout::Done);
        let part = json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}});
        pending("StatefulSet", part.clone(), stateful(3, 0, "b"), "0 of 1");
        assert_eq!(rollout(&object("StatefulSet", part, stateful(3, 1, "b"))), Rollout::Done);
        assert!(matches!(rollout(&json!({"kind": "Pod"})), Rollout::Stuck(why) if why.contains("has no rollout")));
    }
}
