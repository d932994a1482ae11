//! Closures: writes that would be lost, and calls on a variable that their own closure uses.
use std::collections::{BTreeMap, BTreeSet};

use gpuhost_stdlib::site::Finding;
use rhai::{ASTNode, Expr, FnCallExpr, Position, Stmt};

use super::Scene;
use super::literals::closure;
use crate::reference::Form;

/// Functions that give each call copies of what its closure captured.
const COPYING: &[&str] = &["parallel", "step", "prove"];

/// Methods that change the value they are called on.
const CHANGING: &[&str] =
    &["push", "pop", "insert", "remove", "clear", "append", "shift", "truncate", "set", "mixin", "fill_with", "drain"];

/// Checks every closure that is an argument.
pub fn check(scene: &Scene<'_>, out: &mut Vec<Finding>) {
    // Where a write is lost, by where its closure begins: what closures within closures lose is told of the innermost.
    let mut lost: BTreeMap<Position, (Position, Finding)> = BTreeMap::new();
    scene.ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(c, _)) | ASTNode::Stmt(Stmt::FnCall(c, _))) => {
                lost_writes(scene, c, &mut lost);
            }
            Some(ASTNode::Expr(Expr::MethodCall(c, _))) => lost_writes(scene, c, &mut lost),
            Some(ASTNode::Expr(Expr::Dot(x, ..))) => {
                if let Some(root) = root_variable(&x.lhs) {
                    races(scene, &root, &x.rhs, out);
                }
            }
            _ => {}
        }
        true
    });
    out.extend(lost.into_values().map(|(_, finding)| finding));
}

fn lost_writes(scene: &Scene<'_>, c: &FnCallExpr, lost: &mut BTreeMap<Position, (Position, Finding)>) {
    if !COPYING.contains(&c.name.as_str()) {
        return;
    }
    for arg in &c.args {
        let Some((name, captured)) = closure(arg) else { continue };
        let captured: BTreeSet<String> = captured.into_iter().map(|(n, _)| n).collect();
        if captured.is_empty() {
            continue;
        }
        let Some(f) = scene.ast.iter_fn_def().find(|f| f.name == name) else { continue };
        let (start, end) = (f.body.start_position(), f.body.end_position());
        for (var, pos) in writes(scene, (start, end), &captured) {
            let hint = match c.name.as_str() {
                "parallel" => "return the value instead: `parallel` gives the results back as a list".to_owned(),
                other => format!("return the value instead: `let {var} = {other}(…)`"),
            };
            let text = format!("`{var}` is a copy inside `{}`: this change is lost", c.name);
            if lost.get(&pos).is_none_or(|(of, _)| *of <= start) {
                lost.insert(pos, (start, scene.at(pos, text, Some(hint))));
            }
        }
    }
}

/// Whether a method of that name belongs to a handle of gpuhost, as `cluster.drain(…)` does: it changes no variable.
fn is_an_operation(scene: &Scene<'_>, method: &str) -> bool {
    scene.reference.named(method).any(|f| !f.standard && f.form == Form::Method)
}

/// Assignments to, and changing calls on, the captured variables between two places of the file.
fn writes(scene: &Scene<'_>, span: (Position, Position), captured: &BTreeSet<String>) -> Vec<(String, Position)> {
    let mut declared = BTreeSet::new();
    let mut found = Vec::new();
    scene.ast.walk(&mut |path: &[ASTNode]| {
        // A body without braces is one statement, and its end is not known.
        let root = path.first().map_or(Position::NONE, ASTNode::position);
        let inside = root == span.0 || (span.0 <= root && root <= span.1);
        match path.last().filter(|_| inside) {
            Some(ASTNode::Stmt(Stmt::Var(x, ..))) => {
                declared.insert(x.0.name.to_string());
            }
            Some(ASTNode::Stmt(Stmt::For(x, _))) => {
                declared.insert(x.0.name.to_string());
            }
            Some(ASTNode::Stmt(Stmt::Assignment(x))) => {
                if let Some(root) = root_variable(&x.1.lhs) {
                    found.push((root, x.1.lhs.start_position()));
                }
            }
            Some(ASTNode::Expr(Expr::Dot(x, ..))) => {
                if let (Expr::Variable(..), Expr::MethodCall(c, pos)) = (&x.lhs, &x.rhs)
                    && CHANGING.contains(&c.name.as_str())
                    && !is_an_operation(scene, &c.name)
                    && let Some(root) = root_variable(&x.lhs)
                {
                    found.push((root, *pos));
                }
            }
            _ => {}
        }
        true
    });
    found.retain(|(v, _)| captured.contains(v) && !declared.contains(v));
    found
}

/// The variable at the beginning of `a.b.c`, `a[1].b` or `a`.
fn root_variable(e: &Expr) -> Option<String> {
    match e {
        Expr::Variable(v, ..) if v.2.is_empty() => Some(v.1.to_string()),
        Expr::Dot(x, ..) | Expr::Index(x, ..) => root_variable(&x.lhs),
        _ => None,
    }
}

/// `a.method(|x| … a …)`: the language locks `a` for the call, so the closure cannot use it.
fn races(scene: &Scene<'_>, root: &str, chain: &Expr, out: &mut Vec<Finding>) {
    match chain {
        Expr::MethodCall(c, _) => {
            for arg in &c.args {
                let Some((_, captured)) = closure(arg) else { continue };
                if let Some((_, pos)) = captured.iter().find(|(n, _)| n == root) {
                    let text = format!("the closure uses `{root}`, on which `{}` is being called", c.name);
                    let hint = format!(
                        "call it on a value of its own: `let list = {root}…; list.{}(…)`{}",
                        c.name,
                        if c.name == "parallel" { ", or write `parallel(list, |x| …)`" } else { "" }
                    );
                    out.push(scene.at(*pos, text, Some(hint)));
                }
            }
        }
        Expr::Dot(x, ..) | Expr::Index(x, ..) => {
            races(scene, root, &x.lhs, out);
            races(scene, root, &x.rhs, out);
        }
        _ => {}
    }
}
