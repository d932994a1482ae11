//! Every verb of the Proxmox module against the lab: does it, does it once, refuses what is not ours.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::time::Duration;

use gpuhost_lab::spec::{NodeSpec, Spec, StorageSpec};
use gpuhost_stdlib::proxmox::{
    FileOptions, GrantOptions, ListContent, ListTasks, MappingOptions, MoveDiskOptions, SnapshotOptions,
    TemplateOptions, TokenOptions,
};
use gpuhost_tests::bed::{Bed, SITE, off, ok, start, told};

fn read<T>(read: fn(&rhai::Map) -> gpuhost_stdlib::core::error::OpResult<T>, script: &str) -> T {
    read(&rhai::Engine::new().eval(script).unwrap()).unwrap_or_else(|e| panic!("{}", told(&e)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_snapshots_and_disks() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let vm = b.vm("nfs1", &off(&t)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    b.changed();
    vm.start(&b.ctx).await.unwrap_or_else(ok);
    vm.start(&b.ctx).await.unwrap_or_else(ok);
    assert_eq!(b.changed(), 1, "a running machine is not started");
    vm.suspend(&b.ctx).await.unwrap_or_else(ok);
    vm.suspend(&b.ctx).await.unwrap_or_else(ok);
    vm.resume(&b.ctx).await.unwrap_or_else(ok);
    vm.resume(&b.ctx).await.unwrap_or_else(ok);
    assert_eq!(b.changed(), 2);
    vm.reset(&b.ctx).await.unwrap_or_else(ok);
    vm.stop(&b.ctx).await.unwrap_or_else(ok);
    let e = vm.suspend(&b.ctx).await.unwrap_err();
    assert!(e.hint.unwrap().contains("vm.start()"));

    b.changed();
    let o = read(SnapshotOptions::read, "#{ description: \"clean\" }");
    vm.ensure_snapshot(&b.ctx, "s1", &o).await.unwrap_or_else(ok);
    vm.ensure_snapshot(&b.ctx, "s1", &o).await.unwrap_or_else(ok);
    assert_eq!((b.changed(), vm.snapshots(&b.ctx).await.unwrap().len()), (1, 1));
    vm.rollback(&b.ctx, "s1").await.unwrap_or_else(ok);
    let e = vm.rollback(&b.ctx, "s2").await.unwrap_err();
    assert!(e.kind.as_str() == "not_found" && e.hint.unwrap().contains("s1"));
    assert!(vm.remove_snapshot(&b.ctx, "s1").await.unwrap_or_else(ok));
    assert!(!vm.remove_snapshot(&b.ctx, "s1").await.unwrap_or_else(ok));

    b.changed();
    let o = read(MoveDiskOptions::read, "#{}");
    // `local` takes no images: refused in Proxmox's words.
    if let Err(e) = vm.move_disk(&b.ctx, "scsi0", "local", &o).await {
        assert!(told(&e).contains("local"), "{}", told(&e));
    }
    let e = vm.move_disk(&b.ctx, "scsi9", "local-zfs", &o).await.unwrap_err();
    assert!(e.kind.as_str() == "not_found" && e.hint.unwrap().contains("scsi0"));
    vm.move_disk(&b.ctx, "scsi2", "local-zfs", &o).await.unwrap_or_else(ok);
    assert_eq!(b.changed(), 0, "it is there already");
    let e = vm.convert_to_template(&b.ctx).await.unwrap_err();
    assert!(e.stop.is_some(), "a node of the site stays a machine: {}", told(&e));

    // A server's etcd must not go back in time.
    let server = b.vm("k3s-cp1", &off(&t)).await.unwrap_or_else(ok);
    let e = server.rollback(&b.ctx, "s1").await.unwrap_err();
    assert!(e.stop.is_some() && e.message.contains("etcd"), "{}", told(&e));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_storages_tasks_and_reports() {
    let b = Bed::new().await;
    let node = b.pve.pve_node(&b.ctx, "pve1").await.unwrap_or_else(ok);
    assert!(node.cpus > 0 && node.memory.0 > 0 && node.iommu == Some(true) && node.status == "online", "{node:?}");
    let e = b.pve.pve_node(&b.ctx, "ghost").await.unwrap_err();
    assert!(e.hint.unwrap().contains("pve1"));
    let storage = b.pve.storage(&b.ctx, "pve1", "local").await.unwrap_or_else(ok);
    assert!(storage.is_active() && storage.content().contains(&"iso".to_owned()) && storage.space().2.0 > 0);
    let e = b.pve.storage(&b.ctx, "pve1", "ghost").await.unwrap_err();
    assert!(e.hint.unwrap().contains("local-zfs"));

    std::fs::write(b.ctx.base_dir.join("seed.iso"), b"not really an image").unwrap();
    let o = read(FileOptions::read, "#{}");
    b.changed();
    let volid = storage.upload(&b.ctx, "seed.iso", &o).await.unwrap_or_else(ok);
    assert_eq!((volid.as_str(), b.changed()), ("local:iso/gpuhost-homelab-seed.iso", 1));
    storage.upload(&b.ctx, "seed.iso", &o).await.unwrap_or_else(ok);
    assert_eq!(b.changed(), 0);
    std::fs::write(b.ctx.base_dir.join("seed.iso"), b"another one").unwrap();
    assert_eq!(storage.upload(&b.ctx, "seed.iso", &o).await.unwrap_err().kind.as_str(), "conflict");
    let image = b.site.template.image_url.clone().unwrap();
    let o = read(FileOptions::read, "#{ content: \"import\", name: \"gpuhost-homelab-x.qcow2\" }");
    for n in [1, 0] {
        storage.download_url(&b.ctx, &image, &o).await.unwrap_or_else(ok);
        assert_eq!(b.changed(), n);
    }
    let all = storage.list_content(&b.ctx, &read(ListContent::read, "#{ content: \"iso\" }")).await.unwrap_or_else(ok);
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    assert_eq!(b.pve.remove_content(&b.ctx).await.unwrap_or_else(ok), 2);

    let tasks = b.pve.tasks(&b.ctx, &read(ListTasks::read, "#{ kind: \"download\" }")).await.unwrap_or_else(ok);
    assert_eq!((tasks.len(), tasks[0].status()), (1, "OK"));
    assert!(tasks[0].log(&b.ctx).await.unwrap_or_else(ok).iter().any(|l| l.contains("TASK OK")));
    assert!(tasks[0].wait(&b.ctx, Duration::from_secs(5)).await.unwrap_or_else(ok).is_empty());

    let r = b.pve.iommu_report(&b.ctx, "pve1").await.unwrap_or_else(ok);
    assert!(r.is_ok() && r.passed.len() >= 8, "{r}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_card_is_promised_twice() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    // No mapping: refused before a machine is made.
    let e = b.vm("k3s-gpu1", &off(&t)).await.unwrap_err();
    assert!(e.kind.as_str() == "not_found" && e.hint.unwrap().contains("ensure_pci_mapping"));
    assert!(b.lab.with(|w| !w.pve.vms.contains_key(&211)), "nothing was made");
    // Too few cards for all machines of the site.
    let entries = ["node=pve1,path=0000:01:00.0,id=10de:20f1", "node=pve1,path=0000:02:00.0,id=10de:20f1"];
    b.ask("POST", "/cluster/mapping/pci", serde_json::json!({"id": "gpuhost-a100", "map": entries})).await;
    let e = b.vm("k3s-gpu1", &off(&t)).await.unwrap_err();
    assert!(e.message.contains("2 cards") && e.message.contains("want 8"), "{}", told(&e));
    let o = MappingOptions { device: "10de:20f1".to_owned(), count: 8, node: None };
    b.pve.ensure_pci_mapping(&b.ctx, "gpuhost-a100", &o).await.unwrap_or_else(ok);
    for n in ["k3s-gpu1", "k3s-gpu2"] {
        b.vm(n, &start(&t)).await.unwrap_or_else(ok);
    }
    let r = b.pve.iommu_report(&b.ctx, "pve1").await.unwrap_or_else(ok);
    assert!(r.passed.iter().any(|p| p.contains("4 of 8 cards")), "{r}");
    // The mapping shrinks behind our back: the report names who was promised what.
    let few = serde_json::json!({"map": entries});
    b.ask("PUT", "/cluster/mapping/pci/gpuhost-a100", few).await;
    let r = b.pve.iommu_report(&b.ctx, "pve1").await.unwrap_or_else(ok);
    assert!(r.problems.iter().any(|p| p.text.contains("4 are promised") && p.text.contains("k3s-gpu1")), "{r}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_sets_up_roles_tokens_and_grants_once() {
    for version in ["9.1", "8.4"] {
        let b = Bed::on(SITE, Spec { pve_version: version.to_owned(), ..Spec::homelab().unwrap() }).await;
        b.pveum(&[
            "pveum acl modify / --tokens 'gpuhost@pve!deploy' --roles Administrator".to_owned(),
            "pveum acl modify / --users gpuhost@pve --roles Administrator".to_owned(),
        ]);
        b.changed();
        let privileges = ["VM.Audit".to_owned(), "VM.GuestAgent.Unrestricted".to_owned()];
        for n in [1, 0] {
            b.pve.ensure_role(&b.ctx, "Looker", &privileges).await.unwrap_or_else(ok);
            assert_eq!(b.changed(), n, "{version}");
        }
        b.pve.ensure_role(&b.ctx, "Looker", &["Datastore.Audit".to_owned()]).await.unwrap_or_else(ok);
        let have = b.lab.with(|w| w.pve.access.roles["Looker"].clone());
        assert!(have.contains("VM.Audit") && have.contains("Datastore.Audit"), "nothing is taken away: {have:?}");
        let e = b.pve.ensure_role(&b.ctx, "Looker", &["VM.Nonsense".to_owned()]).await.unwrap_err();
        assert!(e.kind.as_str() == "invalid" && told(&e).contains("VM.Nonsense"), "{}", told(&e));

        b.changed();
        let o = read(TokenOptions::read, "#{ keep_as: \"second_token\" }");
        for n in [1, 0] {
            let reference = b.pve.ensure_token(&b.ctx, "gpuhost@pve!second", &o).await.unwrap_or_else(ok);
            assert_eq!((reference.as_str(), b.changed()), ("state:second_token", n));
        }
        let kept = std::fs::read_to_string(b.ctx.state_file("second_token")).unwrap();
        assert_eq!(Some(kept), b.lab.with(|w| w.token_secret("gpuhost@pve!second")));
        // Nobody has its secret any more: made anew where it is this site's, left alone where it is not.
        std::fs::remove_file(b.ctx.state_file("second_token")).unwrap();
        b.changed();
        b.pve.ensure_token(&b.ctx, "gpuhost@pve!second", &o).await.unwrap_or_else(ok);
        let kept = std::fs::read_to_string(b.ctx.state_file("second_token")).unwrap();
        assert_eq!((Some(kept), b.changed()), (b.lab.with(|w| w.token_secret("gpuhost@pve!second")), 1));
        let theirs = read(TokenOptions::read, "#{ keep_as: \"third_token\", comment: \"somebody else's\" }");
        b.pve.ensure_token(&b.ctx, "gpuhost@pve!third", &theirs).await.unwrap_or_else(ok);
        std::fs::remove_file(b.ctx.state_file("third_token")).unwrap();
        let e = b.pve.ensure_token(&b.ctx, "gpuhost@pve!third", &theirs).await.unwrap_err();
        assert_eq!(e.kind.as_str(), "conflict", "{}", told(&e));
        let o = read(GrantOptions::read, "#{ role: \"Looker\", token: \"gpuhost@pve!second\" }");
        b.changed();
        for n in [1, 0] {
            b.pve.ensure_grant(&b.ctx, "/storage/local", &o).await.unwrap_or_else(ok);
            assert_eq!(b.changed(), n);
        }
        assert!(b.pve.remove_token(&b.ctx, "gpuhost@pve!second").await.unwrap_or_else(ok));
        assert!(!b.pve.remove_token(&b.ctx, "gpuhost@pve!second").await.unwrap_or_else(ok));
        let e = b.pve.remove_token(&b.ctx, "gpuhost@pve!deploy").await.unwrap_err();
        assert!(e.stop.is_some(), "not made by this site: {}", told(&e));
    }
}

fn two_nodes(shared: bool) -> Spec {
    let mut spec = Spec::homelab().unwrap();
    spec.nodes.push(NodeSpec { name: "pve2".to_owned(), pci: Vec::new(), ..spec.nodes[0].clone() });
    if shared {
        spec.storages.push(StorageSpec {
            id: "tank".to_owned(),
            kind: "nfs".to_owned(),
            content: "images".to_owned(),
            size_gib: 20_000,
            shared: true,
        });
    }
    spec
}

/// Servers on two hypervisor nodes: made, left alone, taken away.
async fn on_two_nodes(site: &str, shared: bool, templates: usize) {
    let b = Bed::on(site, two_nodes(shared)).await;
    // The operator's rights reach the second node as well.
    b.pveum(&[
        "pveum acl modify / --tokens 'gpuhost@pve!deploy' --roles Administrator".to_owned(),
        "pveum acl modify / --users gpuhost@pve --roles Administrator".to_owned(),
    ]);
    let r = b.pve.check_site(&b.ctx).await.unwrap_or_else(ok);
    assert!(r.is_ok(), "{r}");
    let before = b.world();
    let t = b.template().await;
    let made = b.lab.with(|w| w.pve.vms.values().filter(|v| v.conf.contains_key("template")).count());
    assert_eq!((made, t.copies.len()), (templates, templates - 1));
    b.changed();
    assert_eq!(b.template().await, t);
    assert_eq!(b.changed(), 0);
    for round in 0..2 {
        for name in ["k3s-cp1", "k3s-cp2"] {
            let vm = b.vm(name, &start(&t)).await.unwrap_or_else(ok);
            vm.wait_ready(&b.ctx, Duration::from_secs(900)).await.unwrap_or_else(ok);
            assert_eq!(vm.pve_node(), if name == "k3s-cp2" { "pve2" } else { "pve1" });
        }
        assert_eq!(b.changed() == 0, round == 1);
    }
    for (m, _) in b.pve.owned(&b.ctx).await.unwrap() {
        let vm = b.pve.find_vm(&b.ctx, &i64::from(m.at.vmid).into()).await.unwrap_or_else(ok).unwrap();
        if !vm.is_template() {
            b.remove(&vm, true).await.unwrap_or_else(ok);
        }
    }
    assert!(b.pve.remove_template(&b.ctx, &TemplateOptions::of_site(&b.site)).await.unwrap_or_else(ok));
    b.pve.remove_pool(&b.ctx).await.unwrap_or_else(ok);
    assert_eq!(b.world(), before);
}

fn spread(storage: &str, full: bool) -> String {
    let full = format!("full_clone = {full}\ncores =");
    let site = SITE.replace("vmid = 202\n", "vmid = 202\npve_node = \"pve2\"\n").replacen("cores =", &full, 1);
    assert!(site.contains("pve_node = \"pve2\""));
    site.replace("storage = \"local-zfs\"", &format!("storage = \"{storage}\""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_storage_has_a_template_on_each_node() {
    on_two_nodes(&spread("local-zfs", true), false, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linked_clones_on_each_node() {
    on_two_nodes(&spread("local-zfs", false), false, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_storage_has_one_template_for_all_nodes() {
    on_two_nodes(&spread("tank", true), true, 1).await;
}
