//! Running commands in a container: one command, or a shell that keeps its state from line to line.
use std::sync::Arc;
use std::time::Duration;

use bashkit::{
    Bash, Builtin, BuiltinContext, Command, CommandContext, CommandResolver, CommandStatus, ExecOptions, ExecResult,
    ExecutionLimits, SessionLimits, async_trait,
};
use tokio::sync::{Mutex, Notify, mpsc};

use super::programs::{NAMES, Tool};
use super::{Inside, files};
use crate::guest::fs::image::{SHELL_BUILTINS, SHELL_PROGRAMS};
use crate::guest::shell::Chunk;
use crate::kube::cx::with_cluster;

/// What a command reads.
pub enum Input {
    /// All of it is there.
    Bytes(Vec<u8>),
    /// It arrives while the command runs.
    Live(mpsc::Receiver<Vec<u8>>),
}

/// Why a command did not start.
pub const NOT_FOUND: i32 = 127;

/// A word as the shell takes it literally.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A command line as a script, with its positional arguments: `sh -c TEXT` becomes its text.
#[must_use]
pub fn script(argv: &[String]) -> (String, Vec<String>) {
    let program = argv.first().map(|a| a.rsplit('/').next().unwrap_or(a)).unwrap_or_default();
    let at = argv.iter().skip(1).position(|a| a.starts_with('-') && !a.starts_with("--") && a.ends_with('c'));
    match at.map(|i| i + 1) {
        Some(i) if matches!(program, "sh" | "bash" | "ash" | "dash") && argv.len() > i + 1 => {
            (argv[i + 1].clone(), argv.get(i + 3..).unwrap_or_default().to_vec())
        }
        // kubectl cp asks tar to leave times and owners alone, which is all that this one does anyway.
        _ if program == "tar" => {
            let told =
                |a: &&String| !matches!(a.as_str(), "--no-same-owner" | "--no-same-permissions" | "-m" | "-p" | "-o");
            let bare = |a: &String| {
                if a.starts_with('-') && !a.starts_with("--") { a.replace(['m', 'p', 'o'], "") } else { a.clone() }
            };
            (argv.iter().filter(told).map(|a| quote(&bare(a))).collect::<Vec<_>>().join(" "), Vec::new())
        }
        _ => (argv.iter().map(|a| quote(a)).collect::<Vec<_>>().join(" "), Vec::new()),
    }
}

/// Whether the command line is a shell that reads its commands from standard input.
#[must_use]
pub fn is_shell(argv: &[String]) -> bool {
    let program = argv.first().map(|a| a.rsplit('/').next().unwrap_or(a)).unwrap_or_default();
    matches!(program, "sh" | "bash" | "ash" | "dash")
        && argv.iter().skip(1).all(|a| a.starts_with('-') && !a.ends_with('c'))
}

/// Whether a program of this name is in the container.
#[must_use]
pub fn has(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    NAMES.contains(&name)
        || SHELL_PROGRAMS.contains(&name)
        || SHELL_BUILTINS.contains(&name)
        || matches!(name, "sh" | "bash" | "ash" | "tar" | "printenv" | "true" | "false" | "test" | "pwd" | "ls")
}

fn build(i: &Inside, pipe: Option<Arc<Live>>) -> Bash {
    let limits = ExecutionLimits::cli()
        .timeout(Duration::from_secs(86_400))
        .max_input_bytes(64 << 20)
        .max_stdout_bytes(256 << 20)
        .max_stderr_bytes(64 << 20)
        .max_work_units(u64::MAX / 2)
        .max_aggregate_input_bytes(u64::MAX / 2)
        .max_live_intermediate_bytes(1 << 30);
    let mut b = Bash::builder()
        .fs(i.fs.clone())
        .rootfs(false)
        .username("root")
        .hostname(i.env.get("HOSTNAME").cloned().unwrap_or_default())
        .cwd(&i.cwd)
        .limits(limits)
        .session_limits(SessionLimits::unlimited())
        .env("UID", "0")
        .env("EUID", "0")
        .command_resolver(Arc::new(Unknown));
    for (k, v) in &i.env {
        b = b.env(k, v);
    }
    for name in NAMES {
        b = b.command(*name, Tool(i.clone(), name));
    }
    if let Some(p) = pipe {
        b = b.command("__stdin", Feed(p.clone())).command("__done", Done(p));
    }
    b.build()
}

/// Runs a command line and returns its exit status; volumes are kept afterwards.
pub async fn run(i: &Inside, argv: &[String], input: Input, out: &mpsc::Sender<Chunk>) -> i32 {
    let (text, args) = script(argv);
    let mut options = ExecOptions::new().positional(args);
    let (text, pipe) = match input {
        Input::Bytes(b) => {
            options = options.stdin(b);
            (text, None)
        }
        Input::Live(rx) => {
            let pipe = Arc::new(Live { rx: Mutex::new(rx), done: Notify::new() });
            (format!("__stdin | {{ (\n{text}\n); __rc=$?; __done; exit $__rc; }}"), Some(pipe))
        }
    };
    let mut bash = build(i, pipe);
    let code = execute(&mut bash, &text, options, out).await;
    keep(i).await;
    code
}

async fn execute(bash: &mut Bash, text: &str, options: ExecOptions, out: &mpsc::Sender<Chunk>) -> i32 {
    let (o, e) = (out.clone(), out.clone());
    let result = bash
        .execute(text)
        .options(options)
        .stdout_fn(move |b| send(o.clone(), Chunk::Out(b)))
        .stderr_fn(move |b| send(e.clone(), Chunk::Err(b)))
        .await;
    match result {
        Ok(r) => r.exit_code,
        Err(e) => {
            let _ = out.send(Chunk::Err(format!("sh: {e}\n").into_bytes())).await;
            if matches!(e, bashkit::Error::Parse { .. }) { 2 } else { 1 }
        }
    }
}

async fn send(out: mpsc::Sender<Chunk>, chunk: Chunk) -> bashkit::Result<()> {
    out.send(chunk).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe).into())
}

/// Writes the data of volumes back into the world.
async fn keep(i: &Inside) {
    for m in &i.volumes {
        let files = files::below(&i.fs, &m.path).await;
        i.lab.with(|w| {
            with_cluster(&i.lab, w, &i.cluster, |cx| {
                cx.c.volumes.entry(m.volume.clone()).or_default().files = files;
            })
        });
    }
}

/// A shell in a container that keeps its state from line to line.
pub struct Shell {
    inside: Inside,
    bash: Bash,
}

impl Shell {
    /// A new shell.
    #[must_use]
    pub fn new(inside: &Inside) -> Shell {
        Shell { bash: build(inside, None), inside: inside.clone() }
    }

    /// Runs a line; the second value says whether the shell ended.
    pub async fn line(&mut self, text: &str, out: &mpsc::Sender<Chunk>) -> (i32, bool) {
        let ends = matches!(text.split_whitespace().next(), Some("exit" | "logout"));
        let code = execute(&mut self.bash, text, ExecOptions::new(), out).await;
        keep(&self.inside).await;
        (code, ends)
    }

    /// Whether `text` needs more lines to be complete.
    #[must_use]
    pub fn incomplete(&self, text: &str) -> bool {
        match self.bash.analyze(text) {
            Err(bashkit::Error::Parse { message, .. }) => {
                let m = message.to_lowercase();
                ["unterminated", "unexpected end", "eof", "expected '"].iter().any(|w| m.contains(w))
            }
            _ => text.trim_end().ends_with('\\'),
        }
    }

    /// What a terminal shows before a line.
    #[must_use]
    pub fn prompt(&self) -> String {
        format!("{} # ", self.bash.shell_state_view().cwd.to_string_lossy())
    }
}

/// Standard input that arrives while a script runs.
struct Live {
    rx: Mutex<mpsc::Receiver<Vec<u8>>>,
    done: Notify,
}

struct Feed(Arc<Live>);

#[async_trait]
impl Command for Feed {
    async fn execute(&self, ctx: CommandContext<'_>) -> bashkit::Result<CommandStatus> {
        let mut rx = self.0.rx.lock().await;
        loop {
            tokio::select! {
                chunk = rx.recv() => match chunk {
                    Some(b) if ctx.stdout.write_all(&b).await.is_ok() => {}
                    _ => return Ok(CommandStatus::success()),
                },
                () = self.0.done.notified() => return Ok(CommandStatus::success()),
            }
        }
    }
}

struct Done(Arc<Live>);

#[async_trait]
impl Command for Done {
    async fn execute(&self, _: CommandContext<'_>) -> bashkit::Result<CommandStatus> {
        self.0.done.notify_one();
        Ok(CommandStatus::success())
    }
}

/// Names that no program answers.
struct Unknown;

impl CommandResolver for Unknown {
    fn resolve(&self, name: &str) -> Option<Arc<dyn Builtin>> {
        Some(Arc::new(Missing(name.to_owned())))
    }
}

struct Missing(String);

#[async_trait]
impl Builtin for Missing {
    async fn execute(&self, _: BuiltinContext<'_>) -> bashkit::Result<ExecResult> {
        Ok(ExecResult::err(format!("sh: {}: not found\n", self.0), NOT_FOUND))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn command_lines_become_scripts() {
        assert_eq!(script(&words(&["/bin/sh", "-ec", "echo $1", "x", "a"])), ("echo $1".to_owned(), words(&["a"])));
        assert_eq!(script(&words(&["ls", "it's"])).0, r"'ls' 'it'\''s'");
        assert!(is_shell(&words(&["/bin/bash", "-i"])) && !is_shell(&words(&["sh", "-c", "x"])));
    }
}
