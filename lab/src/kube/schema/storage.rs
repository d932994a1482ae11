//! Rules of storage classes, CSI drivers and their nodes, attachments and capacities. Grade: source
//! (pkg/apis/storage/validation).
use serde_json::{Value, json};

use super::rules::{duplicate, forbidden, immutable, one_of};
use super::validate::{judged, selector};
use super::workloads::counted;
use super::{Kind, names};
use crate::kube::store::Cause;
use crate::kube::text::{arr, milli, s};

/// Checks an object of the group; `old` is what it was.
pub(super) fn check(kind: &Kind, obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    match kind.kind.as_str() {
        "StorageClass" => class(obj, old, out),
        "VolumeAttributesClass" => attributes(obj, old, out),
        "CSIDriver" => driver(&obj["spec"], old.map(|o| &o["spec"]), out),
        "CSINode" => node(&obj["spec"], old.map(|o| &o["spec"]), out),
        "VolumeAttachment" => attachment(obj, old, out),
        "CSIStorageCapacity" => capacity(obj, old, out),
        _ => {}
    }
}

fn provisioner(at: &str, name: &str, out: &mut Vec<Cause>) {
    match name {
        "" => out.push(Cause::required(at, "")),
        _ => judged(at, &name.to_lowercase(), names::key, out),
    }
}

fn parameters(of: &Value, out: &mut Vec<Cause>) {
    if of.get("").is_some() {
        out.push(Cause::invalid("parameters", &"".into(), "field can not be empty."));
    }
}

fn class(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    provisioner("provisioner", s(obj, "/provisioner"), out);
    parameters(&obj["parameters"], out);
    one_of("reclaimPolicy".into(), &obj["reclaimPolicy"], &["Delete", "Retain"], out);
    one_of("volumeBindingMode".into(), &obj["volumeBindingMode"], &["Immediate", "WaitForFirstConsumer"], out);
    topologies(obj, out);
    for f in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        immutable(f, &obj[f], old.map(|o| &o[f]), out);
    }
}

fn topologies(obj: &Value, out: &mut Vec<Cause>) {
    let terms = arr(obj, "/allowedTopologies");
    for (i, term) in terms.iter().enumerate() {
        let at = format!("allowedTopologies[{i}].matchLabelExpressions");
        let list = arr(term, "/matchLabelExpressions");
        for (j, e) in list.iter().enumerate() {
            let values = arr(e, "/values");
            if values.is_empty() {
                out.push(Cause::required(format!("{at}[{j}].values"), ""));
            }
            for (k, v) in values.iter().enumerate().filter(|(k, v)| values[..*k].contains(v)) {
                out.push(duplicate(format!("{at}[{j}].values[{k}]"), v));
            }
            judged(format!("{at}[{j}].key"), s(e, "/key"), names::key, out);
            if list[..j].iter().any(|o| o["key"] == e["key"]) {
                out.push(duplicate(format!("{at}[{j}].key"), &e["key"]));
            }
        }
        if !list.is_empty() && terms[..i].contains(term) {
            out.push(duplicate(at, &"".into()));
        }
    }
}

fn attributes(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    for f in ["driverName", "parameters"].into_iter().filter(|f| old.is_some_and(|o| o[*f] != obj[*f])) {
        out.push(forbidden(f, &format!("updates to {f} are forbidden.")));
    }
    provisioner("driverName", s(obj, "/driverName"), out);
    parameters(&obj["parameters"], out);
    if obj["parameters"].as_object().is_none_or(serde_json::Map::is_empty) {
        out.push(Cause::required("parameters", "must contain at least one key/value pair"));
    }
}

fn driver(spec: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    one_of("spec.fsGroupPolicy".into(), &spec["fsGroupPolicy"], &policies, out);
    let tokens = arr(spec, "/tokenRequests");
    for (i, t) in tokens.iter().enumerate() {
        let at = format!("spec.tokenRequests[{i}]");
        if tokens[..i].iter().any(|o| s(o, "/audience") == s(t, "/audience")) {
            out.push(duplicate(format!("{at}.audience"), &s(t, "/audience").into()));
            continue;
        }
        let why = match t["expirationSeconds"].as_i64() {
            Some(n) if n < 600 => "may not specify a duration less than 10 minutes",
            Some(n) if n > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        out.push(Cause::invalid(format!("{at}.expirationSeconds"), &t["expirationSeconds"], why));
    }
    for mode in arr(spec, "/volumeLifecycleModes") {
        one_of("spec.volumeLifecycleModes".into(), mode, &["Persistent", "Ephemeral"], out);
    }
    let period = &spec["nodeAllocatableUpdatePeriodSeconds"];
    if period.as_i64().is_some_and(|n| n < 10) {
        let why = "must be greater than or equal to 10 seconds";
        out.push(Cause::invalid("spec.nodeAllocatableUpdatePeriodSeconds", period, why));
    }
    let kept = &spec["serviceAccountTokenInSecrets"];
    if !kept.is_null() && tokens.is_empty() {
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        out.push(Cause::invalid("spec.serviceAccountTokenInSecrets", kept, why));
    }
    // the field is called otherwise there
    immutable("spec.attachedRequired", &spec["attachRequired"], old.map(|o| &o["attachRequired"]), out);
    let modes = "volumeLifecycleModes";
    immutable(&format!("spec.{modes}"), &spec[modes], old.map(|o| &o[modes]), out);
}

fn node(spec: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let drivers = arr(spec, "/drivers");
    for (i, d) in drivers.iter().enumerate() {
        let at = format!("spec.drivers[{i}]");
        match s(d, "/name") {
            "" => out.push(Cause::required(format!("{at}.name"), "")),
            name => {
                if name.len() > 63 {
                    out.push(super::rules::too_long(&format!("{at}.name"), 63));
                }
                let wrong = names::subdomain(&name.to_lowercase());
                out.extend(wrong.iter().map(|w| Cause::invalid(format!("{at}.name"), &name.into(), w)));
            }
        }
        match s(d, "/nodeID").len() {
            0 => out.push(Cause::required(format!("{at}.nodeID"), "")),
            193.. => out.push(Cause::invalid(format!("{at}.nodeID"), &d["nodeID"], "must be 192 characters or less")),
            _ => {}
        }
        counted(&d["allocatable"], &format!("{at}.allocatable"), &["count"], out);
        if drivers[..i].iter().any(|o| o["name"] == d["name"]) {
            out.push(duplicate(format!("{at}.name"), &d["name"]));
        }
        let keys = arr(d, "/topologyKeys");
        for (j, k) in keys.iter().enumerate() {
            if k == "" {
                out.push(Cause::required(at.as_str(), ""));
            }
            if keys[..j].contains(k) {
                out.push(duplicate(at.clone(), k));
            }
            judged(at.as_str(), k.as_str().unwrap_or_default(), names::key, out);
        }
    }
    for was in old.map_or(&[][..], |o| arr(o, "/drivers")) {
        let rest = |d: &Value| [d["nodeID"].clone(), d["topologyKeys"].clone()];
        if let Some(is) = drivers.iter().find(|d| d["name"] == was["name"]).filter(|d| rest(d) != rest(was)) {
            let shown = json!({"Name": is["name"], "NodeID": is["nodeID"], "TopologyKeys": is["topologyKeys"],
                "Allocatable": null});
            out.push(Cause::invalid("spec.drivers", &shown, "field is immutable"));
        }
    }
}

fn attachment(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let (spec, at) = (&obj["spec"], "spec.source");
    match s(spec, "/attacher") {
        "" => out.push(Cause::required("spec.attacher", "")),
        name => judged("spec.attacher", &name.to_lowercase(), names::subdomain, out),
    }
    let (inline, volume) = (&spec["source"]["inlineVolumeSpec"], spec["source"]["persistentVolumeName"].as_str());
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline.is_object(), volume) {
        (false, None) => out.push(Cause::required(at, one)),
        (true, Some(_)) => out.push(forbidden(at, one)),
        (_, Some("")) => {
            let why = "must specify non empty persistentVolumeName";
            out.push(Cause::required(format!("{at}.persistentVolumeName"), why));
        }
        _ => {}
    }
    judged("spec.nodeName", s(spec, "/nodeName"), names::subdomain, out);
    if old.is_none()
        && let Some(name) = volume.filter(|_| !inline.is_object())
    {
        judged(format!("{at}.persistentVolumeName"), name, names::subdomain, out);
    }
    if old.is_some_and(|o| o["spec"] != *spec) {
        let shown = json!({"Attacher": spec["attacher"],
            "Source": {"PersistentVolumeName": spec["source"]["persistentVolumeName"], "InlineVolumeSpec": inline},
            "NodeName": spec["nodeName"]});
        out.push(Cause::invalid("spec", &shown, "field is immutable"));
    }
}

fn capacity(obj: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let class = &obj["storageClassName"];
    if let Some(old) = old {
        immutable("nodeTopology", &obj["nodeTopology"], Some(&old["nodeTopology"]), out);
        immutable("storageClassName", class, Some(&old["storageClassName"]), out);
        return;
    }
    selector(&obj["nodeTopology"], "nodeTopology", out);
    judged("storageClassName", class.as_str().unwrap_or_default(), names::subdomain, out);
    if !obj["capacity"].is_null() && milli(&obj["capacity"]) < 0 {
        out.push(Cause::invalid("capacity", &obj["capacity"], super::rules::LEAST));
    }
}
