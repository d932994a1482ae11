//! The token of a snapshot: found before a restore stops anything, given to every node and the state directory after it.
use rhai::Dynamic;
use serde_json::Value;

use super::config::Part;
use super::node::{Found, full_token, look, plain_token};
use super::rotate::{RotateOptions, kept_token};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::units::Duration;
use crate::kubernetes::Cluster;
use crate::site::RoleKind;
use crate::ssh::Host;

/// Annotation of a snapshot's object: which token its bootstrap data is encrypted with.
const TOKEN_HASH: &str = "etcd.k3s.cattle.io/snapshot-token-hash";

/// What K3s notes of a token beside a snapshot.
fn fingerprint(password: &str) -> String {
    super::snapshot::hex(password.as_bytes())[..12].to_owned()
}

/// The token that a server would try on a snapshot.
fn own_token(found: &Found) -> Option<String> {
    found.configured_password().or_else(|| found.password()).map(str::to_owned)
}

/// The site's token and those that rotations kept, as the state directory has them.
fn kept_tokens(ctx: &Ctx) -> Vec<String> {
    let Ok(file) = kept_token(ctx) else { return Vec::new() };
    let path = ctx.state_file(&file);
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else { return Vec::new() };
    let older = format!("{name}.before-");
    let ours = |n: &str| n == name || n.starts_with(&older);
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = files.filter(|e| e.file_name().to_str().is_some_and(ours));
    files.filter_map(|e| std::fs::read_to_string(e.path()).ok()).map(|t| plain_token(&t).to_owned()).collect()
}

fn refused(hosts: &[Host], snapshot: &str, why: String, folder: Option<&str>) -> OpError {
    let place = folder.unwrap_or("FOLDER");
    OpError::refused(format!("`{snapshot}` was saved under another token than those at hand"))
        .on(hosts[0].name())
        .because(why)
        .hint(format!(
            "nothing was stopped. A backup keeps its token as `{place}/{snapshot}.token` (`--set folder={place}`), a rotation \
             keeps the old one as `NAME.before-…` in the state directory: put it back there, or choose a newer snapshot"
        ))
}

fn missing(host: &Host, folder: &str, snapshot: &str) -> OpError {
    OpError::refused(format!("the token of `{snapshot}` is missing"))
        .on(host.name())
        .because(format!("there is no `{folder}/{snapshot}.token`, and the cluster knows nothing of this snapshot"))
        .hint(
            "nothing was stopped. Write the token of that time into this file: the site's (`k3s_token` in the state \
             directory), or one that a rotation kept there as `NAME.before-…`",
        )
}

/// Refuses a folder that has no such copy, naming those that it has.
fn copy_is_there(ctx: &Ctx, folder: &str, snapshot: &str) -> OpResult<()> {
    let dir = crate::flow::files::granted(ctx, folder)?;
    if dir.join(snapshot).is_file() {
        return Ok(());
    }
    let files = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let names = files.filter_map(|f| f.file_name().to_str()?.strip_suffix(".token").map(str::to_owned));
    let mut names: Vec<String> = names.filter(|n| dir.join(n).is_file()).collect();
    names.sort();
    let e = OpError::not_found(format!("there is no snapshot `{snapshot}` in the folder `{folder}`"))
        .because(format!("the folder is {}", dir.display()));
    Err(match names.as_slice() {
        [] => e.hint("nothing was stopped: `gpuhost run recipes/backup.rhai` writes copies; a path is taken from the recipe's folder"),
        names => e.hint(format!("nothing was stopped: it has {}", names.join(", "))),
    })
}

/// The token beside a copy: hash of its cluster's CA, when it is written in full, and the password.
///
/// # Errors
/// `not_found` without the copy; `denied` without its token.
pub(super) fn beside(ctx: &Ctx, host: &Host, folder: &str, snapshot: &str) -> OpResult<(Option<String>, String)> {
    copy_is_there(ctx, folder, snapshot)?;
    let path = crate::flow::files::granted(ctx, folder)?.join(format!("{snapshot}.token"));
    let text = std::fs::read_to_string(path).map_err(|_| missing(host, folder, snapshot))?;
    let password = plain_token(&text).to_owned();
    ctx.hide(&password);
    Ok((hash_of(&text).map(str::to_owned), password))
}

/// Hash of the CA in a token that is written in full.
pub(super) fn hash_of(token: &str) -> Option<&str> {
    token.trim().strip_prefix("K10").and_then(|t| t.split_once("::")).map(|(hash, _)| hash)
}

/// The password of the token that opens `snapshot`: the one beside the copy, else the one at hand that has the
/// fingerprint noted with the snapshot. `None` when the servers themselves have no token that is known.
///
/// # Errors
/// `denied` for a snapshot of another cluster, or when its token is not at hand. Nothing was stopped then.
pub(super) async fn find(
    ctx: &Ctx,
    hosts: &[Host],
    leader: &Found,
    snapshot: &str,
    folder: Option<&str>,
) -> OpResult<Option<String>> {
    let noted = noted(ctx, hosts, snapshot).await;
    if let Some(folder) = folder {
        copy_is_there(ctx, folder, snapshot)?;
        let path = crate::flow::files::granted(ctx, folder)?.join(format!("{snapshot}.token"));
        if let Ok(text) = std::fs::read_to_string(path) {
            same_ca(&hosts[0], leader, snapshot, &text)?;
            let beside = plain_token(&text).to_owned();
            ctx.hide(&beside);
            return match noted.filter(|n| *n != fingerprint(&beside)) {
                Some(n) => {
                    let why = format!(
                        "`{folder}/{snapshot}.token` has the fingerprint {}, the snapshot's token {n}",
                        fingerprint(&beside)
                    );
                    Err(refused(hosts, snapshot, why, Some(folder)))
                }
                None => Ok(Some(beside)),
            };
        }
    }
    let own = own_token(leader);
    match (noted, folder) {
        (Some(noted), _) => {
            let found = own.into_iter().chain(kept_tokens(ctx)).find(|t| fingerprint(t) == noted);
            if let Some(t) = &found {
                ctx.hide(t);
            }
            let why = format!("its token has the fingerprint {noted}; neither the servers' nor a kept one has");
            found.map(Some).ok_or_else(|| refused(hosts, snapshot, why, folder))
        }
        (None, Some(folder)) => Err(missing(&hosts[0], folder, snapshot)),
        (None, None) => Ok(own),
    }
}

/// The fingerprint that the cluster notes with a snapshot, when it answers and knows it.
async fn noted(ctx: &Ctx, hosts: &[Host], snapshot: &str) -> Option<String> {
    let cluster = super::connect::connect(ctx, hosts).await.ok()?;
    let files = cluster.list_if_known(ctx, "etcdsnapshotfiles.k3s.cattle.io", "").await.ok()?;
    let file = files.iter().find(|f| f["spec"]["snapshotName"] == snapshot)?;
    file["metadata"]["annotations"][TOKEN_HASH].as_str().map(str::to_owned)
}

fn same_ca(host: &Host, leader: &Found, snapshot: &str, token: &str) -> OpResult<()> {
    match (hash_of(token), leader.ca_hash()) {
        (Some(theirs), Some(ours)) if theirs != ours => Err(OpError::refused(format!(
            "`{snapshot}` is a snapshot of another cluster"
        ))
        .on(host.name())
        .because(format!("its CA has the hash {theirs}, this cluster's {ours}"))
        .hint(
            "nothing was stopped: look for the snapshots of this cluster; or, when the servers of that cluster are lost, give \
             up the datastore that is here now: `gpuhost run recipes/restore.rhai` with `--set new_servers=true`",
        )),
        _ => Ok(()),
    }
}

/// config.yaml with this token, in the form that it had.
pub(super) fn put(config: &Value, hash: Option<&str>, password: Option<&str>) -> Value {
    let mut c = config.clone();
    if let (Some(old), Some(new)) = (config["token"].as_str(), password)
        && plain_token(old) != new
    {
        c["token"] = match hash.filter(|_| old.starts_with("K10")) {
            Some(hash) => full_token(hash, new).into(),
            None => new.into(),
        };
    }
    c
}

impl Cluster {
    /// After a restore: the agents and the state directory have the token of the snapshot too.
    pub(super) async fn keep_token(&self, ctx: &Ctx, leader: &Host, password: &str, limit: Duration) -> OpResult<()> {
        let found = look(ctx, leader, Part::Server).await?;
        let full = found.ca_hash().map_or_else(|| password.to_owned(), |h| full_token(h, password));
        let site = ctx.site.as_deref();
        let agents = site.map(|s| s.nodes_of(RoleKind::Agent).map(|n| Host::for_node(s, n)).collect::<Vec<_>>());
        let o = RotateOptions { timeout: limit, servers: Dynamic::UNIT, agents: Dynamic::UNIT };
        for host in agents.unwrap_or_default() {
            if let Err(e) = self.give_token(ctx, &host, Part::Agent, password, &full, &o).await {
                let next = "`gpuhost run recipes/deploy.rhai` gives it";
                ctx.message("warn", format!("{} has not got the token of the snapshot: {e}; {next}", host.name()));
            }
        }
        let file = match kept_token(ctx) {
            Ok(file) => file,
            Err(e) => {
                let next = "put the snapshot's token (its `.token` file) there before the next deploy";
                ctx.message("warn", format!("{}; {next}", e.message));
                return Ok(());
            }
        };
        let now = std::fs::read_to_string(ctx.state_file(&file)).unwrap_or_default();
        if now.trim() == password {
            return Ok(());
        }
        if !now.trim().is_empty() {
            let kept = format!("{file}.before-{}", ctx.clock.now_ms().await / 1000);
            crate::site::write_private(&ctx.state_file(&kept), now.trim().as_bytes())?;
            let text = format!(
                "the cluster has the token of the snapshot again; the newer one is kept as state file `{kept}`"
            );
            ctx.message("info", text);
        }
        crate::site::write_private(&ctx.state_file(&file), password.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_of_both_forms_have_one_fingerprint() {
        assert_eq!(plain_token("K10abc::server:secret\n"), "secret");
        assert_eq!(plain_token("secret"), "secret");
        assert_eq!(fingerprint("secret"), "2bb80d537b1d");
    }

    #[test]
    fn a_config_takes_the_token_of_the_snapshot_in_its_own_form() {
        let full = json!({"token": "K10aa::server:new", "x": 1});
        assert_eq!(put(&full, Some("aa"), Some("old")), json!({"token": "K10aa::server:old", "x": 1}));
        assert_eq!(put(&json!({"token": "new"}), Some("aa"), Some("old")), json!({"token": "old"}));
        assert_eq!((put(&full, Some("aa"), Some("new")), put(&full, None, None)), (full.clone(), full.clone()));
    }
}
