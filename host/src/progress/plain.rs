//! Progress as plain lines: for pipes, logs and dumb terminals; also the lines that a tree leaves behind.
use std::sync::Arc;

use gpuhost_stdlib::core::error::OpResult;
use gpuhost_stdlib::core::event::{Effect, Event, Status};

use super::words;
use crate::record::Sink;
use crate::screen::{Paint, Screen};

/// Prints lines as things happen.
pub struct Plain {
    screen: Arc<Screen>,
    paint: Paint,
    lab: bool,
    verbose: bool,
}

impl Plain {
    /// A view on `screen`.
    #[must_use]
    pub fn new(screen: Arc<Screen>, lab: bool, verbose: bool) -> Self {
        let paint = screen.paint();
        Plain { screen, paint, lab, verbose }
    }

    fn tag(&self) -> String {
        if self.lab { format!("{} ", self.paint.yellow("[LAB]")) } else { String::new() }
    }

    fn line(&self, depth: usize, text: &str) {
        self.screen.err(&format!("{}{}{text}", self.tag(), "  ".repeat(depth)));
    }

    fn op_finished(&self, op: &str, target: &str, status: Status, event: &Event) {
        let Event::OpFinished { changes, ms, .. } = event else { return };
        let p = self.paint;
        if status != Status::Ok {
            self.line(2, &format!("{} {op} {target}", words::mark(status, p)));
        } else if !changes.is_empty() {
            let took = p.dim(&format!("({})", crate::when::span(*ms)));
            self.line(2, &format!("{} {op} {target}: {} {took}", p.green("changed"), words::changes(changes)));
        } else if self.verbose {
            self.line(2, &p.dim(&format!("same    {op} {target}")));
        }
    }

    /// Prints what an event leaves behind; waits and starts of ops leave nothing.
    pub fn show(&self, event: &Event) {
        let p = self.paint;
        match event {
            Event::RunStarted { recipe, site, .. } => {
                let on = if site.is_empty() { String::new() } else { format!(" on {}", p.bold(site)) };
                self.line(0, &format!("{}{on}", p.bold(recipe)));
            }
            Event::StepStarted { path } => {
                let name = path.last().map_or("", String::as_str);
                self.line(path.len().saturating_sub(1), &format!("{} {name}", p.blue("step")));
            }
            Event::StepFinished { path, status, changed, ms } => {
                let name = path.last().map_or("", String::as_str);
                let end = format!("{}, {}", words::count(*changed), crate::when::span(*ms));
                let mark = words::mark(*status, p);
                self.line(path.len().saturating_sub(1), &format!("{mark}   {name} {}", p.dim(&format!("({end})"))));
            }
            Event::OpFinished { op, target, status, .. } => self.op_finished(op, target, *status, event),
            Event::OpStarted { op, target, effect, .. } if self.verbose && *effect != Effect::Read => {
                self.line(2, &p.dim(&format!("start   {op} {target}")));
            }
            Event::Waiting { target, reason, .. } if self.verbose => {
                self.line(2, &p.dim(&format!("wait    {target}: {reason}")));
            }
            Event::Output { target, text, .. } if self.verbose => {
                for l in text.lines() {
                    self.line(2, &format!("{target}: {l}"));
                }
            }
            // A recipe's own words are shown as they are, but for the next thing to type.
            Event::Message { level, text } if level == "print" => {
                let next = ["Next: ", ": gpuhost "].into_iter().filter_map(|mark| text.find(mark)).min();
                let (before, next) = text.split_at(next.unwrap_or(text.len()));
                self.screen.out(&format!("{before}{}", self.screen.led(next)));
            }
            Event::Message { level, text } if level == "warn" => {
                self.line(1, &format!("{} {text}", p.yellow("warning:")));
            }
            Event::Message { text, .. } => self.line(1, text),
            Event::Proved(proof) => {
                self.line(1, &format!("{} {}: {}", words::verdict(proof.verdict, p), proof.name, proof.text));
                if let Some(next) = &proof.next {
                    self.line(2, &p.dim(&format!("next: {next}")));
                }
            }
            _ => {}
        }
    }
}

impl Sink for Plain {
    fn take(&mut self, _ts_ms: u64, event: &Event, _line: &str) -> OpResult<()> {
        self.show(event);
        Ok(())
    }
}
