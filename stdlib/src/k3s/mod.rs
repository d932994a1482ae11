//! `k3s`: forming and growing a K3s cluster over SSH.
mod agents;
pub mod config;
mod connect;
mod join;
pub mod journal;
mod node;
mod options;
mod remove;
mod script;
mod servers;
mod start;

use crate::core::module::{ModuleDef, fn_options};

pub use connect::{connect, context_name, rewrite_kubeconfig};
pub use join::Join;
pub use options::{AgentOptions, RemoveOptions, ServerOptions, check_step, check_version};
pub use remove::uninstall;
#[allow(unused_imports)]
pub(crate) use script::hosts_of;
pub use servers::ensure_servers;

/// What scripts see.
#[must_use]
pub fn def() -> ModuleDef {
    ModuleDef {
        name: "k3s",
        docs: "K3s servers and agents. The release's binary is downloaded on the node and checked against its \
               checksums; configuration and unit are files of ours. Servers join one at a time, each until its etcd \
               member votes; a second run changes nothing.",
        module: script::module(),
        options: vec![
            fn_options("ensure_servers", "options", "ServerOptions", ServerOptions::FIELDS),
            fn_options("ensure_agent", "options", "AgentOptions", AgentOptions::FIELDS),
            fn_options("remove_node", "options", "RemoveOptions", RemoveOptions::FIELDS),
        ],
    }
}
