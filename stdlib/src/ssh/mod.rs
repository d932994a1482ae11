//! `ssh`: commands, files, facts and the wanted state of hosts.
mod api;
mod auth;
mod channels;
mod config;
mod conn;
mod dial;
mod ensure;
mod exec;
mod facts;
mod files;
mod folders;
mod group;
mod group_api;
mod home;
mod host;
mod jobs;
pub mod keys;
pub mod known_hosts;
mod options;
mod pattern;
mod quote;
mod remote_file;
mod signals;
mod single;
#[cfg(test)]
mod tests;
pub(crate) mod textdiff;
mod transfer;
mod trust;
mod tunnel;
mod wait;
mod way;
mod wrap;

use std::any::Any;
use std::sync::{Arc, PoisonError};

use crate::core::ctx::Ctx;
use crate::core::module::{ModuleDef, fn_options};

pub use conn::is_refused;
pub use ensure::{Unused, survey, unused};
pub use group::Group;
pub use home::use_home;
pub use host::Host;
pub use options::{ConnectOptions, FileOptions, Output, RunOptions, Stdin};
pub use quote::{quote, words};
pub(crate) use remote_file::digest;
pub use tunnel::{Tunnel, TunnelOptions};

/// The script module.
#[must_use]
pub fn def() -> ModuleDef {
    let mut module = rhai::exported_module!(api::ssh_module);
    module.combine(rhai::exported_module!(group_api::group_module));
    single::add(&mut module);
    ModuleDef {
        name: "ssh",
        docs: "Commands, files, facts and the wanted state of hosts over SSH.\n\nOne connection per host serves the \
               whole run. Host keys are never accepted blindly: a machine of the site is trusted by the keys that \
               `vm.ssh()` reads through the guest agent, others by your `known_hosts`; `~/.ssh/config` is read for what \
               recipe and site leave open (never in the lab). Commands run as root (`sudo`) unless `become: false` is \
               given, and those of `run` and `script` survive a lost connection: they are found again, never run \
               twice.",
        module: module.into(),
        options: vec![
            fn_options("connect", "options", "ConnectOptions", ConnectOptions::FIELDS),
            fn_options("group", "options", "ConnectOptions", ConnectOptions::FIELDS),
            fn_options("tunnel", "options", "TunnelOptions", tunnel::TunnelOptions::FIELDS),
            fn_options("run", "options", "RunOptions", RunOptions::FIELDS),
            fn_options("script", "options", "RunOptions", RunOptions::FIELDS),
            fn_options("read", "options", "RunOptions", RunOptions::FIELDS),
            fn_options("write_file", "options", "FileOptions", FileOptions::FIELDS),
            fn_options("copy_to", "options", "FileOptions", FileOptions::FIELDS),
            fn_options("ensure", "wanted", "EnsureOptions", ensure::EnsureOptions::FIELDS),
        ],
    }
}

/// Something that all users of a run share, made by the first. `make` may use the cache itself; when two make it at
/// the same time, both get the one that was kept first.
fn shared<T: Any + Send + Sync>(ctx: &Ctx, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
    if let Some(found) = ctx.cached::<T>(key) {
        return found;
    }
    let made = Arc::new(make());
    let mut cache = ctx.cache.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = cache.entry(key.to_owned()).or_insert_with(|| made.clone());
    kept.clone().downcast::<T>().unwrap_or(made)
}
