//! The inside of the machines: who is asked, what was found, and machines that nobody has prepared yet.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gpuhost_lab::Lab;
use gpuhost_lab::seed;
use gpuhost_lab::world::World;
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::proxmox::Proxmox;
use gpuhost_stdlib::site::{RoleKind, Site};
use gpuhost_stdlib::ssh::Host;

use super::Notes;
use super::probe::{self, Probe};

/// How long a machine that boots for the first time may take, in the lab's time.
const BOOT: Duration = Duration::from_secs(900);

/// What a deployed machine has: the things that are worth comparing.
#[derive(Debug, Default)]
pub struct Habits {
    /// Units that machines have.
    pub units: BTreeSet<String>,
    /// Kernel parameters that were set.
    pub sysctl: BTreeSet<String>,
    /// Modules that were loaded.
    pub modules: BTreeSet<String>,
    /// Packages beyond the image.
    pub packages: BTreeSet<String>,
}

impl Habits {
    /// Those of the lab's machines as they are now.
    pub fn of(lab: &Lab) -> Self {
        lab.with(|w| {
            let mut h = Habits::default();
            for g in w.guests.values() {
                h.units.extend(g.services.keys().cloned());
                h.sysctl.extend(g.sysctl.keys().cloned());
                h.modules.extend(g.modules.iter().cloned());
                h.packages.extend(g.facts.packages.keys().cloned());
            }
            h
        })
    }
}

/// What was found, by node.
#[derive(Debug, Default)]
pub struct Inside(pub BTreeMap<String, Probe>);

impl Inside {
    /// Names of the machines that answered.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Machines that were never prepared, but are in the lab's world.
    pub fn bare(&self, site: &Site, lab: &Lab) -> BTreeSet<u32> {
        let nodes = site.nodes.iter().filter_map(|n| Some((n, self.0.get(&n.name)?)));
        let bare = nodes.filter(|(n, p)| {
            if matches!(n.kind, RoleKind::Server | RoleKind::Agent) {
                p.k3s.is_empty() && !p.files.contains_key(gpuhost_stdlib::k3s::config::CONFIG)
            } else {
                !p.packages.contains_key("nfs-kernel-server")
            }
        });
        let all: BTreeSet<u32> = bare.map(|(n, _)| n.vmid).collect();
        lab.with(|w| all.into_iter().filter(|id| w.guests.contains_key(id)).collect())
    }
}

/// A node's machine as an SSH host, its key pinned through the hypervisor.
///
/// # Errors
/// When there is no such machine, or its agent does not answer.
pub async fn host(ctx: &Ctx, pve: &Proxmox, site: &Site, name: &str) -> OpResult<Host> {
    let node = site.nodes.iter().find(|n| n.name == name).ok_or_else(|| OpError::not_found("no such node").on(name))?;
    let vm = pve.find_vm(ctx, &rhai::Dynamic::from(i64::from(node.vmid))).await?;
    let vm = vm.ok_or_else(|| OpError::not_found("there is no such machine").on(name))?;
    vm.ssh(ctx).await
}

/// Looks into the machines of `names`.
pub async fn read(ctx: &Ctx, site: &Site, names: &[String], habits: &Habits, notes: &mut Notes) -> Inside {
    let mut out = Inside::default();
    let pve = match Proxmox::connect_site(ctx).await {
        Ok(p) => p,
        Err(e) => {
            notes.unread.push(format!("the inside of the machines: {e}"));
            return out;
        }
    };
    for name in names {
        let looked = async {
            let host = host(ctx, &pve, site, name).await?;
            probe::look(ctx, &host, &habits.units).await
        };
        match looked.await {
            Ok(p) => drop(out.0.insert(name.clone(), p)),
            Err(e) => notes.unread.push(format!("the inside of {name}: {} (taken as a deploy leaves it)", e.message)),
        }
    }
    out
}

/// Machines that were never prepared begin again with the template's disk.
pub fn renew(lab: &Lab, w: &mut World, site: &Site, bare: &BTreeSet<u32>, notes: &mut Notes) {
    for vmid in bare {
        if let Err(e) = seed::fresh(lab, w, *vmid, site.template.vmid) {
            notes.unread.push(format!("VM {vmid} is bare, and cannot be made so in the world: {e}"));
        }
    }
    gpuhost_lab::kube::k3s::membership::forget_dead(w);
}

/// Waits until they have booted.
///
/// # Errors
/// When one does not.
pub async fn wait(ctx: &Ctx, site: &Site, bare: &BTreeSet<u32>) -> OpResult<()> {
    if bare.is_empty() {
        return Ok(());
    }
    let pve = Proxmox::connect_site(ctx).await?;
    for node in site.nodes.iter().filter(|n| bare.contains(&n.vmid)) {
        let vm = pve.find_vm(ctx, &rhai::Dynamic::from(i64::from(node.vmid))).await?;
        if let Some(vm) = vm {
            vm.wait_ready(ctx, BOOT).await?;
        }
    }
    Ok(())
}
