//! CustomResourceDefinitions of K3s and of the charts the lab knows, in compact form: names and
//! printer columns are theirs, fields are declared where gpuhost or the lab reads them.
use gpuhost_stdlib::wire;
use serde_json::{Value, json};

/// What K3s installs at its first start.
pub const K3S: &[&str] = &[
    "addons.k3s.cattle.io",
    "etcdsnapshotfiles.k3s.cattle.io",
    "helmcharts.helm.cattle.io",
    "helmchartconfigs.helm.cattle.io",
];

struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    status: bool,
    /// (name, type, JSON path).
    columns: &'static [(&'static str, &'static str, &'static str)],
}

const fn row(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Row {
    Row { group, version, kind, plural, short: &[], namespaced: true, status: true, columns: &[] }
}

const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");
const READY: (&str, &str, &str) = ("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status");

const HOSTS: &[(&str, &str, &str)] = &[("Hostnames", "string", ".spec.hostnames"), AGE];
/// Columns that only `-o wide` shows.
const WIDE: &[(&str, &str)] = &[("HelmChart", "Job")];

const ROWS: &[Row] = &[
    Row {
        columns: &[("Source", "string", ".spec.source"), ("Checksum", "string", ".spec.checksum")],
        status: false,
        ..row("k3s.cattle.io", "v1", "Addon", "addons")
    },
    Row {
        namespaced: false,
        columns: &[
            ("SnapshotName", "string", ".spec.snapshotName"),
            ("Node", "string", ".spec.nodeName"),
            ("Location", "string", ".spec.location"),
            ("Size", "string", ".status.size"),
            ("CreationTime", "date", ".status.creationTime"),
        ],
        ..row("k3s.cattle.io", "v1", "ETCDSnapshotFile", "etcdsnapshotfiles")
    },
    Row {
        short: &["hc"],
        columns: &[
            ("Repo", "string", ".spec.repo"),
            ("Chart", "string", ".spec.chart"),
            ("Version", "string", ".spec.version"),
            ("TargetNamespace", "string", ".spec.targetNamespace"),
            ("Bootstrap", "boolean", ".spec.bootstrap"),
            ("Failed", "string", ".status.conditions[?(@.type=='Failed')].status"),
            ("Job", "string", ".status.jobName"),
        ],
        ..row("helm.cattle.io", "v1", "HelmChart", "helmcharts")
    },
    Row { short: &["hcc"], status: false, ..row("helm.cattle.io", "v1", "HelmChartConfig", "helmchartconfigs") },
    Row {
        namespaced: false,
        columns: &[("Status", "string", ".status.state"), ("Age", "string", ".metadata.creationTimestamp")],
        ..row("nvidia.com", "v1", "ClusterPolicy", "clusterpolicies")
    },
    Row {
        namespaced: false,
        short: &["nvd", "nvdriver", "nvdrivers"],
        columns: &[("Status", "string", ".status.state"), ("Age", "string", ".metadata.creationTimestamp")],
        ..row("nvidia.com", "v1alpha1", "NVIDIADriver", "nvidiadrivers")
    },
    Row {
        namespaced: false,
        status: false,
        ..row("nfd.k8s-sigs.io", "v1alpha1", "NodeFeatureRule", "nodefeaturerules")
    },
    Row { status: false, ..row("nfd.k8s-sigs.io", "v1alpha1", "NodeFeature", "nodefeatures") },
    Row {
        columns: &[
            ("Repo", "string", ".spec.repo"),
            ("Commit", "string", ".status.commit"),
            ("BundleDeployments-Ready", "string", ".status.display.readyBundleDeployments"),
            ("Status", "string", ".status.conditions[?(@.type==\"Ready\")].message"),
        ],
        ..row("fleet.cattle.io", "v1alpha1", "GitRepo", "gitrepos")
    },
    Row {
        columns: &[
            ("BundleDeployments-Ready", "string", ".status.display.readyClusters"),
            ("Status", "string", ".status.conditions[?(@.type==\"Ready\")].message"),
        ],
        ..row("fleet.cattle.io", "v1alpha1", "Bundle", "bundles")
    },
    Row {
        columns: &[
            ("Deployed", "string", ".status.display.deployed"),
            ("Monitored", "string", ".status.display.monitored"),
            ("Status", "string", ".status.conditions[?(@.type==\"Ready\")].message"),
        ],
        ..row("fleet.cattle.io", "v1alpha1", "BundleDeployment", "bundledeployments")
    },
    Row {
        columns: &[
            ("Bundles-Ready", "string", ".status.display.readyBundles"),
            ("Last-Seen", "string", ".status.agent.lastSeen"),
            ("Status", "string", ".status.conditions[?(@.type==\"Ready\")].message"),
        ],
        ..row("fleet.cattle.io", "v1alpha1", "Cluster", "clusters")
    },
    row("fleet.cattle.io", "v1alpha1", "ClusterGroup", "clustergroups"),
    Row {
        short: &["cert", "certs"],
        columns: &[READY, ("Secret", "string", ".spec.secretName"), AGE],
        ..row("cert-manager.io", "v1", "Certificate", "certificates")
    },
    Row {
        short: &["cr", "crs"],
        columns: &[READY, AGE],
        ..row("cert-manager.io", "v1", "CertificateRequest", "certificaterequests")
    },
    Row { columns: &[READY, AGE], ..row("cert-manager.io", "v1", "Issuer", "issuers") },
    Row {
        namespaced: false,
        columns: &[READY, AGE],
        ..row("cert-manager.io", "v1", "ClusterIssuer", "clusterissuers")
    },
    row("acme.cert-manager.io", "v1", "Challenge", "challenges"),
    row("acme.cert-manager.io", "v1", "Order", "orders"),
    Row {
        short: &["smon"],
        status: false,
        columns: &[AGE],
        ..row("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors")
    },
    Row {
        short: &["pmon"],
        status: false,
        columns: &[AGE],
        ..row("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors")
    },
    Row {
        short: &["promrule"],
        status: false,
        columns: &[AGE],
        ..row("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules")
    },
    Row {
        short: &["prom"],
        columns: &[("Version", "string", ".spec.version"), ("Desired", "integer", ".spec.replicas"), AGE],
        ..row("monitoring.coreos.com", "v1", "Prometheus", "prometheuses")
    },
    Row {
        short: &["am"],
        columns: &[("Version", "string", ".spec.version"), ("Replicas", "integer", ".spec.replicas"), AGE],
        ..row("monitoring.coreos.com", "v1", "Alertmanager", "alertmanagers")
    },
    Row {
        columns: &[
            ("Image", "string", ".spec.upgrade.image"),
            ("Channel", "string", ".spec.channel"),
            ("Version", "string", ".spec.version"),
        ],
        ..row("upgrade.cattle.io", "v1", "Plan", "plans")
    },
    row("traefik.io", "v1alpha1", "IngressRoute", "ingressroutes"),
    row("traefik.io", "v1alpha1", "IngressRouteTCP", "ingressroutetcps"),
    row("traefik.io", "v1alpha1", "IngressRouteUDP", "ingressrouteudps"),
    row("traefik.io", "v1alpha1", "Middleware", "middlewares"),
    row("traefik.io", "v1alpha1", "MiddlewareTCP", "middlewaretcps"),
    row("traefik.io", "v1alpha1", "ServersTransport", "serverstransports"),
    row("traefik.io", "v1alpha1", "ServersTransportTCP", "serverstransporttcps"),
    row("traefik.io", "v1alpha1", "TLSOption", "tlsoptions"),
    row("traefik.io", "v1alpha1", "TLSStore", "tlsstores"),
    row("traefik.io", "v1alpha1", "TraefikService", "traefikservices"),
    Row {
        namespaced: false,
        short: &["gc"],
        columns: &[
            ("Controller", "string", ".spec.controllerName"),
            ("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status"),
            AGE,
        ],
        ..row("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses")
    },
    Row {
        short: &["gtw"],
        columns: &[
            ("Class", "string", ".spec.gatewayClassName"),
            ("Address", "string", ".status.addresses[*].value"),
            ("Programmed", "string", ".status.conditions[?(@.type==\"Programmed\")].status"),
            AGE,
        ],
        ..row("gateway.networking.k8s.io", "v1", "Gateway", "gateways")
    },
    Row { columns: HOSTS, ..row("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes") },
    Row { columns: HOSTS, ..row("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes") },
    Row {
        short: &["refgrant"],
        columns: &[AGE],
        ..row("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant", "referencegrants")
    },
    Row {
        short: &["btlspolicy"],
        columns: &[AGE],
        ..row("gateway.networking.k8s.io", "v1", "BackendTLSPolicy", "backendtlspolicies")
    },
    Row { namespaced: false, ..row("management.cattle.io", "v3", "Setting", "settings") },
    Row { namespaced: false, ..row("management.cattle.io", "v3", "Cluster", "clusters") },
];

fn any() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

fn chart_spec() -> Value {
    let pod = "Passed on to the pod of the install job.";
    json!({"type": "object", "description": "HelmChartSpec represents the user-configurable details for installation and upgrade of a Helm chart release.",
        "properties": {
        "chart": text("Helm Chart name in repository, or complete HTTPS URL to chart archive (.tgz)."),
        "repo": text("Helm Chart repository URL."),
        "repoCA": text("Verify certificates of HTTPS-enabled servers using this CA bundle."),
        "repoCAConfigMap": any(),
        "version": text("Helm Chart version."),
        "targetNamespace": text("Helm Chart target namespace."),
        "createNamespace": flag("Create target namespace if not present."),
        "values": json!({"x-kubernetes-preserve-unknown-fields": true, "description": "Override complex Chart values via structured YAML."}),
        "valuesContent": text("Override complex Chart values via inline YAML content."),
        "valuesSecrets": {"type": "array", "items": any()},
        "set": {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true},
                "description": "Override simple Chart values."},
        "failurePolicy": {"type": "string", "default": "reinstall", "enum": ["abort", "reinstall", "retry"], "description": "Configures handling of failed chart installation or upgrades."},
        "driver": {"type": "string", "default": "secret", "enum": ["secret", "configmap"], "description": "Storage driver of releases."},
        "bootstrap": flag("Set to True if this chart is needed to bootstrap the cluster."),
        "helmVersion": text("DEPRECATED. Helm version to use."),
        "timeout": text("Timeout for Helm operations."),
        "jobImage": text("Specify the image to use for tht helm job pod when installing or upgrading the helm chart."),
        "backOffLimit": {"type": "integer", "format": "int32", "description": "Specify the number of retries before considering the helm job failed."},
        "chartContent": text("Base64-encoded chart archive .tgz."),
        "dockerRegistrySecret": any(),
        "authSecret": any(),
        "authPassCredentials": flag("Pass Basic auth credentials to all domains."),
        "insecureSkipTLSVerify": flag("Skip TLS certificate checks for the chart download."),
        "plainHTTP": flag("Use insecure HTTP connections for the chart download."),
        "takeOwnership": flag("Set to True if helm should take ownership of existing resources when installing/upgrading the chart."),
        "forceConflicts": flag("Force server-side apply changes against conflicts."),
        "serverSide": {"type": "string", "enum": ["true", "false", "auto"], "description": "Whether helm applies on the server."},
        "podSecurityContext": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": pod},
        "securityContext": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": pod},
    }})
}

fn spec_of(name: &str) -> Value {
    match name {
        "HelmChart" => chart_spec(),
        "ClusterPolicy" => super::policy::spec(),
        "HelmChartConfig" => json!({"type": "object", "properties": {
            "valuesContent": text("Override complex Chart values via inline YAML content."),
            "values": {"x-kubernetes-preserve-unknown-fields": true},
            "valuesSecrets": {"type": "array", "items": any()},
            "failurePolicy": {"type": "string", "default": "reinstall", "enum": ["abort", "reinstall", "retry"]},
            "serverSide": {"type": "string", "enum": ["true", "false", "auto"]},
            "forceConflicts": flag("Force server-side apply changes against conflicts."),
        }}),
        "Addon" => json!({"type": "object", "properties": {
            "source": text("Path of the manifest on the node."), "checksum": text("Checksum of the manifest."),
        }}),
        "Plan" => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "required": ["upgrade"],
            "properties": {"upgrade": any(), "concurrency": {"type": "integer"}, "version": {"type": "string"},
                "channel": {"type": "string"}, "cordon": {"type": "boolean"}}}),
        _ => any(),
    }
}

/// The definition called `name` (`helmcharts.helm.cattle.io`), if the lab knows it.
#[must_use]
pub fn crd(name: &str) -> Option<Value> {
    let r = ROWS.iter().find(|r| name == format!("{}.{}", r.plural, r.group))?;
    let column = |(n, t, p): &(&str, &str, &str)| {
        let mut out = json!({"name": n, "type": t, "jsonPath": p});
        if WIDE.contains(&(r.kind, n)) {
            out["priority"] = json!(10);
        }
        out
    };
    let columns: Vec<Value> = r.columns.iter().map(column).collect();
    let known = wire::crds::schema(&format!("{}/{}", r.group, r.version), r.kind);
    let mut version = json!({
        "name": r.version, "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "apiVersion": text("APIVersion defines the versioned schema of this representation of an object."),
            "kind": text("Kind is a string value representing the REST resource this object represents."),
            "metadata": {"type": "object"},
            "spec": known.map_or_else(|| spec_of(r.kind), |k| k["properties"]["spec"].clone()),
            "status": if r.kind == "ClusterPolicy" { super::policy::status() } else { any() },
        }}},
    });
    for key in ["description", "required"] {
        if let Some(v) = known.and_then(|k| k.get(key)) {
            version["schema"]["openAPIV3Schema"][key] = v.clone();
        }
    }
    if r.status {
        version["subresources"] = json!({"status": {}});
    }
    if !columns.is_empty() {
        version["additionalPrinterColumns"] = columns.into();
    }
    let mut names = json!({"kind": r.kind, "listKind": format!("{}List", r.kind), "plural": r.plural,
        "singular": r.kind.to_lowercase()});
    if !r.short.is_empty() {
        names["shortNames"] = json!(r.short);
    }
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {"group": r.group, "names": names, "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
            "versions": [version]},
    }))
}

/// Names of all definitions of a group.
#[must_use]
pub fn of_group(group: &str) -> Vec<String> {
    ROWS.iter().filter(|r| r.group == group).map(|r| format!("{}.{}", r.plural, r.group)).collect()
}
