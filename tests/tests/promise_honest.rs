//! Promise: a lab run says at its end what it is worth: what it was blind for and on which line, on what the rest
//! stands, and how long it may take on hardware.
#![allow(clippy::unwrap_used)] // a test stops at the first surprise
use gpuhost_tests::play::{Play, all};
use serde_json::Value;

fn list(v: &Value) -> Vec<String> {
    v.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_the_lab_does_not_simulate_is_named_with_the_recipes_line() {
    let p = Play::deployed();
    let program = "let a = ssh::connect(\"muscle-a\");\n\na.run(\"frobnicate --now\", #{ ok_codes: [96] });\n";
    let chart = "let c = k3s::connect(site().hosts(\"server\"));\nc.ensure_release(\"web\", #{\n    chart: \"nginx\", \
                 repo: \"https://charts.bitnami.com/bitnami\", version: \"18.1.0\",\n});\n";
    all(&[
        ("a program", &|| {
            let ran = p.json(program, &[]).expect(0);
            let named = list(&ran.finished()["not_rehearsed"]);
            let line = named.iter().find(|t| t.starts_with("program `frobnicate`")).unwrap();
            assert!(line.contains(": rehearsal blind from ") && line.ends_with("play.rhai:3"), "{line}");
            assert_eq!(named.iter().filter(|t| t.contains("frobnicate")).count(), 1, "{named:?}");
        }),
        ("a chart", &|| {
            let ran = p.json(chart, &[]).expect(0);
            let named = list(&ran.finished()["not_rehearsed"]);
            let line = named.iter().find(|t| t.contains("chart `nginx`")).unwrap();
            assert!(line.contains("play.rhai:2"), "{line}");
        }),
        ("a run that wants nothing unknown is blind nowhere", &|| {
            let ran = p.json("print(1);", &[]).expect(0);
            assert!(!list(&ran.finished()["not_rehearsed"]).iter().any(|t| t.contains("blind from")));
        }),
    ]);
}

#[test]
fn a_run_says_on_what_it_stands_and_how_long_hardware_may_take() {
    let p = Play::new();
    let deployed = p.recipe("recipes/deploy.rhai", &[]).expect(0);
    let end = deployed.finished();
    for grade in ["recorded", "source", "docs", "estimate"] {
        assert!(!list(&end["grades"][grade]).is_empty(), "{grade}: {}", end["grades"]);
    }
    let (low, high) = (end["on_hardware"]["low"].as_f64().unwrap(), end["on_hardware"]["high"].as_f64().unwrap());
    assert!(low > 60.0 && high > 2.0 * low, "{low} to {high}");
    assert_eq!(end["on_hardware"]["calibrated"], 0);
    let text = p.text("step(\"wait\", || sleep(10.minutes));", &[]).expect(0);
    let want = "[LAB] on hardware: 5m to 30m (0 of 1 step calibrated by real runs)";
    assert!(text.stdout.contains(want), "{}", text.stdout);
    assert!(text.stdout.contains("simulated behaviours: "), "{}", text.stdout);
    // The world knows what it has met, and the table knows all of it.
    let rows = |more: &[&str]| p.b.run(&[&["lab", "grades", "--site", p.site()], more].concat()).expect(0).stdout;
    let (every, met) = (rows(&[]), rows(&["--met"]));
    assert!(met.lines().count() > 20 && met.lines().count() < every.lines().count(), "{met}");
    assert!(
        every.lines().all(|l| ["recorded", "source", "docs", "estimate"].iter().any(|g| l.starts_with(g))),
        "{every}"
    );
}

#[test]
fn real_runs_calibrate_the_steps_of_later_rehearsals() {
    let p = Play::new();
    let recipe = p.file(
        "steps.rhai",
        "step(\"one\", || sleep(param(\"wait\", 10.minutes)));\nstep(\"two\", || sleep(10.minutes * 0));\n",
    );
    // Without `--lab` and without a host to reach this is a real run.
    let real = p.b.run(&["run", &recipe, "--site", p.site(), "--json", "--set", "wait=1s"]).expect(0);
    assert_eq!(real.finished()["lab"], false);
    assert!(real.finished()["on_hardware"].is_null() && real.finished()["grades"].is_null(), "{}", real.finished());
    let lab = p.recipe(&recipe, &[]).expect(0);
    let e = &lab.finished()["on_hardware"];
    assert_eq!((e["calibrated"].as_u64(), e["steps"].as_array().unwrap().len()), (Some(2), 2), "{e}");
    assert!(e["steps"][0]["high"].as_f64().unwrap() < 300.0, "{e}");
}
