//! Plans against snapshots of sites with GPUs, with several servers, with several hypervisor nodes: each has exactly the
//! effects of the run after it. CI takes one of the sites, by the commit, the default one now and then; all with `GPUHOST_TESTS_FULL=1`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use gpuhost_tests::bed::full;
use gpuhost_tests::plans::{Plans, seen};
use gpuhost_tests::{root, turn};
use serde_json::Value;

const DEPLOY: &str = "recipes/deploy.rhai";

/// Drifts inside of the machines.
const INSIDE: &str = "let pve = proxmox::connect(site().proxmox);
ssh::connect(\"k3s-cp2\").run(\"systemctl disable --now chrony\");
ssh::connect(\"k3s-gpu1\").run(\"sysctl -w vm.panic_on_oom=1\");
ssh::connect(\"nfs1\").run(\"rm /etc/exports.d/*\");
pve.find_vm(\"k3s-cp3\").stop();
";

/// Drifts outside of them, written into a saved world.
fn damage(w: &mut Value) {
    let vms = &mut w["pve"]["vms"];
    vms["211"]["conf"]["tags"] = "mine".into();
    vms["202"]["conf"]["nameserver"] = "1.1.1.1".into();
    // The one that is off: a running machine would be asked about.
    vms["203"]["conf"]["cores"] = "2".into();
    let clusters = w["clusters"].as_object_mut().unwrap();
    let objects = &mut clusters.values_mut().next().unwrap()["store"]["objects"];
    objects["nodes"]["/k3s-cp1"]["spec"].as_object_mut().unwrap().remove("taints");
    let notes = &mut objects["storageclasses.storage.k8s.io"]["/nfs-client"]["metadata"]["annotations"];
    notes["storageclass.kubernetes.io/is-default-class"] = "false".into();
}

/// What the plan must show of them: target and the beginning of what changes.
const DRIFTS: &[&str] = &[
    "k3s-cp1: taint",
    "k3s-cp2: nameserver",
    "k3s-cp2: service chrony",
    "k3s-cp3: cores",
    "k3s-cp3: power",
    "k3s-gpu1: tags",
    "k3s-gpu1: sysctl vm.panic_on_oom",
    "nfs1: file /etc/exports.d/",
    "nfs-client: StorageClass nfs-client metadata.annotations",
];

fn default_site() -> String {
    std::fs::read_to_string(root().join("recipes/site.toml")).unwrap()
}

/// The second server and the second GPU worker on a second hypervisor node with storage of its own.
fn two_hypervisors() -> String {
    let mut text = default_site();
    for (from, to) in [
        ("vmid = 9000\n", "vmid = 9000\nvmids = { pve2 = 9001 }\n"),
        ("vmid = 202\n", "vmid = 202\npve_node = \"pve2\"\n"),
    ] {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    for gone in ["k3s-gpu2", "k3s-gpu3", "k3s-gpu4"] {
        let at = text.find(&format!("[[nodes]]\nname = \"{gone}\"")).unwrap();
        let end = at + 2 + text[at + 2..].find("[[nodes]]").unwrap();
        text.replace_range(at..end, "");
    }
    let (head, rest) = text.split_once("# Charts on top.").unwrap();
    let (_, tail) = rest.split_once("# What recipes may use").unwrap();
    format!("{head}#{tail}")
}

fn planned_as_it_is_run(name: &str, site: &str) {
    let start = std::time::Instant::now();
    let bed = Plans::of(site);
    let plan = bed.equal(DEPLOY, &format!("{name}: empty"));
    println!("{name}: {} effects from nothing, {:.0} s", seen(&plan).len(), start.elapsed().as_secs_f64());
    let (nothing, _) = bed.plan(DEPLOY, 0);
    assert_eq!(nothing["effects"], serde_json::json!([]), "{name}");
    println!("{name}: read back, {:.0} s", start.elapsed().as_secs_f64());
    let bed = bed.changed(damage);
    bed.script(INSIDE);
    let seen = seen(&bed.equal(DEPLOY, &format!("{name}: drifted")));
    let missing: Vec<&&str> = DRIFTS.iter().filter(|d| !seen.iter().any(|s| s.starts_with(**d))).collect();
    assert!(missing.is_empty(), "{name}: not seen: {missing:#?}\nin {seen:#?}");
    println!("{name}: {} changes of a drifted site, {:.0} s", seen.len(), start.elapsed().as_secs_f64());
    let _ = bed.plan(DEPLOY, 0);
}

#[test]
fn sites_with_gpus_servers_and_hypervisors_are_planned_as_they_are_run() {
    let sites = [("the default site", default_site()), ("two hypervisor nodes", two_hypervisors())];
    let turn = turn::turn();
    let wanted = std::env::var("GPUHOST_PLAN_SITE").ok().and_then(|n| n.parse().ok());
    for (i, (name, text)) in sites.iter().enumerate() {
        if wanted.map_or(full() || i == usize::from(!turn.is_multiple_of(4)), |n: usize| n == i) {
            planned_as_it_is_run(name, text);
        }
    }
}
