//! What stands around machines: packages, disks and journal of nodes, firewalls, mappings, metric servers.
use gpuhost_lab::spec::Spec;
use serde_json::{Value, json};

use crate::bed::Bed;

async fn root(release: &str) -> Bed {
    let spec = Spec { pve_version: release.to_owned(), token_id: "root@pam!lab".into(), ..Spec::homelab().unwrap() };
    let bed = Bed::with(spec).await;
    bed.lab.with(|w| w.pve.access.users.get_mut("root@pam").unwrap().tokens.get_mut("lab").unwrap().privsep = false);
    bed
}

fn names(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|v| v[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_its_packages_disks_and_abilities() {
    for (release, suite) in [("9.1", "trixie"), ("8.4", "bookworm")] {
        let bed = root(release).await;
        let versions = bed.get("/nodes/pve1/apt/versions").await;
        let manager = versions.as_array().unwrap().iter().find(|p| p["Package"] == "pve-manager").unwrap();
        assert!(manager["Version"].as_str().unwrap().starts_with(&release[..1]), "{manager}");
        let (exit, log) = bed.task("POST", "/nodes/pve1/apt/update", None).await;
        assert!(exit == "OK" && log.iter().any(|l| l.contains(suite)), "{exit} {log:?}");

        // A repository is switched on, guarded by the digest of what was read.
        let repos = bed.get("/nodes/pve1/apt/repositories").await;
        let state = |r: &Value, handle: &str| {
            r["standard-repos"].as_array().unwrap().iter().find(|s| s["handle"] == handle).unwrap()["status"].clone()
        };
        assert_eq!((state(&repos, "enterprise"), state(&repos, "test")), (json!(0), Value::Null));
        let put = json!({ "handle": "enterprise", "digest": repos["digest"] });
        bed.call("PUT", "/nodes/pve1/apt/repositories", Some(put.clone())).await.data();
        let again = bed.call("PUT", "/nodes/pve1/apt/repositories", Some(put)).await;
        assert!(again.message().contains("detected modified configuration"), "{}", again.body);
        let repos = bed.get("/nodes/pve1/apt/repositories").await;
        assert_eq!(state(&repos, "enterprise"), 1);
        let file =
            repos["files"].as_array().unwrap().iter().find(|f| f["path"].as_str().unwrap().contains("enterprise"));
        let off = json!({ "path": file.unwrap()["path"], "index": 0, "enabled": 0 });
        bed.call("POST", "/nodes/pve1/apt/repositories", Some(off)).await.data();
        assert_eq!(state(&bed.get("/nodes/pve1/apt/repositories").await, "enterprise"), 0);
        let bad = json!({ "path": "/etc/nothing", "index": 0 });
        assert_eq!(bed.call("POST", "/nodes/pve1/apt/repositories", Some(bad)).await.code, 500);

        let disks = bed.get("/nodes/pve1/disks/list").await;
        assert!(disks.as_array().unwrap().iter().any(|d| d["used"] == "ZFS"), "{disks}");
        assert_eq!(bed.get("/nodes/pve1/disks/list?type=unused").await, json!([]));
        assert_eq!(names(&bed.get("/nodes/pve1/disks/zfs").await, "name"), ["rpool"]);
        assert_eq!(bed.get("/nodes/pve1/disks/smart?disk=/dev/nvme0n1&healthonly=1").await["health"], "PASSED");
        assert_eq!(names(&bed.get("/nodes/pve1/scan/zfs").await, "pool"), ["rpool", "rpool/data"]);

        let cpus = names(&bed.get("/nodes/pve1/capabilities/qemu/cpu").await, "name");
        assert!(cpus.contains(&"host".to_owned()) && cpus.contains(&"x86-64-v2-AES".to_owned()));
        let machines = bed.get("/nodes/pve1/capabilities/qemu/machines").await;
        assert_eq!(machines[1]["type"], "q35");
        let migration = bed.call("GET", "/nodes/pve1/capabilities/qemu/migration", None).await;
        assert_eq!(migration.code, if release == "9.1" { 200 } else { 501 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_journal_is_read_from_cursor_to_cursor() {
    let bed = root("9.1").await;
    bed.done("POST", "/nodes/pve1/apt/update", None).await;
    let all = bed.get("/nodes/pve1/journal?lastentries=2").await;
    let lines: Vec<&str> = all.as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    assert_eq!(lines.len(), 4, "two lines between two cursors: {lines:?}");
    assert!(lines[1].contains("starting task UPID:pve1:") && lines[2].contains("aptupdate"), "{lines:?}");
    let end = lines[3].to_owned();
    let after = format!("/nodes/pve1/journal?startcursor={}", end.replace(';', "%3B").replace('=', "%3D"));
    assert_eq!(bed.get(&after).await, json!([end, end]), "nothing new");
    bed.done("POST", "/nodes/pve1/apt/update", None).await;
    assert_eq!(bed.get(&after).await.as_array().unwrap().len(), 4);
    assert!(bed.get("/nodes/pve1/syslog?limit=5").await.as_array().unwrap().len() <= 5);
    // Without the right it says so.
    bed.lab.with(|w| w.pve.access.acl.clear());
    let spec = json!({ "comment": "x" });
    let made = bed.call("POST", "/access/users/root@pam/token/plain", Some(spec)).await.data();
    let plain = bed.token("root@pam!plain", made["value"].as_str().unwrap());
    let refused = plain.call("GET", "/nodes/pve1/journal", None).await;
    assert_eq!((refused.code, refused.message()), (403, "Permission check failed (/nodes/pve1, Sys.Syslog)"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aliases_and_sets_of_a_machine_are_its_own() {
    let bed = root("9.1").await;
    bed.done("POST", "/nodes/pve1/qemu", Some(json!({ "vmid": 300, "name": "n", "memory": 512 }))).await;
    let own = "/nodes/pve1/qemu/300/firewall";
    for place in [own, "/cluster/firewall"] {
        let alias = json!({ "name": "Home", "cidr": "10.0.0.0/24", "comment": "c" });
        bed.call("POST", &format!("{place}/aliases"), Some(alias.clone())).await.data();
        let twice = bed.call("POST", &format!("{place}/aliases"), Some(alias)).await;
        assert_eq!((twice.code, &twice.body["errors"]["name"]), (400, &json!("alias 'home' already exists")));
        let renamed = json!({ "cidr": "10.0.1.0/24", "rename": "away" });
        bed.call("PUT", &format!("{place}/aliases/home"), Some(renamed)).await.data();
        let list = bed.get(&format!("{place}/aliases")).await;
        assert_eq!((names(&list, "name"), names(&list, "cidr")), (vec!["away".into()], vec!["10.0.1.0/24".into()]));
        assert!(list[0].get("rename").is_none(), "{list}");

        bed.call("POST", &format!("{place}/ipset"), Some(json!({ "name": "lan" }))).await.data();
        bed.call("POST", &format!("{place}/ipset/lan"), Some(json!({ "cidr": "10.0.0.0/24" }))).await.data();
        assert_eq!(names(&bed.get(&format!("{place}/ipset/lan")).await, "cidr"), ["10.0.0.0/24"]);
        let full = bed.call("DELETE", &format!("{place}/ipset/lan"), None).await;
        assert_eq!(full.message(), "IPSet 'lan' is not empty");
        bed.call("DELETE", &format!("{place}/ipset/lan/10.0.0.0%2F24"), None).await.data();
    }
    assert_eq!(
        names(&bed.get(&format!("{own}/refs")).await, "ref"),
        ["dc/away", "+dc/lan", "guest/away", "+guest/lan"]
    );
    bed.done("DELETE", "/nodes/pve1/qemu/300", None).await;
    bed.done("POST", "/nodes/pve1/qemu", Some(json!({ "vmid": 300, "name": "n", "memory": 512 }))).await;
    assert_eq!(bed.get(&format!("{own}/aliases")).await, json!([]), "a new machine of that id has none of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mappings_metric_servers_and_lists_of_the_cluster() {
    let bed = root("9.1").await;
    let stick = json!({ "id": "stick", "map": ["node=pve1,id=0951:1666"], "description": "d" });
    bed.call("POST", "/cluster/mapping/usb", Some(stick.clone())).await.data();
    assert!(bed.call("POST", "/cluster/mapping/usb", Some(stick)).await.message().contains("already defined"));
    let bad = bed.call("POST", "/cluster/mapping/dir", Some(json!({ "id": "dd", "map": ["node=pve1"] }))).await;
    assert!(bad.body["errors"]["map[0]"].as_str().unwrap().contains("path: property is missing"), "{}", bad.body);
    assert_eq!(names(&bed.get("/cluster/mapping/usb").await, "id"), ["stick"]);

    let server = json!({ "type": "influxdb", "server": "10.0.0.5", "port": 8089, "token": "secret" });
    bed.call("POST", "/cluster/metrics/server/mm", Some(server.clone())).await.data();
    assert_eq!(bed.call("POST", "/cluster/metrics/server/mm", Some(server)).await.code, 500);
    let shown = bed.get("/cluster/metrics/server/mm").await;
    assert!(shown["port"] == 8089 && shown.get("token").is_none(), "{shown}");
    let short = bed.call("POST", "/cluster/metrics/server/nn", Some(json!({ "type": "graphite" }))).await;
    assert_eq!(short.body["errors"].as_object().unwrap().len(), 2, "all that is missing at once: {}", short.body);
    let figures = bed.get("/cluster/metrics/export").await;
    assert!(figures["data"].as_array().unwrap().iter().any(|f| f["id"] == "node/pve1" && f["metric"] == "cpu_current"));

    for id in [300, 301] {
        let vm = json!({ "vmid": id, "name": format!("n{id}"), "memory": 512 });
        bed.done("POST", "/nodes/pve1/qemu", Some(vm)).await;
    }
    bed.done("POST", "/cluster/bulk-action/guest/start", Some(json!({ "vms": [300, 301] }))).await;
    bed.sleep(30_000).await;
    for id in [300, 301] {
        assert_eq!(bed.get(&format!("/nodes/pve1/qemu/{id}/status/current")).await["status"], "running");
    }
    assert_eq!(names(&bed.get("/nodes/pve1/sdn/zones/localnetwork/content").await, "vnet"), ["vmbr0"]);
    let none = bed.call("POST", "/nodes/pve1/wakeonlan", Some(json!({}))).await;
    assert!(none.message().contains("No wake on LAN MAC address defined"), "{}", none.body);
    let ceph = bed.call("GET", "/nodes/pve1/ceph/status", None).await;
    assert_eq!((ceph.code, ceph.message()), (500, "binary not installed: /usr/bin/ceph-mon"));
}
