//! What verify says of releases that are not what the site file names, and what deploy makes of a chart that refuses the
//! cluster's Kubernetes. One cluster from the start `deployed`, one change after the other.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use gpuhost_tests::{Bench, Ran};

const DEPLOY: &str = "recipes/deploy.rhai";
const VERIFY: &str = "recipes/verify.rhai";
const OLD: (&str, &str) = ("v1.34.9+k3s1", "v1.36.3+k3s1");
const RANCHER: (&str, &str) = ("version = \"2.13.6\"", "version = \"2.15.1\"");
const MONITORING: (&str, &str) = ("[platform.monitoring]\nversion = \"85.1.3\"", "");

/// A proof of verify: its verdict and its words.
fn proof(ran: &Ran, name: &str) -> (String, String) {
    let events = ran.events();
    let found = events.iter().find(|e| e["event"] == "proved" && e["name"] == name);
    let found = found.unwrap_or_else(|| panic!("{name}: {}", ran.stdout));
    (found["verdict"].as_str().unwrap().to_lowercase(), found.to_string())
}

fn says(ran: &Ran, name: &str, verdict: &str, words: &[&str]) {
    let (got, text) = proof(ran, name);
    assert_eq!(got, verdict, "{text}");
    for w in words {
        assert!(text.contains(w), "{w}: {text}");
    }
}

#[test]
fn a_chart_that_refuses_the_new_kubernetes_stands_until_it_is_changed() {
    let b = Bench::new();
    let _ = b.run_changed(DEPLOY, &[], &[]).expect(0);
    let version = format!("version={}", OLD.1);
    let up = b.run_changed("recipes/upgrade.rhai", &[], &["--set", &version]).expect(0);
    assert!(up.stdout.contains("Rancher 2.15 takes it"), "{}", up.stdout);

    let ran = b.run_changed(DEPLOY, &[OLD], &[]).expect(0);
    assert!(ran.stdout.contains("2.13.6 excludes Kubernetes v1.36.3"), "{}", ran.stdout);
    assert_eq!(b.run_changed(DEPLOY, &[OLD], &[]).expect(0).finished()["changed"], 0);
    says(&b.run_changed(VERIFY, &[OLD], &[]).expect(0), "releases as declared", "warn", &["Rancher 2.15 takes it"]);

    // a version that the site file names and nobody installed
    let ran = b.run_changed(VERIFY, &[OLD, RANCHER], &[]).expect(3);
    says(&ran, "releases as declared", "fail", &["HelmChart names 2.13.6, the site file 2.15.1"]);
    let _ = b.run_changed(DEPLOY, &[OLD, RANCHER], &[]).expect(0);
    let ran = b.run_changed(VERIFY, &[OLD, RANCHER], &[]).expect(0);
    says(&ran, "releases as declared", "pass", &["rancher 2.15.1"]);

    // one that the repository does not have: deploy fails, and verify does not call it well
    let missing = (RANCHER.0, "version = \"2.15.9\"");
    let _ = b.run_changed(DEPLOY, &[OLD, missing], &[]).expect(1);
    let ran = b.run_changed(VERIFY, &[OLD, missing], &[]).expect(3);
    says(&ran, "releases as declared", "fail", &["the release is 2.15.1, its HelmChart names 2.15.9"]);
    assert!(ran.stdout.contains("release-fails@rancher"), "{}", ran.stdout);
    let _ = b.run_changed(DEPLOY, &[OLD, RANCHER], &[]).expect(0);
    let _ = b.run_changed(VERIFY, &[OLD, RANCHER], &[]).expect(0);
}

#[test]
fn verify_names_what_the_site_file_does_not_say() {
    let b = Bench::new();
    let _ = b.run_changed(DEPLOY, &[], &[]).expect(0);
    let ran = b.run_changed(VERIFY, &[MONITORING], &[]).expect(0);
    says(&ran, "releases as declared", "warn", &["kube-prometheus-stack runs", "remove-release.rhai"]);
    let _ =
        b.run_changed("scripts/remove-release.rhai", &[MONITORING], &["--set", "name=kube-prometheus-stack"]).expect(0);
    says(&b.run_changed(VERIFY, &[MONITORING], &[]).expect(0), "releases as declared", "pass", &[]);

    let fewer = [("gpus = 2 ", "gpus = 1 "), ("memory = \"16 GiB\"", "memory = \"24 GiB\"")];
    let ran = b.run_changed(VERIFY, &fewer, &[]).expect(3);
    says(&ran, "GPUs allocatable", "fail", &["k3s-gpu1 offers 2 GPUs, the site file gives it 1"]);
    says(
        &ran,
        "machines declared",
        "fail",
        &["k3s-gpu1 is not as declared: hostpci1", "k3s-cp1 is not as declared: memory"],
    );

    let moved = [("ip = \"10.0.0.24\"", "ip = \"10.0.0.25\"")];
    let ran = b.run_changed(VERIFY, &moved, &[]).expect(3);
    says(&ran, "nodes Ready", "fail", &["k3s-gpu4 has the address 10.0.0.24, the site file says 10.0.0.25"]);
    assert!(ran.stdout.contains("address-differs@k3s-gpu4") && !ran.stdout.contains("nfs-mount"), "{}", ran.stdout);

    // a class cannot change its share: nothing of the server is touched
    let share = [("/srv/nfs/k8s", "/srv/nfs/kube")];
    let end = b.run_changed(DEPLOY, &share, &[]).expect(1).finished();
    assert_eq!(end["changed"], 0, "{end}");
    let ran = b.run_changed(VERIFY, &share, &[]).expect(3);
    says(&ran, "storage provisioning", "fail", &["nfs-client is of 10.0.0.31:/srv/nfs/k8s"]);
    assert!(ran.stdout.contains("class-of-another-share@nfs-client"), "{}", ran.stdout);

    let mig =
        b.run_changed("scripts/gpu-mode.rhai", &[], &["--set", "node=k3s-cp1", "--set", "mig=all-1g.5gb"]).expect(1);
    assert!(mig.finished()["error"].to_string().contains("no GPU that MIG could cut"), "{}", mig.stdout);
}

#[test]
fn gpu_workers_may_keep_other_pods_out_where_servers_are_open() {
    let b = Bench::new();
    let taints = [
        ("gpus = 2 ", "taints = [\"nvidia.com/gpu=present:NoSchedule\"]\ngpus = 2 "),
        ("cis = true ", "taints = []\ncis = true "),
    ];
    let _ = b.run_changed(DEPLOY, &taints, &[]).expect(0);
    assert_eq!(b.run_changed(DEPLOY, &taints, &[]).expect(0).finished()["changed"], 0);
    let ran = b.run_changed(VERIFY, &taints, &[]).expect(0);
    says(&ran, "JupyterHub spawning", "pass", &["a notebook with a GPU"]);
}
