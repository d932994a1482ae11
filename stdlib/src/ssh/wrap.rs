//! The command line that sshd gives to the login shell, and what travels on standard input with it.
//! Passwords and secrets go by standard input only: other users of a host can read command lines.
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::units::{Duration as Span, Secret};

use super::conn::Feed;
use super::host::Host;
use super::keys;
use super::options::RunOptions;
use super::quote::quote;

/// Longer programs travel on standard input: servers limit packets (dropbear: 32 kB) and single arguments.
const LONGEST_ARGUMENT: usize = 30_000;

/// Variable by which the processes of a command are found again.
pub(super) const RUN: &str = "GPUHOST_RUN";

/// A command line and its standard input.
pub(super) struct Line {
    pub command: String,
    pub input: Vec<u8>,
    /// Appears on standard error once `sudo` took the password; everything up to it is `sudo`'s.
    pub mark: Option<String>,
    /// What its processes have in their environment.
    pub id: String,
}

impl Host {
    pub(super) fn needs_sudo(&self, options: &RunOptions) -> bool {
        options.r#become && self.user() != "root"
    }

    /// The password of `sudo`, where that asks for one.
    fn sudo_password(&self, ctx: &Ctx, options: &RunOptions) -> OpResult<Option<Secret>> {
        match &self.login().become_password {
            Some(reference) if self.needs_sudo(options) => {
                let who = format!("sudo password of {}@{}", self.user(), self.address());
                keys::secret(ctx, &who, reference).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// `script` as one command that is ended with its children after the time limit.
    pub(super) fn line(&self, ctx: &Ctx, script: &str, stdin: &[u8], options: &RunOptions) -> OpResult<Line> {
        let text = program(script, options)?;
        let id = super::jobs::new_id();
        let timeout = format!("timeout -k 5 {} env {RUN}={id}", options.timeout.0.as_secs().max(1));
        let password = self.sudo_password(ctx, options)?;
        let prelude = Prelude::new(ctx, password.as_ref(), options)?;
        let quoted = quote(&text);
        let (tail, input) = match (quoted.len() <= LONGEST_ARGUMENT, stdin.is_empty()) {
            (true, _) => (format!("{timeout} sh -c {quoted}"), stdin.to_vec()),
            // Read as one function first: what it runs must not read the program as its own input.
            (false, true) => {
                let all = format!("gpuhost_main() {{\n{text}\n}}\ngpuhost_main </dev/null\nexit $?\n");
                (format!("{timeout} sh -s"), all.into_bytes())
            }
            (false, false) => {
                let read = "IFS= read -r l; l=$(printf '%b.' \"$l\"); eval \"${l%.}\"";
                let all = [escaped(&text).as_bytes(), b"\n", stdin].concat();
                (format!("{timeout} sh -c {}", quote(read)), all)
            }
        };
        Ok(prelude.around(self.sudo(options, password.is_some()), &tail, input, id))
    }

    /// `program` with `arguments` (not limited in time), which reads `input`.
    pub(super) fn bare_line(
        &self,
        ctx: &Ctx,
        program: &str,
        id: &str,
        arguments: &[&str],
        input: Vec<u8>,
        options: &RunOptions,
    ) -> OpResult<Line> {
        let password = self.sudo_password(ctx, options)?;
        let prelude = Prelude::new(ctx, password.as_ref(), options)?;
        let tail = format!("sh -c {} gpuhost {id} {}", quote(program), super::quote::words(arguments));
        Ok(prelude.around(self.sudo(options, password.is_some()), &tail, input, id.to_owned()))
    }

    /// Kills what is left of a command that ran out of time: processes that did not listen to TERM after the first
    /// of their group was gone, or that have a group of their own.
    pub(super) async fn end_stragglers(&self, ctx: &Ctx, id: &str, options: &RunOptions) {
        let script = format!(
            "for f in $(grep -l {RUN}={id} /proc/[0-9]*/environ 2>/dev/null); do p=${{f#/proc/}}; \
             kill -KILL \"${{p%/environ}}\"; done 2>/dev/null; true"
        );
        let quick = RunOptions { r#become: options.r#become, timeout: Span::secs(30), ..RunOptions::default() };
        let Ok(line) = self.line(ctx, &script, b"", &quick) else { return };
        let sent = ctx.clock.within(quick.timeout.0, self.send_once(ctx, &line, Feed::Bytes(&line.input), None)).await;
        if !matches!(sent, Some(Ok(_))) {
            tracing::warn!("{}: processes of a command that ran out of time may be left", self.name());
        }
    }

    fn sudo(&self, options: &RunOptions, password: bool) -> &'static str {
        match (self.needs_sudo(options), password) {
            (false, _) => "",
            (true, false) => "sudo -n ",
            // `-k`: whatever it remembers of earlier, it asks.
            (true, true) => "sudo -k -S -p '' ",
        }
    }
}

/// `script` with its environment and directory.
pub(super) fn program(script: &str, options: &RunOptions) -> OpResult<String> {
    let mut text = String::new();
    for (k, v) in &options.env {
        variable("env", k)?;
        text.push_str(&format!("export {k}={}\n", quote(v)));
    }
    if let Some(dir) = &options.cwd {
        text.push_str(&format!("cd {} || exit 1\n", quote(dir)));
    }
    text.push_str(script);
    if text.contains('\0') {
        return Err(OpError::invalid("a program cannot contain a zero byte").hint("hand binary data over as `stdin`"));
    }
    Ok(text)
}

fn variable(option: &str, name: &str) -> OpResult<()> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || !name.bytes().all(fine) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(OpError::invalid(format!("option `{option}`: `{name}` is no variable name")));
    }
    Ok(())
}

/// One line that `printf %b` turns into `text` again.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

/// What is read from standard input before the program starts.
#[derive(Default)]
struct Prelude {
    script: String,
    input: Vec<u8>,
    mark: Option<String>,
}

impl Prelude {
    fn new(ctx: &Ctx, password: Option<&Secret>, options: &RunOptions) -> OpResult<Self> {
        let mut p = Prelude::default();
        if let Some(password) = password {
            if password.reveal().contains('\n') {
                return Err(OpError::invalid("the sudo password has a line break in it"));
            }
            let mark = format!("@gpuhost-{}", uuid::Uuid::new_v4().simple());
            p.input.extend([password.reveal(), "\n", &mark, "\n"].concat().into_bytes());
            // `sudo` that does not ask leaves the password unread: everything up to the mark is dropped.
            p.script = format!("while IFS= read -r l; do [ \"$l\" = {mark} ] && break; done; echo {mark} >&2; ");
            p.mark = Some(mark);
        }
        for (name, value) in &options.secrets {
            variable("secrets", name)?;
            ctx.hide(value.reveal());
            p.input.extend(format!("{}\n", escaped(value.reveal())).into_bytes());
            p.script.push_str(&format!(
                "IFS= read -r {name}; {name}=$(printf '%b.' \"${name}\"); {name}=${{{name}%.}}; export {name}; "
            ));
        }
        Ok(p)
    }

    fn around(self, sudo: &str, tail: &str, input: Vec<u8>, id: String) -> Line {
        if self.script.is_empty() {
            return Line { command: format!("{sudo}{tail}"), input, mark: None, id };
        }
        let command = format!("{sudo}sh -c {}", quote(&format!("{}exec {tail}", self.script)));
        Line { command, input: [self.input, input].concat(), mark: self.mark, id }
    }
}
