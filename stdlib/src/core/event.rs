//! What happens during a run: one vocabulary for progress, journal and `--json`.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Kind, OpError, OpResult};

/// What an op does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Looks only.
    Read,
    /// Idempotent change.
    Write,
    /// Takes something away.
    Destroy,
    /// Not idempotent; journalled as such.
    Run,
}

/// What to do with an effect whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Doing it again is harmless.
    Repeatable,
    /// Found again by its marker, UPID, uid or unit, and continued.
    Adoptable,
    /// A human decides.
    Ask,
}

/// One difference between wanted and found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What it belongs to, for example a node name.
    pub target: String,
    /// Which part, for example `memory` or `file /etc/hosts`.
    pub what: String,
    /// Value found; `None` when it was absent.
    pub before: Option<Value>,
    /// Value wanted; `None` when it goes away.
    pub after: Option<Value>,
}

impl Change {
    /// A difference on `target`.
    pub fn new(
        target: impl Into<String>,
        what: impl Into<String>,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Self {
        Change { target: target.into(), what: what.into(), before, after }
    }
}

/// How an op, step or run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Done.
    Ok,
    /// Ended in an error.
    Failed,
    /// Refused by permission, lock, ownership or the user.
    Refused,
    /// Interrupted by the user.
    Interrupted,
}

/// A proof's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Holds.
    Pass,
    /// Holds with a reservation.
    Warn,
    /// Does not hold.
    Fail,
}

/// One line of a recipe's proof report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// Name given by the recipe.
    pub name: String,
    /// Verdict.
    pub verdict: Verdict,
    /// Evidence or cause.
    pub text: String,
    /// Next command.
    pub next: Option<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run began.
    RunStarted {
        /// Recipe path.
        recipe: String,
        /// Site name.
        site: String,
        /// Digests, versions and whatever else finds the run again.
        header: Value,
    },
    /// A step began; `path` from the outermost.
    StepStarted {
        /// Step names, outermost first.
        path: Vec<String>,
    },
    /// A step ended.
    StepFinished {
        /// Step names, outermost first.
        path: Vec<String>,
        /// How.
        status: Status,
        /// Changes made inside.
        changed: u64,
        /// Lab or real milliseconds.
        ms: u64,
    },
    /// An op began.
    OpStarted {
        /// Number within the run.
        id: u64,
        /// `module.verb`.
        op: String,
        /// What it is done to.
        target: String,
        /// Effect.
        effect: Effect,
        /// Class.
        class: Class,
        /// Hash of the arguments.
        args: String,
        /// Steps it is in.
        step: Vec<String>,
        /// What had to end before it could begin: the last ops before it on its branch of the recipe.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<u64>,
        /// The op that it is a part of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<u64>,
    },
    /// An effect is about to happen (durable before it does).
    Intent {
        /// Op number.
        id: u64,
        /// `module.verb`.
        op: String,
        /// What it is done to.
        target: String,
        /// What finds the object again.
        marker: String,
        /// Hash of the arguments.
        args: String,
        /// What will change.
        changes: Vec<Change>,
    },
    /// The other side took the request and named it (UPID, uid, unit).
    Accepted {
        /// Op number.
        id: u64,
        /// UPID, uid, unit.
        reference: String,
    },
    /// What an op waits for.
    Waiting {
        /// Op number.
        id: u64,
        /// Target of the op.
        target: String,
        /// Reason.
        reason: String,
    },
    /// Something failed and is tried again after a pause.
    Retrying {
        /// What it was done to.
        target: String,
        /// What failed and why.
        reason: String,
        /// Kind of the failure.
        kind: Kind,
        /// Number of the try that failed, from 1.
        attempt: u32,
        /// Pause before the next one.
        pause_ms: u64,
    },
    /// What a command of an op wrote, while it runs.
    Output {
        /// Op number.
        id: u64,
        /// Target of the op.
        target: String,
        /// `out` or `err`.
        stream: String,
        /// Whole lines, without the last newline.
        text: String,
    },
    /// An op ended.
    OpFinished {
        /// Op number.
        id: u64,
        /// `module.verb`.
        op: String,
        /// What it was done to.
        target: String,
        /// How.
        status: Status,
        /// Changes made.
        changes: Vec<Change>,
        /// Milliseconds.
        ms: u64,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Box<OpError>>,
    },
    /// A line for the user from the recipe or the pipeline.
    Message {
        /// `info`, `warn` or `print`.
        level: String,
        /// Text.
        text: String,
    },
    /// A proof's verdict.
    Proved(Proof),
    /// A run ended; the host adds what it measured.
    RunFinished(Value),
}

impl Event {
    /// Whether the journal has to be on disk before the run goes on.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        matches!(self, Event::Intent { .. } | Event::Accepted { .. } | Event::RunFinished(_))
            || matches!(self, Event::OpFinished { changes, .. } if !changes.is_empty())
    }
}

/// Where events go. The host fans them out to progress, journal and `--json`.
pub trait Recorder: Send + Sync {
    /// Records `event`; `ts_ms` is the run's clock.
    ///
    /// # Errors
    /// When a durable event could not be written; the effect must not happen then.
    fn record(&self, ts_ms: u64, event: &Event) -> OpResult<()>;
    /// A request of an effect was just answered: tests kill the process here.
    fn edge(&self) {}
}
