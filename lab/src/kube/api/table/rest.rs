//! Rows of everything else: networking, rights, scheduling, API registration.
use serde_json::{Value, json};

use super::{AGE, Layout, NAME, Row, age, number, text, wide};
use crate::kube::schema::Kind;

pub(super) fn layout(kind: &Kind) -> Option<Layout> {
    network(kind).or_else(|| rights(kind)).or_else(|| other(kind))
}

fn network(kind: &Kind) -> Option<Layout> {
    Some(match (kind.group.as_str(), kind.plural.as_str()) {
        ("networking.k8s.io", "ingresses") => Layout {
            columns: vec![NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE],
            cells: ingress,
        },
        ("networking.k8s.io", "ingressclasses") => Layout {
            columns: vec![NAME, text("Controller"), text("Parameters"), AGE],
            cells: |r| vec![marked(r), json!(r.text("/spec/controller")), json!(parameters(r)), r.age()],
        },
        ("networking.k8s.io", "networkpolicies") => Layout {
            columns: vec![NAME, text("Pod-Selector"), AGE],
            cells: |r| vec![r.name(), json!(r.selector("/spec/podSelector/matchLabels")), r.age()],
        },
        ("networking.k8s.io", "ipaddresses") => Layout {
            columns: vec![NAME, text("ParentRef"), AGE],
            cells: |r| {
                let part = |f: &str| r.text(&format!("/spec/parentRef/{f}"));
                let resource = [part("resource"), part("group")].into_iter().filter(|t| !t.is_empty());
                let place = [resource.collect::<Vec<_>>().join("."), part("namespace"), part("name")];
                let parent: Vec<String> = place.into_iter().filter(|t| !t.is_empty()).collect();
                vec![r.name(), json!(if parent.is_empty() { "<none>".to_owned() } else { parent.join("/") }), r.age()]
            },
        },
        ("networking.k8s.io", "servicecidrs") => Layout {
            columns: vec![NAME, text("CIDRs"), AGE],
            cells: |r| {
                let cidrs = r.join("/spec/cidrs", |c| c.as_str().map(str::to_owned));
                vec![r.name(), json!(if cidrs.is_empty() { "<none>".to_owned() } else { cidrs }), r.age()]
            },
        },
        ("discovery.k8s.io", "endpointslices") => Layout {
            columns: vec![NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE],
            cells: |r| {
                let ports = r.join("/ports", |p| p["port"].as_u64().map(|p| p.to_string()));
                let ends = r.join("/endpoints", |e| e["addresses"][0].as_str().map(str::to_owned));
                let shown = |t: String| if t.is_empty() { "<unset>".to_owned() } else { t };
                vec![r.name(), json!(r.text("/addressType")), json!(shown(ports)), json!(shown(ends)), r.age()]
            },
        },
        _ => return None,
    })
}

/// How far a claim of devices is.
fn claimed(r: &Row<'_>) -> String {
    let (goes, has) = (!r.at("/metadata/deletionTimestamp").is_null(), r.at("/status/allocation").is_object());
    let reserved = has && !r.list("/status/reservedFor").is_empty();
    let states = [(goes, "deleted"), (!has && !goes, "pending"), (has, "allocated"), (reserved, "reserved")];
    states.iter().filter(|x| x.0).map(|x| x.1).collect::<Vec<_>>().join(",")
}

/// The name of a class, with whether it is the default.
fn marked(r: &Row<'_>) -> Value {
    let note = r.text("/metadata/annotations/ingressclass.kubernetes.io~1is-default-class");
    json!(r.text("/metadata/name") + if note == "true" { " (default)" } else { "" })
}

/// What an IngressClass is told more by.
fn parameters(r: &Row<'_>) -> String {
    let of = |f: &str| r.text(&format!("/spec/parameters/{f}"));
    match (of("kind"), of("apiGroup")) {
        (kind, _) if kind.is_empty() => "<none>".to_owned(),
        (kind, group) if group.is_empty() => format!("{kind}/{}", of("name")),
        (kind, group) => format!("{kind}.{group}/{}", of("name")),
    }
}

fn ingress(r: &Row<'_>) -> Vec<Value> {
    let hosts = r.join("/spec/rules", |x| x["host"].as_str().filter(|h| !h.is_empty()).map(str::to_owned));
    let at = r.join("/status/loadBalancer/ingress", |i| {
        i["ip"].as_str().or_else(|| i["hostname"].as_str()).map(str::to_owned)
    });
    let ports = if r.list("/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        r.name(),
        json!(r.or("/spec/ingressClassName", "<none>")),
        json!(if hosts.is_empty() { "*".to_owned() } else { hosts }),
        json!(at),
        json!(ports),
        r.age(),
    ]
}

fn subjects(r: &Row<'_>, kind: &str) -> Value {
    let named = |s: &Value| {
        let name = s["name"].as_str()?.to_owned();
        let ns = s["namespace"].as_str().filter(|n| !n.is_empty() && kind == "ServiceAccount");
        (s["kind"] == kind).then(|| ns.map_or_else(|| name.clone(), |ns| format!("{ns}/{name}")))
    };
    let list: Vec<String> = r.list("/subjects").iter().filter_map(named).collect();
    json!(list.join(", "))
}

fn rights(kind: &Kind) -> Option<Layout> {
    if kind.group != "rbac.authorization.k8s.io" || !kind.plural.ends_with("bindings") {
        return None;
    }
    Some(Layout {
        columns: vec![NAME, text("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")],
        cells: |r| {
            let role = format!("{}/{}", r.text("/roleRef/kind"), r.text("/roleRef/name"));
            let by = ["User", "Group", "ServiceAccount"].map(|k| subjects(r, k));
            let mut out = vec![r.name(), json!(role), r.age()];
            out.extend(by);
            out
        },
    })
}

fn other(kind: &Kind) -> Option<Layout> {
    Some(match (kind.group.as_str(), kind.plural.as_str()) {
        ("coordination.k8s.io", "leases") => Layout {
            columns: vec![NAME, text("Holder"), AGE],
            cells: |r| vec![r.name(), json!(r.text("/spec/holderIdentity")), r.age()],
        },
        ("scheduling.k8s.io", "priorityclasses") => Layout {
            columns: vec![NAME, number("Value"), ("Global-Default", "boolean", 0), AGE, text("PreemptionPolicy")],
            cells: |r| {
                let global = r.at("/globalDefault").as_bool().unwrap_or(false);
                let value = r.at("/value").as_i64().unwrap_or(0);
                let policy = r.or("/preemptionPolicy", "PreemptLowerPriority");
                vec![r.name(), json!(value), json!(global), r.age(), json!(policy)]
            },
        },
        ("node.k8s.io", "runtimeclasses") => Layout {
            columns: vec![NAME, text("Handler"), AGE],
            cells: |r| vec![r.name(), json!(r.text("/handler")), r.age()],
        },
        ("storage.k8s.io", "volumeattachments") => Layout {
            columns: vec![NAME, text("Attacher"), text("PV"), text("Node"), ("Attached", "boolean", 0), AGE],
            cells: |r| {
                let attached = r.at("/status/attached").as_bool().unwrap_or(false);
                let pv = r.text("/spec/source/persistentVolumeName");
                let node = r.text("/spec/nodeName");
                vec![r.name(), json!(r.text("/spec/attacher")), json!(pv), json!(node), json!(attached), r.age()]
            },
        },
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => {
            Layout {
                columns: vec![NAME, number("Webhooks"), AGE],
                cells: |r| vec![r.name(), json!(r.list("/webhooks").len()), r.age()],
            }
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => Layout {
            columns: vec![NAME, number("Validations"), text("ParamKind"), AGE],
            cells: |r| vec![r.name(), json!(r.list("/spec/validations").len()), param_kind(r), r.age()],
        },
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => Layout {
            columns: vec![NAME, number("Mutations"), text("ParamKind"), AGE],
            cells: |r| vec![r.name(), json!(r.list("/spec/mutations").len()), param_kind(r), r.age()],
        },
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings") => {
            Layout {
                columns: vec![NAME, text("PolicyName"), text("ParamRef"), AGE],
                cells: |r| {
                    let of = |f: &str| r.text(&format!("/spec/paramRef/{f}"));
                    let by = match (of("namespace"), of("name")) {
                        (_, name) if name.is_empty() => "<unset>".to_owned(),
                        (ns, name) if ns.is_empty() => name,
                        (ns, name) => format!("{ns}/{name}"),
                    };
                    vec![r.name(), json!(r.text("/spec/policyName")), json!(by), r.age()]
                },
            }
        }
        ("resource.k8s.io", "deviceclasses" | "resourceclaimtemplates") => {
            Layout { columns: vec![NAME, AGE], cells: |r| vec![r.name(), r.age()] }
        }
        ("resource.k8s.io", "resourceclaims") => {
            Layout { columns: vec![NAME, text("State"), AGE], cells: |r| vec![r.name(), json!(claimed(r)), r.age()] }
        }
        ("resource.k8s.io", "resourceslices") => Layout {
            columns: vec![NAME, text("Node"), text("Driver"), text("Pool"), AGE],
            cells: |r| {
                let of = |f: &str| json!(r.text(&format!("/spec/{f}")));
                vec![r.name(), of("nodeName"), of("driver"), of("pool/name"), r.age()]
            },
        },
        ("storage.k8s.io", "volumeattributesclasses") => Layout {
            columns: vec![NAME, text("DriverName"), AGE],
            cells: |r| vec![r.name(), json!(r.text("/driverName")), r.age()],
        },
        ("apiregistration.k8s.io", "apiservices") => {
            Layout { columns: vec![NAME, text("Service"), text("Available"), AGE], cells: api_service }
        }
        ("certificates.k8s.io", "certificatesigningrequests") => Layout {
            columns: vec![
                NAME,
                AGE,
                text("SignerName"),
                text("Requestor"),
                text("RequestedDuration"),
                text("Condition"),
            ],
            cells: signing_request,
        },
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => Layout {
            columns: vec![
                NAME,
                text("PriorityLevel"),
                text("MatchingPrecedence"),
                text("DistinguisherMethod"),
                AGE,
                text("MissingPL"),
            ],
            cells: flow_schema,
        },
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => Layout {
            columns: vec![
                NAME,
                text("Type"),
                text("NominalConcurrencyShares"),
                text("Queues"),
                text("HandSize"),
                text("QueueLengthLimit"),
                AGE,
            ],
            cells: priority_level,
        },
        ("", "componentstatuses") => Layout {
            columns: vec![NAME, text("Status"), text("Message"), text("Error")],
            cells: |r| {
                let c = r.list("/conditions").first().cloned().unwrap_or_default();
                let up = if c["status"] == "True" { "Healthy" } else { "Unhealthy" };
                let of = |f: &str| json!(c[f].as_str().unwrap_or_default());
                vec![r.name(), json!(up), of("message"), of("error")]
            },
        },
        ("", "podtemplates") => Layout {
            columns: vec![NAME, text("Containers"), text("Images"), text("Pod Labels")],
            cells: |r| {
                let each = |f: &str| json!(r.join("/template/spec/containers", |c| c[f].as_str().map(str::to_owned)));
                vec![r.name(), each("name"), each("image"), json!(r.selector("/template/metadata/labels"))]
            },
        },
        _ => return None,
    })
}

/// The kind of a policy's parameters.
fn param_kind(r: &Row<'_>) -> Value {
    let of = |f: &str| r.text(&format!("/spec/paramKind/{f}"));
    json!(if of("kind").is_empty() { "<unset>".to_owned() } else { format!("{}/{}", of("apiVersion"), of("kind")) })
}

fn api_service(r: &Row<'_>) -> Vec<Value> {
    let service = match r.text("/spec/service/name") {
        n if n.is_empty() => "Local".to_owned(),
        n => format!("{}/{n}", r.text("/spec/service/namespace")),
    };
    let up = r.list("/status/conditions").iter().find(|c| c["type"] == "Available");
    let up = match up {
        Some(c) if c["status"] == "True" => "True".to_owned(),
        Some(c) => format!("False ({})", c["reason"].as_str().unwrap_or_default()),
        None => "Unknown".to_owned(),
    };
    vec![r.name(), json!(service), json!(up), r.age()]
}

fn flow_schema(r: &Row<'_>) -> Vec<Value> {
    let dangling = r.list("/status/conditions").iter().find(|c| c["type"] == "Dangling");
    vec![
        r.name(),
        json!(r.text("/spec/priorityLevelConfiguration/name")),
        json!(r.n("/spec/matchingPrecedence")),
        json!(r.or("/spec/distinguisherMethod/type", "<none>")),
        r.age(),
        json!(dangling.and_then(|c| c["status"].as_str()).unwrap_or("?")),
    ]
}

fn priority_level(r: &Row<'_>) -> Vec<Value> {
    let part = if r.text("/spec/type") == "Exempt" { "exempt" } else { "limited" };
    let of = |f: &str| json!(r.or(&format!("/spec/limited/limitResponse/queuing/{f}"), "<none>"));
    vec![
        r.name(),
        json!(r.text("/spec/type")),
        json!(r.or(&format!("/spec/{part}/nominalConcurrencyShares"), "<none>")),
        of("queues"),
        of("handSize"),
        of("queueLengthLimit"),
        r.age(),
    ]
}

fn signing_request(r: &Row<'_>) -> Vec<Value> {
    let mut words: Vec<String> =
        r.list("/status/conditions").iter().filter_map(|c| c["type"].as_str().map(str::to_owned)).collect();
    if words.is_empty() {
        words.push("Pending".to_owned());
    } else if !r.text("/status/certificate").is_empty() {
        words.push("Issued".to_owned());
    }
    vec![
        r.name(),
        r.age(),
        json!(r.text("/spec/signerName")),
        json!(r.text("/spec/username")),
        json!(r.at("/spec/expirationSeconds").as_u64().map_or_else(|| "<none>".to_owned(), |s| age(s * 1000))),
        json!(words.join(",")),
    ]
}
