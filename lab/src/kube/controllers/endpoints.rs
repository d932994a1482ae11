//! Services: addresses, and which pods stand behind them.
use serde_json::{Value, json};

use super::super::cx::Cx;
use super::super::k3s::packaged::service_address;
use super::super::text::s;
use super::pods;

/// A Service gets its cluster address.
pub fn service(cx: &mut Cx, ns: &str, name: &str) {
    let Some(svc) = cx.get("services", ns, name) else {
        cx.remove("endpoints", ns, name);
        return;
    };
    let headless = s(svc, "/spec/clusterIP") == "None";
    if s(svc, "/spec/clusterIP").is_empty() && !headless && s(svc, "/spec/type") != "ExternalName" {
        cx.c.addresses += 1;
        let ip = service_address(cx, 256 + cx.c.addresses * 7 % 60_000);
        cx.update("services", ns, name, |o| {
            o["spec"]["clusterIP"] = json!(ip);
            o["spec"]["clusterIPs"] = json!([ip]);
            if o["spec"]["type"].is_null() {
                o["spec"]["type"] = json!("ClusterIP");
            }
        });
    }
    one(cx, ns, name);
}

/// Pods of a namespace changed.
pub fn reconcile(cx: &mut Cx, ns: &str) {
    let names: Vec<String> =
        cx.list_in("services", ns).into_iter().map(|o| s(o, "/metadata/name").to_owned()).collect();
    for name in names {
        one(cx, ns, &name);
    }
}

fn one(cx: &mut Cx, ns: &str, name: &str) {
    let Some(svc) = cx.get("services", ns, name).cloned() else { return };
    let selector = &svc["spec"]["selector"];
    if !selector.is_object() {
        return;
    }
    let behind: Vec<Value> =
        cx.c.store
            .select("pods", ns, &json!({"matchLabels": selector}))
            .into_iter()
            .filter(|p| pods::is_ready(p))
            .map(|p| {
                json!({"ip": p["status"]["podIP"], "nodeName": p["spec"]["nodeName"],
            "targetRef": {"kind": "Pod", "namespace": ns, "name": p["metadata"]["name"], "uid": p["metadata"]["uid"]}})
            })
            .collect();
    let ports: Vec<Value> = super::super::text::arr(&svc, "/spec/ports")
        .iter()
        .map(|p| json!({"name": p["name"], "port": p["targetPort"].as_u64().or(p["port"].as_u64()), "protocol": "TCP"}))
        .collect();
    let subsets = if behind.is_empty() { json!([]) } else { json!([{"addresses": behind, "ports": ports}]) };
    if cx.get("endpoints", ns, name).is_some_and(|e| e["subsets"] == subsets) {
        return;
    }
    cx.ensure(json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name, "namespace": ns}, "subsets": subsets}));
}
