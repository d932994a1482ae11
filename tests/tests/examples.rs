//! Every example of the reference runs on a deployed lab.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::fmt::Write as _;

use gpuhost_tests::Bench;
use gpuhost_tests::examples::{Example, PRELUDE, SCENE, all};
use gpuhost_tests::play::copy;

/// One recipe of several examples; each says how it failed and the next one goes on.
fn recipe(list: &[&Example]) -> String {
    let mut out = PRELUDE.to_owned();
    for e in list {
        writeln!(out, "try {{\n{}\n}} catch (err) {{ print(`EXAMPLE {} FAILED: ${{err}}`); }}", e.text, e.name)
            .unwrap();
    }
    out
}

fn play(b: &Bench, name: &str, text: &str) -> Vec<String> {
    let path = b.path(name);
    std::fs::write(&path, text).unwrap();
    let site = gpuhost_tests::root().join("recipes/site.toml");
    let ran = b.run(&["run", path.to_str().unwrap(), "--lab", "--yes", "--json", "--site", site.to_str().unwrap()]);
    let mut bad: Vec<String> = ran
        .events()
        .iter()
        .filter_map(|e| e["text"].as_str().filter(|t| t.starts_with("EXAMPLE ")).map(str::to_owned))
        .collect();
    if ran.code != 0 && bad.is_empty() {
        let found: Vec<String> =
            ran.events().iter().filter(|e| e["event"] == "finding").map(ToString::to_string).collect();
        let error = ran.finished()["error"].to_string();
        bad.push(format!("{name} ended with {}:\n{text}\n{error}\n{}\n{}", ran.code, found.join("\n"), ran.stderr));
    }
    bad
}

#[test]
fn examples_do_what_they_show() {
    let b = Bench::new();
    let site = gpuhost_tests::root().join("recipes/site.toml");
    let _ = b.run(&["lab", "reset", "--start", "deployed", "--site", site.to_str().unwrap()]).expect(0);
    assert_eq!(play(&b, "scene.rhai", &format!("{PRELUDE}{SCENE}")), Vec::<String>::new());

    let all = all();
    let mut bad = Vec::new();
    for e in all.iter().filter(|e| e.alone) {
        let own = Bench::new();
        copy(&b.path("state"), &own.path("state"));
        bad.extend(play(&own, "alone.rhai", &recipe(&[e])));
    }
    let together: Vec<&Example> = all.iter().filter(|e| !e.alone).collect();
    bad.extend(play(&b, "together.rhai", &recipe(&together)));
    println!("{} examples, {} of them in worlds of their own", all.len(), all.iter().filter(|e| e.alone).count());
    assert!(bad.is_empty(), "{} examples fail:\n{}", bad.len(), bad.join("\n"));
}
