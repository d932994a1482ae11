//! Snapshots, moves, backups, restores and migrations as recipes do them, on the lab.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // a test stops at the first surprise
use gpuhost_lab::spec::{NodeSpec, Spec, StorageSpec};
use gpuhost_tests::bed::{Bed, SITE, off, ok, told as told_of};
use serde_json::json;

/// Two hypervisor nodes, local disks, an NFS store that both see.
fn spec() -> Spec {
    let mut spec = Spec::homelab().unwrap();
    spec.nodes.push(NodeSpec { name: "pve2".to_owned(), pci: Vec::new(), ..spec.nodes[0].clone() });
    spec.storages.push(StorageSpec {
        id: "nas".to_owned(),
        kind: "nfs".to_owned(),
        content: "images,backup".to_owned(),
        size_gib: 20_000,
        shared: true,
    });
    spec
}

/// A bed with the machine `name`, off, and a token that may do everything.
async fn bed(name: &str) -> Bed {
    let b = Bed::on(SITE, spec()).await;
    b.pveum(&[
        "pveum acl modify / --tokens 'gpuhost@pve!deploy' --roles Administrator".to_owned(),
        "pveum acl modify / --users gpuhost@pve --roles Administrator".to_owned(),
    ]);
    let t = b.empty_template().await;
    b.vm(name, &off(&t)).await.unwrap_or_else(ok);
    // Lists show a new machine's name only after ten seconds.
    b.ctx.clock.sleep(std::time::Duration::from_secs(30)).await;
    b.changed();
    b
}

fn conf(b: &Bed, vmid: u32, key: &str) -> String {
    b.lab.with(|w| w.pve.vms[&vmid].conf.get(key).cloned().unwrap_or_default())
}

const HEAD: &str = "let pve = proxmox::connect(site().proxmox);\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_come_and_go() {
    let b = bed("nfs1").await;
    let id = b.site.node("nfs1").unwrap().vmid;
    let names = b
        .script(&format!(
            r#"{HEAD}
            let vm = pve.get_vm("nfs1");
            for n in 0..2 {{ vm.ensure_snapshot("clean", #{{ description: "as made" }}); }}
            vm.ensure_snapshot("later");
            vm.list_snapshots().map(|s| s.name)"#
        ))
        .await;
    let names: Vec<String> = names.into_typed_array().unwrap();
    assert_eq!((names, b.changed()), (vec!["clean".to_owned(), "later".to_owned()], 2));
    let cores = conf(&b, id, "cores");
    b.ask("PUT", &format!("/nodes/pve1/qemu/{id}/config"), json!({ "cores": 63 })).await;
    let gone = b
        .script(&format!(
            r#"{HEAD}
            let vm = pve.get_vm("nfs1");
            vm.remove_snapshot("later");
            vm.rollback("clean");
            [vm.remove_snapshot("clean"), vm.remove_snapshot("clean"), vm.list_snapshots().len() == 0]"#
        ))
        .await;
    let gone: Vec<bool> = gone.into_typed_array().unwrap();
    assert_eq!((gone, conf(&b, id, "cores")), (vec![true, false, true], cores));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_moves_there_and_back() {
    let b = bed("nfs1").await;
    let id = b.site.node("nfs1").unwrap().vmid;
    let mv =
        |to: &str| format!("{HEAD}let vm = pve.get_vm(\"nfs1\");\nfor n in 0..2 {{ vm.move_disk(\"scsi0\", {to}); }}");
    let _ = b.script(&mv("\"nas\"")).await;
    assert!(conf(&b, id, "scsi0").starts_with(&format!("nas:{id}/vm-{id}-disk-")), "{}", conf(&b, id, "scsi0"));
    assert_eq!((b.changed(), conf(&b, id, "unused0").as_str()), (1, ""));
    let _ = b.script(&mv("\"local-zfs\", #{ keep_source: true }")).await;
    assert!(conf(&b, id, "scsi0").starts_with("local-zfs:vm-"));
    assert!(conf(&b, id, "unused0").starts_with("nas:"), "the old volume is kept");
    assert_eq!(b.changed(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_brings_a_machine_back() {
    let b = bed("nfs1").await;
    let id = b.site.node("nfs1").unwrap().vmid;
    let (cores, disk) = (conf(&b, id, "cores"), conf(&b, id, "scsi0"));
    let volid = b
        .script(&format!(
            r#"{HEAD}
            let vm = pve.get_vm("nfs1");
            let volid = vm.backup("nas", #{{ mode: "stop", notes: "before the change", keep: true }});
            volid"#
        ))
        .await
        .into_string()
        .unwrap();
    assert!(volid.starts_with(&format!("nas:backup/vzdump-qemu-{id}-")) && volid.ends_with(".vma.zst"), "{volid}");
    let listed = b
        .script(&format!(
            r#"{HEAD}
            let vm = pve.get_vm("nfs1");
            pve.get_storage("nas").list_content(#{{ content: "backup", vmid: vm.vmid }}).map(|v| v.volid)"#
        ))
        .await;
    assert_eq!(listed.into_typed_array::<String>().unwrap(), std::slice::from_ref(&volid));
    let put = async |body| b.ask("PUT", &format!("/nodes/pve1/qemu/{id}/config"), body).await;
    put(json!({ "cores": 63, "protection": 0 })).await;
    put(json!({ "delete": "scsi2" })).await;
    // Older than the protection is the backup: it has to be there afterwards all the same.
    b.lab.with(|w| match &mut w.volumes.get_mut(&volid).unwrap().content {
        gpuhost_lab::volume::Content::Backup { conf, .. } => {
            assert_eq!(conf.remove("protection").as_deref(), Some("1"))
        }
        other => panic!("{other:?}"),
    });
    put(json!({ "protection": 1 })).await;
    // Foreign backups and running machines are refused before anything is lost.
    let refused = b
        .script(&format!(
            r#"{HEAD}
            let vm = pve.get_vm("nfs1");
            let told = [];
            vm.start();
            try {{ vm.restore("{volid}"); }} catch (e) {{ told.push(`${{e}}`); }}
            vm.stop();
            told"#
        ))
        .await;
    let told: Vec<String> = refused.into_array().unwrap().into_iter().map(|t| t.to_string()).collect();
    assert!(told.len() == 1 && told[0].contains("runs"), "{told:#?}");
    let vm = b.pve.find_vm(&b.ctx, &i64::from(id).into()).await.unwrap_or_else(ok).unwrap();
    let e = vm.restore(&b.ctx, "nas:backup/vzdump-qemu-100-2026_11_25-00_00_00.vma.zst").await.unwrap_err();
    assert!(e.stop.is_some() && e.message.contains("not a backup of VM"), "{}", told_of(&e));
    assert_eq!(conf(&b, id, "cores"), "63");
    let _ = b.script(&format!("{HEAD}pve.get_vm(\"nfs1\").restore(\"{volid}\");")).await;
    assert_eq!((conf(&b, id, "cores"), conf(&b, id, "protection").as_str()), (cores, "1"));
    assert_eq!(conf(&b, id, "scsi0").split(',').nth(1), disk.split(',').nth(1));
    assert!(conf(&b, id, "scsi2").contains("serial=gh-data-"), "the data disk is back: {}", conf(&b, id, "scsi2"));
    let whose = b.script(&format!("{HEAD}pve.get_vm(\"nfs1\").ownership()")).await.into_string().unwrap();
    assert_eq!(whose, "own", "restored in its own place it is still the site's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_moves_to_another_hypervisor_node() {
    let b = bed("k3s-cp1").await;
    let told = b
        .script(&format!(
            r#"{HEAD}
            let vm = pve.get_vm("k3s-cp1");
            let told = "";
            try {{ vm.migrate("pve2"); }} catch (e) {{ told = `${{e}}`; }}
            told"#
        ))
        .await
        .into_string()
        .unwrap();
    assert!(told.contains("local storage"), "{told}");
    assert_eq!(b.changed(), 0);
    for (to, running) in [("pve2", false), ("pve1", false), ("pve2", true)] {
        let power = if running { "vm.start();" } else { "" };
        let at = b
            .script(&format!(
                r#"{HEAD}
                let vm = pve.get_vm("k3s-cp1");
                {power}
                for n in 0..2 {{ vm = vm.migrate("{to}", #{{ with_disks: true }}); }}
                vm.pve_node"#
            ))
            .await
            .into_string()
            .unwrap();
        assert_eq!((at.as_str(), b.lab.with(|w| w.pve.vms[&201].node.clone())), (to, to.to_owned()));
        assert_eq!(b.lab.with(|w| w.pve.vms[&201].run.is_some()), running, "it runs as it did");
        assert_eq!(b.changed(), 1 + u64::from(running));
    }
}
