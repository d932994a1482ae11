//! Promise: `cleanup` takes away exactly what the site made, keeps data, and `verify` says what is missing.
#![allow(clippy::unwrap_used)] // a test stops at the first surprise
use gpuhost_tests::play::{Play, SMALL};
use gpuhost_tests::served::Served;
use reqwest::Method;
use serde_json::{Value, json};

/// The Proxmox API of a served lab, as its administrator sees it.
struct Admin {
    client: reqwest::Client,
    url: String,
    cookie: String,
    csrf: String,
}

impl Admin {
    async fn log_in(ready: &Value) -> Admin {
        rustls::crypto::ring::default_provider().install_default().ok();
        let text = |key: &str| ready["proxmox"][key].as_str().unwrap().to_owned();
        let ca = std::fs::read(text("ca_file")).unwrap();
        let client =
            reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()]).build().unwrap();
        let form = [("username", text("user")), ("password", text("password"))];
        let url = format!("{}/api2/json", text("url"));
        let answer: Value =
            client.post(format!("{url}/access/ticket")).form(&form).send().await.unwrap().json().await.unwrap();
        let part = |key: &str| answer["data"][key].as_str().unwrap().to_owned();
        Admin { client, url, cookie: format!("PVEAuthCookie={}", part("ticket")), csrf: part("CSRFPreventionToken") }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let mut r = self.client.request(method.clone(), format!("{}{path}", self.url));
        r = r.header("Cookie", &self.cookie).header("CSRFPreventionToken", &self.csrf);
        if method != Method::GET {
            r = r.json(&body);
        }
        let answer = r.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_default();
        assert!(status.is_success(), "{method} {path}: {status} {body}");
        body["data"].clone()
    }

    /// Starts a task and waits for its end.
    async fn task(&self, path: &str, body: Value) {
        let upid = self.call(Method::POST, path, body).await;
        let upid = upid.as_str().unwrap();
        loop {
            let s = self.call(Method::GET, &format!("/nodes/pve1/tasks/{upid}/status"), json!({})).await;
            if s["status"] == "stopped" {
                assert_eq!(s["exitstatus"], "OK", "{path}: {s}");
                return;
            }
        }
    }

    async fn machines(&self) -> Vec<u64> {
        let all = self.call(Method::GET, "/nodes/pve1/qemu", json!({})).await;
        let mut ids: Vec<u64> = all.as_array().unwrap().iter().map(|v| v["vmid"].as_u64().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    async fn configs(&self, ids: &[u64]) -> Vec<Value> {
        let mut out = Vec::new();
        for id in ids {
            out.push(self.call(Method::GET, &format!("/nodes/pve1/qemu/{id}/config"), json!({})).await);
        }
        out
    }
}

/// What others put beside the site's machines.
const FOREIGN: &[u64] = &[100, 777, 778, 779];

async fn intrude(pve: &Admin) {
    // A clone made in the web interface: name, description and tags are those of a machine of ours.
    pve.task("/nodes/pve1/qemu/502/clone", json!({ "newid": 777, "full": 1, "name": "muscle-a" })).await;
    // A machine of another site with the same name as one of ours.
    let marker = "<!-- gpuhost {\"v\":1,\"site\":\"99999999-52ad-4f7a-9f55-0d1f4f6b2c77\",\"node\":\"muscle-b\",\
                  \"vmid\":778,\"id\":\"75c2dcdd1117\"} -->";
    let other = json!({ "vmid": 778, "name": "muscle-b", "memory": "512", "description": marker, "tags": "gpuhost" });
    pve.task("/nodes/pve1/qemu", other).await;
    // A plain machine with one of our names, in our pool.
    let plain = json!({ "vmid": 779, "name": "brain", "memory": "512", "pool": "gpuhost-attic" });
    pve.task("/nodes/pve1/qemu", plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_removes_what_is_ours_and_nothing_else() {
    let p = Play::deployed();
    let lab = Served::at(&p.b, &p.b.path("state"), SMALL, &[]);
    let pve = Admin::log_in(&lab.ready).await;
    intrude(&pve).await;
    let before = pve.configs(FOREIGN).await;

    let again = p.recipe("recipes/deploy.rhai", &[]).expect(0);
    assert_eq!(again.finished()["changed"], 0, "{}", again.stdout);
    assert_eq!(again.said("warn"), [""; 0], "a second deploy warns of nothing");

    // Nobody to ask, or the wrong name: refused, after saying what it is about.
    for more in [&[][..], &["--yes=other"]] {
        let refused = p.recipe("recipes/cleanup.rhai", more).expect(4);
        assert!(refused.stdout.contains("muscle-a") && refused.stdout.contains("504"), "{}", refused.stdout);
        assert_eq!(refused.finished()["changed"], 0);
    }
    assert_eq!(pve.machines().await, [100, 501, 502, 503, 504, 777, 778, 779, 800]);

    let kept = p.recipe("recipes/cleanup.rhai", &["--yes"]).expect(0);
    let printed = kept.said("print");
    let listed = |what: &str| printed.iter().any(|t| t.contains(what));
    assert!(listed("kept: ") && listed("50G") && listed("shelf"), "{printed:#?}");
    assert!(!listed("777") && !listed("778") && !listed("779"), "{printed:#?}");
    assert_eq!(pve.configs(FOREIGN).await, before, "what is not ours is as it was");
    let left = pve.machines().await;
    assert!(left.iter().all(|id| FOREIGN.contains(id) || *id == 10504), "{left:?}");

    let verify = p.recipe("recipes/verify.rhai", &[]).expect(3);
    assert_eq!((&verify.finished()["status"], &verify.finished()["exit"]), (&"failed".into(), &3.into()));
    for name in ["brain", "muscle-a", "muscle-b", "shelf"] {
        assert!(verify.stdout.contains(name), "{name} in {}", verify.stdout);
    }
    // What it says to type next leads to the lab.
    let text = p.b.run(&["run", "recipes/verify.rhai", "--lab", "--site", p.site()]).expect(3);
    for line in format!("{}\n{}", text.stdout, text.stderr).lines().filter(|l| l.contains("gpuhost run")) {
        assert!(line.contains("--lab"), "{line}");
    }

    let gone = p.recipe("recipes/cleanup.rhai", &["--yes", "--set", "delete_data=true"]).expect(0);
    assert!(gone.finished()["changed"].as_u64().unwrap() > 0);
    assert_eq!(pve.machines().await, FOREIGN);
    assert_eq!(pve.configs(FOREIGN).await, before, "what is not ours is as it was");
    let last = p.recipe("recipes/cleanup.rhai", &["--yes", "--set", "delete_data=true"]).expect(0);
    assert_eq!(last.finished()["changed"], 0, "{}", last.stdout);
    lab.stop();
}
