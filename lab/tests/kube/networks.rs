//! What the API server refuses of services, ingresses and network policies.
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::refused::{CORE, causes, refuses};

const NET: &str = "/apis/networking.k8s.io/v1/namespaces/default";

#[tokio::test]
async fn services() {
    let bed = Bed::still().await;
    let at = format!("{CORE}/services");
    let own = json!({"metadata": {"name": "kubernetes"}, "spec": {"clusterIP": "10.43.0.1", "ports": [{"port": 443}]}});
    assert_eq!(bed.post(&at, own).await.code, 201);
    let good = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let spec = |s: Value| json!({"spec": s});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"metadata": {"name": "1a"}}),
            &["metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of"],
        ),
        (
            spec(json!({"clusterIP": "192.168.0.1"})),
            &[
                "spec.clusterIPs: Invalid value: [\"192.168.0.1\"]: failed to allocate IP 192.168.0.1: the provided network does not match the current range",
            ],
        ),
        (
            spec(json!({"clusterIP": "10.43.0.1"})),
            &[
                "spec.clusterIPs: Invalid value: [\"10.43.0.1\"]: failed to allocate IP 10.43.0.1: provided IP is already allocated",
            ],
        ),
        (
            spec(json!({"type": "Odd"})),
            &[
                "spec.type: Unsupported value: \"Odd\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        ),
        (spec(json!({"type": "ExternalName"})), &["spec.externalName: Required value"]),
        (
            spec(json!({"ports": [{"port": 80, "nodePort": 30_080}]})),
            &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            spec(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]})),
            &[
                "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
            ],
        ),
        (
            spec(json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]})),
            &["spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\""],
        ),
        (spec(json!({"ports": [{"name": "a", "port": 80}, {"port": 81}]})), &["spec.ports[1].name: Required value"]),
        (
            spec(json!({"ports": [{"port": 80, "targetPort": "80"}]})),
            &["spec.ports[0].targetPort: Invalid value: \"80\": must contain at least one letter (a-z)"],
        ),
        (
            spec(json!({"sessionAffinity": "x"})),
            &["spec.sessionAffinity: Unsupported value: \"x\": supported values: \"ClientIP\", \"None\""],
        ),
        (
            spec(json!({"externalTrafficPolicy": "Local"})),
            &[
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ],
        ),
    ];
    refuses(&bed, &at, &good, table).await;
    let open =
        json!({"metadata": {"name": "o"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_080}]}});
    assert_eq!(bed.post(&at, open.clone()).await.code, 201);
    let mut other = open;
    other["metadata"]["name"] = json!("p");
    let a = bed.post(&at, other).await;
    assert_eq!(causes(&a), ["spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"]);
    // an address that nobody asked for is a free one of the range
    let a = bed.post(&at, good).await;
    assert!(a.body["spec"]["clusterIP"].as_str().unwrap().starts_with("10.43."), "{}", a.text);
    let a = bed.patch("merge", &format!("{at}/s"), json!({"spec": {"clusterIP": "10.43.9.9"}})).await;
    assert_eq!(causes(&a)[0], "spec.clusterIPs[0]: Invalid value: [\"10.43.9.9\"]: may not change once set");
}

#[tokio::test]
async fn ingresses_and_policies() {
    let bed = Bed::still().await;
    let path = |p: &str, kind: &str| json!([{"http": {"paths": [{"path": p, "pathType": kind, "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]);
    let good = json!({"metadata": {"name": "i"}, "spec": {"rules": path("/", "Prefix")}});
    let rules = |r: Value| json!({"spec": {"rules": r}});
    let backend = |b: Value| json!({"spec": {"rules": null, "defaultBackend": b}});
    let host = |h: &str| json!({"spec": {"rules": [{"host": h}]}});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"spec": {"rules": null}}),
            &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        ),
        (
            rules(path("x", "Exact")),
            &["spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path"],
        ),
        (
            rules(path("/a//b", "Prefix")),
            &["spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'"],
        ),
        (
            rules(path("/", "Odd")),
            &[
                "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Odd\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            ],
        ),
        (host("1.2.3.4"), &["spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"]),
        (
            host("*.*.a"),
            &["spec.rules[0].host: Invalid value: \"*.*.a\": a wildcard DNS-1123 subdomain must start with '*.'"],
        ),
        (backend(json!({})), &["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"]),
        (
            backend(json!({"service": {"name": "s"}})),
            &["spec.defaultBackend: Required value: port name or number is required"],
        ),
    ];
    refuses(&bed, &format!("{NET}/ingresses"), &good, table).await;

    let good = json!({"metadata": {"name": "p"}, "spec": {"podSelector": {}}});
    let table: &[(Value, &[&str])] = &[
        (
            json!({"spec": {"policyTypes": ["In"]}}),
            &["spec.policyTypes[0]: Unsupported value: \"In\": supported values: \"Ingress\", \"Egress\""],
        ),
        (
            json!({"spec": {"ingress": [{"from": [{}]}]}}),
            &["spec.ingress[0].from[0]: Required value: must specify a peer"],
        ),
        (
            json!({"spec": {"egress": [{"ports": [{"port": 5, "endPort": 1}]}]}}),
            &["spec.egress[0].ports[0].endPort: Invalid value: 5: must be greater than or equal to `port`"],
        ),
        (
            json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]}}),
            &[
                "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        ),
        (
            json!({"spec": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}),
            &[
                "spec.podSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            ],
        ),
    ];
    let at = format!("{NET}/networkpolicies");
    refuses(&bed, &at, &good, table).await;
    let made = bed.post(&at, good).await;
    assert_eq!(made.body["spec"]["policyTypes"], json!(["Ingress"]));
    let out = json!({"metadata": {"name": "q"}, "spec": {"podSelector": {}, "egress": [{}]}});
    assert_eq!(bed.post(&at, out).await.body["spec"]["policyTypes"], json!(["Ingress", "Egress"]));

    let classes = "/apis/networking.k8s.io/v1/ingressclasses";
    let class = json!({"metadata": {"name": "c"}, "spec": {"controller": "ex.io/c"}});
    let table: &[(Value, &[&str])] = &[
        (json!({"spec": {"controller": null}}), &["spec.controller: Required value"]),
        (
            json!({"spec": {"controller": "c"}}),
            &["spec.controller: Invalid value: \"c\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
        ),
    ];
    refuses(&bed, classes, &class, table).await;
    bed.post(classes, class).await;
    let a = bed.patch("merge", &format!("{classes}/c"), json!({"spec": {"controller": "ex.io/d"}})).await;
    assert_eq!(causes(&a), ["spec.controller: Invalid value: \"ex.io/d\": field is immutable"]);
}
