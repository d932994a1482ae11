//! A bare control plane and a client that speaks to its handlers without a socket.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use gpuhost_lab::kube::api::auth::User;
use gpuhost_lab::kube::api::route::Query;
use gpuhost_lab::kube::api::{self, Request};
use gpuhost_lab::kube::bare;
use gpuhost_lab::spec::Spec;
use gpuhost_lab::world::World;
use gpuhost_lab::{Client, Lab, RouteSink};
use gpuhost_stdlib::core::clock::Mode;
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// Where the servers of a bed listen.
#[derive(Default)]
pub struct Places(Mutex<BTreeMap<String, SocketAddr>>);
impl RouteSink for Places {
    fn up(&self, addr: &str, at: SocketAddr) {
        self.0.lock().unwrap().insert(addr.to_owned(), at);
    }
    fn down(&self, addr: &str) {
        self.0.lock().unwrap().remove(addr);
    }
}
#[allow(dead_code)] // for the bench, which serves the API
impl Places {
    pub fn get(&self, addr: &str) -> Option<SocketAddr> {
        self.0.lock().unwrap().get(addr).copied()
    }
}

/// Makes an object that the API has to take; gives it back as it is then.
#[allow(dead_code)] // for the bench, which makes its own
pub async fn made(bed: &Bed, path: &str, body: Value) -> Value {
    let a = bed.post(path, body).await;
    assert_eq!(a.code, 201, "{path}: {}", a.text);
    a.body
}

/// What the API answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
    pub text: String,
    pub warnings: Vec<String>,
    pub headers: BTreeMap<String, String>,
}

impl Answer {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

#[derive(Clone)]
pub struct Bed {
    pub lab: Lab,
    pub cluster: String,
    #[allow(dead_code)] // for the bench
    pub places: Arc<Places>,
    _dir: Arc<tempfile::TempDir>,
}

impl Bed {
    /// Time moves only when a test says so.
    pub async fn still() -> Bed {
        Bed::with(Mode::Explicit).await
    }

    /// Time jumps to whatever comes next.
    pub async fn running() -> Bed {
        Bed::with(Mode::Instant).await
    }

    /// Lets the cluster be of a version (`v1.36.2+k3s1`).
    pub fn version(&self, version: &str) {
        self.lab.with(|w| w.clusters.get_mut(&self.cluster).unwrap().version = version.to_owned());
    }

    async fn with(mode: Mode) -> Bed {
        rustls::crypto::ring::default_provider().install_default().ok();
        let world = World::new(&Spec::homelab().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let places = Arc::new(Places::default());
        let lab = Lab::start(world, dir.path(), mode, places.clone()).await.unwrap();
        let cluster = bare::cluster(&lab);
        Bed { lab, cluster, places, _dir: Arc::new(dir) }
    }

    pub async fn send(&self, method: &str, path: &str, kind: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let header =
            |name: &str| headers.iter().find(|h| h.0.eq_ignore_ascii_case(name)).map_or("", |h| h.1).to_owned();
        let req = Request {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            query: Query::parse(query),
            accept: header("accept"),
            content_type: api::media_type(kind).to_owned(),
            agent: Some(header("user-agent")).filter(|a| !a.is_empty()).unwrap_or("python-urllib3/2.5.0".to_owned()),
            headers: headers.iter().map(|(k, v)| (k.to_lowercase(), (*v).to_owned())).collect(),
            body: body.into(),
            upgrade: None,
            client: Client::Foreign,
        };
        let admin = User {
            name: "admin".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
            ..User::default()
        };
        self.answer(admin, &req).await
    }

    async fn answer(&self, user: User, req: &Request) -> Answer {
        let r = api::handle(&self.lab, &self.cluster, 1, Some(user), req).await;
        let warnings = r.headers().get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
        let code = r.status().as_u16();
        let headers = r.headers().iter().map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_owned())).collect();
        let text = String::from_utf8_lossy(&r.into_body().collect().await.unwrap().to_bytes()).into_owned();
        Answer { code, body: serde_json::from_str(&text).unwrap_or_default(), text, warnings, headers }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", Vec::new(), &[]).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, "application/json", body.to_string().into_bytes(), &[]).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, "application/json", body.to_string().into_bytes(), &[]).await
    }

    /// `how` is `merge`, `json`, `strategic` or `apply`.
    pub async fn patch(&self, how: &str, path: &str, body: Value) -> Answer {
        let kind = match how {
            "merge" => "application/merge-patch+json",
            "json" => "application/json-patch+json",
            "strategic" => "application/strategic-merge-patch+json",
            _ => "application/apply-patch+yaml",
        };
        self.send("PATCH", path, kind, body.to_string().into_bytes(), &[]).await
    }

    pub async fn delete(&self, path: &str, options: Value) -> Answer {
        let body = if options.is_null() { Vec::new() } else { options.to_string().into_bytes() };
        self.send("DELETE", path, "application/json", body, &[]).await
    }

    /// A ConfigMap in `default`, for tests of the generic rules.
    pub async fn config_map(&self, name: &str, data: Value) -> Value {
        let a =
            self.post("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": name}, "data": data})).await;
        assert_eq!(a.code, 201, "{}", a.text);
        a.body
    }
}
