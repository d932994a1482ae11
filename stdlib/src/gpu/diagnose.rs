//! From the hypervisor to the scheduler: the first broken rung of every GPU node, and its fix as a command.
use serde_json::Value;

use super::mig::configurations;
use super::operator::{NAMESPACE, OWN_DRIVER, RELEASE, operator_pods, wanted};
use super::patterns::{Mend, explain_log, explain_trouble};
use super::stages::{Broken, first_broken, operand_of, pod_of};
use super::utilization::SMI;
use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::doctor::{DEPLOY, Finding, Scene, line, on_machine, script};
use crate::kubernetes::{Cluster, LogOptions};
use crate::site::Node;

/// Walks the chain of every GPU node; the machines under them are looked at first.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn diagnose(ctx: &Ctx, cluster: &Cluster) -> OpResult<Vec<Finding>> {
    let mut s = Scene::new(ctx)?;
    crate::doctor::diagnose_machines(&mut s).await;
    s.cluster = Some(cluster.clone());
    examine(&mut s).await?;
    let gpu: Vec<String> = s.site.nodes.iter().filter(|n| n.shape.gpu_count() > 0).map(|n| n.name.clone()).collect();
    let shared = ["iommu-off", "mapping-missing", "mapping-moved"];
    s.found.retain(|f| f.area == "gpu" || gpu.contains(&f.target) || shared.contains(&f.id));
    Ok(s.found)
}

/// The rungs above the machine, for every GPU node that is not explained yet.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn examine(s: &mut Scene) -> OpResult<()> {
    let Some(cluster) = s.cluster.clone() else { return Ok(()) };
    let gpu_nodes: Vec<Node> = s.nodes().into_iter().filter(|n| n.shape.gpu_count() > 0).collect();
    if gpu_nodes.is_empty() {
        return Ok(());
    }
    let policies = cluster.list_if_known(&s.ctx, "clusterpolicies.nvidia.com", "").await?;
    let Some(policy) = policies.first() else {
        s.add(Finding {
            id: "operator-missing",
            area: "gpu",
            target: RELEASE.to_owned(),
            cause: "the GPU operator is not installed".to_owned(),
            evidence: "there is no ClusterPolicy".to_owned(),
            fix: "deploy installs it".to_owned(),
            next: DEPLOY.to_owned(),
        });
        return Ok(());
    };
    if cluster.find_object(&s.ctx, "runtimeclass", "", "nvidia").await?.is_none() {
        let servers = s.site.nodes_of(crate::site::RoleKind::Server);
        let server = servers.map(|n| n.name.clone()).find(|n| !s.down.contains(n)).unwrap_or_default();
        s.add(Finding {
            id: "runtime-class-missing",
            area: "gpu",
            target: "nvidia".to_owned(),
            cause: "the RuntimeClass of NVIDIA's runtime is gone: pods that name it are refused".to_owned(),
            evidence: "RuntimeClass \"nvidia\" not found".to_owned(),
            fix: "a server of K3s makes its RuntimeClasses again when it starts".to_owned(),
            next: script("restart-agent", &[("node", &server)]),
        });
        return Ok(());
    }
    let driver_container = policy["spec"]["driver"]["enabled"] != false;
    let nodes = cluster.list_in(&s.ctx, "node", "").await?;
    let pods = operator_pods(&s.ctx, &cluster).await?;
    for node in gpu_nodes {
        let Some(object) = nodes.iter().find(|o| o["metadata"]["name"] == node.name.as_str()) else { continue };
        if s.found.iter().any(|f| f.area == "gpu" && f.target == node.name) {
            continue;
        }
        if let Some(f) = super::upgrade::failed(s, &cluster, object, &node).await? {
            s.add(f);
            continue;
        }
        let want = wanted(&s.ctx, object);
        match first_broken(object, &pods, want, driver_container) {
            Some(b) => {
                let f = refined(s, &cluster, (&pods, driver_container), &node, b).await?;
                s.add(f);
            }
            None => {
                if let Some(f) = super::upgrade::under_way(object, &node) {
                    s.add(f);
                } else if let Some(f) = compute_mode(s, &node).await {
                    s.add(f);
                }
            }
        }
    }
    Ok(())
}

/// The command of a mend, for this node.
fn command(s: &Scene, node: &Node, mend: Mend) -> String {
    match mend {
        Mend::Deploy => DEPLOY.to_owned(),
        Mend::RestartVm => script("restart-vm", &[("node", &node.name)]),
        Mend::Whole => script("gpu-mode", &[("node", &node.name), ("mig", "all-disabled")]),
        Mend::Reboot => script("reboot-node", &[("node", &node.name)]),
        Mend::RestartAgent => script("restart-agent", &[("node", &node.name)]),
        Mend::Operand(app) => script("restart-pods", &[("namespace", NAMESPACE), ("app", app), ("node", &node.name)]),
        Mend::OnNode(cmd) => on_machine(s.ctx.lab, &s.site, node, cmd),
        Mend::Recut => script("gpu-mode", &[("node", &node.name)]),
        Mend::OwnDriver => script("purge-driver", &[("node", &node.name)]),
    }
}

fn finding(s: &Scene, node: &Node, b: &Broken, release: bool) -> Finding {
    Finding {
        id: b.id,
        area: "gpu",
        target: if release { RELEASE.to_owned() } else { b.node.clone() },
        cause: b.cause.clone(),
        evidence: line(&b.evidence),
        fix: b.fix.clone(),
        next: command(s, node, b.mend),
    }
}

/// Adds what the log of the broken operand, its events or the kernel of the node say.
async fn refined(
    s: &Scene,
    cluster: &Cluster,
    (pods, driver_container): (&[Value], bool),
    node: &Node,
    mut b: Broken,
) -> OpResult<Finding> {
    // what the label asks for, before the log's words take the place of it
    let label = b.evidence.split(['=', ',']).nth(1).unwrap_or_default().to_owned();
    let pod = operand_of(b.rung).and_then(|app| pod_of(pods, &b.node, app));
    let mut release = false;
    if let Some(name) = pod.and_then(|p| p["metadata"]["name"].as_str()) {
        let o = LogOptions { namespace: NAMESPACE.to_owned(), container: String::new(), tail: 100 };
        let log = cluster.pod_log(&s.ctx, name, &o).await.unwrap_or_default();
        if let Some((seen, p)) = explain_log(&log) {
            (b.id, b.cause, b.evidence) = (p.id, p.cause.to_owned(), seen);
            (b.fix, b.mend, release) = (p.fix.to_owned(), p.mend, p.release);
        } else {
            let warning = cluster.last_warning(&s.ctx, "pod", NAMESPACE, name).await?.unwrap_or_default();
            let trouble = format!("{}; {warning}", b.evidence);
            if let Some((id, cause, fix)) = explain_trouble(&trouble) {
                (b.id, b.cause, b.evidence) = (id, cause.to_owned(), trouble);
                (b.fix, b.mend, release) = (fix.to_owned(), Mend::Deploy, true);
            }
        }
    }
    match b.rung {
        2 if b.id == "nfd-worker-gone" => in_guest(s, node, &mut b).await,
        3 if b.id == "driver-in-guest" => own_driver(s, node, &mut b).await,
        4 if !driver_container && s.ask(node, OWN_DRIVER).await.trim().is_empty() => {
            b.id = "driver-not-installed";
            b.cause =
                "no NVIDIA driver is installed in the guests, and the operator is told not to bring one".to_owned();
            b.evidence = format!("driver.enabled is false, {} has no nvidia-smi; {}", b.node, b.evidence);
            b.fix = "give the driver's version in the site file and deploy, or install it in the machines".to_owned();
            (b.mend, release) = (Mend::Deploy, true);
        }
        7 => from_kernel(s, node, &mut b).await,
        9 => unknown_config(s, cluster, &label, &mut b).await?,
        _ => {}
    }
    Ok(finding(s, node, &b, release))
}

/// Whether the guest has a card at all, where feature discovery cannot say it.
async fn in_guest(s: &Scene, node: &Node, b: &mut Broken) {
    let said = s.ask(node, "command -v lspci >/dev/null && lspci -n -d 10de: | wc -l").await;
    match said.trim().parse::<usize>() {
        Ok(0) => {
            b.id = "card-not-in-guest";
            b.cause = "no NVIDIA device in the guest".to_owned();
            b.evidence = "lspci shows no NVIDIA device; feature discovery has no worker there, either".to_owned();
            b.fix = "passthrough does not work: `gpu::passthrough_report(pve, site().gpu)`".to_owned();
        }
        Ok(n) => b.evidence = format!("lspci shows {n} NVIDIA devices in the guest; {}", b.evidence),
        Err(_) => {}
    }
}

/// Whether there is a driver in the guest as the label says: one that was taken away leaves the label behind.
async fn own_driver(s: &Scene, node: &Node, b: &mut Broken) {
    let said = s.ask(node, OWN_DRIVER).await;
    let version = s.ask(node, "cat /proc/driver/nvidia/version 2>/dev/null | head -n 1").await;
    if said.trim().is_empty() {
        b.id = "driver-label-stale";
        b.cause = "the node is labelled as if its guest had a driver of its own, and it has none: nobody brings one"
            .to_owned();
        b.evidence = format!("{}; no nvidia-smi, no loaded module", b.evidence);
        b.fix = "take the label away: the operator sets it anew and brings the driver".to_owned();
    } else {
        b.evidence = format!("{}; {}", b.evidence, if version.is_empty() { said.trim() } else { version.trim() });
    }
}

/// A label that names a configuration which the MIG manager does not have.
async fn unknown_config(s: &Scene, cluster: &Cluster, label: &str, b: &mut Broken) -> OpResult<()> {
    let names = configurations(&s.ctx, cluster).await?.unwrap_or_default();
    if names.is_empty() || names.iter().any(|n| n == label) {
        return Ok(());
    }
    b.id = "mig-config-unknown";
    b.cause = format!("the node's label asks for the MIG configuration `{label}`, which does not exist");
    b.fix = "label it with one that exists: the script sets the label and what it needs".to_owned();
    b.mend = Mend::Whole;
    Ok(())
}

/// The newest Xid of the node's kernel log.
async fn from_kernel(s: &Scene, node: &Node, b: &mut Broken) {
    let text = s.ask(node, "dmesg 2>/dev/null | grep 'NVRM: Xid' | tail -n 5").await;
    let Some(last) = text.lines().last() else { return };
    let number = last.split("): ").nth(1).and_then(|t| t.split([',', ' ']).next()).unwrap_or_default();
    if let Some((_, p)) = explain_log(&format!("Xid={number}")) {
        (b.id, b.cause) = (p.id, p.cause.to_owned());
        (b.fix, b.mend) = (p.fix.to_owned(), p.mend);
    }
    b.evidence = last.trim().to_owned();
}

/// Cards that let only one process in: everything else is told that they are busy.
async fn compute_mode(s: &Scene, node: &Node) -> Option<Finding> {
    let ask = format!("{SMI} --query-gpu=index,compute_mode --format=csv,noheader 2>/dev/null");
    let text = s.ask(node, &ask).await;
    let bad: Vec<&str> = text.lines().filter(|l| l.contains("Exclusive") || l.contains("Prohibited")).collect();
    if bad.is_empty() {
        return None;
    }
    Some(Finding {
        id: "compute-exclusive",
        area: "gpu",
        target: node.name.clone(),
        cause: "the cards are in an exclusive compute mode: a second process is told that they are busy".to_owned(),
        evidence: line(&format!("compute mode {}", bad.join("; "))),
        fix: "set the default compute mode, unless MPS is meant to run there".to_owned(),
        next: script("gpu-compute-mode", &[("node", &node.name)]),
    })
}
