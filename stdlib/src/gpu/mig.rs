//! MIG: a node's cards cut into instances, with the drain and the power cycle that this needs.
use std::collections::BTreeMap;
use std::time::Duration;

use rhai::Dynamic;
use serde_json::Value;

use super::inventory::inventory;
use super::patterns::explain_log;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::{Look, Op, OpScope};
use crate::kubernetes::{Cluster, seen, waits_on};
use crate::options;
use crate::proxmox::Proxmox;

const CONFIG: &str = "nvidia.com/mig.config";
const STATE: &str = "nvidia.com/mig.config.state";

options! {
    /// How a node's cards are cut.
    pub struct MigOptions {
        /// Time for the drain, the power cycle and the manager together.
        timeout: crate::core::units::Duration = crate::core::units::Duration::minutes(30),
    }
}

fn label<'a>(node: &'a Value, key: &str) -> &'a str {
    node["metadata"]["labels"][key].as_str().unwrap_or_default()
}

/// Whether a text is `all-disabled` or `all-1g.5gb`.
///
/// # Errors
/// `invalid` with the form.
pub fn check_config(config: &str) -> OpResult<()> {
    let profile = config.strip_prefix("all-").unwrap_or_default();
    let cut = profile.split_once("g.").and_then(|(n, rest)| Some((n, rest.strip_suffix("gb")?)));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if profile == "disabled" || profile == "balanced" || cut.is_some_and(|(a, b)| digits(a) && digits(b)) {
        return Ok(());
    }
    Err(OpError::invalid(format!("`{config}` is no MIG configuration"))
        .hint("write for example `all-1g.5gb`, or `all-disabled` for whole cards"))
}

/// Cuts the cards of a node; whole cards again with `all-disabled`. Who holds GPUs there is asked for first.
///
/// # Errors
/// `refused` when declined; `failed` with the manager's words; `timeout`.
pub async fn ensure_mig(ctx: &Ctx, cluster: &Cluster, node: &str, config: &str, o: &MigOptions) -> OpResult<bool> {
    check_config(config)?;
    let op = Op::write("gpu", "ensure_mig", node.to_owned()).args(&config);
    ctx.run_op(op, |s| async move {
        let live = cluster.get_object(s.ctx(), "node", "", node).await?;
        if label(&live, CONFIG) == config && label(&live, STATE) == "success" {
            return Ok(false);
        }
        let here = inventory(s.ctx(), cluster).await?.held_on(|n| n == node);
        let who = if here.is_empty() {
            "nobody holds a GPU there".to_owned()
        } else {
            format!("GPUs are held by {}", here.join(", "))
        };
        let question = format!("drain {node}, set MIG to {config}, stop and start its VM? {who}");
        if !s.ctx().consent.confirm(&question, !here.is_empty())? {
            return Err(s.ctx().declined(&question));
        }
        cluster.drain_node(s.ctx(), node, o.timeout.0).await?;
        let labels = BTreeMap::from([(CONFIG.to_owned(), config.to_owned())]);
        cluster.ensure_labels(s.ctx(), "node", "", node, &labels).await?;
        let done = settle(&s, cluster, node, o.timeout.0).await;
        // the node takes pods again whatever came of it
        cluster.set_cordon(s.ctx(), node, false).await?;
        done.map(|()| true)
    })
    .await
}

/// Follows the manager; a mode that waits for power gets it.
async fn settle(s: &OpScope, cluster: &Cluster, node: &str, limit: Duration) -> OpResult<()> {
    if wait_state(s, cluster, node, false, limit).await? {
        return Ok(());
    }
    let pve = Proxmox::connect_site(s.ctx()).await?;
    let vm = pve.find_vm(s.ctx(), &Dynamic::from(node.to_owned())).await?;
    let vm = vm.ok_or_else(|| OpError::not_found(format!("the hypervisor has no VM `{node}`")).on(node))?;
    s.waiting("the cards take the mode over when the VM is stopped and started");
    vm.shutdown(s.ctx()).await?;
    vm.start(s.ctx()).await?;
    cluster.wait_nodes_in(s, &[node.to_owned()], limit).await?;
    match wait_state(s, cluster, node, true, limit).await {
        Err(e) if e.is(crate::core::error::Kind::Timeout) => {}
        other => return other.map(drop),
    }
    let mut e = OpError::failed("the cards did not take the MIG configuration").on(node);
    for pod in cluster.list_labelled(s.ctx(), "pod", super::operator::NAMESPACE, ("app", "nvidia-mig-manager")).await? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let o = crate::kubernetes::LogOptions {
            namespace: super::operator::NAMESPACE.to_owned(),
            container: String::new(),
            tail: 20,
        };
        if pod["spec"]["nodeName"] == node
            && let Ok(log) = cluster.pod_log(s.ctx(), name, &o).await
        {
            e.causes.extend(explain_log(&log).map(|(line, _)| line).or_else(|| log.lines().last().map(str::to_owned)));
        }
    }
    Err(e.hint("is the profile one of this card? `nvidia-smi mig -lgip` on the node lists them"))
}

/// True when the manager says success, false when it says that the mode waits for power. After a power cycle
/// (`fresh`) its old word stands until the driver is loaded: then only success counts.
async fn wait_state(s: &OpScope, cluster: &Cluster, node: &str, fresh: bool, limit: Duration) -> OpResult<bool> {
    // the manager notices the label within seconds; an old state must not be taken for the new one
    s.sleep(Duration::from_secs(20)).await?;
    s.wait_for("MIG configuration", Duration::from_secs(10), limit, || async {
        let o = match cluster.get_object(s.ctx(), "node", "", node).await {
            Err(e) if waits_on(&e) => return Ok(Look::Pending(seen(&e))),
            other => other?,
        };
        Ok(match label(&o, STATE) {
            "success" => Look::Ready(true),
            "failed" if !fresh => Look::Ready(false),
            other => Look::Pending(format!("{STATE}={other}")),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_profiles() {
        assert!(check_config("all-1g.5gb").is_ok() && check_config("all-disabled").is_ok());
        assert!(check_config("1g.5gb").is_err() && check_config("all-xg.5gb").is_err());
    }
}
