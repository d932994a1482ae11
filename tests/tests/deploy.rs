//! Whole runs on the lab: deploy, again, verify, cleanup, and what has to be left.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use gpuhost_tests::{Bench, Ran};
use serde_json::Value;

const DEPLOY: &str = "recipes/deploy.rhai";

/// What is on the share and on a scratch disk.
const LEFT: &str = "print(ssh::connect(\"nfs1\").run(\"find /srv/nfs\").stdout);\n\
    for n in [\"k3s-gpu1\", \"k3s-gpu2\"] { print(ssh::connect(n).run(\"ls /mnt/scratch\").stdout); }\n";

fn run(b: &Bench, recipe: &str, more: &[&str]) -> Ran {
    let mut args = vec!["run", recipe, "--lab", "--json"];
    args.extend_from_slice(more);
    b.run(&args)
}

/// The hypervisor of the bench's lab as comparable data: no task log, no id counters, no MACs.
fn hypervisor(b: &Bench) -> Value {
    let ran = b.run(&["lab", "status", "--json"]).expect(0);
    let status: Value = serde_json::from_str(&ran.stdout).unwrap();
    let view = status["world"]["hypervisor"].clone();
    assert!(view.is_object() && view.to_string().contains("pfsense"), "the foreign machine is in view: {status}");
    view
}

/// Makes the bench's lab exist without changing anything in it.
fn birth(b: &Bench) {
    let recipe = b.path("nothing.rhai");
    std::fs::write(&recipe, "print(`hello ${site().name}`);\n").unwrap();
    let site = gpuhost_tests::root().join("recipes/site.toml");
    let _ = run(b, recipe.to_str().unwrap(), &["--site", site.to_str().unwrap()]).expect(0);
}

#[test]
fn the_default_site_comes_up_is_proven_and_leaves_nothing() {
    let b = Bench::new();
    birth(&b);
    let before = hypervisor(&b);

    let first = run(&b, DEPLOY, &[]).expect(0);
    // Rancher's chart shows `hostname` only as a comment in its values, and reads it
    assert!(!first.stdout.contains("has no value"), "{}", first.stdout);
    let end = first.finished();
    assert_eq!((end["status"].as_str(), end["lab"].as_bool()), (Some("ok"), Some(true)));
    assert!(end["changed"].as_u64().unwrap() > 100, "{end}");
    assert!(first.stdout.contains("7 nodes Ready, 8 GPUs allocatable"));

    let second = run(&b, DEPLOY, &[]).expect(0).finished();
    assert_eq!(second["changed"], 0, "a second deploy changes nothing");
    assert_ne!(hypervisor(&b), before, "the comparison can tell a difference");

    let verify = run(&b, "recipes/verify.rhai", &[]).expect(0);
    let proofs: Vec<Value> = verify.events().into_iter().filter(|e| e["event"] == "proved").collect();
    assert_eq!(proofs.len(), 17, "{proofs:#?}");
    assert_eq!(run(&b, DEPLOY, &[]).expect(0).finished()["changed"], 0, "verify leaves nothing behind");
    let sweep = b.path("left.rhai");
    std::fs::write(&sweep, LEFT).unwrap();
    let site = gpuhost_tests::root().join("recipes/site.toml");
    let left = run(&b, sweep.to_str().unwrap(), &["--site", site.to_str().unwrap()]).expect(0);
    assert!(left.stdout.contains("jupyterhub") && !left.stdout.contains("verify"), "on disks: {}", left.stdout);

    let cleanup = run(&b, "recipes/cleanup.rhai", &["--yes", "--set", "delete_data=true"]).expect(0);
    assert!(cleanup.finished()["changed"].as_u64().unwrap() > 0);
    assert_eq!(hypervisor(&b), before, "the hypervisor is as it was");

    let after = run(&b, "recipes/verify.rhai", &[]).expect(3);
    assert!(after.stdout.contains("k3s-cp1"), "verify names what is missing");

    // What the bench holds against the schemas when it ends.
    match b.api() {
        Some(v) => {
            let (seen, all, _) = v.coverage("9.1");
            println!(
                "{} exchanges with the Proxmox API fit the schema; {seen} of {all} methods of the mission",
                v.seen
            );
            assert!(v.seen > 500 && seen > 30, "the record is not complete");
        }
        None => println!("skipped: no API schema beside the checkout"),
    }
}

#[test]
fn a_small_site_without_gpus_keeps_its_data() {
    let b = Bench::new();
    let site = ["--site", "tests/sites/small.toml"];
    let first = run(&b, DEPLOY, &site).expect(0);
    assert!(first.stdout.contains("3 nodes Ready, 0 GPUs allocatable"));
    assert_eq!(run(&b, DEPLOY, &site).expect(0).finished()["changed"], 0);
    let _ = run(&b, "recipes/verify.rhai", &site).expect(0);

    let kept = run(&b, "recipes/cleanup.rhai", &["--yes", site[0], site[1]]).expect(0);
    assert!(kept.stdout.contains("gh-data-504") || kept.stdout.contains("kept:"), "the data disk is listed");

    // The kept disk comes back, to a cluster that is the only one.
    let _ = run(&b, DEPLOY, &site).expect(0);
    let _ = run(&b, "recipes/verify.rhai", &site).expect(0);
    let _ = run(&b, "recipes/cleanup.rhai", &["--yes", "--set", "delete_data=true", site[0], site[1]]).expect(0);
}

/// A copy of the default site with one thing changed.
fn changed_site(b: &Bench, from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(gpuhost_tests::root().join("recipes/site.toml")).unwrap();
    assert!(text.contains(from), "{from}");
    let path = b.path("site.toml");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    path.display().to_string()
}

/// The run ends in a named error; the correct site then converges.
fn breaks(from: &str, to: &str, kind: &str, says: &str) {
    let b = Bench::new();
    let site = changed_site(&b, from, to);
    let ran = run(&b, DEPLOY, &["--site", &site]).expect(1);
    let error = &ran.finished()["error"];
    assert_eq!(error["kind"], kind, "{error:#}");
    assert!(!error["target"].as_str().unwrap().is_empty(), "{error:#}");
    assert!(error["hint"].as_str().is_some_and(|h| !h.is_empty()), "{error:#}");
    assert!(error.to_string().contains(says), "{error:#}");
    let good = changed_site(&b, "[site]", "[site]");
    let _ = run(&b, DEPLOY, &["--site", &good]).expect(0);
}

#[test]
fn a_node_that_refuses_the_key() {
    let b = Bench::new();
    let site = ["--site", "tests/sites/small.toml"];
    let _ = run(&b, DEPLOY, &site).expect(0);
    let lab = std::fs::read_dir(b.path("state/lab")).unwrap().flatten().map(|e| e.path().join("state/attic_key"));
    let key = lab.into_iter().find(|p| p.exists()).unwrap();
    let aside = b.path("aside");
    std::fs::rename(&key, &aside).unwrap();
    let end = run(&b, DEPLOY, &site).expect(1).finished();
    let error = &end["error"];
    let said = |field: &str, words: &str| error[field].as_str().is_some_and(|t| t.contains(words));
    assert!(error["kind"] == "denied" && said("message", "brain and 3 more machines do not know"), "{error:#}");
    assert!(said("hint", "attic_key") && said("hint", "rotate-ssh-key"), "{error:#}");
    assert_eq!(end["changed"], 0);
    let doctor = run(&b, "scripts/doctor.rhai", &site).expect(3);
    let named: Vec<_> = doctor.said("print").into_iter().filter(|l| l.contains("@attic:")).collect();
    assert!(named.len() == 1 && named[0].starts_with("ssh-key-refused@attic: the machines refuse"), "{named:#?}");
    // The key is a new one on purpose: it is let in, the former one stays until it is told to go.
    let rotate = "recipes/rotate-ssh-key.rhai";
    let _ = run(&b, rotate, &site).expect(4);
    let first = run(&b, rotate, &["--site", site[1], "--yes"]).expect(0);
    assert_eq!(first.finished()["changed"], 4);
    let left = first.said("print").into_iter().filter(|l| l.contains("still logs in: SHA256:")).count();
    assert_eq!(left, 4, "{:#?}", first.said("print"));
    let dropping = ["--site", site[1], "--yes", "--set", "drop_former=true"];
    for changes in [4, 0] {
        assert_eq!(run(&b, rotate, &dropping).expect(0).finished()["changed"], changes);
    }
    let counted = b.path("counted.rhai");
    let keys = "for vm in proxmox::connect(site().proxmox).list_owned() { if vm.kind == \"machine\" {\n\
        let keys = vm.read_file(\"/home/ops/.ssh/authorized_keys\").split(\"\\n\").filter(|l| l != \"\");\n\
        require(keys.len() == 1, `${vm.name}: ${keys}`);\n} }\n";
    std::fs::write(&counted, keys).unwrap();
    let _ = run(&b, counted.to_str().unwrap(), &site).expect(0);
    let _ = run(&b, DEPLOY, &site).expect(0);
    assert_eq!(run(&b, DEPLOY, &site).expect(0).finished()["changed"], 0);
    // The key that made them is a stranger now.
    std::fs::rename(&aside, &key).unwrap();
    let _ = run(&b, DEPLOY, &site).expect(1);
}

/// The file system on a grown disk stays as it was until somebody grows it; a deploy does both, once.
#[test]
fn a_grown_disk_gets_a_grown_file_system() {
    let b = Bench::new();
    let _ = run(&b, DEPLOY, &["--site", "tests/sites/small.toml"]).expect(0);
    let text = std::fs::read_to_string(gpuhost_tests::root().join("tests/sites/small.toml")).unwrap();
    let path = b.path("larger.toml");
    std::fs::write(
        &path,
        text.replace("data = \"50 GiB\"", "data = \"80 GiB\"").replace("disk = \"60 GiB\"", "disk = \"90 GiB\""),
    )
    .unwrap();
    let site = ["--site", path.to_str().unwrap()];
    let ran = run(&b, DEPLOY, &site).expect(0);
    let sizes: std::collections::BTreeSet<String> = ran
        .events()
        .iter()
        .filter(|e| e["event"] == "intent")
        .flat_map(|e| e["changes"].as_array().cloned().unwrap_or_default())
        .map(|c| format!("{} {}: {} -> {}", c["target"], c["what"], c["before"], c["after"]).replace('"', ""))
        .collect();
    let of =
        |name: &str| sizes.iter().filter(|s| s.starts_with(name) && s.contains("size of")).cloned().collect::<Vec<_>>();
    for node in ["muscle-a", "muscle-b"] {
        assert_eq!(of(node), [format!("{node} size of the root file system: 59.9 GiB -> 89.9 GiB")], "{sizes:#?}");
    }
    assert!(of("shelf")[0].ends_with("50 GiB -> 80 GiB"), "{sizes:#?}");
    assert_eq!(run(&b, DEPLOY, &site).expect(0).finished()["changed"], 0);
}

#[test]
fn a_mapping_to_cards_that_are_not_there() {
    breaks("device = \"10de:20f1\"", "device = \"10de:2684\"", "not_found", "10de:2684");
}

#[test]
fn a_k3s_version_that_does_not_exist() {
    breaks("version = \"v1.34.9+k3s1\"", "version = \"v1.34.99+k3s1\"", "not_found", "v1.34.99+k3s1");
}

#[test]
fn a_storage_that_is_full() {
    breaks("data = \"2 TiB\"", "data = \"900 TiB\"", "failed", "local-zfs");
}

#[test]
fn check_finds_misspelt_names_before_anything_runs() {
    let b = Bench::new();
    let recipe = b.path("typo.rhai");
    std::fs::write(&recipe, "let pve = proxmox::conect(site().proxmox);\nparallel([1], #{ limt: 2 }, |n| n);\n")
        .unwrap();
    let site = changed_site(&b, "gateway =", "gatway =");
    let ran = b.run(&["check", recipe.to_str().unwrap(), "--site", &site]).expect(2);
    let text = format!("{}{}", ran.stdout, ran.stderr);
    for part in ["typo.rhai:1", "`proxmox::connect`", "typo.rhai:2", "`limit`", "unknown key `gatway`", "`gateway`"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}
