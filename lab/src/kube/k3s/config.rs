//! What K3s accepts in its configuration, tokens, and what must be equal on all servers.
use serde_json::Value;

use super::super::state::{Cluster, K3sProcess, Role};
use super::super::text::{arr, s};

/// Options of `k3s server` (agents know a part of them).
const SERVER: &[&str] = &[
    "advertise-address",
    "advertise-port",
    "agent-token",
    "agent-token-file",
    "bind-address",
    "cluster-cidr",
    "cluster-dns",
    "cluster-domain",
    "cluster-init",
    "cluster-reset",
    "cluster-reset-restore-path",
    "data-dir",
    "datastore-cafile",
    "datastore-certfile",
    "datastore-endpoint",
    "datastore-keyfile",
    "default-local-storage-path",
    "disable",
    "disable-apiserver",
    "disable-cloud-controller",
    "disable-controller-manager",
    "disable-etcd",
    "disable-helm-controller",
    "disable-kube-proxy",
    "disable-network-policy",
    "disable-scheduler",
    "egress-selector-mode",
    "embedded-registry",
    "enable-pprof",
    "etcd-arg",
    "etcd-disable-snapshots",
    "etcd-expose-metrics",
    "etcd-s3",
    "etcd-s3-access-key",
    "etcd-s3-bucket",
    "etcd-s3-config-secret",
    "etcd-s3-endpoint",
    "etcd-s3-folder",
    "etcd-s3-region",
    "etcd-s3-secret-key",
    "etcd-snapshot-compress",
    "etcd-snapshot-dir",
    "etcd-snapshot-name",
    "etcd-snapshot-retention",
    "etcd-snapshot-schedule-cron",
    "flannel-backend",
    "flannel-external-ip",
    "flannel-ipv6-masq",
    "helm-controller-arg",
    "helm-job-image",
    "https-listen-port",
    "kine-tls",
    "kube-apiserver-arg",
    "kube-cloud-controller-manager-arg",
    "kube-controller-manager-arg",
    "kube-scheduler-arg",
    "secrets-encryption",
    "secrets-encryption-provider",
    "service-cidr",
    "service-node-port-range",
    "servicelb-namespace",
    "supervisor-metrics",
    "system-default-registry",
    "tls-san",
    "tls-san-security",
    "write-kubeconfig",
    "write-kubeconfig-group",
    "write-kubeconfig-mode",
    "multi-cluster-cidr",
];

/// Options of both.
const BOTH: &[&str] = &[
    "airgap-extra-registry",
    "bind-address",
    "container-runtime-endpoint",
    "data-dir",
    "debug",
    "default-runtime",
    "disable-agent",
    "disable-apiserver-lb",
    "disable-default-registry-endpoint",
    "docker",
    "enable-pprof",
    "flannel-conf",
    "flannel-cni-conf",
    "flannel-iface",
    "image-credential-provider-bin-dir",
    "image-credential-provider-config",
    "image-service-endpoint",
    "kube-proxy-arg",
    "kubelet-arg",
    "lb-server-port",
    "log",
    "node-external-ip",
    "node-external-dns",
    "node-internal-dns",
    "node-ip",
    "node-label",
    "node-name",
    "node-taint",
    "nonroot-devices",
    "pause-image",
    "prefer-bundled-bin",
    "private-registry",
    "protect-kernel-defaults",
    "resolv-conf",
    "rootless",
    "selinux",
    "server",
    "snapshotter",
    "token",
    "token-file",
    "v",
    "vmodule",
    "vpn-auth",
    "vpn-auth-file",
    "with-node-id",
    "alsologtostderr",
];

/// Options whose values must be equal on all servers, with the name K3s prints.
const CRITICAL: &[(&str, &str)] = &[
    ("cluster-cidr", "ClusterIPRanges"),
    ("cluster-dns", "ClusterDNSs"),
    ("cluster-domain", "ClusterDomain"),
    ("disable-cloud-controller", "DisableCCM"),
    ("disable-helm-controller", "DisableHelmController"),
    ("disable-network-policy", "DisableNPC"),
    ("egress-selector-mode", "EgressSelectorMode"),
    ("embedded-registry", "EmbeddedRegistry"),
    ("flannel-backend", "FlannelBackend"),
    ("flannel-ipv6-masq", "FlannelIPv6Masq"),
    ("flannel-external-ip", "FlannelExternalIP"),
    ("secrets-encryption", "EncryptSecrets"),
    ("secrets-encryption-provider", "EncryptProvider"),
    ("service-cidr", "ServiceIPRanges"),
];

/// Refuses what K3s refuses before it starts anything.
///
/// # Errors
/// K3s' own text.
pub fn refuse(p: &K3sProcess) -> Result<(), String> {
    for key in p.config.as_object().into_iter().flatten().map(|(k, _)| k.trim_end_matches('+')) {
        let known = BOTH.contains(&key) || (p.role == Role::Server && SERVER.contains(&key));
        // An agent skips unknown keys that a server knows; anything else is a flag that is not defined.
        let skipped = p.role == Role::Agent && SERVER.contains(&key);
        if !known && !skipped {
            return Err(format!("flag provided but not defined: -{key}"));
        }
    }
    if p.role == Role::Agent {
        if s(&p.config, "/server").is_empty() {
            return Err("--server is required".to_owned());
        }
        if token(&p.config).is_empty() {
            return Err("--token is required".to_owned());
        }
    }
    let server = s(&p.config, "/server");
    if !server.is_empty() && !server.starts_with("https://") {
        return Err(format!("--server must be an https URL: {server}"));
    }
    Ok(())
}

/// The token of a configuration (a token file has been read into `token` by the guest).
#[must_use]
pub fn token(config: &Value) -> &str {
    match s(config, "/token") {
        "" => s(config, "/K3S_TOKEN"),
        t => t.trim(),
    }
}

/// Strings of an option that may be a list, one string, or a comma list.
#[must_use]
pub fn list(config: &Value, key: &str) -> Vec<String> {
    match &config[key] {
        Value::String(t) => t.split(',').map(|x| x.trim().to_owned()).filter(|x| !x.is_empty()).collect(),
        Value::Array(_) => arr(config, &format!("/{key}"))
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether an option is switched on.
#[must_use]
pub fn on(config: &Value, key: &str) -> bool {
    config[key] == true || config[key] == "true"
}

/// Checks a joiner's token.
///
/// # Errors
/// K3s' own text when the CA hash or the password is wrong.
pub fn check_token(c: &Cluster, given: &str, role: Role, url: &str) -> Result<(), String> {
    let password = match given.strip_prefix("K10").and_then(|r| r.split_once("::")) {
        Some((hash, credentials)) => {
            if hash != c.id {
                return Err(format!(
                    "failed to validate token: token CA hash does not match the Cluster CA certificate hash: {hash} != {}",
                    c.id
                ));
            }
            credentials.split_once(':').map_or(credentials, |(_, p)| p)
        }
        None => given,
    };
    let own = c.token.as_str();
    let fits = password == own || (role == Role::Agent && c.agent_token.as_deref() == Some(password));
    if fits {
        return Ok(());
    }
    Err(match role {
        Role::Server => format!(
            "starting kubernetes: preparing server: failed to bootstrap cluster data: failed to check if bootstrap data has been initialized: failed to get CA certs: {url}/v1-k3s/server-bootstrap: 401 Unauthorized: not authorized"
        ),
        Role::Agent => format!("failed to retrieve configuration from server: {url}/v1-k3s/config: 401 Unauthorized"),
    })
}

/// Compares values that must be equal on all servers.
///
/// # Errors
/// K3s' own text, with the names of the values.
pub fn check_critical(first: &Value, joiner: &Value) -> Result<(), String> {
    let text = |c: &Value, key: &str| match &c[key] {
        Value::Null => String::new(),
        Value::Bool(false) => String::new(),
        Value::String(t) => t.clone(),
        v => v.to_string(),
    };
    let mut names: Vec<&str> =
        CRITICAL.iter().filter(|(key, _)| text(first, key) != text(joiner, key)).map(|(_, name)| *name).collect();
    let servicelb = |c: &Value| list(c, "disable").iter().any(|d| d == "servicelb");
    if servicelb(first) != servicelb(joiner) {
        names.push("DisableServiceLB");
    }
    if names.is_empty() {
        return Ok(());
    }
    Err(format!(
        "starting kubernetes: preparing server: failed to validate server configuration: critical configuration value mismatch between servers: {}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_and_critical_values() {
        let c = Cluster { id: "ab".into(), token: "pw".into(), ..Cluster::default() };
        assert!(check_token(&c, "K10ab::server:pw", Role::Server, "https://x").is_ok());
        assert!(check_token(&c, "pw", Role::Agent, "https://x").is_ok());
        let e = check_token(&c, "K10cd::server:pw", Role::Server, "https://x").unwrap_err();
        assert!(e.contains("token CA hash does not match"), "{e}");
        let e =
            check_critical(&json!({"cluster-cidr": "10.42.0.0/16"}), &json!({"disable": ["servicelb"]})).unwrap_err();
        assert!(e.ends_with("ClusterIPRanges, DisableServiceLB"), "{e}");
    }

    #[test]
    fn unknown_options_are_refused() {
        let p = K3sProcess { role: Role::Server, version: "v1".into(), config: json!({"cluster-int": true}) };
        assert_eq!(refuse(&p).unwrap_err(), "flag provided but not defined: -cluster-int");
    }
}
