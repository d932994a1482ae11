//! Answers of the real server where its recordings are at hand: refusals must read the same.
use gpuhost_lab::spec::Spec;
use serde_json::{Value, json};

use crate::bed::Bed;

fn recording(name: &str) -> Option<Vec<Value>> {
    let dirs = ["/../../shared", "/../../../shared"].map(|d| format!("{}{d}", env!("CARGO_MANIFEST_DIR")));
    let text = dirs.iter().find_map(|d| std::fs::read_to_string(format!("{d}/data/pve/{name}.jsonl")).ok());
    let Some(text) = text else {
        eprintln!("skipped: no recording `{name}` beside the workspace");
        return None;
    };
    Some(text.lines().map(|l| serde_json::from_str(l).unwrap()).collect())
}

/// A server like the recorded one: one directory storage, a VM 9000, a token of root.
async fn like_recorded() -> Bed {
    let mut spec = Spec::homelab().unwrap();
    spec.token_id = "root@pam!lab".into();
    spec.foreign_vms.clear();
    spec.storages.truncate(1);
    spec.storages[0].content = "vztmpl,rootdir,backup,snippets,iso,images".into();
    let bed = Bed::with(spec).await;
    bed.lab.with(|w| {
        let root = w.pve.access.users.get_mut("root@pam").unwrap();
        root.tokens.get_mut("lab").unwrap().privsep = false;
        w.pve.version = "9.1".into();
    });
    let vm = json!({
        "vmid": 9000, "name": "tmpl", "memory": 512, "machine": "q35", "bios": "ovmf", "agent": "1", "vga": "serial0",
        "efidisk0": "local:1,efitype=4m,pre-enrolled-keys=0,format=qcow2", "scsi0": "local:1,discard=on,ssd=1,format=qcow2",
        "ide2": "local:cloudinit", "boot": "order=scsi0", "serial0": "socket", "net0": "virtio,bridge=vmbr0",
        "scsihw": "virtio-scsi-single", "ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1",
    });
    bed.done("POST", "/nodes/pve1/qemu", Some(vm)).await;
    bed
}

/// What only the recorded server had, or what our client cannot send.
const ELSEWHERE: &[&str] = &[
    "extjs",
    "html",
    "root no api",
    "login",
    "no auth",
    "token",
    "ticket",
    "json body invalid",
    "text/plain",
    "bearer",
    "unknown node",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_read_as_recorded() {
    let Some(all) = recording("recorded-errors") else { return };
    let bed = like_recorded().await;
    let mut wrong = Vec::new();
    let mut seen = 0;
    for r in &all {
        let Some(status) = r["status"].as_str() else { continue };
        let name = r["name"].as_str().unwrap_or_default();
        let sendable = r["body"].is_object() || r["body"].is_null();
        if !sendable || ELSEWHERE.iter().any(|e| name.contains(e)) && !name.contains("by token") {
            continue;
        }
        seen += 1;
        let body = r["body"].is_object().then(|| r["body"].clone());
        let a = bed.call(r["method"].as_str().unwrap(), r["path"].as_str().unwrap(), body).await;
        let code: u16 = status.split(' ').nth(1).unwrap().parse().unwrap();
        // A missing endpoint also names the file where it would be added.
        let plain = |v: &Value| v.as_str().map(|t| t.split(" (the lab's").next().unwrap().trim_end().to_owned());
        let same = a.code == code
            && (code == 200 || plain(&a.body["message"]) == plain(&r["json"]["message"]))
            && a.body["errors"] == r["json"]["errors"];
        if !same {
            wrong.push(format!("{name}: {} {}\n  instead of {status} {}", a.code, a.body, r["json"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {seen} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 30, "only {seen} recorded refusals were comparable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_carry_the_json_types_of_the_recording() {
    let Some(all) = recording("recorded-flow") else { return };
    let bed = Bed::start().await;
    let name = "template VM config";
    let real = all.iter().find(|r| r["name"] == name).unwrap()["json"]["data"].clone();
    let vm = json!({
        "vmid": 9100, "name": "ubuntu-24.04-cloudinit", "memory": 512, "cores": 1, "machine": "q35", "bios": "ovmf",
        "efidisk0": "local-zfs:1,efitype=4m,pre-enrolled-keys=0", "scsihw": "virtio-scsi-single",
        "scsi0": "local-zfs:1,iothread=1,discard=on,ssd=1", "ide2": "local-zfs:cloudinit", "boot": "order=scsi0",
        "agent": "enabled=1,fstrim_cloned_disks=1", "serial0": "socket", "vga": "serial0", "net0": "virtio,bridge=vmbr0",
        "ostype": "l26", "description": "gpuhost: site=homelab role=template\n", "tags": "gpuhost;template",
    });
    bed.done("POST", "/nodes/pve1/qemu", Some(vm)).await;
    let ours = bed.get("/nodes/pve1/qemu/9100/config").await;
    let kind = |v: &Value| match v {
        Value::Number(_) => "number",
        Value::String(_) => "text",
        _ => "other",
    };
    let shape = |v: &Value| -> Vec<(String, &str)> {
        let mut all: Vec<_> = v.as_object().unwrap().iter().map(|(k, x)| (k.clone(), kind(x))).collect();
        all.sort();
        all
    };
    assert_eq!(shape(&ours), shape(&real));
    for k in ["agent", "boot", "cores", "memory", "description", "tags", "bios", "machine", "vga"] {
        assert_eq!(ours[k], real[k], "{k}");
    }
}
