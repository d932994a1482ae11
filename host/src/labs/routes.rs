//! Where the lab's servers listen, as routes of a dialer.
use std::net::SocketAddr;

use gpuhost_lab::RouteSink;
use gpuhost_stdlib::core::dialer::Routes;

/// Feeds a dialer's routes.
pub struct Feed(pub Routes);

impl RouteSink for Feed {
    fn up(&self, addr: &str, at: SocketAddr) {
        self.0.set(addr, at);
    }
    fn down(&self, addr: &str) {
        self.0.remove(addr);
    }
}
