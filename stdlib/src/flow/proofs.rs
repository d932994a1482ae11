//! `require`, `prove`, `warn`, `confirm`, and what scripts read of an error.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use rhai::plugin::*;
use rhai::{Dynamic, EvalAltResult, FnPtr, Map, NativeCallContext};

use crate::core::ctx::{Ctx, RhaiResultOf};
use crate::core::error::{OpError, Stop};
use crate::core::event::{Event, Proof, Verdict};
use crate::options;

options! {
    /// What a question is about.
    pub struct ConfirmOptions {
        /// The answer takes something away: unattended it needs `--yes=<site name>` on a real site.
        destroys: bool = false,
    }
}

/// Warnings of a proof, each with the next thing to type where there is one.
type Sink = Option<Arc<Mutex<Vec<(String, Option<String>)>>>>;

thread_local! {
    static WARNINGS: RefCell<Sink> = const { RefCell::new(None) };
}

/// Where `warn` goes on this thread: into the proof that is running, if one is.
pub(super) fn sink() -> Sink {
    WARNINGS.with(|w| w.borrow().clone())
}

pub(super) fn set_sink(s: Sink) -> Sink {
    WARNINGS.with(|w| w.replace(s))
}

pub(super) fn module() -> rhai::Module {
    exported_module!(api)
}

fn fail_text(e: &OpError) -> String {
    let mut text = e.to_string();
    if let Some(last) = &e.last {
        text.push_str(&format!(" (last seen: {last})"));
    }
    for c in e.causes.iter().take(3) {
        text.push_str(&format!("; {c}"));
    }
    for o in &e.others {
        text.push_str(&format!("; {o}"));
    }
    text
}

fn ask(ncc: &NativeCallContext, question: &str, destroys: bool) -> RhaiResultOf<bool> {
    let ctx = Ctx::of(ncc)?;
    let yes = ctx.consent.confirm(question, destroys).map_err(|e| e.into_rhai(ncc))?;
    if !yes {
        return Err(ctx.declined(question).into_rhai(ncc));
    }
    Ok(true)
}

#[export_module]
#[allow(missing_docs)]
mod api {
    /// Stops the run with exit code 3 when `condition` does not hold.
    ///
    /// # Example
    /// ```rhai
    /// require(1 + 1 == 2, "arithmetic works");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn require(ncc: NativeCallContext, condition: bool, text: &str) -> RhaiResultOf<()> {
        require_or(ncc, condition, text, "run `gpuhost run recipes/verify.rhai` for the cause")
    }

    /// Stops the run with exit code 3 and the next thing to type when `condition` does not hold.
    ///
    /// # Example
    /// ```rhai
    /// require(1 + 1 == 2, "arithmetic works", "gpuhost run scripts/doctor.rhai");
    /// ```
    #[rhai_fn(name = "require", return_raw)]
    pub fn require_or(ncc: NativeCallContext, condition: bool, text: &str, next: &str) -> RhaiResultOf<()> {
        if condition {
            return Ok(());
        }
        let mut e = OpError::failed(text.to_owned());
        e.op = "require".to_owned();
        e.stop = Some(Stop::Proof);
        Err(e.hint(next).into_rhai(&ncc))
    }

    /// Ends a check (or the recipe) with an error text and the next thing to type.
    ///
    /// # Example
    /// ```rhai
    /// if site().nodes.len() == 0 { fail("the site has no nodes", "add [[nodes]] to the site file"); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn fail(ncc: NativeCallContext, text: &str, next: &str) -> RhaiResultOf<()> {
        Err(OpError::failed(text).hint(next).into_rhai(&ncc))
    }

    /// Runs a check and notes PASS, WARN or FAIL; with a FAIL the run ends with exit code 3.
    ///
    /// PASS shows the closure's text, if it returns one. `false` or an error is a FAIL, with its cause; `warn` inside
    /// makes a WARN.
    ///
    /// # Example
    /// ```rhai
    /// prove("arithmetic", || require(1 + 1 == 2, "one and one is two"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn prove(ncc: NativeCallContext, name: &str, check: FnPtr) -> RhaiResultOf<bool> {
        let ctx = Ctx::of(&ncc)?;
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let old = set_sink(Some(warnings.clone()));
        let check = super::super::fanout::by_value(&check);
        let result = check.call_within_context::<Dynamic>(&ncc, ());
        set_sink(old);
        let warned = warnings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let proof = match result {
            Err(e) if matches!(e.unwrap_inner(), EvalAltResult::ErrorTerminated(..)) => return Err(e),
            Err(e) => {
                let e = OpError::from_rhai(&e);
                let text = fail_text(&e);
                Proof { name: name.to_owned(), verdict: Verdict::Fail, text, next: e.hint }
            }
            Ok(v) if v.as_bool() == Ok(false) => {
                let next = Some("let the check say why: `require(condition, \"text\")`".to_owned());
                Proof { name: name.to_owned(), verdict: Verdict::Fail, text: "it does not hold".to_owned(), next }
            }
            Ok(_) if !warned.is_empty() => {
                let texts: Vec<String> = warned.iter().map(|w| w.0.clone()).collect();
                let next = warned.into_iter().find_map(|w| w.1);
                Proof { name: name.to_owned(), verdict: Verdict::Warn, text: texts.join("; "), next }
            }
            Ok(v) => {
                let text = if v.is_string() { v.to_string() } else { String::new() };
                Proof { name: name.to_owned(), verdict: Verdict::Pass, text, next: None }
            }
        };
        let passed = proof.verdict != Verdict::Fail;
        ctx.emit(&Event::Proved(proof.clone())).map_err(|e| e.into_rhai(&ncc))?;
        ctx.proofs.lock().unwrap_or_else(PoisonError::into_inner).push(proof);
        Ok(passed)
    }

    /// A warning for the user; inside `prove` it makes the verdict WARN.
    ///
    /// # Example
    /// ```rhai
    /// warn("6 of 8 GPUs are busy");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn warn(ncc: NativeCallContext, text: &str) -> RhaiResultOf<()> {
        match sink() {
            Some(s) => s.lock().unwrap_or_else(PoisonError::into_inner).push((text.to_owned(), None)),
            None => Ctx::of(&ncc)?.message("warn", text),
        }
        Ok(())
    }

    /// A warning with the next thing to type; inside `prove` it makes the verdict WARN.
    ///
    /// # Example
    /// ```rhai
    /// warn("the newest snapshot is 30 hours old", "gpuhost run recipes/backup.rhai");
    /// ```
    #[rhai_fn(name = "warn", return_raw)]
    pub fn warn_with(ncc: NativeCallContext, text: &str, next: &str) -> RhaiResultOf<()> {
        match sink() {
            Some(s) => s.lock().unwrap_or_else(PoisonError::into_inner).push((text.to_owned(), Some(next.to_owned()))),
            None => Ctx::of(&ncc)?.message("warn", format!("{text}; next: {next}")),
        }
        Ok(())
    }

    /// Notes something that stays behind if the run ends now, and the command that takes it away.
    ///
    /// A run that is interrupted says it at its end. `forget_leftover` takes the note back.
    ///
    /// # Example
    /// ```rhai
    /// note_leftover("the test notebook", "gpuhost run scripts/remove-test-notebook.rhai");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn note_leftover(ncc: NativeCallContext, what: &str, next: &str) -> RhaiResultOf<()> {
        Ctx::of(&ncc)?.flight.leaves(what, next);
        Ok(())
    }

    /// What was noted with `note_leftover` is gone.
    ///
    /// # Example
    /// ```rhai
    /// forget_leftover("the test notebook");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn forget_leftover(ncc: NativeCallContext, what: &str) -> RhaiResultOf<()> {
        Ctx::of(&ncc)?.flight.took_away(what);
        Ok(())
    }

    /// Asks the user; a no ends the run with exit code 4.
    ///
    /// # Example
    /// ```rhai
    /// confirm("go on?");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn confirm(ncc: NativeCallContext, question: &str) -> RhaiResultOf<bool> {
        ask(&ncc, question, false)
    }

    /// Asks about something that may take things away; a no ends the run with exit code 4.
    ///
    /// # Example
    /// ```rhai
    /// confirm("remove the machines?", #{ destroys: true });
    /// ```
    #[rhai_fn(name = "confirm", return_raw)]
    pub fn confirm_with(ncc: NativeCallContext, question: &str, options: Map) -> RhaiResultOf<bool> {
        let o = ConfirmOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        ask(&ncc, question, o.destroys)
    }

    /// The error's kind, a word of a closed list.
    ///
    /// `not_found`, `conflict`, `denied`, `unreachable`, `timeout`, `failed` or `invalid`.
    #[rhai_fn(global, get = "kind", pure)]
    pub fn error_kind(err: &mut OpError) -> String {
        err.kind.as_str().to_owned()
    }
    /// What failed, as `module.verb`.
    #[rhai_fn(global, get = "op", pure)]
    pub fn error_op(err: &mut OpError) -> String {
        err.op.clone()
    }
    /// What it was done to.
    #[rhai_fn(global, get = "target", pure)]
    pub fn error_target(err: &mut OpError) -> String {
        err.target.clone()
    }
    /// What happened.
    #[rhai_fn(global, get = "message", pure)]
    pub fn error_message(err: &mut OpError) -> String {
        err.message.clone()
    }
    /// What to do next; empty when there is no hint.
    #[rhai_fn(global, get = "hint", pure)]
    pub fn error_hint(err: &mut OpError) -> String {
        err.hint.clone().unwrap_or_default()
    }
    /// The last state seen before giving up; empty when there is none.
    #[rhai_fn(global, get = "last", pure)]
    pub fn error_last(err: &mut OpError) -> String {
        err.last.clone().unwrap_or_default()
    }
    /// What the other side said, outermost first.
    #[rhai_fn(global, get = "causes", pure)]
    pub fn error_causes(err: &mut OpError) -> rhai::Array {
        err.causes.iter().map(|c| c.clone().into()).collect()
    }
    /// Failures of the sibling threads of a fan-out.
    #[rhai_fn(global, get = "others", pure)]
    pub fn error_others(err: &mut OpError) -> rhai::Array {
        err.others.iter().map(|o| Dynamic::from(o.clone())).collect()
    }
    /// Shown form.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn error_to_string(err: &mut OpError) -> String {
        err.to_string()
    }
}
