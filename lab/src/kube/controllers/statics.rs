//! Volumes that somebody made by hand, and the claims they fit.
use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::text::{arr, milli, s, selects};

const PVC: &str = "persistentvolumeclaims";
const PV: &str = "persistentvolumes";

/// New volumes without a claim become available.
pub(super) fn offer(cx: &mut Cx) {
    let fresh: Vec<String> = cx
        .list(PV)
        .into_iter()
        .filter(|v| matches!(s(v, "/status/phase"), "" | "Pending") && s(v, "/spec/claimRef/uid").is_empty())
        .map(|v| s(v, "/metadata/name").to_owned())
        .collect();
    for name in fresh {
        cx.update(PV, "", &name, |o| o["status"] = json!({"phase": "Available"}));
    }
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
        "uid": claim["metadata"]["uid"]});
    cx.update(PV, "", &volume, |o| {
        o["spec"]["claimRef"] = reference;
        o["status"] = json!({"phase": "Bound"});
    });
    cx.update(PVC, &ns, &name, |o| {
        o["spec"]["volumeName"] = json!(volume);
        o["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
        o["status"] =
            json!({"phase": "Bound", "accessModes": v["spec"]["accessModes"], "capacity": v["spec"]["capacity"]});
    });
    cx.c.volumes.entry(volume).or_default();
    true
}
