//! Lists the recipes and scripts of the project, so that the binary carries them without a hand-kept list, and
//! the ops that change something with their classes, so that their table cannot differ from the code.
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn sources(dir: &Path, out: &mut Vec<(PathBuf, String)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("core/op.rs") {
            let text = fs::read_to_string(&path)?;
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            out.push((path, code));
        }
    }
    Ok(())
}

/// The texts in double quotes of a piece of code.
fn literals(code: &str) -> Vec<String> {
    code.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The arguments of a call whose text begins behind its opening parenthesis.
fn arguments(code: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start) = (0, false, 0);
    let mut out = Vec::new();
    for (i, c) in code.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth > 0 => depth -= 1,
            ')' => {
                out.push(code[start..i].trim());
                break;
            }
            ',' if depth == 0 => {
                out.push(code[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    out
}

/// A literal that can be a verb.
fn verb_of(argument: &str) -> Option<String> {
    let word = argument.strip_prefix('"')?.strip_suffix('"')?;
    let is_verb = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    is_verb.then(|| word.to_owned())
}

/// Verbs of an op: in place, or passed to the function that makes it.
fn verbs(all: &[(PathBuf, String)], file: &Path, before: &str, expression: &str) -> Vec<String> {
    let here = literals(expression);
    if !here.is_empty() {
        return here;
    }
    let name = before.rfind("fn ").and_then(|i| before[i + 3..].split(['(', '<']).next()).unwrap_or_default();
    let call = format!("{name}(");
    let call = call.as_str();
    let near = all.iter().filter(|(p, _)| p.parent() == file.parent());
    let mut out: Vec<String> = near
        .flat_map(|(_, code)| code.match_indices(call).map(move |(i, _)| (&code[..i], &code[i + call.len()..])))
        .filter(|(before, _)| before.ends_with('.') || before.ends_with([' ', '(', '\n']) && !before.ends_with("fn "))
        .filter_map(|(_, rest)| arguments(rest).into_iter().find_map(verb_of))
        .collect();
    out.sort();
    out.dedup();
    out
}

/// `(module, verb, effect, class)` of every op that is no read.
///
/// An op in a form that is not understood ends the build: the table is the promise of what a crash leaves behind.
fn ops(all: &[(PathBuf, String)]) -> Result<Vec<[String; 4]>, String> {
    let mut out = Vec::new();
    for (effect, default) in [("write", "repeatable"), ("destroy", "adoptable"), ("run", "ask")] {
        let start = format!("Op::{effect}(");
        for (file, code) in all {
            for (at, _) in code.match_indices(&start) {
                let rest = &code[at + start.len()..];
                let unknown = || {
                    let line = code[..at].lines().count();
                    format!(
                        "{}:{line}: the class of this op cannot be read (host/build.rs): write `{start}\"module\", \
                         \"verb\", …)`, or pass the verb as a literal to the function that makes it",
                        file.display()
                    )
                };
                let (module, rest) = rest.split_once(',').ok_or_else(unknown)?;
                let module = literals(module).into_iter().next().ok_or_else(unknown)?;
                let verb = rest.split_once(',').map_or(rest, |(v, _)| v);
                let statement = rest.split_once(';').map_or(rest, |(s, _)| s);
                let statement = statement.split("|s|").next().unwrap_or_default();
                let class = ["Repeatable", "Adoptable", "Ask"]
                    .into_iter()
                    .find(|c| statement.contains(&format!("Class::{c}")))
                    .map_or_else(|| default.to_owned(), str::to_lowercase);
                let verbs = verbs(all, file, &code[..at], verb);
                if verbs.is_empty() {
                    return Err(unknown());
                }
                for verb in verbs {
                    out.push([module.clone(), verb, effect.to_owned(), class.clone()]);
                }
            }
        }
    }
    out.sort();
    out.dedup();
    Ok(out)
}

fn collect(dir: &Path, out: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, out)?;
        } else if path.extension().is_some_and(|e| ["rhai", "toml", "yaml", "yml", "md"].iter().any(|x| e == *x)) {
            out.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    let mut text = String::from("&[\n");
    for folder in ["recipes", "scripts"] {
        let dir = root.join(folder);
        println!("cargo:rerun-if-changed={}", dir.display());
        if !dir.is_dir() {
            continue;
        }
        let mut files = Vec::new();
        collect(&dir, &mut files)?;
        files.sort();
        for f in files {
            println!("cargo:rerun-if-changed={}", f.display());
            let name = f.strip_prefix(&root)?.to_string_lossy().replace('\\', "/");
            writeln!(text, "    ({name:?}, include_str!({:?})),", f.canonicalize()?)?;
        }
    }
    text.push_str("]\n");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("embedded.rs"), text)?;
    let dir = root.join("stdlib/src");
    println!("cargo:rerun-if-changed={}", dir.display());
    let mut all = Vec::new();
    sources(&dir, &mut all)?;
    all.sort();
    let mut text = String::from("&[\n");
    for [module, verb, effect, class] in ops(&all)? {
        writeln!(text, "    ({module:?}, {verb:?}, {effect:?}, {class:?}),")?;
    }
    text.push_str("]\n");
    fs::write(out.join("ops.rs"), text)?;
    Ok(())
}
