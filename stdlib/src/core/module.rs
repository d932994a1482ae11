//! What a script module offers, in one list: checker, help, completion, docs and stubs read it.
use rhai::{Module, Shared};

use super::options::Field;

/// Options that a function's map parameter takes.
#[derive(Debug, Clone, Copy)]
pub struct FnOptions {
    /// Function name.
    pub function: &'static str,
    /// Name of the map parameter.
    pub param: &'static str,
    /// Name of the options struct in docs.
    pub name: &'static str,
    /// The options.
    pub fields: &'static [Field],
}

/// One script module.
pub struct ModuleDef {
    /// Name in scripts; empty for the language level.
    pub name: &'static str,
    /// Introduction of the reference page.
    pub docs: &'static str,
    /// The functions.
    pub module: Shared<Module>,
    /// Which function's map takes which options.
    pub options: Vec<FnOptions>,
}

impl ModuleDef {
    /// Ready for engines: one that gets a module without index or id makes a copy of its own.
    pub(crate) fn indexed(mut self) -> Self {
        if !self.name.is_empty() {
            let module = Shared::make_mut(&mut self.module);
            module.set_id(self.name);
            module.build_index();
        }
        self
    }
}

/// Shorthand for [`FnOptions`].
#[must_use]
pub const fn fn_options(
    function: &'static str,
    param: &'static str,
    name: &'static str,
    fields: &'static [Field],
) -> FnOptions {
    FnOptions { function, param, name, fields }
}
