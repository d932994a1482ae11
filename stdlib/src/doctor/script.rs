//! The script functions of `doctor`.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic};

use serde_json::json;

use super::Part;
use crate::core::ctx::{RhaiResultOf, call};
use crate::kubernetes::{Cluster, to_script};

/// The module.
pub(super) fn module() -> rhai::Module {
    rhai::exported_module!(api)
}

fn look(ncc: &NativeCallContext, part: Part) -> RhaiResultOf<Array> {
    call(ncc, |ctx| async move {
        let found = super::diagnose(&ctx, part).await?;
        found.iter().map(|f| to_script(&f.json())).collect()
    })
}

#[export_module]
mod api {
    use super::*;

    /// Walks the whole site and returns what is wrong with it.
    ///
    /// Each finding is `#{ id, area, target, cause, evidence, fix, next }`.
    ///
    /// # Example
    /// ```rhai
    /// for f in doctor::diagnose() { print(`${f.target}: ${f.cause}; next: ${f.next}`); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn diagnose(ncc: NativeCallContext) -> RhaiResultOf<Array> {
        look(&ncc, Part::All)
    }

    /// Why nodes are not Ready, cannot join, or have lost their quorum.
    ///
    /// # Example
    /// ```rhai
    /// for f in doctor::diagnose_nodes() { print(`${f.target}: ${f.cause}`); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn diagnose_nodes(ncc: NativeCallContext) -> RhaiResultOf<Array> {
        look(&ncc, Part::Nodes)
    }

    /// Why volumes are not made or not mounted.
    ///
    /// # Example
    /// ```rhai
    /// for f in doctor::diagnose_storage() { print(`${f.target}: ${f.cause}`); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn diagnose_storage(ncc: NativeCallContext) -> RhaiResultOf<Array> {
        look(&ncc, Part::Storage)
    }

    /// Why commits do not reach the cluster.
    ///
    /// # Example
    /// ```rhai
    /// for f in doctor::diagnose_fleet() { print(`${f.target}: ${f.cause}`); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn diagnose_fleet(ncc: NativeCallContext) -> RhaiResultOf<Array> {
        look(&ncc, Part::Fleet)
    }

    /// Why notebooks do not spawn, and what else of the platform does not answer.
    ///
    /// # Example
    /// ```rhai
    /// for f in doctor::diagnose_platform() { print(`${f.target}: ${f.cause}`); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn diagnose_platform(ncc: NativeCallContext) -> RhaiResultOf<Array> {
        look(&ncc, Part::Platform)
    }

    /// A deployment has so many replicas again; `false` when it had.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_replicas("jupyterhub", "hub", 1);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_replicas(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        namespace: &str,
        name: &str,
        replicas: i64,
    ) -> RhaiResultOf<bool> {
        let (c, ns, name) = (cluster.clone(), namespace.to_owned(), name.to_owned());
        call(&ncc, |ctx| async move { c.ensure_replicas(&ctx, &ns, &name, replicas).await })
    }

    /// Deletes the pods with label `app`, which their owner makes anew; asks first.
    ///
    /// On one node, or on all when `node` is empty.
    ///
    /// # Example
    /// ```rhai
    /// cluster.restart_pods("gpu-operator", "nvidia-device-plugin-daemonset", "k3s-gpu1");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn restart_pods(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        namespace: &str,
        app: &str,
        node: &str,
    ) -> RhaiResultOf<i64> {
        let (c, ns, app, node) = (cluster.clone(), namespace.to_owned(), app.to_owned(), node.to_owned());
        call(&ncc, |ctx| async move { c.restart_pods(&ctx, &ns, &app, &node).await })
    }

    /// Fleet applies everything of a repository again, over what was changed by hand.
    ///
    /// # Example
    /// ```rhai
    /// cluster.start_resync(site().name);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn start_resync(ncc: NativeCallContext, cluster: &mut Cluster, repo: &str) -> RhaiResultOf<()> {
        let (c, repo) = (cluster.clone(), repo.to_owned());
        call(&ncc, |ctx| async move { c.start_resync(&ctx, &repo).await })
    }

    /// Forgets the password under which a node of this name registered. Asks first.
    ///
    /// # Example
    /// ```rhai
    /// cluster.remove_node_password("k3s-gpu1");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_node_password(ncc: NativeCallContext, cluster: &mut Cluster, node: &str) -> RhaiResultOf<bool> {
        let (c, node) = (cluster.clone(), node.to_owned());
        call(&ncc, |ctx| async move { c.remove_node_password(&ctx, &node).await })
    }

    /// Days that the cluster's certificates are still valid: a list of `#{ name, days }`.
    ///
    /// Those of the kubeconfig, and the one that each server shows at port 6443.
    ///
    /// # Example
    /// ```rhai
    /// for c in cluster.check_certificates() { print(`${c.name}: ${c.days} days`); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_certificates(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Array> {
        let c = cluster.clone();
        call(&ncc, |ctx| async move {
            let all = c.certificates(&ctx).await?;
            all.iter().map(|c| to_script(&json!({"name": c.name, "days": c.days}))).collect()
        })
    }

    /// Age of the newest etcd snapshot: `#{ newest, hours, failed, late, cluster_hours }`.
    ///
    /// `late` says which servers saved none for two periods of their schedule, or were told to save none.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.check_backups().hours);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_backups(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Dynamic> {
        let c = cluster.clone();
        call(&ncc, |ctx| async move { to_script(&c.backups(&ctx).await?) })
    }

    /// Volumes whose claim is gone: their data is kept and belongs to nobody.
    ///
    /// # Example
    /// ```rhai
    /// for volume in cluster.list_orphans() { print(volume); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_orphans(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Array> {
        let c = cluster.clone();
        call(&ncc, |ctx| async move { Ok(c.orphans(&ctx).await?.into_iter().map(Dynamic::from).collect()) })
    }

    /// Claims whose data are on a volume that is not theirs any more, each with what happened.
    ///
    /// # Example
    /// ```rhai
    /// for line in cluster.list_lost_claims() { warn(line); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_lost_claims(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Array> {
        let c = cluster.clone();
        call(&ncc, |ctx| async move { Ok(c.lost_claims(&ctx).await?.into_iter().map(Dynamic::from).collect()) })
    }

    /// Binds a volume whose claim is gone to a claim of the old name again. Asks first.
    ///
    /// A claim of that name that was made anew goes; pods that mount it have to be stopped before.
    ///
    /// # Example
    /// ```rhai
    /// let claim = cluster.get("pvc", "hub-db-dir", #{ namespace: "jupyterhub" });
    /// cluster.restore_volume(claim.spec.volumeName); // bound to its claim: nothing to do
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn restore_volume(ncc: NativeCallContext, cluster: &mut Cluster, volume: &str) -> RhaiResultOf<bool> {
        let (c, volume) = (cluster.clone(), volume.to_owned());
        call(&ncc, |ctx| async move { c.restore_volume(&ctx, &volume).await })
    }

    /// What Fleet does not say by itself of a repository of `fleet-local`.
    ///
    /// Bundles that are gone, customizations that were lost, releases that are a HelmChart, too.
    ///
    /// # Example
    /// ```rhai
    /// for line in cluster.check_fleet(site().name) { warn(line); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_fleet(ncc: NativeCallContext, cluster: &mut Cluster, repo: &str) -> RhaiResultOf<Array> {
        let (c, repo) = (cluster.clone(), repo.to_owned());
        call(&ncc, |ctx| async move {
            let o = c.get_object(&ctx, "gitrepos.fleet.cattle.io", "fleet-local", &repo).await?;
            Ok(c.fleet_unsaid(&ctx, &o).await?.into_iter().map(|f| Dynamic::from(f.cause)).collect())
        })
    }

    /// Claims that no pod and no workload names, with size and class.
    ///
    /// A hub's claims wait for their users.
    ///
    /// # Example
    /// ```rhai
    /// for claim in cluster.list_idle_claims() { print(claim); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_idle_claims(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Array> {
        let c = cluster.clone();
        call(&ncc, |ctx| async move { Ok(c.idle_claims(&ctx).await?.into_iter().map(Dynamic::from).collect()) })
    }

    /// Claims that have waited for a volume for ten minutes, each with its newest warning.
    ///
    /// # Example
    /// ```rhai
    /// for line in cluster.list_stuck_claims() { warn(line); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_stuck_claims(ncc: NativeCallContext, cluster: &mut Cluster) -> RhaiResultOf<Array> {
        let c = cluster.clone();
        call(&ncc, |ctx| async move {
            let all = c.stuck_claims(&ctx).await?.into_iter();
            Ok(all.map(|(at, said)| Dynamic::from(format!("claim {at} gets no volume: {said}"))).collect())
        })
    }

    /// Says that Fleet has not polled a repository for three intervals.
    ///
    /// An empty text when it has.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.check_polling(site().name));
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_polling(ncc: NativeCallContext, cluster: &mut Cluster, repo: &str) -> RhaiResultOf<String> {
        let (c, repo) = (cluster.clone(), repo.to_owned());
        call(&ncc, |ctx| async move { c.polling(&ctx, &repo).await })
    }
}
