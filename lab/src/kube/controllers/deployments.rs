//! Deployments and ReplicaSets.
use serde_json::{Value, json};

use super::super::cx::{Cx, owner_ref, set_condition};
use super::super::text::{arr, hash_name, s};
use super::pods;

const DEPLOYMENTS: &str = "deployments.apps";
const SETS: &str = "replicasets.apps";

fn number(v: &Value, pointer: &str, default: i64) -> i64 {
    v.pointer(pointer).and_then(Value::as_i64).unwrap_or(default)
}

fn sets_of<'a>(cx: &'a Cx, ns: &str, uid: &str) -> Vec<&'a Value> {
    cx.list_in(SETS, ns)
        .into_iter()
        .filter(|r| arr(r, "/metadata/ownerReferences").iter().any(|o| s(o, "/uid") == uid))
        .collect()
}

/// Brings a Deployment's ReplicaSets and status up to date.
pub fn deployment(cx: &mut Cx, ns: &str, name: &str) {
    let Some(d) = cx.get(DEPLOYMENTS, ns, name).cloned() else { return };
    if !d["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let uid = s(&d, "/metadata/uid").to_owned();
    let hash = hash_name(&d["spec"]["template"].to_string(), 10);
    let want = number(&d, "/spec/replicas", 1);
    let current = format!("{name}-{hash}");
    let old: Vec<(String, i64, i64)> = sets_of(cx, ns, &uid)
        .iter()
        .filter(|r| s(r, "/metadata/name") != current)
        .map(|r| (s(r, "/metadata/name").to_owned(), number(r, "/spec/replicas", 0), number(r, "/status/replicas", 0)))
        .collect();
    let recreate = s(&d, "/spec/strategy/type") == "Recreate";
    let old_running = old.iter().any(|o| o.2 > 0 || o.1 > 0);
    if recreate && old_running {
        old.iter().for_each(|o| scale(cx, ns, &o.0, 0));
    } else {
        current_set(cx, &d, ns, &current, &hash, want, old.len());
        let ready = cx.get(SETS, ns, &current).map_or(0, |r| number(r, "/status/readyReplicas", 0));
        if ready >= want {
            old.iter().filter(|o| o.1 > 0).for_each(|o| scale(cx, ns, &o.0, 0));
        }
    }
    status(cx, ns, name, &uid, &current, want);
}

fn scale(cx: &mut Cx, ns: &str, set: &str, n: i64) {
    cx.update(SETS, ns, set, |r| r["spec"]["replicas"] = json!(n));
}

fn current_set(cx: &mut Cx, d: &Value, ns: &str, current: &str, hash: &str, want: i64, revision: usize) {
    if let Some(r) = cx.get(SETS, ns, current) {
        if number(r, "/spec/replicas", 0) != want {
            scale(cx, ns, current, want);
        }
        return;
    }
    let mut template = d["spec"]["template"].clone();
    template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
    let mut selector = d["spec"]["selector"].clone();
    selector["matchLabels"]["pod-template-hash"] = json!(hash);
    let rev = (revision + 1).to_string();
    cx.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": current, "namespace": ns, "labels": template["metadata"]["labels"], "ownerReferences": owner_ref(d),
            "annotations": {"deployment.kubernetes.io/revision": rev, "deployment.kubernetes.io/desired-replicas": want.to_string()}},
        "spec": {"replicas": want, "selector": selector, "template": template}}));
    cx.event(
        d,
        true,
        "ScalingReplicaSet",
        &format!("Scaled up replica set {current} from 0 to {want}"),
        "deployment-controller",
    );
    cx.update(DEPLOYMENTS, ns, s(d, "/metadata/name"), |d| {
        d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!(rev)
    });
}

fn status(cx: &mut Cx, ns: &str, name: &str, uid: &str, current: &str, want: i64) {
    let (mut total, mut ready, mut updated) = (0, 0, 0);
    for r in sets_of(cx, ns, uid) {
        total += number(r, "/status/replicas", 0);
        ready += number(r, "/status/readyReplicas", 0);
        if s(r, "/metadata/name") == current {
            updated = number(r, "/status/replicas", 0);
        }
    }
    let stamp = cx.stamp();
    let current = current.to_owned();
    cx.update(DEPLOYMENTS, ns, name, |d| {
        let available = ready >= want - want / 4;
        let fresh = ready >= want && updated >= want && total == updated;
        d["status"]["observedGeneration"] = d["metadata"]["generation"].clone();
        counts(&mut d["status"], total, ready, updated, want);
        if available {
            set_condition(
                d,
                &stamp,
                "Available",
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            );
        } else {
            set_condition(
                d,
                &stamp,
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            );
        }
        if fresh {
            set_condition(
                d,
                &stamp,
                "Progressing",
                "True",
                "NewReplicaSetAvailable",
                &format!("ReplicaSet \"{current}\" has successfully progressed."),
            );
        } else {
            set_condition(
                d,
                &stamp,
                "Progressing",
                "True",
                "ReplicaSetUpdated",
                &format!("ReplicaSet \"{current}\" is progressing."),
            );
        }
        for c in d["status"]["conditions"].as_array_mut().into_iter().flatten() {
            if c["lastUpdateTime"].is_null() || c["lastTransitionTime"] == stamp.as_str() {
                c["lastUpdateTime"] = c["lastTransitionTime"].clone();
            }
        }
    });
}

/// Replica counts of a status; zeros are left out, as the API does.
pub fn counts(st: &mut Value, total: i64, ready: i64, updated: i64, want: i64) {
    for (k, v) in [
        ("replicas", total),
        ("readyReplicas", ready),
        ("availableReplicas", ready),
        ("updatedReplicas", updated),
        ("unavailableReplicas", (want - ready).max(0)),
    ] {
        if v > 0 {
            st[k] = json!(v);
        } else if let Some(m) = st.as_object_mut() {
            m.shift_remove(k);
        }
    }
}

/// Brings a ReplicaSet's pods and status up to date.
pub fn replicaset(cx: &mut Cx, ns: &str, name: &str) {
    let Some(r) = cx.get(SETS, ns, name).cloned() else { return };
    if !r["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let uid = s(&r, "/metadata/uid").to_owned();
    let want = number(&r, "/spec/replicas", 1);
    let mut active: Vec<(bool, String)> = pods::owned(cx, ns, &uid)
        .into_iter()
        .filter(|p| pods::is_active(p))
        .map(|p| (pods::is_ready(p), s(p, "/metadata/name").to_owned()))
        .collect();
    for _ in active.len() as i64..want {
        let pod = pods::of_template(&r, &r["spec"]["template"], "", &format!("{name}-"), &[]);
        if !cx.create(pod) {
            break;
        }
    }
    if active.len() as i64 > want {
        active.sort();
        let surplus = active.len() - usize::try_from(want).unwrap_or(0);
        for (_, pod) in active.drain(..surplus) {
            cx.delete("pods", ns, &pod);
        }
    }
    let (mut total, mut ready) = (0, 0);
    for p in pods::owned(cx, ns, &uid).into_iter().filter(|p| pods::is_active(p)) {
        total += 1;
        ready += i64::from(pods::is_ready(p));
    }
    cx.update(SETS, ns, name, |r| {
        r["status"]["observedGeneration"] = r["metadata"]["generation"].clone();
        r["status"]["replicas"] = json!(total);
        for (k, v) in [("fullyLabeledReplicas", total), ("readyReplicas", ready), ("availableReplicas", ready)] {
            if v > 0 {
                r["status"][k] = json!(v);
            } else if let Some(m) = r["status"].as_object_mut() {
                m.shift_remove(k);
            }
        }
    });
}
