//! Answers against the official API schemas, where those are at hand.
use std::io::Read;

use gpuhost_lab::spec::Spec;
use serde_json::{Value, json};

use crate::bed::Bed;

fn schema(release: &str) -> Option<Vec<Value>> {
    let dirs = ["/../../shared", "/../../../shared"].map(|d| format!("{}{d}", env!("CARGO_MANIFEST_DIR")));
    let file = |d: &String| std::fs::read(format!("{d}/data/pve/api-schema-{release}-mission.json.gz")).ok();
    let Some(bytes) = dirs.iter().find_map(file) else {
        eprintln!("skipped: no API schema beside the workspace");
        return None;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Where the real server does not keep to its own schema (seen in its recordings).
const KNOWN: &[&str] = &["/cluster/nextid", "value", "pending", "info.privsep"];

fn judge(s: &Value, v: &Value, at: &str, bad: &mut Vec<String>) {
    if KNOWN.iter().any(|k| at.ends_with(k)) {
        return;
    }
    let fits = match s["type"].as_str() {
        Some("string") => v.is_string(),
        Some("integer") => v.is_i64() || v.is_u64(),
        Some("number") => v.is_number(),
        Some("boolean") => v == &json!(0) || v == &json!(1),
        Some("object") => v.is_object(),
        Some("array") => v.is_array(),
        Some("null") => v.is_null(),
        _ => true,
    };
    if !fits {
        bad.push(format!("{at}: {v} is not {}", s["type"]));
        return;
    }
    if let Some(list) = s["enum"].as_array()
        && !list.contains(v)
    {
        bad.push(format!("{at}: {v} is none of {}", s["enum"]));
    }
    if let (Some(o), Some(props)) = (v.as_object(), s["properties"].as_object()) {
        for (k, p) in props {
            match o.get(k) {
                Some(x) => judge(p, x, &format!("{at}.{k}"), bad),
                None if p["optional"] != 1 && !k.contains('[') => bad.push(format!("{at}.{k}: missing")),
                None => {}
            }
        }
    }
    if let Some(list) = v.as_array() {
        for x in list {
            judge(&s["items"], x, &format!("{at}[]"), bad);
        }
    }
}

async fn populated(release: &str) -> Bed {
    let mut spec = Spec::homelab().unwrap();
    spec.pve_version = release.to_owned();
    let bed = Bed::with(spec).await;
    bed.call("POST", "/pools", Some(json!({ "poolid": "px", "comment": "c" }))).await.data();
    bed.upload("iso", "a.iso", &[1; 600]).await;
    let vm = json!({
        "vmid": 300, "name": "n", "memory": 512, "machine": "q35", "scsi0": "local-zfs:1", "ide2": "local-zfs:cloudinit",
        "ipconfig0": "ip=10.0.0.9/24,gw=10.0.0.1", "ciuser": "u", "net0": "virtio,bridge=vmbr0", "pool": "px", "agent": 1,
        "serial0": "socket", "tags": "a",
    });
    bed.done("POST", "/nodes/pve1/qemu", Some(vm)).await;
    bed.done("POST", "/nodes/pve1/qemu/300/snapshot", Some(json!({ "snapname": "s1" }))).await;
    bed.done("POST", "/nodes/pve1/qemu/300/status/start", None).await;
    bed.call("PUT", "/nodes/pve1/qemu/300/config", Some(json!({ "cores": 2 }))).await.data();
    let map = json!({ "id": "m1", "map": ["node=pve1,path=0000:01:00.0,id=10de:20f1"], "description": "d" });
    bed.call("POST", "/cluster/mapping/pci", Some(map)).await.data();
    bed
}

async fn answers_fit(release: &str) {
    let Some(all) = schema(release) else { return };
    let bed = populated(release).await;
    let (mut bad, mut absent, mut seen) = (Vec::new(), Vec::new(), 0);
    let upid = bed.get("/nodes/pve1/tasks?source=all").await[0]["upid"].as_str().unwrap().to_owned();
    for e in all.iter().filter(|e| e["m"] == "GET") {
        let template = e["p"].as_str().unwrap();
        let mut path = template.to_owned();
        for (k, v) in [
            ("{node}", "pve1"),
            ("{vmid}", "300"),
            ("{storage}", "local"),
            ("{upid}", &upid),
            ("{poolid}", "px"),
            ("{userid}", "gpuhost@pve"),
            ("{tokenid}", "deploy"),
            ("{roleid}", "PVEVMUser"),
            ("{id}", "m1"),
            ("{snapname}", "s1"),
            ("{volume}", "local:iso/a.iso"),
            ("{pci-id-or-mapping}", "m1"),
        ] {
            path = path.replace(k, v);
        }
        match template {
            "/nodes/{node}/qemu/{vmid}/cloudinit/dump" => path.push_str("?type=user"),
            t if t.contains("/agent/") || t.contains("query-url") || t.contains("import-metadata") => continue,
            _ => {}
        }
        let a = bed.call("GET", &path, None).await;
        match a.code {
            200 => {
                seen += 1;
                judge(&e["ret"], &a.body["data"], template, &mut bad);
            }
            501 => absent.push(template),
            403 => {}
            code => bad.push(format!("{template}: {code} {}", a.message())),
        }
    }
    bad.sort();
    bad.dedup();
    eprintln!("{release}: {seen} answers fit; not simulated: {absent:?}");
    assert!(bad.is_empty(), "{release}: {}", bad.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_fit_the_schema_of_9_1() {
    answers_fit("9.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_fit_the_schema_of_8_4() {
    answers_fit("8.4").await;
}
