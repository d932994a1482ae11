//! The thread that a script runs on, and what becomes of its panics.
use std::sync::{Arc, Mutex, PoisonError};

use gpuhost_stdlib::core::ctx::Run;
use gpuhost_stdlib::core::error::OpError;
use rhai::Dynamic;

use crate::engine;
use crate::reference::Reference;
use crate::render;
use crate::sources::Text;

/// Collects panics of all threads, so that a bug ends in a report and not in silence.
#[derive(Clone, Default)]
pub struct Panics(Arc<Mutex<Vec<String>>>);

impl Panics {
    /// Starts collecting.
    #[must_use]
    pub fn watch() -> Self {
        let list = Panics::default();
        let own = list.clone();
        std::panic::set_hook(Box::new(move |info| {
            let text = format!("{info}\n{}", std::backtrace::Backtrace::force_capture());
            own.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }));
        list
    }

    /// What was collected.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs the recipe.
pub(super) fn script(run: &Arc<Run>, recipe: &Text) -> Result<(), Box<OpError>> {
    let mut engine = engine::plain();
    engine::attach(&mut engine, run);
    let mut ast =
        engine.compile(&recipe.text).map_err(|e| Box::new(render::explain::parse_error(&e.0, &recipe.name, e.1)))?;
    ast.set_source(&recipe.name);
    engine
        .eval_ast::<Dynamic>(&ast)
        .map(|_| ())
        .map_err(|e| Box::new(render::explain::from_eval(&e, &recipe.name, Reference::builtin())))
}

/// Runs `work` on a thread with the stack that scripts need, holding the run's busy mark.
/// `held`: somebody else holds time between scripts; that mark is lent out meanwhile.
///
/// # Errors
/// The text of a panic.
pub fn on_script_thread<T: Send>(run: &Arc<Run>, held: bool, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|s| {
        let mark = run.clock.busy();
        let lent = held.then(|| run.clock.lend());
        let spawned = std::thread::Builder::new()
            .name("script".to_owned())
            .stack_size(engine::SCRIPT_STACK)
            .spawn_scoped(s, move || {
                let out = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                drop(lent);
                drop(mark);
                out
            });
        match spawned.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(Ok(out))) => Ok(out),
            Ok(Ok(Err(p)) | Err(p)) => Err(panic_text(p.as_ref())),
            Err(e) => Err(format!("cannot start the script thread: {e}")),
        }
    })
}

fn panic_text(p: &(dyn std::any::Any + Send)) -> String {
    p.downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| p.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_owned())
}
