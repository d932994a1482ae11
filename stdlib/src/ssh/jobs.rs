//! Commands that survive their connection. Each runs under a unit of its own (or, without systemd, in a session of
//! its own) and keeps its output and status in a folder on the host. `mkdir` of that folder is the test-and-set: the
//! same call sent again finds the command instead of running it twice.
use std::time::Duration;

use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::op::OpScope;
use crate::core::units::Duration as Span;

use super::conn::{Feed, Lost, Raw};
use super::exec::{out_of_time, shorten, tail};
use super::host::Host;
use super::options::{Output, RunOptions};
use super::wrap::program;

/// The part that runs on the host. Its arguments: id, seconds, length of the program, length of program and input
/// (both on standard input), and whether secrets forbid a unit, whose environment others can read.
const START: &str = include_str!("job.sh");

/// How long to look for the host again after a connection was lost.
const PATIENCE: Duration = Duration::from_secs(180);
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);
/// When live output is asked for first; later ever less often.
const FIRST_LOOK: Duration = Duration::from_secs(3);
const LAST_LOOK: Duration = Duration::from_secs(30);
/// Live output per look.
const MOST_OUTPUT: usize = 16_384;

/// A new id: what finds the command again.
pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The unit of an id.
pub(super) fn unit(id: &str) -> String {
    format!("unit gpuhost-{id}")
}

/// What the part on the host said at its end.
enum Said {
    /// The command's exit status.
    Code(i64),
    /// It was not started, or its folder is gone: starting it is harmless.
    NotStarted,
    /// It was started and will never end: the host went down, or somebody killed it.
    Died,
    /// Nothing: `sudo` or the shell did not let it run.
    Nothing,
}

impl Host {
    /// Runs a program that is found again after a lost connection.
    pub(super) async fn job(&self, s: &OpScope, id: &str, script: &str, options: &RunOptions) -> OpResult<Output> {
        let ctx = s.ctx();
        let limit = options.timeout.0 + PATIENCE + Duration::from_secs(15);
        let start = ctx.clock.now_ms().await;
        let work = async {
            // The look at live output runs beside the command: it needs a mark of its own.
            let mark = ctx.clock.busy();
            let out = tokio::select! { biased;
                out = self.attach(s, id, script, options) => out,
                () = self.watch(s, id, options) => Err(OpError::failed("nothing more to watch")),
            };
            drop(mark);
            out
        };
        let Some(raw) = ctx.clock.within(limit, work).await else {
            self.forget_connection(ctx);
            self.end_stragglers(ctx, id, options).await;
            return Err(self.took_too_long(script, options));
        };
        let ms = ctx.clock.now_ms().await.saturating_sub(start);
        let raw = raw?;
        if out_of_time(&raw, options, ms) {
            self.end_stragglers(ctx, id, options).await;
            return Err(self.took_too_long(script, options).last_seen(tail(&raw.stderr)));
        }
        Ok(super::exec::output(ctx, raw, ms))
    }

    /// Starts the command or attaches to it, until it has ended.
    async fn attach(&self, s: &OpScope, id: &str, script: &str, options: &RunOptions) -> OpResult<Raw> {
        let ctx = s.ctx();
        let text = program(script, options)?;
        let (inner, all) = (text.len(), text.len() + options.stdin.0.len());
        let secs = options.timeout.0.as_secs().max(1).to_string();
        let (inner, all) = (inner.to_string(), all.to_string());
        let secret = if options.secrets.is_empty() { "" } else { "secret" };
        let input = [text.as_bytes(), &options.stdin.0].concat();
        let line = self.bare_line(ctx, START, id, &[&secs, &inner, &all, secret], input, options)?;
        let (mut sent, mut pause) = (false, SHORTEST);
        loop {
            let conn = match self.connection(ctx).await {
                Ok(c) => c,
                // It may be running there: the way to it is worth waiting for.
                Err(e) if sent && super::conn::may_come(&e) => {
                    s.waiting(format!("the connection to {} (its command goes on)", self.name()));
                    s.sleep(pause).await?;
                    pause = (pause * 2).min(LONGEST);
                    continue;
                }
                Err(e) => return Err(e),
            };
            let lost = match conn.exec(ctx, &line.command, Feed::Bytes(&line.input), None).await {
                Ok(raw) => {
                    ctx.edge();
                    let raw = self.finish(options, &line, raw)?;
                    let (said, mut raw) = said(raw, id);
                    match said {
                        Said::Code(code) => {
                            self.tidy(ctx, id, options, line.mark.is_some()).await;
                            raw.code = code;
                            return Ok(raw);
                        }
                        Said::NotStarted => None,
                        Said::Died => return Err(self.died(script)),
                        Said::Nothing => return Err(self.not_run(script, &raw)),
                    }
                }
                Err(Lost::NotSent(why)) => Some((why, sent)),
                Err(Lost::Midway(why)) => Some((why, true)),
                Err(here) => return Err(self.lost(here)),
            };
            if let Some((why, maybe)) = lost {
                self.drop_connection(ctx, &conn).await;
                sent = maybe;
                s.waiting(format!("a new connection to {}: {why}", self.name()));
            }
            s.sleep(pause).await?;
            pause = (pause * 2).min(LONGEST);
        }
    }

    fn died(&self, script: &str) -> OpError {
        OpError::failed(format!("`{}` was ended from outside", shorten(script)))
            .because("its process is gone and left no exit code: the host went down meanwhile, or somebody killed it")
            .hint("look at the host before you repeat it; `reboot_and_wait` reboots on purpose")
    }

    fn not_run(&self, script: &str, raw: &Raw) -> OpError {
        let e = OpError::failed(format!("`{}` could not be started on {}", shorten(script), self.name()))
            .hint("`reattach: false` runs it plainly, as a child of sshd");
        match tail(&raw.stderr) {
            words if words.is_empty() => e.because(format!("the shell ended with exit code {}", raw.code)),
            words => e.because(words),
        }
    }

    /// Removes what the command left, without waiting for it. Where `sudo` asks for a password the next command
    /// finds and removes it later.
    async fn tidy(&self, ctx: &Ctx, id: &str, options: &RunOptions, asks: bool) {
        if asks {
            return;
        }
        let sudo = if self.needs_sudo(options) { "sudo -n " } else { "" };
        let script = format!("rm -rf /var/lib/gpuhost/jobs/{id} \"$HOME/.cache/gpuhost/jobs/{id}\"");
        let command = format!("{sudo}sh -c {}", super::quote::quote(&script));
        if let Ok(conn) = self.connection(ctx).await {
            conn.fire(ctx, &command).await;
        }
    }

    /// Hands on what the command writes while it runs. Never ends by itself.
    async fn watch(&self, s: &OpScope, id: &str, options: &RunOptions) {
        let ctx = s.ctx();
        let quiet = RunOptions { r#become: options.r#become, timeout: Span::secs(60), ..RunOptions::default() };
        let (mut seen, mut pause) = ([0usize; 2], FIRST_LOOK);
        loop {
            ctx.clock.sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
            for (i, (file, stream)) in [("out", "out"), ("err", "err")].into_iter().enumerate() {
                let script = format!(
                    "for b in /var/lib/gpuhost/jobs \"$HOME/.cache/gpuhost/jobs\"; do [ -e \"$b/{id}/{file}\" ] || \
                     continue; tail -c +{} \"$b/{id}/{file}\" | head -c {MOST_OUTPUT}; done",
                    seen[i] + 1
                );
                let Ok(raw) = self.exec_bytes(ctx, &script, b"", &quiet, super::exec::Again::Harmless).await else {
                    continue;
                };
                // Whole lines; the rest comes with the next look.
                let whole = raw.stdout.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                if whole > 0 {
                    seen[i] += whole;
                    let text = String::from_utf8_lossy(&raw.stdout[..whole - 1]).into_owned();
                    if let Some(last) = text.lines().rev().find(|l| !l.trim().is_empty()) {
                        s.waiting(last.trim().chars().take(120).collect::<String>());
                    }
                    s.output(stream, text);
                }
            }
        }
    }
}

/// Takes the last line of standard error: `@gpuhost ID code N`, `… again`, `… died`.
fn said(mut raw: Raw, id: &str) -> (Said, Raw) {
    let mark = format!("\n@gpuhost {id} ");
    let Some(at) = raw.stderr.windows(mark.len()).rposition(|w| w == mark.as_bytes()) else {
        return (Said::Nothing, raw);
    };
    let words = String::from_utf8_lossy(&raw.stderr[at + mark.len()..]).into_owned();
    raw.stderr.truncate(at);
    let mut words = words.split_whitespace();
    let said = match (words.next(), words.next().and_then(|n| n.parse().ok())) {
        (Some("code"), Some(code)) => Said::Code(code),
        (Some("again"), _) => Said::NotStarted,
        (Some("died"), _) => Said::Died,
        _ => Said::Nothing,
    };
    (said, raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_taken_off() {
        let raw = |err: &str| Raw { stdout: b"o".to_vec(), stderr: err.as_bytes().to_vec(), code: 0 };
        let (s, r) = said(raw("real\nerror\n@gpuhost x code 7\n"), "x");
        assert!(matches!(s, Said::Code(7)) && r.stderr == b"real\nerror");
        assert!(matches!(said(raw("\n@gpuhost x again\n"), "x").0, Said::NotStarted));
        assert!(matches!(said(raw("\n@gpuhost x died\n"), "x").0, Said::Died));
        assert!(matches!(said(raw("\n@gpuhost y code 0\n"), "x").0, Said::Nothing));
        assert!(matches!(said(raw("sudo: no\n"), "x").0, Said::Nothing));
    }
}
