//! Hypervisor nodes: processors, memory, IOMMU; which cards could be passed through and who holds them.
use std::collections::BTreeMap;

use serde_json::Value;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::core::units::Size;
use crate::wire::pve::props;

use super::request;
use super::types::{Proxmox, Report};

/// One hypervisor node.
#[derive(Debug, Clone, PartialEq)]
pub struct PveNode {
    /// Name.
    pub name: String,
    /// `online`, `offline`, `unknown`.
    pub status: String,
    /// Version of Proxmox VE.
    pub version: String,
    /// Logical processors.
    pub cpus: i64,
    /// Model of the processors.
    pub cpu_model: String,
    /// Memory.
    pub memory: Size,
    /// Memory in use.
    pub memory_used: Size,
    /// Seconds since its boot.
    pub uptime: i64,
    /// Kernel.
    pub kernel: String,
    /// Whether the IOMMU is on; `None` when the token may not look.
    pub iommu: Option<bool>,
}

fn group(d: &Value) -> i64 {
    d["iommugroup"].as_i64().or_else(|| d["iommugroup"].as_str()?.parse().ok()).unwrap_or(-1)
}

fn read_node(name: &str, row: &Value, status: &Value, pci: Option<&Value>) -> PveNode {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let number = |v: &Value| v.as_u64().unwrap_or_default();
    let devices = pci.and_then(Value::as_array);
    let kernel = match &status["current-kernel"]["release"] {
        Value::String(s) => s.clone(),
        _ => text(&status["kversion"]),
    };
    PveNode {
        name: name.to_owned(),
        status: text(&row["status"]),
        version: text(&status["pveversion"]),
        cpus: status["cpuinfo"]["cpus"].as_i64().unwrap_or_default(),
        cpu_model: text(&status["cpuinfo"]["model"]),
        memory: Size(number(&status["memory"]["total"])),
        memory_used: Size(number(&status["memory"]["used"])),
        uptime: status["uptime"].as_i64().unwrap_or_default(),
        kernel,
        iommu: devices.map(|d| d.iter().any(|x| group(x) >= 0)),
    }
}

/// Machines that hold a card, by address; those that take one from a mapping count for the mapping.
fn holders(configs: &[(String, serde_json::Map<String, Value>)]) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, config) in configs {
        for (key, value) in config.iter().filter(|(k, _)| props::numbered(k).0 == "hostpci") {
            let p = props::read(key, value.as_str().unwrap_or_default());
            let what = match (p.get("mapping"), p.get("host")) {
                (Some(m), _) => format!("mapping {m}"),
                (_, Some(h)) => h.clone(),
                _ => continue,
            };
            out.entry(what).or_default().push(name.clone());
        }
    }
    out
}

/// Looks at each display controller: group, neighbours in it.
fn judge_cards(node: &str, pci: &Value, r: &mut Report) {
    let all = pci.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |d: &Value, k: &str| d[k].as_str().unwrap_or_default().to_owned();
    let cards: Vec<&Value> = all.iter().filter(|d| text(d, "class").starts_with("0x03")).collect();
    if cards.is_empty() {
        r.warn(format!("{node} has no display or 3D controller"));
    }
    if !all.iter().any(|d| group(d) >= 0) {
        let hint = "switch it on in the firmware (VT-d, AMD-Vi) and on the kernel command line (`intel_iommu=on iommu=pt`), then reboot";
        return r.fail(format!("the IOMMU of {node} is off"), hint);
    }
    for card in cards {
        let (id, g) = (text(card, "id"), group(card));
        let slot = id.rsplit_once('.').map_or(id.as_str(), |(s, _)| s).to_owned();
        // Its own functions and bridges go along.
        let other =
            |d: &&Value| group(d) == g && !text(d, "id").starts_with(&slot) && !text(d, "class").starts_with("0x06");
        let others: Vec<String> = all.iter().filter(other).map(|d| text(d, "id")).collect();
        let name = format!("{} {}", text(card, "vendor_name"), text(card, "device_name"));
        if g < 0 {
            r.fail(format!("{id} {name} is in no IOMMU group"), "look at `dmesg | grep -i iommu` on the hypervisor");
        } else if others.is_empty() {
            r.pass(format!("{id} {name} is alone in IOMMU group {g}"));
        } else {
            r.fail(
                format!("{id} {name} shares IOMMU group {g} with {}", others.join(", ")),
                "move the card to a slot of its own, or enable ACS in the firmware",
            );
        }
    }
}

impl Proxmox {
    /// A hypervisor node with processors, memory, uptime and IOMMU.
    ///
    /// # Errors
    /// `not_found` naming those that there are; `denied` without Sys.Audit on it.
    pub async fn pve_node(&self, ctx: &Ctx, name: &str) -> OpResult<PveNode> {
        ctx.run_op(Op::read("proxmox", "get_node", name), |_| async {
            let rows = self.send_list(ctx, &request::get("/nodes")).await?;
            let names: Vec<&str> = rows.iter().filter_map(|n| n["node"].as_str()).collect();
            let row = rows.iter().find(|n| n["node"] == name).ok_or_else(|| {
                OpError::not_found(format!("there is no hypervisor node `{name}`"))
                    .hint(format!("there are: {}", names.join(", ")))
            })?;
            if row["status"] != "online" {
                return Ok(read_node(name, row, &Value::Null, None));
            }
            let status = self.send(ctx, &request::get(format!("/nodes/{name}/status"))).await?;
            let pci = self.send(ctx, &request::list_pci(name)).await.ok();
            Ok(read_node(name, row, &status, pci.as_ref()))
        })
        .await
    }

    /// Whether the cards of a node can be passed through, and which machines hold them.
    ///
    /// # Errors
    /// `denied` without Sys.Audit.
    pub async fn iommu_report(&self, ctx: &Ctx, node: &str) -> OpResult<Report> {
        ctx.run_op(Op::read("proxmox", "iommu_report", node), |_| async {
            let mut r = Report::new(format!("PCI passthrough on {node}"));
            judge_cards(node, &self.send(ctx, &request::list_pci(node)).await?, &mut r);
            self.judge_promises(ctx, node, &mut r).await?;
            Ok(r)
        })
        .await
    }

    /// No card may be promised to two machines.
    pub(super) async fn judge_promises(&self, ctx: &Ctx, node: &str, r: &mut Report) -> OpResult<()> {
        let mut configs = Vec::new();
        for row in self.rows(ctx).await?.into_iter().filter(|x| x.at.node == node && !x.template) {
            // A VM that the token may not read, or that has just gone, says nothing.
            if let Ok(Some(config)) = self.config(ctx, &row.at).await {
                configs.push((format!("{} (VM {})", row.name, row.at.vmid), config));
            }
        }
        let mappings = self.send(ctx, &request::check_mappings(node)).await?;
        for (what, who) in holders(&configs) {
            let Some(name) = what.strip_prefix("mapping ") else {
                match &who[..] {
                    [one] => r.pass(format!("{what} belongs to {one}")),
                    _ => r.fail(
                        format!("{what} is promised to {}", who.join(" and ")),
                        "only one of them can run: give the others another card",
                    ),
                }
                continue;
            };
            let found = mappings.as_array().into_iter().flatten().find(|m| m["id"] == name);
            let entries = found.and_then(|m| m["map"].as_array()).map(Vec::as_slice).unwrap_or_default();
            let here = format!("node={node}");
            let cards = entries.iter().filter(|e| e.as_str().is_some_and(|t| t.split(',').any(|p| p == here))).count();
            if cards >= who.len() {
                r.pass(format!("mapping {name}: {} of {cards} cards are promised", who.len()));
            } else {
                r.fail(
                    format!(
                        "mapping {name} has {cards} cards on {node}, {} are promised: {}",
                        who.len(),
                        who.join(", ")
                    ),
                    "add cards to the mapping, or take `hostpci` from one of the machines",
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn groups_and_neighbours_are_judged() {
        let d = |id: &str, class: &str, g: i64| json!({"id": id, "class": class, "iommugroup": g, "vendor_name": "N", "device_name": "A100"});
        let mut pci = json!([
            d("0000:01:00.0", "0x030200", 5),
            d("0000:01:00.1", "0x040300", 5),
            d("0000:00:01.0", "0x060400", 5)
        ]);
        let judge = |pci: &Value| {
            let mut r = Report::new("t");
            judge_cards("pve1", pci, &mut r);
            r
        };
        assert!(judge(&pci).is_ok());
        pci.as_array_mut().unwrap().push(d("0000:02:00.0", "0x020000", 5));
        assert!(judge(&pci).problems[0].text.contains("0000:02:00.0"));
        for x in pci.as_array_mut().unwrap() {
            x["iommugroup"] = (-1).into();
        }
        assert!(judge(&pci).problems[0].text.contains("IOMMU of pve1 is off"));
    }

    #[test]
    fn promises_are_counted_by_mapping_and_address() {
        let c = |v: Value| v.as_object().cloned().unwrap();
        let h = holders(&[
            ("a".to_owned(), c(json!({"hostpci0": "mapping=gpu,pcie=1", "hostpci1": "mapping=gpu"}))),
            ("b".to_owned(), c(json!({"hostpci0": "0000:01:00.0", "net0": "virtio"}))),
        ]);
        assert_eq!((h["mapping gpu"].len(), h["0000:01:00.0"][0].as_str()), (2, "b"));
    }
}
