//! Options of the cluster's servers and agents.
use std::collections::BTreeMap;

use rhai::Dynamic;
use serde_json::{Value, json};

use super::settings::{key_slip, slips};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::units::{Duration, Secret};
use crate::options;

options! {
    /// The servers of a cluster: the keys of `[k3s]` in the site file.
    pub struct ServerOptions {
        /// Release, for example `v1.34.9+k3s1`. Never a channel.
        version: String,
        /// Cluster token: a secret, or a reference such as `state:k3s_token`.
        token: Dynamic = Dynamic::from("state:k3s_token"),
        /// Where kubectl and agents go: a VIP, a DNS name or a server's address; default: the first server.
        address: String = String::new(),
        /// `address` is a virtual IP that kube-vip holds.
        vip: bool = false,
        /// Pod addresses.
        cluster_cidr: String = "10.42.0.0/16".to_owned(),
        /// Service addresses.
        service_cidr: String = "10.43.0.0/16".to_owned(),
        /// Packaged components to leave out.
        disable: Vec<String> = Vec::new(),
        /// CIS settings and secrets encryption.
        cis: bool = true,
        /// Pod Security standard of namespaces whose labels name none: `baseline` or `restricted`; default: none.
        pod_security: String = String::new(),
        /// Registry mirrors: host to endpoint.
        registries: BTreeMap<String, String> = BTreeMap::new(),
        /// More names in the API server's certificate.
        tls_san: Vec<String> = Vec::new(),
        /// More keys of K3s' config.yaml, on every server.
        config: Value = Value::Null,
        /// When etcd snapshots are saved, in cron's form.
        snapshot_cron: String = "0 */6 * * *".to_owned(),
        /// How many scheduled snapshots a server keeps.
        snapshot_keep: i64 = 20,
        /// Local file with K3s' binary, for nodes without internet; default: each node downloads it.
        binary: String = String::new(),
        /// SHA-256 of `binary`; needed with it.
        binary_sha256: String = String::new(),
        /// Local files with container images (`k3s-airgap-images-amd64.tar.zst`) for every node.
        images: Vec<String> = Vec::new(),
        /// Taints of the servers; default: `node-role.kubernetes.io/control-plane:NoSchedule` when the site has agents.
        taints: Option<Vec<String>> = None,
        /// Labels of the servers.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// How long one server may take to become a voting, ready member.
        timeout: Duration = Duration::minutes(10),
    }
}

options! {
    /// One agent.
    pub struct AgentOptions {
        /// Labels of the node, on top of its role's.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// Taints of the node, on top of its role's.
        taints: Vec<String> = Vec::new(),
        /// More keys of K3s' config.yaml.
        config: Value = Value::Null,
        /// How long joining may take.
        timeout: Duration = Duration::minutes(10),
    }
}

options! {
    /// How to remove a node.
    pub struct RemoveOptions {
        /// How long its pods may take to leave.
        timeout: Duration = Duration::minutes(10),
        /// The machine is gone: drain nothing, do nothing on it.
        lost: bool = false,
    }
}

impl ServerOptions {
    /// Checks what can be checked without asking anyone.
    ///
    /// # Errors
    /// `invalid` naming the option.
    pub fn check(&self) -> OpResult<()> {
        check_version(&self.version)?;
        if self.vip && self.address.is_empty() {
            return Err(OpError::invalid("option `vip` needs `address`: the virtual IP"));
        }
        check_keys(&self.config, &self.version, true)?;
        if !["", "privileged", "baseline", "restricted"].contains(&self.pod_security.as_str()) {
            return Err(OpError::invalid(format!("option `pod_security`: `{}` is no standard", self.pod_security))
                .hint("`baseline` or `restricted`; `privileged` or nothing asks for none"));
        }
        let given = json!({"snapshot_cron": self.snapshot_cron, "tls_san": self.tls_san, "disable": self.disable,
            "registries": self.registries});
        if let Some(slip) = slips(&given).into_iter().find(|s| !s.warning) {
            return Err(OpError::invalid(format!("option `{}`: {}", slip.path, slip.message)).hint(slip.hint));
        }
        Airgap::of(self).map(drop)
    }

    /// The token behind the option.
    ///
    /// # Errors
    /// Like [`Ctx::secret_ref`].
    pub fn resolve_token(&self, ctx: &Ctx) -> OpResult<Secret> {
        if let Some(secret) = self.token.clone().try_cast::<Secret>() {
            return Ok(secret);
        }
        let reference = self.token.clone().into_string().unwrap_or_default();
        ctx.secret_ref("k3s_token", &reference)
    }

    /// Name of the state file that holds the token, when it is generated there and does not exist yet.
    #[must_use]
    pub fn unborn_token(&self, ctx: &Ctx) -> Option<String> {
        let reference = self.token.clone().into_string().ok()?;
        let file = reference.strip_prefix("state:")?;
        let given = ctx.secrets.contains_key("k3s_token");
        (!given && !ctx.state_file(file).exists()).then(|| file.to_owned())
    }
}

/// Refuses keys of config.yaml that this release does not know: K3s itself would skip them with a warning.
///
/// # Errors
/// `invalid` naming the key, with the closest one or the release that brings it.
pub fn check_keys(config: &Value, version: &str, server: bool) -> OpResult<()> {
    if config.is_null() {
        return Ok(());
    }
    let map = config.as_object().ok_or_else(|| {
        OpError::invalid("option `config`: expected a map of K3s' config.yaml keys")
            .hint("`#{ \"kubelet-arg\": [\"max-pods=250\"] }`")
    })?;
    match map.keys().find_map(|key| key_slip(key, version, server)) {
        Some(slip) => Err(OpError::invalid(slip.message).hint(slip.hint)),
        None => Ok(()),
    }
}

/// Files that are brought to the nodes instead of downloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Airgap {
    /// Local path of the binary; empty: download.
    pub binary: String,
    /// Its checksum.
    pub sha256: String,
    /// Local paths of image archives.
    pub images: Vec<String>,
}

impl Airgap {
    /// What the options say.
    ///
    /// # Errors
    /// `invalid` for a binary without its checksum.
    pub fn of(o: &ServerOptions) -> OpResult<Self> {
        Airgap::checked(&o.binary, &o.binary_sha256, o.images.clone())
    }

    fn checked(binary: &str, sha256: &str, images: Vec<String>) -> OpResult<Self> {
        let sum = sha256.to_lowercase();
        let fits = sum.len() == 64 && sum.chars().all(|c| c.is_ascii_hexdigit());
        if !binary.is_empty() && !fits {
            return Err(OpError::invalid("option `binary` needs `binary_sha256`")
                .hint("it is the line ending in ` k3s` of the release's sha256sum-amd64.txt"));
        }
        Ok(Airgap { binary: binary.to_owned(), sha256: sum, images })
    }

    /// What the site file brings for this release: nothing when it names another one.
    ///
    /// # Errors
    /// `invalid` for a binary without its checksum.
    pub fn of_site(ctx: &Ctx, version: &str) -> OpResult<Self> {
        let Some(site) =
            ctx.site.as_ref().filter(|s| s.k3s.get("version").and_then(toml::Value::as_str) == Some(version))
        else {
            return Ok(Airgap::default());
        };
        let text = |k: &str| site.k3s.get(k).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
        let images = site.k3s.get("images").and_then(toml::Value::as_array).into_iter().flatten();
        let images = images.filter_map(|i| i.as_str().map(str::to_owned)).collect();
        Airgap::checked(&text("binary"), &text("binary_sha256"), images)
    }
}

/// Refuses what is not a full release such as `v1.34.9+k3s1`.
///
/// # Errors
/// `invalid` with the form.
pub fn check_version(version: &str) -> OpResult<()> {
    let numbers = version.strip_prefix('v').and_then(|v| v.split_once("+k3s")).map(|(n, r)| (n.split('.').count(), r));
    match numbers {
        Some((3, r)) if !r.is_empty() => Ok(()),
        _ => Err(OpError::invalid(format!("`{version}` is not a K3s release"))
            .hint("pin one, for example `v1.34.9+k3s1`: the same file then gives the same cluster")),
    }
}

/// `(major, minor, patch)` of a release.
#[must_use]
pub fn version_numbers(version: &str) -> Option<(u32, u32, u32)> {
    let core = version.strip_prefix('v')?.split(['+', '-']).next()?;
    let mut n = core.split('.').map(|p| p.parse().ok());
    Some((n.next()??, n.next()??, n.next()??))
}

/// Whether `old` may become `new` in place: same minor or the next one, never backwards.
///
/// # Errors
/// `invalid` with the way there.
pub fn check_step(old: &str, new: &str) -> OpResult<()> {
    let (Some(a), Some(b)) = (version_numbers(old), version_numbers(new)) else { return Ok(()) };
    if b < a {
        return Err(OpError::invalid(format!("K3s cannot go back from {old} to {new}")).hint(
            "restore an etcd snapshot of the older version on new servers, or keep the version in the site file",
        ));
    }
    if b.0 != a.0 || b.1 > a.1 + 1 {
        return Err(OpError::invalid(format!("K3s cannot skip minor releases from {old} to {new}"))
            .hint(format!("go through v1.{}.x first, one minor at a time", a.1 + 1)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_of_the_configuration_are_refused() {
        let check = |v: serde_json::Value, server| check_keys(&v, "v1.34.9+k3s1", server);
        assert!(check(serde_json::json!({"kubelet-arg": ["x"], "tls_san": [], "disable+": ["traefik"]}), true).is_ok());
        let e = check(serde_json::json!({"kubelt-arg": []}), true).unwrap_err();
        assert_eq!(e.hint.as_deref(), Some("did you mean `kubelet-arg`?"));
        assert!(check(serde_json::json!({"tls-san": []}), false).unwrap_err().message.contains("servers"));
        let later = check(serde_json::json!({"write-kubeconfig-name": "x"}), true).unwrap_err();
        assert_eq!(later.hint.as_deref(), Some("it comes with v1.37.0"));
    }

    #[test]
    fn versions_are_pinned_and_stepwise() {
        assert!(check_version("v1.34.9+k3s1").is_ok());
        for bad in ["stable", "1.34.9", "v1.34", "v1.34.9", "latest"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
        assert!(check_step("v1.33.5+k3s1", "v1.34.9+k3s1").is_ok());
        assert!(check_step("v1.32.5+k3s1", "v1.34.9+k3s1").unwrap_err().hint.unwrap().contains("v1.33.x"));
        assert!(check_step("v1.34.9+k3s1", "v1.34.8+k3s1").is_err());
    }
}
