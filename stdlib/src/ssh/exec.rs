//! Running commands: connection reuse, root, environment, time limits, exit codes.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::json;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::event::Change;
use crate::core::op::Op;
use crate::core::units::{Duration as Span, show_duration};
use crate::wire::blind;

use super::conn::{Conn, Feed, Lost, Raw, Taker};
use super::host::Host;
use super::options::{Output, RunOptions};
use super::wrap::Line;

/// The connection of one login, for the run.
#[derive(Default)]
struct Slot {
    conn: tokio::sync::Mutex<Option<Arc<Conn>>>,
}

/// How often a login that got no answer is tried.
const LOGINS: u32 = 3;
/// How often a command is sent that the connection was lost under.
const SENDS: u32 = 3;

/// What may be done when the connection ends while a command may be running.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It only looks: it is run again.
    Harmless,
    /// Nobody knows what it did: that is the caller's.
    Unknown,
}

/// Whether `sudo -n` itself refused: the command has not run, so there is no output, and the last line is one of
/// its refusals (warnings such as `sudo: unable to resolve host` come before a command that does run).
fn sudo_refused(raw: &Raw) -> bool {
    const REFUSALS: &[&str] = &[
        "sudo: a password is required",
        "sudo: a terminal is required",
        "sudo: no tty present",
        "sudo: sorry, you must have a tty",
        "sudo: account validation failure",
    ];
    let text = String::from_utf8_lossy(&raw.stderr);
    let last = text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default();
    let forbidden = last.contains("is not in the sudoers file") || last.contains("is not allowed to execute");
    raw.stdout.is_empty() && (forbidden || REFUSALS.iter().any(|r| last.starts_with(r)))
}

/// What a command answered. What the lab does not simulate is noted with the recipe's line.
pub(super) fn output(ctx: &Ctx, raw: Raw, ms: u64) -> Output {
    let out = Output::of(raw, Span(Duration::from_millis(ms)));
    if ctx.lab {
        blind::programs(&out.stderr).for_each(|name| ctx.blind(blind::program(name)));
    }
    out
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
            if !options.reattach {
                return s.act(shorten(text), vec![change], self.exec_checked(s.ctx(), text, &options)).await;
            }
            let id = super::jobs::new_id();
            let work = async {
                let out = self.job(&s, &id, text, &options).await?;
                checked(text, &options, out)
            };
            s.act(super::jobs::unit(&id), vec![change], work).await
        })
        .await
    }

    /// Runs a shell command that its author declares to change nothing. A lost connection is made anew.
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
        ctx.run_op(op, |s| async move {
            let out = self.exec_look(s.ctx(), cmd, &options.stdin.0, options).await?;
            checked(cmd, options, out)
        })
        .await
    }

    /// A program as root, without journal entry and whatever its exit code: for the inside of other ops.
    ///
    /// # Errors
    /// `unreachable`, `denied`, `timeout`.
    pub async fn exec_raw(&self, ctx: &Ctx, script: &str, stdin: &[u8]) -> OpResult<Output> {
        self.exec_with(ctx, script, stdin, &RunOptions::default()).await
    }

    /// As [`Host::exec_raw`] for a program that only looks: run again when the connection is lost meanwhile.
    ///
    /// # Errors
    /// `unreachable`, `denied`, `timeout`.
    pub async fn look_raw(&self, ctx: &Ctx, script: &str) -> OpResult<Output> {
        self.exec_look(ctx, script, b"", &RunOptions::default()).await
    }

    /// As [`Host::exec_raw`], with user, environment, directory and time limit of `options`.
    ///
    /// # Errors
    /// `unreachable`, `denied`, `timeout`.
    pub async fn exec_with(&self, ctx: &Ctx, script: &str, stdin: &[u8], options: &RunOptions) -> OpResult<Output> {
        let start = ctx.clock.now_ms().await;
        let raw = self.exec_bytes(ctx, script, stdin, options, Again::Unknown).await?;
        let ms = ctx.clock.now_ms().await.saturating_sub(start);
        Ok(output(ctx, raw, ms))
    }

    /// As [`Host::exec_with`] for a program that only looks: run again when the connection is lost meanwhile.
    ///
    /// # Errors
    /// `unreachable`, `denied`, `timeout`.
    pub async fn exec_look(&self, ctx: &Ctx, script: &str, stdin: &[u8], options: &RunOptions) -> OpResult<Output> {
        let start = ctx.clock.now_ms().await;
        let raw = self.exec_bytes(ctx, script, stdin, options, Again::Harmless).await?;
        let ms = ctx.clock.now_ms().await.saturating_sub(start);
        Ok(output(ctx, raw, ms))
    }

    async fn exec_checked(&self, ctx: &Ctx, text: &str, options: &RunOptions) -> OpResult<Output> {
        checked(text, options, self.exec_with(ctx, text, &options.stdin.0, options).await?)
    }

    pub(super) async fn exec_bytes(
        &self,
        ctx: &Ctx,
        script: &str,
        stdin: &[u8],
        options: &RunOptions,
        again: Again,
    ) -> OpResult<Raw> {
        let line = self.line(ctx, script, stdin, options)?;
        // The host ends the command; ours is only the deadline for a host that hangs.
        let limit = options.timeout.0 + Duration::from_secs(15);
        let start = ctx.clock.now_ms().await;
        let Some(raw) = ctx.clock.within(limit, self.send(ctx, &line, again)).await else {
            self.forget_connection(ctx);
            // It has ended, but what is left of it keeps its output open.
            self.end_stragglers(ctx, &line.id, options).await;
            return Err(self.took_too_long(script, options));
        };
        let raw = raw?;
        let ms = ctx.clock.now_ms().await.saturating_sub(start);
        if out_of_time(&raw, options, ms) {
            self.end_stragglers(ctx, &line.id, options).await;
            return Err(self.took_too_long(script, options).last_seen(tail(&raw.stderr)));
        }
        self.finish(options, &line, raw)
    }

    /// Tells `sudo`'s refusals from what the command itself answered.
    pub(super) fn finish(&self, options: &RunOptions, line: &Line, mut raw: Raw) -> OpResult<Raw> {
        let refused = match &line.mark {
            None => raw.code == 1 && self.needs_sudo(options) && sudo_refused(&raw),
            Some(mark) => {
                let at = raw.stderr.windows(mark.len()).position(|w| w == mark.as_bytes());
                if let Some(at) = at {
                    raw.stderr.drain(..(at + mark.len() + 1).min(raw.stderr.len()));
                }
                at.is_none()
            }
        };
        if refused {
            let e = OpError::denied(format!("`{}` may not become root on {}", self.user(), self.name()))
                .because(tail(&raw.stderr));
            return Err(match line.mark {
                Some(_) => e.hint("is it the right password, and is the user allowed to use sudo?"),
                None => e.hint(format!(
                    "allow it: `{} ALL=(ALL) NOPASSWD:ALL` in /etc/sudoers.d, or pass `become_password`",
                    self.user()
                )),
            });
        }
        Ok(raw)
    }

    pub(super) fn took_too_long(&self, script: &str, options: &RunOptions) -> OpError {
        let limit = show_duration(options.timeout.0);
        OpError::timeout(format!("`{}` did not end within {limit}", shorten(script)))
            .hint("give it longer: `#{ timeout: 30.minutes }`")
    }

    /// Sends a command over the run's connection; connects anew when that died before it started.
    async fn send(&self, ctx: &Ctx, line: &Line, again: Again) -> OpResult<Raw> {
        for attempt in 1..=SENDS {
            let last = attempt == SENDS;
            let conn = self.connection(ctx).await?;
            match conn.exec(ctx, &line.command, Feed::Bytes(&line.input), None).await {
                Ok(raw) => {
                    ctx.edge();
                    return Ok(raw);
                }
                Err(Lost::NotSent(_)) if !last => self.drop_connection(ctx, &conn).await,
                Err(lost @ Lost::Midway(_)) if !last && again == Again::Harmless => {
                    self.drop_connection(ctx, &conn).await;
                    ctx.say_retry(self.name(), "a look over SSH", attempt, Duration::ZERO, &self.lost(lost));
                }
                Err(lost) => {
                    self.drop_connection(ctx, &conn).await;
                    return Err(self.lost(lost));
                }
            }
        }
        Err(self.lost(Lost::NotSent("it broke again and again".to_owned())))
    }

    /// As [`Host::send`], once, with input or output that cannot be had twice.
    pub(super) async fn send_once(
        &self,
        ctx: &Ctx,
        line: &Line,
        feed: Feed<'_>,
        taker: Option<Taker<'_>>,
    ) -> OpResult<Raw> {
        let conn = self.connection(ctx).await?;
        match conn.exec(ctx, &line.command, feed, taker).await {
            Ok(raw) => {
                ctx.edge();
                Ok(raw)
            }
            Err(lost) => {
                self.drop_connection(ctx, &conn).await;
                Err(self.lost(lost))
            }
        }
    }

    pub(super) fn lost(&self, lost: Lost) -> OpError {
        let name = self.name();
        match lost {
            Lost::NotSent(why) => OpError::unreachable(format!("lost the connection to {name}")).because(why),
            Lost::Midway(why) => OpError::unreachable(format!("lost the connection to {name} during a command"))
                .because(why)
                .hint("the command may have run; look at the host before you repeat it"),
            Lost::Here(why) => OpError::failed("cannot keep what the command brings").because(why),
        }
    }

    /// Drops the run's connection to this host: the next command connects anew.
    pub fn forget_connection(&self, ctx: &Ctx) {
        ctx.forget(self.connection_key());
    }

    /// Drops this connection, unless a newer one took its place already.
    pub(super) async fn drop_connection(&self, ctx: &Ctx, conn: &Arc<Conn>) {
        let Some(slot) = ctx.cached::<Slot>(self.connection_key()) else { return };
        let mut held = slot.conn.lock().await;
        if held.as_ref().is_some_and(|c| Arc::ptr_eq(c, conn)) {
            *held = None;
        }
    }

    /// Boxed: a connection through another host is the same future inside itself.
    pub(super) fn connection<'a>(&'a self, ctx: &'a Ctx) -> BoxFuture<'a, OpResult<Arc<Conn>>> {
        Box::pin(async move {
            let slot = super::shared(ctx, self.connection_key(), Slot::default);
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
            // Thrice at most: a host that drops packets takes all of its time limit each time.
            let tries = AtomicU32::new(1);
            let worth = |_: &OpError| !ctx.is_looking() && tries.fetch_add(1, Ordering::SeqCst) < LOGINS;
            let conn = Arc::new(ctx.retry(self.name(), "SSH login", worth, || Conn::open(ctx, self)).await?);
            *held = Some(conn.clone());
            Ok(conn)
        })
    }
}

/// Whether the command was ended by its time limit.
pub(super) fn out_of_time(raw: &Raw, options: &RunOptions, ms: u64) -> bool {
    matches!(raw.code, 124 | 137) && Duration::from_millis(ms + 500) >= options.timeout.0
}

/// An exit code that is not among the expected ones is a failure.
pub(super) fn checked(text: &str, options: &RunOptions, out: Output) -> OpResult<Output> {
    if options.ok_codes.contains(&out.code) {
        return Ok(out);
    }
    let how = match out.signal() {
        Some(name) => format!("was ended by signal {name}"),
        None => format!("ended with exit code {}", out.code),
    };
    let mut e = OpError::failed(format!("`{}` {how}", shorten(text)));
    e.causes = out.last_words();
    Err(if out.signal().is_some() {
        e.hint("somebody or the system ended it: look at the host's journal")
    } else {
        e.hint(format!("if {} is no failure here: `#{{ ok_codes: [0, {}] }}`", out.code, out.code))
    })
}

/// The first line of a program, for messages.
pub(super) fn shorten(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    let more = text.trim().lines().count() > 1;
    let cut: String = line.chars().take(72).collect();
    if more || cut.len() < line.len() { format!("{cut} …") } else { cut }
}

pub(super) fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_failed_is_not_taken_for_a_refusal_of_sudo() {
        let raw = |out: &str, err: &str| Raw { stdout: out.into(), stderr: err.into(), code: 1 };
        for refusal in [
            "sudo: a password is required\n",
            "sudo: unable to resolve host a: Name or service not known\nsudo: a password is required\n",
            "ops is not in the sudoers file.\n",
            "Sorry, user ops is not allowed to execute '/usr/bin/sh -c true' as root on a.\n",
        ] {
            assert!(sudo_refused(&raw("", refusal)), "{refusal}");
        }
        for failure in ["sudo: unable to resolve host a: Name or service not known\n", "", "grep: x: No such file\n"] {
            assert!(!sudo_refused(&raw("", failure)), "{failure}");
        }
        assert!(!sudo_refused(&raw("half a line", "sudo: a password is required\n")), "the command ran");
    }
}
