//! `k3s`: forming and growing a K3s cluster over SSH.
mod agents;
mod birth;
pub mod config;
mod connect;
mod day2_script;
mod hold;
mod hosts;
mod join;
pub mod journal;
mod kubeconfig;
mod node;
mod options;
mod remove;
mod restore;
mod restore_new;
mod rotate;
mod route;
mod script;
mod servers;
pub mod settings;
mod snapshot;
mod snapshot_claims;
mod snapshot_token;
mod start;
mod unborn;
mod upgrade;

use crate::core::module::{ModuleDef, fn_options};

pub(crate) use connect::server_kubeconfig;
pub use connect::{connect, context_name, rewrite_kubeconfig};
pub use join::Join;
pub use kubeconfig::{KubeconfigOptions, merged};
pub use options::{
    AgentOptions, Airgap, RemoveOptions, ServerOptions, check_keys, check_step, check_version, version_numbers,
};
pub use remove::uninstall;
pub use restore::{RestoreOptions, restore_etcd};
pub use rotate::RotateOptions;
#[allow(unused_imports)]
pub(crate) use script::hosts_of;
pub use servers::ensure_servers;
pub(crate) use servers::even_servers;
pub(crate) use snapshot::hex as sha256_hex;
pub use upgrade::{UpgradeOptions, way};

/// What scripts see.
#[must_use]
pub fn def() -> ModuleDef {
    let mut module = script::module();
    module.combine(day2_script::module());
    ModuleDef {
        name: "k3s",
        docs: "K3s servers and agents. The release's binary is downloaded on the node and checked against its \
               checksums; configuration and unit are files of ours. Servers join one at a time, each until its etcd \
               member votes; a second run changes nothing.",
        module: module.into(),
        options: vec![
            fn_options("ensure_servers", "options", "ServerOptions", ServerOptions::FIELDS),
            fn_options("ensure_agent", "options", "AgentOptions", AgentOptions::FIELDS),
            fn_options("remove_node", "options", "RemoveOptions", RemoveOptions::FIELDS),
            fn_options("check_upgrade", "options", "UpgradeOptions", UpgradeOptions::FIELDS),
            fn_options("ensure_upgrade", "options", "UpgradeOptions", UpgradeOptions::FIELDS),
            fn_options("rotate_certificates", "options", "RotateOptions", RotateOptions::FIELDS),
            fn_options("rotate_token", "options", "RotateOptions", RotateOptions::FIELDS),
            fn_options("check_restore", "options", "RestoreOptions", RestoreOptions::FIELDS),
            fn_options("restore_etcd", "options", "RestoreOptions", RestoreOptions::FIELDS),
            fn_options("write_kubeconfig", "options", "KubeconfigOptions", KubeconfigOptions::FIELDS),
        ],
    }
}
