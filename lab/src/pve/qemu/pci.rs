//! Cards of a VM: which are free when it starts, and why a start fails.
use std::collections::BTreeSet;

use gpuhost_stdlib::wire::pve::props;

use crate::pve::mapping;
use crate::pve::state::Vm;
use crate::spec::PciSpec;
use crate::world::World;

/// Reserves the cards of a VM that starts.
///
/// # Errors
/// The message the start task ends with.
pub fn take(w: &mut World, vmid: u32, vm: &Vm) -> Result<Vec<PciSpec>, String> {
    let wants: Vec<(String, props::Props)> = vm
        .conf
        .iter()
        .filter(|(k, _)| matches!(props::numbered(k), ("hostpci", Some(_))))
        .map(|(k, v)| (k.clone(), props::read(k, v)))
        .collect();
    if wants.is_empty() {
        return Ok(Vec::new());
    }
    let node = w.pve.nodes.get(&vm.node).cloned().ok_or("node vanished")?;
    let q35 = vm.conf.get("machine").is_some_and(|m| m.contains("q35"));
    let busy = in_use(w, vmid);
    let mut mine: Vec<PciSpec> = Vec::new();
    for (key, p) in &wants {
        if p.get("pcie").is_some_and(|v| v == "1") && !q35 {
            return Err("q35 machine model is not enabled".into());
        }
        let candidates = match p.get("mapping") {
            Some(m) => mapping::devices(w, &vm.node, m)?,
            None => p.get("host").map(|h| h.split(';').map(full_address).collect()).unwrap_or_default(),
        };
        let single = p.get("mapping").is_none() || candidates.len() == 1;
        let mut found = None;
        for a in &candidates {
            let taken = busy.iter().find(|(b, _)| b == a);
            let twice = mine.iter().any(|c| &c.address == a);
            match (taken, twice) {
                (Some((_, by)), _) if single => return Err(format!("PCI device '{a}' already in use by VMID '{by}'")),
                (_, true) if single => return Err(format!("device '{a}' assigned more than once")),
                (Some(_), _) | (_, true) => {}
                _ => {
                    let card = node.pci.iter().find(|c| &c.address == a);
                    found = Some(card.ok_or_else(|| format!("no pci device info for device '{a}'"))?.clone());
                    break;
                }
            }
        }
        let card = found.ok_or_else(|| format!("could not find a free device for '{key}'"))?;
        if !node.iommu {
            return Err("cannot prepare PCI pass-through, IOMMU not present".into());
        }
        if w.card(&vm.node, &card.address).host_driver {
            return Err(format!("can't unbind/bind PCI group to VFIO '{}'", card.address));
        }
        mine.push(card);
    }
    // A group goes to one machine as a whole.
    let groups: BTreeSet<i64> = mine.iter().map(|c| c.iommu_group).filter(|g| *g >= 0).collect();
    for c in node.pci.iter().filter(|c| groups.contains(&c.iommu_group)) {
        if busy.iter().any(|(b, _)| b == &c.address) {
            return Err(format!("can't unbind/bind PCI group to VFIO '{}'", c.address));
        }
    }
    if let Some(vm) = w.pve.vms.get_mut(&vmid) {
        vm.starting = mine.iter().map(|c| c.address.clone()).collect();
    }
    Ok(mine)
}

/// A group that a card shares with a device that stays with the host.
#[must_use]
pub fn not_viable(w: &World, node: &str, cards: &[PciSpec]) -> Option<(String, i64)> {
    let all = &w.pve.nodes.get(node)?.pci;
    let slot = |a: &str| a.rsplit_once('.').map_or(a, |(s, _)| s).to_owned();
    let is_card = |a: &str| cards.iter().any(|c| slot(&c.address) == slot(a));
    cards.iter().find_map(|c| {
        let shared =
            all.iter().any(|d| d.iommu_group == c.iommu_group && !is_card(&d.address) && !d.class.contains("x06"));
        shared.then(|| (c.address.clone(), c.iommu_group))
    })
}

/// `01:00.0` is `0000:01:00.0`; without function it is the first.
fn full_address(h: &str) -> String {
    let h = if h.matches(':').count() < 2 { format!("0000:{h}") } else { h.to_owned() };
    if h.contains('.') { h } else { format!("{h}.0") }
}

/// Cards that other VMs of the same node hold, with their ids.
fn in_use(w: &World, vmid: u32) -> Vec<(String, u32)> {
    let node = w.pve.vms.get(&vmid).map(|v| v.node.clone()).unwrap_or_default();
    let others = w.pve.vms.iter().filter(|(id, v)| **id != vmid && v.node == node);
    others
        .flat_map(|(id, v)| {
            let held = v.run.iter().flat_map(|r| r.cards.iter()).chain(v.starting.iter());
            held.map(|a| (a.clone(), *id)).collect::<Vec<_>>()
        })
        .collect()
}

/// The cards a starting VM has reserved.
#[must_use]
pub fn reserved(w: &World, vmid: u32) -> Vec<PciSpec> {
    let Some(vm) = w.pve.vms.get(&vmid) else { return Vec::new() };
    let Some(node) = w.pve.nodes.get(&vm.node) else { return Vec::new() };
    vm.starting.iter().filter_map(|a| node.pci.iter().find(|c| &c.address == a)).cloned().collect()
}
