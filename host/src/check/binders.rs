//! Where a file gives names to values: `let`, loops, parameters, caught errors.
use std::collections::BTreeMap;

use rhai::{ASTNode, Expr, Stmt};

use super::Scene;
use super::literals::closure;

/// What a name is bound to at one place.
pub enum Binder {
    /// The value of an expression.
    Value(Expr),
    /// An element of the list that an expression gives.
    Element(Expr),
    /// What the closure of this name is called with first.
    Parameter(String),
    /// Nobody knows.
    Anything,
}

/// Every name of the file with all places that bind it; one that is assigned to is bound to anything.
pub fn names(scene: &Scene<'_>) -> BTreeMap<String, Vec<Binder>> {
    let mut out: BTreeMap<String, Vec<Binder>> = BTreeMap::new();
    let mut bind = |name: &str, to| out.entry(name.to_owned()).or_default().push(to);
    let mut captured: BTreeMap<String, usize> = BTreeMap::new();
    scene.ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Stmt(stmt)) => statement(stmt, &mut bind),
            // Its function stands alone in the tree again, without what it captures.
            Some(ASTNode::Expr(e)) => {
                if let Some((name, vars)) = closure(e) {
                    captured.entry(name).or_insert(vars.len());
                }
            }
            _ => {}
        }
        true
    });
    // A closure's first parameters are what it captures: the same variables.
    for f in scene.ast.iter_fn_def() {
        let outer = captured.get(f.name.as_str());
        for (i, p) in f.params.iter().skip(outer.copied().unwrap_or_default()).enumerate() {
            let first = i == 0 && outer.is_some();
            bind(p, if first { Binder::Parameter(f.name.to_string()) } else { Binder::Anything });
        }
    }
    out
}

fn statement(stmt: &Stmt, bind: &mut impl FnMut(&str, Binder)) {
    match stmt {
        Stmt::Var(x, ..) => bind(&x.0.name, Binder::Value(x.1.clone())),
        Stmt::For(x, _) => {
            bind(&x.0.name, Binder::Element(x.2.expr.clone()));
            x.1.iter().for_each(|counter| bind(&counter.name, Binder::Anything));
        }
        Stmt::TryCatch(x, _) => {
            if let Expr::Variable(v, ..) = &x.expr {
                bind(&v.1, Binder::Anything);
            }
        }
        Stmt::Assignment(x) => {
            if let Expr::Variable(v, ..) = &x.1.lhs {
                bind(&v.1, Binder::Anything);
            }
        }
        _ => {}
    }
}
