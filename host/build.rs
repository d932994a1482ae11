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

/// Verbs of an op: in place, or passed to the function that makes it.
fn verbs(all: &[(PathBuf, String)], file: &Path, before: &str, expression: &str) -> Vec<String> {
    let here = literals(expression);
    if !here.is_empty() {
        return here;
    }
    let name = before.rfind("fn ").and_then(|i| before[i + 3..].split(['(', '<']).next()).unwrap_or_default();
    let calls = [format!(".{name}(ctx, \""), format!(".{name}(&ctx, \"")];
    let near = all.iter().filter(|(p, _)| p.parent() == file.parent());
    let mut out: Vec<String> = near
        .flat_map(|(_, code)| calls.iter().flat_map(|c| code.split(c.as_str()).skip(1)).map(|r| r.split('"').next()))
        .flatten()
        .map(str::to_owned)
        .collect();
    out.sort();
    out.dedup();
    out
}

/// `(module, verb, effect, class)` of every op that is no read.
fn ops(all: &[(PathBuf, String)]) -> Vec<[String; 4]> {
    let mut out = Vec::new();
    for (effect, default) in [("write", "repeatable"), ("destroy", "adoptable"), ("run", "ask")] {
        let start = format!("Op::{effect}(");
        for (file, code) in all {
            for (at, _) in code.match_indices(&start) {
                let rest = &code[at + start.len()..];
                let Some((module, rest)) = rest.split_once(',') else { continue };
                let Some(module) = literals(module).into_iter().next() else { continue };
                let verb = rest.split_once(',').map_or(rest, |(v, _)| v);
                let statement = rest.split_once(';').map_or(rest, |(s, _)| s);
                let statement = statement.split("|s|").next().unwrap_or_default();
                let class = ["Repeatable", "Adoptable", "Ask"]
                    .into_iter()
                    .find(|c| statement.contains(&format!("Class::{c}")))
                    .map_or_else(|| default.to_owned(), str::to_lowercase);
                for verb in verbs(all, file, &code[..at], verb) {
                    out.push([module.clone(), verb, effect.to_owned(), class.clone()]);
                }
            }
        }
    }
    out.sort();
    out.dedup();
    out
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
    for [module, verb, effect, class] in ops(&all) {
        writeln!(text, "    ({module:?}, {verb:?}, {effect:?}, {class:?}),")?;
    }
    text.push_str("]\n");
    fs::write(out.join("ops.rs"), text)?;
    Ok(())
}
