//! `kubernetes`: a cluster's objects, nodes and pods through the real API.
mod again;
mod apply;
mod apply_script;
mod bundles;
mod classes;
mod cluster;
pub mod diff;
mod drain;
mod evict;
mod exec;
mod forward;
mod health;
mod health_script;
pub(crate) mod hidden;
mod ingress;
pub mod kinds;
mod logs;
mod losses;
mod nodes;
mod objects;
mod pods;
mod pods_script;
mod prune;
mod replicas;
pub mod rest;
mod rollout;
mod script;
mod served;
pub mod validate;
mod via;
pub(crate) use script::{shown, to_script};
mod wait;
mod watch;
mod workloads;

use crate::core::module::{ModuleDef, fn_options};

pub use apply::{ApplyOptions, ManifestOptions, Planned, parse_yaml};
pub use bundles::file_faults;
pub use classes::ClassOptions;
pub use cluster::Cluster;
pub(crate) use drain::take_back;
pub use drain::{DrainOptions, eviction_words, gpus_of, has_emptydir, is_made_anew};
pub use evict::EvictOptions;
pub use exec::{ExecEnd, ExecOptions};
pub use health::{epoch_seconds, node_problems, server_problems, voters};
pub use logs::{LogOptions, LogRange};
pub use nodes::{Taint, label_changes, node_row, quantity, taint_changes};
pub use objects::{DeleteOptions, ListOptions, ObjectOptions, describe};
pub use pods::{PodEnd, pod_trouble};
pub use prune::{SET, leftovers};
pub use replicas::{Short, short};
pub use via::ServiceRequestOptions;

pub(crate) use wait::EVERY;
pub use wait::{Until, condition, is_true, node_trouble, seen, waits_on};
pub use watch::{Target, Watch};
pub use workloads::{Blocking, blocking, repeated};

/// What scripts see.
#[must_use]
pub fn def() -> ModuleDef {
    let mut module = script::module();
    module.combine(health_script::module());
    module.combine(apply_script::module());
    module.combine(pods_script::module());
    ModuleDef {
        name: "kubernetes",
        docs: "Objects, nodes and pods of a cluster. A cluster comes from `k3s::ensure_servers` or `k3s::connect`; \
               its methods compare before they write, so a second run changes nothing.",
        module: module.into(),
        options: vec![
            fn_options("get", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("find", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("list", "options", "ListOptions", ListOptions::FIELDS),
            fn_options("apply", "options", "ManifestOptions", ManifestOptions::FIELDS),
            fn_options("apply_file", "options", "ManifestOptions", ManifestOptions::FIELDS),
            fn_options("delete", "options", "DeleteOptions", DeleteOptions::FIELDS),
            fn_options("ensure_storage_class", "options", "ClassOptions", ClassOptions::FIELDS),
            fn_options("wait_until", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("drain", "options", "DrainOptions", DrainOptions::FIELDS),
            fn_options("exec", "options", "ExecOptions", ExecOptions::FIELDS),
            fn_options("port_forward", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("wait", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("events", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("request_service", "options", "ServiceRequestOptions", ServiceRequestOptions::FIELDS),
            fn_options("logs", "options", "LogOptions", logs::LOG_FIELDS),
            fn_options("evict", "options", "EvictOptions", EvictOptions::FIELDS),
        ],
    }
}
