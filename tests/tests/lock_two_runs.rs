//! The site's lock: two runs of two processes and two machines, dead holders, sleepers, `unlock`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use gpuhost_tests::served::Served;
use gpuhost_tests::{Bench, Ran};

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

struct Bed {
    b: Bench,
    lab: Served,
}

impl Bed {
    fn new() -> Self {
        let b = Bench::new();
        for (name, text) in [("stays", STAYS), ("changes", CHANGES), ("looks", LOOKS)] {
            std::fs::write(b.path(&format!("{name}.rhai")), text).unwrap();
        }
        let lab = Served::start(&b, "tests/sites/small.toml", &["--speed", "1"]);
        Bed { b, lab }
    }

    /// A run of `recipe` from the machine `host` with a state directory of its own.
    fn command(&self, recipe: &str, host: &str) -> Command {
        let recipe = self.b.path(&format!("{recipe}.rhai"));
        let site = self.lab.site.display().to_string();
        let mut c = self.b.command(&["run", recipe.to_str().unwrap(), "--site", &site, "--json", "--yes"]);
        c.env("GPUHOST_HOSTNAME", host).env("GPUHOST_STATE_DIR", self.b.path(host));
        c
    }

    fn run(&self, recipe: &str, host: &str) -> Ran {
        Ran::of(&self.command(recipe, host).output().unwrap())
    }

    /// A run that holds the lock now.
    fn holder(&self, host: &str) -> Child {
        let mut child = self.command("stays", host).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        for line in out.lines() {
            if line.unwrap().contains("holding") {
                return child;
            }
        }
        panic!("the holder ended: {:?}", child.wait());
    }
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn one_proceeds_and_the_other_is_refused_with_the_holder() {
    let bed = Bed::new();
    let holder = bed.holder("desk");
    let pid = holder.id().to_string();
    let second = bed.run("changes", "desk").expect(4);
    let e = &second.finished()["error"];
    let text = e.to_string();
    assert!(text.contains("@desk") && text.contains(&pid) && text.contains("since"), "{e:#}");
    assert!(e["hint"].as_str().unwrap().contains("gpuhost unlock"), "{e:#}");
    // Looking needs no lock.
    let _ = bed.run("looks", "desk").expect(0);
    // `unlock` explains before it acts; without a yes it does nothing.
    let site = bed.lab.site.display().to_string();
    let mut c = bed.b.command(&["unlock", "--site", &site]);
    let asked = Ran::of(&c.env("GPUHOST_HOSTNAME", "desk").output().unwrap()).expect(4);
    assert!(
        asked.stdout.contains("its process runs on this machine") && asked.stdout.contains("@desk"),
        "{}",
        asked.stdout
    );
    // Killed: its process is gone, so the next run of this machine goes ahead at once.
    end(holder);
    let third = bed.run("changes", "desk").expect(0);
    assert!(third.stdout.contains("taking it over"), "{}", third.stdout);
    // And leaves the lock free.
    let mut c = bed.b.command(&["unlock", "--site", &site]);
    let free = Ran::of(&c.output().unwrap()).expect(0);
    assert!(free.stdout.contains("nobody holds"), "{}", free.stdout);
}

#[test]
fn unlock_takes_the_lock_from_a_living_holder_which_then_stops() {
    let bed = Bed::new();
    let holder = bed.holder("desk");
    let site = bed.lab.site.display().to_string();
    let mut c = bed.b.command(&["unlock", "--site", &site, "--yes"]);
    let taken = Ran::of(&c.env("GPUHOST_HOSTNAME", "laptop").output().unwrap()).expect(0);
    assert!(taken.stdout.contains("on another machine") && taken.stdout.contains("is free"), "{}", taken.stdout);
    let _ = bed.run("changes", "laptop").expect(0);
    end(holder);
}
