//! `nfs`: NFS servers, exports, and the storage classes over them.
mod api;
mod server;

use crate::core::module::{ModuleDef, fn_options};

pub use server::{Export, ExportOptions, ServerOptions, check_mount, ensure_export, ensure_server};

/// The script module.
#[must_use]
pub fn def() -> ModuleDef {
    ModuleDef {
        name: "nfs",
        docs: "NFS servers and exports.\n\nThe server speaks version 4 only (TCP port 2049). Its data disk is named by \
               id and only formatted when it is proven blank; the server does not start without it. Exports name \
               their clients one by one.",
        module: rhai::exported_module!(api::nfs_module),
        options: vec![
            fn_options("ensure_server", "options", "ServerOptions", ServerOptions::FIELDS),
            fn_options("ensure_export", "options", "ExportOptions", ExportOptions::FIELDS),
        ],
    }
}
