//! Answers of the real server where its recordings are at hand: refusals must read the same.
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

/// Refusals that depend on what only the recorded server had.
const ELSEWHERE: &[&str] = &[
    "nextid",
    "extjs",
    "html",
    "root no api",
    "login",
    "ghost",
    "no ticket",
    "bad token",
    "json body",
    "stop stopped",
    "agent on stopped",
    "digest mismatch",
    "delete un",
    "set+delete",
    "empty PUT",
    "clone linked",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameter_errors_read_as_recorded() {
    let Some(all) = recording("recorded-errors") else { return };
    let bed = Bed::start().await;
    let mut wrong = Vec::new();
    let mut seen = 0;
    for r in &all {
        let Some(status) = r["status"].as_str() else { continue };
        let name = r["name"].as_str().unwrap_or_default();
        let json_body = r["body"].is_object() || r["body"].is_null();
        let errors = &r["json"]["errors"];
        if !status.contains(" 400 ") || !json_body || !errors.is_object() || ELSEWHERE.iter().any(|e| name.contains(e))
        {
            continue;
        }
        seen += 1;
        let body = r["body"].is_object().then(|| r["body"].clone());
        let a = bed.call(r["method"].as_str().unwrap(), r["path"].as_str().unwrap(), body).await;
        if a.body["errors"] != *errors {
            wrong.push(format!("{name}: {} instead of {errors}", a.body));
        }
    }
    assert!(wrong.is_empty(), "{} of {seen} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 10, "only {seen} recorded refusals were comparable");
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
