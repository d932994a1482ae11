//! Which machines a call works on: those given, else the site's.
use rhai::Dynamic;

use super::script::hosts_of;
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::site::RoleKind;
use crate::ssh::Host;

/// Servers and agents of a call.
#[derive(Debug, Clone, Default)]
pub struct Machines {
    /// Servers, in the site's order.
    pub servers: Vec<Host>,
    /// Agents.
    pub agents: Vec<Host>,
}

impl Machines {
    /// The given lists; what is `()` comes from the site.
    ///
    /// # Errors
    /// `invalid` without a server.
    pub fn of(ctx: &Ctx, servers: &Dynamic, agents: &Dynamic) -> OpResult<Self> {
        let pick = |given: &Dynamic, kind: RoleKind| -> OpResult<Vec<Host>> {
            if let Some(list) = given.clone().try_cast::<rhai::Array>() {
                return hosts_of(&list);
            }
            let site = ctx.site.as_deref();
            Ok(site.map(|s| s.nodes_of(kind).map(|n| Host::for_node(s, n)).collect()).unwrap_or_default())
        };
        let all = Machines { servers: pick(servers, RoleKind::Server)?, agents: pick(agents, RoleKind::Agent)? };
        if all.servers.is_empty() {
            return Err(OpError::invalid("no server is known")
                .hint("load a site file, or pass the hosts: `#{ servers: [..], agents: [..] }`"));
        }
        Ok(all)
    }
}
