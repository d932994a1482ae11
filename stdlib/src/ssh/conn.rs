//! One SSH connection: strict host key check, login, and channels that run commands.
use std::borrow::Cow;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{AuthResult, Handle, Handler};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, ChannelOpenFailure, Preferred, Sig, SshId};
use tokio::sync::Semaphore;

use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError, OpResult};
use crate::core::units::show_duration;

use super::host::Host;
use super::keys;
use super::known_hosts::KnownHosts;

/// sshd allows 10 sessions and frees a slot later than the client sees it closed.
const CHANNELS: usize = 4;

/// A live, logged-in connection.
pub(super) struct Conn {
    handle: Handle<Check>,
    slots: Semaphore,
}

/// What a command's channel brought.
pub(super) struct Raw {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub code: i64,
}

/// Why a command brought nothing.
pub(super) enum Lost {
    /// It never started: trying again is harmless.
    NotSent(String),
    /// The connection ended while it may have been running.
    Midway(String),
}

/// Checks the server's key; keeps the verdict because the protocol error does not carry it.
struct Check {
    known: Arc<KnownHosts>,
    host: String,
    port: u16,
    verdict: Arc<Mutex<Option<OpError>>>,
}

impl Handler for Check {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let checked = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.known.accept(&self.host, self.port, key),
            PublicKeyOrCertificate::Certificate(_) => {
                Err(OpError::denied(format!("`{}` shows a host certificate, which is not read", self.host)))
            }
        };
        match checked {
            Ok(()) => Ok(true),
            Err(e) => {
                *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                Ok(false)
            }
        }
    }
}

impl Conn {
    /// Connects and logs in.
    pub(super) async fn open(ctx: &Ctx, host: &Host) -> OpResult<Conn> {
        let limit = host.login().timeout.0;
        match ctx.clock.within(limit, Self::open_unlimited(ctx, host)).await {
            Some(r) => r,
            None => Err(OpError::unreachable(format!(
                "no SSH login at {}:{} within {}",
                host.address(),
                host.port(),
                show_duration(limit)
            ))
            .hint("is the machine up, and does a firewall drop port 22?")),
        }
    }

    async fn open_unlimited(ctx: &Ctx, host: &Host) -> OpResult<Conn> {
        let (address, port) = (host.address(), host.port());
        let known = Arc::new(KnownHosts::load(&ctx.state_dir, ctx.lab));
        let verdict = Arc::new(Mutex::new(None));
        let check = Check { known: known.clone(), host: address.to_owned(), port, verdict: verdict.clone() };
        let config = Arc::new(config(ctx.lab, &known.kinds(address, port)));
        let connected = match &host.login().jump {
            None => russh::client::connect_stream(config, ctx.dialer.connect(address, port).await?, check).await,
            Some(jump) => {
                let through = jump.connection(ctx).await;
                let through =
                    through.map_err(|e| OpError { message: format!("through {jump}: {}", e.message), ..e })?;
                let tunnel = through.handle.channel_open_direct_tcpip(address, u32::from(port), "127.0.0.1", 0).await;
                let tunnel = tunnel.map_err(|e| {
                    OpError::unreachable(format!("{jump} does not reach {address}:{port}")).because(plain(&e))
                })?;
                russh::client::connect_stream(config, tunnel.into_stream(), check).await
            }
        };
        let mut handle = match connected {
            Ok(h) => h,
            Err(e) => {
                let refused = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Err(refused.unwrap_or_else(|| {
                    OpError::unreachable(format!("no SSH at {address}:{port}")).because(plain(&e))
                }));
            }
        };
        log_in(ctx, host, &mut handle).await?;
        Ok(Conn { handle, slots: Semaphore::new(CHANNELS) })
    }

    /// Whether it still lives, as far as known.
    pub(super) fn is_open(&self) -> bool {
        !self.handle.is_closed()
    }

    /// Runs `command` with `stdin`.
    pub(super) async fn exec(&self, ctx: &Ctx, command: &str, stdin: &[u8]) -> Result<Raw, Lost> {
        let _slot = match self.slots.try_acquire() {
            Ok(s) => s,
            Err(_) => {
                // Others hold the slots and may be waiting for time to pass.
                let lent = ctx.clock.lend();
                let slot = self.slots.acquire().await;
                drop(lent);
                slot.map_err(|e| Lost::NotSent(e.to_string()))?
            }
        };
        let channel = self.channel(ctx).await?;
        let (mut reader, writer) = channel.split();
        writer.exec(true, command).await.map_err(|e| Lost::NotSent(plain(&e)))?;
        let send = async {
            if !stdin.is_empty() && writer.data(stdin).await.is_err() {
                return;
            }
            writer.eof().await.ok();
        };
        let read = async {
            let mut raw = Raw { stdout: Vec::new(), stderr: Vec::new(), code: -1 };
            while let Some(msg) = reader.wait().await {
                match msg {
                    ChannelMsg::Data { data } => raw.stdout.extend_from_slice(&data),
                    ChannelMsg::ExtendedData { data, .. } => raw.stderr.extend_from_slice(&data),
                    ChannelMsg::ExitStatus { exit_status } => raw.code = i64::from(exit_status),
                    ChannelMsg::ExitSignal { signal_name, .. } => raw.code = 128 + number(&signal_name),
                    ChannelMsg::Failure => return Err(Lost::NotSent("the server refused to run commands".to_owned())),
                    _ => {}
                }
            }
            if raw.code < 0 { Err(Lost::Midway("the connection was closed".to_owned())) } else { Ok(raw) }
        };
        tokio::pin!(read);
        // A command may end without having read its input: its end counts, not ours.
        tokio::select! { biased;
            r = &mut read => return r,
            () = send => {}
        }
        read.await
    }

    async fn channel(&self, ctx: &Ctx) -> Result<russh::Channel<russh::client::Msg>, Lost> {
        let mut pause = Duration::from_millis(5);
        loop {
            match self.handle.channel_open_session().await {
                Ok(c) => return Ok(c),
                Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed))
                    if pause < Duration::from_secs(3) =>
                {
                    ctx.clock.sleep(pause).await;
                    pause *= 2;
                }
                Err(e) => return Err(Lost::NotSent(plain(&e))),
            }
        }
    }
}

fn config(lab: bool, kinds: &[String]) -> russh::client::Config {
    let id = if lab { "SSH-2.0-gpuhost_shared" } else { "SSH-2.0-gpuhost" };
    let default = Preferred::default();
    // As OpenSSH: ask first for the key types under which the host is known.
    let mut order: Vec<Algorithm> = Vec::new();
    for kind in kinds {
        let known: Vec<Algorithm> = if kind == "ssh-rsa" {
            vec![Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, Algorithm::Rsa { hash: Some(HashAlg::Sha256) }]
        } else {
            Algorithm::from_str(kind).into_iter().collect()
        };
        order.extend(known.into_iter().filter(|a| default.key.contains(a)));
    }
    let rest: Vec<Algorithm> = default.key.iter().filter(|a| !order.contains(a)).cloned().collect();
    order.extend(rest);
    russh::client::Config {
        client_id: SshId::Standard(Cow::Borrowed(id)),
        nodelay: true,
        inactivity_timeout: None,
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 4,
        preferred: Preferred { key: Cow::Owned(order), ..default },
        ..Default::default()
    }
}

async fn log_in(ctx: &Ctx, host: &Host, handle: &mut Handle<Check>) -> OpResult<()> {
    let login = host.login();
    let mut tried = Vec::new();
    let broken =
        |e: russh::Error| OpError::unreachable(format!("login at {} broke off", host.address())).because(plain(&e));
    if let Some(reference) = &login.key {
        let key = keys::load(ctx, reference)?;
        let hash = if key.algorithm().is_rsa() {
            handle.best_supported_rsa_hash().await.map_err(broken)?.flatten()
        } else {
            None
        };
        let print = key.fingerprint(HashAlg::Sha256).to_string();
        let offer = PrivateKeyWithHashAlg::new(key, hash);
        if handle.authenticate_publickey(&login.user, offer).await.map_err(broken)?.success() {
            return Ok(());
        }
        tried.push(format!("{print} (`{reference}`)"));
    }
    if login.agent && log_in_by_agent(host, handle, &mut tried).await? {
        return Ok(());
    }
    let offered = if tried.is_empty() { "no key".to_owned() } else { tried.join(", ") };
    Err(OpError::denied(format!("{} refuses `{}` with key {offered}", host.address(), login.user)).hint(format!(
        "the public key has to be in ~{}/.ssh/authorized_keys; cloud-init puts the site's key there at first boot",
        login.user
    )))
}

async fn log_in_by_agent(host: &Host, handle: &mut Handle<Check>, tried: &mut Vec<String>) -> OpResult<bool> {
    use russh::keys::agent::AgentIdentity;
    use russh::keys::agent::client::AgentClient;
    let fail = |e: String| OpError::denied("cannot ask the ssh agent").because(e).hint("is SSH_AUTH_SOCK set?");
    let mut agent = AgentClient::connect_env().await.map_err(|e| fail(e.to_string()))?;
    let identities = agent.request_identities().await.map_err(|e| fail(e.to_string()))?;
    for identity in identities {
        let AgentIdentity::PublicKey { key, .. } = identity else { continue };
        let hash = if key.algorithm().is_rsa() {
            handle.best_supported_rsa_hash().await.ok().flatten().flatten()
        } else {
            None
        };
        tried.push(format!("{} (agent)", key.fingerprint(HashAlg::Sha256)));
        let answer = handle.authenticate_publickey_with(host.user(), key, hash, &mut agent).await;
        if matches!(answer, Ok(AuthResult::Success)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn number(signal: &Sig) -> i64 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        _ => 15,
    }
}

/// A protocol error in words a user knows.
fn plain(e: &russh::Error) -> String {
    match e {
        russh::Error::HUP | russh::Error::Disconnect => "the other side closed the connection".to_owned(),
        russh::Error::SendError | russh::Error::RecvError => "the connection is closed".to_owned(),
        russh::Error::KeepaliveTimeout => "the other side no longer answers".to_owned(),
        russh::Error::UnknownKey => "the host key was refused".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

/// Whether waiting may help: the machine is not up yet, or cloud-init has not made the user yet.
pub(super) fn may_come(e: &OpError) -> bool {
    e.is(Kind::Unreachable) || (e.is(Kind::Denied) && e.message.contains(" refuses `"))
}
