//! A run of its own for tests that use the library directly: nothing is asked, everything is allowed and kept.
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use gpuhost_stdlib::core::clock::Clock;
use gpuhost_stdlib::core::ctx::{Consent, Ctx, Parties, Policy, Run};
use gpuhost_stdlib::core::dialer::{Dialer, Reach, Routes};
use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::core::event::{Change, Event, Recorder};
use gpuhost_stdlib::core::op::Op;
use gpuhost_stdlib::core::units::Secret;

/// Allows everything; answers questions for secrets with the text it was made with.
pub struct Free(pub Option<String>);

impl Policy for Free {
    fn check(&self, _: &Op) -> OpResult<()> {
        Ok(())
    }
    fn check_change(&self, _: &Op, _: &[Change]) -> OpResult<()> {
        Ok(())
    }
}
impl Consent for Free {
    fn confirm(&self, _: &str, _: bool) -> OpResult<bool> {
        Ok(true)
    }
    fn destroy(&self, _: &Op, _: &[Change]) -> OpResult<()> {
        Ok(())
    }
    fn secret(&self, question: &str) -> OpResult<Secret> {
        match &self.0 {
            Some(text) => Ok(Secret::new(text.clone())),
            None => {
                Err(gpuhost_stdlib::core::error::OpError::denied(format!("nobody can be asked for the {question}")))
            }
        }
    }
}

/// Keeps all events.
#[derive(Default)]
pub struct Kept(Mutex<Vec<Event>>);

impl Kept {
    /// The events so far.
    #[must_use]
    pub fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
impl Recorder for Kept {
    fn record(&self, _: u64, event: &Event) -> OpResult<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
        Ok(())
    }
}

/// A run on real time whose state and recipe folder is `dir`; with `routes` as a site's `[connect]` table. The SSH
/// files of the user are those below `home`.
#[must_use]
pub fn ctx(dir: &Path, home: &Path, routes: Routes, answer: Option<&str>) -> (Ctx, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let free = || Arc::new(Free(answer.map(str::to_owned)));
    let by = Parties { policy: free(), consent: free(), recorder: kept.clone() };
    let way = (Clock::Real, Dialer::new(routes, Reach::Direct));
    let run = Run::new(tokio::runtime::Handle::current(), way, dir.to_owned(), by);
    let ctx = Ctx::new(Arc::new(run));
    gpuhost_stdlib::ssh::use_home(&ctx, home);
    (ctx, kept)
}
