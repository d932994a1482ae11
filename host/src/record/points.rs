//! Places at which the crash tests kill the process: after every durable journal line, and after every request
//! of an effect. The place before one is the place after the one before it: neither journal nor world differ.
//! Only debug builds look at the variable.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use gpuhost_stdlib::core::event::{Effect, Event};

/// Name of the variable: the number of the place to die at; `0` only counts. `op:MODULE.VERB` dies in the middle of the first
/// effect of that op, or of what it is made of: after its first request, before its outcome; of one that tries something out and takes it away itself
/// (it has no intent) at its first wait.
pub const VARIABLE: &str = "GPUHOST_TEST_KILL_AT";

/// Where to die.
enum At {
    Place(u64),
    Inside(String),
}

/// The places passed so far.
pub struct Points {
    passed: AtomicU64,
    at: Option<At>,
    /// Whether an effect of the op to die in has begun.
    inside: AtomicBool,
    /// The ops to die in and those that they are made of; whether each may have no intent.
    ops: Mutex<BTreeMap<u64, bool>>,
}

impl Points {
    /// Counts when the variable is set and this is a debug build.
    #[must_use]
    pub fn from_env() -> Self {
        let given = if cfg!(debug_assertions) { std::env::var(VARIABLE).ok() } else { None };
        let at = given.and_then(|v| match v.strip_prefix("op:") {
            Some(op) => Some(At::Inside(op.to_owned())),
            None => v.parse().ok().map(At::Place),
        });
        Points { passed: AtomicU64::new(0), at, inside: AtomicBool::new(false), ops: Mutex::default() }
    }

    /// How many were passed; `None` when nobody counts.
    #[must_use]
    pub fn passed(&self) -> Option<u64> {
        self.at.as_ref().map(|_| self.passed.load(Ordering::SeqCst))
    }

    /// An event was recorded.
    pub fn recorded(&self, event: &Event) {
        if event.is_durable() {
            self.pass();
        }
        let Some(At::Inside(wanted)) = &self.at else { return };
        let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::OpStarted { id, op, effect, within, .. }
                if op == wanted || within.is_some_and(|w| ops.contains_key(&w)) =>
            {
                ops.insert(*id, op == wanted && *effect == Effect::Run);
            }
            Event::Intent { id, .. } if ops.contains_key(id) => self.inside.store(true, Ordering::SeqCst),
            Event::Waiting { id, .. } if ops.get(id) == Some(&true) => {
                self.inside.store(true, Ordering::SeqCst);
                self.pass();
            }
            _ => {}
        }
    }

    /// Passes a place, or dies at it as `kill -9` would have it.
    pub fn pass(&self) {
        let passed = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        let dies = match &self.at {
            None => false,
            Some(At::Place(at)) => passed == *at,
            Some(At::Inside(_)) => self.inside.load(Ordering::SeqCst),
        };
        if dies {
            std::process::Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().ok();
            // Where there is no such program.
            std::process::abort();
        }
    }
}
