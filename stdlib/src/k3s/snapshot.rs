//! etcd snapshots: saving, listing, taking off the machine with a checksum and the token.
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::config::Part;
use super::node::{checked, look};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::{Change, Class};
use crate::core::op::{Op, OpScope};
use crate::kubernetes::Cluster;
use crate::ssh::{Host, quote};

/// Where K3s keeps its snapshots.
pub const FOLDER: &str = "/var/lib/rancher/k3s/server/db/snapshots";

/// The name in K3s' answer `Snapshot NAME saved.`
#[must_use]
pub fn saved_name(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("Snapshot ")?;
    let (name, _) = rest.split_once(" saved")?;
    Some(name.trim_matches('"').to_owned())
}

/// One row of a listing.
#[must_use]
pub fn row(file: &Value) -> Value {
    let (spec, status) = (&file["spec"], &file["status"]);
    json!({
        "name": spec["snapshotName"], "node": spec["nodeName"], "location": spec["location"],
        "size": status["size"].as_str().and_then(|s| s.parse::<i64>().ok()).unwrap_or(0),
        "created": status["creationTime"], "ready": status["readyToUse"] == true,
        "error": status["error"]["message"],
    })
}

fn checked_name(name: &str) -> OpResult<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && name.chars().all(fits) {
        return Ok(());
    }
    Err(OpError::invalid(format!("`{name}` cannot name a snapshot")).hint("letters, digits, `-`, `_` and `.`"))
}

/// The snapshot that an earlier run saved and did not see the end of.
async fn saved_before(s: &OpScope, host: &Host, name: &str) -> OpResult<Option<String>> {
    let Some(left) = s.left_open() else { return Ok(None) };
    let list =
        format!("find {FOLDER} -maxdepth 1 -type f -size +0 -name {} 2>/dev/null; true", quote(&format!("{name}-*")));
    let out = checked(s.ctx(), host, &list, b"", "the snapshots cannot be listed").await?;
    let saved = |path: &&str| {
        path.rsplit('-').next().and_then(|t| t.parse::<u64>().ok()).is_some_and(|t| t >= left.since_ms / 1000)
    };
    let found = out.lines().map(str::trim).find(saved).and_then(|p| p.rsplit('/').next()).map(str::to_owned);
    if found.is_some() {
        s.continues(&left, "the snapshot");
    }
    Ok(found)
}

impl Cluster {
    /// Saves an etcd snapshot on a server; gives its name on the server's disk.
    ///
    /// # Errors
    /// `failed` with what K3s said; `not_found` when the file is not there afterwards.
    pub async fn snapshot_etcd(&self, ctx: &Ctx, host: &Host, name: &str) -> OpResult<String> {
        checked_name(name)?;
        if let Some(kind) = host.kind().filter(|k| *k != "server") {
            return Err(OpError::invalid(format!("it is a machine of kind `{kind}`: only servers have the datastore"))
                .on(host.name())
                .hint("`cluster.snapshot_etcd(site().hosts(\"server\")[0], ...)`"));
        }
        let op = Op::run("k3s", "snapshot_etcd", host.name()).class(Class::Repeatable).args(&name);
        ctx.run_op(op, |s| async move {
            let change = Change::new(host.name(), format!("etcd snapshot {name}"), None, Some("saved".into()));
            s.act(format!("snapshot {name}"), vec![change], async {
                if let Some(full) = saved_before(&s, host, name).await? {
                    return Ok(full);
                }
                let script = format!("k3s etcd-snapshot save --name {} 2>&1", quote(name));
                let text = checked(s.ctx(), host, &script, b"", "the snapshot cannot be saved").await?;
                let full = saved_name(&text).ok_or_else(|| {
                    OpError::failed("K3s does not say under which name it saved the snapshot")
                        .because(text.trim().to_owned())
                })?;
                // a snapshot of no bytes is none
                let test = format!("[ -s {} ]", quote(&format!("{FOLDER}/{full}")));
                checked(s.ctx(), host, &test, b"", "the snapshot is not on the server's disk").await?;
                s.accepted(full.clone())?;
                if let Err(e) = super::snapshot_claims::note(s.ctx(), self, &full).await {
                    let text = format!("{full} is saved, and which claims it has cannot be noted: {e}");
                    s.ctx().message("warn", text);
                }
                Ok(full)
            })
            .await
        })
        .await
    }

    /// Snapshots that the cluster knows, newest first: name, node, location, size, created, ready, error.
    ///
    /// # Errors
    /// `unreachable`, `denied`.
    pub async fn list_snapshots(&self, ctx: &Ctx) -> OpResult<Vec<Value>> {
        let mut rows: Vec<Value> =
            self.list_if_known(ctx, "etcdsnapshotfiles.k3s.cattle.io", "").await?.iter().map(row).collect();
        rows.sort_by(|a, b| b["created"].as_str().cmp(&a["created"].as_str()));
        Ok(rows)
    }

    /// Removes all but the newest `keep` snapshots of this name on a server; gives the names that went.
    ///
    /// # Errors
    /// `denied` when declined.
    pub async fn remove_snapshots(&self, ctx: &Ctx, host: &Host, name: &str, keep: usize) -> OpResult<Vec<String>> {
        checked_name(name)?;
        let op = Op::destroy("k3s", "remove_snapshots", host.name()).args(&(name, keep));
        ctx.run_op(op, |s| async move {
            let list = format!("ls -1t {FOLDER} 2>/dev/null | grep {} || true", quote(&format!("^{name}-")));
            let text = checked(s.ctx(), host, &list, b"", "the snapshots cannot be listed").await?;
            let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
            // the name ends in the second it was made
            names.sort_by_key(|n| {
                std::cmp::Reverse(n.rsplit('-').next().and_then(|t| t.parse::<u64>().ok()).unwrap_or(0))
            });
            let old: Vec<String> = names.into_iter().skip(keep).collect();
            if old.is_empty() {
                return Ok(old);
            }
            let changes = old
                .iter()
                .map(|n| Change::new(host.name(), format!("etcd snapshot {n}"), Some("saved".into()), None))
                .collect();
            let words: Vec<String> = old.iter().map(|n| quote(n)).collect();
            let script = format!("k3s etcd-snapshot delete {} 2>&1", words.join(" "));
            s.act(
                format!("snapshots {name}"),
                changes,
                checked(s.ctx(), host, &script, b"", "a snapshot cannot be deleted"),
            )
            .await?;
            Ok(old)
        })
        .await
    }

    /// Copies a snapshot off its server into a local folder, with its checksum, the token it needs (0600) and the list of
    /// its claims.
    ///
    /// # Errors
    /// `not_found` without the snapshot; `failed` when the copy differs.
    pub async fn copy_snapshot(&self, ctx: &Ctx, host: &Host, name: &str, folder: &str) -> OpResult<String> {
        checked_name(name)?;
        let dir = crate::flow::files::granted(ctx, folder)?;
        let op = Op::write("k3s", "copy_snapshot", host.name()).args(&(name, folder));
        ctx.run_op(op, |s| async move {
            let path = format!("{FOLDER}/{name}");
            let script = format!("[ -f {0} ] || exit 44\nsha256sum {0}", quote(&path));
            let out = host.look_raw(s.ctx(), &script).await.map_err(|e| e.on(host.name()))?;
            if out.code == 44 {
                return Err(OpError::not_found(format!("there is no snapshot `{name}`"))
                    .on(host.name())
                    .hint("`cluster.list_snapshots()` names them"));
            }
            let sum = out.stdout.split_whitespace().next().unwrap_or_default().to_owned();
            let target = dir.join(name);
            let here = std::fs::read(&target).ok().map(|b| hex(&b));
            if here.as_deref() == Some(sum.as_str()) {
                return Ok(sum);
            }
            let token = look(s.ctx(), host, Part::Server).await?.token;
            let change =
                Change::new(host.name(), format!("local file {folder}/{name}"), None, Some(sum.clone().into()));
            s.act(format!("{folder}/{name}"), vec![change], async {
                let bytes = host.read_file(s.ctx(), &path).await?;
                let bytes = bytes.ok_or_else(|| OpError::not_found(format!("there is no snapshot `{name}`")))?;
                if hex(&bytes) != sum {
                    return Err(OpError::failed("the copy differs from the snapshot")
                        .because(format!("sha256 {}", hex(&bytes))));
                }
                // The copy comes last: where it stands, what it is worthless without stands beside it.
                crate::site::write_private(&dir.join(format!("{name}.token")), format!("{token}\n").as_bytes())?;
                crate::site::write_private(&dir.join(format!("{name}.sha256")), format!("{sum}  {name}\n").as_bytes())?;
                if let Some(claims) = super::snapshot_claims::noted(s.ctx(), name) {
                    crate::site::write_private(&dir.join(format!("{name}.claims")), claims.as_bytes())?;
                }
                crate::site::write_private(&target, &bytes)?;
                s.ctx().edge();
                Ok(())
            })
            .await?;
            Ok(sum)
        })
        .await
    }
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_rows_read() {
        let line = "time=\"x\" level=info msg=\"Snapshot nightly-k3s-cp1-1700000000 saved.\"";
        assert_eq!(saved_name(line).as_deref(), Some("nightly-k3s-cp1-1700000000"));
        assert_eq!(saved_name("failed"), None);
        let r =
            row(&json!({"spec": {"snapshotName": "a", "nodeName": "n"}, "status": {"size": "12", "readyToUse": true}}));
        assert_eq!((r["size"].as_i64(), r["ready"].as_bool()), (Some(12), Some(true)));
        assert!(checked_name("a/b").is_err());
    }
}
