//! The built program, as a user calls it.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench { dir: tempfile::tempdir().unwrap() }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let p = self.path(name);
        std::fs::create_dir_all(p.parent().unwrap()).unwrap();
        std::fs::write(&p, text).unwrap();
        p
    }
    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_gpuhost"));
        c.args(args)
            .current_dir(self.dir.path())
            .env("GPUHOST_STATE_DIR", self.path("state"))
            .env("NO_COLOR", "1")
            .env_remove("GPUHOST_PROXMOX_TOKEN")
            .stdin(Stdio::null());
        c
    }
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
    /// A site file next to the recipes, and the recipe itself.
    fn recipe(&self, text: &str) -> String {
        self.write("site.toml", SITE);
        self.write("r.rhai", text).display().to_string()
    }
}

const SITE: &str = include_str!("../../recipes/site.toml");

fn out(o: &Output) -> String {
    String::from_utf8_lossy(&o.stdout).into_owned()
}
fn err(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}
fn last_json(o: &Output) -> Value {
    serde_json::from_str(out(o).lines().last().unwrap()).unwrap()
}

#[test]
fn check_points_at_functions_options_and_site_keys() {
    let b = Bench::new();
    let r = b.recipe("let a = 1;\nstepp(\"x\", || a);\nparallel([1], #{ limt: 2 }, |x| x);\n");
    let o = b.run(&["check", &r]);
    assert_eq!(o.status.code(), Some(2));
    let text = err(&o);
    assert!(text.contains("r.rhai:2:1: error: no function `stepp`"), "{text}");
    assert!(text.contains("did you mean `step`?"), "{text}");
    assert!(text.contains("r.rhai:3:18: error: unknown option `limt` of `parallel`"), "{text}");
    let line = SITE.lines().position(|l| l.starts_with("gateway")).unwrap() + 1;
    b.write("site.toml", &SITE.replace("gateway =", "gatway ="));
    let o = b.run(&["check", &r]);
    let text = err(&o);
    assert!(text.contains(&format!("site.toml:{line}:1")) && text.contains("`gatway`"), "{text}");
    assert!(text.contains("gateway"), "{text}");
    // The same findings stop a run before anything happens, and as JSON they are data.
    assert_eq!(b.run(&["run", &r, "--lab"]).status.code(), Some(2));
    let o = b.run(&["check", &r, "--json"]);
    let first: Value = serde_json::from_str(out(&o).lines().next().unwrap()).unwrap();
    assert_eq!(first["event"], "finding");
    assert!(!b.path("state/runs").exists());
}

#[test]
fn exit_codes_and_the_last_event() {
    let b = Bench::new();
    let cases: &[(&str, i32, &str)] = &[
        ("print(\"hi\");", 0, "ok"),
        ("throw \"it broke\";", 1, "failed"),
        ("require(1 == 2, \"one is two\");", 3, "failed"),
        ("prove(\"sums\", || require(1 == 2, \"one is two\"));", 3, "failed"),
        ("confirm(\"go on?\");", 4, "refused"),
        ("try { confirm(\"go on?\"); } catch { }", 4, "refused"),
        ("exit(0);", 1, "failed"),
    ];
    for (text, code, status) in cases {
        let r = b.recipe(text);
        let o = b.run(&["run", &r, "--json"]);
        assert_eq!(o.status.code(), Some(*code), "{text}\n{}", err(&o));
        let end = last_json(&o);
        assert_eq!(end["event"], "run_finished", "{text}");
        assert_eq!(end["status"], *status, "{text}");
        assert_eq!(end["exit"], *code, "{text}");
        assert_eq!(end["lab"], false, "{text}");
        assert_eq!(end["changed"], 0, "{text}");
        for key in ["steps", "seconds", "site_seconds"] {
            assert!(!end[key].is_null(), "{text}: {key}");
        }
        // The journal holds the same events.
        let journal = std::fs::read_to_string(end["journal"].as_str().unwrap()).unwrap();
        assert!(journal.lines().all(|l| serde_json::from_str::<Value>(l).unwrap()["v"] == 1));
        assert!(journal.lines().last().unwrap().contains("run_finished"));
    }
    assert_eq!(b.run(&["run"]).status.code(), Some(2));
    assert_eq!(b.run(&["run", "no-such-recipe"]).status.code(), Some(2));
}

#[test]
fn parameters_must_exist_and_questions_can_be_answered_beforehand() {
    let b = Bench::new();
    let r = b.recipe("if param(\"ask\", true) { confirm(\"go on?\"); } print(\"went on\");");
    assert_eq!(b.run(&["run", &r]).status.code(), Some(4));
    assert_eq!(b.run(&["run", &r, "--yes"]).status.code(), Some(0));
    assert!(out(&b.run(&["run", &r, "--set", "ask=false"])).contains("went on"));
    let o = b.run(&["run", &r, "--set", "aks=false"]);
    assert_eq!(o.status.code(), Some(2));
    assert!(err(&o).contains("did you mean `--set ask=…`?"), "{}", err(&o));
    // A removal on a real site needs the site's name; the lab is content with `--yes`.
    let r = b.recipe("confirm(\"remove?\", #{ destroys: true });");
    assert_eq!(b.run(&["run", &r, "--yes"]).status.code(), Some(4));
    assert_eq!(b.run(&["run", &r, "--yes=other"]).status.code(), Some(4));
    assert_eq!(b.run(&["run", &r, "--yes=homelab"]).status.code(), Some(0));
    assert_eq!(b.run(&["run", &r, "--yes", "--lab"]).status.code(), Some(0));
}

#[test]
fn ctrl_c_stops_a_waiting_run_at_once() {
    let b = Bench::new();
    let r = b.recipe("try { sleep(1.hours); } catch { }\nprint(\"never\");");
    let mut c = b.command(&["run", &r, "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(c.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("run_started"));
    // The signal handler is there before the run starts.
    assert!(Command::new("kill").args(["-INT", &c.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(c.wait().unwrap().code(), Some(130));
    assert!(rest.last().unwrap().contains("\"status\":\"interrupted\""), "{rest:?}");
    assert!(!rest.iter().any(|l| l.contains("never")));
}

#[test]
fn init_writes_files_that_rule_the_run() {
    let b = Bench::new();
    let o = b.run(&["init", "mine"]);
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    let deploy = b.path("mine/recipes/deploy.rhai");
    assert!(deploy.exists());
    assert_eq!(b.run(&["init", "mine"]).status.code(), Some(4));
    assert_eq!(b.run(&["check", "mine/recipes/deploy.rhai"]).status.code(), Some(0));
    std::fs::write(&deploy, "print(`edited ${site().uuid}`);").unwrap();
    let o = b.run(&["run", "mine/recipes/deploy.rhai", "--lab"]);
    assert!(out(&o).contains("edited"), "{}", err(&o));
    assert!(!out(&o).contains("5f0c8a52"), "the new site has an identity of its own");
}

const LOOK: &str = "let pve = proxmox::connect(site().proxmox);\npve.ensure_pool();\nprint(pve.get_version());\n";

#[test]
fn the_lab_keeps_its_world_between_runs() {
    let b = Bench::new();
    let r = b.recipe(LOOK);
    let o = b.run(&["run", &r, "--lab", "--json"]);
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    let end = last_json(&o);
    assert_eq!((&end["lab"], &end["changed"]), (&Value::from(true), &Value::from(1)));
    assert!(out(&o).lines().all(|l| serde_json::from_str::<Value>(l).unwrap()["lab"] == true));
    assert_eq!(last_json(&b.run(&["run", &r, "--lab", "--json"]))["changed"], 0);
    // For people: the mark of the lab, on every line that counts.
    let o = b.run(&["run", &r, "--lab"]);
    assert!(out(&o).contains("[LAB] done: changed: 0"), "{}", out(&o));
    // The token never leaves the lab's own folder.
    let o = b.run(&["lab", "reset"]);
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    assert_eq!(last_json(&b.run(&["run", &r, "--lab", "--json"]))["changed"], 1);
}

struct Served {
    child: Child,
    ready: Value,
}

impl Served {
    fn start(b: &Bench, more: &[&str]) -> Self {
        let mut args = vec!["lab", "serve", "--ready-file", "ready.json"];
        args.extend(more);
        let mut child = b.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        // It prints the ready JSON last, over several lines, once everything is written.
        let mut text = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            text.push_str(&line.unwrap());
            if serde_json::from_str::<Value>(&text).is_ok() {
                break;
            }
        }
        let ready = std::fs::read_to_string(b.path("ready.json")).unwrap();
        Served { child, ready: serde_json::from_str(&ready).unwrap() }
    }
    fn stop(mut self) {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_served_lab_is_shared_and_outlives_its_clients() {
    let b = Bench::new();
    let r = b.recipe(&format!("{LOOK}sleep(2.hours);\n"));
    let served = Served::start(&b, &[]);
    for key in ["url", "node", "token_id", "token_secret", "user", "password", "ca_file", "fingerprint"] {
        assert!(served.ready["proxmox"][key].is_string(), "{key}");
    }
    assert!(Path::new(served.ready["ssh"]["config"].as_str().unwrap()).exists());
    assert!(served.ready["ssh"]["hosts"]["k3s-cp1"]["port"].as_u64().unwrap() > 0);
    assert!(Path::new(served.ready["ssh"]["key"].as_str().unwrap()).exists());
    let site = served.ready["site"].as_str().unwrap().to_owned();
    // Another process, by the written site file: two hours of lab time pass at once.
    let o = b.run(&["run", &r, "--site", &site, "--json"]);
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    let end = last_json(&o);
    assert_eq!((&end["lab"], &end["changed"]), (&Value::from(true), &Value::from(1)));
    assert!(end["site_seconds"].as_f64().unwrap() >= 7200.0);
    // `--lab` joins it; a second server does not.
    assert_eq!(last_json(&b.run(&["run", &r, "--lab", "--json"]))["changed"], 0);
    assert_eq!(b.run(&["lab", "serve"]).status.code(), Some(4));
    assert_eq!(b.run(&["lab", "reset"]).status.code(), Some(4));
    assert!(out(&b.run(&["lab", "status"])).contains("served"));
    // A client that dies leaves the lab as it was.
    let endless = b.write("endless.rhai", "print(\"in\"); loop { sleep(1.hours); }").display().to_string();
    let mut c = b.command(&["run", &endless, "--site", &site]).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(c.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    c.kill().unwrap();
    c.wait().unwrap();
    assert_eq!(last_json(&b.run(&["run", &r, "--lab", "--json"]))["exit"], 0);
    served.stop();
    // At rest again, the world goes on in process.
    assert_eq!(last_json(&b.run(&["run", &r, "--lab", "--json"]))["changed"], 0);
}

#[test]
fn secrets_stay_out_of_journals_and_output() {
    let b = Bench::new();
    let r = b.recipe(LOOK);
    let served = Served::start(&b, &[]);
    let token = served.ready["proxmox"]["token_secret"].as_str().unwrap().to_owned();
    let leak =
        b.write("leak.rhai", &format!("{LOOK}print(\"x {token} y\");\nthrow \"{token}\";")).display().to_string();
    let o = b.run(&["run", &leak, "--lab"]);
    assert_eq!(o.status.code(), Some(1));
    assert!(out(&o).contains("x *** y"), "{}", out(&o));
    assert!(!out(&o).contains(&token) && !err(&o).contains(&token));
    assert_eq!(b.run(&["run", &r, "--lab", "--json"]).status.code(), Some(0));
    for f in std::fs::read_dir(b.path("state/runs")).unwrap() {
        assert!(!std::fs::read_to_string(f.unwrap().path()).unwrap().contains(&token));
    }
    served.stop();
}

#[test]
fn the_session_reads_from_a_pipe_too() {
    use std::io::Write;
    let b = Bench::new();
    b.recipe("");
    let mut c = b
        .command(&["repl", "--lab"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    c.stdin
        .take()
        .unwrap()
        .write_all(b"let x = [1,\n 2];\nx.len()\nhelp(parallel)\nsite().nods\nfn two(a) { a * 2 }\ntwo(21)\n")
        .unwrap();
    let o = c.wait_with_output().unwrap();
    assert_eq!(o.status.code(), Some(1), "{}", err(&o));
    let text = out(&o);
    assert!(text.starts_with("2\n"), "{text}");
    assert!(text.contains("parallel(list: array, work: Fn) -> array") && text.ends_with("42\n"), "{text}");
    assert!(err(&o).contains("did you mean `nodes`?"), "{}", err(&o));
}

#[test]
fn doc_explains_and_suggests() {
    let b = Bench::new();
    assert!(out(&b.run(&["doc"])).contains("proxmox"));
    assert!(out(&b.run(&["doc", "ssh::connect"])).contains("Options"));
    let o = b.run(&["doc", "ssh::conect"]);
    assert_eq!(o.status.code(), Some(2));
    assert!(err(&o).contains("did you mean `ssh::connect`?"), "{}", err(&o));
    let o = b.run(&["doc", "--write", "ref"]);
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    assert!(b.path("ref/reference/site-file.md").exists());
}
