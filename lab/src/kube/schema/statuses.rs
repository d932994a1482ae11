//! Rules of what is written to the status of core kinds. Grade: source (pkg/apis/core/validation).
use serde_json::{Value, json};

use super::rules::forbidden;
use super::validate::judged;
use super::{Kind, ips, limits, names, nodes, services, volumes};
use crate::kube::store::{Cause, meta};
use crate::kube::text::{arr, s};

/// Whether writes to the status of the kind are checked here, and its spec is not looked at.
pub(super) fn known(kind: &Kind) -> bool {
    kind.group.is_empty()
        && matches!(
            kind.kind.as_str(),
            "Namespace" | "Node" | "Pod" | "Service" | "ResourceQuota" | "PersistentVolume" | "PersistentVolumeClaim"
        )
}

/// Checks a changed status.
pub(super) fn check(kind: &Kind, old: &Value, new: &Value, out: &mut Vec<Cause>) {
    match kind.kind.as_str() {
        "Namespace" => namespace(new, out),
        "Pod" => pod(old, new, out),
        "ResourceQuota" => limits::quota_status(new, out),
        "PersistentVolume" => {}
        "Node" => nodes::status(new, old, out),
        "PersistentVolumeClaim" => volumes::claim_status(new, out),
        _ => services::status(new, old, out),
    }
}

fn namespace(new: &Value, out: &mut Vec<Cause>) {
    let phase = &new["status"]["phase"];
    let (want, when) = if meta::deleting(new) { ("Terminating", "not empty") } else { ("Active", "empty") };
    if phase != want {
        let why = format!("may only be '{want}' if `deletionTimestamp` is {when}");
        out.push(Cause::invalid("status.Phase", phase, &why));
    }
}

fn pod(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let status = &new["status"];
    let nominated = s(status, "/nominatedNodeName");
    if !nominated.is_empty() {
        judged("status.nominatedNodeName", nominated, names::subdomain, out);
    }
    transitions(old, new, out);
    let had = arr(old, "/status/podIPs");
    let list = arr(status, "/podIPs");
    let mut sound = true;
    for (i, ip) in list.iter().enumerate().filter(|(_, ip)| !had.contains(ip)) {
        let before = out.len();
        ips::sound(&format!("status.podIPs[{i}]"), s(ip, "/ip"), out);
        sound &= out.len() == before;
    }
    if sound && let [a, b, ..] = list {
        let shown: Vec<Value> = list.iter().map(|ip| json!({"IP": ip["ip"]})).collect();
        if ips::is_six(s(a, "/ip")) == ips::is_six(s(b, "/ip")) || list.len() > 2 {
            let why = "may specify no more than one IP for each IP family";
            out.push(Cause::invalid("status.podIPs", &shown.into(), why));
        }
    }
    if let [first, ..] = arr(status, "/hostIPs")
        && s(first, "/ip") != s(status, "/hostIP")
    {
        out.push(Cause::invalid("status.hostIPs[0].ip", &first["ip"], "must be equal to `hostIP`"));
    }
    let class = s(old, "/status/qosClass");
    if !class.is_empty() && s(status, "/qosClass") != class {
        out.push(Cause::invalid("status.qosClass", &status["qosClass"], "field is immutable"));
    }
}

/// Containers that have ended for good do not run again.
fn transitions(old: &Value, new: &Value, out: &mut Vec<Cause>) {
    let policy = s(new, "/spec/restartPolicy");
    if !matches!(policy, "Never" | "OnFailure") {
        return;
    }
    let now = arr(new, "/status/containerStatuses");
    for had in arr(old, "/status/containerStatuses").iter().filter(|c| c["state"]["terminated"].is_object()) {
        let failed = had["state"]["terminated"]["exitCode"].as_i64().unwrap_or(0) != 0;
        if failed && policy == "OnFailure" {
            continue;
        }
        let ended = |c: &Value| c["state"]["terminated"].is_object();
        if let Some(i) = now.iter().position(|c| c["name"] == had["name"] && !ended(c)) {
            let why = "may not be transitioned to non-terminated state";
            out.push(forbidden(&format!("status.containerStatuses[{i}].state"), why));
        }
    }
}
