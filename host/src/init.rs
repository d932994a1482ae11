//! `gpuhost init`: the recipes, scripts and site file of this program as files to edit.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuhost_stdlib::core::error::{OpError, OpResult};

use crate::args::InitArgs;
use crate::embed;
use crate::exit::Exit;
use crate::screen::Screen;

/// Runs `gpuhost init`.
#[must_use]
pub fn command(args: &InitArgs, screen: &Arc<Screen>) -> Exit {
    match write(&args.dir) {
        Ok(files) => {
            let dir = args.dir.display();
            screen.out(&format!("{} files written to {dir}", files.len()));
            screen.out("next:");
            screen.out(&format!("  edit {dir}/recipes/site.toml"));
            screen.out(&format!("  gpuhost check {dir}/recipes/deploy.rhai"));
            screen.out(&format!("  gpuhost run {dir}/recipes/deploy.rhai --lab"));
            Exit::Done
        }
        Err(e) => {
            crate::errors::show_error(screen, &e, None);
            Exit::of(&e)
        }
    }
}

/// Writes everything below `dir`; nothing at all when one of the files exists.
///
/// # Errors
/// `refused` naming what is there already.
pub fn write(dir: &Path) -> OpResult<Vec<PathBuf>> {
    let there: Vec<String> =
        embed::all().iter().map(|(p, _)| *p).filter(|p| dir.join(p).exists()).map(str::to_owned).collect();
    if !there.is_empty() {
        return Err(OpError::refused(format!("`{}` has files of that name already", dir.display()))
            .because(there.join(", "))
            .hint("init never overwrites: choose another folder, or move them away"));
    }
    let fail =
        |e: std::io::Error| OpError::failed(format!("cannot write to `{}`", dir.display())).because(e.to_string());
    let mut out = Vec::new();
    for (path, text) in embed::all() {
        let file = dir.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(fail)?;
        }
        let text = if path.ends_with("site.toml") { fresh_identity(text) } else { (*text).to_owned() };
        std::fs::write(&file, text).map_err(fail)?;
        out.push(file);
    }
    Ok(out)
}

/// The site file with a UUID of its own: two sites never own each other's machines.
fn fresh_identity(text: &str) -> String {
    let mut done = false;
    let lines = text.lines().map(|l| {
        if done || !l.trim_start().starts_with("uuid") {
            return l.to_owned();
        }
        let mut parts = l.splitn(3, '"');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(before), Some(_), Some(after)) => {
                done = true;
                format!("{before}\"{}\"{after}", uuid::Uuid::new_v4())
            }
            _ => l.to_owned(),
        }
    });
    let mut out = lines.collect::<Vec<_>>().join("\n");
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_init_is_a_site_of_its_own() {
        let text = embed::get("recipes/site.toml").unwrap();
        let (a, b) = (fresh_identity(text), fresh_identity(text));
        assert_ne!(a, b);
        let load = |t: &str| gpuhost_stdlib::site::load(Path::new("site.toml"), t).unwrap();
        assert_ne!(load(&a).uuid, load(text).uuid);
        assert_eq!(load(&a).name, load(text).name);
    }

    #[test]
    fn refuses_to_overwrite() {
        let dir = std::env::temp_dir().join(format!("gpuhost-init-{}", std::process::id()));
        let files = write(&dir).unwrap();
        assert!(files.iter().any(|f| f.ends_with("recipes/deploy.rhai")));
        std::fs::write(dir.join("recipes/deploy.rhai"), "mine").unwrap();
        assert!(write(&dir).is_err());
        assert_eq!(std::fs::read_to_string(dir.join("recipes/deploy.rhai")).unwrap(), "mine");
        std::fs::remove_dir_all(&dir).ok();
    }
}
