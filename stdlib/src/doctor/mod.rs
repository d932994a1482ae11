//! `doctor`: from what does not work to its one cause, from the hypervisor up to the notebook.
mod addresses;
mod finding;
mod fleet;
pub mod gitops;
mod late;
mod machines;
mod mend;
mod nft;
mod nodes;
mod platform;
mod releases;
mod replicas;
mod scene;
mod script;
mod servers;
mod share;
mod storage;
mod upkeep;
pub mod volumes;
mod workloads;

use crate::core::ctx::Ctx;
use crate::core::error::OpResult;
use crate::core::module::ModuleDef;
use crate::core::op::Op;

pub use finding::{DEPLOY, Finding, describe, line, on_machine, script};
pub use machines::has_secure_boot;
pub use scene::Scene;

/// What scripts see.
#[must_use]
pub fn def() -> ModuleDef {
    ModuleDef {
        name: "doctor",
        docs: "Walks the site from the hypervisor up and names causes, not symptoms: what a broken machine takes with it \
               is no finding of its own. Reads only.",
        module: script::module().into(),
        options: Vec::new(),
    }
}

/// Which part of the site to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// Machines, nodes, control plane.
    Nodes,
    /// NFS, classes, claims.
    Storage,
    /// Fleet.
    Fleet,
    /// JupyterHub, Rancher, cert-manager.
    Platform,
}

/// The machines of the site; a hypervisor that does not answer is a finding like any other.
pub(crate) async fn diagnose_machines(s: &mut Scene) {
    let Err(e) = machines::diagnose(s).await else { return };
    s.add(Finding {
        id: "hypervisor-unreachable",
        area: "machine",
        target: s.site.proxmox.pve_node.clone(),
        cause: "the hypervisor cannot be asked".to_owned(),
        evidence: line(&format!("{e} {}", e.causes.join("; "))),
        fix: "look at its API; the rest of this walk goes on without it".to_owned(),
        next: format!("curl -k {}/api2/json/version", s.site.proxmox.url),
    });
}

/// Looks at the site; every finding is a cause.
///
/// # Errors
/// `invalid` without a site file; `unreachable`, `denied`.
pub async fn diagnose(ctx: &Ctx, part: Part) -> OpResult<Vec<Finding>> {
    let site = ctx.site()?.name.clone();
    ctx.run_op(Op::read("doctor", "diagnose", site), |op| async move {
        let mut s = Scene::new(op.ctx())?;
        diagnose_machines(&mut s).await;
        nodes::reach(&mut s).await?;
        addresses::diagnose(&mut s).await?;
        nodes::diagnose(&mut s).await?;
        servers::diagnose(&mut s).await?;
        if matches!(part, Part::All | Part::Storage) {
            let other_share = share::differs(&mut s).await?;
            storage::diagnose(&mut s, other_share).await?;
        }
        if part == Part::All {
            workloads::diagnose(&mut s).await?;
            crate::gpu::examine(&mut s).await?;
        }
        if matches!(part, Part::All | Part::Fleet) {
            fleet::diagnose(&mut s).await?;
        }
        let mut releases = Vec::new();
        if matches!(part, Part::All | Part::Platform) {
            releases = releases::look(&mut s).await?;
            platform::diagnose(&mut s).await?;
        }
        if part == Part::All {
            replicas::pulls(&mut s).await?;
            releases::diagnose(&mut s, releases);
            replicas::diagnose(&mut s).await?;
        }
        Ok(s.found)
    })
    .await
}
