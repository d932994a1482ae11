//! How a run ends: exit code, last event, error, summary, what a lab run is worth.
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::{Kind, OpError, OpResult};
use gpuhost_stdlib::core::event::{Event, Verdict};
use serde_json::{Value, json};

use super::finished::{Finished, StepEnd};
use super::job::{Job, Show};
use crate::errors::show_error;
use crate::exit::Exit;
use crate::labs;
use crate::labs::calibrate::{Expected, Source};
use crate::labs::closing::{Closing, Said};
use crate::labs::folder::Folder;
use crate::render;
use crate::sources;

/// How the script thread ended.
pub(super) enum Ending {
    Value,
    Error(Box<OpError>),
    Panic(String),
}

/// Whether the same command again has something to go on with: work that was done, or a cause that may have passed.
fn mends(exit: Exit, e: &OpError, changed: u64) -> bool {
    let passes = matches!(e.kind, Kind::Unreachable | Kind::Timeout | Kind::Conflict);
    match exit {
        Exit::Proof | Exit::Interrupted => true,
        Exit::Failed => changed > 0 || passes,
        _ => false,
    }
}

impl Job {
    /// The same command without `--faults`: they would strike again.
    fn rerun(&self) -> String {
        let mut words = vec!["gpuhost run".to_owned(), crate::lead::word(&self.args.recipe)];
        if let Some(s) = &self.args.site {
            words.push(format!("--site {}", crate::lead::word(&s.display().to_string())));
        }
        if self.args.lab {
            words.push("--lab".to_owned());
        }
        words.extend(self.args.set.iter().map(|s| format!("--set {}", crate::lead::word(s))));
        words.extend(self.args.yes.as_ref().map(|site| match site.as_str() {
            "" => "--yes".to_owned(),
            site => format!("--yes={}", crate::lead::word(site)),
        }));
        let paths = [("--plan", &self.args.plan), ("--state-dir", &self.args.common.state_dir)];
        for (flag, path) in paths {
            words.extend(path.iter().map(|p| format!("{flag} {}", crate::lead::word(&p.display().to_string()))));
        }
        words.join(" ")
    }

    pub(super) fn finish(self, ending: Ending, site_start: u64) -> (Exit, Option<Folder>) {
        let run = self.session.run.clone();
        let failed_proofs = {
            let proofs = run.proofs.lock().unwrap_or_else(PoisonError::into_inner);
            proofs.iter().filter(|p| p.verdict == Verdict::Fail).count()
        };
        let (exit, error) = match ending {
            Ending::Value if failed_proofs > 0 => (Exit::Proof, None),
            Ending::Value => (Exit::Done, None),
            Ending::Error(e) => (Exit::of(&e), Some(e)),
            Ending::Panic(text) => (Exit::Internal, Some(Box::new(self.report(&text)))),
        };
        self.session.release();
        let wall_ms = crate::when::wall_ms().saturating_sub(self.wall_start);
        let site_ms = run.rt.block_on(run.clock.now_ms()).saturating_sub(site_start);
        let mut end = self.end(exit, error.as_deref(), wall_ms, site_ms);
        let lab = self.closing().map(|closing| {
            let on_hardware = self.expected(&json!(end.steps));
            end.not_rehearsed = Some(closing.not_rehearsed.clone());
            end.grades = Some(closing.grades());
            end.on_hardware = Some(on_hardware.clone());
            (closing, on_hardware)
        });
        let ctx = Ctx::new(run.clone());
        run.flight.left().into_iter().for_each(|left| ctx.message("warn", left));
        if let Err(e) = ctx.emit(&Event::RunFinished(json!(end))) {
            show_error(&self.screen, &e, None);
        }
        if let Some(e) = error.as_ref().filter(|_| self.show != Show::Silent) {
            let rerun = self.rerun();
            let cx = render::Context {
                rerun: mends(exit, e, run.changed.load(Ordering::SeqCst)).then_some(rerun.as_str()),
                paint: self.screen.paint(),
                text_of: &|name| {
                    if name == self.recipe.name { Some(self.recipe.text.clone()) } else { sources::by_name(name) }
                },
            };
            let text = render::error(e, &cx);
            self.screen.err(self.session.redactor.clean(text.trim_end()).as_str());
        }
        if self.show == Show::Progress {
            self.summary(exit, failed_proofs, (wall_ms, site_ms), lab);
        }
        match self.world.map(|w| w.close()) {
            Some(Err(e)) => {
                show_error(&self.screen, &e, None);
                (if exit == Exit::Done { Exit::Failed } else { exit }, None)
            }
            Some(Ok(folder)) => (exit, Some(folder)),
            None => (exit, None),
        }
    }

    /// What went wrong by intention.
    fn struck(&self) -> Vec<String> {
        let fired = self.world.iter().flat_map(|w| w.lab().faults().fired());
        fired.map(|f| f.to_string()).collect()
    }
    /// What the run could not show; nothing for a real one.
    fn closing(&self) -> Option<Closing> {
        if !self.session.run.lab {
            return None;
        }
        let said = match (&self.world, &self.control) {
            (Some(w), _) => Said::by(w.lab()),
            // A lab that has gone meanwhile says nothing any more; the run itself has failed by that.
            (None, Some(at)) => labs::orders::said(at).unwrap_or_default(),
            (None, None) => Said::default(),
        };
        let blind = self.session.run.not_rehearsed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(Closing::of(&self.session.fan.ops(), &blind, &said))
    }

    /// How long it may take on hardware, out of the steps of a lab run.
    fn expected(&self, steps: &Value) -> Expected {
        Source {
            state_dir: &self.state_dir,
            recipe: &self.recipe.name,
            site: self.site.as_ref().map_or("", |s| &s.uuid),
        }
        .expect(steps)
    }

    fn end(&self, exit: Exit, error: Option<&OpError>, wall_ms: u64, site_ms: u64) -> Finished {
        let run = &self.session.run;
        let step = |s: crate::record::StepLine| StepEnd {
            name: s.path.join(" / "),
            status: s.status,
            changed: s.changed,
            seconds: s.ms as f64 / 1000.0,
        };
        Finished {
            status: exit.status(),
            exit: exit.code(),
            lab: run.lab,
            changed: run.changed.load(Ordering::SeqCst),
            steps: self.session.fan.steps().into_iter().map(step).collect(),
            seconds: wall_ms as f64 / 1000.0,
            site_seconds: site_ms as f64 / 1000.0,
            journal: self.journal.display().to_string(),
            error: error.cloned(),
            faults: self.args.faults.is_some().then(|| self.struck()),
            points: self.session.fan.points(),
            not_rehearsed: None,
            grades: None,
            on_hardware: None,
        }
    }

    fn summary(
        &self,
        exit: Exit,
        failed_proofs: usize,
        (wall_ms, site_ms): (u64, u64),
        lab: Option<(Closing, Expected)>,
    ) {
        let run = &self.session.run;
        let p = self.screen.paint_out();
        let word = match exit {
            Exit::Done => p.green("done"),
            Exit::Proof => p.red("proof failed"),
            Exit::Refused => p.red("refused"),
            Exit::Interrupted => p.yellow("interrupted"),
            _ => p.red("failed"),
        };
        let tag = if run.lab { format!("{} ", p.yellow("[LAB]")) } else { String::new() };
        let mut line = format!("{tag}{word}: changed: {}", run.changed.load(Ordering::SeqCst));
        if failed_proofs > 0 {
            let s = if failed_proofs == 1 { "" } else { "s" };
            line.push_str(&format!(", {failed_proofs} failed proof{s}"));
        }
        line.push_str(&format!(", {}", crate::when::span(wall_ms)));
        if run.lab {
            line.push_str(&format!(" ({} of lab time)", crate::when::span(site_ms)));
        }
        self.screen.out(&line);
        if let Some(text) = self.kubeconfig.line(run.lab, self.args.site.as_deref()) {
            self.screen.out(&format!("{tag}{text}"));
        }
        for f in self.struck() {
            self.screen.prose(&format!("{tag}fault: {f}"));
        }
        for f in self.world.iter().flat_map(|w| w.lab().faults().missed()) {
            self.screen.prose(&format!("{tag}warning: {f} never struck"));
        }
        if let Some((closing, on_hardware)) = lab {
            self.honest(&tag, &closing, &on_hardware);
        }
        if self.args.common.verbose || exit == Exit::Internal {
            self.screen.err(&p.dim(&format!("journal: {}", self.journal.display())));
        }
    }

    /// What a lab run is worth.
    fn honest(&self, tag: &str, closing: &Closing, on_hardware: &Expected) {
        if on_hardware.range.high >= 1.0 {
            self.screen.prose(&format!("{tag}on hardware: {}", on_hardware.words()));
        }
        if let Some(text) = closing.summary() {
            self.screen.prose(&format!("{tag}{text}"));
        }
        if !closing.not_rehearsed.is_empty() {
            self.screen.out(&format!("{tag}not rehearsed, the lab stood in for:"));
            for l in &closing.not_rehearsed {
                self.screen.prose(&format!("{tag}  - {l}"));
            }
        }
    }

    /// Writes the report of a bug and says where it is.
    fn report(&self, text: &str) -> OpError {
        let run = &self.session.run;
        let dir = run.state_dir.join("reports");
        let path = dir.join(format!("{}.txt", crate::when::stamp(crate::when::wall_ms())));
        let body = format!(
            "gpuhost {}\nrecipe {}\njournal {}\n\n{}\n",
            env!("CARGO_PKG_VERSION"),
            self.recipe.name,
            self.journal.display(),
            self.panics.texts().join("\n\n")
        );
        let body = self.session.redactor.clean(&body);
        let written: OpResult<()> = crate::statedir::private_dir(&dir).and_then(|()| {
            crate::statedir::write_private(&path, body.as_bytes()).map_err(|e| OpError::failed(e.to_string()))
        });
        let e = OpError::failed("internal error: this is a bug in gpuhost").because(text.to_owned());
        match written {
            Ok(()) => e.hint(format!("please send the report `{}`", path.display())),
            Err(w) => e.because(format!("the report could not be written: {}", w.message)),
        }
    }
}
