//! What a deploy does, from pool to removal.
use gpuhost_lab::pve::world_diff_view;
use serde_json::{Value, json};

use crate::bed::Bed;

const IMAGE: &str =
    "https://cloud.debian.org/images/cloud/bookworm/20260909-2596/debian-12-genericcloud-amd64-20260909-2596.qcow2";
const SUM: &str = "08fea112563461f251f3c95a5c5cf8cb25eb60f74cec03e85a97ff91d3efef3059d35837598bbb476008f20db6d3bdc7143c5f2f2a9a6da394a0acc601fd5986";

async fn template(bed: &Bed) {
    let fetch = json!({ "content": "import", "filename": "debian.qcow2", "url": IMAGE, "checksum": SUM, "checksum-algorithm": "sha512" });
    bed.done("POST", "/nodes/pve1/storage/local/download-url", Some(fetch)).await;
    let vm = json!({
        "vmid": 9000, "name": "debian-12", "memory": 2048, "cores": 2, "machine": "q35", "bios": "ovmf", "cpu": "host",
        "efidisk0": "local-zfs:1,efitype=4m,pre-enrolled-keys=0", "scsihw": "virtio-scsi-single",
        "scsi0": "local-zfs:0,import-from=local:import/debian.qcow2,iothread=1,discard=on,ssd=1",
        "ide2": "local-zfs:cloudinit", "boot": "order=scsi0", "agent": "enabled=1", "serial0": "socket", "vga": "serial0",
        "net0": "virtio,bridge=vmbr0", "ostype": "l26", "pool": "gpuhost-homelab", "description": "made by test\n",
    });
    bed.done("POST", "/nodes/pve1/qemu", Some(vm)).await;
    bed.done("POST", "/nodes/pve1/qemu/9000/template", None).await;
    let c = bed.get("/nodes/pve1/qemu/9000/config").await;
    assert_eq!(c["scsi0"], "local-zfs:base-9000-disk-1,discard=on,iothread=1,size=3G,ssd=1");
    assert_eq!(c["efidisk0"], "local-zfs:base-9000-disk-0,efitype=4m,pre-enrolled-keys=0,size=1M");
    assert_eq!(c["ide2"], "local-zfs:vm-9000-cloudinit,media=cdrom");
    assert_eq!(c["description"], "made by test");
}

async fn clone(bed: Bed, id: u32) {
    let body = json!({ "newid": id, "name": format!("n{id}"), "full": 1, "storage": "local-zfs", "pool": "gpuhost-homelab", "description": format!("node {id}") });
    bed.done("POST", "/nodes/pve1/qemu/9000/clone", Some(body)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn from_pool_to_removal() {
    let bed = Bed::start().await;
    let before = bed.lab.with(|w| world_diff_view(w));
    bed.call("POST", "/pools", Some(json!({ "poolid": "gpuhost-homelab", "comment": "x" }))).await.data();
    template(&bed).await;

    let work: Vec<_> = (201..208).map(|id| tokio::spawn(clone(bed.clone(), id))).collect();
    for w in work {
        w.await.unwrap();
    }
    let names: std::collections::BTreeSet<String> = {
        let mut all = std::collections::BTreeSet::new();
        for id in 201..208 {
            let c = bed.get(&format!("/nodes/pve1/qemu/{id}/config")).await;
            assert_eq!(c["lock"], Value::Null);
            assert_eq!(c["scsi0"], format!("local-zfs:vm-{id}-disk-1,discard=on,iothread=1,size=3G,ssd=1"));
            all.insert(c["net0"].as_str().unwrap().to_owned());
        }
        all
    };
    assert_eq!(names.len(), 7, "every clone has its own MAC address");

    let map: Vec<String> =
        (1..=8).map(|i| format!("node=pve1,path=0000:0{i}:00.0,id=10de:20f1,iommugroup={}", 19 + i)).collect();
    bed.call("POST", "/cluster/mapping/pci", Some(json!({ "id": "a100", "map": map }))).await.data();
    let checks = bed.get("/cluster/mapping/pci?check-node=pve1").await;
    assert_eq!(checks[0]["checks"], json!([]));

    for id in 201..=204 {
        let config = json!({
            "cores": 16, "memory": "131072", "hostpci0": "mapping=a100,pcie=1", "hostpci1": "mapping=a100,pcie=1",
            "ciuser": "debian", "ipconfig0": format!("ip=10.0.0.{}/24,gw=10.0.0.1", id - 190),
            "sshkeys": "ssh-ed25519%20AAAA%20me%40h", "tags": "b;a;B", "onboot": 1,
        });
        bed.call("PUT", &format!("/nodes/pve1/qemu/{id}/config"), Some(config)).await.data();
        let grow = json!({ "disk": "scsi0", "size": "500G" });
        bed.done("PUT", &format!("/nodes/pve1/qemu/{id}/resize"), Some(grow)).await;
        let disk = json!({ "scsi1": format!("local-zfs:1024,serial=gh-scratch-{id},backup=0") });
        bed.done("POST", &format!("/nodes/pve1/qemu/{id}/config"), Some(disk)).await;
        bed.done("POST", &format!("/nodes/pve1/qemu/{id}/status/start"), None).await;
    }
    let c = bed.get("/nodes/pve1/qemu/201/config").await;
    assert_eq!(c["cores"], 16);
    assert_eq!(c["memory"], "131072");
    assert_eq!(c["tags"], "a;b");
    assert_eq!(c["onboot"], 1);
    assert_eq!(c["scsi0"], "local-zfs:vm-201-disk-1,discard=on,iothread=1,size=500G,ssd=1");
    assert_eq!(c["scsi1"], "local-zfs:vm-201-disk-2,backup=0,serial=gh-scratch-201,size=1T");
    assert_eq!(bed.get("/nodes/pve1/qemu/201/status/current").await["status"], "running");

    // The ninth card does not exist.
    bed.call("PUT", "/nodes/pve1/qemu/205/config", Some(json!({ "hostpci0": "mapping=a100,pcie=1" }))).await.data();
    let (exit, _) = bed.task("POST", "/nodes/pve1/qemu/205/status/start", None).await;
    assert_eq!(exit, "could not find a free device for 'hostpci0'");

    // Changes of a running VM wait.
    bed.call("PUT", "/nodes/pve1/qemu/201/config", Some(json!({ "cores": 8, "name": "other" }))).await.data();
    let pending = bed.get("/nodes/pve1/qemu/201/pending").await;
    let cores = pending.as_array().unwrap().iter().find(|p| p["key"] == "cores").unwrap();
    assert_eq!(cores, &json!({ "key": "cores", "value": 16, "pending": 8 }));
    assert_eq!(bed.get("/nodes/pve1/qemu/201/config?current=1").await["cores"], 16);
    assert_eq!(bed.get("/nodes/pve1/qemu/201/config").await["name"], "other");

    let refused = bed.call("DELETE", "/nodes/pve1/qemu/201?purge=1", None).await;
    assert_eq!((refused.code, refused.message()), (500, "VM 201 is running - destroy failed"));
    for id in 201..208 {
        bed.done("POST", &format!("/nodes/pve1/qemu/{id}/status/stop"), None).await;
        bed.done("DELETE", &format!("/nodes/pve1/qemu/{id}?purge=1&destroy-unreferenced-disks=1"), None).await;
    }
    bed.done("DELETE", "/nodes/pve1/qemu/9000?purge=1", None).await;
    bed.done("DELETE", "/nodes/pve1/storage/local/content/local:import/debian.qcow2", None).await;
    bed.call("DELETE", "/pools?poolid=gpuhost-homelab", None).await.data();
    bed.call("DELETE", "/cluster/mapping/pci/a100", None).await.data();
    assert_eq!(bed.lab.with(|w| world_diff_view(w)), before, "everything is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_storage_fails_the_clone_and_leaves_nothing() {
    let mut spec = gpuhost_lab::spec::Spec::homelab().unwrap();
    spec.storages[1].size_gib = 40;
    let bed = Bed::with(spec).await;
    bed.call("POST", "/pools", Some(json!({ "poolid": "gpuhost-homelab" }))).await.data();
    template(&bed).await;
    clone(bed.clone(), 201).await;
    let before = bed.lab.with(|w| world_diff_view(w));
    let body = json!({ "newid": 202, "full": 1 });
    let (exit, _) = bed.task("POST", "/nodes/pve1/qemu/9000/clone", Some(body)).await;
    assert_eq!(exit, "clone failed: zfs error: cannot create 'rpool/data/vm-202-disk-1': out of space");
    assert_eq!(bed.lab.with(|w| world_diff_view(w)), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_iso_is_kept_byte_by_byte() {
    let bed = Bed::start().await;
    let up = bed.upload("iso", "seed.iso", b"\0CD001\r\n\r\nnot really").await;
    assert_eq!(up.code, 200, "{}", up.body);
    let list = bed.get("/nodes/pve1/storage/local/content?content=iso").await;
    assert_eq!(list[0]["volid"], "local:iso/seed.iso");
    assert_eq!(list[0]["size"], 20);
    let no = bed.upload("snippets", "a.yml", b"x").await;
    assert_eq!(no.code, 400);
    assert_eq!(
        no.body["errors"]["content"],
        "value 'snippets' does not have a value in the enumeration 'iso, vztmpl, import'"
    );
}
