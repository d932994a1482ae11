//! `ssh` and `nfs` against the lab's machines, through the program itself.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::fs;
use std::path::Path;

use gpuhost_tests::{Bench, root};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn hosts_reach_their_wanted_state_and_stay_there() {
    let bench = Bench::new();
    let dir = bench.path("project");
    copy(&root().join("recipes"), &dir);
    fs::copy(root().join("tests/recipes/hosts.rhai"), dir.join("hosts.rhai")).unwrap();
    let recipe = dir.join("hosts.rhai").display().to_string();
    let site = dir.join("site.toml").display().to_string();
    let run = |more: &[&str]| {
        let mut args = vec!["run", recipe.as_str(), "--site", site.as_str(), "--lab"];
        args.extend(more);
        bench.run(&args).expect(0)
    };
    let first = run(&["--set", "effects=true"]);
    assert!(first.stderr.contains("ssh.ensure") || first.stdout.contains("ssh.ensure"), "{first:?}");
    let again = run(&["--json"]).finished();
    assert_eq!(again["changed"], 0, "{again}");
}
