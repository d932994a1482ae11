//! Contents on their way: over SFTP where the login user may write, else on standard input and output of a command.
//! Large files are streamed, never kept in memory.
use std::io::Write;
use std::path::{Path, PathBuf};

use russh_sftp::client::{Config, SftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};

use super::channels::{Lease, Place};
use super::conn::Feed;
use super::exec::tail;
use super::host::Host;
use super::options::{FileOptions, RunOptions};
use super::quote::quote;
use super::remote_file::{Plan, Wanted, beside};

/// Smaller files are not worth the round trips of SFTP.
const WORTH_SFTP: u64 = 1 << 20;
/// Seconds that one answer of SFTP may take.
const SFTP_ANSWER: u64 = 120;

/// Where a content comes from.
pub(super) enum Source<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

impl Source<'_> {
    async fn open(&self) -> OpResult<Box<dyn AsyncRead + Send + Unpin + '_>> {
        match self {
            Source::Bytes(b) => Ok(Box::new(*b)),
            Source::File(path) => match tokio::fs::File::open(path).await {
                Ok(f) => Ok(Box::new(f)),
                Err(e) => Err(OpError::failed(format!("cannot read {}", path.display())).because(e.to_string())),
            },
        }
    }
}

/// SHA-256 in hex and length of a local file.
pub(super) async fn local_digest(path: &Path) -> std::io::Result<(String, u64)> {
    let mut file = tokio::fs::File::open(path).await?;
    let (mut sum, mut len, mut buffer) = (Sha256::new(), 0u64, vec![0u8; 256 << 10]);
    loop {
        let n = file.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        sum.update(&buffer[..n]);
        len += n as u64;
    }
    Ok((hex(sum), len))
}

fn hex(sum: Sha256) -> String {
    sum.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// An SFTP session with its place among the channels.
struct Sftp {
    session: SftpSession,
    _place: Place,
}

impl Host {
    /// Carries out the plan of one file.
    pub(super) async fn upload(
        &self,
        ctx: &Ctx,
        wanted: &Wanted<'_>,
        plan: &Plan,
        source: &Source<'_>,
        runs: &RunOptions,
    ) -> OpResult<()> {
        if plan.content && wanted.len >= WORTH_SFTP && !self.needs_sudo(runs) {
            let temp = beside(wanted.path);
            if self.sftp_put(ctx, &temp, source).await? {
                let act = plan.act(wanted.path, &wanted.digest, Some(&temp));
                return done(wanted.path, self.exec_with(ctx, &act, b"", runs).await?.into_raw());
            }
        }
        let act = plan.act(wanted.path, &wanted.digest, None);
        let line = self.line(ctx, &act, b"", runs)?;
        let feed: Box<dyn AsyncRead + Send + Unpin> = match (plan.content, line.input.is_empty()) {
            (false, _) => Box::new(line.input.as_slice()),
            (true, true) => source.open().await?,
            (true, false) => Box::new(line.input.as_slice().chain(source.open().await?)),
        };
        let limit = runs.timeout.0;
        let sent = ctx.clock.within(limit, self.send_once(ctx, &line, Feed::Stream(feed), None)).await;
        let raw = sent.ok_or_else(|| OpError::timeout(format!("{} was not written in time", wanted.path)))??;
        done(wanted.path, self.finish(runs, &line, raw)?)
    }

    /// Writes a new file over SFTP; false when the server or the folder does not have it.
    async fn sftp_put(&self, ctx: &Ctx, path: &str, source: &Source<'_>) -> OpResult<bool> {
        let Some(sftp) = self.sftp(ctx).await? else { return Ok(false) };
        let flags = OpenFlags::CREATE | OpenFlags::EXCLUDE | OpenFlags::WRITE;
        let attributes = FileAttributes { permissions: Some(0o600), ..FileAttributes::empty() };
        let Ok(mut file) = sftp.session.open_with_flags_and_attributes(path, flags, attributes).await else {
            return Ok(false);
        };
        let mut from = source.open().await?;
        let copied = async {
            let mut buffer = vec![0u8; 256 << 10];
            loop {
                let n = from.read(&mut buffer).await?;
                if n == 0 {
                    break;
                }
                file.write_all(&buffer[..n]).await?;
            }
            file.flush().await?;
            file.close().await
        };
        let copied: std::io::Result<()> = copied.await;
        if let Err(e) = copied {
            sftp.session.remove_file(path).await.ok();
            return Err(OpError::failed(format!("cannot write {path}")).because(e.to_string()));
        }
        Ok(true)
    }

    /// Fetches a file to a local path and replaces what is there at once.
    pub(super) async fn download(&self, ctx: &Ctx, path: &str, full: &Path, digest: &str, len: u64) -> OpResult<()> {
        let here =
            |e: std::io::Error| OpError::failed(format!("cannot write {}", full.display())).because(e.to_string());
        if let Some(dir) = full.parent() {
            std::fs::create_dir_all(dir).map_err(here)?;
        }
        let temp = Temp(full.with_extension(format!("gpuhost-{}", uuid::Uuid::new_v4().simple())));
        let mut file = std::fs::File::create(&temp.0).map_err(here)?;
        let mut sum = Sha256::new();
        let mut take = |b: &[u8]| {
            sum.update(b);
            file.write_all(b)
        };
        let runs = FileOptions::default().runs();
        let by_sftp = len >= WORTH_SFTP && !self.needs_sudo(&runs);
        if !(by_sftp && self.sftp_get(ctx, path, &mut take).await?) {
            let line = self.line(ctx, &format!("cat <{}", quote(path)), b"", &runs)?;
            let raw = self.send_once(ctx, &line, Feed::Bytes(&line.input), Some(&mut take)).await?;
            let raw = self.finish(&runs, &line, raw)?;
            if raw.code != 0 {
                return Err(OpError::failed(format!("cannot read {path}")).because(tail(&raw.stderr)));
            }
        }
        file.sync_all().map_err(here)?;
        if hex(sum) != digest {
            return Err(OpError::conflict(format!("{path} changed while it was read")).hint("run the recipe again"));
        }
        std::fs::rename(&temp.0, full).map_err(here)
    }

    async fn sftp_get(
        &self,
        ctx: &Ctx,
        path: &str,
        take: &mut (dyn FnMut(&[u8]) -> std::io::Result<()> + Send),
    ) -> OpResult<bool> {
        let Some(sftp) = self.sftp(ctx).await? else { return Ok(false) };
        let Ok(mut file) = sftp.session.open(path).await else { return Ok(false) };
        let fail = |e: std::io::Error| OpError::failed(format!("cannot read {path}")).because(e.to_string());
        let mut buffer = vec![0u8; 256 << 10];
        loop {
            let n = file.read(&mut buffer).await.map_err(fail)?;
            if n == 0 {
                return Ok(true);
            }
            take(&buffer[..n]).map_err(fail)?;
        }
    }

    /// An SFTP session; `None` when the server has no such subsystem.
    async fn sftp(&self, ctx: &Ctx) -> OpResult<Option<Sftp>> {
        let conn = self.connection(ctx).await?;
        let Lease { channel, place } = conn.channel(ctx).await.map_err(|lost| self.lost(lost))?;
        if channel.request_subsystem(true, "sftp").await.is_err() {
            return Ok(None);
        }
        let config = Config { request_timeout_secs: SFTP_ANSWER, ..Config::default() };
        match SftpSession::new_with_config(channel.into_stream(), config).await {
            Ok(session) => Ok(Some(Sftp { session, _place: place })),
            Err(_) => Ok(None),
        }
    }
}

fn done(path: &str, raw: super::conn::Raw) -> OpResult<()> {
    if raw.code == 0 {
        return Ok(());
    }
    let mut e = OpError::failed(format!("cannot write {path}")).hint("is there room, and may the user write there?");
    if !tail(&raw.stderr).is_empty() {
        e.causes.push(tail(&raw.stderr));
    }
    Err(e)
}

/// A file that goes unless it was renamed.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}
