//! The rehearsal: the recipe runs in a copy of a lab's world, and its journal becomes the plan.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::{Effect, Event};
use gpuhost_stdlib::site::Site;
use serde_json::Value;

use super::{Plan, Planned, VERSION};
use crate::cli::{Common, RunArgs};
use crate::exit::Exit;
use crate::header;
use crate::labs::folder::{self, Folder, Locked};
use crate::record::read::{self, Past};
use crate::run::{Place, Show};
use crate::screen::Screen;
use crate::signals::Stop;
use crate::sources::Text;

/// What is rehearsed.
pub struct Rehearsal<'a> {
    /// Runtime.
    pub rt: &'a tokio::runtime::Handle,
    /// Terminal.
    pub screen: &'a Arc<Screen>,
    /// Recipe.
    pub recipe: Text,
    /// Files of the recipe.
    pub files: Vec<String>,
    /// Site.
    pub site: Arc<Site>,
    /// Site file.
    pub site_text: Text,
    /// `--set`.
    pub set: Vec<String>,
    /// State directory with the lab.
    pub state_dir: PathBuf,
    /// A saved world to take instead of the lab's.
    pub against: Option<PathBuf>,
}

/// A rehearsal's end: the plan, and the error it ended in, if it did.
pub struct Rehearsed {
    /// What would be done.
    pub plan: Plan,
    /// Why the rehearsal ended early.
    pub error: Option<OpError>,
}

/// A folder of its own that goes with the value.
struct Stage(PathBuf);

impl Drop for Stage {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl Rehearsal<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// When the world cannot be copied, or the run cannot begin.
    pub fn run(&self) -> OpResult<Rehearsed> {
        let stage = Stage(self.state_dir.join("plan").join(crate::session::new_id()));
        crate::statedir::private_dir(&stage.0)?;
        self.copy_world(&stage.0)?;
        let folder = match Folder::lock(&stage.0, &self.site)? {
            Locked::Mine(f) => f,
            Locked::Elsewhere(f) => return Err(f.busy()),
        };
        let (far, here) = crate::labs::open_folder(self.rt, folder, &self.site)?;
        let args = RunArgs {
            recipe: self.recipe.name.clone(),
            site: None,
            lab: true,
            set: self.set.clone(),
            yes: Some(String::new()),
            faults: None,
            plan: None,
            json: false,
            common: Common { state_dir: Some(stage.0.clone()), verbose: false },
        };
        let stop = Stop::default();
        crate::signals::watch(self.rt, stop.cancel.clone());
        let place = Place {
            site: Some(self.site.clone()),
            far,
            world: Some(here),
            state_dir: stage.0.clone(),
            stop,
            header: header::of(&args, &self.files, Some(&self.site_text)),
            gate: None,
        };
        let job = crate::run::job(&args, self.rt, self.screen, self.recipe.clone(), place, Show::Silent)
            .map_err(|_| OpError::failed("the rehearsal cannot begin").hint("try it: `gpuhost run R --lab`"))?;
        let journal = job.journal().to_owned();
        let (exit, _) = job.go();
        let past = read::read(&journal)?;
        let end = past.lines.iter().rev().find(|l| l.raw["event"] == "run_finished").map(|l| l.raw.clone());
        let end = end.unwrap_or_default();
        let error = match exit {
            Exit::Done | Exit::Proof => None,
            _ => Some(serde_json::from_value(end["error"].clone()).unwrap_or_else(|_| OpError::failed("unknown"))),
        };
        Ok(Rehearsed { plan: self.plan(&past, &end), error })
    }

    /// The lab's world and keys, copied: the rehearsal leaves no trace in them.
    fn copy_world(&self, stage: &Path) -> OpResult<()> {
        let fail = |e: std::io::Error| OpError::failed("the lab's world cannot be copied").because(e.to_string());
        let (from, to) = (folder::of(&self.state_dir, &self.site), folder::of(stage, &self.site));
        crate::statedir::private_dir(&to.join("state"))?;
        // Held while it is copied: nobody changes it meanwhile.
        let held = Folder::lock(&self.state_dir, &self.site)?;
        if let (Locked::Elsewhere(f), None) = (&held, &self.against) {
            return Err(f.busy());
        }
        let world = self.against.clone().unwrap_or_else(|| from.join("world.json"));
        match std::fs::copy(&world, to.join("world.json")) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.against.is_none() => {}
            Err(e) => return Err(fail(e).on(world.display().to_string())),
        }
        for f in std::fs::read_dir(from.join("state")).into_iter().flatten().flatten() {
            if f.path().is_file() {
                std::fs::copy(f.path(), to.join("state").join(f.file_name())).map_err(fail)?;
            }
        }
        Ok(())
    }

    fn plan(&self, past: &Past, end: &Value) -> Plan {
        let mut ops: BTreeMap<u64, (Effect, Vec<String>)> = BTreeMap::new();
        let mut effects = Vec::new();
        for line in &past.lines {
            match &line.event {
                Some(Event::OpStarted { id, effect, step, .. }) => {
                    ops.insert(*id, (*effect, step.clone()));
                }
                Some(Event::Intent { id, op, target, changes, .. }) => {
                    let (effect, step) = ops.get(id).cloned().unwrap_or((Effect::Write, Vec::new()));
                    effects.push(Planned {
                        op: op.clone(),
                        target: target.clone(),
                        effect,
                        step,
                        changes: changes.clone(),
                    });
                }
                _ => {}
            }
        }
        let header = past.lines.first().map(|l| l.raw["header"].clone()).unwrap_or_default();
        let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
        let steps = list(&end["steps"]);
        Plan {
            gpuhost_plan: VERSION,
            recipe: self.recipe.name.clone(),
            site: self.site.name.clone(),
            bound_to: super::bound(&header),
            made: crate::when::iso(crate::when::wall_ms()),
            effects,
            seconds: end["site_seconds"].as_f64().unwrap_or(0.0),
            steps: steps
                .iter()
                .map(|s| (s["name"].as_str().unwrap_or_default().to_owned(), s["seconds"].as_f64().unwrap_or(0.0)))
                .collect(),
            assumed: list(&end["not_rehearsed"]).iter().filter_map(|t| t.as_str().map(str::to_owned)).collect(),
        }
    }
}
