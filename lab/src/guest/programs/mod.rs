//! The programs of a guest. Each is a file on its PATH whose first line leads here; without the file (the package
//! is not installed) there is no program. What is not simulated says so and ends with 96.
mod accounts;
mod apt;
mod cards;
mod cloud;
mod crictl;
mod date;
mod disks;
mod files;
mod growth;
mod hosts;
mod journalctl;
mod k3s;
mod k3s_admin;
mod k3s_check;
mod k3s_token;
mod kernel;
mod kubectl;
mod ls;
mod mounts;
mod network;
mod nfs;
mod nft;
mod openssl;
mod owners;
mod power;
mod rights;
mod scp;
mod sessions;
mod stat;
mod system;
mod systemctl;
mod timing;
mod web;

use std::collections::HashMap;
use std::sync::Arc;

use bashkit::{Command, CommandContext, CommandInput, CommandOutput, CommandStatus, async_trait};
use futures::future::BoxFuture;
use gpuhost_stdlib::core::clock::{Clock, Mode};
use gpuhost_stdlib::wire::blind;

use super::fs::Who;
use super::fs::tree::normalise;
use super::live::Machine;
use super::state::Guest;
use crate::world::World;

/// Exit status of what the lab does not simulate.
pub const NOT_SIMULATED: i32 = 96;

/// The code of a program.
#[derive(Clone, Copy)]
pub enum Body {
    /// Answers at once.
    Now(fn(&mut Call) -> i32),
    /// May wait.
    Later(for<'a> fn(&'a mut Call) -> BoxFuture<'a, i32>),
}

/// A program and where it is found.
#[derive(Clone, Copy)]
pub struct Program {
    /// Its file.
    pub path: &'static str,
    /// Package that brings it; empty when the image has it.
    pub package: &'static str,
    /// What it does.
    pub body: Body,
}

impl Program {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// Shorthand for the tables.
const fn now(path: &'static str, body: fn(&mut Call) -> i32) -> Program {
    Program { path, package: "", body: Body::Now(body) }
}
const fn later(path: &'static str, body: for<'a> fn(&'a mut Call) -> BoxFuture<'a, i32>) -> Program {
    Program { path, package: "", body: Body::Later(body) }
}
const fn of(package: &'static str, p: Program) -> Program {
    Program { package, ..p }
}

/// All programs, by the file that simulates them.
const GROUPS: &[(&str, &[Program])] = &[
    ("guest/programs/rights", rights::PROGRAMS),
    ("guest/programs/accounts", accounts::PROGRAMS),
    ("guest/programs/files", files::PROGRAMS),
    ("guest/programs/stat", stat::PROGRAMS),
    ("guest/programs/ls", ls::PROGRAMS),
    ("guest/programs/hosts", hosts::PROGRAMS),
    ("guest/programs/apt", apt::PROGRAMS),
    ("guest/programs/systemctl", systemctl::PROGRAMS),
    ("guest/programs/journalctl", journalctl::PROGRAMS),
    ("guest/programs/kernel", kernel::PROGRAMS),
    ("guest/programs/system", system::PROGRAMS),
    ("guest/programs/sessions", sessions::PROGRAMS),
    ("guest/programs/disks", disks::PROGRAMS),
    ("guest/programs/growth", growth::PROGRAMS),
    ("guest/programs/openssl", openssl::PROGRAMS),
    ("guest/programs/mounts", mounts::PROGRAMS),
    ("guest/programs/network", network::PROGRAMS),
    ("guest/programs/nfs", nfs::PROGRAMS),
    ("guest/programs/nft", nft::PROGRAMS),
    ("guest/programs/scp", scp::PROGRAMS),
    ("guest/programs/cards", cards::PROGRAMS),
    ("guest/programs/cloud", cloud::PROGRAMS),
    ("guest/programs/web", web::PROGRAMS),
    ("guest/programs/k3s", k3s::PROGRAMS),
    ("guest/programs/power", power::PROGRAMS),
    ("guest/programs/timing", timing::PROGRAMS),
    ("guest/programs/date", date::PROGRAMS),
];

/// All programs.
#[must_use]
pub fn table() -> Vec<Program> {
    GROUPS.iter().flat_map(|(_, list)| list.iter().copied()).collect()
}

pub(crate) use date::show as show_date;
pub(crate) use kernel::{apply_sysctl_files, boot_arguments, write_boot_arguments};
pub(crate) use system::SYSTEM_BYTES;
pub(crate) use timing::duration;

/// A program with the file that simulates it.
fn find(name: &str) -> Option<(&'static str, Program)> {
    use std::sync::LazyLock;
    static BY_NAME: LazyLock<HashMap<&'static str, (&'static str, Program)>> =
        LazyLock::new(|| GROUPS.iter().flat_map(|(file, list)| list.iter().map(|p| (p.name(), (*file, *p)))).collect());
    BY_NAME.get(name).copied()
}

/// Whether the lab has a program of this name, installed or not (then the shell says `command not found`).
#[must_use]
pub fn known(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or_default();
    find(name).is_some() || super::apt::brings(name)
}

/// Records and words that something is not simulated.
#[must_use]
pub fn not_simulated(m: &Machine, name: &str) -> String {
    m.lab.with(|w| w.not_rehearsed.insert(blind::program(name)));
    format!("{name}: {} (lab/src/guest/programs/)\n", blind::NOT_SIMULATED)
}

/// Who and where a shell is.
#[derive(Clone)]
pub struct Context {
    /// The machine.
    pub m: Arc<Machine>,
    /// The user.
    pub who: Who,
    /// Whether a terminal is attached.
    pub tty: bool,
    /// As in [`super::shell::Job`].
    pub depth: usize,
}

/// The shell command behind every program file.
pub struct Dispatch(pub Context);

/// One run of a program.
pub struct Call {
    /// The machine.
    pub m: Arc<Machine>,
    /// Who runs it.
    pub who: Who,
    /// Its name.
    pub name: String,
    /// What follows the name in the first line of its file (a version).
    pub variant: String,
    /// How it was called.
    pub argv0: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: HashMap<String, String>,
    /// Working directory.
    pub cwd: String,
    /// Whether a terminal is attached.
    pub tty: bool,
    /// As in [`super::shell::Job`].
    pub depth: usize,
    stdin: CommandInput,
    stdout: CommandOutput,
    stderr: CommandOutput,
    out: Vec<u8>,
    err: Vec<u8>,
}

#[async_trait]
impl Command for Dispatch {
    async fn execute(&self, ctx: CommandContext<'_>) -> bashkit::Result<CommandStatus> {
        let first = ctx.args.first().cloned().unwrap_or_default();
        let argv0 = ctx.args.get(1).cloned().unwrap_or_default();
        let args = ctx.args.iter().skip(2).cloned().collect();
        run(&self.0, &first, argv0, args, ctx).await
    }
}

/// A program under its own name. The shell reads standard input to its end before it runs a file, so where the
/// input stays open programs are known by name.
pub struct Named(pub Context, pub Program);

#[async_trait]
impl Command for Named {
    async fn execute(&self, ctx: CommandContext<'_>) -> bashkit::Result<CommandStatus> {
        let args = ctx.args.to_vec();
        run(&self.0, self.1.name(), self.1.path.to_owned(), args, ctx).await
    }
}

/// The programs that `path` finds in this machine now.
#[must_use]
pub fn on_path(m: &Machine, path: &str) -> Vec<Program> {
    let dirs: Vec<&str> = path.split(':').collect();
    let there = |p: &Program| dirs.contains(&super::fs::tree::parent(p.path)) && m.files.exists(p.path);
    table().into_iter().filter(|p| p.package != "(k3s)" && there(p)).collect()
}

async fn run(
    at: &Context,
    first: &str,
    argv0: String,
    args: Vec<String>,
    ctx: CommandContext<'_>,
) -> bashkit::Result<CommandStatus> {
    let (name, variant) = first.split_once(' ').unwrap_or((first, ""));
    let mut call = Call {
        m: at.m.clone(),
        who: at.who.clone(),
        name: name.to_owned(),
        variant: variant.trim().to_owned(),
        argv0,
        args,
        env: ctx.env.clone(),
        cwd: ctx.cwd.to_string_lossy().into_owned(),
        tty: at.tty,
        depth: at.depth,
        stdin: ctx.stdin.clone(),
        stdout: ctx.stdout.clone(),
        stderr: ctx.stderr.clone(),
        out: Vec::new(),
        err: Vec::new(),
    };
    let found = find(name);
    if let Some((file, _)) = found {
        at.m.lab.with(|w| w.meets(file));
    }
    let code = match found.map(|(_, p)| p.body) {
        Some(Body::Now(f)) => f(&mut call),
        Some(Body::Later(f)) => f(&mut call).await,
        None => {
            let text = not_simulated(&call.m, name);
            call.fail(NOT_SIMULATED, &text)
        }
    };
    call.flush().await?;
    Ok(CommandStatus::with_code(code))
}

impl Call {
    /// Writes to standard output.
    pub fn print(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Writes a line to standard output.
    pub fn line(&mut self, text: &str) {
        self.print(text);
        self.out.push(b'\n');
    }

    /// Writes bytes to standard output.
    pub fn bytes(&mut self, b: &[u8]) {
        self.out.extend_from_slice(b);
    }

    /// Writes a line to standard error.
    pub fn complain(&mut self, text: &str) {
        self.err.extend_from_slice(text.trim_end_matches('\n').as_bytes());
        self.err.push(b'\n');
    }

    /// Writes a line to standard error and returns `code`.
    pub fn fail(&mut self, code: i32, text: &str) -> i32 {
        self.complain(text);
        code
    }

    /// Says that this use of the program is not simulated.
    pub fn unsimulated(&mut self, what: &str) -> i32 {
        let text = not_simulated(&self.m, &format!("{} {what}", self.name));
        self.fail(NOT_SIMULATED, &text)
    }

    /// Hands on what was written so far.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn flush(&mut self) -> bashkit::Result<()> {
        let (out, err) = (std::mem::take(&mut self.out), std::mem::take(&mut self.err));
        if !err.is_empty() {
            self.stderr.write_all(&err).await?;
        }
        if !out.is_empty() {
            self.stdout.write_all(&out).await?;
        }
        Ok(())
    }

    /// Reads standard input to its end.
    pub async fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(Some(b)) = self.stdin.read_chunk().await {
            all.extend(b);
        }
        all
    }

    /// Standard input as it comes.
    #[must_use]
    pub fn input(&self) -> CommandInput {
        self.stdin.clone()
    }

    /// Standard output and error for what runs below this program.
    #[must_use]
    pub fn outputs(&self) -> (CommandOutput, CommandOutput) {
        (self.stdout.clone(), self.stderr.clone())
    }

    /// Looks at or changes the guest.
    pub fn guest<T>(&self, f: impl FnOnce(&mut Guest) -> T) -> Option<T> {
        self.m.lab.with(|w| w.guests.get_mut(&self.m.vmid).map(f))
    }

    /// Looks at or changes the world.
    pub fn world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        self.m.lab.with(f)
    }

    /// Hands on what was written so far and lets the reader have it, before time may run.
    async fn hand_on(&mut self) {
        let _ = self.flush().await;
        // What carries the output away is polled with the shell that this program runs in.
        tokio::task::yield_now().await;
    }

    /// Waits on the lab's clock.
    pub async fn pause(&mut self, ms: u64) {
        self.hand_on().await;
        self.m.lab.clock().sleep(std::time::Duration::from_millis(ms)).await;
    }

    /// Waits for the next look of a program that goes on until it is interrupted. Where time jumps from one timer to the
    /// next, one of its own would let it run on for ever: there it looks no more.
    pub async fn next_look(&mut self, ms: u64) {
        if self.m.lab.clock().mode() == Mode::Instant {
            self.hand_on().await;
            let _lent = Clock::Virtual(self.m.lab.clock().clone()).lend();
            std::future::pending::<()>().await;
        }
        self.pause(ms).await;
    }

    /// Whether one of these options is given.
    #[must_use]
    pub fn has(&self, options: &[&str]) -> bool {
        self.args.iter().take_while(|a| *a != "--").any(|a| options.contains(&a.as_str()))
    }

    /// The letters of all short options, as in `-la -h`.
    #[must_use]
    pub fn letters(&self) -> String {
        self.args.iter().filter(|a| a.starts_with('-') && !a.starts_with("--")).map(|a| &a[1..]).collect()
    }

    /// The arguments that are no options; `with_value` names options that take the next argument.
    #[must_use]
    pub fn operands(&self, with_value: &[&str]) -> Vec<String> {
        let mut list = Vec::new();
        let mut args = self.args.iter();
        while let Some(a) = args.next() {
            if a == "--" {
                list.extend(args.by_ref().cloned());
            } else if with_value.contains(&a.as_str()) {
                args.next();
            } else if !a.starts_with('-') || a == "-" {
                list.push(a.clone());
            }
        }
        list
    }

    /// The value of an option: `-n 5`, `-n5`, `--lines 5`, `--lines=5`.
    #[must_use]
    pub fn value(&self, options: &[&str]) -> Option<String> {
        let mut args = self.args.iter();
        while let Some(a) = args.next() {
            for o in options {
                if a == o {
                    return args.next().cloned();
                }
                let attached = if o.starts_with("--") {
                    a.strip_prefix(o).and_then(|r| r.strip_prefix('='))
                } else {
                    a.strip_prefix(o)
                };
                if let Some(v) = attached.filter(|v| !v.is_empty() && (o.starts_with("--") || !a.starts_with("--"))) {
                    return Some(v.to_owned());
                }
            }
        }
        None
    }

    /// Absolute path of an argument.
    #[must_use]
    pub fn path(&self, p: &str) -> String {
        if p.starts_with('/') { normalise(p) } else { normalise(&format!("{}/{p}", self.cwd)) }
    }

    /// Demands root; the text is what the real program prints.
    pub fn must_be_root(&mut self, text: &str) -> bool {
        if self.who.uid != 0 {
            self.complain(text);
        }
        self.who.uid == 0
    }
}
