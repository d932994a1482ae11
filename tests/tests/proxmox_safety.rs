//! Safety rules 1 to 5 and 9 on the lab, each as a test. Rules 2 and 3 also have a table beside the rule itself
//! (stdlib/src/wire/pve/marker_tests.rs); rule 20, the attack on a foreign VM, is in proxmox_rights.rs.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gpuhost_lab::spec::{NodeSpec, Spec};
use gpuhost_stdlib::core::ctx::Ctx;
use gpuhost_stdlib::core::error::OpError;
use gpuhost_stdlib::core::event::Event;
use gpuhost_stdlib::proxmox::{FileOptions, MappingOptions, Proxmox, RemoveVm, TemplateOptions};
use gpuhost_stdlib::site;
use gpuhost_tests::bed::{Bed, SITE, off, ok, told};
use gpuhost_tests::client::Free;
use serde_json::json;

const UUID: &str = "5f0c8a52-3f5e-4f0b-9d53-6c1f0f1c7a10";

/// Another site's run on the same hypervisor, with the same token.
async fn other_site(b: &Bed, text: &str) -> (Ctx, Proxmox) {
    let (token, ca) = b.lab.with(|w| (w.token_secret("gpuhost@pve!deploy").unwrap(), w.pve.ca.cert.clone()));
    let secrets = BTreeMap::from([("proxmox_token".to_owned(), token), ("proxmox_ca".to_owned(), ca)]);
    let site = site::load(Path::new("site.toml"), text).unwrap_or_else(|f| panic!("{f:#?}"));
    let ctx = b.other_run(site, secrets, Arc::new(Free(None)));
    let pve = Proxmox::connect_site(&ctx).await.unwrap_or_else(ok);
    (ctx, pve)
}

async fn upload(ctx: &Ctx, pve: &Proxmox, name: &str) {
    std::fs::write(ctx.base_dir.join(name), b"an image").unwrap();
    let storage = pve.storage(ctx, "pve1", "local").await.unwrap_or_else(ok);
    storage.upload(ctx, name, &FileOptions::read(&rhai::Map::new()).unwrap()).await.unwrap_or_else(ok);
}

fn refused<T>(what: &str, done: Result<T, OpError>) {
    let Err(e) = done else { panic!("{what} went through") };
    assert!(e.stop.is_some(), "{what}: {}", told(&e));
}

fn everything() -> [String; 2] {
    [
        "pveum acl modify / --tokens 'gpuhost@pve!deploy' --roles Administrator".to_owned(),
        "pveum acl modify / --users gpuhost@pve --roles Administrator".to_owned(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_1_two_sites_of_one_name_never_own_each_others_objects() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    upload(&b.ctx, &b.pve, "seed.iso").await;
    let before = b.world();
    let (ctx, pve) = other_site(&b, &SITE.replace(UUID, "00000000-1111-4222-8333-444444444444")).await;
    refused("the pool", pve.ensure_pool(&ctx).await);
    let node = ctx.site().unwrap().node("k3s-cp1").unwrap();
    refused("a change", pve.ensure_vm(&ctx, &node, &off(&t)).await);
    let vm = pve.find_vm(&ctx, &201.into()).await.unwrap_or_else(ok).unwrap();
    assert_eq!(vm.verdict(&ctx).await.unwrap_or_else(ok).ownership.as_str(), "foreign");
    refused("a start", vm.start(&ctx).await);
    refused("a removal", vm.remove(&ctx, &RemoveVm { delete_data: true }).await);
    refused("the files", pve.remove_content(&ctx).await);
    refused("the pool's removal", pve.remove_pool(&ctx).await);
    assert!(pve.owned(&ctx).await.unwrap_or_else(ok).is_empty());
    assert_eq!(b.world(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_1_files_of_a_site_with_a_longer_name_stay() {
    let b = Bed::new().await;
    b.pve.ensure_pool(&b.ctx).await.unwrap_or_else(ok);
    upload(&b.ctx, &b.pve, "one.iso").await;
    let text = SITE.replace(UUID, "00000000-1111-4222-8333-444444444444");
    let (ctx, pve) = other_site(&b, &text.replace("name = \"homelab\"", "name = \"homelab-two\"")).await;
    pve.ensure_pool(&ctx).await.unwrap_or_else(ok);
    upload(&ctx, &pve, "two.iso").await;
    assert_eq!(b.pve.remove_content(&b.ctx).await.unwrap_or_else(ok), 1);
    let left = b.lab.with(|w| w.pve.files.keys().filter(|f| f.contains("gpuhost-")).cloned().collect::<Vec<_>>());
    assert_eq!(left, ["local:iso/gpuhost-homelab-two-two.iso"]);
}

#[test]
fn rule_1_a_site_is_not_called_like_a_lock() {
    let found =
        site::load(Path::new("site.toml"), &SITE.replace("name = \"homelab\"", "name = \"a-lock-1\"")).unwrap_err();
    assert!(found.iter().any(|f| f.message.contains("-lock-")), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_3_the_marker_is_complete_and_the_users_notes_stay_around_it() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    let (notes, smbios) = b.lab.with(|w| {
        let c = &w.pve.vms[&201].conf;
        (c["description"].clone(), c["smbios1"].clone())
    });
    let uuid = smbios.split("uuid=").nth(1).unwrap().split(',').next().unwrap();
    for part in [UUID, "k3s-cp1", "\"vmid\":201", uuid] {
        assert!(notes.contains(part), "{part} in {notes}");
    }
    assert_eq!(b.lab.with(|w| w.pve.vms[&201].conf["tags"].clone()), "gpuhost;server", "not those of its template");
    let edited = format!("rack 4, ask Ada first\n\n{notes}\n\nlast seen well");
    b.ask("PUT", "/nodes/pve1/qemu/201/config", json!({ "description": edited, "tags": "mine" })).await;
    b.changed();
    b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    let now = b.lab.with(|w| w.pve.vms[&201].conf.clone());
    assert_eq!(now["description"], edited);
    assert_eq!(now["tags"], "gpuhost;mine;server", "ours are back, the user's own stay");
    // A marker without its VM proves nothing: tags and name are as before, the notes are gone.
    b.ask("PUT", "/nodes/pve1/qemu/201/config", json!({ "description": "gpuhost" })).await;
    refused("a change without a marker", b.vm("k3s-cp1", &off(&t)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_4_absence_is_not_believed_while_a_node_is_silent() {
    let mut spec = Spec::homelab().unwrap();
    spec.nodes.push(NodeSpec { name: "pve2".to_owned(), pci: Vec::new(), ..spec.nodes[0].clone() });
    let b = Bed::on(SITE, spec).await;
    let t = b.empty_template().await;
    b.lab.with(|w| w.pve.offline.insert("pve2".to_owned()));
    let before = b.world();
    let e = b.vm("k3s-cp1", &off(&t)).await.unwrap_err();
    assert!(e.kind.as_str() == "unreachable" && told(&e).contains("pve2"), "{}", told(&e));
    assert_eq!(b.world(), before);
    b.lab.with(|w| w.pve.offline.clear());
    b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    // Its namesake under another id: nothing is made, and the declared id is never replaced by the next one.
    b.ask("POST", "/nodes/pve1/qemu", json!({ "vmid": 305, "name": "k3s-cp2", "memory": 512, "pool": b.site.pool() }))
        .await;
    let e = b.vm("k3s-cp2", &off(&t)).await.unwrap_err();
    assert!(e.stop.is_some() && e.message.contains("305") && e.message.contains("202"), "{}", told(&e));
    assert!(b.lab.with(|w| !w.pve.vms.contains_key(&202)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_4_a_clone_that_somebody_else_makes_at_our_id_is_waited_for_and_then_left_alone() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let body = json!({ "newid": 201, "name": "handmade", "full": 1 });
    let r = gpuhost_stdlib::proxmox::Request {
        method: "POST".parse().unwrap(),
        path: "/nodes/pve1/qemu/9100/clone".to_owned(),
        query: Vec::new(),
        body: body.as_object().cloned(),
    };
    b.pve.send(&b.ctx, &r).await.unwrap();
    b.ctx.clock.sleep(std::time::Duration::from_millis(500)).await;
    let born = b.lab.with(|w| w.pve.vms[&201].conf.clone());
    assert_eq!(born.get("lock").map(String::as_str), Some("clone"));
    assert!(!born.contains_key("name"), "a clone begins as an almost empty config: {born:?}");
    refused("a change", b.vm("k3s-cp1", &off(&t)).await);
    let now = b.lab.with(|w| w.pve.vms[&201].conf.clone());
    assert_eq!((now["name"].as_str(), now.get("lock")), ("handmade", None), "it was waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_5_shared_objects_are_changed_additively() {
    let b = Bed::with(&SITE.replacen("cores =", "full_clone = false\ncores =", 1)).await;
    let storages = b.world()["storages"].clone();
    let old = "node=pve1,path=0000:01:00.0,id=10de:20f1,iommugroup=20";
    b.ask("POST", "/cluster/mapping/pci", json!({ "id": "gpuhost-a100", "map": [old], "description": "by hand" }))
        .await;
    let o = MappingOptions { device: "10de:20f1".to_owned(), count: 8, node: None };
    b.pve.ensure_pci_mapping(&b.ctx, "gpuhost-a100", &o).await.unwrap_or_else(ok);
    let m = b.lab.with(|w| w.pve.mappings["gpuhost-a100"].clone());
    assert!(m.map.len() == 8 && m.map.iter().any(|e| e == old), "{:?}", m.map);
    assert_eq!(m.description.as_deref(), Some("by hand"));
    // A template stays while something was cloned from it as linked.
    let t = b.template().await;
    b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    let e = b.pve.remove_template(&b.ctx, &TemplateOptions::of_site(&b.site)).await.unwrap_err();
    assert!(told(&e).contains("linked clones"), "{}", told(&e));
    assert!(b.lab.with(|w| w.pve.vms.contains_key(&b.site.template.vmid)));
    assert_eq!(b.world()["storages"], storages, "content types of storages are never changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_9_a_removal_takes_what_the_config_lists_and_nothing_else() {
    let b = Bed::new().await;
    b.pveum(&everything());
    let t = b.empty_template().await;
    let vm = b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    // A volume that carries its number but is in no config, one that was detached, jobs of others.
    let stray = json!({ "vmid": 201, "filename": "vm-201-disk-77", "size": "1G" });
    b.ask("POST", "/nodes/pve1/storage/local-zfs/content", stray).await;
    b.ask("POST", "/nodes/pve1/qemu/201/config", json!({ "scsi7": "local-zfs:1", "protection": 0 })).await;
    b.ask("PUT", "/nodes/pve1/qemu/201/config", json!({ "delete": "scsi7", "protection": 1 })).await;
    b.ask(
        "POST",
        "/cluster/backup",
        json!({ "id": "nightly", "vmid": "100,201", "schedule": "02:00", "storage": "local" }),
    )
    .await;
    b.ask("POST", "/cluster/ha/resources", json!({ "sid": "vm:100", "state": "started" })).await;
    let detached = b.lab.with(|w| w.pve.vms[&201].conf["unused0"].clone());
    b.tape.0.lock().unwrap().clear();
    assert!(b.remove(&vm, false).await.unwrap_or_else(ok).removed);
    let shown = b.tape.0.lock().unwrap().iter().any(|e| match e {
        Event::Intent { .. } => serde_json::to_string(e).unwrap().contains(&detached),
        _ => false,
    });
    assert!(shown, "{detached} is named before it goes");
    b.lab.with(|w| {
        assert!(w.volumes.contains_key("local-zfs:vm-201-disk-77"), "a volume in nobody's config stays");
        assert!(!w.volumes.contains_key(&detached));
        let jobs = w.pve.table("backup");
        assert_eq!(jobs["nightly"]["vmid"], "100", "the job goes on for the other machine: {jobs:?}");
        assert!(w.pve.table("ha/resources").contains_key("vm:100"));
    });
}
