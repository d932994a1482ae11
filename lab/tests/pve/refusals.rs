//! Refusals in the server's words, authentication, rights.
use serde_json::json;

use crate::bed::Bed;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_401_takes_three_seconds_and_has_no_body() {
    let bed = Bed::start().await;
    let t0 = bed.lab.clock().now_ms();
    let a = bed.token("gpuhost@pve!deploy", "wrong").call("GET", "/version", None).await;
    assert_eq!((a.code, a.body), (401, json!("")));
    assert_eq!(bed.lab.clock().now_ms() - t0, 3000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_come_in_the_servers_words() {
    let bed = Bed::start().await;
    for (method, path, body, code, message) in [
        (
            "GET",
            "/nodes/ghost/qemu",
            None,
            500,
            "hostname lookup 'ghost' failed - failed to get address info for: ghost: Temporary failure in name resolution",
        ),
        (
            "GET",
            "/nodes/pve1/qemu/4444/config",
            None,
            500,
            "Configuration file 'nodes/pve1/qemu-server/4444.conf' does not exist",
        ),
        ("GET", "/nodes/pve1/storage/ghost/content", None, 500, "storage 'ghost' does not exist"),
        (
            "POST",
            "/nodes/pve1/qemu",
            Some(json!({ "vmid": 500, "args": "-foo" })),
            500,
            "only root can set 'args' config",
        ),
        (
            "POST",
            "/nodes/pve1/qemu",
            Some(json!({ "vmid": 500, "hostpci0": "0000:01:00.0" })),
            500,
            "only root can set 'hostpci0' config for non-mapped devices",
        ),
        (
            "POST",
            "/nodes/pve1/qemu",
            Some(json!({ "vmid": 100 })),
            500,
            "unable to create VM 100 - VM 100 already exists on node 'pve1'",
        ),
        (
            "PUT",
            "/nodes/pve1/qemu/100/config",
            Some(json!({ "vmid": 100, "node": "pve1" })),
            500,
            "no options specified",
        ),
        (
            "PUT",
            "/nodes/pve1/qemu/100/config",
            Some(json!({ "vmid": 101, "cores": 2 })),
            400,
            "Parameter verification failed.",
        ),
        (
            "PUT",
            "/nodes/pve1/qemu/100/config",
            Some(json!({ "name": "x", "digest": "0000000000000000000000000000000000000000" })),
            500,
            "checksum mismatch (file change by other user?)",
        ),
        (
            "PUT",
            "/pools",
            Some(json!({ "poolid": "nope", "comment": "x" })),
            500,
            "update pools failed: pool 'nope' does not exist",
        ),
        ("DELETE", "/nodes/pve1/qemu/100", None, 500, "VM 100 is running - destroy failed"),
        ("POST", "/nodes/pve1/qemu/100/agent/ping", None, 500, "No QEMU guest agent configured"),
        (
            "PUT",
            "/storage/local",
            Some(json!({ "content": "iso" })),
            403,
            "Permission check failed (/storage, Datastore.Allocate)",
        ),
    ] {
        let a = bed.call(method, path, body).await;
        assert_eq!((a.code, a.message()), (code, message), "{method} {path}");
    }
    let a =
        bed.call("POST", "/nodes/pve1/qemu", Some(json!({ "vmid": 500, "cores": 0, "bios": "efi", "frob": 1 }))).await;
    assert_eq!(a.code, 400);
    assert_eq!(a.body["errors"].as_object().unwrap().keys().collect::<Vec<_>>(), ["bios", "cores", "frob"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_rights_sees_nothing_but_learns_that_an_id_is_taken() {
    let bed = Bed::start().await;
    bed.lab.with(|w| {
        let u = w.pve.access.users.get_mut("gpuhost@pve").unwrap();
        let t = gpuhost_lab::pve::state::Token { secret: "s".into(), privsep: true, ..Default::default() };
        u.tokens.insert("none".into(), t);
    });
    let none = bed.token("gpuhost@pve!none", "s");
    assert_eq!(none.get("/cluster/resources?type=vm").await, json!([]));
    assert_eq!(none.get("/access/permissions").await, json!({}));
    assert_eq!(none.call("GET", "/cluster/nextid?vmid=100", None).await.code, 400);
    let a = none.call("GET", "/nodes/pve1/qemu/100/config", None).await;
    assert_eq!((a.code, a.message()), (403, "Permission check failed (/vms/100, VM.Audit)"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_a_lock() {
    let bed = Bed::start().await;
    let lock = json!({ "poolid": "gpuhost-homelab-lock-1", "comment": "alice" });
    bed.call("POST", "/pools", Some(lock.clone())).await.data();
    let a = bed.call("POST", "/pools", Some(lock)).await;
    assert_eq!(a.message(), "create pool failed: pool 'gpuhost-homelab-lock-1' already exists");
    assert_eq!(bed.get("/pools?poolid=gpuhost-homelab-lock-1").await[0]["comment"], "alice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_8_has_its_own_privileges_and_envelope() {
    let mut spec = gpuhost_lab::spec::Spec::homelab().unwrap();
    spec.pve_version = "8.4".into();
    let bed = Bed::with(spec).await;
    assert_eq!(bed.get("/version").await["release"], "8.4");
    let mine = bed.get("/access/permissions?path=/vms").await;
    assert_eq!(mine["/vms"]["VM.Monitor"], 1);
    assert_eq!(mine["/vms"]["VM.GuestAgent.Audit"], json!(null));
    let a = bed.call("PUT", "/nodes/pve1/qemu/100/config", Some(json!({ "cores": 0 }))).await;
    assert_eq!((a.code, &a.body["message"]), (400, &json!(null)), "8.x leaves `message` out of 400");
    assert_eq!(a.body["errors"]["cores"], "value must have a minimum value of 1");
}
