//! A run that is ready to go: where it takes place, how it shows itself, its journal.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::event::Event;
use gpuhost_stdlib::site::Site;
use serde_json::{Value, json};

use super::command::Stop;
use super::end::Ending;
use super::script::{Panics, on_script_thread, script};
use crate::args::RunArgs;
use crate::exit::Exit;
use crate::header;
use crate::kubectl::Kubeconfig;
use crate::labs::InProcess;
use crate::labs::folder::Folder;
use crate::plan::gate::Gate;
use crate::record::journal::Journal;
use crate::record::jsonl::JsonLines;
use crate::runs::doubt::Doubts;
use crate::screen::Screen;
use crate::session::{Ask, Far, Session};
use crate::signals::Stop as Interrupt;
use crate::sources::Text;

/// How a run shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// For people.
    Progress,
    /// For programs.
    Json,
    /// Not at all, but for errors.
    Quiet,
    /// Not at all: the journal tells.
    Silent,
}

/// Where a run takes place.
pub struct Place {
    /// Its site.
    pub site: Option<Arc<Site>>,
    /// The far side.
    pub far: Far,
    /// The lab, when it runs in this process.
    pub world: Option<InProcess>,
    /// Where its journal goes.
    pub state_dir: PathBuf,
    /// Ctrl-C.
    pub stop: Interrupt,
    /// Further facts for the journal's first line.
    pub header: Value,
    /// The plan that it must keep to.
    pub gate: Option<Gate>,
}

/// A run that is ready to go.
pub struct Job {
    pub(super) args: RunArgs,
    pub(super) screen: Arc<Screen>,
    pub(super) recipe: Text,
    pub(super) site: Option<Arc<Site>>,
    pub(super) session: Session,
    pub(super) journal: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) panics: Panics,
    pub(super) wall_start: u64,
    /// The lab, when it runs in this process.
    pub(super) world: Option<InProcess>,
    /// Where the lab takes orders, when another process runs it.
    pub(super) control: Option<String>,
    /// What is wrong with the journal of the run before.
    damaged: Option<String>,
    pub(super) show: Show,
    pub(super) header: Value,
    pub(super) kubeconfig: Kubeconfig,
}

/// A run that is ready to go.
///
/// # Errors
/// When its journal cannot be made.
pub fn job(
    args: &RunArgs,
    rt: &tokio::runtime::Handle,
    screen: &Arc<Screen>,
    recipe: Text,
    place: Place,
    show: Show,
) -> Result<Job, Stop> {
    let params = crate::session::params(&args.set)?;
    let wall_start = crate::when::wall_ms();
    let Place { site, far, world, state_dir, stop, header, gate } = place;
    let (lab, control) = (far.lab, far.control.clone());
    let id = crate::session::new_id();
    let doubts = site.as_ref().map(|s| Doubts::of(&state_dir, &s.uuid, lab)).unwrap_or_default();
    let damaged = doubts.damaged().map(str::to_owned);
    let session = Session::open(Ask {
        rt: rt.clone(),
        screen: screen.clone(),
        far,
        site: site.clone(),
        base_dir: recipe.folder(),
        params,
        yes: args.yes.clone(),
        stop,
        id: id.clone(),
        doubts,
        gate,
    });
    let file = Journal::create(&state_dir, wall_start, &id)?.of_lab(lab);
    let journal = file.path().to_owned();
    session.fan.add(Box::new(file));
    match show {
        Show::Json => session.fan.add(Box::new(JsonLines(screen.clone()))),
        Show::Progress => session.fan.add(crate::progress::view(screen, lab, args.common.verbose)),
        Show::Quiet | Show::Silent => {}
    }
    Ok(Job {
        damaged,
        kubeconfig: Kubeconfig::of(&session.run.state_dir),
        args: args.clone(),
        screen: screen.clone(),
        recipe,
        site,
        session,
        journal,
        state_dir,
        panics: Panics::watch(),
        wall_start,
        world,
        control,
        show,
        header,
    })
}

impl Job {
    /// Runs the recipe; gives the lab's folder back, when the lab ran in this process.
    #[must_use]
    pub fn go(self) -> (Exit, Option<Folder>) {
        let run = self.session.run.clone();
        let site_start = run.rt.block_on(run.clock.now_ms());
        let ctx = Ctx::new(run.clone());
        let started = Event::RunStarted {
            recipe: self.recipe.name.clone(),
            site: self.site.as_ref().map(|s| s.name.clone()).unwrap_or_default(),
            header: self.header(),
        };
        let ending = match ctx.emit(&started) {
            Err(e) => Ending::Error(Box::new(e)),
            Ok(()) => {
                if let Some(what) = &self.damaged {
                    let unknown = "what it left in doubt after that is not known: see `gpuhost runs verify`";
                    ctx.message("warn", format!("the journal of run {what}; {unknown}"));
                }
                match on_script_thread(&run, self.world.is_some(), || script(&run, &self.recipe)) {
                    Ok(Ok(())) => Ending::Value,
                    Ok(Err(e)) => Ending::Error(e),
                    Err(text) => Ending::Panic(text),
                }
            }
        };
        self.finish(ending, site_start)
    }

    /// Where its journal is.
    #[must_use]
    pub fn journal(&self) -> &Path {
        &self.journal
    }

    fn header(&self) -> Value {
        let mut out = json!({
            "gpuhost": env!("CARGO_PKG_VERSION"),
            "recipe_sha256": self.recipe.digest(),
            "site_uuid": self.site.as_ref().map(|s| s.uuid.clone()),
            "set": self.args.set,
            "wall": crate::when::iso(self.wall_start),
            "by": header::by(),
            "seed": self.world.as_ref().map(|w| w.lab().with(|w| w.seed)),
        });
        if let (Some(out), Value::Object(more)) = (out.as_object_mut(), &self.header) {
            out.extend(more.clone());
        }
        out
    }
}
