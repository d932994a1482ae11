//! The reference: on the terminal, as pages, as editor stubs. One source: the functions' own docs.
pub mod events;
pub mod pages;
pub mod terminal;

use std::sync::Arc;

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::options::closest;

use crate::args::DocArgs;
use crate::exit::Exit;
use crate::reference::{Form, Reference};
use crate::screen::Screen;

/// Runs `gpuhost doc`.
#[must_use]
pub fn command(args: &DocArgs, screen: &Arc<Screen>) -> Exit {
    let reference = Reference::builtin();
    let done = match (&args.write, &args.what) {
        (Some(dir), _) => pages::write(reference, dir).map(|n| format!("{n} files written to {}", dir.display())),
        (None, None) => Ok(terminal::overview(reference)),
        (None, Some(what)) => lookup(reference, what),
    };
    match done {
        Ok(text) => {
            screen.prose(text.trim_end());
            Exit::Done
        }
        Err(e) => {
            crate::errors::show_error(screen, &e, None);
            Exit::Usage
        }
    }
}

/// The text for a module, `module::function`, function, method or type.
///
/// # Errors
/// `not_found` with the closest name.
pub fn lookup(reference: &Reference, what: &str) -> OpResult<String> {
    let what = what.trim().trim_end_matches("()");
    if reference.modules.contains_key(what) {
        return Ok(terminal::module(reference, what));
    }
    let (module, name) = what.rsplit_once("::").or_else(|| what.rsplit_once('.')).unwrap_or(("", what));
    let found = terminal::functions(reference, module, name);
    if !found.is_empty() {
        return Ok(found.join("\n"));
    }
    if let Some(text) = terminal::type_page(reference, what) {
        return Ok(text);
    }
    // `vm.start`: the page writes methods with the name of a value.
    if what.contains('.') {
        let found = terminal::functions(reference, "", name);
        if !found.is_empty() {
            return Ok(found.join("\n"));
        }
    }
    let e = OpError::not_found(format!("nothing is called `{what}`"));
    let there = reference.functions.iter().filter(|f| !module.is_empty() && f.module == module);
    if let Some(k) = closest(name, there.map(|f| f.name.as_str())) {
        return Err(e.hint(format!("did you mean `{module}::{k}`?")));
    }
    let ours = reference.functions.iter().filter(|f| !f.standard && f.form != Form::Operator);
    let names = reference.modules.keys().map(String::as_str).chain(ours.map(|f| f.name.as_str()));
    Err(match closest(name, names) {
        Some(k) => e.hint(format!("did you mean `{k}`?")),
        None => e.hint("`gpuhost doc` lists everything"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_functions_options_and_types() {
        let r = Reference::builtin();
        let text = lookup(r, "parallel").unwrap();
        assert!(text.contains("parallel(list: array, options: Map, work: Fn) -> array"), "{text}");
        assert!(text.contains("limit") && text.contains("How many items run at the same time"), "{text}");
        assert!(lookup(r, "ssh").unwrap().contains("ssh::connect"));
        assert!(lookup(r, "Host").unwrap().contains("run"));
        assert_eq!(lookup(r, "paralel").unwrap_err().hint.as_deref(), Some("did you mean `parallel`?"));
        assert!(terminal::overview(r).contains("ssh"));
    }

    #[test]
    fn pages_cover_every_module_and_the_site_file() {
        let dir = std::env::temp_dir().join(format!("gpuhost-doc-{}", std::process::id()));
        let r = Reference::builtin();
        pages::write(r, &dir).unwrap();
        for m in r.modules.keys() {
            let text = std::fs::read_to_string(dir.join(format!("reference/{m}.md"))).unwrap();
            assert!(text.starts_with(&format!("# {m}")), "{m}");
        }
        let site = std::fs::read_to_string(dir.join("reference/site-file.md")).unwrap();
        assert!(site.contains("[network]"));
        let stub = std::fs::read_to_string(dir.join("editor/__static__.d.rhai")).unwrap();
        assert!(stub.contains("parallel"));
        std::fs::remove_dir_all(&dir).ok();
    }
}
