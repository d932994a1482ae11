//! `gpuhost runs`: what earlier runs did, from their journals.
pub mod classes;
pub mod command;
pub mod doubt;
pub mod machine;
pub mod shelf;
mod show;
mod tail;
pub mod tale;
