//! The command line.
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::exit::Exit;
use crate::screen::Screen;

/// One binary for the life of a GPU homelab.
#[derive(Debug, Parser)]
#[command(name = "gpuhost", version, about, disable_help_subcommand = true)]
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
}

/// Options that every command has.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Where journals, keys and lab worlds live (else GPUHOST_STATE_DIR, else the XDG state folder).
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Say more: every op, every wait.
    #[arg(short, long)]
    pub verbose: bool,
}

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Recipe: a file, the name of one in `recipes/` or `scripts/`, or of one in this program.
    pub recipe: String,
    /// Site file (default: `site.toml` next to the recipe).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Run against the simulated homelab instead of the real one.
    #[arg(long)]
    pub lab: bool,
    /// A value for `param("NAME", …)` of the recipe.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Agree to questions; removals on a real site need the site's name: `--yes=SITE`.
    #[arg(long, value_name = "SITE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub yes: Option<String>,
    /// What goes wrong in the lab: a file of rules, or `random:SEED`.
    #[arg(long, value_name = "FILE|random:SEED", requires = "lab")]
    pub faults: Option<String>,
    /// Do only what this plan contains (`gpuhost plan R --out PLAN`); stop before anything else.
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<PathBuf>,
    /// Events as JSON lines on stdout instead of progress.
    #[arg(long)]
    pub json: bool,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

impl RunArgs {
    /// Those of a run on a lab of this program's own, which agrees to every question.
    #[must_use]
    pub fn of_lab(recipe: &str, set: &[String], state_dir: Option<PathBuf>) -> Self {
        RunArgs {
            recipe: recipe.to_owned(),
            site: None,
            lab: true,
            set: set.to_vec(),
            yes: Some(String::new()),
            faults: None,
            plan: None,
            json: false,
            common: Common { state_dir, verbose: false },
        }
    }
}

/// Arguments of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Recipe: a file, the name of one in `recipes/` or `scripts/`, or of one in this program.
    pub recipe: String,
    /// Site file (default: `site.toml` next to the recipe).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Check for a run on the lab: where there is no site file, the one of this program counts.
    #[arg(long)]
    pub lab: bool,
    /// Findings as JSON lines on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `repl`.
#[derive(Debug, Clone, Args)]
pub struct ReplArgs {
    /// Site file (default: `site.toml`, `recipes/site.toml`).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Talk to the simulated homelab instead of the real one.
    #[arg(long)]
    pub lab: bool,
    /// A value for `param("NAME", …)`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Agree to questions; removals on a real site need the site's name: `--yes=SITE`.
    #[arg(long, value_name = "SITE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub yes: Option<String>,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `lab`.
#[derive(Debug, Clone, Args)]
pub struct LabArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// What to do with the lab.
#[derive(Debug, Clone, Subcommand)]
pub enum LabCommand {
    /// Show the world of this site's lab.
    Status(StatusArgs),
    /// Show what every simulated behaviour rests on: recordings, source, documentation or an estimate.
    Grades(GradesArgs),
    /// Forget the world and start over.
    Reset(ResetArgs),
    /// Let an incident happen: `NAME@TARGET`, with its symptoms after a quarter of an hour of lab time.
    Fault(FaultArgs),
    /// Commit a folder to the repository that the lab's Fleet follows.
    Commit(CommitArgs),
    /// Serve the lab on ports of 127.0.0.1 until stopped, for curl, ssh, kubectl and other gpuhost processes.
    Serve(ServeArgs),
}

/// Arguments of `lab status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Site file (default: `site.toml`, `recipes/site.toml`, else the one of this program).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `lab grades`.
#[derive(Debug, Clone, Args)]
pub struct GradesArgs {
    /// Only what this site's lab has met so far.
    #[arg(long)]
    pub met: bool,
    /// Which lab, and how it is shown.
    #[command(flatten)]
    pub of: StatusArgs,
}

/// Arguments of `lab reset`.
#[derive(Debug, Clone, Args)]
pub struct ResetArgs {
    /// Site file (default: `site.toml`, `recipes/site.toml`, else the one of this program).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// What the world has at the beginning.
    #[arg(long, value_enum, default_value = "empty")]
    pub start: crate::labs::start::Start,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `lab fault`.
#[derive(Debug, Clone, Args)]
pub struct FaultArgs {
    /// The fault and what it is done to, for example `vm-off@k3s-gpu2`; without it, the list.
    #[arg(value_name = "NAME@TARGET")]
    pub fault: Option<String>,
    /// List the faults.
    #[arg(long)]
    pub list: bool,
    /// Do what only hands can do about it: the firmware switch, the card back in its slot.
    #[arg(long)]
    pub by_hand: bool,
    /// The list as JSON lines.
    #[arg(long)]
    pub json: bool,
    /// Site file (default: `site.toml`, `recipes/site.toml`, else the one of this program).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `lab commit`.
#[derive(Debug, Clone, Args)]
pub struct CommitArgs {
    /// Folder whose files become the new content of its path in the repository.
    pub folder: PathBuf,
    /// Path in the repository (default: the folder's own path).
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Message of the commit.
    #[arg(long, default_value = "change")]
    pub message: String,
    /// Site file (default: `site.toml`, `recipes/site.toml`, else the one of this program).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `lab serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Site file (default: `site.toml`, `recipes/site.toml`, else the one of this program).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Start over with this (default: continue the saved world).
    #[arg(long, value_enum)]
    pub start: Option<crate::labs::start::Start>,
    /// How many times faster than real; `instant` jumps while a gpuhost run shares the clock.
    #[arg(long, value_name = "N|instant")]
    pub speed: Option<String>,
    /// Write the addresses, tokens and paths as JSON to this file once everything listens.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `inventory`.
#[derive(Debug, Clone, Args)]
pub struct InventoryArgs {
    /// Site file (default: `site.toml`, `recipes/site.toml`).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Format.
    #[arg(long, value_enum, default_value = "json")]
    pub format: crate::inventory::Format,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `doc`.
#[derive(Debug, Clone, Args)]
pub struct DocArgs {
    /// A module, `module::function`, method or type.
    pub what: Option<String>,
    /// Write the reference pages and the editor stubs below this folder.
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
}

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Folder to write to.
    pub dir: PathBuf,
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
    exit
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
        Command::Doc(a) => crate::doc::command(&a, &Arc::new(Screen::new(false))),
        Command::Init(a) => crate::init::command(&a, &Arc::new(Screen::new(false))),
        Command::Check(a) => crate::check::command::command(&a, &Arc::new(Screen::new(false))),
    }
}
