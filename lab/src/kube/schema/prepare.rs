//! What strategies and admission make of an object after it has its defaults: none of it is managed by who sent it.
//! Grade: source (pkg/registry/core, plugin/pkg/admission).
use serde_json::{Value, json};

use super::defaults::{self, set};
use super::{Kind, allocate, nodes, typed};
use crate::kube::store::{Failure, Store, meta};
use crate::kube::text::arr;

/// Drops what nobody says of a new object: how it is. Nodes say it themselves.
pub fn unasked(kind: &Kind, obj: &mut Value) {
    if kind.status
        && kind.kind != "Node"
        && let Some(m) = obj.as_object_mut()
    {
        m.shift_remove("status");
    }
}

/// Prepares a new object.
///
/// # Errors
/// 422 for a service that asks for what it cannot have.
pub fn created(store: &mut Store, kind: &Kind, obj: &mut Value) -> Result<(), Failure> {
    if kind.custom {
        return Ok(());
    }
    let mut done = Ok(());
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Namespace") => {
            let own = json!("kubernetes");
            match obj["spec"]["finalizers"].as_array_mut() {
                Some(all) if all.contains(&own) => {}
                Some(all) => all.push(own),
                None => obj["spec"]["finalizers"] = json!([own]),
            }
        }
        ("", "Pod") => pod(store.now_ms(), obj),
        ("", "Service") => done = allocate::give(store, obj, None),
        ("", "PersistentVolumeClaim") => {
            sources(obj, None);
            class(store, obj);
            protect(obj, "kubernetes.io/pvc-protection");
        }
        ("", "PersistentVolume") => {
            protect(obj, "kubernetes.io/pv-protection");
            set(&mut obj["status"], "lastPhaseTransitionTime", meta::time(store.now_ms()).into());
        }
        _ => return Ok(()),
    }
    typed::complete(kind, obj);
    done.map_err(|causes| Failure::invalid(kind, meta::name(obj), &causes))
}

/// Prepares a changed object.
///
/// # Errors
/// As [`created`].
pub fn updated(store: &mut Store, kind: &Kind, old: &Value, obj: &mut Value, sub: &str) -> Result<(), Failure> {
    if kind.custom || !kind.group.is_empty() {
        return Ok(());
    }
    if kind.kind == "PersistentVolume" && sub == "status" && old["status"]["phase"] != obj["status"]["phase"] {
        obj["status"]["lastPhaseTransitionTime"] = meta::time(store.now_ms()).into();
    }
    if !sub.is_empty() {
        return Ok(());
    }
    match kind.kind.as_str() {
        "Namespace" => {
            set_as(&mut obj["spec"], &old["spec"], "finalizers");
            Ok(())
        }
        "PersistentVolumeClaim" => {
            sources(obj, Some(old));
            Ok(())
        }
        "Service" => {
            let done = allocate::give(store, obj, Some(old));
            allocate::retyped(obj, old);
            done.map_err(|causes| Failure::invalid(kind, meta::name(obj), &causes))
        }
        "Pod" => {
            for f in ["priority", "preemptionPolicy"] {
                set(&mut obj["spec"], f, old["spec"][f].clone());
            }
            defaults::tidy(&mut obj["spec"]);
            tolerances(obj);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// How a new pod is.
fn pod(now_ms: u64, obj: &mut Value) {
    set(&mut obj["status"], "phase", "Pending".into());
    let class = defaults::quality(obj);
    set(&mut obj["status"], "qosClass", class.into());
    if !arr(obj, "/spec/schedulingGates").is_empty() && arr(obj, "/status/conditions").is_empty() {
        obj["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "lastProbeTime": null,
            "lastTransitionTime": meta::time(now_ms), "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
    }
}

/// How long pods stay on nodes that are not well, where they do not say it.
pub fn tolerances(obj: &mut Value) {
    const SECONDS: u64 = 300;
    let missing = |taint: &str| {
        let of = |t: &Value, f: &str| t[f].as_str().unwrap_or_default().to_owned();
        let bears = |t: &Value| {
            (of(t, "key") == taint || of(t, "key").is_empty()) && matches!(of(t, "effect").as_str(), "" | "NoExecute")
        };
        !arr(obj, "/spec/tolerations").iter().any(bears)
    };
    let more: Vec<Value> = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .into_iter()
        .filter(|t| missing(t))
        .map(|k| json!({"key": k, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}))
        .collect();
    match obj["spec"]["tolerations"].as_array_mut() {
        _ if more.is_empty() => {}
        Some(all) => all.extend(more),
        None => obj["spec"]["tolerations"] = more.into(),
    }
}

/// Lets a field be as it was.
fn set_as(at: &mut Value, was: &Value, field: &str) {
    match was.get(field) {
        Some(v) => at[field] = v.clone(),
        None => drop(at.as_object_mut().and_then(|m| m.shift_remove(field))),
    }
}

/// Lets both ways of naming where a claim's data is from say the same; what the older one cannot name is dropped.
fn sources(obj: &mut Value, old: Option<&Value>) {
    let spec = &mut obj["spec"];
    let told = |spec: &Value| ["dataSource", "dataSourceRef"].map(|f| spec[f].is_object());
    if told(spec) == [true, false] && old.is_none_or(|o| told(&o["spec"]) == [false, false]) {
        let of = (spec["dataSource"]["apiGroup"].as_str().unwrap_or_default(), &spec["dataSource"]["kind"]);
        let known = [("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot")];
        if !known.iter().any(|k| of.0 == k.0 && of.1 == k.1) {
            spec.as_object_mut().map(|m| m.shift_remove("dataSource"));
        }
    }
    let full = |r: &Value| json!({"apiGroup": r["apiGroup"], "kind": r["kind"], "name": r["name"]});
    match told(spec) {
        [true, false] => spec["dataSourceRef"] = full(&spec["dataSource"]),
        [false, true] if spec["dataSourceRef"]["namespace"].as_str().is_none_or(str::is_empty) => {
            spec["dataSource"] = full(&spec["dataSourceRef"]);
        }
        _ => {}
    }
    defaults::tidy(spec);
}

/// Keeps pods off a new node until it is seen to be ready.
pub fn admitted(kind: &Kind, obj: &mut Value) {
    if kind.group.is_empty() && kind.kind == "Node" {
        nodes::tainted(obj);
    }
}

/// Gives a claim that names no class the common one.
fn class(store: &Store, obj: &mut Value) {
    const BETA: &str = "volume.beta.kubernetes.io/storage-class";
    if !obj["spec"]["storageClassName"].is_null() || meta::annotation(obj, BETA).is_some() {
        return;
    }
    let common = |c: &Value| meta::annotation(c, "storageclass.kubernetes.io/is-default-class") == Some("true");
    if let Some(c) = store.all("storageclasses.storage.k8s.io", "").find(|c| common(c)) {
        obj["spec"]["storageClassName"] = meta::name(c).into();
    }
    defaults::tidy(&mut obj["spec"]);
}

/// A finalizer that the controller takes off again when nobody uses the object.
fn protect(obj: &mut Value, finalizer: &str) {
    if meta::finalizers(obj).contains(&finalizer) {
        return;
    }
    match obj["metadata"]["finalizers"].as_array_mut() {
        Some(all) => all.push(finalizer.into()),
        None => obj["metadata"]["finalizers"] = json!([finalizer]),
    }
}
