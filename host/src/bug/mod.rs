//! One run in one file, without secrets, and that file run again on the lab.
mod bundle;
pub mod command;
mod replay;

pub use bundle::Bundle;
