//! A bundle's recipe runs again on an empty lab, and the two journals are compared.
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::Event;
use serde_json::json;

use super::Bundle;
use super::command::ReplayArgs;
use crate::args::RunArgs;
use crate::embed;
use crate::exit::Exit;
use crate::labs::folder::Folder;
use crate::plan::rehearse::Stage;
use crate::record::read::{self, Past};
use crate::run::{Place, Show};
use crate::runs::tale::Tale;
use crate::screen::Screen;
use crate::signals::Stop;
use crate::sources::{self, Text};

/// Where a file of the bundle goes: below `dir`, whatever its name says.
fn place_of(dir: &Path, name: &str) -> PathBuf {
    let parts = Path::new(embed::typed(name)).components().filter(|c| matches!(c, Component::Normal(_)));
    parts.fold(dir.join("files"), |p, c| p.join(c))
}

fn put(path: &Path, text: &str) -> OpResult<()> {
    let fail =
        |e: std::io::Error| OpError::failed(format!("cannot unpack `{}`", path.display())).because(e.to_string());
    if let Some(d) = path.parent() {
        std::fs::create_dir_all(d).map_err(fail)?;
    }
    crate::statedir::write_private(path, text.as_bytes()).map_err(fail)
}

/// Replays the bundle of `args`.
///
/// # Errors
/// When it cannot be read, or the run cannot begin.
pub fn run(args: &ReplayArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> OpResult<Exit> {
    let bundle = Bundle::load(&args.bundle)?;
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    let stage = Stage::new(&state_dir)?;
    for (name, text) in &bundle.files {
        put(&place_of(stage.dir(), name), text)?;
    }
    let recipe = sources::recipe(&place_of(stage.dir(), &bundle.recipe).display().to_string())?;
    let site_text = Text { name: stage.dir().join("site.toml").display().to_string(), text: bundle.site.clone() };
    put(Path::new(&site_text.name), &site_text.text)?;
    let site = match sources::load_site(&site_text) {
        Ok((site, _)) => site,
        Err(list) => {
            crate::findings::show(screen, &list, args.json);
            return Ok(Exit::Usage);
        }
    };
    let folder = Folder::lock_mine(stage.dir(), &site)?;
    let mut born = crate::labs::world::born(&site)?;
    born.seed = bundle.seed.unwrap_or(born.seed);
    folder.save(&serde_json::to_value(&born).map_err(|e| OpError::failed(e.to_string()))?)?;
    let (far, here) = crate::labs::open_folder(rt, folder, &site)?;
    let mut run = RunArgs::of_lab(&recipe.name, &bundle.set, Some(stage.dir().to_owned()));
    if !bundle.faults.is_empty() {
        let rules = stage.dir().join("faults");
        put(&rules, &format!("{}\n", bundle.faults.join("\n")))?;
        run.faults = Some(rules.display().to_string());
    }
    crate::labs::faults::set(run.faults.as_deref(), Some(&here), Some(&site))?;
    let stop = Stop::default();
    crate::signals::watch(rt, stop.cancel.clone());
    let place = Place {
        site: Some(site),
        far,
        world: Some(here),
        state_dir: stage.dir().to_owned(),
        stop,
        header: serde_json::Value::Null,
        gate: None,
    };
    let show = if args.json { Show::Silent } else { Show::Progress };
    let job = crate::run::job(&run, rt, screen, recipe, place, show).map_err(|_| {
        OpError::failed("the replay cannot begin").hint("`gpuhost check` shows what is wrong with the recipe")
    })?;
    let journal = job.journal().to_owned();
    let _ = job.go();
    let verdict = Verdict::of(&bundle.past(stage.dir())?, &read::read(&journal)?);
    verdict.show(screen, args.json, bundle.lab);
    Ok(if verdict.is_same() { Exit::Done } else { Exit::Failed })
}

/// How a run ended, and what it did to every target in order.
#[derive(Debug, PartialEq)]
struct Course {
    exit: i64,
    error: String,
    effects: BTreeMap<String, Vec<String>>,
}

impl Course {
    fn of(past: &Past) -> Self {
        let end = Tale::of(past).end.unwrap_or_default();
        let mut effects: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in &past.lines {
            if let Some(Event::Intent { op, target, .. }) = &line.event {
                effects.entry(target.clone()).or_default().push(op.clone());
            }
        }
        Course {
            exit: end["exit"].as_i64().unwrap_or(-1),
            error: end["error"]["message"].as_str().unwrap_or_default().to_owned(),
            effects,
        }
    }

    fn ended(&self) -> String {
        match (self.exit, self.error.as_str()) {
            (-1, _) => "did not end by itself".to_owned(),
            (n, "") => format!("exit {n}"),
            (n, e) => format!("exit {n}: {e}"),
        }
    }
}

struct Verdict {
    then: Course,
    now: Course,
}

impl Verdict {
    fn of(then: &Past, now: &Past) -> Self {
        Verdict { then: Course::of(then), now: Course::of(now) }
    }

    fn is_same(&self) -> bool {
        (self.then.exit, &self.then.error) == (self.now.exit, &self.now.error)
    }

    /// The first target whose effects differ.
    fn difference(&self) -> Option<String> {
        let names = self.then.effects.keys().chain(self.now.effects.keys());
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let of = |c: &Course| c.effects.get(name).cloned().unwrap_or_default();
            let (then, now) = (of(&self.then), of(&self.now));
            if then == now {
                continue;
            }
            let at = then.iter().zip(&now).take_while(|(a, b)| a == b).count();
            let word = |l: &[String]| l.get(at).cloned().unwrap_or_else(|| "nothing more".to_owned());
            return Some(format!("{name}: effect {} was {} and is {} now", at + 1, word(&then), word(&now)));
        }
        None
    }

    fn show(&self, screen: &Screen, json: bool, lab: bool) {
        let difference = self.difference();
        if json {
            let out = json!({"event": "replayed", "same": self.is_same(), "then": self.then.ended(),
                "now": self.now.ended(), "difference": difference});
            screen.out(&out.to_string());
            return;
        }
        let word = if self.is_same() { "the replay ended as the run did" } else { "the replay ended otherwise" };
        screen.out(&format!("{word}: {} (the run: {})", self.now.ended(), self.then.ended()));
        match difference {
            None => screen.out("every target had the same effects in the same order"),
            Some(d) => {
                screen.out(&format!("effects differ: {d}"));
                screen.out("a replay begins on an empty lab; a run that began on another world does less");
            }
        }
        if !lab {
            screen.out("the run was on real hardware: the lab stands in for it");
        }
    }
}
