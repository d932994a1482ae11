//! Properties of the handles and reports.
#![allow(clippy::unwrap_used)] // in what the Rhai macro writes
use rhai::plugin::*;
use rhai::{Array, Dynamic, NativeCallContext};

use crate::core::ctx::RhaiResultOf;
use crate::core::error::{Kind, OpError};
use crate::proxmox::types::{Proxmox, Report, Template, Vm};

#[export_module]
pub mod api {
    /// Name of the machine.
    #[rhai_fn(global, get = "name", pure)]
    pub fn vm_name(vm: &mut Vm) -> String {
        vm.name().to_owned()
    }
    /// Id of the machine.
    #[rhai_fn(global, get = "vmid", pure)]
    pub fn vm_id(vm: &mut Vm) -> i64 {
        i64::from(vm.vmid())
    }
    /// Hypervisor node that the machine is on.
    #[rhai_fn(global, get = "pve_node", pure)]
    pub fn vm_pve_node(vm: &mut Vm) -> String {
        vm.pve_node().to_owned()
    }
    /// The site's node; `()` for a VM that is none.
    #[rhai_fn(global, get = "node", pure)]
    pub fn vm_node(vm: &mut Vm) -> Dynamic {
        vm.node().map_or(Dynamic::UNIT, |n| Dynamic::from(n.as_ref().clone()))
    }
    /// Role of the site's node; `()` for a VM that is none.
    #[rhai_fn(global, get = "role", pure)]
    pub fn vm_role(vm: &mut Vm) -> Dynamic {
        vm.node().map_or(Dynamic::UNIT, |n| n.role.clone().into())
    }
    /// Address of the site's node; `()` for a VM that is none.
    #[rhai_fn(global, get = "ip", pure)]
    pub fn vm_ip(vm: &mut Vm) -> Dynamic {
        vm.node().map_or(Dynamic::UNIT, |n| n.ip.clone().into())
    }
    /// `machine`, `template`, or `data` for a VM that only keeps a data disk.
    #[rhai_fn(global, get = "kind", pure)]
    pub fn vm_kind(vm: &mut Vm) -> String {
        if vm.kind.is_empty() { "machine".to_owned() } else { vm.kind.clone() }
    }
    /// The machine as text.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn vm_text(vm: &mut Vm) -> String {
        format!("{} (VM {} on {})", vm.name(), vm.vmid(), vm.pve_node())
    }
    /// URL of the hypervisor.
    #[rhai_fn(global, get = "url", pure)]
    pub fn pve_url(pve: &mut Proxmox) -> String {
        pve.url().to_owned()
    }
    /// The connection as text.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn pve_text(pve: &mut Proxmox) -> String {
        format!("Proxmox at {}", pve.url())
    }
    /// Id of the template.
    #[rhai_fn(global, get = "vmid", pure)]
    pub fn template_id(t: &mut Template) -> i64 {
        i64::from(t.at.vmid)
    }
    /// Name of the template.
    #[rhai_fn(global, get = "name", pure)]
    pub fn template_name(t: &mut Template) -> String {
        t.name.clone()
    }
    /// Hypervisor node of the template.
    #[rhai_fn(global, get = "pve_node", pure)]
    pub fn template_pve_node(t: &mut Template) -> String {
        t.at.node.clone()
    }
    /// The template as text.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn template_text(t: &mut Template) -> String {
        format!("template {} (VM {} on {})", t.name, t.at.vmid, t.at.node)
    }
    /// Whether nothing is wrong.
    #[rhai_fn(global, get = "ok", pure)]
    pub fn report_ok(report: &mut Report) -> bool {
        report.is_ok()
    }
    /// What is in order.
    #[rhai_fn(global, get = "passed", pure)]
    pub fn report_passed(report: &mut Report) -> Array {
        report.passed.iter().map(|t| t.clone().into()).collect()
    }
    /// What deserves a look.
    #[rhai_fn(global, get = "warnings", pure)]
    pub fn report_warnings(report: &mut Report) -> Array {
        report.warnings.iter().map(|t| t.clone().into()).collect()
    }
    /// What is wrong.
    #[rhai_fn(global, get = "problems", pure)]
    pub fn report_problems(report: &mut Report) -> Array {
        report.problems.iter().map(|p| p.text.clone().into()).collect()
    }
    /// Commands that put it right, for root on the hypervisor.
    #[rhai_fn(global, get = "commands", pure)]
    pub fn report_commands(report: &mut Report) -> Array {
        report.commands.iter().map(|t| t.clone().into()).collect()
    }
    /// The report as text.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn report_text(report: &mut Report) -> String {
        report.to_string()
    }

    /// Ends the run with everything that is wrong; does nothing when all is in order.
    ///
    /// # Example
    /// ```rhai
    /// pve.check_permissions().require();
    /// ```
    #[rhai_fn(global, return_raw, pure)]
    pub fn require(ncc: NativeCallContext, report: &mut Report) -> RhaiResultOf<()> {
        let Some(first) = report.problems.first() else { return Ok(()) };
        let kind = if report.rights { Kind::Denied } else { Kind::Failed };
        let mut e = OpError::new(
            kind,
            match report.problems.len() {
                1 => first.text.clone(),
                n => format!("{n} problems"),
            },
        )
        .on(report.title.clone());
        e.op = "proxmox.require".to_owned();
        if report.problems.len() > 1 {
            e.causes = report.problems.iter().map(|p| format!("{} ({})", p.text, p.hint)).collect();
        }
        let mut hint = first.hint.clone();
        if !report.commands.is_empty() {
            hint = format!("{hint}\nas root on the hypervisor:\n  {}", report.commands.join("\n  "));
        }
        Err(e.hint(hint).into_rhai(&ncc))
    }
}
