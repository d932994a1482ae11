//! The script functions, split by noun.
mod hypervisor;
mod shared;
mod values;
mod vm;

use rhai::Module;
use rhai::plugin::*;

use crate::core::module::{ModuleDef, fn_options};

use super::agent::AgentRun;
use super::client::ConnectOptions;
use super::ensure_vm::EnsureVm;
use super::mapping::MappingOptions;
use super::remove_vm::RemoveVm;
use super::template::TemplateOptions;

const DOCS: &str = "The Proxmox VE API: machines, template, PCI mappings, storages and checks.\n\n\
Everything that a site makes is in the pool `gpuhost-<site>` and carries a marker with the site's UUID. Only what \
is proven to be the site's own is ever changed or removed; a copy, a moved, a foreign or a hidden VM stops the run \
with what was seen and what to do.\n\n\
```rhai\nlet pve = proxmox::connect(site().proxmox);\nprint(pve.get_version());\n```";

/// The script module.
#[must_use]
pub fn def() -> ModuleDef {
    let mut module = Module::new();
    combine_with_exported_module!(&mut module, "hypervisor", hypervisor::api);
    combine_with_exported_module!(&mut module, "vm", vm::api);
    combine_with_exported_module!(&mut module, "shared", shared::api);
    combine_with_exported_module!(&mut module, "values", values::api);
    ModuleDef {
        name: "proxmox",
        docs: DOCS,
        module,
        options: vec![
            fn_options("connect", "options", "ConnectOptions", ConnectOptions::FIELDS),
            fn_options("list_vms", "options", "ListVms", hypervisor::ListVms::FIELDS),
            fn_options("ensure_vm", "options", "EnsureVm", EnsureVm::FIELDS),
            fn_options("remove_vm", "options", "RemoveVm", RemoveVm::FIELDS),
            fn_options("agent_run", "options", "AgentRun", AgentRun::FIELDS),
            fn_options("ensure_template", "options", "TemplateOptions", TemplateOptions::FIELDS),
            fn_options("remove_template", "options", "TemplateOptions", TemplateOptions::FIELDS),
            fn_options("ensure_pci_mapping", "options", "MappingOptions", MappingOptions::FIELDS),
        ],
    }
}
