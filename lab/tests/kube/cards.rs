//! Pods that hold GPUs: what `nvidia-smi` in them says, and what becomes of it where there is no card.
use gpuhost_lab::guest::state::{BootSpec, Stage};
use gpuhost_lab::spec::PciSpec;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::controllers::{until, with_nodes};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Node `n0` gets a machine with two cards, a driver and NVIDIA's toolkit.
fn equip(bed: &Bed) {
    let card = |bus: &str| PciSpec {
        address: format!("0000:{bus}:00.0"),
        vendor: "0x10de".into(),
        device: "0x20f1".into(),
        class: "0x030200".into(),
        vendor_name: "NVIDIA Corporation".into(),
        device_name: "GA100 [A100 PCIe 40GB]".into(),
        subsystem_vendor: String::new(),
        subsystem_device: String::new(),
        iommu_group: 1,
    };
    bed.lab.with(|w| {
        let spec =
            BootSpec { vmid: 777, pve_node: "pve1".into(), pci: vec![card("41"), card("81")], ..BootSpec::default() };
        gpuhost_lab::guest::power_on(&bed.lab, w, spec);
        let g = w.guests.get_mut(&777).unwrap();
        // It is up at once, without booting from a disk.
        (g.stage, g.boot) = (Stage::Up, g.boot.wrapping_add(1));
        g.facts.nvidia_driver = Some("580.105.08".into());
        let n = w.clusters.get_mut(&bed.cluster).unwrap().nodes.get_mut("n0").unwrap();
        (n.vmid, n.toolkit, n.runtimes) = (777, true, vec!["nvidia".into()]);
    });
}

async fn runs(bed: &Bed, name: &str, policy: &str, container: Value) {
    let mut c = json!({"name": "c", "image": "nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04"});
    c.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let spec = json!({"restartPolicy": policy, "containers": [c]});
    let a = bed.post(PODS, json!({"metadata": {"name": name}, "spec": spec})).await;
    assert_eq!(a.code, 201, "{}", a.text);
}

async fn ended(bed: &Bed, name: &str, phase: &str) -> Value {
    until(bed, &format!("{PODS}/{name}"), phase, |p| p["status"]["phase"] == phase).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_gpu_sees_it_and_no_other() {
    let bed = with_nodes(1).await;
    equip(&bed);
    let class = json!({"metadata": {"name": "nvidia"}, "handler": "nvidia"});
    assert_eq!(bed.post("/apis/node.k8s.io/v1/runtimeclasses", class).await.code, 201);
    let spec = json!({"restartPolicy": "OnFailure", "runtimeClassName": "nvidia", "containers": [{"name": "c",
        "image": "nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04", "command": ["nvidia-smi"],
        "resources": {"limits": {"nvidia.com/gpu": "1"}}}]});
    let a = bed.post(PODS, json!({"metadata": {"name": "smi"}, "spec": spec.clone()})).await;
    assert_eq!(a.code, 201, "{}", a.text);
    let p = ended(&bed, "smi", "Succeeded").await;
    assert_eq!(p["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    let log = bed.get(&format!("{PODS}/smi/log")).await.text;
    assert!(log.contains("| NVIDIA-SMI 580.105.08"), "{log}");
    assert_eq!(log.matches("NVIDIA A100-PCIE-40GB").count(), 1, "one of two cards: {log}");
    let mut second = spec;
    second["containers"][0]["command"] = json!(["sh", "-c", "ls /dev/nvidia*; nvidia-smi -L"]);
    let a = bed.post(PODS, json!({"metadata": {"name": "list"}, "spec": second})).await;
    assert_eq!(a.code, 201, "{}", a.text);
    ended(&bed, "list", "Succeeded").await;
    let log = bed.get(&format!("{PODS}/list/log")).await.text;
    assert!(log.contains("/dev/nvidia0\n") && log.contains("/dev/nvidiactl\n"), "{log}");
    assert!(log.contains("GPU 0: NVIDIA A100-PCIE-40GB (UUID: GPU-") && !log.contains("GPU 1"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gpu_there_is_no_nvidia_smi() {
    let bed = with_nodes(1).await;
    equip(&bed);
    let smi = json!({"command": ["nvidia-smi"]});
    runs(&bed, "once", "Never", smi.clone()).await;
    let p = ended(&bed, "once", "Failed").await;
    let end = &p["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&end["reason"], &end["exitCode"]), (&json!("StartError"), &json!(128)), "{end:#}");
    assert_eq!(end["startedAt"], "1970-01-01T00:00:00Z");
    let why = end["message"].as_str().unwrap();
    assert!(why.ends_with("exec: \"nvidia-smi\": executable file not found in $PATH: unknown"), "{why}");
    runs(&bed, "again", "OnFailure", smi).await;
    let p = until(&bed, &format!("{PODS}/again"), "CrashLoopBackOff", |p| {
        p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    })
    .await;
    assert_eq!(p["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"], "StartError");
    runs(&bed, "script", "Never", json!({"command": ["sh", "-c", "nvidia-smi"]})).await;
    let p = ended(&bed, "script", "Failed").await;
    assert_eq!(p["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 127);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_programs_are_run_and_unknown_ones_are_named() {
    let bed = with_nodes(1).await;
    runs(&bed, "cat", "Never", json!({"command": ["echo"], "args": ["one", "two"]})).await;
    ended(&bed, "cat", "Succeeded").await;
    assert_eq!(bed.get(&format!("{PODS}/cat/log")).await.text, "one two\n");
    runs(&bed, "py", "Never", json!({"image": "python:3.13", "command": ["python3", "-c", "print(1)"]})).await;
    ended(&bed, "py", "Running").await;
    let mut log = String::new();
    for _ in 0..20 {
        log = bed.get(&format!("{PODS}/py/log")).await.text;
        if !log.is_empty() {
            break;
        }
        bed.lab.clock().sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(log, "lab: python3 is not simulated; the container counts as running\n");
}
