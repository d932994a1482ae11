//! Recipes and worlds are mutated by a seed. Whatever a run does with them, its journal is whole: every effect belongs to
//! an op, every op that began has ended, the run says how it ended, and nothing is an internal error.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeSet;

use gpuhost_tests::{Bench, root};
use serde_json::Value;

const SITE: &str = "tests/sites/small.toml";
const UUID: &str = "0a8d1b6e-52ad-4f7a-9f55-0d1f4f6b2c77";

/// A small generator: the same seed mutates the same things.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}

/// Top-level statements of a recipe: from a line that begins one to the line before the next.
fn statements(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for line in text.lines() {
        let begins = ["step(", "let ", "import ", "require(", "print("].iter().any(|w| line.starts_with(w));
        match out.last_mut().filter(|_| !begins) {
            Some(last) => *last += &format!("{line}\n"),
            None => out.push(format!("{line}\n")),
        }
    }
    out
}

fn mutated(text: &str, dice: &mut Dice) -> (String, String) {
    let mut list = statements(text);
    let (i, j) = (dice.roll(list.len()), dice.roll(list.len()));
    let what = match dice.roll(5) {
        0 => {
            list.remove(i);
            format!("statement {i} removed")
        }
        1 => {
            list.swap(i, j);
            format!("statements {i} and {j} swapped")
        }
        2 => {
            let again = list[i].clone();
            list.insert(j, again);
            format!("statement {i} again at {j}")
        }
        3 => {
            list.truncate(i + 1);
            list.push("throw \"mutant\";\n".to_owned());
            format!("thrown after {i}")
        }
        _ => {
            list[i] = list[i].replace("minutes", "milliseconds").replace("true", "false");
            format!("limits and flags of {i}")
        }
    };
    (list.concat(), what)
}

/// Takes something out of a saved world, or turns it over.
fn damage(world: &mut Value, dice: &mut Dice) -> String {
    let vms = ["501", "502", "503", "504"];
    let vm = vms[dice.roll(vms.len())];
    let conf = &mut world["world"]["pve"]["vms"][vm]["conf"];
    let keys =
        ["cores", "memory", "tags", "onboot", "agent", "net0", "ipconfig0", "sshkeys", "protection", "description"];
    let key = keys[dice.roll(keys.len())];
    match dice.roll(3) {
        0 => {
            conf.as_object_mut().map(|c| c.remove(key));
            format!("VM {vm} without {key}")
        }
        1 => {
            conf["cores"] = "1".into();
            format!("VM {vm} with one core")
        }
        _ => {
            let guest = &mut world["world"]["guests"][vm];
            if guest.is_object() {
                guest["facts"]["packages"] = serde_json::json!({});
                guest["sysctl"] = serde_json::json!({});
            }
            format!("guest {vm} without packages")
        }
    }
}

fn sound(journal: &[Value], what: &str) {
    let (mut open, mut known): (BTreeSet<u64>, BTreeSet<u64>) = Default::default();
    for e in journal {
        let id = e["id"].as_u64().unwrap_or(0);
        match e["event"].as_str().unwrap_or_default() {
            "op_started" => assert!(open.insert(id) && known.insert(id), "{what}: op {id} began twice"),
            "intent" | "accepted" => assert!(open.contains(&id), "{what}: {e} is of no op that is open"),
            "op_finished" => assert!(open.remove(&id), "{what}: op {id} ended without a beginning"),
            _ => {}
        }
    }
    assert!(open.is_empty(), "{what}: ops {open:?} never ended");
    assert_eq!(journal.last().unwrap()["event"], "run_finished", "{what}");
}

fn seed() -> u64 {
    std::env::var("GPUHOST_MUTATION").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// `GPUHOST_MUTATIONS=30 GPUHOST_MUTATION=100 cargo test --workspace --test durable_mutations` tries others.
#[test]
fn the_journal_is_whole_whatever_happens() {
    let n: u64 = std::env::var("GPUHOST_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let first = seed();
    let b = Bench::new();
    let _ = b.run(&["run", "recipes/deploy.rhai", "--lab", "--json", "--site", SITE]).expect(0);
    let world = b.path("state").join("lab").join(UUID).join("world.json");
    let text = std::fs::read_to_string(root().join("recipes/deploy.rhai")).unwrap();
    let dir = b.path("mutants");
    std::fs::create_dir_all(dir.join("lib")).unwrap();
    for f in std::fs::read_dir(root().join("recipes/lib")).unwrap().flatten() {
        std::fs::copy(f.path(), dir.join("lib").join(f.file_name())).unwrap();
    }
    for k in first..first + n {
        let mut dice = Dice(k);
        let (recipe, mut what) = mutated(&text, &mut dice);
        what = format!("GPUHOST_MUTATION={k}: {what}");
        if dice.roll(2) == 0 {
            let mut w: Value = serde_json::from_str(&std::fs::read_to_string(&world).unwrap()).unwrap();
            what += &format!(", {}", damage(&mut w, &mut dice));
            std::fs::write(&world, w.to_string()).unwrap();
        }
        let path = dir.join("r.rhai");
        std::fs::write(&path, recipe).unwrap();
        let ran = b.run(&["run", path.to_str().unwrap(), "--lab", "--json", "--yes", "--site", SITE]);
        println!("{what}: exit {}", ran.code);
        assert!([0, 1, 2, 3, 4].contains(&ran.code), "{what}: exit {}\n{}", ran.code, ran.stderr);
        if ran.code != 2 {
            let shown: Vec<Value> = ran.events();
            sound(&shown, &what);
        }
    }
    let all = b.run(&["runs", "verify"]).expect(0);
    println!("{}", all.stdout.lines().last().unwrap_or_default());
}
