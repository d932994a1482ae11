//! What determines how long a run takes: in every step the target whose ops end last.
use std::collections::BTreeMap;

use gpuhost_stdlib::core::event::Event;

use crate::record::read::Past;

/// Shorter parts are not worth a line.
const SHORTEST_MS: u64 = 1000;

/// From and to, in milliseconds.
type Spans = Vec<(u64, u64)>;

struct Op {
    step: Vec<String>,
    target: String,
    start: u64,
}

/// The critical path: step, target and seconds, in the order of the run.
pub fn critical(past: &Past) -> Vec<(String, String, f64)> {
    let mut open: BTreeMap<u64, Op> = BTreeMap::new();
    // By step: for every target its busy spans.
    let mut order: Vec<Vec<String>> = Vec::new();
    let mut spans: BTreeMap<(Vec<String>, String), Spans> = BTreeMap::new();
    for line in &past.lines {
        let at = crate::when::parse(&line.ts).unwrap_or(0);
        match &line.event {
            Some(Event::OpStarted { id, target, step, .. }) => {
                open.insert(*id, Op { step: step.clone(), target: target.clone(), start: at });
            }
            Some(Event::OpFinished { id, .. }) => {
                let Some(op) = open.remove(id) else { continue };
                if !order.contains(&op.step) {
                    order.push(op.step.clone());
                }
                spans.entry((op.step, op.target)).or_default().push((op.start, at));
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    for step in order {
        let of_step = spans.iter().filter(|((s, _), _)| *s == step);
        let longest = of_step.map(|((_, t), list)| (t, busy(list))).max_by_key(|(_, ms)| *ms);
        if let Some((target, ms)) = longest.filter(|(_, ms)| *ms >= SHORTEST_MS) {
            out.push((step.join(" / "), target.clone(), ms as f64 / 1000.0));
        }
    }
    out
}

/// Length of the union of spans: ops nest.
fn busy(list: &[(u64, u64)]) -> u64 {
    let mut list = list.to_vec();
    list.sort_unstable();
    let (mut total, mut end) = (0, 0);
    for (from, to) in list {
        let from = from.max(end);
        if to > from {
            total += to - from;
            end = to;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::busy;

    #[test]
    fn nested_spans_count_once() {
        assert_eq!(busy(&[(0, 10), (2, 5), (12, 15)]), 13);
        assert_eq!(busy(&[]), 0);
    }
}
