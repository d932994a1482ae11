//! Where a lab's world begins: empty, with the template, or deployed once and kept for later.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use sha2::{Digest, Sha256};

use super::folder::Folder;
use super::world;
use crate::cli::{Common, RunArgs};
use crate::exit::Exit;
use crate::run::{Place, Show};
use crate::screen::Screen;
use crate::signals::Stop;
use crate::sources::Text;

/// Where a world begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Start {
    /// The bare hypervisor.
    Empty,
    /// With the VM template.
    Template,
    /// With everything that `deploy` makes.
    Deployed,
}

const TEMPLATE: &str = "let pve = proxmox::connect(site().proxmox);\npve.ensure_template(site().template);\n";

/// Makes the folder's world anew.
///
/// # Errors
/// When the recipe that fills it fails.
pub fn fill(
    rt: &tokio::runtime::Handle,
    screen: &Arc<Screen>,
    folder: Folder,
    site: &Arc<Site>,
    text: &Text,
    state_dir: &Path,
    start: Start,
) -> OpResult<Folder> {
    folder.clear()?;
    let born = serde_json::to_value(world::born(site)?).map_err(|e| OpError::failed(e.to_string()))?;
    folder.save(&born)?;
    let recipe = match start {
        Start::Empty => return Ok(folder),
        Start::Template => Text { name: "<gpuhost>/template.rhai".to_owned(), text: TEMPLATE.to_owned() },
        Start::Deployed => embedded_deploy()?,
    };
    let cache = cache(state_dir, text, start)?;
    if cache.is_dir() {
        copy(&cache, folder.dir())?;
        return Ok(folder);
    }
    let folder = run(rt, screen, folder, site, recipe, state_dir)?;
    copy(folder.dir(), &cache)?;
    Ok(folder)
}

fn embedded_deploy() -> OpResult<Text> {
    crate::embed::recipe("deploy")
        .map(|(p, t)| Text { name: format!("{}{p}", crate::embed::PREFIX), text: t.to_owned() })
        .ok_or_else(|| OpError::not_found("this program carries no deploy recipe"))
}

fn run(
    rt: &tokio::runtime::Handle,
    screen: &Arc<Screen>,
    folder: Folder,
    site: &Arc<Site>,
    recipe: Text,
    state_dir: &Path,
) -> OpResult<Folder> {
    let (far, here) = super::open_folder(rt, folder, site)?;
    let args = RunArgs {
        recipe: recipe.name.clone(),
        site: None,
        lab: true,
        set: Vec::new(),
        yes: Some(String::new()),
        faults: None,
        plan: None,
        json: false,
        common: Common { state_dir: None, verbose: false },
    };
    let place = Place {
        site: Some(site.clone()),
        far,
        world: Some(here),
        state_dir: state_dir.to_owned(),
        stop: Stop::default(),
        header: serde_json::Value::Null,
        gate: None,
    };
    let failed = || OpError::failed("the lab's start could not be made").hint("see the error above");
    let job = crate::run::job(&args, rt, screen, recipe, place, Show::Quiet).map_err(|_| failed())?;
    match job.go() {
        (Exit::Done, Some(folder)) => Ok(folder),
        _ => Err(failed()),
    }
}

/// The cached start of this very program for this very site file.
fn cache(state_dir: &Path, text: &Text, start: Start) -> OpResult<PathBuf> {
    let fail = |e: std::io::Error| OpError::failed("this program cannot read itself").because(e.to_string());
    let exe = std::fs::read(std::env::current_exe().map_err(fail)?).map_err(fail)?;
    let mut sum = Sha256::new();
    sum.update(&exe);
    sum.update(text.text.as_bytes());
    let hex: String = sum.finalize().iter().take(10).map(|b| format!("{b:02x}")).collect();
    Ok(state_dir.join("lab").join("cache").join(format!("{hex}-{start:?}").to_lowercase()))
}

/// Copies world and keys; a half copy never looks like a whole one.
fn copy(from: &Path, to: &Path) -> OpResult<()> {
    let fail = |e: std::io::Error| OpError::failed(format!("cannot copy to `{}`", to.display())).because(e.to_string());
    crate::statedir::private_dir(&to.join("state"))?;
    let state = from.join("state");
    if state.is_dir() {
        for entry in std::fs::read_dir(&state).map_err(fail)?.flatten() {
            let path = entry.path();
            if path.is_file() {
                std::fs::copy(&path, to.join("state").join(entry.file_name())).map_err(fail)?;
            }
        }
    }
    let text = std::fs::read(from.join("world.json")).map_err(fail)?;
    crate::statedir::write_private(&to.join("world.json"), &text).map_err(fail)
}
