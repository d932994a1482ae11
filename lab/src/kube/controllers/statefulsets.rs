//! StatefulSets: ordinals, claims from templates, ordered start.
use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::text::{arr, hash_name, ordered, s};
use super::{deployments, pods, revisions};

const SETS: &str = "statefulsets.apps";
const CONTROLLER: &str = "statefulset-controller";

/// The two revisions of a set and where the newer one begins.
struct Plan {
    current: String,
    update: String,
    partition: i64,
}

/// Brings a StatefulSet's pods and status up to date.
pub fn reconcile(cx: &mut Cx, ns: &str, name: &str) {
    let Some(set) = cx.get(SETS, ns, name).cloned() else { return };
    if !set["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let uid = s(&set, "/metadata/uid").to_owned();
    let want = set["spec"]["replicas"].as_i64().unwrap_or(1);
    let parallel = s(&set, "/spec/podManagementPolicy") == "Parallel";
    let hash = hash_name(&ordered(&set["spec"]["template"]), 10);
    let update = format!("{name}-{hash}");
    revisions::ensure(cx, &set, ns, &update, &hash);
    let known = s(&set, "/status/currentRevision");
    let plan = Plan {
        current: if known.is_empty() { update.clone() } else { known.to_owned() },
        update,
        partition: set["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_i64().unwrap_or(0),
    };
    let mut settled = true;
    for i in 0..want {
        let pod_name = format!("{name}-{i}");
        match cx.get("pods", ns, &pod_name).cloned() {
            None => create(cx, &set, ns, &pod_name, i, &plan),
            Some(p) if !pods::is_active(&p) && p["metadata"]["deletionTimestamp"].is_null() => {
                cx.delete_pod(&set, &pod_name, CONTROLLER);
            }
            Some(_) => {}
        }
        if !cx.get("pods", ns, &pod_name).is_some_and(pods::is_ready) {
            settled = false;
            if !parallel {
                break;
            }
        }
    }
    let gone = shrink(cx, &set, ns, want, parallel);
    if settled && gone && s(&set, "/spec/updateStrategy/type") != "OnDelete" {
        roll(cx, &set, ns, want, &plan);
    }
    status(cx, ns, name, &uid, &plan, want);
}

fn ordinal(pod: &str) -> Option<i64> {
    pod.rsplit('-').next().and_then(|i| i.parse().ok())
}

/// Pods beyond the wanted number go, the highest first; true when there are none.
fn shrink(cx: &mut Cx, set: &Value, ns: &str, want: i64, parallel: bool) -> bool {
    let mut surplus: Vec<(i64, String, bool)> = pods::owned(cx, ns, s(set, "/metadata/uid"))
        .into_iter()
        .filter_map(|p| {
            let name = s(p, "/metadata/name").to_owned();
            Some((ordinal(&name)?, name, p["metadata"]["deletionTimestamp"].is_null()))
        })
        .filter(|p| p.0 >= want)
        .collect();
    surplus.sort_by_key(|p| std::cmp::Reverse(p.0));
    let busy = surplus.iter().any(|p| !p.2);
    for (_, pod, _) in surplus.iter().filter(|p| p.2).take(if parallel { usize::MAX } else { usize::from(!busy) }) {
        cx.delete_pod(set, pod, CONTROLLER);
    }
    surplus.is_empty()
}

/// The highest pod of an older revision is replaced once all above it are ready.
fn roll(cx: &mut Cx, set: &Value, ns: &str, want: i64, plan: &Plan) {
    for i in (plan.partition..want).rev() {
        let pod_name = format!("{}-{i}", s(set, "/metadata/name"));
        let Some(p) = cx.get("pods", ns, &pod_name) else { return };
        if s(p, "/metadata/labels/controller-revision-hash") != plan.update {
            if p["metadata"]["deletionTimestamp"].is_null() {
                cx.delete_pod(set, &pod_name, CONTROLLER);
            }
            return;
        }
        if !pods::is_ready(p) {
            return;
        }
    }
}

fn create(cx: &mut Cx, set: &Value, ns: &str, pod_name: &str, i: i64, plan: &Plan) {
    let revision = if i >= plan.partition { &plan.update } else { &plan.current };
    let template = revisions::template(cx, ns, revision).unwrap_or_else(|| set["spec"]["template"].clone());
    let labels = [
        ("controller-revision-hash", revision.as_str()),
        ("statefulset.kubernetes.io/pod-name", pod_name),
        ("apps.kubernetes.io/pod-index", &i.to_string()),
    ];
    let mut pod = pods::of_template(set, &template, pod_name, "", &labels);
    for t in arr(set, "/spec/volumeClaimTemplates") {
        let claim = format!("{}-{pod_name}", s(t, "/metadata/name"));
        if cx.get("persistentvolumeclaims", ns, &claim).is_none() {
            cx.create(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim, "namespace": ns, "labels": set["spec"]["selector"]["matchLabels"]}, "spec": t["spec"]}));
            let owner = s(set, "/metadata/name");
            let text = format!("create Claim {claim} Pod {pod_name} in StatefulSet {owner} success");
            cx.event(set, true, "SuccessfulCreate", &text, CONTROLLER);
        }
        let volume = json!({"name": t["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim}});
        match pod["spec"]["volumes"].as_array_mut() {
            Some(list) => list.push(volume),
            None => pod["spec"]["volumes"] = json!([volume]),
        }
    }
    pod["spec"]["hostname"] = json!(pod_name);
    // A refusal is in the events; the set tries again when something changes.
    cx.create_pod(set, pod, CONTROLLER).ok();
}

fn status(cx: &mut Cx, ns: &str, name: &str, uid: &str, plan: &Plan, want: i64) {
    let (mut total, mut ready, mut updated, mut current) = (0, 0, 0, 0);
    for p in pods::owned(cx, ns, uid).into_iter().filter(|p| pods::is_active(p)) {
        total += 1;
        ready += i64::from(pods::is_ready(p));
        let revision = s(p, "/metadata/labels/controller-revision-hash");
        updated += i64::from(revision == plan.update);
        current += i64::from(revision == plan.current);
    }
    let done = updated >= want && ready >= want && total == want;
    let (now, count) = if done { (&plan.update, updated) } else { (&plan.current, current) };
    cx.update(SETS, ns, name, |o| {
        o["status"]["observedGeneration"] = o["metadata"]["generation"].clone();
        deployments::counts(&mut o["status"], total, ready, updated, want);
        if let Some(m) = o["status"].as_object_mut() {
            m.shift_remove("unavailableReplicas");
        }
        o["status"]["replicas"] = json!(total);
        o["status"]["availableReplicas"] = json!(ready);
        o["status"]["currentRevision"] = json!(now);
        o["status"]["updateRevision"] = json!(plan.update);
        if count > 0 {
            o["status"]["currentReplicas"] = json!(count);
        } else if let Some(m) = o["status"].as_object_mut() {
            m.shift_remove("currentReplicas");
        }
        o["status"]["collisionCount"] = json!(0);
    });
}
