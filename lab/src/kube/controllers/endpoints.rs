//! Services: addresses, and which pods stand behind them.
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::cx::{Cx, is_true, key, owner_ref};
use super::super::k3s::packaged::service_address;
use super::super::text::{arr, s};
use super::{mirror, pods};

/// EndpointSlices.
pub(super) const SLICES: &str = "endpointslices.discovery.k8s.io";

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
    if s(&svc, "/spec/type") == "ExternalName" {
        return;
    }
    if !selector.is_object() {
        return mirror::reconcile(cx, &svc, ns, name);
    }
    let unready = svc["spec"]["publishNotReadyAddresses"] == true;
    let (mut up, mut down, mut ends, mut trigger) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let behind = cx.c.store.select("pods", ns, &json!({"matchLabels": selector}));
    let stood = cx.get("endpoints", ns, name);
    for p in behind.into_iter().filter(|p| p["status"]["podIP"].is_string() && !pods::has_ended(p)) {
        let leaves = !p["metadata"]["deletionTimestamp"].is_null();
        let serving = is_true(p, "Ready");
        let ready = unready || serving && !leaves;
        let reference =
            json!({"kind": "Pod", "namespace": ns, "name": p["metadata"]["name"], "uid": p["metadata"]["uid"]});
        let mut address =
            json!({"ip": p["status"]["podIP"], "nodeName": p["spec"]["nodeName"], "targetRef": reference});
        let mut end = json!({"addresses": [p["status"]["podIP"]], "nodeName": p["spec"]["nodeName"],
            "targetRef": reference, "conditions": {"ready": ready, "serving": serving, "terminating": leaves}});
        if p["spec"]["hostname"].is_string() && s(p, "/spec/subdomain") == name {
            address["hostname"] = p["spec"]["hostname"].clone();
            end["hostname"] = p["spec"]["hostname"].clone();
        }
        ends.push(end);
        if !leaves || unready {
            let list = if ready { "addresses" } else { "notReadyAddresses" };
            if !stood.is_some_and(|e| arr(e, &format!("/subsets/0/{list}")).contains(&address)) {
                trigger.extend(ready_since(p));
            }
            if ready { up.push(address) } else { down.push(address) }
        }
    }
    if stood.is_none() {
        trigger.push(s(&svc, "/metadata/creationTimestamp").to_owned());
    }
    let changed = trigger.into_iter().min();
    let wanted = arr(&svc, "/spec/ports");
    let ports: Vec<Value> = wanted.iter().filter_map(|p| port(cx, ns, selector, p)).collect();
    let subsets = if up.is_empty() && down.is_empty() || ports.is_empty() && !wanted.is_empty() {
        json!([])
    } else {
        json!([subset(&up, &down, &ports)])
    };
    slices(cx, &svc, (ns, name), &ports, &ends, changed.as_deref());
    if cx.get("endpoints", ns, name).is_some_and(|e| arr(e, "/subsets") == arr(&subsets, "")) {
        return;
    }
    let labels = labels(&svc, json!({"endpoints.kubernetes.io/managed-by": "endpoint-controller"}));
    let all = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": name, "namespace": ns, "labels": labels}, "subsets": subsets});
    put(cx, "endpoints", all, changed.as_deref());
}

fn subset(up: &[Value], down: &[Value], ports: &[Value]) -> Value {
    let mut out = json!({});
    for (field, list) in [("addresses", up), ("notReadyAddresses", down), ("ports", ports)] {
        if !list.is_empty() {
            out[field] = json!(list);
        }
    }
    out
}

/// When a pod became ready, or ceased to be.
fn ready_since(p: &Value) -> Option<String> {
    let c = arr(p, "/status/conditions").iter().find(|c| c["type"] == "Ready")?;
    c["lastTransitionTime"].as_str().map(str::to_owned)
}

/// Writes what stands behind a Service, and since when it has changed; who only leaves is no such change.
fn put(cx: &mut Cx, resource: &str, mut all: Value, changed: Option<&str>) {
    const SINCE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
    let (ns, name) = key(&all);
    let Some(mut o) = cx.get(resource, &ns, &name).cloned() else {
        if let Some(t) = changed {
            all["metadata"]["annotations"] = json!({SINCE: t});
        }
        cx.create(all);
        return;
    };
    o["metadata"]["labels"] = all["metadata"]["labels"].take();
    let mut notes = o["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    notes.shift_remove(SINCE);
    notes.extend(changed.map(|t| (SINCE.to_owned(), t.into())));
    if !notes.is_empty() {
        o["metadata"]["annotations"] = json!(notes);
    } else if let Some(m) = o["metadata"].as_object_mut() {
        m.shift_remove("annotations");
    }
    for field in ["subsets", "endpoints", "ports"] {
        if field == "subsets" && all[field] == json!([]) {
            o.as_object_mut().and_then(|m| m.shift_remove(field));
        } else if !all[field].is_null() || field != "subsets" && o[field].is_array() {
            o[field] = all[field].take();
        }
    }
    cx.update(resource, &ns, &name, |old| *old = o);
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
fn port(cx: &Cx, ns: &str, selector: &Value, p: &Value) -> Option<Value> {
    let named = |name: &str| {
        let pods = cx.c.store.select("pods", ns, &json!({"matchLabels": selector}));
        let all = pods.into_iter().flat_map(|p| arr(p, "/spec/containers")).flat_map(|c| arr(c, "/ports"));
        all.into_iter().find(|q| q["name"] == name).and_then(|q| q["containerPort"].as_u64())
    };
    let target = &p["targetPort"];
    let number = match target {
        Value::String(name) => named(name)?,
        _ => target.as_u64().or(p["port"].as_u64())?,
    };
    let mut out = json!({"port": number, "protocol": s(p, "/protocol")});
    if p["name"].is_string() {
        out["name"] = p["name"].clone();
    }
    if s(p, "/protocol").is_empty() {
        out["protocol"] = json!("TCP");
    }
    Some(out)
}

/// Most endpoints of a slice.
const MOST: usize = 100;

/// The name of a Service's slice.
fn slice_name(svc: &Value, i: usize) -> String {
    let uid = s(svc, "/metadata/uid");
    let seed = if i == 0 { uid.to_owned() } else { format!("{uid}/{i}") };
    format!("{}-{}", s(svc, "/metadata/name"), super::super::text::hash_name(&seed, 5))
}

/// The EndpointSlices of a Service: who is in one stays there, and who comes goes where there is room.
fn slices(cx: &mut Cx, svc: &Value, at: (&str, &str), ports: &[Value], ends: &[Value], changed: Option<&str>) {
    let mut rooms: Vec<Vec<Value>> = Vec::new();
    if ends.len() <= MOST {
        rooms.push(ends.to_vec());
    } else {
        let of = |e: &Value| s(e, "/targetRef/uid").to_owned();
        let mut left = ends.to_vec();
        while let Some(have) = cx.get(SLICES, at.0, &slice_name(svc, rooms.len())) {
            let had: BTreeSet<String> = arr(have, "/endpoints").iter().map(of).collect();
            let (stay, rest) = left.into_iter().partition(|e| had.contains(&of(e)));
            rooms.push(stay);
            left = rest;
        }
        for e in left {
            match rooms.iter_mut().find(|r| r.len() < MOST) {
                Some(room) => room.push(e),
                None => rooms.push(vec![e]),
            }
        }
        rooms.truncate(rooms.iter().rposition(|r| !r.is_empty()).map_or(1, |last| last + 1));
    }
    for (i, room) in rooms.iter().enumerate() {
        slice(cx, svc, (at, &slice_name(svc, i)), ports, room, changed);
    }
    let mut gone = rooms.len();
    while cx.get(SLICES, at.0, &slice_name(svc, gone)).is_some() {
        cx.delete(SLICES, at.0, &slice_name(svc, gone));
        gone += 1;
    }
}

/// One EndpointSlice of a Service.
fn slice(
    cx: &mut Cx,
    svc: &Value,
    ((ns, name), slice): ((&str, &str), &str),
    ports: &[Value],
    ends: &[Value],
    changed: Option<&str>,
) {
    // None at all are no list, and nobody has no ports.
    let none = ports.is_empty() || ends.is_empty();
    let listed = if none { Value::Null } else { ports.iter().cloned().map(sliced).collect() };
    let ends = if ends.is_empty() { Value::Null } else { json!(ends) };
    let have = cx.get(SLICES, ns, slice);
    if have.is_some_and(|e| e["endpoints"] == ends && e["ports"] == listed) {
        return;
    }
    let own = json!({"kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"});
    let labels = labels(svc, own);
    let all = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": slice, "generateName": format!("{name}-"), "namespace": ns, "labels": labels,
            "ownerReferences": owner_ref(svc)},
        "endpoints": ends, "ports": listed});
    put(cx, SLICES, all, changed);
}

/// A port of Endpoints as slices have it: always with a name.
pub(super) fn sliced(mut port: Value) -> Value {
    if port["name"].is_null() {
        port["name"] = json!("");
    }
    port
}
