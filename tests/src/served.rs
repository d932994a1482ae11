//! A lab served by a process of its own, for tests that kill and restart the other side.
#![allow(clippy::disallowed_methods)] // a child process starts in real time
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Bench;

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
