//! Faults on the lab: rules, seeds, drills. Every run ends converged or in a named error that a clean run mends.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeMap;

use gpuhost_tests::{Bench, Ran};
use serde_json::{Value, json};

const SITE: &str = "tests/sites/small.toml";

fn deploy(b: &Bench, more: &[&str]) -> Ran {
    let mut args = vec!["run", "recipes/deploy.rhai", "--lab", "--json", "--site", SITE];
    args.extend_from_slice(more);
    b.run(&args)
}

#[test]
fn rules_strike_where_they_say_and_a_clean_run_mends() {
    let rules = [
        ("pve.clone@brain#1: task-fails \"storage is on fire\"", Some("storage is on fire")),
        ("pve.clone@brain#1: drop-mid", None),
        ("pve.get_version@*#1: reset", None),
        // Here the machine is only being looked at: nothing is lost.
        ("ssh.exec@muscle-a#3: disk-full", None),
        ("kube.patch@*#1: http500", Some("fault")),
        ("pve.start@shelf#1: slow 90s", None),
    ];
    for (rule, says) in rules {
        let b = Bench::new();
        let file = b.path("faults");
        std::fs::write(&file, format!("# a rule\n{rule}\n")).unwrap();
        let ran = deploy(&b, &["--faults", file.to_str().unwrap()]);
        let end = ran.finished();
        let struck: Vec<&str> = end["faults"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(struck.len(), 1, "{rule} struck once: {end:#}");
        if let Some(says) = says {
            assert_eq!(ran.code, 1, "{rule}: {end:#}");
            assert!(end["error"].to_string().contains(says), "{rule}: {:#}", end["error"]);
        }
        if ran.code != 0 {
            let e = &end["error"];
            assert!(
                !e["op"].as_str().unwrap().is_empty() && !e["target"].as_str().unwrap().is_empty(),
                "{rule}: {e:#}"
            );
        }
        let _ = deploy(&b, &[]).expect(0);
        assert_eq!(deploy(&b, &[]).expect(0).finished()["changed"], 0, "{rule}");
    }
    let b = Bench::new();
    let file = b.path("faults");
    std::fs::write(&file, "pve.clone@brain: explode\n").unwrap();
    let wrong = deploy(&b, &["--faults", file.to_str().unwrap()]).expect(2);
    assert!(wrong.stderr.contains("line 1") && wrong.stderr.contains("explode"), "{}", wrong.stderr);
}

/// A program that only looks is run again when its connection is lost.
#[test]
fn a_look_survives_a_lost_connection() {
    let b = Bench::new();
    let file = b.path("faults");
    std::fs::write(&file, "ssh.exec@brain#1: reset\nssh.exec@muscle-a#2: drop-mid\nssh.exec@shelf#3: drop-mid\n")
        .unwrap();
    let ran = deploy(&b, &["--faults", file.to_str().unwrap()]).expect(0);
    assert_eq!(ran.finished()["faults"].as_array().map(Vec::len), Some(3), "{:#}", ran.finished());
}

/// What may pass is tried again, by its kind, with an event for every try: logins, reads and applies.
#[test]
fn what_may_pass_is_tried_again() {
    let b = Bench::new();
    let file = b.path("faults");
    let rules = ["ssh.login@brain#3: reset", "kube.get@nodes//brain#1: http503", "kube.patch@*#1: http429"];
    std::fs::write(&file, rules.join("\n")).unwrap();
    let ran = deploy(&b, &["--faults", file.to_str().unwrap()]).expect(0);
    let end = ran.finished();
    let struck: Vec<&str> = end["faults"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(struck.len() >= 2, "{end:#}");
    let tries: Vec<String> =
        ran.events().iter().filter(|e| e["event"] == "retrying").map(ToString::to_string).collect();
    assert!(tries.iter().any(|t| t.contains("PATCH") && t.contains("429")), "{tries:#?}");
    assert_eq!(deploy(&b, &[]).expect(0).finished()["changed"], 0);
}

#[test]
fn a_machine_that_never_boots_is_named_with_what_was_seen_and_what_to_type() {
    let b = Bench::new();
    let file = b.path("faults");
    std::fs::write(&file, "guest.boot@shelf#1: boot-never\n").unwrap();
    let ran = deploy(&b, &["--faults", file.to_str().unwrap()]).expect(1);
    let end = ran.finished();
    let e = &end["error"];
    assert_eq!(
        (&e["kind"], &e["target"], &e["op"]),
        (&json!("timeout"), &json!("shelf"), &json!("proxmox.wait_ready"))
    );
    assert!(e["last"].as_str().unwrap().contains("the guest agent does not answer"), "{e:#}");
    let hint = e["hint"].as_str().unwrap();
    assert!(hint.contains("qm terminal 504") && hint.contains("reset()"), "{hint}");
    assert_eq!(end["faults"], json!(["guest.boot@shelf#1: boot-never"]));
    // What the hint says mends it.
    let cure = b.path("cure.rhai");
    std::fs::write(&cure, "proxmox::connect(site().proxmox).find_vm(\"shelf\").reset();\n").unwrap();
    let _ = b.run(&["run", cure.to_str().unwrap(), "--lab", "--site", SITE]).expect(0);
    let _ = deploy(&b, &[]).expect(0);
    assert_eq!(deploy(&b, &[]).expect(0).finished()["changed"], 0);
}

/// What was done to every target, in order.
fn deeds(b: &Bench) -> BTreeMap<String, Vec<String>> {
    let show: Value = serde_json::from_str(&b.run(&["runs", "show", "--json"]).expect(0).stdout).unwrap();
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for d in show["deeds"].as_array().unwrap() {
        let n = d["changes"].as_array().unwrap().len();
        let text = format!("{} {} {n} changes", d["op"].as_str().unwrap(), d["status"]);
        out.entry(d["target"].as_str().unwrap().to_owned()).or_default().push(text);
    }
    out
}

#[test]
fn a_seed_replays_to_the_same_faults_ops_and_outcome() {
    let seed = format!("random:{}", gpuhost_tests::turn::turn() as u64 % 1000);
    let [one, two] = [0, 1].map(|_| {
        let b = Bench::new();
        let ran = deploy(&b, &["--faults", &seed]);
        let end = ran.finished();
        (ran.code, end["faults"].clone(), end["error"]["message"].clone(), deeds(&b))
    });
    assert_eq!(one, two, "{seed}");
}

#[test]
fn drills_end_converged_or_in_a_named_error() {
    let whole = std::env::var("GPUHOST_DRILL").ok().and_then(|n| n.parse::<u64>().ok());
    let (first, seeds) = match whole {
        Some(n) => (1, n),
        None => (gpuhost_tests::turn::turn() as u64 % 100_000, 5),
    };
    let b = Bench::new();
    let (first, n) = (first.to_string(), seeds.to_string());
    let ran = b.run(&["drill", "recipes/deploy.rhai", "--site", SITE, "--first", &first, "--seeds", &n, "--json"]);
    let events = ran.events();
    let bad: Vec<&Value> = events.iter().filter(|e| e["event"] == "drilled" && e["good"] == false).collect();
    let end = events.last().unwrap();
    println!("drill: {} of {} seeds", end["good"], end["seeds"]);
    assert!(bad.is_empty() && ran.code == 0, "{bad:#?}\n{}", ran.stderr);
    assert_eq!(end["seeds"], seeds);
}
