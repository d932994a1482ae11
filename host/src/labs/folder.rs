//! The folder of one site's lab: its world, its keys, its lock.
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use gpuhost_lab::guest::state::CloudStatus;
use gpuhost_lab::world::World;
use gpuhost_stdlib::core::error::{OpError, OpResult};
use gpuhost_stdlib::site::Site;
use serde_json::{Value, json};

/// Version of the saved world.
const VERSION: u64 = 1;

/// A locked lab folder; the lock goes with it.
pub struct Folder {
    dir: PathBuf,
    /// Held while this process owns the world.
    lock: Option<File>,
}

/// Whether this process has the world now.
pub enum Locked {
    /// Yes.
    Mine(Folder),
    /// Another process has it.
    Elsewhere(Folder),
}

fn failed(what: &str, path: &Path, e: &dyn std::fmt::Display) -> OpError {
    OpError::failed(format!("cannot {what} `{}`", path.display()))
        .because(e.to_string())
        .hint("free space there and see to it that it can be written, or pass another `--state-dir DIR`")
}

/// Folder of the lab of `site`.
#[must_use]
pub fn of(state_dir: &Path, site: &Site) -> PathBuf {
    state_dir.join("lab").join(&site.uuid)
}

/// A process that was killed while it saved has left half a file.
fn sweep(dir: &Path) {
    for e in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if e.file_name().to_string_lossy().starts_with("world.tmp-") {
            std::fs::remove_file(e.path()).ok();
        }
    }
}

/// Commands that ran when the world was saved are gone, and with them the locks that they held.
fn settle(world: &mut World) {
    for g in world.guests.values_mut().filter(|g| g.cloud_init != CloudStatus::Running) {
        g.dpkg_lock = None;
    }
}

/// The refusal of a saved world that is of another site than `site`; worlds of earlier versions do not say.
///
/// # Errors
/// `refused` naming both.
pub fn of_this_site(saved: &Value, path: &Path, site: &str) -> OpResult<()> {
    match saved["site"].as_str().or(saved["snapshot"]["site"].as_str()) {
        Some(theirs) if theirs != site => {
            Err(OpError::refused(format!("the world `{}` is of another site", path.display()))
                .because(format!("it is of {theirs}, this site is {site}")))
        }
        _ => Ok(()),
    }
}

/// Writes a world into a lab's folder that this process holds.
///
/// # Errors
/// When it cannot be written.
pub fn save_to(dir: &Path, world: &Value) -> OpResult<()> {
    let path = dir.join("world.json");
    // A lab's folder is called by its site: a world says whose it is wherever it is carried.
    let site = dir.file_name().map(|n| n.to_string_lossy().into_owned());
    let text = json!({ "gpuhost_lab": VERSION, "site": site, "world": world }).to_string();
    crate::statedir::write_private(&path, text.as_bytes()).map_err(|e| failed("write", &path, &e))
}

impl Folder {
    /// Takes the exclusive lock of the site's lab, if it is free.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn lock(state_dir: &Path, site: &Site) -> OpResult<Locked> {
        let dir = of(state_dir, site);
        crate::statedir::private_dir(&dir)?;
        let path = dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| failed("open", &path, &e))?;
        match file.try_lock() {
            Ok(()) => {
                std::fs::write(dir.join("holder"), std::process::id().to_string()).ok();
                sweep(&dir);
                Ok(Locked::Mine(Folder { dir, lock: Some(file) }))
            }
            Err(TryLockError::WouldBlock) => Ok(Locked::Elsewhere(Folder { dir, lock: None })),
            Err(TryLockError::Error(e)) => Err(failed("lock", &path, &e)),
        }
    }

    /// Locks the folder for this process alone.
    ///
    /// # Errors
    /// When the folder cannot be used, and when another process has it.
    pub fn lock_mine(state_dir: &Path, site: &Site) -> OpResult<Folder> {
        match Self::lock(state_dir, site)? {
            Locked::Mine(f) => Ok(f),
            Locked::Elsewhere(f) => Err(f.busy()),
        }
    }

    /// The refusal when another process has the world, and this command cannot share it.
    #[must_use]
    pub fn busy(&self) -> OpError {
        let pid = std::fs::read_to_string(self.dir.join("holder")).unwrap_or_default();
        let by = if pid.is_empty() { String::new() } else { format!(" (process {pid})") };
        let hint = if self.dir.join(super::join::SERVING).exists() {
            "it is served, and this command needs the lab for itself: stop `gpuhost lab serve` (Ctrl-C keeps the world), then try again"
        } else {
            "wait for it, or share one lab: `gpuhost lab serve` in one terminal, `--lab` in the others"
        };
        OpError::refused(format!("another gpuhost{by} is using this site's lab"))
            .because(format!("lock `{}`", self.dir.join("lock").display()))
            .hint(hint)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether this process holds the lock.
    #[must_use]
    pub fn is_mine(&self) -> bool {
        self.lock.is_some()
    }

    /// Where keys and tokens of runs on this lab live: apart from those of the real site.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn state_dir(&self) -> OpResult<PathBuf> {
        let dir = self.dir.join("state");
        crate::statedir::private_dir(&dir)?;
        Ok(dir)
    }

    /// The saved world, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or another version wrote it.
    pub fn load(&self) -> OpResult<Option<World>> {
        let path = self.dir.join("world.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(t) => t,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed("read", &path, &e)),
        };
        let reset = "start over with `gpuhost lab reset`";
        let saved: Value = serde_json::from_str(&text).map_err(|e| failed("read", &path, &e).hint(reset))?;
        if saved["gpuhost_lab"] != json!(VERSION) {
            return Err(OpError::invalid(format!("another version of gpuhost wrote `{}`", path.display())).hint(reset));
        }
        let site = self.dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        of_this_site(&saved, &path, &site).map_err(|e| e.hint(reset))?;
        let mut world =
            serde_json::from_value(saved["world"].clone()).map_err(|e| failed("read", &path, &e).hint(reset))?;
        settle(&mut world);
        Ok(Some(world))
    }

    /// Saves the world, replacing the old one at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, world: &Value) -> OpResult<()> {
        save_to(&self.dir, world)
    }

    /// Forgets world and keys of the lab; the lock stays held.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear(&self) -> OpResult<()> {
        for entry in std::fs::read_dir(&self.dir).map_err(|e| failed("read", &self.dir, &e))?.flatten() {
            let path = entry.path();
            if ["lock", "holder"].iter().any(|n| path.ends_with(n)) {
                continue;
            }
            let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            gone.map_err(|e| failed("remove", &path, &e))?;
        }
        Ok(())
    }
}
