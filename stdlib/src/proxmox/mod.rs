//! `proxmox`: the hypervisor API: machines, template, PCI mappings, storages, checks.
mod client;
mod error;
mod inventory;
mod pool;
mod request;
mod script;
mod task;
mod tls;
mod types;

pub use client::ConnectOptions;
pub use error::{ApiError, Fault};
pub use inventory::{Machine, Place, Row};
pub use request::{At, Request};
pub use script::def;
pub use types::{Problem, Proxmox, Report, Template, Vm};
