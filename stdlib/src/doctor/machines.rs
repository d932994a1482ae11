//! The machines under the cluster: which do not run, and what of the hypervisor keeps them from starting.
use serde_json::Value;

use super::finding::{DEPLOY, Finding, line, script};
use super::scene::Scene;
use crate::core::error::{Kind, OpError, OpResult};
use crate::gpu::{device_problems, mapping_entries, read_devices};
use crate::proxmox::{Proxmox, Row, request};
use crate::site::Node;
use crate::ssh::{is_refused, keys};

fn finding(id: &'static str, target: &str, cause: String, evidence: String, fix: &str, next: String) -> Finding {
    Finding { id, area: "machine", target: target.to_owned(), cause, evidence, fix: fix.to_owned(), next }
}

/// Looks at every machine of the site.
///
/// # Errors
/// `unreachable`, `denied`: the hypervisor cannot be asked.
pub async fn diagnose(s: &mut Scene) -> OpResult<()> {
    let pve = Proxmox::connect_site(&s.ctx).await?;
    let rows = pve.rows(&s.ctx).await?;
    let mut stopped = Vec::new();
    for node in s.site.nodes.clone() {
        match rows.iter().find(|r| r.at.vmid == node.vmid) {
            None => {
                let cause = format!("the machine {} does not exist", node.name);
                let f = finding(
                    "vm-missing",
                    &node.name,
                    cause,
                    format!("no VM {}", node.vmid),
                    "deploy makes it",
                    DEPLOY.into(),
                );
                s.lost(&node.name, f);
            }
            Some(r) if r.status != "running" => stopped.push((node, r.status.clone())),
            Some(_) => {}
        }
    }
    for (node, status) in stopped {
        let last = last_start(s, &pve, &node).await;
        let f = why_stopped(s, &pve, &node, &status, &last).await?;
        s.lost(&node.name, f);
    }
    for (name, vmid) in pve.strays(&s.ctx).await? {
        s.add(finding(
            "machine-left-over",
            &name,
            format!("the machine {name} belongs to the site, and the site file does not name it"),
            format!("VM {vmid} carries the site's mark"),
            "remove it, or write its [[nodes]] entry again",
            format!("gpuhost run recipes/remove-node.rhai --set name={name}"),
        ));
    }
    cards(s, &pve).await?;
    key(s, &pve, &rows).await;
    s.pve = Some(pve);
    Ok(())
}

/// Running machines that refuse the site's SSH key: one cause, whatever else cannot be seen because of it.
async fn key(s: &mut Scene, pve: &Proxmox, rows: &[Row]) {
    let nodes = s.nodes();
    let row = |n: &Node| rows.iter().find(|r| r.at.vmid == n.vmid);
    let tries = nodes.iter().filter_map(|n| Some(refusal(s, pve, n, row(n)?))).collect();
    let said: Vec<(String, OpError)> = s.ctx.clock.join_all(tries).await.into_iter().flatten().collect();
    let Some((_, first)) = said.first() else { return };
    s.refused.extend(said.iter().map(|(name, _)| name.clone()));
    let names: Vec<&str> = s.refused.iter().map(String::as_str).collect();
    let who = if names.len() == s.site.nodes.len() { "the machines".to_owned() } else { names.join(", ") };
    let verb = if names.len() == 1 { "refuses" } else { "refuse" };
    let f = Finding {
        id: "ssh-key-refused",
        area: "machine",
        target: s.site.name.clone(),
        cause: format!("{who} {verb} the site's SSH key"),
        evidence: line(&first.message),
        fix: keys::other_key(&s.ctx, &s.site),
        next: keys::PUT_IN.to_owned(),
    };
    s.down.extend(s.refused.iter().cloned());
    s.add(f);
}

/// What a machine says that takes none of our keys; with its name.
async fn refusal(s: &Scene, pve: &Proxmox, node: &Node, row: &Row) -> Option<(String, OpError)> {
    let mut tried = s.host(node).exec_raw(&s.ctx, "true", b"").await;
    // A state directory that has never seen the machine does not know its host key yet.
    if tried.as_ref().is_err_and(|e| e.is(Kind::Denied) && !is_refused(e))
        && let Ok(host) = pve.handle_of_row(&s.ctx, row).ssh(&s.ctx).await
    {
        tried = host.exec_raw(&s.ctx, "true", b"").await;
    }
    Some((node.name.clone(), tried.err().filter(is_refused)?))
}

/// The words with which the newest start of a machine ended; empty when it went well or cannot be seen.
async fn last_start(s: &Scene, pve: &Proxmox, node: &Node) -> Vec<String> {
    let list = request::get(format!("/nodes/{}/tasks", node.pve_node))
        .query("vmid", node.vmid)
        .query("typefilter", "qmstart")
        .query("limit", 5);
    let Ok(tasks) = pve.send(&s.ctx, &list).await else { return Vec::new() };
    let newest = tasks.as_array().into_iter().flatten().max_by_key(|t| t["starttime"].as_u64().unwrap_or(0)).cloned();
    let Some(task) = newest.filter(|t| t["status"].as_str().is_some_and(|x| x != "OK")) else { return Vec::new() };
    let mut words = vec![task["status"].as_str().unwrap_or_default().to_owned()];
    let upid = task["upid"].as_str().unwrap_or_default();
    if let Ok(log) = pve.send(&s.ctx, &request::task_log(&node.pve_node, upid, 0, 50)).await {
        let lines = log.as_array().into_iter().flatten().filter_map(|l| l["t"].as_str());
        words.extend(lines.filter(|l| !l.starts_with("TASK ERROR")).map(str::to_owned));
    }
    words
}

fn mapping_name(s: &Scene, node: &Node) -> String {
    node.shape.gpu_mapping.clone().or_else(|| Scene::text(&s.site.gpu, "mapping")).unwrap_or_default()
}

/// Why a machine does not run: its cards, or nobody started it.
async fn why_stopped(s: &Scene, pve: &Proxmox, node: &Node, status: &str, last: &[String]) -> OpResult<Finding> {
    let said = line(&last.join("; "));
    let evidence = if said.is_empty() { format!("VM {} is {status}", node.vmid) } else { said.clone() };
    if node.shape.gpu_count() > 0
        && let Some(f) = card_trouble(s, pve, node, &said, &evidence).await?
    {
        return Ok(f);
    }
    let cause = format!("the machine {} does not run", node.name);
    Ok(finding("vm-off", &node.name, cause, evidence, "deploy starts it", DEPLOY.into()))
}

async fn card_trouble(s: &Scene, pve: &Proxmox, node: &Node, said: &str, evidence: &str) -> OpResult<Option<Finding>> {
    let name = mapping_name(s, node);
    let host = &node.pve_node;
    let device = Scene::text(&s.site.gpu, "device").unwrap_or_default();
    let devices = read_devices(&pve.send(&s.ctx, &request::list_pci(host)).await?);
    let of_site: Vec<_> = devices.iter().filter(|d| device.is_empty() || d.id.eq_ignore_ascii_case(&device)).collect();
    let Some(mapping) = pve.find(&s.ctx, &request::mapping(&name)).await? else {
        let cause = format!("the PCI mapping `{name}` does not exist: its machines find no card");
        return Ok(Some(finding(
            "mapping-missing",
            &name,
            cause,
            evidence.to_owned(),
            "deploy makes it",
            DEPLOY.into(),
        )));
    };
    if of_site.iter().any(|d| d.group < 0) {
        let cause = format!("the IOMMU of {host} is off");
        let fix = "switch on VT-d or AMD-Vi in the host's firmware (Intel before kernel 6.8 also boots with intel_iommu=on), reboot it, then start the machines";
        return Ok(Some(finding("iommu-off", host, cause, evidence.to_owned(), fix, DEPLOY.into())));
    }
    let named = mapping_entries(&mapping, host);
    let gone = named.iter().find(|(p, _)| !devices.iter().any(|d| same_slot(&d.address, p)));
    if let Some((path, _)) = gone {
        let cause = format!("the mapping `{name}` names {path}, where {host} has no card");
        return Ok(Some(finding(
            "mapping-moved",
            &name,
            cause,
            evidence.to_owned(),
            "remove the mapping's stale entry, then deploy",
            DEPLOY.into(),
        )));
    }
    let shared = if device.is_empty() { Vec::new() } else { device_problems(host, &device, &devices) };
    if let Some(p) = shared.first() {
        let fix = "move the card to a slot of its own, or enable ACS in the host's firmware; then start the machine";
        return Ok(Some(finding("group-shared", &node.name, p.text.clone(), evidence.to_owned(), fix, DEPLOY.into())));
    }
    if said.contains("to VFIO") {
        let cause = format!("the own driver of {host} holds a card of {}", node.name);
        let fix = "keep nouveau, nvidia and nvidiafb off the host (`/etc/modprobe.d`, `update-initramfs -u -k all`) and reboot it; then start the machine";
        return Ok(Some(finding("host-driver-holds-card", &node.name, cause, evidence.to_owned(), fix, DEPLOY.into())));
    }
    if said.contains("already in use by VMID") || said.contains("could not find a free device") {
        let cause = format!("the cards of {} are held by another machine", node.name);
        let fix = "stop the other machine, or take the card out of its configuration; then start this one";
        return Ok(Some(finding("card-taken", &node.name, cause, evidence.to_owned(), fix, DEPLOY.into())));
    }
    Ok(None)
}

fn same_slot(a: &str, b: &str) -> bool {
    a.trim_end_matches(".0") == b.trim_end_matches(".0")
}

/// Running machines whose configuration has fewer cards than declared, or firmware that refuses the driver.
async fn cards(s: &mut Scene, pve: &Proxmox) -> OpResult<()> {
    for node in s.nodes().into_iter().filter(|n| n.shape.gpu_count() > 0) {
        let at = request::At::new(&node.pve_node, node.vmid);
        let Some(config) = pve.config(&s.ctx, &at).await? else { continue };
        let have = config.keys().filter(|k| k.starts_with("hostpci")).count();
        let want = node.shape.gpu_count() as usize;
        if have < want {
            let cause = format!("the VM of {} has {have} of {want} cards", node.name);
            let keys = config.keys().filter(|k| k.starts_with("hostpci")).cloned().collect::<Vec<_>>().join(", ");
            let evidence =
                format!("VM {}: hostpci entries: {}", node.vmid, if keys.is_empty() { "none" } else { &keys });
            let f = finding(
                "card-missing",
                &node.name,
                cause,
                evidence,
                "give the VM what the site file says; it is stopped and started",
                script("reshape-vm", &[("node", &node.name)]),
            );
            s.add(Finding { area: "gpu", ..f });
        }
    }
    Ok(())
}

/// Whether a VM's firmware was made with Microsoft's keys.
#[must_use]
pub fn has_secure_boot(config: &serde_json::Map<String, Value>) -> bool {
    config.get("efidisk0").and_then(Value::as_str).is_some_and(|d| d.split(',').any(|p| p == "pre-enrolled-keys=1"))
}
