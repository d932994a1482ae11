//! The way of an upgrade: known, and every release of it asked for, before anything changes.
use super::config::Part;
use super::hosts::Machines;
use super::node::{Found, exists};
use super::options::{Airgap, check_version, version_numbers};
use super::upgrade::UpgradeOptions;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::kubernetes::Cluster;
use crate::ssh::Host;

/// Where an upgrade begins and what it goes through.
pub(super) struct Route {
    /// The machines.
    pub all: Machines,
    /// What the oldest server runs.
    pub oldest: String,
    /// The releases to go through, the wanted one last.
    pub steps: Vec<String>,
    /// Whether the first server is a member of etcd.
    pub member: bool,
    /// Whether every node has the wanted release.
    there: bool,
}

/// What the one that is furthest behind has.
pub(super) fn oldest(found: &[(&Host, Found)]) -> String {
    found.iter().map(|(_, f)| f.version.clone()).min_by_key(|v| version_numbers(v)).unwrap_or_default()
}

impl Cluster {
    /// Checks an upgrade without changing anything; gives the releases it would go through, none when every node is there.
    ///
    /// # Errors
    /// `invalid` for a way back and for what is no release; `not_found` for a release that does not exist.
    pub async fn check_upgrade(&self, ctx: &Ctx, version: &str, o: &UpgradeOptions) -> OpResult<Vec<String>> {
        let op = Op::read("k3s", "check_upgrade", self.name().to_owned());
        ctx.run_op(op, |_| async {
            let route = self.route(ctx, version, o).await?;
            Ok(if route.there { Vec::new() } else { route.steps })
        })
        .await
    }

    /// The way to `version`.
    pub(super) async fn route(&self, ctx: &Ctx, version: &str, o: &UpgradeOptions) -> OpResult<Route> {
        check_version(version)?;
        o.via.iter().try_for_each(|v| check_version(v).map_err(|e| e.because("it stands in `via`")))?;
        o.at_once()?;
        let all = Machines::of(ctx, &o.servers, &o.agents)?;
        let servers = self.looked(ctx, &all.servers, Part::Server).await?;
        let agents = self.looked(ctx, &all.agents, Part::Agent).await?;
        for (host, found) in servers.iter().chain(&agents) {
            if found.version.is_empty() {
                return Err(OpError::not_found("K3s is not installed")
                    .on(host.name())
                    .hint("deploy it first, then upgrade"));
            }
        }
        let oldest = oldest(&servers);
        let path = self.path(ctx, &oldest, version, o, servers[0].0).await?;
        for v in o.via.iter().filter(|v| !path.contains(v)) {
            ctx.message("warn", format!("`via` names {v}: the way from {oldest} to {version} does not go through it"));
        }
        let steps = if path.is_empty() { vec![version.to_owned()] } else { path };
        let nodes: Vec<&(&Host, Found)> = servers.iter().chain(&agents).collect();
        for release in &steps {
            // What every node runs already is not asked for, and what is brought from here neither.
            if Airgap::of_site(ctx, release)?.binary.is_empty()
                && nodes.iter().any(|(_, f)| version_numbers(&f.version) < version_numbers(release))
            {
                exists(ctx, servers[0].0, release).await?;
            }
        }
        let member = servers[0].1.member;
        let there = oldest == version && agents.iter().all(|(_, f)| f.version == version);
        Ok(Route { oldest, steps, member, there, all })
    }
}
