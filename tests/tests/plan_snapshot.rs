//! Plans against a site that is reached over the network: it is read, its likeness is rehearsed in, and the run after it
//! has exactly the planned effects, in order per target. Nothing on the site changes by being read.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use gpuhost_tests::plans::{Plans, seen};
use gpuhost_tests::{Bench, root};
use serde_json::{Value, json};

const SITE: &str = "tests/sites/small.toml";
const DEPLOY: &str = "recipes/deploy.rhai";

fn bed() -> Plans {
    Plans::of(&std::fs::read_to_string(root().join(SITE)).unwrap())
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

/// Drifts inside of the machines and of the cluster.
const INSIDE: &str = "let pve = proxmox::connect(site().proxmox);
let shelf = pve.find_vm(\"shelf\").ssh();
let brain = pve.find_vm(\"brain\").ssh();
let b = pve.find_vm(\"muscle-b\").ssh();
shelf.run(\"sed -i /brain/d /etc/hosts\");
shelf.run(\"systemctl disable --now chrony\");
shelf.run(\"rm /etc/exports.d/gpuhost-export-k8s.exports\");
shelf.run(\"timedatectl set-timezone Europe/Berlin\");
brain.run(\"sysctl -w vm.panic_on_oom=1\");
brain.run(\"rm /etc/modules-load.d/*gpuhost*\");
brain.run(\"apt-get remove -y chrony\");
b.run(\"hostnamectl set-hostname wrong\");
b.run(\"modprobe -r br_netfilter\");
b.run(\"rm /etc/sysctl.d/90-gpuhost.conf\");
pve.find_vm(\"muscle-a\").stop();
";

/// What the plan must show of them: target and the beginning of what changes.
const DRIFTS: &[&str] = &[
    "muscle-a: agent",
    "muscle-a: cores",
    "muscle-a: cpu",
    "muscle-a: memory",
    "muscle-a: power",
    "muscle-a: label tier",
    "muscle-b: nameserver",
    "muscle-b: onboot",
    "muscle-b: tags",
    "muscle-b: system disk",
    "muscle-b: fs.inotify.max_user_watches in /etc/sysctl.d/",
    "muscle-b: kernel module br_netfilter",
    "muscle-b: swap",
    "muscle-b: hostname",
    "brain: protection",
    "brain: package chrony",
    "brain: line in /etc/modules-load.d/",
    "brain: sysctl vm.panic_on_oom",
    "brain: taint",
    "brain: size of the root file system",
    "shelf: 192.168.50.21 in /etc/hosts",
    "shelf: timezone",
    "shelf: service chrony at boot",
    "shelf: service chrony",
    "shelf: file /etc/exports.d/",
    "shelf: size of the file system on ",
    "shelf: StorageClass shelf metadata.annotations",
    "shelf: HelmChart kube-system/csi-driver-nfs",
];

/// Drifts that an administrator makes at the hypervisor and with kubectl, written into a saved world.
fn damage(w: &mut Value) {
    let vms = &mut w["pve"]["vms"];
    for (vm, key, value) in [
        ("502", "cores", "2"),
        ("502", "memory", "4096"),
        ("502", "cpu", "x86-64-v2-AES"),
        ("502", "agent", "1"),
        ("503", "nameserver", "1.1.1.1"),
        ("503", "tags", "mine"),
        ("503", "onboot", "0"),
    ] {
        vms[vm]["conf"][key] = value.into();
    }
    vms["501"]["conf"].as_object_mut().unwrap().remove("protection");
    let disk = text(&vms["503"]["conf"]["scsi0"]).replace("size=60G", "size=50G");
    let volume = disk.split(',').next().unwrap().to_owned();
    vms["503"]["conf"]["scsi0"] = disk.into();
    w["volumes"][volume]["size"] = (50_u64 << 30).into();
    // Disks were grown, what lies on them was not: the root partition, and the data disk's file system.
    let volume_of =
        |w: &Value, vm: &str, key: &str| text(&w["pve"]["vms"][vm]["conf"][key]).split(',').next().unwrap().to_owned();
    let (root, data) = (volume_of(w, "501", "scsi0"), volume_of(w, "504", "scsi2"));
    w["volumes"][root]["reach"] = json!({"partition": 30_u64 << 30, "fs": 30_u64 << 30});
    w["volumes"][data]["reach"] = json!({"partition": null, "fs": 20_u64 << 30});
    w["guests"]["503"]["swaps"] = json!([["/dev/sdz", 1_048_576]]);
    let clusters = w["clusters"].as_object_mut().unwrap();
    let objects = &mut clusters.values_mut().next().unwrap()["store"]["objects"];
    objects["nodes"]["/muscle-a"]["metadata"]["labels"].as_object_mut().unwrap().remove("tier");
    objects["nodes"]["/brain"]["spec"].as_object_mut().unwrap().remove("taints");
    let notes = &mut objects["storageclasses.storage.k8s.io"]["/shelf"]["metadata"]["annotations"];
    notes["storageclass.kubernetes.io/is-default-class"] = "false".into();
    let chart = &mut objects["helmcharts.helm.cattle.io"]["kube-system/csi-driver-nfs"]["spec"]["valuesContent"];
    let values = text(chart).replace("replicas: 1", "replicas: 2");
    assert_ne!(values, text(chart), "the chart's values have another form: {chart}");
    *chart = values.into();
}

/// The deploy recipe up to the step before `mark`.
fn first_part(b: &Bench, mark: &str) -> String {
    let text = std::fs::read_to_string(root().join(DEPLOY)).unwrap();
    let cut = text.find(mark).unwrap();
    let dir = b.path("part");
    std::fs::create_dir_all(dir.join("lib")).unwrap();
    for f in std::fs::read_dir(root().join("recipes/lib")).unwrap().flatten() {
        std::fs::copy(f.path(), dir.join("lib").join(f.file_name())).unwrap();
    }
    let path = dir.join("part.rhai");
    std::fs::write(&path, &text[..cut]).unwrap();
    path.display().to_string()
}

#[test]
fn empty_half_deployed_deployed_and_drifted_sites_are_planned_as_they_are_run() {
    let bed = bed();
    // Empty, but for somebody else's machine: the first half under its own plan.
    let half = first_part(&bed.desk.b, "step(\"prepare the systems\"");
    let _ = bed.equal(&half, "empty site");
    // Half deployed: machines stand there that nobody has prepared.
    let plan = bed.equal(DEPLOY, "half deployed site");
    assert!(plan["effects"].as_array().unwrap().len() > 8);
    assert!(plan["needs"].to_string().contains("root over SSH"), "{:#}", plan["needs"]);
    assert!(!plan["path"].as_array().unwrap().is_empty() && !plan["snapshot"].as_str().unwrap().is_empty());
    // Deployed: nothing to do, and reading has changed nothing.
    let (nothing, _) = bed.plan(DEPLOY, 0);
    assert_eq!(nothing["effects"], json!([]));
    assert!(nothing["assumed"].to_string().contains("values of Secrets"), "{:#}", nothing["assumed"]);
    // Drifted in more than twenty ways, inside and outside of the machines.
    let bed = bed.changed(damage);
    bed.script(INSIDE);
    let plan = bed.equal(DEPLOY, "drifted site");
    let seen = seen(&plan);
    let missing: Vec<&&str> = DRIFTS.iter().filter(|d| !seen.iter().any(|s| s.starts_with(**d))).collect();
    assert!(missing.is_empty(), "not seen: {missing:#?}\nin {seen:#?}");
    println!("{} kinds of drift, {} changes", DRIFTS.len(), seen.len());
    let site = bed.desk.site();
    assert!(bed.desk.b.run(&["drift", "--site", &site]).expect(0).stdout.contains("no drift"));
}

#[test]
fn a_snapshot_file_holds_no_secret_of_the_site_and_serves_a_plan_elsewhere() {
    let bed = bed();
    let half = first_part(&bed.desk.b, "step(\"prepare the systems\"");
    let _ = bed.run(&half, &[]).expect(0);
    let (site, file) = (bed.desk.site(), bed.desk.b.path("likeness.json").display().to_string());
    let taken = bed.desk.b.run(&["snapshot", "--site", &site, "--out", &file]).expect(0);
    assert!(taken.stdout.contains("read: ") && taken.stdout.contains("assumed: "), "{}", taken.stdout);
    let text = std::fs::read_to_string(&file).unwrap();
    let state = bed.desk.lab.site.parent().unwrap().parent().unwrap().join("state");
    let key = std::fs::read_to_string(state.join("attic_key")).unwrap();
    let line = key.lines().nth(2).unwrap();
    assert!(line.len() > 30 && !text.contains(line), "the site's key is in the file");
    // Another state directory knows nothing of the site.
    let other = Bench::new();
    let plan = other.run(&["plan", DEPLOY, "--against", &file, "--site", &site, "--json"]).expect(10);
    let plan: Value = serde_json::from_str(plan.stdout.lines().last().unwrap()).unwrap();
    assert!(plan["effects"].as_array().unwrap().iter().all(|e| e["op"] != "proxmox.ensure_vm"), "machines stand");
    // A site file of somebody else is refused.
    let foreign = other.path("other.toml");
    let toml = std::fs::read_to_string(root().join(SITE)).unwrap().replace("0a8d1b6e", "0a8d1b6f");
    std::fs::write(&foreign, toml).unwrap();
    let no = other.run(&["plan", DEPLOY, "--against", &file, "--site", foreign.to_str().unwrap()]).expect(4);
    assert!(no.stderr.contains("of another site"), "{}", no.stderr);
}
