//! Answers against the official API schemas, where those are at hand: every method that reads is asked of a
//! world with something of everything in it.
use gpuhost_lab::spec::Spec;
use serde_json::json;

use crate::bed::Bed;
use crate::pve_schema::{self, schema};

async fn populated(release: &str) -> Bed {
    let mut spec = Spec::homelab().unwrap();
    spec.pve_version = release.to_owned();
    spec.token_id = "root@pam!lab".into();
    let bed = Bed::with(spec).await;
    bed.lab.with(|w| w.pve.access.users.get_mut("root@pam").unwrap().tokens.get_mut("lab").unwrap().privsep = false);
    bed.call("POST", "/pools", Some(json!({ "poolid": "px", "comment": "c" }))).await.data();
    bed.upload("iso", "a.iso", &[1; 600]).await;
    let vm = json!({
        "vmid": 300, "name": "n", "memory": 512, "machine": "q35", "scsi0": "local-zfs:1", "ide2": "local-zfs:cloudinit",
        "ipconfig0": "ip=10.0.0.9/24,gw=10.0.0.1", "ciuser": "u", "net0": "virtio,bridge=vmbr0", "pool": "px", "agent": 1,
        "serial0": "socket", "tags": "a",
    });
    bed.done("POST", "/nodes/pve1/qemu", Some(vm)).await;
    bed.done("POST", "/nodes/pve1/qemu/300/snapshot", Some(json!({ "snapname": "s1" }))).await;
    bed.done("POST", "/nodes/pve1/vzdump", Some(json!({ "vmid": "300", "storage": "local", "compress": "zstd" })))
        .await;
    bed.done("POST", "/nodes/pve1/qemu/300/status/start", None).await;
    bed.call("PUT", "/nodes/pve1/qemu/300/config", Some(json!({ "cores": 2 }))).await.data();
    for (path, body) in [
        (
            "/cluster/mapping/pci",
            json!({ "id": "m1", "map": ["node=pve1,path=0000:01:00.0,id=10de:20f1"], "description": "d" }),
        ),
        ("/cluster/backup", json!({ "id": "b1", "vmid": "300", "schedule": "02:00", "storage": "local" })),
        ("/cluster/ha/resources", json!({ "sid": "vm:300", "state": "started" })),
        ("/cluster/sdn/zones", json!({ "zone": "z1", "type": "simple" })),
        ("/cluster/sdn/vnets", json!({ "vnet": "v1", "zone": "z1" })),
        (
            "/nodes/pve1/qemu/300/firewall/rules",
            json!({ "type": "in", "action": "ACCEPT", "proto": "tcp", "enable": 1 }),
        ),
        ("/access/users/root@pam/token/deploy", json!({ "comment": "x" })),
    ] {
        bed.call("POST", path, Some(body)).await.data();
    }
    let (path, body) = if release == "8.4" {
        ("/cluster/ha/groups", json!({ "group": "g1", "nodes": "pve1" }))
    } else {
        ("/cluster/ha/rules", json!({ "rule": "r1", "type": "node-affinity", "resources": "vm:300", "nodes": "pve1" }))
    };
    bed.call("POST", path, Some(body)).await.data();
    bed
}

/// A path of the schema with names of the populated lab in it: those that every walk takes, then `own`.
fn placed(template: &str, own: &[(&str, &str)]) -> String {
    let common = [
        ("{node}", "pve1"),
        ("{vmid}", "300"),
        ("{storage}", "local"),
        ("{poolid}", "px"),
        ("{userid}", "root@pam"),
        ("{tokenid}", "deploy"),
        ("{roleid}", "PVEVMUser"),
        ("{snapname}", "s1"),
        ("{volume}", "local:iso/a.iso"),
        ("{sid}", "vm:300"),
    ];
    common.iter().chain(own).fold(template.to_owned(), |path, (k, v)| path.replace(k, v))
}

async fn answers_fit(release: &str) {
    let Some(all) = schema(release, true) else {
        println!("skipped: no API schema beside the checkout");
        return;
    };
    let bed = populated(release).await;
    let mut strange = Vec::new();
    let upid = bed.get("/nodes/pve1/tasks?source=all").await[0]["upid"].as_str().unwrap().to_owned();
    for e in all.iter().filter(|e| e["m"] == "GET") {
        let template = e["p"].as_str().unwrap();
        let own = [
            ("{upid}", upid.as_str()),
            ("{id}", "m1"),
            ("{group}", "g1"),
            ("{rule}", "r1"),
            ("{pci-id-or-mapping}", "m1"),
        ];
        let mut path = placed(template, &own);
        match template {
            "/nodes/{node}/qemu/{vmid}/cloudinit/dump" => path.push_str("?type=user"),
            // They need a guest, a URL, an OVA; groups are gone in 9.
            t if t.contains("/agent/") || t.contains("query-url") || t.contains("import-metadata") => continue,
            t if t.contains("/ha/groups") && release != "8.4" => continue,
            _ => {}
        }
        let a = bed.call("GET", &path, None).await;
        if a.code != 200 {
            strange.push(format!("{template}: {} {}", a.code, a.message()));
        }
    }
    assert!(strange.is_empty(), "{release}: {}", strange.join("\n"));
    let verdict = pve_schema::judge(&bed.said()).unwrap();
    let (seen, of, _) = verdict.coverage(release);
    println!("{release}: {} exchanges held against the schema, {seen} of {of} methods of the mission", verdict.seen);
}

/// What the lab does not have: containers, Ceph's own tree, certificates by ACME, fabrics, consoles, logins elsewhere.
const NOT_SERVED: &[&str] = &[
    "/lxc/",
    "/cluster/acme",
    "/certificates/acme",
    "/sdn/fabrics",
    "/openid",
    "vncwebsocket",
    "mtunnelwebsocket",
    "/access/tfa/",
    "/sdn/vnets/{vnet}/firewall",
    "/sdn/controllers/",
    "/sdn/dns/",
    "/sdn/dry-run",
    "/sdn/zones/{zone}/ip-vrf",
    "/nodes/{node}/sdn/vnets/",
    "/realm-sync/",
    "/schedule-analyze",
    "/notifications/",
    "/replication/",
    "/file-restore/",
    "/rrd",
    "/scan/",
    "/query-oci-repo-tags",
    "/file-restore",
];

/// Every list and look of the official schema is served, apart from the named ones: clients read more than they change.
async fn reads_are_served(release: &str) {
    let Some(all) = schema(release, false) else {
        println!("skipped: no API schema beside the checkout");
        return;
    };
    let bed = populated(release).await;
    let mut missing = Vec::new();
    let mut served = 0;
    for e in all.iter().filter(|e| e["m"] == "GET") {
        let template = e["p"].as_str().unwrap();
        let mut path = placed(
            template,
            &[
                ("{groupid}", "g"),
                ("{realm}", "pam"),
                ("{service}", "sshd"),
                ("{iface}", "vmbr0"),
                ("{zone}", "z1"),
                ("{vnet}", "v1"),
                ("{name}", "rpool"),
                ("{pos}", "0"),
                ("/notifications/endpoints/{name}", "/notifications/endpoints"),
            ],
        );
        path = path.replace("{pci-id-or-mapping}", "0000:01:00.0");
        let last = path.rsplit('/').next().unwrap_or_default().to_owned();
        if last.starts_with('{') {
            path = path.replace(&last, "b1");
        }
        if let Some(needs) = e["par"]["properties"].as_object() {
            let wanted = needs.iter().filter(|(k, p)| p["optional"] != 1 && !template.contains(&format!("{{{k}}}")));
            let given: Vec<String> = wanted
                .map(|(k, p)| match p["enum"][0].as_str() {
                    Some(first) => format!("{k}={first}"),
                    None => format!("{k}={}", if p["type"] == "integer" { "1" } else { "pve" }),
                })
                .collect();
            if !given.is_empty() {
                path = format!("{path}?{}", given.join("&"));
            }
        }
        let a = bed.call("GET", &path, None).await;
        if a.code != 501 {
            served += 1;
        } else if !NOT_SERVED.iter().any(|n| template.contains(n)) {
            missing.push(format!("{template} ({path})"));
        }
    }
    println!("{release}: {served} reading methods of the whole schema are served");
    assert!(missing.is_empty(), "{release}: nobody named these as not served:\n{}", missing.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_may_read_what_the_schema_of_9_1_has() {
    reads_are_served("9.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_may_read_what_the_schema_of_8_4_has() {
    reads_are_served("8.4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_fit_the_schema_of_9_1() {
    answers_fit("9.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_fit_the_schema_of_8_4() {
    answers_fit("8.4").await;
}
