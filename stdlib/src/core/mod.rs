//! The op pipeline and what everything shares: context, clock, dialer, errors, options, units.
pub mod branch;
pub mod clock;
pub mod ctx;
pub mod dialer;
pub mod error;
pub mod event;
pub mod flight;
pub mod module;
pub mod op;
pub mod options;
pub mod paths;
pub mod retry;
pub mod stamp;
pub mod units;
