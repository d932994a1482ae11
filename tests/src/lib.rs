//! Helpers of the whole-program tests.
pub mod bed;
pub mod client;
pub mod doubts;
pub mod examples;
pub mod likeness;
pub mod plans;
pub mod play;
pub mod proxy;
pub mod pve_schema;
pub mod served;
pub mod sshd;
pub mod turn;
pub mod watch;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The workspace folder.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// The `gpuhost` program of this build. `cargo test --workspace` has made it beside the tests; it is built
/// here only when a test of this crate is run alone.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let own = std::env::current_exe().unwrap_or_else(|e| panic!("the test's own path: {e}"));
        let made = own.ancestors().nth(2).map(|d| d.join("gpuhost")).unwrap_or_default();
        if made.exists() {
            return made;
        }
        let out = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace", "--bin", "gpuhost"])
            .current_dir(root())
            .output()
            .unwrap_or_else(|e| panic!("cargo build: {e}"));
        assert!(out.status.success() && made.exists(), "cargo build: {}", String::from_utf8_lossy(&out.stderr));
        made
    })
}

/// A state directory of its own and the program run on it.
pub struct Bench {
    dir: tempfile::TempDir,
}

/// What a run of the program left behind.
#[derive(Debug)]
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Reads what a finished process left.
    #[must_use]
    pub fn of(out: &Output) -> Ran {
        Ran {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// The last event of a `--json` run.
    ///
    /// # Panics
    /// When the output holds no such event.
    #[must_use]
    pub fn finished(&self) -> serde_json::Value {
        self.events()
            .into_iter()
            .rfind(|e| e["event"] == "run_finished")
            .unwrap_or_else(|| panic!("no run_finished in\n{}\n{}", self.stdout, self.stderr))
    }

    /// All events of a `--json` run.
    #[must_use]
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    /// Messages of a `--json` run of one level: `print`, `warn`, `info`.
    #[must_use]
    pub fn said(&self, level: &str) -> Vec<String> {
        let of = |e: &serde_json::Value| e["event"] == "message" && e["level"] == level;
        self.events().iter().filter(|e| of(e)).filter_map(|e| e["text"].as_str().map(str::to_owned)).collect()
    }

    /// Fails the test unless the exit code is `code`.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn expect(self, code: i32) -> Ran {
        let tail =
            |s: &str| s.lines().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", tail(&self.stdout), tail(&self.stderr));
        self
    }
}

/// No bench may leave traffic behind that the official schemas do not allow.
impl Drop for Bench {
    fn drop(&mut self) {
        let Some(verdict) = self.api().filter(|_| !std::thread::panicking()) else { return };
        let bad = verdict.bad.iter().cloned().collect::<Vec<_>>().join("\n");
        assert!(
            bad.is_empty(),
            "of {} exchanges with the Proxmox API these do not fit the schema:\n{bad}",
            verdict.seen
        );
    }
}

impl Default for Bench {
    fn default() -> Self {
        Bench::new()
    }
}

impl Bench {
    /// A new, empty state directory.
    ///
    /// # Panics
    /// When no temporary directory can be made.
    #[must_use]
    pub fn new() -> Self {
        Bench { dir: tempfile::tempdir().unwrap_or_else(|e| panic!("tempdir: {e}")) }
    }

    /// A path below the bench's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program with these arguments, the state directory set, not yet run.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(program());
        c.args(args).current_dir(root()).env("GPUHOST_STATE_DIR", self.path("state")).env("NO_COLOR", "1");
        c.env("GPUHOST_LAB_RECORD", self.path("api"));
        c.env_remove("GPUHOST_PROXMOX_TOKEN").env("HOME", self.dir.path()).stdin(std::process::Stdio::null());
        c
    }

    /// Everything that the bench's labs have said on the Proxmox API, held against the official schemas; `None`
    /// where those are not at hand.
    #[must_use]
    pub fn api(&self) -> Option<pve_schema::Verdict> {
        let files = std::fs::read_dir(self.path("api")).into_iter().flatten().flatten();
        let text: String = files.filter_map(|f| std::fs::read_to_string(f.path()).ok()).collect();
        pve_schema::judge(&text)
    }

    /// Runs the program with these arguments.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&self.command(args).output().unwrap_or_else(|e| panic!("gpuhost: {e}")))
    }

    /// Runs a recipe on the lab with the default site, changed like this: what is there, what comes in its place.
    ///
    /// # Panics
    /// When the site file has no such text.
    #[must_use]
    pub fn run_changed(&self, recipe: &str, changes: &[(&str, &str)], more: &[&str]) -> Ran {
        let site = root().join("recipes/site.toml");
        let mut text = std::fs::read_to_string(&site).unwrap_or_else(|e| panic!("{}: {e}", site.display()));
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let path = self.path("site.toml");
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let path = path.to_string_lossy();
        let args = [&["run", recipe, "--lab", "--json", "--yes", "--site", &path], more].concat();
        self.run(&args)
    }
}
