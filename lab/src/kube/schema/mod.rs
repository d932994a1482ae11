//! What kinds there are and what their objects look like.
pub mod builtin;
pub mod crds;
pub mod defaults;
pub mod kinds;
pub mod node;
pub mod typed;
pub mod validate;

pub use kinds::Kind;
