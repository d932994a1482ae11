//! Holding the lock for the length of a run: lazily taken, renewed by a heartbeat, fenced before every effect.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::proxmox::{LockNote, Proxmox};
use gpuhost_stdlib::site::Site;
use tokio::task::JoinHandle;

use super::take::{self, Taken};
use super::{BEAT_S, FRESH_MS, LEASE_S};
use crate::runs::machine;

/// Pause after a renewal that got no answer.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Held {
    taken: Taken,
    /// When the lock was last seen to be ours, on the run's clock.
    seen_ms: u64,
    /// Why it is ours no longer.
    lost: Option<String>,
}

struct Inner {
    run: String,
    /// Asynchronous: taking it may wait for a holder's sign of life.
    gate: tokio::sync::Mutex<Option<Proxmox>>,
    held: Mutex<Option<Held>>,
    beat: Mutex<Option<JoinHandle<()>>>,
}

/// The lock of one run.
#[derive(Clone)]
pub struct Hold(Arc<Inner>);

impl Hold {
    /// Nothing is taken yet. `run` is the run's id.
    #[must_use]
    pub fn new(run: impl Into<String>) -> Self {
        Hold(Arc::new(Inner {
            run: run.into(),
            gate: tokio::sync::Mutex::new(None),
            held: Mutex::new(None),
            beat: Mutex::new(None),
        }))
    }

    fn held(&self) -> Option<Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, f: impl FnOnce(&mut Held)) {
        if let Some(h) = self.0.held.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            f(h);
        }
    }

    /// Takes the lock at the first call; sees to it that it is still ours at every later one.
    ///
    /// # Errors
    /// `refused` when another run has it, or has taken it meanwhile.
    pub async fn before_effect(&self, ctx: &Ctx, site: &Site) -> OpResult<()> {
        let now = ctx.clock.now_ms().await;
        self.check(now)?;
        if self.held().is_some_and(|h| is_fresh(h.seen_ms, now)) {
            return Ok(());
        }
        let mut gate = match self.0.gate.try_lock() {
            Ok(g) => g,
            Err(_) => {
                // Another thread takes or reads it, which may take time to pass.
                let lent = ctx.clock.lend();
                let g = self.0.gate.lock().await;
                drop(lent);
                g
            }
        };
        if self.held().is_none() {
            let pve = Proxmox::connect_site(ctx).await?;
            let taken = take::take(ctx, &pve, site, &self.note(site)).await?;
            let seen_ms = ctx.clock.now_ms().await;
            tracing::debug!("lock of {}: generation {}", site.name, taken.generation);
            let held = Held { taken, seen_ms, lost: None };
            *self.0.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
            *self.0.beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.start(ctx, &pve, site));
            *gate = Some(pve);
            return Ok(());
        }
        let now = ctx.clock.now_ms().await;
        self.check(now)?;
        if self.held().is_some_and(|h| is_fresh(h.seen_ms, now)) {
            return Ok(());
        }
        match gate.as_ref() {
            Some(pve) => self.reread(ctx, pve, site).await,
            None => Ok(()),
        }
    }

    fn note(&self, site: &Site) -> LockNote {
        LockNote {
            site: site.uuid.clone(),
            holder: format!("{}@{}", machine::user(), machine::host()),
            process: machine::process(),
            boot: machine::boot(),
            run: self.0.run.clone(),
            ..LockNote::default()
        }
    }

    /// Whether the lock is ours at `now_ms`, as far as is known without asking.
    ///
    /// # Errors
    /// `refused` when the lease has passed or somebody has taken the lock.
    pub fn check(&self, now_ms: u64) -> OpResult<()> {
        let Some(h) = self.held() else { return Ok(()) };
        let late = || {
            let s = now_ms.saturating_sub(h.taken.until_ms) / 1000;
            format!("its lease ended {s} s ago without being renewed: this machine slept, or the hypervisor was away")
        };
        match h.lost.clone().or_else(|| (now_ms > h.taken.until_ms).then(late)) {
            None => Ok(()),
            Some(why) => Err(lost(&why)),
        }
    }

    /// The fence: the generation and its note are still ours, and nobody has made a higher one.
    async fn reread(&self, ctx: &Ctx, pve: &Proxmox, site: &Site) -> OpResult<()> {
        let Some(h) = self.held() else { return Ok(()) };
        let now = ctx.clock.now_ms().await;
        let all = pve.lock_generations(ctx, site).await?;
        let top = all.last();
        let ours = top.is_some_and(|l| {
            l.generation == h.taken.generation && l.note.as_ref().is_some_and(|n| n.is_same_hold(&h.taken.note))
        });
        if ours {
            self.change(|h| h.seen_ms = now);
            return Ok(());
        }
        let why = match top.and_then(|l| l.note.as_ref()) {
            Some(n) => format!("it is held by {} now", super::verdict::describe(n)),
            None => "somebody has removed it".to_owned(),
        };
        self.change(|h| h.lost = Some(why.clone()));
        Err(lost(&why))
    }

    fn start(&self, ctx: &Ctx, pve: &Proxmox, site: &Site) -> JoinHandle<()> {
        let (me, ctx, pve, site) = (self.clone(), ctx.clone(), pve.clone(), site.clone());
        // Time stands until the first timer is armed, and between a renewal and the next timer.
        let mut mark = Some(ctx.clock.busy());
        ctx.rt.clone().spawn(async move {
            let mut pause = Duration::from_secs(BEAT_S);
            loop {
                let renewed;
                (renewed, mark) = ctx.clock.later(pause, mark.take(), me.renew(&ctx, &pve, &site)).await;
                pause = match renewed {
                    Ok(true) => Duration::from_secs(BEAT_S),
                    Ok(false) => return,
                    Err(e) => {
                        tracing::debug!("the lock was not renewed: {e}");
                        AGAIN
                    }
                };
            }
        })
    }

    /// Renews the lease; `false` when the lock is not ours any more.
    async fn renew(&self, ctx: &Ctx, pve: &Proxmox, site: &Site) -> OpResult<bool> {
        let asked_ms = ctx.clock.now_ms().await;
        if self.check(asked_ms).is_err() || self.reread(ctx, pve, site).await.is_err_and(|e| e.stop.is_some()) {
            return Ok(false);
        }
        let Some(h) = self.held() else { return Ok(false) };
        let now = pve.hypervisor_time(ctx, site).await?;
        let note = take::leased(&h.taken.note, now);
        if !pve.renew_lock(ctx, site, h.taken.generation, &note).await? {
            self.change(|h| h.lost = Some("somebody has removed it".to_owned()));
            return Ok(false);
        }
        self.change(|h| {
            h.taken.note = note;
            h.taken.until_ms = asked_ms + LEASE_S * 1000;
            h.seen_ms = asked_ms;
        });
        Ok(true)
    }

    /// Gives the lock back, if it is ours. A failure only means that the lease has to pass.
    pub async fn release(&self, ctx: &Ctx, site: &Site) {
        if let Some(beat) = self.0.beat.lock().unwrap_or_else(PoisonError::into_inner).take() {
            beat.abort();
        }
        let pve = self.0.gate.lock().await.take();
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(pve), Some(h)) = (pve, held) else { return };
        if h.lost.is_some() {
            return;
        }
        let gone = async {
            let all = pve.lock_generations(ctx, site).await?;
            let ours =
                |l: &gpuhost_stdlib::proxmox::Lock| l.note.as_ref().is_some_and(|n| n.is_same_hold(&h.taken.note));
            if all.iter().any(|l| l.generation == h.taken.generation && ours(l)) {
                pve.drop_lock(ctx, site, h.taken.generation).await?;
            }
            Ok::<(), OpError>(())
        };
        if let Err(e) = gone.await {
            ctx.message("warn", format!("the lock of {} could not be given back: {e}", site.name));
        }
    }
}

/// Whether what was seen then still counts now. A clock that went back says nothing: it is looked again.
fn is_fresh(seen_ms: u64, now_ms: u64) -> bool {
    now_ms.checked_sub(seen_ms).is_some_and(|age| age <= FRESH_MS)
}

fn lost(why: &str) -> OpError {
    OpError::refused("this run does not hold the site's lock any more")
        .because(why.to_owned())
        .hint("nothing was done since; run it again: it compares first and continues")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_counts_for_a_moment_and_never_after_a_clock_that_went_back() {
        let now = 1_795_339_800_000;
        assert!(is_fresh(now, now) && is_fresh(now, now + FRESH_MS));
        assert!(!is_fresh(now, now + FRESH_MS + 1) && !is_fresh(now, now - 1));
    }
}
