//! `gpuhost drill`: one recipe under many seeds of faults. Every run must end converged, or in a named error
//! after which a clean run converges.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use serde_json::{Value, json};

use crate::args::{Common, RunArgs, Start};
use crate::errors::show_error;
use crate::exit::Exit;
use crate::labs::folder::Folder;
use crate::labs::start::Filling;
use crate::record::read;
use crate::run::{Place, Show};
use crate::runs::tale::Tale;
use crate::screen::Screen;
use crate::signals::Stop;
use crate::sources::{self, Text};

/// Arguments of `drill`.
#[derive(Debug, Clone, Args)]
pub struct DrillArgs {
    /// Recipe: a file, the name of one in `recipes/` or `scripts/`, or of one in this program.
    pub recipe: String,
    /// How many seeds.
    #[arg(long, default_value_t = 20)]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub first: u64,
    /// Site file (default: `site.toml` next to the recipe).
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
    /// A value for `param("NAME", …)` of the recipe.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Where each seed's lab begins; recipes for a cluster that stands want `deployed`.
    #[arg(long, value_name = "STATE", value_enum, default_value = "empty")]
    pub start: Start,
    /// A drill is always on the lab; the flag may be given as with `run`.
    #[arg(long)]
    pub lab: bool,
    /// Results as JSON lines.
    #[arg(long)]
    pub json: bool,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// How the run of one seed ended.
struct Ended {
    exit: Exit,
    error: Option<OpError>,
    faults: Vec<String>,
}

/// The verdict on one seed.
struct Result1 {
    seed: u64,
    faults: Vec<String>,
    word: &'static str,
    error: Option<OpError>,
    good: bool,
}

/// Runs `gpuhost drill`.
#[must_use]
pub fn command(args: &DrillArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    run(args, rt, screen).unwrap_or_else(|e| {
        show_error(screen, &e, None);
        Exit::of(&e)
    })
}

fn run(args: &DrillArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> OpResult<Exit> {
    let recipe = sources::recipe(&args.recipe)?;
    let opened = sources::open_site(args.site.as_deref(), Some(&recipe), true, screen, args.json)?;
    let Some((site, text)) = opened else { return Ok(Exit::Usage) };
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    let stop = Stop::default();
    crate::signals::watch(rt, stop.cancel.clone());
    let d = Drill { args, rt, screen, recipe, site, text, state_dir, stop };
    let (mut good, mut done) = (0, 0);
    for seed in args.first..args.first.saturating_add(args.seeds) {
        let r = d.seed(seed)?;
        if d.stop.cancel.is_cancelled() {
            break;
        }
        done += 1;
        good += u64::from(r.good);
        d.report(&r);
    }
    if args.json {
        screen.out(&json!({ "event": "drill_finished", "seeds": done, "good": good }).to_string());
    } else {
        screen.out(&format!("{good} of {done} seeds ended converged, or in a named error that a clean run then mends"));
    }
    Ok(match (d.stop.cancel.is_cancelled(), good == done) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Done,
        (false, false) => Exit::Failed,
    })
}

struct Drill<'a> {
    args: &'a DrillArgs,
    rt: &'a tokio::runtime::Handle,
    screen: &'a Arc<Screen>,
    recipe: Text,
    site: Arc<Site>,
    /// The site file.
    text: Text,
    state_dir: PathBuf,
    stop: Stop,
}

impl Drill<'_> {
    fn seed(&self, seed: u64) -> OpResult<Result1> {
        let dir = self.state_dir.join("drill").join(seed.to_string());
        std::fs::remove_dir_all(&dir).ok();
        crate::statedir::private_dir(&dir)?;
        self.begin(&dir)?;
        let first = self.once(&dir, Some(format!("random:{seed}")))?;
        // A proof names what it found; any other error has an op and a message.
        let named = first.exit == Exit::Proof
            || first.error.as_ref().is_some_and(|e| !e.message.is_empty() && !e.op.is_empty());
        let (word, good) = match first.exit {
            Exit::Done => ("converged", true),
            Exit::Internal => ("bug", false),
            _ if !named => ("ended in an error without a name", false),
            _ => match self.once(&dir, None)?.exit {
                Exit::Done => ("failed, then converged", true),
                _ => ("did not converge", false),
            },
        };
        if good {
            std::fs::remove_dir_all(&dir).ok();
        }
        Ok(Result1 { seed, faults: first.faults, word, error: first.error, good })
    }

    /// Fills the lab of `dir` for the recipe; a filled one is kept for the next seeds.
    fn begin(&self, dir: &Path) -> OpResult<()> {
        let folder = Folder::lock_mine(dir, &self.site)?;
        let filling = Filling {
            rt: self.rt,
            screen: self.screen,
            site: &self.site,
            state_dir: &self.state_dir,
            start: self.args.start,
        };
        filling.fill(folder, &crate::labs::world::born(&self.site)?, &self.text.text).map(drop)
    }

    /// One run in the lab of `dir`.
    fn once(&self, dir: &Path, faults: Option<String>) -> OpResult<Ended> {
        let (far, here) = crate::labs::open_folder(self.rt, Folder::lock_mine(dir, &self.site)?, &self.site)?;
        crate::labs::faults::set(faults.as_deref(), Some(&here), Some(&self.site))?;
        let mut args = RunArgs::of_lab(&self.recipe.name, &self.args.set, Some(dir.to_owned()));
        args.site.clone_from(&self.args.site);
        args.faults = faults;
        let place = Place {
            site: Some(self.site.clone()),
            far,
            world: Some(here),
            state_dir: dir.to_owned(),
            stop: self.stop.clone(),
            header: Value::Null,
            gate: None,
        };
        let job = crate::run::job(&args, self.rt, self.screen, self.recipe.clone(), place, Show::Silent)
            .map_err(|_| OpError::failed("the run cannot begin").hint("try it by itself: `gpuhost run R --lab`"))?;
        let journal = job.journal().to_owned();
        let (exit, _) = job.go();
        let end = Tale::of(&read::read(&journal)?).end.unwrap_or_default();
        let list = end["faults"].as_array().cloned().unwrap_or_default();
        Ok(Ended {
            exit,
            error: serde_json::from_value(end["error"].clone()).ok(),
            faults: list.iter().filter_map(|f| f.as_str().map(str::to_owned)).collect(),
        })
    }

    fn report(&self, r: &Result1) {
        if self.args.json {
            let line = json!({
                "event": "drilled", "seed": r.seed, "outcome": r.word, "good": r.good, "faults": r.faults, "error": r.error,
            });
            self.screen.out(&line.to_string());
            return;
        }
        let p = self.screen.paint_out();
        let word = if r.good { r.word.to_owned() } else { p.red(r.word) };
        let why = r.error.as_ref().map(|e| format!(": {} {e}", e.op)).unwrap_or_default();
        self.screen.out(&format!("seed {}: {word}, {} faults{why}", r.seed, r.faults.len()));
        if !r.good {
            for f in &r.faults {
                self.screen.out(&format!("  {f}"));
            }
            let site = self.args.site.as_ref().map(|s| format!(" --site {}", s.display())).unwrap_or_default();
            if self.args.start != Start::Empty {
                let word = format!("{:?}", self.args.start).to_lowercase();
                self.screen
                    .out(&format!("  again: gpuhost lab reset{site} --start {word} --state-dir EMPTY_DIR, then"));
            }
            let again = format!("gpuhost run {}{site} --lab --faults random:{}", self.args.recipe, r.seed);
            self.screen.out(&format!("  again: {again} --state-dir EMPTY_DIR"));
        }
    }
}
