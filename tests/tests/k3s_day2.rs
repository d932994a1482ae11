//! A cluster's life on the lab: upgrade through every minor under load, backup, loss of two servers, restore,
//! a GPU worker replaced, server 1's disk lost. One cluster, one after the other: each deploy costs seconds.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use gpuhost_tests::{Bench, Ran};
use serde_json::Value;

const OLD: &str = "v1.33.5+k3s1";
const NEW: &str = "v1.36.3+k3s1";

/// The default site with two GPU workers, no platform charts, and this release.
fn site(b: &Bench, version: &str) -> String {
    let text = std::fs::read_to_string(gpuhost_tests::root().join("recipes/site.toml")).unwrap();
    let (head, rest) = text.split_once("# Charts on top.").unwrap();
    let (_, tail) = rest.split_once("# Where connections really go").unwrap();
    let mut nodes = head.to_owned();
    for gone in ["k3s-gpu3", "k3s-gpu4"] {
        let at = nodes.find(&format!("[[nodes]]\nname = \"{gone}\"")).unwrap();
        let end = at + 2 + nodes[at + 2..].find("[[nodes]]").unwrap();
        nodes.replace_range(at..end, "");
    }
    let path = b.path("site.toml");
    std::fs::write(&path, format!("{nodes}#{tail}").replace("v1.34.9+k3s1", version)).unwrap();
    path.display().to_string()
}

struct Life {
    b: Bench,
}

impl Life {
    fn run(&self, recipe: &str, more: &[&str]) -> Ran {
        let site = self.b.path("site.toml").display().to_string();
        let mut args = vec!["run", recipe, "--lab", "--json", "--yes", "--site", &site];
        args.extend_from_slice(more);
        self.b.run(&args)
    }

    /// Runs a recipe text; what it printed.
    fn script(&self, text: &str) -> Ran {
        let path = self.b.path("step.rhai");
        std::fs::write(&path, text).unwrap();
        self.run(path.to_str().unwrap(), &[])
    }

    /// Runs a recipe, or a recipe text, that nobody answers for: it is refused (exit 4) and says each of `words`.
    fn refused(&self, recipe: &str, more: &[&str], words: &[&str]) {
        let path = self.b.path("asked.rhai");
        let is_text = recipe.contains('\n');
        if is_text {
            std::fs::write(&path, recipe).unwrap();
        }
        let (site, path) = (self.b.path("site.toml").display().to_string(), path.display().to_string());
        let mut args = vec!["run", if is_text { path.as_str() } else { recipe }, "--lab", "--json", "--site", &site];
        args.extend_from_slice(more);
        let ran = self.b.run(&args);
        let error = ran.finished()["error"].to_string();
        assert_eq!(ran.code, 4, "{recipe}: {error}\n{}", ran.stderr);
        for w in words {
            assert!(error.contains(w), "{recipe}: no `{w}` in {error}");
        }
    }

    /// The cluster's CA, as the kubeconfig of the last connection has it.
    fn ca(&self) -> String {
        let _ = self.script("print(k3s::connect(site().hosts(\"server\")));\n").expect(0);
        let labs = std::fs::read_dir(self.b.path("state/lab")).unwrap().flatten();
        let file = labs.map(|e| e.path().join("state/kubeconfig")).find(|p| p.exists()).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let (_, data) = text.split_once("certificate-authority-data:").unwrap();
        // long words are folded: all of it up to the next key
        data.lines().enumerate().take_while(|(i, l)| *i == 0 || !l.contains(':')).map(|(_, l)| l.trim()).collect()
    }

    /// The machine is gone with its disks, without a word to the cluster.
    fn lose(&self, names: &[&str]) {
        let list: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
        let text = format!(
            "let pve = proxmox::connect(site().proxmox);\nfor vm in pve.list_owned() {{ if vm.name in [{}] {{ pve.remove_vm(vm, #{{ delete_data: false }}); }} }}\n",
            list.join(", ")
        );
        let lost = self.script(&text).expect(0).finished();
        assert!(lost["changed"].as_u64().unwrap() >= names.len() as u64, "{lost}");
    }

    fn deploy(&self) -> Value {
        self.run("recipes/deploy.rhai", &[]).expect(0).finished()
    }
}

fn messages(ran: &Ran) -> Vec<String> {
    let text = |e: Value| e["text"].as_str().map(str::to_owned);
    ran.events().into_iter().filter(|e| e["event"] == "message").filter_map(text).collect()
}

/// Upgrades while a load writes, reads its Deployment, counts voters and compares versions.
const UPGRADE_UNDER_LOAD: &str = r#"
let cluster = k3s::connect(site().hosts("server"));
cluster.apply(#{ apiVersion: "apps/v1", kind: "Deployment", metadata: #{ name: "web" }, spec: #{
    replicas: 3, selector: #{ matchLabels: #{ app: "web" } },
    template: #{ metadata: #{ labels: #{ app: "web" } }, spec: #{
        containers: [#{ name: "web", image: "nginx:1.29" }],
        tolerations: [#{ operator: "Exists" }],
        affinity: #{ podAntiAffinity: #{ requiredDuringSchedulingIgnoredDuringExecution: [#{
            topologyKey: "kubernetes.io/hostname", labelSelector: #{ matchLabels: #{ app: "web" } },
        }] } },
    } },
} });
cluster.apply(#{ apiVersion: "policy/v1", kind: "PodDisruptionBudget", metadata: #{ name: "web" }, spec: #{
    minAvailable: 2, selector: #{ matchLabels: #{ app: "web" } },
} });
cluster.wait("deploy", "web", "condition=Available", 5.minutes);

fn minor(version) { version.split(".")[1].parse_int() }

fn load(cluster, target) {
    let seen = [];
    let rounds = 0;
    while rounds < 4000 {
        rounds += 1;
        cluster.ensure_config_map("default/load", #{ round: `${rounds}` });
        let voters = 0;
        let newest_agent = 0;
        let oldest_server = 99;
        let done = true;
        for node in cluster.list("node") {
            let version = node.status.nodeInfo.kubeletVersion;
            if !(version in seen) { seen.push(version); }
            if version != target { done = false; }
            if "node-role.kubernetes.io/etcd" in node.metadata.labels {
                if minor(version) < oldest_server { oldest_server = minor(version); }
                let ready = false;
                let votes = false;
                for c in node.status.conditions {
                    if c.type == "Ready" && c.status == "True" { ready = true; }
                    if c.type == "EtcdIsVoter" && c.status == "True" { votes = true; }
                }
                if ready && votes { voters += 1; }
            } else if minor(version) > newest_agent { newest_agent = minor(version); }
        }
        require(voters >= 2, `${voters} voters: the quorum hangs on a thread`);
        require(newest_agent <= oldest_server, "an agent is newer than a server");
        let web = cluster.get("deploy", "web");
        let up = if "availableReplicas" in web.status { web.status.availableReplicas } else { 0 };
        require(up >= 1, "the load's Deployment is down");
        if done { break; }
        sleep(5.seconds);
    }
    `rounds ${rounds}, versions ${seen}`
}

let ran = parallel(["upgrade", "load"], |what| {
    let cluster = k3s::connect(site().hosts("server"));
    if what == "upgrade" {
        `went through ${cluster.ensure_upgrade("v1.36.3+k3s1", #{ via: ["v1.34.10+k3s1"], limit: 1 })}`
    } else {
        load(cluster, "v1.36.3+k3s1")
    }
});
for line in ran { print(line); }
"#;

/// Safety rule 13: no action on a server while it would cost the quorum.
const LOST: &str = r#"
let cluster = k3s::connect(site().hosts("server"));
ssh::connect("k3s-cp3").run("systemctl stop k3s");
cluster.wait_until("node", "k3s-cp3", 5.minutes, |n| {
    let ready = true;
    for c in n.status.conditions { if c.type == "Ready" && c.status != "True" { ready = false; } }
    !ready
});
// what costs nothing more is free
cluster.check_quorum("k3s-cp3");
cluster.check_quorum("k3s-gpu1");
"#;

/// What is refused meanwhile, with a word of the reason.
const SPARED: &[(&str, &str)] = &[
    ("cluster.check_quorum(\"k3s-cp2\");\n", "k3s-cp3"),
    ("cluster.drain(\"k3s-cp2\", 5.minutes);\n", "k3s-cp3"),
    ("cluster.rotate_certificates(#{});\n", "k3s-cp3"),
    ("cluster.remove_node(site().hosts(\"server\").filter(|h| h.name == \"k3s-cp2\")[0]);\n", "vote"),
    ("proxmox::connect(site().proxmox).get_vm(\"k3s-cp2\").rollback(\"before\");\n", "etcd"),
    ("k3s::uninstall(site().hosts(\"server\")[1]);\n", "other 2 servers vote"),
];

const BACK: &str = r#"
ssh::connect("k3s-cp3").run("systemctl start k3s");
let cluster = k3s::connect(site().hosts("server"));
cluster.wait_nodes(["k3s-cp3"], 10.minutes);
require(cluster.check_servers(["k3s-cp1", "k3s-cp2", "k3s-cp3"]).len() == 0, "three voters");
"#;

/// Safety rule 16: somebody works on a GPU.
const SESSION: &str = r#"
let cluster = k3s::connect(site().hosts("server"));
cluster.apply(#{ apiVersion: "v1", kind: "Pod", metadata: #{ name: "jupyter-ada", annotations: #{ "hub.jupyter.org/username": "ada" } }, spec: #{
    runtimeClassName: "nvidia", nodeName: "k3s-gpu1", tolerations: [#{ operator: "Exists" }],
    containers: [#{ name: "notebook", image: "busybox", command: ["sleep", "infinity"], resources: #{ limits: #{ "nvidia.com/gpu": "1" } } }],
} });
cluster.wait("pod", "jupyter-ada", "condition=Ready", 5.minutes);
let held = gpu::inventory(cluster).holders;
require(held.len() == 1 && held[0].node == "k3s-gpu1" && held[0].pod == "default/jupyter-ada", `${held}`);
// tests take what is free and say what is not
for test in gpu::run_test(cluster) {
    require(test.result == "passed", `${test}`);
    if test.node == "k3s-gpu1" { require(test.gpus == 1 && test.text.contains("1 of 2 busy"), `${test}`); }
    else { require(test.gpus == 2, `${test}`); }
}
"#;

const CONNECTED: &str = "let cluster = k3s::connect(site().hosts(\"server\"));\n";

/// Rules 13 and 16 on the cluster of three servers.
fn servers_and_sessions_are_spared(life: &Life) {
    let _ = life.script(LOST).expect(0);
    for (text, word) in SPARED {
        life.refused(&format!("{CONNECTED}{text}"), &["--yes"], &[word]);
    }
    let fine = "require(!(\"unschedulable\" in cluster.get(\"node\", \"k3s-cp2\").spec), \"cordoned\");\n";
    let _ = life.script(&format!("{CONNECTED}{fine}")).expect(0);
    life.refused("scripts/reboot-node.rhai", &["--yes", "--set", "node=k3s-cp2"], &["quorum", "k3s-cp3"]);
    life.refused("scripts/restart-vm.rhai", &["--yes", "--set", "node=k3s-cp2"], &["quorum"]);
    life.refused("scripts/restart-agent.rhai", &["--yes", "--set", "node=k3s-cp2"], &["quorum"]);
    let _ = life.script(BACK).expect(0);

    let _ = life.script(SESSION).expect(0);
    life.refused(
        &format!("{CONNECTED}cluster.drain(\"k3s-gpu1\", 5.minutes);\n"),
        &[],
        &["Pod default/jupyter-ada (holds 1 GPU, notebook of ada"],
    );
    let open = "let spec = cluster.get(\"node\", \"k3s-gpu1\").spec;\n\
        require(!(\"unschedulable\" in spec) || !spec.unschedulable, `left cordoned: ${spec}`);\n";
    let _ = life.script(&format!("{CONNECTED}{open}")).expect(0);
    life.refused(
        "scripts/gpu-mode.rhai",
        &["--set", "node=k3s-gpu1", "--set", "mig=all-1g.5gb"],
        &["default/jupyter-ada"],
    );
    life.refused("scripts/reboot-node.rhai", &["--set", "node=k3s-gpu1"], &["GPUs are held by default/jupyter-ada"]);
    let other = "gpu::ensure_operator(cluster, site().hosts(\"agent\"), #{ version: site().gpu.operator, driver: \"570.195.03\" });\n";
    life.refused(&format!("{CONNECTED}{other}"), &[], &["driver", "default/jupyter-ada"]);
    let gone = format!("{CONNECTED}cluster.delete(\"pod\", \"jupyter-ada\");\n");
    let _ = life.script(&gone).expect(0);
    let booted = life.run("scripts/reboot-node.rhai", &["--set", "node=k3s-gpu1"]).expect(0);
    assert!(booted.finished()["changed"].as_u64() > Some(0));
    let ready =
        "require(cluster.check_nodes(site().node_names(), site().k3s.version).len() == 0, \"Ready after its boot\");\n";
    let _ = life.script(&format!("{CONNECTED}{ready}")).expect(0);
}

/// What cannot be done, and what nobody agreed to, is said before the first change.
fn asked_before_anything(life: &Life) {
    let next = ["--set", "version=v1.34.10+k3s1"];
    life.refused("recipes/upgrade.rhai", &next, &["upgrade", "Every node is drained"]);
    for (recipe, set, code, words) in [
        ("recipes/remove-node.rhai", "name=nfs1", 1, "nfs1 is no cluster node; it serves the storage of"),
        ("recipes/replace-node.rhai", "name=nfs1", 1, "nfs1 is no cluster node"),
        ("recipes/replace-node.rhai", "name=k3s-gpu9", 1, "k3s-gpu9 is not in the site file"),
        ("recipes/remove-node.rhai", "name=k3s-cp1", 1, "k3s.address is the address of k3s-cp1"),
        ("recipes/upgrade.rhai", "version=v1.34.99+k3s1", 1, "there is no K3s release `v1.34.99+k3s1`"),
        ("recipes/upgrade.rhai", "version=v1.32.9+k3s1", 1, "K3s cannot go back"),
        ("recipes/upgrade.rhai", "via=banana", 1, "`banana` is not a K3s release"),
        ("recipes/remove-node.rhai", "lost=false", 2, "findings before anything ran"),
        ("recipes/backup.rhai", "keep=0", 1, "at least one snapshot"),
        ("recipes/backup.rhai", "folder=/elsewhere", 4, "outside the project folder"),
    ] {
        let ran = life.run(recipe, &["--set", set]);
        let end = ran.finished();
        assert!(end["error"].to_string().contains(words), "{recipe} {set}: {end}");
        assert_eq!((ran.code, end["changed"].as_u64()), (code, Some(0)), "{recipe} {set}: {end}");
    }
    let untouched = "require(cluster.list_snapshots().len() == 0, \"no snapshot\");\n\
        for n in cluster.list(\"node\") { require(!(\"unschedulable\" in n.spec), `${n.metadata.name} is cordoned`); }\n";
    let _ = life.script(&format!("{CONNECTED}{untouched}")).expect(0);
}

/// The copy of a backup brings the cluster back onto servers that never were of it: with another cluster on them, and with
/// nothing on them while the agents lived on.
fn all_servers_are_lost(life: &Life, born: &str) {
    let saved = life
        .script(
            "let c = k3s::connect(site().hosts(\"server\"));\nlet s = site().hosts(\"server\")[0];\n\
             c.ensure_config_map(\"default/kept\", #{ a: \"1\" });\nlet name = c.snapshot_etcd(s, \"last\");\n\
             c.copy_snapshot(s, name, \"backup\");\nprint(\"SAVED \" + name);\n",
        )
        .expect(0);
    let line = messages(&saved).into_iter().find(|m| m.starts_with("SAVED ")).unwrap();
    let name = line.split(' ').nth(1).unwrap().to_owned();
    let restore = |more: &str| {
        format!(
            "let c = k3s::restore_etcd(site().hosts(\"server\"), \"{name}\", #{{ folder: \"backup\"{more} }});\n\
             require(c.find(\"configmap\", \"kept\") != (), \"what the snapshot has is there\");\n"
        )
    };
    let anew = restore(", new_servers: site().k3s");
    let _ = life.run("recipes/cleanup.rhai", &[]).expect(0);
    life.deploy();
    assert_ne!(life.ca(), born, "the deploy recipe makes another cluster where nothing of the first is left");
    life.refused(&restore(""), &["--yes"], &["another cluster", "new_servers=true"]);
    life.refused(&anew, &[], &["datastore of another cluster", "agent of another cluster"]);
    let _ = life.script(&anew).expect(0);
    assert_eq!(life.ca(), born, "the first cluster is back");
    life.deploy();
    assert_eq!(life.deploy()["changed"], 0);
    let _ = life.run("recipes/verify.rhai", &[]).expect(0);

    life.lose(&["k3s-cp1", "k3s-cp2", "k3s-cp3"]);
    let stopped = life.run("recipes/deploy.rhai", &[]);
    let error = stopped.finished()["error"].to_string();
    assert!(stopped.code == 4 && error.contains("new_servers=true"), "{}: {error}", stopped.code);
    let bare = life.script(&restore("")).finished()["error"].to_string();
    assert!(bare.contains("K3s is not installed") && bare.contains("new_servers=true"), "{bare}");
    let _ = life.script(&anew).expect(0);
    life.deploy();
    assert_eq!(life.deploy()["changed"], 0);
    assert_eq!(life.ca(), born);
}

#[test]
fn a_cluster_lives_through_upgrade_loss_and_replacement() {
    let life = Life { b: Bench::new() };
    site(&life.b, OLD);
    life.deploy();
    let born = life.ca();
    asked_before_anything(&life);

    // 1.33 -> 1.36 through every minor with load running
    let upgraded = life.script(UPGRADE_UNDER_LOAD).expect(0);
    let said = messages(&upgraded).join("\n");
    for part in ["v1.34.10+k3s1", "v1.35.7+k3s1", NEW, "goes through v1.35.7+k3s1", "rounds"] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    site(&life.b, NEW);
    let again = life.run("recipes/upgrade.rhai", &[]).expect(0);
    assert_eq!(again.finished()["changed"], 0, "a second upgrade changes nothing: {:?}", again.events());
    // The GPU operator's toolkit settings follow the K3s minor.
    let adapted = life.deploy();
    assert!(adapted["changed"].as_u64().unwrap() <= 1, "the deploy recipe finds what the upgrade left: {adapted}");
    assert_eq!(life.deploy()["changed"], 0, "and changes nothing once it has followed");

    servers_and_sessions_are_spared(&life);
    assert_eq!(life.deploy()["changed"], 0, "what was refused has changed nothing");

    // a backup, then something that is younger
    let saved = life
        .script(
            "let c = k3s::connect(site().hosts(\"server\"));\nlet s = site().hosts(\"server\")[0];\n\
             c.ensure_config_map(\"default/before\", #{ a: \"1\" });\nlet name = c.snapshot_etcd(s, \"backup\");\n\
             print(\"SAVED \" + name + \" \" + c.copy_snapshot(s, name, \"backup\"));\n\
             require(c.list_snapshots().len() >= 1, \"the cluster knows its snapshots\");\n\
             c.ensure_config_map(\"default/later\", #{ a: \"1\" });\n\
             ssh::connect(\"k3s-gpu1\").reboot_and_wait(10.minutes);\n",
        )
        .expect(0);
    let line = messages(&saved).into_iter().find(|m| m.starts_with("SAVED ")).unwrap();
    let name = line.split(' ').nth(1).unwrap().to_owned();
    assert!(life.b.path(&format!("backup/{name}.token")).exists(), "the token lies beside the copy");

    // the recipe looks before it asks: a name that is wrong is told without a question, what will happen before it
    let asked = |name: &str, folder: &str| life.run("recipes/restore.rhai", &["--set", name, "--set", folder]);
    let none = asked("snapshot=nope", "folder=").expect(1).finished()["error"].to_string();
    assert!(none.contains("there is no snapshot `nope`") && none.contains("not_found"), "{none}");
    let looked = life.script(&format!(
        "print(table(k3s::check_restore(site().hosts(\"server\"), \"{name}\", #{{ folder: \"backup\" }})));\n"
    ));
    let said = messages(&looked.expect(0)).join("\n");
    assert!(said.contains(&format!("as in {name}")) && said.contains("joins again"), "{said}");

    // a snapshot under another token, or of another cluster, stops nothing
    let token = life.b.path(&format!("backup/{name}.token"));
    let noted = std::fs::read_to_string(&token).unwrap();
    let restore = format!("k3s::restore_etcd(site().hosts(\"server\"), \"{name}\", #{{ folder: \"backup\" }});\n");
    for (wrong, word) in [("K10abc::server:x", "another cluster"), ("somebody else's", "another token")] {
        std::fs::write(&token, wrong).unwrap();
        life.refused(&restore, &["--yes"], &[word, "nothing was stopped"]);
    }
    std::fs::write(&token, noted).unwrap();

    // two servers are lost: no quorum, then a restore, then the deploy recipe makes them anew
    life.lose(&["k3s-cp2", "k3s-cp3"]);
    let restored = life
        .script(&format!(
            "let c = k3s::restore_etcd(site().hosts(\"server\"), \"{name}\", #{{ folder: \"backup\" }});\n\
             require(c.find(\"configmap\", \"before\") != (), \"what the snapshot has is there\");\n\
             require(c.find(\"configmap\", \"later\") == (), \"what came after is not\");\n\
             require(c.list_snapshots().len() > 0, \"a server notes what lies on its disk\");\n\
             sleep(1.minutes);\n\
             let boot = c.get(\"node\", \"k3s-gpu1\").status.nodeInfo.bootID;\n\
             let now = ssh::connect(\"k3s-gpu1\").read(\"cat /proc/sys/kernel/random/boot_id\").stdout;\n\
             require(now.contains(boot), \"a kubelet that runs corrects what the snapshot says of its machine\");\n"
        ))
        .expect(0);
    assert!(restored.finished()["changed"].as_u64().unwrap() > 0);
    life.deploy();
    assert_eq!(life.deploy()["changed"], 0);
    assert_eq!(life.ca(), born, "it is the same cluster");

    // a GPU worker of the same name
    life.lose(&["k3s-gpu2"]);
    let drains = life.run("recipes/replace-node.rhai", &["--set", "name=k3s-gpu2"]).finished();
    assert!(drains["error"].to_string().contains("--set lost=true") && drains["changed"] == 0, "{drains}");
    let replaced = life.run("recipes/replace-node.rhai", &["--set", "name=k3s-gpu2", "--set", "lost=true"]).expect(0);
    assert!(replaced.finished()["changed"].as_u64().unwrap() > 0);
    let deployed = life.run("recipes/deploy.rhai", &[]).expect(0);
    assert!(deployed.stdout.contains("5 nodes Ready, 4 GPUs allocatable"), "{:?}", messages(&deployed));
    assert_eq!(deployed.finished()["changed"], 0, "a new node has its GPUs and its share: {:?}", deployed.events());

    // server 1's disk is lost and made anew: it joins, it never makes a second cluster
    life.lose(&["k3s-cp1"]);
    life.deploy();
    assert_eq!(life.ca(), born, "server 1 joined the cluster that lived");
    let voters = life.script(
        "let c = k3s::connect(site().hosts(\"server\"));\nrequire(c.check_servers([\"k3s-cp1\", \"k3s-cp2\", \"k3s-cp3\"]).len() == 0, \"three voters\");\n",
    );
    let _ = voters.expect(0);
    all_servers_are_lost(&life, &born);
}
