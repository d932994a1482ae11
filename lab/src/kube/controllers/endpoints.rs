//! Services: addresses, and which pods stand behind them.
use serde_json::{Value, json};

use super::super::cx::{Cx, owner_ref};
use super::super::k3s::packaged::service_address;
use super::super::text::{arr, s};
use super::pods;

/// A Service gets its cluster address.
pub fn service(cx: &mut Cx, ns: &str, name: &str) {
    let Some(svc) = cx.get("services", ns, name) else {
        cx.remove("endpoints", ns, name);
        free(cx, ns, name);
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
    take(cx, ns, name);
    one(cx, ns, name);
}

const ADDRESSES: &str = "ipaddresses.networking.k8s.io";

/// Every address that a Service has is an object, in the minors that have such.
fn take(cx: &mut Cx, ns: &str, name: &str) {
    let Some(svc) = cx.get("services", ns, name) else { return };
    let ips: Vec<String> = arr(svc, "/spec/clusterIPs")
        .iter()
        .filter_map(Value::as_str)
        .filter(|ip| *ip != "None")
        .map(str::to_owned)
        .collect();
    let missing: Vec<String> = ips.into_iter().filter(|ip| cx.get(ADDRESSES, "", ip).is_none()).collect();
    if missing.is_empty() || !cx.c.store.kind_for(ADDRESSES).is_some_and(|k| cx.c.serves(&k)) {
        return;
    }
    for ip in missing {
        let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
        cx.create(json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": ip, "labels": {"ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": ns, "name": name}}}));
    }
}

/// The addresses of a Service that is gone are free.
fn free(cx: &mut Cx, ns: &str, name: &str) {
    let mine = |o: &&Value| s(o, "/spec/parentRef/namespace") == ns && s(o, "/spec/parentRef/name") == name;
    let gone: Vec<String> =
        cx.list(ADDRESSES).into_iter().filter(mine).map(|o| s(o, "/metadata/name").to_owned()).collect();
    gone.iter().for_each(|ip| cx.remove(ADDRESSES, "", ip));
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
    let (mut up, mut down, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let behind = cx.c.store.select("pods", ns, &json!({"matchLabels": selector}));
    for p in behind.into_iter().filter(|p| p["status"]["podIP"].is_string() && pods::is_active(p)) {
        let ready = pods::is_ready(p) || svc["spec"]["publishNotReadyAddresses"] == true;
        let reference =
            json!({"kind": "Pod", "namespace": ns, "name": p["metadata"]["name"], "uid": p["metadata"]["uid"]});
        let address = json!({"ip": p["status"]["podIP"], "nodeName": p["spec"]["nodeName"], "targetRef": reference});
        if ready {
            up.push(address)
        } else {
            down.push(address)
        }
        let mut end = json!({"addresses": [p["status"]["podIP"]], "nodeName": p["spec"]["nodeName"], "targetRef": reference,
            "conditions": {"ready": ready, "serving": ready, "terminating": false}});
        if p["spec"]["hostname"].is_string() {
            end["hostname"] = p["spec"]["hostname"].clone();
        }
        ends.push(end);
    }
    let ports: Vec<Value> = arr(&svc, "/spec/ports").iter().map(|p| port(cx, ns, selector, p)).collect();
    let mut subset = json!({"ports": ports});
    for (field, list) in [("addresses", &up), ("notReadyAddresses", &down)] {
        if !list.is_empty() {
            subset[field] = json!(list);
        }
    }
    let subsets = if up.is_empty() && down.is_empty() { json!([]) } else { json!([subset]) };
    slice(cx, &svc, ns, name, &ports, &ends);
    if cx.get("endpoints", ns, name).is_some_and(|e| e["subsets"] == subsets) {
        return;
    }
    let labels = labels(&svc, json!({"endpoints.kubernetes.io/managed-by": "endpoint-controller"}));
    cx.ensure(json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": name, "namespace": ns, "labels": labels}, "subsets": subsets}));
}

/// Labels of what stands behind a Service: its own, whether it has no address, and those of the controller.
fn labels(svc: &Value, own: Value) -> Value {
    let mut all = svc["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    if s(svc, "/spec/clusterIP") == "None" {
        all.insert("service.kubernetes.io/headless".to_owned(), "".into());
    }
    all.extend(own.as_object().cloned().unwrap_or_default());
    Value::Object(all)
}

/// A port as it is behind the Service: a named target is looked up in its pods.
fn port(cx: &Cx, ns: &str, selector: &Value, p: &Value) -> Value {
    let named = |name: &str| {
        let pods = cx.c.store.select("pods", ns, &json!({"matchLabels": selector}));
        let all = pods.into_iter().flat_map(|p| arr(p, "/spec/containers")).flat_map(|c| arr(c, "/ports"));
        all.into_iter().find(|q| q["name"] == name).and_then(|q| q["containerPort"].as_u64())
    };
    let target = &p["targetPort"];
    let number = target.as_u64().or_else(|| named(target.as_str()?)).or(p["port"].as_u64());
    let mut out = json!({"port": number, "protocol": s(p, "/protocol")});
    if p["name"].is_string() {
        out["name"] = p["name"].clone();
    }
    if s(p, "/protocol").is_empty() {
        out["protocol"] = json!("TCP");
    }
    out
}

/// The EndpointSlice of a Service.
fn slice(cx: &mut Cx, svc: &Value, ns: &str, name: &str, ports: &[Value], ends: &[Value]) {
    let slice = format!("{name}-{}", super::super::text::hash_name(s(svc, "/metadata/uid"), 5));
    let listed: Vec<Value> = ports
        .iter()
        .map(|p| {
            let mut p = p.clone();
            if p["name"].is_null() {
                p["name"] = json!("");
            }
            p
        })
        .collect();
    let have = cx.get("endpointslices.discovery.k8s.io", ns, &slice);
    if have.is_some_and(|e| e["endpoints"] == json!(ends) && e["ports"] == json!(listed)) {
        return;
    }
    let own = json!({"kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"});
    let labels = labels(svc, own);
    cx.ensure(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": slice, "generateName": format!("{name}-"), "namespace": ns, "labels": labels,
            "ownerReferences": owner_ref(svc)},
        "endpoints": ends, "ports": listed}));
}
