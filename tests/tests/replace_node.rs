//! `replace-node` that died on its way: the next run finishes what was begun, from any machine, and makes nothing twice.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test stops at the first surprise
use gpuhost_tests::Ran;
use gpuhost_tests::served::Desk;

const NODE: &str = "muscle-a";

struct Bed(Desk);

impl Bed {
    /// A run of the recipe from `host`, killed within the op `kill`.
    fn replace(&self, host: &str, kill: Option<&str>) -> Ran {
        let mut c = self.0.command_from(host, "recipes/replace-node.rhai", &["--yes", "--set", "name=muscle-a"]);
        if let Some(op) = kill {
            c.env("GPUHOST_TEST_KILL_AT", format!("op:{op}"));
        }
        Ran::of(&c.output().unwrap())
    }

    fn said(&self, text: &str) -> Vec<String> {
        let recipe = self.0.recipe("look", text);
        self.0.run(&recipe, &[]).expect(0).said("print")
    }

    /// What tells the machine of the node from every other one; empty when there is none.
    fn machine(&self) -> String {
        let text = format!(
            "let vm = proxmox::connect(site().proxmox).find_vm(\"{NODE}\");\nif vm != () {{ print(vm.get_config().smbios1); }}"
        );
        self.said(&text).concat()
    }
}

/// How often a run really did an op.
fn did(ran: &Ran, op: &str) -> usize {
    let done = |e: &&serde_json::Value| e["event"] == "op_finished" && e["op"] == op;
    ran.events().iter().filter(done).filter(|e| e["changes"].as_array().is_some_and(|c| !c.is_empty())).count()
}

#[test]
fn a_replacement_that_died_is_finished_and_not_begun_anew() {
    let bed = Bed(Desk::new("tests/sites/small.toml", &["--start", "deployed"]));
    // where it dies, and whether the old machine is still to go then
    for (place, op, goes) in [
        (1, "kubernetes.drain", true),
        (2, "proxmox.remove_vm", true),
        (3, "proxmox.ensure_vm", false),
        (4, "k3s.ensure_agent", false),
    ] {
        let old = bed.machine();
        assert!(old.contains("uuid="), "{old}");
        let killed = bed.replace("desk", Some(op));
        assert_eq!(killed.code, -1, "not killed in {op}: {}", killed.stderr);
        let half = bed.machine();
        // half of them from a machine that knows nothing of the first run
        let ran = bed.replace(if place % 2 == 0 { "laptop" } else { "desk" }, None).expect(0);
        assert_eq!(did(&ran, "proxmox.remove_vm") > 0, goes, "{op}: {:#?}", ran.events());
        let new = bed.machine();
        assert!(new.contains("uuid=") && new != old, "{op}: {old} and {new}");
        // empty: it died before there was a new one
        assert!(goes || half.is_empty() || half == new, "{op}: the new machine was made anew: {half} and {new}");
    }
    // what ended well leaves no mark: the next one is a replacement like the first
    let marks = "for m in k3s::connect(site().hosts(\"server\")).list(\"configmap\", #{ namespace: \"kube-system\" }) { if m.metadata.name.starts_with(\"gpuhost-replace\") { print(`${m.metadata.name}=${m.data.machine}`); } }";
    assert_eq!(bed.said(marks), ["gpuhost-replace-muscle-a="]);
    // its machine goes by other hands before the interrupted run is continued: its node still leaves the cluster first
    let killed = bed.replace("desk", Some("kubernetes.cordon"));
    assert_eq!(killed.code, -1, "not killed: {:#?}", killed.events());
    bed.said(&format!(
        "let pve = proxmox::connect(site().proxmox); pve.remove_vm(pve.find_vm(\"{NODE}\"), #{{ delete_data: false }});"
    ));
    assert_eq!(bed.machine(), "");
    let lost = ["--yes", "--set", "name=muscle-a", "--set", "lost=true"];
    let ran = Ran::of(&bed.0.command_from("desk", "recipes/replace-node.rhai", &lost).output().unwrap()).expect(0);
    assert_eq!(did(&ran, "kubernetes.delete"), 1, "{:#?}", ran.events());
    let old = bed.machine();
    let again = bed.replace("desk", None).expect(0);
    assert!(did(&again, "proxmox.remove_vm") == 1 && bed.machine() != old, "{:#?}", again.events());
}
