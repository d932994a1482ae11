//! `helm`: releases through the helm-controller of K3s, without a helm binary.
mod archive;
mod body;
mod cli;
mod constraint;
mod install;
mod known;
mod missing;
mod owner;
mod program;
mod proof;
mod release;
mod rollback;
mod script;
mod values;

use crate::core::module::{ModuleDef, fn_options};
use crate::kubernetes::ObjectOptions;

pub use archive::{Archive, inert_keys};
pub use body::{Stored, value_differences};
pub use constraint::satisfies;
pub use install::{Driving, RELEASE_FIELDS, ReleaseOptions, chart_objects, workload_trouble};
pub(crate) use owner::{fleet_release, is_of_release};
pub use program::RenderOptions;
pub use proof::ReleaseTrouble;
pub use release::{Release, Revision, read_revision};
pub use values::split;

/// What scripts see.
#[must_use]
pub fn def() -> ModuleDef {
    ModuleDef {
        name: "helm",
        docs: "Helm releases without a helm binary: the helm-controller of K3s installs them. A release counts as \
               installed when its job is complete, its newest revision deployed and its workloads are ready. \
               Releases of other owners (Helm, Fleet) are refused. `template`, `lint` and `versions` ask a helm \
               program of this machine, which the site file has to grant.",
        module: script::module().into(),
        options: vec![
            fn_options("ensure_release", "options", "ReleaseOptions", RELEASE_FIELDS),
            fn_options("template", "options", "RenderOptions", RenderOptions::FIELDS),
            fn_options("lint", "options", "RenderOptions", RenderOptions::FIELDS),
            fn_options("find_release", "options", "ObjectOptions", ObjectOptions::FIELDS),
        ],
    }
}
