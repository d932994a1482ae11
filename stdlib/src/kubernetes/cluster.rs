//! The handle of a cluster: where its API servers are, who we are there, and how a request gets through.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use super::again::{self, Miss};
use super::kinds::{Kind, builtin};
use super::rest::{Reply, Request};
use crate::core::ctx::Ctx;
use crate::core::error::{OpError, OpResult};
use crate::core::units::Secret;

/// Header by which the lab knows a client that shares its clock.
const CLOCK_HEADER: &str = "x-gpuhost-clock";

/// A Kubernetes cluster. Cheap to clone; prints without secrets.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    name: String,
    kubeconfig: Secret,
    servers: Vec<(String, u16)>,
    current: AtomicUsize,
    clients: Mutex<BTreeMap<String, kube::Client>>,
    kinds: Mutex<Vec<Kind>>,
    join: Mutex<Option<Arc<crate::k3s::Join>>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster `{}`", self.0.name)
    }
}

impl Cluster {
    /// A cluster reached at `servers` (first answer wins) with the credentials of `kubeconfig`.
    #[must_use]
    pub fn new(name: impl Into<String>, kubeconfig: Secret, servers: Vec<(String, u16)>) -> Self {
        Cluster(Arc::new(Inner {
            name: name.into(),
            kubeconfig,
            servers,
            current: AtomicUsize::new(0),
            clients: Mutex::new(BTreeMap::new()),
            kinds: Mutex::new(builtin()),
            join: Mutex::new(None),
        }))
    }

    /// Name of the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> Secret {
        self.0.kubeconfig.clone()
    }

    /// Hosts and ports of its API servers.
    pub(super) fn servers(&self) -> &[(String, u16)] {
        &self.0.servers
    }

    /// What a node needs to join.
    #[must_use]
    pub fn join(&self) -> Option<Arc<crate::k3s::Join>> {
        self.0.join.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets what a node needs to join.
    pub fn set_join(&self, join: crate::k3s::Join) {
        *self.0.join.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(join));
    }

    /// A kind known so far.
    pub(super) fn known_kind(&self, fits: impl Fn(&Kind) -> bool) -> Option<Kind> {
        self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|k| fits(k)).cloned()
    }

    /// All kinds known so far.
    pub(super) fn known_kinds(&self) -> Vec<Kind> {
        self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers kinds.
    pub(super) fn learn_kinds(&self, found: Vec<Kind>) {
        let mut kinds = self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        for k in found {
            if !kinds.contains(&k) && !kinds.iter().any(|o| o.kind == k.kind && o.api_version() == k.api_version()) {
                kinds.push(k);
            }
        }
    }

    /// Sends a request to the server that answered last, else to the next one that answers; reads and applies again when
    /// none did.
    ///
    /// # Errors
    /// `unreachable` with what each server said.
    pub async fn send(&self, ctx: &Ctx, request: &Request) -> OpResult<Reply> {
        let what = format!("{} {}", request.method, request.path.split('?').next().unwrap_or_default());
        let worth = |m: &Miss| again::is_worth_it(ctx, request, m);
        let sent = ctx.retry(self.name(), &what, worth, || async {
            match self.send_once(ctx, request).await {
                Ok(reply) if again::is_busy(request, &reply) => Err(Miss::Busy(reply)),
                Ok(reply) => Ok(reply),
                Err(e) => Err(Miss::Lost(Box::new(e))),
            }
        });
        match sent.await {
            Ok(reply) | Err(Miss::Busy(reply)) => Ok(reply),
            Err(Miss::Lost(e)) => Err(*e),
        }
    }

    async fn send_once(&self, ctx: &Ctx, request: &Request) -> OpResult<Reply> {
        let n = self.0.servers.len();
        let first = self.0.current.load(Ordering::Relaxed);
        let mut said = Vec::new();
        for i in 0..n {
            let at = (first + i) % n;
            match self.send_to(ctx, at, request).await {
                Ok(reply) => {
                    self.0.current.store(at, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(e) => {
                    let text = e.causes.last().cloned().unwrap_or_else(|| e.message.clone());
                    said.push(format!("{}:{}: {text}", self.0.servers[at].0, self.0.servers[at].1));
                    // a create that may have arrived must not be sent twice
                    if request.method == http::Method::POST && !text.contains("onnect") {
                        break;
                    }
                }
            }
        }
        let mut e = OpError::unreachable("no API server of the cluster answers").on(self.name());
        e.causes = said;
        Err(e.hint("look at a server: `systemctl status k3s` and `journalctl -u k3s -n 50`"))
    }

    /// Sends a request to one server.
    async fn send_to(&self, ctx: &Ctx, at: usize, request: &Request) -> OpResult<Reply> {
        let client = self.client(ctx, at).await?;
        let mut b = http::Request::builder().method(request.method.clone()).uri(&request.path);
        b = b.header(ACCEPT, "application/json");
        if !request.content_type.is_empty() {
            b = b.header(CONTENT_TYPE, request.content_type);
        }
        let http = b
            .body(Body::from(request.body.clone()))
            .map_err(|e| OpError::invalid(format!("`{}` is not a path", request.path)).because(e.to_string()))?;
        let lost = |e: &dyn std::error::Error| OpError::unreachable("the request was lost").because(chain(e));
        let answer = client.send(http).await.map_err(|e| lost(&e))?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect_bytes().await.map_err(|e| lost(&e))?;
        if request.method != http::Method::GET {
            ctx.edge();
        }
        Ok(Reply { status, body: body.to_vec() })
    }

    /// The client of one server. A route that moved (a restarted lab guest) gets a new client.
    async fn client(&self, ctx: &Ctx, at: usize) -> OpResult<kube::Client> {
        let (host, port) = self.0.servers.get(at).ok_or_else(|| OpError::invalid("the cluster has no server"))?;
        self.client_for(ctx, host, host, *port).await
    }

    /// A client that connects to `host` and demands a certificate for `name`.
    async fn client_for(&self, ctx: &Ctx, name: &str, host: &str, port: u16) -> OpResult<kube::Client> {
        let (host, port) = ctx.dialer.resolve(host, port)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let url = format!("https://{host}:{port}");
        let key = format!("{url} as {name}");
        if let Some(c) = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(c.clone());
        }
        let client = make_client(&self.0.kubeconfig, &url, name, ctx.lab).await.map_err(|e| e.on(self.name()))?;
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(key, client.clone());
        Ok(client)
    }

    /// The kubeconfig for a program of this machine: at the place where the server that answered last really is.
    ///
    /// # Errors
    /// `unreachable` when nothing listens there; `invalid` for a kubeconfig that cannot be read.
    pub fn reachable_kubeconfig(&self, ctx: &Ctx) -> OpResult<Secret> {
        let (name, port) = self.0.servers[self.0.current.load(Ordering::Relaxed)].clone();
        let (host, port) = ctx.dialer.resolve(&name, port)?;
        let bad = |e: String| OpError::invalid("the kubeconfig cannot be read").because(e);
        let mut k: Value = serde_saphyr::from_str(self.0.kubeconfig.reveal()).map_err(|e| bad(e.to_string()))?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        k["clusters"][0]["cluster"]["server"] = format!("https://{host}:{port}").into();
        k["clusters"][0]["cluster"]["tls-server-name"] = name.into();
        Ok(Secret::new(serde_saphyr::to_string(&k).map_err(|e| bad(e.to_string()))?))
    }

    /// Proves that the API servers' certificates are valid for `address`, whichever way they are reached.
    ///
    /// # Errors
    /// `invalid` when they are not; `unreachable` when no server answers.
    pub async fn prove_address(&self, ctx: &Ctx, address: &str) -> OpResult<()> {
        self.send(ctx, &Request::get("/version")).await?;
        let (host, port) = self.0.servers[self.0.current.load(Ordering::Relaxed)].clone();
        let client = self.client_for(ctx, address, &host, port).await?;
        let request = http::Request::get("/version").body(Body::from(Vec::new()));
        let request = request.map_err(|e| OpError::invalid("the address cannot be asked").because(e.to_string()))?;
        match client.send(request).await {
            Ok(_) => Ok(()),
            Err(e) => {
                let why = chain(&e);
                Err(OpError::invalid(format!("the API server's certificate is not valid for `{address}`"))
                    .on(self.name())
                    .because(why)
                    .hint(format!(
                        "add \"{address}\" to `tls_san` in the [k3s] section and run the deploy recipe again"
                    )))
            }
        }
    }

    /// The client of the server that answered last; asks for one that answers first.
    pub(super) async fn current_client(&self, ctx: &Ctx) -> OpResult<kube::Client> {
        self.send(ctx, &Request::get("/version")).await?;
        self.client(ctx, self.0.current.load(Ordering::Relaxed)).await
    }

    /// Reads JSON from a path.
    ///
    /// # Errors
    /// `unreachable`, or the server's refusal.
    pub async fn read_json(&self, ctx: &Ctx, path: &str) -> OpResult<Value> {
        let reply = self.send(ctx, &Request::get(path)).await?;
        if reply.ok() { reply.parsed(path) } else { Err(reply.error(path)) }
    }

    /// Sends a request whose refusal is an error on `target`.
    ///
    /// # Errors
    /// `unreachable`, or the server's refusal.
    pub async fn demand(&self, ctx: &Ctx, target: &str, request: &Request) -> OpResult<Value> {
        let reply = self.send(ctx, request).await?;
        if reply.ok() { reply.parsed(target) } else { Err(reply.error(target)) }
    }

    /// Asks each server by itself: `(host, text of the answer or of the failure, granted)`.
    pub async fn ask_each(&self, ctx: &Ctx, path: &str) -> Vec<(String, String, bool)> {
        let mut out = Vec::new();
        for (at, (host, _)) in self.0.servers.iter().enumerate() {
            out.push(match self.send_to(ctx, at, &Request::get(path)).await {
                Ok(r) => (host.clone(), r.text(), r.ok()),
                Err(e) => (host.clone(), e.causes.last().cloned().unwrap_or(e.message), false),
            });
        }
        out
    }
}

async fn make_client(kubeconfig: &Secret, url: &str, name: &str, lab: bool) -> OpResult<kube::Client> {
    let bad = |e: &dyn std::error::Error| OpError::invalid("the kubeconfig cannot be used").because(chain(e));
    let parsed = Kubeconfig::from_yaml(kubeconfig.reveal()).map_err(|e| bad(&e))?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(parsed, &options).await.map_err(|e| bad(&e))?;
    config.cluster_url = url.parse().map_err(|e: http::uri::InvalidUri| bad(&e))?;
    // wherever the connection really goes: the certificate has to be the server's own
    config.tls_server_name = Some(name.to_owned());
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(120));
    config.default_retry = false;
    if lab {
        config.headers.push((HeaderName::from_static(CLOCK_HEADER), HeaderValue::from_static("shared")));
    }
    kube::Client::try_from(config).map_err(|e| bad(&e))
}

/// An error with its sources in one line.
fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut source = e.source();
    while let Some(s) = source {
        let text = s.to_string();
        if !out.contains(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        source = s.source();
    }
    out
}
