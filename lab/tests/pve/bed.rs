//! A lab and a plain HTTP client for it.
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use gpuhost_lab::spec::Spec;
use gpuhost_lab::world::World;
use gpuhost_lab::{Lab, RouteSink};
use gpuhost_stdlib::core::clock::Mode;
use serde_json::{Value, json};

use crate::pve_schema;

#[derive(Default)]
struct Seen(Mutex<Vec<(String, SocketAddr)>>);

impl RouteSink for Seen {
    fn up(&self, addr: &str, at: SocketAddr) {
        self.0.lock().unwrap().push((addr.to_owned(), at));
    }
    fn down(&self, addr: &str) {
        self.0.lock().unwrap().retain(|r| r.0 != addr);
    }
}

/// What the server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
}

impl Answer {
    pub fn data(self) -> Value {
        assert_eq!(self.code, 200, "{}", self.body);
        self.body["data"].clone()
    }
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default().trim_end()
    }
}

#[derive(Clone)]
pub struct Bed {
    pub lab: Lab,
    url: String,
    auth: String,
    http: reqwest::Client,
    record: Arc<Record>,
}

/// The traffic of a bed, held against the schemas when the bed is gone.
struct Record {
    dir: tempfile::TempDir,
}

impl Drop for Record {
    fn drop(&mut self) {
        let text = std::fs::read_to_string(self.dir.path().join("api.jsonl")).unwrap_or_default();
        let Some(verdict) = pve_schema::judge(&text).filter(|_| !std::thread::panicking()) else { return };
        let bad = verdict.bad.iter().cloned().collect::<Vec<_>>().join("\n");
        assert!(
            bad.is_empty(),
            "of {} exchanges with the Proxmox API these do not fit the schema:\n{bad}",
            verdict.seen
        );
    }
}

impl Bed {
    pub async fn start() -> Bed {
        Self::with(Spec::homelab().unwrap()).await
    }

    pub async fn with(spec: Spec) -> Bed {
        rustls::crypto::ring::default_provider().install_default().ok();
        let world = World::new(&spec).unwrap();
        let (secret, ca) = (world.token_secret(&spec.token_id).unwrap(), world.pve.ca.cert.clone());
        let dir = tempfile::tempdir().unwrap();
        let seen = Arc::new(Seen::default());
        let lab = Lab::start(world, dir.path(), Mode::Instant, seen.clone()).await.unwrap();
        lab.record_api(&dir.path().join("api.jsonl")).unwrap();
        let routes = seen.0.lock().unwrap().clone();
        let at = routes.iter().find(|r| r.0 == spec.api_addr).unwrap().1;
        let http = reqwest::Client::builder()
            .add_root_certificate(reqwest::Certificate::from_pem(ca.as_bytes()).unwrap())
            .build()
            .unwrap();
        Bed {
            lab,
            url: format!("https://127.0.0.1:{}/api2/json", at.port()),
            auth: format!("PVEAPIToken={}={secret}", spec.token_id),
            http,
            record: Arc::new(Record { dir }),
        }
    }

    /// Waits on the lab's clock: until nothing is busy and the time has come.
    pub async fn sleep(&self, ms: u64) {
        let _mark = self.lab.clock().busy_guard();
        self.lab.clock().sleep(std::time::Duration::from_millis(ms)).await;
    }

    /// What has been said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.record.dir.path().join("api.jsonl")).unwrap_or_default()
    }

    /// The same lab as another user.
    pub fn token(&self, full: &str, secret: &str) -> Bed {
        Bed { auth: format!("PVEAPIToken={full}={secret}"), ..self.clone() }
    }

    /// Where the API listens.
    pub fn port(&self) -> u16 {
        self.url.split([':', '/']).nth(4).unwrap().parse().unwrap()
    }

    /// `user@realm!name=secret`.
    pub fn secret(&self) -> &str {
        self.auth.strip_prefix("PVEAPIToken=").unwrap()
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let m = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut r = self.http.request(m, format!("{}{path}", self.url)).header("authorization", &self.auth);
        if let Some(b) = body {
            r = r.json(&b);
        }
        let r = r.send().await.unwrap();
        let code = r.status().as_u16();
        let text = r.text().await.unwrap();
        Answer { code, body: serde_json::from_str(&text).unwrap_or(json!(text)) }
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path, None).await.data()
    }

    /// Sends anything and answers `{status, headers, json, text}` as the recordings have them.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&'static str, String)],
        body: Option<Vec<u8>>,
        ctype: Option<String>,
    ) -> Value {
        let m = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut r = self.http.request(m, format!("https://127.0.0.1:{}{path}", self.port()));
        for (k, v) in headers {
            r = r.header(*k, v);
        }
        if let Some(t) = ctype {
            r = r.header("content-type", t);
        }
        if let Some(b) = body {
            r = r.body(b);
        }
        let r = r.send().await.unwrap();
        let reason = r.extensions().get::<hyper::ext::ReasonPhrase>().map(|p| p.as_bytes().to_vec());
        let plain = r.status().canonical_reason().unwrap_or_default().as_bytes().to_vec();
        let reason = String::from_utf8_lossy(&reason.unwrap_or(plain)).into_owned();
        let status = format!("HTTP/1.1 {} {reason}", r.status().as_u16());
        let names = ["Cache-Control", "Pragma", "Server", "Content-Type"];
        let header = |k: &str| r.headers().get(k).and_then(|v| v.to_str().ok()).map(|v| (k.to_owned(), json!(v)));
        let headers: serde_json::Map<String, Value> = names.iter().filter_map(|k| header(k)).collect();
        let text = r.text().await.unwrap();
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        json!({ "status": status, "headers": headers, "json": body, "text": text })
    }

    /// Sends a request that starts a task and waits for its end.
    pub async fn task(&self, method: &str, path: &str, body: Option<Value>) -> (String, Vec<String>) {
        let body = if method == "DELETE" { None } else { Some(body.unwrap_or(json!({}))) };
        let upid = self.call(method, path, body).await.data();
        let upid = upid.as_str().unwrap().to_owned();
        let node = upid.split(':').nth(1).unwrap().to_owned();
        loop {
            let s = self.get(&format!("/nodes/{node}/tasks/{upid}/status")).await;
            if s["status"] == "stopped" {
                let log = self.get(&format!("/nodes/{node}/tasks/{upid}/log?limit=0")).await;
                let lines = log.as_array().unwrap().iter().map(|l| l["t"].as_str().unwrap().to_owned()).collect();
                return (s["exitstatus"].as_str().unwrap().to_owned(), lines);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Like [`Bed::task`]; the task must succeed.
    pub async fn done(&self, method: &str, path: &str, body: Option<Value>) {
        let (exit, log) = self.task(method, path, body).await;
        assert_eq!(exit, "OK", "{method} {path}: {log:#?}");
    }

    /// Uploads a file.
    pub async fn upload(&self, content: &str, name: &str, bytes: &[u8]) -> Answer {
        let file = reqwest::multipart::Part::bytes(bytes.to_vec()).file_name(name.to_owned());
        let form = reqwest::multipart::Form::new().text("content", content.to_owned()).part("filename", file);
        let url = format!("{}/nodes/pve1/storage/local/upload", self.url);
        let r = self.http.post(url).header("authorization", &self.auth).multipart(form).send().await.unwrap();
        let code = r.status().as_u16();
        Answer { code, body: serde_json::from_str(&r.text().await.unwrap()).unwrap_or_default() }
    }
}
