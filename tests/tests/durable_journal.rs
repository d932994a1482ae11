//! The journal of whole runs: header, chain, secrets, what the `runs` commands say, old versions.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::path::{Path, PathBuf};

use gpuhost_tests::{Bench, Ran, root};
use serde_json::Value;

const SMALL: [&str; 2] = ["--site", "tests/sites/small.toml"];

fn run(b: &Bench, recipe: &str, more: &[&str]) -> Ran {
    let mut args = vec!["run", recipe, "--lab", "--json"];
    args.extend(SMALL);
    args.extend_from_slice(more);
    b.run(&args)
}

fn journals(b: &Bench) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = std::fs::read_dir(b.path("state/runs")).unwrap().flatten().map(|e| e.path()).collect();
    out.sort();
    out
}

/// Every text that the lab's state directory keeps secret, line by line.
fn secrets(b: &Bench) -> Vec<String> {
    let mut out = Vec::new();
    for lab in std::fs::read_dir(b.path("state/lab")).unwrap().flatten() {
        let Ok(list) = std::fs::read_dir(lab.path().join("state")) else { continue };
        for f in list.flatten().filter(|f| !f.file_name().to_string_lossy().contains("known_hosts")) {
            let text = std::fs::read_to_string(f.path()).unwrap_or_default();
            out.extend(text.lines().filter(|l| l.len() >= 16 && !l.starts_with("-----")).map(str::to_owned));
        }
    }
    out
}

#[test]
fn a_deploy_leaves_a_whole_journal_without_secrets() {
    let b = Bench::new();
    let first = run(&b, "recipes/deploy.rhai", &[]).expect(0);
    let path = journals(&b).pop().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();

    let head: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(head["event"], "run_started");
    let h = &head["header"];
    let files = h["files"].as_object().unwrap();
    for part in ["recipes/deploy.rhai", "lib/platform.rhai", "lib/system.rhai"] {
        assert!(files.iter().any(|(f, d)| f.ends_with(part) && d.as_str().unwrap().len() == 64), "{part}: {h:#}");
    }
    assert_eq!(h["site_sha256"].as_str().unwrap().len(), 64, "{h:#}");
    assert!(h["seed"].is_u64() && h["by"]["process"].is_string() && h["gpuhost"].is_string(), "{h:#}");

    // Every effect: an intent before it with what finds it again, an outcome after it.
    let events: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let intents: Vec<&Value> = events.iter().filter(|e| e["event"] == "intent").collect();
    assert!(intents.len() > 20, "{}", intents.len());
    for i in &intents {
        let (id, op) = (&i["id"], &i["op"]);
        assert!(i["marker"].as_str().is_some_and(|m| !m.is_empty()), "{i}");
        let done = events.iter().position(|e| e["event"] == "op_finished" && e["id"] == *id);
        let began = events.iter().position(|e| e["event"] == "intent" && e["id"] == *id).unwrap();
        assert!(done.is_some_and(|d| d > began), "{op} has no outcome");
    }
    let clones =
        intents.iter().filter(|i| i["op"] == "proxmox.ensure_vm" && i["marker"].as_str().unwrap().contains("\"site\""));
    assert_eq!(clones.count(), 4, "machines are found again by their marker");
    assert!(events.iter().any(|e| e["event"] == "accepted" && e["reference"].as_str().unwrap().starts_with("UPID:")));
    assert!(events.iter().any(|e| e["event"] == "waiting"), "what was waited for");

    // The published table says of every op the class it has.
    let mut listed = 0;
    for e in events.iter().filter(|e| e["event"] == "op_started" && e["effect"] != "read") {
        let (op, class) = (e["op"].as_str().unwrap(), e["class"].as_str().unwrap());
        match gpuhost::runs::classes::OPS.iter().find(|r| format!("{}.{}", r.0, r.1) == op) {
            Some(row) => assert_eq!(row.3, class, "{op}"),
            None => println!("not in the table of classes: {op}"),
        }
        listed += 1;
    }
    assert!(listed > 10, "{listed}");

    let known = secrets(&b);
    assert!(known.len() > 3, "the test knows some secrets: {known:?}");
    for s in &known {
        assert!(!text.contains(s.as_str()), "a secret of {} letters is in the journal", s.len());
        assert!(!first.stdout.contains(s.as_str()), "a secret of {} letters is in the events", s.len());
    }

    let verify = b.run(&["runs", "verify"]).expect(0);
    assert!(verify.stdout.contains("1 of 1 journals are sound"), "{}", verify.stdout);
    let show: Value = serde_json::from_str(&b.run(&["runs", "show", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(
        (show["changed"].clone(), show["state"]["ended"].as_str()),
        (first.finished()["changed"].clone(), Some("ok"))
    );
    assert!(show["doubts"].as_array().unwrap().is_empty());
    let list = b.run(&["runs"]).expect(0).stdout;
    assert!(list.contains("done") && list.contains("recipes/deploy.rhai"), "{list}");
    let tail = b.run(&["runs", "tail"]).expect(0);
    assert!(tail.stderr.contains("proxmox.ensure_vm"), "{}", tail.stderr);

    // One changed letter is found, a torn last line is not held against it.
    let changed =
        text.replacen("\"ensure_vm\"", "\"ensure_xm\"", 1).replacen("proxmox.ensure_vm", "proxmox.ensure_xm", 1);
    std::fs::write(&path, &changed).unwrap();
    let broken = b.run(&["runs", "verify"]).expect(1);
    assert!(broken.stdout.contains("seal"), "{}", broken.stdout);
    std::fs::write(&path, &text[..text.len() - 40]).unwrap();
    let torn = b.run(&["runs", "verify"]).expect(0);
    assert!(torn.stdout.contains("torn"), "{}", torn.stdout);
    let shown = b.run(&["runs", "show"]).expect(0);
    assert!(shown.stdout.contains("torn") && shown.stdout.contains("died"), "{}", shown.stdout);
}

#[test]
fn a_killed_run_shows_what_it_left_in_doubt() {
    let b = Bench::new();
    let mut args = vec!["run", "recipes/deploy.rhai", "--lab", "--json"];
    args.extend(SMALL);
    // The lab is in the same process: this is about the journal alone.
    let out = b.command(&args).env("GPUHOST_TEST_KILL_AT", "20").output().unwrap();
    assert!(out.status.code().is_none(), "killed: {:?}", out.status);
    let show: Value = serde_json::from_str(&b.run(&["runs", "show", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(show["state"], "died", "{show:#}");
    let text = b.run(&["runs", "show"]).expect(0).stdout;
    assert!(!show["doubts"].as_array().unwrap().is_empty(), "{text}");
    assert!(text.contains("in doubt") && text.contains("next run"), "{text}");
    let _ = b.run(&["runs", "verify"]).expect(0);
}

/// Journals that earlier versions wrote, kept for good.
fn fixtures() -> Vec<PathBuf> {
    let dir = root().join("tests/fixtures/journals");
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path()).collect();
    all.retain(|p| p.extension().is_some_and(|e| e == "ndjson"));
    all.sort();
    all
}

#[test]
fn journals_of_every_version_stay_readable() {
    let all = fixtures();
    assert!(all.len() >= 4, "{all:?}");
    let b = Bench::new();
    for path in &all {
        let text = std::fs::read_to_string(path).unwrap();
        let past = gpuhost::record::read::read(path).unwrap();
        let unread: Vec<&Value> = past.lines.iter().filter(|l| l.event.is_none()).map(|l| &l.raw).collect();
        assert!(unread.is_empty(), "{}: {unread:#?}", shown(path));
        assert_eq!(past.lines.len(), text.lines().count(), "{}", shown(path));
        let name = path.display().to_string();
        let v: Value = serde_json::from_str(&b.run(&["runs", "show", &name, "--json"]).expect(0).stdout).unwrap();
        assert!(v["ops"].as_u64().unwrap() > 0, "{}: {v:#}", shown(path));
        let _ = b.run(&["runs", "show", &name]).expect(0);
        let _ = b.run(&["runs", "verify", &name]).expect(0);
    }
}

/// Names of the kinds of events that this program writes.
fn kinds() -> Vec<String> {
    let code = std::fs::read_to_string(root().join("stdlib/src/core/event.rs")).unwrap();
    let body = code.split_once("pub enum Event {").unwrap().1.split_once("\n}").unwrap().0;
    let variants = body.lines().filter_map(|l| l.strip_prefix("    ")).filter(|l| l.starts_with(char::is_uppercase));
    variants
        .map(|l| {
            let name: String = l.chars().take_while(char::is_ascii_alphanumeric).collect();
            let parts = name.char_indices().map(|(i, c)| match (i, c.is_ascii_uppercase()) {
                (0, _) | (_, false) => c.to_ascii_lowercase().to_string(),
                _ => format!("_{}", c.to_ascii_lowercase()),
            });
            parts.collect()
        })
        .collect()
}

#[test]
fn a_journal_is_kept_of_every_kind_of_event() {
    let all: String = fixtures().iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    let kinds = kinds();
    assert!(kinds.len() >= 13 && kinds.contains(&"op_finished".to_owned()), "{kinds:?}");
    let missing: Vec<&String> = kinds.iter().filter(|k| !all.contains(&format!("\"event\":\"{k}\""))).collect();
    assert!(missing.is_empty(), "no fixture has {missing:?}: keep a journal of a run that writes them");
}

fn shown(p: &Path) -> String {
    p.file_name().unwrap().to_string_lossy().into_owned()
}
