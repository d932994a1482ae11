//! The script functions, split by noun.
mod access;
mod hypervisor;
mod power;
mod shared;
mod storage;
mod values;
mod vm;

use rhai::Module;
use rhai::plugin::*;

use crate::core::module::{ModuleDef, fn_options};

use super::access::{GrantOptions, TokenOptions};
use super::agent::AgentRun;
use super::backup::BackupOptions;
use super::connect::ConnectOptions;
use super::mapping::MappingOptions;
use super::moves::{MigrateOptions, MoveDiskOptions};
use super::remove_vm::RemoveVm;
use super::shape::EnsureVm;
use super::snapshot::SnapshotOptions;
use super::storage::{FileOptions, ListContent};
use super::tasks::ListTasks;
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
    combine_with_exported_module!(&mut module, "power", power::api);
    combine_with_exported_module!(&mut module, "storage", storage::api);
    combine_with_exported_module!(&mut module, "access", access::api);
    combine_with_exported_module!(&mut module, "shared", shared::api);
    combine_with_exported_module!(&mut module, "values", values::api);
    ModuleDef {
        name: "proxmox",
        docs: DOCS,
        module: module.into(),
        options: vec![
            fn_options("connect", "options", "ConnectOptions", ConnectOptions::FIELDS),
            fn_options("list_vms", "options", "ListVms", hypervisor::ListVms::FIELDS),
            fn_options("ensure_vm", "options", "EnsureVm", EnsureVm::FIELDS),
            fn_options("remove_vm", "options", "RemoveVm", RemoveVm::FIELDS),
            fn_options("agent_run", "options", "AgentRun", AgentRun::FIELDS),
            fn_options("ensure_snapshot", "options", "SnapshotOptions", SnapshotOptions::FIELDS),
            fn_options("backup", "options", "BackupOptions", BackupOptions::FIELDS),
            fn_options("migrate", "options", "MigrateOptions", MigrateOptions::FIELDS),
            fn_options("move_disk", "options", "MoveDiskOptions", MoveDiskOptions::FIELDS),
            fn_options("list_content", "options", "ListContent", ListContent::FIELDS),
            fn_options("upload", "options", "FileOptions", FileOptions::FIELDS),
            fn_options("download_url", "options", "FileOptions", FileOptions::FIELDS),
            fn_options("tasks", "options", "ListTasks", ListTasks::FIELDS),
            fn_options("ensure_token", "options", "TokenOptions", TokenOptions::FIELDS),
            fn_options("ensure_grant", "options", "GrantOptions", GrantOptions::FIELDS),
            fn_options("ensure_template", "options", "TemplateOptions", TemplateOptions::FIELDS),
            fn_options("remove_template", "options", "TemplateOptions", TemplateOptions::FIELDS),
            fn_options("ensure_pci_mapping", "options", "MappingOptions", MappingOptions::FIELDS),
        ],
    }
}
