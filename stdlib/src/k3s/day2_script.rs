//! The script functions of `k3s` for a cluster that lives: upgrades, snapshots, rotations, kubeconfig.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};

use super::kubeconfig::KubeconfigOptions;
use super::restore::RestoreOptions;
use super::rotate::RotateOptions;
use super::script::hosts_of;
use super::upgrade::UpgradeOptions;
use crate::core::ctx::{RhaiResultOf, call};
use crate::core::error::OpError;
use crate::kubernetes::{Cluster, shown, to_script};
use crate::ssh::Host;

/// The functions.
pub(super) fn module() -> rhai::Module {
    rhai::exported_module!(api)
}

#[export_module]
mod api {
    use super::*;

    /// Brings every node to a release, through every minor; gives the releases it went through.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_upgrade(site().k3s.version);
    /// ```
    #[rhai_fn(global, name = "ensure_upgrade", return_raw, pure)]
    pub fn ensure_upgrade(ncc: NativeCallContext, cluster: &mut Cluster, version: &str) -> RhaiResultOf<Array> {
        ensure_upgrade_with(ncc, cluster, version, Map::new())
    }

    /// Brings every node to a release, with options; gives the releases it went through.
    ///
    /// A snapshot first, then the servers one by one (drained, never while another one does not vote), then the
    /// agents, a few at a time. A kubelet is never more than three minors behind its servers. An interrupted upgrade
    /// is continued.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.ensure_upgrade("v1.36.3+k3s1", #{ via: ["v1.35.7+k3s1"], limit: 1 });
    /// ```
    #[rhai_fn(global, name = "ensure_upgrade", return_raw, pure)]
    pub fn ensure_upgrade_with(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        version: &str,
        options: Map,
    ) -> RhaiResultOf<Array> {
        let (cluster, version) = (cluster.clone(), version.to_owned());
        call(&ncc, |ctx| async move {
            let went = cluster.ensure_upgrade(&ctx, &version, &UpgradeOptions::read(&options)?).await?;
            Ok(went.into_iter().map(Dynamic::from).collect())
        })
    }

    /// Checks an upgrade before anything changes; gives the releases it would go through.
    ///
    /// None when every node is there. Every release is asked for, so that a misspelt one costs nothing. Options are those of `ensure_upgrade`.
    ///
    /// # Example
    /// ```rhai
    /// require(cluster.check_upgrade(site().k3s.version, #{}).len() == 0, "every node runs the site's release");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_upgrade(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        version: &str,
        options: Map,
    ) -> RhaiResultOf<Array> {
        let (cluster, version) = (cluster.clone(), version.to_owned());
        call(&ncc, |ctx| async move {
            let way = cluster.check_upgrade(&ctx, &version, &UpgradeOptions::read(&options)?).await?;
            Ok(way.into_iter().map(Dynamic::from).collect())
        })
    }

    /// Says which releases' charts exclude a Kubernetes version; an empty list when all take it.
    ///
    /// # Example
    /// ```rhai
    /// for line in cluster.check_charts(site().k3s.version) { warn(line); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_charts(ncc: NativeCallContext, cluster: &mut Cluster, version: &str) -> RhaiResultOf<Array> {
        let (cluster, version) = (cluster.clone(), version.to_owned());
        call(&ncc, |ctx| async move {
            Ok(cluster.charts_against(&ctx, &version).await?.into_iter().map(Dynamic::from).collect())
        })
    }

    /// Saves an etcd snapshot on a server; gives its full name.
    ///
    /// # Example
    /// ```rhai
    /// let name = cluster.snapshot_etcd(site().hosts("server")[0], "nightly");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn snapshot_etcd(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        host: Host,
        name: &str,
    ) -> RhaiResultOf<String> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(&ncc, |ctx| async move { cluster.snapshot_etcd(&ctx, &host, &name).await })
    }

    /// Snapshots that the cluster knows, newest first: name, node, size, created, ready, error.
    ///
    /// # Example
    /// ```rhai
    /// print(table(cluster.list_snapshots()));
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_snapshots(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Array> {
        let cluster = cluster.clone();
        call(&ncc, |ctx| async move { cluster.list_snapshots(&ctx).await?.iter().map(to_script).collect() })
    }

    /// Copies a snapshot with checksum and token into a local folder; gives its SHA-256.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.copy_snapshot(site().hosts("server")[0], "nightly-k3s-cp1-1763868235", "backup");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn copy_snapshot(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        host: Host,
        name: &str,
        folder: &str,
    ) -> RhaiResultOf<String> {
        let (cluster, name, folder) = (cluster.clone(), name.to_owned(), folder.to_owned());
        call(&ncc, |ctx| async move { cluster.copy_snapshot(&ctx, &host, &name, &folder).await })
    }

    /// Removes all but the newest `keep` snapshots of a name on a server. Asks first.
    ///
    /// # Example
    /// ```rhai
    /// cluster.remove_snapshots(site().hosts("server")[0], "nightly", 7);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_snapshots(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        host: Host,
        name: &str,
        keep: i64,
    ) -> RhaiResultOf<Array> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(&ncc, |ctx| async move {
            let keep = usize::try_from(keep).ok().filter(|k| *k > 0);
            let keep = keep.ok_or_else(|| OpError::invalid("at least one snapshot is kept").hint("pass 1 or more"))?;
            let gone = cluster.remove_snapshots(&ctx, &host, &name, keep).await?;
            Ok(gone.into_iter().map(Dynamic::from).collect())
        })
    }

    /// Says what a restore of this snapshot would change, and touches nothing.
    ///
    /// Fails where the restore would: no such snapshot, no token for it, servers of another cluster. Options are those of `restore_etcd`.
    ///
    /// # Example
    /// ```rhai,check
    /// print(table(k3s::check_restore(site().hosts("server"), "nightly-k3s-cp1-1763868235", #{ folder: "backup" })));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn check_restore(ncc: NativeCallContext, hosts: Array, snapshot: &str, options: Map) -> RhaiResultOf<Array> {
        let snapshot = snapshot.to_owned();
        call(&ncc, |ctx| async move {
            let o = RestoreOptions::read(&options)?;
            shown(&super::super::restore::check_restore(&ctx, &hosts_of(&hosts)?, &snapshot, &o).await?)
        })
    }

    /// Restores etcd on the first host; the other servers join it again. Asks first.
    ///
    /// # Example
    /// ```rhai,check
    /// let cluster = k3s::restore_etcd(site().hosts("server"), "nightly-k3s-cp1-1763868235", #{ folder: "backup" });
    /// ```
    #[rhai_fn(return_raw)]
    pub fn restore_etcd(ncc: NativeCallContext, hosts: Array, snapshot: &str, options: Map) -> RhaiResultOf<Cluster> {
        let snapshot = snapshot.to_owned();
        call(&ncc, |ctx| async move {
            let o = RestoreOptions::read(&options)?;
            super::super::restore::restore_etcd(&ctx, &hosts_of(&hosts)?, &snapshot, &o).await
        })
    }

    /// Makes every node issue new certificates, one server at a time.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.rotate_certificates(#{ timeout: 10.minutes });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn rotate_certificates(ncc: NativeCallContext, cluster: &mut Cluster, options: Map) -> RhaiResultOf<()> {
        let cluster = cluster.clone();
        call(&ncc, |ctx| async move { cluster.rotate_certificates(&ctx, &RotateOptions::read(&options)?).await })
    }

    /// Replaces the cluster token on every node and in the state directory; keeps the old one.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.rotate_token(#{ timeout: 10.minutes });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn rotate_token(ncc: NativeCallContext, cluster: &mut Cluster, options: Map) -> RhaiResultOf<()> {
        let cluster = cluster.clone();
        call(&ncc, |ctx| async move { cluster.rotate_token(&ctx, &RotateOptions::read(&options)?).await })
    }

    /// Writes the kubeconfig to a file that only its owner reads; `false` when it was so already.
    ///
    /// # Example
    /// ```rhai,check
    /// cluster.write_kubeconfig("kubeconfig", #{ address: "10.0.0.11" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn write_kubeconfig(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        path: &str,
        options: Map,
    ) -> RhaiResultOf<bool> {
        let (cluster, path) = (cluster.clone(), path.to_owned());
        call(
            &ncc,
            |ctx| async move { cluster.write_kubeconfig(&ctx, &path, &KubeconfigOptions::read(&options)?).await },
        )
    }
}
