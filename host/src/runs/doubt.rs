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
