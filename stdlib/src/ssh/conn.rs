//! One SSH connection: channels that run commands, carry files and lead on to other hosts.
use std::sync::Arc;

use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg};
use tokio::io::AsyncRead;

use crate::core::ctx::Ctx;
use crate::core::error::{Kind, OpError};

use super::channels::{Channels, Lease};
use super::signals;
use super::trust::Check;

/// A live, logged-in connection.
pub(super) struct Conn {
    handle: Arc<Handle<Check>>,
    channels: Arc<Channels>,
    /// The connection that this one goes through lives as long.
    _through: Option<Arc<Conn>>,
}

/// What a command's channel brought.
#[derive(Debug, Default)]
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
    /// What it brought could not be kept on this machine.
    Here(String),
}

/// What a command reads.
pub(super) enum Feed<'a> {
    Bytes(&'a [u8]),
    Stream(Box<dyn AsyncRead + Send + Unpin + 'a>),
}

/// Takes standard output as it comes instead of keeping it.
pub(super) type Taker<'a> = &'a mut (dyn FnMut(&[u8]) -> std::io::Result<()> + Send);

impl Conn {
    pub(super) fn new(handle: Handle<Check>, through: Option<Arc<Conn>>) -> Self {
        let handle = Arc::new(handle);
        Conn { channels: Channels::new(handle.clone()), handle, _through: through }
    }

    /// Whether it still lives, as far as known.
    pub(super) fn is_open(&self) -> bool {
        !self.handle.is_closed()
    }

    /// A way on to another host.
    pub(super) async fn tunnel(&self, host: &str, port: u16) -> Result<Channel<Msg>, russh::Error> {
        self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await
    }

    /// An open channel for something else than a command.
    pub(super) async fn channel(&self, ctx: &Ctx) -> Result<Lease, Lost> {
        self.channels.get(ctx).await
    }

    /// Runs `command`, which reads `feed`.
    pub(super) async fn exec(
        &self,
        ctx: &Ctx,
        command: &str,
        feed: Feed<'_>,
        mut taker: Option<Taker<'_>>,
    ) -> Result<Raw, Lost> {
        let Lease { channel, place: _place } = self.channels.get(ctx).await?;
        let (mut reader, writer) = channel.split();
        writer.exec(true, command).await.map_err(|e| Lost::NotSent(plain(&e)))?;
        let send = async {
            let sent = match feed {
                Feed::Bytes([]) => Ok(()),
                Feed::Bytes(b) => writer.data(b).await,
                Feed::Stream(s) => writer.data(s).await,
            };
            if sent.is_ok() {
                writer.eof().await.ok();
            }
            // In the same burst of packets as the command and the end of its input.
            self.channels.prepare();
        };
        let read = async {
            let mut raw = Raw { code: -1, ..Raw::default() };
            let (mut started, mut closed) = (false, false);
            while let Some(msg) = reader.wait().await {
                match msg {
                    ChannelMsg::Data { data } => match taker.as_mut() {
                        Some(take) => take(&data).map_err(|e| Lost::Here(e.to_string()))?,
                        None => raw.stdout.extend_from_slice(&data),
                    },
                    ChannelMsg::ExtendedData { data, .. } => raw.stderr.extend_from_slice(&data),
                    ChannelMsg::ExitStatus { exit_status } => raw.code = i64::from(exit_status),
                    ChannelMsg::ExitSignal { signal_name, .. } => raw.code = 128 + signals::number(&signal_name),
                    ChannelMsg::Success => started = true,
                    ChannelMsg::Close => closed = true,
                    ChannelMsg::Failure => return Err(Lost::NotSent("the server refused to run commands".to_owned())),
                    _ => {}
                }
            }
            match raw.code {
                // The server closed the channel before the command came. (A connection that ends says no such thing.)
                -1 if !started && closed => Err(Lost::NotSent("the channel was closed".to_owned())),
                -1 => Err(Lost::Midway("the connection was closed".to_owned())),
                _ => Ok(raw),
            }
        };
        tokio::pin!(read);
        // A command may end without having read its input: its end counts, not ours.
        tokio::select! { biased;
            r = &mut read => return r,
            () = send => {}
        }
        read.await
    }

    /// Starts `command` without waiting for its end, if that costs no round trip. Says whether it went out.
    pub(super) async fn fire(&self, ctx: &Ctx, command: &str) -> bool {
        let Ok(lease) = self.channels.get(ctx).await else { return false };
        let (mut reader, writer) = lease.channel.split();
        let sent = writer.exec(false, command).await.is_ok() && writer.eof().await.is_ok();
        let place = lease.place;
        tokio::spawn(async move {
            while reader.wait().await.is_some() {}
            drop(place);
        });
        sent
    }
}

/// A protocol error in words a user knows.
pub(super) fn plain(e: &russh::Error) -> String {
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
    e.is(Kind::Unreachable) || is_refused(e)
}

/// Whether a host answered and took none of the keys.
#[must_use]
pub fn is_refused(e: &OpError) -> bool {
    e.is(Kind::Denied) && e.message.contains(" refuses `")
}
