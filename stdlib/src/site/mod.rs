//! `site()`: the loaded, validated site file.
mod types;
pub use types::{Network, Node, ProxmoxSection, Role, RoleKind, Shape, Site, SshSection, Template};
