//! Closures: writes that would be lost, and calls on a variable that their own closure uses.
use std::collections::BTreeSet;

use gpuhost_stdlib::site::Finding;
use rhai::{AST, ASTNode, Expr, FnCallExpr, Position, Stmt};

use super::Scene;
use super::literals::closure;

/// Functions that give each call copies of what its closure captured.
const COPYING: &[&str] = &["parallel", "step", "prove"];

/// Methods that change the value they are called on.
const CHANGING: &[&str] =
    &["push", "pop", "insert", "remove", "clear", "append", "shift", "truncate", "set", "mixin", "fill_with", "drain"];

/// Checks every closure that is an argument.
pub fn check(scene: &Scene<'_>, out: &mut Vec<Finding>) {
    scene.ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(c, _)) | ASTNode::Stmt(Stmt::FnCall(c, _))) => {
                lost_writes(scene, c, out);
            }
            Some(ASTNode::Expr(Expr::MethodCall(c, _))) => lost_writes(scene, c, out),
            Some(ASTNode::Expr(Expr::Dot(x, ..))) => {
                if let Some(root) = root_variable(&x.lhs) {
                    races(scene, &root, &x.rhs, out);
                }
            }
            _ => {}
        }
        true
    });
}

fn lost_writes(scene: &Scene<'_>, c: &FnCallExpr, out: &mut Vec<Finding>) {
    if !COPYING.contains(&c.name.as_str()) {
        return;
    }
    for arg in &c.args {
        let Some((name, captured)) = closure(arg) else { continue };
        let captured: BTreeSet<String> = captured.into_iter().map(|(n, _)| n).collect();
        if captured.is_empty() {
            continue;
        }
        let body = scene.ast.clone_functions_only_filtered(|_, _, _, n, _| n == name);
        for (var, pos) in writes(&body, &captured) {
            let hint = match c.name.as_str() {
                "parallel" => "return the value instead: `parallel` gives the results back as a list".to_owned(),
                other => format!("return the value instead: `let {var} = {other}(…)`"),
            };
            let text = format!("`{var}` is a copy inside `{}`: this change is lost", c.name);
            out.push(scene.at(pos, text, Some(hint)));
        }
    }
}

/// Assignments to, and changing calls on, the captured variables.
fn writes(body: &AST, captured: &BTreeSet<String>) -> Vec<(String, Position)> {
    let mut declared = BTreeSet::new();
    let mut found = Vec::new();
    body.walk(&mut |path: &[ASTNode]| {
        match path.last() {
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
