//! The script functions of `nfs`.
#![allow(missing_docs, clippy::unwrap_used)] // in what the macro writes
use rhai::plugin::*;

/// NFS servers and exports.
#[export_module]
pub mod nfs_module {
    use rhai::{Map, NativeCallContext};

    use crate::core::ctx::{RhaiResultOf, call};
    use crate::nfs::{Export, ExportOptions, ServerOptions};
    use crate::ssh::Host;

    /// Makes a host an NFS server: data disk, file system, mount, package, service.
    ///
    /// # Example
    /// ```rhai
    /// let host = ssh::connect("nfs1");
    /// nfs::ensure_server(host, #{ device: site().data_device("nfs1"), path: "/srv/nfs/k8s" });
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ensure_server(ncc: NativeCallContext, host: Host, options: Map) -> RhaiResultOf<()> {
        let o = ServerOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        call(&ncc, |ctx| async move { crate::nfs::ensure_server(&ctx, &host, &o).await })
    }

    /// Exports a directory to exactly these clients; returns the export.
    ///
    /// # Example
    /// ```rhai
    /// let share = nfs::ensure_export(ssh::connect("nfs1"), "/srv/nfs/k8s", #{ clients: site().node_ips() });
    /// print(`${share.server}:${share.path}`);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn ensure_export(ncc: NativeCallContext, host: Host, path: &str, options: Map) -> RhaiResultOf<Export> {
        let o = ExportOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        let path = path.to_owned();
        call(&ncc, |ctx| async move { crate::nfs::ensure_export(&ctx, &host, &path, &o).await })
    }

    /// An export of a server that is not ours.
    ///
    /// # Example
    /// ```rhai
    /// let share = nfs::export_of("10.0.0.9", "/volume1/k8s");
    /// ```
    pub fn export_of(server: &str, path: &str) -> Export {
        Export::new(server, path)
    }

    /// Mounts the export read-only on a host for a moment: proves network, export list and path.
    ///
    /// # Example
    /// ```rhai
    /// let share = nfs::export_of("10.0.0.31", "/srv/nfs/k8s");
    /// prove("gpu1 reaches the share", || nfs::check_mount(ssh::connect("k3s-gpu1"), share));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn check_mount(ncc: NativeCallContext, from: Host, share: Export) -> RhaiResultOf<bool> {
        call(&ncc, |ctx| async move { crate::nfs::check_mount(&ctx, &from, &share).await })
    }

    /// Address of the server.
    ///
    /// # Example
    /// ```rhai
    /// print(nfs::export_of("10.0.0.31", "/srv/nfs/k8s").server);
    /// ```
    #[rhai_fn(global, get = "server", pure)]
    pub fn server(share: &mut Export) -> String {
        share.server().to_owned()
    }

    /// Exported path.
    ///
    /// # Example
    /// ```rhai
    /// print(nfs::export_of("10.0.0.31", "/srv/nfs/k8s").path);
    /// ```
    #[rhai_fn(global, get = "path", pure)]
    pub fn path(share: &mut Export) -> String {
        share.path().to_owned()
    }

    /// `server:path`.
    ///
    /// # Example
    /// ```rhai
    /// print(nfs::export_of("10.0.0.31", "/srv/nfs/k8s"));
    /// ```
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn export_to_string(share: &mut Export) -> String {
        share.to_string()
    }
}
