//! Sockets of API servers: TLS on loopback, HTTP/1.1 and HTTP/2, one listener per K3s server.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::sync::CancellationToken;

use super::auth::User;
use super::route::Query;
use super::{Body, Request, handle};
use crate::pve::trouble::Cut;
use crate::tls::{self, Pair};
use crate::{Client, Lab};

struct Server {
    stop: CancellationToken,
    at: SocketAddr,
    addrs: Vec<String>,
}

/// The listeners of a lab, by guest. Not saved.
#[derive(Default)]
pub struct Servers(Mutex<BTreeMap<u32, Server>>);

impl Servers {
    /// Guests that serve an API.
    #[must_use]
    pub fn guests(&self) -> Vec<u32> {
        self.with(|m| m.keys().copied().collect())
    }

    /// Where the API server of a guest, or the one that answers at an address of the LAN (`10.0.0.10:6443`), listens.
    #[must_use]
    pub fn at(&self, vmid: Option<u32>, addr: &str) -> Option<SocketAddr> {
        self.with(|m| {
            let own = vmid.and_then(|id| m.get(&id));
            own.or_else(|| m.values().find(|s| s.addrs.iter().any(|a| a == addr))).map(|s| s.at)
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<u32, Server>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Starts the API server of guest `vmid` and announces it under `addrs` (`10.0.0.11:6443`). `leaf` is its
/// serving certificate, `client_ca` the CA of client certificates. May be called while the world is held.
///
/// # Errors
/// When no port can be bound or the certificate cannot be read.
pub fn listen(
    lab: &Lab,
    cluster: &str,
    vmid: u32,
    addrs: &[String],
    leaf: &Pair,
    client_ca: &str,
) -> std::io::Result<()> {
    stop(lab, vmid);
    let config = tls::server_config(leaf, Some(client_ca), &["h2", "http/1.1"])?;
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    socket.set_nonblocking(true)?;
    let at = socket.local_addr()?;
    let token = lab.stop_token().child_token();
    let server = Server { stop: token.clone(), at, addrs: addrs.to_vec() };
    lab.kube().api.with(|m| m.insert(vmid, server));
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let (task_lab, cluster) = (lab.clone(), cluster.to_owned());
    let _guard = lab.rt().enter();
    let socket = tokio::net::TcpListener::from_std(socket)?;
    lab.rt().spawn(async move {
        accept(task_lab, cluster, vmid, socket, acceptor, token).await;
    });
    for a in addrs {
        lab.route_up(a, at);
    }
    Ok(())
}

/// Ends the API server of a guest: its connections break, its addresses go down.
pub fn stop(lab: &Lab, vmid: u32) {
    if let Some(s) = lab.kube().api.with(|m| m.remove(&vmid)) {
        s.stop.cancel();
        for a in &s.addrs {
            lab.route_down(a);
        }
    }
}

/// Announces a further address (a virtual one) for the API server of a guest.
pub fn announce(lab: &Lab, vmid: u32, addr: &str) -> bool {
    let at = lab.kube().api.with(|m| {
        let s = m.get_mut(&vmid)?;
        if !s.addrs.iter().any(|a| a == addr) {
            s.addrs.push(addr.to_owned());
        }
        Some(s.at)
    });
    if let Some(at) = at {
        lab.route_up(addr, at);
    }
    at.is_some()
}

/// Takes an address back.
pub fn withdraw(lab: &Lab, vmid: u32, addr: &str) {
    let had = lab.kube().api.with(|m| {
        m.get_mut(&vmid).is_some_and(|s| {
            let n = s.addrs.len();
            s.addrs.retain(|a| a != addr);
            s.addrs.len() < n
        })
    });
    if had {
        lab.route_down(addr);
    }
}

async fn accept(
    lab: Lab,
    cluster: String,
    vmid: u32,
    socket: tokio::net::TcpListener,
    tls: tokio_rustls::TlsAcceptor,
    stop: CancellationToken,
) {
    let cluster: Arc<str> = cluster.into();
    loop {
        let stream = tokio::select! {
            s = socket.accept() => s,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = stream else { continue };
        let _ = stream.set_nodelay(true);
        let (lab, cluster, tls, stop) = (lab.clone(), cluster.clone(), tls.clone(), stop.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let cert = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|c| c.first())
                .and_then(|c| User::from_cert(c.as_ref(), lab.clock().now_ms()));
            let service = hyper::service::service_fn(move |r| {
                let (lab, cluster, cert) = (lab.clone(), cluster.clone(), cert.clone());
                async move {
                    let answer = one(&lab, &cluster, vmid, cert, r).await;
                    answer.extensions().get::<Cut>().copied().map_or(Ok(answer), Err)
                }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let conn = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::select! { _ = conn => {}, () = stop.cancelled() => {} }
        });
    }
}

async fn one(
    lab: &Lab,
    cluster: &str,
    vmid: u32,
    cert: Option<User>,
    mut r: http::Request<hyper::body::Incoming>,
) -> http::Response<Body> {
    let upgrade = r.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut r));
    let (head, body) = r.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let ours = header("x-gpuhost-clock") == "shared";
    let body = match body.collect().await {
        Ok(b) => b.to_bytes(),
        Err(_) => bytes::Bytes::new(),
    };
    let headers = head.headers.iter().map(|(k, v)| (k.as_str().to_owned(), v.to_str().unwrap_or_default().to_owned()));
    let req = Request {
        method: head.method.clone(),
        path: head.uri.path().to_owned(),
        query: Query::parse(head.uri.query().unwrap_or_default()),
        accept: header("accept"),
        content_type: super::media_type(&header("content-type")).to_owned(),
        agent: header("user-agent"),
        headers: headers.chain(head.uri.query().map(|q| (":query".to_owned(), q.to_owned()))).collect(),
        body,
        upgrade,
        client: if ours { Client::Ours } else { Client::Foreign },
    };
    handle(lab, cluster, vmid, cert, &req).await
}
