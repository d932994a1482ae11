//! Progress as a moving tree: open steps, and below each what its ops wait for.
use std::collections::BTreeMap;
use std::time::Duration;

use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::core::event::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::plain::Plain;
use crate::record::Sink;
use crate::screen::Paint;

/// More running ops than this are only counted.
const SHOWN: usize = 10;

struct OpLine {
    step: Vec<String>,
    text: String,
    bar: Option<ProgressBar>,
}

/// The tree. Finished things become plain lines above it.
pub struct Tree {
    lines: Plain,
    bars: MultiProgress,
    paint: Paint,
    steps: Vec<(Vec<String>, ProgressBar)>,
    ops: BTreeMap<u64, OpLine>,
}

impl Tree {
    /// A tree that leaves `lines` behind.
    #[must_use]
    pub fn new(lines: Plain, bars: MultiProgress, paint: Paint) -> Self {
        Tree { lines, bars, paint, steps: Vec::new(), ops: BTreeMap::new() }
    }

    fn spinner(template: &str) -> ProgressStyle {
        ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
            .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
    }

    fn step_started(&mut self, path: &[String]) {
        let bar = ProgressBar::new_spinner();
        let bar = match self.ops.values().rev().find_map(|o| o.bar.clone()) {
            Some(last) => self.bars.insert_after(&last, bar),
            None => self.bars.add(bar),
        };
        bar.set_style(Self::spinner("{spinner:.cyan} {wide_msg}"));
        let indent = "  ".repeat(path.len().saturating_sub(1));
        bar.set_message(format!("{indent}{}", self.paint.bold(path.last().map_or("", String::as_str))));
        bar.enable_steady_tick(Duration::from_millis(120));
        self.steps.push((path.to_vec(), bar));
    }

    fn step_finished(&mut self, path: &[String]) {
        if let Some(i) = self.steps.iter().rposition(|(p, _)| p == path) {
            let (_, bar) = self.steps.remove(i);
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn op_started(&mut self, id: u64, step: &[String], text: String) {
        let shown = self.ops.values().filter(|o| o.bar.is_some()).count();
        let bar = (shown < SHOWN).then(|| {
            let bar = ProgressBar::new_spinner();
            let parent = self.steps.iter().find(|(p, _)| p == step).map(|(_, b)| b.clone());
            let last = self.ops.values().filter(|o| o.step == step).filter_map(|o| o.bar.clone()).next_back();
            let bar = match last.or(parent) {
                Some(after) => self.bars.insert_after(&after, bar),
                None => self.bars.add(bar),
            };
            bar.set_style(Self::spinner("  {wide_msg}"));
            bar.set_message(format!("{}{}", "  ".repeat(step.len()), self.paint.dim(&text)));
            bar
        });
        self.ops.insert(id, OpLine { step: step.to_vec(), text, bar });
    }

    fn waiting(&self, id: u64, reason: &str) {
        let Some(op) = self.ops.get(&id) else { return };
        if let Some(bar) = &op.bar {
            let indent = "  ".repeat(op.step.len());
            bar.set_message(format!("{indent}{}: {}", op.text, self.paint.dim(reason)));
        }
    }

    fn op_finished(&mut self, id: u64) {
        if let Some(bar) = self.ops.remove(&id).and_then(|o| o.bar) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }
}

impl Sink for Tree {
    fn take(&mut self, _ts_ms: u64, event: &Event, _line: &str) -> OpResult<()> {
        match event {
            Event::StepStarted { path } => self.step_started(path),
            Event::StepFinished { path, .. } => {
                self.step_finished(path);
                self.lines.show(event);
            }
            Event::OpStarted { id, op, target, step, .. } => {
                self.op_started(*id, step, format!("{target} {op}"));
            }
            Event::Waiting { id, reason, .. } => self.waiting(*id, reason),
            Event::OpFinished { id, .. } => {
                self.op_finished(*id);
                self.lines.show(event);
            }
            Event::RunFinished(_) => {
                self.bars.clear().ok();
            }
            other => self.lines.show(other),
        }
        Ok(())
    }
}
