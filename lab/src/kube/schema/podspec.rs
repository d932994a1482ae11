//! Rules of pods and their templates: containers, volumes, probes, tolerations, resources. Grade: source (the validation
//! of the core group).
use serde_json::Value;

use super::names;
use super::rules::{LEAST, duplicate, forbidden, one_of, port};
use super::validate::judged;
use crate::kube::store::Cause;
use crate::kube::text::{arr, milli, s, shown};

const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const USERS: &str = "must be between 0 and 2147483647, inclusive";

/// Checks a pod's spec.
pub(super) fn check(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    one_of(format!("{path}.restartPolicy"), &spec["restartPolicy"], &["Always", "OnFailure", "Never"], out);
    let dns = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    one_of(format!("{path}.dnsPolicy"), &spec["dnsPolicy"], &dns, out);
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n)) {
        let why = "must be between 1 and 2147483647, inclusive";
        out.push(Cause::invalid(format!("{path}.activeDeadlineSeconds"), deadline, why));
    }
    for (f, judge) in [
        ("hostname", names::label as names::Judge),
        ("subdomain", names::label),
        ("serviceAccountName", names::subdomain),
    ] {
        if let Some(text) = spec[f].as_str().filter(|t| !t.is_empty()) {
            judged(format!("{path}.{f}"), text, judge, out);
        }
    }
    for (k, v) in spec["nodeSelector"].as_object().into_iter().flatten() {
        judged(format!("{path}.nodeSelector"), k, names::key, out);
        judged(format!("{path}.nodeSelector"), v.as_str().unwrap_or_default(), names::value, out);
    }
    user(&spec["securityContext"], &format!("{path}.securityContext"), out);
    volumes(spec, path, out);
    for (i, t) in arr(spec, "/tolerations").iter().enumerate() {
        toleration(t, &format!("{path}.tolerations[{i}]"), out);
    }
    for list in ["containers", "initContainers"] {
        for (i, c) in arr(spec, &format!("/{list}")).iter().enumerate() {
            let at = format!("{path}.{list}[{i}]");
            container(c, &at, out);
            if spec["hostNetwork"] == true {
                host_ports(c, &at, out);
            }
        }
    }
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
    }
}

fn toleration(t: &Value, at: &str, out: &mut Vec<Cause>) {
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
            out.push(Cause::invalid(format!("{at}.operator"), t, why));
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

fn host_ports(c: &Value, at: &str, out: &mut Vec<Cause>) {
    for (i, p) in arr(c, "/ports").iter().enumerate().filter(|(_, p)| p["hostPort"] != p["containerPort"]) {
        let why = "must match `containerPort` when `hostNetwork` is true";
        out.push(Cause::invalid(format!("{at}.ports[{i}].hostPort"), &p["hostPort"], why));
    }
}

fn container(c: &Value, at: &str, out: &mut Vec<Cause>) {
    if let Some(n) = c["name"].as_str().filter(|n| !n.is_empty()) {
        judged(format!("{at}.name"), n, names::label, out);
    }
    let image = s(c, "/image");
    if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        out.push(Cause::invalid(format!("{at}.image"), &c["image"], why));
    }
    one_of(format!("{at}.imagePullPolicy"), &c["imagePullPolicy"], &["Always", "IfNotPresent", "Never"], out);
    user(&c["securityContext"], &format!("{at}.securityContext"), out);
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
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"].into_iter().filter(|k| c[*k].is_object()) {
        probe(&c[kind], &format!("{at}.{kind}"), kind != "readinessProbe", out);
    }
    resources(&c["resources"], &format!("{at}.resources"), out);
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
            let words =
                ["must be a standard resource type or fully qualified", "must be a standard resource for containers"];
            for why in words.into_iter().filter(|_| !known) {
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
