//! Upgrades: every minor of the servers one at a time, agents behind them, bounded.
use rhai::Dynamic;

use super::config::Part;
use super::hold::Care;
use super::hosts::Machines;
use super::node::{Found, bring, checked, look};
use super::options::{Airgap, check_step, check_version, version_numbers};
use super::route::{Route, oldest};
use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Op, OpScope};
use crate::core::units::Duration;
use crate::kubernetes::Cluster;
use crate::options;
use crate::ssh::Host;

options! {
    /// How to upgrade.
    pub struct UpgradeOptions {
        /// Releases to go through, one for each minor between; default: the newest of each minor's channel.
        via: Vec<String> = Vec::new(),
        /// How many agents at the same time. Their pods need room elsewhere meanwhile.
        limit: i64 = 1,
        /// Evict the pods of a node before its K3s is restarted.
        drain: bool = true,
        /// How long a node's pods may take to leave.
        drain_timeout: Duration = Duration::minutes(10),
        /// Save an etcd snapshot first.
        snapshot: bool = true,
        /// How long one node may take to be back.
        timeout: Duration = Duration::minutes(15),
        /// The servers; default: the site's.
        servers: Dynamic = Dynamic::UNIT,
        /// The agents; default: the site's.
        agents: Dynamic = Dynamic::UNIT,
    }
}

impl UpgradeOptions {
    /// How many agents at the same time.
    ///
    /// # Errors
    /// `invalid` for none.
    pub(super) fn at_once(&self) -> OpResult<usize> {
        let limit = usize::try_from(self.limit).ok().filter(|n| *n > 0);
        limit.ok_or_else(|| OpError::invalid("option `limit`: at least 1"))
    }
}

/// Minors a kubelet may be behind its servers.
const SKEW: u32 = 3;

/// The releases to go through from `from` to `to`, the last one included; `via` names those between.
///
/// # Errors
/// `invalid` for a way back; `not_found` naming the minors that `via` lacks.
pub fn way(from: &str, to: &str, via: &[String]) -> OpResult<Vec<String>> {
    check_version(to)?;
    let (Some(a), Some(b)) = (version_numbers(from), version_numbers(to)) else {
        return Err(OpError::invalid(format!("`{from}` is not a K3s release")));
    };
    if b < a {
        check_step(from, to)?;
    }
    let mut out = Vec::new();
    for minor in a.1 + 1..b.1 {
        let fits = |v: &&String| version_numbers(v).is_some_and(|n| n.0 == b.0 && n.1 == minor);
        match via.iter().find(fits) {
            Some(v) => {
                check_version(v)?;
                out.push(v.clone());
            }
            None => {
                return Err(OpError::not_found(format!(
                    "which release of v{}.{minor} to go through is not known",
                    b.0
                ))
                .hint(format!(
                    "K3s skips no minor: name one in `via`, for example `via: [\"v{}.{minor}.x+k3s1\"]`",
                    b.0
                )));
            }
        }
    }
    if a != b {
        out.push(to.to_owned());
    }
    Ok(out)
}

/// The release that a minor's channel points to, as a node sees it.
async fn channel(ctx: &Ctx, host: &Host, minor: &str) -> OpResult<String> {
    let url = format!("https://update.k3s.io/v1-release/channels/{minor}");
    let script = format!("curl -fsSL -o /dev/null -w '%{{url_effective}}' {url}");
    let text = checked(ctx, host, &script, b"", &format!("the channel {minor} cannot be read"))
        .await
        .map_err(|e| e.hint(format!("name the release yourself: `via: [\"{minor}.x+k3s1\"]`")))?;
    let last = text.trim().rsplit('/').next().unwrap_or_default().replace("%2B", "+");
    check_version(&last).map(|()| last)
}

impl Cluster {
    /// Brings servers and agents to `version`, through every minor; 0 changes when they are there.
    ///
    /// # Errors
    /// `denied` while a server does not vote; what keeps a node from coming back, with its journal's explanation.
    pub async fn ensure_upgrade(&self, ctx: &Ctx, version: &str, o: &UpgradeOptions) -> OpResult<Vec<String>> {
        let Route { all, oldest, steps, member, .. } = self.route(ctx, version, o).await?;
        if oldest != version {
            for line in self.charts_against(ctx, version).await? {
                ctx.message("warn", line);
            }
        }
        if o.snapshot && oldest != version && member {
            self.snapshot_etcd(ctx, &all.servers[0], &format!("before-{}", version.replace('+', "-"))).await?;
        }
        for step in &steps {
            self.bring_agents_near(ctx, step, &all, o).await?;
            for host in &all.servers {
                self.upgrade_node(ctx, host, Part::Server, step, o).await?;
            }
        }
        self.upgrade_agents(ctx, &all.agents, version, o).await?;
        if let Some(join) = self.join() {
            self.set_join(super::Join { version: version.to_owned(), ..(*join).clone() });
        }
        Ok(if oldest == version { Vec::new() } else { steps })
    }

    pub(super) async fn looked<'a>(
        &self,
        ctx: &Ctx,
        hosts: &'a [Host],
        part: Part,
    ) -> OpResult<Vec<(&'a Host, Found)>> {
        let asked = ctx.clock.join_all(hosts.iter().map(|h| look(ctx, h, part)).collect()).await;
        hosts.iter().zip(asked).map(|(h, f)| Ok((h, f?))).collect()
    }

    pub(super) async fn path(
        &self,
        ctx: &Ctx,
        from: &str,
        to: &str,
        o: &UpgradeOptions,
        host: &Host,
    ) -> OpResult<Vec<String>> {
        let mut via = o.via.clone();
        loop {
            match way(from, to, &via) {
                Err(e) if e.is(Kind::NotFound) => {
                    // the minor that is missing is the last word but three of the message
                    let minor = e.message.split_whitespace().find(|w| w.starts_with('v') && w.contains('.'));
                    let Some(minor) = minor.map(str::to_owned) else { return Err(e) };
                    let found = channel(ctx, host, &minor).await?;
                    ctx.message("info", format!("goes through {found}, the newest of {minor}"));
                    via.push(found);
                }
                other => return other,
            }
        }
    }

    /// Before the servers reach `step`: no kubelet may be more than three minors behind.
    async fn bring_agents_near(&self, ctx: &Ctx, step: &str, all: &Machines, o: &UpgradeOptions) -> OpResult<()> {
        let Some(target) = version_numbers(step) else { return Ok(()) };
        let found = self.looked(ctx, &all.agents, Part::Agent).await?;
        let far = |f: &Found| version_numbers(&f.version).is_some_and(|v| v.1 + SKEW < target.1);
        if !found.iter().any(|(_, f)| far(f)) {
            return Ok(());
        }
        let servers = self.looked(ctx, &all.servers, Part::Server).await?;
        self.upgrade_agents(ctx, &all.agents, &oldest(&servers), o).await
    }

    async fn upgrade_agents(&self, ctx: &Ctx, agents: &[Host], version: &str, o: &UpgradeOptions) -> OpResult<()> {
        for group in agents.chunks(o.at_once()?) {
            let work = group.iter().map(|h| self.upgrade_node(ctx, h, Part::Agent, version, o)).collect();
            let mut failed: Option<OpError> = None;
            for r in ctx.clock.join_all(work).await {
                match (r, &mut failed) {
                    (Err(e), Some(first)) => first.others.push(e),
                    (Err(e), none) => *none = Some(e),
                    _ => {}
                }
            }
            if let Some(e) = failed {
                return Err(e);
            }
        }
        Ok(())
    }

    async fn upgrade_node(
        &self,
        ctx: &Ctx,
        host: &Host,
        part: Part,
        version: &str,
        o: &UpgradeOptions,
    ) -> OpResult<()> {
        let name = host.name();
        let found = look(ctx, host, part).await?;
        let newer = version_numbers(&found.version) > version_numbers(version);
        let node = self.get_object(ctx, "node", "", name).await?;
        let runs = node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
        if newer || (found.version == version && runs == version && found.active == "active") {
            return self.release_node(ctx, name).await;
        }
        check_step_of(part, &found.version, version).map_err(|e| e.on(name))?;
        let care = Care { drain: o.drain, drain_limit: o.drain_timeout.0, limit: o.timeout.0 };
        if part == Part::Server {
            self.spare_quorum(ctx, name).await?;
        }
        self.hold_node(ctx, name, care).await?;
        let op = Op::write("k3s", "upgrade", name).class(Class::Adoptable).args(&version);
        ctx.run_op(op, |s| async move { self.replace_binary(&s, host, part, &found, version, care).await }).await?;
        self.release_node(ctx, name).await
    }

    async fn replace_binary(
        &self,
        s: &OpScope,
        host: &Host,
        part: Part,
        found: &Found,
        version: &str,
        care: Care,
    ) -> OpResult<()> {
        let change = Change::new(
            host.name(),
            "k3s version",
            Some(found.version.clone().into()),
            Some(version.to_owned().into()),
        );
        let unit = part.unit();
        s.act(format!("{unit} on {}", host.name()), vec![change], async {
            if found.version != version {
                let airgap = Airgap::of_site(s.ctx(), version)?;
                let how = if airgap.binary.is_empty() { "downloads" } else { "gets" };
                s.waiting(format!("{how} K3s {version}"));
                bring(s.ctx(), host, version, &airgap).await?;
            }
            let restart = format!("systemctl restart --no-block {unit}");
            checked(s.ctx(), host, &restart, b"", &format!("`{unit}` cannot be restarted")).await?;
            s.accepted(format!("unit {unit} on {}", host.name()))?;
            self.wait_back(s, host, part, version, care.limit).await
        })
        .await
    }
}

/// Servers go minor by minor; a drained kubelet may skip up to its servers.
fn check_step_of(part: Part, old: &str, new: &str) -> OpResult<()> {
    match (part, version_numbers(old), version_numbers(new)) {
        (Part::Agent, Some(a), Some(b)) if b >= a && b.1 <= a.1 + SKEW => Ok(()),
        _ => check_step(old, new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_goes_through_every_minor() {
        let via: Vec<String> = ["v1.35.7+k3s1", "v1.34.10+k3s1"].map(str::to_owned).into();
        assert_eq!(
            way("v1.33.5+k3s1", "v1.36.3+k3s1", &via).unwrap(),
            ["v1.34.10+k3s1", "v1.35.7+k3s1", "v1.36.3+k3s1"]
        );
        let e = way("v1.33.5+k3s1", "v1.36.3+k3s1", &via[..1]).unwrap_err();
        assert!(e.message.contains("v1.34") && e.hint.unwrap().contains("via"), "{}", e.message);
        assert_eq!(way("v1.34.1+k3s1", "v1.34.9+k3s1", &[]).unwrap(), ["v1.34.9+k3s1"]);
        assert!(way("v1.34.9+k3s1", "v1.34.9+k3s1", &[]).unwrap().is_empty());
        assert!(way("v1.35.2+k3s1", "v1.34.9+k3s1", &[]).is_err());
    }

    #[test]
    fn a_kubelet_may_skip_three_minors_a_server_none() {
        assert!(check_step_of(Part::Agent, "v1.33.5+k3s1", "v1.36.3+k3s1").is_ok());
        assert!(check_step_of(Part::Agent, "v1.32.5+k3s1", "v1.36.3+k3s1").is_err());
        assert!(check_step_of(Part::Server, "v1.33.5+k3s1", "v1.35.2+k3s1").is_err());
    }
}
