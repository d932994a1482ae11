//! Rules of nodes: taints, ranges of pods' addresses, sizes, and what of them is given once. Grade: source (the validation
//! of the core group, the taintnodesbycondition plugin).
use serde_json::{Value, json};

use super::defaults::set;
use super::rules::{duplicate, forbidden, words};
use super::validate::{described, judged};
use super::{ips, limits, names};
use crate::kube::store::Cause;
use crate::kube::text::{arr, s};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Taint of a node that has not said yet that it is ready.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Checks a node, whichever part of it was written.
pub(super) fn check(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    taints(arr(obj, "/spec/taints"), out);
    sizes(obj, out);
    ranges(arr(obj, "/spec/podCIDRs"), out);
    if let Some(old) = old {
        described(obj, out);
        sizes(obj, out);
        changed(obj, old, out);
    }
}

/// Checks a changed status.
pub(super) fn status(obj: &Value, old: &Value, out: &mut Vec<Cause>) {
    sizes(obj, out);
    changed(obj, old, out);
}

fn sizes(obj: &Value, out: &mut Vec<Cause>) {
    for f in ["capacity", "allocatable"] {
        for (k, v) in obj["status"][f].as_object().into_iter().flatten() {
            limits::counted(k, v, format!("status.{f}.{k}"), out);
        }
    }
}

fn changed(obj: &Value, old: &Value, out: &mut Vec<Cause>) {
    let addresses = arr(obj, "/status/addresses");
    for (i, a) in addresses.iter().enumerate().filter(|(i, a)| addresses[..*i].contains(a)) {
        let shown = json!({"Type": a["type"], "Address": a["address"]});
        out.push(duplicate(format!("status.addresses[{i}]"), &shown));
    }
    let (had, has) = (arr(old, "/spec/podCIDRs"), arr(obj, "/spec/podCIDRs"));
    let times = match had.len() {
        0 => 0,
        n if n != has.len() => 1,
        _ => had.iter().zip(has).filter(|(a, b)| a != b).count(),
    };
    let why = "node updates may not change podCIDR except from \"\" to valid";
    out.extend((0..times).map(|_| forbidden("spec.podCIDRs", why)));
    let id = |o: &Value| s(o, "/spec/providerID").to_owned();
    if !id(old).is_empty() && id(old) != id(obj) {
        let why = "node updates may not change providerID except from \"\" to valid";
        out.push(forbidden("spec.providerID", why));
    }
    taints(arr(obj, "/spec/taints"), out);
    if s(old, "/spec/externalID") != s(obj, "/spec/externalID") {
        out.push(forbidden("spec.externalID", "may not be updated"));
    }
}

fn taints(list: &[Value], out: &mut Vec<Cause>) {
    for (i, t) in list.iter().enumerate() {
        let at = format!("metadata.taints[{i}]");
        judged(format!("{at}.key"), s(t, "/key"), names::key, out);
        judged(format!("{at}.value"), s(t, "/value"), names::value, out);
        match s(t, "/effect") {
            "" => out.push(Cause::required(format!("{at}.effect"), "")),
            e if !EFFECTS.contains(&e) => {
                out.push(Cause::unsupported(format!("{at}.effect"), &t["effect"], &words(EFFECTS)));
            }
            _ => {}
        }
        let same = |o: &Value| s(o, "/key") == s(t, "/key") && s(o, "/effect") == s(t, "/effect");
        if list[..i].iter().any(same) {
            let shown = json!({"Key": s(t, "/key"), "Value": s(t, "/value"), "Effect": s(t, "/effect"),
                "TimeAdded": t["timeAdded"]});
            let mut twice = duplicate(at, &shown);
            twice.message += ": taints must be unique by key and effect pair";
            out.push(twice);
        }
    }
}

fn ranges(list: &[Value], out: &mut Vec<Cause>) {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    for (i, r) in list.iter().enumerate() {
        ips::sound_range(&format!("spec.podCIDRs[{i}]"), &text(r), out);
    }
    let six = list.iter().filter(|r| ips::is_six(&text(r))).count();
    if list.len() > 1 && (six != 1 || list.len() > 2) {
        let why = "may specify no more than one CIDR for each IP family";
        out.push(Cause::invalid("spec.podCIDRs", &list.into(), why));
    }
}

/// What a node that is written gets: its first range in both fields, what pods may use, where nobody says it.
pub(super) fn fill(obj: &mut Value) {
    let first = s(obj, "/spec/podCIDR").to_owned();
    if !first.is_empty() && arr(obj, "/spec/podCIDRs").first().and_then(Value::as_str) != Some(first.as_str()) {
        obj["spec"]["podCIDRs"] = json!([first]);
    } else if let (true, Some(range)) = (first.is_empty(), arr(obj, "/spec/podCIDRs").first().cloned()) {
        obj["spec"]["podCIDR"] = range;
    }
    let size = obj["status"]["capacity"].clone();
    if size.is_object() {
        set(&mut obj["status"], "allocatable", size);
    }
}

/// Keeps pods off a new node until somebody has seen that it is ready.
pub(super) fn tainted(obj: &mut Value) {
    if arr(obj, "/spec/taints").iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule") {
        return;
    }
    let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
    match obj["spec"]["taints"].as_array_mut() {
        Some(all) => all.push(taint),
        None => obj["spec"]["taints"] = json!([taint]),
    }
}
