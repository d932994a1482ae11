//! What the API server fills in by itself.
use base64::Engine;
use serde_json::{Value, json};

use super::node::Node;
use super::{Kind, kindfill, podfill, services, typed};
use crate::kube::store::{Store, meta};
use crate::kube::text::shown;

/// Fills in defaults; `old` is the object as it was, for values that are given out once.
pub fn apply(store: &mut Store, kind: &Kind, obj: &mut Value, old: Option<&Value>) {
    if kind.custom {
        let node = Node::of(kind);
        schema_defaults(node, obj);
        return;
    }
    quantities(Node::of(kind), obj);
    match kind.kind.as_str() {
        _ if kind.group == "admissionregistration.k8s.io" => crate::kube::dynamic::defaults(kind, obj),
        "Pod" => pod(obj),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            workload(&kind.kind, obj);
            if kind.kind == "DaemonSet" {
                template_generation(obj, old);
            }
        }
        "Job" => job(obj, old),
        "CronJob" => cron(obj),
        "Service" => service(obj),
        "Secret" => secret(obj),
        "Namespace" => {
            let name = meta::name(obj).to_owned();
            set(&mut obj["status"], "phase", "Active".into());
            obj["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
        }
        "PersistentVolumeClaim" => claim(obj),
        "PersistentVolume" => {
            set(&mut obj["spec"], "persistentVolumeReclaimPolicy", "Retain".into());
            set(&mut obj["spec"], "volumeMode", "Filesystem".into());
            podfill::sources(&mut obj["spec"]);
            set(&mut obj["status"], "phase", "Pending".into());
        }
        "StorageClass" => {
            set(obj, "reclaimPolicy", "Delete".into());
            set(obj, "volumeBindingMode", "Immediate".into());
        }
        "CustomResourceDefinition" => definition(store, obj),
        "PriorityClass" => set(obj, "preemptionPolicy", "PreemptLowerPriority".into()),
        "ClusterRoleBinding" | "RoleBinding" => {
            set(&mut obj["roleRef"], "apiGroup", "rbac.authorization.k8s.io".into());
            for s in podfill::each(obj, "/subjects") {
                if s["kind"] == "User" || s["kind"] == "Group" {
                    set(s, "apiGroup", "rbac.authorization.k8s.io".into());
                }
            }
        }
        other => kindfill::apply(other, obj),
    }
    typed::complete(kind, obj);
}

/// Sets a field that is absent.
pub(super) fn set(obj: &mut Value, field: &str, value: Value) {
    if obj[field].is_null() {
        obj[field] = value;
    }
}

/// `default`s of a custom schema.
fn schema_defaults(node: Node<'_>, v: &mut Value) {
    match v {
        Value::Object(m) => {
            for (k, s) in node.word("properties").as_object().into_iter().flatten() {
                if let Some(d) = s.get("default")
                    && m.get(k).is_none_or(Value::is_null)
                {
                    m.insert(k.clone(), d.clone());
                }
            }
            for (k, v) in m.iter_mut() {
                schema_defaults(node.down(k), v);
            }
        }
        Value::Array(a) => a.iter_mut().for_each(|v| schema_defaults(node.items(), v)),
        _ => {}
    }
}

/// Quantities in canonical form.
fn quantities(node: Node<'_>, v: &mut Value) {
    match v {
        _ if node.quantity() => {
            let text = shown(v);
            if let Some(q) = canonical(&text) {
                *v = q.into();
            }
        }
        Value::Object(m) => {
            for (k, v) in m.iter_mut().filter(|(_, v)| v.is_object() || v.is_array() || v.is_number() || v.is_string())
            {
                let sub = node.down(k);
                if !sub.open() || sub.quantity() {
                    quantities(sub, v);
                }
            }
        }
        Value::Array(a) => a.iter_mut().filter(|v| v.is_object()).for_each(|v| quantities(node.items(), v)),
        _ => {}
    }
}

/// `1000m` as `1`, `1024Mi` as `1Gi`, `0.5` as `500m`; `None` when it is no quantity.
#[must_use]
pub fn canonical(text: &str) -> Option<String> {
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(at);
    let value: f64 = number.parse().ok()?;
    if let Some(power) = suffix.strip_prefix(['e', 'E']).and_then(|p| p.parse::<i32>().ok()) {
        return Some(exponent(value, power));
    }
    const BINARY: &[&str] = &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: &[&str] = &["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    if let Some(mut i) = BINARY.iter().position(|s| *s == suffix && !s.is_empty()) {
        let mut v = value;
        while v.fract() != 0.0 && i > 0 {
            v *= 1024.0;
            i -= 1;
        }
        while i > 0 && i + 1 < BINARY.len() && v != 0.0 && v % 1024.0 == 0.0 {
            v /= 1024.0;
            i += 1;
        }
        return Some(format!("{}{}", v.ceil(), BINARY[i]));
    }
    let mut i = DECIMAL.iter().position(|s| *s == suffix)?;
    let mut v = value;
    if v == 0.0 {
        return Some("0".into());
    }
    while (v - v.round()).abs() > 1e-9 && i > 0 {
        v *= 1000.0;
        i -= 1;
    }
    v = v.round();
    while v % 1000.0 == 0.0 && i + 1 < DECIMAL.len() {
        v /= 1000.0;
        i += 1;
    }
    Some(format!("{v}{}", DECIMAL[i]))
}

/// Thousandths as a quantity in the unit of `like`.
#[must_use]
pub fn told(value: i64, like: &Value) -> String {
    let text = if value % 1000 == 0 { (value / 1000).to_string() } else { format!("{value}m") };
    if shown(like).ends_with('i') && value % 1_048_576_000 == 0 && value > 0 {
        return canonical(&format!("{}Mi", value / 1_048_576_000)).unwrap_or(text);
    }
    canonical(&text).unwrap_or(text)
}

/// A number with a power of ten, as quantities show it: in thousands.
fn exponent(value: f64, power: i32) -> String {
    let (mut v, mut p) = (value, power);
    while p % 3 != 0 {
        v *= 10.0;
        p -= 1;
    }
    while v != 0.0 && v % 1000.0 == 0.0 {
        v /= 1000.0;
        p += 3;
    }
    if p == 0 || v == 0.0 { format!("{v}") } else { format!("{v}e{p}") }
}

fn pod(obj: &mut Value) {
    addresses(&mut obj["status"]);
    let spec = &mut obj["spec"];
    podfill::spec(spec);
    podfill::own(spec);
    set(spec, "enableServiceLinks", true.into());
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|n| n < 0) {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
    tidy(spec);
}

/// The first of a pod's addresses stands in two places; the single one is right.
fn addresses(status: &mut Value) {
    let first = status["podIPs"][0]["ip"].as_str().unwrap_or_default().to_owned();
    let told = status["podIP"].as_str().unwrap_or_default().to_owned();
    if !told.is_empty() && told != first {
        status["podIPs"] = json!([{"ip": told}]);
    } else if told.is_empty() && !first.is_empty() {
        status["podIP"] = first.into();
    }
}

/// Quality of service of a pod.
#[must_use]
pub fn quality(pod: &Value) -> &'static str {
    qos(&pod["spec"])
}

fn qos(spec: &Value) -> &'static str {
    let own = &spec["resources"];
    let told = |r: &Value| ["requests", "limits"].iter().any(|k| r[*k].as_object().is_some_and(|m| !m.is_empty()));
    let lists = ["containers", "initContainers"].into_iter().flat_map(|l| spec[l].as_array().into_iter().flatten());
    let res: Vec<&Value> = if told(own) { vec![own] } else { lists.map(|c| &c["resources"]).collect() };
    let zero = |v: &Value| crate::kube::text::milli(v) <= 0;
    let any =
        res.iter().any(|r| ["requests", "limits"].iter().any(|k| ["cpu", "memory"].iter().any(|n| !zero(&r[*k][*n]))));
    let all = res.iter().all(|r| {
        ["cpu", "memory"]
            .iter()
            .all(|k| !zero(&r["limits"][*k]) && (r["requests"][*k].is_null() || r["requests"][*k] == r["limits"][*k]))
    });
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        _ => "Burstable",
    }
}

/// Drops nulls that looking at absent fields left behind.
pub(super) fn tidy(v: &mut Value) {
    match v {
        Value::Object(m) => {
            m.retain(|_, v| !v.is_null());
            m.values_mut().for_each(tidy);
        }
        Value::Array(a) => a.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn workload(kind: &str, obj: &mut Value) {
    let spec = &mut obj["spec"];
    podfill::spec(&mut spec["template"]["spec"]);
    if kind != "DaemonSet" {
        set(spec, "replicas", 1.into());
    }
    match kind {
        "Deployment" => {
            set(spec, "strategy", json!({}));
            set(&mut spec["strategy"], "type", "RollingUpdate".into());
            if spec["strategy"]["type"] == "RollingUpdate" {
                set(&mut spec["strategy"], "rollingUpdate", json!({}));
                set(&mut spec["strategy"]["rollingUpdate"], "maxUnavailable", "25%".into());
                set(&mut spec["strategy"]["rollingUpdate"], "maxSurge", "25%".into());
            }
            set(spec, "revisionHistoryLimit", 10.into());
            set(spec, "progressDeadlineSeconds", 600.into());
        }
        "DaemonSet" => {
            set(&mut spec["updateStrategy"], "type", "RollingUpdate".into());
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                set(&mut spec["updateStrategy"], "rollingUpdate", json!({}));
                set(&mut spec["updateStrategy"]["rollingUpdate"], "maxUnavailable", 1.into());
                set(&mut spec["updateStrategy"]["rollingUpdate"], "maxSurge", 0.into());
            }
            set(spec, "revisionHistoryLimit", 10.into());
        }
        "StatefulSet" => {
            if spec["updateStrategy"]["type"].is_null() {
                spec["updateStrategy"]["type"] = "RollingUpdate".into();
                set(&mut spec["updateStrategy"], "rollingUpdate", json!({}));
            }
            if spec["updateStrategy"]["type"] == "RollingUpdate" && spec["updateStrategy"]["rollingUpdate"].is_object()
            {
                set(&mut spec["updateStrategy"]["rollingUpdate"], "partition", 0.into());
            }
            for c in podfill::each(spec, "/volumeClaimTemplates") {
                c["apiVersion"] = "v1".into();
                c["kind"] = "PersistentVolumeClaim".into();
                set(&mut c["spec"], "volumeMode", "Filesystem".into());
                set(&mut c["spec"], "resources", json!({}));
                set(&mut c["status"], "phase", "Pending".into());
            }
            set(spec, "podManagementPolicy", "OrderedReady".into());
            set(spec, "revisionHistoryLimit", 10.into());
            let policy = &mut spec["persistentVolumeClaimRetentionPolicy"];
            set(policy, "whenDeleted", "Retain".into());
            set(policy, "whenScaled", "Retain".into());
            // how many may be unavailable is behind a gate that is closed
            if let Some(update) = spec["updateStrategy"]["rollingUpdate"].as_object_mut() {
                update.shift_remove("maxUnavailable");
            }
        }
        _ => {}
    }
    tidy(spec);
}

/// How often the template of a DaemonSet has changed.
fn template_generation(obj: &mut Value, old: Option<&Value>) {
    const NOTE: &str = "deprecated.daemonset.template.generation";
    let count =
        |o: &Value| o["metadata"]["annotations"][NOTE].as_str().and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    let number = match old {
        None => 1,
        Some(old) => count(old).max(1) + u64::from(old["spec"]["template"] != obj["spec"]["template"]),
    };
    obj["metadata"]["annotations"][NOTE] = number.to_string().into();
}

fn job(obj: &mut Value, old: Option<&Value>) {
    let uid = obj["metadata"]["uid"].clone();
    let name = obj["metadata"]["name"].clone();
    let spec = &mut obj["spec"];
    // a job of several pods that says nothing of completions is done when its pods say so
    if spec["parallelism"].is_null() {
        set(spec, "completions", 1.into());
    }
    set(spec, "parallelism", 1.into());
    let tries = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i64::from(i32::MAX) };
    set(spec, "backoffLimit", tries.into());
    set(spec, "completionMode", "NonIndexed".into());
    set(spec, "suspend", false.into());
    set(spec, "manualSelector", false.into());
    let replaced = if spec["podFailurePolicy"].is_object() { "Failed" } else { "TerminatingOrFailed" };
    set(spec, "podReplacementPolicy", replaced.into());
    for rule in podfill::each(spec, "/podFailurePolicy/rules") {
        podfill::each(rule, "/onPodConditions").for_each(|c| set(c, "status", "True".into()));
    }
    podfill::spec(&mut spec["template"]["spec"]);
    if spec["manualSelector"] != true && old.is_none() {
        set(&mut spec["selector"]["matchLabels"], "batch.kubernetes.io/controller-uid", uid.clone());
        let labels = &mut spec["template"]["metadata"]["labels"];
        for (k, v) in [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ] {
            set(labels, k, v.clone());
        }
    } else if let Some(old) = old {
        for path in [&["selector"][..], &["template", "metadata", "labels"]] {
            let pointer = format!("/spec/{}", path.join("/"));
            if let Some(v) = old.pointer(&pointer).cloned() {
                if path.len() == 1 {
                    set(spec, "selector", v);
                } else {
                    for (k, v) in v.as_object().into_iter().flatten() {
                        set(&mut spec["template"]["metadata"]["labels"], k, v.clone());
                    }
                }
            }
        }
    }
    tidy(spec);
    if let Some(status) = obj["status"].as_object_mut() {
        status.retain(|k, v| !matches!(k.as_str(), "active" | "succeeded" | "failed") || v != 0);
    }
    let spec = &mut obj["spec"];
    // what is read back has the labels of its template, unless it has some of its own
    let labels = spec["template"]["metadata"]["labels"].clone();
    let bare = obj["metadata"]["labels"].as_object().is_none_or(serde_json::Map::is_empty);
    if bare && labels.is_object() {
        obj["metadata"]["labels"] = labels;
    }
}

fn cron(obj: &mut Value) {
    let spec = &mut obj["spec"];
    set(spec, "concurrencyPolicy", "Allow".into());
    set(spec, "suspend", false.into());
    set(spec, "successfulJobsHistoryLimit", 3.into());
    set(spec, "failedJobsHistoryLimit", 1.into());
    podfill::spec(&mut spec["jobTemplate"]["spec"]["template"]["spec"]);
    tidy(spec);
}

fn service(obj: &mut Value) {
    let outside = services::is_outside;
    set(&mut obj["spec"], "type", "ClusterIP".into());
    let spec = &mut obj["spec"];
    set(spec, "sessionAffinity", "None".into());
    match spec["sessionAffinity"].as_str() {
        Some("None") => spec["sessionAffinityConfig"] = Value::Null,
        Some("ClientIP") => {
            set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10_800}}));
            set(&mut spec["sessionAffinityConfig"], "clientIP", json!({"timeoutSeconds": 10_800}));
            set(&mut spec["sessionAffinityConfig"]["clientIP"], "timeoutSeconds", 10_800.into());
        }
        _ => {}
    }
    if spec["type"] != "ExternalName" {
        set(spec, "internalTrafficPolicy", "Cluster".into());
    }
    if outside(spec) && crate::kube::text::s(spec, "/externalTrafficPolicy").is_empty() {
        spec["externalTrafficPolicy"] = "Cluster".into();
    }
    if spec["type"] == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true.into());
    }
    for p in podfill::each(spec, "/ports") {
        set(p, "protocol", "TCP".into());
        // Go takes zero and nothing for the same
        if matches!(&p["targetPort"], Value::Number(n) if n.as_i64() == Some(0)) || p["targetPort"] == "" {
            p["targetPort"] = Value::Null;
        }
        if p["nodePort"] == 0 {
            p["nodePort"] = Value::Null;
        }
        let port = p["port"].clone();
        set(p, "targetPort", port);
    }
    for f in ["clusterIP", "externalName", "loadBalancerIP"] {
        if spec[f] == "" {
            spec[f] = Value::Null;
        }
    }
    set(&mut obj["status"], "loadBalancer", json!({}));
    for i in podfill::each(obj, "/status/loadBalancer/ingress") {
        if i["ip"].is_string() {
            set(i, "ipMode", "VIP".into());
        }
    }
    tidy(obj);
}

fn secret(obj: &mut Value) {
    set(obj, "type", "Opaque".into());
    let Some(Value::Object(plain)) = obj.as_object_mut().and_then(|o| o.shift_remove("stringData")) else { return };
    for (k, v) in plain {
        let text = v.as_str().unwrap_or_default();
        obj["data"][k] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
}

fn claim(obj: &mut Value) {
    set(&mut obj["spec"], "volumeMode", "Filesystem".into());
    set(&mut obj["status"], "phase", "Pending".into());
    tidy(&mut obj["spec"]);
}

fn definition(store: &Store, obj: &mut Value) {
    set(&mut obj["spec"], "conversion", json!({"strategy": "None"}));
    let names = &mut obj["spec"]["names"];
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    if !kind.is_empty() {
        set(names, "listKind", format!("{kind}List").into());
        set(names, "singular", kind.to_lowercase().into());
    }
    super::definition::settle(store, obj);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_canonical() {
        for (a, b) in [
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("100Gi", "100Gi"),
            ("8k", "8k"),
            ("250m", "250m"),
        ] {
            assert_eq!(canonical(a).as_deref(), Some(b));
        }
        assert_eq!(canonical("zz"), None);
    }
}
