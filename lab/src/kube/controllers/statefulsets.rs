//! StatefulSets: ordinals, claims from templates, ordered start.
use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::text::{arr, hash_name, s};
use super::{deployments, pods};

const SETS: &str = "statefulsets.apps";

/// Brings a StatefulSet's pods and status up to date.
pub fn reconcile(cx: &mut Cx, ns: &str, name: &str) {
    let Some(set) = cx.get(SETS, ns, name).cloned() else { return };
    if !set["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let uid = s(&set, "/metadata/uid").to_owned();
    let want = set["spec"]["replicas"].as_i64().unwrap_or(1);
    let parallel = s(&set, "/spec/podManagementPolicy") == "Parallel";
    let revision = format!("{name}-{}", hash_name(&set["spec"]["template"].to_string(), 10));
    for i in 0..want {
        let pod_name = format!("{name}-{i}");
        match cx.get("pods", ns, &pod_name).cloned() {
            None => create(cx, &set, ns, &pod_name, i, &revision),
            Some(p) if !pods::is_active(&p) => {
                if p["metadata"]["deletionTimestamp"].is_null() {
                    cx.delete("pods", ns, &pod_name);
                }
            }
            Some(p) => {
                let stale = s(&p, "/metadata/labels/controller-revision-hash") != revision;
                if stale && s(&set, "/spec/updateStrategy/type") != "OnDelete" {
                    cx.delete("pods", ns, &pod_name);
                }
            }
        }
        let ready = cx.get("pods", ns, &pod_name).is_some_and(pods::is_ready);
        if !ready && !parallel {
            break;
        }
    }
    let surplus: Vec<String> = pods::owned(cx, ns, &uid)
        .into_iter()
        .map(|p| s(p, "/metadata/name").to_owned())
        .filter(|n| n.rsplit('-').next().and_then(|i| i.parse::<i64>().ok()).is_some_and(|i| i >= want))
        .collect();
    for p in surplus {
        cx.delete("pods", ns, &p);
    }
    status(cx, ns, name, &uid, &revision, want);
}

fn create(cx: &mut Cx, set: &Value, ns: &str, pod_name: &str, i: i64, revision: &str) {
    let labels = [
        ("controller-revision-hash", revision),
        ("statefulset.kubernetes.io/pod-name", pod_name),
        ("apps.kubernetes.io/pod-index", &i.to_string()),
    ];
    let mut pod = pods::of_template(set, &set["spec"]["template"], pod_name, "", &labels);
    for t in arr(set, "/spec/volumeClaimTemplates") {
        let claim = format!("{}-{pod_name}", s(t, "/metadata/name"));
        if cx.get("persistentvolumeclaims", ns, &claim).is_none() {
            cx.create(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim, "namespace": ns, "labels": set["spec"]["selector"]["matchLabels"]}, "spec": t["spec"]}));
        }
        let volume = json!({"name": t["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim}});
        match pod["spec"]["volumes"].as_array_mut() {
            Some(list) => list.push(volume),
            None => pod["spec"]["volumes"] = json!([volume]),
        }
    }
    pod["spec"]["hostname"] = json!(pod_name);
    cx.create(pod);
}

fn status(cx: &mut Cx, ns: &str, name: &str, uid: &str, revision: &str, want: i64) {
    let (mut total, mut ready, mut updated) = (0, 0, 0);
    for p in pods::owned(cx, ns, uid).into_iter().filter(|p| pods::is_active(p)) {
        total += 1;
        ready += i64::from(pods::is_ready(p));
        updated += i64::from(s(p, "/metadata/labels/controller-revision-hash") == revision);
    }
    cx.update(SETS, ns, name, |o| {
        o["status"]["observedGeneration"] = o["metadata"]["generation"].clone();
        deployments::counts(&mut o["status"], total, ready, updated, want);
        if let Some(m) = o["status"].as_object_mut() {
            m.shift_remove("unavailableReplicas");
        }
        o["status"]["replicas"] = json!(total);
        o["status"]["currentRevision"] = json!(revision);
        o["status"]["updateRevision"] = json!(revision);
        o["status"]["collisionCount"] = json!(0);
    });
}
