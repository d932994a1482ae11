//! The script functions of the storage classes.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::Map;
use rhai::plugin::*;

use super::Export;
use super::classes::{CheckClassOptions, NfsClassOptions, ScratchClassOptions};
use crate::core::ctx::{RhaiResultOf, call};
use crate::kubernetes::Cluster;

#[export_module]
pub(super) mod class_module {
    /// Ensures a storage class over an NFS export, with its driver.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_nfs_class("nfs-client", nfs::export_of("10.0.0.31", "/srv/nfs/k8s"), #{
    ///     default_class: true, reclaim: "Retain", chart: "4.13.4",
    /// });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_nfs_class(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        name: &str,
        share: Export,
        options: Map,
    ) -> RhaiResultOf<()> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(&ncc, |ctx| async move {
            cluster.ensure_nfs_class(&ctx, &name, &share, &NfsClassOptions::read(&options)?).await
        })
    }

    /// Says how an existing storage class differs from the share it shall be of, or `""`.
    ///
    /// A class cannot change in place: what the site file says of the share is compared before the server is touched.
    ///
    /// # Example
    /// ```rhai
    /// require(cluster.check_nfs_class("nfs-client", nfs::export_of("10.0.0.31", "/srv/nfs/k8s")) == "", "same share");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_nfs_class(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        name: &str,
        share: Export,
    ) -> RhaiResultOf<String> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(&ncc, |ctx| async move { Ok(cluster.nfs_class_trouble(&ctx, &name, &share).await?.unwrap_or_default()) })
    }

    /// Ensures a storage class over the nodes' scratch disks, with its own provisioner.
    ///
    /// # Example
    /// ```rhai
    /// cluster.ensure_scratch_class("fast-scratch", #{ path: "/mnt/scratch" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_scratch_class(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<()> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(&ncc, |ctx| async move {
            cluster.ensure_scratch_class(&ctx, &name, &ScratchClassOptions::read(&options)?).await
        })
    }

    /// Proves a storage class: a claim binds, a pod writes and reads, all is thrown away.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.check_storage_class("nfs-client"));
    /// ```
    #[rhai_fn(global, name = "check_storage_class", return_raw, pure)]
    pub fn check_storage_class(ncc: NativeCallContext, cluster: &mut Cluster, name: &str) -> RhaiResultOf<String> {
        check_storage_class_with(ncc, cluster, name, Map::new())
    }

    /// Proves a storage class, on one node if asked: a claim binds, a pod writes and reads.
    ///
    /// # Example
    /// ```rhai
    /// print(cluster.check_storage_class("fast-scratch", #{ node: "k3s-gpu1" }));
    /// ```
    #[rhai_fn(global, name = "check_storage_class", return_raw, pure)]
    pub fn check_storage_class_with(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<String> {
        let (cluster, name) = (cluster.clone(), name.to_owned());
        call(
            &ncc,
            |ctx| async move { cluster.check_storage_class(&ctx, &name, &CheckClassOptions::read(&options)?).await },
        )
    }

    /// Removes the claim of verify's test user (`claim-gpuhost-verify…`) with its volume.
    ///
    /// # Example
    /// ```rhai
    /// cluster.remove_probe_claim("jupyterhub", "claim-gpuhost-verify");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_probe_claim(
        ncc: NativeCallContext,
        cluster: &mut Cluster,
        namespace: &str,
        name: &str,
    ) -> RhaiResultOf<()> {
        let (cluster, namespace, name) = (cluster.clone(), namespace.to_owned(), name.to_owned());
        call(&ncc, |ctx| async move { cluster.remove_probe_claim(&ctx, &namespace, &name).await })
    }
}
