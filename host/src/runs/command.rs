//! Dispatch of `gpuhost runs …`.
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{show, tail};
use crate::args::Common;
use crate::errors::show_error;
use crate::exit::Exit;
use crate::screen::Screen;

/// Arguments of `runs`.
#[derive(Debug, Clone, Args)]
pub struct RunsArgs {
    /// What to do; without it: list all runs.
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
    /// As JSON lines.
    #[arg(long)]
    pub json: bool,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// What to do with journals.
#[derive(Debug, Clone, Subcommand)]
pub enum RunsCommand {
    /// Show what a run did, how it ended and what it left in doubt.
    Show(OneArgs),
    /// Follow a run from another terminal.
    Tail(OneArgs),
    /// Check the hash chain of a journal, or of all.
    Verify(VerifyArgs),
}

/// Which run.
#[derive(Debug, Clone, Args)]
pub struct OneArgs {
    /// Its id, the beginning of one, or a journal file (default: the latest run).
    pub id: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Which journals.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Id of a run, the beginning of one, or a journal file (default: all).
    pub id: Option<String>,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Runs `gpuhost runs …`.
#[must_use]
pub fn command(args: &RunsArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    let dir = |c: &Common| crate::statedir::resolve(c.state_dir.as_deref());
    let done = match &args.command {
        None => dir(&args.common).map(|d| show::list(&d, screen, args.json)),
        Some(RunsCommand::Show(a)) => dir(&a.common).and_then(|d| show::one(&d, screen, a.id.as_deref(), a.json)),
        Some(RunsCommand::Tail(a)) => {
            dir(&a.common).and_then(|d| rt.block_on(tail::follow(&d, screen, a.id.as_deref(), a.json)))
        }
        Some(RunsCommand::Verify(a)) => dir(&a.common).and_then(|d| show::verify(&d, screen, a.id.as_deref())),
    };
    done.unwrap_or_else(|e| {
        show_error(screen, &e, None);
        Exit::of(&e)
    })
}
