//! Rules of containers: ports, variables, mounts, probes, hooks, resources. Grade: source (the validation of the core
//! group).
use serde_json::{Value, json};

use super::limits::COUNTED;
use super::names;
use super::podsecurity::{self, descending};
use super::podspec::About;
use super::rules::{LEAST, duplicate, forbidden, one_of, port};
use super::validate::judged;
use crate::kube::store::Cause;
use crate::kube::text::{arr, milli, s, shown};

const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const POLICIES: &[&str] = &["Always", "Never", "OnFailure"];

/// What holds for every container.
pub(super) fn common(c: &Value, at: &str, about: &About<'_>, out: &mut Vec<Cause>) {
    match s(c, "/name") {
        "" => out.push(Cause::required(format!("{at}.name"), "")),
        name => judged(format!("{at}.name"), name, names::label, out),
    }
    let image = s(c, "/image");
    if image.is_empty() {
        out.push(Cause::required(format!("{at}.image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        out.push(Cause::invalid(format!("{at}.image"), &c["image"], why));
    }
    let ends = ["File", "FallbackToLogsOnError"];
    one_of(format!("{at}.terminationMessagePolicy"), &c["terminationMessagePolicy"], &ends, out);
    ports(arr(c, "/ports"), &format!("{at}.ports"), out);
    environment(c, at, out);
    sources(c, at, out);
    mounts(c, at, about, out);
    one_of(format!("{at}.imagePullPolicy"), &c["imagePullPolicy"], &["Always", "IfNotPresent", "Never"], out);
    resources(&c["resources"], &format!("{at}.resources"), out);
    claims(arr(c, "/resources/claims"), &format!("{at}.resources.claims"), about, out);
    resizing(arr(c, "/resizePolicy"), &format!("{at}.resizePolicy"), about, out);
    podsecurity::container(&c["securityContext"], &format!("{at}.securityContext"), about.host_users, out);
}

fn ports(list: &[Value], path: &str, out: &mut Vec<Cause>) {
    let mut named: Vec<&str> = Vec::new();
    for (i, p) in list.iter().enumerate() {
        let (at, name) = (format!("{path}[{i}]"), s(p, "/name"));
        if !name.is_empty() {
            let before = out.len();
            judged(format!("{at}.name"), name, names::port, out);
            if named.contains(&name) && out.len() == before {
                out.push(duplicate(format!("{at}.name"), &p["name"]));
            }
            named.push(name);
        }
        if p["containerPort"].as_i64().unwrap_or(0) == 0 {
            out.push(Cause::required(format!("{at}.containerPort"), ""));
        } else {
            port(format!("{at}.containerPort"), &p["containerPort"], out);
        }
        if p["hostPort"] != 0 {
            port(format!("{at}.hostPort"), &p["hostPort"], out);
        }
        one_of(format!("{at}.protocol"), &p["protocol"], &["SCTP", "TCP", "UDP"], out);
    }
}

/// Ports of the node that two containers want.
pub(super) fn host_ports(list: &[Value], path: &str, out: &mut Vec<Cause>) {
    let mut seen: Vec<String> = Vec::new();
    for (i, c) in list.iter().enumerate() {
        for (j, p) in arr(c, "/ports").iter().enumerate() {
            let Some(number) = p["hostPort"].as_i64().filter(|n| *n != 0) else { continue };
            let key = format!("{}/{}/{number}", s(p, "/protocol"), s(p, "/hostIP"));
            if seen.contains(&key) {
                out.push(duplicate(format!("{path}[{i}].ports[{j}].hostPort"), &key.into()));
            } else {
                seen.push(key);
            }
        }
    }
}

fn variable(at: String, name: &str, out: &mut Vec<Cause>) {
    if !name.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        let why = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        out.push(Cause::invalid(at, &name.into(), why));
    }
}

fn environment(c: &Value, at: &str, out: &mut Vec<Cause>) {
    for (i, e) in arr(c, "/env").iter().enumerate() {
        let at = format!("{at}.env[{i}]");
        match s(e, "/name") {
            "" => out.push(Cause::required(format!("{at}.name"), "")),
            name => variable(format!("{at}.name"), name, out),
        }
        let (from, at) = (&e["valueFrom"], format!("{at}.valueFrom"));
        if !from.is_object() {
            continue;
        }
        if from["fieldRef"].is_object() {
            field(&from["fieldRef"], &format!("{at}.fieldRef"), false, out);
        }
        if from["resourceFieldRef"].is_object() {
            resource(&from["resourceFieldRef"], &format!("{at}.resourceFieldRef"), false, out);
        }
        for source in ["configMapKeyRef", "secretKeyRef"].into_iter().filter(|k| from[*k].is_object()) {
            key_of(&from[source], &format!("{at}.{source}"), out);
        }
        let count = from.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()).count();
        let mut say = |why: &str| out.push(Cause::invalid(at.as_str(), &"".into(), why));
        match count {
            0 => say(
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ),
            _ if !s(e, "/value").is_empty() => say("may not be specified when `value` is not empty"),
            1 => {}
            _ => say("may not have more than one field specified at a time"),
        }
    }
}

/// The key of a map of configuration.
fn key_of(r: &Value, at: &str, out: &mut Vec<Cause>) {
    judged(format!("{at}.name"), s(r, "/name"), names::subdomain, out);
    match s(r, "/key") {
        "" => out.push(Cause::required(format!("{at}.key"), "")),
        key => judged(format!("{at}.key"), key, super::secrets::key, out),
    }
}

fn sources(c: &Value, at: &str, out: &mut Vec<Cause>) {
    for (i, e) in arr(c, "/envFrom").iter().enumerate() {
        let here = format!("{at}.envFrom[{i}]");
        variable(format!("{here}.prefix"), s(e, "/prefix"), out);
        let from: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|k| e[*k].is_object()).collect();
        for k in &from {
            match s(&e[*k], "/name") {
                "" => out.push(Cause::required(format!("{here}.{k}.name"), "")),
                name => judged(format!("{here}.{k}.name"), name, names::subdomain, out),
            }
        }
        let why = match from.len() {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        out.push(Cause::invalid(format!("{at}.envFrom"), &"".into(), why));
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

/// The same by files.
const FILED: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields that have a name, and are told in another way or not at all.
const NAMED: &[&str] =
    &["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

/// A field of the pod, told by a variable or by a file.
pub(super) fn field(r: &Value, at: &str, filed: bool, out: &mut Vec<Cause>) {
    let (path, version) = (s(r, "/fieldPath"), s(r, "/apiVersion"));
    if path.is_empty() {
        out.push(Cause::required(format!("{at}.fieldPath"), ""));
        return;
    }
    let unknown = |what: String| {
        Cause::invalid(format!("{at}.fieldPath"), &path.into(), &format!("error converting fieldPath: {what}"))
    };
    if version != "v1" {
        out.push(unknown(format!("unsupported pod version: {version}")));
        return;
    }
    let allowed = if filed { FILED } else { TOLD };
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        match map {
            "metadata.annotations" => judged(at, &key.to_lowercase(), names::key, out),
            "metadata.labels" => judged(at, key, names::key, out),
            _ => out.push(Cause::invalid(at, &map.into(), "does not support subscript")),
        }
    } else if !TOLD.contains(&path) && !NAMED.contains(&path) {
        out.push(unknown(format!("field label not supported: {path}")));
    } else if !allowed.contains(&path) {
        out.push(Cause::unsupported(format!("{at}.fieldPath"), &path.into(), &super::rules::words(allowed)));
    }
}

/// A resource of a container, told by a variable or by a file.
pub(super) fn resource(r: &Value, at: &str, filed: bool, out: &mut Vec<Cause>) {
    const KNOWN: &[&str] = &[
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let name = s(r, "/resource");
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if filed && s(r, "/containerName").is_empty() {
        out.push(Cause::required(format!("{at}.containerName"), ""));
    } else if name.is_empty() {
        out.push(Cause::required(format!("{at}.resource"), ""));
    } else if !KNOWN.contains(&name) && !huge {
        out.push(Cause::unsupported(format!("{at}.resource"), &name.into(), &super::rules::words(KNOWN)));
    }
    let unit = shown(&r["divisor"]);
    if milli(&r["divisor"]) == 0 {
        return;
    }
    const UNITS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (right, units, what) = match name.split_once('.').map_or("", |n| n.1) {
        "cpu" => (matches!(unit.as_str(), "1m" | "1"), "1m and 1", "cpu"),
        "memory" => (UNITS.contains(&unit.as_str()), "", "memory"),
        "ephemeral-storage" => (UNITS.contains(&unit.as_str()), "", "local ephemeral storage"),
        _ if huge => (UNITS.contains(&unit.as_str()), "", "hugepages"),
        _ => return,
    };
    let units = if units.is_empty() { UNITS.join(", ") } else { units.to_owned() };
    if !right {
        let why = format!("only divisor's values {units} are supported with the {what} resource");
        out.push(Cause::invalid(format!("{at}.divisor"), &name.into(), &why));
    }
}

fn mounts(c: &Value, at: &str, about: &About<'_>, out: &mut Vec<Cause>) {
    let list = arr(c, "/volumeMounts");
    let whole = format!("{at}.volumeMounts");
    for (i, m) in list.iter().enumerate() {
        let (at, path, name) = (format!("{whole}[{i}]"), s(m, "/mountPath"), s(m, "/name"));
        if name.is_empty() {
            out.push(Cause::required(format!("{at}.name"), ""));
        }
        if !about.volumes.contains(&name) {
            let message = format!("Not found: {name:?}");
            out.push(Cause { reason: "FieldValueNotFound", field: format!("{at}.name"), message });
        }
        if path.is_empty() {
            out.push(Cause::required(format!("{at}.mountPath"), ""));
        }
        if list[..i].iter().any(|x| s(x, "/mountPath") == path) {
            out.push(Cause::invalid(format!("{at}.mountPath"), &path.into(), "must be unique"));
        }
        let (below, by) = (s(m, "/subPath"), s(m, "/subPathExpr"));
        descending(&format!("{whole}.subPath"), below, out);
        if !by.is_empty() {
            if !below.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                out.push(Cause::invalid(format!("{at}.subPathExpr"), &by.into(), why));
            }
            descending(&format!("{whole}.subPathExpr"), by, out);
        }
        propagation(c, m, &whole, out);
    }
}

fn propagation(c: &Value, m: &Value, whole: &str, out: &mut Vec<Cause>) {
    let (at, how) = (format!("{whole}.mountPropagation"), &m["mountPropagation"]);
    one_of(at.clone(), how, &["Bidirectional", "HostToContainer", "None"], out);
    if how == "Bidirectional" && c["securityContext"]["privileged"] != true {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        out.push(forbidden(&at, why));
    }
    let (at, deep) = (format!("{whole}.recursiveReadOnly"), &m["recursiveReadOnly"]);
    match deep.as_str() {
        Some("Enabled" | "IfPossible") => {
            if m["readOnly"] != true {
                out.push(forbidden(&at, "may only be specified when readOnly is true"));
            }
            if how.as_str().is_some_and(|h| h != "None") {
                out.push(forbidden(&at, "may only be specified when mountPropagation is None or not specified"));
            }
        }
        _ => one_of(at, deep, &["Disabled", "Enabled", "IfPossible"], out),
    }
}

/// What looks after a container: hooks and probes.
pub(super) fn watched(c: &Value, at: &str, about: &About<'_>, out: &mut Vec<Cause>) {
    for hook in ["postStart", "preStop"].into_iter().filter(|h| c["lifecycle"][*h].is_object()) {
        let ways = ["exec", "httpGet", "tcpSocket", "sleep"];
        handler(&c["lifecycle"][hook], &format!("{at}.lifecycle.{hook}"), &ways, about, out);
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"].into_iter().filter(|k| c[*k].is_object()) {
        probe(&c[kind], &format!("{at}.{kind}"), kind == "readinessProbe", about, out);
    }
}

fn handler(h: &Value, at: &str, ways: &[&str], about: &About<'_>, out: &mut Vec<Cause>) {
    let mut there = ways.iter().filter(|w| h[**w].is_object());
    match there.next() {
        None => out.push(Cause::required(at, "must specify a handler type")),
        Some(way) => action(way, &h[*way], &format!("{at}.{way}"), about, out),
    }
    for way in there {
        out.push(forbidden(&format!("{at}.{way}"), "may not specify more than 1 handler type"));
    }
}

fn action(way: &str, a: &Value, at: &str, about: &About<'_>, out: &mut Vec<Cause>) {
    match way {
        "exec" if arr(a, "/command").is_empty() => out.push(Cause::required(format!("{at}.command"), "")),
        "httpGet" | "tcpSocket" => {
            if way == "httpGet" && s(a, "/path").is_empty() {
                out.push(Cause::required(format!("{at}.path"), ""));
            }
            match a["port"].as_str() {
                Some(name) => judged(format!("{at}.port"), name, names::port, out),
                None => port(format!("{at}.port"), &json!(a["port"].as_i64().unwrap_or(0)), out),
            }
            one_of(format!("{at}.scheme"), &a["scheme"], &["HTTP", "HTTPS"], out);
            for h in arr(a, "/httpHeaders") {
                let name = s(h, "/name");
                if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                    let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                    out.push(Cause::invalid(format!("{at}.httpHeaders"), &name.into(), why));
                }
            }
        }
        "grpc" => port(format!("{at}.port"), &json!(a["port"].as_i64().unwrap_or(0)), out),
        "sleep" => {
            let seconds = a["seconds"].as_i64().unwrap_or(0);
            if seconds < 0 || seconds > about.grace {
                let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({})", about.grace);
                out.push(Cause::invalid(at, &seconds.into(), &why));
            }
        }
        _ => {}
    }
}

fn probe(p: &Value, at: &str, ready: bool, about: &About<'_>, out: &mut Vec<Cause>) {
    handler(p, at, &["exec", "httpGet", "tcpSocket", "grpc"], about, out);
    for f in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if p[f].as_i64().is_some_and(|n| n < 0) {
            out.push(Cause::invalid(format!("{at}.{f}"), &p[f], LEAST));
        }
    }
    let (field, grace) = (format!("{at}.terminationGracePeriodSeconds"), &p["terminationGracePeriodSeconds"]);
    if grace.as_i64().is_some_and(|n| n <= 0) {
        out.push(Cause::invalid(field.as_str(), grace, "must be greater than 0"));
    }
    if ready {
        if !grace.is_null() {
            out.push(Cause::invalid(field, grace, "must not be set for readinessProbes"));
        }
    } else if p["successThreshold"].as_i64().is_some_and(|n| n != 1) {
        out.push(Cause::invalid(format!("{at}.successThreshold"), &p["successThreshold"], "must be 1"));
    }
}

/// When a container runs again.
pub(super) fn restart(c: &Value, at: &str, out: &mut Vec<Cause>) {
    let (policy, rules) = (&c["restartPolicy"], arr(c, "/restartPolicyRules"));
    if policy.is_null() && !rules.is_empty() {
        let why = "must specify restartPolicy when restart rules are used";
        out.push(Cause::required(format!("{at}.restartPolicy"), why));
    }
    one_of(format!("{at}.restartPolicy"), policy, POLICIES, out);
    for (i, r) in rules.iter().enumerate() {
        let at = format!("{at}.restartPolicyRules[{i}]");
        one_of(format!("{at}.action"), &r["action"], &["Restart", "RestartAllContainers"], out);
        if r["exitCodes"].is_object() {
            one_of(format!("{at}.exitCodes.operator"), &r["exitCodes"]["operator"], &["In", "NotIn"], out);
        } else {
            out.push(Cause::required(format!("{at}.exitCodes"), "must be specified"));
        }
    }
}

fn claims(list: &[Value], path: &str, about: &About<'_>, out: &mut Vec<Cause>) {
    for (i, c) in list.iter().enumerate() {
        let (at, name) = (format!("{path}[{i}]"), s(c, "/name"));
        if name.is_empty() {
            out.push(Cause::required(at, ""));
            continue;
        }
        if list[..i].iter().any(|x| x["name"] == c["name"] && x["request"] == c["request"]) {
            out.push(duplicate(at.clone(), &c["name"]));
        }
        if !about.claims.contains(&name) {
            let mut all = about.claims.clone();
            all.sort_unstable();
            let all = if all.is_empty() { "which is empty".to_owned() } else { format!("{all:?}") };
            let message = format!("Not found: {name:?}: must be one of the names in pod.spec.resourceClaims {all}");
            out.push(Cause { reason: "FieldValueNotFound", field: at, message });
        }
    }
}

fn resizing(list: &[Value], at: &str, about: &About<'_>, out: &mut Vec<Cause>) {
    for (i, p) in list.iter().enumerate() {
        if list[..i].iter().any(|x| x["resourceName"] == p["resourceName"]) {
            out.push(duplicate(format!("{at}[{i}]"), &p["resourceName"]));
        }
        one_of(at.to_owned(), &p["resourceName"], &["cpu", "memory"], out);
        one_of(at.to_owned(), &p["restartPolicy"], &["NotRequired", "RestartContainer"], out);
        if about.restart == "Never" && p["restartPolicy"] != "NotRequired" {
            let why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            out.push(Cause::invalid(at, &p["restartPolicy"], why));
        }
    }
}

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn resources(r: &Value, at: &str, out: &mut Vec<Cause>) {
    for (name, v) in r["limits"].as_object().into_iter().flatten() {
        amount(name, v, &format!("{at}.limits[{name}]"), out);
    }
    for (name, v) in r["requests"].as_object().into_iter().flatten() {
        amount(name, v, &format!("{at}.requests[{name}]"), out);
        let firm = name.contains('/') && !name.contains("kubernetes.io/") || is_huge(name);
        let asked = format!("{at}.requests");
        match r["limits"].get(name) {
            None if firm => {
                out.push(Cause::required(format!("{at}.limits"), "Limit must be set for non overcommitable resources"));
            }
            Some(limit) if firm && milli(v) != milli(limit) => {
                let why = format!("must be equal to {name} limit of {}", shown(limit));
                out.push(Cause::invalid(asked, &shown(v).into(), &why));
            }
            Some(limit) if milli(v) > milli(limit) => {
                let why = format!("must be less than or equal to {name} limit of {}", shown(limit));
                out.push(Cause::invalid(asked, &shown(v).into(), &why));
            }
            _ => {}
        }
    }
    let names = || ["limits", "requests"].into_iter().flat_map(|p| r[p].as_object().into_iter().flatten()).map(|e| e.0);
    if names().any(|n| is_huge(n)) && !names().any(|n| n == "cpu" || n == "memory") {
        out.push(forbidden(at, "HugePages require cpu or memory"));
    }
}

fn amount(name: &str, v: &Value, at: &str, out: &mut Vec<Cause>) {
    judged(at, name, names::key, out);
    let known = name.contains('/') || STANDARD.contains(&name) || is_huge(name);
    if !known && !COUNTED.contains(&name) {
        out.push(Cause::invalid(at, &name.into(), "must be a standard resource type or fully qualified"));
    }
    if !known {
        out.push(Cause::invalid(at, &name.into(), "must be a standard resource for containers"));
    }
    if milli(v) < 0 {
        out.push(Cause::invalid(at, &shown(v).into(), LEAST));
    }
    if name.contains('/') && milli(v) % 1000 != 0 {
        out.push(Cause::invalid(at, &shown(v).into(), "must be an integer"));
    }
    if let Some(size) = name.strip_prefix("hugepages-") {
        let page = milli(&size.into());
        if page > 0 && milli(v) % page != 0 {
            let why = format!("{} is not positive integer multiple of {name}", shown(v));
            out.push(Cause::invalid(at, &shown(v).into(), &why));
        }
    }
}
