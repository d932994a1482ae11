//! The gpuhost program as a library: command line, engine, checker, progress, journal, REPL, reference.
//! The only crate that prints.
pub mod args;
pub mod bug;
pub mod check;
pub mod cli;
pub mod consent;
pub mod doc;
pub mod drill;
pub mod embed;
pub mod engine;
pub mod errors;
pub mod exit;
pub mod findings;
pub mod header;
pub mod help;
pub mod init;
pub mod inventory;
pub mod kubectl;
pub mod labs;
pub mod lead;
pub mod lock;
pub mod plan;
pub mod policy;
pub mod progress;
pub mod record;
pub mod reference;
pub mod render;
pub mod repl;
pub mod run;
pub mod runs;
pub mod screen;
pub mod session;
pub mod signals;
pub mod snapshot;
pub mod sources;
pub mod statedir;
pub mod when;

use std::process::ExitCode;

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    // One TLS provider for the whole process, before any client can exist.
    rustls::crypto::ring::default_provider().install_default().ok();
    let exit = cli::main();
    ExitCode::from(exit.code())
}
