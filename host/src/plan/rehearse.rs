//! The rehearsal: the recipe runs in a copy of a lab's world or in the likeness of the site, and its journal becomes
//! the plan.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::{Effect, Event};
use gpuhost_stdlib::site::Site;
use serde_json::Value;

use super::{Plan, Planned, VERSION};
use crate::args::RunArgs;
use crate::exit::Exit;
use crate::header;
use crate::labs::calibrate;
use crate::labs::folder::{self, Folder, Locked};
use crate::record::read::{self, Past};
use crate::run::{Place, Show};
use crate::screen::Screen;
use crate::session::Far;
use crate::signals::Stop;
use crate::snapshot::{Camera, Notes};
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
    /// Which world it is rehearsed in.
    pub source: Source,
}

/// Which world a recipe is rehearsed in.
pub enum Source {
    /// A copy of the site's lab as it is now.
    Lab,
    /// A saved world.
    File(PathBuf),
    /// A snapshot of the site, taken now.
    Site(Box<Far>),
}

/// A rehearsal's end: the plan, and the error it ended in, if it did.
pub struct Rehearsed {
    /// What would be done.
    pub plan: Plan,
    /// Why the rehearsal ended early.
    pub error: Option<OpError>,
}

/// A folder of its own that goes with the value.
pub struct Stage(PathBuf);

impl Stage {
    /// A new one below the state directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(state_dir: &Path) -> OpResult<Self> {
        let stage = Stage(state_dir.join("plan").join(crate::session::new_id()));
        crate::statedir::private_dir(&stage.0)?;
        Ok(stage)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Where a rehearsal failed, in words.
fn failed_at(e: &OpError, end: &Value) -> String {
    let steps = end["steps"].as_array().into_iter().flatten().filter(|s| s["status"] == "failed");
    let inner = steps.filter_map(|s| s["name"].as_str()).max_by_key(|name| name.matches(" / ").count());
    let at = if e.steps.is_empty() { inner.unwrap_or_default().to_owned() } else { e.steps.join(" / ") };
    match at.as_str() {
        "" => "the rehearsal failed".to_owned(),
        at => format!("the rehearsal failed at `{at}`"),
    }
}

fn not_copied(e: &std::io::Error) -> OpError {
    OpError::failed("the world cannot be copied").because(e.to_string())
}

fn copy_state(from: &Path, to: &Path) -> OpResult<()> {
    for f in std::fs::read_dir(from).into_iter().flatten().flatten() {
        if f.path().is_file() {
            std::fs::copy(f.path(), to.join(f.file_name())).map_err(|e| not_copied(&e))?;
        }
    }
    Ok(())
}

impl Rehearsal<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// When the world cannot be copied, or the run cannot begin.
    pub fn run(&self) -> OpResult<Rehearsed> {
        let stage = Stage::new(&self.state_dir)?;
        let notes = match &self.source {
            Source::Lab => {
                self.copy_world(&stage.0)?;
                Notes::default()
            }
            Source::File(path) => self.unpack(path, &stage.0)?,
            Source::Site(far) => {
                let camera = Camera {
                    rt: self.rt,
                    screen: self.screen,
                    site: &self.site,
                    site_text: &self.site_text,
                    state_dir: &self.state_dir,
                };
                camera.take((**far).clone(), &stage.0)?
            }
        };
        let folder = Folder::lock_mine(&stage.0, &self.site)?;
        let (far, here) = crate::labs::open_folder(self.rt, folder, &self.site)?;
        let args = RunArgs::of_lab(&self.recipe.name, &self.set, Some(stage.0.clone()));
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
        let mut plan = self.plan(&past, &end, &notes);
        plan.incomplete = error.as_ref().map(|e| failed_at(e, &end)).unwrap_or_default();
        Ok(Rehearsed { plan, error })
    }

    /// The lab's world and keys, copied: the rehearsal leaves no trace in them.
    fn copy_world(&self, stage: &Path) -> OpResult<()> {
        let (from, to) = (folder::of(&self.state_dir, &self.site), folder::of(stage, &self.site));
        crate::statedir::private_dir(&to.join("state"))?;
        // Held while it is copied: nobody changes it meanwhile.
        let held = Folder::lock(&self.state_dir, &self.site)?;
        if let Locked::Elsewhere(f) = &held {
            return Err(f.busy());
        }
        let world = from.join("world.json");
        match std::fs::copy(&world, to.join("world.json")) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(not_copied(&e).on(world.display().to_string())),
        }
        copy_state(&from.join("state"), &to.join("state"))
    }

    /// A saved world with its keys: a snapshot's own, else those of the site's lab.
    fn unpack(&self, world: &Path, stage: &Path) -> OpResult<Notes> {
        let to = folder::of(stage, &self.site);
        crate::statedir::private_dir(&to.join("state"))?;
        let text = std::fs::read_to_string(world).map_err(|e| not_copied(&e).on(world.display().to_string()))?;
        let saved: Value = serde_json::from_str(&text).map_err(|e| {
            OpError::invalid(format!("`{}` is no world of a lab", world.display()))
                .because(e.to_string())
                .hint("`gpuhost snapshot` writes one; a lab's own is `world.json` in its folder")
        })?;
        folder::of_this_site(&saved, world, &self.site.uuid)
            .map_err(|e| e.hint("take a new one of this site: `gpuhost snapshot --site FILE`"))?;
        crate::statedir::write_private(&to.join("world.json"), text.as_bytes()).map_err(|e| not_copied(&e))?;
        let Ok(notes) = serde_json::from_value::<Notes>(saved["snapshot"].clone()) else {
            copy_state(&folder::of(&self.state_dir, &self.site).join("state"), &to.join("state"))?;
            return Ok(Notes::default());
        };
        for (name, text) in &notes.state {
            let name = Path::new(name).file_name().unwrap_or_default();
            crate::statedir::write_private(&to.join("state").join(name), text.as_bytes())
                .map_err(|e| not_copied(&e))?;
        }
        Ok(notes)
    }

    fn plan(&self, past: &Past, end: &Value, notes: &Notes) -> Plan {
        let mut ops: BTreeMap<u64, (Effect, Vec<String>)> = BTreeMap::new();
        let (mut effects, mut warned) = (Vec::new(), Vec::new());
        for line in &past.lines {
            match &line.event {
                Some(Event::OpStarted { id, effect, step, .. }) => {
                    ops.insert(*id, (*effect, step.clone()));
                }
                // One without changes is a proof's own: it leaves nothing behind.
                Some(Event::Intent { id, op, target, changes, .. }) if !changes.is_empty() => {
                    let (effect, step) = ops.get(id).cloned().unwrap_or((Effect::Write, Vec::new()));
                    effects.push(Planned {
                        op: op.clone(),
                        target: target.clone(),
                        effect,
                        step,
                        changes: changes.clone(),
                    });
                }
                Some(Event::Message { level, text }) if level == "warn" && !warned.contains(text) => {
                    warned.push(text.clone());
                }
                _ => {}
            }
        }
        let needs = super::needs::of(&effects);
        let of_lab = match &self.source {
            Source::Lab => true,
            Source::File(_) => notes.taken.is_empty() || notes.lab,
            Source::Site(far) => far.lab,
        };
        let schedule = super::path::Schedule::of(past);
        let mut header = past.lines.first().map(|l| l.raw["header"].clone()).unwrap_or_default();
        header["lab"] = of_lab.into();
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
            on_hardware: calibrate::Source {
                state_dir: &self.state_dir,
                recipe: &self.recipe.name,
                site: &self.site.uuid,
            }
            .expect(&end["steps"]),
            path: schedule.path(),
            critical: schedule.critical_ms as f64 / 1000.0,
            overlap: schedule.overlap(),
            needs,
            snapshot: notes.taken.clone(),
            warned,
            assumed: notes
                .doubts()
                .into_iter()
                .chain(list(&end["not_rehearsed"]).iter().filter_map(|t| t.as_str().map(str::to_owned)))
                .collect(),
            incomplete: String::new(),
        }
    }
}
