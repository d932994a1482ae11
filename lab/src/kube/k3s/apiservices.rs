//! APIServices of what the API server serves itself: one for each group and version. Grade: source (the aggregator's
//! automatic registration).
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::cx::{Cx, key, set_condition};
use super::super::schema::kinds::PRIORITIES;

const SERVICES: &str = "apiservices.apiregistration.k8s.io";

fn service(group: &str, version: &str, custom: bool, stamp: &str) -> Value {
    let known = PRIORITIES.iter().find(|p| p.0 == group).map(|p| p.1);
    let place = match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io" | "resource.k8s.io", _) => 21,
        _ => 15,
    };
    let (least, place) = if custom { (1000, 100) } else { (known.unwrap_or(16_000), place) };
    let mut o = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"),
            "labels": {"kube-aggregator.kubernetes.io/automanaged": if custom { "true" } else { "onstart" }}},
        "spec": {"version": version, "groupPriorityMinimum": least, "versionPriority": place}});
    if !group.is_empty() {
        o["spec"]["group"] = json!(group);
    }
    set_condition(&mut o, stamp, "Available", "True", "Local", "Local APIServices are always available");
    o
}

/// There is one for each group and version that is served here, and none for what is not served any more.
pub fn look(cx: &mut Cx) {
    let wanted: BTreeMap<String, (String, String, bool)> =
        cx.c.store
            .kinds()
            .filter(|k| k.group != "apiregistration.k8s.io" && cx.c.serves(k))
            .map(|k| (format!("{}.{}", k.version, k.group), (k.group.clone(), k.version.clone(), k.custom)))
            .collect();
    let gone: Vec<String> = cx
        .list(SERVICES)
        .into_iter()
        .filter(|o| o["spec"]["service"].is_null())
        .map(|o| key(o).1)
        .filter(|name| !wanted.contains_key(name))
        .collect();
    gone.iter().for_each(|name| cx.delete(SERVICES, "", name));
    let stamp = cx.stamp();
    for (name, (group, version, custom)) in wanted {
        if cx.get(SERVICES, "", &name).is_none() {
            let o = service(&group, &version, custom, &stamp);
            let status = o["status"].clone();
            if cx.create(o) {
                cx.update(SERVICES, "", &name, |o| o["status"] = status);
            }
        }
    }
}

/// The same, where a control plane keeps them.
pub fn follow(cx: &mut Cx) {
    if cx.get(SERVICES, "", "v1.").is_some() {
        look(cx);
    }
}
