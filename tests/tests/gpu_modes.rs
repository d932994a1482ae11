//! How cards are cut and shared on the lab: by the site file and `deploy`, by the script, back again; and what is refused
//! before anything is drained. One cluster, one after the other: each deploy costs seconds.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use serde_json::Value;

use gpuhost_tests::{Bench, Ran};

const DEPLOY: &str = "recipes/deploy.rhai";
const DRIVER: &str = "driver = \"580.126.09\"";
const GPU1: &str = "ip = \"10.0.0.21\"";

/// As [`stands`], and everything of the GPUs is proven without a warning.
fn comes_up(b: &Bench, changes: &[(&str, &str)], words: &str) {
    for (verdict, proof) in stands(b, changes, words) {
        assert_eq!(verdict, "pass", "{words}: {proof}");
    }
}

/// Deploys, looks for the words at its end, deploys again without a change, and proves: the verdicts about GPUs.
fn stands(b: &Bench, changes: &[(&str, &str)], words: &str) -> Vec<(String, Value)> {
    let first = b.run_changed(DEPLOY, changes, &[]).expect(0);
    assert!(first.stdout.contains(words), "{words}: {}", first.stdout);
    assert_eq!(b.run_changed(DEPLOY, changes, &[]).expect(0).finished()["changed"], 0, "{words}: a second deploy");
    let verify = b.run_changed("recipes/verify.rhai", changes, &[]).expect(0);
    let proofs: Vec<_> = verify.events().into_iter().filter(|e| e["event"] == "proved").collect();
    let gpu = proofs.into_iter().filter(|e| e.to_string().contains("GPU") || e.to_string().contains("CUDA"));
    gpu.map(|e| (e["verdict"].as_str().unwrap_or_default().to_lowercase(), e)).collect()
}

/// Nothing is wrong but that a node is cut without a word of it in the site file.
fn only_warns_of_gpu2(proofs: &[(String, Value)]) {
    let not_passed: Vec<&Value> = proofs.iter().filter(|p| p.0 != "pass").map(|p| &p.1["text"]).collect();
    assert_eq!(not_passed, ["k3s-gpu2 is cut by MIG (all-3g.20gb), the site file has no mig for it"]);
}

/// The run ends with an error that says all of these words.
fn ends(ran: Ran, words: &[&str]) {
    let end = ran.expect(1).finished();
    for word in words {
        assert!(end["error"].to_string().contains(word), "{word}: {:#}", end["error"]);
    }
}

#[test]
fn cards_are_shared_cut_and_made_whole_again() {
    let b = Bench::new();
    comes_up(&b, &[(DRIVER, &format!("{DRIVER}\ntime_slicing = 4"))], "8 GPUs allocatable in 32 parts");
    comes_up(&b, &[], "8 GPUs allocatable");

    let mode = |mig: &str| {
        b.run_changed("scripts/gpu-mode.rhai", &[], &["--set", "node=k3s-gpu2", "--set", &format!("mig={mig}")])
    };
    ends(mode("all-9g.5gb"), &["no configuration `all-9g.5gb`", "did you mean `all-1g.5gb`?"]);
    ends(mode("all-1g.12gb"), &["is not for the cards of k3s-gpu2"]);
    let cut = mode("all-3g.20gb").expect(0);
    assert!(cut.stdout.contains("k3s-gpu2 offers 4 nvidia.com/gpu on 2 cards"), "{}", cut.stdout);
    // deploy leaves what the site file does not speak of
    only_warns_of_gpu2(&stands(&b, &[], "8 GPUs allocatable in 10 parts"));

    let gpu = format!("{DRIVER}\nmig_strategy = \"mixed\"");
    let node = format!("{GPU1}\nmig = \"all-1g.5gb\"");
    only_warns_of_gpu2(&stands(&b, &[(DRIVER, &gpu), (GPU1, &node)], "8 GPUs allocatable in 22 parts"));
    let names = b.run_changed(
        "scripts/gpu-mode.rhai",
        &[(DRIVER, &gpu)],
        &["--set", "node=k3s-gpu1", "--set", "mig=all-disabled"],
    );
    let names = names.expect(0);
    assert!(names.stdout.contains("k3s-gpu1 offers 2 nvidia.com/gpu on 2 cards"), "{}", names.stdout);
    assert!(!names.stdout.contains("nvidia.com/mig-1g.5gb"), "instances are gone: {}", names.stdout);
}

#[test]
fn a_card_is_taken_out_of_a_machine() {
    let b = Bench::new();
    comes_up(&b, &[], "8 GPUs allocatable");
    let one = [("gpus = 2 ", "gpus = 1 ")];
    let ran = b.run_changed("scripts/reshape-vm.rhai", &one, &["--set", "node=k3s-gpu1"]).expect(0);
    assert!(ran.stdout.contains("hostpci1"), "the card is out: {}", ran.stdout);
    assert!(!ran.stdout.contains("does not offer its GPUs"), "the other is offered: {}", ran.stdout);
    assert!(ran.finished()["changed"].as_u64() > Some(0));
}

#[test]
fn parts_of_the_operator_are_left_out() {
    let b = Bench::new();
    let off = format!("{DRIVER}\ntoolkit = false\ndcgm = false");
    ends(b.run_changed(DEPLOY, &[(DRIVER, &off)], &[]), &["no container toolkit is installed in k3s-gpu1, k3s-gpu2"]);
    // what the machines bring themselves is found by K3s at its start
    let text = "for host in site().hosts(\"agent\") {\n    host.script(\"install -m 755 /dev/null /usr/bin/nvidia-container-runtime\");\n    \
        host.restart_service(\"k3s-agent\");\n}\n";
    std::fs::write(b.path("own.rhai"), text).unwrap();
    let own = b.path("own.rhai").display().to_string();
    let _ = b.run_changed(&own, &[(DRIVER, &off)], &[]).expect(0);
    comes_up(&b, &[(DRIVER, &off)], "8 GPUs");
    std::fs::write(
        b.path("seen.rhai"),
        "let c = k3s::connect(site().hosts(\"server\"));\nfor d in c.list(\"daemonset\", #{ namespace: \"gpu-operator\" }) { \
         require(!d.metadata.name.contains(\"toolkit\") && !d.metadata.name.contains(\"dcgm\"), d.metadata.name); }\n",
    )
    .unwrap();
    let seen = b.path("seen.rhai").display().to_string();
    let _ = b.run_changed(&seen, &[(DRIVER, &off)], &[]).expect(0);
}

#[test]
fn drivers_that_do_not_come_are_told_early() {
    let b = Bench::new();
    let preinstalled = [(DRIVER, "driver = \"preinstalled\"")];
    ends(b.run_changed(DEPLOY, &preinstalled, &[]), &["no NVIDIA driver is installed in k3s-gpu1, k3s-gpu2"]);
    let missing = b.run_changed(DEPLOY, &[(DRIVER, "driver = \"999.10.01\"")], &[]);
    ends(missing, &["there is no image nvcr.io/nvidia/driver:999.10.01", "not found"]);
}

#[test]
fn another_operator_brings_its_operands() {
    let b = Bench::new();
    let _ = b.run_changed(DEPLOY, &[], &[]).expect(0);
    let newer = [("operator = \"v26.3.3\"", "operator = \"v26.7.0\"")];
    comes_up(&b, &newer, "8 GPUs allocatable");
    std::fs::write(
        b.path("operands.rhai"),
        "let c = k3s::connect(site().hosts(\"server\"));\n\
         for p in c.list(\"pod\", #{ namespace: \"gpu-operator\" }) { print(p.spec.containers[0].image); }\n",
    )
    .unwrap();
    let ran = b.run_changed(&b.path("operands.rhai").display().to_string(), &newer, &[]).expect(0);
    for image in [
        "container-toolkit:v1.20.0",
        "k8s-device-plugin:v0.20.0",
        "k8s-mig-manager:v0.15.0",
        "node-feature-discovery:v0.19.0",
    ] {
        assert!(ran.stdout.contains(image), "{image}: {}", ran.stdout);
    }
    for image in ["container-toolkit:v1.19.1", "k8s-device-plugin:v0.19.3", "gpu-operator:v26.3.3"] {
        assert!(!ran.stdout.contains(image), "{image}: {}", ran.stdout);
    }
}

/// A bare pod that holds cards is nothing that the operator may end: the upgrade of its node is given up, and said so at once.
#[test]
fn a_driver_upgrade_goes_node_by_node_and_may_be_given_up() {
    let b = Bench::new();
    let _ = b.run_changed(DEPLOY, &[], &[]).expect(0);
    let script = |name: &str, text: &str| {
        let path = b.path(name);
        let head = "let c = k3s::connect(site().hosts(\"server\"));\n";
        std::fs::write(&path, format!("{head}{text}")).unwrap();
        path.display().to_string()
    };
    let hold = script(
        "hold.rhai",
        "c.apply(#{ apiVersion: \"v1\", kind: \"Pod\", metadata: #{ name: \"train\" }, spec: #{ nodeName: \"k3s-gpu2\",\n\
         containers: [#{ name: \"c\", image: \"busybox\", command: [\"sleep\", \"1000000\"],\n\
         resources: #{ limits: #{ \"nvidia.com/gpu\": 1 } } }] } });\n\
         c.wait(\"pod\", \"train\", \"condition=Ready\", 10.minutes);\n",
    );
    let _ = b.run_changed(&hold, &[], &[]).expect(0);
    let newer = [(DRIVER, "driver = \"580.173.02\"")];
    let given_up = "the GPU operator has given the upgrade of the driver up on k3s-gpu2";
    ends(b.run_changed(DEPLOY, &newer, &[]), &[given_up, "default/train (no controller)", "doctor.rhai"]);
    let said = b.run_changed("scripts/doctor.rhai", &newer, &[]).expect(3).stdout;
    assert!(said.contains("driver-upgrade-failed"), "{said}");
    let command = said
        .split("sudo k3s kubectl -n default delete pod train")
        .nth(1)
        .map(|t| t.split(['"', '\'', '\n']).next().unwrap_or(""));
    let command = format!("k3s kubectl -n default delete pod train{}", command.expect("the fix").replace("sudo ", ""));
    let fix = script("fix.rhai", &format!("site().hosts(\"server\")[0].script(`{command}`);\n"));
    let _ = b.run_changed(&fix, &newer, &[]).expect(0);
    comes_up(&b, &newer, "8 GPUs allocatable");
    let seen = script(
        "seen.rhai",
        "for n in c.list(\"node\") {\n\
         if \"nvidia.com/gpu.present\" in n.metadata.labels { \
         print(`${n.metadata.labels[\"nvidia.com/gpu-driver-upgrade-state\"]} ${\"unschedulable\" in n.spec}`); } }\n",
    );
    let ran = b.run_changed(&seen, &newer, &[]).expect(0);
    assert_eq!(ran.stdout.matches("upgrade-done false").count(), 4, "{}", ran.stdout);
}
