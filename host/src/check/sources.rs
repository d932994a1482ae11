//! The map literals that an expression may give: written there, behind a variable, in a list, by a function of the file.
use std::collections::{BTreeMap, BTreeSet};

use rhai::{ASTNode, Expr, Stmt};

use super::binders::Binder;
use super::literals::closure;
use super::{Scene, module_path};

/// How many steps from the expression to the literal are followed.
const STEPS: usize = 6;

/// A map literal.
pub struct Source {
    /// The literal.
    pub expr: Expr,
    /// Whether it stands where it is used.
    pub direct: bool,
    /// Whether fields may be added to it before it is used.
    pub grows: bool,
}

/// What a file does to its variables.
#[derive(Default)]
pub struct Changes {
    /// Elements and lists that are added to a list, by its name.
    added: BTreeMap<String, Vec<Expr>>,
    /// Names whose value is changed in place.
    grown: BTreeSet<String>,
}

/// The variable that a chain of properties, indexes and calls begins with.
fn root(e: &Expr) -> Option<&str> {
    match e {
        Expr::Variable(v, ..) if v.2.is_empty() => Some(v.1.as_str()),
        Expr::Dot(x, ..) | Expr::Index(x, ..) => root(&x.lhs),
        _ => None,
    }
}

impl Changes {
    /// Reads a file.
    #[must_use]
    pub fn of(scene: &Scene<'_>) -> Self {
        let mut out = Changes::default();
        scene.ast.walk(&mut |path: &[ASTNode]| {
            match path.last() {
                Some(ASTNode::Stmt(Stmt::Assignment(x))) => out.assigned(&x.1.lhs, &x.1.rhs, x.0.is_op_assignment()),
                Some(ASTNode::Expr(Expr::Dot(x, ..))) => out.called(&x.lhs, &x.rhs),
                _ => {}
            }
            true
        });
        out
    }

    fn assigned(&mut self, to: &Expr, value: &Expr, op: bool) {
        let Some(name) = root(to).map(str::to_owned) else { return };
        if op && matches!(to, Expr::Variable(..)) {
            self.added.entry(name.clone()).or_default().push(value.clone());
        }
        if op || !matches!(to, Expr::Variable(..)) {
            self.grown.insert(name);
        }
    }

    fn called(&mut self, on: &Expr, rhs: &Expr) {
        let (Some(name), Expr::MethodCall(call, _)) = (root(on), rhs) else { return };
        match call.name.as_str() {
            "push" | "append" | "insert" => {
                self.added.entry(name.to_owned()).or_default().extend(call.args.last().cloned());
            }
            "mixin" | "fill_with" | "set" => drop(self.grown.insert(name.to_owned())),
            _ => {}
        }
    }
}

/// The literals that `e` may give.
#[must_use]
pub fn of(scene: &Scene<'_>, e: &Expr) -> Vec<Source> {
    let mut out = Vec::new();
    follow(scene, e, STEPS, &Source { expr: e.clone(), direct: true, grows: false }, &mut out);
    out
}

fn follow(scene: &Scene<'_>, e: &Expr, steps: usize, way: &Source, out: &mut Vec<Source>) {
    let Some(steps) = steps.checked_sub(1) else { return };
    let further = |grows: bool| Source { expr: e.clone(), direct: false, grows: way.grows || grows };
    match e {
        Expr::Map(..) => out.push(Source { expr: e.clone(), ..*way }),
        Expr::Array(list, _) => list.iter().for_each(|x| follow(scene, x, steps, way, out)),
        Expr::Variable(v, ..) if v.2.is_empty() => {
            let (name, way) = (v.1.as_str(), further(scene.changes().grown.contains(v.1.as_str())));
            for b in scene.bound().get(name).into_iter().flatten() {
                if let Binder::Value(x) | Binder::Element(x) = b {
                    follow(scene, x, steps, &way, out);
                }
            }
            let added = scene.changes().added.get(name);
            added.into_iter().flatten().for_each(|x| follow(scene, x, steps, &way, out));
        }
        Expr::FnCall(c, _) if module_path(&c.namespace).is_empty() => {
            given(scene, &c.name, steps, &further(false), out)
        }
        // `list.map(|x| #{ … })`
        Expr::Dot(x, ..) => {
            if let Expr::MethodCall(c, _) = &x.rhs
                && c.name == "map"
                && let Some((name, _)) = c.args.first().and_then(closure)
            {
                given(scene, &name, steps, &further(false), out);
            }
        }
        _ => {}
    }
}

/// What a function of the file gives back.
fn given(scene: &Scene<'_>, name: &str, steps: usize, way: &Source, out: &mut Vec<Source>) {
    for f in scene.ast.iter_fn_def().filter(|f| f.name == name) {
        let (start, end) = (f.body.start_position(), f.body.end_position());
        let mut body = Vec::new();
        // the statements of every function stand at the top of the walk
        scene.ast.walk(&mut |path: &[ASTNode]| {
            if let [ASTNode::Stmt(s)] = path
                && start <= s.position()
                && (end.is_none() || s.position() <= end)
            {
                body.push((*s).clone());
            }
            true
        });
        last(body.iter(), &mut |e| follow(scene, e, steps, way, out));
    }
}

/// The expressions that a block may end with.
fn last<'s>(block: impl Iterator<Item = &'s Stmt>, found: &mut dyn FnMut(&Expr)) {
    let mut end = None;
    for s in block {
        match s {
            Stmt::Return(Some(e), ..) => found(e),
            Stmt::If(x, _) => {
                last(x.body.iter(), found);
                last(x.branch.iter(), found);
            }
            _ => {}
        }
        end = Some(s);
    }
    match end {
        Some(Stmt::Expr(e)) => found(e),
        Some(Stmt::Block(inner)) => last(inner.iter(), found),
        _ => {}
    }
}
