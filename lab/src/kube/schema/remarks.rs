//! What the API server warns of in objects that it takes. Grade: source (pkg/api/pod/warnings.go, the strategies of
//! workloads and of custom resources).
use serde_json::Value;

use super::{Kind, names};
use crate::kube::store::meta;
use crate::kube::text::{arr, milli, s, shown};

/// Where a kind has the template of its pods.
fn template(kind: &Kind) -> Option<&'static str> {
    match kind.kind.as_str() {
        _ if kind.custom => None,
        "Pod" => Some(""),
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job" => Some("spec.template."),
        "CronJob" => Some("spec.jobTemplate.spec.template."),
        _ => None,
    }
}

/// The spec of an object's pods.
#[must_use]
pub fn pod_spec<'a>(kind: &Kind, obj: &'a Value) -> Option<&'a Value> {
    obj.pointer(&format!("/{}spec", template(kind)?.replace('.', "/")))
}

/// Labels of nodes that have better names by now.
const OLD_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

/// Annotations of pods without effect.
const OLD_NOTES: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// Volumes whose drivers are gone.
const OLD_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// The warnings of an object; `old` is what it was.
#[must_use]
pub fn of(kind: &Kind, obj: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    if kind.custom {
        finalizers(obj, old, &mut out);
    }
    if old.is_none() {
        dotted(kind, obj, &mut out);
    }
    own(kind, obj, old, &mut out);
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Service") => service(&obj["spec"], &mut out),
        ("", "Secret") if old.is_none() => tls(obj, &mut out),
        ("", "PersistentVolume") if obj["spec"]["persistentVolumeReclaimPolicy"] == "Recycle" => {
            out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into());
        }
        ("", "Node") if old.is_none() && !s(obj, "/spec/externalID").is_empty() => {
            out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
        }
        ("", "PersistentVolumeClaim") => {
            const BETA: &str = "volume.beta.kubernetes.io/storage-class";
            if meta::annotation(obj, BETA).is_some() {
                let how = "deprecated since v1.8; use \"storageClassName\" attribute instead";
                out.push(format!("metadata.annotations[{BETA}]: {how}"));
            }
            let v = &obj["spec"]["resources"]["requests"]["storage"];
            if !v.is_null() && milli(v) % 1000 != 0 {
                out.push(format!(
                    "spec.resources.requests[storage]: fractional byte value {:?} is invalid, must be an integer",
                    shown(v)
                ));
            }
        }
        _ => {}
    }
    let (Some(at), Some(spec)) = (template(kind), pod_spec(kind, obj)) else { return out };
    // of a template that stays as it is nothing is said again
    let notes = |o: &Value| o["metadata"]["annotations"].clone();
    let stays = |o: &Value| o["spec"] == obj["spec"] && (kind.kind != "Deployment" || notes(o) == notes(obj));
    if kind.kind != "Pod" && old.is_some_and(stays) {
        return out;
    }
    let above = obj.pointer(&format!("/{}metadata/annotations", at.replace('.', "/"))).unwrap_or(&Value::Null);
    for (key, why) in OLD_NOTES.iter().filter(|(k, _)| !above[*k].is_null()) {
        out.push(format!("{at}metadata.annotations[{key}]: {why}"));
    }
    pod(spec, &format!("{at}spec"), &mut out);
    for list in ["initContainers", "containers"] {
        for (i, c) in arr(spec, &format!("/{list}")).iter().enumerate() {
            container(c, &format!("{at}spec.{list}[{i}]"), &mut out);
        }
    }
    ports(spec, &format!("{at}spec"), &mut out);
    out
}

/// What single kinds are told.
fn own(kind: &Kind, obj: &Value, old: Option<&Value>, out: &mut Vec<String>) {
    match kind.kind.as_str() {
        "StatefulSet" if obj["spec"]["revisionHistoryLimit"].as_i64().is_some_and(|n| n < 0) => {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        "Ingress"
            if obj["spec"]["ingressClassName"].is_null()
                && meta::annotation(obj, "kubernetes.io/ingress.class").is_some() =>
        {
            let note =
                "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";
            out.push(note.to_owned());
        }
        "EndpointSlice" if obj["addressType"] == "FQDN" => {
            out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        "CSIDriver" if !arr(obj, "/spec/tokenRequests").is_empty() => {
            let kept = &obj["spec"]["serviceAccountTokenInSecrets"];
            if kept.is_null() && old.is_none_or(|o| arr(o, "/spec/tokenRequests").is_empty()) {
                out.push("spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".to_owned());
            }
        }
        _ => {}
    }
}

/// A certificate that is none.
fn tls(obj: &Value, out: &mut Vec<String>) {
    if obj["type"] != "kubernetes.io/tls" {
        return;
    }
    let plain = s(obj, "/stringData/tls.crt").to_owned();
    let coded = crate::kube::text::unb64(s(obj, "/data/tls.crt")).unwrap_or_default();
    let text = if plain.is_empty() { String::from_utf8_lossy(&coded).into_owned() } else { plain };
    if !text.is_empty() && !text.contains("-----BEGIN") {
        out.push("tls: failed to find any PEM data in certificate input".into());
    }
}

fn service(spec: &Value, out: &mut Vec<String>) {
    if spec["externalName"].is_string() && spec["type"] != "ExternalName" {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if spec["clusterIP"] == "None" {
        if !s(spec, "/loadBalancerIP").is_empty() {
            out.push("spec.loadBalancerIP is ignored for headless services".into());
        }
        if !arr(spec, "/externalIPs").is_empty() {
            out.push("spec.externalIPs is ignored for headless services".into());
        }
        if spec["sessionAffinity"].as_str().is_some_and(|a| a != "None") {
            out.push("spec.SessionAffinity is ignored for headless services".into());
        }
    }
}

/// Finalizers of custom objects that anybody else could choose, too.
fn finalizers(obj: &Value, old: Option<&Value>, out: &mut Vec<String>) {
    let had = old.map(meta::finalizers).unwrap_or_default();
    let mut fresh: Vec<&str> = meta::finalizers(obj).into_iter().filter(|f| !had.contains(f)).collect();
    fresh.sort_unstable();
    for f in
        fresh.into_iter().filter(|f| !f.contains('/') && !matches!(*f, "kubernetes" | "orphan" | "foregroundDeletion"))
    {
        out.push(format!("metadata.finalizers: {f:?}: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"));
    }
}

/// Names that become names of hosts.
fn dotted(kind: &Kind, obj: &Value, out: &mut Vec<String>) {
    let name = meta::name(obj);
    let whose = match kind.kind.as_str() {
        _ if kind.custom || name.is_empty() || names::is_label(name) => return,
        "Pod" => "the Pod's hostname",
        "Deployment" | "ReplicaSet" | "Job" | "CronJob" | "ReplicationController" => "Pod names and hostnames",
        _ => return,
    };
    let why = names::label(name).join(" ");
    out.push(format!(
        "metadata.name: this is used in {whose}, which can result in surprising behavior; a DNS label is recommended: [{why}]"
    ));
}

fn pod(spec: &Value, at: &str, out: &mut Vec<String>) {
    let old_label = |k: &str| OLD_LABELS.iter().find(|l| l.0 == k).map(|l| l.1);
    for k in spec["nodeSelector"].as_object().into_iter().flat_map(|m| m.keys()) {
        out.extend(old_label(k).map(|why| format!("{at}.nodeSelector[{k}]: {why}")));
    }
    for (i, t) in arr(spec, "/topologySpreadConstraints").iter().enumerate() {
        let at = format!("{at}.topologySpreadConstraints[{i}]");
        let key = s(t, "/topologyKey");
        out.extend(old_label(key).map(|why| format!("{at}.topologyKey: {key} is {why}")));
        if t["labelSelector"].is_null() {
            out.push(format!("{at}.labelSelector: a null labelSelector results in matching no pod"));
        }
    }
    for (i, v) in arr(spec, "/volumes").iter().enumerate() {
        for (source, why) in OLD_VOLUMES.iter().filter(|(k, _)| v[*k].is_object()) {
            out.push(format!("{at}.volumes[{i}].{source}: {why}"));
        }
    }
    for (list, field) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let all = arr(spec, &format!("/{list}"));
        for (i, v) in all.iter().enumerate().filter(|(i, v)| all[..*i].iter().any(|x| x[field] == v[field])) {
            out.push(format!("{at}.{list}[{i}].{field}: duplicate {field} {:?}", s(v, &format!("/{field}"))));
        }
    }
    for (i, _) in arr(spec, "/imagePullSecrets").iter().enumerate().filter(|(_, v)| s(v, "/name").is_empty()) {
        out.push(format!("{at}.imagePullSecrets[{i}].name: invalid empty name \"\""));
    }
    // a pod's own is mended before anybody looks
    if at != "spec" && spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|n| n < 0) {
        out.push(format!(
            "{at}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
}

fn container(c: &Value, at: &str, out: &mut Vec<String>) {
    for (part, what) in [
        ("limits", "memory"),
        ("requests", "memory"),
        ("limits", "ephemeral-storage"),
        ("requests", "ephemeral-storage"),
    ] {
        let v = &c["resources"][part][what];
        if !v.is_null() && milli(v) % 1000 != 0 {
            out.push(format!(
                "{at}.resources.{part}[{what}]: fractional byte value {:?} is invalid, must be an integer",
                shown(v)
            ));
        }
    }
    let env = arr(c, "/env");
    for (j, e) in env.iter().enumerate().filter(|(j, e)| env[..*j].iter().any(|x| x["name"] == e["name"])) {
        let before = format!("$({})", s(e, "/name"));
        let value = s(e, "/value");
        if e["valueFrom"].is_object() || value == before || !value.contains(&before) {
            out.push(format!(
                "{at}.env[{j}]: hides previous definition of {}, which may be dropped when using apply",
                e["name"]
            ));
        }
    }
}

/// Ports that two containers, or one twice, have.
fn ports(spec: &Value, at: &str, out: &mut Vec<String>) {
    let mut seen: Vec<(String, &Value)> = Vec::new();
    for list in ["initContainers", "containers"] {
        for (i, c) in arr(spec, &format!("/{list}")).iter().enumerate() {
            for (j, p) in arr(c, "/ports").iter().enumerate() {
                let here = format!("{at}.{list}[{i}].ports[{j}]");
                let proto = |p: &Value| p["protocol"].as_str().unwrap_or("TCP").to_owned();
                let host = |p: &Value| p["hostPort"].as_i64().unwrap_or(0);
                let alike =
                    seen.iter().filter(|(_, o)| o["containerPort"] == p["containerPort"] && proto(o) == proto(p));
                for (other, o) in alike {
                    if s(o, "/hostIP") == s(p, "/hostIP") && host(o) == host(p) {
                        out.push(format!("{here}: duplicate port definition with {other}"));
                    } else if host(o) == 0 || host(p) == 0 {
                        out.push(format!("{here}: overlapping port definition with {other}"));
                    }
                }
                if let Some((other, _)) = seen.iter().find(|(_, o)| !s(p, "/name").is_empty() && o["name"] == p["name"])
                {
                    out.push(format!(
                        "{here}: duplicate port name {} with {other}, services and probes that select ports by name will use {other}",
                        p["name"]
                    ));
                }
                seen.push((here, p));
            }
        }
    }
}
