//! A man in the middle of client and lab: it delays, loses answers, breaks as Proxmox's own proxy does.
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use gpuhost_lab::tls::{self, Pair};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What happens to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mishap {
    /// It takes this many milliseconds of real time longer.
    Slow(u64),
    /// It is carried out, but the connection ends before the answer.
    AnswerLost,
    /// It is carried out, but the answer is `596` as after Proxmox's 30 seconds.
    Broken,
    /// It is never carried out: the connection ends.
    RequestLost,
    /// It is refused with this status and text, and not carried out.
    Refused(u16, String),
}

/// Decides by method and path.
pub type Decide = Arc<dyn Fn(&str, &str) -> Option<Mishap> + Send + Sync>;

/// A running proxy; it ends with its handle.
pub struct Proxy {
    at: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    connector: TlsConnector,
    decide: Decide,
}

impl Proxy {
    /// Listens on a port of its own with the lab's certificate.
    ///
    /// # Errors
    /// When the port cannot be bound or the certificates cannot be read.
    pub async fn start(leaf: &Pair, ca: &str, upstream: SocketAddr, decide: Decide) -> std::io::Result<Proxy> {
        let acceptor = TlsAcceptor::from(tls::server_config(leaf, None, &["http/1.1"])?);
        let mut roots = rustls::RootCertStore::empty();
        for c in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(c.map_err(std::io::Error::other)?).map_err(std::io::Error::other)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let shared = Arc::new(Shared { upstream, connector: TlsConnector::from(Arc::new(config)), decide });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(connection(shared.clone(), acceptor.clone(), socket));
            }
        });
        Ok(Proxy { at, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn at(&self) -> SocketAddr {
        self.at
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(shared: Arc<Shared>, acceptor: TlsAcceptor, socket: TcpStream) {
    socket.set_nodelay(true).ok();
    let Ok(stream) = acceptor.accept(socket).await else { return };
    let service = hyper::service::service_fn(move |r| {
        let shared = shared.clone();
        async move { handle(&shared, r).await }
    });
    // An error of the service ends the connection without an answer: that is a lost one.
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

fn say(status: u16, text: &str) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let mut out = Response::builder()
        .status(status)
        .header("content-type", "application/json;charset=UTF-8")
        .body(Full::from(format!("{{\"data\":null,\"message\":{}}}", serde_json::Value::from(format!("{text}\n")))))
        .map_err(std::io::Error::other)?;
    if let Ok(reason) = hyper::ext::ReasonPhrase::try_from(text.as_bytes()) {
        out.extensions_mut().insert(reason);
    }
    Ok(out)
}

#[allow(clippy::disallowed_methods)] // the delay of a wire is real time
async fn handle(shared: &Shared, r: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let path = r.uri().path().trim_start_matches("/api2/json").to_owned();
    let mishap = (shared.decide)(r.method().as_str(), &path);
    let lost = || std::io::Error::other("lost on purpose");
    match &mishap {
        Some(Mishap::RequestLost) => return Err(lost()),
        Some(Mishap::Refused(status, text)) => return say(*status, text),
        Some(Mishap::Slow(ms)) => tokio::time::sleep(std::time::Duration::from_millis(*ms)).await,
        _ => {}
    }
    let answer = forward(shared, r).await.map_err(std::io::Error::other)?;
    match mishap {
        Some(Mishap::AnswerLost) => Err(lost()),
        Some(Mishap::Broken) => say(596, "Connection timed out"),
        _ => Ok(answer),
    }
}

async fn forward(
    shared: &Shared,
    r: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let socket = TcpStream::connect(shared.upstream).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("10.0.0.2")?;
    let stream = shared.connector.connect(name, socket).await?;
    let (mut sender, conn) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        conn.await.ok();
    });
    let (head, body) = r.into_parts();
    let body = Full::new(body.collect().await?.to_bytes());
    let (head, body) = sender.send_request(Request::from_parts(head, body)).await?.into_parts();
    let bytes = body.collect().await?.to_bytes();
    Ok(Response::from_parts(head, Full::new(bytes)))
}

/// Nothing goes wrong.
#[must_use]
pub fn calm() -> Decide {
    Arc::new(|_, _| None)
}
