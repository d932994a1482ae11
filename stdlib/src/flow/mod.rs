//! The language level: steps, fan-out, waiting, proofs, units, files.
mod fanout;
pub(crate) mod files;
mod once;
mod proofs;
mod steps;
mod tables;
mod units;

use rhai::Module;

use crate::core::module::{ModuleDef, fn_options};

/// The module (no prefix in scripts).
#[must_use]
pub fn def() -> ModuleDef {
    let mut module = Module::new();
    for part in [
        steps::module(),
        fanout::module(),
        proofs::module(),
        units::module(),
        files::module(),
        tables::module(),
        once::module(),
    ] {
        module.combine(part);
    }
    ModuleDef {
        name: "",
        docs: "Steps, fan-out, waiting, proofs, units and files.",
        module: module.into(),
        options: vec![
            fn_options("parallel", "options", "ParallelOptions", fanout::ParallelOptions::FIELDS),
            fn_options("retry", "options", "RetryOptions", steps::RetryOptions::FIELDS),
            fn_options("confirm", "options", "ConfirmOptions", proofs::ConfirmOptions::FIELDS),
        ],
    }
}
