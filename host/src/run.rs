//! `gpuhost run`: one recipe, from reading it to the last line.
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use gpuhost_stdlib::core::ctx::{Ctx, Run};
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::event::{Event, Verdict};
use gpuhost_stdlib::site::{Finding, Site};
use rhai::Dynamic;
use serde_json::{Value, json};

use crate::check;
use crate::cli::RunArgs;
use crate::engine;
use crate::exit::Exit;
use crate::header;
use crate::kubectl::Kubeconfig;
use crate::labs::calibrate::{Expected, Source};
use crate::labs::closing::{Closing, Said};
use crate::labs::folder::Folder;
use crate::labs::{self, InProcess};
use crate::lead::Lead;
use crate::plan::gate::Gate;
use crate::record::journal::Journal;
use crate::record::jsonl::JsonLines;
use crate::reference::Reference;
use crate::render;
use crate::runs::doubt::Doubts;
use crate::screen::Screen;
use crate::session::{Ask, Far, Session};
use crate::signals::Stop as Interrupt;
use crate::sources::{self, Text};

/// How the script thread ended.
enum Ending {
    Value,
    Error(Box<OpError>),
    Panic(String),
}

/// Runs `gpuhost run`.
#[must_use]
pub fn command(args: &RunArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Exit {
    screen.leads(Lead::of(args));
    match prepare(args, rt, screen) {
        Ok(job) => job.go().0,
        Err(Stop::Error(e, exit)) => {
            show_error(screen, &e, None);
            if args.json {
                screen.out(&early_end(&e, exit, args.lab).to_string());
            }
            exit
        }
        Err(Stop::Findings(list)) => {
            crate::findings::show(screen, &list, args.json);
            if args.json {
                let e = OpError::invalid("findings before anything ran");
                screen.out(&early_end(&e, Exit::Usage, args.lab).to_string());
            }
            Exit::Usage
        }
    }
}

/// Why nothing was run.
pub enum Stop {
    /// Something is missing or refused.
    Error(Box<OpError>, Exit),
    /// Mistakes in recipe or site file.
    Findings(Vec<Finding>),
}

impl From<OpError> for Stop {
    fn from(e: OpError) -> Self {
        let exit = match Exit::of(&e) {
            Exit::Failed => Exit::Usage,
            other => other,
        };
        Stop::Error(Box::new(e), exit)
    }
}

/// Shows an error that has no run around it.
pub fn show_error(screen: &Screen, e: &OpError, rerun: Option<&str>) {
    let cx = render::Context { rerun, paint: screen.paint(), text_of: &sources::by_name };
    screen.err(render::error(e, &cx).trim_end());
}

/// The last JSON line of a run that did not begin.
fn early_end(e: &OpError, exit: Exit, lab: bool) -> Value {
    json!({
        "v": 1, "event": "run_finished", "status": exit.status(), "exit": exit.code(), "lab": lab,
        "changed": 0, "steps": [], "seconds": 0.0, "site_seconds": 0.0, "error": e,
    })
}

/// A run that is ready to go.
pub struct Job {
    args: RunArgs,
    screen: Arc<Screen>,
    recipe: Text,
    site: Option<Arc<Site>>,
    session: Session,
    journal: std::path::PathBuf,
    state_dir: std::path::PathBuf,
    panics: Panics,
    wall_start: u64,
    /// The lab, when it runs in this process.
    world: Option<InProcess>,
    /// Where the lab takes orders, when another process runs it.
    control: Option<String>,
    show: Show,
    header: Value,
    kubeconfig: Kubeconfig,
}

fn prepare(args: &RunArgs, rt: &tokio::runtime::Handle, screen: &Arc<Screen>) -> Result<Job, Stop> {
    let recipe = sources::recipe(&args.recipe)?;
    let site_text = sources::site(args.site.as_deref(), Some(&recipe), args.lab)?;
    let site = match &site_text {
        None => None,
        Some(t) => Some(sources::load_site(t).map_err(Stop::Findings)?.0),
    };
    // Nothing is touched before the recipe is known to be sound.
    let checked = check::command::recipe(&recipe);
    let mut findings = checked.findings.clone();
    findings.extend(check::command::unknown_params(&checked, &recipe.name, &args.set));
    if findings.iter().any(|f| !f.warning) {
        return Err(Stop::Findings(findings));
    }
    let state_dir = crate::statedir::resolve(args.common.state_dir.as_deref())?;
    let stop = Interrupt::default();
    crate::signals::watch_run(rt, screen.clone(), stop.clone());
    let control = site_text.as_ref().and_then(|t| labs::join::control_of(&t.text));
    let (far, world) = match (&site, control) {
        (Some(s), Some(addr)) => (labs::join::address(&addr, s, &stop)?, None),
        (Some(s), None) if args.lab => labs::open(rt, &state_dir, s, &stop)?,
        (None, _) if args.lab => {
            let e = OpError::invalid("the lab needs a site file");
            return Err(e.hint("pass one: `--site recipes/site.toml`").into());
        }
        _ => (Far::real(site.as_deref(), &state_dir)?, None),
    };
    labs::faults::set(args.faults.as_deref(), world.as_ref())?;
    let show = if args.json { Show::Json } else { Show::Progress };
    let header = header::of(args, &checked.files, site_text.as_ref());
    let mut whole = header.clone();
    whole["site_uuid"] = json!(site.as_ref().map(|s| s.uuid.clone()));
    whole["set"] = json!(args.set);
    whole["lab"] = json!(far.lab);
    let gate = crate::plan::command::gate(args.plan.as_ref(), &recipe.name, &whole)?;
    if recipe.is_embedded() && !args.json {
        let tag = if far.lab { format!("{} ", screen.paint().yellow("[LAB]")) } else { String::new() };
        screen.err(&format!("{tag}this program's own {} runs", recipe.typed()));
    }
    job(args, rt, screen, recipe, Place { site, far, world, state_dir, stop, header, gate }, show)
}

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
    pub state_dir: std::path::PathBuf,
    /// Ctrl-C.
    pub stop: Interrupt,
    /// Further facts for the journal's first line.
    pub header: Value,
    /// The plan that it must keep to.
    pub gate: Option<Gate>,
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

/// Collects panics of all threads, so that a bug ends in a report and not in silence.
#[derive(Clone, Default)]
pub struct Panics(Arc<Mutex<Vec<String>>>);

impl Panics {
    /// Starts collecting.
    #[must_use]
    pub fn watch() -> Self {
        let list = Panics::default();
        let own = list.clone();
        std::panic::set_hook(Box::new(move |info| {
            let text = format!("{info}\n{}", std::backtrace::Backtrace::force_capture());
            own.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }));
        list
    }

    /// What was collected.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn script(run: &Arc<Run>, recipe: &Text) -> Result<(), Box<OpError>> {
    let mut engine = engine::plain();
    engine::attach(&mut engine, run);
    let mut ast =
        engine.compile(&recipe.text).map_err(|e| Box::new(render::explain::parse_error(&e.0, &recipe.name, e.1)))?;
    ast.set_source(&recipe.name);
    engine
        .eval_ast::<Dynamic>(&ast)
        .map(|_| ())
        .map_err(|e| Box::new(render::explain::from_eval(&e, &recipe.name, Reference::builtin())))
}

/// Runs `work` on a thread with the stack that scripts need, holding the run's busy mark.
/// `held`: somebody else holds time between scripts; that mark is lent out meanwhile.
///
/// # Errors
/// The text of a panic.
pub fn on_script_thread<T: Send>(run: &Arc<Run>, held: bool, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|s| {
        let mark = run.clock.busy();
        let lent = held.then(|| run.clock.lend());
        let spawned = std::thread::Builder::new()
            .name("script".to_owned())
            .stack_size(engine::SCRIPT_STACK)
            .spawn_scoped(s, move || {
                let out = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                drop(lent);
                drop(mark);
                out
            });
        match spawned.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(Ok(out))) => Ok(out),
            Ok(Ok(Err(p)) | Err(p)) => Err(panic_text(p.as_ref())),
            Err(e) => Err(format!("cannot start the script thread: {e}")),
        }
    })
}

fn panic_text(p: &(dyn std::any::Any + Send)) -> String {
    p.downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| p.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_owned())
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
            Ok(()) => match on_script_thread(&run, self.world.is_some(), || script(&run, &self.recipe)) {
                Ok(Ok(())) => Ending::Value,
                Ok(Err(e)) => Ending::Error(e),
                Err(text) => Ending::Panic(text),
            },
        };
        self.finish(ending, site_start)
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

    /// The same command without `--faults`: they would strike again.
    fn rerun(&self) -> String {
        let mut words = vec!["gpuhost run".to_owned(), crate::lead::word(&self.args.recipe)];
        if let Some(s) = &self.args.site {
            words.push(format!("--site {}", crate::lead::word(&s.display().to_string())));
        }
        if self.args.lab {
            words.push("--lab".to_owned());
        }
        words.extend(self.args.set.iter().map(|s| format!("--set {}", crate::lead::word(s))));
        words.extend(self.args.yes.as_ref().map(|site| match site.as_str() {
            "" => "--yes".to_owned(),
            site => format!("--yes={}", crate::lead::word(site)),
        }));
        let paths = [("--plan", &self.args.plan), ("--state-dir", &self.args.common.state_dir)];
        for (flag, path) in paths {
            words.extend(path.iter().map(|p| format!("{flag} {}", crate::lead::word(&p.display().to_string()))));
        }
        words.join(" ")
    }

    fn finish(self, ending: Ending, site_start: u64) -> (Exit, Option<Folder>) {
        let run = self.session.run.clone();
        let failed_proofs = {
            let proofs = run.proofs.lock().unwrap_or_else(PoisonError::into_inner);
            proofs.iter().filter(|p| p.verdict == Verdict::Fail).count()
        };
        let (exit, error) = match ending {
            Ending::Value if failed_proofs > 0 => (Exit::Proof, None),
            Ending::Value => (Exit::Done, None),
            Ending::Error(e) => (Exit::of(&e), Some(e)),
            Ending::Panic(text) => (Exit::Internal, Some(Box::new(self.report(&text)))),
        };
        self.session.release();
        let wall_ms = crate::when::wall_ms().saturating_sub(self.wall_start);
        let site_ms = run.rt.block_on(run.clock.now_ms()).saturating_sub(site_start);
        let mut end = self.end(exit, error.as_deref(), wall_ms, site_ms);
        let lab = self.closing().map(|closing| {
            let on_hardware = self.expected(&end["steps"]);
            if let Some(m) = end.as_object_mut() {
                m.insert("not_rehearsed".to_owned(), json!(closing.not_rehearsed));
                m.insert("grades".to_owned(), closing.grades());
                m.insert("on_hardware".to_owned(), json!(on_hardware));
            }
            (closing, on_hardware)
        });
        if let Err(e) = Ctx::new(run.clone()).emit(&Event::RunFinished(end)) {
            show_error(&self.screen, &e, None);
        }
        if let Some(e) = error.as_ref().filter(|_| self.show != Show::Silent) {
            let rerun = self.rerun();
            let cx = render::Context {
                rerun: matches!(exit, Exit::Failed | Exit::Proof | Exit::Interrupted).then_some(rerun.as_str()),
                paint: self.screen.paint(),
                text_of: &|name| {
                    if name == self.recipe.name { Some(self.recipe.text.clone()) } else { sources::by_name(name) }
                },
            };
            let text = render::error(e, &cx);
            self.screen.err(self.session.redactor.clean(text.trim_end()).as_str());
        }
        if self.show == Show::Progress {
            self.summary(exit, failed_proofs, (wall_ms, site_ms), lab);
        }
        match self.world.map(|w| w.close(&run.rt)) {
            Some(Err(e)) => {
                show_error(&self.screen, &e, None);
                (if exit == Exit::Done { Exit::Internal } else { exit }, None)
            }
            Some(Ok(folder)) => (exit, Some(folder)),
            None => (exit, None),
        }
    }

    /// What went wrong by intention.
    fn struck(&self) -> Vec<String> {
        let fired = self.world.iter().flat_map(|w| w.lab().faults().fired());
        fired.map(|f| f.to_string()).collect()
    }

    /// Where its journal is.
    #[must_use]
    pub fn journal(&self) -> &std::path::Path {
        &self.journal
    }

    /// What the run could not show; nothing for a real one.
    fn closing(&self) -> Option<Closing> {
        if !self.session.run.lab {
            return None;
        }
        let said = match (&self.world, &self.control) {
            (Some(w), _) => Said::by(w.lab()),
            // A lab that has gone meanwhile says nothing any more; the run itself has failed by that.
            (None, Some(at)) => labs::orders::said(at).unwrap_or_default(),
            (None, None) => Said::default(),
        };
        let blind = self.session.run.not_rehearsed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(Closing::of(&self.session.fan.ops(), &blind, &said))
    }

    /// How long it may take on hardware, out of the steps of a lab run.
    fn expected(&self, steps: &Value) -> Expected {
        Source {
            state_dir: &self.state_dir,
            recipe: &self.recipe.name,
            site: self.site.as_ref().map_or("", |s| &s.uuid),
        }
        .expect(steps)
    }

    fn end(&self, exit: Exit, error: Option<&OpError>, wall_ms: u64, site_ms: u64) -> Value {
        let run = &self.session.run;
        let steps: Vec<Value> = self
            .session
            .fan
            .steps()
            .iter()
            .map(|s| {
                json!({
                    "name": s.path.join(" / "), "status": s.status, "changed": s.changed,
                    "seconds": s.ms as f64 / 1000.0,
                })
            })
            .collect();
        let mut end = json!({
            "status": exit.status(), "exit": exit.code(), "lab": run.lab,
            "changed": run.changed.load(Ordering::SeqCst), "steps": steps,
            "seconds": wall_ms as f64 / 1000.0, "site_seconds": site_ms as f64 / 1000.0,
            "journal": self.journal.display().to_string(),
        });
        if let Some(m) = end.as_object_mut() {
            if self.args.faults.is_some() {
                m.insert("faults".to_owned(), json!(self.struck()));
            }
            if let Some(n) = self.session.fan.points() {
                m.insert("points".to_owned(), json!(n));
            }
            if let Some(e) = error {
                m.insert("error".to_owned(), json!(e));
            }
        }
        end
    }

    fn summary(
        &self,
        exit: Exit,
        failed_proofs: usize,
        (wall_ms, site_ms): (u64, u64),
        lab: Option<(Closing, Expected)>,
    ) {
        let run = &self.session.run;
        let p = self.screen.paint_out();
        let word = match exit {
            Exit::Done => p.green("done"),
            Exit::Proof => p.red("proof failed"),
            Exit::Refused => p.red("refused"),
            Exit::Interrupted => p.yellow("interrupted"),
            _ => p.red("failed"),
        };
        let tag = if run.lab { format!("{} ", p.yellow("[LAB]")) } else { String::new() };
        let mut line = format!("{tag}{word}: changed: {}", run.changed.load(Ordering::SeqCst));
        if failed_proofs > 0 {
            line.push_str(&format!(", {failed_proofs} failed proofs"));
        }
        line.push_str(&format!(", {}", crate::when::span(wall_ms)));
        if run.lab {
            line.push_str(&format!(" ({} of lab time)", crate::when::span(site_ms)));
        }
        self.screen.out(&line);
        if let Some(text) = self.kubeconfig.line(run.lab, self.args.site.as_deref()) {
            self.screen.out(&format!("{tag}{text}"));
        }
        for f in self.struck() {
            self.screen.prose(&format!("{tag}fault: {f}"));
        }
        for f in self.world.iter().flat_map(|w| w.lab().faults().missed()) {
            self.screen.prose(&format!("{tag}warning: {f} never struck"));
        }
        if let Some((closing, on_hardware)) = lab {
            self.honest(&tag, &closing, &on_hardware);
        }
        if self.args.common.verbose || exit == Exit::Internal {
            self.screen.err(&p.dim(&format!("journal: {}", self.journal.display())));
        }
    }

    /// What a lab run is worth.
    fn honest(&self, tag: &str, closing: &Closing, on_hardware: &Expected) {
        if on_hardware.range.high >= 1.0 {
            self.screen.prose(&format!("{tag}on hardware: {}", on_hardware.words()));
        }
        if let Some(text) = closing.summary() {
            self.screen.prose(&format!("{tag}{text}"));
        }
        if !closing.not_rehearsed.is_empty() {
            self.screen.out(&format!("{tag}not rehearsed, the lab stood in for:"));
            for l in &closing.not_rehearsed {
                self.screen.prose(&format!("{tag}  - {l}"));
            }
        }
    }

    /// Writes the report of a bug and says where it is.
    fn report(&self, text: &str) -> OpError {
        let run = &self.session.run;
        let dir = run.state_dir.join("reports");
        let path = dir.join(format!("{}.txt", crate::when::stamp(crate::when::wall_ms())));
        let body = format!(
            "gpuhost {}\nrecipe {}\njournal {}\n\n{}\n",
            env!("CARGO_PKG_VERSION"),
            self.recipe.name,
            self.journal.display(),
            self.panics.texts().join("\n\n")
        );
        let body = self.session.redactor.clean(&body);
        let written: OpResult<()> = crate::statedir::private_dir(&dir).and_then(|()| {
            crate::statedir::write_private(&path, body.as_bytes()).map_err(|e| OpError::failed(e.to_string()))
        });
        let e = OpError::failed("internal error: this is a bug in gpuhost").because(text.to_owned());
        match written {
            Ok(()) => e.hint(format!("please send the report `{}`", path.display())),
            Err(w) => e.because(format!("the report could not be written: {}", w.message)),
        }
    }
}
