//! Places at which the crash tests kill the process: after every durable journal line, and after every request
//! of an effect. The place before one is the place after the one before it: neither journal nor world differ.
//! Only debug builds look at the variable.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gpuhost_stdlib::core::event::Event;

/// Name of the variable: the number of the place to die at; `0` only counts. `op:MODULE.VERB` dies in the middle of the first
/// effect of that op: after its first request, before its outcome.
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
        Points { passed: AtomicU64::new(0), at, inside: AtomicBool::new(false) }
    }

    /// How many were passed; `None` when nobody counts.
    #[must_use]
    pub fn passed(&self) -> Option<u64> {
        self.at.as_ref().map(|_| self.passed.load(Ordering::SeqCst))
    }

    /// A durable event was recorded.
    pub fn recorded(&self, event: &Event) {
        self.pass();
        if let (Event::Intent { op, .. }, Some(At::Inside(wanted))) = (event, &self.at)
            && op == wanted
        {
            self.inside.store(true, Ordering::SeqCst);
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
