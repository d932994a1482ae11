//! A served lab and the programs that are tried against it.
pub mod applying;
pub mod corners;
pub mod everyday;
pub mod helm;
pub mod kubectl;
pub mod node;
pub mod ours;
pub mod python;
pub mod terminals;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gpuhost_tests::Bench;
use gpuhost_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

/// Where `.ci/peers` puts programs.
fn peers() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    std::env::var_os("GPUHOST_PEERS").map_or_else(|| cache.join("gpuhost-peers"), PathBuf::from)
}

fn answers(program: &Path, args: &[&str]) -> bool {
    Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn found(names: &[(&str, PathBuf)], args: &[&str]) -> Vec<(String, PathBuf)> {
    let mut out = Vec::new();
    for (version, path) in names {
        if answers(path, args) {
            out.push(((*version).to_owned(), path.clone()));
        } else {
            println!("skipped: {} does not run here", path.display());
        }
    }
    out
}

/// kubectl as it is installed, and a newer one.
pub fn kubectls() -> Vec<(String, PathBuf)> {
    found(&[("installed", "kubectl".into()), ("1.37", peers().join("kubectl-v37"))], &["version", "--client"])
}

/// helm 4 and helm 3.
pub fn helms() -> Vec<(String, PathBuf)> {
    found(&[("4", peers().join("helm-v37")), ("3", peers().join("helm-v31"))], &["version"])
}

/// A Python that has the Kubernetes client.
pub fn python() -> Option<PathBuf> {
    let own = peers().join("kubernetes-python/bin/python");
    [own, PathBuf::from("python3")].into_iter().find(|p| answers(p, &["-c", "import kubernetes"]))
}

/// A lab in a process of its own.
pub struct Served {
    child: Child,
    pub bench: Bench,
    pub kubeconfig: PathBuf,
    pub ssh_config: PathBuf,
}

impl Served {
    pub fn start() -> Served {
        let bench = Bench::new();
        let ready = bench.path("ready.json");
        let child = bench
            .command(&["lab", "serve", "--start", "deployed", "--ready-file", ready.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut served = Served { child, bench, kubeconfig: PathBuf::new(), ssh_config: PathBuf::new() };
        let begun = Instant::now();
        let text = loop {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                break text;
            }
            if let Some(status) = served.child.try_wait().unwrap() {
                let mut said = String::new();
                if let Some(mut e) = served.child.stderr.take() {
                    let _ = std::io::Read::read_to_string(&mut e, &mut said);
                }
                panic!("lab serve ended with {status}: {said}");
            }
            assert!(begun.elapsed() < Duration::from_secs(600), "the lab was not ready after ten minutes");
            std::thread::sleep(Duration::from_millis(200));
        };
        let ready: Value = serde_json::from_str(&text).unwrap();
        served.kubeconfig = ready["kubernetes"]["kubeconfig"].as_str().unwrap().into();
        served.ssh_config = ready["ssh"]["config"].as_str().unwrap().into();
        println!("the lab was served after {:.1}s", begun.elapsed().as_secs_f64());
        served
    }

    /// A file below the bench's folder.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.bench.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A program that finds the lab's cluster.
    pub fn client(&self, program: &Path) -> Tool<'_> {
        Tool { lab: self, program: program.to_owned() }
    }

    pub fn kubectl(&self, program: &Path) -> Tool<'_> {
        self.client(program)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client program.
pub struct Tool<'a> {
    pub lab: &'a Served,
    program: PathBuf,
}

/// What a client program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs a program with `input`, for five minutes at most.
fn run(mut program: Command, input: &str) -> Said {
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    let watch = Watch::over(&child, PATIENCE);
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let out = child.wait_with_output().unwrap();
    assert!(
        !watch.killed(),
        "{program:?} did not end and was killed; it said {} {}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    Said {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

impl Tool<'_> {
    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut c = self.dressed(&self.program);
        c.args(line);
        c
    }

    /// Another program with the environment of this one.
    pub fn dressed(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut c = Command::new(program);
        c.env("KUBECONFIG", &self.lab.kubeconfig).env("HOME", self.lab.bench.path("home"));
        c.env("HELM_CACHE_HOME", self.lab.bench.path("helm/cache"))
            .env("HELM_CONFIG_HOME", self.lab.bench.path("helm/config"));
        c.env("HELM_DATA_HOME", self.lab.bench.path("helm/data")).env_remove("KUBERNETES_SERVICE_HOST");
        c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        c
    }

    /// Starts it without waiting for its end; it is watched.
    pub fn spawn(&self, line: &[&str]) -> (Child, Watch) {
        let child = self.command(line).spawn().unwrap();
        let watch = Watch::over(&child, PATIENCE);
        (child, watch)
    }

    /// Runs it with `input`.
    pub fn feed(&self, line: &[&str], input: &str) -> Said {
        run(self.command(line), input)
    }

    /// Runs it; `line` is split at spaces.
    pub fn try_run(&self, line: &str) -> Said {
        self.feed(&line.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// Runs it; it has to succeed. Its output.
    pub fn run(&self, line: &str) -> String {
        let said = self.try_run(line);
        assert_eq!(said.code, 0, "{line}\nout: {}\nerr: {}", said.out, said.err);
        said.out
    }

    /// Runs it with a document on standard input; it has to succeed.
    pub fn with(&self, line: &str, document: &str) -> String {
        let said = self.feed(&line.split_whitespace().collect::<Vec<_>>(), document);
        assert_eq!(said.code, 0, "{line}\nout: {}\nerr: {}", said.out, said.err);
        said.out
    }

    /// Runs it with a variable in its environment; it has to succeed. Its output.
    pub fn with_variable(&self, (name, value): (&str, &str), line: &[&str]) -> String {
        let mut program = self.command(line);
        program.env(name, value);
        let said = run(program, "");
        assert_eq!(said.code, 0, "{line:?}\nout: {}\nerr: {}", said.out, said.err);
        said.out
    }

    /// Runs it; it has to fail. What it said on both streams.
    pub fn fails(&self, line: &str) -> String {
        let said = self.try_run(line);
        assert_ne!(said.code, 0, "{line} succeeded: {}", said.out);
        format!("{}{}", said.out, said.err)
    }
}

/// Fails unless `text` holds every one of `words`.
pub fn holds(text: &str, words: &[&str]) {
    for w in words {
        assert!(text.contains(w), "no `{w}` in:\n{text}");
    }
}
