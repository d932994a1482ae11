//! Promise: exit codes, the last event, consent, colours, help and documents of the command line.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test stops at the first surprise
use std::process::{Command, Stdio};

use gpuhost_tests::play::{Play, all};
use gpuhost_tests::{Bench, Ran, root};

#[test]
fn exit_codes_and_the_last_event() {
    let p = Play::new();
    let cases: &[(&str, &[&str], i32, &str)] = &[
        ("print(1);", &[], 0, "ok"),
        ("throw \"no\";", &[], 1, "failed"),
        ("stpe(1);", &[], 2, "failed"),
        ("require(false, \"no\");", &[], 3, "failed"),
        // What a recipe cannot go without is asked for before anything is begun; so is a value of the wrong kind.
        ("let n = param(\"node\"); print(n);", &[], 2, "failed"),
        ("let n = param(\"node\"); print(n);", &["--set", "node="], 2, "failed"),
        ("let n = param(\"node\"); print(n);", &["--set", "node=a"], 0, "ok"),
        ("if 1 + 1 == 2 { print(param(\"node\")); }", &[], 2, "failed"),
        ("fn ask() { param(\"node\") } print(1);", &[], 0, "ok"),
        ("print(param(\"count\", 1));", &["--set", "count=many"], 2, "failed"),
        ("confirm(\"go on?\");", &[], 4, "refused"),
        ("confirm(\"go on?\", #{ destroys: true });", &[], 4, "refused"),
        ("confirm(\"go on?\");", &["--yes=other"], 4, "refused"),
        ("confirm(\"go on?\", #{ destroys: true });", &["--yes=other"], 4, "refused"),
        ("confirm(\"go on?\");", &["--yes=attic"], 0, "ok"),
        // In the lab a plain yes is enough.
        ("confirm(\"go on?\", #{ destroys: true });", &["--yes"], 0, "ok"),
    ];
    for (text, more, code, status) in cases {
        let ran = p.json(text, more);
        assert_eq!(ran.code, *code, "{text} {more:?}: {}{}", ran.stdout, ran.stderr);
        // Every line is an event, the last one is the end.
        for line in ran.stdout.lines() {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|v| v["event"].is_string()), "{line}");
        }
        let last: serde_json::Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(last["event"], "run_finished", "{text}: {last}");
        assert_eq!((&last["status"], &last["exit"]), (&(*status).into(), &(*code).into()), "{text}: {last}");
        assert_eq!(last["lab"], true, "{text}: {last}");
        assert!(last["changed"].is_u64() && last["steps"].is_array(), "{text}: {last}");
        assert!(last["seconds"].is_number() && last["site_seconds"].is_number(), "{text}: {last}");
    }
    let end = p.json("step(\"a\", || sleep(2.minutes)); step(\"b\", || 1);", &[]).expect(0).finished();
    let names: Vec<&str> = end["steps"].as_array().unwrap().iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(names, ["a", "b"], "{end}");
    assert!(end["site_seconds"].as_f64().unwrap() >= 120.0, "{end}");
}

/// A real site is refused without its own name; nobody is asked, and nothing is dialled.
#[test]
fn unattended_removals_name_their_site() {
    let p = Play::new();
    let path = p.file("play.rhai", "confirm(\"remove?\", #{ destroys: true }); print(\"agreed\");");
    let on_site = |more: &[&str]| p.b.run(&[&["run", path.as_str(), "--site", p.site()], more].concat());
    let plain = on_site(&["--yes"]).expect(4);
    assert!(plain.stderr.contains("--yes=attic") && !plain.stdout.contains("agreed"), "{}", plain.stderr);
    let wrong = on_site(&["--yes=other"]).expect(4);
    assert!(wrong.stderr.contains("`--yes=other` names another site than `attic`"), "{}", wrong.stderr);
    assert!(on_site(&["--yes=attic"]).expect(0).stdout.contains("agreed"));
    let asked = on_site(&[]).expect(4);
    assert!(asked.stderr.contains("nobody can be asked"), "{}", asked.stderr);
    assert!(!asked.stderr.contains("[LAB]") && !asked.stdout.contains("[LAB]"), "a real run has no mark of the lab");
    // Questions that take nothing away are agreed to by a plain yes.
    let path = p.file("play.rhai", "confirm(\"go on?\"); print(\"agreed\");");
    assert!(p.b.run(&["run", &path, "--site", p.site(), "--yes"]).expect(0).stdout.contains("agreed"));
}

#[test]
fn what_is_printed_goes_where_it_belongs() {
    let p = Play::new();
    all(&[
        ("the lab is marked, the recipe's own lines are not", &|| {
            let ran = p.text("step(\"a\", || print(\"mine\")); warn(\"careful\");", &[]).expect(0);
            assert!(ran.stdout.lines().any(|l| l == "mine"), "{}", ran.stdout);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            for line in said.lines().filter(|l| !l.is_empty() && *l != "mine") {
                assert!(line.starts_with("[LAB]"), "{line}");
            }
        }),
        ("no colours without a terminal, nor with NO_COLOR on one", &|| {
            let path = p.file("play.rhai", "step(\"a\", || 1); throw \"no\";");
            let mut c = p.b.command(&["run", &path, "--lab", "--site", p.site()]);
            let ran = Ran::of(&c.env_remove("NO_COLOR").output().unwrap());
            assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{ran:?}");
            let line = format!("{} run {path} --lab --site {}", gpuhost_tests::program().display(), p.site());
            let Some(plain) = on_terminal(&p.b, &line, true) else { return };
            assert!(!plain.contains("\u{1b}[3") && !plain.contains("\u{1b}[1"), "{plain:?}");
            let coloured = on_terminal(&p.b, &line, false).unwrap();
            assert!(coloured.contains("\u{1b}[3") || coloured.contains("\u{1b}[1"), "{coloured:?}");
        }),
        ("secrets are in no output, event, error or journal", &|| {
            let text = "let s = secret(\"env:PROBE\"); print(s); print(`${s}`); warn(`x ${s}`); print([s]); print(#{ a: s });\n\
                        step(`s ${s}`, || 1);\ntry { throw `why ${s}`; } catch (e) { print(e); }\nthrow s;";
            for more in [&["--json"][..], &["-v"]] {
                let path = p.file("play.rhai", text);
                let mut c = p.b.command(&[&["run", &path, "--lab", "--site", p.site()], more].concat());
                let ran = Ran::of(&c.env("PROBE", "hunter2-probe").output().unwrap());
                assert_eq!(ran.code, 1, "{ran:?}");
                assert!(!format!("{ran:?}").contains("hunter2-probe"), "{ran:?}");
                assert!(ran.stdout.contains("***"), "{ran:?}");
            }
            let found = Command::new("grep").args(["-rl", "hunter2-probe"]).arg(p.b.path("state")).output().unwrap();
            assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
        }),
        ("what cannot be printed is no success", &|| {
            let path = p.file("play.rhai", "print(1);");
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
            let mut c = p.b.command(&["run", &path, "--lab", "--site", p.site()]);
            let ran = Ran::of(&c.stdout(full).output().unwrap());
            assert!(ran.code == 1 && ran.stderr.contains("standard output was not written"), "{ran:?}");
        }),
        ("pipes that close early are no panic", &|| {
            let path = p.file("play.rhai", "for i in 0..5000 { print(`line ${i}`); }");
            let line = format!("{} run {path} --lab --site {} | head -1", gpuhost_tests::program().display(), p.site());
            let out = p.b.command(&[]).get_program().to_owned();
            assert!(!out.is_empty());
            let mut c = Command::new("sh");
            c.args(["-c", &line]).current_dir(root()).env("GPUHOST_STATE_DIR", p.b.path("state"));
            let ran = Ran::of(&c.env("HOME", p.b.path("")).output().unwrap());
            assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        }),
    ]);
}

/// What people meet on their first day.
#[test]
fn words_for_newcomers() {
    let p = Play::new();
    let site = root().join(p.site()).display().to_string();
    let failing = p.file("failing.rhai", "let a = param(\"a\", 0); step(\"form it\", || { throw \"no\"; });");
    all(&[
        ("a suggestion is one that is alike", &|| {
            let ran = p.b.run(&["check", "recipes/nosuch.rhai"]);
            assert!(!ran.stderr.contains("did you mean") && ran.stderr.contains("cleanup, deploy, "), "{ran:?}");
            let ran = p.b.run(&["check", "recipes/deplyo.rhai"]);
            assert!(ran.stderr.contains("did you mean `recipes/deploy.rhai`?"), "{ran:?}");
        }),
        ("a folder is no recipe", &|| {
            let ran = p.b.run(&["run", "recipes/", "--lab"]).expect(2);
            assert!(ran.stderr.contains("name a recipe in it: `recipes/NAME.rhai`"), "{ran:?}");
        }),
        ("faults and images are looked at before the lab is", &|| {
            for (args, word) in [
                (&["fault", "secure-bot@muscle-a"][..], "did you mean `secure-boot`?"),
                (&["fault", "secure-boot"], "`secure-boot` needs a target"),
                (&["fault", "--by-hand"], "needs the fault"),
                (&["push", "ba d"], "`ba d` is no image"),
            ] {
                let ran = p.b.run(&[&["lab"], args, &["--site", p.site()]].concat()).expect(2);
                assert!(ran.stderr.contains(word), "{args:?}: {ran:?}");
            }
        }),
        ("one failed proof is one", &|| {
            let ran = p.text("prove(\"a\", || false);", &[]).expect(3);
            assert!(ran.stdout.contains(", 1 failed proof, "), "{}", ran.stdout);
        }),
        ("the project's own recipe comes first, the program's is named", &|| {
            let own = p.file("recipes/deploy.rhai", "print(\"my own\");");
            let dir = std::path::Path::new(&own).parent().and_then(|d| d.parent()).unwrap();
            let run = |name: &str| {
                let mut c = p.b.command(&["run", name, "--lab", "--site", &site]);
                Ran::of(&c.current_dir(dir).output().unwrap())
            };
            let ran = run("deploy").expect(0);
            assert!(ran.stdout.contains("my own") && !ran.stderr.contains("this program's own"), "{ran:?}");
            let ran = run("list-gpus");
            assert!(ran.stderr.contains("this program's own scripts/list-gpus.rhai runs"), "{ran:?}");
        }),
        ("a plan that was cut short says so first", &|| {
            let ran = p.b.run(&["plan", &failing, "--lab", "--site", &site]).expect(1);
            let first = ran.stdout.lines().next().unwrap_or_default();
            assert_eq!(first, "the plan is incomplete: the rehearsal failed at `form it`", "{ran:?}");
            assert!(!ran.stdout.contains("no changes"), "{ran:?}");
        }),
        ("the rerun has the flags of the run, and its journal the values", &|| {
            let ran = p.b.run(&["run", &failing, "--lab", "--site", &site, "--set", "a=7", "--yes"]).expect(1);
            assert!(!ran.stderr.contains("rerun"), "nothing was done that it could go on with: {}", ran.stderr);
            let half = p.file("half.rhai", "let a = param(\"a\", 0); write_file(\"half.txt\", \"1\"); throw \"no\";");
            let ran = p.b.run(&["run", &half, "--lab", "--site", &site, "--set", "a=7", "--yes"]).expect(1);
            assert!(ran.stderr.contains("--lab --set a=7 --yes` continues"), "{}", ran.stderr);
            let shown = p.b.run(&["runs", "show"]).expect(0);
            assert!(shown.stdout.contains("--set    a=7"), "{}", shown.stdout);
        }),
        ("a rule that met nothing is told", &|| {
            let rules = p.file("rules.txt", "pve.clon@k3s-cp*#1: reset\n");
            let ran = p.text("print(1);", &["--faults", &rules]).expect(0);
            assert!(ran.stdout.contains("rule 1 (`pve.clon@k3s-cp*#1: reset`) never struck"), "{}", ran.stdout);
        }),
        ("a rule whose machine is misspelt is an error", &|| {
            let rules = p.file("misspelt.txt", "ssh.exec@musle-a#1: reset\n");
            let ran = p.text("print(1);", &["--faults", &rules]).expect(2);
            assert!(
                ran.stderr.contains("there is no machine `musle-a`") && ran.stderr.contains("did you mean `muscle-a`?"),
                "{}",
                ran.stderr
            );
        }),
        ("a drill is on the lab, said or not", &|| {
            let fine = p.file("fine.rhai", "print(1);");
            let _ = p.b.run(&["drill", &fine, "--lab", "--seeds", "1", "--site", &site]).expect(0);
        }),
        ("a drill begins where it is told", &|| {
            let text = "require(proxmox::connect(site().proxmox).find_vm(site().template.vmid) != (), \"the template is there\");";
            let wants = p.file("wants.rhai", text);
            let args = ["drill", &wants, "--seeds", "1", "--site", &site, "--start", "template"];
            let _ = p.b.run(&args).expect(0);
            let none = p.b.run(&args[..6]).expect(1);
            assert!(none.stdout.contains("did not converge"), "{}", none.stdout);
        }),
    ]);
}

/// What a command prints on a pseudo terminal, by util-linux' `script`; `None` where that is missing.
#[allow(clippy::print_stdout)]
fn on_terminal(b: &Bench, line: &str, no_color: bool) -> Option<String> {
    let mut c = Command::new("script");
    c.args(["-q", "-e", "-c", line, "/dev/null"]).current_dir(root()).stdin(Stdio::null());
    c.env("GPUHOST_STATE_DIR", b.path("state")).env("HOME", b.path("")).env("TERM", "xterm-256color");
    if no_color {
        c.env("NO_COLOR", "1")
    } else {
        c.env_remove("NO_COLOR")
    };
    match c.output() {
        Ok(out) => Some(String::from_utf8_lossy(&out.stdout).into_owned()),
        Err(_) => {
            println!("skipped: there is no `script` (Debian: bsdutils)");
            None
        }
    }
}

/// Words that follow `gpuhost` in a text: commands that a reader would type.
fn commands(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for part in
        text.split("`gpuhost ").skip(1).chain(text.split("\ngpuhost ").skip(1)).chain(text.split("$ gpuhost ").skip(1))
    {
        // Prose begins a line with the program's name, too.
        let word: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        out.push(word);
    }
    out
}

#[test]
fn shells_complete_commands_and_options() {
    let b = Bench::new();
    for (shell, has) in [("bash", "complete -F _gpuhost"), ("zsh", "#compdef gpuhost"), ("fish", "complete -c gpuhost")]
    {
        let text = b.run(&["completions", shell]).expect(0).stdout;
        assert!(text.contains(has), "{shell}: {text}");
        assert!(["drift", "state-dir"].iter().all(|w| text.contains(w)), "{shell}: {text}");
    }
    assert!(b.run(&["help", "run"]).expect(0).stdout.contains("Usage: gpuhost run"));
    let _ = b.run(&["completions", "tcsh"]).expect(2);
}

#[test]
fn documents_and_hints_name_only_commands_that_exist() {
    let b = Bench::new();
    let help = b.run(&["--help"]).expect(0).stdout;
    let known: Vec<&str> =
        help.lines().filter_map(|l| l.strip_prefix("  ")).filter_map(|l| l.split_whitespace().next()).collect();
    assert!(known.contains(&"run") && known.contains(&"lab"), "{help}");
    let mut texts = vec![root().join("README.md"), root().join("CHANGELOG.md"), root().join("recipes/site.toml")];
    for dir in ["docs/src", "docs/src/reference", "recipes", "recipes/lib", "scripts", "stdlib/src", "host/src"] {
        texts.extend(files(&root().join(dir)));
    }
    let mut bad = Vec::new();
    for path in texts {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for word in commands(&text) {
            if !["", "does"].contains(&word.as_str()) && !word.starts_with('-') && !known.contains(&word.as_str()) {
                bad.push(format!("{}: gpuhost {word}", path.display()));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for e in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = e.path();
        if path.is_dir() {
            out.extend(files(&path));
        } else if path.extension().is_some_and(|e| ["md", "rs", "rhai", "toml"].iter().any(|x| e == *x)) {
            out.push(path);
        }
    }
    out
}

#[test]
fn every_module_function_and_method_is_explained() {
    let b = Bench::new();
    let all = b.run(&["doc"]).expect(0).stdout;
    let modules: Vec<&str> = ["proxmox", "ssh", "k3s", "kubernetes", "helm", "gpu", "nfs"].to_vec();
    for m in modules {
        assert!(all.contains(m), "{m} in\n{all}");
        let text = b.run(&["doc", m]).expect(0).stdout;
        assert!(text.lines().count() > 3, "{m}: {text}");
    }
    for (what, says) in [
        ("proxmox::connect", "let pve = proxmox::connect(site().proxmox);"),
        ("ensure_vm", "networks"),
        ("pve.ensure_vm", "ensure_vm"),
        ("ssh::ensure", "packages"),
        ("minutes", "So many minutes"),
        ("step", "Names a part"),
        ("exit", "throw"),
        ("timestamp", "now()"),
    ] {
        let text = b.run(&["doc", what]).expect(0).stdout;
        assert!(text.contains(says), "{what}: {says} in\n{text}");
        for rust in ["rhai::", "::default()", "vec![", "Dynamic", "&'static"] {
            assert!(!text.contains(rust), "{what} speaks Rust ({rust}):\n{text}");
        }
    }
    let ran = b.run(&["doc", "proxmox::conect"]);
    assert!(ran.code == 2 && format!("{ran:?}").contains("proxmox::connect"), "{ran:?}");
}

#[test]
fn init_writes_what_can_be_edited_without_a_compiler() {
    let b = Bench::new();
    let dir = b.path("mine");
    let said = b.run(&["init", dir.to_str().unwrap()]).expect(0);
    assert!(dir.join("recipes/deploy.rhai").exists() && dir.join("scripts/list-gpus.rhai").exists(), "{said:?}");
    let uuid = |dir: &std::path::Path| {
        let text = std::fs::read_to_string(dir.join("recipes/site.toml")).unwrap();
        text.lines().find(|l| l.starts_with("uuid")).unwrap().to_owned()
    };
    assert_ne!(uuid(&dir), uuid(&root()), "an identity of its own");
    let inside = |args: &[&str]| Ran::of(&b.command(args).current_dir(&dir).output().unwrap());
    let _ = inside(&["check", "recipes/deploy.rhai"]).expect(0);
    // Another folder gets another identity; a second `init` does not overwrite what was edited.
    let other = b.path("other");
    let _ = b.run(&["init", other.to_str().unwrap()]).expect(0);
    assert_ne!(uuid(&dir), uuid(&other));
    let recipe = dir.join("recipes/deploy.rhai");
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, format!("print(\"edited by hand\");\nthrow \"enough\";\n{text}")).unwrap();
    let ran = inside(&["run", "recipes/deploy.rhai", "--lab"]).expect(1);
    assert!(ran.stdout.contains("edited by hand") && ran.stderr.contains("recipes/deploy.rhai:2"), "{ran:?}");
    let again = b.run(&["init", dir.to_str().unwrap()]);
    let kept = std::fs::read_to_string(&recipe).unwrap();
    assert!(kept.starts_with("print(\"edited by hand\")"), "{again:?}");
}
