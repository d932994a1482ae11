//! `k3s token rotate`: the server token changes in the datastore; each node takes it at its next start. Bootstrap tokens:
//! Secrets of the cluster, which let agents join until they end. Grade: docs.
use super::super::state::{Cluster, UnitState};
use super::super::store::meta;
use super::super::text::{b64, s, unb64};
use super::files;
use crate::world::World;
use crate::{Lab, guest};

fn password(token: &str) -> &str {
    match token.strip_prefix("K10").and_then(|r| r.split_once("::")) {
        Some((_, cred)) => cred.split_once(':').map_or(cred, |(_, p)| p),
        None => token,
    }
}

/// A new bootstrap token.
pub fn fresh(w: &mut World) -> String {
    let text = format!("{:016x}{:016x}", w.random(), w.random());
    format!("{}.{}", &text[..6], &text[6..22])
}

/// Id and secret of a bootstrap token.
#[must_use]
pub fn parts(text: &str) -> Option<(&str, &str)> {
    let plain = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split_once('.').filter(|(id, secret)| plain(id, 6) && plain(secret, 16))
}

/// Whether an agent's token is a bootstrap token of the cluster that lets it in and has not ended. Without the hash of
/// the CA before it, it is taken as it is.
#[must_use]
pub fn admits(c: &Cluster, now_ms: u64, given: &str) -> bool {
    let rest = match given.strip_prefix("K10") {
        Some(full) => full.split_once("::").filter(|(hash, _)| *hash == c.id).map(|(_, rest)| rest),
        None => Some(given),
    };
    let Some((id, secret)) = rest.and_then(parts) else { return false };
    let Some(kept) = c.store.get("secrets", "kube-system", &format!("bootstrap-token-{id}")) else { return false };
    let ends = unb64(s(kept, "/data/expiration")).and_then(|b| meta::parse_time(&String::from_utf8_lossy(&b)));
    let says = |field: &str, text: &str| kept["data"][field] == b64(text.as_bytes());
    let fits = says("token-secret", secret) && says("usage-bootstrap-authentication", "true");
    fits && ends.is_none_or(|t| t > now_ms)
}

/// Replaces the server token.
///
/// # Errors
/// K3s' own text for a wrong old token or a server that does not answer.
pub fn rotate(lab: &Lab, w: &mut World, vmid: u32, old: &str, new: &str) -> Result<(), String> {
    let p = w.k3s.get(&vmid).filter(|p| p.unit == Some(UnitState::Active));
    let id = p.and_then(|p| p.cluster.clone()).filter(|id| super::join::has_quorum(w, id));
    let id = id.ok_or("failed to rotate token: see server log for details")?;
    let fresh = format!("{:016x}{:016x}", w.random(), w.random());
    let Some(c) = w.clusters.get_mut(&id) else { return Err("no cluster".to_owned()) };
    if password(old.trim()) != c.token {
        return Err("failed to rotate token: https://127.0.0.1:6443/v1-k3s/token: 401 Unauthorized".to_owned());
    }
    c.token = match password(new.trim()) {
        "" => fresh,
        t => t.to_owned(),
    };
    let text = format!("{}\n", c.full_token());
    for name in ["token", "node-token"] {
        guest::put_file(lab, w, vmid, &files::server_file(name), &text, 0o600);
    }
    Ok(())
}
