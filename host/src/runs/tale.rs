//! What a journal tells: who ran what where, how it ended, what was left in doubt.
use std::collections::BTreeMap;

use gpuhost_stdlib::core::error::OpError;
use gpuhost_stdlib::core::event::{Change, Class, Effect, Event, Status};
use serde::Serialize;
use serde_json::Value;

use super::machine;
use crate::record::read::{Health, Past};

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It said how it ended.
    Ended(Status),
    /// Its process still runs on this machine.
    Running,
    /// It ended without a word: killed, crashed, or the machine lost power.
    Died,
    /// It runs on another machine, or has died there.
    Elsewhere,
}

/// An effect whose outcome the journal does not know.
#[derive(Debug, Clone, Serialize)]
pub struct Doubt {
    /// `module.verb`.
    pub op: String,
    /// What it was done to.
    pub target: String,
    /// Hash of the arguments.
    pub args: String,
    /// What the next run does about it.
    pub class: Class,
    /// When it was about to happen.
    pub since: String,
    /// What finds the object again.
    pub marker: String,
    /// UPID, uid or unit under which the other side took it.
    pub accepted: Option<String>,
}

/// One op that did or tried something.
#[derive(Debug, Clone, Serialize)]
pub struct Deed {
    /// `module.verb`.
    pub op: String,
    /// What it was done to.
    pub target: String,
    /// How it ended; `None` when the journal ends before.
    pub status: Option<Status>,
    /// Changes made.
    pub changes: Vec<Change>,
    /// Milliseconds of the run's clock.
    pub ms: u64,
    /// Why it failed.
    pub error: Option<OpError>,
    /// Steps it was in.
    pub step: Vec<String>,
}

/// The story of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Tale {
    /// Recipe.
    pub recipe: String,
    /// Name of the site.
    pub site: String,
    /// Whether it was on the lab.
    pub lab: bool,
    /// Everything else that the run said about itself at the beginning.
    pub header: Value,
    /// What the run said at the end.
    pub end: Option<Value>,
    /// How it stands.
    pub state: State,
    /// Changes made.
    pub changed: u64,
    /// Number of ops.
    pub ops: usize,
    /// Number of tries that failed and were repeated.
    pub retries: usize,
    /// Ops that changed something or failed, in order of their end.
    pub deeds: Vec<Deed>,
    /// Effects in doubt.
    pub doubts: Vec<Doubt>,
}

struct Open {
    deed: Deed,
    class: Class,
    args: String,
    effect: Effect,
    doubt: Option<Doubt>,
}

/// Whether an error leaves open if the effect happened.
fn leaves_doubt(status: Status, error: Option<&OpError>) -> bool {
    use gpuhost_stdlib::core::error::Kind;
    match status {
        Status::Ok | Status::Refused => false,
        Status::Interrupted => true,
        Status::Failed => error.is_some_and(|e| matches!(e.kind, Kind::Unreachable | Kind::Timeout)),
    }
}

impl Tale {
    /// Reads the story out of a journal.
    #[must_use]
    pub fn of(past: &Past) -> Self {
        let first = past.lines.first().map(|l| l.raw.clone()).unwrap_or_default();
        let mut tale = Tale {
            recipe: first["recipe"].as_str().unwrap_or_default().to_owned(),
            site: first["site"].as_str().unwrap_or_default().to_owned(),
            lab: first["lab"].as_bool().unwrap_or_default(),
            header: first["header"].clone(),
            end: None,
            state: State::Died,
            changed: 0,
            ops: 0,
            retries: 0,
            deeds: Vec::new(),
            doubts: Vec::new(),
        };
        let mut open: BTreeMap<u64, Open> = BTreeMap::new();
        for line in &past.lines {
            if let Some(event) = &line.event {
                tale.hear(event, &line.ts, &mut open);
            }
        }
        for (_, o) in open {
            tale.doubts.extend(o.doubt);
            if o.effect != Effect::Read {
                tale.deeds.push(o.deed);
            }
        }
        tale.state = tale.stand();
        tale
    }

    fn hear(&mut self, event: &Event, ts: &str, open: &mut BTreeMap<u64, Open>) {
        match event {
            Event::OpStarted { id, op, target, effect, class, args, step, .. } => {
                self.ops += 1;
                let deed = Deed {
                    op: op.clone(),
                    target: target.clone(),
                    status: None,
                    changes: Vec::new(),
                    ms: 0,
                    error: None,
                    step: step.clone(),
                };
                let o = Open { deed, class: *class, args: args.clone(), effect: *effect, doubt: None };
                open.insert(*id, o);
            }
            Event::Intent { id, op, target, marker, .. } => {
                if let Some(o) = open.get_mut(id) {
                    o.doubt = Some(Doubt {
                        op: op.clone(),
                        target: target.clone(),
                        args: o.args.clone(),
                        class: o.class,
                        since: ts.to_owned(),
                        marker: marker.clone(),
                        accepted: None,
                    });
                }
            }
            Event::Accepted { id, reference } => {
                if let Some(d) = open.get_mut(id).and_then(|o| o.doubt.as_mut()) {
                    d.accepted = Some(reference.clone());
                }
            }
            Event::Retrying { .. } => self.retries += 1,
            Event::OpFinished { id, status, changes, ms, error, .. } => {
                let Some(o) = open.remove(id) else { return };
                self.changed += changes.len() as u64;
                if leaves_doubt(*status, error.as_deref()) && changes.is_empty() {
                    self.doubts.extend(o.doubt);
                }
                if !changes.is_empty() || *status != Status::Ok {
                    self.deeds.push(Deed {
                        status: Some(*status),
                        changes: changes.clone(),
                        ms: *ms,
                        error: error.as_deref().cloned(),
                        ..o.deed
                    });
                }
            }
            Event::RunFinished(end) => self.end = Some(end.clone()),
            _ => {}
        }
    }

    fn stand(&self) -> State {
        if let Some(end) = &self.end {
            let status = serde_json::from_value(end["status"].clone()).unwrap_or(Status::Failed);
            return State::Ended(status);
        }
        let by = &self.header["by"];
        match (by["boot"].as_str(), by["process"].as_str()) {
            (Some(boot), Some(process)) if boot == machine::boot() => match machine::runs(process) {
                Some(true) => State::Running,
                Some(false) => State::Died,
                None => State::Elsewhere,
            },
            (Some(_), _) if by["host"].as_str() != Some(machine::host().as_str()) => State::Elsewhere,
            // Before the last boot, or of a version that did not say.
            _ => State::Died,
        }
    }

    /// One word for the state.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match &self.state {
            State::Ended(Status::Ok) => "done",
            State::Ended(Status::Failed) => "failed",
            State::Ended(Status::Refused) => "refused",
            State::Ended(Status::Interrupted) => "interrupted",
            State::Running => "running",
            State::Died => "died",
            State::Elsewhere => "elsewhere",
        }
    }
}

/// What the chain says, in words.
#[must_use]
pub fn health(h: &Health) -> String {
    match h {
        Health::Whole => "whole".to_owned(),
        Health::Unsealed => "not sealed (written before journals were chained)".to_owned(),
        Health::Torn { bytes } => format!("its last line is torn after {bytes} bytes; everything before is whole"),
        Health::Broken { line, why } => format!("line {line}: {why}"),
    }
}
