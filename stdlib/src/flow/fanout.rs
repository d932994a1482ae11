//! `parallel`: one OS thread per running item, captures by value, every failure reported.
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rhai::plugin::*;
use rhai::{Array, Dynamic, FnPtr, Map, NativeCallContext};

use super::proofs;
use crate::core::branch;
use crate::core::ctx::{Ctx, RhaiResultOf, open_steps, set_open_steps};
use crate::core::error::OpError;
use crate::options;

options! {
    /// How a fan-out runs.
    pub struct ParallelOptions {
        /// How many items run at the same time.
        limit: i64 = 16,
        /// After a failure: `finish` lets the others end, `stop` starts no more items.
        on_error: String = "finish".to_owned(),
    }
}

/// Scripts recurse on these threads; 2 MiB would abort the process.
const STACK: usize = 16 << 20;

pub(super) fn module() -> rhai::Module {
    exported_module!(api)
}

type Outcome = RhaiResultOf<Dynamic>;

/// A closure's captures are shared variables; a method that holds one while it waits makes its
/// siblings fail with `Data race detected`. So every call gets copies (handles are cheap).
pub(super) fn by_value(f: &FnPtr) -> FnPtr {
    let mut own = f.clone();
    let curry: Vec<Dynamic> = f.curry().iter().map(|d| d.clone().flatten()).collect();
    own.set_curry(curry);
    own
}

fn run(ncc: &NativeCallContext, list: Array, o: &ParallelOptions, f: &FnPtr) -> RhaiResultOf<Array> {
    let ctx = Ctx::of(ncc)?;
    let n = list.len();
    if n == 0 {
        return Ok(Array::new());
    }
    let threads = usize::try_from(o.limit).unwrap_or(1).clamp(1, 256).min(n);
    let stop_early = match o.on_error.as_str() {
        "finish" => false,
        "stop" => true,
        other => {
            let e = OpError::invalid(format!("option `on_error`: unknown value `{other}`"));
            return Err(e.hint("use `finish` or `stop`").into_rhai(ncc));
        }
    };
    let work = Mutex::new(list.into_iter().enumerate());
    let out: Mutex<Vec<Option<Outcome>>> = Mutex::new((0..n).map(|_| None).collect());
    let stop = AtomicBool::new(false);
    let (steps, sink, start) = (open_steps(), proofs::sink(), branch::here());
    let body = || {
        set_open_steps(steps.clone());
        branch::stand(start.clone());
        proofs::set_sink(sink.clone());
        loop {
            let next = work.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((i, item)) = next else { break };
            if stop.load(Ordering::SeqCst) || ctx.cancel.is_cancelled() {
                break;
            }
            let r = by_value(f).call_within_context::<Dynamic>(ncc, (item,));
            if r.is_err() && stop_early {
                stop.store(true, Ordering::SeqCst);
            }
            out.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(r);
        }
    };
    let mut failed_spawn = None;
    // The last thread hands its mark over: between its end and ours no time may pass.
    let left = AtomicUsize::new(threads);
    std::thread::scope(|s| {
        let mut handles = Vec::new();
        for _ in 0..threads {
            let mark = ctx.clock.busy();
            let left = &left;
            let spawned = std::thread::Builder::new().stack_size(STACK).spawn_scoped(s, move || {
                body();
                ((left.fetch_sub(1, Ordering::SeqCst) == 1).then_some(mark), branch::here())
            });
            match spawned {
                Ok(h) => handles.push(h),
                Err(e) => {
                    left.fetch_sub(1, Ordering::SeqCst);
                    failed_spawn = Some(e);
                }
            }
        }
        let lent = ctx.clock.lend();
        let (mut last, mut ends) = (None, Vec::new());
        for h in handles {
            match h.join() {
                Ok((mark, end)) => {
                    last = mark.or(last);
                    ends.push(end);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        branch::join(ends);
        drop(lent);
        drop(last);
    });
    if let Some(e) = failed_spawn.filter(|_| threads == 1) {
        return Err(OpError::failed("cannot start a thread").because(e.to_string()).into_rhai(ncc));
    }
    collect(ncc, &ctx, out.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn collect(ncc: &NativeCallContext, ctx: &Ctx, out: Vec<Option<Outcome>>) -> RhaiResultOf<Array> {
    let mut values = Array::with_capacity(out.len());
    let mut errors: Vec<OpError> = Vec::new();
    for r in out {
        match r {
            Some(Ok(v)) => values.push(v),
            Some(Err(e)) => errors.push(OpError::from_rhai(&e)),
            None => values.push(Dynamic::UNIT),
        }
    }
    if ctx.cancel.is_cancelled() && errors.is_empty() {
        errors.push(OpError::interrupted());
    }
    // A stop (interruption, refusal) outranks an ordinary failure.
    errors.sort_by_key(|e| e.stop.is_none());
    let mut errors = errors.into_iter();
    match errors.next() {
        None => Ok(values),
        Some(mut first) => {
            first.others.extend(errors);
            Err(first.into_rhai(ncc))
        }
    }
}

#[export_module]
#[allow(missing_docs)]
mod api {
    /// Calls `work` for every item at the same time and returns the results in order.
    ///
    /// Captured variables are copies: return values instead of assigning. All failures are reported.
    ///
    /// # Example
    /// ```rhai
    /// let doubled = parallel([1, 2, 3], |n| n * 2);
    /// require(doubled == [2, 4, 6], "in order");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn parallel(ncc: NativeCallContext, list: Array, work: FnPtr) -> RhaiResultOf<Array> {
        let o = ParallelOptions { limit: 16, on_error: "finish".to_owned() };
        run(&ncc, list, &o, &work)
    }

    /// Calls `work` for every item at the same time, with options.
    ///
    /// # Example
    /// ```rhai
    /// parallel([1, 2, 3], #{ limit: 2, on_error: "stop" }, |n| n + 1);
    /// ```
    #[rhai_fn(name = "parallel", return_raw)]
    pub fn parallel_with(ncc: NativeCallContext, list: Array, options: Map, work: FnPtr) -> RhaiResultOf<Array> {
        let o = ParallelOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        run(&ncc, list, &o, &work)
    }
}
