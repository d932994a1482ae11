//! Script modules of gpuhost and their typed clients. Never prints, holds no global state.
pub mod core;
pub mod doctor;
pub mod flow;
pub mod gpu;
pub mod helm;
pub mod k3s;
pub mod kubernetes;
pub mod nfs;
pub mod proxmox;
pub mod site;
pub mod ssh;
pub mod wire;

/// The language-level and typed modules that scripts see: the only registry.
#[must_use]
pub fn modules() -> Vec<core::module::ModuleDef> {
    vec![
        kubernetes::def(),
        k3s::def(),
        helm::def(),
        gpu::def(),
        doctor::def(),
        flow::def(),
        site::def(),
        ssh::def(),
        nfs::def(),
        proxmox::def(),
    ]
}
