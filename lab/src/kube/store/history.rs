//! What a store remembers of its changes: per resource a window like the API server's watch cache, and five minutes of
//! history behind it like etcd's before it is compacted; for the lab's own controllers the last changes of all kinds.
//! Grade: source (the watch cache and the compactor of k8s.io/apiserver).
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Change;

/// Changes kept for the controllers.
const RECENT: usize = 16_384;
/// Least and most events of a window.
const CAPACITY: (usize, usize) = (100, 102_400);
/// Events younger than this are not given up: a full window doubles (request timeout and fifteen seconds).
const FRESH_MS: u64 = 75_000;
/// How long lists of the past stay possible.
const COMPACTED_MS: u64 = 300_000;

/// The changes of one resource.
#[derive(Debug, Clone)]
struct Window {
    /// Changes with the time they happened at, oldest first.
    changes: VecDeque<(u64, Change)>,
    /// How many of them watches can still get.
    capacity: usize,
    /// resourceVersion of the newest change that is no longer here.
    compacted: u64,
}

impl Window {
    fn new(compacted: u64) -> Window {
        Window { changes: VecDeque::new(), capacity: CAPACITY.0, compacted }
    }

    /// Age of the `n`th change from the end.
    fn age(&self, n: usize, now_ms: u64) -> u64 {
        let i = self.changes.len().checked_sub(n);
        i.and_then(|i| self.changes.get(i)).map_or(0, |(at, _)| now_ms.saturating_sub(*at))
    }

    fn push(&mut self, now_ms: u64, change: Change) {
        if self.changes.len() >= self.capacity {
            if self.age(self.capacity, now_ms) < FRESH_MS {
                self.capacity = (self.capacity * 2).min(CAPACITY.1);
            } else if self.age(self.capacity / 4, now_ms) > FRESH_MS {
                self.capacity = (self.capacity / 2).max(CAPACITY.0);
            }
        }
        self.changes.push_back((now_ms, change));
        while self.changes.len() > self.capacity
            && (self.changes.len() > CAPACITY.1 || self.age(self.changes.len(), now_ms) > COMPACTED_MS)
        {
            let Some((_, old)) = self.changes.pop_front() else { return };
            self.compacted = old.rv;
        }
    }

    /// resourceVersion of the newest change that watches no longer get.
    fn forgotten(&self) -> u64 {
        let before = self.changes.len().checked_sub(self.capacity + 1);
        before.and_then(|i| self.changes.get(i)).map_or(self.compacted, |(_, c)| c.rv)
    }

    fn after(&self, rv: u64) -> impl Iterator<Item = &Change> {
        self.changes.range(self.changes.partition_point(|(_, c)| c.rv <= rv)..).map(|(_, c)| c)
    }
}

/// All changes that are remembered.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    recent: VecDeque<Change>,
    /// resourceVersion of the newest change that is not among the recent ones.
    past: u64,
    windows: BTreeMap<Arc<str>, Window>,
    /// resourceVersion that the server began with.
    start: u64,
}

impl History {
    /// That of a server which starts on objects up to `rv`.
    pub(super) fn starting(rv: u64) -> History {
        History { past: rv, start: rv, ..History::default() }
    }

    /// Notes a change.
    pub(super) fn push(&mut self, now_ms: u64, change: Change) {
        let start = self.start;
        let window = self.windows.entry(change.resource.clone()).or_insert_with(|| Window::new(start));
        window.push(now_ms, change.clone());
        self.recent.push_back(change);
        if self.recent.len() > RECENT
            && let Some(old) = self.recent.pop_front()
        {
            self.past = old.rv;
        }
    }

    /// Changes of all kinds after `rv`, for the controllers; `None` when some are forgotten.
    pub(super) fn recent(&self, rv: u64) -> Option<impl Iterator<Item = &Change>> {
        (rv >= self.past).then(|| self.recent.range(self.recent.partition_point(|c| c.rv <= rv)..))
    }

    /// Changes of a resource after `rv` for a watch, or the oldest resourceVersion that a watch can begin with.
    pub(super) fn watched(&self, resource: &str, rv: u64) -> Result<impl Iterator<Item = &Change>, u64> {
        let window = self.windows.get(resource);
        let oldest = window.map_or(self.start, Window::forgotten);
        if rv < oldest { Err(oldest) } else { Ok(window.into_iter().flat_map(move |w| w.after(rv))) }
    }

    /// Changes of a resource after `rv` for a list of the past; `None` when that is compacted.
    pub(super) fn kept(&self, resource: &str, rv: u64) -> Option<impl Iterator<Item = &Change>> {
        let window = self.windows.get(resource);
        let compacted = window.map_or(self.start, |w| w.compacted);
        (rv >= compacted).then(|| window.into_iter().flat_map(move |w| w.after(rv)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::Op;
    use super::*;

    fn change(rv: u64, resource: &str) -> Change {
        Change { rv, op: Op::Added, resource: resource.into(), object: Arc::new(Value::Null), before: None }
    }

    /// `count` changes of pods, one every `each` milliseconds; the history and the time.
    fn filled(count: u64, each: u64) -> (History, u64) {
        let mut h = History::default();
        for i in 1..=count {
            h.push(i * each, change(i, "pods"));
        }
        (h, count * each)
    }

    #[test]
    fn a_burst_is_kept_and_a_slow_stream_is_cut() {
        // 10,000 changes within a minute: a watch from before them gets them all
        let (h, _) = filled(10_000, 6);
        assert_eq!(h.watched("pods", 0).ok().map(Iterator::count), Some(10_000));
        // one a second: the window holds the fresh ones and answers 410 from before them
        let (h, now) = filled(1_000, 1_000);
        let oldest = h.watched("pods", 0).err().unwrap();
        assert_eq!(oldest, 900);
        assert_eq!(h.watched("pods", oldest).ok().map(Iterator::count), Some(usize::try_from(1_000 - oldest).unwrap()));
        // a list of the past goes back five minutes
        assert!(h.kept("pods", (now - COMPACTED_MS) / 1_000).is_some() && h.kept("pods", 500).is_none());
    }

    #[test]
    fn a_quiet_resource_keeps_its_few_changes() {
        let mut h = History::starting(7);
        h.push(0, change(8, "configmaps"));
        for rv in 9..40_000 {
            h.push(rv * 100, change(rv, "leases"));
        }
        assert_eq!(h.watched("configmaps", 7).ok().map(Iterator::count), Some(1));
        assert_eq!(h.watched("secrets", 7).ok().map(Iterator::count), Some(0));
        // from before the server started nothing is known
        assert_eq!(h.watched("configmaps", 3).err(), Some(7));
        assert_eq!(h.watched("secrets", 3).err(), Some(7));
        assert!(h.recent(8).is_none() && h.recent(39_998).is_some_and(|l| l.count() == 1));
    }
}
