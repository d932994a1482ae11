//! `gpuhost bug` and `gpuhost replay`.
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use gpuhost_stdlib::core::error::OpResult;

use super::{Bundle, replay};
use crate::args::Common;
use crate::errors::show_error;
use crate::exit::Exit;
use crate::record::read;
use crate::runs::shelf;
use crate::screen::Screen;

/// Arguments of `bug`.
#[derive(Debug, Clone, Args)]
pub struct BugArgs {
    /// Id of a run, the beginning of one, or a journal file (default: the latest run).
    pub run: Option<String>,
    /// File to write (default: gpuhost-bug-ID.json).
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The site file, when it is not where the run found it.
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// What `gpuhost bug` has written.
    pub bundle: PathBuf,
    /// The comparison as JSON.
    #[arg(long)]
    pub json: bool,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

fn done(screen: &Screen, r: OpResult<Exit>) -> Exit {
    r.unwrap_or_else(|e| {
        show_error(screen, &e, None);
        Exit::of(&e)
    })
}

/// Runs `gpuhost bug`.
#[must_use]
pub fn bug(args: &BugArgs, screen: &Arc<Screen>) -> Exit {
    done(screen, make(args, screen))
}

fn make(args: &BugArgs, screen: &Screen) -> OpResult<Exit> {
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    let path = shelf::pick(&state_dir, args.run.as_deref())?;
    let bundle = Bundle::of(&read::read(&path)?, args.site.as_deref())?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("gpuhost-bug-{}.json", shelf::id(&path))));
    bundle.save(&out)?;
    for n in &bundle.notes {
        screen.out(&format!("note: {n}"));
    }
    screen.out(&format!(
        "{}: {} lines of journal, {} recipe files, the site file without secrets",
        out.display(),
        bundle.journal.len(),
        bundle.files.len()
    ));
    screen
        .out(&format!("look through it before you pass it on; `gpuhost replay {}` runs it on the lab", out.display()));
    Ok(Exit::Done)
}

/// Runs `gpuhost replay`.
#[must_use]
pub fn replay(args: &ReplayArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    done(screen, replay::run(args, rt, screen))
}
