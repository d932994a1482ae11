//! Plan equals run: the effects of the plan are exactly those of the run after it, in order per target.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use gpuhost_tests::plans::by_target;
use gpuhost_tests::{Bench, Ran};
use serde_json::Value;

const SITE: &str = "tests/sites/small.toml";
const DEPLOY: &str = "recipes/deploy.rhai";

fn run(b: &Bench, recipe: &str, more: &[&str]) -> Ran {
    let mut args = vec!["run", recipe, "--lab", "--json", "--yes", "--site", SITE];
    args.extend_from_slice(more);
    b.run(&args)
}

fn plan(b: &Bench, recipe: &str, code: i32) -> (Value, String) {
    let file = b.path("plan.json").display().to_string();
    let ran = b.run(&["plan", recipe, "--lab", "--json", "--site", SITE, "--out", &file]).expect(code);
    (serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap(), file)
}

/// Plans, runs under the plan, and compares; gives the number of effects.
fn equal(b: &Bench, recipe: &str, what: &str) -> usize {
    let (plan, file) = plan(b, recipe, 10);
    let ran = run(b, recipe, &["--plan", &file]).expect(0);
    let intents: Vec<Value> = ran.events().into_iter().filter(|e| e["event"] == "intent").collect();
    let planned = plan["effects"].as_array().unwrap();
    assert_eq!(by_target(planned), by_target(&intents), "{what}");
    // Nothing is left to do, and the plan says so.
    let _ = self::plan(b, recipe, 0);
    planned.len()
}

/// Runs a script that changes the world behind the recipe's back.
fn drift(b: &Bench, text: &str) {
    let path = b.path("drift.rhai");
    std::fs::write(&path, format!("let pve = proxmox::connect(site().proxmox);\n{text}\n")).unwrap();
    let _ = run(b, path.to_str().unwrap(), &[]).expect(0);
}

#[test]
fn a_plan_is_what_the_run_then_does() {
    let b = Bench::new();
    let (first, _) = plan(&b, DEPLOY, 10);
    let (makespan, critical) = (first["seconds"].as_f64().unwrap(), first["critical"].as_f64().unwrap());
    assert!(critical <= makespan && makespan <= 1.05 * critical, "{makespan} s for a critical path of {critical} s");
    assert!(first["overlap"].as_f64().unwrap() > 1.0, "machines are made beside each other: {first:#}");
    assert!(equal(&b, DEPLOY, "empty world") > 15);
    let (nothing, _) = plan(&b, DEPLOY, 0);
    assert!(nothing["effects"].as_array().unwrap().is_empty());

    // Drifted: a machine is off, a file is gone, a package is not there, a label is missing.
    let host = "let h = pve.find_vm(\"shelf\").ssh();";
    for (what, text) in [
        ("a machine is off", "pve.find_vm(\"muscle-b\").stop();".to_owned()),
        ("a file is gone", format!("{host} h.run(\"rm /etc/exports.d/gpuhost-export-k8s.exports\");")),
        ("a service is off", format!("{host} h.run(\"systemctl disable --now chrony\");")),
        ("a host name is wrong", format!("{host} h.run(\"sed -i /brain/d /etc/hosts\");")),
    ] {
        drift(&b, &text);
        equal(&b, DEPLOY, what);
    }
    assert!(equal(&b, "recipes/cleanup.rhai", "deployed world, cleanup") > 3);
}

#[test]
fn a_world_that_changed_in_between_stops_the_run_before_the_first_unplanned_effect() {
    let b = Bench::new();
    let _ = run(&b, DEPLOY, &[]).expect(0);
    drift(&b, "pve.find_vm(\"muscle-b\").stop();");
    let (_, file) = plan(&b, DEPLOY, 10);
    // Meanwhile another thing breaks, which the plan does not know of.
    drift(&b, "pve.find_vm(\"shelf\").ssh().run(\"sed -i /brain/d /etc/hosts\");");
    let ran = run(&b, DEPLOY, &["--plan", &file]).expect(4);
    let e = &ran.finished()["error"];
    assert!(e["message"].as_str().unwrap().contains("ssh.ensure on shelf is not in the plan"), "{e:#}");
    let unplanned = ran.events().into_iter().any(|e| e["event"] == "intent" && e["target"] == "shelf");
    assert!(!unplanned, "stopped before it");
    // A plan of another recipe is no plan of this one.
    let other = run(&b, "recipes/cleanup.rhai", &["--plan", &file]).expect(4);
    assert!(other.stderr.contains("it is a plan of recipes/deploy.rhai"), "{}", other.stderr);
    let set = run(&b, DEPLOY, &["--plan", &file, "--set", "probe=1"]);
    assert_ne!(set.code, 0, "{}", set.stderr);
    // What was rehearsed in the lab is no plan of the real site.
    let real = b.run(&["run", DEPLOY, "--site", SITE, "--yes", "--plan", &file]).expect(4);
    assert!(real.stderr.contains("was made in the lab") && real.stderr.contains("--lab"), "{}", real.stderr);
    // And the other way round.
    let text = std::fs::read_to_string(&file).unwrap();
    let mut of_site: Value = serde_json::from_str(&text).unwrap();
    of_site["bound_to"]["lab"] = false.into();
    std::fs::write(&file, of_site.to_string()).unwrap();
    let lab = run(&b, DEPLOY, &["--plan", &file]).expect(4);
    assert!(lab.stderr.contains("was made of the real site") && lab.stderr.contains("--lab --out"), "{}", lab.stderr);
    // A lab's world is no world of another site's lab.
    let labs = std::fs::read_dir(b.path("state/lab")).unwrap().flatten();
    let world = labs.map(|e| e.path().join("world.json")).find(|p| p.exists()).unwrap().display().to_string();
    let toml = std::fs::read_to_string(gpuhost_tests::root().join(SITE)).unwrap().replace("0a8d1b6e", "0a8d1b6f");
    let other_site = b.path("other.toml").display().to_string();
    std::fs::write(&other_site, toml).unwrap();
    let no = b.run(&["plan", DEPLOY, "--against", &world, "--site", &other_site]).expect(4);
    assert!(no.stderr.contains("of another site") && no.stderr.contains("gpuhost snapshot"), "{}", no.stderr);
    let shown = b.run(&["drift", "--lab", "--site", SITE]).expect(10);
    assert!(shown.stdout.contains("differs from the recipe") && shown.stdout.contains("shelf"), "{}", shown.stdout);
}

/// Safety rule 18, as far as a lab goes: pods have other names by the time they are evicted, and no node is left drained.
#[test]
fn an_upgrade_runs_under_its_plan() {
    let b = Bench::new();
    let _ = run(&b, DEPLOY, &[]).expect(0);
    let file = b.path("plan.json").display().to_string();
    let set = ["--set", "version=v1.35.7+k3s1"];
    let upgrade = "recipes/upgrade.rhai";
    let planned =
        b.run(&[&["plan", upgrade, "--lab", "--site", SITE, "--out", &file][..], &set].concat()).expect(10).stdout;
    assert!(planned.contains("k3s.upgrade") && planned.contains("kubernetes.drain"), "{planned}");
    let _ = run(&b, upgrade, &[&["--plan", &file][..], &set].concat()).expect(0);
    let cordoned = b.path("cordoned.rhai");
    let text = "for n in k3s::connect(site().hosts(\"server\")).list(\"node\") {\n\
        require(!(\"unschedulable\" in n.spec), `${n.metadata.name} is left drained`);\n}\n";
    std::fs::write(&cordoned, text).unwrap();
    let _ = run(&b, cordoned.to_str().unwrap(), &[]).expect(0);
}
