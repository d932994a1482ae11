//! `k3s`: forming and growing a K3s cluster over SSH.
mod join;

pub use join::Join;
