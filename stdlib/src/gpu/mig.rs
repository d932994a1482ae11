//! MIG: a node's cards cut into instances, with the drain and the power cycle that this needs.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rhai::Dynamic;
use serde_json::Value;

use super::inventory::{NodeGpus, fits, inventory, read_node};
use super::operator::{NAMESPACE, operator_pods, policy_trouble, wanted};
use super::patterns::explain_log;
use super::stages::{first_broken, pod_of};
use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::op::{Look, Op, OpScope};
use crate::core::options::closest;
use crate::kubernetes::{Cluster, parse_yaml, pod_trouble, seen, waits_on};
use crate::options;
use crate::proxmox::Proxmox;

const CONFIG: &str = "nvidia.com/mig.config";
const STATE: &str = "nvidia.com/mig.config.state";
/// The ConfigMap of the operator's own configurations.
const CONFIGS: &str = "default-mig-parted-config";
/// The manager, as its pods are labelled.
const MANAGER: &str = "nvidia-mig-manager";
/// A state `failed` is final when a manager that runs has said it for so many looks.
const FAILED_LOOKS: u32 = 18;

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

/// The profile of a configuration: `1g.5gb` of `all-1g.5gb`; `None` for those that are not of one profile.
fn profile(config: &str) -> Option<&str> {
    let profile = config.strip_prefix("all-")?;
    let (compute, rest) = profile.split_once("g.")?;
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let memory = rest.split_once("gb")?.0;
    (digits(compute) && digits(memory)).then_some(profile)
}

/// Whether a text may name a configuration: `all-disabled`, `all-1g.5gb`, or a name of one's own.
///
/// # Errors
/// `invalid` with the form.
pub fn check_config(config: &str) -> OpResult<()> {
    let known = ["all-disabled", "all-enabled", "all-balanced"].contains(&config) || profile(config).is_some();
    let own = !config.starts_with("all-") && !config.contains("g.") && !config.is_empty();
    if known || own {
        return Ok(());
    }
    Err(OpError::invalid(format!("`{config}` is no MIG configuration"))
        .hint("write for example `all-1g.5gb`, or `all-disabled` for whole cards"))
}

/// Names of the configurations that the MIG manager reads; `None` when they cannot be seen.
pub(super) async fn configurations(ctx: &Ctx, cluster: &Cluster) -> OpResult<Option<Vec<String>>> {
    let policies = cluster.list_if_known(ctx, "clusterpolicies.nvidia.com", "").await?;
    let named = policies.first().and_then(|p| p["spec"]["migManager"]["config"]["name"].as_str());
    let name = named.filter(|n| !n.is_empty()).unwrap_or(CONFIGS);
    let Some(map) = cluster.find_object(ctx, "configmap", NAMESPACE, name).await? else { return Ok(None) };
    let text = map["data"]["config.yaml"].as_str().unwrap_or_default();
    let read = parse_yaml(text).unwrap_or_default();
    let names = read.first().and_then(|v| v["mig-configs"].as_object());
    Ok(names.map(|m| m.keys().cloned().collect()))
}

/// Refuses what the manager does not know, and instances that the card cannot have. No I/O.
///
/// # Errors
/// `invalid` naming the nearest configurations.
fn check_known(config: &str, names: &[String], card: &NodeGpus) -> OpResult<()> {
    let product = card.product.split("-MIG-").next().unwrap_or_default().trim_end_matches("-SHARED");
    let fitting = |c: &str| profile(c).is_none_or(|p| fits(product, p));
    let hint = || {
        let of_card: Vec<&str> = names.iter().map(String::as_str).filter(|c| fitting(c)).collect();
        match closest(config, of_card.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? The card takes {}", of_card.join(", ")),
            None => format!("the card takes {}", of_card.join(", ")),
        }
    };
    if !names.iter().any(|n| n == config) {
        return Err(OpError::invalid(format!("the MIG manager has no configuration `{config}`"))
            .on(&card.node)
            .hint(hint()));
    }
    if config == "all-balanced" && card.strategy == "single" {
        return Err(OpError::invalid("the MIG strategy `single` knows no instances of several sizes on one node")
            .on(&card.node)
            .hint("mig_strategy = \"mixed\" in section [gpu] of the site file, then deploy"));
    }
    if !fitting(config) {
        let text = format!("`{config}` is not for the cards of {}: {product}", card.node);
        return Err(OpError::invalid(text).on(&card.node).hint(hint()));
    }
    Ok(())
}

/// Refuses a node that has no cards and shall have none: no MIG manager would ever take its label.
fn refuse_without_cards(ctx: &Ctx, live: &Value) -> OpResult<()> {
    let card = read_node(live);
    let declared = ctx.site().ok().and_then(|s| s.node(&card.node).ok().map(|n| n.shape.gpu_count()));
    if card.present || card.count > 0 || declared.unwrap_or(0) > 0 {
        return Ok(());
    }
    let hint = "`gpuhost run scripts/list-gpus.rhai` shows the nodes that have some";
    Err(OpError::invalid(format!("{} has no GPU that MIG could cut", card.node)).on(&card.node).hint(hint))
}

/// Cuts the cards of a node; whole cards again with `all-disabled`. Who holds GPUs there is asked for first.
///
/// # Errors
/// `invalid` for a configuration that the cards cannot have; `refused` when declined; `failed` with the manager's
/// words; `timeout`.
pub async fn ensure_mig(ctx: &Ctx, cluster: &Cluster, node: &str, config: &str, o: &MigOptions) -> OpResult<bool> {
    check_config(config)?;
    let op = Op::write("gpu", "ensure_mig", node.to_owned()).args(&config);
    ctx.run_op(op, |s| async move {
        let live = cluster.get_object(s.ctx(), "node", "", node).await?;
        refuse_without_cards(s.ctx(), &live)?;
        let was = label(&live, CONFIG);
        if was == config && label(&live, STATE) == "success" {
            settled(&s, cluster, node, config, o.timeout.0).await?;
            return Ok(false);
        }
        if let Some(names) = configurations(s.ctx(), cluster).await? {
            check_known(config, &names, &read_node(&live))?;
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
        let ask = |config: &str| BTreeMap::from([(CONFIG.to_owned(), config.to_owned())]);
        cluster.ensure_labels(s.ctx(), "node", "", node, &ask(config)).await?;
        let mut done = settle(&s, cluster, node, config, o.timeout.0).await;
        if let Err(e) = &mut done
            && e.is(Kind::Failed)
            && !was.is_empty()
            && was != config
        {
            cluster.ensure_labels(s.ctx(), "node", "", node, &ask(was)).await?;
            e.causes.push(format!("the node's label says {was} again"));
        }
        // the node takes pods again whatever came of it
        cluster.set_cordon(s.ctx(), node, false).await?;
        done.map(|()| true)
    })
    .await
}

/// Follows the manager; a mode that waits for power gets it; then the device plugin, until it offers the devices.
async fn settle(s: &OpScope, cluster: &Cluster, node: &str, config: &str, limit: Duration) -> OpResult<()> {
    if !wait_state(s, cluster, node, false, limit).await? {
        // cards that something held were not even told their new mode: the first cycle frees them, the second has them take it
        let held = manager_log(s, cluster, node).await?.contains(HELD);
        let mut taken = power_cycle(s, cluster, node, limit).await?;
        if !taken && held {
            taken = power_cycle(s, cluster, node, limit).await?;
        }
        if !taken {
            return Err(not_taken(s, cluster, node).await?);
        }
    }
    settled(s, cluster, node, config, limit).await
}

/// What the manager writes when something else uses the cards.
const HELD: &str = "In use by another client";

/// Stops the node's VM and starts it; whether the cards have taken the configuration then.
async fn power_cycle(s: &OpScope, cluster: &Cluster, node: &str, limit: Duration) -> OpResult<bool> {
    let pve = Proxmox::connect_site(s.ctx()).await?;
    let vm = pve.find_vm(s.ctx(), &Dynamic::from(node.to_owned())).await?;
    let vm = vm.ok_or_else(|| OpError::not_found(format!("the hypervisor has no VM `{node}`")).on(node))?;
    s.waiting("the cards take the mode over when the VM is stopped and started");
    vm.shutdown(s.ctx()).await?;
    vm.start(s.ctx()).await?;
    cluster.wait_nodes_in(s, &[node.to_owned()], limit).await?;
    match wait_state(s, cluster, node, true, limit).await {
        Err(e) if e.is(Kind::Timeout) => Ok(false),
        other => other,
    }
}

/// The newest lines of the node's MIG manager; empty when they cannot be had.
async fn manager_log(s: &OpScope, cluster: &Cluster, node: &str) -> OpResult<String> {
    for pod in cluster.list_labelled(s.ctx(), "pod", NAMESPACE, ("app", MANAGER)).await? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let o = crate::kubernetes::LogOptions { namespace: NAMESPACE.to_owned(), container: String::new(), tail: 20 };
        if pod["spec"]["nodeName"] == node {
            return Ok(cluster.pod_log(s.ctx(), name, &o).await.unwrap_or_default());
        }
    }
    Ok(String::new())
}

/// The cards stay as they are: with what the manager's log says.
async fn not_taken(s: &OpScope, cluster: &Cluster, node: &str) -> OpResult<OpError> {
    let mut e = OpError::failed("the cards did not take the MIG configuration").on(node);
    let log = manager_log(s, cluster, node).await?;
    e.causes.extend(explain_log(&log).map(|(line, _)| line).or_else(|| log.lines().last().map(str::to_owned)));
    Ok(e.hint("is the profile one of this card? On the node `sudo chroot /run/nvidia/driver nvidia-smi mig -lgip` lists them (`nvidia-smi mig -lgip` where the machine has a driver of its own)"))
}

/// True when the manager says success, false when it says that the mode waits for power. After a power cycle
/// (`fresh`) its old word stands until the driver is loaded: only a manager that runs is believed then.
async fn wait_state(s: &OpScope, cluster: &Cluster, node: &str, fresh: bool, limit: Duration) -> OpResult<bool> {
    // the manager notices the label within seconds; an old state must not be taken for the new one
    s.sleep(Duration::from_secs(20)).await?;
    let failed = AtomicU32::new(0);
    s.wait_for("MIG configuration", Duration::from_secs(10), limit, || async {
        let o = match cluster.get_object(s.ctx(), "node", "", node).await {
            Err(e) if waits_on(&e) => return Ok(Look::Pending(seen(&e))),
            other => other?,
        };
        let state = label(&o, STATE);
        if state != "failed" || (fresh && !manager_runs(s.ctx(), cluster, node).await?) {
            failed.store(0, Ordering::SeqCst);
        } else if !fresh || failed.fetch_add(1, Ordering::SeqCst) + 1 >= FAILED_LOOKS {
            return Ok(Look::Ready(false));
        }
        Ok(match state {
            "success" => Look::Ready(true),
            other => Look::Pending(format!("{STATE}={other}")),
        })
    })
    .await
}

async fn manager_runs(ctx: &Ctx, cluster: &Cluster, node: &str) -> OpResult<bool> {
    match operator_pods(ctx, cluster).await {
        Err(e) if waits_on(&e) => Ok(false),
        pods => Ok(pod_of(&pods?, node, MANAGER).is_some_and(|p| pod_trouble(p).is_none())),
    }
}

/// Waits until the node offers what its cards were cut into, and the operator is content.
async fn settled(s: &OpScope, cluster: &Cluster, node: &str, config: &str, limit: Duration) -> OpResult<()> {
    s.wait_for("the node's devices", Duration::from_secs(5), limit, || async {
        match unsettled(s.ctx(), cluster, node, config).await {
            Err(e) if waits_on(&e) => Ok(Look::Pending(seen(&e))),
            other => Ok(other?.map_or(Look::Ready(()), Look::Pending)),
        }
    })
    .await
}

/// What is still of the old mode, or on its way.
async fn unsettled(ctx: &Ctx, cluster: &Cluster, node: &str, config: &str) -> OpResult<Option<String>> {
    let object = cluster.get_object(ctx, "node", "", node).await?;
    let policies = cluster.list_if_known(ctx, "clusterpolicies.nvidia.com", "").await?;
    let container = policies.first().is_none_or(|p| p["spec"]["driver"]["enabled"] != false);
    let pods = operator_pods(ctx, cluster).await?;
    let gpus = read_node(&object);
    if !shows(&gpus, config) {
        return Ok(Some("the node's labels are still those of the old mode".to_owned()));
    }
    if let Some(b) = first_broken(&object, &pods, wanted(ctx, &object), container) {
        return Ok(Some(format!("{} ({})", b.cause, b.evidence)));
    }
    policy_trouble(ctx, cluster).await
}

/// Whether the labels are those of cards in this configuration.
fn shows(gpus: &NodeGpus, config: &str) -> bool {
    match (config, profile(config)) {
        ("all-disabled", _) => !gpus.cut(),
        // instances without a strategy have no label of their own
        _ if gpus.strategy.is_empty() || gpus.strategy == "none" => true,
        (_, Some(p)) if gpus.strategy == "single" => gpus.product.trim_end_matches("-SHARED").ends_with(p),
        (_, Some(p)) => gpus.resources.keys().any(|r| r.ends_with(p)),
        ("all-balanced", _) => gpus.instances > 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_profiles() {
        assert!(check_config("all-1g.5gb").is_ok() && check_config("all-disabled").is_ok());
        assert!(check_config("all-1g.5gb.me").is_ok() && check_config("research").is_ok());
        assert!(check_config("1g.5gb").is_err() && check_config("all-xg.5gb").is_err() && check_config("").is_err());
    }

    #[test]
    fn what_the_cards_cannot_have_is_refused_with_the_nearest() {
        let names = ["all-disabled", "all-1g.5gb", "all-3g.20gb", "all-1g.12gb"].map(str::to_owned);
        let card =
            NodeGpus { node: "g".into(), product: "NVIDIA-A100-PCIE-40GB-MIG-1g.5gb".into(), ..NodeGpus::default() };
        assert!(check_known("all-3g.20gb", &names, &card).is_ok());
        let e = check_known("all-9g.5gb", &names, &card).unwrap_err();
        let hint = e.hint.unwrap_or_default();
        assert!(hint.contains("did you mean `all-1g.5gb`?") && !hint.contains("12gb"), "{hint}");
        let e = check_known("all-1g.12gb", &names, &card).unwrap_err();
        assert!(e.message.contains("NVIDIA-A100-PCIE-40GB") && !e.message.contains("MIG-"), "{}", e.message);
        let single = NodeGpus { strategy: "single".into(), ..card };
        assert!(check_known("all-balanced", &["all-balanced".to_owned()], &single).is_err());
    }

    #[test]
    fn labels_show_the_mode() {
        let of = |strategy: &str, product: &str, resource: &str| NodeGpus {
            strategy: strategy.into(),
            product: product.into(),
            instances: i64::from(resource.contains("mig-")),
            resources: BTreeMap::from([(resource.to_owned(), super::super::inventory::Amounts::default())]),
            ..NodeGpus::default()
        };
        let whole = of("single", "NVIDIA-A100", "nvidia.com/gpu");
        assert!(shows(&whole, "all-disabled") && !shows(&whole, "all-1g.5gb"));
        let single = of("single", "NVIDIA-A100-MIG-1g.5gb-SHARED", "nvidia.com/gpu");
        assert!(shows(&single, "all-1g.5gb") && !shows(&single, "all-disabled") && !shows(&single, "all-3g.20gb"));
        let mixed = of("mixed", "NVIDIA-A100", "nvidia.com/mig-1g.5gb");
        assert!(shows(&mixed, "all-1g.5gb") && !shows(&mixed, "all-disabled") && shows(&mixed, "all-balanced"));
    }
}
