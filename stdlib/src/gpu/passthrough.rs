//! Whether the hypervisor can give its GPUs to the VMs: IOMMU, groups, mapping, counts.
use std::collections::BTreeMap;

use rhai::Map;
use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::proxmox::{Problem, Proxmox, Report, request};

/// A PCI device as the hypervisor lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `0000:01:00.0`.
    pub address: String,
    /// `10de:20f1`.
    pub id: String,
    /// Class, `0x0302..` for 3D controllers.
    pub class: String,
    /// IOMMU group; -1 when the IOMMU is off.
    pub group: i64,
}

/// Reads the list of a node.
#[must_use]
pub fn read_devices(list: &Value) -> Vec<Device> {
    let hex = |v: &Value| v.as_str().unwrap_or_default().trim_start_matches("0x").to_owned();
    let number = |v: &Value| v.as_i64().or_else(|| v.as_str().and_then(|s| s.parse().ok())).unwrap_or(-1);
    list.as_array()
        .into_iter()
        .flatten()
        .map(|d| Device {
            address: d["id"].as_str().unwrap_or_default().to_owned(),
            id: format!("{}:{}", hex(&d["vendor"]), hex(&d["device"])),
            class: hex(&d["class"]),
            group: number(&d["iommugroup"]),
        })
        .collect()
}

fn problem(text: String, hint: &str) -> Problem {
    Problem { text, hint: hint.to_owned() }
}

fn iommu_off(node: &str) -> String {
    format!("the IOMMU of {node} is off")
}

/// Names of the machines that run on a hypervisor node, as far as the caller may see them.
fn running(machines: &Value, node: &str) -> Vec<String> {
    let all = machines.as_array().into_iter().flatten();
    let here = all.filter(|m| m["node"] == node && m["status"] == "running");
    here.filter_map(|m| m["name"].as_str().map(str::to_owned)).collect()
}

/// What mends the problem reboots the host: which machines that takes down.
fn takes_down(mut p: Problem, vms: &[String]) -> Problem {
    let list = if vms.is_empty() { "no machine that this user sees".to_owned() } else { vms.join(", ") };
    p.hint = format!("{}; the reboot takes down {list} (see docs: GPU passthrough on Proxmox)", p.hint);
    p
}

/// What keeps `device` of a node from being passed through.
#[must_use]
pub fn device_problems(node: &str, device: &str, all: &[Device]) -> Vec<Problem> {
    let cards: Vec<_> = all.iter().filter(|d| d.id.eq_ignore_ascii_case(device)).collect();
    let mut out = Vec::new();
    if cards.is_empty() {
        out.push(problem(
            format!("{node} has no device {device}"),
            "compare `gpu.device` of the site file with `lspci -nn -d 10de:` on the hypervisor",
        ));
        return out;
    }
    if cards.iter().any(|c| c.group < 0) {
        out.push(problem(
            iommu_off(node),
            "switch on VT-d or AMD-Vi in the firmware; on Intel before kernel 6.8 also boot with `intel_iommu=on`",
        ));
        return out;
    }
    for card in cards {
        let slot = card.address.rsplit_once('.').map_or(card.address.as_str(), |(s, _)| s);
        let others: Vec<_> = all
            .iter()
            .filter(|d| d.group == card.group && d.address != card.address)
            // its own functions and bridges go along
            .filter(|d| !d.address.starts_with(slot) && !d.class.starts_with("06"))
            .map(|d| format!("{} ({})", d.address, d.id))
            .collect();
        if !others.is_empty() {
            out.push(problem(
                format!("GPU {} of {node} shares IOMMU group {} with {}", card.address, card.group, others.join(", ")),
                "move the card to a slot of its own, or enable ACS in the firmware",
            ));
        }
    }
    out
}

/// `path` and `id` of a mapping's entries on a node.
#[must_use]
pub fn mapping_entries(mapping: &Value, node: &str) -> Vec<(String, String)> {
    let list = mapping["map"].as_array().into_iter().flatten().filter_map(Value::as_str);
    list.filter_map(|entry| {
        let parts: BTreeMap<_, _> = entry.split(',').filter_map(|p| p.split_once('=')).collect();
        (parts.get("node") == Some(&node)).then(|| {
            let get = |k: &str| (*parts.get(k).unwrap_or(&"")).to_owned();
            (get("path"), get("id"))
        })
    })
    .collect()
}

/// Checks every hypervisor node that holds GPU machines.
///
/// # Errors
/// `unreachable`, `denied`.
pub async fn passthrough_report(ctx: &Ctx, pve: &Proxmox, section: &Map) -> OpResult<Report> {
    let text = |k: &str| section.get(k).and_then(|v| v.clone().into_string().ok()).unwrap_or_default();
    let (name, device) = (text("mapping"), text("device"));
    if name.is_empty() {
        return Err(OpError::invalid("the GPU section has no `mapping`").hint("see [gpu] in the site file"));
    }
    let site = ctx.site()?;
    let mut wanted: BTreeMap<String, i64> = BTreeMap::new();
    for n in site.nodes.iter().filter(|n| n.shape.gpu_count() > 0) {
        *wanted.entry(n.pve_node.clone()).or_default() += i64::from(n.shape.gpu_count());
    }
    let op = Op::read("gpu", "passthrough_report", &name);
    ctx.run_op(op, |_| async {
        let mut report = Report::new("GPU passthrough");
        let mapping = pve.find(ctx, &request::mapping(&name)).await?;
        let machines = pve.send(ctx, &request::list_vms()).await?;
        for (node, count) in wanted {
            let vms = running(&machines, &node);
            let devices = read_devices(&pve.send(ctx, &request::list_pci(&node)).await?);
            let problems = if device.is_empty() { Vec::new() } else { device_problems(&node, &device, &devices) };
            if problems.is_empty() {
                report.passed.push(format!("{node}: IOMMU is on and every GPU is alone in its group"));
            }
            report
                .problems
                .extend(problems.into_iter().map(|p| if p.text == iommu_off(&node) { takes_down(p, &vms) } else { p }));
            match &mapping {
                None => report.problems.push(problem(
                    format!("there is no PCI mapping `{name}`"),
                    "the deploy recipe makes it: `pve.ensure_pci_mapping(name, #{ device: … })`",
                )),
                Some(m) => check_mapping(&mut report, m, &name, &node, count, &devices),
            }
        }
        Ok(report)
    })
    .await
}

fn check_mapping(report: &mut Report, mapping: &Value, name: &str, node: &str, count: i64, devices: &[Device]) {
    let entries = mapping_entries(mapping, node);
    for (path, id) in &entries {
        let found = devices
            .iter()
            .find(|d| d.address == *path || d.address.trim_end_matches(".0") == path.trim_end_matches(".0"));
        match found {
            None => report.problems.push(problem(
                format!("mapping `{name}` names {path}, which {node} does not have"),
                "cards move when slots change: remove the mapping and run deploy again",
            )),
            Some(d) if !id.is_empty() && !d.id.eq_ignore_ascii_case(id) => report.problems.push(problem(
                format!("mapping `{name}` says {path} is {id}, {node} has {} there", d.id),
                "correct `gpu.device` in the site file, or the mapping",
            )),
            Some(_) => {}
        }
    }
    let have = i64::try_from(entries.len()).unwrap_or(0);
    if have < count {
        report.problems.push(problem(
            format!("the machines on {node} need {count} GPUs, mapping `{name}` has {have} there"),
            "add cards to the mapping, or lower `gpus` of the role",
        ));
    } else {
        report.passed.push(format!("{node}: mapping `{name}` has {have} GPUs for {count}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn devices_groups_and_entries() {
        let list = json!([
            {"id": "0000:01:00.0", "vendor": "0x10de", "device": "0x20f1", "class": "0x030200", "iommugroup": 5},
            {"id": "0000:01:00.1", "vendor": "0x10de", "device": "0x1aef", "class": "0x040300", "iommugroup": 5},
            {"id": "0000:02:00.0", "vendor": "0x8086", "device": "0x1533", "class": "0x020000", "iommugroup": 6},
        ]);
        let mut d = read_devices(&list);
        assert!(device_problems("pve1", "10de:20f1", &d).is_empty());
        d[2].group = 5;
        assert!(device_problems("pve1", "10de:20f1", &d)[0].text.contains("shares IOMMU group 5"));
        d[0].group = -1;
        let off = device_problems("pve1", "10de:20f1", &d).remove(0);
        assert_eq!(off.text, iommu_off("pve1"));
        let machines = json!([{"node": "pve1", "status": "running", "name": "a"}, {"node": "pve1", "status": "stopped", "name": "b"},
            {"node": "pve2", "status": "running", "name": "c"}]);
        let said = takes_down(off, &running(&machines, "pve1")).hint;
        assert!(said.contains("the reboot takes down a (see"), "{said}");
        assert!(device_problems("pve1", "10de:9999", &d)[0].text.contains("no device"));
        let m = json!({"map": ["node=pve1,path=0000:01:00.0,id=10de:20f1,iommugroup=5", "node=pve2,path=x"]});
        assert_eq!(mapping_entries(&m, "pve1"), [("0000:01:00.0".to_owned(), "10de:20f1".to_owned())]);
    }
}
