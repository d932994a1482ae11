//! The Proxmox API of the lab over real sockets, driven by a plain HTTP client.
#![allow(clippy::unwrap_used)]
mod bed;
mod deploy;
mod proxmoxer;
mod recorded;
mod refusals;
mod schema;
