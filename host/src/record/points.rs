//! Places at which the crash tests kill the process: after every durable journal line, and after every request
//! of an effect. The place before one is the place after the one before it: neither journal nor world differ.
//! Only debug builds look at the variable.
use std::sync::atomic::{AtomicU64, Ordering};

/// Name of the variable: the number of the place to die at; `0` only counts.
pub const VARIABLE: &str = "GPUHOST_TEST_KILL_AT";

/// The places passed so far.
pub struct Points {
    passed: AtomicU64,
    kill_at: Option<u64>,
}

impl Points {
    /// Counts when the variable is set and this is a debug build.
    #[must_use]
    pub fn from_env() -> Self {
        let kill_at =
            if cfg!(debug_assertions) { std::env::var(VARIABLE).ok().and_then(|v| v.parse().ok()) } else { None };
        Points { passed: AtomicU64::new(0), kill_at }
    }

    /// How many were passed; `None` when nobody counts.
    #[must_use]
    pub fn passed(&self) -> Option<u64> {
        self.kill_at.map(|_| self.passed.load(Ordering::SeqCst))
    }

    /// Passes a place, or dies at it as `kill -9` would have it.
    pub fn pass(&self) {
        let Some(at) = self.kill_at else { return };
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 == at {
            std::process::Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().ok();
            // Where there is no such program.
            std::process::abort();
        }
    }
}
