//! Machines: make them exist, wait for them, look into them, remove them.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map, NativeCallContext};

use super::hypervisor::value;
use crate::core::ctx::{List, RhaiResultOf, call};
use crate::core::op::Op;
use crate::core::options::OptionValue;
use crate::core::units::Duration;
use crate::proxmox::agent::{AgentOutput, AgentRun};
use crate::proxmox::remove_vm::{RemoveVm, Removed};
use crate::proxmox::request;
use crate::proxmox::shape::EnsureVm;
use crate::proxmox::types::{Proxmox, Vm};
use crate::site::Node;
use crate::ssh::Host;

fn texts(list: Vec<String>) -> Array {
    list.into_iter().map(Dynamic::from).collect()
}

fn removed(r: Removed) -> Map {
    Map::from([("removed".into(), r.removed.into()), ("kept".into(), texts(r.kept).into())])
}

fn output(o: AgentOutput) -> Map {
    Map::from([("code".into(), o.code.into()), ("out".into(), o.out.into()), ("err".into(), o.err.into())])
}

#[export_module]
pub mod api {
    /// Makes a node's machine exist with its shape, and run.
    ///
    /// # Example
    /// ```rhai
    /// let vm = pve.ensure_vm(site().nodes[0]);
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "ensure_vm")]
    pub fn ensure_vm_default(ncc: NativeCallContext, pve: &mut Proxmox, node: Node) -> RhaiResultOf<Vm> {
        ensure_vm(ncc, pve, node, Map::new())
    }

    /// Makes a node's machine exist with its shape, and run.
    ///
    /// Clones the template or changes what differs. A change that needs a restart is refused unless
    /// `restart: true`. What is not proven to be this site's own is never touched.
    ///
    /// # Example
    /// ```rhai
    /// let template = pve.ensure_template(site().template);
    /// let vm = pve.ensure_vm(site().nodes[0], #{ template: template });
    /// vm.wait_ready(15.minutes);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_vm(ncc: NativeCallContext, pve: &mut Proxmox, node: Node, options: Map) -> RhaiResultOf<Vm> {
        let (pve, o) = (pve.clone(), EnsureVm::read(&options).map_err(|e| e.into_rhai(&ncc))?);
        call(&ncc, |ctx| async move { pve.ensure_vm(&ctx, &node, &o).await })
    }

    /// Removes a machine of this site; its data disk is kept.
    ///
    /// # Example
    /// ```rhai
    /// for vm in pve.list_owned() { pve.remove_vm(vm); }
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "remove_vm")]
    pub fn remove_vm_default(ncc: NativeCallContext, pve: &mut Proxmox, vm: Vm) -> RhaiResultOf<Map> {
        remove_vm(ncc, pve, vm, Map::new())
    }

    /// Removes a machine of this site; its data disk only with `delete_data: true`.
    ///
    /// Gives `removed` and the list `kept`. A kept disk is handed to a small stopped machine of the site,
    /// from which `ensure_vm` takes it back.
    ///
    /// # Example
    /// ```rhai
    /// let done = pve.remove_vm(pve.get_vm("nfs1"), #{ delete_data: false });
    /// print(done.kept);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_vm(ncc: NativeCallContext, pve: &mut Proxmox, vm: Vm, options: Map) -> RhaiResultOf<Map> {
        let _ = pve;
        let o = RemoveVm::read(&options).map_err(|e| e.into_rhai(&ncc))?;
        call(&ncc, |ctx| async move { vm.remove(&ctx, &o).await.map(removed) })
    }

    /// Lists the data disks that are kept for machines which do not exist now.
    ///
    /// # Example
    /// ```rhai
    /// for volume in pve.list_kept() { print(volume); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_kept(ncc: NativeCallContext, pve: &mut Proxmox) -> RhaiResultOf<List<String>> {
        let pve = pve.clone();
        call(&ncc, |ctx| async move {
            ctx.run_op(Op::read("proxmox", "list_kept", pve.url()), |_| async { Ok(texts(pve.kept(&ctx).await?)) })
                .await
        })
    }

    /// Waits until the machine runs, its agent answers, its address is up and SSH listens.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").wait_ready(15.minutes);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn wait_ready(ncc: NativeCallContext, vm: &mut Vm, timeout: Duration) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.wait_ready(&ctx, timeout.0).await })
    }

    /// Waits until the guest agent answers.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").wait_agent(5.minutes);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn wait_agent(ncc: NativeCallContext, vm: &mut Vm, timeout: Duration) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.wait_agent(&ctx, timeout.0).await })
    }

    /// Gives the addresses that the guest agent reports, IPv4 first.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_vm("k3s-cp1").get_ips());
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_ips(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<List<String>> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.ips(&ctx).await.map(texts) })
    }

    /// Gives the public SSH host keys, read through the guest agent.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_vm("k3s-cp1").get_host_keys());
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_host_keys(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<Array> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.host_keys(&ctx).await.map(texts) })
    }

    /// Gives the machine as an SSH host whose keys are pinned.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_vm("k3s-cp1").ssh().run("uptime").stdout);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ssh(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<Host> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.ssh(&ctx).await })
    }

    /// Lets the site's SSH key into the machine, through the guest agent.
    ///
    /// For machines that were made with another key. Keys that are there stay.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").ensure_ssh_key();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ensure_ssh_key(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.ensure_ssh_key(&ctx).await })
    }

    /// Lists SSH keys that log in and are the site's no more: fingerprints.
    ///
    /// They are the keys that the machine was made with and those that this program made for other state
    /// directories; not the site's key, not those of `ssh.authorized_keys`.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_vm("k3s-cp1").list_former_ssh_keys());
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn list_former_ssh_keys(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<Array> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.list_former_ssh_keys(&ctx).await.map(texts) })
    }

    /// Takes former SSH keys out of the machine, once the site's key has logged in there.
    ///
    /// They are those of `list_former_ssh_keys`. Where the site's key does not log in, nothing is taken away.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").remove_former_ssh_keys();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn remove_former_ssh_keys(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<()> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move { vm.remove_former_ssh_keys(&ctx).await })
    }

    /// Runs a program through the guest agent; gives `code`, `out` and `err`.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_vm("k3s-cp1").agent_run(["uname", "-r"]).out);
    /// ```
    #[rhai_fn(global, return_raw, pure, name = "agent_run")]
    pub fn agent_run_default(ncc: NativeCallContext, vm: &mut Vm, argv: Array) -> RhaiResultOf<Map> {
        agent_run(ncc, vm, argv, Map::new())
    }

    /// Runs a program through the guest agent; gives `code`, `out` and `err`.
    ///
    /// # Example
    /// ```rhai
    /// let r = pve.get_vm("k3s-cp1").agent_run(["cat"], #{ input: "hello" });
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn agent_run(ncc: NativeCallContext, vm: &mut Vm, argv: Array, options: Map) -> RhaiResultOf<Map> {
        let argv = Vec::<String>::read(&argv.into())
            .map_err(|e| crate::core::error::OpError::invalid(format!("program: {e}")).into_rhai(&ncc))?;
        let (vm, o) = (vm.clone(), AgentRun::read(&options).map_err(|e| e.into_rhai(&ncc))?);
        call(&ncc, |ctx| async move { vm.agent_run(&ctx, &argv, &o).await.map(output) })
    }

    /// Reads a file of the guest through its agent; `()` when it is not there.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_vm("k3s-cp1").read_file("/etc/hostname"));
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn read_file(ncc: NativeCallContext, vm: &mut Vm, path: &str) -> RhaiResultOf<Dynamic> {
        let (vm, path) = (vm.clone(), path.to_owned());
        call(&ncc, |ctx| async move { Ok(vm.read_file(&ctx, &path).await?.map_or(Dynamic::UNIT, Dynamic::from)) })
    }

    /// Makes a file of the guest have this content, through its agent; up to 60 KiB.
    ///
    /// # Example
    /// ```rhai
    /// pve.get_vm("k3s-cp1").write_file("/etc/motd", "keep calm\n");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn write_file(ncc: NativeCallContext, vm: &mut Vm, path: &str, content: &str) -> RhaiResultOf<()> {
        let (vm, path, content) = (vm.clone(), path.to_owned(), content.to_owned());
        call(&ncc, |ctx| async move { vm.write_file(&ctx, &path, &content).await })
    }

    /// Gives the configuration with pending changes applied.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_vm("k3s-cp1").get_config().cores);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_config(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<Dynamic> {
        look(&ncc, vm.clone(), "get_config", request::config)
    }

    /// Gives the configuration with what waits for a restart.
    ///
    /// # Example
    /// ```rhai
    /// for p in pve.get_vm("k3s-cp1").get_pending() { print(p.key); }
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_pending(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<Dynamic> {
        look(&ncc, vm.clone(), "get_pending", request::pending)
    }

    /// Gives the live status: `status`, `uptime`, `mem`, `cpu` and more.
    ///
    /// # Example
    /// ```rhai
    /// print(pve.get_vm("k3s-cp1").get_status().status);
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn get_status(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<Dynamic> {
        look(&ncc, vm.clone(), "get_status", request::status)
    }

    /// Says whose the machine is: `own`, `copy`, `moved`, `foreign` or `unknown`.
    ///
    /// # Example
    /// ```rhai
    /// require(pve.get_vm("k3s-cp1").ownership() == "own", "the machine is ours");
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn ownership(ncc: NativeCallContext, vm: &mut Vm) -> RhaiResultOf<String> {
        let vm = vm.clone();
        call(&ncc, |ctx| async move {
            ctx.run_op(Op::read("proxmox", "ownership", vm.name()), |_| async {
                Ok(vm.verdict(&ctx).await?.ownership.as_str().to_owned())
            })
            .await
        })
    }
}

/// One read of a machine as a script value.
fn look(
    ncc: &NativeCallContext,
    vm: Vm,
    verb: &'static str,
    make: fn(&request::At) -> request::Request,
) -> RhaiResultOf<Dynamic> {
    call(ncc, |ctx| async move {
        ctx.run_op(Op::read("proxmox", verb, vm.name()), |_| async {
            Ok(value(&vm.pve.send(&ctx, &make(&vm.at)).await?))
        })
        .await
    })
}
