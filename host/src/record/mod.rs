//! Events of a run, fanned out to journal, progress and `--json`.
pub mod chain;
pub mod journal;
pub mod jsonl;
pub mod points;
pub mod read;
pub mod redact;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::core::event::Recorder;
use gpuhost_stdlib::core::event::{Event, Status};
use serde_json::{Map, Value, json};

use points::Points;
use redact::Redactor;

/// One reader of events. All readers see them in the same order, without secrets.
pub trait Sink: Send {
    /// Takes an event; `line` is the same as JSON text.
    ///
    /// # Errors
    /// When a durable event could not be kept.
    fn take(&mut self, ts_ms: u64, event: &Event, line: &str) -> OpResult<()>;
}

/// How one step went, for the end of the run.
#[derive(Debug, Clone)]
pub struct StepLine {
    /// Names, outermost first.
    pub path: Vec<String>,
    /// How it ended.
    pub status: Status,
    /// Changes made inside.
    pub changed: u64,
    /// Milliseconds of the run's clock.
    pub ms: u64,
}

struct Inner {
    sinks: Vec<Box<dyn Sink>>,
    steps: Vec<StepLine>,
    ops: BTreeSet<String>,
}

/// The recorder of a run.
pub struct Fan {
    inner: Mutex<Inner>,
    redactor: Redactor,
    lab: bool,
    points: Points,
}

impl Fan {
    /// A recorder without readers.
    #[must_use]
    pub fn new(redactor: Redactor, lab: bool) -> Self {
        Fan {
            inner: Mutex::new(Inner { sinks: Vec::new(), steps: Vec::new(), ops: BTreeSet::new() }),
            redactor,
            lab,
            points: Points::from_env(),
        }
    }

    /// Places passed at which a test may kill the process.
    #[must_use]
    pub fn points(&self) -> Option<u64> {
        self.points.passed()
    }

    /// Adds a reader.
    pub fn add(&self, sink: Box<dyn Sink>) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).sinks.push(sink);
    }

    /// Steps that have ended, in order.
    #[must_use]
    pub fn steps(&self) -> Vec<StepLine> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).steps.clone()
    }

    /// Names of the ops that ended well.
    #[must_use]
    pub fn ops(&self) -> BTreeSet<String> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).ops.clone()
    }

    /// The event as one line of JSON: version and time first, then what happened.
    fn line(&self, ts_ms: u64, event: &Event) -> String {
        let mut out = Map::new();
        out.insert("v".to_owned(), json!(1));
        out.insert("ts".to_owned(), json!(crate::when::iso(ts_ms)));
        if let Ok(Value::Object(body)) = serde_json::to_value(event) {
            out.extend(body);
        }
        out.insert("lab".to_owned(), json!(self.lab));
        self.redactor.clean(&Value::Object(out).to_string())
    }
}

impl Recorder for Fan {
    fn record(&self, ts_ms: u64, event: &Event) -> OpResult<()> {
        let line = self.line(ts_ms, event);
        // A secret in the event itself: show the cleaned copy.
        let cleaned: Option<Event> = if line.contains("***") { serde_json::from_str(&line).ok() } else { None };
        let event = cleaned.as_ref().unwrap_or(event);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::StepFinished { path, status, changed, ms } = event {
            inner.steps.push(StepLine { path: path.clone(), status: *status, changed: *changed, ms: *ms });
        }
        if let Event::OpFinished { op, status: Status::Ok, .. } = event {
            inner.ops.insert(op.clone());
        }
        let mut result = Ok(());
        for s in &mut inner.sinks {
            let r = s.take(ts_ms, event, &line);
            if result.is_ok() {
                result = r;
            }
        }
        self.points.recorded(event);
        result
    }

    fn edge(&self) {
        self.points.pass();
    }
}
