//! How often a failure is tried again, by its kind: growing pauses with jitter, a budget per call and per run.
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::ctx::Ctx;
use super::error::{Kind, OpError, OpResult};
use super::event::Event;

/// How patient a call is with one kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Calls at most, the first one included.
    pub tries: u32,
    /// Pause after the first failure; it doubles.
    pub first: Duration,
    /// Longest pause.
    pub most: Duration,
    /// All pauses of one call together.
    pub budget: Duration,
}

/// All pauses of one run together; a site that is down must not keep a run for hours.
pub const RUN_BUDGET: Duration = Duration::from_secs(1800);

impl Patience {
    /// What is worth another try. Refusals, mistakes and outcomes that were waited for are not.
    #[must_use]
    pub const fn with(kind: Kind) -> Option<Patience> {
        match kind {
            Kind::Unreachable => Some(Patience {
                tries: 5,
                first: Duration::from_secs(1),
                most: Duration::from_secs(15),
                budget: Duration::from_secs(60),
            }),
            Kind::Conflict => Some(Patience {
                tries: 4,
                first: Duration::from_millis(500),
                most: Duration::from_secs(5),
                budget: Duration::from_secs(20),
            }),
            Kind::NotFound | Kind::Denied | Kind::Timeout | Kind::Failed | Kind::Invalid => None,
        }
    }

    /// The pause after failure number `n` (from 1) of `what`: doubled, cut, and moved by up to a quarter either
    /// way. The jitter is a function of `what`, so that a run on the same lab waits the same.
    #[must_use]
    pub fn pause(&self, what: &str, n: u32) -> Duration {
        let plain = self.first.saturating_mul(1 << (n - 1).min(16)).min(self.most);
        let sum = Sha256::digest(format!("{what}#{n}"));
        let part = u32::from(u16::from_be_bytes([sum[0], sum[1]]));
        plain * 3 / 4 + plain.mul_f64(f64::from(part) / f64::from(u16::MAX)) / 2
    }
}

/// What a run has spent on further tries: its pauses, and whom they were in vain for.
#[derive(Clone, Default)]
pub struct Spent(Arc<(AtomicU64, Mutex<BTreeSet<String>>)>);

impl Spent {
    fn take(&self, pause: Duration) -> bool {
        let ms = pause.as_millis() as u64;
        self.0.0.fetch_add(ms, Ordering::SeqCst) + ms <= RUN_BUDGET.as_millis() as u64
    }

    /// Whether all tries to reach `target` were in vain, and nothing has been heard of it since.
    fn is_down(&self, target: &str) -> bool {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).contains(target)
    }

    fn heard(&self, target: &str) {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
    }

    fn in_vain(&self, target: &str) {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned());
    }
}

/// The looks of waits that are under way inside one call of a script function.
#[derive(Clone, Default)]
pub struct Waits(Arc<AtomicUsize>);

/// One look; it ends with the value.
pub(super) struct OneLook(Waits);

impl Waits {
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    pub(super) fn begin(&self) -> OneLook {
        self.0.fetch_add(1, Ordering::SeqCst);
        OneLook(self.clone())
    }
}

impl Drop for OneLook {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ctx {
    /// Calls `work` until it succeeds or another try makes no sense (`worth` decides beside the kind). Only for
    /// what may be repeated blindly: reads, and requests whose repetition the other side recognises.
    ///
    /// # Errors
    /// The last failure; it says how often it was tried.
    pub async fn retry<T, E, F, Fut>(
        &self,
        target: &str,
        what: &str,
        worth: impl Fn(&E) -> bool,
        mut work: F,
    ) -> Result<T, E>
    where
        E: Clone + Into<OpError>,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let (mut n, mut waited) = (0, Duration::ZERO);
        loop {
            let e = match work().await {
                Ok(v) => {
                    self.spent.heard(target);
                    return Ok(v);
                }
                Err(e) => e,
            };
            n += 1;
            let seen: OpError = e.clone().into();
            let silent = seen.kind == Kind::Unreachable;
            // Whom all tries were in vain for is asked once each time, until it answers.
            let down = silent && self.spent.is_down(target);
            let again = Patience::with(seen.kind).filter(|p| seen.stop.is_none() && n < p.tries && !down && worth(&e));
            let Some(p) = again else {
                if silent && n > 1 {
                    self.spent.in_vain(target);
                }
                return Err(e);
            };
            let pause = p.pause(&format!("{target} {what}"), n);
            waited += pause;
            if waited > p.budget || !self.spent.take(pause) || self.check_effect().is_err() {
                return Err(e);
            }
            self.say_retry(target, what, n, pause, &seen);
            self.clock.sleep(pause).await;
        }
    }

    /// Says that something is tried again, and why.
    pub(crate) fn say_retry(&self, target: &str, what: &str, attempt: u32, pause: Duration, seen: &OpError) {
        let reason = match seen.causes.first() {
            Some(c) => format!("{what}: {} ({c})", seen.message),
            None => format!("{what}: {}", seen.message),
        };
        let event = Event::Retrying {
            target: target.to_owned(),
            reason,
            kind: seen.kind,
            attempt,
            pause_ms: pause.as_millis() as u64,
        };
        if let Err(e) = self.emit(&event) {
            tracing::warn!("event lost: {e}");
        }
    }

    /// # Errors
    /// `interrupted`, unless an effect of this call is under way and has its grace.
    pub fn check_effect(&self) -> OpResult<()> {
        if self.effects.any() && !self.flight.is_aborted() { Ok(()) } else { self.check_cancelled() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_in_bounds_and_are_reproducible() {
        let p = Patience::with(Kind::Unreachable).unwrap();
        let mut last = Duration::ZERO;
        for n in 1..=3 {
            let d = p.pause("GET /version", n);
            assert_eq!(d, p.pause("GET /version", n));
            let plain = Duration::from_secs(1 << (n - 1));
            assert!(d >= plain * 3 / 4 && d <= plain * 5 / 4, "{d:?} of {plain:?}");
            assert!(d > last);
            last = d;
        }
        assert!(p.pause("x", 60) <= p.most * 5 / 4);
        assert_ne!(p.pause("a", 1), p.pause("b", 1), "two callers do not march in step");
        for k in [Kind::Denied, Kind::Invalid, Kind::Failed, Kind::NotFound, Kind::Timeout] {
            assert!(Patience::with(k).is_none(), "{k}");
        }
    }

    #[test]
    fn a_run_has_one_budget() {
        let spent = Spent::default();
        assert!(spent.take(RUN_BUDGET));
        assert!(!spent.take(Duration::from_secs(1)));
        spent.in_vain("a");
        assert!(spent.is_down("a") && !spent.is_down("b"));
        spent.heard("a");
        assert!(!spent.is_down("a"));
    }
}
