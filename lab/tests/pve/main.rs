//! The Proxmox API of the lab over real sockets, driven by a plain HTTP client.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
mod around;
mod bed;
mod clients;
mod deploy;
mod nodes;
mod normal;
#[path = "../../../tests/src/pve_schema.rs"]
mod pve_schema;
mod refusals;
mod replay;
mod schema;
mod validation;
