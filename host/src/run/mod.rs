//! `gpuhost run`: one recipe, from reading it to the last line.
mod command;
mod end;
mod finished;
mod job;
mod script;

pub use command::{Stop, command};
pub use finished::Finished;
pub use job::{Job, Place, Show, job};
pub use script::{Panics, on_script_thread};
