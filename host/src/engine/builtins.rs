//! Built-ins of the language that would bypass the run's clock or end it as a success.
use std::time::Duration;

use gpuhost_stdlib::core::ctx::{RhaiResultOf, call};
use gpuhost_stdlib::core::error::OpError;
use rhai::{Dynamic, Engine, FuncRegistration, Module, NativeCallContext};

/// `sleep(seconds)` on the run's clock.
fn sleep(ncc: &NativeCallContext, seconds: f64) -> RhaiResultOf<()> {
    let d = Duration::try_from_secs_f64(seconds)
        .map_err(|_| OpError::invalid(format!("cannot sleep for {seconds} seconds")).into_rhai(ncc))?;
    call(ncc, |ctx| async move {
        ctx.clock.sleep(d).await;
        ctx.check_cancelled()
    })
}

fn no_exit(ncc: &NativeCallContext) -> RhaiResultOf<Dynamic> {
    Err(OpError::invalid("`exit` would end the run as a success")
        .hint("stop with `throw \"why\"` or `require(condition, \"why\")`")
        .into_rhai(ncc))
}

fn no_timestamp(ncc: &NativeCallContext) -> RhaiResultOf<Dynamic> {
    Err(OpError::invalid("`timestamp` reads this machine's clock, not the run's").hint("use `now()`").into_rhai(ncc))
}

/// Puts clock-aware versions or named errors over the language's own.
pub fn register(e: &mut Engine) {
    let mut m = Module::new();
    FuncRegistration::new("sleep")
        .with_params_info(["seconds: i64", "()"])
        .with_comments(["/// Waits this many seconds on the run's clock; `wait_until` is nearly always better."])
        .set_into_module(&mut m, |ncc: NativeCallContext, s: i64| sleep(&ncc, s as f64));
    FuncRegistration::new("sleep")
        .with_params_info(["seconds: f64", "()"])
        .with_comments(["/// Waits this many seconds on the run's clock; `wait_until` is nearly always better."])
        .set_into_module(&mut m, |ncc: NativeCallContext, s: f64| sleep(&ncc, s));
    let exit = [
        "/// An error: it would end the run as a success; stop with `throw \"why\"` or `require(condition, \"why\")`.",
    ];
    FuncRegistration::new("exit").with_comments(exit).set_into_module(&mut m, |ncc: NativeCallContext| no_exit(&ncc));
    FuncRegistration::new("exit")
        .with_params_info(["value: ?", "any"])
        .with_comments(exit)
        .set_into_module(&mut m, |ncc: NativeCallContext, _: Dynamic| no_exit(&ncc));
    FuncRegistration::new("timestamp")
        .with_comments(["/// An error: it reads this machine's clock and not the run's; use `now()`."])
        .set_into_module(&mut m, |ncc: NativeCallContext| no_timestamp(&ncc));
    e.register_global_module(m.into());
}
