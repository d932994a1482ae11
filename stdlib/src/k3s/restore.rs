//! Restoring etcd from a snapshot: one server becomes the cluster, the others join it anew.
use rhai::Dynamic;
use serde_json::Value;

use super::config::{CONFIG, Part, to_yaml};
use super::connect::PORT;
use super::node::{Found, checked, look, put_file};
use super::snapshot::FOLDER;
use super::start::wait_unit;
use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Look, Op, OpScope};
use crate::core::units::Duration;
use crate::kubernetes::{Cluster, epoch_seconds, seen, waits_on};
use crate::options;
use crate::ssh::RunOptions;
use crate::ssh::{Host, quote};

options! {
    /// How to restore.
    pub struct RestoreOptions {
        /// Local folder that holds the snapshot, when it is not on the first server's disk.
        folder: Option<String> = None,
        /// The servers are new machines: the `k3s` section (`site().k3s`). What they have now is given up, the snapshot's
        /// cluster is the site's from then on. Needs `folder`.
        new_servers: Dynamic = Dynamic::UNIT,
        /// How long one server may take to be back.
        timeout: Duration = Duration::minutes(15),
    }
}

/// The datastore's folder.
const DB: &str = "/var/lib/rancher/k3s/server/db";

/// What K3s says when a reset is complete.
const DONE: &str = "has been reset";

/// A server's config.yaml for a reset (`None`) or for joining the server that was reset.
#[must_use]
pub fn rejoin_config(config: &Value, leader: Option<&str>) -> Value {
    let mut c = config.clone();
    if let Some(map) = c.as_object_mut() {
        map.remove("server");
        map.remove("cluster-init");
        match leader {
            Some(url) => map.insert("server".into(), url.into()),
            None => map.insert("cluster-init".into(), true.into()),
        };
    }
    c
}

/// Restores the datastore of `hosts[0]` from `snapshot`; the other servers lose theirs (kept aside) and join again.
///
/// # Errors
/// `denied` when declined, for a snapshot of another cluster, and when the snapshot's token is not at hand; `not_found`
/// without the snapshot; what K3s says when it cannot be read: the servers run again then, on what they had.
pub async fn restore_etcd(ctx: &Ctx, hosts: &[Host], snapshot: &str, o: &RestoreOptions) -> OpResult<Cluster> {
    let leader = hosts.first().ok_or_else(|| OpError::invalid("no server to restore on"))?;
    if let Some(servers) = o.servers()?
        && let Some(anew) = super::restore_new::look_at(ctx, hosts, snapshot, o, &servers).await?
    {
        return anew.restore(ctx).await;
    }
    let op = Op::destroy("k3s", "restore_etcd", leader.name()).class(Class::Adoptable).args(&snapshot);
    let limit = o.timeout.0;
    ctx.run_op(op, |s| async move {
        let Looked { found, others, token, changes } = look_at(s.ctx(), hosts, snapshot, o).await?;
        let path = place(s.ctx(), leader, snapshot, o).await?;
        let url = format!("https://{}:{PORT}", leader.address());
        let work = Work { leader, found: &found, others: &others, token: token.as_deref(), limit };
        work.stop_all(&s).await?;
        s.act(format!("etcd of {}", leader.name()), changes, async {
            work.reset_or_go_back(&s, &path).await?;
            start(&s, leader, limit).await?;
            let cluster = super::connect::connect(s.ctx(), std::slice::from_ref(leader)).await?;
            cluster.forget_passwords(&s, limit).await?;
            cluster.wait_back(&s, leader, Part::Server, "", limit).await?;
            for (host, found) in &others {
                match found {
                    Some(f) if f.member => rejoin(&s, &cluster, host, &work.config(f, Some(&url)), limit).await?,
                    // a machine that is gone or empty: its node must not keep the new one out
                    _ => cluster.forget_gone(s.ctx(), host.name()).await?,
                }
            }
            Ok(())
        })
        .await?;
        let cluster = super::connect::connect(s.ctx(), hosts).await?;
        if let Some(password) = &token {
            cluster.keep_token(s.ctx(), leader, password, o.timeout).await?;
        }
        Ok(cluster)
    })
    .await
}

/// What is known before anything is stopped.
struct Looked {
    found: Found,
    others: Vec<(Host, Option<Found>)>,
    token: Option<String>,
    changes: Vec<Change>,
}

/// Looks at the servers and the snapshot; refuses what could not be restored.
async fn look_at(ctx: &Ctx, hosts: &[Host], snapshot: &str, o: &RestoreOptions) -> OpResult<Looked> {
    let leader = &hosts[0];
    let found = look(ctx, leader, Part::Server).await?;
    let others = ask_others(ctx, &hosts[1..]).await;
    if found.version.is_empty() || !found.config.is_object() {
        return Err(no_k3s(leader, &others));
    }
    of_one_cluster(hosts, &found, &others)?;
    let token = super::snapshot_token::find(ctx, hosts, &found, snapshot, o.folder.as_deref()).await?;
    is_there(ctx, leader, snapshot, o).await?;
    let changes = listing(ctx, hosts, leader, snapshot, o.folder.as_deref(), &others).await;
    Ok(Looked { found, others, token, changes })
}

/// What [`restore_etcd`] would do, from the same looks; nothing is touched.
///
/// # Errors
/// What it would refuse: no such snapshot, no token for it, servers of several clusters.
pub async fn check_restore(ctx: &Ctx, hosts: &[Host], snapshot: &str, o: &RestoreOptions) -> OpResult<Vec<Change>> {
    let leader = hosts.first().ok_or_else(|| OpError::invalid("no server to restore on"))?;
    let op = Op::read("k3s", "check_restore", leader.name()).args(&snapshot);
    ctx.run_op(op, |s| async move {
        if let Some(servers) = o.servers()?
            && let Some(anew) = super::restore_new::look_at(s.ctx(), hosts, snapshot, o, &servers).await?
        {
            return Ok(anew.changes(s.ctx()).await);
        }
        Ok(look_at(s.ctx(), hosts, snapshot, o).await?.changes)
    })
    .await
}

/// What a restore works on.
struct Work<'a> {
    leader: &'a Host,
    found: &'a Found,
    others: &'a [(Host, Option<Found>)],
    /// Password of the snapshot's token.
    token: Option<&'a str>,
    limit: std::time::Duration,
}

impl Work<'_> {
    /// The servers that answered, the leader first.
    fn servers(&self) -> impl Iterator<Item = (&Host, &Found)> {
        let others = self.others.iter().filter_map(|(h, f)| Some((h, f.as_ref()?)));
        std::iter::once((self.leader, self.found)).chain(others)
    }

    /// config.yaml for the reset, or for joining: with the snapshot's token.
    fn config(&self, found: &Found, leader: Option<&str>) -> Value {
        super::snapshot_token::put(&rejoin_config(&found.config, leader), self.found.ca_hash(), self.token)
    }

    /// Stops K3s on every server that answers; where one cannot be stopped, all are started again.
    async fn stop_all(&self, s: &OpScope) -> OpResult<()> {
        let running = self.servers().filter(|(_, f)| f.active == "active");
        let changes = running.map(|(h, _)| service(h, "running", "stopped")).collect();
        let stopped = s.act("k3s on the servers", changes, async {
            for (host, _) in self.servers() {
                stop(s.ctx(), host).await?;
            }
            Ok(())
        });
        match stopped.await {
            Err(e) if e.stop.is_none() => Err(self.started_again(s, e).await),
            other => other,
        }
    }

    /// The reset; when it fails the servers go on with the datastore they had.
    async fn reset_or_go_back(&self, s: &OpScope, path: &str) -> OpResult<()> {
        let before = set_aside(s.ctx(), self.leader).await?;
        let Err(e) = reset(s, self.leader, self.found, &self.config(self.found, None), path).await else {
            return Ok(());
        };
        let back = async {
            // K3s puts the datastore aside before it reads the snapshot
            let after = set_aside(s.ctx(), self.leader).await?;
            if let Some(aside) = after.iter().find(|d| !before.contains(d)) {
                let now = s.ctx().clock.now_ms().await / 1000;
                let script = format!(
                    "cd {DB} || exit 1\n[ ! -e etcd ] || mv etcd etcd.failed-restore-{now}\nmv {} etcd\n",
                    quote(aside)
                );
                checked(s.ctx(), self.leader, &script, b"", "the old datastore cannot be put back").await?;
            }
            put_file(s.ctx(), self.leader, CONFIG, "0600", &to_yaml(&self.found.config)).await
        };
        match back.await {
            Ok(()) => Err(self.started_again(s, e).await),
            Err(worse) => Err(e.because(worse.to_string()).hint(format!(
                "K3s is stopped on all servers: put the old datastore back below {DB}, then `systemctl start k3s` on each"
            ))),
        }
    }

    /// Starts the servers that ran; the error says how that went.
    async fn started_again(&self, s: &OpScope, e: OpError) -> OpError {
        let ran: Vec<&Host> = self.servers().filter(|(_, f)| f.active == "active").map(|(h, _)| h).collect();
        let mut wrong = Vec::new();
        for host in &ran {
            // all of them first: they wait for each other's votes
            let done = checked(s.ctx(), host, "systemctl start --no-block k3s", b"", "`k3s` cannot be started").await;
            wrong.extend(done.err().map(|e| e.to_string()));
        }
        for host in &ran {
            match wait_unit(s, host, Part::Server, self.limit).await {
                Ok(()) => s.keep(vec![service(host, "stopped", "running")]),
                Err(e) => wrong.push(e.to_string()),
            }
        }
        if wrong.is_empty() {
            return e.because("the servers run again, on the datastore they had");
        }
        let stopped = wrong.join("; ");
        e.because(stopped).hint("`systemctl start k3s` on the servers brings the old datastore back")
    }
}

fn service(host: &Host, from: &str, to: &str) -> Change {
    Change::new(host.name(), "service k3s", Some(from.into()), Some(to.into()))
}

/// Names of the datastores that K3s put aside at resets.
async fn set_aside(ctx: &Ctx, host: &Host) -> OpResult<Vec<String>> {
    let script = format!("ls -1 {DB} 2>/dev/null | grep '^etcd-old-' || true");
    let text = checked(ctx, host, &script, b"", "the datastore cannot be looked at").await?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Proves before anything is stopped that the servers are of one cluster.
fn of_one_cluster(hosts: &[Host], leader: &Found, others: &[(Host, Option<Found>)]) -> OpResult<()> {
    let all: Vec<(Host, Found)> = std::iter::once((hosts[0].clone(), leader.clone()))
        .chain(others.iter().filter_map(|(h, f)| Some((h.clone(), f.clone()?))))
        .collect();
    let (machines, found): (Vec<Host>, Vec<Found>) = all.into_iter().unzip();
    super::servers::same_cluster(&machines, &found)
}

/// The first server has no K3s: how to go on depends on the others.
fn no_k3s(leader: &Host, others: &[(Host, Option<Found>)]) -> OpError {
    let alive = others.iter().any(|(_, f)| f.as_ref().is_some_and(|f| f.member));
    let e = OpError::not_found("K3s is not installed on the server to restore on").on(leader.name());
    e.hint(if alive {
        "another server has the cluster: `gpuhost run recipes/deploy.rhai` makes this one a member of it first"
    } else {
        "when all servers are lost: `gpuhost run recipes/restore.rhai` with `--set new_servers=true` and the folder of the copy"
    })
}

/// What each of the other servers has; `None` for those that do not answer.
async fn ask_others(ctx: &Ctx, hosts: &[Host]) -> Vec<(Host, Option<Found>)> {
    let asked = ctx.clock.join_all(hosts.iter().map(|h| look(ctx, h, Part::Server)).collect()).await;
    hosts.iter().cloned().zip(asked.into_iter().map(Result::ok)).collect()
}

/// Proves that the snapshot is there and whole; gives the local copy, if it is one.
async fn is_there(ctx: &Ctx, host: &Host, snapshot: &str, o: &RestoreOptions) -> OpResult<Option<Vec<u8>>> {
    if let Some(folder) = &o.folder {
        let local = crate::flow::files::granted(ctx, folder)?.join(snapshot);
        let bytes = std::fs::read(&local)
            .map_err(|e| OpError::not_found(format!("cannot read `{folder}/{snapshot}`")).because(e.to_string()))?;
        let sum = super::snapshot::hex(&bytes);
        let noted = std::fs::read_to_string(local.with_file_name(format!("{snapshot}.sha256"))).ok();
        if let Some(noted) = noted.filter(|n| !n.starts_with(&sum)) {
            return Err(OpError::failed("the copy of the snapshot is damaged")
                .because(format!("sha256 is {sum}, noted was {}", noted.trim()))
                .hint("use another copy"));
        }
        return Ok(Some(bytes));
    }
    let path = format!("{FOLDER}/{snapshot}");
    let out = host.look_raw(ctx, &format!("[ -s {} ]", quote(&path))).await.map_err(|e| e.on(host.name()))?;
    if out.code == 0 {
        return Ok(None);
    }
    Err(OpError::not_found(format!("there is no snapshot `{snapshot}` on the server's disk"))
        .on(host.name())
        .hint("name a folder with a copy: `#{ folder: \"backup\" }`; `ls /var/lib/rancher/k3s/server/db/snapshots` on the servers"))
}

/// The snapshot's path on the server; uploads it from the local folder.
pub(super) async fn place(ctx: &Ctx, host: &Host, snapshot: &str, o: &RestoreOptions) -> OpResult<String> {
    let path = format!("{FOLDER}/{snapshot}");
    if let Some(bytes) = is_there(ctx, host, snapshot, o).await? {
        let sum = super::snapshot::hex(&bytes);
        let q = quote(&path);
        let script = format!("umask 077; mkdir -p {FOLDER} && cat > {q} && sha256sum {q}");
        let limits = RunOptions { timeout: Duration::minutes(30), ..RunOptions::default() };
        let out = host.exec_with(ctx, &script, &bytes, &limits).await.map_err(|e| e.on(host.name()))?;
        if out.code != 0 || !out.stdout.starts_with(&sum) {
            return Err(OpError::failed("the snapshot cannot be brought to the server")
                .on(host.name())
                .because(out.stderr));
        }
    }
    Ok(path)
}

/// What a restore takes away, for the question and the journal.
async fn listing(
    ctx: &Ctx,
    hosts: &[Host],
    leader: &Host,
    snapshot: &str,
    folder: Option<&str>,
    others: &[(Host, Option<Found>)],
) -> Vec<Change> {
    let mut out = vec![Change::new(
        leader.name(),
        "etcd datastore",
        Some("as it is now".into()),
        Some(format!("as in {snapshot}").into()),
    )];
    for (host, found) in others {
        let words = match found {
            Some(f) if f.member => "joins again, its old datastore is kept aside",
            Some(_) => "has no datastore: its node object is removed",
            None => "does not answer: its node object is removed",
        };
        out.push(Change::new(host.name(), "etcd member", Some("as it is now".into()), Some(words.into())));
    }
    out.extend(super::snapshot_claims::changes(ctx, hosts, snapshot, folder).await);
    out
}

pub(super) async fn stop(ctx: &Ctx, host: &Host) -> OpResult<()> {
    checked(ctx, host, "systemctl stop k3s", b"", "`k3s` cannot be stopped").await.map(drop)
}

async fn start(s: &OpScope, host: &Host, limit: std::time::Duration) -> OpResult<()> {
    checked(s.ctx(), host, "systemctl start --no-block k3s", b"", "`k3s` cannot be started").await?;
    wait_unit(s, host, Part::Server, limit).await
}

/// The reset itself: K3s ends when it is done.
async fn reset(s: &OpScope, host: &Host, found: &Found, config: &Value, path: &str) -> OpResult<()> {
    let ctx = s.ctx();
    if *config != found.config {
        put_file(ctx, host, CONFIG, "0600", &to_yaml(config)).await?;
    }
    run_reset(s, host, path).await
}

/// `k3s server --cluster-reset` with the configuration that is there.
pub(super) async fn run_reset(s: &OpScope, host: &Host, path: &str) -> OpResult<()> {
    s.waiting("restores the snapshot");
    // an earlier reset that was never started stops a second one
    let script = format!(
        "rm -f /var/lib/rancher/k3s/server/db/reset-flag\nk3s server --cluster-reset --cluster-reset-restore-path={} 2>&1",
        quote(path)
    );
    let limits = RunOptions { timeout: Duration::minutes(15), ..RunOptions::default() };
    let out = host.exec_with(s.ctx(), &script, b"", &limits).await.map_err(|e| e.on(host.name()))?;
    if out.stdout.contains(DONE) {
        return Ok(());
    }
    let mut e = OpError::failed("the snapshot cannot be restored").on(host.name());
    match super::journal::explain(&out.stdout) {
        Some(k) if k.line.contains("different token") => {
            e = e.because(k.line).because("the snapshot was saved under another token than the servers have");
            e = e.hint(
                "the cluster knows nothing of this snapshot: name the folder of its backup, where its token lies as \
                 `SNAPSHOT.token`: `--set folder=backup`; a rotation keeps old tokens as `NAME.before-…` in the state directory",
            );
        }
        Some(k) => e = e.because(k.line).because(k.cause).hint(k.hint),
        None => {
            e.causes = super::journal::last_lines(&out.stdout, 4);
            e = e.hint("choose another snapshot: `cluster.list_snapshots()` names them");
        }
    }
    Err(e)
}

/// Another server: its old datastore goes aside, then it joins like a new one.
async fn rejoin(
    s: &OpScope,
    cluster: &Cluster,
    host: &Host,
    config: &Value,
    limit: std::time::Duration,
) -> OpResult<()> {
    let now = s.ctx().clock.now_ms().await / 1000;
    let script = format!("cd /var/lib/rancher/k3s/server && mv db db.before-restore-{now}");
    checked(s.ctx(), host, &script, b"", "the old datastore cannot be put aside").await?;
    put_file(s.ctx(), host, CONFIG, "0600", &to_yaml(config)).await?;
    start(s, host, limit).await?;
    cluster.wait_back(s, host, Part::Server, "", limit).await
}

impl Cluster {
    /// Removes what the cluster remembers of a node whose machine was made anew: etcd member, node object, password.
    ///
    /// # Errors
    /// The server's refusal; `conflict` when the node is alive.
    pub async fn forget_node(&self, ctx: &Ctx, name: &str) -> OpResult<()> {
        let node = self.find_object(ctx, "node", "", name).await?;
        if node.is_some_and(|n| crate::kubernetes::is_true(&n, "Ready")) && fresh(self, ctx, name).await {
            let e = OpError::conflict("the node is alive").on(name);
            return Err(e.hint("remove it with `cluster.remove_node(host)`"));
        }
        self.forget_gone(ctx, name).await
    }

    /// The same for a node that is known to be gone, whatever its object still says.
    async fn forget_gone(&self, ctx: &Ctx, name: &str) -> OpResult<()> {
        let Some(node) = self.find_object(ctx, "node", "", name).await? else {
            return self.drop_password(ctx, name).await;
        };
        let op = Op::write("k3s", "forget_node", name).class(Class::Adoptable);
        ctx.run_op(op, |s| async move {
            let changes = vec![Change::new(name, "node of a machine that is gone", Some("present".into()), None)];
            s.act(format!("node {name}"), changes, async {
                if node["metadata"]["labels"].get("node-role.kubernetes.io/etcd").is_some() {
                    match self.leave_etcd(&s, name, std::time::Duration::from_secs(120)).await {
                        Err(e) if !e.is(Kind::Timeout) => return Err(e),
                        // a cluster restored to one member has no such member any more
                        _ => {}
                    }
                }
                self.delete_now(s.ctx(), "node", "", name).await
            })
            .await
        })
        .await?;
        self.drop_password(ctx, name).await
    }

    /// After a restore: machines that were made anew since the snapshot have other passwords than it has. Each node that
    /// comes with the cluster's token brings its own again.
    pub(super) async fn forget_passwords(&self, s: &OpScope, limit: std::time::Duration) -> OpResult<()> {
        let secrets = self.once_served(s, limit, "secret", "kube-system").await?;
        for secret in secrets {
            let name = secret["metadata"]["name"].as_str().unwrap_or_default();
            if name.ends_with(".node-password.k3s") {
                self.delete_now(s.ctx(), "secret", "kube-system", name).await?;
            }
        }
        Ok(())
    }

    /// Objects of an API server that has just started.
    pub(super) async fn once_served(
        &self,
        s: &OpScope,
        limit: std::time::Duration,
        kind: &str,
        ns: &str,
    ) -> OpResult<Vec<Value>> {
        s.wait_for("the restored API", std::time::Duration::from_secs(3), limit, || async {
            match self.list_in(s.ctx(), kind, ns).await {
                Err(e) if waits_on(&e) => Ok(Look::Pending(seen(&e))),
                other => other.map(Look::Ready),
            }
        })
        .await
    }

    /// A machine of the same name has a new password: the old Secret would keep it out.
    pub(super) async fn drop_password(&self, ctx: &Ctx, name: &str) -> OpResult<()> {
        let secret = format!("{name}.node-password.k3s");
        if self.find_object(ctx, "secret", "kube-system", &secret).await?.is_none() {
            return Ok(());
        }
        let op = Op::write("k3s", "forget_password", name).class(Class::Adoptable);
        ctx.run_op(op, |s| async move {
            let change = Change::new(name, "node password", Some("present".into()), None);
            s.act(format!("secret {secret}"), vec![change], self.delete_now(s.ctx(), "secret", "kube-system", &secret))
                .await
        })
        .await
    }
}

/// Whether a node's lease was renewed within the last minute, by the newest lease's time.
async fn fresh(cluster: &Cluster, ctx: &Ctx, name: &str) -> bool {
    let Ok(leases) = cluster.list_in(ctx, "lease", "kube-node-lease").await else { return true };
    let time = |l: &Value| l["spec"]["renewTime"].as_str().and_then(epoch_seconds);
    let newest = leases.iter().filter_map(time).max();
    let own = leases.iter().find(|l| l["metadata"]["name"] == name).and_then(time);
    matches!((newest, own), (Some(n), Some(o)) if n - o < 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nobody_founds_a_second_cluster_after_a_restore() {
        let first = json!({"cluster-init": true, "token": "t"});
        assert_eq!(rejoin_config(&first, Some("https://x:6443")), json!({"token": "t", "server": "https://x:6443"}));
        let second = json!({"server": "https://x:6443", "token": "t"});
        assert_eq!(rejoin_config(&second, None), json!({"token": "t", "cluster-init": true}));
    }
}
