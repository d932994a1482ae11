//! `import`: files relative to the importing file, then the recipes that the binary carries.
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use rhai::{AST, Engine, EvalAltResult, Module, ModuleResolver, Position, Scope, Shared};

use crate::embed;

/// What an import means: where its text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Name for errors and for imports of its own.
    pub source: String,
    /// The text.
    pub text: String,
}

/// Resolves imports, each file once per engine.
#[derive(Default)]
pub struct Resolver {
    cache: RwLock<HashMap<String, Shared<Module>>>,
}

fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for c in path.components() {
        match c {
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    out.push("..");
                }
            }
            other => out.push(other),
        }
    }
    out
}

/// The text that `import "path"` in the file `source` means.
#[must_use]
pub fn find(source: Option<&str>, path: &str) -> Option<Found> {
    let name = if path.ends_with(".rhai") { path.to_owned() } else { format!("{path}.rhai") };
    let source = source.unwrap_or_default();
    let mut embedded = Vec::new();
    if let Some(inside) = source.strip_prefix(embed::PREFIX) {
        let dir = Path::new(inside).parent().unwrap_or(Path::new(""));
        embedded.push(normal(&dir.join(&name)).to_string_lossy().into_owned());
    } else {
        let dir = Path::new(source).parent().unwrap_or(Path::new(""));
        let file = normal(&dir.join(&name));
        if let Ok(text) = std::fs::read_to_string(&file) {
            return Some(Found { source: file.to_string_lossy().into_owned(), text });
        }
    }
    let bare = normal(Path::new(&name)).to_string_lossy().into_owned();
    embedded.push(format!("recipes/{bare}"));
    embedded.push(bare);
    embedded.iter().find_map(|p| {
        embed::get(p).map(|text| Found { source: format!("{}{p}", embed::PREFIX), text: text.to_owned() })
    })
}

fn compile(engine: &Engine, found: &Found) -> Result<AST, Box<EvalAltResult>> {
    let mut ast = engine.compile(&found.text).map_err(|e| {
        let (kind, pos) = (*e.0, e.1);
        // The file is named by the wrapper: its position is a place in that file.
        Box::new(EvalAltResult::ErrorInModule(
            found.source.clone(),
            Box::new(EvalAltResult::ErrorParsing(kind, pos)),
            pos,
        ))
    })?;
    ast.set_source(&found.source);
    Ok(ast)
}

impl ModuleResolver for Resolver {
    fn resolve(
        &self,
        engine: &Engine,
        source: Option<&str>,
        path: &str,
        pos: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let found =
            find(source, path).ok_or_else(|| Box::new(EvalAltResult::ErrorModuleNotFound(path.to_owned(), pos)))?;
        if let Some(m) = self.cache.read().unwrap_or_else(PoisonError::into_inner).get(&found.source) {
            return Ok(m.clone());
        }
        let ast = compile(engine, &found)?;
        let module: Shared<Module> = Module::eval_ast_as_new(Scope::new(), &ast, engine)
            .map_err(|e| Box::new(EvalAltResult::ErrorInModule(found.source.clone(), e, pos)))?
            .into();
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        Ok(cache.entry(found.source).or_insert(module).clone())
    }

    fn resolve_ast(
        &self,
        engine: &Engine,
        source: Option<&str>,
        path: &str,
        _pos: Position,
    ) -> Option<Result<AST, Box<EvalAltResult>>> {
        find(source, path).map(|f| compile(engine, &f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_importing_file() {
        assert_eq!(normal(Path::new("recipes/./lib/../x.rhai")), Path::new("recipes/x.rhai"));
        assert_eq!(normal(Path::new("../x.rhai")), Path::new("../x.rhai"));
        assert!(find(None, "no/such/thing").is_none());
        let here = find(Some("<gpuhost>/recipes/verify.rhai"), "deploy").unwrap();
        assert_eq!(here.source, "<gpuhost>/recipes/deploy.rhai");
    }
}
