//! What kinds there are and what their objects look like.
mod addresses;
pub mod builtin;
pub mod cel;
pub mod crds;
mod custom;
pub mod defaults;
pub mod definition;
mod kindfill;
pub mod kinds;
mod limits;
pub mod names;
mod network;
pub mod node;
mod podfill;
mod podspec;
mod podupdate;
mod policy;
pub mod remarks;
pub mod resized;
pub(in crate::kube) mod rules;
mod secrets;
mod structural;
pub mod typed;
pub mod validate;
mod workloads;

pub use kinds::Kind;
