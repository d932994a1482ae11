//! The world of a run's own lab is saved while it works, so that a killed run goes on where it was.
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gpuhost_lab::Lab;
use gpuhost_stdlib::core::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::folder;

/// How often the world is looked at, on this machine's clock.
const LOOK: Duration = Duration::from_secs(2);

/// A save is followed by a pause of so many times its own length.
const PAUSE: u32 = 20;

/// Saves in the background until it is stopped.
pub struct Autosave {
    stop: CancellationToken,
    /// Held while a save is under way.
    writing: Arc<Mutex<bool>>,
}

impl Autosave {
    /// Begins to save `lab` below `dir`.
    #[must_use]
    pub fn start(rt: &tokio::runtime::Handle, lab: Lab, dir: PathBuf) -> Self {
        let (stop, writing) = (CancellationToken::new(), Arc::new(Mutex::new(true)));
        rt.spawn(keep(lab, dir, stop.clone(), writing.clone()));
        Autosave { stop, writing }
    }

    /// Nothing is written any more once this returns.
    pub fn stop(&self) {
        self.stop.cancel();
        *self.writing.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

async fn keep(lab: Lab, dir: PathBuf, stop: CancellationToken, writing: Arc<Mutex<bool>>) {
    let state = |lab: &Lab| lab.with(|w| (w.now_ms, w.seq, w.draws));
    let (mut saved, mut pause) = (state(&lab), LOOK);
    loop {
        tokio::select! { () = stop.cancelled() => return, () = Clock::Real.sleep(pause) => {} }
        let now = state(&lab);
        if now == saved {
            continue;
        }
        let start = crate::when::wall_ms();
        let world = lab.snapshot();
        let (own, to) = (writing.clone(), dir.clone());
        let written = tokio::task::spawn_blocking(move || {
            let may = own.lock().unwrap_or_else(PoisonError::into_inner);
            if *may { folder::save_to(&to, &world) } else { Ok(()) }
        });
        if let Ok(Err(e)) = written.await {
            tracing::warn!("the lab's world could not be saved meanwhile: {e}");
        }
        saved = now;
        let took = Duration::from_millis(crate::when::wall_ms().saturating_sub(start));
        pause = LOOK.max(took * PAUSE);
    }
}
