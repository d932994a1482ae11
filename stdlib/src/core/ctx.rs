//! What one run shares: clock, dialer, recorder, consent, cancellation, counters, caches.
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use rhai::{Dynamic, EvalAltResult, NativeCallContext};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::dialer::Dialer;
use super::error::{OpError, OpResult, Place, Stop};
use super::event::{Change, Event, Proof, Recorder};
use super::flight::{Effects, Flight};
use super::op::{LeftOpen, Op};
use super::retry::{Spent, Waits};
use super::units::Secret;
use crate::site::Site;

/// The result of every script function. The name matters: the editor stubs strip exactly it.
pub type RhaiResultOf<T> = Result<T, Box<EvalAltResult>>;

/// A list whose elements have one type: an array for Rhai, `[T]` in the reference, and `check` knows what an element has.
pub type List<T> = <T as Element>::Array;

/// What a [`List`] is made of.
pub trait Element {
    /// How Rhai holds many of them.
    type Array;
}

impl<T> Element for T {
    type Array = rhai::Array;
}

/// Decides whether an op may happen at all.
pub trait Policy: Send + Sync {
    /// May this run do `op`?
    ///
    /// # Errors
    /// `denied` with what to grant.
    fn check(&self, op: &Op) -> OpResult<()>;
    /// The place where a plan stops a change that it does not contain.
    ///
    /// # Errors
    /// `denied`.
    fn check_change(&self, op: &Op, changes: &[Change]) -> OpResult<()>;
    /// The place where the site's lock is taken (before the first effect) and re-read (before the others).
    fn before_effect<'a>(&'a self, _ctx: &'a Ctx, _op: &'a Op) -> BoxFuture<'a, OpResult<()>> {
        Box::pin(async { Ok(()) })
    }
    /// Whether the lock's lease still holds at `now_ms` of the run's clock; asked before every single request
    /// that changes something.
    ///
    /// # Errors
    /// `denied` when it has passed.
    fn check_lease(&self, _now_ms: u64) -> OpResult<()> {
        Ok(())
    }
    /// What an earlier run left of exactly this op without an outcome; told once.
    fn left_open(&self, _op: &Op) -> Option<LeftOpen> {
        None
    }
}

/// Asks the user.
pub trait Consent: Send + Sync {
    /// Asks a question of the recipe; `destructive` ones need more than a plain `--yes` on a real site.
    ///
    /// # Errors
    /// `denied` (exit 4) when nobody can be asked.
    fn confirm(&self, question: &str, destructive: bool) -> OpResult<bool>;
    /// Is a server whose certificate nothing vouches for the right one? No flag answers this.
    ///
    /// # Errors
    /// `denied` (exit 4) when nobody can be asked.
    fn trust(&self, question: &str) -> OpResult<bool> {
        let first = question.lines().next().unwrap_or_default();
        Err(OpError::refused(format!("{}, and nobody can be asked", first.split(". ").next().unwrap_or(first))))
    }
    /// May this destroy go ahead?
    ///
    /// # Errors
    /// `denied` (exit 4) when declined.
    fn destroy(&self, op: &Op, changes: &[Change]) -> OpResult<()>;
    /// Asks for a secret at a terminal; what is typed is not shown.
    ///
    /// # Errors
    /// `denied` when nobody can be asked.
    fn secret(&self, question: &str) -> OpResult<Secret> {
        Err(OpError::denied(format!("nobody can be asked for the {question}")))
    }
}

/// One open step.
pub struct StepScope {
    /// Step names, outermost first.
    pub path: Vec<String>,
    /// Changes made inside.
    pub changed: AtomicU64,
}

/// What one run shares.
pub struct Run {
    /// Runtime for the async parts.
    pub rt: tokio::runtime::Handle,
    /// All time.
    pub clock: Clock,
    /// All connections.
    pub dialer: Dialer,
    /// Ctrl-C: nothing new begins.
    pub cancel: CancellationToken,
    /// Effects under way, which an interruption lets finish.
    pub flight: Flight,
    /// What retries have cost.
    pub spent: Spent,
    /// Whether the far side is the lab.
    pub lab: bool,
    /// The loaded site file, if there is one.
    pub site: Option<Arc<Site>>,
    /// Where keys, tokens, known hosts and journals live.
    pub state_dir: PathBuf,
    /// Folder that relative paths of the recipe start from.
    pub base_dir: PathBuf,
    /// `--set name=value`.
    pub params: BTreeMap<String, String>,
    /// Secrets given from outside (name -> text); the lab gives its own here.
    pub secrets: BTreeMap<String, String>,
    /// Permissions and plan.
    pub policy: Arc<dyn Policy>,
    /// Questions.
    pub consent: Arc<dyn Consent>,
    /// Events.
    pub recorder: Arc<dyn Recorder>,
    /// Connections and other things worth keeping for the run, by key.
    pub cache: Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>,
    /// Verdicts of `prove`.
    pub proofs: Mutex<Vec<Proof>>,
    /// Values that must never be printed.
    pub redact: Mutex<Vec<String>>,
    /// What a lab run could not rehearse, and the recipe lines that wanted it.
    pub not_rehearsed: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// Changes so far.
    pub changed: AtomicU64,
    /// Set when an op of this run was refused.
    pub refused: AtomicBool,
    /// Op numbers.
    pub op_seq: AtomicU64,
}

/// Who decides, who asks and who listens during a run.
pub struct Parties {
    /// Permissions and plan.
    pub policy: Arc<dyn Policy>,
    /// Questions.
    pub consent: Arc<dyn Consent>,
    /// Events.
    pub recorder: Arc<dyn Recorder>,
}

impl Run {
    /// A run on the real site in `dir`: no site file, no parameters, nothing done yet.
    #[must_use]
    pub fn new(rt: tokio::runtime::Handle, (clock, dialer): (Clock, Dialer), dir: PathBuf, by: Parties) -> Self {
        Run {
            rt,
            clock,
            dialer,
            cancel: CancellationToken::new(),
            flight: Flight::default(),
            spent: Spent::default(),
            lab: false,
            site: None,
            state_dir: dir.clone(),
            base_dir: dir,
            params: BTreeMap::new(),
            secrets: BTreeMap::new(),
            policy: by.policy,
            consent: by.consent,
            recorder: by.recorder,
            cache: Mutex::default(),
            proofs: Mutex::default(),
            redact: Mutex::default(),
            not_rehearsed: Mutex::default(),
            changed: AtomicU64::new(0),
            refused: AtomicBool::new(false),
            op_seq: AtomicU64::new(0),
        }
    }
}

/// A run as seen from one place of the recipe: the run plus the steps that are open there.
#[derive(Clone)]
pub struct Ctx {
    run: Arc<Run>,
    steps: Vec<Arc<StepScope>>,
    /// `file:line` of the recipe that called; empty outside of a script.
    place: Arc<str>,
    /// Effects under way in this call.
    pub(crate) effects: Effects,
    /// Waits under way in this call.
    waits: Waits,
}

impl Deref for Ctx {
    type Target = Run;
    fn deref(&self) -> &Run {
        &self.run
    }
}

thread_local! {
    static STEPS: RefCell<Vec<Arc<StepScope>>> = const { RefCell::new(Vec::new()) };
}

/// The steps open on this thread.
#[must_use]
pub fn open_steps() -> Vec<Arc<StepScope>> {
    STEPS.with(|s| s.borrow().clone())
}

/// Replaces the steps open on this thread (for a fan-out's threads) and returns the old ones.
pub fn set_open_steps(steps: Vec<Arc<StepScope>>) -> Vec<Arc<StepScope>> {
    STEPS.with(|s| s.replace(steps))
}

impl Ctx {
    /// Wraps a run; no step is open.
    #[must_use]
    pub fn new(run: Arc<Run>) -> Self {
        let (effects, waits) = (Effects::default(), Waits::default());
        Ctx { run, steps: open_steps(), place: "".into(), effects, waits }
    }

    /// The run of the script that calls a native function.
    ///
    /// # Errors
    /// When the engine has no run (only in `check`).
    pub fn of(ncc: &NativeCallContext) -> RhaiResultOf<Self> {
        let run = ncc
            .tag()
            .and_then(|t| t.clone().try_cast::<Arc<Run>>())
            .ok_or_else(|| OpError::invalid("no run is active").into_rhai(ncc))?;
        let mut ctx = Ctx::new(run);
        if ctx.lab {
            let place = place_at(ncc);
            ctx.place = format!("{}:{}", place.file, place.line).into();
        }
        Ok(ctx)
    }

    /// Notes that the lab could not rehearse `what`, which this place of the recipe wants.
    pub fn blind(&self, what: String) {
        let mut list = self.not_rehearsed.lock().unwrap_or_else(PoisonError::into_inner);
        let places = list.entry(what).or_default();
        if !self.place.is_empty() {
            places.insert(self.place.to_string());
        }
    }

    /// The shared run.
    #[must_use]
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Names of the open steps, outermost first.
    #[must_use]
    pub fn step_path(&self) -> Vec<String> {
        self.steps.last().map(|s| s.path.clone()).unwrap_or_default()
    }

    /// Changes so far in the innermost step (in the run outside of steps).
    #[must_use]
    pub fn changed_here(&self) -> u64 {
        self.steps.last().map_or_else(|| self.changed.load(Ordering::SeqCst), |s| s.changed.load(Ordering::SeqCst))
    }

    /// Counts changes for the run and every open step.
    pub fn count_changes(&self, n: u64) {
        self.changed.fetch_add(n, Ordering::SeqCst);
        for s in &self.steps {
            s.changed.fetch_add(n, Ordering::SeqCst);
        }
    }

    /// Number of the next op.
    #[must_use]
    pub fn next_op_id(&self) -> u64 {
        self.op_seq.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Sends an event to progress, journal and `--json`.
    ///
    /// # Errors
    /// When a durable event could not be written.
    pub fn emit(&self, event: &Event) -> OpResult<()> {
        self.recorder.record(self.clock.last_ms(), event)
    }

    /// A question that was answered with no: what the run did before it stays.
    #[must_use]
    pub fn declined(&self, question: &str) -> OpError {
        let before = self.changed.load(Ordering::SeqCst);
        let told = match before {
            0 => "nothing was changed".to_owned(),
            1 => "the change before it stays; nothing after it was changed".to_owned(),
            n => format!("the {n} changes before it stay; nothing after it was changed"),
        };
        OpError::refused(format!("declined: {question}")).hint(told)
    }

    /// A line for the user.
    pub fn message(&self, level: &str, text: impl Into<String>) {
        let event = Event::Message { level: level.to_owned(), text: text.into() };
        if let Err(e) = self.emit(&event) {
            tracing::warn!("message lost: {e}");
        }
    }

    /// # Errors
    /// `interrupted` after Ctrl-C.
    pub fn check_cancelled(&self) -> OpResult<()> {
        if self.cancel.is_cancelled() { Err(OpError::interrupted()) } else { Ok(()) }
    }

    /// Resolves when this call has to end: the run was interrupted, and no effect of this call is under way
    /// (or its grace is over).
    pub async fn landed(&self) {
        self.effects.landed(&self.cancel, &self.flight).await;
    }

    /// One look of a wait, which looks again by itself: what fails in it is not tried again below it.
    pub async fn looking<T>(&self, look: impl Future<Output = T>) -> T {
        let _one = self.waits.begin();
        look.await
    }

    /// Whether this call looks for something that it waits for.
    #[must_use]
    pub fn is_looking(&self) -> bool {
        self.waits.any()
    }

    /// A request was answered; inside an effect this is a place at which crash tests kill the process.
    pub fn edge(&self) {
        if self.effects.any() {
            self.recorder.edge();
        }
    }

    /// The loaded site.
    ///
    /// # Errors
    /// `invalid` when no site file was given.
    pub fn site(&self) -> OpResult<Arc<Site>> {
        self.site.clone().ok_or_else(|| {
            OpError::invalid("no site file is loaded").hint("pass one: `gpuhost run RECIPE --site recipes/site.toml`")
        })
    }

    /// Something kept for the run, for example a connection.
    #[must_use]
    pub fn cached<T: Any + Send + Sync>(&self, key: &str) -> Option<Arc<T>> {
        let c = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        c.get(key).and_then(|a| a.clone().downcast::<T>().ok())
    }

    /// Keeps something for the run.
    pub fn keep<T: Any + Send + Sync>(&self, key: impl Into<String>, value: Arc<T>) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(key.into(), value);
    }

    /// Forgets something kept.
    pub fn forget(&self, key: &str) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Registers a value that must never be printed.
    pub fn hide(&self, secret: &str) {
        if secret.len() >= 6 {
            self.redact.lock().unwrap_or_else(PoisonError::into_inner).push(secret.to_owned());
        }
    }

    /// Opens a step for the length of `work` on this thread, with its events.
    ///
    /// # Errors
    /// What the work returned.
    pub fn in_step<T>(&self, name: &str, work: impl FnOnce() -> RhaiResultOf<T>) -> RhaiResultOf<T> {
        use super::event::Status;
        let mut path = self.step_path();
        path.push(name.to_owned());
        let scope = Arc::new(StepScope { path: path.clone(), changed: AtomicU64::new(0) });
        let mut steps = self.steps.clone();
        steps.push(scope.clone());
        let old = set_open_steps(steps);
        let start = self.clock.last_ms();
        let begun = self.emit(&Event::StepStarted { path: path.clone() });
        let result = match begun {
            Ok(()) => work(),
            Err(e) => Err(e.into_rhai_bare()),
        };
        set_open_steps(old);
        let status = match &result {
            Ok(_) => Status::Ok,
            Err(e) => match OpError::from_rhai(e).stop {
                Some(Stop::Interrupted) => Status::Interrupted,
                Some(Stop::Refused) => Status::Refused,
                _ => Status::Failed,
            },
        };
        let ended = self.emit(&Event::StepFinished {
            path,
            status,
            changed: scope.changed.load(Ordering::SeqCst),
            ms: self.clock.last_ms().saturating_sub(start),
        });
        match (result, ended) {
            (Ok(_), Err(e)) => Err(e.into_rhai_bare()),
            (r, _) => r,
        }
    }
}

/// The script boundary: runs `work` on the runtime, adds the recipe position to its error.
///
/// # Errors
/// The op's error as a Rhai error that `catch` can read.
pub fn call<T, F, Fut>(ncc: &NativeCallContext, work: F) -> RhaiResultOf<T>
where
    F: FnOnce(Ctx) -> Fut,
    Fut: Future<Output = OpResult<T>>,
{
    let ctx = Ctx::of(ncc)?;
    let rt = ctx.rt.clone();
    let stop = ctx.clone();
    let fut = work(ctx);
    let out = rt.block_on(async move {
        tokio::select! { biased;
            r = fut => r,
            () = stop.landed() => Err(OpError::interrupted()),
        }
    });
    out.map_err(|e| e.into_rhai(ncc))
}

impl OpError {
    /// As a Rhai error with the position of the calling script line. What failed on a target outside of an op bears
    /// the name of the function that was called.
    #[must_use]
    pub fn into_rhai(mut self, ncc: &NativeCallContext) -> Box<EvalAltResult> {
        let pos = ncc.call_position();
        if self.op.is_empty() && !self.target.is_empty() {
            self.op = ncc.fn_name().to_owned();
        }
        if self.place.is_none() {
            self.place = Some(place_at(ncc));
        }
        if self.steps.is_empty() {
            self.steps = open_steps().last().map(|s| s.path.clone()).unwrap_or_default();
        }
        self.raise(pos)
    }

    /// As a Rhai error without a position.
    #[must_use]
    pub fn into_rhai_bare(self) -> Box<EvalAltResult> {
        self.raise(rhai::Position::NONE)
    }

    fn raise(self, pos: rhai::Position) -> Box<EvalAltResult> {
        // Script code can catch neither an interruption nor a refusal nor a wrong call.
        if matches!(self.stop, Some(Stop::Interrupted | Stop::Refused | Stop::Usage)) {
            return Box::new(EvalAltResult::ErrorTerminated(Dynamic::from(self), pos));
        }
        Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(self), pos))
    }

    /// The `OpError` inside a Rhai error; other Rhai errors become `invalid` with their text and position.
    #[must_use]
    pub fn from_rhai(err: &EvalAltResult) -> OpError {
        match err {
            EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) => {
                OpError::from_rhai(inner)
            }
            EvalAltResult::ErrorRuntime(d, pos) | EvalAltResult::ErrorTerminated(d, pos) => {
                if let Some(e) = d.clone().try_cast::<OpError>() {
                    return e;
                }
                let terminated = matches!(err, EvalAltResult::ErrorTerminated(..));
                let mut e = if terminated { OpError::interrupted() } else { OpError::failed(d.to_string()) };
                e.place = Some(place_of(*pos));
                e
            }
            other => {
                let mut e = OpError::invalid(text_without_position(other));
                e.place = Some(place_of(other.position()));
                e
            }
        }
    }
}

/// The line of the script that calls a native function.
fn place_at(ncc: &NativeCallContext) -> Place {
    Place { file: ncc.call_source().unwrap_or_default().to_owned(), ..place_of(ncc.call_position()) }
}

fn place_of(pos: rhai::Position) -> Place {
    Place { file: String::new(), line: pos.line().unwrap_or(0), column: pos.position().unwrap_or(0) }
}

fn text_without_position(err: &EvalAltResult) -> String {
    let text = err.to_string();
    match text.rfind(" (line ") {
        Some(at) if text.ends_with(')') => text[..at].to_owned(),
        _ => text,
    }
}
