//! Short recipes, typed in the test and played on the lab of a bench.
use std::path::Path;

use crate::{Bench, Ran};

/// The site that most promises are tried on: one server, two agents, no GPUs.
pub const SMALL: &str = "tests/sites/small.toml";

/// A bench that plays texts as recipes of one site.
pub struct Play {
    /// The bench, with its state directory.
    pub b: Bench,
    site: String,
}

impl Default for Play {
    fn default() -> Self {
        Play::new()
    }
}

impl Play {
    /// The small site with nothing in its lab yet.
    #[must_use]
    pub fn new() -> Play {
        Play { b: Bench::new(), site: SMALL.to_owned() }
    }

    /// The small site, deployed.
    ///
    /// # Panics
    /// When the deploy fails.
    #[must_use]
    pub fn deployed() -> Play {
        let p = Play::new();
        let _ = p.recipe("recipes/deploy.rhai", &[]).expect(0);
        p
    }

    /// A play in a copy of this one's world.
    #[must_use]
    pub fn copy(&self) -> Play {
        let p = Play { b: Bench::new(), site: self.site.clone() };
        copy(&self.b.path("state"), &p.b.path("state"));
        p
    }

    /// The small site's file with parts of it replaced, as the site of what follows.
    ///
    /// # Panics
    /// When a part is not in the file.
    pub fn change_site(&mut self, changes: &[(&str, &str)]) {
        self.site = changed(&self.b, SMALL, changes);
    }

    /// Writes a file of the bench's project folder; its path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.b.path(&format!("project/{name}"));
        std::fs::create_dir_all(path.parent().unwrap_or(&path)).unwrap_or_else(|e| panic!("{name}: {e}"));
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{name}: {e}"));
        path.display().to_string()
    }

    /// Runs a recipe on the lab, with events.
    #[must_use]
    pub fn recipe(&self, path: &str, more: &[&str]) -> Ran {
        self.b.run(&[&["run", path, "--lab", "--json", "--site", &self.site], more].concat())
    }

    /// Plays a text on the lab, with events.
    #[must_use]
    pub fn json(&self, text: &str, more: &[&str]) -> Ran {
        self.recipe(&self.file("play.rhai", text), more)
    }

    /// Plays a text on the lab, as a user without a terminal sees it.
    #[must_use]
    pub fn text(&self, text: &str, more: &[&str]) -> Ran {
        let path = self.file("play.rhai", text);
        self.b.run(&[&["run", &path, "--lab", "--site", &self.site], more].concat())
    }

    /// What `gpuhost check` says of a text: everything that it prints.
    #[must_use]
    pub fn check(&self, text: &str) -> Ran {
        let path = self.file("play.rhai", text);
        let mut ran = self.b.run(&["check", &path, "--site", &self.site]);
        ran.stdout.push_str(&ran.stderr);
        ran
    }

    /// The site file in use.
    #[must_use]
    pub fn site(&self) -> &str {
        &self.site
    }

    /// The hypervisor of the bench's lab, as `gpuhost lab status --json` shows it.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn hypervisor(&self) -> serde_json::Value {
        let ran = self.b.run(&["lab", "status", "--json", "--site", &self.site]).expect(0);
        let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        assert!(status["world"]["hypervisor"].is_object(), "{}", ran.stdout);
        status["world"]["hypervisor"].clone()
    }
}

/// A copy of a site file in the bench's project folder with parts of it replaced; its path.
///
/// # Panics
/// When a part is not in the file.
#[must_use]
pub fn changed(b: &Bench, site: &str, changes: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(crate::root().join(site)).unwrap_or_else(|e| panic!("{site}: {e}"));
    for (from, to) in changes {
        assert!(text.contains(from), "`{from}` is not in {site}");
        text = text.replacen(from, to, 1);
    }
    let path = b.path("project/site.toml");
    std::fs::create_dir_all(b.path("project")).unwrap_or_else(|e| panic!("{e}"));
    std::fs::write(&path, text).unwrap_or_else(|e| panic!("{e}"));
    path.display().to_string()
}

/// Copies a folder with all that is in it.
///
/// # Panics
/// When something cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    for e in std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())).flatten() {
        let target = to.join(e.file_name());
        if e.path().is_dir() {
            copy(&e.path(), &target);
        } else {
            std::fs::copy(e.path(), &target).unwrap_or_else(|e| panic!("{}: {e}", target.display()));
        }
    }
}

/// A name and what is tried.
pub type Part<'a> = (&'a str, &'a dyn Fn());

/// Tries parts one after another; every one that fails is named.
///
/// # Panics
/// When one failed.
#[allow(clippy::print_stdout)]
pub fn all(parts: &[Part<'_>]) {
    let mut failed = Vec::new();
    for (name, part) in parts {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(part)).is_err() {
            println!("FAILED: {name}");
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "{} of {} failed: {}", failed.len(), parts.len(), failed.join(", "));
}
