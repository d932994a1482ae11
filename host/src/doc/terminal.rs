//! The reference as text for `gpuhost doc` and `help()`.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::reference::{Form, Function, Reference};

/// Receiver type of a member, without the modules' own types mixed up.
fn receiver(f: &Function) -> Option<&str> {
    matches!(f.form, Form::Method | Form::Property).then(|| f.params.first().map_or("any", |p| p.ty.as_str()))
}

fn line(out: &mut String, width: usize, f: &Function) {
    writeln!(out, "  {:<width$}  {}", f.signature(), f.summary()).ok();
}

fn table(out: &mut String, list: &[&Function]) {
    let width = list.iter().map(|f| f.signature().chars().count()).filter(|n| *n <= 60).max().unwrap_or(0);
    for f in list {
        line(out, width, f);
    }
}

/// Everything in one list: modules, then the language level.
#[must_use]
pub fn overview(r: &Reference) -> String {
    let mut out = String::from("Modules (`gpuhost doc MODULE`):\n");
    for (name, docs) in &r.modules {
        writeln!(out, "  {name:<12} {}", docs.lines().next().unwrap_or_default()).ok();
    }
    out.push_str("\nLanguage level:\n");
    let list: Vec<&Function> = sorted(r, |f| f.module.is_empty() && f.form == Form::Function);
    table(&mut out, &list);
    let types: BTreeSet<&str> = r.functions.iter().filter(|f| !f.standard).filter_map(receiver).collect();
    writeln!(out, "\nTypes: {}", types.into_iter().filter(|t| *t != "any").collect::<Vec<_>>().join(", ")).ok();
    out.push_str("`gpuhost doc NAME` explains a module, function, method or type.\n");
    out
}

fn sorted(r: &Reference, pick: impl Fn(&Function) -> bool) -> Vec<&Function> {
    let shown = |f: &&Function| !f.standard && f.form != Form::Operator && !hidden(&f.name);
    let mut list: Vec<&Function> = r.functions.iter().filter(shown).filter(|f| pick(f)).collect();
    list.sort_by(|a, b| {
        (a.form == Form::Property, &a.name, a.params.len()).cmp(&(b.form == Form::Property, &b.name, b.params.len()))
    });
    list
}

/// Functions that are called for the user, never by name.
#[must_use]
pub fn hidden(name: &str) -> bool {
    matches!(name, "to_string" | "to_debug" | "to_display")
}

/// A module's page.
#[must_use]
pub fn module(r: &Reference, name: &str) -> String {
    let mut out = format!("{name}\n");
    if let Some(docs) = r.modules.get(name) {
        writeln!(out, "  {docs}").ok();
    }
    let list = sorted(r, |f| f.module == name && f.form == Form::Function);
    if !list.is_empty() {
        out.push_str("\nFunctions:\n");
        table(&mut out, &list);
    }
    let mut members: BTreeMap<&str, Vec<&Function>> = BTreeMap::new();
    for f in sorted(r, |f| f.module == name) {
        if let Some(t) = receiver(f) {
            members.entry(t).or_default().push(f);
        }
    }
    for (ty, list) in members {
        writeln!(out, "\n{ty}:").ok();
        table(&mut out, &list);
    }
    out
}

/// A type's page: what its values have.
#[must_use]
pub fn type_page(r: &Reference, ty: &str) -> Option<String> {
    let list = sorted(r, |f| receiver(f) == Some(ty));
    if list.is_empty() {
        return None;
    }
    let mut out = format!("{ty}\n");
    table(&mut out, &list);
    Some(out)
}

/// Full texts of the functions called `name` (in `module`, or of the type `module`).
#[must_use]
pub fn functions(r: &Reference, module: &str, name: &str) -> Vec<String> {
    let pick = |f: &&Function| {
        f.form != Form::Operator && (module.is_empty() || f.module == module || receiver(f) == Some(module))
    };
    let mut list: Vec<&Function> = r.named(name).filter(pick).collect();
    if list.iter().any(|f| !f.standard) {
        list.retain(|f| !f.standard);
    }
    list.into_iter().map(|f| full(r, f)).collect()
}

/// Signature, doc and options of one function.
#[must_use]
pub fn full(r: &Reference, f: &Function) -> String {
    let mut out = format!("{}\n", f.signature());
    let mut code = false;
    for l in f.doc.lines() {
        if l.trim_start().starts_with("```") {
            code = !code;
            continue;
        }
        let l = l.strip_prefix("# ").map_or_else(|| l.to_owned(), |h| format!("{h}:"));
        let indent = if code { "      " } else { "  " };
        writeln!(out, "{}", format!("{indent}{l}").trim_end()).ok();
    }
    if let Some(o) = r.options_for(f) {
        writeln!(out, "  Options ({}):", o.name).ok();
        let width = o.fields.iter().map(|x| x.name.len()).max().unwrap_or(0);
        let types = o.fields.iter().map(|x| x.ty.len()).max().unwrap_or(0);
        for x in o.fields {
            let default = x.default.map_or_else(|| "required".to_owned(), |d| format!("default {}", tidy(d)));
            writeln!(out, "    {:<width$}  {:<types$}  {} ({default})", x.name, x.ty, x.doc.trim()).ok();
        }
    }
    out
}

/// A default as a script user would write it.
#[must_use]
pub fn tidy(default: &str) -> String {
    let d = default.trim();
    let d = d.strip_suffix(".to_owned()").or_else(|| d.strip_suffix(".into()")).unwrap_or(d);
    let d = d.strip_prefix("rhai::").or_else(|| d.strip_prefix("crate::core::units::")).unwrap_or(d);
    let d = d.strip_prefix("Dynamic::from(").and_then(|r| r.strip_suffix(')')).unwrap_or(d);
    if let Some(list) = d.strip_prefix("vec![").and_then(|r| r.strip_suffix(']')) {
        return format!("[{list}]");
    }
    match d {
        "None" | "Dynamic::UNIT" | "Value::Null" | "Stdin::default()" => "none".to_owned(),
        "Vec::new()" | "Array::new()" => "[]".to_owned(),
        "BTreeMap::new()" | "Map::new()" => "#{}".to_owned(),
        "String::new()" => "\"\"".to_owned(),
        _ => {
            for (from, to) in [("secs", "seconds"), ("minutes", "minutes"), ("gib", "gib"), ("mib", "mib")] {
                for ty in ["Duration", "Size"] {
                    if let Some(n) = d.strip_prefix(&format!("{ty}::{from}(")).and_then(|r| r.strip_suffix(')')) {
                        return format!("{n}.{to}");
                    }
                }
            }
            d.to_owned()
        }
    }
}
