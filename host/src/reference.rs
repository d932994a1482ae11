//! What scripts can call, from the engine's own metadata: one list for errors, check, help, completion and pages.
use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use gpuhost_stdlib::core::module::{FnOptions, ModuleDef};
use rhai::{Engine, FuncInfo};

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

/// A Rust type as script users know it.
#[must_use]
pub fn type_word(rust: &str) -> String {
    let mut t = rust.trim().trim_start_matches("&mut ").trim_start_matches('&').trim();
    for wrap in ["RhaiResultOf<", "Result<", "Option<", "alloc::sync::Arc<", "Arc<", "Shared<"] {
        while let Some(inner) = t.strip_prefix(wrap) {
            let inner = inner.strip_suffix('>').unwrap_or(inner).trim();
            t = inner.split_once(", Box<").map_or(inner, |(ok, _)| ok).trim();
        }
    }
    if let Some(element) = t.rsplit_once("List<").and_then(|(_, e)| e.strip_suffix('>')) {
        return format!("[{}]", type_word(element));
    }
    match t.rsplit_once("::").map_or(t, |(_, last)| last).trim() {
        "i64" | "INT" | "i32" | "u32" | "u64" | "usize" => "int".to_owned(),
        "f64" | "f32" | "FLOAT" => "float".to_owned(),
        "&str" | "str" | "String" | "ImmutableString" => "string".to_owned(),
        "Dynamic" | "?" | "" | "any" => "any".to_owned(),
        "SiteRef" => "Site".to_owned(),
        "FnPtr" => "Fn".to_owned(),
        "OpError" => "Error".to_owned(),
        "()" => String::new(),
        other => other.replace("Array", "array").replace("map", "Map"),
    }
}

fn is_identifier(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `name: type` of the engine's list; what it does not know is empty.
fn named(info: &str) -> (&str, &str) {
    let known = |t: &'_ str| !matches!(t, "" | "?" | "_");
    let (name, ty) = info.split_once(':').unwrap_or((info, ""));
    let (name, ty) = (name.trim(), ty.trim());
    (if known(name) { name } else { "" }, if known(ty) { ty } else { "" })
}

fn convert(f: &FuncInfo<'_>, standard: bool) -> Function {
    let (meta, module) = (f.metadata, f.namespace.as_str());
    let info: Vec<(&str, &str)> = meta.params_info.iter().take(meta.num_params).map(|p| named(p)).collect();
    let mut params: Vec<Param> =
        info.iter().map(|(name, ty)| Param { name: (*name).to_owned(), ty: type_word(ty) }).collect();
    while params.len() < meta.num_params {
        params.push(Param { name: String::new(), ty: "any".to_owned() });
    }
    let receiver = info.first().is_some_and(|(_, ty)| ty.starts_with("&mut "));
    let global = module.is_empty() || meta.namespace.is_global_namespace();
    let (name, form) = match meta.name.strip_prefix("get$") {
        Some(n) => (n.to_owned(), Form::Property),
        None if !is_identifier(&meta.name) => (meta.name.to_string(), Form::Operator),
        None if receiver && global => (meta.name.to_string(), Form::Method),
        None => (meta.name.to_string(), Form::Function),
    };
    let mut doc = String::new();
    for line in meta.comments.iter().flat_map(|d| d.lines()) {
        let line = line.trim_start().trim_start_matches("///");
        let line = line.strip_prefix(' ').unwrap_or(line).trim_end();
        if !(doc.is_empty() && line.is_empty()) {
            doc.push_str(line);
            doc.push('\n');
        }
    }
    doc.truncate(doc.trim_end().len());
    let returns = meta.return_type.trim();
    Function {
        module: module.to_owned(),
        name,
        form,
        params,
        returns: if returns == "()" { String::new() } else { type_word(returns) },
        doc,
        standard,
        global,
    }
}

/// The functions of `engine`, sorted: those of gpuhost, or those at the language level with Rhai's own among them.
fn collect(engine: &Engine, standard: bool) -> Vec<Function> {
    let read = |f: FuncInfo<'_>| {
        let known = f.metadata.name.starts_with("anon$") || (standard && !f.namespace.is_empty());
        let place = || (f.namespace.to_string(), f.metadata.name.to_string(), f.metadata.num_params);
        (!known).then(|| (place(), convert(&f, standard)))
    };
    let mut found = engine.collect_fn_metadata(None, read, standard);
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found.into_iter().map(|(_, f)| f).collect()
}

impl Reference {
    /// Reads the metadata of `engine`, whose script modules are `defs`.
    #[must_use]
    pub fn of(engine: &Engine, defs: &[ModuleDef]) -> Self {
        let mut functions = collect(engine, false);
        let own: HashSet<_> = functions.iter().map(Function::key).collect();
        let standard: Vec<_> = collect(engine, true).into_iter().filter(|f| !own.contains(&f.key())).collect();
        functions.extend(standard);
        Reference {
            functions,
            modules: defs.iter().filter(|d| !d.name.is_empty()).map(|d| (d.name.to_owned(), d.docs)).collect(),
            options: defs.iter().flat_map(|d| d.options.iter().map(|o| (d.name, *o))).collect(),
        }
    }

    /// The reference of this program's script modules; read from an engine once in the life of the process.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Reference> =
            LazyLock::new(|| Reference::of(&crate::engine::plain(), gpuhost_stdlib::modules()));
        &BUILTIN
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
    /// What no other function has: module, name, types of the parameters.
    fn key(&self) -> (&str, &str, Vec<&str>) {
        (&self.module, &self.name, self.params.iter().map(|p| p.ty.as_str()).collect())
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
