//! `--faults`: what goes wrong in a lab run, from a file of rules or a seed.
use gpuhost_lab::fault::Plan;
use gpuhost_stdlib::core::error::{OpError, OpResult};

use super::InProcess;

/// Reads `FILE` or `random:SEED`.
///
/// # Errors
/// `invalid` with the line that is wrong.
pub fn read(text: &str) -> OpResult<Plan> {
    if let Some(seed) = text.strip_prefix("random:") {
        return seed.parse().map(Plan::Random).map_err(|_| {
            OpError::invalid(format!("`{seed}` is no seed")).hint("write a whole number: `--faults random:7`")
        });
    }
    let rules = std::fs::read_to_string(text).map_err(|e| {
        OpError::not_found(format!("cannot read the faults `{text}`")).because(e.to_string()).hint("or `random:SEED`")
    })?;
    Plan::parse(&rules).map_err(|e| OpError::invalid(format!("`{text}`: {e}")))
}

/// Lets `given` go wrong in the lab of this process.
///
/// # Errors
/// When it cannot be read, or the lab is in another process.
pub fn set(given: Option<&str>, world: Option<&InProcess>) -> OpResult<()> {
    let Some(text) = given else { return Ok(()) };
    let plan = read(text)?;
    match world {
        Some(w) => {
            w.lab().faults().set(Some(plan));
            Ok(())
        }
        None => Err(OpError::invalid("faults need a lab of the run's own; this one is served by another process")
            .hint("stop `gpuhost lab serve`, or pass another `--state-dir`")),
    }
}
