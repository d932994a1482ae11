//! StatefulSets: ordinals, claims from templates, ordered start.
use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::text::{arr, s};
use super::{pods, progress, revisions};

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
    let hash = revisions::hash(cx, &set);
    let update = format!("{name}-{hash}");
    revisions::ensure(cx, &set, ns, &update, ("controller.kubernetes.io/hash", &hash));
    let known = s(&set, "/status/currentRevision");
    let plan = Plan {
        current: if known.is_empty() { update.clone() } else { known.to_owned() },
        update,
        partition: set["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_i64().unwrap_or(0),
    };
    let first = first(&set);
    keep_claims(cx, &set, ns);
    let mut settled = true;
    for i in first..first + want {
        let pod_name = format!("{name}-{i}");
        match cx.get("pods", ns, &pod_name).cloned() {
            None => create(cx, &set, ns, &pod_name, i, &plan),
            Some(p) if !pods::is_active(&p) && p["metadata"]["deletionTimestamp"].is_null() => {
                cx.delete_pod(&set, &pod_name, CONTROLLER);
            }
            Some(_) => {}
        }
        let (now, min) = (cx.now(), set["spec"]["minReadySeconds"].as_u64().unwrap_or(0));
        if cx.get("pods", ns, &pod_name).is_none_or(|p| pods::until_available(p, min, now) != Some(0)) {
            settled = false;
            if !parallel {
                break;
            }
        }
    }
    let gone = shrink(cx, &set, ns, want, parallel);
    if (settled && gone || parallel) && s(&set, "/spec/updateStrategy/type") != "OnDelete" {
        roll(cx, &set, ns, want, &plan);
    }
    status(cx, ns, name, &uid, &plan, want);
}

/// The ordinal of the first pod.
fn first(set: &Value) -> i64 {
    set["spec"]["ordinals"]["start"].as_i64().unwrap_or(0)
}

/// Who owns the claims of the pods, by what is to become of them when the set is deleted or made smaller.
fn keep_claims(cx: &mut Cx, set: &Value, ns: &str) {
    let policy = |f: &str| set["spec"]["persistentVolumeClaimRetentionPolicy"][f] == "Delete";
    let (deleted, scaled) = (policy("whenDeleted"), policy("whenScaled"));
    let last = first(set) + set["spec"]["replicas"].as_i64().unwrap_or(1);
    let (name, uid) = (s(set, "/metadata/name"), &set["metadata"]["uid"]);
    for t in arr(set, "/spec/volumeClaimTemplates") {
        let prefix = format!("{}-{name}-", s(t, "/metadata/name"));
        let claims: Vec<(String, i64)> = cx
            .list_in("persistentvolumeclaims", ns)
            .into_iter()
            .filter_map(|c| {
                let n = s(c, "/metadata/name");
                Some((n.to_owned(), n.strip_prefix(&prefix)?.parse().ok()?))
            })
            .collect();
        for (claim, i) in claims {
            let pod = cx.get("pods", ns, &format!("{name}-{i}")).cloned();
            // a claim beyond the last replica goes with its pod
            let owner = match (i >= last && scaled, deleted) {
                (true, _) => pod.as_ref().map(|p| reference("v1", "Pod", p)),
                (false, true) => Some(reference("apps/v1", "StatefulSet", set)),
                _ => None,
            };
            cx.update("persistentvolumeclaims", ns, &claim, |c| {
                let mut list = arr(c, "/metadata/ownerReferences").to_vec();
                list.retain(|r| r["uid"] != *uid && !(r["kind"] == "Pod" && r["name"] == format!("{name}-{i}")));
                list.extend(owner);
                if list.is_empty() {
                    c["metadata"].as_object_mut().and_then(|m| m.shift_remove("ownerReferences"));
                } else {
                    c["metadata"]["ownerReferences"] = Value::Array(list);
                }
            });
        }
    }
}

fn reference(version: &str, kind: &str, o: &Value) -> Value {
    json!({"apiVersion": version, "kind": kind, "name": o["metadata"]["name"], "uid": o["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true})
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
        .filter(|p| !(first(set)..first(set) + want).contains(&p.0))
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
    let min = set["spec"]["minReadySeconds"].as_u64().unwrap_or(0);
    for i in (first(set) + plan.partition..first(set) + want).rev() {
        let pod_name = format!("{}-{i}", s(set, "/metadata/name"));
        let Some(p) = cx.get("pods", ns, &pod_name) else { return };
        if s(p, "/metadata/labels/controller-revision-hash") != plan.update {
            if p["metadata"]["deletionTimestamp"].is_null() {
                cx.delete_pod(set, &pod_name, CONTROLLER);
            }
            return;
        }
        if pods::until_available(p, min, cx.now()) != Some(0) {
            return;
        }
    }
}

fn create(cx: &mut Cx, set: &Value, ns: &str, pod_name: &str, i: i64, plan: &Plan) {
    let revision = if i >= first(set) + plan.partition { &plan.update } else { &plan.current };
    let template = revisions::template(cx, ns, revision).unwrap_or_else(|| set["spec"]["template"].clone());
    let labels = [
        ("controller-revision-hash", revision.as_str()),
        ("statefulset.kubernetes.io/pod-name", pod_name),
        ("apps.kubernetes.io/pod-index", &i.to_string()),
    ];
    let prefix = format!("{}-", s(set, "/metadata/name"));
    let mut pod = pods::of_template(set, &template, pod_name, &prefix, &labels);
    for t in arr(set, "/spec/volumeClaimTemplates") {
        let claim = format!("{}-{pod_name}", s(t, "/metadata/name"));
        if cx.get("persistentvolumeclaims", ns, &claim).is_none() {
            let mut meta = t["metadata"].clone();
            (meta["name"], meta["namespace"]) = (json!(claim), json!(ns));
            for (k, v) in set["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten() {
                meta["labels"][k] = v.clone();
            }
            cx.create(
                json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": t["spec"]}),
            );
            let owner = s(set, "/metadata/name");
            let create = cx.verb("create");
            let text = format!("{create} Claim {claim} Pod {pod_name} in StatefulSet {owner} success");
            cx.event(set, true, "SuccessfulCreate", &text, CONTROLLER);
        }
        let volume = json!({"name": t["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim}});
        match pod["spec"]["volumes"].as_array_mut() {
            Some(list) => list.push(volume),
            None => pod["spec"]["volumes"] = json!([volume]),
        }
    }
    pod["spec"]["hostname"] = json!(pod_name);
    if !s(set, "/spec/serviceName").is_empty() {
        pod["spec"]["subdomain"] = set["spec"]["serviceName"].clone();
    }
    // A refusal is in the events; the set tries again when something changes.
    cx.create_pod(set, pod, CONTROLLER).ok();
}

fn status(cx: &mut Cx, ns: &str, name: &str, uid: &str, plan: &Plan, want: i64) {
    let (mut total, mut updated, mut current) = (0, 0, 0);
    let min = cx.get(SETS, ns, name).and_then(|o| o["spec"]["minReadySeconds"].as_u64()).unwrap_or(0);
    let (ready, available) = pods::counted(cx, SETS, (ns, name), uid, min);
    for p in pods::owned(cx, ns, uid).into_iter().filter(|p| pods::is_active(p)) {
        total += 1;
        let revision = s(p, "/metadata/labels/controller-revision-hash");
        updated += i64::from(revision == plan.update);
        current += i64::from(revision == plan.current);
    }
    let rolls = cx.get(SETS, ns, name).is_some_and(|o| s(o, "/spec/updateStrategy/type") != "OnDelete");
    let done = rolls && updated == want && ready == want && total == want;
    let (now, count) = if done { (&plan.update, updated) } else { (&plan.current, current) };
    cx.update(SETS, ns, name, |o| {
        o["status"]["observedGeneration"] = o["metadata"]["generation"].clone();
        progress::counts(&mut o["status"], [total, ready, available, updated, 0]);
        o["status"]["replicas"] = json!(total);
        o["status"]["availableReplicas"] = json!(available);
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
