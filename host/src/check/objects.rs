//! Kubernetes objects that a recipe writes out: maps and YAML texts of `apply` against the compiled-in schemas.
use gpuhost_stdlib::kubernetes::parse_yaml;
use gpuhost_stdlib::kubernetes::validate::{ANYTHING, Fault, MISSING, NO_FIELD, Step, check_builtin, check_object};
use gpuhost_stdlib::site::Finding;
use rhai::{Expr, Position};
use serde_json::{Value, json};

use super::Scene;
use super::sources::{self, Source};

/// Checks the first argument of a call of `cluster.apply`.
pub fn check(scene: &Scene<'_>, arg: &Expr, out: &mut Vec<Finding>) {
    match arg {
        Expr::StringConstant(text, pos) => yaml(scene, text, *pos, out),
        _ => sources::of(scene, arg).iter().for_each(|s| object(scene, s, out)),
    }
}

fn yaml(scene: &Scene<'_>, text: &str, pos: Position, out: &mut Vec<Finding>) {
    match parse_yaml(text) {
        Err(e) => out.push(scene.at(pos, e.message, e.causes.first().cloned())),
        Ok(objects) => {
            for o in objects {
                out.extend(check_object(&o).into_iter().map(|f| finding(scene, &o, &f, pos)));
            }
        }
    }
}

fn object(scene: &Scene<'_>, source: &Source, out: &mut Vec<Finding>) {
    let value = value(&source.expr);
    // a map behind a name may be something else than an object
    if !source.direct && value["apiVersion"].is_null() && value["kind"].is_null() {
        return;
    }
    for f in check_object(&value) {
        if source.grows && f.message.ends_with(MISSING) {
            continue;
        }
        let pos = place(&source.expr, &f.path);
        out.push(finding(scene, &value, &f, pos));
    }
}

fn finding(scene: &Scene<'_>, object: &Value, fault: &Fault, pos: Position) -> Finding {
    let kind = object["kind"].as_str().unwrap_or("object");
    let mut f = scene.at(pos, format!("{kind}: {fault}"), fault.hint.clone());
    // the chart may be newer than what is known of its kinds
    f.warning = fault.message == NO_FIELD && fault.hint.is_none() && check_builtin(object).is_none();
    f
}

/// The literal parts of an expression; whatever has to be computed may be anything.
fn value(e: &Expr) -> Value {
    match e {
        Expr::IntegerConstant(n, _) => json!(n),
        Expr::FloatConstant(f, _) => json!(**f),
        Expr::BoolConstant(b, _) => json!(b),
        Expr::StringConstant(s, _) => json!(s.as_str()),
        Expr::Unit(_) => Value::Null,
        Expr::Array(list, _) => list.iter().map(value).collect(),
        Expr::Map(m, _) => {
            m.0.iter().map(|(k, v)| (k.name.to_string(), value(v))).collect::<serde_json::Map<_, _>>().into()
        }
        _ => json!({ANYTHING: true}),
    }
}

/// Where in the recipe a path of the object is written, as far as it is.
fn place(e: &Expr, path: &[Step]) -> Position {
    let mut pos = e.position();
    let mut at = e;
    for step in path {
        match (at, step) {
            (Expr::Map(m, _), Step::Key(k)) => match m.0.iter().find(|(name, _)| name.name == k.as_str()) {
                Some((name, v)) => {
                    pos = name.pos;
                    at = v;
                }
                None => break,
            },
            (Expr::Array(list, _), Step::Item(i)) => match list.get(*i) {
                Some(v) => {
                    pos = v.position();
                    at = v;
                }
                None => break,
            },
            _ => break,
        }
    }
    pos
}
