//! Types and text formats of the wire, shared by the clients and the lab. No I/O.
pub mod blind;
pub mod calendar;
pub mod chart;
pub mod charts;
pub mod crds;
pub mod cron;
pub mod fleet;
pub mod k3s;
pub mod pve;
pub mod release;
pub mod schema;
