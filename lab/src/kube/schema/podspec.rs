//! Rules of pods and their templates: what holds for the whole pod, and which containers there are. Grade: source (the
//! validation of the core group).
use serde_json::Value;

use super::rules::{duplicate, forbidden, one_of};
use super::validate::{judged, labels};
use super::{names, podcontainer, podplace, podsecurity, podvolumes};
use crate::kube::store::Cause;
use crate::kube::text::{arr, milli, s, shown};

/// What containers of a pod have to know of it.
pub(super) struct About<'a> {
    /// Volumes that there are.
    pub volumes: Vec<&'a str>,
    /// Claims of devices that there are.
    pub claims: Vec<&'a str>,
    /// Seconds that it has to end.
    pub grace: i64,
    /// `restartPolicy`.
    pub restart: &'a str,
    /// Whether its users are those of the node.
    pub host_users: bool,
}

/// Checks a pod's spec; `claims` are volumes that come from elsewhere (claim templates).
pub(super) fn check(spec: &Value, path: &str, claims: &[&str], out: &mut Vec<Cause>) {
    let own = podvolumes::check(spec, path, out);
    let about = About {
        volumes: own.into_iter().chain(claims.iter().copied()).collect(),
        claims: arr(spec, "/resourceClaims").iter().map(|c| s(c, "/name")).collect(),
        grace: spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(30),
        restart: s(spec, "/restartPolicy"),
        host_users: spec["hostUsers"] != false,
    };
    podplace::claims(spec, path, out);
    containers(spec, path, &about, out);
    initial(spec, path, &about, out);
    passing(spec, path, &about, out);
    whole(spec, path, out);
    if spec["hostNetwork"] == true {
        for (i, c) in arr(spec, "/containers").iter().enumerate() {
            host_ports(c, &format!("{path}.containers[{i}]"), path == "spec", out);
        }
    }
    one_of(format!("{path}.restartPolicy"), &spec["restartPolicy"], &["Always", "OnFailure", "Never"], out);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(format!("{path}.dnsPolicy"), &spec["dnsPolicy"], &dns, out);
    labels(&spec["nodeSelector"], &format!("{path}.nodeSelector"), out);
    podsecurity::pod(spec, path, out);
    podplace::affinity(&spec["affinity"], &format!("{path}.affinity"), out);
    podsecurity::dns(spec, path, out);
    podplace::gates(spec, path, out);
    podplace::spread(arr(spec, "/topologySpreadConstraints"), &format!("{path}.topologySpreadConstraints"), out);
    podsecurity::users(spec, path, out);
    named(spec, path, out);
    for (i, t) in arr(spec, "/tolerations").iter().enumerate() {
        podplace::toleration(t, &format!("{path}.tolerations[{i}]"), out);
    }
    podsecurity::aliases(spec, path, out);
    for f in ["priorityClassName", "runtimeClassName"] {
        if let Some(text) = spec[f].as_str().filter(|t| !t.is_empty()) {
            judged(format!("{path}.{f}"), text, names::subdomain, out);
        }
    }
    let policies = ["Never", "PreemptLowerPriority"];
    one_of(format!("{path}.preemptionPolicy"), &spec["preemptionPolicy"], &policies, out);
    podsecurity::system(spec, path, out);
}

/// Names, and the deadline between them.
fn named(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    let check = |f: &str, judge: names::Judge, out: &mut Vec<Cause>| {
        if let Some(text) = spec[f].as_str().filter(|t| !t.is_empty()) {
            judged(format!("{path}.{f}"), text, judge, out);
        }
    };
    if spec["setHostnameAsFQDN"] == true && spec["hostnameOverride"].is_string() {
        let why = "may not be specified when setHostnameAsFQDN is true";
        out.push(forbidden(&format!("{path}.hostnameOverride"), why));
    }
    check("serviceAccountName", names::subdomain, out);
    check("nodeName", names::subdomain, out);
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n)) {
        let why = "must be between 1 and 2147483647, inclusive";
        out.push(Cause::invalid(format!("{path}.activeDeadlineSeconds"), deadline, why));
    }
    check("hostname", names::label, out);
    check("subdomain", names::label, out);
}

fn containers(spec: &Value, path: &str, about: &About<'_>, out: &mut Vec<Cause>) {
    let list = arr(spec, "/containers");
    if list.is_empty() {
        out.push(Cause::required(format!("{path}.containers"), ""));
    }
    for (i, c) in list.iter().enumerate() {
        let at = format!("{path}.containers[{i}]");
        podcontainer::common(c, &at, about, out);
        if list[..i].iter().any(|x| x["name"] == c["name"]) {
            out.push(duplicate(format!("{at}.name"), &c["name"]));
        }
        podcontainer::watched(c, &at, about, out);
        podcontainer::restart(c, &at, out);
    }
    podcontainer::host_ports(list, &format!("{path}.containers"), out);
}

/// Containers of the start: those that end before others begin have nothing that looks after them.
fn initial(spec: &Value, path: &str, about: &About<'_>, out: &mut Vec<Cause>) {
    let list = arr(spec, "/initContainers");
    for (i, c) in list.iter().enumerate() {
        let at = format!("{path}.initContainers[{i}]");
        podcontainer::common(c, &at, about, out);
        podcontainer::restart(c, &at, out);
        let same = |x: &Value| x["name"] == c["name"] && !s(x, "/name").is_empty();
        if list[..i].iter().chain(arr(spec, "/containers")).any(same) {
            out.push(duplicate(format!("{at}.name"), &c["name"]));
        }
        if c["restartPolicy"] == "Always" {
            podcontainer::watched(c, &at, about, out);
            continue;
        }
        let probes = ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"];
        for f in probes.into_iter().filter(|f| c[*f].is_object()) {
            let why = "may not be set for init containers without restartPolicy=Always";
            out.push(forbidden(&format!("{at}.{f}"), why));
        }
    }
}

/// Containers that are put into a running pod have no say in where that runs and whether it is well.
fn passing(spec: &Value, path: &str, about: &About<'_>, out: &mut Vec<Cause>) {
    let list = arr(spec, "/ephemeralContainers");
    let others: Vec<&Value> = arr(spec, "/containers").iter().chain(arr(spec, "/initContainers")).collect();
    for (i, c) in list.iter().enumerate() {
        let at = format!("{path}.ephemeralContainers[{i}]");
        podcontainer::common(c, &at, about, out);
        if list[..i].iter().chain(others.iter().copied()).any(|x| x["name"] == c["name"]) {
            out.push(duplicate(format!("{at}.name"), &c["name"]));
        }
        let target = s(c, "/targetContainerName");
        if !target.is_empty() && !others.iter().any(|x| s(x, "/name") == target) {
            let (field, message) = (format!("{at}.targetContainerName"), format!("Not found: {target:?}"));
            out.push(Cause { reason: "FieldValueNotFound", field, message });
        }
        let set = |v: &Value| !v.is_null() && v.as_object().is_none_or(|m| !m.is_empty());
        let fields = ["ports", "resources", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"];
        for f in fields.into_iter().filter(|f| set(&c[*f])) {
            out.push(forbidden(&format!("{at}.{f}"), "cannot be set for an Ephemeral Container"));
        }
        for (j, m) in arr(c, "/volumeMounts").iter().enumerate() {
            for f in ["subPath", "subPathExpr"].into_iter().filter(|f| m[*f].as_str().is_some_and(|t| !t.is_empty())) {
                let at = format!("{at}.volumeMounts[{j}].{f}");
                out.push(forbidden(&at, "cannot be set for an Ephemeral Container"));
            }
        }
    }
}

/// Resources of the pod as a whole.
fn whole(spec: &Value, path: &str, out: &mut Vec<Cause>) {
    let own = &spec["resources"];
    let at = format!("{path}.resources");
    if !own.is_object() {
        return;
    }
    for part in ["limits", "requests"] {
        for (k, _) in own[part].as_object().into_iter().flatten() {
            if !matches!(k.as_str(), "cpu" | "memory") && !k.starts_with("hugepages-") {
                let kinds = ["cpu", "hugepages-", "memory"].map(str::to_owned);
                out.push(Cause::unsupported(format!("{at}.{part}[{k}]"), &k.as_str().into(), &kinds));
            }
        }
    }
    for (k, v) in own["requests"].as_object().into_iter().flatten() {
        let all: i64 = arr(spec, "/containers").iter().map(|c| milli(&c["resources"]["requests"][k])).sum();
        if all > milli(v) {
            let sum = if all % 1000 == 0 { (all / 1000).to_string() } else { format!("{all}m") };
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            out.push(Cause::invalid(format!("{at}.requests[{k}]"), &shown(v).into(), &why));
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
