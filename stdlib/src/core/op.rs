//! The one pipeline that every effect of a script goes through:
//! permission, journal intent, deadline and cancellation, read -> diff -> act, outcome, events.
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::branch;
use super::ctx::Ctx;
use super::error::{OpError, OpResult, Stop};
use super::event::{Change, Class, Effect, Event, Status};

/// The identity of one operation. It is the same in every run: no UPIDs, MACs or secrets in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Script module.
    pub module: &'static str,
    /// Function name.
    pub verb: &'static str,
    /// What it is done to.
    pub target: String,
    /// Effect.
    pub effect: Effect,
    /// What to do when the outcome is unknown.
    pub class: Class,
    /// Hash of the arguments.
    pub args: String,
}

impl Op {
    fn new(module: &'static str, verb: &'static str, target: impl Into<String>, effect: Effect, class: Class) -> Self {
        Op { module, verb, target: target.into(), effect, class, args: String::new() }
    }
    /// An op that only looks.
    pub fn read(module: &'static str, verb: &'static str, target: impl Into<String>) -> Self {
        Self::new(module, verb, target, Effect::Read, Class::Repeatable)
    }
    /// An idempotent change.
    pub fn write(module: &'static str, verb: &'static str, target: impl Into<String>) -> Self {
        Self::new(module, verb, target, Effect::Write, Class::Repeatable)
    }
    /// A removal.
    pub fn destroy(module: &'static str, verb: &'static str, target: impl Into<String>) -> Self {
        Self::new(module, verb, target, Effect::Destroy, Class::Adoptable)
    }
    /// A change that is not idempotent.
    pub fn run(module: &'static str, verb: &'static str, target: impl Into<String>) -> Self {
        Self::new(module, verb, target, Effect::Run, Class::Ask)
    }
    /// Sets the class.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }
    /// Hashes the arguments into the identity.
    #[must_use]
    pub fn args(mut self, args: &impl Serialize) -> Self {
        let text = serde_json::to_string(args).unwrap_or_default();
        let sum = Sha256::digest(text.as_bytes());
        self.args = sum.iter().take(8).map(|b| format!("{b:02x}")).collect();
        self
    }
    /// Key under which a run keeps what it has read about `target`. An op that changes the target makes it forget.
    #[must_use]
    pub fn knowledge_of(target: &str) -> String {
        format!("about {target}")
    }
    /// `module.verb`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.module, self.verb)
    }
}

/// What an earlier run has begun of an op and left without an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOpen {
    /// That run.
    pub run: String,
    /// When it was about to happen, in milliseconds of the run's clock.
    pub since_ms: u64,
    /// The intent's marker.
    pub marker: String,
    /// UPID, uid or unit, when the other side still got to name it.
    pub accepted: Option<String>,
}

/// How long after its beginning an effect counts as the one that a run continues; later, people have gone on from there.
const CONTINUED: Duration = Duration::from_secs(3600);

/// What the body of an op works with.
pub struct OpScope {
    ctx: Ctx,
    op: Op,
    id: u64,
    changes: Mutex<Vec<Change>>,
    last: Mutex<String>,
}

/// How the wait for a place among those that may work at the same time begins: the time it takes is the limit's, not the
/// op's.
pub const QUEUED: &str = "a place in ";

/// What one look at a waited-for thing found.
pub enum Look<T> {
    /// It is there.
    Ready(T),
    /// Not yet; what was seen.
    Pending(String),
}

impl OpScope {
    /// The run this op belongs to.
    #[must_use]
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }
    /// The op.
    #[must_use]
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// Makes `changes` happen by `work`: consent for destroys, durable intent, then the work.
    /// `marker` is what finds the object again after a crash (marker text, UPID, uid, unit).
    /// The changes count only when the work succeeded.
    ///
    /// # Errors
    /// What the work returned; `denied` when refused.
    pub async fn act<T>(
        &self,
        marker: impl Into<String>,
        changes: Vec<Change>,
        work: impl Future<Output = OpResult<T>>,
    ) -> OpResult<T> {
        self.ctx.check_cancelled()?;
        self.ctx.policy.check_change(&self.op, &changes)?;
        if self.op.effect == Effect::Destroy {
            self.ctx.consent.destroy(&self.op, &changes)?;
        }
        self.ctx.policy.before_effect(&self.ctx, &self.op).await?;
        // Looked at between the two: whoever interrupts either keeps it from beginning, or finds it under way.
        let begun = self.ctx.effects.begin(&self.ctx.flight, format!("{} {}", self.op.name(), self.op.target));
        self.ctx.check_cancelled()?;
        self.begin(marker.into(), changes.clone())?;
        // On the heap: ops nest, and their futures would nest on the stack of whoever polls them.
        let out = Box::pin(work).await;
        drop(begun);
        let out = out?;
        self.keep(changes);
        Ok(out)
    }

    /// Something that is taken away again by `clean` whatever happens, such as the pods of a proof: in the journal before
    /// it begins, and no change. It asks for no lock, and no plan names it. An interruption ends `work` and finds `clean`
    /// under way.
    ///
    /// # Errors
    /// What `work` failed with, then what `clean` did; when the run was cancelled or the journal could not be written.
    pub async fn probe<T>(
        &self,
        marker: impl Into<String>,
        work: impl Future<Output = OpResult<T>>,
        clean: impl Future<Output = OpResult<()>>,
    ) -> OpResult<T> {
        let marker = marker.into();
        let begun = self.ctx.effects.begin(&self.ctx.flight, format!("removal of {marker}"));
        self.ctx.check_cancelled()?;
        self.begin(marker, Vec::new())?;
        let worked = tokio::select! { biased;
            () = self.ctx.cancel.cancelled() => Err(OpError::interrupted()),
            // On the heap, as in `act`.
            out = Box::pin(work) => out,
        };
        let cleaned = Box::pin(clean).await;
        drop(begun);
        let out = worked?;
        cleaned?;
        Ok(out)
    }

    fn begin(&self, marker: String, changes: Vec<Change>) -> OpResult<()> {
        self.ctx.emit(&Event::Intent {
            id: self.id,
            op: self.op.name(),
            target: self.op.target.clone(),
            marker,
            args: self.op.args.clone(),
            changes,
        })
    }

    /// Counts changes that stay although the work around them failed.
    pub fn keep(&self, changes: Vec<Change>) {
        self.ctx.count_changes(changes.len() as u64);
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).extend(changes);
    }

    /// What an earlier run left open of exactly this op, if that is not long ago. Told once: from then on this run has it.
    #[must_use]
    pub fn left_open(&self) -> Option<LeftOpen> {
        let left = self.ctx.policy.left_open(&self.op)?;
        let age = self.ctx.clock.last_ms().saturating_sub(left.since_ms);
        (u128::from(age) <= CONTINUED.as_millis()).then_some(left)
    }

    /// Says that what run `left` has begun is the effect, and is not begun again.
    pub fn continues(&self, left: &LeftOpen, what: &str) {
        let text = format!("{}: {what} that run {} began is taken as done, not begun again", self.op.target, left.run);
        self.ctx.message("info", text);
    }

    /// The other side took the request under this reference.
    ///
    /// # Errors
    /// When the journal could not be written.
    pub fn accepted(&self, reference: impl Into<String>) -> OpResult<()> {
        self.ctx.emit(&Event::Accepted { id: self.id, reference: reference.into() })
    }

    /// Says what the op waits for (only when it is news).
    pub fn waiting(&self, reason: impl Into<String>) {
        let reason = reason.into();
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if *last == reason {
                return;
            }
            last.clone_from(&reason);
        }
        let event = Event::Waiting { id: self.id, target: self.op.target.clone(), reason };
        if let Err(e) = self.ctx.emit(&event) {
            tracing::warn!("event lost: {e}");
        }
    }

    /// Hands on what the op's command writes (`stream` is `out` or `err`).
    pub fn output(&self, stream: &str, text: impl Into<String>) {
        let (stream, target) = (stream.to_owned(), self.op.target.clone());
        if let Err(e) = self.ctx.emit(&Event::Output { id: self.id, target, stream, text: text.into() }) {
            tracing::warn!("output lost: {e}");
        }
    }

    /// Looks every `every` until `look` finds it ready, at most for `limit`.
    ///
    /// # Errors
    /// `timeout` with the last seen state; whatever `look` returns.
    pub async fn wait_for<T, F, Fut>(&self, what: &str, every: Duration, limit: Duration, mut look: F) -> OpResult<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = OpResult<Look<T>>>,
    {
        let start = self.ctx.clock.now_ms().await;
        loop {
            self.ctx.check_effect()?;
            let seen = match self.ctx.looking(look()).await? {
                Look::Ready(t) => return Ok(t),
                Look::Pending(seen) => seen,
            };
            let now = self.ctx.clock.now_ms().await;
            if self.ctx.effects.any() {
                self.ctx.policy.check_lease(now)?;
            }
            if now.saturating_sub(start) >= limit.as_millis() as u64 {
                let waited = super::units::show_duration(limit);
                return Err(OpError::timeout(format!("{what} did not happen within {waited}")).last_seen(seen));
            }
            self.waiting(format!("{what}: {seen}"));
            self.ctx.clock.sleep(every).await;
        }
    }

    /// Sleeps on the run's clock; ends early with an error when the run is cancelled.
    ///
    /// # Errors
    /// When interrupted.
    pub async fn sleep(&self, d: Duration) -> OpResult<()> {
        self.ctx.clock.sleep(d).await;
        self.ctx.check_effect()
    }

    /// Changes made by this op so far.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ctx {
    /// Runs one op through the pipeline. Ops may nest: a body may call `ctx.run_op` again.
    ///
    /// # Errors
    /// What the body returned, with op, target and steps filled in.
    pub async fn run_op<T, F, Fut>(&self, op: Op, body: F) -> OpResult<T>
    where
        F: FnOnce(Arc<OpScope>) -> Fut,
        Fut: Future<Output = OpResult<T>>,
    {
        // A look inside an effect belongs to it; everything else is new work.
        if op.effect == Effect::Read {
            self.check_effect()?
        } else {
            self.check_cancelled()?
        }
        // 1 permission
        self.policy.check(&op).map_err(|e| self.dress(e, &op))?;
        let id = self.next_op_id();
        let begun = branch::begin(id);
        self.emit(&Event::OpStarted {
            id,
            op: op.name(),
            target: op.target.clone(),
            effect: op.effect,
            class: op.class,
            args: op.args.clone(),
            step: self.step_path(),
            after: begun.after.clone(),
            within: begun.within,
        })?;
        let start = self.clock.last_ms();
        let scope = Arc::new(OpScope {
            ctx: self.clone(),
            op: op.clone(),
            id,
            changes: Mutex::new(Vec::new()),
            last: Mutex::new(String::new()),
        });
        // 3 cancellation reaches every waiting op; 2 and 4 happen inside the body (`act`)
        let result = tokio::select! { biased;
            () = self.landed() => Err(OpError::interrupted()),
            // On the heap, as in `act`.
            r = Box::pin(body(scope.clone())) => r,
        };
        let result = result.map_err(|e| self.dress(e, &op));
        if op.effect != Effect::Read && (result.is_err() || !scope.changes().is_empty()) {
            self.forget(&Op::knowledge_of(&op.target));
        }
        // 5 outcome, 6 events
        let status = match &result {
            Ok(_) => Status::Ok,
            Err(e) => match e.stop {
                Some(Stop::Interrupted) => Status::Interrupted,
                Some(Stop::Refused) => Status::Refused,
                _ => Status::Failed,
            },
        };
        self.emit(&Event::OpFinished {
            id,
            op: op.name(),
            target: op.target.clone(),
            status,
            changes: scope.changes(),
            ms: self.clock.last_ms().saturating_sub(start),
            error: result.as_ref().err().cloned().map(Box::new),
        })?;
        result
    }

    fn dress(&self, mut e: OpError, op: &Op) -> OpError {
        if e.op.is_empty() {
            e.op = op.name();
        }
        if e.target.is_empty() {
            e.target.clone_from(&op.target);
        }
        if e.steps.is_empty() {
            e.steps = self.step_path();
        }
        e
    }
}
