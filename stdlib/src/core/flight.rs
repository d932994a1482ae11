//! Effects that are under way: what an interruption waits for before it gives up.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Inner {
    hard: CancellationToken,
    list: Mutex<(u64, BTreeMap<u64, String>)>,
    left: Mutex<BTreeMap<String, String>>,
}

/// All effects of a run that are under way, and the token that ends even them.
#[derive(Clone, Default)]
pub struct Flight(Arc<Inner>);

impl Flight {
    /// Names of what is under way.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner).1.values().cloned().collect()
    }

    /// Ends what is under way, too: the grace after an interruption is over, or nobody answers any more.
    pub fn abort(&self) {
        self.0.hard.cancel();
    }

    /// Whether even effects must end.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.0.hard.is_cancelled()
    }

    /// Notes something that stays behind if the run ends now, and the command that takes it away.
    pub fn leaves(&self, what: &str, next: &str) {
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned(), next.to_owned());
    }

    /// What was noted with [`Flight::leaves`] is gone.
    pub fn took_away(&self, what: &str) {
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }

    /// What stays behind, each with the command that takes it away.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let left = self.0.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.iter().map(|(what, next)| format!("{what} is left behind; to remove it: {next}")).collect()
    }

    fn add(&self, what: String) -> u64 {
        let mut list = self.0.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.0 += 1;
        let id = list.0;
        list.1.insert(id, what);
        id
    }

    fn remove(&self, id: u64) {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&id);
    }
}

/// The effects under way inside one call of a script function.
#[derive(Clone, Default)]
pub struct Effects(Arc<(AtomicUsize, Notify)>);

impl Effects {
    /// Whether one is under way.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.0.load(Ordering::SeqCst) > 0
    }

    /// Begins one; it ends when the guard is dropped.
    #[must_use]
    pub fn begin(&self, flight: &Flight, what: String) -> Begun {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        Begun { effects: self.clone(), flight: flight.clone(), id: flight.add(what) }
    }

    /// Resolves once `soft` is cancelled and no effect is under way any more, or the flight was aborted.
    pub async fn landed(&self, soft: &CancellationToken, flight: &Flight) {
        soft.cancelled().await;
        loop {
            let ended = self.0.1.notified();
            if !self.any() || flight.is_aborted() {
                return;
            }
            tokio::select! { () = ended => {}, () = flight.0.hard.cancelled() => return }
        }
    }
}

/// An effect under way.
pub struct Begun {
    effects: Effects,
    flight: Flight,
    id: u64,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.flight.remove(self.id);
        self.effects.0.0.fetch_sub(1, Ordering::SeqCst);
        self.effects.0.1.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interruption_waits_for_the_effect_and_only_for_it() {
        let (flight, effects, soft) = (Flight::default(), Effects::default(), CancellationToken::new());
        let begun = effects.begin(&flight, "clone of a".to_owned());
        soft.cancel();
        assert_eq!(flight.list(), ["clone of a"]);
        let landed = effects.landed(&soft, &flight);
        tokio::pin!(landed);
        assert!(futures::poll!(&mut landed).is_pending(), "the effect is under way");
        drop(begun);
        landed.await;
        assert!(flight.list().is_empty());
        let _stuck = effects.begin(&flight, "stuck".to_owned());
        flight.abort();
        effects.landed(&soft, &flight).await;
    }
}
