//! The handle of one host: who it is and how to log in. Cheap to clone, holds no secret.
use std::fmt;
use std::sync::Arc;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::units::Duration;
use crate::site::{Node, RoleKind, Site};

use super::options::ConnectOptions;

/// How to log in to a host.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub user: String,
    pub port: u16,
    pub key: Option<String>,
    pub agent: bool,
    pub timeout: Duration,
    /// The host to go through.
    pub jump: Option<Host>,
}

struct Inner {
    name: String,
    address: String,
    login: Login,
    node: Option<Arc<Node>>,
}

/// A host that commands run on. Connects when first used; the connection serves the whole run.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

impl Host {
    /// A node of the site, logged in to as the site file says.
    #[must_use]
    pub fn for_node(site: &Site, node: &Node) -> Self {
        Host {
            inner: Arc::new(Inner {
                name: node.name.clone(),
                address: node.ip.clone(),
                login: Login {
                    user: site.ssh.user.clone(),
                    port: 22,
                    key: Some(site.ssh.key.clone()),
                    agent: false,
                    timeout: Duration::secs(20),
                    jump: None,
                },
                node: Some(Arc::new(node.clone())),
            }),
        }
    }

    /// Any host: a node's name, or an address. What `options` leaves open comes from the site.
    ///
    /// # Errors
    /// `invalid` when there is no user or no key to log in with.
    pub fn connect(ctx: &Ctx, host: &str, options: &ConnectOptions) -> OpResult<Self> {
        let site = ctx.site.as_deref();
        let node = site.and_then(|s| s.nodes.iter().find(|n| n.name == host || n.ip == host));
        let port = u16::try_from(options.port)
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| OpError::invalid(format!("option `port`: {} is no TCP port", options.port)))?;
        let user = options.user.clone().or_else(|| site.map(|s| s.ssh.user.clone()));
        let key = options.key.clone().or_else(|| site.map(|s| s.ssh.key.clone()));
        let hint = "name it in the options, or load a site file";
        let user = user.ok_or_else(|| OpError::invalid(format!("no user to log in to `{host}` with")).hint(hint))?;
        if key.is_none() && !options.agent {
            return Err(OpError::invalid(format!("no key to log in to `{host}` with")).hint(hint));
        }
        let jump = match &options.jump {
            Some(j) if j == host => return Err(OpError::invalid(format!("option `jump`: `{host}` itself"))),
            Some(j) => {
                let o = ConnectOptions {
                    user: Some(user.clone()),
                    key: key.clone(),
                    port: 22,
                    jump: None,
                    ..options.clone()
                };
                Some(Host::connect(ctx, j, &o)?)
            }
            None => None,
        };
        let login = Login { user, port, key, agent: options.agent, timeout: options.timeout, jump };
        let (name, address) = match node {
            Some(n) => (n.name.clone(), n.ip.clone()),
            None => (host.to_owned(), host.to_owned()),
        };
        Ok(Host { inner: Arc::new(Inner { name, address, login, node: node.cloned().map(Arc::new) }) })
    }

    /// Name: the node's, or the address.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }
    /// Address it is reached at.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.inner.address
    }
    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.inner.login.port
    }
    /// Login name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.inner.login.user
    }
    /// The site's node, when it is one.
    #[must_use]
    pub fn node(&self) -> Option<Arc<Node>> {
        self.inner.node.clone()
    }
    /// Kind of the site's node: `server`, `agent` or `storage`.
    #[must_use]
    pub fn kind(&self) -> Option<&'static str> {
        self.inner.node.as_ref().map(|n| match n.kind {
            RoleKind::Server => "server",
            RoleKind::Agent => "agent",
            RoleKind::Storage => "storage",
        })
    }
    pub(super) fn login(&self) -> &Login {
        &self.inner.login
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = &self.inner;
        if i.name == i.address { f.write_str(&i.name) } else { write!(f, "{} ({})", i.name, i.address) }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({self})")
    }
}
