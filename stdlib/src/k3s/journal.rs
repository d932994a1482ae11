//! What K3s' own log lines mean. No I/O.

/// A line of the journal that explains a failed start or join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The line.
    pub line: String,
    /// What it means.
    pub cause: &'static str,
    /// What to do.
    pub hint: &'static str,
    /// Whether K3s will not get over it by itself.
    pub fatal: bool,
}

/// `(part of the line, cause, hint, fatal)`; the first match of the newest line wins.
const PATTERNS: &[(&str, &str, &str, bool)] = &[
    (
        "token CA hash does not match",
        "the token belongs to another cluster",
        "remove the old K3s data of this machine, or correct the token in the site file",
        true,
    ),
    (
        "encrypted with different token",
        "the datastore was made with another token",
        "put the cluster's first token back: it is also the key of the bootstrap data",
        true,
    ),
    (
        "bootstrap data already found",
        "the datastore was made with another token",
        "put the cluster's first token back: it is also the key of the bootstrap data",
        true,
    ),
    (
        "critical configuration value mismatch",
        "a value that must be equal on all servers differs",
        "deploy writes the file again when this server alone differs from the site file; the line names the key",
        true,
    ),
    ("too many learner members", "another server is still joining etcd", "join servers one at a time", false),
    (
        "Node password rejected",
        "a node of this name joined before with another password",
        "delete its old node object: `kubectl delete node NAME`, then run again",
        true,
    ),
    (
        "x509: certificate is valid for",
        "the API server's certificate does not have the address it is called by",
        "deploy writes the address of the site file again; to join by this one, add it to `tls_san` in the [k3s] section",
        true,
    ),
    (
        "no default routes found",
        "the machine has no default route",
        "give it a gateway, or a dummy default route on an isolated network",
        true,
    ),
    (
        "failed to find memory cgroup",
        "the kernel has no memory cgroup",
        "boot with `cgroup_enable=memory cgroup_memory=1`",
        true,
    ),
    (
        "higher than root config version",
        "containerd refuses a file beside its configuration that has a higher version",
        "take the file away; the toolkit's environment has to say RUNTIME_CONFIG_SOURCE=file, which deploy sets",
        true,
    ),
    ("listen tcp :6443: bind", "another process holds port 6443", "find it: `ss -ltnp sport = :6443`", true),
    (
        "duplicate node name found",
        "etcd still has a member of this name",
        "remove the old server from etcd: annotate its node with `etcd.k3s.cattle.io/remove=true`",
        true,
    ),
    (
        "invalid kernel flag",
        "the kernel settings are not those that `protect-kernel-defaults` demands",
        "set vm.overcommit_memory=1, vm.panic_on_oom=0, kernel.panic=10, kernel.panic_on_oops=1",
        true,
    ),
    (
        "not authorized",
        "the server did not accept the token",
        "compare the token with /var/lib/rancher/k3s/server/token of a server",
        true,
    ),
    (
        ":6443: i/o timeout",
        "the server at port 6443 did not answer in time",
        "look whether a firewall drops 6443 between the nodes",
        false,
    ),
    (
        "context deadline exceeded",
        "the server at port 6443 did not answer in time",
        "look whether a firewall drops 6443 between the nodes",
        false,
    ),
    (
        "connection refused",
        "nothing listens on port 6443 of the server",
        "look at the first server: `systemctl status k3s`",
        false,
    ),
];

/// Explains the newest line that one of the patterns knows.
#[must_use]
pub fn explain(journal: &str) -> Option<Explained> {
    journal.lines().rev().find_map(|line| {
        let (_, cause, hint, fatal) = PATTERNS.iter().find(|(p, ..)| line.contains(p))?;
        Some(Explained { line: line.trim().to_owned(), cause, hint, fatal: *fatal })
    })
}

/// The last `n` lines.
#[must_use]
pub fn last_lines(journal: &str, n: usize) -> Vec<String> {
    let lines: Vec<_> = journal.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(n)..].iter().map(|l| (*l).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_known_line_wins() {
        let j = "level=info msg=starting\nfatal: token CA hash does not match the Cluster CA hash: a != b\nlevel=info msg=bye\n";
        let e = explain(j).unwrap();
        assert!(e.fatal && e.cause.contains("another cluster"));
        assert_eq!(explain("all fine"), None);
        assert!(!explain("etcdserver: too many learner members in cluster").unwrap().fatal);
        assert_eq!(last_lines("a\n\nb\nc\n", 2), ["b", "c"]);
    }
}
