//! The Proxmox client against the lab's API over real sockets.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use std::time::Duration;

use gpuhost_lab::spec::Spec;
use gpuhost_stdlib::proxmox::{At, EnsureVm, MappingOptions, Template, TemplateOptions};
use gpuhost_tests::bed::{Bed, SITE, off, start, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lab_grants_what_a_deploy_needs() {
    let b = Bed::new().await;
    let r = b.pve.check_permissions(&b.ctx).await.unwrap();
    assert!(r.is_ok(), "{r}");
    let r = b.pve.check_site(&b.ctx).await.unwrap();
    assert!(r.is_ok(), "{r}");
    let wrong = SITE.replace("bridge = \"vmbr0\"", "bridge = \"vmbr9\"").replace("\"local-zfs\"", "\"ghost\"");
    let b = Bed::with(&wrong).await;
    let r = b.pve.check_site(&b.ctx).await.unwrap();
    assert_eq!(r.problems.len(), 2, "{r}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapping_is_made_once_and_removed_once() {
    let b = Bed::new().await;
    let o = MappingOptions { device: "10de:20f1".to_owned(), count: 8, node: None };
    assert_eq!(b.pve.ensure_pci_mapping(&b.ctx, "gpuhost-a100", &o).await.unwrap(), 8);
    assert_eq!(b.changed(), 1);
    assert_eq!(b.pve.ensure_pci_mapping(&b.ctx, "gpuhost-a100", &o).await.unwrap(), 8);
    assert_eq!(b.changed(), 0);
    let few = MappingOptions { count: 9, ..o };
    let e = b.pve.ensure_pci_mapping(&b.ctx, "gpuhost-a100", &few).await.unwrap_err();
    assert!(e.message.contains("9 cards"), "{}", told(&e));
    assert!(b.pve.remove_pci_mapping(&b.ctx, "gpuhost-a100").await.unwrap());
    assert!(!b.pve.remove_pci_mapping(&b.ctx, "gpuhost-a100").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_machine_up_twice_and_away_again() {
    let b = Bed::new().await;
    let before = b.world();
    let t = b.template().await;
    assert!(b.changed() >= 2);
    assert_eq!(b.template().await, t);
    assert_eq!(b.changed(), 0, "a second look at the template changes nothing");
    let vm = b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    vm.wait_ready(&b.ctx, Duration::from_secs(600)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert!(b.changed() >= 1);
    b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert_eq!(b.changed(), 0, "a second look at the machine changes nothing: {:#?}", b.tape.0.lock().unwrap().last());
    assert_eq!(vm.verdict(&b.ctx).await.unwrap().ownership.as_str(), "own");
    assert_eq!(vm.ips(&b.ctx).await.unwrap()[0], "10.0.0.11");
    let host = vm.ssh(&b.ctx).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    host.wait_ssh(&b.ctx, Duration::from_secs(300)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    let done = b.remove(&vm, false).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert!(done.removed && done.kept.is_empty());
    assert!(!b.remove(&vm, false).await.unwrap().removed);
    let o = TemplateOptions::of_site(&b.site);
    assert!(b.pve.remove_template(&b.ctx, &o).await.unwrap());
    assert!(b.pve.remove_pool(&b.ctx).await.unwrap());
    assert_eq!(b.world(), before, "the world is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_machines_at_once() {
    let b = Bed::new().await;
    let t = b.template().await;
    let o = MappingOptions { device: "10de:20f1".to_owned(), count: 8, node: None };
    b.pve.ensure_pci_mapping(&b.ctx, "gpuhost-a100", &o).await.unwrap();
    b.changed();
    let nodes: Vec<_> = b.site.cluster_nodes().cloned().collect();
    for round in 0..2 {
        let work: Vec<_> = nodes
            .iter()
            .map(|n| {
                let (b, t) = (&b, &t);
                async move {
                    let vm = b.pve.ensure_vm(&b.ctx, n, &start(t)).await?;
                    vm.wait_ready(&b.ctx, Duration::from_secs(1800)).await
                }
            })
            .collect();
        for r in b.ctx.clock.join_all(work).await {
            r.unwrap_or_else(|e| panic!("{}", told(&e)));
        }
        assert_eq!(b.changed() == 0, round == 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_is_made_and_then_left_alone() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let o = MappingOptions { device: "10de:20f1".to_owned(), count: 8, node: None };
    b.pve.ensure_pci_mapping(&b.ctx, "gpuhost-a100", &o).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    for node in &b.site.nodes {
        let made = b.pve.ensure_vm(&b.ctx, node, &off(&t)).await;
        made.unwrap_or_else(|e| panic!("{}", told(&e)));
    }
    b.changed();
    for node in &b.site.nodes {
        b.pve.ensure_vm(&b.ctx, node, &off(&t)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
        assert_eq!(b.changed(), 0, "{}: {:#?}", node.name, b.tape.0.lock().unwrap().last());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_survives_its_machine_and_comes_back() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let vm = b.vm("nfs1", &off(&t)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    let done = b.remove(&vm, false).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert_eq!(done.kept.len(), 1, "{done:?}");
    assert_eq!(b.pve.kept(&b.ctx).await.unwrap(), done.kept);
    assert!(done.kept[0].contains("data of nfs1"), "{done:?}");
    // A cleanup that keeps data leaves the keeper alone.
    let keeper = b.pve.find_vm(&b.ctx, &"nfs1-data".into()).await.unwrap().unwrap();
    assert!(!b.remove(&keeper, false).await.unwrap().removed);
    let vm = b.vm("nfs1", &off(&t)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert!(b.pve.kept(&b.ctx).await.unwrap().is_empty(), "the machine has its disk again");
    assert!(b.messages().iter().any(|m| m.contains("took over the data disk")));
    b.changed();
    b.vm("nfs1", &off(&t)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert_eq!(b.changed(), 0);
    let done = b.remove(&vm, true).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert!(done.removed && done.kept.is_empty());
    assert!(b.pve.kept(&b.ctx).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_never_touched() {
    let b = Bed::new().await;
    let foreign = b.lab.with(|w| *w.pve.vms.keys().next().unwrap());
    // The site file claims the foreign VM's id.
    let claimed = SITE.replace("vmid = 201", &format!("vmid = {foreign}"));
    let b = Bed::with(&claimed).await;
    let before = b.world();
    let r = b.pve.check_site(&b.ctx).await.unwrap();
    assert!(r.problems.iter().any(|p| p.text.contains("foreign") && p.text.contains("k3s-cp1")), "{r}");
    let t = Template::new(At::new("pve1", 9000), "t");
    b.pve.ensure_pool(&b.ctx).await.unwrap();
    let e = b.vm("k3s-cp1", &start(&t)).await.unwrap_err();
    assert!(e.stop.is_some() && e.message.contains("refused"), "{}", told(&e));
    let vm = b.pve.find_vm(&b.ctx, &i64::from(foreign).into()).await.unwrap().unwrap();
    let e = b.remove(&vm, true).await.unwrap_err();
    assert!(e.stop.is_some(), "{}", told(&e));
    assert!(vm.stop(&b.ctx).await.is_err());
    b.pve.remove_pool(&b.ctx).await.unwrap();
    assert_eq!(b.world(), before);
}

/// The printed lines are enough for everything, and nothing works without them.
async fn least_privilege(version: &str) {
    let spec = Spec { pve_version: version.to_owned(), ..Spec::homelab().unwrap() };
    let b = Bed::on(SITE, spec).await;
    b.strip();
    let r = b.pve.check_permissions(&b.ctx).await.unwrap();
    assert!(r.problems.len() > 5 && !r.commands.is_empty(), "{r}");
    b.pveum(&r.commands);
    let r = b.pve.check_permissions(&b.ctx).await.unwrap();
    assert!(r.is_ok(), "{r}");
    let before = b.world();
    b.pve.check_site(&b.ctx).await.unwrap();
    let o = MappingOptions { device: "10de:20f1".to_owned(), count: 8, node: None };
    b.pve.ensure_pci_mapping(&b.ctx, "gpuhost-a100", &o).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    let t = b.template().await;
    for name in ["k3s-gpu1", "nfs1"] {
        let vm = b.vm(name, &start(&t)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
        vm.wait_ready(&b.ctx, Duration::from_secs(1800)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
        vm.ssh(&b.ctx).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    }
    for data in [false, true] {
        for vm in b.pve.owned(&b.ctx).await.unwrap() {
            let vm = b.pve.find_vm(&b.ctx, &i64::from(vm.0.at.vmid).into()).await.unwrap().unwrap();
            b.remove(&vm, data).await.unwrap_or_else(|e| panic!("{}", told(&e)));
        }
    }
    b.pve.remove_template(&b.ctx, &TemplateOptions::of_site(&b.site)).await.unwrap();
    b.pve.remove_pci_mapping(&b.ctx, "gpuhost-a100").await.unwrap_or_else(|e| panic!("{}", told(&e)));
    b.pve.remove_pool(&b.ctx).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert_eq!(b.world(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_rights_are_enough_on_9() {
    least_privilege("9.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_rights_are_enough_on_8() {
    least_privilege("8.4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_mapping_is_found_before_machines_are_made() {
    let b = Bed::new().await;
    let entry = "node=pve1,path=0000:c1:00.0,id=10de:20f1";
    b.ask("POST", "/cluster/mapping/pci", serde_json::json!({"id": "gpuhost-a100", "map": [entry]})).await;
    let r = b.pve.check_site(&b.ctx).await.unwrap();
    assert!(r.problems.iter().any(|p| p.text.contains("0000:c1:00.0")), "{r}");
    // Without the check it fails at the machine's start, with the card and what to do.
    let t = b.empty_template().await;
    let e = b.vm("k3s-gpu1", &start(&t)).await.unwrap_err();
    assert!(e.causes.iter().any(|c| c.contains("0000:c1:00.0")) && e.hint.is_some(), "{}", told(&e));
    assert_eq!(e.target, "k3s-gpu1");
    b.ask(
        "PUT",
        "/cluster/mapping/pci/gpuhost-a100",
        serde_json::json!({"map": ["node=pve1,path=0000:01:00.0,id=10de:20f1"]}),
    )
    .await;
    let o = MappingOptions { device: "10de:20f1".to_owned(), count: 8, node: None };
    b.pve.ensure_pci_mapping(&b.ctx, "gpuhost-a100", &o).await.unwrap();
    b.vm("k3s-gpu1", &start(&t)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_needs_a_restart_is_refused_until_it_is_allowed() {
    let b = Bed::new().await;
    let t = b.template().await;
    b.vm("k3s-cp1", &start(&t)).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    b.pve
        .find_vm(&b.ctx, &201.into())
        .await
        .unwrap()
        .unwrap()
        .wait_ready(&b.ctx, Duration::from_secs(900))
        .await
        .unwrap();
    let mut node = (*b.site.node("k3s-cp1").unwrap()).clone();
    node.shape.cores = Some(8);
    b.changed();
    let e = b.pve.ensure_vm(&b.ctx, &node, &start(&t)).await.unwrap_err();
    assert_eq!((e.kind.as_str(), b.changed()), ("conflict", 0), "{}", told(&e));
    assert!(e.message.contains("cores") && e.hint.unwrap().contains("restart: true"));
    let o = EnsureVm { restart: true, ..start(&t) };
    b.pve.ensure_vm(&b.ctx, &node, &o).await.unwrap_or_else(|e| panic!("{}", told(&e)));
    assert_eq!(b.changed(), 1);
    b.pve.ensure_vm(&b.ctx, &node, &start(&t)).await.unwrap();
    assert_eq!(b.changed(), 0);
    // Another address: whatever follows would wait where nobody answers.
    let mut moved = node.clone();
    moved.ip = "10.0.0.77".parse().unwrap();
    let e = b.pve.ensure_vm(&b.ctx, &moved, &start(&t)).await.unwrap_err();
    assert_eq!((e.kind.as_str(), b.changed()), ("conflict", 0), "{}", told(&e));
    assert!(e.message.contains("the site file says 10.0.0.77/") && e.hint.unwrap().contains("remove-node"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_and_moved_machines_stop_the_run() {
    let b = Bed::new().await;
    let t = b.empty_template().await;
    let vm = b.vm("k3s-cp1", &off(&t)).await.unwrap();
    let verdict = async || vm.verdict(&b.ctx).await.unwrap().ownership.as_str();
    assert_eq!(verdict().await, "own");
    // A clone made in the UI: not in the pool, not ours, not listed, not removed.
    b.ask("POST", "/nodes/pve1/qemu/201/clone", serde_json::json!({"newid": 305, "full": 1})).await;
    b.ctx.clock.sleep(Duration::from_secs(600)).await;
    let copy = b.pve.find_vm(&b.ctx, &305.into()).await.unwrap().unwrap();
    assert_eq!(copy.verdict(&b.ctx).await.unwrap().ownership.as_str(), "copy");
    assert!(b.remove(&copy, true).await.unwrap_err().stop.is_some());
    assert_eq!(b.pve.owned(&b.ctx).await.unwrap().len(), 1);
    // Renamed: found, and left alone.
    b.ask("PUT", "/nodes/pve1/qemu/201/config", serde_json::json!({"name": "cp-one"})).await;
    assert_eq!(verdict().await, "moved");
    let e = b.vm("k3s-cp1", &off(&t)).await.unwrap_err();
    assert!(e.message.contains("cp-one") && e.stop.is_some(), "{}", told(&e));
    // Notes erased: nobody's.
    b.ask("PUT", "/nodes/pve1/qemu/201/config", serde_json::json!({"name": "k3s-cp1", "description": "mine"})).await;
    assert_eq!(verdict().await, "unknown");
    // Hidden from the token: its id is taken all the same.
    b.strip();
    b.pveum(&["pveum acl modify / --tokens 'gpuhost@pve!deploy' --roles PVEPoolUser".to_owned()]);
    let e = b.vm("k3s-cp1", &off(&t)).await.unwrap_err();
    assert!(e.message.contains("cannot see") || e.message.contains("refused"), "{}", told(&e));
}
