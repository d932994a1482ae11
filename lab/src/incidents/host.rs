//! Faults of hypervisor, slots and VM configurations.
use super::tools::{holders, power_off, start, vmid};
use super::{Fault, On};
use crate::Lab;
use crate::world::World;

const PCI_PM: &str = "qemu-server, PVE/QemuServer/PCI.pm: the messages of prepare_pci_device and of the reservation";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "vm-off",
        on: On::Machine,
        what: "the machine lost power and was not started again",
        source: "K3s and Kubernetes documentation: node controller, NodeStatusUnknown after 40 s",
        make: |lab, w, t| power_off(lab, w, t).map(drop),
        hands: None,
    },
    Fault {
        name: "iommu-off",
        on: On::PveNode,
        what: "the hypervisor was rebooted with its IOMMU switched off in the firmware",
        source: PCI_PM,
        make: |lab, w, t| {
            node(w, t)?.iommu = false;
            let all = holders(w, t);
            restart_all(lab, w, &all)
        },
        hands: Some(|_, w, t| {
            node(w, t)?.iommu = true;
            Ok(())
        }),
    },
    Fault {
        name: "group-shared",
        on: On::GpuNode,
        what: "after a firmware update a card of the machine shares its IOMMU group with the host's network card",
        source: "pve-docs, qm-pci-passthrough: groups; QEMU's text `group N is not viable` (forum threads)",
        make: |lab, w, t| {
            let (pve, address) = first_card(w, t)?;
            let n = node(w, &pve)?;
            let group = n.pci.iter().find(|c| c.address == address).map_or(0, |c| c.iommu_group);
            for c in n.pci.iter_mut().filter(|c| c.class.starts_with("0x0200")) {
                c.iommu_group = group;
            }
            restart_all(lab, w, &[t.to_owned()])
        },
        hands: Some(|_, w, t| {
            let pve = w.pve.vms.get(&vmid(w, t)?).map(|v| v.node.clone()).unwrap_or_default();
            for c in node(w, &pve)?.pci.iter_mut().filter(|c| c.class.starts_with("0x0200")) {
                c.iommu_group = 11;
            }
            Ok(())
        }),
    },
    Fault {
        name: "host-driver-holds-card",
        on: On::GpuNode,
        what: "the hypervisor's own driver holds a card of the machine",
        source: PCI_PM,
        make: |lab, w, t| {
            let (pve, address) = first_card(w, t)?;
            let all = [t.to_owned()];
            power_off(lab, w, t)?;
            w.change_card(&pve, &address, |c| c.host_driver = true);
            restart_all(lab, w, &all)
        },
        hands: Some(|_, w, t| {
            let pve = w.pve.vms.get(&vmid(w, t)?).map(|v| v.node.clone()).unwrap_or_default();
            let all: Vec<String> =
                w.pve.nodes.get(&pve).into_iter().flat_map(|n| &n.pci).map(|c| c.address.clone()).collect();
            for a in all {
                w.change_card(&pve, &a, |c| c.host_driver = false);
            }
            Ok(())
        }),
    },
    Fault {
        name: "card-taken",
        on: On::GpuNode,
        what: "somebody else's machine was started with the cards of this one",
        source: PCI_PM,
        make: |lab, w, t| {
            let cards =
                w.pve.vms.get(&vmid(w, t)?).and_then(|v| v.run.as_ref()).map(|r| r.cards.clone()).unwrap_or_default();
            if cards.is_empty() {
                return Err(format!("`{t}` holds no card"));
            }
            power_off(lab, w, t)?;
            let thief = foreign(w)?;
            if let Some(run) = w.pve.vms.get_mut(&thief).and_then(|v| v.run.as_mut()) {
                run.cards = cards;
            }
            start(w, vmid(w, t)?);
            Ok(())
        },
        hands: Some(|_, w, _| {
            let thief = foreign(w)?;
            if let Some(run) = w.pve.vms.get_mut(&thief).and_then(|v| v.run.as_mut()) {
                run.cards.clear();
            }
            Ok(())
        }),
    },
    Fault {
        name: "mapping-missing",
        on: On::Mapping,
        what: "the PCI mapping was removed; machines that restart find no card",
        source: PCI_PM,
        make: |lab, w, t| {
            w.pve.mappings.remove(t).ok_or_else(|| format!("the lab has no mapping `{t}`"))?;
            let all = users(w, t).into_iter().take(1).collect::<Vec<_>>();
            restart_all(lab, w, &all)
        },
        hands: None,
    },
    Fault {
        name: "card-missing",
        on: On::GpuNode,
        what: "the VM configuration lost one of its cards and was restarted",
        source: "ladder rung 8: capacity below what was declared; seed troubleshooting guide",
        make: |lab, w, t| {
            let id = power_off(lab, w, t)?;
            let conf = w.pve.vms.get_mut(&id).map(|v| &mut v.conf);
            let gone = conf.and_then(|c| {
                let last = c.keys().filter(|k| k.starts_with("hostpci")).max().cloned()?;
                c.remove(&last)
            });
            gone.ok_or_else(|| format!("`{t}` has no card"))?;
            start(w, id);
            Ok(())
        },
        hands: None,
    },
];

fn node<'a>(w: &'a mut World, name: &str) -> Result<&'a mut crate::spec::NodeSpec, String> {
    w.pve.nodes.get_mut(name).ok_or_else(|| format!("the lab has no hypervisor node `{name}`"))
}

fn restart_all(lab: &Lab, w: &mut World, names: &[String]) -> Result<(), String> {
    for name in names {
        let id = power_off(lab, w, name)?;
        start(w, id);
    }
    Ok(())
}

/// Hypervisor node and address of the first card that a running machine holds.
fn first_card(w: &World, name: &str) -> Result<(String, String), String> {
    let vm = w.pve.vms.get(&vmid(w, name)?).ok_or("no such machine")?;
    let card = vm.run.as_ref().and_then(|r| r.cards.first().cloned());
    card.map(|c| (vm.node.clone(), c)).ok_or_else(|| format!("`{name}` holds no card"))
}

/// A running machine that is nobody's of ours.
fn foreign(w: &World) -> Result<u32, String> {
    let pooled: Vec<u32> = w.pve.pools.values().flat_map(|p| p.vms.iter().copied()).collect();
    let found = w.pve.vms.iter().find(|(id, v)| v.run.is_some() && !pooled.contains(id)).map(|(id, _)| *id);
    found.ok_or_else(|| "the lab has no foreign machine that runs".to_owned())
}

/// Machines whose configuration names the mapping.
fn users(w: &World, mapping: &str) -> Vec<String> {
    let named = format!("mapping={mapping}");
    let uses = |v: &&crate::pve::state::Vm| v.conf.values().any(|c| c.split(',').any(|p| p == named));
    w.pve.vms.values().filter(uses).filter_map(|v| v.conf.get("name").cloned()).collect()
}
