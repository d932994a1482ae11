//! Where connections really go: the site file's `[connect]` table, or the lab's routes.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use super::error::{OpError, OpResult};

/// `"10.0.0.11:22" -> 127.0.0.1:40022`; shared with the lab, which adds a route when a server starts to listen.
#[derive(Clone, Default)]
pub struct Routes(Arc<RwLock<BTreeMap<String, SocketAddr>>>);

impl Routes {
    /// Adds or replaces a route; `from` is `host:port`.
    pub fn set(&self, from: impl Into<String>, to: SocketAddr) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(from.into(), to);
    }
    /// Takes a route away.
    pub fn remove(&self, from: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(from);
    }
    /// Looks a route up.
    #[must_use]
    pub fn get(&self, from: &str) -> Option<SocketAddr> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(from).copied()
    }
    /// All routes.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, SocketAddr> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a missing route means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Dial the address itself.
    Direct,
    /// Lab: nothing is ever dialled directly; a missing route is "connection refused".
    RoutesOnly,
}

/// Decides where a connection goes.
#[derive(Clone)]
pub struct Dialer {
    routes: Routes,
    reach: Reach,
}

impl Dialer {
    /// A dialer over `routes`.
    #[must_use]
    pub fn new(routes: Routes, reach: Reach) -> Self {
        Dialer { routes, reach }
    }

    /// The host and port to really connect to for `host:port`.
    ///
    /// # Errors
    /// `unreachable` in a lab when nothing listens there.
    pub fn resolve(&self, host: &str, port: u16) -> OpResult<(String, u16)> {
        let key = format!("{host}:{port}");
        match (self.routes.get(&key), self.reach) {
            (Some(to), _) => Ok((to.ip().to_string(), to.port())),
            (None, Reach::Direct) => Ok((host.to_owned(), port)),
            (None, Reach::RoutesOnly) => Err(OpError::unreachable(format!("connection to {key} refused"))
                .because("nothing listens there in the lab")
                .hint("the lab has the machines of the site file: does this one run? `gpuhost lab status`")),
        }
    }

    /// Opens a TCP connection to `host:port`.
    ///
    /// # Errors
    /// `unreachable` with the system's reason.
    pub async fn connect(&self, host: &str, port: u16) -> OpResult<tokio::net::TcpStream> {
        let (h, p) = self.resolve(host, port)?;
        let s = tokio::net::TcpStream::connect((h.as_str(), p)).await.map_err(|e| {
            OpError::unreachable(format!("cannot connect to {host}:{port}"))
                .because(e.to_string())
                .hint("is the machine on, and the address right?")
        })?;
        s.set_nodelay(true).ok();
        Ok(s)
    }

    /// The routes, for those that add some.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }
}
