//! Ports of a host, reached through its connection.
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::net::{TcpListener, TcpStream};

use crate::core::ctx::{Ctx, Run};
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::options;

use super::dial::no_way;
use super::host::Host;

options! {
    /// Where a tunnel leads.
    pub struct TunnelOptions {
        /// Host that the port belongs to, as the far host sees it.
        to: String = "127.0.0.1".to_owned(),
        /// Port of this machine; default: any free one.
        local_port: i64 = 0,
    }
}

/// A port of this machine that leads to a port of a host, for as long as the run lasts.
#[derive(Clone, Debug)]
pub struct Tunnel {
    at: SocketAddr,
    name: String,
}

impl Tunnel {
    /// Port of this machine.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.at.port()
    }
}

impl std::fmt::Display for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.at, self.name)
    }
}

impl Host {
    /// Makes a port of the host reachable at a port of this machine (127.0.0.1 only).
    ///
    /// # Errors
    /// `unreachable` when the host does not forward there; `failed` when the local port is taken.
    pub async fn tunnel(&self, ctx: &Ctx, port: u16, options: TunnelOptions) -> OpResult<Tunnel> {
        let op = Op::read("ssh", "tunnel", self.name()).args(&(port, &options.to));
        ctx.run_op(op, |s| async move {
            let ctx = s.ctx();
            let local = u16::try_from(options.local_port)
                .map_err(|_| OpError::invalid(format!("option `local_port`: {} is no TCP port", options.local_port)))?;
            // Found out now, not at first use. Nothing is sent.
            let conn = self.connection(ctx).await?;
            let probe = conn.tunnel(&options.to, port).await.map_err(|e| no_way(self, &options.to, port, &e))?;
            probe.close().await.ok();
            let listener = TcpListener::bind(("127.0.0.1", local)).await.map_err(|e| {
                OpError::failed(format!("cannot listen at 127.0.0.1:{local}"))
                    .because(e.to_string())
                    .hint("leave `local_port` away: a free port is taken")
            })?;
            let at = listener
                .local_addr()
                .map_err(|e| OpError::failed("cannot listen on this machine").because(e.to_string()))?;
            // The run ends the tunnel; the tunnel does not keep the run.
            let (run, host, to) = (Arc::downgrade(ctx.run()), self.clone(), options.to.clone());
            ctx.rt.spawn(serve(run, host, to, port, listener));
            Ok(Tunnel { at, name: format!("{}:{port} of {}", options.to, self.name()) })
        })
        .await
    }
}

async fn serve(run: Weak<Run>, host: Host, to: String, port: u16, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let Some(run) = run.upgrade() else { return };
        let (ctx, host, to) = (Ctx::new(run), host.clone(), to.clone());
        tokio::spawn(async move {
            if let Err(e) = carry(&ctx, &host, &to, port, stream).await {
                tracing::warn!("tunnel to {to}:{port}: {e}");
            }
        });
    }
}

async fn carry(ctx: &Ctx, host: &Host, to: &str, port: u16, mut stream: TcpStream) -> OpResult<()> {
    stream.set_nodelay(true).ok();
    let conn = host.connection(ctx).await?;
    let channel = conn.tunnel(to, port).await.map_err(|e| no_way(host, to, port, &e))?;
    tokio::io::copy_bidirectional(&mut stream, &mut channel.into_stream()).await.ok();
    Ok(())
}
