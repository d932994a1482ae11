//! Restoring a snapshot when all servers of its cluster are lost: fresh servers become that cluster, whatever they have now.
use super::birth;
use super::config::Part;
use super::node::{Found, Wanted, checked, full_token, look, put_file};
use super::options::ServerOptions;
use super::restore::{RestoreOptions, place, run_reset, stop};
use super::servers::wanted_anew;
use super::snapshot_token::{beside, hash_of};
use super::start::wait_unit;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Op, OpScope};
use crate::kubernetes::Cluster;
use crate::site::RoleKind;
use crate::ssh::Host;

/// Where K3s keeps everything.
const HOME: &str = "/var/lib/rancher/k3s";

/// What the site's machines have now.
struct Now {
    /// Servers; `None` for those that do not answer.
    servers: Vec<(Host, Option<Found>)>,
    /// Agents that answer.
    agents: Vec<(Host, Found)>,
}

impl Now {
    async fn look(ctx: &Ctx, hosts: &[Host]) -> OpResult<Self> {
        let asked = ctx.clock.join_all(hosts.iter().map(|h| look(ctx, h, Part::Server)).collect()).await;
        let mut servers = Vec::new();
        for (i, (host, found)) in hosts.iter().zip(asked).enumerate() {
            match found {
                Err(e) if i == 0 => return Err(e.hint("the first server has to answer: the snapshot goes there")),
                other => servers.push((host.clone(), other.ok())),
            }
        }
        let site = ctx.site.as_deref();
        let agents: Vec<Host> =
            site.into_iter().flat_map(|s| s.nodes_of(RoleKind::Agent).map(|n| Host::for_node(s, n))).collect();
        let asked = ctx.clock.join_all(agents.iter().map(|h| ctx.looking(look(ctx, h, Part::Agent))).collect()).await;
        let agents = agents.into_iter().zip(asked).filter_map(|(h, f)| Some((h, f.ok()?))).collect();
        Ok(Now { servers, agents })
    }

    /// Whether every server that answers is of the cluster with this CA: an ordinary restore does, then.
    fn at_home(&self, ca: Option<&str>) -> bool {
        self.servers.iter().filter_map(|(_, f)| f.as_ref()).all(|f| is_of(f, ca))
    }

    /// Agents whose token is of another cluster than this one.
    fn strangers(&self, ca: Option<&str>) -> impl Iterator<Item = &Host> {
        self.agents.iter().filter(move |(_, f)| joined(f).is_some_and(|theirs| Some(theirs) != ca)).map(|(h, _)| h)
    }

    /// Names of the agents that are of this cluster: their machines outlived its servers.
    fn survivors(&self, ca: Option<&str>) -> Vec<&str> {
        self.agents.iter().filter(|(_, f)| ca.is_some() && joined(f) == ca).map(|(h, _)| h.name()).collect()
    }
}

/// Whether a server is a member of the cluster with this CA.
fn is_of(server: &Found, ca: Option<&str>) -> bool {
    ca.is_some() && server.member && server.ca_hash() == ca
}

/// Hash of the CA in an agent's token.
fn joined(agent: &Found) -> Option<&str> {
    agent.config["token"].as_str().and_then(hash_of)
}

/// What is needed of the copy, and of the servers to be.
pub(super) struct Anew<'a> {
    hosts: &'a [Host],
    snapshot: &'a str,
    o: &'a RestoreOptions,
    servers: &'a ServerOptions,
    ca: Option<String>,
    password: String,
    now: Now,
}

/// Looks at the copy and the machines; `None` when the servers are of the snapshot's cluster.
///
/// # Errors
/// `invalid` without a folder; `not_found` without the copy; `denied` without its token; when the first server does not answer.
pub(super) async fn look_at<'a>(
    ctx: &Ctx,
    hosts: &'a [Host],
    snapshot: &'a str,
    o: &'a RestoreOptions,
    servers: &'a ServerOptions,
) -> OpResult<Option<Anew<'a>>> {
    servers.check()?;
    let folder = o.folder.as_deref().ok_or_else(|| {
        OpError::invalid("new servers have no snapshot of their own: the copy of one is needed")
            .hint("name the folder that `recipes/backup.rhai` wrote to: `--set folder=backup`")
    })?;
    let (ca, password) = beside(ctx, &hosts[0], folder, snapshot)?;
    let now = Now::look(ctx, hosts).await?;
    Ok((!now.at_home(ca.as_deref())).then_some(Anew { hosts, snapshot, o, servers, ca, password, now }))
}

impl Anew<'_> {
    /// Makes the servers the cluster of the snapshot.
    ///
    /// # Errors
    /// `denied` when declined; what K3s says when it cannot read the snapshot: the first server has what it had, then.
    pub(super) async fn restore(&self, ctx: &Ctx) -> OpResult<Cluster> {
        let leader = &self.hosts[0];
        let op = Op::destroy("k3s", "restore_etcd", leader.name()).class(Class::Adoptable).args(&self.snapshot);
        ctx.run_op(op, |s| async move {
            let changes = self.changes(s.ctx()).await;
            s.act(format!("the cluster on {}", leader.name()), changes, self.work(&s)).await
        })
        .await?;
        let cluster = super::connect::connect(ctx, self.hosts).await?;
        cluster.keep_token(ctx, leader, &self.password, self.o.timeout).await?;
        Ok(cluster)
    }

    /// What is given up and made, for the question and the journal.
    pub(super) async fn changes(&self, ctx: &Ctx) -> Vec<Change> {
        let mut out = Vec::new();
        for (i, (host, found)) in self.now.servers.iter().enumerate() {
            let Some(f) = found else {
                let words = "does not answer: its node object is removed";
                out.push(Change::new(host.name(), "etcd member", None, Some(words.into())));
                continue;
            };
            let (what, before) = match f.ca_hash().filter(|_| f.member) {
                Some(ca) if Some(ca) == self.ca.as_deref() => {
                    ("etcd datastore".to_owned(), Some("as it is now".into()))
                }
                Some(ca) => (
                    format!("etcd datastore of another cluster (CA {})", birth::shortened(ca)),
                    Some("given up, kept aside".into()),
                ),
                None => ("etcd datastore".to_owned(), None),
            };
            let after = if i == 0 { format!("as in {}", self.snapshot) } else { "joins the first server".to_owned() };
            out.push(Change::new(host.name(), what, before, Some(after.into())));
            if f.version != self.servers.version {
                let had = (!f.version.is_empty()).then(|| f.version.clone().into());
                out.push(Change::new(host.name(), "k3s version", had, Some(self.servers.version.clone().into())));
            }
        }
        for host in self.now.strangers(self.ca.as_deref()) {
            let after = Some("joins this cluster".into());
            out.push(Change::new(host.name(), "agent of another cluster", Some("its node".into()), after));
        }
        if let (Ok(Some(noted)), Some(ca)) = (birth::noted(ctx).await, &self.ca)
            && !ca.starts_with(&noted.ca)
        {
            let after = format!("the cluster with CA {}", birth::shortened(ca));
            let before = format!("the cluster with CA {}", noted.ca);
            out.push(Change::new(self.hosts[0].name(), "the site's cluster", Some(before.into()), Some(after.into())));
        }
        out
    }

    async fn work(&self, s: &OpScope) -> OpResult<()> {
        let leader = &self.hosts[0];
        let limit = self.o.timeout.0;
        let found = self.now.servers[0].1.clone().unwrap_or_default();
        let lead = self.wanted(s.ctx(), "").swap_remove(0);
        self.reset_or_go_back(s, leader, &found, &lead).await?;
        // the servers of the other cluster stop before this one speaks for the site's addresses
        for (host, found) in self.now.servers.iter().skip(1).filter_map(|(h, f)| Some((h, f.as_ref()?))) {
            put_aside(s.ctx(), host, found).await?;
        }
        lead.launch(s, leader).await?;
        wait_unit(s, leader, Part::Server, limit).await?;
        let cluster = super::connect::connect(s.ctx(), std::slice::from_ref(leader)).await?;
        self.forget_machines(s, &cluster).await?;
        cluster.wait_back(s, leader, Part::Server, "", limit).await?;
        let born = look(s.ctx(), leader, Part::Server).await?;
        birth::replace(s.ctx(), &born, self.servers).await?;
        let full = born.ca_hash().map_or_else(|| self.password.clone(), |ca| full_token(ca, &self.password));
        for ((host, found), wanted) in self.now.servers.iter().zip(self.wanted(s.ctx(), &full)).skip(1) {
            let Some(found) = found else { continue };
            wanted.write_files(s, host, found).await?;
            wanted.launch(s, host).await?;
            cluster.wait_back(s, host, Part::Server, "", limit).await?;
        }
        Ok(())
    }

    fn wanted(&self, ctx: &Ctx, full: &str) -> Vec<Wanted> {
        wanted_anew(ctx, self.hosts, self.servers, &self.password, full)
    }

    /// The reset on the first server; when it fails, the server goes on with what it had.
    async fn reset_or_go_back(&self, s: &OpScope, leader: &Host, found: &Found, lead: &Wanted) -> OpResult<()> {
        let aside = put_aside(s.ctx(), leader, found).await?;
        let reset = async {
            lead.write_files(s, leader, found).await?;
            let path = place(s.ctx(), leader, self.snapshot, self.o).await?;
            run_reset(s, leader, &path).await
        };
        let Err(e) = reset.await else { return Ok(()) };
        if e.stop.is_some() || aside.is_empty() {
            return Err(e);
        }
        let script = format!("cd {HOME} || exit 1\nrm -rf server\nmv {aside} server\n");
        let back = async {
            checked(s.ctx(), leader, &script, b"", "the old datastore cannot be put back").await?;
            put_file(s.ctx(), leader, super::config::CONFIG, "0600", &super::config::to_yaml(&found.config)).await?;
            if found.active == "active" {
                lead.launch(s, leader).await?;
                wait_unit(s, leader, Part::Server, self.o.timeout.0).await?;
            }
            Ok(())
        };
        match back.await {
            Ok(()) => Err(e.because("the server has what it had before")),
            Err(worse) => {
                let worse: OpError = worse;
                Err(e.because(worse.to_string()).hint(format!("what the server had lies below {HOME}/{aside}")))
            }
        }
    }

    /// Nodes whose machines are lost: their objects and passwords would keep the new machines out. The first server's own
    /// object stays: its etcd member goes with it.
    async fn forget_machines(&self, s: &OpScope, cluster: &Cluster) -> OpResult<()> {
        let limit = self.o.timeout.0;
        let nodes = cluster.once_served(s, limit, "node", "").await?;
        let kept = self.now.survivors(self.ca.as_deref());
        for node in nodes {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            if name != self.hosts[0].name() && !kept.contains(&name) {
                cluster.delete_now(s.ctx(), "node", "", name).await?;
            }
        }
        cluster.forget_passwords(s, limit).await
    }
}

/// Stops K3s and puts all it keeps aside; gives the name of the folder, empty when there was nothing.
async fn put_aside(ctx: &Ctx, host: &Host, found: &Found) -> OpResult<String> {
    if !found.unit.is_empty() {
        stop(ctx, host).await?;
    }
    let name = format!("server.before-restore-{}", ctx.clock.now_ms().await / 1000);
    let script = format!("cd {HOME} 2>/dev/null || exit 0\n[ ! -e server ] || {{ mv server {name} && echo moved; }}\n");
    let said = checked(ctx, host, &script, b"", "the old datastore cannot be put aside").await?;
    Ok(if said.contains("moved") { name } else { String::new() })
}

impl RestoreOptions {
    /// The servers to be, when they are new.
    ///
    /// # Errors
    /// `invalid` for what is no map of the `[k3s]` section.
    pub(super) fn servers(&self) -> OpResult<Option<ServerOptions>> {
        if self.new_servers.is_unit() {
            return Ok(None);
        }
        let map = self.new_servers.clone().try_cast::<rhai::Map>().ok_or_else(|| {
            OpError::invalid("option `new_servers`: expected the [k3s] section").hint("`new_servers: site().k3s`")
        })?;
        ServerOptions::read(&map).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_is_of_the_snapshots_cluster_is_told_by_its_ca() {
        let server = |token: &str| Found { member: !token.is_empty(), token: token.to_owned(), ..Found::default() };
        assert!(is_of(&server("K10aa::server:pw"), Some("aa")));
        assert!(!is_of(&server("K10aa::server:pw"), Some("bb")) && !is_of(&server(""), Some("aa")));
        assert!(!is_of(&server("pw"), None), "a token in short form names no CA");
        let agent = |token: &str| Found { config: json!({"token": token}), ..Found::default() };
        assert_eq!(joined(&agent("K10aa::server:pw")), Some("aa"));
        assert_eq!((joined(&agent("pw")), joined(&Found::default())), (None, None));
    }
}
