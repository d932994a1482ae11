//! Effects in doubt that only a human can decide about: the latest intent of every op without an outcome.
use std::collections::BTreeMap;
use std::path::Path;

use gpuhost_stdlib::core::event::{Class, Event};
use gpuhost_stdlib::core::op::Op;

use super::tale::{Doubt, Tale};
use super::{shelf, tale};
use crate::record::read;

/// How many journals are looked at; older doubts are history.
const LATEST: usize = 200;

type Key = (String, String, String);

/// Doubts of earlier runs on one site, by op.
#[derive(Debug, Default)]
pub struct Doubts(BTreeMap<Key, (String, Doubt)>);

impl Doubts {
    /// Reads them out of the journals of `site` (by its UUID), real or lab.
    #[must_use]
    pub fn of(state_dir: &Path, site: &str, lab: bool) -> Self {
        let mut out = Doubts::default();
        let all = shelf::all(state_dir);
        for path in all.iter().skip(all.len().saturating_sub(LATEST)) {
            let Ok(past) = read::read(path) else { continue };
            let head = past.lines.first().map(|l| &l.raw);
            if head.is_none_or(|h| h["header"]["site_uuid"] != site || h["lab"] != lab) {
                continue;
            }
            let told = Tale::of(&past);
            if told.state == tale::State::Running {
                continue;
            }
            // A later intent of the same op has settled the earlier doubt: somebody decided.
            for line in &past.lines {
                if let Some(Event::Intent { op, target, args, .. }) = &line.event {
                    out.0.remove(&(op.clone(), target.clone(), args.clone()));
                }
            }
            let id = shelf::id(path);
            for d in told.doubts.into_iter().filter(|d| d.class == Class::Ask) {
                out.0.insert((d.op.clone(), d.target.clone(), d.args.clone()), (id.clone(), d));
            }
        }
        out
    }

    /// The doubt about exactly this op, with the run that left it.
    #[must_use]
    pub fn about(&self, op: &Op) -> Option<&(String, Doubt)> {
        self.0.get(&(op.name(), op.target.clone(), op.args.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;

    use super::super::classes::OPS;
    use super::*;
    use crate::record::journal;

    /// A journal of a run that died in the middle of one effect of every op of the table.
    fn died(dir: &Path, outcome: bool) {
        let head = json!({"v": 1, "ts": "2026-01-01T00:00:00.000Z", "event": "run_started", "recipe": "r", "site": "s",
            "header": {"site_uuid": "u"}, "lab": true});
        let mut text = format!("{head}\n");
        for (id, (module, verb, effect, class)) in OPS.iter().enumerate() {
            let op = format!("{module}.{verb}");
            let common = json!({"v": 1, "ts": "2026-01-01T00:00:01.000Z", "id": id, "op": op, "target": format!("t{id}"), "lab": true});
            let line = |more: serde_json::Value| {
                let mut out = common.clone();
                for (k, v) in more.as_object().into_iter().flatten() {
                    out[k] = v.clone();
                }
                out
            };
            let started = json!({"event": "op_started", "effect": effect, "class": class, "args": "a", "step": []});
            writeln!(text, "{}", line(started)).unwrap();
            writeln!(text, "{}", line(json!({"event": "intent", "marker": "m", "args": "a", "changes": []}))).unwrap();
            writeln!(text, "{}", line(json!({"event": "accepted", "reference": "R"}))).unwrap();
            if outcome {
                let end = json!({"event": "op_finished", "status": "ok", "changes": [], "ms": 1, "error": null});
                writeln!(text, "{}", line(end)).unwrap();
            }
        }
        let folder = journal::folder(dir);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("20260101T000000Z-aaaa.ndjson"), text).unwrap();
    }

    #[test]
    fn of_every_op_in_the_table_exactly_those_of_class_ask_are_asked_about() {
        let dir = tempfile::tempdir().unwrap();
        died(dir.path(), false);
        let doubts = Doubts::of(dir.path(), "u", true);
        for (id, (module, verb, _, class)) in OPS.iter().enumerate() {
            let mut op = Op::run(module, verb, format!("t{id}"));
            op.args = "a".to_owned();
            let about = doubts.about(&op);
            assert_eq!(about.is_some(), *class == "ask", "{module}.{verb} is {class}");
            if let Some((run, d)) = about {
                let facts = (run.as_str(), d.accepted.as_deref(), d.since.as_str());
                assert_eq!(facts, ("aaaa", Some("R"), "2026-01-01T00:00:01.000Z"), "{module}.{verb}");
            }
            op.args = "b".to_owned();
            assert!(doubts.about(&op).is_none(), "{module}.{verb} with other arguments");
        }
        assert!(Doubts::of(dir.path(), "v", true).0.is_empty(), "another site");
        assert!(Doubts::of(dir.path(), "u", false).0.is_empty(), "the real one");
        died(dir.path(), true);
        assert!(Doubts::of(dir.path(), "u", true).0.is_empty(), "every outcome is known");
    }
}
