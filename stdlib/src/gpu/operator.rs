//! The GPU operator: installed, then followed node by node until the GPUs are allocatable.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::inventory::{has_device, read_node};
use super::lasting::{Lasting, lasting};
use super::patterns::Mend;
use super::rollout;
use super::stages::{Broken, MIG_WAITS, first_broken, pod_of};
use super::values::{Fit, Parts, Sharing, as_map, check_driver, check_values, operator_values};
use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::Class;
use crate::core::op::{Look, Op, OpScope};
use crate::helm::ReleaseOptions;
use crate::kubernetes::{ApplyOptions, Cluster, condition, seen, waits_on};
use crate::options;
use crate::ssh::Host;

/// Namespace of the operator.
pub const NAMESPACE: &str = "gpu-operator";
/// Its release.
pub const RELEASE: &str = "gpu-operator";
const REPO: &str = "https://helm.ngc.nvidia.com/nvidia";

options! {
    /// The GPU operator.
    pub struct OperatorOptions {
        /// Chart version, for example `v26.3.3`.
        version: String,
        /// Driver version for the driver container, or `preinstalled`.
        driver: String,
        /// Nodes that have GPUs; default: every node where one is found.
        nodes: Vec<String> = Vec::new(),
        /// MIG strategy: `single` (every instance is a `nvidia.com/gpu`), `mixed`, or `none`.
        mig: String = "single".to_owned(),
        /// Pods that take turns on one card; 1 is a card per pod.
        time_slicing: i64 = 1,
        /// Pods that share one card at the same time through MPS; 1 is a card per pod.
        mps: i64 = 1,
        /// Let the operator bring the container toolkit; `false` when every machine has its own.
        toolkit: bool = true,
        /// Let it run the exporter of the cards' metrics (DCGM).
        dcgm: bool = true,
        /// Hand cards to containers by the Container Device Interface.
        cdi: bool = true,
        /// More chart values, over the ones that fit K3s. Keys that the chart ignores are refused.
        values: Value = Value::Null,
        /// How long the whole chain may take: the driver is built on each node.
        timeout: crate::core::units::Duration = crate::core::units::Duration::minutes(40),
    }
}

/// Installs the operator and brings every GPU node up.
///
/// # Errors
/// `timeout` naming the first broken rung of each node.
pub async fn ensure_operator(ctx: &Ctx, cluster: &Cluster, hosts: &[Host], o: &OperatorOptions) -> OpResult<()> {
    check_driver(&o.driver)?;
    check_values(&o.values)?;
    if !["single", "mixed", "none"].contains(&o.mig.as_str()) {
        return Err(OpError::invalid(format!("option `mig`: `{}` is no strategy", o.mig)).hint("single, mixed or none"));
    }
    let sharing = Sharing::of(o.time_slicing, o.mps)?;
    let op = Op::write("gpu", "ensure_operator", cluster.name()).class(Class::Adoptable).args(&(
        &o.version,
        &o.driver,
        &o.mig,
        o.time_slicing,
        o.mps,
        (o.toolkit, o.dcgm, o.cdi),
    ));
    ctx.run_op(op, |s| async move {
        own_parts(s.ctx(), cluster, hosts, o).await?;
        ask_for_sessions(s.ctx(), cluster, o).await?;
        // the driver's pods are privileged: the namespace says so before the first one starts
        let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
        let ns = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}});
        let apply = ApplyOptions { namespace: String::new(), take_over: false };
        let first: Vec<Value> = std::iter::once(ns).chain(sharing.config_map(NAMESPACE)).collect();
        let planned = cluster.plan_objects(s.ctx(), first, &apply).await?;
        cluster.write_planned(&s, planned).await?;
        let extra = (!o.values.is_null()).then_some(&o.values);
        let k3s = version_of(s.ctx(), cluster).await?;
        let parts = Parts { toolkit: o.toolkit, dcgm: o.dcgm, cdi: o.cdi };
        let fit = Fit { k3s: &k3s, driver: &o.driver, mig: &o.mig, sharing, parts };
        let values = operator_values(&fit, extra);
        let release = ReleaseOptions {
            chart: "gpu-operator".to_owned(),
            repo: REPO.to_owned(),
            version: o.version.clone(),
            namespace: NAMESPACE.to_owned(),
            values: as_map(&values),
            timeout: crate::core::units::Duration::minutes(15),
            wait: false,
        };
        cluster.ensure_release_in(&s, RELEASE, &release).await?;
        let version = values["driver"]["version"].as_str().unwrap_or_default();
        follow(&s, cluster, hosts, o, version).await
    })
    .await
}

/// A driver and a toolkit that are said to be there already: each node is asked before anything waits for them.
async fn own_parts(ctx: &Ctx, cluster: &Cluster, hosts: &[Host], o: &OperatorOptions) -> OpResult<()> {
    if o.driver != "preinstalled" && o.toolkit {
        return Ok(());
    }
    let nodes = cluster.list_in(ctx, "node", "").await?;
    let pods = operator_pods(ctx, cluster).await?;
    let named = |n: &&Value| o.nodes.iter().any(|x| n["metadata"]["name"] == x.as_str());
    let (mut without, mut bare) = (Vec::new(), Vec::new());
    for node in nodes.iter().filter(|n| if o.nodes.is_empty() { has_device(n) } else { named(n) }) {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let Some(host) = hosts.iter().find(|h| h.name() == name) else { continue };
        // a driver container brings its own driver, which goes with it
        let container = pod_of(&pods, name, "nvidia-driver-daemonset").is_some();
        if o.driver == "preinstalled" && (container || host.look_raw(ctx, OWN_DRIVER).await?.stdout.trim().is_empty()) {
            without.push(name.to_owned());
        }
        if !o.toolkit && host.look_raw(ctx, OWN_TOOLKIT).await?.stdout.trim().is_empty() {
            bare.push(name.to_owned());
        }
    }
    if !bare.is_empty() {
        let text = format!(
            "no container toolkit is installed in {}, and the operator is told not to bring one",
            bare.join(", ")
        );
        return Err(OpError::failed(text).on(cluster.name()).hint(
            "install nvidia-container-toolkit in the machines and restart K3s there, or leave `toolkit: false` out",
        ));
    }
    if without.is_empty() {
        return Ok(());
    }
    let text =
        format!("no NVIDIA driver is installed in {}, and the operator is told not to bring one", without.join(", "));
    Err(OpError::failed(text)
        .on(cluster.name())
        .hint("install it in the machines (the template's image), or write a driver version for `preinstalled`"))
}

/// Says something on a machine that has a toolkit of its own, where K3s looks for it.
const OWN_TOOLKIT: &str = "ls /usr/bin/nvidia-container-runtime 2>/dev/null";

/// Says something on a machine that has a driver of its own; the module that a driver container has loaded is none.
pub(super) const OWN_DRIVER: &str = "command -v nvidia-smi || \
    { [ ! -e /run/nvidia/driver/usr/bin/nvidia-smi ] && ls /proc/driver/nvidia/version 2>/dev/null; }";

/// What of the running operator changes so that its driver's pods are made anew: the driver, or the operator itself,
/// whose versions bring other driver managers.
fn ends_sessions(policy: &Value, o: &OperatorOptions) -> Option<String> {
    let driver = &policy["spec"]["driver"];
    let own = driver["enabled"] == false;
    let runs = if own { "preinstalled" } else { driver["version"].as_str().unwrap_or_default() };
    if !runs.is_empty() && runs != o.driver {
        return Some(format!("change the driver from {runs} to {}? It", o.driver));
    }
    let chart = rollout::chart_of(policy).filter(|c| !own && *c != o.version)?;
    Some(format!("change the GPU operator from {chart} to {}? It makes the driver's pods anew, which", o.version))
}

/// Another driver ends what runs on the cards: whoever holds one is named and asked for first.
async fn ask_for_sessions(ctx: &Ctx, cluster: &Cluster, o: &OperatorOptions) -> OpResult<()> {
    let found = policies(ctx, cluster).await?;
    let Some(what) = found.first().and_then(|p| ends_sessions(p, o)) else { return Ok(()) };
    let held = super::inventory::inventory(ctx, cluster).await?.held_on(|_| true);
    if held.is_empty() {
        return Ok(());
    }
    let question = format!("{what} ends what uses GPUs: {}", held.join(", "));
    if ctx.consent.confirm(&question, true)? {
        return Ok(());
    }
    Err(ctx.declined(&question).on(cluster.name()))
}

/// K3s version of the cluster, as its API server says it.
async fn version_of(ctx: &Ctx, cluster: &Cluster) -> OpResult<String> {
    let v = cluster.read_json(ctx, "/version").await?;
    Ok(v["gitVersion"].as_str().unwrap_or_default().to_owned())
}

/// GPUs each node should have: from the site, else from its physical count, else one; as they are cut and shared.
pub(super) fn wanted(ctx: &Ctx, node: &Value) -> i64 {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let declared =
        ctx.site.as_ref().and_then(|s| s.nodes.iter().find(|n| n.name == name)).map(|n| i64::from(n.shape.gpu_count()));
    let gpus = read_node(node);
    gpus.devices_of(declared.filter(|n| *n > 0).unwrap_or(gpus.count.max(1)))
}

async fn follow(s: &OpScope, cluster: &Cluster, hosts: &[Host], o: &OperatorOptions, version: &str) -> OpResult<()> {
    let limit = o.timeout.0;
    let finals = Lasting::default();
    let restarted: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let every = Duration::from_secs(5);
    s.wait_for("GPUs allocatable", every, limit, || async {
        let (broken, policy) = match look(s.ctx(), cluster, o).await {
            Err(e) if waits_on(&e) => return Ok(Look::Pending(seen(&e))),
            other => other?,
        };
        for b in broken.iter().filter(|b| b.restart) {
            let first = restarted.lock().unwrap_or_else(PoisonError::into_inner).insert(b.node.clone());
            let Some(host) = hosts.iter().find(|h| h.name() == b.node).filter(|_| first) else { continue };
            cluster
                .restart_agent(
                    s.ctx(),
                    host,
                    "restarted: K3s finds container runtimes at start only",
                    Duration::from_secs(300),
                )
                .await?;
        }
        for b in &broken {
            let seen = lasting(s.ctx(), cluster, b, version).await?;
            if let Some(e) = finals.borne(&b.node, seen, s.ctx().clock.now_ms().await) {
                return Err(e);
            }
        }
        let list: Vec<_> = broken.iter().map(|b| format!("{}: {} ({})", b.node, b.cause, b.evidence)).collect();
        Ok(match (list.is_empty(), policy) {
            (true, None) => Look::Ready(()),
            (true, Some(p)) => Look::Pending(format!("cluster policy {p}")),
            (false, _) => Look::Pending(list.join("; ")),
        })
    })
    .await
    .map_err(|e| {
        if e.is(Kind::Timeout) {
            e.hint("`gpuhost run scripts/doctor.rhai` names the broken link of the chain")
        } else {
            e
        }
    })
}

/// Broken rungs of the GPU nodes, and why the cluster policy is not ready.
async fn look(ctx: &Ctx, cluster: &Cluster, o: &OperatorOptions) -> OpResult<(Vec<Broken>, Option<String>)> {
    let nodes = cluster.list_in(ctx, "node", "").await?;
    super::upgrade::check(ctx, cluster, &nodes, &o.nodes).await?;
    let pods = operator_pods(ctx, cluster).await?;
    let mut broken = Vec::new();
    let mut cut = false;
    let names: BTreeMap<_, _> = nodes.iter().filter_map(|n| Some((n["metadata"]["name"].as_str()?, n))).collect();
    let listed: Vec<&str> = if o.nodes.is_empty() {
        names.iter().filter(|(_, n)| has_device(n)).map(|(n, _)| *n).collect()
    } else {
        o.nodes.iter().map(String::as_str).collect()
    };
    for name in listed {
        match names.get(name) {
            None => return Err(OpError::not_found(format!("the cluster has no node `{name}`")).on(name)),
            Some(node) => {
                let found = first_broken(node, &pods, wanted(ctx, node), o.driver != "preinstalled");
                if found.as_ref().is_some_and(|b| b.id == MIG_WAITS) && is_cut_next(ctx, node) {
                    cut = true;
                    continue;
                }
                broken.extend(found.or_else(|| old_sharing(node, o)));
            }
        }
    }
    if cut {
        // no policy is ready while a node's cards are not what its label says
        return Ok((broken, None));
    }
    let policies = policies(ctx, cluster).await?;
    let why = match trouble(policies.first()) {
        Some(why) => Some(why),
        None => rollout::pending(ctx, cluster, policies.first(), &o.version).await?,
    };
    Ok((broken, why))
}

/// Whether the site file asks for a cut that the node does not have: `ensure_mig` is still to come. The cards of a machine
/// made anew may be in MIG mode from before, and nothing offers them until then.
fn is_cut_next(ctx: &Ctx, node: &Value) -> bool {
    let named = |n: &&crate::site::Node| node["metadata"]["name"] == n.name.as_str();
    let declared = ctx.site.as_ref().and_then(|s| s.nodes.iter().find(named)).and_then(|n| n.shape.mig.as_deref());
    let gpus = read_node(node);
    // the same label whose cut failed: a run that died before the power cycle is continued
    declared.is_some_and(|wanted| wanted != gpus.mig_config || gpus.mig == "failed")
}

/// A node whose cards are still shared or named as before.
fn old_sharing(node: &Value, o: &OperatorOptions) -> Option<Broken> {
    let gpus = read_node(node);
    let want = o.time_slicing.max(o.mps);
    // instances with a resource of their own are not shared
    let named = o.mig == "none" || gpus.strategy.is_empty() || gpus.strategy == o.mig;
    let (cause, evidence) = if gpus.instances == 0 && gpus.replicas != want {
        ("the device plugin has not taken the sharing over", format!("{} pods per card, {want} wanted", gpus.replicas))
    } else if !named {
        ("feature discovery has not taken the MIG strategy over", format!("{}, {} wanted", gpus.strategy, o.mig))
    } else {
        return None;
    };
    Some(Broken {
        rung: 8,
        id: "sharing-waits",
        node: gpus.node,
        cause: cause.to_owned(),
        evidence,
        fix: "restart the device plugin's pod".to_owned(),
        mend: Mend::Operand("nvidia-device-plugin-daemonset"),
        restart: false,
    })
}

/// Why the ClusterPolicy is not ready; `None` when it is.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn policy_trouble(ctx: &Ctx, cluster: &Cluster) -> OpResult<Option<String>> {
    Ok(trouble(policies(ctx, cluster).await?.first()))
}

/// The cluster's policies: none without the operator, else one.
async fn policies(ctx: &Ctx, cluster: &Cluster) -> OpResult<Vec<Value>> {
    cluster.list_if_known(ctx, "clusterpolicies.nvidia.com", "").await
}

fn trouble(policy: Option<&Value>) -> Option<String> {
    let Some(policy) = policy else {
        return Some("there is no ClusterPolicy: the operator is not installed".into());
    };
    match policy["status"]["state"].as_str() {
        Some("ready") => None,
        state => {
            let why = condition(policy, "Error").filter(|(s, _)| s == "True").map(|(_, w)| w);
            let why = why.or_else(|| condition(policy, "Ready").map(|(_, w)| w)).unwrap_or_default();
            Some(format!("{} ({why})", state.unwrap_or("has no state yet")))
        }
    }
}

/// The operator's pods.
pub(super) async fn operator_pods(ctx: &Ctx, cluster: &Cluster) -> OpResult<Vec<Value>> {
    cluster.list_in(ctx, "pod", NAMESPACE).await
}
