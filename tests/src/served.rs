//! A lab served by a process of its own, for tests that kill and restart the other side.
#![allow(clippy::disallowed_methods)] // a child process starts in real time
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Bench, Ran};

/// A served lab; it ends with the value.
pub struct Served {
    child: Child,
    /// The site file that the lab has written: with its addresses and trust.
    pub site: PathBuf,
    /// The ready file's content.
    pub ready: serde_json::Value,
}

/// How long a loaded machine may take to start a lab.
const PATIENCE: Duration = Duration::from_secs(180);

impl Served {
    /// Serves the lab of a site file from the state directory `state/served` of the bench.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(b: &Bench, site: &str, more: &[&str]) -> Self {
        Served::at(b, &b.path("served"), site, more)
    }

    /// Serves the lab of a site file from the state directory `state`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn at(b: &Bench, state: &Path, site: &str, more: &[&str]) -> Self {
        let ready = state.join("ready.json");
        std::fs::create_dir_all(state).unwrap_or_else(|e| panic!("{e}"));
        std::fs::remove_file(&ready).ok();
        let shown = ready.display().to_string();
        let mut args = vec!["lab", "serve", "--site", site, "--ready-file", &shown];
        args.extend_from_slice(more);
        let mut child = b
            .command(&args)
            .env("GPUHOST_STATE_DIR", state)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("gpuhost lab serve: {e}"));
        let start = std::time::Instant::now();
        loop {
            let text = std::fs::read_to_string(&ready).unwrap_or_default();
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                let site = value["site"].as_str().map(PathBuf::from).unwrap_or_default();
                return Served { child, site, ready: value };
            }
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the lab ended: {status}");
            }
            assert!(start.elapsed() < PATIENCE, "the lab does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it as Ctrl-C does: it saves its world.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap_or_else(|e| panic!("kill: {e}"));
        self.child.wait().unwrap_or_else(|e| panic!("lab serve: {e}"));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A bench with a served lab: runs of other processes reach it by its site file.
pub struct Desk {
    /// The bench.
    pub b: Bench,
    /// The lab.
    pub lab: Served,
}

impl Desk {
    /// Serves the empty lab of a site file.
    #[must_use]
    pub fn new(site: &str, more: &[&str]) -> Self {
        let b = Bench::new();
        let lab = Served::start(&b, site, more);
        Desk { b, lab }
    }

    /// The same world, served anew; `change` sees it while it is stopped.
    ///
    /// # Panics
    /// When the world cannot be read or written.
    #[must_use]
    pub fn again(self, site: &str, more: &[&str], change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let Desk { b, lab } = self;
        lab.stop();
        let labs = std::fs::read_dir(b.path("served").join("lab")).unwrap_or_else(|e| panic!("{e}"));
        let path = labs.flatten().map(|e| e.path().join("world.json")).find(|p| p.exists());
        let path = path.unwrap_or_else(|| panic!("no world was saved"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{e}"));
        let mut saved = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}"));
        change(&mut saved);
        std::fs::write(&path, saved.to_string()).unwrap_or_else(|e| panic!("{e}"));
        let lab = Served::start(&b, site, more);
        Desk { b, lab }
    }

    /// The site file that leads to the lab.
    #[must_use]
    pub fn site(&self) -> String {
        self.lab.site.display().to_string()
    }

    /// Writes a recipe; its path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn recipe(&self, name: &str, text: &str) -> String {
        let path = self.b.path(&format!("{name}.rhai"));
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{name}: {e}"));
        path.display().to_string()
    }

    /// A run of a recipe with events, not yet started.
    #[must_use]
    pub fn command(&self, recipe: &str, more: &[&str]) -> Command {
        self.b.command(&[&["run", recipe, "--site", &self.site(), "--json"], more].concat())
    }

    /// The same from the machine `host`, with a state directory of its own.
    #[must_use]
    pub fn command_from(&self, host: &str, recipe: &str, more: &[&str]) -> Command {
        let mut c = self.command(recipe, more);
        c.env("GPUHOST_HOSTNAME", host).env("GPUHOST_STATE_DIR", self.b.path(host));
        c
    }

    /// Runs a recipe with events; nobody is asked.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, recipe: &str, more: &[&str]) -> Ran {
        let out = self.command(recipe, &[&["--yes"], more].concat()).output();
        Ran::of(&out.unwrap_or_else(|e| panic!("{recipe}: {e}")))
    }
}
