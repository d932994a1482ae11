//! Where a lab's world begins: empty, with the template, or deployed once and kept for later.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gpuhost_lab::world::World;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use sha2::{Digest, Sha256};

use super::folder::Folder;
use crate::args::{RunArgs, Start};
use crate::exit::Exit;
use crate::run::{Place, Show};
use crate::screen::Screen;
use crate::signals::Stop;
use crate::sources::Text;

const TEMPLATE: &str = "let pve = proxmox::connect(site().proxmox);\npve.ensure_template(site().template);\n";

/// What fills a world.
pub struct Filling<'a> {
    /// Runtime.
    pub rt: &'a tokio::runtime::Handle,
    /// Terminal.
    pub screen: &'a Arc<Screen>,
    /// Site.
    pub site: &'a Arc<Site>,
    /// State directory; filled worlds are kept below it.
    pub state_dir: &'a Path,
    /// Where the world begins.
    pub start: Start,
}

impl Filling<'_> {
    /// Makes the folder's world anew, from `born` on. `key` is what the filled world depends on beside this program.
    ///
    /// # Errors
    /// When the recipe that fills it fails.
    pub fn fill(&self, folder: Folder, born: &World, key: &str) -> OpResult<Folder> {
        folder.clear()?;
        folder.save(&serde_json::to_value(born).map_err(|e| OpError::failed(e.to_string()))?)?;
        let recipe = match self.start {
            Start::Empty => return Ok(folder),
            Start::Template => Text { name: "<gpuhost>/template.rhai".to_owned(), text: TEMPLATE.to_owned() },
            Start::Deployed => embedded_deploy()?,
        };
        let cache = cache(self.state_dir, key, self.start)?;
        if cache.is_dir() {
            copy(&cache, folder.dir())?;
            return Ok(folder);
        }
        let folder = run(self.rt, self.screen, folder, self.site, recipe, self.state_dir)?;
        copy(folder.dir(), &cache)?;
        Ok(folder)
    }
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
    let args = RunArgs::of_lab(&recipe.name, &[], None);
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
fn cache(state_dir: &Path, key: &str, start: Start) -> OpResult<PathBuf> {
    let fail = |e: std::io::Error| OpError::failed("this program cannot read itself").because(e.to_string());
    let exe = std::fs::read(std::env::current_exe().map_err(fail)?).map_err(fail)?;
    let mut sum = Sha256::new();
    sum.update(&exe);
    sum.update(key.as_bytes());
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
