//! Promise: what the language level of the script API says it does.
#![allow(clippy::unwrap_used)] // a test stops at the first surprise
use std::os::unix::fs::symlink;

use gpuhost_tests::play::{Play, all};

/// Each line must hold; the first that does not is named.
const HOLDS: &str = r#"
require(5.minutes == 300.seconds && 1.hours > 59.minutes && 5.minutes != 6.minutes, "durations compare");
require(5.minutes + 30.seconds == 330.seconds && 1.hours - 1.minutes == 59.minutes, "durations add");
require(5.minutes * 2 == 10.minutes && 2 * 5.minutes == 10.minutes, "durations multiply");
require(16.gib - 8.gib == 8.gib && 2 * 8.gib == 16.gib && 8.gib * 2 == 16.gib, "sizes calculate");
require(1.tib == 1024.gib && 512.mib < 1.gib && 1.gib >= 1024.mib, "sizes compare");
require(`${16.gib}` == "16 GiB" && `${90.seconds}` == "1m 30s", "they print as they are written");
require(step("s", || 42) == 42, "a step gives the value of its block");
require(parallel([3, 1, 2], |n| n * 2) == [6, 2, 4], "results in order");
require(parallel([3, 1, 2], #{ limit: 1 }, |n| n) == [3, 1, 2], "also with a limit");
require(retry(#{ times: 2, every: 1.seconds }, || 7) == 7, "the value of the first success");
require(wait_until("w", 1.minutes, || "seen") == "seen", "the value that ended the wait");
require(template("hi {{ name }}", #{ name: "bob" }) == "hi bob", "templates");
require(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "digests");
require(write_file("out.txt", "one\n") && !write_file("out.txt", "one\n"), "writing compares first");
require(read_file("out.txt") == "one\n", "files");
write_file("d.json", "{\"a\":[1,2]}");
write_file("d.yaml", "a: 5m\nb: [x]\n");
write_file("d.toml", "a = 1\n");
require(load_json("d.json").a[1] == 2 && load_yaml("d.yaml").b[0] == "x" && load_toml("d.toml").a == 1, "loads");
require(to_json([1, "x"]) == "[1,\"x\"]" && to_json(#{ a: () }) == "{\"a\":null}", "JSON of any value");
require(to_yaml(#{ a: [1] }).contains("a:"), "YAML of any value");
let caught = "";
try { site().get_node("nobody"); } catch (err) { caught = `${err.kind}|${err.message}|${err.hint}`; }
require(caught.starts_with("not_found|the site has no node `nobody`|"), caught);
let started = now();
sleep(3.hours);
require(now() - started >= 10800, "sleeping passes the run's time");
require(table([#{ b: 1, a: "x" }]).contains("A"), "tables");
require(`${secret("tok")}` == "***" && secret("tok") == secret("tok"), "secrets hide");
require(param("size", 4.gib) == 8.gib && param("t", 5.minutes) == 2.hours && param("b", false), "typed parameters");
"#;

#[test]
fn values_files_and_waits() {
    let p = Play::new();
    let ran = p.json(HOLDS, &["--set", "size=8 GiB", "--set", "t=2h", "--set", "b=true"]);
    assert_eq!(ran.code, 0, "{}", ran.finished()["error"]["message"]);
}

#[test]
fn failures_say_where_and_what() {
    let p = Play::new();
    all(&[
        ("all failures of siblings", &|| {
            let ran = p.text("parallel([1, 2, 3, 4], |n| { if n % 2 == 0 { throw `bad ${n}`; } n });", &[]).expect(1);
            assert!(ran.stderr.contains("bad 2") && ran.stderr.contains("bad 4"), "{}", ran.stderr);
            let e = p.json("parallel([1, 2, 3, 4], |n| { if n % 2 == 0 { throw `bad ${n}`; } n });", &[]).expect(1);
            assert_eq!(e.finished()["error"]["others"].as_array().unwrap().len(), 1, "{}", e.finished());
        }),
        ("stop starts no more", &|| {
            let text = "parallel([1, 2, 3], #{ limit: 1, on_error: \"stop\" }, |n| { print(`at ${n}`); \
                        if n == 2 { throw \"no\"; } });";
            let ran = p.text(text, &[]).expect(1);
            assert!(ran.stdout.contains("at 2") && !ran.stdout.contains("at 3"), "{}", ran.stdout);
        }),
        ("the last seen state", &|| {
            let text = "let n = 0; wait_until(\"the moon\", 5.minutes, || { n += 1; throw `phase ${n}` });";
            let ran = p.text(text, &[]);
            assert!(ran.code == 1 && ran.stderr.contains("phase "), "{}", ran.stderr);
            let ran = p.text("wait_until(\"the moon\", 5.minutes, || [].find(|n| n == 1));", &[]).expect(1);
            assert!(ran.stderr.contains("the moon did not happen within 5m"), "{}", ran.stderr);
        }),
        ("step, snippet, hint, how to continue", &|| {
            let fails = "step(\"outer\", || step(\"inner\", || site().get_node(\"nobody\")));";
            let ran = p.text(fails, &[]).expect(1);
            assert!(!ran.stderr.contains("continues"), "nothing was done that could be continued: {}", ran.stderr);
            let ran = p.text(&format!("write_file(\"made.txt\", \"a\"); {fails}"), &[]).expect(1);
            for part in ["not_found", "play.rhai:1:", "outer / inner", "hint:", "gpuhost run", "--lab", "continues"] {
                assert!(ran.stderr.contains(part), "{part} in\n{}", ran.stderr);
            }
        }),
        ("proofs", &|| {
            let text = "prove(\"good\", || \"fine\"); prove(\"bad\", || require(false, \"why\")); \
                        prove(\"worse\", || false); prove(\"odd\", || { warn(\"hm\"); }); print(\"goes on\");";
            let ran = p.text(text, &[]).expect(3);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            for part in ["PASS good: fine", "FAIL bad: why", "FAIL worse", "WARN odd", "goes on"] {
                assert!(said.contains(part), "{part} in\n{said}");
            }
        }),
        ("require", &|| {
            let ran = p.text("require(1 == 2, \"not equal\");", &[]).expect(3);
            assert!(ran.stderr.contains("not equal"), "{}", ran.stderr);
            // Nothing that the lab says leads to the real site.
            for line in ran.stderr.lines().filter(|l| l.contains("gpuhost run")) {
                assert!(line.contains("--lab"), "{line}");
            }
        }),
        ("retry tells each try", &|| {
            let ran = p.text("retry(#{ times: 3, every: 10.seconds }, || { throw \"again\" });", &[]).expect(1);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(said.contains("try 1 of 3") && said.contains("try 2 of 3"), "{said}");
            let text =
                "retry(#{ times: 9, stop_when: |e| e.message == \"no\" }, || { print(\"tried\"); throw \"no\" });";
            let ran = p.text(text, &[]).expect(1);
            assert_eq!(ran.stdout.matches("tried").count(), 1, "{}", ran.stdout);
        }),
        ("what would lie is refused", &|| {
            for (text, says) in [("exit(0);", "success"), ("timestamp();", "now()"), ("eval(\"1\");", "eval")] {
                let ran = p.text(text, &[]);
                assert!(ran.code != 0 && ran.stderr.contains(says), "{text}: {} {}", ran.code, ran.stderr);
            }
            assert_eq!(p.text("parallel([1], |n| exit());", &[]).code, 1);
        }),
        ("parameters", &|| {
            let text = "let n = param(\"count\", 3); // how many\nlet s = param(\"size\", 4.gib);\nprint(n + 1);\n";
            assert!(p.text(text, &["--set", "count=7"]).expect(0).stdout.contains("8\n"));
            let ran = p.text(text, &["--set", "cuont=7"]).expect(2);
            assert!(ran.stderr.contains("no parameter `cuont`") && ran.stderr.contains("`--set count="), "{ran:?}");
            assert_ne!(p.text(text, &["--set", "count=seven"]).code, 0);
            let help = p.b.run(&["run", &p.file("play.rhai", text), "--help"]).expect(0).stdout;
            for part in ["count=3", "how many", "size=4 GiB"] {
                assert!(help.contains(part), "{part} in\n{help}");
            }
        }),
    ]);
}

#[test]
fn recipes_stay_in_their_folder_wherever_they_are_started() {
    let p = Play::new();
    let outside = p.b.path("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("secret.txt"), "theirs").unwrap();
    let site = gpuhost_tests::root().join(p.site()).display().to_string();
    let _ = p.file("inside.txt", "mine");
    let project = p.b.path("project");
    symlink(&outside, project.join("link")).unwrap();
    let far = outside.join("secret.txt").display().to_string();
    let text = format!(
        "for path in [\"{far}\", \"../outside/secret.txt\", \"link/secret.txt\", \"sub/../../outside/secret.txt\"] {{\n\
         let calls = #{{ read: |p| read_file(p), write: |p| write_file(p, \"gone\"), yaml: |p| load_yaml(p), \
         template: |p| template_file(p, #{{}}) }};\n\
         for name in calls.keys() {{\n\
         let said = \"nothing\";\n\
         try {{ calls[name].call(path); }} catch (err) {{ said = err.message + err.hint; }}\n\
         if !said.contains(\"outside the project folder\") || !said.contains(\"[permissions] files\") {{\n\
         print(`${{name}} of ${{path}} said ${{said}}`); }} }} }}\n\
         read_file(\"{far}\");\n"
    );
    let recipe = p.file("play.rhai", &text);
    // By its whole path, by its name alone, and from the folder above.
    for (cwd, name) in
        [("project", recipe.as_str()), ("project", "play.rhai"), ("project", "./play.rhai"), ("", "project/play.rhai")]
    {
        let mut c = p.b.command(&["run", name, "--lab", "--site", &site]);
        let ran = gpuhost_tests::Ran::of(&c.current_dir(p.b.path(cwd)).output().unwrap());
        assert!(!ran.stdout.contains(" said "), "as {name} in {cwd:?}: {}", ran.stdout);
        assert_eq!(ran.code, 4, "as {name} in {cwd:?}: {}{}", ran.stdout, ran.stderr);
    }
    assert_eq!(std::fs::read_to_string(outside.join("secret.txt")).unwrap(), "theirs");
    // What is in the folder may be read, from anywhere.
    let recipe = p.file("play.rhai", "print(read_file(\"inside.txt\")); print(read_file(\"sub/../inside.txt\"));");
    std::fs::create_dir_all(project.join("sub")).unwrap();
    for (cwd, name) in [("project", "play.rhai"), ("", "project/play.rhai"), ("", recipe.as_str())] {
        let mut c = p.b.command(&["run", name, "--lab", "--site", &site]);
        let ran = gpuhost_tests::Ran::of(&c.current_dir(p.b.path(cwd)).output().unwrap()).expect(0);
        assert!(ran.stdout.contains("mine\nmine"), "{}", ran.stdout);
    }
    // And what the site file grants.
    let grant = gpuhost_tests::play::changed(
        &p.b,
        p.site(),
        &[("[ssh]", &format!("[permissions]\nfiles = [\"{}\"]\n\n[ssh]", outside.display()))],
    );
    let recipe = p.file("play.rhai", &format!("print(read_file(\"{far}\"));"));
    assert!(p.b.run(&["run", &recipe, "--lab", "--site", &grant]).expect(0).stdout.contains("theirs"));
}

#[test]
fn once_happens_once_on_whichever_machine() {
    let p = Play::new();
    let text = "once(\"note\", || { print(\"it happens\"); 7 });";
    let first = p.text(text, &[]).expect(0);
    assert!(first.stdout.contains("it happens"), "{}", first.stdout);
    // Another operator's machine: the same world, no journal of the run before.
    let other = p.copy();
    std::fs::remove_dir_all(other.b.path("state/runs")).unwrap();
    let second = other.text(text, &[]).expect(0);
    assert!(!second.stdout.contains("it happens") && second.stdout.contains("changed: 0"), "{}", second.stdout);
    // What began and did not end is a human's.
    let broken = "once(\"broken\", || { throw \"half way\"; });";
    assert!(p.text(broken, &[]).expect(1).stderr.contains("half way"));
    let refused = p.text(broken, &[]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("was begun and has not ended") && refused.stderr.contains("forget_once(\"broken\")"),
        "{}",
        refused.stderr
    );
    let _ = p.text("require(forget_once(\"broken\") && !forget_once(\"broken\"), \"forgotten\");", &[]).expect(0);
    let ran = p.text("require(once(\"broken\", || 1) == 1, \"again\");", &[]).expect(0);
    assert!(ran.stdout.contains("changed: 2"), "{}", ran.stdout);
    // The marks go with the site's pool.
    let _ = p
        .text("let pve = proxmox::connect(site().proxmox); pve.ensure_pool(); pve.remove_pool();", &["--yes"])
        .expect(0);
    assert!(!p.hypervisor()["pools"].to_string().contains("-once-"), "{}", p.hypervisor()["pools"]);
}
