//! Calls: do the names exist, do counts, literals and option keys fit?
use gpuhost_stdlib::core::module::FnOptions;
use gpuhost_stdlib::core::options::closest;
use gpuhost_stdlib::site::Finding;
use rhai::{ASTNode, Expr, FnCallExpr, Position, Stmt};

use super::literals::{fits_option, fits_param, literal, measured};
use super::{ParamUse, Scene, module_path};
use crate::reference::{Form, Function};

/// What the language itself calls.
const KEYWORDS: &[&str] =
    &["call", "curry", "Fn", "is_shared", "type_of", "is_def_var", "is_def_fn", "print", "debug", "eval"];

/// One call in the recipe.
struct Call<'a> {
    /// Module path; empty without one.
    module: String,
    name: &'a str,
    args: &'a [Expr],
    method: bool,
    pos: Position,
}

impl Call<'_> {
    fn path(&self) -> String {
        if self.module.is_empty() { self.name.to_owned() } else { format!("{}::{}", self.module, self.name) }
    }
    /// Parameters of the function, with the receiver of a method.
    fn total(&self) -> usize {
        self.args.len() + usize::from(self.method)
    }
}

/// Checks every call of the file; collects its `param`s.
pub fn check(scene: &Scene<'_>, out: &mut Vec<Finding>, params: &mut Vec<ParamUse>) {
    scene.ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(c, pos)) | ASTNode::Stmt(Stmt::FnCall(c, pos))) => {
                visit(scene, c, false, *pos, out, params);
                if let Some(p) = params.last_mut().filter(|_| c.name == "param") {
                    // What a function or closure asks for is only asked for when it is called.
                    let inside = scene.ast.iter_fn_def().any(|f| {
                        let (start, end) = (f.body.start_position(), f.body.end_position());
                        start <= *pos && (end.is_none() || *pos <= end)
                    });
                    p.needed &= is_certain(path) && !inside;
                }
            }
            Some(ASTNode::Expr(Expr::MethodCall(c, pos))) => visit(scene, c, true, *pos, out, params),
            Some(ASTNode::Expr(Expr::Dot(x, ..))) => {
                // In `list[0].name` the tree has `0.name` below the index.
                let indexed = path.len() > 1 && matches!(path[path.len() - 2], ASTNode::Expr(Expr::Index(..)));
                if !indexed {
                    unit(scene, &x.lhs, &x.rhs, out);
                }
            }
            Some(ASTNode::Expr(Expr::Variable(v, _, pos))) if !v.2.is_empty() => {
                constant(scene, &module_path(&v.2), &v.1, *pos, out);
            }
            _ => {}
        }
        true
    });
}

/// Whether what stands at the end of the path is run whatever happens.
fn is_certain(path: &[ASTNode<'_>]) -> bool {
    path.iter().all(|n| match n {
        ASTNode::Stmt(s) => matches!(
            s,
            Stmt::Var(..)
                | Stmt::Assignment(..)
                | Stmt::Expr(..)
                | Stmt::FnCall(..)
                | Stmt::Block(..)
                | Stmt::Export(..)
        ),
        ASTNode::Expr(e) => !matches!(e, Expr::And(..) | Expr::Or(..) | Expr::Coalesce(..) | Expr::Stmt(..)),
        _ => false,
    })
}

fn visit(
    scene: &Scene<'_>,
    c: &FnCallExpr,
    method: bool,
    pos: Position,
    out: &mut Vec<Finding>,
    params: &mut Vec<ParamUse>,
) {
    if c.op_token.is_some() || c.name.starts_with("anon$") {
        return;
    }
    let pos = c.namespace.path.first().map_or(pos, |i| i.pos);
    let call = Call { module: module_path(&c.namespace), name: &c.name, args: &c.args, method, pos };
    if !method && call.module.is_empty() && call.name == "param" {
        note_param(&call, params);
    }
    if call.module.is_empty() {
        plain(scene, &call, out);
    } else {
        qualified(scene, &call, out);
    }
}

fn note_param(call: &Call<'_>, params: &mut Vec<ParamUse>) {
    let Some(Expr::StringConstant(name, _)) = call.args.first() else { return };
    let default =
        call.args.get(1).and_then(|e| measured(e).or_else(|| literal(e).map(|l| l.shown.trim_matches('`').to_owned())));
    params.push(ParamUse {
        name: name.to_string(),
        default: default.unwrap_or_default(),
        needed: call.args.len() == 1,
        line: call.pos.line().unwrap_or_default(),
        about: String::new(),
    });
}

/// A function of the file is taken before a method of the same name and number of arguments.
fn hidden(scene: &Scene<'_>, call: &Call<'_>, own: &[usize], known: &[&Function], out: &mut Vec<Finding>) {
    let n = call.args.len();
    if !call.method || !own.contains(&n) {
        return;
    }
    let Some(method) = known.iter().find(|f| f.form == Form::Method && f.arity() == n) else { return };
    let text = format!("`.{}(…)` calls this file's function `{}`, not `{}`", call.name, call.name, method.signature());
    let mut finding = scene.at(call.pos, text, Some("give the function another name".to_owned()));
    finding.warning = true;
    out.push(finding);
}

/// A call without a module: own functions, the language level, methods.
fn plain(scene: &Scene<'_>, call: &Call<'_>, out: &mut Vec<Finding>) {
    if KEYWORDS.contains(&call.name) {
        return;
    }
    // A variable or a map's key may hold a function.
    if scene.variables.contains(call.name) || (call.method && scene.keys.contains(call.name)) {
        return;
    }
    let own: Vec<usize> = scene.functions.iter().filter(|f| f.name == call.name).map(|f| f.arity).collect();
    let known: Vec<&Function> = scene
        .reference
        .named(call.name)
        .filter(|f| f.global && matches!(f.form, Form::Function | Form::Method))
        .collect();
    hidden(scene, call, &own, &known, out);
    if own.is_empty() && known.is_empty() {
        let what = if call.method { "method" } else { "function" };
        // The recipe's own functions first, then ours, then the language's.
        let mut candidates: Vec<&Function> = scene
            .reference
            .functions
            .iter()
            .filter(|f| f.global && matches!(f.form, Form::Function | Form::Method))
            .collect();
        candidates.sort_by_key(|f| (f.standard, (f.form == Form::Method) != call.method));
        let mut names: Vec<&str> = scene.functions.iter().map(|f| f.name.as_str()).collect();
        names.extend(candidates.iter().map(|f| f.name.as_str()));
        let hint = closest(call.name, names).map(|k| format!("did you mean `{k}`?")).or_else(|| {
            let f = scene.reference.named(call.name).find(|f| f.form == Form::Function)?;
            Some(format!("it is `{}`", f.signature()))
        });
        out.push(scene.at(call.pos, format!("no {what} `{}`", call.name), hint));
        return;
    }
    // A script function called as a method binds `this`: its parameters are the arguments.
    if own.contains(&call.args.len()) {
        return;
    }
    arguments(scene, call, &known, &own, out);
}

/// A call with a module: an import, or a script module.
fn qualified(scene: &Scene<'_>, call: &Call<'_>, out: &mut Vec<Finding>) {
    if call.module == "global" {
        return;
    }
    if let Some(import) = scene.imports.get(&call.module) {
        let Some(exports) = import else { return };
        let public: Vec<_> = exports.functions.iter().filter(|f| f.public).collect();
        let own: Vec<usize> = public.iter().filter(|f| f.name == call.name).map(|f| f.arity).collect();
        if own.is_empty() && !exports.values.contains(call.name) {
            let near = closest(call.name, public.iter().map(|f| f.name.as_str()));
            let hint = near.map(|k| format!("did you mean `{}::{k}`?", call.module));
            out.push(scene.at(call.pos, format!("no function `{}`", call.path()), hint));
        } else if !own.is_empty() && !own.contains(&call.args.len()) {
            arguments(scene, call, &[], &own, out);
        }
        return;
    }
    let in_module: Vec<&Function> = scene.reference.functions.iter().filter(|f| f.module == call.module).collect();
    if in_module.is_empty() {
        let near = closest(&call.module, scene.reference.modules.keys().map(String::as_str));
        let hint = near.map(|k| format!("did you mean `{k}`?"));
        out.push(scene.at(call.pos, format!("unknown module `{}`", call.module), hint));
        return;
    }
    let known: Vec<&Function> = in_module.iter().copied().filter(|f| f.name == call.name).collect();
    if known.is_empty() {
        let near = closest(call.name, in_module.iter().map(|f| f.name.as_str()));
        let hint = near.map(|k| format!("did you mean `{}::{k}`?", call.module));
        out.push(scene.at(call.pos, format!("no function `{}`", call.path()), hint));
        return;
    }
    arguments(scene, call, &known, &[], out);
}

fn constant(scene: &Scene<'_>, module: &str, name: &str, pos: Position, out: &mut Vec<Finding>) {
    if module == "global" {
        return;
    }
    match scene.imports.get(module) {
        Some(None) => {}
        Some(Some(e)) => {
            if !e.values.contains(name) {
                let hint = closest(name, e.values.iter().map(String::as_str));
                let hint = hint.map(|k| format!("did you mean `{module}::{k}`?"));
                out.push(scene.at(pos, format!("no constant `{module}::{name}`"), hint));
            }
        }
        None => out.push(scene.at(pos, format!("no constant `{module}::{name}`"), None)),
    }
}

fn counts(mut list: Vec<usize>) -> String {
    list.sort_unstable();
    list.dedup();
    let words: Vec<String> = list.iter().map(ToString::to_string).collect();
    let noun = if list == [1] { "argument" } else { "arguments" };
    format!("{} {noun}", words.join(" or "))
}

/// Counts, literals and options of a call whose name exists.
fn arguments(scene: &Scene<'_>, call: &Call<'_>, known: &[&Function], own: &[usize], out: &mut Vec<Finding>) {
    let fitting: Vec<&Function> = known.iter().copied().filter(|f| f.params.len() == call.total()).collect();
    if fitting.is_empty() {
        let receiver = usize::from(call.method);
        let mut takes: Vec<usize> = known.iter().filter_map(|f| f.params.len().checked_sub(receiver)).collect();
        takes.extend(own);
        let signatures: Vec<String> = known.iter().take(4).map(|f| format!("`{}`", f.signature())).collect();
        let hint = (!signatures.is_empty()).then(|| format!("it is called as {}", signatures.join(" or ")));
        let text = format!("`{}` takes {}, found {}", call.path(), counts(takes), call.args.len());
        out.push(scene.at(call.pos, text, hint));
        return;
    }
    if fitting.iter().all(|f| !f.standard) {
        literal_arguments(scene, call, &fitting, out);
    }
    options(scene, call, &fitting, out);
    if call.method && call.name == "apply" && fitting.iter().any(|f| f.module == "kubernetes") {
        call.args.iter().take(1).for_each(|a| super::objects::check(scene, a, out));
    }
}

fn literal_arguments(scene: &Scene<'_>, call: &Call<'_>, fitting: &[&Function], out: &mut Vec<Finding>) {
    let shift = usize::from(call.method);
    let misfit = |f: &Function| {
        call.args.iter().enumerate().find_map(|(i, a)| {
            let p = f.params.get(i + shift)?;
            fits_param(&literal(a)?, &p.ty).err().map(|e| (a.position(), e))
        })
    };
    let misfits: Vec<_> = fitting.iter().map(|f| misfit(f)).collect();
    if misfits.iter().any(Option::is_none) {
        return;
    }
    if let Some((pos, text)) = misfits.into_iter().flatten().next() {
        let hint = fitting.first().map(|f| format!("it is called as `{}`", f.signature()));
        out.push(scene.at(pos, format!("`{}` expects {text}", call.path()), hint));
    }
}

/// Literal option maps against the declared options. With several candidates a key must be wrong in all.
fn options(scene: &Scene<'_>, call: &Call<'_>, fitting: &[&Function], out: &mut Vec<Finding>) {
    let shift = usize::from(call.method);
    for (i, arg) in call.args.iter().enumerate() {
        let Expr::Map(map, map_pos) = arg else { continue };
        let declared: Vec<Option<&FnOptions>> = fitting
            .iter()
            .map(|f| {
                let p = f.params.get(i + shift)?;
                scene.reference.options_for(f).filter(|o| p.ty == "Map" && (o.param == p.name || p.name.is_empty()))
            })
            .collect();
        // A candidate without declared options takes any map.
        let Some(declared) = declared.into_iter().collect::<Option<Vec<_>>>().filter(|d| !d.is_empty()) else {
            continue;
        };
        for (key, value) in &map.0 {
            option(scene, call, &declared, &key.name, key.pos, value, out);
        }
        if let [only] = declared[..] {
            for f in only.fields.iter().filter(|f| f.default.is_none()) {
                if !map.0.iter().any(|(k, _)| k.name == f.name) {
                    let text = format!("option `{}` of `{}` is missing", f.name, call.path());
                    out.push(scene.at(*map_pos, text, Some(format!("{}: {}", f.name, f.doc.trim()))));
                }
            }
        }
    }
}

fn option(
    scene: &Scene<'_>,
    call: &Call<'_>,
    declared: &[&FnOptions],
    key: &str,
    pos: Position,
    value: &Expr,
    out: &mut Vec<Finding>,
) {
    let fields: Vec<_> = declared.iter().flat_map(|o| o.fields.iter().filter(|f| f.name == key)).collect();
    if fields.is_empty() {
        let names: Vec<&str> = declared.iter().flat_map(|o| o.fields.iter().map(|f| f.name)).collect();
        let hint = match closest(key, names.iter().copied()) {
            Some(k) => format!("did you mean `{k}`?"),
            None => format!("known options: {}", names.join(", ")),
        };
        out.push(scene.at(pos, format!("unknown option `{key}` of `{}`", call.path()), Some(hint)));
        return;
    }
    let Some(l) = literal(value) else { return };
    let wrong: Vec<String> = fields.iter().filter_map(|f| fits_option(&l, f.ty).err()).collect();
    if wrong.len() == fields.len()
        && let Some(text) = wrong.first()
    {
        out.push(scene.at(value.position(), format!("option `{key}`: {text}"), None));
    }
}

/// `5.minute`: what a whole number has is known.
fn unit(scene: &Scene<'_>, lhs: &Expr, rhs: &Expr, out: &mut Vec<Finding>) {
    let Expr::IntegerConstant(n, _) = lhs else { return };
    let first = match rhs {
        Expr::Dot(x, ..) | Expr::Index(x, ..) => &x.lhs,
        other => other,
    };
    let Expr::Property(p, pos) = first else { return };
    let known: Vec<&Function> = scene.reference.members("int").filter(|f| f.form == Form::Property).collect();
    if !known.iter().any(|f| f.name == p.2.as_str()) {
        let known: Vec<&str> = known.iter().filter(|f| !f.standard).map(|f| f.name.as_str()).collect();
        let hint = match closest(&p.2, known.iter().copied()) {
            Some(k) => format!("did you mean `{n}.{k}`?"),
            None => format!("units: {}", known.join(", ")),
        };
        out.push(scene.at(*pos, format!("a number has no `{}`", p.2), Some(hint)));
    }
}
