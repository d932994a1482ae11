//! What a script module offers, in one list: checker, help, completion, docs and stubs read it.
use rhai::Module;

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
    pub module: Module,
    /// Which function's map takes which options.
    pub options: Vec<FnOptions>,
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
