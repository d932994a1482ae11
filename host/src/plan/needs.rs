//! What a run must be allowed to do to carry a plan out: no more than its effects need.
use std::collections::{BTreeMap, BTreeSet};

use super::Planned;

/// Privileges that every run needs to look before it acts.
const LOOK: &str = "VM.Audit Datastore.Audit Pool.Audit Sys.Audit";

/// Privileges that an effect needs on Proxmox, and where. `check_permissions` proves them.
const PROXMOX: &[(&str, &str, &str)] = &[
    (
        "ensure_template",
        "VM.Allocate VM.Config.CDROM VM.Config.CPU VM.Config.Disk VM.Config.HWType VM.Config.Memory \
         VM.Config.Network VM.Config.Options VM.PowerMgmt Datastore.AllocateSpace Datastore.AllocateTemplate \
         Sys.AccessNetwork",
        "the site's pool, its storages and node",
    ),
    (
        "ensure_vm",
        "VM.Allocate VM.Clone VM.Config.CPU VM.Config.Cloudinit VM.Config.Disk VM.Config.HWType VM.Config.Memory \
         VM.Config.Network VM.Config.Options VM.PowerMgmt Datastore.AllocateSpace SDN.Use",
        "the site's pool, its template, storages and bridge",
    ),
    ("ensure_pool", "Pool.Allocate", "the site's pool"),
    ("remove_pool", "Pool.Allocate", "the site's pool"),
    ("begin_once", "Pool.Allocate", "/pool"),
    ("end_once", "Pool.Allocate", "/pool"),
    ("forget_once", "Pool.Allocate", "/pool"),
    ("ensure_pci_mapping", "Mapping.Modify", "/mapping/pci"),
    ("remove_pci_mapping", "Mapping.Modify", "/mapping/pci"),
    ("remove_vm", "VM.Allocate VM.PowerMgmt Datastore.AllocateSpace", "the site's pool and storages"),
    ("remove_template", "VM.Allocate Datastore.AllocateSpace", "the site's pool and storages"),
    ("remove_content", "Datastore.AllocateTemplate", "the image storage"),
    ("start", "VM.PowerMgmt", "the site's pool"),
    ("stop", "VM.PowerMgmt", "the site's pool"),
    ("shutdown", "VM.PowerMgmt", "the site's pool"),
    ("reboot", "VM.PowerMgmt", "the site's pool"),
    ("reset", "VM.PowerMgmt", "the site's pool"),
    ("ensure_snapshot", "VM.Snapshot", "the site's pool"),
    ("remove_snapshot", "VM.Snapshot", "the site's pool"),
    ("rollback", "VM.Snapshot.Rollback", "the site's pool"),
    ("migrate", "VM.Migrate", "the site's pool"),
];

/// The least that these effects need.
pub fn of(effects: &[Planned]) -> Vec<String> {
    if effects.is_empty() {
        return Vec::new();
    }
    let mut at: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let (mut shells, mut objects, mut unknown) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for e in effects {
        let (module, verb) = e.op.split_once('.').unwrap_or(("", &e.op));
        match module {
            "proxmox" => match PROXMOX.iter().find(|(v, _, _)| *v == verb) {
                Some((_, privileges, place)) => at.entry(place).or_default().extend(privileges.split_whitespace()),
                None => drop(unknown.insert(e.op.as_str())),
            },
            "nfs" if verb.ends_with("_class") => drop(objects.insert(module)),
            "ssh" | "k3s" | "nfs" => drop(shells.insert(e.target.as_str())),
            "kubernetes" | "helm" | "gpu" => drop(objects.insert(module)),
            _ => {}
        }
    }
    let list = |s: &BTreeSet<&str>| s.iter().copied().collect::<Vec<_>>().join(", ");
    let mut out = vec![format!("Proxmox, to look and to lock: {} Pool.Allocate", LOOK)];
    out.extend(
        at.iter().map(|(place, p)| format!("Proxmox, on {place}: {}", p.iter().copied().collect::<Vec<_>>().join(" "))),
    );
    if !unknown.is_empty() {
        out.push(format!("Proxmox, for {}: what `pve.check_permissions()` names", list(&unknown)));
    }
    if !shells.is_empty() {
        out.push(format!("root over SSH on {}", list(&shells)));
    }
    if !objects.is_empty() {
        out.push(format!("writing objects of the cluster ({})", list(&objects)));
    }
    out
}

#[cfg(test)]
mod tests {
    use gpuhost_stdlib::core::event::Effect;

    use super::*;

    #[test]
    fn no_more_than_the_effects_need() {
        let e = |op: &str, target: &str| Planned {
            op: op.to_owned(),
            target: target.to_owned(),
            effect: Effect::Write,
            step: Vec::new(),
            changes: Vec::new(),
        };
        assert!(of(&[]).is_empty());
        let text = of(&[e("proxmox.start", "a"), e("ssh.ensure", "b")]).join("\n");
        assert!(text.contains("VM.PowerMgmt") && text.contains("SSH on b"), "{text}");
        assert!(!text.contains("VM.Allocate") && !text.contains("cluster"), "{text}");
    }
}
