//! Every example of the reference runs on a deployed lab.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::fmt::Write as _;
use std::path::Path;

use gpuhost::reference::Reference;
use gpuhost_tests::Bench;

/// What examples may take for granted.
const PRELUDE: &str = r#"
let pve = proxmox::connect(site().proxmox);
let cluster = k3s::connect(site().hosts("server"));
let host = site().hosts("agent")[0];
"#;

/// What stands in the cluster for them.
const SCENE: &str = r#"
cluster.ensure_namespace("shop");
let web = #{
    apiVersion: "v1", kind: "Pod", metadata: #{ name: "web" },
    spec: #{ containers: [#{ name: "web", image: "registry.k8s.io/pause:3.10" }] },
};
cluster.apply(web, #{ namespace: "shop" });
cluster.apply(web, #{ namespace: "default" });
cluster.wait("pod", "web", "condition=Ready", 5.minutes, #{ namespace: "shop" });
cluster.wait("pod", "web", "condition=Ready", 5.minutes, #{ namespace: "default" });
"#;

/// First words of functions whose examples others would miss something after: each has a world of its own.
const ALONE: &[&str] = &[
    "remove",
    "delete",
    "uninstall",
    "stop",
    "shutdown",
    "reboot",
    "reset",
    "suspend",
    "drain",
    "restore",
    "rollback",
    "migrate",
    "convert",
    "move",
    "rotate",
];

struct Example {
    name: String,
    text: String,
    alone: bool,
}

fn examples() -> Vec<Example> {
    let r = Reference::builtin();
    let mut out: Vec<Example> = Vec::new();
    for f in r.functions.iter().filter(|f| !f.standard) {
        for (i, block) in f.doc.split("```rhai").skip(1).enumerate() {
            // After the fence: the rest of its line, which may carry attributes.
            let (attributes, rest) = block.split_once('\n').unwrap_or_default();
            let text = rest.split("```").next().unwrap_or_default().to_owned();
            if attributes.contains("check") || out.iter().any(|e| e.text == text) {
                continue;
            }
            let first = f.name.split('_').next().unwrap_or_default();
            let of = if f.module.is_empty() { String::new() } else { format!("{}::", f.module) };
            let name = format!("{of}{}/{} #{}", f.name, f.params.len(), i + 1);
            out.push(Example { name, text, alone: ALONE.contains(&first) });
        }
    }
    assert!(out.len() > 150, "only {} examples", out.len());
    out
}

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

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for e in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(e.file_name());
        if e.path().is_dir() {
            copy(&e.path(), &target);
        } else {
            std::fs::copy(e.path(), &target).unwrap();
        }
    }
}

#[test]
fn examples_do_what_they_show() {
    let b = Bench::new();
    let site = gpuhost_tests::root().join("recipes/site.toml");
    let _ = b.run(&["lab", "reset", "--start", "deployed", "--site", site.to_str().unwrap()]).expect(0);
    assert_eq!(play(&b, "scene.rhai", &format!("{PRELUDE}{SCENE}")), Vec::<String>::new());

    let all = examples();
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
