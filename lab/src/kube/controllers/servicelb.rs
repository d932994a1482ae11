//! ServiceLB, the load balancer that K3s brings along: a DaemonSet for each Service of type LoadBalancer, whose pods take
//! the ports on their nodes. Grade: source (K3s' cloud provider, klipper-lb).
use serde_json::{Value, json};

use super::super::cx::{Cx, key};
use super::super::k3s::{config, manifests, release};
use super::super::objectset::Set;
use super::super::text::{arr, s, shown};
use super::pods;

/// Names the Service on the pods that stand for it.
const NAME: &str = "svccontroller.k3s.cattle.io/svcname";
const NAMESPACE: &str = "svccontroller.k3s.cattle.io/svcnamespace";
const ENABLED: &str = "svccontroller.k3s.cattle.io/enablelb";
const POOL: &str = "svccontroller.k3s.cattle.io/lbpool";
const SELECTS: &str = "svccontroller.k3s.cattle.io/nodeselector";
const CONTROLLER: &str = "service-lb-controller";
const SETS: &str = "daemonsets.apps";
const PLACE: &str = "kube-system";
/// Keeps such a Service until its load balancer is gone.
const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// The Service that a pod of ServiceLB stands for.
#[must_use]
pub fn of_pod(pod: &Value) -> Option<(String, String)> {
    let label = |k: &str| pod["metadata"]["labels"][k].as_str().map(str::to_owned);
    Some((label(NAMESPACE)?, label(NAME)?))
}

/// Whether the cluster's servers run it: they are of K3s, and it is not switched off.
fn runs(cx: &Cx) -> bool {
    let off = config::list(&cx.c.config, "disable").iter().any(|d| d == "servicelb");
    cx.c.store.kind_for("addons.k3s.cattle.io").is_some()
        && !off
        && !config::on(&cx.c.config, "disable-cloud-controller")
}

/// Name of a Service's DaemonSet.
fn name_of(svc: &Value) -> String {
    let name: String = s(svc, "/metadata/name").chars().take(48).collect();
    let uid: String = s(svc, "/metadata/uid").chars().take(8).collect();
    format!("svclb-{}-{uid}", name.trim_end_matches('-'))
}

/// A node's labels changed: the DaemonSets of all Services may select other nodes.
pub fn all(cx: &mut Cx) {
    let balanced = |o: &&Value| s(o, "/spec/type") == "LoadBalancer";
    let list: Vec<(String, String)> = cx.list("services").into_iter().filter(balanced).map(key).collect();
    list.iter().for_each(|(ns, name)| reconcile(cx, ns, name));
}

/// Brings a Service's load balancer up to date.
pub fn reconcile(cx: &mut Cx, ns: &str, name: &str) {
    if !runs(cx) {
        return;
    }
    let Some(svc) = cx.get("services", ns, name).cloned() else { return };
    let mine = s(&svc, "/spec/type") == "LoadBalancer"
        && svc["spec"]["loadBalancerClass"].is_null()
        && svc["metadata"]["deletionTimestamp"].is_null();
    if !mine {
        return ended(cx, &svc);
    }
    if arr(&svc, "/spec/clusterIPs").is_empty() {
        return;
    }
    if !arr(&svc, "/metadata/finalizers").iter().any(|f| f == FINALIZER) {
        cx.event(&svc, true, "EnsuringLoadBalancer", "Ensuring load balancer", "service-controller");
        cx.update("services", ns, name, |o| {
            let mut list = arr(o, "/metadata/finalizers").to_vec();
            list.push(json!(FINALIZER));
            o["metadata"]["finalizers"] = Value::Array(list);
        });
    }
    cx.writing("k3s", |cx| {
        cx.create(
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "svclb", "namespace": PLACE}}),
        );
        let mut set = daemonset(cx, &svc);
        Set::of("", &svc).mark(&mut set);
        let there =
            cx.get(SETS, PLACE, &name_of(&svc)).is_some_and(|d| d["metadata"]["annotations"] == annotated(d, &set));
        if !there {
            cx.ensure(set);
            let text = format!("Applied LoadBalancer DaemonSet {PLACE}/{}", name_of(&svc));
            cx.event(&svc, true, "AppliedDaemonSet", &text, CONTROLLER);
        }
        status(cx, &svc);
    });
}

/// The annotations of the live DaemonSet with those of the wanted one over them.
fn annotated(live: &Value, wanted: &Value) -> Value {
    let mut out = live["metadata"]["annotations"].clone();
    for (k, v) in wanted["metadata"]["annotations"].as_object().into_iter().flatten() {
        out[k] = v.clone();
    }
    out
}

/// The Service needs no load balancer any more.
fn ended(cx: &mut Cx, svc: &Value) {
    let set = name_of(svc);
    if cx.get(SETS, PLACE, &set).is_some() {
        cx.delete(SETS, PLACE, &set);
        cx.event(svc, true, "DeletedDaemonSet", &format!("Deleted LoadBalancer DaemonSet {PLACE}/{set}"), CONTROLLER);
    }
    if arr(svc, "/metadata/finalizers").iter().any(|f| f == FINALIZER) {
        let (ns, name) = key(svc);
        cx.update("services", &ns, &name, |o| {
            if let Some(list) = o["metadata"]["finalizers"].as_array_mut() {
                list.retain(|f| f != FINALIZER);
            }
            o["status"]["loadBalancer"] = json!({});
        });
        let gone = cx.get("services", &ns, &name).is_some_and(|o| {
            !o["metadata"]["deletionTimestamp"].is_null() && arr(o, "/metadata/finalizers").is_empty()
        });
        if gone {
            cx.remove("services", &ns, &name);
        }
    }
}

fn local(svc: &Value) -> bool {
    s(svc, "/spec/externalTrafficPolicy") == "Local"
}

fn container(cx: &Cx, svc: &Value, port: &Value) -> Value {
    let protocol = if s(port, "/protocol").is_empty() { "TCP" } else { s(port, "/protocol") };
    let name = format!("lb-{}-{}", protocol.to_lowercase(), port["port"]);
    let ranges: Vec<String> = arr(svc, "/spec/loadBalancerSourceRanges").iter().map(shown).collect();
    let ranges = if ranges.is_empty() { "0.0.0.0/0".to_owned() } else { ranges.join(",") };
    let to = if local(svc) { &port["nodePort"] } else { &port["port"] };
    let ips: Vec<String> = arr(svc, "/spec/clusterIPs").iter().map(shown).collect();
    let at = match local(svc) {
        true => json!({"name": "DEST_IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIPs"}}}),
        false => json!({"name": "DEST_IPS", "value": ips.join(",")}),
    };
    json!({
        "name": name, "image": manifests::image(cx, "klipper-lb", release::parts_of(&cx.c.version).klipper_lb),
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": name, "containerPort": port["port"], "hostPort": port["port"], "protocol": protocol}],
        "env": [{"name": "SRC_PORT", "value": port["port"].to_string()}, {"name": "SRC_RANGES", "value": ranges},
            {"name": "DEST_PROTO", "value": protocol}, {"name": "DEST_PORT", "value": to.to_string()}, at],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
    })
}

fn daemonset(cx: &Cx, svc: &Value) -> Value {
    let name = name_of(svc);
    let named = json!({"app": name, NAME: svc["metadata"]["name"], NAMESPACE: svc["metadata"]["namespace"]});
    let chosen = cx.list("nodes").iter().any(|n| !n["metadata"]["labels"][ENABLED].is_null());
    let old = crate::kube::k3s::node::minor(&cx.c.version) < 34;
    let roles = if old { &["master", "control-plane"][..] } else { &["control-plane"] };
    let role =
        |r: &&str| json!({"key": format!("node-role.kubernetes.io/{r}"), "operator": "Exists", "effect": "NoSchedule"});
    let mut tolerations: Vec<Value> = roles.iter().map(role).collect();
    tolerations.push(json!({"key": "CriticalAddonsOnly", "operator": "Exists"}));
    let notes = &svc["metadata"]["annotations"];
    if let Some(text) = notes["svccontroller.k3s.cattle.io/tolerations"].as_str() {
        tolerations.extend(super::super::objects::parse_yaml(text).as_array().cloned().unwrap_or_default());
    }
    let class = notes["svccontroller.k3s.cattle.io/priorityclassname"].as_str().unwrap_or("system-node-critical");
    let containers: Vec<Value> = arr(svc, "/spec/ports").iter().map(|p| container(cx, svc, p)).collect();
    let mut pod = json!({"priorityClassName": class, "serviceAccountName": "svclb", "automountServiceAccountToken": false,
        "securityContext": {"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]},
        "tolerations": tolerations, "containers": containers});
    if chosen {
        pod["nodeSelector"] = json!({ENABLED: "true"});
        if let Some(pool) = svc["metadata"]["labels"][POOL].as_str() {
            pod["nodeSelector"][POOL] = pool.into();
        }
    }
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": PLACE,
            "labels": {SELECTS: chosen.to_string(), NAME: named[NAME], NAMESPACE: named[NAMESPACE]}},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": named}, "spec": pod},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}}})
}

/// Nodes with an endpoint of the Service, when only those are to be addressed.
fn with_endpoint(cx: &Cx, svc: &Value) -> Option<Vec<String>> {
    local(svc).then(|| {
        let behind =
            cx.c.store.select("pods", s(svc, "/metadata/namespace"), &json!({"matchLabels": svc["spec"]["selector"]}));
        behind.into_iter().filter(|p| pods::is_ready(p)).map(|p| s(p, "/spec/nodeName").to_owned()).collect()
    })
}

/// The Service has the addresses of the nodes whose pods are ready.
fn status(cx: &mut Cx, svc: &Value) {
    let (ns, name) = key(svc);
    let only = with_endpoint(cx, svc);
    let mut nodes: Vec<String> = cx
        .list_in("pods", PLACE)
        .into_iter()
        .filter(|p| of_pod(p).is_some_and(|k| k == (ns.clone(), name.clone())) && pods::is_ready(p))
        .map(|p| s(p, "/spec/nodeName").to_owned())
        .filter(|n| only.as_ref().is_none_or(|o| o.contains(n)))
        .collect();
    nodes.dedup();
    let addresses = |kind: &str| {
        let mut out: Vec<std::net::IpAddr> = nodes
            .iter()
            .filter_map(|n| cx.get("nodes", "", n))
            .flat_map(|n| arr(n, "/status/addresses"))
            .filter(|a| a["type"] == kind)
            .filter_map(|a| s(a, "/address").parse().ok())
            .collect();
        out.sort();
        out.dedup();
        out
    };
    let outside = addresses("ExternalIP");
    let ips: Vec<String> =
        if outside.is_empty() { addresses("InternalIP") } else { outside }.iter().map(ToString::to_string).collect();
    let was: Vec<String> = arr(svc, "/status/loadBalancer/ingress").iter().map(|i| s(i, "/ip").to_owned()).collect();
    if ips == was {
        return;
    }
    let list: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
    cx.update("services", &ns, &name, |o| {
        o["status"]["loadBalancer"] = if list.is_empty() { json!({}) } else { json!({"ingress": list}) };
    });
    if ips.is_empty() {
        cx.event(svc, false, "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer", CONTROLLER);
    } else {
        let text = format!("Updated LoadBalancer with new IPs: [{}] -> [{}]", was.join(" "), ips.join(" "));
        cx.event(svc, true, "UpdatedLoadBalancer", &text, CONTROLLER);
    }
}
