//! `check`: mistakes of a recipe and its imports, found without running anything.
mod binders;
pub mod calls;
pub mod closures;
pub mod command;
pub mod literals;
pub mod objects;
pub mod sources;
pub mod types;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use binders::Binder;
use gpuhost_stdlib::core::options::closest;
use gpuhost_stdlib::site::Finding;
use rhai::{AST, ASTNode, Engine, Expr, OptimizationLevel, Position, Stmt};
use sources::Changes;

use crate::engine::resolver;
use crate::reference::Reference;
use crate::render::explain;
use crate::sources::Text;

/// A script function that a file defines.
#[derive(Debug, Clone)]
pub struct ScriptFn {
    /// Name.
    pub name: String,
    /// Number of parameters.
    pub arity: usize,
    /// Whether other files may call it.
    pub public: bool,
}

/// What a file offers to those that import it.
#[derive(Debug, Clone, Default)]
pub struct Exports {
    /// Functions.
    pub functions: Vec<ScriptFn>,
    /// Constants and variables at the top level.
    pub values: BTreeSet<String>,
}

/// A `param("name", default)` of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamUse {
    /// Name.
    pub name: String,
    /// Default as written, when it is a literal.
    pub default: String,
    /// Whether a run without it cannot go anywhere.
    pub needed: bool,
    /// Line of its file, from 1.
    pub line: usize,
    /// The comment that explains it: at the end of its line, else on the line above.
    pub about: String,
}

/// The comment that belongs to a line: at its end, else alone on the line above.
fn comment_of(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let at = |n: usize| n.checked_sub(1).and_then(|i| lines.get(i)).copied().unwrap_or_default();
    // A `//` inside a text has no `; ` before it.
    let trailing = at(line).rsplit_once(';').and_then(|(_, rest)| rest.trim().strip_prefix("//"));
    let above = || at(line.saturating_sub(1)).trim().strip_prefix("//").filter(|t| !t.starts_with('!'));
    trailing.or_else(above).unwrap_or_default().trim_start_matches('/').trim().to_owned()
}

/// What checking a recipe found.
#[derive(Default)]
pub struct Checked {
    /// Mistakes and warnings, by file and place.
    pub findings: Vec<Finding>,
    /// Parameters of the recipe and its imports.
    pub params: Vec<ParamUse>,
    /// Files that were read.
    pub files: Vec<String>,
}

/// One file under examination.
pub struct Scene<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// Its tree, not optimised: positions of every key are there.
    pub ast: &'a AST,
    /// What scripts can call.
    pub reference: &'a Reference,
    /// Its own functions.
    pub functions: Vec<ScriptFn>,
    /// Names of its variables and parameters (they may hold functions).
    pub variables: BTreeSet<String>,
    /// Keys of its map literals (they may hold functions).
    pub keys: BTreeSet<String>,
    /// Imported files by alias; `None` when they could not be read.
    pub imports: BTreeMap<String, Option<Exports>>,
    /// Where its names are bound; read once.
    bound: OnceCell<BTreeMap<String, Vec<Binder>>>,
    /// What it does to its variables; read once.
    changes: OnceCell<Changes>,
}

impl Scene<'_> {
    /// Where names are bound to values.
    fn bound(&self) -> &BTreeMap<String, Vec<Binder>> {
        self.bound.get_or_init(|| binders::names(self))
    }

    /// What is done to variables after that.
    fn changes(&self) -> &Changes {
        self.changes.get_or_init(|| Changes::of(self))
    }

    /// A finding at `pos`.
    #[must_use]
    pub fn at(&self, pos: Position, message: impl Into<String>, hint: Option<String>) -> Finding {
        let place = explain::place(self.file, pos);
        Finding {
            file: place.file,
            line: place.line.max(1),
            column: place.column.max(1),
            message: message.into(),
            hint,
            warning: false,
        }
    }
}

/// Checks recipes against one reference.
pub struct Checker {
    engine: Engine,
    reference: &'static Reference,
    exports: BTreeMap<String, Option<Exports>>,
    /// Modules that do not exist and have been reported.
    known: BTreeSet<String>,
    out: Checked,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Checker {
    /// A checker for this program's script modules.
    #[must_use]
    pub fn new() -> Self {
        let mut engine = crate::engine::plain();
        engine.set_optimization_level(OptimizationLevel::None);
        Checker {
            engine,
            reference: Reference::builtin(),
            exports: BTreeMap::new(),
            known: BTreeSet::new(),
            out: Checked::default(),
        }
    }

    /// Checks a recipe with everything it imports.
    #[must_use]
    pub fn check(mut self, recipe: &Text) -> Checked {
        self.file(&recipe.name, &recipe.text);
        self.out.findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        self.out.findings.dedup();
        self.out
    }

    /// What a file offers; `None` when that cannot be said.
    fn file(&mut self, name: &str, text: &str) -> Option<Exports> {
        if let Some(known) = self.exports.get(name) {
            return known.clone();
        }
        self.out.files.push(name.to_owned());
        // Known before its imports are followed: a circle ends here.
        self.exports.insert(name.to_owned(), None);
        let ast = self.compile(name, text)?;
        let exports = exports(&ast);
        self.exports.insert(name.to_owned(), Some(exports.clone()));
        let imports = self.imports(name, &ast);
        let (variables, keys) = names(&ast);
        let scene = Scene {
            file: name,
            ast: &ast,
            reference: self.reference,
            functions: exports.functions.clone(),
            variables,
            keys,
            imports,
            bound: OnceCell::new(),
            changes: OnceCell::new(),
        };
        let mut found = Vec::new();
        let mut params = Vec::new();
        calls::check(&scene, &mut found, &mut params);
        for mut p in params {
            p.about = comment_of(text, p.line);
            if !self.out.params.iter().any(|k| k.name == p.name) {
                self.out.params.push(p);
            }
        }
        closures::check(&scene, &mut found);
        types::check(&scene, &mut found);
        self.out.findings.extend(found);
        Some(exports)
    }

    /// The tree of a file. An unknown variable or module ends the parser: each is noted, taken for known, and the
    /// rest is read on, so that one mistake does not hide the others.
    fn compile(&mut self, name: &str, text: &str) -> Option<AST> {
        let mut scope = rhai::Scope::new();
        let mut last = None;
        loop {
            let e = match self.engine.compile_with_scope(&scope, text) {
                Ok(ast) => {
                    self.engine.set_strict_variables(true);
                    return Some(ast);
                }
                Err(e) => e,
            };
            match e.0.as_ref() {
                rhai::ParseErrorType::VariableUndefined(v) if !scope.contains(v) => {
                    self.parse_error(name, &e.0, e.1);
                    scope.push_dynamic(v.clone(), rhai::Dynamic::UNIT);
                }
                // Inside a function, which sees nothing from outside: the rest is read without names.
                rhai::ParseErrorType::VariableUndefined(_) if self.engine.strict_variables() => {
                    if last != Some(e.1) {
                        self.parse_error(name, &e.0, e.1);
                    }
                    self.engine.set_strict_variables(false);
                }
                rhai::ParseErrorType::ModuleUndefined(m) if !self.known.contains(m) => {
                    self.parse_error(name, &e.0, e.1);
                    self.known.insert(m.clone());
                    self.engine.register_static_module(m, rhai::Module::new().into());
                }
                _ => {
                    self.parse_error(name, &e.0, e.1);
                    self.engine.set_strict_variables(true);
                    return None;
                }
            }
            last = Some(e.1);
        }
    }

    fn parse_error(&mut self, file: &str, kind: &rhai::ParseErrorType, pos: Position) {
        let mut e = explain::parse_error(kind, file, pos);
        if let rhai::ParseErrorType::ModuleUndefined(m) = kind
            && let Some(k) = closest(m, self.reference.modules.keys().map(String::as_str))
        {
            e.hint = Some(format!("did you mean `{k}`?"));
        }
        let place = e.place.unwrap_or_default();
        self.out.findings.push(Finding {
            file: file.to_owned(),
            line: place.line.max(1),
            column: place.column.max(1),
            message: e.message,
            hint: e.hint,
            warning: false,
        });
    }

    fn imports(&mut self, file: &str, ast: &AST) -> BTreeMap<String, Option<Exports>> {
        let mut list = Vec::new();
        ast.walk(&mut |path: &[ASTNode]| {
            if let Some(ASTNode::Stmt(Stmt::Import(x, pos))) = path.last() {
                let target = match &x.0 {
                    Expr::StringConstant(s, _) => Some(s.to_string()),
                    _ => None,
                };
                list.push((x.1.name.to_string(), target, x.0.position().or_else(*pos)));
            }
            true
        });
        let mut out = BTreeMap::new();
        for (alias, target, pos) in list {
            let Some(target) = target else {
                out.insert(alias, None);
                continue;
            };
            let found = resolver::find(Some(file), &target);
            if found.is_none() {
                let place = explain::place(file, pos);
                self.out.findings.push(Finding {
                    file: place.file,
                    line: place.line,
                    column: place.column,
                    message: format!("cannot find the import `{target}`"),
                    hint: Some("imports are files relative to this one, without `.rhai`".to_owned()),
                    warning: false,
                });
            }
            let exports = found.and_then(|f| self.file(&f.source, &f.text));
            out.insert(alias, exports);
        }
        out
    }
}

/// `a::b` as it stands before a name; empty without a module.
fn module_path(namespace: &rhai::Namespace) -> String {
    let names: Vec<&str> = namespace.path.iter().map(|i| i.name.as_str()).collect();
    names.join("::")
}

fn exports(ast: &AST) -> Exports {
    let functions = ast
        .iter_functions()
        .filter(|f| !f.name.starts_with("anon$"))
        .map(|f| ScriptFn {
            name: f.name.to_owned(),
            arity: f.params.len(),
            public: f.access == rhai::FnAccess::Public,
        })
        .collect();
    let values = ast.iter_literal_variables(true, true).map(|(n, ..)| n.to_owned());
    let mut values: BTreeSet<String> = values.collect();
    ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(x, ..))) => {
                values.insert(x.0.name.to_string());
            }
            Some(ASTNode::Stmt(Stmt::Export(x, _))) => {
                values.insert(x.1.name.to_string());
            }
            _ => {}
        }
        true
    });
    Exports { functions, values }
}

fn names(ast: &AST) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut variables: BTreeSet<String> =
        ast.iter_functions().flat_map(|f| f.params.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).collect();
    let mut keys = BTreeSet::new();
    ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(x, ..))) => {
                variables.insert(x.0.name.to_string());
            }
            Some(ASTNode::Stmt(Stmt::For(x, _))) => {
                variables.insert(x.0.name.to_string());
            }
            Some(ASTNode::Expr(Expr::Map(x, _))) => {
                keys.extend(x.0.iter().map(|(k, _)| k.name.to_string()));
            }
            _ => {}
        }
        true
    });
    (variables, keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let recipe = Text { name: "r.rhai".to_owned(), text: text.to_owned() };
        let c = Checker::new().check(&recipe);
        c.findings
            .iter()
            .map(|f| {
                let hint = f.hint.as_ref().map(|h| format!(" | {h}")).unwrap_or_default();
                format!("{}:{}: {}{hint}", f.line, f.column, f.message)
            })
            .collect()
    }

    #[test]
    fn good_recipes_have_no_findings() {
        let good = [
            "let n = step(\"a\", || 1 + 1); print(n); print(`${n}`);",
            "fn twice(x) { x * 2 } let l = [1, 2].map(|x| twice(x)); l.push(3); print(l.len());",
            "parallel([1], #{ limit: 2, on_error: \"stop\" }, |x| x);",
            "let m = #{ f: |x| x }; m.f(1); let f = |x| x; f.call(2);",
            "retry(#{ times: 3, every: 1.seconds }, || 42);",
            "let total = 0; for x in [1, 2] { total += x; } print(total);",
            "let list = [1]; let other = [2]; other.map(|x| list.len() + x);",
            "try { throw 1; } catch (e) { print(e); }",
            "switch 3 { 1 => print(\"a\"), _ => print(\"b\") }",
            "let x = (); print(x ?? 1); print(type_of(x));",
            "print(\"a\".to_upper()); let s = \"abc\"; s.trim(); print(s.contains(\"b\"));",
        ];
        for text in good {
            assert_eq!(findings(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn misspelt_names_come_with_a_suggestion() {
        assert_eq!(findings("stepp(\"a\", || 1);"), ["1:1: no function `stepp` | did you mean `step`?"]);
        assert_eq!(findings("let l = [1];\nl.lenn();"), ["2:3: no method `lenn` | did you mean `len`?"]);
        let f = findings("ssh::conect(\"a\");");
        assert!(f[0].contains("no function `ssh::conect` | did you mean `ssh::connect`?"), "{f:?}");
        let f = findings("shs::connect(\"a\");");
        assert!(f[0].contains("`shs`") && f[0].contains("did you mean `ssh`?"), "{f:?}");
    }

    #[test]
    fn wrong_counts_and_literals() {
        let f = findings("step(\"a\");");
        assert!(f[0].starts_with("1:1: `step` takes 2 arguments, found 1"), "{f:?}");
        let f = findings("step(1, || 2);");
        assert!(f[0].starts_with("1:6: `step` expects a text here, found `1`"), "{f:?}");
        let f = findings("wait_until(\"x\", 5, || true);");
        assert!(f[0].contains("expects a duration such as `5.minutes` here, found `5`"), "{f:?}");
    }

    #[test]
    fn option_keys_and_values() {
        let f = findings("parallel([1], #{ limt: 2 }, |x| x);");
        assert_eq!(f, ["1:18: unknown option `limt` of `parallel` | did you mean `limit`?"]);
        let f = findings("retry(#{\n  every: 5,\n}, || 1);");
        assert_eq!(f, ["2:10: option `every`: expected a duration such as `5.minutes`, found `5`"]);
        let f = findings("retry(#{ every: \"5 parsecs\" }, || 1);");
        assert!(f[0].contains("expected a duration such as `5m`"), "{f:?}");
    }

    #[test]
    fn kubernetes_objects_are_checked_as_far_as_they_are_written_out() {
        let f = findings(
            "let c = k3s::connect([]);\nc.apply(#{ apiVersion: \"v1\", kind: \"Pod\", metadata: #{ name: \"a\" },\n  spec: #{ containrs: [] } });",
        );
        assert!(f.iter().any(|f| f.starts_with("3:12: Pod: spec.containrs") && f.contains("`containers`")), "{f:?}");
        let f = findings(
            "let c = k3s::connect([]);\nc.apply(\"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {container: []}}\");",
        );
        assert!(f[0].contains("spec.container: there is no such field | did you mean `containers`?"), "{f:?}");
        let f = findings(
            "let c = k3s::connect([]);\nc.apply(#{ apiVersion: \"fleet.cattle.io/v1alpha1\", kind: \"GitRepo\", metadata: #{ name: \"a\" }, spec: #{ repo: \"x\", pollIntervall: \"1m\" } });",
        );
        assert!(f[0].contains("spec.pollIntervall: there is no such field"), "{f:?}");
        let f = findings(
            "let c = k3s::connect([]);\nc.apply(#{ apiVersion: \"v1\", kind: \"Deployment\", metadata: #{ name: \"a\" } });",
        );
        assert!(f[0].contains("`v1` has no kind `Deployment` | it is of `apps/v1`"), "{f:?}");
        let good = "let c = k3s::connect([]); let n = 2;\nc.apply(#{ apiVersion: \"apps/v1\", kind: \"Deployment\", metadata: #{ name: `a${n}` }, spec: n });";
        assert_eq!(findings(good), Vec::<String>::new());
    }

    #[test]
    fn objects_are_checked_where_they_come_from() {
        let pod =
            |extra: &str| format!("#{{ apiVersion: \"v1\", kind: \"Pod\", metadata: #{{ name: \"a\" }}, {extra} }}");
        let bad = pod("spec: #{ containrs: [] }");
        let start = "let c = k3s::connect([]);";
        for text in [
            format!("{start} let d = {bad}; c.apply(d);"),
            format!("{start} let l = []; l.push({bad}); c.apply(l);"),
            format!("{start} let l = []; l += {bad}; c.apply(l);"),
            format!("fn web(n) {{ {bad} }} {start} c.apply(web(1)); c.apply([web(2)]);"),
            format!("fn web(n) {{ if n > 1 {{ return {bad}; }} {bad} }} {start} let d = web(1); c.apply(d);"),
            format!("{start} c.apply([1, 2].map(|n| {bad}));"),
            format!("{start} for d in [{bad}] {{ c.apply(d); }}"),
        ] {
            let f = findings(&text);
            assert!(f.iter().any(|f| f.contains("spec.containrs: there is no such field")), "{text}: {f:?}");
        }
        // what is added to it later is not missing
        let text = format!("{start} let d = {}; d.spec = #{{ containers: [] }}; c.apply(d);", pod("spec: #{}"));
        assert_eq!(findings(&text), Vec::<String>::new());
        // a map of that name that is no object
        let text = format!("{start} let d = #{{ a: 1 }}; c.apply(d.text);");
        assert_eq!(findings(&text), Vec::<String>::new());
    }

    #[test]
    fn elements_of_lists_have_a_type() {
        let one = |line: &str| {
            let f = findings(&format!("let pve = proxmox::connect(site().proxmox);\n{line}"));
            assert_eq!(f.len(), 1, "{line}: {f:?}");
            f[0].clone()
        };
        for line in [
            "for vm in pve.list_owned() { print(vm.nmae); }",
            "pve.list_owned().for_each(|vm| print(vm.nmae));",
            "print(pve.list_owned().filter(|vm| vm.nmae == \"a\"));",
            "let all = pve.list_owned();\nprint(parallel(all, |vm| vm.nmae));",
            "let vm = pve.list_owned()[0];\nstep(\"a\", || print(vm.nmae));",
        ] {
            assert!(one(line).contains("`Vm` has no property `nmae` | did you mean `name`?"), "{line}");
        }
        let f = one("let names = site().nodes.map(|n| n.role_name);\nprint(names);");
        assert!(f.contains("`Node` has no property `role_name`"), "{f}");
        // A name that holds different things, and lists of what is not known, are left alone.
        let mixed = "for x in site().nodes { print(x.role); }\nfor x in site().hosts(\"agent\") { print(x.ip); }";
        assert_eq!(findings(mixed), Vec::<String>::new());
        assert_eq!(
            findings("for n in site().node_names() { print(n.len()); }\nprint(site().gpu_nodes().len());"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn closures_that_would_race_or_lose_their_writes() {
        let f = findings("let n = 0;\nparallel([1], |x| { n += x; });\nprint(n);");
        assert!(f[0].starts_with("2:21: `n` is a copy inside `parallel`"), "{f:?}");
        let f = findings("let l = [];\nstep(\"a\", || { l.push(1); });");
        assert!(f[0].starts_with("2:18: `l` is a copy inside `step`"), "{f:?}");
        let f = findings(
            "let l = [];\nstep(\"a\", || l.push(1));\nstep(\"b\", || { l.push(1); });\nparallel([1], |n| { l.push(n); });",
        );
        let told: Vec<&str> = f.iter().map(|l| l.split(':').next().unwrap()).collect();
        assert_eq!(told, ["2", "3", "4"], "{f:?}");
        assert!(f[2].contains("inside `parallel`"), "{f:?}");
        let own = "let k = k3s::connect([]);\nstep(\"a\", || k.drain(\"n\", 10.minutes));";
        assert_eq!(findings(own), Vec::<String>::new());
        let f = findings("let l = [1];\nl.map(|x| l.len());");
        assert!(f[0].contains("the closure uses `l`, on which `map` is being called"), "{f:?}");
    }

    #[test]
    fn what_a_known_value_has_is_known() {
        let wrong = [
            ("site().nods;", "1:8: `Site` has no property `nods` | did you mean `nodes`?"),
            (
                "site().k3s.verzion;",
                "1:12: section `[k3s]` of the site file has no `verzion` | did you mean `version`?",
            ),
            (
                "let s = site();\nprint(s.platform.rancher.hostnam);",
                "2:26: section `[platform.rancher]` of the site file has no `hostnam` | did you mean `hostname`?",
            ),
            (
                "let n = site().get_node(\"a\");\nstep(\"x\", || print(n.vmidd));",
                "2:22: `Node` has no property `vmidd` | did you mean `vmid`?",
            ),
            (
                "let h = ssh::connect(\"a\");\nh.run(\"uptime\").stdou;",
                "2:17: `Output` has no property `stdou` | did you mean `stdout`?",
            ),
            ("ssh::connect(\"a\").nam.len();", "1:19: `Host` has no property `nam` | did you mean `name`?"),
            ("ssh::connect(\"a\").facts;", "1:19: `Host` has no property `facts` | it is a method: `facts(…)`"),
            ("ssh::connect(\"a\").push(1);", "1:19: `Host` has no method `push` | "),
            (
                "let c = k3s::connect([]);\nc.drain(\"n\");",
                "2:3: `drain` of a `Cluster` takes other arguments, found 1 | it is called as `cluster.drain(",
            ),
        ];
        for (text, said) in wrong {
            let f = findings(text);
            assert!(f.len() == 1 && f[0].starts_with(said), "{text}: {f:?}");
        }
        // What may hold different things is left alone.
        let unsure = [
            "let n = site(); n = #{ a: 1 }; n.a;",
            "let n = site(); for n in [1] { n.a; } [#{ b: 1 }].map(|n| n.b);",
            "let n = site(); if true { let n = #{ x: 1 }; n.x; }",
            "fn f(n) { n.x } let n = site(); f(#{ x: 1 });",
            "fn site() { #{ x: 1 } } site().x;",
            "try { throw 1; } catch (n) { n.x; } let n = site();",
            "site().connect.whatever; site().platform.keys();",
        ];
        for text in unsure {
            assert_eq!(findings(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn own_functions_are_checked_too() {
        let f = findings("fn add(a, b) { a + b }\nad(1, 2);\nadd(1);");
        assert_eq!(f[0], "2:1: no function `ad` | did you mean `add`?");
        assert!(f[1].starts_with("3:1: `add` takes 2 arguments, found 1"), "{f:?}");
        let f = findings("import \"no/such\" as x;\nx::y();");
        assert!(f[0].starts_with("1:8: cannot find the import `no/such`"), "{f:?}");
        assert!(findings("let a = foo;")[0].starts_with("1:9: unknown variable `foo`"));
        let f = findings("fn ensure(name) { name }\nlet h = ssh::connect(\"a\");\nh.ensure(#{});");
        assert!(f[0].contains("calls this file's function `ensure`"), "{f:?}");
        assert_eq!(
            findings("fn ensure(a, b) { a }\nensure(ssh::connect(\"a\"), 1).ensure(#{});"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn parameters_are_listed() {
        let text =
            "let d = param(\"delete_data\", false); // data disks go too\n// How many.\nlet n = param(\"n\", 3);\n";
        let recipe = Text { name: "r.rhai".to_owned(), text: text.to_owned() };
        let c = Checker::new().check(&recipe);
        let found: Vec<_> = c.params.iter().map(|p| (p.name.as_str(), p.default.as_str(), p.about.as_str())).collect();
        assert_eq!(found, [("delete_data", "false", "data disks go too"), ("n", "3", "How many.")]);
    }
}
