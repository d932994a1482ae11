//! Volumes that somebody made by hand, and the claims they fit.
use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::text::{arr, milli, s, selects};

const PVC: &str = "persistentvolumeclaims";
const PV: &str = "persistentvolumes";
/// The controller chose what is bound, nobody else.
pub(super) const BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// New volumes without a claim become available.
pub(super) fn offer(cx: &mut Cx) {
    let fresh: Vec<String> = cx
        .list(PV)
        .into_iter()
        .filter(|v| {
            matches!(s(v, "/status/phase"), "" | "Pending" | "Released") && s(v, "/spec/claimRef/uid").is_empty()
        })
        .map(|v| s(v, "/metadata/name").to_owned())
        .collect();
    for name in fresh {
        enters(cx, &name, "Available");
    }
}

/// A volume enters a phase; it says since when.
pub(super) fn enters(cx: &mut Cx, volume: &str, phase: &str) {
    let stamp = cx.stamp();
    cx.update(PV, "", volume, |o| {
        if o["status"]["phase"] != phase {
            o["status"] = json!({"phase": phase, "lastPhaseTransitionTime": stamp});
        }
    });
}

fn fits(claim: &Value, v: &Value) -> bool {
    let name = s(v, "/metadata/name");
    let r = &v["spec"]["claimRef"];
    if r.is_object() {
        let same = r["name"] == claim["metadata"]["name"] && r["namespace"] == claim["metadata"]["namespace"];
        let uid = s(r, "/uid");
        if !same || !uid.is_empty() && r["uid"] != claim["metadata"]["uid"] {
            return false;
        }
    } else if s(v, "/status/phase") != "Available" {
        return false;
    }
    let asked = s(claim, "/spec/volumeName");
    if !asked.is_empty() && asked != name {
        return false;
    }
    let modes = arr(claim, "/spec/accessModes").iter().all(|m| arr(v, "/spec/accessModes").contains(m));
    let size = milli(&v["spec"]["capacity"]["storage"]) >= milli(&claim["spec"]["resources"]["requests"]["storage"]);
    let selector = &claim["spec"]["selector"];
    let chosen = !selector.is_object() || selects(selector, &v["metadata"]["labels"]);
    s(v, "/spec/storageClassName") == s(claim, "/spec/storageClassName") && modes && size && chosen
}

/// Binds a claim to the smallest volume that fits; says whether there was one.
pub(super) fn bind(cx: &mut Cx, claim: &Value) -> bool {
    if !claim["spec"]["dataSource"].is_null() {
        return false;
    }
    let best = cx
        .list(PV)
        .into_iter()
        .filter(|v| v["metadata"]["deletionTimestamp"].is_null() && fits(claim, v))
        .min_by_key(|v| milli(&v["spec"]["capacity"]["storage"]))
        .cloned();
    let Some(v) = best else { return false };
    let (ns, name) = key(claim);
    let volume = s(&v, "/metadata/name").to_owned();
    let reference = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": ns, "name": name,
        "uid": claim["metadata"]["uid"], "resourceVersion": claim["metadata"]["resourceVersion"]});
    let named = !s(claim, "/spec/volumeName").is_empty();
    cx.update(PV, "", &volume, |o| {
        // Whoever chose says so.
        if o["spec"]["claimRef"].is_null() {
            o["metadata"]["annotations"][BY_CONTROLLER] = json!("yes");
        }
        o["spec"]["claimRef"] = reference;
    });
    enters(cx, &volume, "Bound");
    cx.update(PVC, &ns, &name, |o| {
        if !named {
            o["metadata"]["annotations"][BY_CONTROLLER] = json!("yes");
        }
        o["spec"]["volumeName"] = json!(volume);
        o["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
        o["status"] =
            json!({"phase": "Bound", "accessModes": v["spec"]["accessModes"], "capacity": v["spec"]["capacity"]});
    });
    true
}
