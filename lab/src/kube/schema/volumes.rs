//! Rules of persistent volumes and of claims. Grade: source (pkg/apis/core/validation).
use serde_json::Value;

use super::names;
use super::rules::{forbidden, one_of};
use super::validate::judged;
use crate::kube::store::Cause;
use crate::kube::text::{arr, milli, s, shown};

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// What a volume may be made of.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn modes(spec: &Value, at: &str, out: &mut Vec<Cause>) {
    let list = arr(spec, "/accessModes");
    let field = format!("{at}.accessModes");
    list.iter().for_each(|m| one_of(field.clone(), m, MODES, out));
    let lone = |m: &Value| m == "ReadWriteOncePod";
    if list.len() > 1 && list.iter().any(lone) {
        out.push(forbidden(&field, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn class(spec: &Value, out: &mut Vec<Cause>) {
    match s(spec, "/storageClassName") {
        "" => {}
        name => judged("spec.storageClassName", name, names::subdomain, out),
    }
}

fn positive(at: String, v: &Value, out: &mut Vec<Cause>) {
    if !v.is_null() && milli(v) <= 0 {
        out.push(Cause::invalid(at, &shown(v).into(), "must be greater than zero"));
    }
}

/// Checks a volume.
pub(super) fn volume(spec: &Value, out: &mut Vec<Cause>) {
    if arr(spec, "/accessModes").is_empty() {
        out.push(Cause::required("spec.accessModes", ""));
    }
    modes(spec, "spec", out);
    match spec["capacity"].as_object().filter(|c| !c.is_empty()) {
        None => {
            out.push(Cause::required("spec.capacity", ""));
            let shown = if spec["capacity"].is_object() { &spec["capacity"] } else { &Value::Null };
            out.push(Cause::unsupported("spec.capacity", shown, &["storage".to_owned()]));
        }
        Some(c) if c.len() > 1 || !c.contains_key("storage") => {
            let mut keys: Vec<_> = c.iter().collect();
            keys.sort_by_key(|e| e.0);
            let shown = keys.into_iter().map(|(k, v)| (k.clone(), v.clone())).collect::<serde_json::Map<_, _>>();
            out.push(Cause::unsupported("spec.capacity", &shown.into(), &["storage".to_owned()]));
        }
        Some(c) => c.iter().for_each(|(k, v)| positive(format!("spec.capacity[{k}]"), v, out)),
    }
    let policies = ["Delete", "Recycle", "Retain"];
    one_of("spec.persistentVolumeReclaimPolicy".into(), &spec["persistentVolumeReclaimPolicy"], &policies, out);
    if spec["nodeAffinity"].is_object() {
        let at = "spec.nodeAffinity.required";
        if !spec["nodeAffinity"]["required"].is_object() {
            out.push(Cause::required(at, "must specify required node constraints"));
        } else {
            super::podplace::node_selector(&spec["nodeAffinity"]["required"], at, out);
        }
    }
    let sources: Vec<&str> = SOURCES.iter().copied().filter(|k| spec[*k].is_object()).collect();
    for more in sources.iter().skip(1) {
        out.push(forbidden(&format!("spec.{more}"), "may not specify more than 1 volume type"));
    }
    match sources.first() {
        None => out.push(Cause::required("spec", "must specify a volume type")),
        Some(k) => source(k, spec, out),
    }
    class(spec, out);
    one_of("spec.volumeMode".into(), &spec["volumeMode"], &["Block", "Filesystem"], out);
    if spec["volumeAttributesClassName"].is_string() && !spec["csi"].is_object() {
        out.push(Cause::required("spec.csi", "has to be specified when using volumeAttributesClassName"));
    }
}

fn source(k: &str, spec: &Value, out: &mut Vec<Cause>) {
    let path = s(spec, &format!("/{k}/path"));
    let at = format!("spec.{k}.path");
    if matches!(k, "hostPath" | "local") && path.split('/').any(|p| p == "..") {
        out.push(Cause::invalid(at, &path.into(), "must not contain '..'"));
    } else if k == "nfs" && !path.is_empty() && !path.starts_with('/') {
        out.push(Cause::invalid(at, &path.into(), "must be an absolute path"));
    }
    if k == "nfs" && spec["nfs"]["server"] == "" {
        out.push(Cause::required("spec.nfs.server", ""));
    }
    if k == "local" && !spec["nodeAffinity"].is_object() {
        out.push(Cause::required("spec.nodeAffinity", "Local volume requires node affinity"));
    }
    if k == "hostPath" && path == "/" && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        out.push(forbidden("spec.persistentVolumeReclaimPolicy", why));
    }
}

/// Checks a claim.
pub(super) fn claim(spec: &Value, at: &str, out: &mut Vec<Cause>) {
    super::validate::selector(&spec["selector"], &format!("{at}.selector"), out);
    if arr(spec, "/accessModes").is_empty() {
        out.push(Cause::required(format!("{at}.accessModes"), "at least 1 access mode is required"));
    }
    modes(spec, at, out);
    let (field, size) = (format!("{at}.resources[storage]"), &spec["resources"]["requests"]["storage"]);
    if size.is_null() {
        out.push(Cause::required(field, ""));
    } else {
        positive(field, size, out);
    }
    match s(spec, "/storageClassName") {
        "" => {}
        name => judged(format!("{at}.storageClassName"), name, names::subdomain, out),
    }
    one_of(format!("{at}.volumeMode"), &spec["volumeMode"], &["Block", "Filesystem"], out);
    for field in ["dataSource", "dataSourceRef"].into_iter().filter(|f| spec[*f].is_object()) {
        source_of(&spec[field], &format!("{at}.{field}"), out);
    }
    let (from, by) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if from.is_object() && by.is_object() {
        let other = |f: &str| s(from, f) != s(by, f);
        if !s(by, "/namespace").is_empty() {
            let why = "may not be specified when dataSourceRef.namespace is specified";
            out.push(Cause::invalid(at, &serde_json::json!({}), why));
        } else if ["/apiGroup", "/kind", "/name"].iter().any(|f| other(f)) {
            out.push(Cause::invalid(at, &serde_json::json!({}), "must match dataSourceRef"));
        }
    }
    match s(spec, "/volumeAttributesClassName") {
        "" => {}
        name => judged(format!("{at}.volumeAttributesClassName"), name, names::subdomain, out),
    }
}

/// Where a claim's data is from.
fn source_of(r: &Value, at: &str, out: &mut Vec<Cause>) {
    for f in ["name", "kind"].into_iter().filter(|f| s(r, &format!("/{f}")).is_empty()) {
        out.push(Cause::required(format!("{at}.{f}"), ""));
    }
    let group = s(r, "/apiGroup");
    if !group.is_empty() {
        judged(format!("{at}.apiGroup"), group, names::subdomain, out);
    } else if s(r, "/kind") != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        out.push(Cause::invalid(at, &s(r, "/kind").into(), why));
    }
}

/// Checks the status of a claim.
pub(super) fn claim_status(obj: &Value, out: &mut Vec<Cause>) {
    for f in ["capacity", "allocatedResources"] {
        for (k, v) in obj["status"][f].as_object().into_iter().flatten().filter(|(_, v)| milli(v) < 0) {
            let why = "must be a valid resource quantity";
            out.push(Cause::invalid(format!("status.{f}[{k}]"), &(milli(v) / 1000).into(), why));
        }
    }
}
