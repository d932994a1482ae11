//! Before a cluster is made: agents that belong to one say that its servers are lost, not that there never was one.
use super::config::Part;
use super::node::{Found, look};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::site::RoleKind;
use crate::ssh::Host;

/// Whether an agent has joined a cluster and was not taken out of it since.
fn belongs(found: &Found) -> bool {
    found.registered && found.config["server"].is_string()
}

/// Refuses to make a cluster while agents of the site belong to an earlier one.
///
/// # Errors
/// `denied` naming the agents.
pub(super) async fn check(ctx: &Ctx) -> OpResult<()> {
    let Some(site) = ctx.site.clone() else { return Ok(()) };
    let agents: Vec<Host> = site.nodes_of(RoleKind::Agent).map(|n| Host::for_node(&site, n)).collect();
    // One that does not answer is no witness.
    let asked = ctx.clock.join_all(agents.iter().map(|h| ctx.looking(look(ctx, h, Part::Agent))).collect()).await;
    let known: Vec<(&str, Found)> =
        agents.iter().zip(asked).filter_map(|(h, f)| Some((h.name(), f.ok().filter(belongs)?))).collect();
    let Some((_, first)) = known.first() else { return Ok(()) };
    let names: Vec<&str> = known.iter().map(|(n, _)| *n).collect();
    let server = first.config["server"].as_str().unwrap_or_default();
    Err(OpError::refused("no server has a cluster, but agents belong to one: a second one would cut them off")
        .on(site.name.clone())
        .because(format!("{} joined {server}", names.join(", ")))
        .hint(
            "nothing was changed: bring the servers' disks back, or restore a snapshot (`gpuhost run \
             recipes/restore.rhai`, onto new machines with `--set new_servers=true`); to begin anew, take K3s off those agents first: `k3s::uninstall(host)`",
        ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_agent_belongs_once_it_has_joined_until_k3s_is_taken_off() {
        let joined = Found { registered: true, config: json!({"server": "https://a:6443"}), ..Found::default() };
        assert!(belongs(&joined));
        assert!(
            !belongs(&Found { config: serde_json::Value::Null, ..joined.clone() }),
            "the node password stays behind"
        );
        assert!(!belongs(&Found { registered: false, ..joined }), "it never got in");
    }
}
