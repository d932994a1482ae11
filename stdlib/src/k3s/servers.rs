//! The servers: who is a member already, then one at a time until each votes.
use std::time::Duration;

use serde_json::Value;

use super::config::{Identity, Part, Start, critical_differences, kube_vip, policies, registries, server_config};
use super::connect::{PORT, join_from, make_cluster, rewrite_kubeconfig, server_kubeconfig};
use super::node::{Found, Wanted, look};
use super::options::{Airgap, ServerOptions, check_step, version_numbers};
use super::start::{wait_unit, with_journal};
use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::Class;
use crate::core::op::{Look, Op, OpScope};
use crate::core::units::Secret;
use crate::kubernetes::{Cluster, Taint, condition, node_trouble, seen, waits_on};
use crate::site::RoleKind;
use crate::ssh::Host;

/// Taint of servers when there are agents.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane:NoSchedule";

/// The plan for the servers, made before anything is written.
struct Plan<'a> {
    o: &'a ServerOptions,
    hosts: &'a [Host],
    found: Vec<Found>,
    password: Secret,
    taints: Vec<String>,
    sans: Vec<String>,
}

/// Forms the cluster of `hosts`: the first server makes it, the others join one at a time.
///
/// # Errors
/// Whatever keeps a server from voting, with its journal's explanation.
pub async fn ensure_servers(ctx: &Ctx, hosts: &[Host], o: &ServerOptions) -> OpResult<Cluster> {
    o.check()?;
    if hosts.is_empty() {
        return Err(
            OpError::invalid("a cluster needs a server").hint("give a node of the site file a role of kind `server`")
        );
    }
    if hosts.len().is_multiple_of(2) {
        ctx.message("warn", format!("{}: use an odd number", even_servers(hosts.len())));
    }
    let mut plan = make_plan(ctx, hosts, o).await?;
    let order = plan.order();
    let leader = order[0];
    let mut cluster: Option<Cluster> = None;
    for i in order {
        if let (Some(c), false) = (&cluster, plan.found[i].member || plan.found[i].registered) {
            // a machine made anew under an old name: etcd and the cluster still know the old one
            c.forget_node(ctx, hosts[i].name()).await?;
        }
        let url = format!("https://{}:{PORT}", hosts[leader].address());
        let op = Op::write("k3s", "ensure_server", hosts[i].name()).class(Class::Adoptable).args(&o.version);
        let plan_ref = &plan;
        let single = ctx.run_op(op, |s| async move { ensure_server(&s, plan_ref, i, i == leader, &url).await }).await?;
        if i == leader {
            // joiners get the token that pins the CA
            plan.found[i] = look(ctx, &hosts[i], Part::Server).await?;
            super::birth::note(ctx, &plan.found[i], o).await?;
            cluster = Some(single);
        }
    }
    let text = server_kubeconfig(ctx, &hosts[leader]).await?;
    let address = if o.address.is_empty() { hosts[leader].address() } else { &o.address };
    let whole = make_cluster(ctx, &text, address, hosts)?;
    whole.set_join(super::Join { airgap: Airgap::of(o)?, ..join_from(&plan.found[leader], address) });
    Ok(whole)
}

async fn make_plan<'a>(ctx: &Ctx, hosts: &'a [Host], o: &'a ServerOptions) -> OpResult<Plan<'a>> {
    // every declared server is asked before one of them may make a cluster
    let asked = ctx.clock.join_all(hosts.iter().map(|h| look(ctx, h, Part::Server)).collect()).await;
    let found = asked.into_iter().collect::<OpResult<Vec<_>>>().map_err(|e| {
        let hint =
            "all declared servers must answer before a cluster is made: one of them may be a member of it already";
        if e.hint.is_none() { e.hint(hint) } else { e }
    })?;
    same_cluster(hosts, &found)?;
    let noted = super::birth::noted(ctx).await;
    let member = hosts.iter().zip(&found).find_map(|(h, f)| Some((h.name().to_owned(), f.ca_hash()?.to_owned())));
    if !found.iter().any(|f| f.member) {
        super::unborn::check(ctx).await?;
        if let (Ok(Some(birth)), Some(site)) = (&noted, &ctx.site) {
            return Err(super::birth::lost(&site.name, birth));
        }
        noted.as_ref().map_err(OpError::clone)?;
    }
    let password = password(ctx, o, hosts, &found)?;
    let plan = Plan::new(ctx, o, hosts, found, password);
    plan.check_release()?;
    for i in 0..hosts.len() {
        plan.check(i)?;
    }
    // A hypervisor that does not answer keeps nobody from looking after a cluster that there is.
    if let (Ok(Some(birth)), Some((name, ca))) = (&noted, &member) {
        super::birth::same(birth, name, ca, o)?;
    }
    Ok(plan)
}

/// Members must be members of one cluster.
pub(super) fn same_cluster(hosts: &[Host], found: &[Found]) -> OpResult<()> {
    let hashes: Vec<_> = hosts.iter().zip(found).filter_map(|(h, f)| Some((h.name(), f.ca_hash()?))).collect();
    match hashes.iter().find(|(_, h)| *h != hashes[0].1) {
        Some((name, _)) => {
            Err(OpError::refused(format!("`{}` and `{name}` are servers of different clusters", hashes[0].0))
                .on((*name).to_owned())
                .because("their CA hashes differ (/var/lib/rancher/k3s/server/token)")
                .hint("nothing was changed: remove K3s from the server that does not belong here, then run again"))
        }
        None => Ok(()),
    }
}

/// The token's password: the cluster's own where one exists or is being made, else the site's.
fn password(ctx: &Ctx, o: &ServerOptions, hosts: &[Host], found: &[Found]) -> OpResult<Secret> {
    let all = || hosts.iter().zip(found);
    let born = all().find_map(|(h, f)| Some((h, f.born_with()?)));
    // A run that died before the first start was over has left its token only where K3s takes it from.
    let known = born.map(|(_, theirs)| theirs).or_else(|| all().find_map(|(_, f)| f.configured_password()));
    if let (Some(theirs), Some(file)) = (known, o.unborn_token(ctx)) {
        // the state directory was lost, the cluster was not
        crate::site::write_private(&ctx.state_file(&file), theirs.as_bytes())?;
    }
    let ours = o.resolve_token(ctx)?;
    match born {
        Some((host, theirs)) if theirs.trim() != ours.reveal().trim() => {
            Err(OpError::refused("the cluster was made with another token than the site's")
                .on(host.name())
                .hint("put the first token back where `token` of the [k3s] section points; snapshots need it too"))
        }
        _ => Ok(Secret::new(ours.reveal().trim())),
    }
}

/// What each of `hosts` should have as a server of the cluster with this token; the first leads, none is a member yet.
pub(super) fn wanted_anew(ctx: &Ctx, hosts: &[Host], o: &ServerOptions, password: &str, full: &str) -> Vec<Wanted> {
    let found = vec![Found::default(); hosts.len()];
    let plan = Plan::new(ctx, o, hosts, found, Secret::new(password));
    let url = format!("https://{}:{PORT}", hosts[0].address());
    (0..hosts.len()).map(|i| plan.wanted(i, i == 0, &url, full)).collect()
}

/// What an even number of servers is worth: etcd needs a majority.
pub(crate) fn even_servers(n: usize) -> String {
    match (n / 2).saturating_sub(1) {
        0 => format!("{n} servers survive the failure of none, as 1 does"),
        f => format!("{n} servers survive the failure of {f}, as {} do", n - 1),
    }
}

impl<'a> Plan<'a> {
    fn new(ctx: &Ctx, o: &'a ServerOptions, hosts: &'a [Host], found: Vec<Found>, password: Secret) -> Self {
        let agents = ctx.site.as_ref().is_some_and(|s| s.nodes_of(RoleKind::Agent).next().is_some());
        let taints = match &o.taints {
            Some(t) => t.clone(),
            None if agents => vec![CONTROL_PLANE.to_owned()],
            None => Vec::new(),
        };
        let mut sans: Vec<String> = Vec::new();
        let names = hosts.iter().flat_map(|h| [h.address(), h.name()]);
        for san in std::iter::once(o.address.as_str()).chain(names).chain(o.tls_san.iter().map(String::as_str)) {
            if !san.is_empty() && !sans.iter().any(|s| s == san) {
                sans.push(san.to_owned());
            }
        }
        Plan { o, hosts, found, password, taints, sans }
    }

    /// Members first, the one that answers before others; then the rest as declared.
    fn order(&self) -> Vec<usize> {
        let rank = |i: &usize| {
            let f = &self.found[*i];
            match (f.member, f.active == "active") {
                (true, true) => 0,
                (true, false) => 1,
                _ => 2,
            }
        };
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        order.sort_by_key(rank);
        order
    }

    fn identity(&self, i: usize) -> Identity {
        let host = &self.hosts[i];
        let shape = host.node().map(|n| n.shape.clone()).unwrap_or_default();
        let mut labels = self.o.labels.clone();
        labels.extend(shape.labels.unwrap_or_default());
        let mut taints = self.taints.clone();
        taints.extend(shape.taints.unwrap_or_default());
        Identity { name: host.name().to_owned(), ip: host.address().to_owned(), labels, taints }
    }

    fn wanted(&self, i: usize, leads: bool, leader_url: &str, leader_token: &str) -> Wanted {
        let found = &self.found[i];
        let old = &found.config;
        let start = match (found.member, old["server"].as_str()) {
            // how a member once came in does not matter any more: it keeps its words
            (true, Some(url)) => Start::Join(url.to_owned()),
            (true, None) => Start::Init,
            _ if leads => Start::Init,
            _ => Start::Join(leader_url.to_owned()),
        };
        let token = match old["token"].as_str() {
            Some(t) if found.member && (t == self.password.reveal() || t == found.token) => Secret::new(t),
            _ if start == Start::Init => self.password.clone(),
            _ => Secret::new(leader_token),
        };
        Wanted {
            part: Part::Server,
            version: self.o.version.clone(),
            config: server_config(self.o, &self.identity(i), &start, &token, &self.sans),
            registries: registries(&self.o.registries),
            policies: policies(self.o),
            manifest: (self.o.vip && leads).then(|| kube_vip(&self.o.address)),
            airgap: Airgap::of(self.o).unwrap_or_default(),
        }
    }

    /// A new release for a cluster that stands is an upgrade, with all that belongs to one; a server that alone is on
    /// another release follows the others.
    fn check_release(&self) -> OpResult<()> {
        let wanted = &self.o.version;
        let mut members = self.found.iter().filter(|f| f.member && !f.version.is_empty());
        let Some(have) = members.clone().next().map(|f| &f.version) else { return Ok(()) };
        let older = version_numbers(wanted) < version_numbers(have);
        if older || members.any(|f| f.version == *wanted) {
            return Ok(());
        }
        Err(OpError::refused(format!("the cluster runs K3s {have}, the site file wants {wanted}")).hint(format!(
            "`gpuhost run recipes/upgrade.rhai` takes it there: snapshot, node by node, drained; or put {have} back into the [k3s] section"
        )))
    }

    /// Configurations of the other members that run.
    fn others(&self, i: usize) -> impl Iterator<Item = &Value> {
        let others = self.found.iter().enumerate().filter(move |(j, f)| *j != i && f.member && f.active == "active");
        others.map(|(_, f)| &f.config).filter(|c| c.is_object())
    }

    /// What may not change on a member.
    fn check(&self, i: usize) -> OpResult<()> {
        let (host, found) = (&self.hosts[i], &self.found[i]);
        if !found.version.is_empty() && found.member {
            check_step(&found.version, &self.o.version).map_err(|e| e.on(host.name()))?;
        }
        if !found.member || !found.config.is_object() {
            return Ok(());
        }
        let wanted = self.wanted(i, false, "", "");
        let mut e = OpError::refused("the cluster was made with other settings than the site file has").on(host.name());
        let others: Vec<&Value> = self.others(i).collect();
        for (key, theirs, ours) in critical_differences(&found.config, &wanted.config) {
            // a file that alone differs from the site file and from the other members was edited: it is written again
            let alone = |o: &&Value| critical_differences(o, &wanted.config).iter().all(|d| d.0 != key);
            if !others.is_empty() && others.iter().all(alone) {
                continue;
            }
            e = e.because(format!("{key}: the cluster has {theirs}, the site file {ours}"));
        }
        if e.causes.is_empty() {
            return Ok(());
        }
        Err(e.hint("these are fixed at the cluster's birth: put the old values back into the [k3s] section, or build a new cluster"))
    }
}

/// One server: files, unit, API, node Ready, etcd vote, labels and taints.
async fn ensure_server(s: &OpScope, plan: &Plan<'_>, i: usize, leads: bool, url: &str) -> OpResult<Cluster> {
    let (host, found) = (&plan.hosts[i], &plan.found[i]);
    let leader = plan.order()[0];
    let wanted = plan.wanted(i, leads, url, &plan.found[leader].token);
    let changes = wanted.changes(host.name(), found);
    let id = plan.identity(i);
    if !changes.is_empty() {
        if found.member && found.active == "active" && wanted.needs_restart(found) {
            spare_quorum(s, host, found).await?;
        }
        s.act(format!("k3s on {}", host.name()), changes, async {
            wanted.write(s, host, found).await?;
            wait_unit(s, host, Part::Server, plan.o.timeout.0).await
        })
        .await?;
    } else if found.active != "active" {
        wait_unit(s, host, Part::Server, plan.o.timeout.0).await?;
    }
    let text = wait_kubeconfig(s, host).await?;
    let name = super::connect::context_name(s.ctx());
    let config = Secret::new(rewrite_kubeconfig(&text, host.address(), &name)?);
    let cluster = Cluster::new(name, config, vec![(host.address().to_owned(), PORT)]);
    if let Err(e) = wait_voter(s, &cluster, host.name(), plan.o.timeout.0).await {
        return Err(if e.is(Kind::Timeout) { with_journal(s, host, Part::Server, e).await } else { e });
    }
    let taints = id.taints.iter().map(|t| Taint::parse(t)).collect::<OpResult<Vec<_>>>()?;
    cluster.ensure_node_meta(s, host.name(), &id.labels, &taints).await?;
    Ok(cluster)
}

/// K3s writes its kubeconfig a moment after its unit is up.
async fn wait_kubeconfig(s: &OpScope, host: &Host) -> OpResult<String> {
    s.wait_for("the server's kubeconfig", Duration::from_secs(2), Duration::from_secs(60), || async {
        match server_kubeconfig(s.ctx(), host).await {
            Err(e) if e.is(Kind::NotFound) => Ok(Look::Pending(seen(&e))),
            other => other.map(Look::Ready),
        }
    })
    .await
}

/// Waits until the server's own API is ready, its node Ready, and its etcd member votes.
async fn wait_voter(s: &OpScope, cluster: &Cluster, name: &str, limit: Duration) -> OpResult<()> {
    let every = Duration::from_secs(3);
    s.wait_for(&format!("{name} as a voting server"), every, limit, || async {
        let ready = cluster.send(s.ctx(), &crate::kubernetes::rest::Request::get("/readyz")).await;
        match ready {
            Ok(r) if r.ok() => {}
            Ok(r) => return Ok(Look::Pending(format!("readyz answers {}: {}", r.status, first_line(&r.text())))),
            Err(e) => return Ok(Look::Pending(seen(&e))),
        }
        let node = match cluster.find_object(s.ctx(), "node", "", name).await {
            Err(e) if waits_on(&e) => return Ok(Look::Pending(seen(&e))),
            other => other?,
        };
        let Some(node) = node else { return Ok(Look::Pending("its node has not registered".to_owned())) };
        if let Some(trouble) = node_trouble(&node) {
            return Ok(Look::Pending(trouble));
        }
        Ok(match condition(&node, "EtcdIsVoter") {
            Some((status, _)) if status == "True" => Look::Ready(()),
            Some((status, why)) => Look::Pending(format!("EtcdIsVoter is {status} ({why})")),
            None => Look::Pending("etcd membership is not reported yet".to_owned()),
        })
    })
    .await
}

/// Refuses to restart a server while another one does not vote; a server that does not answer costs nothing more.
async fn spare_quorum(s: &OpScope, host: &Host, found: &Found) -> OpResult<()> {
    let Ok(text) = server_kubeconfig(s.ctx(), host).await else { return Ok(()) };
    let config = Secret::new(rewrite_kubeconfig(&text, host.address(), "k3s")?);
    let cluster = Cluster::new("k3s", config, vec![(host.address().to_owned(), PORT)]);
    cluster.spare_quorum(s.ctx(), found.config["node-name"].as_str().unwrap_or(host.name())).await
}

fn first_line(text: &str) -> String {
    let bad = text.lines().find(|l| l.starts_with("[-]"));
    bad.or_else(|| text.lines().next()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_number_of_servers_is_worth_no_more_than_one_less() {
        assert_eq!(even_servers(2), "2 servers survive the failure of none, as 1 does");
        assert_eq!(even_servers(4), "4 servers survive the failure of 1, as 3 do");
        assert_eq!(even_servers(6), "6 servers survive the failure of 2, as 5 do");
    }
}
