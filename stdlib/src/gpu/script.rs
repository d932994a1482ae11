//! The script functions of `gpu`.
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde_json::json;

use super::operator::OperatorOptions;
use super::test::TestOptions;
use crate::core::ctx::{RhaiResultOf, call};
use crate::k3s::hosts_of;
use crate::kubernetes::{Cluster, to_script};
use crate::proxmox::{Proxmox, Report};

/// The module.
pub(super) fn module() -> rhai::Module {
    rhai::exported_module!(api)
}

#[export_module]
mod api {
    use super::*;

    /// Whether the hypervisor can pass the site's GPUs through: IOMMU, groups, mapping, counts.
    ///
    /// # Example
    /// ```rhai
    /// gpu::passthrough_report(pve, site().gpu).require();
    /// ```
    #[rhai_fn(return_raw)]
    pub fn passthrough_report(ncc: NativeCallContext, pve: Proxmox, section: Map) -> RhaiResultOf<Report> {
        call(&ncc, |ctx| async move { super::super::passthrough::passthrough_report(&ctx, &pve, &section).await })
    }

    /// Installs the GPU operator and waits until the nodes' GPUs are allocatable.
    ///
    /// # Example
    /// ```rhai
    /// gpu::ensure_operator(cluster, site().hosts("agent"), #{ version: "v26.3.3", driver: "580.126.09" });
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ensure_operator(ncc: NativeCallContext, cluster: Cluster, hosts: Array, options: Map) -> RhaiResultOf<()> {
        call(&ncc, |ctx| async move {
            let o = OperatorOptions::read(&options)?;
            super::super::operator::ensure_operator(&ctx, &cluster, &hosts_of(&hosts)?, &o).await
        })
    }

    /// GPUs of the cluster: totals, one entry per node, and who holds them.
    ///
    /// # Example
    /// ```rhai
    /// let gpus = gpu::inventory(cluster);
    /// print(`${gpus.allocatable} GPUs allocatable, ${gpus.requested} in use`);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn inventory(ncc: NativeCallContext, cluster: Cluster) -> RhaiResultOf<Dynamic> {
        call(&ncc, |ctx| async move { to_script(&super::super::inventory::inventory(&ctx, &cluster).await?.json()) })
    }

    /// Runs vectorAdd on every GPU node with all its free GPUs; one result per node.
    ///
    /// # Example
    /// ```rhai
    /// print(table(gpu::run_test(cluster)));
    /// ```
    #[rhai_fn(name = "run_test", return_raw)]
    pub fn run_test(ncc: NativeCallContext, cluster: Cluster) -> RhaiResultOf<Array> {
        run_test_with(ncc, cluster, Map::new())
    }

    /// Runs vectorAdd on these GPU nodes with all their free GPUs; one result per node.
    ///
    /// # Example
    /// ```rhai
    /// print(table(gpu::run_test(cluster, #{ nodes: site().gpu_nodes() })));
    /// ```
    #[rhai_fn(name = "run_test", return_raw)]
    pub fn run_test_with(ncc: NativeCallContext, cluster: Cluster, options: Map) -> RhaiResultOf<Array> {
        call(&ncc, |ctx| async move {
            let results = super::super::test::run_test(&ctx, &cluster, &TestOptions::read(&options)?).await?;
            results
                .iter()
                .map(|r| {
                    to_script(&json!({"node": r.node, "result": r.result, "gpus": r.gpus, "untested": r.untested,
                        "shared": r.shared, "text": r.text}))
                })
                .collect()
        })
    }

    /// Names the first broken link of each GPU node, from the hypervisor to the scheduler.
    ///
    /// # Example
    /// ```rhai
    /// for link in gpu::diagnose(cluster) { warn(`${link.target}: ${link.cause}; ${link.next}`); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn diagnose(ncc: NativeCallContext, cluster: Cluster) -> RhaiResultOf<Array> {
        call(&ncc, |ctx| async move {
            let list = super::super::diagnose::diagnose(&ctx, &cluster).await?;
            list.iter().map(|f| to_script(&f.json())).collect()
        })
    }

    /// Why the GPU operator's policy is not ready; `()` when it is.
    ///
    /// # Example
    /// ```rhai
    /// require(gpu::get_policy_trouble(cluster) == (), "the GPU operator is not ready");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn get_policy_trouble(ncc: NativeCallContext, cluster: Cluster) -> RhaiResultOf<Dynamic> {
        call(&ncc, |ctx| async move {
            Ok(super::super::operator::policy_trouble(&ctx, &cluster).await?.map_or(Dynamic::UNIT, Dynamic::from))
        })
    }

    /// Cuts a node's cards into MIG instances, or makes them whole again.
    ///
    /// `all-1g.5gb` and its like cut, `all-disabled` makes whole.
    ///
    /// The node is drained and its VM stopped and started: a passed-through card takes another MIG mode over only then.
    /// Who holds GPUs on the node is named in the question.
    ///
    /// # Example
    /// ```rhai
    /// gpu::ensure_mig(cluster, "k3s-gpu1", "all-disabled");
    /// ```
    #[rhai_fn(name = "ensure_mig", return_raw)]
    pub fn ensure_mig(ncc: NativeCallContext, cluster: Cluster, node: &str, config: &str) -> RhaiResultOf<bool> {
        ensure_mig_with(ncc, cluster, node, config, Map::new())
    }

    /// Cuts a node's cards into MIG instances, within a time of your own.
    ///
    /// # Example
    /// ```rhai
    /// gpu::ensure_mig(cluster, "k3s-gpu1", "all-disabled", #{ timeout: 45.minutes });
    /// ```
    #[rhai_fn(name = "ensure_mig", return_raw)]
    pub fn ensure_mig_with(
        ncc: NativeCallContext,
        cluster: Cluster,
        node: &str,
        config: &str,
        options: Map,
    ) -> RhaiResultOf<bool> {
        let (node, config) = (node.to_owned(), config.to_owned());
        call(&ncc, |ctx| async move {
            let o = super::super::mig::MigOptions::read(&options)?;
            super::super::mig::ensure_mig(&ctx, &cluster, &node, &config, &o).await
        })
    }

    /// What every card of these hosts is doing now: one row per card.
    ///
    /// # Example
    /// ```rhai
    /// print(table(gpu::list_utilization(site().hosts("agent"))));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn list_utilization(ncc: NativeCallContext, hosts: Array) -> RhaiResultOf<Array> {
        call(&ncc, |ctx| async move {
            let rows = super::super::utilization::utilization(&ctx, &hosts_of(&hosts)?).await?;
            rows.iter().map(to_script).collect()
        })
    }
}
