//! What guests and containers have in common when a script runs: its limits, output as it comes, input that arrives
//! meanwhile, lines of a terminal.
mod nesting;

use std::sync::Arc;
use std::time::Duration;

use bashkit::{
    Bash, BashBuilder, Command, CommandContext, CommandStatus, ExecOptions, ExecutionLimits, FileSystem, LimitExceeded,
    SessionLimits, async_trait,
};
use tokio::sync::{Mutex, Notify, mpsc};

/// What a command reads.
pub enum Stdin {
    /// All of it is there.
    Bytes(Vec<u8>),
    /// It arrives while the command runs; the sender is dropped at its end.
    Live(mpsc::Receiver<Vec<u8>>),
}

/// What a command writes, in order.
#[derive(Debug)]
pub enum Chunk {
    /// Standard output.
    Out(Vec<u8>),
    /// Standard error.
    Err(Vec<u8>),
}

pub use nesting::{NO_PROCESS, NO_PROCESS_TEXT};

/// Commands that a script may run one after another: the clock stands still while it computes, so one that never ends
/// would stop the lab. Far above what a script of an operator does.
const COMMANDS: usize = 500_000;
/// Exit status of a shell that computed for too long (`SIGXCPU`).
pub const TOO_LONG: i32 = 152;

/// A shell over these files, without those of the machine that runs it, and with room for what real hosts do.
#[must_use]
pub fn builder<F: FileSystem + 'static>(files: Arc<F>) -> BashBuilder {
    let limits = ExecutionLimits::cli()
        .max_commands(COMMANDS)
        .max_loop_iterations(COMMANDS)
        .max_total_loop_iterations(COMMANDS)
        .timeout(Duration::from_secs(86_400))
        .max_input_bytes(64 << 20)
        .max_stdout_bytes(256 << 20)
        .max_stderr_bytes(64 << 20)
        .max_work_units(u64::MAX / 2)
        .max_aggregate_input_bytes(u64::MAX / 2)
        .max_live_intermediate_bytes(1 << 30);
    Bash::builder()
        .rootfs(false)
        .fs(Arc::new(nesting::Bounded(files)))
        .limits(limits)
        .session_limits(SessionLimits::unlimited())
        .before_tool(Box::new(nesting::before_tool))
}

/// Standard input that arrives while a script runs.
pub struct LiveIn {
    rx: Mutex<mpsc::Receiver<Vec<u8>>>,
    done: Notify,
}

impl LiveIn {
    /// The commands that a script from [`with_input`] uses.
    #[must_use]
    pub fn commands(self: Arc<Self>, b: BashBuilder) -> BashBuilder {
        b.command("__stdin", Feed(self.clone())).command("__done", Done(self))
    }
}

/// A script with its input: options for what is there, a pipe for what is still to come.
#[must_use]
pub fn with_input(text: String, input: Stdin, options: ExecOptions) -> (String, ExecOptions, Option<Arc<LiveIn>>) {
    match input {
        Stdin::Bytes(b) => (text, options.stdin(b), None),
        Stdin::Live(rx) => {
            let pipe = Arc::new(LiveIn { rx: Mutex::new(rx), done: Notify::new() });
            // A subshell, so that `exit` in the script still lets `__done` end the reader.
            (format!("__stdin | {{ (\n{text}\n); __rc=$?; __done; exit $__rc; }}"), options, Some(pipe))
        }
    }
}

/// Runs a script; `name` is the shell's in its own error messages.
pub async fn execute(bash: &mut Bash, name: &str, text: &str, options: ExecOptions, out: &mpsc::Sender<Chunk>) -> i32 {
    let (o, e) = (out.clone(), out.clone());
    let script = bash
        .execute(text)
        .options(options)
        .stdout_fn(move |b| send(o.clone(), Chunk::Out(b)))
        .stderr_fn(move |b| send(e.clone(), Chunk::Err(b)));
    match nesting::measured(script.into_future()).await {
        Ok(r) => r.exit_code,
        Err(e) => {
            let (code, text) = ending(&e);
            let _ = out.send(Chunk::Err(format!("{name}: {text}\n").into_bytes())).await;
            code
        }
    }
}

/// Variables of a session: number of the line that it has got through, and that line's status.
const LINE: &str = "__line";
const STATUS: &str = "__status";

/// Runs a line of a session; its exit status, and whether the shell ended in it (`exit` at any place).
pub async fn line(bash: &mut Bash, name: &str, text: &str, out: &mpsc::Sender<Chunk>) -> (i32, bool) {
    let noted = |b: &Bash, of: &str| b.shell_state_view().variables.get(of).and_then(|n| n.parse::<u64>().ok());
    let next = noted(bash, LINE).unwrap_or(0) + 1;
    let whole = bash.analyze(text).is_ok();
    // The library forgets `$?` between lines.
    let before = noted(bash, STATUS).filter(|n| *n > 0).map_or_else(String::new, |n| format!("(exit {n}); "));
    // What stands behind the line is reached unless the shell ended in it.
    let marked = format!("{before}{text}\n{STATUS}=$? {LINE}={next}\n(exit ${STATUS})");
    let code = execute(bash, name, if whole { &marked } else { text }, ExecOptions::new(), out).await;
    (code, whole && code != TOO_LONG && noted(bash, LINE) != Some(next))
}

/// Exit status and words of a script that the library ended.
fn ending(e: &bashkit::Error) -> (i32, String) {
    match e {
        bashkit::Error::ResourceLimit(
            LimitExceeded::MaxCommands(n)
            | LimitExceeded::MaxLoopIterations(n)
            | LimitExceeded::MaxTotalLoopIterations(n),
        ) => (TOO_LONG, format!("CPU time limit exceeded: it went on after {n} commands")),
        bashkit::Error::ResourceLimit(LimitExceeded::MaxFunctionDepth(n)) => {
            (1, format!("maximum function nesting level exceeded ({n})"))
        }
        bashkit::Error::Parse { .. } => (2, e.to_string()),
        other => (1, other.to_string()),
    }
}

async fn send(out: mpsc::Sender<Chunk>, chunk: Chunk) -> bashkit::Result<()> {
    out.send(chunk).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe).into())
}

/// Whether a line at a terminal needs more lines to be complete.
#[must_use]
pub fn incomplete(bash: &Bash, text: &str) -> bool {
    match bash.analyze(text) {
        Err(bashkit::Error::Parse { message, .. }) => {
            let m = message.to_lowercase();
            ["unterminated", "unexpected end", "eof", "expected '"].iter().any(|w| m.contains(w))
        }
        _ => text.trim_end().ends_with('\\'),
    }
}

/// The working directory of a shell.
#[must_use]
pub fn cwd(bash: &Bash) -> String {
    bash.shell_state_view().cwd.to_string_lossy().into_owned()
}

struct Feed(Arc<LiveIn>);

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

struct Done(Arc<LiveIn>);

#[async_trait]
impl Command for Done {
    async fn execute(&self, _: CommandContext<'_>) -> bashkit::Result<CommandStatus> {
        self.0.done.notify_one();
        Ok(CommandStatus::success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_ends_where_it_is_told_to_and_knows_its_last_status() {
        let mut bash = builder(Arc::new(bashkit::InMemoryFs::new())).build();
        let (out, mut said) = mpsc::channel(64);
        let mut ran = Vec::new();
        for text in ["false", "echo $?", "x=1; (exit 7)", "if then", "echo $x; exit 5; echo never"] {
            ran.push(line(&mut bash, "sh", text, &out).await);
        }
        drop(out);
        let mut text = String::new();
        while let Some(chunk) = said.recv().await {
            if let Chunk::Out(b) = chunk {
                text += &String::from_utf8_lossy(&b);
            }
        }
        assert_eq!(text, "1\n1\n");
        let ends: Vec<bool> = ran.iter().map(|r| r.1).collect();
        assert_eq!((ran[2].0, ran[4].0, ends), (7, 5, vec![false, false, false, false, true]));
    }
}
