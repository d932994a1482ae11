//! `kubernetes`: a cluster's objects, nodes and pods through the real API.
mod apply;
mod cluster;
pub mod diff;
mod health;
mod health_script;
pub mod kinds;
mod nodes;
mod objects;
mod pods;
pub mod rest;
mod script;
mod via;
pub(crate) use script::to_script;
mod wait;

use crate::core::module::{ModuleDef, fn_options};

pub use apply::{ApplyOptions, Planned, parse_yaml};
pub use cluster::Cluster;
pub use health::{epoch_seconds, node_problems, server_problems};
pub use nodes::{Taint, label_changes, node_row, quantity, taint_changes};
pub use objects::{ListOptions, ObjectOptions, describe};
pub use pods::{LogOptions, PodEnd, pod_trouble};
pub use via::ServiceRequestOptions;

pub(crate) use wait::EVERY;
pub use wait::{Until, condition, is_true, node_trouble, seen, waits_on};

/// What scripts see.
#[must_use]
pub fn def() -> ModuleDef {
    let mut module = script::module();
    module.combine(health_script::module());
    ModuleDef {
        name: "kubernetes",
        docs: "Objects, nodes and pods of a cluster. A cluster comes from `k3s::ensure_servers` or `k3s::connect`; \
               its methods compare before they write, so a second run changes nothing.",
        module,
        options: vec![
            fn_options("get", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("find", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("list", "options", "ListOptions", ListOptions::FIELDS),
            fn_options("apply", "options", "ApplyOptions", ApplyOptions::FIELDS),
            fn_options("delete", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("wait", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("events", "options", "ObjectOptions", ObjectOptions::FIELDS),
            fn_options("request_service", "options", "ServiceRequestOptions", ServiceRequestOptions::FIELDS),
            fn_options("logs", "options", "LogOptions", LogOptions::FIELDS),
        ],
    }
}
