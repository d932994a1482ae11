//! A run in one file without secrets, the same file run again on the lab, and a killed `run --lab` that goes on.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::process::Stdio;
use std::time::{Duration, Instant};

use gpuhost_tests::Bench;
use serde_json::Value;

const SITE: &str = "tests/sites/small.toml";
const UUID: &str = "0a8d1b6e-52ad-4f7a-9f55-0d1f4f6b2c77";

/// A loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(400);

#[test]
fn a_bundle_carries_no_secret_and_replays_to_the_same_end() {
    let b = Bench::new();
    let rules = b.path("faults");
    std::fs::write(&rules, "pve.clone@brain#1: task-fails \"storage is on fire\"\n").unwrap();
    let rules = rules.display().to_string();
    let failed =
        b.run(&["run", "recipes/deploy.rhai", "--lab", "--site", SITE, "--json", "--faults", &rules]).expect(1);
    let file = b.path("bug.json").display().to_string();
    let made = b.run(&["bug", "--out", &file]).expect(0);
    assert!(made.stdout.contains("recipe files"), "{}", made.stdout);
    let text = std::fs::read_to_string(&file).unwrap();
    let bundle: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(bundle["faults"].as_array().unwrap().len(), 1, "{}", bundle["faults"]);
    let state = b.path("state").join("lab").join(UUID).join("state");
    for f in std::fs::read_dir(&state).unwrap().flatten().filter(|f| f.path().is_file()) {
        let secret = std::fs::read_to_string(f.path()).unwrap_or_default();
        let line = secret.lines().find(|l| l.len() >= 16 && !l.starts_with("-----")).unwrap_or_default();
        let public = ["known_hosts", "kubeconfig"].contains(&f.file_name().to_str().unwrap());
        assert!(public || line.is_empty() || !text.contains(line), "{:?} is in the bundle", f.file_name());
    }
    // On another machine: a state directory of its own, the recipe from the file.
    let other = Bench::new();
    let again = other.run(&["replay", &file, "--json"]).expect(0);
    let said: Value = serde_json::from_str(again.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(said["same"], true, "{said:#}");
    assert!(
        said["now"].as_str().unwrap().contains(failed.finished()["error"]["message"].as_str().unwrap()),
        "{said:#}"
    );
    // A file that is none is refused in words.
    std::fs::write(&file, "{}").unwrap();
    assert!(other.run(&["replay", &file]).expect(1).stderr.contains("gpuhost bug RUN"));
}

#[test]
fn a_killed_run_on_the_lab_goes_on_where_it_was() {
    let b = Bench::new();
    let args = ["run", "recipes/deploy.rhai", "--lab", "--json", "--site", SITE];
    let mut child = b.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let world = b.path("state").join("lab").join(UUID).join("world.json");
    let start = Instant::now();
    let saved = loop {
        let text = std::fs::read_to_string(&world).unwrap_or_default();
        let seen: Value = serde_json::from_str(&text).unwrap_or_default();
        if seen["world"]["pve"]["vms"]["501"].is_object() {
            break true;
        }
        // A machine so fast that nothing was saved before the end leaves nothing to see here.
        if child.try_wait().unwrap().is_some() {
            break false;
        }
        assert!(start.elapsed() < PATIENCE, "nothing is saved");
        std::thread::sleep(Duration::from_millis(50));
    };
    child.kill().ok();
    child.wait().unwrap();
    let second = b.run(&args).expect(0);
    let is_new = |c: &Value| c["what"] == "machine" && c["before"].is_null();
    let cloned = |e: &Value| {
        e["event"] == "intent" && e["target"] == "brain" && e["changes"].as_array().unwrap().iter().any(is_new)
    };
    assert!(!(saved && second.events().iter().any(cloned)), "the machine was there already");
    assert_eq!(b.run(&args).expect(0).finished()["changed"], 0);
}
