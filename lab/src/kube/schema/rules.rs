//! Rules of built-in kinds beyond their types: ranges of ports, names of containers, resources, schedules, roles, budgets,
//! definitions. Grade: source (the validation packages of kube-apiserver).
use serde_json::{Value, json};

use super::Kind;
use super::validate::{LABEL, dns};
use crate::kube::store::Cause;
use crate::kube::text::{arr, milli};

const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

/// A text that has to be one of a list, where it is given.
fn one_of(at: String, v: &Value, list: &[&str], out: &mut Vec<Cause>) {
    if v.as_str().is_some_and(|t| !list.contains(&t)) {
        out.push(Cause::unsupported(at, v, &words(list)));
    }
}

fn duplicate(field: String, v: &Value) -> Cause {
    Cause { reason: "FieldValueDuplicate", field, message: format!("Duplicate value: {v}") }
}

fn port(at: String, v: &Value, out: &mut Vec<Cause>) {
    if v.as_i64().is_some_and(|n| !(1..=65_535).contains(&n)) {
        out.push(Cause::invalid(at, v, "must be between 1 and 65535, inclusive"));
    }
}

/// Checks an object of a built-in kind.
pub(super) fn check(kind: &Kind, obj: &Value, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    match kind.kind.as_str() {
        "Pod" => pod(spec, "spec", out),
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job" => {
            pod(&spec["template"]["spec"], "spec.template.spec", out);
        }
        "CronJob" => {
            schedule(&spec["schedule"], out);
            let policies = ["Allow", "Forbid", "Replace"];
            one_of("spec.concurrencyPolicy".into(), &spec["concurrencyPolicy"], &policies, out);
            pod(&spec["jobTemplate"]["spec"]["template"]["spec"], "spec.jobTemplate.spec.template.spec", out);
        }
        "Service" => service(obj, out),
        "Ingress" => ingress(spec, out),
        "PersistentVolumeClaim" | "PersistentVolume" => {
            let modes = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
            arr(spec, "/accessModes").iter().for_each(|m| one_of("spec.accessModes".into(), m, &modes, out));
        }
        "HorizontalPodAutoscaler" => autoscaler(spec, out),
        "PodDisruptionBudget" if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() => {
            out.push(Cause::invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
        }
        "Role" | "ClusterRole" => role(obj, out),
        "Secret" => super::secrets::secret(obj, out),
        "ConfigMap" => super::secrets::config_map(obj, out),
        "CustomResourceDefinition" => definition(spec, out),
        _ => {}
    }
    if matches!(kind.kind.as_str(), "Deployment" | "StatefulSet" | "ReplicaSet") {
        let n = &spec["replicas"];
        if n.as_i64().is_some_and(|n| n < 0) {
            out.push(Cause::invalid("spec.replicas", n, "must be greater than or equal to 0"));
        }
    }
}

fn pod(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    one_of(format!("{path}.restartPolicy"), &spec["restartPolicy"], &["Always", "OnFailure", "Never"], out);
    let mut seen: Vec<&Value> = Vec::new();
    for (i, v) in arr(spec, "/volumes").iter().enumerate() {
        if seen.contains(&&v["name"]) {
            out.push(duplicate(format!("{path}.volumes[{i}].name"), &v["name"]));
        }
        seen.push(&v["name"]);
    }
    for list in ["containers", "initContainers"] {
        for (i, c) in arr(spec, &format!("/{list}")).iter().enumerate() {
            container(c, &format!("{path}.{list}[{i}]"), out);
        }
    }
}

fn container(c: &Value, at: &str, out: &mut Vec<Cause>) {
    if c["name"].as_str().is_some_and(|n| !n.is_empty() && !dns(n, false)) {
        out.push(Cause::invalid(format!("{at}.name"), &c["name"], LABEL));
    }
    one_of(format!("{at}.imagePullPolicy"), &c["imagePullPolicy"], &["Always", "IfNotPresent", "Never"], out);
    for (i, p) in arr(c, "/ports").iter().enumerate() {
        port(format!("{at}.ports[{i}].containerPort"), &p["containerPort"], out);
        port(format!("{at}.ports[{i}].hostPort"), &p["hostPort"], out);
        one_of(format!("{at}.ports[{i}].protocol"), &p["protocol"], &["SCTP", "TCP", "UDP"], out);
    }
    for (i, e) in arr(c, "/env").iter().enumerate() {
        if e["name"] == "" {
            out.push(Cause::required(format!("{at}.env[{i}].name"), ""));
        }
    }
    let mut paths: Vec<&Value> = Vec::new();
    for (i, m) in arr(c, "/volumeMounts").iter().enumerate() {
        let path = &m["mountPath"];
        if path.as_str().is_none_or(str::is_empty) {
            out.push(Cause::required(format!("{at}.volumeMounts[{i}].mountPath"), ""));
        } else if paths.contains(&path) {
            out.push(Cause::invalid(format!("{at}.volumeMounts[{i}].mountPath"), path, "must be unique"));
        }
        paths.push(path);
    }
    resources(&c["resources"], &format!("{at}.resources"), out);
}

fn resources(r: &Value, at: &str, out: &mut Vec<Cause>) {
    let shown = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    for (name, want) in r["requests"].as_object().into_iter().flatten() {
        let extended = name.contains('/') && !name.starts_with("kubernetes.io/");
        match r["limits"].get(name) {
            None if extended || name.starts_with("hugepages-") => {
                out.push(Cause::required(format!("{at}.limits"), "Limit must be set for non overcommitable resources"));
            }
            Some(limit) if extended && milli(want) != milli(limit) => {
                let why = format!("must be equal to {name} limit of {}", shown(limit));
                out.push(Cause::invalid(format!("{at}.requests"), &shown(want).into(), &why));
            }
            Some(limit) if milli(want) > milli(limit) => {
                let why = format!("must be less than or equal to {name} limit of {}", shown(limit));
                out.push(Cause::invalid(format!("{at}.requests"), &shown(want).into(), &why));
            }
            _ => {}
        }
    }
}

fn schedule(v: &Value, out: &mut Vec<Cause>) {
    let Some(text) = v.as_str().filter(|t| !t.is_empty() && !t.starts_with('@')) else { return };
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        let why = format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" "));
        out.push(Cause::invalid("spec.schedule", v, &why));
    }
}

fn service(obj: &Value, out: &mut Vec<Cause>) {
    let name = obj["metadata"]["name"].as_str().unwrap_or_default();
    if dns(name, false) && name.starts_with(|c: char| c.is_ascii_digit()) {
        out.push(Cause::invalid("metadata.name", &name.into(), LABEL_1035));
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of("spec.type".into(), &obj["spec"]["type"], &kinds, out);
    let ports = arr(obj, "/spec/ports");
    let mut seen: Vec<&Value> = Vec::new();
    for (i, p) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        if ports.len() > 1 && p["name"].as_str().is_none_or(str::is_empty) {
            out.push(Cause::required(format!("{at}.name"), ""));
        } else if p["name"].is_string() && seen.contains(&&p["name"]) {
            out.push(duplicate(format!("{at}.name"), &p["name"]));
        }
        seen.push(&p["name"]);
        port(format!("{at}.port"), &p["port"], out);
        if p["targetPort"] != p["port"] {
            port(format!("{at}.targetPort"), &p["targetPort"], out);
        }
        one_of(format!("{at}.protocol"), &p["protocol"], &["SCTP", "TCP", "UDP"], out);
        if p["nodePort"].as_i64().is_some_and(|n| n != 0 && !(30_000..=32_767).contains(&n)) {
            let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
            out.push(Cause::invalid(format!("{at}.nodePort"), &p["nodePort"], why));
        }
    }
}

fn ingress(spec: &Value, out: &mut Vec<Cause>) {
    for (i, rule) in arr(spec, "/rules").iter().enumerate() {
        for (j, p) in arr(rule, "/http/paths").iter().enumerate() {
            let at = format!("spec.rules[{i}].http.paths[{j}]");
            if p["pathType"].is_null() {
                out.push(Cause::required(format!("{at}.pathType"), "pathType must be specified"));
            }
            one_of(format!("{at}.pathType"), &p["pathType"], &["Exact", "ImplementationSpecific", "Prefix"], out);
            if p["pathType"] != "ImplementationSpecific" && p["path"].as_str().is_some_and(|t| !t.starts_with('/')) {
                out.push(Cause::invalid(format!("{at}.path"), &p["path"], "must be an absolute path"));
            }
        }
    }
}

fn autoscaler(spec: &Value, out: &mut Vec<Cause>) {
    let (least, most) = (&spec["minReplicas"], &spec["maxReplicas"]);
    if least.as_i64().is_some_and(|n| n < 1) {
        out.push(Cause::invalid("spec.minReplicas", least, "must be greater than or equal to 1"));
    }
    if most.as_i64().is_some_and(|n| n < 1) {
        out.push(Cause::invalid("spec.maxReplicas", most, "must be greater than 0"));
    } else if least.as_i64().zip(most.as_i64()).is_some_and(|(a, b)| a > b) {
        out.push(Cause::invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"));
    }
}

fn role(obj: &Value, out: &mut Vec<Cause>) {
    for (i, r) in arr(obj, "/rules").iter().enumerate() {
        let none = |f: &str| r[f].as_array().is_none_or(Vec::is_empty);
        let at = |f: &str| format!("rules[{i}].{f}");
        if none("verbs") {
            out.push(Cause::required(at("verbs"), "verbs must contain at least one value"));
        }
        if !none("nonResourceURLs") {
            continue;
        }
        if none("apiGroups") {
            out.push(Cause::required(at("apiGroups"), "resource rules must supply at least one api group"));
        }
        if none("resources") {
            out.push(Cause::required(at("resources"), "resource rules must supply at least one resource"));
        }
    }
}

fn definition(spec: &Value, out: &mut Vec<Cause>) {
    one_of("spec.scope".into(), &spec["scope"], &["Cluster", "Namespaced"], out);
    let versions = arr(spec, "/versions");
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        out.push(Cause::invalid("spec.versions", &spec["versions"], why));
    }
    for (i, v) in versions.iter().enumerate() {
        let schema = &v["schema"]["openAPIV3Schema"];
        if !schema.is_object() {
            out.push(Cause::required(format!("spec.versions[{i}].schema.openAPIV3Schema"), "schemas are required"));
            continue;
        }
        // One version alone is looked at as the schema of all.
        let at = if versions.len() == 1 {
            "spec.validation.openAPIV3Schema".to_owned()
        } else {
            format!("spec.versions[{i}].schema.openAPIV3Schema")
        };
        structural(schema, &at, "must not be empty at the root", out);
        validations(schema, &at, true, out);
    }
}

/// Rules have to compile.
fn validations(schema: &Value, at: &str, root: bool, out: &mut Vec<Cause>) {
    for (i, r) in arr(schema, "/x-kubernetes-validations").iter().enumerate() {
        let at = format!("{at}.x-kubernetes-validations[{i}].rule");
        let text = |k: &str| r[k].as_str().unwrap_or_default();
        if text("rule").trim().is_empty() {
            out.push(Cause::required(at, "rule is not specified"));
        } else if let Some(why) = super::cel::trouble(text("rule"), schema, root) {
            let shown = json!({"Rule": text("rule"), "Message": text("message"), "Reason": r["reason"],
                "MessageExpression": text("messageExpression"), "FieldPath": text("fieldPath"),
                "OptionalOldSelf": r["optionalOldSelf"]});
            out.push(Cause::invalid(at, &shown, &why));
        }
    }
    for (k, v) in schema["properties"].as_object().into_iter().flatten() {
        validations(v, &format!("{at}.properties[{k}]"), false, out);
    }
    for below in ["items", "additionalProperties"].into_iter().filter(|k| schema[*k].is_object()) {
        validations(&schema[below], &format!("{at}.{below}"), false, out);
    }
}

/// Every place of a schema has a type, unless it says that anything may stand there.
fn structural(schema: &Value, at: &str, why: &str, out: &mut Vec<Cause>) {
    let open = schema["x-kubernetes-int-or-string"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["type"].as_str().is_none_or(str::is_empty) && !open {
        out.push(Cause::required(format!("{at}.type"), why));
    }
    for (k, v) in schema["properties"].as_object().into_iter().flatten() {
        structural(v, &format!("{at}.properties[{k}]"), "must not be empty for specified object fields", out);
    }
    if schema["items"].is_object() {
        structural(&schema["items"], &format!("{at}.items"), "must not be empty for specified array items", out);
    }
    if schema["additionalProperties"].is_object() {
        let why = "must not be empty for specified object fields";
        structural(&schema["additionalProperties"], &format!("{at}.additionalProperties"), why, out);
    }
}
