//! Promise: nothing is hard-coded to the default site: other addresses of the API, templates and file servers.
#![allow(clippy::unwrap_used)] // a test stops at the first surprise
use gpuhost_tests::play::Play;

/// Deploy, deploy again without a change or a warning, verify.
fn holds(p: &Play) {
    let first = p.recipe("recipes/deploy.rhai", &[]).expect(0);
    assert!(first.stdout.contains("3 nodes Ready, 0 GPUs allocatable"), "{}", first.stdout);
    let again = p.recipe("recipes/deploy.rhai", &[]).expect(0);
    assert_eq!(again.finished()["changed"], 0, "{}", again.stdout);
    assert_eq!(again.said("warn"), [""; 0]);
    let _ = p.recipe("recipes/verify.rhai", &[]).expect(0);
}

#[test]
fn the_api_under_a_dns_name() {
    let mut p = Play::new();
    p.change_site(&[("address = \"192.168.50.21\"", "address = \"k8s.attic.example\"")]);
    holds(&p);
    // The certificate is good for the name, and so is the kubeconfig.
    let text = "let c = k3s::connect(site().hosts(\"server\")); let h = ssh::connect(\"muscle-a\");\n\
                print(h.read(\"cat /etc/rancher/k3s/config.yaml\").stdout);";
    assert!(p.json(text, &[]).expect(0).stdout.contains("https://k8s.attic.example:6443"));
}

#[test]
fn the_api_under_a_virtual_address() {
    let mut p = Play::new();
    p.change_site(&[("address = \"192.168.50.21\"", "address = \"192.168.50.80\"\nvip = true")]);
    holds(&p);
}

#[test]
fn an_existing_template_is_used_and_kept() {
    let mut p = Play::new();
    // Somebody has made it.
    let _ = p.b.run(&["lab", "reset", "--start", "template", "--site", p.site()]).expect(0);
    p.change_site(&[("vmid = 800", "vmid = 800\nexisting = true")]);
    holds(&p);
    let _ = p.recipe("recipes/cleanup.rhai", &["--yes", "--set", "delete_data=true"]).expect(0);
    assert!(p.hypervisor()["vms"]["800"].is_object(), "what was there before stays");
    // Without it, the run says so before anything is made.
    let mut p = Play::new();
    p.change_site(&[("vmid = 800", "vmid = 800\nexisting = true")]);
    let ran = p.recipe("recipes/deploy.rhai", &[]).expect(1);
    let error = ran.finished()["error"].clone();
    assert!(error.to_string().contains("template 800 is not there"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("template.vmid"), "{error}");
    assert!(p.hypervisor()["vms"]["501"].is_null());
}

#[test]
fn an_existing_file_server_is_used() {
    let mut p = Play::new();
    let shelf = "[[nodes]]\nname = \"shelf\"\nrole = \"shelf\"\nvmid = 504\nip = \"192.168.50.24\"\n";
    p.change_site(&[(shelf, ""), ("nfs_path =", "nfs_server = \"192.168.50.9\"\nnfs_path =")]);
    holds(&p);
    let left = p.recipe("recipes/cleanup.rhai", &["--yes"]).expect(0);
    assert!(!left.stdout.contains("kept: "), "nothing of ours to keep: {}", left.stdout);
}

#[test]
fn a_site_without_storage() {
    let mut p = Play::new();
    let shelf = "[[nodes]]\nname = \"shelf\"\nrole = \"shelf\"\nvmid = 504\nip = \"192.168.50.24\"\n";
    let section = "[storage]\nnfs_path = \"/export/k8s\"\nnfs_class = \"shelf\"\ncsi_driver_nfs = \"4.13.4\"\n";
    p.change_site(&[(shelf, ""), (section, "")]);
    holds(&p);
    let _ = p.recipe("recipes/cleanup.rhai", &["--yes"]).expect(0);
}
