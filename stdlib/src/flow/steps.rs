//! `step`, `retry`, `wait_until`, `param`, `lock_site`, `changed`, `now`, `secret`.
use std::time::Duration as StdDuration;

use rhai::plugin::*;
use rhai::{Dynamic, EvalAltResult, FnPtr, Map, NativeCallContext};

use crate::core::ctx::{Ctx, RhaiResultOf, call};
use crate::core::error::{Kind, OpError, Stop};
use crate::core::op::Op;
use crate::core::units::{Duration, Secret, Size};
use crate::options;

options! {
    /// How often something is tried.
    pub struct RetryOptions {
        /// How many times at most.
        times: i64 = 3,
        /// Pause between two tries.
        every: Duration = Duration::secs(5),
        /// Given the error: stop trying? For example `|err| err.kind == "invalid"`.
        stop_when: Option<FnPtr> = None,
    }
}

pub(super) fn module() -> rhai::Module {
    exported_module!(api)
}

fn pause(ncc: &NativeCallContext, ctx: &Ctx, d: StdDuration) -> RhaiResultOf<()> {
    let (clock, cancel) = (ctx.clock.clone(), ctx.cancel.clone());
    ctx.rt.block_on(async {
        tokio::select! { biased; () = cancel.cancelled() => {}, () = clock.sleep(d) => {} }
    });
    ctx.check_cancelled().map_err(|e| e.into_rhai(ncc))
}

fn is_stop(e: &EvalAltResult) -> bool {
    matches!(e.unwrap_inner(), EvalAltResult::ErrorTerminated(..))
}

/// `a,b` or a JSON array; nothing is an empty list.
fn list(text: &str) -> Option<Dynamic> {
    let text = text.trim();
    if text.starts_with('[') {
        return serde_json::from_str::<Vec<Dynamic>>(text).ok().map(Dynamic::from);
    }
    let items = text.split(',').map(str::trim).filter(|_| !text.is_empty());
    Some(items.map(|t| Dynamic::from(t.to_owned())).collect::<Vec<_>>().into())
}

fn typed(text: &str, default: &Dynamic) -> Result<Dynamic, String> {
    let bad = |what: &str| format!("expected {what}, found `{text}`");
    if default.is_bool() {
        return match text {
            "true" | "yes" | "1" => Ok(true.into()),
            "false" | "no" | "0" => Ok(false.into()),
            _ => Err(bad("true or false")),
        };
    }
    if default.is_int() {
        return text.parse::<i64>().map(Dynamic::from).map_err(|_| bad("a whole number"));
    }
    if default.is_float() {
        return text.parse::<f64>().map(Dynamic::from).map_err(|_| bad("a number"));
    }
    if default.is::<Duration>() {
        return Duration::parse(text).map(Dynamic::from);
    }
    if default.is::<Size>() {
        return Size::parse(text).map(Dynamic::from);
    }
    if default.is_array() {
        return list(text).ok_or_else(|| bad("a list: `a,b` or `[\"a\", \"b\"]`"));
    }
    Ok(text.to_owned().into())
}

#[export_module]
#[allow(missing_docs)]
mod api {
    /// Names a part of the recipe in progress, journal and errors; gives the block's value.
    ///
    /// # Example
    /// ```rhai
    /// let n = step("count", || 1 + 1);
    /// require(n == 2, "the step's value");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn step(ncc: NativeCallContext, name: &str, work: FnPtr) -> RhaiResultOf<Dynamic> {
        let ctx = Ctx::of(&ncc)?;
        // Captures by value: a fan-out inside would otherwise race on them.
        let work = super::super::fanout::by_value(&work);
        ctx.in_step(name, || work.call_within_context::<Dynamic>(&ncc, ()))
    }

    /// Tries `work` until it succeeds.
    ///
    /// # Example
    /// ```rhai
    /// let v = retry(#{ times: 3, every: 1.seconds }, || 42);
    /// require(v == 42, "the value of the first success");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn retry(ncc: NativeCallContext, options: Map, work: FnPtr) -> RhaiResultOf<Dynamic> {
        let ctx = Ctx::of(&ncc)?;
        let o = RetryOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let mut tries = 0;
        loop {
            tries += 1;
            let err = match work.call_within_context::<Dynamic>(&ncc, ()) {
                Ok(v) => return Ok(v),
                Err(e) if is_stop(&e) => return Err(e),
                Err(e) => e,
            };
            let stop = match &o.stop_when {
                Some(f) => f.call_within_context::<bool>(&ncc, (Dynamic::from(OpError::from_rhai(&err)),))?,
                None => false,
            };
            if stop || tries >= o.times {
                return Err(err);
            }
            let text = OpError::from_rhai(&err).to_string();
            ctx.message("info", format!("try {tries} of {} failed ({text}); again in {}", o.times, o.every));
            pause(&ncc, &ctx, o.every.0)?;
        }
    }

    /// Looks every two seconds until `cond` gives something other than `false` or `()`.
    ///
    /// While `cond` throws `not_found`, `unreachable` or `conflict` it counts as not yet.
    ///
    /// # Example
    /// ```rhai
    /// wait_until("nothing", 1.minutes, || true);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn wait_until(ncc: NativeCallContext, what: &str, limit: Duration, cond: FnPtr) -> RhaiResultOf<Dynamic> {
        let ctx = Ctx::of(&ncc)?;
        let start = ctx.clock.last_ms();
        loop {
            let seen = match cond.call_within_context::<Dynamic>(&ncc, ()) {
                Ok(v) if v.is_unit() => "nothing yet".to_owned(),
                Ok(v) if v.as_bool() == Ok(false) => "not yet".to_owned(),
                Ok(v) => return Ok(v),
                Err(e) if is_stop(&e) => return Err(e),
                Err(e) => {
                    let op = OpError::from_rhai(&e);
                    if !matches!(op.kind, Kind::NotFound | Kind::Unreachable | Kind::Conflict) {
                        return Err(e);
                    }
                    op.to_string()
                }
            };
            if ctx.clock.last_ms().saturating_sub(start) >= limit.0.as_millis() as u64 {
                let e = OpError::timeout(format!("{what} did not happen within {limit}")).last_seen(seen);
                return Err(e.hint("give it more time, or look at the last seen state").into_rhai(&ncc));
            }
            pause(&ncc, &ctx, StdDuration::from_secs(2))?;
        }
    }

    /// A value of the command line (`--set name=value`), typed like its default.
    ///
    /// A list is written `a,b` or as JSON; with nothing behind the `=` it is empty.
    ///
    /// # Example
    /// ```rhai
    /// let delete_data = param("delete_data", false);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn param(ncc: NativeCallContext, name: &str, default_value: Dynamic) -> RhaiResultOf<Dynamic> {
        let ctx = Ctx::of(&ncc)?;
        let Some(text) = ctx.params.get(name) else { return Ok(default_value) };
        typed(text, &default_value).map_err(|e| {
            OpError::usage(format!("--set {name}: {e}"))
                .on(name)
                .hint(format!("--set {name}={default_value}"))
                .into_rhai(&ncc)
        })
    }

    /// A value of the command line (`--set name=value`) that has to be given, as text.
    ///
    /// Without it nothing is run: the program says so and ends with exit code 2.
    ///
    /// # Example
    /// ```rhai
    /// let name = if site().nodes.is_empty() { param("name") } else { site().nodes[0].name };
    /// ```
    #[rhai_fn(return_raw, name = "param")]
    pub fn param_needed(ncc: NativeCallContext, name: &str) -> RhaiResultOf<String> {
        match Ctx::of(&ncc)?.params.get(name).filter(|v| !v.is_empty()) {
            Some(text) => Ok(text.clone()),
            None => Err(OpError::usage(format!("the parameter `{name}` is not given"))
                .on(name)
                .hint(format!("--set {name}=VALUE"))
                .into_rhai(&ncc)),
        }
    }

    /// Takes the site's lock now, before anything is done, and not at the first change.
    ///
    /// While another run has it, this one ends here (exit code 4) with who that is; `meanwhile` is what can be typed then.
    /// Everything else that keeps it from the lock is an error that `try` catches.
    ///
    /// # Example
    /// ```rhai
    /// lock_site("gpuhost run scripts/doctor.rhai");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lock_site(ncc: NativeCallContext, meanwhile: String) -> RhaiResultOf<()> {
        call(&ncc, |ctx| async move {
            let site = ctx.site.as_ref().map(|s| s.name.clone()).unwrap_or_default();
            let op = Op::read("flow", "lock_site", site.clone());
            ctx.run_op(op.clone(), |s| async move {
                s.ctx().policy.before_effect(s.ctx(), &op).await.map_err(|mut e| {
                    let is_held = e.target == format!("lock of {site}");
                    match e.hint.clone().filter(|_| is_held && !meanwhile.is_empty()) {
                        Some(hint) => e = e.hint(format!("{hint}; meanwhile: {meanwhile}")),
                        None if e.stop == Some(Stop::Refused) && !is_held => e.stop = None,
                        None => {}
                    }
                    e
                })
            })
            .await
        })
    }

    /// Changes made so far in the innermost open step.
    ///
    /// # Example
    /// ```rhai
    /// let n = changed();
    /// ```
    #[rhai_fn(return_raw)]
    pub fn changed(ncc: NativeCallContext) -> RhaiResultOf<i64> {
        Ok(i64::try_from(Ctx::of(&ncc)?.changed_here()).unwrap_or(i64::MAX))
    }

    /// Seconds since 1970 on the run's clock (lab time in the lab).
    ///
    /// # Example
    /// ```rhai
    /// let t = now();
    /// ```
    #[rhai_fn(return_raw)]
    pub fn now(ncc: NativeCallContext) -> RhaiResultOf<i64> {
        Ok(i64::try_from(Ctx::of(&ncc)?.clock.last_ms() / 1000).unwrap_or(0))
    }

    /// Waits for a time on the run's clock; prefer `wait_until` and the `wait_` methods.
    ///
    /// # Example
    /// ```rhai
    /// sleep(1.seconds);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn sleep(ncc: NativeCallContext, time: Duration) -> RhaiResultOf<()> {
        let ctx = Ctx::of(&ncc)?;
        pause(&ncc, &ctx, time.0)
    }

    /// A secret by its reference, or by its name in the state directory.
    ///
    /// # Example
    /// ```rhai
    /// let token = secret("hub_token");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn secret(ncc: NativeCallContext, name: &str) -> RhaiResultOf<Secret> {
        let ctx = Ctx::of(&ncc)?;
        let reference = if name.contains(':') { name.to_owned() } else { format!("state:{name}") };
        let short = name.rsplit(':').next().unwrap_or(name);
        ctx.secret_ref(short, &reference).map_err(|e| e.into_rhai(&ncc))
    }
}
