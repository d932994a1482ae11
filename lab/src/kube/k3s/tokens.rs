//! `k3s token rotate`: the server token changes in the datastore; each node takes it at its next start. Grade: docs.
use super::super::state::UnitState;
use super::files;
use crate::world::World;
use crate::{Lab, guest};

fn password(token: &str) -> &str {
    match token.strip_prefix("K10").and_then(|r| r.split_once("::")) {
        Some((_, cred)) => cred.split_once(':').map_or(cred, |(_, p)| p),
        None => token,
    }
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
