//! What the API server fills into pods and their templates. Grade: source (pkg/apis/core/v1/defaults.go).
use serde_json::{Value, json};

use super::defaults::{set, tidy};

/// Lists of containers of a pod.
const CONTAINERS: &[&str] = &["containers", "initContainers", "ephemeralContainers"];

/// Items of a list, to be changed; nothing is left behind where there is no list.
pub(super) fn each<'a>(v: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    v.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Sets fields of an object that is there.
fn fill(v: &mut Value, pointer: &str, fields: &[(&str, Value)]) {
    if let Some(at) = v.pointer_mut(pointer).filter(|v| v.is_object()) {
        fields.iter().for_each(|(k, d)| set(at, k, d.clone()));
    }
}

fn pull(image: &str) -> &'static str {
    match image.rsplit('/').next().unwrap_or(image).split_once([':', '@']) {
        Some((_, "latest")) | None => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// Defaults of a pod's spec, be it a template's or a pod's own.
pub(super) fn spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set(spec, "restartPolicy", "Always".into());
    set(spec, "terminationGracePeriodSeconds", 30.into());
    set(spec, "dnsPolicy", "ClusterFirst".into());
    set(spec, "securityContext", json!({}));
    set(spec, "schedulerName", "default-scheduler".into());
    // two names for one account
    let named = |f: &str, spec: &Value| spec[f].as_str().is_some_and(|n| !n.is_empty());
    if !named("serviceAccountName", spec) {
        spec["serviceAccountName"] = spec["serviceAccount"].clone();
    }
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
    for f in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[f] == false {
            spec[f] = Value::Null;
        }
    }
    for list in CONTAINERS {
        each(spec, &format!("/{list}")).for_each(container);
    }
    each(spec, "/volumes").for_each(volume);
    if let Some(m) = spec.as_object_mut() {
        m.retain(|_, v| !v.is_null());
    }
    for list in CONTAINERS {
        each(spec, &format!("/{list}")).for_each(tidy);
    }
}

/// Defaults that pods have and templates have not.
pub(super) fn own(spec: &mut Value) {
    let host = spec["hostNetwork"] == true;
    let whole = spec["resources"]["limits"].as_object().cloned().unwrap_or_default();
    for (k, v) in whole {
        if !matches!(k.as_str(), "cpu" | "memory") && !k.starts_with("hugepages-") {
            continue;
        }
        let own = |c: &Value| !c["resources"]["requests"][&k].is_null() || !c["resources"]["limits"][&k].is_null();
        if !spec["containers"].as_array().into_iter().flatten().any(own) {
            set(&mut spec["resources"]["requests"], &k, v);
        }
    }
    for list in ["/containers", "/initContainers"] {
        for c in each(spec, list) {
            let limits = c["resources"].get("limits").cloned().unwrap_or_default();
            for (k, v) in limits.as_object().into_iter().flatten() {
                set(&mut c["resources"]["requests"], k, v.clone());
            }
            for p in each(c, "/ports").filter(|_| host) {
                let port = p["containerPort"].clone();
                set(p, "hostPort", port);
            }
        }
    }
}

fn container(c: &mut Value) {
    let image = c["image"].as_str().unwrap_or_default().to_owned();
    set(c, "imagePullPolicy", pull(&image).into());
    set(c, "terminationMessagePath", "/dev/termination-log".into());
    set(c, "terminationMessagePolicy", "File".into());
    set(c, "resources", json!({}));
    each(c, "/ports").for_each(|p| set(p, "protocol", "TCP".into()));
    for e in each(c, "/env") {
        fill(e, "/valueFrom/fieldRef", &[("apiVersion", "v1".into())]);
        fill(e, "/valueFrom/resourceFieldRef", &[("divisor", "0".into())]);
        if e["value"] == "" {
            e["value"] = Value::Null;
        }
    }
    let get = [("path", "/".into()), ("scheme", "HTTP".into())];
    for probe in ["/livenessProbe", "/readinessProbe", "/startupProbe"] {
        let numbers = [
            ("timeoutSeconds", 1.into()),
            ("periodSeconds", 10.into()),
            ("successThreshold", 1.into()),
            ("failureThreshold", 3.into()),
        ];
        fill(c, probe, &numbers);
        fill(c, &format!("{probe}/httpGet"), &get);
        if let Some(path) = c.pointer_mut(&format!("{probe}/httpGet/path")).filter(|p| **p == "") {
            *path = "/".into();
        }
        fill(c, &format!("{probe}/grpc"), &[("service", "".into())]);
    }
    for hook in ["postStart", "preStop"] {
        fill(c, &format!("/lifecycle/{hook}/httpGet"), &get);
    }
}

fn volume(v: &mut Value) {
    for source in ["/configMap", "/secret", "/projected", "/downwardAPI"] {
        fill(v, source, &[("defaultMode", 420.into())]);
    }
    let reference = [("apiVersion", "v1".into())];
    let divisor = [("divisor", "0".into())];
    for i in each(v, "/downwardAPI/items") {
        fill(i, "/fieldRef", &reference);
        fill(i, "/resourceFieldRef", &divisor);
    }
    for s in each(v, "/projected/sources") {
        fill(s, "/serviceAccountToken", &[("expirationSeconds", 3600.into())]);
        each(s, "/downwardAPI/items").for_each(|i| fill(i, "/fieldRef", &reference));
    }
    if let Some(policy) = v.pointer("/image/reference").and_then(Value::as_str).map(pull) {
        fill(v, "/image", &[("pullPolicy", policy.into())]);
    }
    fill(v, "/ephemeral/volumeClaimTemplate", &[("metadata", json!({})), ("spec", json!({}))]);
    fill(v, "/ephemeral/volumeClaimTemplate/spec", &[("volumeMode", "Filesystem".into()), ("resources", json!({}))]);
    sources(v);
    if let Some(m) = v.as_object_mut() {
        m.retain(|_, v| !v.is_null());
        if m.keys().all(|k| k == "name") {
            m.insert("emptyDir".into(), json!({}));
        }
    }
}

/// Defaults of the sources that volumes of pods and persistent ones have in common.
pub(super) fn sources(v: &mut Value) {
    fill(v, "/hostPath", &[("type", "".into())]);
    fill(v, "/iscsi", &[("iscsiInterface", "default".into())]);
    fill(v, "/rbd", &[("pool", "rbd".into()), ("user", "admin".into()), ("keyring", "/etc/ceph/keyring".into())]);
    let disk = [
        ("cachingMode", "ReadWrite".into()),
        ("fsType", "ext4".into()),
        ("readOnly", false.into()),
        ("kind", "Shared".into()),
    ];
    fill(v, "/azureDisk", &disk);
    fill(v, "/scaleIO", &[("storageMode", "ThinProvisioned".into()), ("fsType", "xfs".into())]);
}
