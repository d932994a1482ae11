//! Running commands in a container: one command, or a shell that keeps its state from line to line.
use std::sync::{Arc, PoisonError};

use bashkit::{Bash, Builtin, BuiltinContext, CommandResolver, ExecOptions, ExecResult, async_trait};
use tokio::sync::mpsc;

use super::guarded::Guarded;
use super::programs::{NAMES, Tool};
use super::{Inside, files, memory, voldata};
use crate::bash::{self, Chunk, LiveIn};
use crate::guest::fs::image::{SHELL_BUILTINS, SHELL_PROGRAMS};
use crate::kube::cx::with_cluster;

pub use crate::bash::Stdin as Input;

/// Why a command did not start.
pub const NOT_FOUND: i32 = 127;

/// The tool that NVIDIA's driver brings.
pub const SMI: &str = "nvidia-smi";

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
            // Where it goes to has to be there: the library's would make it.
            let to = argv.iter().position(|a| a == "-C").and_then(|i| argv.get(i + 1)).map(|d| quote(d));
            let check = to.map_or_else(String::new, |d| {
                format!("[ -d {d} ] || {{ echo \"tar: can't change directory to {d}: No such file or directory\" >&2; exit 1; }}\n")
            });
            let told =
                |a: &&String| !matches!(a.as_str(), "--no-same-owner" | "--no-same-permissions" | "-m" | "-p" | "-o");
            let bare = |a: &String| {
                if a.starts_with('-') && !a.starts_with("--") { a.replace(['m', 'p', 'o'], "") } else { a.clone() }
            };
            let words = argv.iter().filter(told).map(|a| quote(&bare(a))).collect::<Vec<_>>().join(" ");
            (format!("{check}{words}"), Vec::new())
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

/// Whether a container's command is a shell that somebody talks to once attached: its own, or the machine's by `chroot`.
#[must_use]
pub fn is_interactive(argv: &[String]) -> bool {
    match argv {
        [first, _, rest @ ..] if first.ends_with("chroot") => rest.is_empty() || is_shell(rest),
        _ => is_shell(argv),
    }
}

/// Whether a program of this name is in the container, which sees cards or does not.
#[must_use]
pub fn is_in(program: &str, gpus: bool) -> bool {
    has(program) || gpus && matches!(program, SMI | files::TOOL)
}

/// Whether a program of this name is in every container.
#[must_use]
pub fn has(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    NAMES.contains(&name)
        || SHELL_PROGRAMS.contains(&name)
        || SHELL_BUILTINS.contains(&name)
        || matches!(name, "sh" | "bash" | "ash" | "tar" | "printenv" | "true" | "false" | "test" | "pwd" | "ls")
}

fn build(i: &Inside, pipe: Option<Arc<LiveIn>>) -> Bash {
    let mut b = bash::builder(Arc::new(Guarded::of(i)))
        .username("root")
        .hostname(i.env.get("HOSTNAME").cloned().unwrap_or_default())
        .cwd(&i.cwd)
        .env("UID", "0")
        .env("EUID", "0")
        .command_resolver(Arc::new(Unknown));
    for (k, v) in &i.env {
        b = b.env(k, v);
    }
    let own = if i.gpus.is_some() { &[SMI, files::TOOL][..] } else { &[] };
    for name in NAMES.iter().chain(own).chain(&[memory::TOO_MUCH]) {
        b = b.command(*name, Tool(i.clone(), name));
    }
    if let Some(p) = pipe {
        b = p.commands(b);
    }
    b.build()
}

/// Runs a command line and returns its exit status; volumes are kept afterwards.
pub async fn run(i: &Inside, argv: &[String], input: Input, out: &mpsc::Sender<Chunk>) -> i32 {
    let (text, args) = script(argv);
    let text = memory::beyond_of(argv, i.memory()).unwrap_or(text);
    let (text, options, pipe) = bash::with_input(text, input, ExecOptions::new().positional(args));
    let mut bash = build(i, pipe);
    let code = bash::execute(&mut bash, "sh", &text, options, out).await;
    keep(i).await;
    code
}

/// Writes the data of volumes back into the world.
async fn keep(i: &Inside) {
    for m in &i.volumes {
        let files = files::below(&i.fs, &m.path).await;
        let before = std::mem::replace(&mut *m.seen.lock().unwrap_or_else(PoisonError::into_inner), files.clone());
        if before != files {
            i.lab.with(|w| with_cluster(&i.lab, w, &i.cluster, |cx| voldata::change(cx, &m.place, &before, &files)));
        }
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
        let text = if text.trim() == "logout" { "exit" } else { text };
        let ran = bash::line(&mut self.bash, "sh", text, out).await;
        keep(&self.inside).await;
        ran
    }

    /// Whether `text` needs more lines to be complete.
    #[must_use]
    pub fn incomplete(&self, text: &str) -> bool {
        bash::incomplete(&self.bash, text)
    }

    /// What a terminal shows before a line.
    #[must_use]
    pub fn prompt(&self) -> String {
        format!("{} # ", bash::cwd(&self.bash))
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
