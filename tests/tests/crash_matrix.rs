//! The crash matrix: the process is killed at every distinct place of a deploy and of a cleanup, and the same
//! command then leads to the same world.
//!
//! A kill leaves a state (world, journal). Places are after every durable journal line and after every request
//! of an effect; "before" a line or request is "after" the one before. Each state is kept as a checkpoint and
//! continued three times: with the same state directory, with it deleted (and every secret but the SSH key),
//! and from a second machine. The latter two begin with nothing but the world: where it is the same as after an earlier
//! place (a journal line changes no world), they are that place's. CI runs a few places chosen by the commit; the whole
//! is one command: `GPUHOST_CRASH=all cargo test --workspace --test crash_matrix -- --nocapture`
//! (and some places again: `GPUHOST_CRASH=50,148`).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gpuhost_tests::served::Served;
use gpuhost_tests::{Bench, Ran, likeness};
use serde_json::Value;

/// How a killed run is continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    SameState,
    StateDeleted,
    SecondMachine,
}

const WAYS: [Way; 3] = [Way::SameState, Way::StateDeleted, Way::SecondMachine];

struct Matrix {
    b: Bench,
    site: String,
    recipe: &'static str,
    more: &'static [&'static str],
    /// State directory with the world that every run begins with.
    base: PathBuf,
    want: Value,
    points: usize,
    /// Worlds that were continued without a journal, with the way: each is gone through once.
    seen: Mutex<BTreeSet<(u64, Way)>>,
    /// How many ways were spared so.
    spared: AtomicUsize,
}

fn copy(from: &Path, to: &Path) {
    let ok = Command::new("cp").args(["-a", from.to_str().unwrap(), to.to_str().unwrap()]).status().unwrap();
    assert!(ok.success(), "cp {} {}", from.display(), to.display());
}

impl Matrix {
    fn new(site: &str, recipe: &'static str, more: &'static [&'static str], deployed: bool) -> Self {
        let b = Bench::new();
        let base = b.path("base");
        let (seen, spared) = (Mutex::default(), AtomicUsize::default());
        let mut m = Matrix { b, site: site.to_owned(), recipe, more, base, want: Value::Null, points: 0, seen, spared };
        let base = m.base.clone();
        let state = base.to_str().unwrap();
        let _ = m.b.run(&["lab", "reset", "--site", site, "--state-dir", state]).expect(0);
        if deployed {
            let deploy = ["run", "recipes/deploy.rhai", "--lab", "--site", site, "--state-dir", state];
            let _ = m.b.run(&deploy).expect(0);
        }
        let dir = m.b.path("whole");
        copy(&m.base, &dir);
        // The served site file and key are made once: all worlds know the same key.
        let lab = Served::at(&m.b, &dir, site, &[]);
        lab.stop();
        std::fs::remove_dir_all(&m.base).unwrap();
        copy(&dir, &m.base);
        let (ran, view) = m.go(&dir, &m.b.path("whole-client"), "desk", Some(0));
        let end = ran.expect(0).finished();
        m.points = usize::try_from(end["points"].as_u64().unwrap()).unwrap();
        assert!(m.points > 20, "{end}");
        m.want = view;
        m
    }

    /// Serves `world`, runs the recipe on it, stops the lab; gives what became of the run and of the world.
    fn go(&self, world: &Path, state: &Path, host: &str, kill_at: Option<usize>) -> (Ran, Value) {
        let lab = Served::at(&self.b, world, &self.site, &[]);
        let site = lab.site.display().to_string();
        let mut args = vec!["run", self.recipe, "--site", &site, "--json", "--yes"];
        args.extend(self.more);
        let mut c = self.b.command(&args);
        c.env("GPUHOST_STATE_DIR", state).env("GPUHOST_HOSTNAME", host);
        if let Some(k) = kill_at {
            c.env("GPUHOST_TEST_KILL_AT", k.to_string());
        }
        let ran = Ran::of(&c.output().unwrap());
        lab.stop();
        (ran, likeness::of(&self.b, world, &self.site))
    }

    /// A number for the world that a kill has left, as those see it who have nothing else: equal numbers, equal worlds.
    fn number(world: &Path) -> u64 {
        let labs = std::fs::read_dir(world.join("lab")).unwrap().flatten();
        let saved = labs.map(|e| e.path().join("world.json")).find(|p| p.exists()).unwrap();
        let text = likeness::without_ids(&std::fs::read_to_string(saved).unwrap());
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        hasher.finish()
    }

    /// Kills at one place and continues in some ways; gives what went wrong, `None` when the run was over before.
    fn place(&self, k: usize, ways: &[Way]) -> Option<Vec<String>> {
        let dir = self.b.path(&format!("at-{k}"));
        std::fs::create_dir_all(&dir).unwrap();
        let (world, client) = (dir.join("world"), dir.join("client"));
        copy(&self.base, &world);
        let (ran, _) = self.go(&world, &client, "desk", Some(k));
        let mut wrong = Vec::new();
        if ran.code == 0 {
            std::fs::remove_dir_all(&dir).unwrap();
            return None;
        }
        if ran.code != -1 {
            wrong.push(format!("place {k}: not killed, exit code {}:\n{}", ran.code, ran.stderr));
        }
        let number = Self::number(&world);
        for way in ways {
            if *way != Way::SameState && !self.seen.lock().unwrap().insert((number, *way)) {
                self.spared.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let (world_of, client_of) = (dir.join(format!("{way:?}")), dir.join(format!("{way:?}-client")));
            copy(&world, &world_of);
            let host = if *way == Way::SecondMachine { "laptop" } else { "desk" };
            match way {
                Way::SameState => copy(&client, &client_of),
                Way::StateDeleted => forget_secrets(&world_of),
                Way::SecondMachine => {}
            }
            let (ran, view) = self.go(&world_of, &client_of, host, None);
            if ran.code != 0 {
                let said: Vec<&str> = ran.stderr.lines().rev().take(25).collect::<Vec<_>>().into_iter().rev().collect();
                wrong.push(format!("place {k}, {way:?}: exit code {}:\n{}", ran.code, said.join("\n")));
            } else if view != self.want {
                wrong.push(format!("place {k}, {way:?}: another world:\n{}", likeness::difference(&self.want, &view)));
            }
        }
        std::fs::remove_dir_all(&dir).ok();
        Some(wrong)
    }

    /// Goes through places and prints `k of k`.
    fn through(&self, name: &str, share: usize) {
        let asked_for = std::env::var("GPUHOST_CRASH").unwrap_or_default();
        let whole = asked_for == "all";
        let named = asked_for.split(',').filter_map(|k| k.parse().ok());
        let named: Vec<(usize, Vec<Way>)> = named.map(|k| (k, WAYS.to_vec())).collect();
        let all: Vec<(usize, Vec<Way>)> = if !named.is_empty() {
            named
        } else if whole {
            // Spread: a part of them is a sample of all.
            let stride = (self.points * 618 / 1000..).find(|s| gcd(*s, self.points) == 1).unwrap_or(1);
            (0..self.points).map(|i| (i * stride % self.points + 1, WAYS.to_vec())).collect()
        } else {
            let seed = gpuhost_tests::turn::turn();
            (0..share)
                .map(|i| {
                    let k = (seed.wrapping_mul(31).wrapping_add(i * self.points / share + seed % 97)) % self.points + 1;
                    (k, vec![WAYS[(seed + i) % 3]])
                })
                .collect()
        };
        let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let (good, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let jobs = std::env::var("GPUHOST_CRASH_JOBS").ok().and_then(|j| j.parse().ok()).unwrap_or(2);
        std::thread::scope(|s| {
            for _ in 0..jobs {
                s.spawn(|| {
                    while let Some((k, ways)) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
                        match self.place(*k, ways) {
                            None => drop(over.fetch_add(1, Ordering::SeqCst)),
                            Some(list) if list.is_empty() => drop(good.fetch_add(1, Ordering::SeqCst)),
                            Some(list) => {
                                for w in &list {
                                    println!("{w}");
                                }
                                wrong.lock().unwrap().extend(list);
                            }
                        }
                        let done = good.load(Ordering::SeqCst);
                        if whole {
                            let spared = self.spared.load(Ordering::SeqCst);
                            println!(
                                "crash matrix {name}: {done} good of {} ({} places, {spared} ways spared)",
                                all.len(),
                                self.points
                            );
                        }
                    }
                });
            }
        });
        let (good, over) = (good.into_inner(), over.into_inner());
        let asked = all.len() - over;
        println!(
            "crash matrix {name}: {good} of {asked} places of {} ({over} lay behind the end of their run; {} ways began \
             with the world of an earlier place)",
            self.points,
            self.spared.load(Ordering::SeqCst)
        );
        let wrong = wrong.into_inner().unwrap();
        assert!(wrong.is_empty() && good > 0, "{} places went wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}

/// Everything that the lab's runs keep secret, but the key that the machines know.
fn forget_secrets(state: &Path) {
    for lab in std::fs::read_dir(state.join("lab")).unwrap().flatten() {
        for f in std::fs::read_dir(lab.path().join("state")).into_iter().flatten().flatten() {
            let name = f.file_name().to_string_lossy().into_owned();
            if f.path().is_file() && !name.contains("_key") {
                std::fs::remove_file(f.path()).unwrap();
            }
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn site() -> String {
    std::env::var("GPUHOST_CRASH_SITE").unwrap_or_else(|_| "recipes/site.toml".to_owned())
}

#[test]
fn a_killed_deploy_is_continued_from_every_place() {
    Matrix::new(&site(), "recipes/deploy.rhai", &[], false).through("deploy", 3);
}

#[test]
fn a_killed_cleanup_is_continued_from_every_place() {
    Matrix::new(&site(), "recipes/cleanup.rhai", &["--set", "delete_data=true"], true).through("cleanup", 2);
}
