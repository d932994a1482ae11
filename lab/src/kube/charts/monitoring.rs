//! The chart of Prometheus: kube-prometheus-stack with what its operator makes of it. Grade: source (chart templates).
use serde_json::{Value, json};

use super::Wanted;
use super::platform::{server, to_port};
use crate::kube::objects::{Container, Workload};

const CHART: &str = "kube-prometheus-stack";
const GROUP: &str = "monitoring.coreos.com/v1";

/// Images of a version: the operator's, Prometheus', Alertmanager's.
fn tags(version: &str) -> [&'static str; 3] {
    match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(major) if major < 85 => ["v0.86.1", "v3.7.3", "v0.28.1"],
        _ => ["v0.90.1", "v3.11.3-distroless", "v0.32.1"],
    }
}

/// The chart's name for what it makes itself; its subcharts take the release's.
fn full(release: &str) -> String {
    let long = if release.contains(CHART) { release.to_owned() } else { format!("{release}-{CHART}") };
    long.chars().take(26).collect::<String>().trim_end_matches('-').to_owned()
}

/// A part with a Service for one port, and the ServiceMonitor that has Prometheus read its metrics.
struct Part<'a> {
    ns: &'a str,
    name: String,
    selector: Value,
    /// The Service's port, and the container's that it leads to.
    port: (&'static str, u16),
    target: &'static str,
}

impl Part<'_> {
    fn objects(&self) -> [Value; 2] {
        let service = to_port(self.ns, &self.name, &self.selector, self.port, self.target);
        let monitor = json!({"apiVersion": GROUP, "kind": "ServiceMonitor",
            "metadata": {"name": self.name, "namespace": self.ns, "labels": {"app": self.name}},
            "spec": {"selector": {"matchLabels": self.selector}, "namespaceSelector": {"matchNames": [self.ns]},
                "endpoints": [{"port": self.port.0, "path": "/metrics"}]}});
        [service, monitor]
    }
}

/// What the operator makes of a Prometheus or an Alertmanager: its StatefulSet and the Service that governs it.
fn operated(ns: &str, kind: &str, name: &str, image: &str, port: u16) -> ([Value; 2], Value) {
    let selector = json!({"app.kubernetes.io/name": kind, format!("operator.{kind}.io/name"): name});
    let main = Container::new(kind, image).set("ports", json!([{"name": "http-web", "containerPort": port}]));
    let mut set = Workload::statefulset(ns, &format!("{kind}-{name}")).container(main);
    for (k, v) in selector.as_object().into_iter().flatten() {
        set = set.label(k, v.as_str().unwrap_or_default());
    }
    set = set.spec("serviceAccountName", json!(name));
    let mut set = set.object();
    let governs = format!("{kind}-operated");
    set["spec"]["serviceName"] = json!(governs);
    let mut service = to_port(ns, &governs, &json!({"app.kubernetes.io/name": kind}), ("http-web", port), "http-web");
    service["spec"]["clusterIP"] = json!("None");
    ([set, service], selector)
}

/// kube-prometheus-stack.
pub(super) fn render(w: &Wanted) -> (Vec<&'static str>, Vec<Value>) {
    let (ns, r, own) = (w.namespace.as_str(), &w.release, full(&w.release));
    let [operator, prometheus, alertmanager] = tags(&w.version);
    let on = |key: &str| w.values[key]["enabled"] != false;
    let mut out = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    for (key, name, image, target, port) in [
        (
            "prometheusOperator",
            format!("{own}-operator"),
            format!("quay.io/prometheus-operator/prometheus-operator:{operator}"),
            ("https", 10250),
            ("https", 443),
        ),
        (
            "kubeStateMetrics",
            format!("{r}-kube-state-metrics"),
            "registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.17.0".to_owned(),
            ("http", 8080),
            ("http", 8080),
        ),
        (
            "grafana",
            format!("{r}-grafana"),
            "docker.io/grafana/grafana:12.2.1".to_owned(),
            ("grafana", 3000),
            ("http-web", 80),
        ),
    ] {
        if on(key) {
            out.extend(server(ns, &name, &image, &[target]).objects());
            parts.push(Part { ns, selector: json!({"app": name}), name, port, target: target.0 });
        }
    }
    if on("nodeExporter") {
        let name = format!("{r}-prometheus-node-exporter");
        let main = Container::new("node-exporter", "quay.io/prometheus/node-exporter:v1.10.2")
            .set("ports", json!([{"name": "http-metrics", "containerPort": 9100}]));
        let all = json!([{"operator": "Exists", "effect": "NoSchedule"}]);
        let set = Workload::daemonset(ns, &name).label("app", "node-exporter").container(main);
        out.extend(set.spec("tolerations", all).objects());
        parts.push(Part {
            ns,
            name,
            selector: json!({"app": "node-exporter"}),
            port: ("http-metrics", 9100),
            target: "http-metrics",
        });
    }
    for (kind, object, image, port) in [
        ("prometheus", "Prometheus", format!("quay.io/prometheus/prometheus:{prometheus}"), 9090),
        ("alertmanager", "Alertmanager", format!("quay.io/prometheus/alertmanager:{alertmanager}"), 9093),
    ] {
        if !on(kind) {
            continue;
        }
        let name = format!("{own}-{kind}");
        let told = &w.values[kind][format!("{kind}Spec")];
        let version = image.rsplit(':').next().unwrap_or_default();
        let mut spec = json!({"replicas": 1, "image": image, "version": version});
        if told["retention"].is_string() {
            spec["retention"] = told["retention"].clone();
        }
        let (made, selector) = operated(ns, kind, &name, &image, port);
        out.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": ns}}));
        out.extend(made);
        out.push(
            json!({"apiVersion": GROUP, "kind": object, "metadata": {"name": name, "namespace": ns}, "spec": spec}),
        );
        parts.push(Part { ns, name, selector, port: ("http-web", port), target: "http-web" });
    }
    out.extend(parts.iter().flat_map(Part::objects));
    (CRDS.to_vec(), out)
}

const CRDS: &[&str] = &[
    "alertmanagers.monitoring.coreos.com",
    "podmonitors.monitoring.coreos.com",
    "prometheuses.monitoring.coreos.com",
    "prometheusrules.monitoring.coreos.com",
    "servicemonitors.monitoring.coreos.com",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_chart() {
        assert_eq!(full("kube-prometheus-stack"), "kube-prometheus-stack");
        assert_eq!(full("mon"), "mon-kube-prometheus-stack");
        assert_eq!(full("monitoring"), "monitoring-kube-prometheus");
    }
}
