//! Guests of the lab, driven through real SSH connections.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
mod bed;
mod boot;
mod disks;
mod looking;
mod many;
mod nesting;
mod openssh;
mod scripts;
mod services;
