//! Safety rules 12, 14, 15 and 19 as a user meets them: a lone server's disk is lost, names and ids of nodes change in the
//! site file, what cloud-init applies changes, the token's file is lost, a Secret is written. One small deployed lab, a copy for each case.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use gpuhost_tests::Ran;
use gpuhost_tests::play::{self, Play};

const DEPLOY: &str = "recipes/deploy.rhai";

/// A run that ends with `code`, says these words, and changed nothing.
fn refused(ran: &Ran, code: i32, words: &[&str]) {
    let end = ran.finished();
    let error = end["error"].to_string();
    assert_eq!(ran.code, code, "{error}\n{}", ran.stderr);
    assert!(words.iter().all(|w| error.contains(w)), "{words:?} in {error}");
    assert_eq!(end["changed"], 0, "{end:#}");
}

/// A file of the lab's own state directory.
fn state(p: &Play, name: &str) -> PathBuf {
    let labs = std::fs::read_dir(p.b.path("state/lab")).unwrap().flatten();
    labs.map(|e| e.path().join("state").join(name)).find(|f| f.exists()).unwrap()
}

/// Rule 12: no server remembers the cluster, but its agents do.
fn a_lone_servers_lost_disk_makes_no_second_cluster(base: &Play) {
    let p = base.copy();
    let gone = "let pve = proxmox::connect(site().proxmox);\n\
        for vm in pve.list_owned() { if vm.name == \"brain\" { pve.remove_vm(vm, #{ delete_data: false }); } }\n";
    let _ = p.json(gone, &["--yes"]).expect(0);
    let ran = p.recipe(DEPLOY, &[]);
    let error = ran.finished()["error"].to_string();
    assert_eq!(ran.code, 4, "{error}\n{}", ran.stderr);
    for word in ["agents belong to one", "muscle-a, muscle-b", "restore.rhai"] {
        assert!(error.contains(word), "{word} in {error}");
    }
    let events = ran.events();
    let wrote = events.iter().filter(|e| e["event"] == "intent").any(|e| e["op"] == "k3s.ensure_server");
    assert!(!wrote, "K3s was not touched");
    // Begun anew on purpose: the agents are let go first.
    let let_go = "for h in site().hosts(\"agent\") { k3s::uninstall(h); }\n";
    let _ = p.json(let_go, &["--yes"]).expect(0);
    let _ = p.recipe(DEPLOY, &[]).expect(0);
    assert_eq!(p.recipe(DEPLOY, &[]).expect(0).finished()["changed"], 0);
}

/// Rule 12: nobody remembers the cluster but the hypervisor.
fn a_cluster_of_which_only_the_pool_tells_is_not_made_twice(base: &Play) {
    let p = base.copy();
    let pools = p.hypervisor()["pools"].to_string();
    for word in ["cluster=ca=", ";token=", ";pods=10.42.0.0/16;services=10.43.0.0/16;cis=off"] {
        assert!(pools.contains(word), "{word} in {pools}");
    }
    let lost = "for h in site().hosts(\"server\") + site().hosts(\"agent\") {\n\
        h.run(\"systemctl stop k3s k3s-agent; rm -rf /var/lib/rancher /etc/rancher; true\");\n}\n";
    let _ = p.json(lost, &["--yes"]).expect(0);
    let ran = p.recipe(DEPLOY, &[]);
    let error = ran.finished()["error"].to_string();
    assert_eq!(ran.code, 4, "{error}\n{}", ran.stderr);
    for word in ["this site had one", "token of fingerprint", "restore.rhai", "cleanup.rhai"] {
        assert!(error.contains(word), "{word} in {error}");
    }
    assert!(
        !ran.events().iter().any(|e| e["event"] == "intent" && e["op"] == "k3s.ensure_server"),
        "K3s was not touched"
    );
    // Taken down with its data kept, it may begin anew.
    let _ = p.recipe("recipes/cleanup.rhai", &["--yes"]).expect(0);
    assert!(!p.hypervisor()["pools"].to_string().contains("cluster=ca="), "{}", p.hypervisor()["pools"]);
    let _ = p.recipe(DEPLOY, &[]).expect(0);
}

/// Rule 12: what was fixed at the birth is held against the site file even where no server says it any more.
fn what_was_fixed_at_birth_does_not_change(base: &Play) {
    let mut p = base.copy();
    p.change_site(&[("cis = false", "cis = true")]);
    refused(&p.recipe(DEPLOY, &[]), 4, &["fixed at the cluster's birth"]);
}

/// Rule 14: names and ids of nodes that exist do not change in place.
fn names_and_ids_do_not_change_in_place(base: &Play) {
    let mut p = base.copy();
    p.change_site(&[("name = \"muscle-b\"", "name = \"muscle-z\"")]);
    let make = |name: &str| format!("proxmox::connect(site().proxmox).ensure_vm(site().get_node(\"{name}\"));\n");
    refused(&p.recipe(DEPLOY, &[]), 1, &["muscle-b", "503", "do not change"]);
    refused(&p.json(&make("muscle-z"), &[]), 4, &["muscle-b", "503"]);
    p.change_site(&[("vmid = 503", "vmid = 513")]);
    refused(&p.recipe(DEPLOY, &[]), 4, &["muscle-b", "503", "513", "do not change"]);
    refused(&p.json(&make("muscle-b"), &[]), 4, &["muscle-b", "503", "513", "do not change"]);
}

/// Rule 14: what cloud-init applies at the next boot is said.
fn a_new_instance_id_is_said(base: &Play) {
    let mut p = base.copy();
    p.change_site(&[("\"9.9.9.9\"", "\"1.1.1.1\"")]);
    let said = p.recipe(DEPLOY, &[]).expect(0).said("warn");
    for node in ["brain", "muscle-a", "muscle-b", "shelf"] {
        let told = |m: &&String| m.starts_with(&format!("{node}: nameserver")) && m.contains("cloud-init runs again");
        assert!(said.iter().any(|m| told(&m) && m.contains("host keys may change")), "{node}: {said:#?}");
    }
}

/// Rule 15: made once, kept as a private file, read back from the cluster, and named as the snapshots' key.
fn the_token_is_made_once(base: &Play) {
    let p = base.copy();
    let file = state(&p, "attic_token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).unwrap();
    assert!(token.trim().len() >= 32, "a token that is worth its name");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(p.recipe(DEPLOY, &[]).expect(0).finished()["changed"], 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), token.trim(), "the cluster's own, not a new one");
    // Another one is refused before any write.
    std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
    refused(&p.recipe(DEPLOY, &[]), 4, &["another token", "snapshots need it"]);
    std::fs::write(&file, &token).unwrap();
    let backup = std::fs::read_to_string(gpuhost_tests::root().join("recipes/backup.rhai")).unwrap();
    let said = p.json(&backup, &["--yes"]).expect(0);
    assert!(said.said("print").iter().any(|m| m.contains("the token beside it is its key")), "{}", said.stdout);
    assert!(!said.stdout.contains(token.trim()), "the token is not printed");
}

/// Rule 19: what is a secret by its type stays out of events, journals and plans, though nobody has named it as one.
fn values_of_secrets_stay_out(base: &Play) {
    let p = base.copy();
    let word = "correct-horse-battery-staple";
    let text = |word: &str| {
        format!("k3s::connect(site().hosts(\"server\")).ensure_secret(\"default/login\", #{{ word: \"{word}\" }});\n")
    };
    let file = p.file("login.rhai", &text(word));
    let plan = p.b.run(&["plan", &file, "--lab", "--json", "--site", p.site()]).expect(10);
    let ran = p.recipe(&file, &[]).expect(0);
    assert!(ran.finished()["changed"].as_u64() > Some(0), "{}", ran.stdout);
    let file = p.file("login.rhai", &text("another-word-of-that-length"));
    let changed = p.recipe(&file, &[]).expect(0);
    let mut all = [plan.stdout, ran.stdout, changed.stdout].concat();
    for journal in std::fs::read_dir(p.b.path("state/runs")).unwrap().flatten() {
        all += &std::fs::read_to_string(journal.path()).unwrap();
    }
    assert!(all.contains("kubernetes.apply") && all.contains("login"), "they tell of it");
    for coded in [word, "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ", "another-word-of", "YW5vdGhlci13b3Jk"] {
        assert!(!all.contains(coded), "`{coded}` was written");
    }
}

#[test]
fn what_a_deploy_must_not_do_in_place() {
    let base = Play::deployed();
    play::all(&[
        ("a lone server's lost disk", &|| a_lone_servers_lost_disk_makes_no_second_cluster(&base)),
        ("a cluster that only the pool tells of", &|| a_cluster_of_which_only_the_pool_tells_is_not_made_twice(&base)),
        ("what was fixed at birth", &|| what_was_fixed_at_birth_does_not_change(&base)),
        ("names and ids", &|| names_and_ids_do_not_change_in_place(&base)),
        ("a new instance-id", &|| a_new_instance_id_is_said(&base)),
        ("the token", &|| the_token_is_made_once(&base)),
        ("values of secrets", &|| values_of_secrets_stay_out(&base)),
    ]);
}
