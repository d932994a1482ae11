//! The handle of one host: who it is and how to log in. Cheap to clone, holds no secret.
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::units::Duration;
use crate::site::{Node, RoleKind, Site};

use super::config::{Config, Found};
use super::home::HomeDir;
use super::known_hosts::split_name;
use super::options::ConnectOptions;

/// Hosts through hosts, at most: longer chains are loops of the configuration.
const LONGEST_CHAIN: usize = 8;

/// How to log in to a host, as far as recipe and site say; the SSH configuration adds the rest when connecting.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub user: String,
    pub port: u16,
    pub key: Option<String>,
    pub passphrase: Option<String>,
    pub certificate: Option<String>,
    pub agent: bool,
    pub password: Option<String>,
    pub become_password: Option<String>,
    pub timeout: Duration,
    /// The host to go through.
    pub jump: Option<Host>,
}

struct Inner {
    name: String,
    address: String,
    login: Login,
    node: Option<Arc<Node>>,
    /// Names that the SSH configuration may know it by.
    known_as: Vec<String>,
    /// Identity of its connection within a run.
    key: String,
}

/// A host that commands run on. Connects when first used; the connection serves the whole run.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

impl Host {
    fn make(name: String, address: String, login: Login, node: Option<Arc<Node>>, known_as: Vec<String>) -> Self {
        // With its names: behind other gateways the same address may be another machine.
        let via = login.jump.as_ref().map_or("", |j| j.inner.key.as_str());
        let key = format!(
            "ssh {} {}@{address}:{} {:?} {:?} {:?} {} via ({via})",
            known_as.join(","),
            login.user,
            login.port,
            login.key,
            login.certificate,
            login.password,
            login.agent
        );
        Host { inner: Arc::new(Inner { name, address, login, node, known_as, key }) }
    }

    /// The same host under the name of its machine.
    #[must_use]
    pub(crate) fn named(self, name: &str) -> Self {
        let i = &*self.inner;
        Self::make(name.to_owned(), i.address.clone(), i.login.clone(), i.node.clone(), i.known_as.clone())
    }

    /// A node of the site, logged in to as the site file says.
    #[must_use]
    pub fn for_node(site: &Site, node: &Node) -> Self {
        let login = Login {
            user: site.ssh.user.clone(),
            port: 22,
            key: Some(site.ssh.key.clone()),
            passphrase: None,
            certificate: None,
            agent: false,
            password: None,
            become_password: None,
            timeout: Duration::secs(20),
            jump: None,
        };
        let known_as = vec![node.name.clone(), node.ip.clone()];
        Self::make(node.name.clone(), node.ip.clone(), login, Some(Arc::new(node.clone())), known_as)
    }

    /// Any host: a node's name, an address, a name of the SSH configuration. What `options` leaves open comes from
    /// the site for its nodes, from the configuration, and from the site for other hosts, in this order.
    ///
    /// # Errors
    /// `invalid` when there is no user to log in with.
    pub fn connect(ctx: &Ctx, host: &str, options: &ConnectOptions) -> OpResult<Self> {
        Self::connect_at(ctx, host, options, 0)
    }

    fn connect_at(ctx: &Ctx, host: &str, options: &ConnectOptions, depth: usize) -> OpResult<Self> {
        let site = ctx.site.as_deref();
        let node = site.and_then(|s| s.nodes.iter().find(|n| n.name == host || n.ip == host));
        let mut known_as = vec![host.to_owned()];
        if let Some(n) = node {
            known_as = vec![n.name.clone(), n.ip.clone()];
        }
        let names: Vec<&str> = known_as.iter().map(String::as_str).collect();
        let found = Config::of(ctx).find(&names, HomeDir::of(ctx).as_ref()).map_err(|e| e.on(host))?;
        let port = match options.port {
            Some(p) => u16::try_from(p)
                .ok()
                .filter(|p| *p > 0)
                .ok_or_else(|| OpError::invalid(format!("option `port`: {p} is no TCP port")))?,
            None => found.port.filter(|_| node.is_none()).unwrap_or(22),
        };
        let sites = || site.map(|s| s.ssh.user.clone());
        let user = match node {
            Some(_) => options.user.clone().or_else(sites),
            None => options.user.clone().or_else(|| found.user.clone()).or_else(sites),
        };
        let hint = "name it in the options, or load a site file";
        let user = user.ok_or_else(|| OpError::invalid(format!("no user to log in to `{host}` with")).hint(hint))?;
        // Keys of the configuration come first for hosts that are not the site's; see `Way`.
        let configured = node.is_none() && !found.identity_files.is_empty();
        let key = options.key.clone().or_else(|| site.filter(|_| !configured).map(|s| s.ssh.key.clone()));
        let login = Login {
            user,
            port,
            key,
            passphrase: options.passphrase.clone(),
            certificate: options.certificate.clone(),
            agent: options.agent,
            password: options.password.clone(),
            become_password: options.become_password.clone(),
            timeout: found
                .connect_timeout
                .filter(|_| options.timeout == ConnectOptions::default().timeout)
                .map_or(options.timeout, Duration::secs),
            jump: None,
        };
        let hops = options.jump.iter().flat_map(|j| j.split(',')).map(|h| h.trim().to_owned());
        let jump = chain(ctx, host, hops.collect(), &login, depth)?;
        let login = Login { jump, ..login };
        let (name, address) = match node {
            Some(n) => (n.name.clone(), n.ip.clone()),
            None => (host.to_owned(), found.host_name.clone().unwrap_or_else(|| host.to_owned())),
        };
        Ok(Self::make(name, address, login, node.cloned().map(Arc::new), known_as))
    }

    /// What the SSH configuration adds to the login.
    pub(super) fn configured(&self, ctx: &Ctx) -> OpResult<Found> {
        let names: Vec<&str> = self.inner.known_as.iter().map(String::as_str).collect();
        Config::of(ctx).find(&names, HomeDir::of(ctx).as_ref()).map_err(|e| e.on(self.name()))
    }

    /// The host to go through: the recipe's, else that of the SSH configuration unless a route of the site's
    /// `[connect]` table leads there already.
    pub(super) fn gateway(&self, ctx: &Ctx, found: &Found) -> OpResult<Option<Host>> {
        self.gateway_at(ctx, found, 0)
    }

    fn gateway_at(&self, ctx: &Ctx, found: &Found, depth: usize) -> OpResult<Option<Host>> {
        if let Some(j) = &self.inner.login.jump {
            return Ok(Some(j.clone()));
        }
        let routed = ctx.dialer.routes().get(&format!("{}:{}", self.address(), self.port())).is_some();
        if routed {
            return Ok(None);
        }
        if let (Some(place), None) = (&found.proxy_command, &found.proxy_jump) {
            return Err(OpError::invalid(format!("`ProxyCommand` ({place}) is not supported"))
                .on(self.name())
                .hint("write `ProxyJump HOST` there, or pass `jump`"));
        }
        chain(ctx, self.name(), found.proxy_jump.clone().unwrap_or_default(), &self.inner.login, depth)
    }

    fn through(&self, before: Host) -> Host {
        let i = &self.inner;
        let login = Login { jump: Some(before), ..i.login.clone() };
        Host::make(i.name.clone(), i.address.clone(), login, i.node.clone(), i.known_as.clone())
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
    /// Identity of its connection within a run.
    pub(super) fn connection_key(&self) -> &str {
        &self.inner.key
    }
}

/// The last of several hops, each reached through the one before; `None` for no hops. Hops are `user@host:port`;
/// what a hop and the SSH configuration leave open is that of `target`.
fn chain(ctx: &Ctx, target: &str, hops: Vec<String>, login: &Login, depth: usize) -> OpResult<Option<Host>> {
    if depth >= LONGEST_CHAIN {
        return Err(OpError::invalid(format!("the way to `{target}` goes through more than {LONGEST_CHAIN} hosts"))
            .hint("is there a loop in `ProxyJump`?"));
    }
    let mut last: Option<Host> = None;
    for hop in hops.iter().filter(|h| !h.is_empty()) {
        let text = hop.strip_prefix("ssh://").unwrap_or(hop);
        let (user, rest) = text.rsplit_once('@').map_or((None, text), |(u, r)| (Some(u.to_owned()), r));
        let (name, port) = split_name(rest);
        if name == target && port == login.port {
            return Err(OpError::invalid(format!("the way to `{target}` goes through `{hop}` itself"))
                .hint("name another host in `jump`"));
        }
        let explicit_port = (port != 22 || rest.ends_with(":22")).then_some(i64::from(port));
        let found = Config::of(ctx).find(&[&name], HomeDir::of(ctx).as_ref())?;
        let is_node = ctx.site.as_deref().is_some_and(|s| s.nodes.iter().any(|n| n.name == name || n.ip == name));
        let options = ConnectOptions {
            user: user.or_else(|| found.user.is_none().then(|| login.user.clone()).filter(|_| !is_node)),
            port: explicit_port,
            key: login.key.clone().filter(|_| found.identity_files.is_empty()),
            passphrase: login.passphrase.clone(),
            certificate: login.certificate.clone().filter(|_| found.identity_files.is_empty()),
            agent: login.agent,
            password: login.password.clone(),
            timeout: login.timeout,
            jump: None,
            become_password: None,
        };
        let host = Host::connect_at(ctx, &name, &options, depth + 1)?;
        let before = match last.take() {
            Some(b) => Some(b),
            // The first hop may have hops of its own.
            None => host.gateway_at(ctx, &host.configured(ctx)?, depth + 1)?,
        };
        last = Some(match before {
            Some(b) => host.through(b),
            None => host,
        });
    }
    Ok(last)
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

/// `file:` reference of a path.
pub(super) fn file_reference(path: &Path) -> String {
    format!("file:{}", path.display())
}
