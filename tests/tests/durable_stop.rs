//! Ctrl-C once and twice, what nobody can know afterwards and therefore asks, and a holder of the lock that slept past its
//! lease.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use gpuhost_tests::Ran;
use gpuhost_tests::served::Desk;
use serde_json::Value;

const SITE: &str = "tests/sites/small.toml";
const MACHINE: &str = "let pve = proxmox::connect(site().proxmox);\n\
    let t = pve.ensure_template(site().template);\n\
    let vm = pve.ensure_vm(site().get_node(\"shelf\"), #{ template: t });\n\
    vm.wait_ready(15.minutes);\n";

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([format!("-{name}"), pid]).status().unwrap().success());
}

/// A run under way.
struct Under {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

/// Reads up to a line with `word`; whether there is one.
fn comes(from: &mut impl BufRead, word: &str, seen: &mut String) -> bool {
    let mut line = String::new();
    while from.read_line(&mut line).unwrap() > 0 {
        seen.push_str(&line);
        if line.contains(word) {
            return true;
        }
        line.clear();
    }
    false
}

/// A run that has written an event with `word`.
fn until(mut c: Command, word: &str) -> Under {
    let mut child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let mut run = Under { child, out: BufReader::new(out), err: BufReader::new(err) };
    if !comes(&mut run.out, word, &mut String::new()) {
        let (code, text) = run.end();
        panic!("the run ended before `{word}` with {code}: {text}");
    }
    run
}

impl Under {
    /// Waits for its end: exit code and what it told the user.
    fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        let mut text = String::new();
        self.err.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), text)
    }
}

struct Bed(Desk);

impl Bed {
    /// A served lab with one machine; then time goes at `speed`.
    fn new(speed: &str) -> Self {
        let bed = Bed(Desk::new(SITE, &[]));
        let _ = Ran::of(&bed.command("machine", MACHINE, &[]).output().unwrap()).expect(0);
        Bed(bed.0.again(SITE, &["--speed", speed], |_| {}))
    }

    fn command(&self, name: &str, text: &str, more: &[&str]) -> Command {
        self.0.command(&self.0.recipe(name, text), more)
    }

    fn shown(&self) -> Value {
        serde_json::from_str(&self.0.b.run(&["runs", "show", "--json"]).expect(0).stdout).unwrap()
    }
}

const LONG: &str = "let h = proxmox::connect(site().proxmox).find_vm(\"shelf\").ssh();\nh.run(\"sleep SECONDS; touch /root/done\");\n\
    h.run(\"touch /root/more\");\n";

#[test]
fn ctrl_c_lets_the_effect_under_way_end_and_a_second_one_leaves_it_in_doubt() {
    let bed = Bed::new("1");
    let run = until(bed.command("short", &LONG.replace("SECONDS", "10"), &[]), "\"intent\"");
    signal(&run.child, "INT");
    let (code, said) = run.end();
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("nothing new begins") && said.contains("left for 1 effect: ssh.run shelf"), "{said}");
    let show = bed.shown();
    assert_eq!(show["doubts"], serde_json::json!([]), "it has ended: {show:#}");
    assert_eq!(show["deeds"].as_array().unwrap().iter().filter(|d| d["op"] == "ssh.run").count(), 1, "{show:#}");

    let mut run = until(bed.command("long", &LONG.replace("SECONDS", "3000"), &[]), "\"intent\"");
    signal(&run.child, "INT");
    let mut said = String::new();
    assert!(comes(&mut run.err, "left for 1 effect: ssh.run shelf", &mut said), "{said}");
    signal(&run.child, "INT");
    let (code, said) = run.end();
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("stopped at once"), "{said}");
    let show = bed.shown();
    assert_eq!(show["doubts"][0]["op"], "ssh.run", "{show:#}");

    // The next run cannot know whether it happened: it says since when, and asks; nobody is there to answer.
    let asked = Ran::of(&bed.command("long", &LONG.replace("SECONDS", "3000"), &[]).output().unwrap()).expect(4);
    assert!(asked.stderr.contains("may or may not") && asked.stderr.contains("ssh.run on shelf"), "{}", asked.stderr);
    // Another command is not in doubt.
    let other = "proxmox::connect(site().proxmox).find_vm(\"shelf\").ssh().run(\"true\");";
    let _ = Ran::of(&bed.command("other", other, &[]).output().unwrap()).expect(0);
}

#[test]
fn a_holder_that_slept_past_its_lease_stops_before_the_next_effect() {
    // Twelve seconds of this machine are the two minutes of a lease.
    let bed = Bed::new("10");
    let text = "let pve = proxmox::connect(site().proxmox);\nlet h = pve.find_vm(\"shelf\").ssh();\n\
        h.run(\"touch /root/alpha\");\nprint(\"holding\");\nsleep(20.seconds);\nh.run(\"touch /root/omega\");\n";
    let run = until(bed.command("sleeper", text, &[]), "holding");
    signal(&run.child, "STOP");
    std::thread::sleep(Duration::from_secs(20));
    signal(&run.child, "CONT");
    let (code, said) = run.end();
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("does not hold the site's lock any more"), "{said}");
    let seen = "print(proxmox::connect(site().proxmox).find_vm(\"shelf\").ssh().read(\"ls /root\").stdout);";
    let seen = Ran::of(&bed.command("seen", seen, &[]).output().unwrap()).expect(0);
    assert!(seen.stdout.contains("alpha") && !seen.stdout.contains("omega"), "{}", seen.stdout);
}

/// What a proof throws away goes when the run is interrupted, too.
#[test]
fn an_interrupted_proof_takes_its_namespace_away() {
    let desk = Desk::new("recipes/site.toml", &["--start", "deployed", "--speed", "1"]);
    let text = "k3s::connect(site().hosts(\"server\")).check_storage_class(\"nfs-client\");";
    let run = until(desk.command(&desk.recipe("probe", text), &[]), "\"intent\"");
    signal(&run.child, "INT");
    let (code, said) = run.end();
    assert_eq!(code, 130, "{said}");
    assert!(said.contains("removal of namespace gpuhost-verify-") || said.contains("has ended; stopping"), "{said}");
    let seen = "for n in k3s::connect(site().hosts(\"server\")).list(\"namespace\") {\n\
        if n.metadata.name.starts_with(\"gpuhost-\") && !(\"deletionTimestamp\" in n.metadata) { print(`left ${n.metadata.name}`); }\n}\n";
    let seen = Ran::of(&desk.command(&desk.recipe("seen", seen), &[]).output().unwrap()).expect(0);
    assert!(!seen.stdout.contains("left gpuhost-"), "{}", seen.stdout);

    // What a script notes is told with the command that removes it.
    let text = "note_leftover(\"a notebook\", \"gpuhost run scripts/remove-test-notebook.rhai\");\nprint(\"noted\");\n\
        sleep(300.seconds);\n";
    let run = until(desk.command(&desk.recipe("note", text), &[]), "noted");
    signal(&run.child, "INT");
    let mut run = run;
    let mut told = String::new();
    assert!(comes(&mut run.out, "a notebook is left behind; to remove it", &mut told), "{told}");
    let (code, said) = run.end();
    assert_eq!(code, 130, "{said}");
}
