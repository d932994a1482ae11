//! `nfs`: NFS servers, exports, and the storage classes over them.
mod api;
mod class_api;
mod classes;
mod leftover;
mod server;

use crate::core::module::{ModuleDef, fn_options};

pub use classes::{CheckClassOptions, NfsClassOptions, SCRATCH_NS, ScratchClassOptions};
pub use server::{Export, ExportOptions, ServerOptions, check_mount, ensure_export, ensure_server};

/// The script module.
#[must_use]
pub fn def() -> ModuleDef {
    let mut module = rhai::exported_module!(api::nfs_module);
    module.combine(rhai::exported_module!(class_api::class_module));
    ModuleDef {
        name: "nfs",
        docs: "NFS servers and exports.\n\nThe server speaks version 4 only (TCP port 2049). Its data disk is named by \
               id and only formatted when it is proven blank; the server does not start without it. Exports name \
               their clients one by one.",
        module: module.into(),
        options: vec![
            fn_options("ensure_server", "options", "ServerOptions", ServerOptions::FIELDS),
            fn_options("ensure_export", "options", "ExportOptions", ExportOptions::FIELDS),
            fn_options("ensure_nfs_class", "options", "NfsClassOptions", NfsClassOptions::FIELDS),
            fn_options("ensure_scratch_class", "options", "ScratchClassOptions", ScratchClassOptions::FIELDS),
            fn_options("check_storage_class", "options", "CheckClassOptions", CheckClassOptions::FIELDS),
        ],
    }
}
