//! What scripts can call, from the engine's own metadata: one list for errors, check, help, completion and pages.
use std::collections::BTreeMap;

use gpuhost_stdlib::core::module::{FnOptions, ModuleDef};
use rhai::Engine;
use serde::Deserialize;

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Name; empty when unknown.
    pub name: String,
    /// Type as users know it; `any` when unknown.
    pub ty: String,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `f(a, b)` or `module::f(a, b)`.
    Function,
    /// `a.f(b)`; the first parameter is the receiver.
    Method,
    /// `a.f`.
    Property,
    /// `+`, `==`, setters, indexers: not called by name.
    Operator,
}

/// One function that scripts can call.
#[derive(Debug, Clone)]
pub struct Function {
    /// Module; empty at the language level.
    pub module: String,
    /// Name, without the getter's prefix.
    pub name: String,
    /// How it is called.
    pub form: Form,
    /// Parameters, with the receiver.
    pub params: Vec<Param>,
    /// Type of the result; empty when it gives nothing back.
    pub returns: String,
    /// Doc comment without the slashes.
    pub doc: String,
    /// Whether Rhai brings it along.
    pub standard: bool,
    /// Whether it can be called without the module's name, for example as a method.
    pub global: bool,
}

/// Everything that scripts can call.
pub struct Reference {
    /// All functions.
    pub functions: Vec<Function>,
    /// Introductions of the modules, by name.
    pub modules: BTreeMap<String, &'static str>,
    /// Options of functions: (module, entry).
    pub options: Vec<(&'static str, FnOptions)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaParam {
    #[serde(default)]
    name: Option<String>,
    #[serde(default, rename = "type")]
    ty: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaFn {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    is_anonymous: bool,
    num_params: usize,
    #[serde(default)]
    params: Vec<MetaParam>,
    #[serde(default)]
    return_type: String,
    #[serde(default)]
    doc_comments: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    modules: BTreeMap<String, Meta>,
    #[serde(default)]
    functions: Vec<MetaFn>,
}

/// A Rust type as script users know it.
#[must_use]
pub fn type_word(rust: &str) -> String {
    let mut t = rust.trim().trim_start_matches("&mut ").trim_start_matches('&').trim().to_owned();
    for wrap in ["RhaiResultOf<", "Result<", "Option<", "alloc::sync::Arc<", "Arc<", "Shared<"] {
        while let Some(inner) = t.strip_prefix(wrap) {
            let inner = inner.strip_suffix('>').unwrap_or(inner).trim();
            t = inner.split(", Box<").next().unwrap_or(inner).trim().to_owned();
        }
    }
    let last = t.rsplit("::").next().unwrap_or(&t).trim();
    match last {
        "i64" | "INT" | "i32" | "u32" | "u64" | "usize" => "int",
        "f64" | "f32" | "FLOAT" => "float",
        "&str" | "str" | "String" | "ImmutableString" => "string",
        "Dynamic" | "?" | "" | "any" => "any",
        "SiteRef" => "Site",
        "FnPtr" => "Fn",
        "OpError" => "Error",
        "()" => "",
        other => return other.replace("Array", "array").replace("map", "Map"),
    }
    .to_owned()
}

fn is_identifier(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn convert(module: &str, f: &MetaFn, standard: bool) -> Option<Function> {
    if f.is_anonymous {
        return None;
    }
    let mut params: Vec<Param> = f
        .params
        .iter()
        .take(f.num_params)
        .map(|p| Param { name: p.name.clone().unwrap_or_default(), ty: type_word(p.ty.as_deref().unwrap_or("?")) })
        .collect();
    while params.len() < f.num_params {
        params.push(Param { name: String::new(), ty: "any".to_owned() });
    }
    let receiver = f.params.first().and_then(|p| p.ty.as_deref()).is_some_and(|t| t.trim().starts_with("&mut "));
    let global = f.namespace == "global";
    let (name, form) = match f.name.strip_prefix("get$") {
        Some(n) => (n.to_owned(), Form::Property),
        None if !is_identifier(&f.name) => (f.name.clone(), Form::Operator),
        None if receiver && (global || module.is_empty()) => (f.name.clone(), Form::Method),
        None => (f.name.clone(), Form::Function),
    };
    let doc: Vec<&str> =
        f.doc_comments.iter().flat_map(|d| d.lines()).map(|l| l.trim_start().trim_start_matches("///")).collect();
    let doc: Vec<&str> = doc.iter().map(|l| l.strip_prefix(' ').unwrap_or(l).trim_end()).collect();
    Some(Function {
        module: module.to_owned(),
        name,
        form,
        params,
        returns: if f.return_type.trim() == "()" { String::new() } else { type_word(&f.return_type) },
        doc: doc.join("\n").trim().to_owned(),
        standard,
        global: module.is_empty() || global,
    })
}

fn collect(module: &str, meta: &Meta, standard: bool, out: &mut Vec<Function>) {
    out.extend(meta.functions.iter().filter_map(|f| convert(module, f, standard)));
    for (name, m) in &meta.modules {
        let path = if module.is_empty() { name.clone() } else { format!("{module}::{name}") };
        collect(&path, m, standard, out);
    }
}

impl Reference {
    /// Reads the metadata of `engine`, whose script modules are `defs`.
    #[must_use]
    pub fn of(engine: &Engine, defs: &[ModuleDef]) -> Self {
        let parse = |standard: bool| -> Meta {
            engine
                .gen_fn_metadata_to_json(standard)
                .ok()
                .and_then(|t| serde_json::from_str(&t).ok())
                .unwrap_or_default()
        };
        let mut functions = Vec::new();
        collect("", &parse(false), false, &mut functions);
        let own: std::collections::BTreeSet<String> = functions.iter().map(Function::key).collect();
        let mut all = Vec::new();
        collect("", &parse(true), true, &mut all);
        functions.extend(all.into_iter().filter(|f| !own.contains(&f.key())));
        // What Rhai calls without registering it.
        Reference {
            functions,
            modules: defs.iter().filter(|d| !d.name.is_empty()).map(|d| (d.name.to_owned(), d.docs)).collect(),
            options: defs.iter().flat_map(|d| d.options.iter().map(|o| (d.name, *o))).collect(),
        }
    }

    /// The reference of this program's script modules.
    #[must_use]
    pub fn builtin() -> Self {
        let engine = crate::engine::plain();
        Self::of(&engine, &gpuhost_stdlib::modules())
    }

    /// Functions of that name, in any module and form.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Function> {
        self.functions.iter().filter(move |f| f.name == name)
    }

    /// The options that the map parameter of `module::function` takes.
    #[must_use]
    pub fn options_of(&self, module: &str, function: &str) -> Option<&FnOptions> {
        self.options.iter().find(|(m, o)| *m == module && o.function == function).map(|(_, o)| o)
    }

    /// The entry of the script module that the options of `f` belong to.
    #[must_use]
    pub fn options_for(&self, f: &Function) -> Option<&FnOptions> {
        if !f.params.iter().any(|p| p.ty == "Map") {
            return None;
        }
        self.options_of(&f.module, &f.name)
    }

    /// Methods and properties of values of type `ty`.
    pub fn members<'a>(&'a self, ty: &'a str) -> impl Iterator<Item = &'a Function> {
        self.functions.iter().filter(move |f| {
            matches!(f.form, Form::Method | Form::Property) && f.params.first().is_some_and(|p| p.ty == ty)
        })
    }
}

impl Function {
    fn key(&self) -> String {
        let types: Vec<&str> = self.params.iter().map(|p| p.ty.as_str()).collect();
        format!("{}::{}({})", self.module, self.name, types.join(","))
    }

    /// First line of the doc.
    #[must_use]
    pub fn summary(&self) -> &str {
        self.doc.lines().next().unwrap_or_default()
    }

    /// `vm.wait_ready(limit: Duration) -> Vm`.
    #[must_use]
    pub fn signature(&self) -> String {
        let show = |p: &Param| match (p.name.as_str(), p.ty.as_str()) {
            ("", t) => t.to_owned(),
            (n, "any") => n.to_owned(),
            (n, t) => format!("{n}: {t}"),
        };
        let (head, rest) = match self.form {
            Form::Method | Form::Property => {
                let receiver = self
                    .params
                    .first()
                    .map_or("value", |p| if p.name.is_empty() || p.name == "?" { "value" } else { p.name.as_str() });
                (format!("{receiver}.{}", self.name), self.params.get(1..).unwrap_or_default())
            }
            _ if self.module.is_empty() => (self.name.clone(), &self.params[..]),
            _ => (format!("{}::{}", self.module, self.name), &self.params[..]),
        };
        let args = if self.form == Form::Property {
            String::new()
        } else {
            format!("({})", rest.iter().map(show).collect::<Vec<_>>().join(", "))
        };
        if self.returns.is_empty() { format!("{head}{args}") } else { format!("{head}{args} -> {}", self.returns) }
    }

    /// Arguments at the call, without the receiver of a method.
    #[must_use]
    pub fn arity(&self) -> usize {
        match self.form {
            Form::Method | Form::Property => self.params.len().saturating_sub(1),
            _ => self.params.len(),
        }
    }
}
