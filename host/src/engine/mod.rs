//! The script engine: limits, the script modules, clock-aware built-ins, cancellation.
pub mod builtins;
pub mod resolver;

use std::sync::{Arc, LazyLock};

use gpuhost_stdlib::core::ctx::{Ctx, Run};
use rhai::packages::{Package, StandardPackage};
use rhai::{Dynamic, Engine, Shared};

pub use resolver::Resolver;

/// Stack of the thread that runs a script: recursion of the engine needs far more than the usual 2 MiB.
pub const SCRIPT_STACK: usize = 64 << 20;

/// An engine with the language rules and the script modules, without a run: for `check`, `doc` and completion.
#[must_use]
pub fn plain() -> Engine {
    static STANDARD: LazyLock<Shared<rhai::Module>> = LazyLock::new(|| StandardPackage::new().as_shared_module());
    // What `Engine::new` does, with one standard package for all engines; output and imports are set by `attach`, `rules`.
    let mut e = Engine::new_raw();
    e.set_max_strings_interned(256);
    e.register_global_module(STANDARD.clone());
    rules(&mut e);
    for m in gpuhost_stdlib::modules() {
        if m.name.is_empty() {
            e.register_global_module(m.module.clone());
        } else {
            e.register_static_module(m.name, m.module.clone());
        }
    }
    builtins::register(&mut e);
    name_types(&mut e);
    e
}

/// `type_of` and the engine's own messages say `Vm`, as the reference does.
fn name_types(e: &mut Engine) {
    macro_rules! named { ($($ty:ty),* $(,)?) => { $(
        let name = std::any::type_name::<$ty>();
        e.register_type_with_name::<$ty>(name.rsplit("::").next().unwrap_or(name));
    )* } }
    use gpuhost_stdlib::core::units::{Duration, Secret, Size};
    use gpuhost_stdlib::{helm, kubernetes, nfs, proxmox, site, ssh};
    named!(Duration, Secret, Size, kubernetes::Cluster, helm::Release, nfs::Export, site::Node);
    named!(ssh::Host, ssh::Group, ssh::Output, ssh::Tunnel);
    named!(proxmox::Proxmox, proxmox::Vm, proxmox::PveNode, proxmox::Storage, proxmox::Task, proxmox::Report);
    named!(proxmox::Template);
    e.register_type_with_name::<gpuhost_stdlib::core::error::OpError>("Error");
}

fn rules(e: &mut Engine) {
    e.set_strict_variables(true);
    e.set_fail_on_invalid_map_property(true);
    // The debug defaults (8 and 32/16) are too low for real recipes.
    e.set_max_call_levels(128);
    e.set_max_expr_depths(256, 128);
    // Waiting costs no operations and Ctrl-C ends any loop, so operations are not limited.
    e.set_max_operations(0);
    e.set_max_modules(200);
    e.set_max_functions(5_000);
    e.set_max_variables(10_000);
    e.set_max_string_size(64 << 20);
    e.set_max_array_size(1_000_000);
    e.set_max_map_size(1_000_000);
    e.disable_symbol("eval");
    e.set_module_resolver(Resolver::default());
}

/// Ties an engine to a run: its context, its output, its cancellation.
pub fn attach(e: &mut Engine, run: &Arc<Run>) {
    e.set_default_tag(Dynamic::from(run.clone()));
    let cancel = run.cancel.clone();
    e.on_progress(move |_| cancel.is_cancelled().then(|| Dynamic::from("interrupted")));
    let r = Arc::downgrade(run);
    e.on_print(move |text| {
        if let Some(run) = r.upgrade() {
            Ctx::new(run).message("print", text);
        }
    });
    let r = Arc::downgrade(run);
    e.on_debug(move |text, source, pos| {
        if let Some(run) = r.upgrade() {
            let at = match source {
                Some(s) => format!("{s}:{}", pos.line().unwrap_or(0)),
                None => format!("line {}", pos.line().unwrap_or(0)),
            };
            Ctx::new(run).message("debug", format!("{at}: {text}"));
        }
    });
}
