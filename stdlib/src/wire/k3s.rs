//! What K3s knows: options of its config.yaml by release, and values that must be equal on all servers. No I/O.

/// Options of `k3s server` alone. An agent that finds one in its file skips it.
const SERVER: &[&str] = &[
    "advertise-address",
    "advertise-port",
    "agent-token",
    "agent-token-file",
    "cluster-cidr",
    "cluster-dns",
    "cluster-domain",
    "cluster-init",
    "cluster-reset",
    "cluster-reset-restore-path",
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
    "etcd-arg",
    "etcd-disable-snapshots",
    "etcd-expose-metrics",
    "etcd-s3",
    "etcd-s3-access-key",
    "etcd-s3-bucket",
    "etcd-s3-bucket-lookup-type",
    "etcd-s3-config-secret",
    "etcd-s3-endpoint",
    "etcd-s3-endpoint-ca",
    "etcd-s3-folder",
    "etcd-s3-insecure",
    "etcd-s3-proxy",
    "etcd-s3-region",
    "etcd-s3-retention",
    "etcd-s3-secret-key",
    "etcd-s3-session-token",
    "etcd-s3-skip-ssl-verify",
    "etcd-s3-timeout",
    "etcd-snapshot-compress",
    "etcd-snapshot-dir",
    "etcd-snapshot-name",
    "etcd-snapshot-reconcile-interval",
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
    "write-kubeconfig-name",
];

/// Options of servers and agents.
const BOTH: &[&str] = &[
    "airgap-extra-registry",
    "alsologtostderr",
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
    "flannel-cni-conf",
    "flannel-conf",
    "flannel-iface",
    "image-credential-provider-bin-dir",
    "image-credential-provider-config",
    "image-service-endpoint",
    "kube-proxy-arg",
    "kubelet-arg",
    "lb-server-port",
    "log",
    "node-external-dns",
    "node-external-ip",
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
];

/// Packaged components that `disable` switches off.
pub const COMPONENTS: &[&str] = &["coredns", "servicelb", "traefik", "local-storage", "metrics-server", "runtimes"];

/// Options that came later: name, and the first patch of each minor that has it.
const SINCE: &[(&str, &[(u32, u32)])] =
    &[("helm-controller-arg", &[(33, 13), (34, 10), (35, 7), (36, 3), (37, 0)]), ("write-kubeconfig-name", &[(37, 0)])];

/// Options whose values must be equal on all servers, with the name K3s prints.
pub const CRITICAL: &[(&str, &str)] = &[
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

/// What a release says to an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It has it.
    Yes,
    /// Only servers have it.
    ServerOnly,
    /// It comes with this release of the minor, or of a later minor.
    Later(String),
    /// Nothing of that name.
    No,
}

/// `(minor, patch)` of `v1.34.9+k3s1`.
#[must_use]
pub fn minor_patch(version: &str) -> Option<(u32, u32)> {
    let core = version.strip_prefix('v')?.split(['+', '-']).next()?;
    let mut n = core.split('.').skip(1).map(|p| p.parse().ok());
    Some((n.next()??, n.next()??))
}

/// Whether a release knows an option of config.yaml.
#[must_use]
pub fn known(option: &str, version: &str, server: bool) -> Known {
    let name = option.trim_end_matches('+');
    let (of_server, of_both) = (SERVER.contains(&name), BOTH.contains(&name));
    if !of_server && !of_both {
        return Known::No;
    }
    if let (Some((_, since)), Some((minor, patch))) = (SINCE.iter().find(|(n, _)| *n == name), minor_patch(version)) {
        let newest = since.last().map_or(0, |s| s.0);
        let has = minor > newest || since.iter().any(|(m, p)| *m == minor && patch >= *p);
        if !has {
            let first = since.iter().find(|(m, _)| *m >= minor).or(since.last());
            return Known::Later(first.map(|(m, p)| format!("v1.{m}.{p}")).unwrap_or_default());
        }
    }
    if of_server && !server { Known::ServerOnly } else { Known::Yes }
}

/// All names of options.
pub fn options() -> impl Iterator<Item = &'static str> {
    SERVER.iter().chain(BOTH).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_belong_to_releases_and_roles() {
        assert_eq!(known("tls-san", "v1.34.9+k3s1", true), Known::Yes);
        assert_eq!(known("disable+", "v1.34.9+k3s1", true), Known::Yes);
        assert_eq!(known("tls-san", "v1.34.9+k3s1", false), Known::ServerOnly);
        assert_eq!(known("tls-sans", "v1.34.9+k3s1", true), Known::No);
        assert_eq!(known("helm-controller-arg", "v1.34.9+k3s1", true), Known::Later("v1.34.10".to_owned()));
        assert_eq!(known("helm-controller-arg", "v1.34.10+k3s1", true), Known::Yes);
        assert_eq!(known("write-kubeconfig-name", "v1.36.3+k3s1", true), Known::Later("v1.37.0".to_owned()));
        assert_eq!(known("write-kubeconfig-name", "v1.38.0+k3s1", true), Known::Yes);
        assert!(CRITICAL.iter().all(|(name, _)| known(name, "v1.34.9+k3s1", true) == Known::Yes));
    }
}
