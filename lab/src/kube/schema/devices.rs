//! Rules of devices and claims to them (dynamic resource allocation). What their expressions say is not looked at.
//! Grade: recorded (kube-apiserver 1.36.2).
use serde_json::Value;

use super::rules::{duplicate, forbidden, immutable, one_of, too_many, words};
use super::validate::{described, judged};
use super::{Kind, goshape, names};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

/// Most selectors, requests, constraints or configurations.
const MOST: usize = 32;
const POSITIVE: &str = "must be greater than zero";
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Checks an object of the group `resource.k8s.io`.
pub(super) fn check(kind: &Kind, obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let spec = &obj["spec"];
    match kind.kind.as_str() {
        "DeviceClass" => class(spec, out),
        "ResourceClaim" => {
            if let Some(old) = old {
                fixed("DeviceClaimSpec", spec, &old["spec"], out);
            }
            claim(&spec["devices"], "spec.devices", out);
        }
        "ResourceClaimTemplate" => {
            if let Some(old) = old {
                immutable("spec", spec, Some(&old["spec"]), out);
            }
            template(spec, out);
        }
        "ResourceSlice" => slice(spec, old.map(|o| &o["spec"]), out),
        _ => {}
    }
}

/// A spec that never changes, shown as the real server does.
fn fixed(of: &str, new: &Value, old: &Value, out: &mut Vec<Cause>) {
    if new != old {
        out.push(Cause::invalid("spec", &goshape::shaped(of, new), "field is immutable"));
    }
}

fn class(spec: &Value, out: &mut Vec<Cause>) {
    selectors(spec, "spec", out);
    configs(spec, "spec", &[], out);
    let name = &spec["extendedResourceName"];
    if let Some(text) = name.as_str().filter(|t| {
        let own = t.split('/').next().is_some_and(|d| d == "kubernetes.io" || d.ends_with(".kubernetes.io"));
        !t.contains('/') || own || t.starts_with("requests.") || !names::key(t).is_empty()
    }) {
        let why = "must be a valid extended resource name";
        out.push(Cause::invalid("spec.extendedResourceName", &text.into(), why));
    }
}

fn selectors(of: &Value, at: &str, out: &mut Vec<Cause>) {
    let list = arr(of, "/selectors");
    too_many(&format!("{at}.selectors"), list.len(), MOST, out);
    for (i, _) in list.iter().enumerate().filter(|(_, x)| !x["cel"].is_object()) {
        out.push(Cause::required(format!("{at}.selectors[{i}].cel"), ""));
    }
}

/// Checks what is told to drivers, of `known` requests.
fn configs(of: &Value, at: &str, known: &[String], out: &mut Vec<Cause>) {
    let list = arr(of, "/config");
    too_many(&format!("{at}.config"), list.len(), MOST, out);
    for (i, c) in list.iter().enumerate() {
        let at = format!("{at}.config[{i}]");
        named(c, &at, known, out);
        let opaque = &c["opaque"];
        if !opaque.is_object() {
            out.push(Cause::required(format!("{at}.opaque"), ""));
            continue;
        }
        driver(opaque, &format!("{at}.opaque"), out);
        let told = format!("{at}.opaque.parameters");
        match &opaque["parameters"] {
            Value::Null => out.push(Cause::required(told, "")),
            Value::Object(_) => {}
            _ => out.push(Cause::invalid(told, &"<value omitted>".into(), "must be a valid JSON object")),
        }
    }
}

fn driver(of: &Value, at: &str, out: &mut Vec<Cause>) {
    let (at, name) = (format!("{at}.driver"), s(of, "/driver"));
    if name.is_empty() {
        out.push(Cause::required(at, ""));
        return;
    }
    // letters of either size are taken
    for why in names::subdomain(&name.to_lowercase()) {
        out.push(Cause::invalid(at.as_str(), &name.into(), &why));
    }
}

/// Requests that something is about.
fn named(of: &Value, at: &str, known: &[String], out: &mut Vec<Cause>) {
    for (i, r) in arr(of, "/requests").iter().enumerate() {
        if !r.as_str().is_some_and(|r| known.iter().any(|k| k == r)) {
            let why =
                "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
            out.push(Cause::invalid(format!("{at}.requests[{i}]"), r, why));
        }
    }
}

fn claim(devices: &Value, at: &str, out: &mut Vec<Cause>) {
    let list = arr(devices, "/requests");
    too_many(&format!("{at}.requests"), list.len(), MOST, out);
    let mut known = Vec::new();
    for (i, r) in list.iter().enumerate() {
        let at = format!("{at}.requests[{i}]");
        request(r, &at, out);
        again(list, i, at, out);
        let name = s(r, "/name");
        known.push(name.to_owned());
        known.extend(arr(r, "/firstAvailable").iter().map(|sub| format!("{name}/{}", s(sub, "/name"))));
    }
    let list = arr(devices, "/constraints");
    too_many(&format!("{at}.constraints"), list.len(), MOST, out);
    for (i, c) in list.iter().enumerate() {
        let at = format!("{at}.constraints[{i}]");
        named(c, &at, &known, out);
        let told: Vec<&str> =
            ["matchAttribute", "distinctAttribute"].into_iter().filter(|f| c[*f].is_string()).collect();
        if told.is_empty() {
            let why =
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            out.push(Cause::required(at.as_str(), why));
        }
        for f in told.into_iter().filter(|f| !s(c, &format!("/{f}")).contains('/')) {
            let why = "a fully qualified name must be a domain and a name separated by a slash";
            out.push(Cause::invalid(format!("{at}.{f}"), &c[f], why));
        }
    }
    configs(devices, at, &known, out);
}

/// A name that one before it in the list has.
fn again(list: &[Value], i: usize, at: String, out: &mut Vec<Cause>) {
    if list[..i].iter().any(|x| s(x, "/name") == s(&list[i], "/name")) {
        out.push(duplicate(at, &s(&list[i], "/name").into()));
    }
}

fn request(r: &Value, at: &str, out: &mut Vec<Cause>) {
    judged(format!("{at}.name"), s(r, "/name"), names::label, out);
    let (one, choice) = (&r["exactly"], arr(r, "/firstAvailable"));
    match (one.is_object(), choice.is_empty()) {
        (false, true) => out.push(Cause::required(at, "exactly one of `exactly` or `firstAvailable` is required")),
        (true, false) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            out.push(Cause::invalid(at, &Value::Null, why));
        }
        (true, true) => wanted(one, &format!("{at}.exactly"), out),
        (false, false) => {
            too_many(&format!("{at}.firstAvailable"), choice.len(), 8, out);
            for (i, sub) in choice.iter().enumerate() {
                let at = format!("{at}.firstAvailable[{i}]");
                judged(format!("{at}.name"), s(sub, "/name"), names::label, out);
                wanted(sub, &at, out);
                again(choice, i, at, out);
            }
        }
    }
}

/// Checks which devices are wanted, and how many.
fn wanted(r: &Value, at: &str, out: &mut Vec<Cause>) {
    match s(r, "/deviceClassName") {
        "" => out.push(Cause::required(format!("{at}.deviceClassName"), "")),
        name => judged(format!("{at}.deviceClassName"), name, names::subdomain, out),
    }
    selectors(r, at, out);
    let count = &r["count"];
    match s(r, "/allocationMode") {
        "All" if count.as_i64().unwrap_or(0) != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            out.push(Cause::invalid(format!("{at}.count"), count, why));
        }
        "All" => {}
        "ExactCount" if count.as_i64().unwrap_or(0) <= 0 => {
            out.push(Cause::invalid(format!("{at}.count"), count, POSITIVE));
        }
        "ExactCount" => {}
        other => {
            let known = words(&["All", "ExactCount"]);
            out.push(Cause::unsupported(format!("{at}.allocationMode"), &other.into(), &known));
        }
    }
    for (i, t) in arr(r, "/tolerations").iter().enumerate() {
        let at = format!("{at}.tolerations[{i}]");
        if !s(t, "/key").is_empty() {
            judged(format!("{at}.key"), s(t, "/key"), names::key, out);
        }
        one_of(format!("{at}.operator"), &t["operator"], &["Equal", "Exists"], out);
        if t["operator"] == "Exists" && !s(t, "/value").is_empty() {
            out.push(Cause::invalid(format!("{at}.value"), &t["value"], "must be empty for operator `Exists`"));
        }
        one_of(format!("{at}.effect"), &t["effect"], EFFECTS, out);
    }
}

fn template(spec: &Value, out: &mut Vec<Cause>) {
    let mut causes = Vec::new();
    described(&serde_json::json!({ "metadata": spec["metadata"] }), &mut causes);
    out.extend(causes.into_iter().map(|c| Cause { field: format!("spec.{}", c.field), ..c }));
    for f in spec["metadata"].as_object().into_iter().flat_map(|m| m.keys()) {
        if !matches!(f.as_str(), "labels" | "annotations" | "creationTimestamp") {
            out.push(forbidden(&format!("spec.metadata.{f}"), "cannot be set"));
        }
    }
    claim(&spec["spec"]["devices"], "spec.spec.devices", out);
}

fn slice(spec: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    if let Some(old) = old {
        immutable("spec.driver", &spec["driver"], Some(&old["driver"]), out);
        immutable("spec.pool.name", &spec["pool"]["name"], Some(&old["pool"]["name"]), out);
        immutable("spec.nodeName", &spec["nodeName"], Some(&old["nodeName"]), out);
    }
    driver(spec, "spec", out);
    let pool = &spec["pool"];
    match s(pool, "/name") {
        "" => out.push(Cause::required("spec.pool.name", "")),
        name => name.split('/').for_each(|part| {
            names::subdomain(part).iter().for_each(|why| out.push(Cause::invalid("spec.pool.name", &part.into(), why)));
        }),
    }
    let number = |f: &str| pool[f].as_i64().unwrap_or(0);
    if number("resourceSliceCount") <= 0 {
        let n = number("resourceSliceCount").into();
        out.push(Cause::invalid("spec.pool.resourceSliceCount", &n, POSITIVE));
    }
    if number("generation") < 0 {
        let why = "must be greater than or equal to zero";
        out.push(Cause::invalid("spec.pool.generation", &pool["generation"], why));
    }
    placed(spec, out);
    let list = arr(spec, "/devices");
    for (i, d) in list.iter().enumerate() {
        device(d, spec, &format!("spec.devices[{i}]"), out);
        again(list, i, format!("spec.devices[{i}]"), out);
    }
}

/// Checks where the devices of a slice can be used: told once.
fn placed(spec: &Value, out: &mut Vec<Cause>) {
    let told = |f: &&str| match &spec[*f] {
        Value::Null | Value::Bool(false) => false,
        v => v != "",
    };
    let set: Vec<String> = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"]
        .into_iter()
        .filter(told)
        .map(|f| format!("`{f}`"))
        .collect();
    let why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    if spec["nodeSelector"].is_object() {
        let (at, terms) = ("spec.nodeSelector.nodeSelectorTerms", arr(spec, "/nodeSelector/nodeSelectorTerms"));
        if terms.is_empty() {
            out.push(Cause::required(at, "must have at least one node selector term"));
        }
        if terms.len() != 1 {
            out.push(Cause::invalid(at, &terms.into(), "must have exactly one node selector term"));
        }
    }
    match set.len() {
        0 => out.push(Cause::required("spec", why)),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", set.join(", "));
            out.push(Cause::invalid("spec", &shown.into(), &format!("{why}, but multiple fields are set")));
        }
    }
}

fn device(d: &Value, spec: &Value, at: &str, out: &mut Vec<Cause>) {
    judged(format!("{at}.name"), s(d, "/name"), names::label, out);
    for (name, v) in d["attributes"].as_object().into_iter().flatten() {
        let at = format!("{at}.attributes[{name}]");
        if v.as_object().is_none_or(serde_json::Map::is_empty) {
            out.push(Cause::invalid(at, &"".into(), "exactly one value must be specified"));
        }
    }
    for (i, t) in arr(d, "/taints").iter().enumerate() {
        let at = format!("{at}.taints[{i}]");
        judged(format!("{at}.key"), s(t, "/key"), names::key, out);
        one_of(format!("{at}.effect"), &t["effect"], EFFECTS, out);
    }
    let own = ["nodeName", "nodeSelector", "allNodes"].iter().any(|f| !d[*f].is_null());
    if own && spec["perDeviceNodeSelection"] != true {
        let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        out.push(Cause::invalid(at, &Value::Null, why));
    }
}
