//! The command line: it knows every command, and no command knows it.
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};

use crate::args::{CheckArgs, CompletionsArgs, DocArgs, InitArgs, InventoryArgs, LabArgs, ReplArgs, RunArgs};
use crate::exit::Exit;
use crate::screen::Screen;

/// One binary for the life of a GPU homelab.
#[derive(Debug, Parser)]
#[command(name = "gpuhost", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a recipe against the site, or against the lab.
    Run(RunArgs),
    /// Find mistakes in a recipe and its site file without touching anything.
    Check(CheckArgs),
    /// Try things out line by line, on the site or on the lab.
    Repl(ReplArgs),
    /// The simulated homelab: look at it, start it over, serve it to other programs.
    Lab(LabArgs),
    /// What earlier runs did: list, show, follow and verify their journals.
    Runs(crate::runs::command::RunsArgs),
    /// Read the site, change nothing, and write a lab world that looks like it.
    Snapshot(crate::snapshot::command::SnapshotArgs),
    /// Say what a recipe would change, by rehearsing it in a likeness of the site. Exit code 10: changes.
    Plan(crate::plan::command::PlanArgs),
    /// Say what differs from the `deploy` recipe. Exit code 10: something does.
    Drift(crate::plan::command::DriftArgs),
    /// Run a recipe on the lab under one seed of faults after the other, and report how it ended.
    Drill(crate::drill::DrillArgs),
    /// Put a run into one file without secrets: journal, recipes, site, seed.
    Bug(crate::bug::command::BugArgs),
    /// Run what is in such a file again, on the lab.
    Replay(crate::bug::command::ReplayArgs),
    /// Explain who holds the site's lock, and take it away if you agree.
    Unlock(crate::lock::command::UnlockArgs),
    /// The site's machines for other tools: ssh, Ansible, /etc/hosts, JSON.
    Inventory(InventoryArgs),
    /// Explain modules, functions and options; or write the reference.
    Doc(DocArgs),
    /// Write recipes, scripts and a site file of your own into a folder.
    Init(InitArgs),
    /// Write the completion of commands and options for a shell: `eval "$(gpuhost completions bash)"`.
    Completions(CompletionsArgs),
}

/// Writes the completion for a shell.
fn completions(shell: clap_complete::Shell) -> Exit {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gpuhost", &mut out);
    Screen::new(false).out(String::from_utf8_lossy(&out).trim_end());
    Exit::Done
}

/// What libraries may say without `-v`. The Kubernetes client's own lines repeat what an op waits for or fails with.
const QUIET: &str = "error,kube_client=off,kube_runtime=off";

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(c) => c,
        Err(e) => {
            let screen = Screen::new(false);
            if e.kind() == clap::error::ErrorKind::DisplayHelp {
                let text = e.render();
                let text = if screen.paint_out().0 { text.ansi().to_string() } else { text.to_string() };
                screen.prose(text.trim_end());
            } else {
                e.print().ok();
            }
            if e.kind() == clap::error::ErrorKind::DisplayHelp
                && let Some(text) = crate::help::recipe(std::env::args().skip(1))
            {
                screen.prose(text.trim_end());
            }
            return if e.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let verbose = match &cli.command {
        Command::Run(a) => a.common.verbose,
        Command::Repl(a) => a.common.verbose,
        Command::Drill(a) => a.common.verbose,
        _ => false,
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("GPUHOST_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(if verbose { "warn" } else { QUIET })),
        )
        // `NO_COLOR`, a dumb terminal, a pipe: as everything else on stderr.
        .with_ansi(Screen::new(false).paint().0)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    let rt = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // The lab's shells and the engine recurse deeply.
        .thread_stack_size(16 << 20)
        .build();
    let rt = match rt {
        Ok(rt) => rt,
        Err(e) => {
            Screen::new(false).err(&format!("error: cannot start: {e}"));
            return Exit::Internal;
        }
    };
    let exit = dispatch(cli, rt.handle());
    rt.shutdown_background();
    match Screen::lost() {
        Some(why) if exit == Exit::Done => {
            Screen::new(false).err(&format!("error: standard output was not written: {why}"));
            Exit::Failed
        }
        _ => exit,
    }
}

fn dispatch(cli: Cli, rt: &tokio::runtime::Handle) -> Exit {
    match cli.command {
        Command::Run(a) => {
            let screen = Arc::new(Screen::new(!a.json));
            crate::run::command(&a, rt, &screen)
        }
        Command::Repl(a) => crate::repl::command(&a, rt, &Arc::new(Screen::new(false))),
        Command::Lab(a) => crate::labs::command::command(&a, rt, &Arc::new(Screen::new(false))),
        Command::Runs(a) => crate::runs::command::command(&a, rt, &Arc::new(Screen::new(false))),
        Command::Snapshot(a) => crate::snapshot::command::command(&a, rt, &Arc::new(Screen::new(false))),
        Command::Plan(a) => crate::plan::command::command(&a, rt, &Arc::new(Screen::new(false))),
        Command::Drift(a) => crate::plan::command::drift(&a, rt, &Arc::new(Screen::new(false))),
        Command::Drill(a) => crate::drill::command(&a, rt, &Arc::new(Screen::new(false))),
        Command::Bug(a) => crate::bug::command::bug(&a, &Arc::new(Screen::new(false))),
        Command::Replay(a) => crate::bug::command::replay(&a, rt, &Arc::new(Screen::new(false))),
        Command::Unlock(a) => crate::lock::command::command(&a, rt, &Arc::new(Screen::new(false))),
        Command::Inventory(a) => crate::inventory::command(&a, &Arc::new(Screen::new(false))),
        Command::Completions(a) => completions(a.shell),
        Command::Doc(a) => crate::doc::command(&a, &Arc::new(Screen::new(false))),
        Command::Init(a) => crate::init::command(&a, &Arc::new(Screen::new(false))),
        Command::Check(a) => crate::check::command::command(&a, &Arc::new(Screen::new(false))),
    }
}
