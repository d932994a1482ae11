//! The Proxmox API of the lab over real sockets, driven by a plain HTTP client.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
mod bed;
mod deploy;
mod proxmoxer;
mod recorded;
mod refusals;
mod schema;
