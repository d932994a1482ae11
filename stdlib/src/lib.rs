//! Script modules of gpuhost and their typed clients. Never prints; its only static is the list of functions.
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

/// The language-level and typed modules that scripts see: the only registry, made once and shared by all engines.
#[must_use]
pub fn modules() -> &'static [core::module::ModuleDef] {
    static MODULES: std::sync::LazyLock<Vec<core::module::ModuleDef>> = std::sync::LazyLock::new(|| {
        let defs = [
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
        ];
        defs.into_iter().map(core::module::ModuleDef::indexed).collect()
    });
    &MODULES
}
