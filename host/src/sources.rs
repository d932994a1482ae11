//! Recipes and site files: from disk, or the ones that the binary carries.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuhost_stdlib::core::error::{OpError, OpResult, Stop};
use gpuhost_stdlib::site::{Finding, Site, load_with_warnings};
use sha2::{Digest, Sha256};

use crate::embed;
use crate::screen::Screen;

/// A text with the name that errors use for it.
#[derive(Debug, Clone)]
pub struct Text {
    /// Path as given, or `<gpuhost>/…`.
    pub name: String,
    /// Content.
    pub text: String,
}

impl Text {
    /// Whether the binary carries it (there is no file).
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.name.starts_with(embed::PREFIX)
    }

    /// Its name as one types it: without the mark of what the binary carries.
    #[must_use]
    pub fn typed(&self) -> &str {
        embed::typed(&self.name)
    }

    /// Folder that relative paths start from.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        let here = PathBuf::from(".");
        if self.is_embedded() {
            return here;
        }
        match Path::new(&self.name).parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
            _ => here,
        }
    }

    /// First 16 digits of its SHA-256.
    #[must_use]
    pub fn digest(&self) -> String {
        Sha256::digest(self.text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// Where this project's own recipes are.
const FOLDERS: [&str; 2] = ["recipes", "scripts"];

/// A mistake on the command line (exit code 2).
fn mistyped(mut e: OpError) -> OpError {
    e.stop.get_or_insert(Stop::Usage);
    e
}

/// Reads a file; `None` when there is none.
fn read(path: &str) -> OpResult<Option<Text>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Text { name: path.to_owned(), text })),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => {
            let hint = if e.kind() == std::io::ErrorKind::IsADirectory {
                format!("name a recipe in it: `{}/NAME.rhai`", path.trim_end_matches('/'))
            } else {
                "see to it that it is a text that you may read".to_owned()
            };
            let error = OpError::invalid(format!("cannot read the recipe `{path}`")).because(e.to_string());
            Err(mistyped(error.hint(hint)))
        }
    }
}

/// The part of a recipe's path that people type.
fn stem(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".rhai").unwrap_or(file)
}

/// A bare name without folder: this project's own recipe or script comes before the program's.
fn own(arg: &str) -> OpResult<Option<Text>> {
    if arg.contains('/') {
        return Ok(None);
    }
    for folder in FOLDERS {
        if let Some(text) = read(&format!("{folder}/{}.rhai", stem(arg)))? {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// What can be run by name: the project's own recipes, then the program's.
fn runnable() -> Vec<String> {
    let mut paths = Vec::new();
    for folder in FOLDERS {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = files.filter_map(|f| f.file_name().into_string().ok()).filter(|n| n.ends_with(".rhai"));
        paths.extend(names.map(|n| format!("{folder}/{n}")));
    }
    paths.sort();
    let brought = embed::all().iter().map(|(p, _)| *p).filter(|p| p.ends_with(".rhai") && !p.contains("/lib/"));
    for path in brought {
        if !paths.iter().any(|p| p == path) {
            paths.push(path.to_owned());
        }
    }
    paths
}

/// Reads a recipe: a file, else one of that name in `recipes/` or `scripts/`, else an embedded one.
///
/// # Errors
/// `not_found` with the closest recipe.
pub fn recipe(arg: &str) -> OpResult<Text> {
    if let Some(text) = read(arg)? {
        return Ok(text);
    }
    if let Some(text) = own(arg)? {
        return Ok(text);
    }
    if let Some((path, text)) = embed::recipe(arg) {
        return Ok(Text { name: format!("{}{path}", embed::PREFIX), text: text.to_owned() });
    }
    let known = runnable();
    let e = OpError::not_found(format!("no recipe `{arg}`"));
    let near = gpuhost_stdlib::core::options::closest(stem(arg), known.iter().map(|k| stem(k)));
    Err(mistyped(match known.iter().find(|k| Some(stem(k)) == near) {
        Some(k) => e.hint(format!("did you mean `{k}`?")),
        None => e.hint(format!("there are {}", known.iter().map(|k| stem(k)).collect::<Vec<_>>().join(", "))),
    }))
}

/// The site file of a run: `--site`, else `site.toml` next to the recipe, else in this folder or `recipes/`.
/// A recipe of the binary brings the default site, but only into the lab: its identity is nobody's.
///
/// # Errors
/// When the named file cannot be read.
pub fn site(flag: Option<&Path>, recipe: Option<&Text>, lab: bool) -> OpResult<Option<Text>> {
    if let Some(p) = flag {
        let text = std::fs::read_to_string(p).map_err(|e| {
            let e = OpError::not_found(format!("cannot read the site file `{}`", p.display())).because(e.to_string());
            mistyped(e.hint("name another (`--site FILE`), or write one: `gpuhost init`"))
        })?;
        return Ok(Some(Text { name: p.display().to_string(), text }));
    }
    let mut places = Vec::new();
    if let Some(r) = recipe.filter(|r| !r.is_embedded()) {
        places.push(r.folder().join("site.toml"));
    }
    places.push(PathBuf::from("site.toml"));
    places.push(PathBuf::from("recipes/site.toml"));
    for p in places {
        if let Ok(text) = std::fs::read_to_string(&p) {
            return Ok(Some(Text { name: p.display().to_string(), text }));
        }
    }
    if !lab {
        return Ok(None);
    }
    Ok(embed::get("recipes/site.toml")
        .map(|t| Text { name: format!("{}recipes/site.toml", embed::PREFIX), text: t.to_owned() }))
}

/// Loads a site text.
///
/// # Errors
/// Its findings.
pub fn load_site(text: &Text) -> Result<(Arc<Site>, Vec<Finding>), Vec<Finding>> {
    load_with_warnings(Path::new(&text.name), &text.text).map(|(s, w)| (Arc::new(s), w))
}

/// The site that a command is about, with its text. `None` after the mistakes in it were shown.
///
/// # Errors
/// When there is no site file, or it cannot be read.
pub fn open_site(
    flag: Option<&Path>,
    recipe: Option<&Text>,
    lab: bool,
    screen: &Screen,
    json: bool,
) -> OpResult<Option<(Arc<Site>, Text)>> {
    let text = site(flag, recipe, lab)?
        .ok_or_else(|| OpError::not_found("there is no site file").hint("pass one: `--site recipes/site.toml`"))?;
    match load_site(&text) {
        Ok((site, _)) => Ok(Some((site, text))),
        Err(findings) => {
            crate::findings::show(screen, &findings, json);
            Ok(None)
        }
    }
}

/// The text behind the name of a source, for snippets.
#[must_use]
pub fn by_name(name: &str) -> Option<String> {
    match name.strip_prefix(embed::PREFIX) {
        Some(p) => embed::get(p).map(str::to_owned),
        None => std::fs::read_to_string(name).ok(),
    }
}
