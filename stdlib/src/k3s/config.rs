//! What a node's files should say: config.yaml, registries.yaml, the systemd unit. No I/O.
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::options::ServerOptions;
use crate::core::event::Change;
use crate::core::units::Secret;
use crate::wire::k3s::CRITICAL;

/// K3s' configuration file.
pub const CONFIG: &str = "/etc/rancher/k3s/config.yaml";
/// Registry mirrors.
pub const REGISTRIES: &str = "/etc/rancher/k3s/registries.yaml";
/// Audit policy of the CIS settings.
pub const AUDIT: &str = "/etc/rancher/k3s/audit.yaml";
/// What the API server's admission plugins are told: Pod Security.
pub const ADMISSION: &str = "/etc/rancher/k3s/psa.yaml";
/// The binary.
pub const BINARY: &str = "/usr/local/bin/k3s";

/// How a server comes to its datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Makes a new cluster.
    Init,
    /// Joins the server at this URL.
    Join(String),
}

/// Server or agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `k3s server`.
    Server,
    /// `k3s agent`.
    Agent,
}

impl Part {
    /// Name of the systemd unit.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Part::Server => "k3s",
            Part::Agent => "k3s-agent",
        }
    }
    /// Subcommand of the binary.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Part::Server => "server",
            Part::Agent => "agent",
        }
    }
}

/// Who a node is.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Node name.
    pub name: String,
    /// Its address.
    pub ip: String,
    /// Labels at first registration.
    pub labels: BTreeMap<String, String>,
    /// Taints at first registration.
    pub taints: Vec<String>,
}

fn pairs(labels: &BTreeMap<String, String>) -> Vec<String> {
    labels
        .iter()
        // the kubelet may not set these itself (NodeRestriction); the API call does
        .filter(|(k, _)| !k.starts_with("node-role.kubernetes.io/"))
        .map(|(k, v)| format!("{k}={v}"))
        .collect()
}

fn identity_keys(out: &mut Map<String, Value>, id: &Identity) {
    out.insert("node-name".into(), id.name.clone().into());
    if id.ip.parse::<std::net::IpAddr>().is_ok() {
        out.insert("node-ip".into(), id.ip.clone().into());
    }
    let labels = pairs(&id.labels);
    if !labels.is_empty() {
        out.insert("node-label".into(), json!(labels));
    }
    if !id.taints.is_empty() {
        out.insert("node-taint".into(), json!(id.taints));
    }
}

/// config.yaml of a server.
#[must_use]
pub fn server_config(o: &ServerOptions, id: &Identity, start: &Start, token: &Secret, sans: &[String]) -> Value {
    let mut c = Map::new();
    match start {
        Start::Init => c.insert("cluster-init".into(), true.into()),
        Start::Join(url) => c.insert("server".into(), url.clone().into()),
    };
    c.insert("token".into(), token.reveal().into());
    identity_keys(&mut c, id);
    c.insert("tls-san".into(), json!(sans));
    c.insert("write-kubeconfig-mode".into(), "0600".into());
    c.insert("cluster-cidr".into(), o.cluster_cidr.clone().into());
    c.insert("service-cidr".into(), o.service_cidr.clone().into());
    if !o.disable.is_empty() {
        c.insert("disable".into(), json!(o.disable));
    }
    c.insert("etcd-expose-metrics".into(), true.into());
    c.insert("etcd-snapshot-schedule-cron".into(), o.snapshot_cron.clone().into());
    c.insert("etcd-snapshot-retention".into(), o.snapshot_keep.into());
    if o.cis {
        c.insert("protect-kernel-defaults".into(), true.into());
        c.insert("secrets-encryption".into(), true.into());
        let audit = [
            format!("audit-policy-file={AUDIT}"),
            "audit-log-path=/var/lib/rancher/k3s/server/logs/audit.log".to_owned(),
            "audit-log-maxage=30".to_owned(),
            "audit-log-maxbackup=10".to_owned(),
            "audit-log-maxsize=100".to_owned(),
        ];
        c.insert("kube-apiserver-arg".into(), json!(audit));
        c.insert("kube-controller-manager-arg".into(), json!(["terminated-pod-gc-threshold=10"]));
        c.insert("kubelet-arg".into(), json!(["streaming-connection-idle-timeout=5m"]));
    }
    if standard(o).is_some() {
        let arg = json!({"kube-apiserver-arg": [format!("admission-control-config-file={ADMISSION}")]});
        extend(&mut c, &arg);
    }
    extend(&mut c, &o.config);
    Value::Object(c)
}

/// Pod Security standards that refuse something.
const STANDARDS: [&str; 2] = ["baseline", "restricted"];

/// The Pod Security standard that the site asks for.
fn standard(o: &ServerOptions) -> Option<&str> {
    Some(o.pod_security.as_str()).filter(|level| STANDARDS.contains(level))
}

/// Files of a server that its API server reads at its start: path and text.
#[must_use]
pub fn policies(o: &ServerOptions) -> Vec<(&'static str, String)> {
    let audit = o.cis.then(|| (AUDIT, AUDIT_POLICY.to_owned()));
    audit.into_iter().chain(standard(o).map(|level| (ADMISSION, to_yaml(&admission(level))))).collect()
}

/// Files of [`policies`] that this site asks for no more: the text is ours, and the configuration to come does not name them.
#[must_use]
pub fn policies_left(after: &Value, found: &BTreeMap<&'static str, String>) -> Vec<&'static str> {
    let named = |path: &str| after.to_string().contains(path);
    let is_ours = |text: &str| text == AUDIT_POLICY || STANDARDS.iter().any(|level| text == to_yaml(&admission(level)));
    let left = found.iter().filter(|(path, text)| !named(path) && is_ours(text));
    left.map(|(path, _)| *path).collect()
}

/// Namespaces of charts whose pods need more than the standards give, beside [`RANCHER_NAMESPACES`].
const STACK_NAMESPACES: &[&str] = &["gpu-operator", "jupyterhub", "monitoring"];

/// Namespaces that Rancher's documentation exempts ("Sample PodSecurityConfiguration", 2.11 and 2.14).
const RANCHER_NAMESPACES: &[&str] = &[
    "calico-apiserver",
    "calico-system",
    "cattle-alerting",
    "cattle-capi-system",
    "cattle-csp-adapter-system",
    "cattle-elemental-system",
    "cattle-epinio-system",
    "cattle-externalip-system",
    "cattle-fleet-local-system",
    "cattle-fleet-system",
    "cattle-gatekeeper-system",
    "cattle-global-data",
    "cattle-global-nt",
    "cattle-impersonation-system",
    "cattle-istio",
    "cattle-istio-system",
    "cattle-logging",
    "cattle-logging-system",
    "cattle-monitoring-system",
    "cattle-neuvector-system",
    "cattle-prometheus",
    "cattle-provisioning-capi-system",
    "cattle-resources-system",
    "cattle-sriov-system",
    "cattle-system",
    "cattle-turtles-system",
    "cattle-ui-plugin-system",
    "cattle-windows-gmsa-system",
    "cert-manager",
    "cis-operator-system",
    "compliance-operator-system",
    "fleet-default",
    "fleet-local",
    "ingress-nginx",
    "istio-system",
    "kube-node-lease",
    "kube-public",
    "kube-system",
    "longhorn-system",
    "rancher-alerting-drivers",
    "rancher-compliance-system",
    "security-scan",
    "sr-operator-system",
    "tigera-operator",
    "traefik",
];

/// The admission configuration of K3s' hardening guide, at this level.
fn admission(level: &str) -> Value {
    let mut namespaces = [RANCHER_NAMESPACES, STACK_NAMESPACES].concat();
    namespaces.sort_unstable();
    let defaults = json!({"enforce": level, "enforce-version": "latest", "audit": level, "audit-version": "latest",
        "warn": level, "warn-version": "latest"});
    let configuration = json!({
        "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
        "defaults": defaults,
        "exemptions": {"usernames": [], "runtimeClasses": [], "namespaces": namespaces},
    });
    json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "PodSecurity", "configuration": configuration}]})
}

/// config.yaml of an agent.
#[must_use]
pub fn agent_config(join: &super::Join, id: &Identity, more: &Value) -> Value {
    let mut c = Map::new();
    c.insert("server".into(), join.url.clone().into());
    c.insert("token".into(), join.token.reveal().into());
    identity_keys(&mut c, id);
    if join.cis {
        c.insert("protect-kernel-defaults".into(), true.into());
        c.insert("kubelet-arg".into(), json!(["streaming-connection-idle-timeout=5m"]));
    }
    extend(&mut c, more);
    Value::Object(c)
}

/// More keys of the site's. Arguments of a component come after ours, which stay unless one of them has the same name.
fn extend(c: &mut Map<String, Value>, more: &Value) {
    let name = |arg: &Value| arg.as_str().and_then(|a| a.split('=').next()).unwrap_or_default().to_owned();
    for (k, v) in more.as_object().into_iter().flatten() {
        let key = k.replace('_', "-");
        let mut value = v.clone();
        if let (Some(Value::Array(ours)), Value::Array(theirs)) = (c.get(&key), v)
            && key.ends_with("-arg")
        {
            let taken: Vec<String> = theirs.iter().map(name).collect();
            let kept = ours.iter().filter(|a| !taken.contains(&name(a)));
            value = kept.chain(theirs).cloned().collect();
        }
        c.insert(key, value);
    }
}

/// registries.yaml; `None` without mirrors.
#[must_use]
pub fn registries(mirrors: &BTreeMap<String, String>) -> Option<Value> {
    if mirrors.is_empty() {
        return None;
    }
    let list: Map<_, _> = mirrors.iter().map(|(host, url)| (host.clone(), json!({"endpoint": [url]}))).collect();
    Some(json!({"mirrors": list}))
}

/// The audit policy of the CIS settings.
pub const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n";

/// The systemd unit, as K3s' own installer writes it.
#[must_use]
pub fn unit(part: Part) -> String {
    let (name, command) = (part.unit(), part.command());
    let kind = if part == Part::Server { "notify" } else { "exec" };
    format!(
        "[Unit]\nDescription=Lightweight Kubernetes\nDocumentation=https://k3s.io\nWants=network-online.target\n\
         After=network-online.target\n\n[Install]\nWantedBy=multi-user.target\n\n[Service]\nType={kind}\n\
         EnvironmentFile=-/etc/default/{name}\nKillMode=process\nDelegate=yes\nUser=root\nLimitNOFILE=1048576\n\
         LimitNPROC=infinity\nLimitCORE=infinity\nTasksMax=infinity\nTimeoutStartSec=0\nRestart=always\n\
         RestartSec=5s\nExecStartPre=-/sbin/modprobe br_netfilter\nExecStartPre=-/sbin/modprobe overlay\n\
         ExecStart={BINARY} {command}\n"
    )
}

/// Keys that differ between two config files, as changes; tokens are hidden.
#[must_use]
pub fn config_changes(host: &str, file: &str, before: &Value, after: &Value) -> Vec<Change> {
    let empty = Map::new();
    let (a, b) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    keys.into_iter()
        .filter(|k| a.get(*k) != b.get(*k))
        .map(|k| {
            let show = |v: Option<&Value>| v.map(|v| if k.contains("token") { json!("***") } else { v.clone() });
            Change::new(host, format!("{file} {k}"), show(a.get(k)), show(b.get(k)))
        })
        .collect()
}

/// Critical keys that differ: `(key, theirs, ours)`.
#[must_use]
pub fn critical_differences(theirs: &Value, ours: &Value) -> Vec<(String, Value, Value)> {
    let mut out: Vec<_> = CRITICAL
        .iter()
        .filter(|(k, _)| theirs[*k] != ours[*k])
        .map(|(k, _)| ((*k).to_owned(), theirs[*k].clone(), ours[*k].clone()))
        .collect();
    // of the packaged components only the service load balancer has to be the same everywhere
    let servicelb = |c: &Value| c["disable"].as_array().is_some_and(|l| l.iter().any(|d| d == "servicelb"));
    if servicelb(theirs) != servicelb(ours) {
        out.push(("disable servicelb".to_owned(), servicelb(theirs).into(), servicelb(ours).into()));
    }
    out
}

/// kube-vip as a manifest with its rights.
#[must_use]
pub fn kube_vip(address: &str) -> String {
    let env = [
        ("vip_arp", "true"),
        ("port", "6443"),
        ("cp_enable", "true"),
        ("cp_namespace", "kube-system"),
        ("vip_leaderelection", "true"),
        ("address", address),
    ];
    let env: Vec<_> = env.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
    let meta = json!({"name": "kube-vip", "namespace": "kube-system"});
    let rules = json!([
        {"apiGroups": [""], "resources": ["services/status"], "verbs": ["update"]},
        {"apiGroups": [""], "resources": ["services", "endpoints"], "verbs": ["list", "get", "watch", "update"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "get", "watch", "update", "patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list", "get", "watch", "update", "create"]},
    ]);
    let labels = json!({"app.kubernetes.io/name": "kube-vip"});
    let pod = json!({
        "hostNetwork": true, "serviceAccountName": "kube-vip",
        "nodeSelector": {"node-role.kubernetes.io/control-plane": "true"},
        "tolerations": [{"effect": "NoSchedule", "operator": "Exists"}, {"effect": "NoExecute", "operator": "Exists"}],
        "containers": [{
            "name": "kube-vip", "image": "ghcr.io/kube-vip/kube-vip:v1.0.1", "args": ["manager"], "env": env,
            "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}},
        }],
    });
    let docs = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "kube-vip"}, "rules": rules}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "kube-vip"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kube-vip"},
            "subjects": [{"kind": "ServiceAccount", "name": "kube-vip", "namespace": "kube-system"}]}),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }}),
    ];
    docs.iter().map(|d| format!("---\n{}\n", to_yaml(d))).collect()
}

/// YAML text of a value.
#[must_use]
pub fn to_yaml(v: &Value) -> String {
    serde_saphyr::to_string(v).unwrap_or_else(|_| v.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(map: &[(&str, rhai::Dynamic)]) -> ServerOptions {
        let mut m = rhai::Map::new();
        m.insert("version".into(), "v1.34.9+k3s1".into());
        for (k, v) in map {
            m.insert((*k).into(), v.clone());
        }
        ServerOptions::read(&m).unwrap()
    }

    #[test]
    fn server_files_round_trip_and_hide_tokens() {
        let o = options(&[("cis", true.into())]);
        let id = Identity { name: "cp1".into(), ip: "10.0.0.11".into(), ..Default::default() };
        let c = server_config(&o, &id, &Start::Init, &Secret::new("hunter2"), &["10.0.0.11".into()]);
        assert_eq!((c["cluster-init"].as_bool(), c["secrets-encryption"].as_bool()), (Some(true), Some(true)));
        let back: Value = serde_saphyr::from_str(&to_yaml(&c)).unwrap();
        assert!(config_changes("cp1", "config.yaml", &back, &c).is_empty(), "{}", to_yaml(&c));
        let mut other = c.clone();
        other["token"] = "x".into();
        let changes = config_changes("cp1", "config.yaml", &other, &c);
        assert_eq!((changes.len(), changes[0].after.clone()), (1, Some("***".into())));
    }

    #[test]
    fn arguments_of_the_site_leave_those_of_the_profile() {
        let more: rhai::Map =
            [("kube_apiserver_arg".into(), vec![rhai::Dynamic::from("v=2"), "audit-log-maxage=60".into()].into())]
                .into();
        let o = options(&[("cis", true.into()), ("config", more.into())]);
        let c = server_config(&o, &Identity::default(), &Start::Init, &Secret::new("x"), &[]);
        let args: Vec<&str> = c["kube-apiserver-arg"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(
            args.contains(&format!("audit-policy-file={AUDIT}").as_str())
                && args.ends_with(&["v=2", "audit-log-maxage=60"]),
            "{args:?}"
        );
        assert!(!args.contains(&"audit-log-maxage=30"), "{args:?}");
    }

    #[test]
    fn a_pod_security_standard_has_its_file_and_its_argument() {
        let plain = options(&[("cis", true.into())]);
        assert_eq!(policies(&plain).len(), 1);
        let o = options(&[("cis", false.into()), ("pod_security", "baseline".into())]);
        let c = server_config(&o, &Identity::default(), &Start::Init, &Secret::new("x"), &[]);
        assert_eq!(c["kube-apiserver-arg"], json!([format!("admission-control-config-file={ADMISSION}")]));
        let files = policies(&o);
        assert_eq!(files.iter().map(|f| f.0).collect::<Vec<_>>(), [ADMISSION]);
        let told: Value = serde_saphyr::from_str(&files[0].1).unwrap();
        let configuration = &told["plugins"][0]["configuration"];
        assert_eq!(configuration["defaults"]["enforce"], "baseline");
        let exempt = configuration["exemptions"]["namespaces"].as_array().unwrap();
        assert!(["kube-system", "gpu-operator", "cattle-system"].iter().all(|n| exempt.contains(&json!(n))));
        let found = files.into_iter().collect();
        let without = server_config(&plain, &Identity::default(), &Start::Init, &Secret::new("x"), &[]);
        assert_eq!(policies_left(&without, &found), [ADMISSION], "ours, and nobody reads it");
        assert!(policies_left(&c, &found).is_empty());
        let theirs = [(ADMISSION, "plugins: []".to_owned())].into();
        assert!(policies_left(&without, &theirs).is_empty(), "somebody else's");
        let wrong = ServerOptions { pod_security: "strict".into(), ..o };
        assert!(wrong.check().unwrap_err().message.contains("`strict` is no standard"));
    }

    #[test]
    fn critical_values_are_compared() {
        let a = json!({"cluster-cidr": "10.42.0.0/16", "disable": ["x"]});
        let b = json!({"cluster-cidr": "10.99.0.0/16"});
        assert_eq!(critical_differences(&a, &b).len(), 1);
    }

    #[test]
    fn kube_vip_is_yaml() {
        let docs: Vec<Value> = serde_saphyr::from_multiple(&kube_vip("10.0.0.10")).unwrap();
        assert_eq!(docs.iter().filter(|d| !d.is_null()).count(), 4);
    }
}
