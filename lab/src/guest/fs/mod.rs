//! Files of a guest: trees, mounts, `/proc` and friends, and the view a shell gets of them.
pub mod files;
pub mod image;
pub mod shellfs;
pub mod tree;
pub mod virtuals;

pub use files::{Files, Who};
