//! CoreDNS.
use serde_json::{Value, json};

use super::{Filled, account, binding, deployment, holder, probe, role, rule, tolerations};

/// Everything of its manifest.
pub(super) fn coredns(f: &Filled) -> Vec<Value> {
    let look = ["list", "watch"];
    let mut right = role(
        "system:coredns",
        json!([
            rule(&[""], &["endpoints", "services", "pods", "namespaces"], &look),
            rule(&["discovery.k8s.io"], &["endpointslices"], &look),
        ]),
    );
    let mut bound = binding("system:coredns", "system:coredns", holder("coredns"));
    bound["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
    for o in [&mut right, &mut bound] {
        o["metadata"]["labels"] = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    }
    let named = json!({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"});
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"},
        "data": {"Corefile": corefile(&f.domain)}});
    vec![
        account("coredns"),
        right,
        bound,
        config,
        deployment("coredns", named, json!({"k8s-app": "kube-dns"}), pod(f)),
        service(&f.dns),
    ]
}

/// What CoreDNS is told; the forwarding comes last, so that imported overrides may come before it.
fn corefile(domain: &str) -> String {
    let block = |name: &str, lines: &[&str]| {
        let body: String = lines.iter().map(|l| format!("      {l}\n")).collect();
        format!("    {name} {{\n{body}    }}\n")
    };
    let plain = |lines: &[&str]| lines.iter().map(|l| format!("    {l}\n")).collect::<String>();
    [
        ".:53 {\n".to_owned(),
        plain(&["errors", "health", "ready"]),
        block(
            &format!("kubernetes {domain} in-addr.arpa ip6.arpa"),
            &["pods insecure", "fallthrough in-addr.arpa ip6.arpa"],
        ),
        block("hosts /etc/coredns/NodeHosts", &["ttl 60", "reload 15s", "fallthrough"]),
        plain(&["prometheus :9153", "cache 30", "loop", "reload", "loadbalance"]),
        plain(&["import /etc/coredns/custom/*.override", "forward . /etc/resolv.conf"]),
        "}\nimport /etc/coredns/custom/*.server\n".to_owned(),
    ]
    .concat()
}

fn pod(f: &Filled) -> Value {
    let port =
        |name: &str, number: u16, protocol: &str| json!({"containerPort": number, "name": name, "protocol": protocol});
    let spread = |key: &str, otherwise: &str| {
        json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": otherwise,
            "labelSelector": {"matchLabels": {"k8s-app": "kube-dns"}}})
    };
    let key = |k: &str| json!({"key": k, "path": k});
    json!({
        "priorityClassName": "system-cluster-critical", "serviceAccountName": "coredns", "tolerations": tolerations(f),
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "topologySpreadConstraints": [spread("kubernetes.io/hostname", "DoNotSchedule"),
            spread("topology.kubernetes.io/zone", "ScheduleAnyway")],
        "containers": [{
            "name": "coredns", "image": f.image("mirrored-coredns-coredns", f.parts.coredns), "imagePullPolicy": "IfNotPresent",
            "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
            "args": ["-conf", "/etc/coredns/Corefile"],
            "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true},
                {"name": "custom-config-volume", "mountPath": "/etc/coredns/custom", "readOnly": true}],
            "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["all"]}},
            "livenessProbe": probe("/health", json!(8080), "HTTP", (60, 10)),
            "readinessProbe": probe("/ready", json!(8181), "HTTP", (0, 2)),
        }],
        "dnsPolicy": "Default",
        "volumes": [
            {"name": "config-volume", "configMap": {"name": "coredns", "items": [key("Corefile"), key("NodeHosts")]}},
            {"name": "custom-config-volume", "configMap": {"name": "coredns-custom", "optional": true}},
        ],
    })
}

fn service(dns: &[String]) -> Value {
    let policy = if dns.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system",
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
        "spec": {"selector": {"k8s-app": "kube-dns"}, "clusterIP": dns.first(), "clusterIPs": dns, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            {"name": "metrics", "port": 9153, "protocol": "TCP"}], "ipFamilyPolicy": policy}})
}
