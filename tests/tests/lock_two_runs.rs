//! The site's lock: two runs of two processes and two machines, dead holders, sleepers, `unlock`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use gpuhost_tests::Ran;
use gpuhost_tests::served::Desk;

/// Changes something (a pool), then stays for a long time of the lab's clock.
const STAYS: &str = r#"
let pve = proxmox::connect(site().proxmox);
pve.ensure_pool();
print("holding");
sleep(3.hours);
"#;
/// Changes something.
const CHANGES: &str = r#"
let pve = proxmox::connect(site().proxmox);
pve.remove_pool();
pve.ensure_pool();
"#;
/// Only looks.
const LOOKS: &str = "print(proxmox::connect(site().proxmox).list_nodes().len());";

struct Bed(Desk);

impl Bed {
    fn new(speed: &[&str]) -> Self {
        Bed(Desk::new("tests/sites/small.toml", speed))
    }

    /// A run of `text` from the machine `host` with a state directory of its own.
    fn command(&self, text: &str, host: &str) -> Command {
        self.0.command_from(host, &self.0.recipe(host, text), &["--yes"])
    }

    fn run(&self, text: &str, host: &str) -> Ran {
        Ran::of(&self.command(text, host).output().unwrap())
    }

    /// A run that has written a line with `word`.
    fn until(&self, text: &str, host: &str, word: &str) -> Child {
        let mut child = self.command(text, host).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        for line in out.lines() {
            if line.unwrap().contains(word) {
                return child;
            }
        }
        panic!("the holder ended: {:?}", child.wait());
    }

    /// A run that holds the lock now.
    fn holder(&self, host: &str) -> Child {
        self.until(STAYS, host, "holding")
    }

    fn unlock(&self, host: &str, more: &[&str]) -> Ran {
        let mut c = self.0.b.command(&[&["unlock", "--site", &self.0.site()], more].concat());
        Ran::of(&c.env("GPUHOST_HOSTNAME", host).output().unwrap())
    }
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn one_proceeds_and_the_other_is_refused_with_the_holder() {
    let bed = Bed::new(&["--speed", "1"]);
    let holder = bed.holder("desk");
    let pid = holder.id().to_string();
    let second = bed.run(CHANGES, "desk").expect(4);
    let e = &second.finished()["error"];
    let text = e.to_string();
    assert!(text.contains("@desk") && text.contains(&pid) && text.contains("since"), "{e:#}");
    assert!(e["hint"].as_str().unwrap().contains("gpuhost unlock"), "{e:#}");
    // Looking needs no lock.
    let _ = bed.run(LOOKS, "desk").expect(0);
    // `unlock` explains before it acts; without a yes it does nothing.
    let asked = bed.unlock("desk", &[]).expect(4);
    assert!(
        asked.stdout.contains("its process runs on this machine") && asked.stdout.contains("@desk"),
        "{}",
        asked.stdout
    );
    // Killed: its process is gone, so the next run of this machine goes ahead at once.
    end(holder);
    let third = bed.run(CHANGES, "desk").expect(0);
    assert!(third.stdout.contains("taking it over"), "{}", third.stdout);
    // And leaves the lock free.
    let free = bed.unlock("desk", &[]).expect(0);
    assert!(free.stdout.contains("nobody holds"), "{}", free.stdout);
}

#[test]
fn unlock_takes_the_lock_from_a_living_holder_which_then_stops() {
    let bed = Bed::new(&["--speed", "1"]);
    let holder = bed.holder("desk");
    let taken = bed.unlock("laptop", &["--yes"]).expect(0);
    assert!(taken.stdout.contains("on another machine") && taken.stdout.contains("is free"), "{}", taken.stdout);
    let _ = bed.run(CHANGES, "laptop").expect(0);
    end(holder);
}

/// Two runs of verify would share JupyterHub's test user: the second says who is at work before it proves anything.
#[test]
fn a_second_verify_is_refused_before_it_begins() {
    let bed = Bed(Desk::new("recipes/site.toml", &["--speed", "200", "--start", "deployed"]));
    let verify = |more: &[&str]| {
        let mut c = bed.0.command_from("desk", "recipes/verify.rhai", &[&["--yes"], more].concat());
        Ran::of(&c.output().unwrap())
    };
    let proofs = |ran: &Ran| ran.events().iter().filter(|e| e["event"] == "proved").count();
    let first = bed.until("lock_site(\"\");\nprint(\"holding\");\nsleep(300.hours);\n", "desk", "holding");
    let second = verify(&[]).expect(4);
    let e = &second.finished()["error"];
    assert_eq!(proofs(&second), 0, "{e:#}");
    assert!(e["message"].as_str().unwrap().contains("another run has the lock of homelab"), "{e:#}");
    let hint = e["hint"].as_str().unwrap();
    assert!(hint.contains("gpuhost unlock") && hint.contains("recipes/verify.rhai --set passive=true"), "{hint}");
    let passive = verify(&["--set", "passive=true"]).expect(0);
    assert!(proofs(&passive) > 10, "{:#?}", passive.events());
    end(first);
    assert!(proofs(&verify(&[]).expect(0)) > 10, "a dead holder is no reason");
}

/// Makes a machine, then runs a command on it for hours.
const WORKS: &str = r#"
let pve = proxmox::connect(site().proxmox);
let vm = pve.ensure_vm(site().get_node("shelf"), #{ template: pve.ensure_template(site().template) });
vm.wait_ready(15.minutes);
vm.ssh().run("echo under''way; sleep 30000", #{ timeout: 10.hours });
"#;

/// Safety rule 17: nobody can ask the holder's machine; what its run left running is told before the lock is taken over.
#[test]
fn a_holder_that_never_answers_is_recovered_by_its_lease_alone() {
    // A lease is two seconds of this machine, the command goes on for minutes.
    let bed = Bed::new(&["--speed", "60"]);
    // What the command itself has said: it runs now.
    let holder = bed.until(WORKS, "desk", "underway");
    end(holder);
    let next =
        bed.run("proxmox::connect(site().proxmox).find_vm(\"shelf\").ssh().run(\"true\");\n", "laptop").expect(0);
    let said = [next.said("info"), next.said("warn")].concat();
    let at =
        |word: &str| said.iter().position(|m| m.contains(word)).unwrap_or_else(|| panic!("no `{word}`: {said:#?}"));
    assert!(at("waiting up to") < at("taking it over"), "{said:#?}");
    assert!(at("was left by") < at("still running on shelf: gpuhost-"), "{said:#?}");
}
