//! What determines how long a run takes: the longest chain of ops each of which had to wait for the one before.
use std::collections::BTreeMap;

use gpuhost_stdlib::core::event::Event;
use gpuhost_stdlib::core::op::QUEUED;

use crate::record::read::Past;

/// Shorter parts are not worth a line.
const SHORTEST_MS: u64 = 1000;

/// One op, in milliseconds of the run's clock.
#[derive(Debug, Clone, Default)]
struct Node {
    step: String,
    target: String,
    start: u64,
    end: u64,
    /// How long it waited for a place in a queue of ours.
    queued: u64,
    /// Since when it does.
    waits_since: Option<u64>,
    after: Vec<u64>,
    within: Option<u64>,
}

impl Node {
    fn ms(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    fn stop_waiting(&mut self, at: u64) {
        if let Some(since) = self.waits_since.take() {
            self.queued += at.saturating_sub(since);
        }
    }
}

/// How the ops of a run lay in time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schedule {
    /// From the run's beginning to its end.
    pub makespan_ms: u64,
    /// The critical path: the longest chain of ops each of which had to wait for the one before.
    pub critical_ms: u64,
    /// The longest chain if no op had ever waited for a place in a queue of ours.
    pub unlimited_ms: u64,
    /// All ops, one after the other.
    pub work_ms: u64,
    /// The chain: step, target and milliseconds.
    pub chain: Vec<(String, String, u64)>,
}

impl Schedule {
    /// Reads it out of a journal.
    #[must_use]
    pub fn of(past: &Past) -> Self {
        let (mut open, mut done) = (BTreeMap::new(), BTreeMap::new());
        let (mut first, mut last) = (None, 0);
        for line in &past.lines {
            let at = crate::when::parse(&line.ts).unwrap_or(0);
            first = first.or(Some(at));
            last = at;
            match &line.event {
                Some(Event::OpStarted { id, target, step, after, within, .. }) => {
                    let (step, target, after) = (step.join(" / "), target.clone(), after.clone());
                    open.insert(*id, Node { step, target, start: at, after, within: *within, ..Node::default() });
                }
                Some(Event::Waiting { id, reason, .. }) => {
                    let Some(n) = open.get_mut(id) else { continue };
                    n.stop_waiting(at);
                    n.waits_since = reason.starts_with(QUEUED).then_some(at);
                }
                Some(Event::Intent { id, .. } | Event::Accepted { id, .. }) => {
                    if let Some(n) = open.get_mut(id) {
                        n.stop_waiting(at);
                    }
                }
                Some(Event::OpFinished { id, .. }) => {
                    let Some(mut n) = open.remove(id) else { continue };
                    n.stop_waiting(at);
                    n.end = at;
                    done.insert(*id, n);
                }
                _ => {}
            }
        }
        let ops = outermost(&done);
        let chain = longest(&ops, Node::ms);
        let sum =
            |ids: &[u64], f: &dyn Fn(&Node) -> u64| -> u64 { ids.iter().filter_map(|id| ops.get(id)).map(f).sum() };
        let free = |n: &Node| n.ms().saturating_sub(n.queued);
        Schedule {
            makespan_ms: last.saturating_sub(first.unwrap_or(0)),
            critical_ms: sum(&chain, &Node::ms),
            unlimited_ms: sum(&longest(&ops, free), &free),
            work_ms: ops.values().map(Node::ms).sum(),
            chain: parts(&chain, &ops),
        }
    }

    /// How many ops were under way at the same time, on average.
    #[must_use]
    pub fn overlap(&self) -> f64 {
        self.work_ms as f64 / self.makespan_ms.max(1) as f64
    }

    /// The chain's parts that are worth a line, with seconds.
    #[must_use]
    pub fn path(&self) -> Vec<(String, String, f64)> {
        let long = self.chain.iter().filter(|(_, _, ms)| *ms >= SHORTEST_MS);
        long.map(|(step, target, ms)| (step.clone(), target.clone(), *ms as f64 / 1000.0)).collect()
    }
}

/// Ops that are no part of another one.
fn outermost(all: &BTreeMap<u64, Node>) -> BTreeMap<u64, Node> {
    let inside = |n: &Node| {
        let outer = n.within.and_then(|id| all.get(&id));
        outer.is_some_and(|o| o.start <= n.start && n.end <= o.end)
    };
    all.iter().filter(|(_, n)| !inside(n)).map(|(id, n)| (*id, n.clone())).collect()
}

/// The longest chain, in order.
fn longest(ops: &BTreeMap<u64, Node>, weight: impl Fn(&Node) -> u64) -> Vec<u64> {
    let mut best: BTreeMap<u64, (u64, Option<u64>)> = BTreeMap::new();
    let mut order: Vec<(&u64, &Node)> = ops.iter().collect();
    order.sort_by_key(|(id, n)| (n.start, n.end, **id));
    for (id, n) in order {
        // Ops of one call may overlap; what had not ended was not waited for.
        let before = n.after.iter().filter(|p| ops.get(*p).is_some_and(|p| p.end <= n.start));
        let longest = before.filter_map(|p| Some((best.get(p)?.0, *p))).max();
        let (ms, from) = longest.map_or((0, None), |(ms, p)| (ms, Some(p)));
        best.insert(*id, (ms + weight(n), from));
    }
    let mut at = best.iter().max_by_key(|(_, (ms, _))| *ms).map(|(id, _)| *id);
    let mut out = Vec::new();
    while let Some(id) = at {
        out.push(id);
        at = best.get(&id).and_then(|(_, from)| *from);
    }
    out.reverse();
    out
}

/// The chain with neighbours of one step and target as one part.
fn parts(chain: &[u64], ops: &BTreeMap<u64, Node>) -> Vec<(String, String, u64)> {
    let mut out: Vec<(String, String, u64)> = Vec::new();
    for n in chain.iter().filter_map(|id| ops.get(id)) {
        match out.last_mut().filter(|(step, target, _)| *step == n.step && *target == n.target) {
            Some(same) => same.2 += n.ms(),
            None => out.push((n.step.clone(), n.target.clone(), n.ms())),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::record::read::{Health, Line};

    fn line(second: u64, body: Value) -> Line {
        let mut raw = json!({"v": 1, "ts": crate::when::iso(second * 1000)});
        for (k, v) in body.as_object().unwrap() {
            raw[k] = v.clone();
        }
        Line { ts: crate::when::iso(second * 1000), event: serde_json::from_value(raw.clone()).ok(), raw }
    }

    /// An op: id, target, start, end, after, within.
    type Row<'a> = (u64, &'a str, u64, u64, &'a [u64], Option<u64>);

    fn past(ops: &[Row<'_>], more: Vec<Line>) -> Past {
        let mut lines = Vec::new();
        for (id, target, start, end, after, within) in ops {
            lines.push(line(
                *start,
                json!({"event": "op_started", "id": id, "op": "m.v", "target": target, "effect": "write",
                    "class": "repeatable", "args": "", "step": ["s"], "after": after, "within": within}),
            ));
            lines.push(line(
                *end,
                json!({"event": "op_finished", "id": id, "op": "m.v", "target": target, "status": "ok", "changes": [],
                    "ms": 0}),
            ));
        }
        // Of one moment: what began, before what it waits for.
        lines.extend(more);
        lines.sort_by(|a, b| a.ts.cmp(&b.ts));
        assert!(lines.iter().all(|l| l.event.is_some()));
        Past { path: "p".into(), lines, health: Health::Whole }
    }

    #[test]
    fn the_chain_follows_what_had_to_wait() {
        // A template, two machines beside each other, the second with a part; then one server after the other.
        let s = Schedule::of(&past(
            &[
                (1, "t", 0, 10, &[], None),
                (2, "a", 10, 20, &[1], None),
                (3, "b", 10, 40, &[1], None),
                (4, "b", 12, 30, &[1], Some(3)),
                (5, "x", 41, 60, &[2, 3], None),
                (6, "y", 60, 70, &[5], None),
            ],
            Vec::new(),
        ));
        let names: Vec<&str> = s.chain.iter().map(|(_, t, _)| t.as_str()).collect();
        assert_eq!(names, ["t", "b", "x", "y"]);
        assert_eq!((s.makespan_ms, s.critical_ms, s.work_ms), (70_000, 69_000, 79_000));
        assert_eq!(s.unlimited_ms, s.critical_ms, "nothing was queued");
    }

    #[test]
    fn a_wait_for_a_place_is_the_limits() {
        let wait =
            |at: u64, reason: &str| line(at, json!({"event": "waiting", "id": 2, "target": "b", "reason": reason}));
        let s = Schedule::of(&past(
            &[(1, "a", 0, 30, &[], None), (2, "b", 0, 70, &[], None)],
            vec![wait(0, "a place in the clone queue: 1 clones"), wait(30, "the clone: running")],
        ));
        assert_eq!((s.critical_ms, s.unlimited_ms), (70_000, 40_000));
        assert!((s.overlap() - 100.0 / 70.0).abs() < 1e-9, "{}", s.overlap());
    }
}
