//! What the API server fills into kinds that run nothing themselves. Grade: source (the defaults.go of their groups).
use serde_json::{Map, Value, json};

use super::defaults::set;
use super::nodes;
use super::podfill::{self, each};

/// Fills in an object of such a kind.
pub(super) fn apply(kind: &str, obj: &mut Value) {
    match kind {
        "ReplicationController" => replication(obj),
        "Node" => nodes::fill(obj),
        "LimitRange" => each(obj, "/spec/limits").filter(|l| l["type"] == "Container").for_each(limits),
        "PodTemplate" => {
            if let Some(spec) = obj.pointer_mut("/template/spec") {
                podfill::spec(spec);
            }
        }
        "NetworkPolicy" => {
            for rules in ["/spec/ingress", "/spec/egress"] {
                each(obj, rules).for_each(|r| each(r, "/ports").for_each(|p| set(p, "protocol", "TCP".into())));
            }
            if obj["spec"]["policyTypes"].as_array().is_none_or(Vec::is_empty) {
                let out = obj["spec"]["egress"].as_array().is_some_and(|e| !e.is_empty());
                obj["spec"]["policyTypes"] = if out { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            }
        }
        "IngressClass" => there(obj, "/spec/parameters", &[("scope", "Cluster".into())]),
        "Endpoints" => {
            each(obj, "/subsets").for_each(|s| each(s, "/ports").for_each(|p| set(p, "protocol", "TCP".into())));
        }
        "EndpointSlice" => {
            each(obj, "/ports").for_each(|p| {
                set(p, "name", "".into());
                set(p, "protocol", "TCP".into());
            });
            each(obj, "/endpoints").for_each(|e| set(e, "conditions", json!({})));
        }
        // coordinated elections are off
        "Lease" => keep(&mut obj["spec"], |k, _| k != "strategy" && k != "preferredHolder"),
        "VolumeAttributesClass" if obj["metadata"]["resourceVersion"].is_null() => {
            obj["metadata"]["finalizers"] = json!(["kubernetes.io/vac-protection"]);
        }
        "IPAddress" => keep(&mut obj["spec"]["parentRef"], |_, v| v != ""),
        "APIService" => there(obj, "/spec/service", &[("port", 443.into())]),
        "CSIDriver" => driver(obj),
        "HorizontalPodAutoscaler" => {
            set(obj, "spec", json!({}));
            autoscaler(&mut obj["spec"]);
        }
        // zero is as good as nothing here
        "FlowSchema" if obj["spec"]["matchingPrecedence"] == 0 => obj["spec"]["matchingPrecedence"] = 1000.into(),
        "FlowSchema" => there(obj, "/spec", &[("matchingPrecedence", 1000.into())]),
        "PriorityLevelConfiguration" => {
            let lent = ("lendablePercent", 0.into());
            there(obj, "/spec/exempt", &[("nominalConcurrencyShares", 0.into()), lent.clone()]);
            there(obj, "/spec/limited", &[("nominalConcurrencyShares", 30.into()), lent]);
            if let Some(queuing) = obj.pointer_mut("/spec/limited/limitResponse/queuing") {
                keep(queuing, |_, v| v != 0);
            }
            let queue = [("queues", 64.into()), ("handSize", 8.into()), ("queueLengthLimit", 50.into())];
            there(obj, "/spec/limited/limitResponse/queuing", &queue);
        }
        "ResourceClaim" => requests(obj, "/spec/devices/requests"),
        "ResourceClaimTemplate" => requests(obj, "/spec/spec/devices/requests"),
        _ => {}
    }
}

/// Keeps the fields of an object, where it is one, that fit.
fn keep(at: &mut Value, fits: impl Fn(&str, &Value) -> bool) {
    if let Some(m) = at.as_object_mut() {
        m.retain(|k, v| fits(k, v));
    }
}

/// Sets fields of an object that is there.
fn there(obj: &mut Value, pointer: &str, fields: &[(&str, Value)]) {
    if let Some(at) = obj.pointer_mut(pointer).filter(|v| v.is_object()) {
        fields.iter().for_each(|(k, v)| set(at, k, v.clone()));
    }
}

fn replication(obj: &mut Value) {
    let labels = obj.pointer("/spec/template/metadata/labels").cloned().unwrap_or_default();
    let none = |v: &Value| v.as_object().is_none_or(Map::is_empty);
    if labels.is_object() {
        if none(&obj["spec"]["selector"]) {
            obj["spec"]["selector"] = labels.clone();
        }
        if none(&obj["metadata"]["labels"]) {
            obj["metadata"]["labels"] = labels;
        }
    }
    set(&mut obj["spec"], "replicas", 1.into());
    if let Some(spec) = obj.pointer_mut("/spec/template/spec") {
        podfill::spec(spec);
    }
}

fn driver(obj: &mut Value) {
    set(obj, "spec", json!({}));
    let plain = [
        ("attachRequired", true.into()),
        ("podInfoOnMount", false.into()),
        ("storageCapacity", false.into()),
        ("fsGroupPolicy", "ReadWriteOnceWithFSType".into()),
        ("volumeLifecycleModes", json!(["Persistent"])),
        ("requiresRepublish", false.into()),
        ("seLinuxMount", false.into()),
    ];
    there(obj, "/spec", &plain);
}

fn limits(l: &mut Value) {
    let from = |l: &Value, f: &str| l[f].as_object().cloned().unwrap_or_default();
    let (mut limit, mut request) = (from(l, "default"), from(l, "defaultRequest"));
    for (k, v) in from(l, "max") {
        limit.entry(k).or_insert(v);
    }
    for (k, v) in limit.iter().map(|(k, v)| (k.clone(), v.clone())).chain(from(l, "min")) {
        request.entry(k).or_insert(v);
    }
    for (f, all) in [("default", limit), ("defaultRequest", request)] {
        if !all.is_empty() {
            l[f] = all.into();
        }
    }
}

fn autoscaler(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set(spec, "minReplicas", 1.into());
    if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    }
    if spec["behavior"].is_object() {
        let of = |sort: &str, value: i64| json!({"type": sort, "value": value, "periodSeconds": 15});
        for (way, policies, window) in [
            ("scaleUp", json!([of("Pods", 4), of("Percent", 100)]), json!(0)),
            ("scaleDown", json!([of("Percent", 100)]), Value::Null),
        ] {
            set(&mut spec["behavior"], way, json!({}));
            let rules = &mut spec["behavior"][way];
            if !window.is_null() {
                set(rules, "stabilizationWindowSeconds", window);
            }
            set(rules, "selectPolicy", "Max".into());
            set(rules, "policies", policies);
        }
    }
}

/// Devices are asked for one by one unless somebody says otherwise.
fn requests(obj: &mut Value, pointer: &str) {
    let one = |r: &mut Value| {
        set(r, "allocationMode", "ExactCount".into());
        if r["allocationMode"] == "ExactCount" && r["count"].as_i64().unwrap_or(0) == 0 {
            r["count"] = 1.into();
        }
    };
    for r in each(obj, pointer) {
        r.get_mut("exactly").filter(|e| e.is_object()).into_iter().for_each(one);
        each(r, "/firstAvailable").for_each(one);
    }
}
