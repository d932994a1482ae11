//! The reference as Markdown pages and editor stubs.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::core::options::Field;
use gpuhost_stdlib::site::schema;

use super::terminal::{hidden, tidy};
use crate::reference::{Form, Function, Reference};

const GENERATED: &str = "<!-- written by `gpuhost doc --write`; edit the doc comments in stdlib instead -->";

/// Writes `reference/*.md` and `editor/*.d.rhai` below `dir`; returns how many files.
///
/// # Errors
/// When a file cannot be written.
pub fn write(r: &Reference, dir: &Path) -> OpResult<usize> {
    let fail = |e: std::io::Error| {
        OpError::failed(format!("cannot write the reference to `{}`", dir.display())).because(e.to_string())
    };
    let pages = dir.join("reference");
    std::fs::create_dir_all(&pages).map_err(fail)?;
    let mut n = 0;
    let mut put = |name: String, text: String| -> OpResult<()> {
        n += 1;
        std::fs::write(pages.join(name), text).map_err(fail)
    };
    put(
        "language.md".to_owned(),
        page(r, "", "language level", "Steps, fan-out, waiting, proofs, units, files, the site."),
    )?;
    for (name, docs) in &r.modules {
        put(format!("{name}.md"), page(r, name, name, docs))?;
    }
    put("site-file.md".to_owned(), site_page())?;
    put("lab-grades.md".to_owned(), crate::labs::closing::page(GENERATED))?;
    put("events.md".to_owned(), super::events::page(GENERATED))?;
    put("in-doubt.md".to_owned(), crate::runs::classes::page(GENERATED))?;
    let editor = dir.join("editor");
    std::fs::create_dir_all(&editor).map_err(fail)?;
    let engine = crate::engine::plain();
    let definitions = engine.definitions().include_standard_packages(false);
    for (name, text) in definitions.iter_files() {
        n += 1;
        std::fs::write(editor.join(name), plain_lists(&text)).map_err(fail)?;
    }
    Ok(n)
}

/// Rhai's editors know `array` without what it is made of.
fn plain_lists(text: &str) -> String {
    let plain = |l: &str| l.split_once("-> List<").map_or(l.to_owned(), |(head, _)| format!("{head}-> array;"));
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

fn own(r: &Reference, module: &str) -> Vec<Function> {
    let pick = |f: &&Function| !f.standard && f.module == module && f.form != Form::Operator && !hidden(&f.name);
    let mut list: Vec<Function> = r.functions.iter().filter(pick).cloned().collect();
    // Overloads of one arity too: the pages are compared with those in the tree.
    list.sort_by_cached_key(|f| (f.name.clone(), f.params.len(), f.signature()));
    list
}

fn page(r: &Reference, module: &str, title: &str, docs: &str) -> String {
    let mut out = format!("# {title}\n\n{GENERATED}\n\n{docs}\n");
    let all = own(r, module);
    for f in all.iter().filter(|f| f.form == Form::Function) {
        function(&mut out, r, f);
    }
    let mut types: BTreeMap<&str, Vec<&Function>> = BTreeMap::new();
    for f in all.iter().filter(|f| matches!(f.form, Form::Method | Form::Property)) {
        types.entry(f.params.first().map_or("any", |p| p.ty.as_str())).or_default().push(f);
    }
    for (ty, list) in types {
        writeln!(out, "\n## {ty}").ok();
        let properties: Vec<&&Function> = list.iter().filter(|f| f.form == Form::Property).collect();
        if !properties.is_empty() {
            out.push_str("\n| property | type | |\n|---|---|---|\n");
            for f in properties {
                writeln!(out, "| `{}` | {} | {} |", f.name, f.returns, f.summary()).ok();
            }
        }
        for f in list.iter().filter(|f| f.form == Form::Method) {
            function(&mut out, r, f);
        }
    }
    out
}

fn function(out: &mut String, r: &Reference, f: &Function) {
    writeln!(out, "\n### `{}`\n", f.signature()).ok();
    for l in f.doc.lines() {
        match l.strip_prefix("# ") {
            Some(h) => writeln!(out, "**{h}**").ok(),
            None => writeln!(out, "{l}").ok(),
        };
    }
    if let Some(o) = r.options_for(f) {
        writeln!(out, "\nOptions (`{}`):\n", o.name).ok();
        fields(out, o.fields);
    }
}

fn fields(out: &mut String, list: &[Field]) {
    out.push_str("| key | type | default | |\n|---|---|---|---|\n");
    for x in list {
        let default = x.default.map_or_else(|| "required".to_owned(), |d| format!("`{}`", tidy(d)));
        writeln!(out, "| `{}` | {} | {default} | {} |", x.name, x.ty, x.doc.trim().replace('|', "\\|")).ok();
    }
}

fn site_page() -> String {
    let mut out = format!("# Keys of the site file\n\n{GENERATED}\n");
    for s in schema::SECTIONS {
        let optional = if schema::OPTIONAL.contains(&s.path) { " (may be left out)" } else { "" };
        let head = if s.path == "nodes" { "[[nodes]]".to_owned() } else { format!("[{}]", s.path) };
        writeln!(out, "\n## `{head}`{optional}\n\n{}\n", s.doc).ok();
        fields(&mut out, s.fields);
    }
    out.push_str("\n## Shape: keys of a role or a node\n\n");
    fields(&mut out, schema::SHAPE);
    out
}
