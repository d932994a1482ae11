//! Running commands: connection reuse, root, environment, time limits, exit codes.
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::json;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;
use crate::core::units::{Duration as Span, show_duration};

use super::conn::{Conn, Lost, Raw};
use super::host::Host;
use super::options::{Output, RunOptions};
use super::quote::quote;

/// Longer programs travel on standard input: sshd passes a command as one argument of limited size.
const LONGEST_ARGUMENT: usize = 60_000;

/// The connection of one login, for the run.
#[derive(Default)]
struct Slot {
    conn: tokio::sync::Mutex<Option<Arc<Conn>>>,
}

impl Host {
    /// Runs a shell command as root (see `RunOptions`), journalled as not idempotent.
    ///
    /// # Errors
    /// `failed` when its exit code is not among `ok_codes`.
    pub async fn run(&self, ctx: &Ctx, cmd: &str, options: RunOptions) -> OpResult<Output> {
        self.run_as(ctx, "run", cmd, options).await
    }

    pub(super) async fn run_as(
        &self,
        ctx: &Ctx,
        verb: &'static str,
        text: &str,
        options: RunOptions,
    ) -> OpResult<Output> {
        let op = Op::run("ssh", verb, self.name()).args(&json!([text, options.cwd, options.r#become]));
        let change = Change::new(self.name(), shorten(text), None, Some(json!("run")));
        ctx.run_op(op, |s| async move {
            s.act(shorten(text), vec![change], self.exec_checked(s.ctx(), text, &options)).await
        })
        .await
    }

    /// Runs a shell command that its author declares to change nothing.
    ///
    /// # Errors
    /// `failed` when its exit code is not 0.
    pub async fn read(&self, ctx: &Ctx, cmd: &str) -> OpResult<Output> {
        self.read_with(ctx, cmd, &RunOptions::default()).await
    }

    /// As [`Host::read`], with options.
    ///
    /// # Errors
    /// `failed` when its exit code is not among `ok_codes`.
    pub async fn read_with(&self, ctx: &Ctx, cmd: &str, options: &RunOptions) -> OpResult<Output> {
        let op = Op::read("ssh", "read", self.name()).args(&cmd);
        ctx.run_op(op, |s| async move { self.exec_checked(s.ctx(), cmd, options).await }).await
    }

    /// A program as root, without journal entry and whatever its exit code: for the inside of other ops.
    ///
    /// # Errors
    /// `unreachable`, `denied`, `timeout`.
    pub async fn exec_raw(&self, ctx: &Ctx, script: &str, stdin: &[u8]) -> OpResult<Output> {
        self.exec_with(ctx, script, stdin, &RunOptions::default()).await
    }

    /// As [`Host::exec_raw`], with user, environment, directory and time limit of `options`.
    ///
    /// # Errors
    /// `unreachable`, `denied`, `timeout`.
    pub async fn exec_with(&self, ctx: &Ctx, script: &str, stdin: &[u8], options: &RunOptions) -> OpResult<Output> {
        let start = ctx.clock.now_ms().await;
        let raw = self.exec_bytes(ctx, script, stdin, options).await?;
        let ms = ctx.clock.now_ms().await.saturating_sub(start);
        Ok(Output {
            stdout: String::from_utf8_lossy(&raw.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&raw.stderr).into_owned(),
            code: raw.code,
            duration: Span(Duration::from_millis(ms)),
        })
    }

    async fn exec_checked(&self, ctx: &Ctx, text: &str, options: &RunOptions) -> OpResult<Output> {
        let out = self.exec_with(ctx, text, options.stdin.as_bytes(), options).await?;
        if options.ok_codes.contains(&out.code) {
            return Ok(out);
        }
        let mut e = OpError::failed(format!("`{}` ended with exit code {}", shorten(text), out.code));
        e.causes = out.last_words();
        Err(e)
    }

    pub(super) async fn exec_bytes(
        &self,
        ctx: &Ctx,
        script: &str,
        stdin: &[u8],
        options: &RunOptions,
    ) -> OpResult<Raw> {
        let (command, input) = self.command(script, stdin, options)?;
        // The host ends the command; ours is only the deadline for a host that hangs.
        let limit = options.timeout.0 + Duration::from_secs(15);
        let start = ctx.clock.now_ms().await;
        let Some(raw) = ctx.clock.within(limit, self.send(ctx, &command, &input)).await else {
            self.forget_connection(ctx);
            return Err(self.took_too_long(script, options));
        };
        let raw = raw?;
        let ms = ctx.clock.now_ms().await.saturating_sub(start);
        if matches!(raw.code, 124 | 137) && Duration::from_millis(ms + 500) >= options.timeout.0 {
            return Err(self.took_too_long(script, options).last_seen(tail(&raw.stderr)));
        }
        if raw.code == 1 && self.needs_sudo(options) && raw.stderr.starts_with(b"sudo: ") {
            return Err(OpError::denied(format!("`{}` may not become root on {}", self.user(), self.name()))
                .because(tail(&raw.stderr))
                .hint(format!("allow it: `{} ALL=(ALL) NOPASSWD:ALL` in /etc/sudoers.d", self.user())));
        }
        Ok(raw)
    }

    fn took_too_long(&self, script: &str, options: &RunOptions) -> OpError {
        let limit = show_duration(options.timeout.0);
        OpError::timeout(format!("`{}` did not end within {limit}", shorten(script)))
            .hint("give it longer: `#{ timeout: 30.minutes }`")
    }

    fn needs_sudo(&self, options: &RunOptions) -> bool {
        options.r#become && self.user() != "root"
    }

    /// The command line that sshd gives to the login shell, and its standard input.
    fn command(&self, script: &str, stdin: &[u8], options: &RunOptions) -> OpResult<(String, Vec<u8>)> {
        let mut text = String::new();
        for (k, v) in &options.env {
            if k.is_empty() || !k.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(OpError::invalid(format!("option `env`: `{k}` is no variable name")));
            }
            text.push_str(&format!("export {k}={}\n", quote(v)));
        }
        if let Some(dir) = &options.cwd {
            text.push_str(&format!("cd {} || exit 1\n", quote(dir)));
        }
        text.push_str(script);
        let sudo = if self.needs_sudo(options) { "sudo -n " } else { "" };
        let secs = options.timeout.0.as_secs().max(1);
        let quoted = quote(&text);
        if quoted.len() <= LONGEST_ARGUMENT {
            return Ok((format!("{sudo}timeout -k 5 {secs} sh -c {quoted}"), stdin.to_vec()));
        }
        if !stdin.is_empty() {
            return Err(OpError::invalid("a program of more than 60 kB cannot have standard input as well"));
        }
        // Read as one function first: what it runs must not read the program as its own input.
        let program = format!("gpuhost_main() {{\n{text}\n}}\ngpuhost_main </dev/null\nexit $?\n");
        Ok((format!("{sudo}timeout -k 5 {secs} sh -s"), program.into_bytes()))
    }

    /// Sends a command over the run's connection; connects anew when that died before it started.
    async fn send(&self, ctx: &Ctx, command: &str, stdin: &[u8]) -> OpResult<Raw> {
        for last in [false, true] {
            let conn = self.connection(ctx).await?;
            match conn.exec(ctx, command, stdin).await {
                Ok(raw) => {
                    ctx.edge();
                    return Ok(raw);
                }
                Err(Lost::NotSent(_)) if !last => self.forget_connection(ctx),
                Err(Lost::NotSent(why)) => {
                    return Err(OpError::unreachable(format!("lost the connection to {}", self.name())).because(why));
                }
                Err(Lost::Midway(why)) => {
                    self.forget_connection(ctx);
                    return Err(OpError::unreachable(format!(
                        "lost the connection to {} during a command",
                        self.name()
                    ))
                    .because(why)
                    .hint("the command may have run; look at the host before you repeat it"));
                }
            }
        }
        Err(OpError::unreachable(format!("lost the connection to {}", self.name())))
    }

    fn cache_key(&self) -> String {
        let l = self.login();
        let jump = l.jump.as_ref().map_or("", |j| j.address());
        format!("ssh {}@{}:{} {:?} {} {jump}", l.user, self.address(), l.port, l.key, l.agent)
    }

    /// Drops the run's connection to this host: the next command connects anew.
    pub fn forget_connection(&self, ctx: &Ctx) {
        ctx.forget(&self.cache_key());
    }

    /// Boxed: a connection through another host is the same future inside itself.
    pub(super) fn connection<'a>(&'a self, ctx: &'a Ctx) -> BoxFuture<'a, OpResult<Arc<Conn>>> {
        Box::pin(async move {
            let slot = super::shared(ctx, &self.cache_key(), Slot::default);
            let mut held = match slot.conn.try_lock() {
                Ok(held) => held,
                Err(_) => {
                    // Somebody else connects, which may take time to pass.
                    let lent = ctx.clock.lend();
                    let held = slot.conn.lock().await;
                    drop(lent);
                    held
                }
            };
            if let Some(conn) = held.as_ref().filter(|c| c.is_open()) {
                return Ok(conn.clone());
            }
            let conn = Arc::new(Conn::open(ctx, self).await?);
            *held = Some(conn.clone());
            Ok(conn)
        })
    }
}

/// The first line of a program, for messages.
pub(super) fn shorten(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    let more = text.trim().lines().count() > 1;
    let cut: String = line.chars().take(72).collect();
    if more || cut.len() < line.len() { format!("{cut} …") } else { cut }
}

fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
