//! sshd of a guest: public keys, commands, terminals, SFTP, forwarding. One listener on loopback per machine.
mod exec;
mod sftp;
mod terminal;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Pty, Sig, SshId};
use tokio::sync::mpsc;

use super::fs::Who;
use super::live::Machine;
use super::state::Stage;
use super::{accounts, hostkeys};
use crate::fault::Fault;
use crate::{Client, Lab};

/// How our own client names itself.
const OURS: &[u8] = b"SSH-2.0-gpuhost_shared";

/// Lets sshd listen. `None` when there is no host key or no port.
#[must_use]
pub fn serve(lab: &Lab, m: &Arc<Machine>) -> Option<SocketAddr> {
    let key = hostkeys::load(m)?;
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    let config = Arc::new(Config {
        server_id: SshId::Standard("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7".into()),
        methods,
        keys: vec![key],
        auth_rejection_time: std::time::Duration::ZERO,
        auth_rejection_time_initial: Some(std::time::Duration::ZERO),
        inactivity_timeout: None,
        nodelay: true,
        max_auth_attempts: 6,
        ..Config::default()
    });
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).ok()?;
    listener.set_nonblocking(true).ok()?;
    let at = listener.local_addr().ok()?;
    let _ = m.at.set(at);
    let m = m.clone();
    lab.rt().spawn(async move {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        let stop = m.stop.clone();
        loop {
            let stream = tokio::select! {
                s = listener.accept() => s,
                () = stop.cancelled() => return,
            };
            if let Ok((stream, _)) = stream {
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(config.clone(), stream, m.clone()));
            }
        }
    });
    Some(at)
}

async fn connection(config: Arc<Config>, stream: tokio::net::TcpStream, m: Arc<Machine>) {
    if let Some(fault) = m.lab.faults().strike("ssh.login", &exec::name_of(&m)) {
        // Clients introduce themselves at once: ours has a mark that covers this.
        let mut id = [0; 64];
        let ours = stream.peek(&mut id).await.is_ok_and(|n| id[..n].starts_with(OURS));
        let mark = m.lab.enter(if ours { Client::Ours } else { Client::Foreign });
        match fault {
            Fault::Slow(ms) => m.lab.clock().sleep(std::time::Duration::from_millis(ms)).await,
            Fault::Timeout => return m.lab.clock().sleep(crate::pve::trouble::SILENCE).await,
            _ => return,
        }
        drop(mark);
    }
    let stop = m.stop.clone();
    let handler = Connection { m, who: None, channels: HashMap::new(), client: Client::Foreign };
    let Ok(running) = russh::server::run_stream(config, stream, handler).await else { return };
    let handle = running.handle();
    tokio::select! {
        _ = running => {}
        () = stop.cancelled() => {
            let _ = handle.disconnect(russh::Disconnect::ByApplication, "The system will power off now!".into(), "en".into()).await;
        }
    }
}

/// What a channel has been told before its command starts.
struct Open {
    channel: Option<Channel<Msg>>,
    env: BTreeMap<String, String>,
    tty: bool,
    stdin: Option<mpsc::Sender<Vec<u8>>>,
    kill: Option<tokio::sync::watch::Sender<Option<Sig>>>,
    /// Whether it serves SFTP.
    sftp: bool,
}

struct Connection {
    m: Arc<Machine>,
    who: Option<Who>,
    channels: HashMap<ChannelId, Open>,
    client: Client,
}

/// A command about to run: what it needs, its input, and the signal that ends it.
type Begun = (exec::Start, mpsc::Receiver<Vec<u8>>, tokio::sync::watch::Receiver<Option<Sig>>);

impl Connection {
    /// What shell and exec requests have in common: the answer, the input's way in, the way to be killed.
    /// `None` (and a refusal sent) when nobody is logged in or the channel is unknown.
    fn begin(&mut self, id: ChannelId, session: &mut Session) -> Result<Option<Begun>, russh::Error> {
        let (Some(who), Some(o)) = (self.who.clone(), self.channels.get_mut(&id)) else {
            session.channel_failure(id)?;
            return Ok(None);
        };
        session.channel_success(id)?;
        let (tx, rx) = mpsc::channel(256);
        o.stdin = Some(tx);
        let (kill, killed) = tokio::sync::watch::channel(None);
        o.kill = Some(kill);
        let start = exec::Start {
            m: self.m.clone(),
            who,
            client: self.client,
            handle: session.handle(),
            id,
            env: o.env.clone(),
            tty: o.tty,
        };
        Ok(Some((start, rx, killed)))
    }

    /// The identity a key opens, with the command its line forces.
    fn authorized(&self, user: &str, key: &PublicKey) -> Option<Who> {
        let who = accounts::who(&self.m.files, user)?;
        if who.shell.ends_with("nologin") || who.shell.ends_with("/false") {
            return None;
        }
        let up = self.m.lab.with(|w| w.guests.get(&self.m.vmid).is_some_and(|g| g.stage >= Stage::Up));
        if !up {
            return None;
        }
        let text = self.m.files.text(&format!("{}/.ssh/authorized_keys", who.home));
        let known = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).any(|l| {
            // Options before the key may forbid a login: cloud-init's line for root only prints a hint.
            let at = ["ssh-ed25519 ", "ssh-rsa ", "ecdsa-sha2-", "sk-"].iter().filter_map(|t| l.find(t)).min();
            let Some(at) = at else { return false };
            !l[..at].contains("command=")
                && PublicKey::from_openssh(&l[at..]).is_ok_and(|k| k.key_data() == key.key_data())
        });
        known.then_some(who)
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(if self.authorized(user, offer.public_key).is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        self.who = self.authorized(user, key.public_key);
        Ok(if self.who.is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        self.m.lab.with(|w| w.meets("guest/ssh"));
        self.client = if session.remote_sshid().starts_with(OURS) { Client::Ours } else { Client::Foreign };
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let open = Open { env: BTreeMap::new(), tty: false, stdin: None, kill: None, channel: None, sftp: false };
        let id = channel.id();
        self.channels.insert(id, Open { channel: Some(channel), ..open });
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        match exec::forward_target(&self.m, host, port) {
            Some(target) => {
                reply.accept().await;
                exec::forward(self.m.clone(), channel, target);
            }
            None => reply.reject(russh::ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let locale = name == "LANG" || name.starts_with("LC_");
        if let Some(o) = self.channels.get_mut(&id).filter(|_| locale) {
            o.env.insert(name.to_owned(), value.to_owned());
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        _cols: u32,
        _rows: u32,
        _w: u32,
        _h: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(o) = self.channels.get_mut(&id) {
            o.tty = true;
            o.env.insert("TERM".to_owned(), term.to_owned());
        }
        session.channel_success(id)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        let Some((start, rx, killed)) = self.begin(id, session)? else { return Ok(()) };
        if start.tty {
            tokio::spawn(terminal::run(start, rx));
        } else {
            tokio::spawn(exec::run_shell(start, rx, killed));
        }
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let Some((start, rx, killed)) = self.begin(id, session)? else { return Ok(()) };
        let text = String::from_utf8_lossy(command).into_owned();
        tokio::spawn(exec::run(start, text, rx, killed));
        Ok(())
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        let channel = self.channels.get_mut(&id).and_then(|o| o.channel.take());
        match (name, channel, self.who.clone()) {
            ("sftp", Some(channel), Some(who)) => {
                session.channel_success(id)?;
                if let Some(o) = self.channels.get_mut(&id) {
                    o.sftp = true;
                }
                let server = sftp::Sftp::new(self.m.clone(), who);
                tokio::spawn(async move {
                    // Serves in a task of its own; the channel closes when its stream is dropped.
                    russh_sftp::server::run(channel.into_stream(), server).await;
                });
                Ok(())
            }
            _ => session.channel_failure(id),
        }
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        if let Some(tx) = self.channels.get(&id).and_then(|o| o.stdin.clone()) {
            // A command that ended no longer reads: what comes then is dropped.
            let _ = tx.send(data.to_vec()).await;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        let Some(o) = self.channels.get_mut(&id) else { return Ok(()) };
        o.stdin = None;
        if o.sftp {
            // The client has all its answers; scp takes the status for its own.
            session.exit_status_request(id, 0)?;
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(k) = self.channels.get(&id).and_then(|o| o.kill.as_ref()) {
            let _ = k.send(Some(signal));
        }
        Ok(())
    }
}
