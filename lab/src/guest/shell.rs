//! Runs shell scripts in a guest. The language is bashkit's, behind a trait of our own; the programs are the lab's.
use std::collections::BTreeMap;
use std::sync::Arc;

use bashkit::{Bash, Builtin, BuiltinContext, CommandResolver, ExecOptions, ExecResult, async_trait};
use tokio::sync::mpsc;

use super::fs::Who;
use super::fs::image::{SHELL_BUILTINS, SHELL_PROGRAMS};
use super::fs::shellfs::ShellFs;
use super::live::Machine;
use super::programs;
use crate::bash::{self, LiveIn, NO_PROCESS, NO_PROCESS_TEXT};

pub use crate::bash::{Chunk, Stdin};

/// PATH of root and of sudo.
pub const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// PATH of other users.
pub const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// A script to run.
pub struct Job {
    /// Text of the script.
    pub script: String,
    /// `$0`.
    pub arg0: Option<String>,
    /// `$1` and so on.
    pub args: Vec<String>,
    /// Who runs it.
    pub who: Who,
    /// Environment on top of the login environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; the home directory when `None`.
    pub cwd: Option<String>,
    /// Standard input.
    pub stdin: Stdin,
    /// Whether a terminal is attached.
    pub tty: bool,
    /// How many programs and shells it runs below: `sudo`, `timeout`, ...
    pub depth: usize,
}

/// How deep programs may start shells that start programs, and how many of them a machine has room for.
const DEEPEST: usize = 32;
const PROCESSES: usize = 500;

impl Job {
    /// A script of root with nothing on standard input.
    #[must_use]
    pub fn root(script: &str) -> Job {
        Job::of(Who::root(), script)
    }

    /// A script of `who` with nothing on standard input.
    #[must_use]
    pub fn of(who: Who, script: &str) -> Job {
        Job {
            script: script.to_owned(),
            arg0: None,
            args: Vec::new(),
            who,
            env: BTreeMap::new(),
            cwd: None,
            stdin: Stdin::Bytes(Vec::new()),
            tty: false,
            depth: 0,
        }
    }

    /// Whether the machine has no process left for it: only what programs start is refused, as a script that starts
    /// itself does without end.
    fn is_one_too_many(&self, m: &Machine) -> bool {
        self.depth > DEEPEST || (self.depth > 0 && Arc::strong_count(&m.running) > PROCESSES)
    }
}

/// How a script ended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit status.
    pub code: i32,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: Vec<u8>,
}

/// A shell language. One implementation today; scripts see nothing of which.
#[async_trait]
pub trait Shell: Send + Sync {
    /// Runs one script to its end and returns its exit status.
    async fn run(&self, m: Arc<Machine>, job: Job, out: mpsc::Sender<Chunk>) -> i32;
    /// A shell that keeps its state from line to line, for a terminal.
    fn session(&self, m: Arc<Machine>, who: Who) -> Box<dyn Session>;
}

/// A shell at a terminal.
#[async_trait]
pub trait Session: Send {
    /// Runs a line; `None` as status means that the shell ended with that of `exit`.
    async fn line(&mut self, text: &str, out: mpsc::Sender<Chunk>) -> (i32, bool);
    /// Whether `text` needs more lines to be complete.
    fn incomplete(&self, text: &str) -> bool;
    /// The working directory.
    fn cwd(&self) -> String;
}

/// The shell in use.
#[must_use]
pub fn shell() -> &'static dyn Shell {
    &Bashkit
}

/// Ends the task when dropped.
struct Task(tokio::task::JoinHandle<i32>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a job as a task of its own, so that nested shells do not pile up on one stack.
/// The task ends when the machine goes down.
#[must_use]
pub fn start(m: &Arc<Machine>, job: Job, out: mpsc::Sender<Chunk>) -> Running {
    let (m, stop, running) = (m.clone(), m.stop.clone(), m.running.clone());
    let rt = m.lab.rt().clone();
    Running(Task(rt.spawn(async move {
        let _one_more = running;
        if job.is_one_too_many(&m) {
            let _ = out.send(Chunk::Err(format!("bash: {NO_PROCESS_TEXT}\n").into_bytes())).await;
            return NO_PROCESS;
        }
        tokio::select! {
            code = shell().run(m, job, out) => code,
            () = stop.cancelled() => 255,
        }
    })))
}

/// A job that runs.
pub struct Running(Task);

impl Running {
    /// Waits for its end.
    pub async fn wait(&mut self) -> i32 {
        (&mut self.0.0).await.unwrap_or(137)
    }

    /// Kills it and waits until it is gone.
    pub async fn kill(&mut self) {
        self.0.0.abort();
        let _ = (&mut self.0.0).await;
    }
}

/// Runs a job and collects what it writes.
pub async fn run_to_end(m: Arc<Machine>, job: Job) -> Ended {
    let (tx, mut rx) = mpsc::channel(64);
    let mut running = start(&m, job, tx);
    let mut ended = Ended::default();
    while let Some(chunk) = rx.recv().await {
        match chunk {
            Chunk::Out(b) => ended.out.extend(b),
            Chunk::Err(b) => ended.err.extend(b),
        }
    }
    ended.code = running.wait().await;
    ended
}

struct Bashkit;

/// The environment a login gives.
#[must_use]
pub fn login_env(m: &Machine, who: &Who) -> BTreeMap<String, String> {
    let path = if who.uid == 0 { ROOT_PATH } else { USER_PATH };
    let mut env: BTreeMap<String, String> = [
        ("HOME", who.home.as_str()),
        ("USER", &who.name),
        ("LOGNAME", &who.name),
        ("SHELL", &who.shell),
        ("PATH", path),
        ("LANG", "C.UTF-8"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect();
    for line in m.files.text("/etc/environment").lines() {
        if let Some((k, v)) = line.split_once('=').filter(|(k, _)| !k.starts_with('#')) {
            env.insert(k.trim().to_owned(), v.trim().trim_matches('"').to_owned());
        }
    }
    env
}

fn build(
    m: &Arc<Machine>,
    who: &Who,
    env: &BTreeMap<String, String>,
    cwd: &str,
    (tty, depth): (bool, usize),
    pipe: Option<Arc<LiveIn>>,
) -> Bash {
    let host = m.files.text("/etc/hostname").trim().to_owned();
    let ctx = programs::Context { m: m.clone(), who: who.clone(), tty, depth };
    let mut b = bash::builder(Arc::new(ShellFs::new(m.files.clone(), who.clone())))
        .username(&who.name)
        .hostname(if host.is_empty() { "localhost".to_owned() } else { host })
        .cwd(cwd)
        .builtin_filter(|n| SHELL_PROGRAMS.contains(&n) || SHELL_BUILTINS.contains(&n))
        .env("UID", who.uid.to_string())
        .env("EUID", who.uid.to_string())
        .tty(0, tty)
        .tty(1, tty)
        .tty(2, tty)
        .command("program", programs::Dispatch(ctx.clone()))
        .command_resolver(Arc::new(Unknown(m.clone())));
    for (k, v) in env {
        b = b.env(k, v);
    }
    if let Some(p) = pipe {
        let path = env.get("PATH").map_or(USER_PATH, String::as_str);
        for program in programs::on_path(m, path) {
            b = b.command(program.name(), programs::Named(ctx.clone(), program));
        }
        b = p.commands(b);
    }
    b.build()
}

#[async_trait]
impl Shell for Bashkit {
    async fn run(&self, m: Arc<Machine>, job: Job, out: mpsc::Sender<Chunk>) -> i32 {
        let mut env = login_env(&m, &job.who);
        env.extend(job.env);
        let cwd = job.cwd.unwrap_or_else(|| job.who.home.clone());
        let cwd = if m.files.exists(&cwd) { cwd } else { "/".to_owned() };
        let text = with_block_tests(&job.script);
        let mut options = ExecOptions::new().positional(job.args);
        if let Some(a) = job.arg0 {
            options = options.arg0(a);
        }
        let (text, options, pipe) = bash::with_input(text, job.stdin, options);
        let mut bash = build(&m, &job.who, &env, &cwd, (job.tty, job.depth), pipe);
        bash::execute(&mut bash, "bash", &text, options, &out).await
    }

    fn session(&self, m: Arc<Machine>, who: Who) -> Box<dyn Session> {
        let env = login_env(&m, &who);
        let bash = build(&m, &who, &env, &who.home, (true, 0), None);
        Box::new(Terminal { bash })
    }
}

struct Terminal {
    bash: Bash,
}

#[async_trait]
impl Session for Terminal {
    async fn line(&mut self, text: &str, out: mpsc::Sender<Chunk>) -> (i32, bool) {
        let text = if text.trim() == "logout" { "exit".to_owned() } else { with_block_tests(text) };
        bash::line(&mut self.bash, "bash", &text, &out).await
    }

    fn incomplete(&self, text: &str) -> bool {
        bash::incomplete(&self.bash, text)
    }

    fn cwd(&self) -> String {
        bash::cwd(&self.bash)
    }
}

/// Names that no file on the PATH answers.
struct Unknown(Arc<Machine>);

impl CommandResolver for Unknown {
    fn resolve(&self, name: &str) -> Option<Arc<dyn Builtin>> {
        Some(Arc::new(Missing(self.0.clone(), name.to_owned())))
    }
}

struct Missing(Arc<Machine>, String);

#[async_trait]
impl Builtin for Missing {
    async fn execute(&self, _: BuiltinContext<'_>) -> bashkit::Result<ExecResult> {
        let name = &self.1;
        if programs::known(name) {
            return Ok(ExecResult::err(format!("bash: line 1: {name}: command not found\n"), 127));
        }
        Ok(ExecResult::err(programs::not_simulated(&self.0, name), 96))
    }
}

/// The shell library has no block devices: `[ -b /dev/sdb ]` would always be false. The view of the files that
/// it gets shows them with the set-user-id bit (which no device has), so that is what is asked for.
fn with_block_tests(script: &str) -> String {
    if !script.contains(" -b ") {
        return script.to_owned();
    }
    let mut out = script.to_owned();
    for before in ["[[", "[", "[[ !", "[ !", "test", "test !", "&&", "||", "-a", "-o", "&& !", "|| !", "("] {
        out = out.replace(&format!("{before} -b /"), &format!("{before} -u /"));
        for quote in ["\"", "'", "$"] {
            out = out.replace(&format!("{before} -b {quote}"), &format!("{before} -u {quote}"));
        }
    }
    out
}
