//! `connect` and what asks or changes the hypervisor as a whole.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map, NativeCallContext};
use serde_json::Value;

use crate::core::ctx::{List, RhaiResultOf, call};
use crate::core::error::{OpError, OpResult};
use crate::core::op::Op;
use crate::options;
use crate::proxmox::connect::ConnectOptions;
use crate::proxmox::request;
use crate::proxmox::types::{Proxmox, Vm};
use crate::site::Node;

options! {
    /// Which VMs to list; without options all that the token sees.
    pub struct ListVms {
        /// Only VMs of this pool.
        pool: Option<String> = None,
        /// Only VMs with this tag.
        tag: Option<String> = None,
        /// Only VMs of this name.
        name: Option<String> = None,
    }
}

/// An answer of the API as a script value.
pub(super) fn value(v: &Value) -> Dynamic {
    rhai::serde::to_dynamic(v).unwrap_or(Dynamic::UNIT)
}

pub(super) fn list(v: &Value) -> Array {
    v.as_array().map(|a| a.iter().map(value).collect()).unwrap_or_default()
}

async fn list_vms(pve: &Proxmox, ctx: &crate::core::ctx::Ctx, o: &ListVms) -> OpResult<Array> {
    ctx.run_op(Op::read("proxmox", "list_vms", pve.url()), |_| async move {
        let keep = |want: &Option<String>, have: Option<&str>| want.as_deref().is_none_or(|w| have == Some(w));
        let rows = pve.rows(ctx).await?;
        Ok(rows
            .iter()
            .filter(|r| keep(&o.pool, r.pool.as_deref()) && keep(&o.name, Some(&r.name)))
            .filter(|r| o.tag.as_ref().is_none_or(|t| r.tags.contains(t)))
            .map(|r| Dynamic::from(pve.handle_of_row(ctx, r)))
            .collect())
    })
    .await
}

#[export_module]
pub mod api {
    /// Connects to the hypervisor and checks trust and token.
    ///
    /// # Example
    /// ```rhai
    /// let pve = proxmox::connect(site().proxmox);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn connect(ncc: NativeCallContext, options: Map) -> RhaiResultOf<Proxmox> {
        let o = ConnectOptions::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        call(&ncc, |ctx| async move { Proxmox::connect(&ctx, &o).await })
    }

    /// Gives the version of Proxmox VE.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_version());
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_version(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<String> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move { pve.version(&ctx).await })
    }

    /// Lists the hypervisor nodes with status, processors and memory.
    ///
    /// # Example
    /// ```rhai
    /// for n in pve.list_nodes() { print(`${n.node}: ${n.status}`); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_nodes(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<Array> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move {
            let op = Op::read("proxmox", "list_nodes", pve.url());
            ctx.run_op(op, |_| async { Ok(list(&pve.send(&ctx, &request::get("/nodes")).await?)) }).await
        })
    }

    /// Lists the VMs that the token sees.
    ///
    /// Proxmox renews this list every ten seconds: names and states of new VMs may be older than that.
    ///
    /// # Example
    /// ```rhai
    /// for vm in pve.list_vms() { print(`${vm.vmid} ${vm.name}`); }
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "list_vms")]
    pub fn list_all_vms(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<List<Vm>> {
        list_vms_where(ncc, pve, Map::new())
    }

    /// Lists the VMs of a pool, a tag or a name.
    ///
    /// # Example
    /// ```rhai
    /// let ours = pve.list_vms(#{ pool: "gpuhost-homelab" });
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "list_vms")]
    pub fn list_vms_where(ncc: NativeCallContext, pve: &mut Proxmox, options: Map) -> RhaiResultOf<List<Vm>> {
        let (pve, o) = (pve.clone(), ListVms::read(&options).map_err(|e| e.into_rhai(&ncc))?);
        call(&ncc, |ctx| async move { list_vms(&pve, &ctx, &o).await })
    }

    /// Lists the VMs that this site made: machines, template, keepers of data disks.
    ///
    /// # Example
    /// ```rhai
    /// for vm in pve.list_owned() { print(vm.name); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_owned(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<List<Vm>> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move {
            let (pve, run) = (&pve, &ctx);
            ctx.run_op(Op::read("proxmox", "list_owned", pve.url()), |s| async move {
                pve.settle_declared(&s).await?;
                let owned = pve.owned(run).await?;
                Ok(owned.iter().map(|(m, _)| Dynamic::from(pve.handle(run, m))).collect::<Array>())
            })
            .await
        })
    }

    /// Says what of a declared machine is not as the site file has it; changes nothing.
    ///
    /// # Example
    /// ```rhai
    /// for node in site().nodes { print(pve.check_vm(node)); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn check_vm(ncc: NativeCallContext, pve: &mut Proxmox, node: Node) -> RhaiResultOf<List<String>> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move {
            let found = pve.vm_differences(&ctx, &node).await?;
            Ok(found.into_iter().map(Dynamic::from).collect::<Array>())
        })
    }

    /// Finds a VM by name or id; `()` when there is none.
    ///
    /// # Example
    /// ```rhai
    /// let vm = pve.find_vm("k3s-cp1");
    /// if vm != () { print(vm.vmid); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn find_vm(ncc: NativeCallContext, pve: &mut Proxmox, id: Dynamic) -> RhaiResultOf<Dynamic> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move {
            let found = pve.find_vm(&ctx, &id).await?;
            Ok(found.map_or(Dynamic::UNIT, Dynamic::from))
        })
    }

    /// Gives a VM by name or id; an error when there is none.
    ///
    /// # Example
    /// ```rhai
    /// let vm = pve.get_vm("k3s-cp1");
    /// print(vm.get_status().status);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_vm(ncc: NativeCallContext, pve: &mut Proxmox, id: Dynamic) -> RhaiResultOf<Vm> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move {
            let found = pve.find_vm(&ctx, &id).await?;
            found.ok_or_else(|| {
                OpError::not_found(format!("there is no VM `{id}` that this token sees"))
                    .on(id.to_string())
                    .hint("`list_vms()` gives those that it sees")
            })
        })
    }

    /// Lists the PCI devices of a hypervisor node.
    ///
    /// # Example
    /// ```rhai
    /// let cards = pve.list_pci("pve1").filter(|d| d.vendor == "0x10de");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_pci(ncc: NativeCallContext, pve: &mut Proxmox, node: &str) -> RhaiResultOf<Array> {
        let (pve, node) = (pve.clone(), node.to_owned());
        call(&ncc, |ctx| async move {
            ctx.run_op(Op::read("proxmox", "list_pci", &node), |_| async {
                Ok(list(&pve.send(&ctx, &request::list_pci(&node)).await?))
            })
            .await
        })
    }

    /// Makes the site's pool exist.
    ///
    /// # Example
    /// ```rhai
    /// pve.ensure_pool();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_pool(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<()> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move { pve.ensure_pool(&ctx).await })
    }

    /// Removes the site's pool when it is empty; says whether it did.
    ///
    /// # Example
    /// ```rhai
    /// pve.remove_pool();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_pool(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<bool> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move { pve.remove_pool(&ctx).await })
    }
}
