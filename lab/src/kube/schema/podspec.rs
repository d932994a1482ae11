//! Rules of pods and their templates: containers, volumes, probes, tolerations, resources. Grade: source (the validation
//! of the core group).
use serde_json::{Value, json};

use super::limits::COUNTED;
use super::names;
use super::rules::{LEAST, duplicate, forbidden, one_of, port, words};
use super::validate::{judged, labels};
use crate::kube::store::Cause;
use crate::kube::text::{arr, milli, s, shown};

const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const USERS: &str = "must be between 0 and 2147483647, inclusive";

/// Checks a pod's spec; `claims` are volumes that come from elsewhere (claim templates).
pub(super) fn check(spec: &Value, path: &str, claims: &[&str], out: &mut Vec<Cause>) {
    volumes(spec, path, out);
    containers(spec, path, claims, out);
    one_of(format!("{path}.restartPolicy"), &spec["restartPolicy"], &["Always", "OnFailure", "Never"], out);
    let dns = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    one_of(format!("{path}.dnsPolicy"), &spec["dnsPolicy"], &dns, out);
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n)) {
        let why = "must be between 1 and 2147483647, inclusive";
        out.push(Cause::invalid(format!("{path}.activeDeadlineSeconds"), deadline, why));
    }
    for (f, judge) in [
        ("serviceAccountName", names::subdomain as names::Judge),
        ("nodeName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
    ] {
        if let Some(text) = spec[f].as_str().filter(|t| !t.is_empty()) {
            judged(format!("{path}.{f}"), text, judge, out);
        }
    }
    labels(&spec["nodeSelector"], &format!("{path}.nodeSelector"), out);
    user(&spec["securityContext"], &format!("{path}.securityContext"), out);
    if spec["hostNetwork"] == true {
        for list in ["containers", "initContainers"] {
            for (i, c) in arr(spec, &format!("/{list}")).iter().enumerate() {
                host_ports(c, &format!("{path}.{list}[{i}]"), path == "spec", out);
            }
        }
    }
    for (i, t) in arr(spec, "/topologySpreadConstraints").iter().enumerate() {
        spread(t, &format!("{path}.topologySpreadConstraints[{i}]"), out);
    }
    for (i, t) in arr(spec, "/tolerations").iter().enumerate() {
        toleration(t, &format!("{path}.tolerations[{i}]"), out);
    }
}

/// Containers, then those of the start, whose names differ from all of them.
fn containers(spec: &Value, path: &str, claims: &[&str], out: &mut Vec<Cause>) {
    if arr(spec, "/containers").is_empty() && !out.iter().any(|c| c.field == format!("{path}.containers")) {
        out.push(Cause::required(format!("{path}.containers"), ""));
    }
    let own = arr(spec, "/volumes").iter().filter_map(|v| v["name"].as_str());
    let there: Vec<&str> = own.chain(claims.iter().copied()).collect();
    let mut seen: Vec<&str> = Vec::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (i, c) in arr(spec, &format!("/{list}")).iter().enumerate() {
            let (at, name) = (format!("{path}.{list}[{i}]"), s(c, "/name"));
            container(c, &at, &there, out);
            if seen.contains(&name) && !name.is_empty() {
                out.push(duplicate(format!("{at}.name"), &c["name"]));
            }
            seen.push(name);
            match list {
                "initContainers" => initial(c, &at, out),
                "ephemeralContainers" => passing(c, &at, out),
                _ => {}
            }
        }
    }
}

/// A container that ends before others start has nothing that looks after it.
fn initial(c: &Value, at: &str, out: &mut Vec<Cause>) {
    one_of(format!("{at}.restartPolicy"), &c["restartPolicy"], &["Always", "OnFailure", "Never"], out);
    if c["restartPolicy"] == "Always" {
        return;
    }
    for f in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"].into_iter().filter(|f| c[*f].is_object())
    {
        let why = "may not be set for init containers without restartPolicy=Always";
        out.push(forbidden(&format!("{at}.{f}"), why));
    }
}

/// A container that is put into a running pod has no say in where that runs and whether it is well.
fn passing(c: &Value, at: &str, out: &mut Vec<Cause>) {
    let set = |v: &Value| !v.is_null() && v.as_object().is_none_or(|m| !m.is_empty());
    let fields = ["ports", "resources", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"];
    for f in fields.into_iter().filter(|f| set(&c[*f])) {
        out.push(forbidden(&format!("{at}.{f}"), "cannot be set for an Ephemeral Container"));
    }
}

fn spread(t: &Value, at: &str, out: &mut Vec<Cause>) {
    if t["maxSkew"].as_i64().is_some_and(|n| n <= 0) {
        out.push(Cause::invalid(format!("{at}.maxSkew"), &t["maxSkew"], "must be greater than zero"));
    }
    if s(t, "/topologyKey").is_empty() {
        out.push(Cause::required(format!("{at}.topologyKey"), "can not be empty"));
    }
    let ways = ["DoNotSchedule", "ScheduleAnyway"];
    one_of(format!("{at}.whenUnsatisfiable"), &t["whenUnsatisfiable"], &ways, out);
}

fn volumes(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    let mut seen: Vec<&Value> = Vec::new();
    for (i, v) in arr(spec, "/volumes").iter().enumerate() {
        let at = format!("{path}.volumes[{i}]");
        if let Some(name) = v["name"].as_str().filter(|n| !n.is_empty()) {
            judged(format!("{at}.name"), name, names::label, out);
        }
        if seen.contains(&&v["name"]) {
            out.push(duplicate(format!("{at}.name"), &v["name"]));
        }
        seen.push(&v["name"]);
        let sources: Vec<&String> =
            v.as_object().into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null()).map(|(k, _)| k).collect();
        for source in sources.into_iter().skip(1) {
            out.push(forbidden(&format!("{at}.{source}"), "may not specify more than 1 volume type"));
        }
        for (source, name) in [("configMap", "name"), ("secret", "secretName")] {
            let field = format!("{at}.{source}.{name}");
            let told = out.iter().any(|c| c.field == field);
            if v[source].is_object() && s(&v[source], &format!("/{name}")).is_empty() && !told {
                out.push(Cause::required(field, ""));
            }
        }
        let (host, share) = (s(v, "/hostPath/path"), s(v, "/nfs/path"));
        if host.split('/').any(|p| p == "..") {
            out.push(Cause::invalid(format!("{at}.hostPath.path"), &host.into(), BACKSTEP));
        }
        if !share.is_empty() && !share.starts_with('/') {
            out.push(Cause::invalid(format!("{at}.nfs.path"), &share.into(), "must be an absolute path"));
        }
    }
}

const BACKSTEP: &str = "must not contain '..'";

pub(super) fn toleration(t: &Value, at: &str, out: &mut Vec<Cause>) {
    let (key, operator) = (s(t, "/key"), s(t, "/operator"));
    if key.is_empty() {
        if operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            out.push(Cause::invalid(format!("{at}.operator"), &operator.into(), why));
        }
    } else {
        judged(format!("{at}.key"), key, names::key, out);
    }
    if !t["tolerationSeconds"].is_null() && t["effect"] != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        out.push(Cause::invalid(format!("{at}.effect"), &s(t, "/effect").into(), why));
    }
    match operator {
        "" | "Equal" => judged(format!("{at}.value"), s(t, "/value"), names::value, out),
        "Exists" if !s(t, "/value").is_empty() => {
            let why = "value must be empty when `operator` is 'Exists'";
            // shown as the server has it inside
            let shown = json!({"Key": key, "Operator": operator, "Value": s(t, "/value"), "Effect": s(t, "/effect"),
                "TolerationSeconds": t["tolerationSeconds"]});
            out.push(Cause::invalid(format!("{at}.operator"), &shown, why));
        }
        "Exists" => {}
        _ => one_of(format!("{at}.operator"), &t["operator"], &["Equal", "Exists"], out),
    }
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if !s(t, "/effect").is_empty() {
        one_of(format!("{at}.effect"), &t["effect"], &effects, out);
    }
}

fn user(context: &Value, at: &str, out: &mut Vec<Cause>) {
    for f in ["runAsUser", "runAsGroup", "fsGroup"] {
        if context[f].as_i64().is_some_and(|n| !(0..=i64::from(i32::MAX)).contains(&n)) {
            out.push(Cause::invalid(format!("{at}.{f}"), &context[f], USERS));
        }
    }
}

/// Ports of containers that are on the network of their node; those of a template are filled in with its pods.
fn host_ports(c: &Value, at: &str, own: bool, out: &mut Vec<Cause>) {
    let open = |p: &Value| !own && matches!(p["hostPort"].as_u64(), None | Some(0));
    let wrong = |p: &Value| p["hostPort"] != p["containerPort"] && !open(p);
    for (i, p) in arr(c, "/ports").iter().enumerate().filter(|(_, p)| wrong(p)) {
        let why = "must match `containerPort` when `hostNetwork` is true";
        out.push(Cause::invalid(format!("{at}.ports[{i}].hostPort"), &p["hostPort"], why));
    }
}

fn container(c: &Value, at: &str, there: &[&str], out: &mut Vec<Cause>) {
    if let Some(n) = c["name"].as_str().filter(|n| !n.is_empty()) {
        judged(format!("{at}.name"), n, names::label, out);
    }
    let image = s(c, "/image");
    if image.is_empty() {
        out.push(Cause::required(format!("{at}.image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        out.push(Cause::invalid(format!("{at}.image"), &c["image"], why));
    }
    let ends = ["FallbackToLogsOnError", "File"];
    one_of(format!("{at}.terminationMessagePolicy"), &c["terminationMessagePolicy"], &ends, out);
    let mut named: Vec<&Value> = Vec::new();
    for (i, p) in arr(c, "/ports").iter().enumerate() {
        let at = format!("{at}.ports[{i}]");
        if let Some(name) = p["name"].as_str().filter(|n| !n.is_empty()) {
            judged(format!("{at}.name"), name, names::port, out);
            if named.contains(&&p["name"]) {
                out.push(duplicate(format!("{at}.name"), &p["name"]));
            }
            named.push(&p["name"]);
        }
        if p["containerPort"] == 0 {
            out.push(Cause::required(format!("{at}.containerPort"), ""));
        } else {
            port(format!("{at}.containerPort"), &p["containerPort"], out);
        }
        if p["hostPort"] != 0 {
            port(format!("{at}.hostPort"), &p["hostPort"], out);
        }
        one_of(format!("{at}.protocol"), &p["protocol"], &["SCTP", "TCP", "UDP"], out);
    }
    environment(c, at, out);
    mounts(c, at, there, out);
    one_of(format!("{at}.imagePullPolicy"), &c["imagePullPolicy"], &["Always", "IfNotPresent", "Never"], out);
    resources(&c["resources"], &format!("{at}.resources"), out);
    user(&c["securityContext"], &format!("{at}.securityContext"), out);
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"].into_iter().filter(|k| c[*k].is_object()) {
        probe(&c[kind], &format!("{at}.{kind}"), kind != "readinessProbe", out);
    }
}

fn mounts(c: &Value, at: &str, there: &[&str], out: &mut Vec<Cause>) {
    let mut paths: Vec<&Value> = Vec::new();
    for (i, m) in arr(c, "/volumeMounts").iter().enumerate() {
        let (at, path, name) = (format!("{at}.volumeMounts[{i}]"), &m["mountPath"], s(m, "/name"));
        if !there.contains(&name) {
            let message = format!("Not found: {name:?}");
            out.push(Cause { reason: "FieldValueNotFound", field: format!("{at}.name"), message });
        }
        if path.as_str().is_none_or(str::is_empty) {
            out.push(Cause::required(format!("{at}.mountPath"), ""));
        } else if paths.contains(&path) {
            out.push(Cause::invalid(format!("{at}.mountPath"), path, "must be unique"));
        }
        paths.push(path);
        let below = s(m, "/subPath");
        if below.starts_with('/') {
            out.push(Cause::invalid(format!("{at}.subPath"), &below.into(), "must be a relative path"));
        }
        if below.split('/').any(|p| p == "..") {
            out.push(Cause::invalid(format!("{at}.subPath"), &below.into(), BACKSTEP));
        }
    }
}

fn environment(c: &Value, at: &str, out: &mut Vec<Cause>) {
    for (i, e) in arr(c, "/env").iter().enumerate() {
        let (at, name) = (format!("{at}.env[{i}]"), s(e, "/name"));
        if e["name"] == "" {
            out.push(Cause::required(format!("{at}.name"), ""));
        } else if !name.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
            let why =
                "a valid environment variable name must consist only of printable ASCII characters other than '='";
            out.push(Cause::invalid(format!("{at}.name"), &e["name"], why));
        }
        let from = &e["valueFrom"];
        let count = from.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()).count();
        let mut say = |why: &str| out.push(Cause::invalid(format!("{at}.valueFrom"), &"".into(), why));
        match count {
            _ if !from.is_object() => {}
            0 => say("must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"),
            _ if !s(e, "/value").is_empty() => say("may not be specified when `value` is not empty"),
            1 => {}
            _ => say("may not have more than one field specified at a time"),
        }
        if from["fieldRef"].is_object() {
            downward(&from["fieldRef"], &format!("{at}.valueFrom.fieldRef"), out);
        }
        for source in ["configMapKeyRef", "secretKeyRef"].into_iter().filter(|s| from[*s].is_object()) {
            if from[source]["name"] == "" {
                out.push(Cause::required(format!("{at}.valueFrom.{source}.name"), ""));
            }
        }
    }
}

/// Fields of a pod that its containers may be told by variables.
const TOLD: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields that have a name, and are told in another way or not at all.
const NAMED: &[&str] =
    &["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

fn downward(r: &Value, at: &str, out: &mut Vec<Cause>) {
    let path = s(r, "/fieldPath");
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        match map {
            "metadata.annotations" => judged(at, &key.to_lowercase(), names::key, out),
            "metadata.labels" => judged(at, key, names::key, out),
            _ => out.push(Cause::invalid(at, &map.into(), "does not support subscript")),
        }
    } else if NAMED.contains(&path) {
        out.push(Cause::unsupported(format!("{at}.fieldPath"), &path.into(), &words(TOLD)));
    } else if !path.is_empty() && !TOLD.contains(&path) {
        let why = format!("error converting fieldPath: field label not supported: {path}");
        out.push(Cause::invalid(format!("{at}.fieldPath"), &path.into(), &why));
    }
}

fn probe(p: &Value, at: &str, once: bool, out: &mut Vec<Cause>) {
    let ways: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc"].into_iter().filter(|w| p[*w].is_object()).collect();
    match ways.as_slice() {
        [] => out.push(Cause::required(at, "must specify a handler type")),
        [_, more @ ..] => {
            for w in more {
                out.push(forbidden(&format!("{at}.{w}"), "may not specify more than 1 handler type"));
            }
        }
    }
    if p["exec"].is_object() && arr(p, "/exec/command").is_empty() {
        out.push(Cause::required(format!("{at}.exec.command"), ""));
    }
    for way in ["httpGet", "tcpSocket"].into_iter().filter(|w| p[*w].is_object()) {
        let number = &p[way]["port"];
        port(format!("{at}.{way}.port"), number, out);
        if let Some(name) = number.as_str() {
            judged(format!("{at}.{way}.port"), name, names::port, out);
        }
    }
    one_of(format!("{at}.httpGet.scheme"), &p["httpGet"]["scheme"], &["HTTP", "HTTPS"], out);
    for f in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if p[f].as_i64().is_some_and(|n| n < 0) {
            out.push(Cause::invalid(format!("{at}.{f}"), &p[f], LEAST));
        }
    }
    if once && p["successThreshold"].as_i64().is_some_and(|n| n > 1) {
        out.push(Cause::invalid(format!("{at}.successThreshold"), &p["successThreshold"], "must be 1"));
    }
}

fn resources(r: &Value, at: &str, out: &mut Vec<Cause>) {
    for part in ["limits", "requests"] {
        for (name, v) in r[part].as_object().into_iter().flatten() {
            let at = format!("{at}.{part}[{name}]");
            judged(at.as_str(), name, names::key, out);
            let known = name.contains('/') || STANDARD.contains(&name.as_str()) || name.starts_with("hugepages-");
            if !known && !COUNTED.contains(&name.as_str()) {
                let why = "must be a standard resource type or fully qualified";
                out.push(Cause::invalid(at.as_str(), &name.as_str().into(), why));
            }
            if !known {
                let why = "must be a standard resource for containers";
                out.push(Cause::invalid(at.as_str(), &name.as_str().into(), why));
            }
            if milli(v) < 0 {
                out.push(Cause::invalid(at.as_str(), &shown(v).into(), LEAST));
            }
            if name.contains('/') && milli(v) % 1000 != 0 {
                out.push(Cause::invalid(at, &shown(v).into(), "must be an integer"));
            }
        }
    }
    for (name, want) in r["requests"].as_object().into_iter().flatten() {
        let firm = name.contains('/') && !name.contains("kubernetes.io/") || name.starts_with("hugepages-");
        match r["limits"].get(name) {
            None if firm => {
                out.push(Cause::required(format!("{at}.limits"), "Limit must be set for non overcommitable resources"));
            }
            Some(limit) if firm && milli(want) != milli(limit) => {
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
