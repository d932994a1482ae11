//! Connecting: the way through other hosts, the server's proof, the login.
use std::borrow::Cow;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::Handle;
use russh::keys::{Algorithm, HashAlg};
use russh::{ChannelOpenFailure, Preferred, SshId, cipher};

use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::units::show_duration;

use super::auth::log_in;
use super::conn::{Conn, plain};
use super::host::Host;
use super::known_hosts::KnownHosts;
use super::trust::Check;
use super::way::Way;

impl Conn {
    /// Connects and logs in.
    pub(super) async fn open(ctx: &Ctx, host: &Host) -> OpResult<Conn> {
        let limit = host.login().timeout.0;
        match ctx.clock.within(limit, open(ctx, host)).await {
            Some(r) => r,
            None => Err(OpError::unreachable(format!(
                "no SSH login at {}:{} within {}",
                host.address(),
                host.port(),
                show_duration(limit)
            ))
            .hint(format!("is the machine up, and does a firewall drop port {}?", host.port()))),
        }
    }
}

async fn open(ctx: &Ctx, host: &Host) -> OpResult<Conn> {
    let (address, port) = (host.address(), host.port());
    let way = Way::to(ctx, host)?;
    let known = KnownHosts::load(ctx, &way.known_hosts);
    let (name, known_port) = match &way.alias {
        Some(a) => (a.clone(), 22),
        None => (address.to_owned(), port),
    };
    let refusal = Arc::new(Mutex::new(None));
    let config = Arc::new(config(ctx.lab, &known, &name, known_port));
    let check = Check {
        ctx: ctx.clone(),
        known,
        host: name,
        port: known_port,
        new_keys: way.new_keys,
        refusal: refusal.clone(),
    };
    let (connected, through) = match &way.jump {
        None => (russh::client::connect_stream(config, ctx.dialer.connect(address, port).await?, check).await, None),
        Some(jump) => {
            let through = jump.connection(ctx).await;
            let through = through.map_err(|e| OpError { message: format!("through {jump}: {}", e.message), ..e })?;
            let tunnel = through.tunnel(address, port).await.map_err(|e| no_way(jump, address, port, &e))?;
            (russh::client::connect_stream(config, tunnel.into_stream(), check).await, Some(through))
        }
    };
    let mut handle: Handle<Check> = match connected {
        Ok(h) => h,
        Err(e) => {
            let refused = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Err(refused.unwrap_or_else(|| {
                OpError::unreachable(format!("no SSH at {address}:{port}"))
                    .because(plain(&e))
                    .hint("does sshd listen there?")
            }));
        }
    };
    log_in(ctx, host, &way, &mut handle).await?;
    Ok(Conn::new(handle, through))
}

/// Why a host does not lead on to another.
pub(super) fn no_way(jump: &Host, address: &str, port: u16, e: &russh::Error) -> OpError {
    let fail = OpError::unreachable(format!("{jump} does not reach {address}:{port}")).because(plain(e));
    match e {
        russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited) => OpError {
            kind: Kind::Denied,
            ..fail.hint(format!("`AllowTcpForwarding yes` in the sshd_config of {}", jump.name()))
        },
        _ => fail,
    }
}

fn config(lab: bool, known: &KnownHosts, host: &str, port: u16) -> russh::client::Config {
    let id = if lab { "SSH-2.0-gpuhost_shared" } else { "SSH-2.0-gpuhost" };
    let default = Preferred::default();
    // As OpenSSH: ask first for the key types under which the host is known.
    let mut order: Vec<Algorithm> = Vec::new();
    for kind in known.kinds(host, port) {
        let types: Vec<Algorithm> = if kind == "ssh-rsa" {
            vec![Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, Algorithm::Rsa { hash: Some(HashAlg::Sha256) }]
        } else {
            Algorithm::from_str(&kind).into_iter().collect()
        };
        order.extend(types.into_iter().filter(|a| default.key.contains(a)));
    }
    let rest: Vec<Algorithm> = default.key.iter().filter(|a| !order.contains(a)).cloned().collect();
    order.extend(rest);
    // Only where an authority may vouch for the host: certificates go before bare keys.
    let vouched: Vec<Algorithm> = if known.has_authority(host, port) { default.key.to_vec() } else { Vec::new() };
    russh::client::Config {
        client_id: SshId::Standard(Cow::Borrowed(id)),
        nodelay: true,
        inactivity_timeout: None,
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 4,
        preferred: Preferred {
            key: Cow::Owned(order),
            host_key_certificates: Cow::Owned(vouched),
            // Processors have instructions for it: cheaper than ChaCha20 for the same protection.
            cipher: Cow::Borrowed(&[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR]),
            ..default
        },
        ..Default::default()
    }
}
