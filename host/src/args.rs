//! Arguments of the commands. Those of a command with a folder of its own stand there.
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
    /// A value for `param("NAME", …)` of the recipe; a list is written `a,b`.
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
    /// A value for `param("NAME", …)`; a list is written `a,b`.
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
    /// Push images to the registries of the lab: clusters can pull them from then on.
    Push(PushArgs),
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
    pub start: Start,
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

/// Arguments of `lab push`.
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    /// Images (`ghcr.io/me/app:v1`), or repositories, for whatever tag.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
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
    pub start: Option<Start>,
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
    pub format: Format,
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

/// Arguments of `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Folder to write to.
    pub dir: PathBuf,
}

/// Where a world begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Start {
    /// The bare hypervisor.
    Empty,
    /// With the VM template.
    Template,
    /// With everything that `deploy` makes.
    Deployed,
}

/// Format of the inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For `ssh -F FILE`, or an `Include` of ~/.ssh/config.
    SshConfig,
    /// An INI inventory with a group for each role and kind.
    Ansible,
    /// Everything, for programs.
    Json,
    /// Lines of /etc/hosts.
    Hosts,
}
