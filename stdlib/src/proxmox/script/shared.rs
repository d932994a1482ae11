//! What machines share: template, PCI mappings, images; and the checks before a deploy.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Map, NativeCallContext};

use crate::core::ctx::{RhaiResultOf, call};
use crate::proxmox::mapping::MappingOptions;
use crate::proxmox::template::TemplateOptions;
use crate::proxmox::types::{Proxmox, Report, Template};

#[export_module]
pub mod api {
    /// Makes the template exist: cloud image, packages, cloud-init drive.
    ///
    /// The hypervisor downloads the image; a build VM installs the packages and powers itself off; it
    /// becomes the template. `existing: true` uses a template as it is.
    ///
    /// # Example
    /// ```rhai
    /// let template = pve.ensure_template(site().template);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_template(ncc: NativeCallContext, pve: &mut Proxmox, options: Map) -> RhaiResultOf<Template> {
        let (pve, o) = (pve.clone(), TemplateOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?);
        call(&ncc, |ctx| async move { pve.ensure_template(&ctx, &o).await })
    }

    /// Removes the template with its image; one of somebody else's stays.
    ///
    /// # Example
    /// ```rhai
    /// pve.remove_template(site().template);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_template(ncc: NativeCallContext, pve: &mut Proxmox, options: Map) -> RhaiResultOf<bool> {
        let (pve, o) = (pve.clone(), TemplateOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?);
        call(&ncc, |ctx| async move { pve.remove_template(&ctx, &o).await })
    }

    /// Removes the site's images and ISOs (`gpuhost-<site>-*`); says how many.
    ///
    /// # Example
    /// ```rhai
    /// pve.remove_content();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_content(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<i64> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move { pve.remove_content(&ctx).await })
    }

    /// Makes a PCI mapping share the cards of a device; says how many there are.
    ///
    /// Adds what is missing and takes nothing away. Refuses when there are fewer cards than `count` or
    /// the IOMMU is off.
    ///
    /// # Example
    /// ```rhai
    /// pve.ensure_pci_mapping("gpuhost-a100", #{ device: "10de:20f1", count: 8 });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_pci_mapping(
        ncc: NativeCallContext,
        pve: &mut Proxmox,
        name: &str,
        options: Map,
    ) -> RhaiResultOf<i64> {
        let (pve, name) = (pve.clone(), name.to_owned());
        let o = MappingOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        call(&ncc, |ctx| async move { pve.ensure_pci_mapping(&ctx, &name, &o).await })
    }

    /// Removes a PCI mapping that this site made and no machine uses; says whether it did.
    ///
    /// # Example
    /// ```rhai
    /// pve.remove_pci_mapping("gpuhost-a100");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_pci_mapping(ncc: NativeCallContext, pve: &mut Proxmox, name: &str) -> RhaiResultOf<bool> {
        let (pve, name) = (pve.clone(), name.to_owned());
        call(&ncc, |ctx| async move { pve.remove_pci_mapping(&ctx, &name).await })
    }

    /// Checks what the token may do; the report has the `pveum` lines that grant the rest.
    ///
    /// # Example
    /// ```rhai
    /// pve.check_permissions().require();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_permissions(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<Report> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move { pve.check_permissions(&ctx).await })
    }

    /// Checks nodes, storages, bridge, ids and mappings against the site file.
    ///
    /// # Example
    /// ```rhai
    /// pve.check_site().require();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_site(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<Report> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move { pve.check_site(&ctx).await })
    }
}
