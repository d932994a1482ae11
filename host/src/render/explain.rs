//! Errors of the language itself, in the words of the recipe's author.
use gpuhost_stdlib::core::error::{OpError, Place};
use gpuhost_stdlib::core::options::closest;
use rhai::{EvalAltResult, ParseErrorType, Position};

use crate::reference::{Form, Reference, type_word};

/// The error behind an evaluation error, with its place. `source` is the recipe's own name.
#[must_use]
pub fn from_eval(err: &EvalAltResult, source: &str, reference: &Reference) -> OpError {
    match err {
        EvalAltResult::ErrorInFunctionCall(_, inside, inner, _) => {
            from_eval(inner, if inside.is_empty() { source } else { inside }, reference)
        }
        EvalAltResult::ErrorInModule(path, inner, _) => {
            from_eval(inner, if path.is_empty() { source } else { path }, reference)
        }
        EvalAltResult::ErrorRuntime(..) | EvalAltResult::ErrorTerminated(..) => {
            let mut e = OpError::from_rhai(err);
            fill_file(&mut e, source);
            e
        }
        other => {
            let mut e = language(other, reference);
            e.place = Some(place(source, other.position()));
            e
        }
    }
}

fn fill_file(e: &mut OpError, source: &str) {
    if let Some(p) = e.place.as_mut().filter(|p| p.file.is_empty()) {
        source.clone_into(&mut p.file);
    }
    for o in &mut e.others {
        fill_file(o, source);
    }
}

/// A position as a place in `source`.
#[must_use]
pub fn place(source: &str, pos: Position) -> Place {
    Place { file: source.to_owned(), line: pos.line().unwrap_or(0), column: pos.position().unwrap_or(1).max(1) }
}

/// The error of a text that does not parse.
#[must_use]
pub fn parse_error(kind: &ParseErrorType, source: &str, pos: Position) -> OpError {
    let mut e = syntax(kind);
    e.place = Some(place(source, pos));
    e
}

fn syntax(kind: &ParseErrorType) -> OpError {
    match kind {
        ParseErrorType::VariableUndefined(name) => OpError::invalid(format!("unknown variable `{name}`"))
            .hint("declare it with `let`, or pass it in; functions see no outer variables"),
        ParseErrorType::ModuleUndefined(name) => OpError::invalid(format!("unknown module `{name}`")),
        ParseErrorType::Reserved(word) => OpError::invalid(format!("`{word}` is a word of the language"))
            .hint(format!("as a key of a map write it in quotes: `#{{ \"{word}\": … }}` and `map[\"{word}\"]`")),
        other => OpError::invalid(lower_first(&other.to_string())),
    }
}

/// Lower-cases the first letter, unless it begins an acronym.
fn lower_first(text: &str) -> String {
    let mut c = text.chars();
    match (c.next(), text.chars().nth(1)) {
        (Some(f), Some(s)) if f.is_uppercase() && s.is_lowercase() => f.to_lowercase().collect::<String>() + c.as_str(),
        _ => text.to_owned(),
    }
}

/// The text of an error without its position.
fn bare(err: &EvalAltResult) -> String {
    let text = err.to_string();
    match text.rfind(" (line ") {
        Some(at) if text.ends_with(')') => lower_first(&text[..at]),
        _ => lower_first(&text),
    }
}

fn language(err: &EvalAltResult, reference: &Reference) -> OpError {
    match err {
        EvalAltResult::ErrorParsing(kind, _) => syntax(kind),
        EvalAltResult::ErrorFunctionNotFound(sig, _) => function_not_found(sig, reference),
        EvalAltResult::ErrorVariableNotFound(name, _) => OpError::invalid(format!("unknown variable `{name}`")),
        EvalAltResult::ErrorPropertyNotFound(name, _) => property_not_found(name, reference),
        EvalAltResult::ErrorModuleNotFound(path, _) => OpError::invalid(format!("cannot find the import `{path}`"))
            .hint("imports are files relative to this one, without `.rhai`, or recipes of this program"),
        EvalAltResult::ErrorDataRace(what, _) => OpError::invalid(format!("{what} is in use by its own call")).hint(
            "a closure may not use the variable that its call is made on: \
             copy it first (`let list = …;`), or use the argument that the closure is given",
        ),
        EvalAltResult::ErrorMismatchDataType(wanted, found, _) => {
            let (w, f) = (type_word(wanted), type_word(found));
            OpError::invalid(format!("expected {}, found {}", quoted(&w), quoted(&f)))
        }
        EvalAltResult::ErrorDotExpr(text, _) => match getter(text) {
            Some((name, ty)) => no_property_of(name, ty, reference),
            None => OpError::invalid(bare(err)),
        },
        EvalAltResult::ErrorStackOverflow(_) => {
            OpError::invalid("functions call each other too deeply").hint("is there a recursion without an end?")
        }
        other => OpError::invalid(bare(other)),
    }
}

/// Name and Rust type of `unknown property 'x' - a getter is not registered for type 'T'`.
fn getter(text: &str) -> Option<(&str, &str)> {
    let mut quoted = text.split('\'').skip(1).step_by(2);
    let (name, ty) = (quoted.next()?, quoted.next()?);
    text.contains("getter").then_some((name, ty))
}

fn no_property_of(name: &str, ty: &str, reference: &Reference) -> OpError {
    let of = type_word(ty);
    let e = OpError::invalid(format!("a value of type `{of}` has no property `{name}`"));
    let members: Vec<&str> = reference.members(&of).map(|f| f.name.as_str()).collect();
    if members.contains(&name) {
        return e.hint(format!("it is a function: `.{name}(…)`"));
    }
    match closest(name, members.iter().copied()) {
        Some(k) => e.hint(format!("did you mean `{k}`?")),
        None => e,
    }
}

fn quoted(word: &str) -> String {
    if word.is_empty() { "nothing".to_owned() } else { format!("`{word}`") }
}

fn property_not_found(name: &str, reference: &Reference) -> OpError {
    let e = OpError::invalid(format!("no property `{name}`"));
    let known = reference.functions.iter().filter(|f| f.form == Form::Property && !f.standard);
    match closest(name, known.map(|f| f.name.as_str())) {
        Some(k) if k != name => e.hint(format!("did you mean `{k}`?")),
        _ => e.hint(format!("for a key that may be absent: `map?.{name} ?? other` or `\"{name}\" in map`")),
    }
}

/// `name (i64, &str | ImmutableString)` as name and types in the user's words.
fn split_signature(sig: &str) -> (String, Vec<String>) {
    let Some((name, rest)) = sig.split_once(" (") else {
        return (sig.trim().to_owned(), Vec::new());
    };
    let inner = rest.trim_end_matches(')').trim();
    if inner.is_empty() {
        return (name.trim().to_owned(), Vec::new());
    }
    let types = inner.split(", ").map(|t| type_word(t.split(" | ").next().unwrap_or(t))).collect();
    (name.trim().to_owned(), types)
}

fn function_not_found(sig: &str, reference: &Reference) -> OpError {
    let (path, types) = split_signature(sig);
    if let Some(name) = path.strip_prefix("get$") {
        return no_property_of(name, types.first().map_or("this value", String::as_str), reference);
    }
    let (module, name) = path.rsplit_once("::").unwrap_or(("", path.as_str()));
    let in_module = |f: &&crate::reference::Function| module.is_empty() || f.module == module;
    let callable = |f: &&crate::reference::Function| matches!(f.form, Form::Function | Form::Method);
    let same: Vec<String> = reference
        .named(name)
        .filter(in_module)
        .filter(callable)
        .take(4)
        .map(|f| format!("`{}`", f.signature()))
        .collect();
    if !same.is_empty() {
        let shown: Vec<&str> = types.iter().map(|t| if t.is_empty() { "nothing" } else { t.as_str() }).collect();
        return OpError::invalid(format!("`{path}` does not take ({})", shown.join(", ")))
            .hint(format!("it is called as {}", same.join(" or ")));
    }
    let e = OpError::invalid(format!("no function `{path}`"));
    let known = reference.functions.iter().filter(in_module).filter(callable);
    match closest(name, known.map(|f| f.name.as_str())) {
        Some(k) if module.is_empty() => e.hint(format!("did you mean `{k}`?")),
        Some(k) => e.hint(format!("did you mean `{module}::{k}`?")),
        None => e,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(text: &str) -> OpError {
        let reference = Reference::builtin();
        let engine = crate::engine::plain();
        match engine.compile(text) {
            Err(e) => parse_error(&e.0, "x.rhai", e.1),
            Ok(ast) => {
                let err = engine.eval_ast::<rhai::Dynamic>(&ast).unwrap_err();
                from_eval(&err, "x.rhai", reference)
            }
        }
    }

    #[test]
    fn wrong_names_come_with_candidates() {
        let e = fail("let a = 1;\nparalel([1], |x| x);");
        assert_eq!(e.message, "no function `paralel`");
        assert_eq!(e.hint.as_deref(), Some("did you mean `parallel`?"));
        let place = e.place.unwrap();
        assert_eq!((place.file.as_str(), place.line, place.column), ("x.rhai", 2, 1));
        let e = fail("step(1, 2)");
        assert_eq!(e.message, "`step` does not take (int, int)");
        assert!(e.hint.unwrap().contains("step(name: string, work: Fn)"));
    }

    #[test]
    fn language_errors_read_well() {
        assert_eq!(fail("let m = #{ a: 1 }; m.b").message, "no property `b`");
        assert_eq!(fail("foo + 1").message, "unknown variable `foo`");
        assert!(fail("let m = #{ default: 1 };").hint.unwrap().contains("in quotes"));
        assert_eq!(fail("throw \"it broke\"").message, "it broke");
        let e = fail("let d = 5.minutes; d.in_second");
        assert_eq!(e.message, "a value of type `Duration` has no property `in_second`");
        assert_eq!(e.hint.as_deref(), Some("did you mean `in_seconds`?"));
        assert!(fail("exit()").message.contains("exit"));
    }
}
