//! More than one node: local and shared storage, clones, migration, a node that is gone; high availability.
use gpuhost_lab::spec::{NodeSpec, Spec, StorageSpec};
use serde_json::{Value, json};

use crate::bed::Bed;

async fn cluster() -> Bed {
    let mut spec = Spec::homelab().unwrap();
    spec.token_id = "root@pam!lab".into();
    spec.nodes.push(NodeSpec {
        name: "pve2".into(),
        cpus: 32,
        memory_gib: 256,
        bridges: vec!["vmbr0".into()],
        iommu: true,
        pci: Vec::new(),
    });
    for (id, kind, shared) in [("ceph", "rbd", true), ("nas", "nfs", true), ("thin", "lvmthin", false)] {
        spec.storages.push(StorageSpec {
            id: id.into(),
            kind: kind.into(),
            content: "images,rootdir".into(),
            size_gib: 2000,
            shared,
        });
    }
    let bed = Bed::with(spec).await;
    bed.lab.with(|w| w.pve.access.users.get_mut("root@pam").unwrap().tokens.get_mut("lab").unwrap().privsep = false);
    bed
}

async fn machine(bed: &Bed, id: u32, storage: &str) {
    let vm = json!({ "vmid": id, "name": format!("n{id}"), "memory": 512, "scsi0": format!("{storage}:4"),
        "scsihw": "virtio-scsi-single", "net0": "virtio,bridge=vmbr0" });
    bed.done("POST", "/nodes/pve1/qemu", Some(vm)).await;
}

fn disk(c: &Value) -> &str {
    c["scsi0"].as_str().unwrap().split(',').next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_have_the_names_of_their_storage() {
    let bed = cluster().await;
    for (id, storage, full, linked) in [
        (301, "ceph", "ceph:vm-401-disk-0", "ceph:base-301-disk-0/vm-501-disk-0"),
        (302, "nas", "nas:402/vm-402-disk-0.raw", "nas:302/base-302-disk-0.raw/502/vm-502-disk-0.qcow2"),
        (303, "thin", "thin:vm-403-disk-0", "thin:base-303-disk-0/vm-503-disk-0"),
        (304, "local-zfs", "local-zfs:vm-404-disk-0", "local-zfs:base-304-disk-0/vm-504-disk-0"),
    ] {
        machine(&bed, id, storage).await;
        bed.done("POST", &format!("/nodes/pve1/qemu/{id}/template"), None).await;
        let clone = format!("/nodes/pve1/qemu/{id}/clone");
        bed.done("POST", &clone, Some(json!({ "newid": id + 100, "full": 1 }))).await;
        assert_eq!(disk(&bed.get(&format!("/nodes/pve1/qemu/{}/config", id + 100)).await), full);
        bed.done("POST", &clone, Some(json!({ "newid": id + 200 }))).await;
        assert_eq!(disk(&bed.get(&format!("/nodes/pve1/qemu/{}/config", id + 200)).await), linked);
        let (exit, _) = bed.task("DELETE", &format!("/nodes/pve1/qemu/{id}"), None).await;
        assert!(exit.starts_with("base volume"), "{exit}");
        bed.done("DELETE", &format!("/nodes/pve1/qemu/{}", id + 200), None).await;
        bed.done("DELETE", &format!("/nodes/pve1/qemu/{id}"), None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_and_moves_to_another_node_need_shared_storage() {
    let bed = cluster().await;
    machine(&bed, 301, "ceph").await;
    machine(&bed, 302, "local-zfs").await;
    let to = |id: u32| json!({ "newid": id, "full": 1, "target": "pve2" });
    let a = bed.call("POST", "/nodes/pve1/qemu/302/clone", Some(to(402))).await;
    assert_eq!((a.code, a.message()), (500, "can't clone VM to node 'pve2' (VM uses local storage)"));
    let mut body = to(401);
    body["storage"] = json!("local-zfs");
    let a = bed.call("POST", "/nodes/pve1/qemu/301/clone", Some(body)).await;
    assert_eq!(a.message(), "can't clone to non-shared storage 'local-zfs'");
    bed.done("POST", "/nodes/pve1/qemu/301/clone", Some(to(401))).await;
    let a = bed.call("GET", "/nodes/pve1/qemu/401/config", None).await;
    assert_eq!(a.message(), "Configuration file 'nodes/pve1/qemu-server/401.conf' does not exist");
    assert_eq!(disk(&bed.get("/nodes/pve2/qemu/401/config").await), "ceph:vm-401-disk-0");

    // Offline with a local disk, online with a shared one.
    let check = bed.get("/nodes/pve1/qemu/302/migrate").await;
    assert_eq!(check["local_disks"][0]["volid"], "local-zfs:vm-302-disk-0");
    assert_eq!(check["allowed_nodes"], json!(["pve2"]));
    bed.done("POST", "/nodes/pve1/qemu/302/migrate", Some(json!({ "target": "pve2" }))).await;
    assert_eq!(disk(&bed.get("/nodes/pve2/qemu/302/config").await), "local-zfs:vm-302-disk-0");
    assert_eq!(bed.get("/nodes/pve1/storage/local-zfs/content?vmid=302").await, json!([]));
    bed.done("POST", "/nodes/pve1/qemu/301/status/start", None).await;
    let a = bed.call("POST", "/nodes/pve1/qemu/301/migrate", Some(json!({ "target": "pve2" }))).await;
    assert_eq!(a.message(), "can't migrate running VM without --online");
    bed.done("POST", "/nodes/pve1/qemu/301/migrate", Some(json!({ "target": "pve2", "online": 1 }))).await;
    assert_eq!(bed.get("/nodes/pve2/qemu/301/status/current").await["status"], "running");
    let a = bed.call("POST", "/nodes/pve2/qemu/301/migrate", Some(json!({ "target": "pve2" }))).await;
    assert_eq!(a.body["errors"]["target"], "target is local node.");
    let body = json!({ "target": "pve1", "targetstorage": "thin" });
    bed.done("POST", "/nodes/pve2/qemu/302/migrate", Some(body)).await;
    assert_eq!(disk(&bed.get("/nodes/pve1/qemu/302/config").await), "thin:vm-302-disk-0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_moves_to_another_storage_and_another_machine() {
    let bed = cluster().await;
    machine(&bed, 301, "local-zfs").await;
    machine(&bed, 302, "local-zfs").await;
    let a = bed.call("POST", "/nodes/pve1/qemu/301/move_disk", Some(json!({ "disk": "scsi0" }))).await;
    assert_eq!(a.body["errors"]["storage"], "both 'storage' and 'target-vmid' missing, either needs to be set");
    let same = json!({ "disk": "scsi0", "storage": "local-zfs" });
    let a = bed.call("POST", "/nodes/pve1/qemu/301/move_disk", Some(same)).await;
    assert_eq!(a.message(), "you can't move to the same storage with same format");
    bed.done(
        "POST",
        "/nodes/pve1/qemu/301/move_disk",
        Some(json!({ "disk": "scsi0", "storage": "nas", "format": "qcow2" })),
    )
    .await;
    let c = bed.get("/nodes/pve1/qemu/301/config").await;
    assert_eq!((disk(&c), c["unused0"].as_str()), ("nas:301/vm-301-disk-0.qcow2", Some("local-zfs:vm-301-disk-0")));
    bed.done(
        "POST",
        "/nodes/pve1/qemu/301/move_disk",
        Some(json!({ "disk": "scsi0", "storage": "thin", "delete": 1 })),
    )
    .await;
    assert_eq!(disk(&bed.get("/nodes/pve1/qemu/301/config").await), "thin:vm-301-disk-0");
    let give = json!({ "disk": "scsi0", "target-vmid": 302, "target-disk": "virtio3" });
    bed.done("POST", "/nodes/pve1/qemu/301/move_disk", Some(give)).await;
    let c = bed.get("/nodes/pve1/qemu/302/config").await;
    assert!(c["virtio3"].as_str().unwrap().starts_with("thin:vm-302-disk-"), "{c}");
    assert_eq!(bed.get("/nodes/pve1/qemu/301/config").await["scsi0"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_answers_595_and_its_resources_move() {
    let bed = cluster().await;
    machine(&bed, 301, "ceph").await;
    bed.done("POST", "/nodes/pve1/qemu/301/migrate", Some(json!({ "target": "pve2" }))).await;
    let ha = json!({ "sid": "vm:301", "state": "started" });
    bed.call("POST", "/cluster/ha/resources", Some(ha)).await.data();
    let started = async |node: &str| {
        for _ in 0..400 {
            let path = format!("/nodes/{node}/qemu/301/status/current");
            if bed.call("GET", &path, None).await.body["data"]["status"] == "running" {
                return;
            }
            bed.sleep(1000).await;
        }
        panic!("the resource does not run on {node}");
    };
    started("pve2").await;
    let a = bed.call("DELETE", "/nodes/pve2/qemu/301", None).await;
    assert_eq!(a.message(), "unable to remove VM 301 - used in HA resources and purge parameter not set.");
    bed.call("POST", "/nodes/pve2/status", Some(json!({ "command": "shutdown" }))).await.data();
    let a = bed.call("GET", "/nodes/pve2/qemu", None).await;
    assert_eq!((a.code, a.body), (595, json!("")));
    let rows = bed.get("/cluster/resources?type=node").await;
    assert_eq!(rows[1]["status"], "offline");
    assert_eq!(bed.get("/cluster/nextid").await, "101", "an id on a dead node is not free");
    assert_eq!(bed.call("GET", "/cluster/nextid?vmid=301", None).await.code, 400);
    started("pve1").await;
}
