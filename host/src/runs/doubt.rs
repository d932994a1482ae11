//! Effects in doubt: the latest intent of every op without an outcome. Some are continued, some only a human can decide about.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use gpuhost_stdlib::core::event::Event;
use gpuhost_stdlib::core::op::Op;

use super::tale::{Doubt, Tale};
use super::{shelf, tale};
use crate::record::read::{self, Health};

/// How many journals are looked at; older doubts are history.
const LATEST: usize = 200;

type Key = (String, String, String);

/// Doubts of earlier runs on one site, by op.
#[derive(Debug, Default)]
pub struct Doubts {
    open: Mutex<BTreeMap<Key, (String, Doubt)>>,
    damaged: Option<String>,
}

fn key(op: &Op) -> Key {
    (op.name(), op.target.clone(), op.args.clone())
}

impl Doubts {
    /// Reads them out of the journals of `site` (by its UUID), real or lab.
    #[must_use]
    pub fn of(state_dir: &Path, site: &str, lab: bool) -> Self {
        let mut out = BTreeMap::new();
        let mut damaged = None;
        let all = shelf::all(state_dir);
        for path in all.iter().skip(all.len().saturating_sub(LATEST)) {
            let past = match read::read(path) {
                Ok(past) => past,
                Err(e) => {
                    damaged = Some(format!("{}: {}", shelf::id(path), e.causes.first().unwrap_or(&e.message)));
                    continue;
                }
            };
            let head = past.lines.first().map(|l| &l.raw);
            if head.is_some_and(|h| h["header"]["site_uuid"] != site || h["lab"] != lab) {
                continue;
            }
            let broken = matches!(past.health, Health::Broken { .. });
            damaged = broken.then(|| format!("{}: {}", shelf::id(path), tale::health(&past.health)));
            let told = Tale::of(&past);
            if told.state == tale::State::Running {
                continue;
            }
            // A later intent of the same op has settled the earlier doubt: somebody decided.
            for line in &past.lines {
                if let Some(Event::Intent { op, target, args, .. }) = &line.event {
                    out.remove(&(op.clone(), target.clone(), args.clone()));
                }
            }
            let id = shelf::id(path);
            for d in told.doubts {
                out.insert((d.op.clone(), d.target.clone(), d.args.clone()), (id.clone(), d));
            }
        }
        Doubts { open: Mutex::new(out), damaged }
    }

    /// What is wrong with the journal of the latest run, if it cannot be read to its end: what it left in doubt is not known.
    #[must_use]
    pub fn damaged(&self) -> Option<&str> {
        self.damaged.as_deref()
    }

    /// The doubt about exactly this op, with the run that left it.
    #[must_use]
    pub fn about(&self, op: &Op) -> Option<(String, Doubt)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&key(op)).cloned()
    }

    /// It was decided about, or is continued: there is no doubt any more.
    pub fn settle(&self, op: &Op) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(op));
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
    fn every_op_in_the_table_that_was_begun_is_known_with_its_facts_until_it_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        died(dir.path(), false);
        let doubts = Doubts::of(dir.path(), "u", true);
        for (id, (module, verb, _, class)) in OPS.iter().enumerate() {
            let mut op = Op::run(module, verb, format!("t{id}"));
            op.args = "a".to_owned();
            let (run, d) = doubts.about(&op).unwrap_or_else(|| panic!("{module}.{verb}"));
            let facts = (run.as_str(), d.accepted.as_deref(), d.since.as_str(), d.marker.as_str());
            assert_eq!(facts, ("aaaa", Some("R"), "2026-01-01T00:00:01.000Z", "m"), "{module}.{verb}");
            assert_eq!(json!(d.class), *class, "{module}.{verb}");
            op.args = "b".to_owned();
            assert!(doubts.about(&op).is_none(), "{module}.{verb} with other arguments");
            op.args = "a".to_owned();
            doubts.settle(&op);
            assert!(doubts.about(&op).is_none(), "{module}.{verb} is settled");
        }
        let open = |site: &str, lab: bool| Doubts::of(dir.path(), site, lab).open.into_inner().unwrap().len();
        assert_eq!(open("u", true), OPS.len());
        assert_eq!((open("v", true), open("u", false)), (0, 0), "another site, and the real one");
        died(dir.path(), true);
        assert_eq!(open("u", true), 0, "every outcome is known");
    }

    #[test]
    fn a_journal_that_was_changed_is_told_until_the_next_run_ends_well() {
        let dir = tempfile::tempdir().unwrap();
        let folder = journal::folder(dir.path());
        std::fs::create_dir_all(&folder).unwrap();
        let damaged = || Doubts::of(dir.path(), "u", true).damaged().map(str::to_owned);
        let head = json!({"v": 1, "ts": "t", "event": "run_started", "recipe": "r", "site": "s",
            "header": {"site_uuid": "u"}, "lab": true});
        std::fs::write(folder.join("1-aaaa.ndjson"), format!("{head}\n\u{0}garbage\n{head}\n")).unwrap();
        let said = damaged().unwrap();
        assert!(said.contains("aaaa") && said.contains("line 2"), "{said}");
        std::fs::write(folder.join("2-bbbb.ndjson"), format!("{head}\n")).unwrap();
        assert_eq!(damaged(), None);
        std::fs::write(folder.join("3-cccc.ndjson"), "\u{0}\u{0}\n\n").unwrap();
        assert!(damaged().unwrap().contains("cccc"), "nobody knows whose it is");
    }
}
